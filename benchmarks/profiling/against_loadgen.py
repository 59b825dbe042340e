"""Our p50 against two other harnesses', and our own part: `python -m benchmarks.profiling.against_loadgen`.

The same file in the same runtime on one thread, SingleStream. Each figure is a process of its own;
those of a round share a core by turns of 0.1 s, in which the others are stopped, since on a shared
machine a core goes at half its speed for seconds at a time. The ratio is the median over rounds,
its interval (95 %) that of order statistics.

- MLPerf LoadGen drives the same adapter: what differs is who issues, warms up and takes the time.
- OpenVINO's benchmark_app (synchronous, one stream, f32, threads not pinned, as ours) has a loop
  of its own. It leaves out copying the input in and the output out, which ours has within a run;
  it tells times to 0.01 ms.

Then a net of some 20 us: what a run costs beside the runtime, by the same loop around a call that
does nothing, batched as such a net is; and what LoadGen, which times every run by itself, finds.
"""  # noqa: E501 - the command is one line

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.profiling import by_turns, page
from pipeline import manifest, params
from pipeline.profiling import loadgen, workers
from pipeline.profiling.bench import Preset
from pipeline.profiling.loadgen import Settings
from pipeline.profiling.workers import Job

ROOT = Path(__file__).parents[2]
SHAPE, NUM_CLASSES, WIDTH = (3, 224, 224), 10, 1.0  # 14 ms of MobileNetV1, 0.6 MB to copy in
SMALL = 128  # the small net's features
NUM_ROUNDS, SECONDS = 20, 8.0  # of which each has its share
TOLERANCE, MAX_OVERHEAD_US = 0.05, 1.0
ROUND = Preset(num_restarts=1, warmup_s=0.5, timed_s=SECONDS, min_samples=11)
TOOLS = ("openvino", "onnxruntime", "mlcommons-loadgen")
RUNTIMES: tuple[params.Runtime, ...] = ("openvino", "onnxruntime")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--runtime", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        print(p50_ms(options.side, options.runtime, options.folder))
        return
    num_rounds = options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        rows = []
        for runtime in RUNTIMES:
            rows += compare(runtime, folder, num_rounds)
        small = job_of(folder / "small", "onnxruntime")
        overhead = [workers.call(small, "latency", plan=ROUND.plan()) for _ in range(num_rounds)]
        theirs = [loadgen_p50_ms(small) * 1e3 for _ in range(3)]
    write(rows, overhead, theirs, num_rounds)


def build(folder: Path) -> None:
    """Write folder/RUNTIME/model.* of one net, and folder/small; each an artifact with inputs."""
    import torch

    from pipeline.conversion import to_openvino
    from pipeline.conversion.candidates import Variant
    from pipeline.conversion.to_onnx import to_onnx
    from pipeline.nets import factory

    torch.manual_seed(0)
    cfg = params.Net(name="mobilenet_v1", args={"width": WIDTH})
    net = factory.build(cfg, SHAPE, NUM_CLASSES).eval()
    path = folder / "onnxruntime/model.onnx"
    path.parent.mkdir()
    to_onnx(net, torch.zeros(1, *SHAPE), path, 20)
    exported = manifest.write(path.parent, model="net", stage="export")
    variant = Variant("net", path, None, exported)
    precisions: tuple[params.Precision, ...] = ("fp32",)
    asked = params.Convert(precisions=precisions)
    nothing = np.zeros((0, *SHAPE), np.float32)
    (outcome,) = to_openvino.convert(variant, precisions, nothing, asked, folder / "converted")
    assert outcome.path is not None
    (folder / "openvino").mkdir()
    for file in outcome.path.parent.glob("model.*"):
        file.rename(folder / "openvino" / file.name)
    write_small(folder / "small")
    generator = np.random.default_rng(0)
    for name, shape in (("onnxruntime", SHAPE), ("openvino", SHAPE), ("small", (SMALL,))):
        for file in (folder / name).glob("manifest.json"):
            file.unlink()
        manifest.write(folder / name, model="net", stage="convert")
        inputs = generator.normal(size=(8, *shape)).astype(np.float32)
        np.savez(folder / f"{name}.npz", inputs=inputs)


def write_small(folder: Path) -> None:
    """Write some products after one another, with a tanh behind each."""
    folder.mkdir()
    weights = np.random.default_rng(0).normal(0, SMALL**-0.5, (SMALL, SMALL)).astype(np.float32)
    nodes = []
    for before, after in itertools.pairwise(["input", "a", "b", "c", "output"]):
        nodes.append(helper.make_node("MatMul", [before, "weights"], [f"{after}_sum"]))
        nodes.append(helper.make_node("Tanh", [f"{after}_sum"], [after]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", SMALL])
        for name in ("input", "output")
    ]
    constants = [numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], constants)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), folder / "model.onnx")


def job_of(artifact: Path, runtime: params.Runtime) -> Job:
    converter: params.Converter = "to_openvino" if runtime == "openvino" else "to_onnxruntime"
    target = page.target_of(runtime, converter)
    return workers.job_of(artifact, artifact.with_suffix(".npz"), target)


def our_p50_ms(job: Job) -> float:
    found = workers.call(job, "latency", plan=ROUND.plan())
    return float(statistics.median(found["samples_ns"]) / found["runs_per_sample"] / 1e6)


def loadgen_p50_ms(job: Job) -> float:
    settings = Settings(min_duration_s=SECONDS, min_query_count=64, warmup_s=ROUND.warmup_s)
    found = loadgen.judge(job, settings)
    assert found.verdict == "VALID", found.summary
    assert found.p50_ms is not None
    return found.p50_ms


def benchmark_app_p50_ms(model: Path, folder: Path) -> float:
    tool = Path(sys.executable).with_name("benchmark_app")
    options = {
        "-m": model, "-d": "CPU", "-api": "sync", "-hint": "none", "-nstreams": 1, "-nthreads": 1,
        "-pin": "NO", "-infer_precision": "f32", "-t": round(SECONDS),
        "-report_type": "no_counters", "-report_folder": folder,
    }  # fmt: skip
    arguments = [str(part) for option in options.items() for part in option]
    # CI: it reports to nobody
    done = subprocess.run(
        [tool, *arguments, "-json_stats"],
        env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"benchmark_app failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    report = json.loads((folder / "benchmark_report.json").read_text())
    return float(report["execution_results"]["latency (ms)"])


def p50_ms(side: str, runtime: params.Runtime, folder: Path) -> float:
    """Measure one side; what runs in a process of its own."""
    job = job_of(folder / runtime, runtime)
    if side == "ours":
        return our_p50_ms(job)
    return loadgen_p50_ms(job) if side == "LoadGen" else benchmark_app_p50_ms(job.model, folder)


def compare(runtime: params.Runtime, folder: Path, num_rounds: int) -> list[tuple[str, ...]]:
    """Give a row for each other harness: both medians of p50, the ratio with its interval."""
    sides = ("ours", "LoadGen", *(("benchmark_app",) if runtime == "openvino" else ()))
    program = (sys.executable, "-m", "benchmarks.profiling.against_loadgen", "--folder", folder)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(num_rounds):
        order = sides if index % 2 == 0 else tuple(reversed(sides))
        commands = {
            side: [*map(str, program), "--runtime", runtime, "--side", side] for side in order
        }
        for side, line in by_turns.run(commands, index).items():
            found[side].append(float(line))
        said = ", ".join(f"{name} {values[-1]:.3f} ms" for name, values in found.items())
        print(f"{runtime}, round {index + 1}: {said}", flush=True)
    rows: list[tuple[str, ...]] = []
    for name in list(sides)[1:]:
        ratio = page.median_ratio(found["ours"], found[name])
        within = ratio.lower >= 1 - TOLERANCE and ratio.upper <= 1 + TOLERANCE
        rows.append(
            (
                f"{runtime}: ours / {name}",
                f"{statistics.median(found['ours']):.3f}",
                f"{statistics.median(found[name]):.3f}",
                f"{ratio.value:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})",
                f"within {1 - TOLERANCE:.2f} to {1 + TOLERANCE:.2f}: {'yes' if within else 'NO'}",
            )
        )
    return rows


def write(
    rows: list[tuple[str, ...]], small: list[dict[str, Any]], theirs: list[float], rounds: int
) -> None:
    p50s = [statistics.median(r["samples_ns"]) / r["runs_per_sample"] / 1e3 for r in small]
    overheads = [reply["loop_overhead_ns"] / 1e3 for reply in small]
    verdict = "yes" if max(overheads) < MAX_OVERHEAD_US else "NO"
    small_rows = [
        (
            f"our p50, samples of {small[0]['runs_per_sample']} runs",
            f"{statistics.median(p50s):.2f} ({min(p50s):.2f} to {max(p50s):.2f})",
            "",
        ),
        (
            "of a run, what is not the runtime's: loop and timer",
            f"{statistics.median(overheads):.3f} (at most {max(overheads):.3f})",
            f"below {MAX_OVERHEAD_US:g}: {verdict}",
        ),
        ("LoadGen's p50, every run by itself", f"{statistics.median(theirs):.2f}", ""),
    ]
    tools = ", ".join(f"{tool} {version(tool)}" for tool in TOOLS)
    shape = "x".join(map(str, SHAPE))
    lines = [
        f"{tools}; {page.load_average()}.",
        f"MobileNetV1, width {WIDTH:g}, inputs {shape}, fp32, one thread; {rounds} rounds of",
        f"{SECONDS:g} s. To repeat: `python -m benchmarks.profiling.against_loadgen`.",
        "",
        *page.table(
            ("compared", "ours, p50 in ms", "theirs", "ratio (95 % interval)", "asked"), rows
        ),
        "",
        *page.table((f"net of {statistics.median(p50s):.0f} us", "us", "asked"), small_rows),
    ]
    page.write("against_loadgen", "Our p50 against LoadGen's and benchmark_app's", lines, __doc__)


if __name__ == "__main__":
    main()
