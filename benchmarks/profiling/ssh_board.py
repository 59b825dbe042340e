"""A board by SSH on loopback: `python -m benchmarks.profiling.ssh_board`.

The board is that of tests/systems/board.py: an sshd with a home and a Python of its own
(tflite-runtime, numpy). First sample: from the call of a worker until its reply with one timed run
is back, each time over a new connection; with nothing on the board yet (a folder that is not
there: our runner, the model and one input go over), and again with all bytes already there. p50:
the same file with the same version of tflite-runtime, over SSH and in an environment of this
machine, by turns of milliseconds on the same core as `slipway compare` does it; the interval (95 %)
of the ratio is over rounds of one process each. The net is MLPerf Tiny's for visual wake words,
from SLIPWAY_DATA.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.profiling import page
from pipeline import manifest, params
from pipeline.measurement import Interval
from pipeline.profiling import summary, workers
from pipeline.profiling.bench import Preset
from pipeline.profiling.measure import TURN_NS
from pipeline.profiling.statistics import turns_ratio_interval
from pipeline.profiling.workers import Job
from pipeline.transports.ssh import Ssh
from tests.systems import board as boards

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SLIPWAY_DATA", ROOT.parent / "shared" / "data"))
MODEL, SHAPE = DATA / "mlperf-tiny/models/vww_96_float.tflite", (96, 96, 3)
NUM_TIMES, NUM_ROUNDS = 9, 12
LIMIT_S, LIMIT_AGAIN_S, TOLERANCE = 3.0, 1.5, 0.05
ONE_RUN = Preset(num_restarts=1, warmup_s=0.0, timed_s=0.0, min_samples=1)
ROUND = Preset(num_restarts=1, warmup_s=0.3, timed_s=0.7, min_samples=11)
QUIET = 1.5  # load average above which the page says that it was not


@dataclass(frozen=True)
class Found:
    """Seconds to the first sample, and the replies of each round: over SSH, local."""

    first_s: list[float]
    again_s: list[float]
    rounds: list[list[dict[str, Any]]]

    @property
    def ratio(self) -> Interval:
        """p50 over SSH to local."""
        return turns_ratio_interval([summary.turn_ratios(*pair) for pair in self.rounds], seed=0)

    @property
    def p50_ms(self) -> list[float]:
        """Over SSH, and local."""
        sides = zip(*self.rounds, strict=True)
        return [float(np.median(np.concatenate(list(map(summary.per_run_ms, s))))) for s in sides]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=NUM_TIMES)
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if (reason := boards.missing()) is not None:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as name, boards.running(Path(name) / "board") as board:
        found = measure(board, Path(name), options.times, options.rounds)
    write(found, load)


def measure(board: boards.Board, folder: Path, num_times: int, num_rounds: int) -> Found:
    artifact, inputs = folder / "net-fp32", folder / "inputs.npz"
    artifact.mkdir()
    (artifact / "model.tflite").write_bytes(MODEL.read_bytes())
    manifest.write(artifact, model="net", stage="convert")
    raw = np.random.default_rng(0).uniform(0, 1, (1, *SHAPE)).astype(np.float32)
    np.savez(inputs, inputs=raw)

    def job(connection: params.Connection | None) -> Job:
        target = page.target_of("tflite_runtime", "to_litert", connection, "device-tflite")
        return workers.job_of(artifact, inputs, target)

    first_s: list[float] = []
    again_s: list[float] = []
    for number in range(num_times):
        there = board.connection(folder=f"slipway-{number}")
        for seconds in (first_s, again_s):
            seconds.append(seconds_to_first_sample(job(there), there))
    pair, plan = [job(board.connection()), job(None)], ROUND.plan()
    rounds = [workers.in_turns(pair, TURN_NS, number, plan=plan) for number in range(num_rounds)]
    return Found(first_s, again_s, rounds)


def seconds_to_first_sample(job: Job, connection: params.Ssh) -> float:
    disconnect(connection)
    started = time.perf_counter()
    with workers.started(job, "latency", plan=ONE_RUN.plan()) as worker:
        assert len(worker.result()["samples_ns"]) == 1
        return time.perf_counter() - started


def disconnect(connection: params.Ssh) -> None:
    """End the connection that earlier calls share, if there is one."""
    ssh, *options, _ = Ssh(connection).line("true")
    subprocess.run([ssh, "-O", "exit", *options], capture_output=True, check=False)


def write(found: Found, load: float) -> Path:
    over_ssh, local = found.p50_ms
    ratio = found.ratio
    within = 1 - TOLERANCE <= ratio.lower <= ratio.upper <= 1 + TOLERANCE
    rows = [
        seconds("first sample, nothing there yet", found.first_s, LIMIT_S),
        seconds("first sample, bytes already there", found.again_s, LIMIT_AGAIN_S),
        (
            f"p50 over SSH ({over_ssh:.3f} ms) to local ({local:.3f} ms)",
            f"95 % interval within +-{TOLERANCE:.0%}",
            f"{ratio.value:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})",
            "met" if within else "not met",
        ),
    ]
    noise = "" if load < QUIET else " The machine was busy: to be run again on a quiet one."
    version = found.rounds[0][0]["facts"]["version"]
    lines = [
        f"tflite-runtime {version}; load average {load:.1f} at the start,",
        f"{page.load_average()}.{noise}",
        "To repeat: `python -m benchmarks.profiling.ssh_board`.",
        "",
        *page.table(("", "asked", "found", ""), rows),
    ]
    return page.write("ssh_board", "A board by SSH", lines, __doc__)


def seconds(what: str, times: list[float], limit_s: float) -> tuple[str, str, str, str]:
    """Write a row: the median and the worst of so many, against what is asked of each."""
    middle, worst = statistics.median(times), max(times)
    found = f"median {middle:.2f} s, worst {worst:.2f} s of {len(times)}"
    return what, f"{limit_s:g} s", found, "met" if worst <= limit_s else "not met"


if __name__ == "__main__":
    main()
