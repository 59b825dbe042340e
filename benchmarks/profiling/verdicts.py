"""How often `slipway compare` is wrong: `python -m benchmarks.profiling.verdicts`.

A file against itself, again and again: "worse" should be rare (at most 6 of 100). A file against
one that holds exactly 10 % more work, the same block 11 times and 10 times: "worse" should be the
rule (at least 45 of 50). Both kinds of comparison take turns, so that the machine's state meets
both. The procedure is that of `slipway compare` with its tolerance and rounds; a round is shorter
than of the preset `quick`, which makes its task harder.
"""

import collections
import itertools
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.profiling import page
from pipeline import manifest
from pipeline.profiling import compare, measure
from pipeline.profiling.bench import Bench, Candidate, Preset
from pipeline.targets import device

ROOT = Path(__file__).parents[2]
NUM_SAME, NUM_SLOWER = 100, 50
MOST_FALSE, LEAST_FOUND = 6, 45
BLOCKS, MORE_BLOCKS = 10, 11
ROWS, WIDTH = (
    16,
    256,
)  # a block is 1 M multiply-accumulates: small beside caches, large beside calls
TOLERANCE, MAX_ROUNDS = 0.02, 12
ROUND = Preset(num_restarts=4, warmup_s=0.1, timed_s=0.2, min_samples=4)
Seen = collections.Counter[str]


def main() -> None:
    num_same, num_slower = (int(n) for n in sys.argv[1:] or (NUM_SAME, NUM_SLOWER))
    same: Seen = collections.Counter()
    slower: Seen = collections.Counter()
    ratios: dict[str, list[float]] = {"same": [], "slower": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, twin = (artifact(folder / part, BLOCKS) for part in ("one", "twin"))
        more = artifact(folder / "more", MORE_BLOCKS)
        bench = make_bench(folder)
        for index in range(max(num_same, num_slower)):
            if index < num_same:
                judge(one, twin, bench, same, ratios["same"])
            if index < num_slower:
                judge(one, more, bench, slower, ratios["slower"])
            print(index + 1, "same", dict(same), "slower", dict(slower), flush=True)
    write(same, slower, ratios)


def judge(
    before: Candidate, after: Candidate, bench: Bench, seen: Seen, ratios: list[float]
) -> None:
    found = compare.compare(before, after, bench, tolerance_ratio=TOLERANCE, max_rounds=MAX_ROUNDS)
    seen[found.latency] += 1
    ratios.append(found.ratio.value)


def artifact(folder: Path, num_blocks: int) -> Candidate:
    """Write a chain of equal blocks: a product, whose result is scaled to keep its size."""
    folder.mkdir()
    weights = np.random.default_rng(0).normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
    names = ["input", *(f"h{i}" for i in range(num_blocks - 1)), "output"]
    pairs = itertools.pairwise(names)
    nodes = [helper.make_node("MatMul", [a, "weights"], [b]) for a, b in pairs]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", ROWS, WIDTH])
        for name in ("input", "output")
    ]
    constants = [numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "blocks", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    manifest.write(folder, model="blocks", stage="convert")
    return Candidate(folder.name, folder)


def make_bench(folder: Path) -> Bench:
    inputs = folder / "inputs.npz"
    raw = np.random.default_rng(1).normal(size=(16, ROWS, WIDTH)).astype(np.float32)
    np.savez(inputs, inputs=raw)
    target = page.target_of("onnxruntime", "to_onnxruntime")
    labels = np.zeros(len(raw), np.int64)
    return Bench("bench", target, device.describe(), inputs, labels, ROUND)


def write(same: Seen, slower: Seen, ratios: dict[str, list[float]]) -> None:
    verdicts = ("better", "worse", "unchanged", "inconclusive")
    rows = []
    for what, seen, found, asked in (
        ("the same file", same, ratios["same"], f"at most {MOST_FALSE} of {NUM_SAME} worse"),
        (
            "10 % more work",
            slower,
            ratios["slower"],
            f"at least {LEAST_FOUND} of {NUM_SLOWER} worse",
        ),
    ):
        low, middle, high = np.percentile(found, (5, 50, 95))
        counts = (str(seen[verdict]) for verdict in verdicts)
        spread = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        rows.append((what, str(seen.total()), *counts, spread, asked))
    head = ("compared", "times", *verdicts, "ratio of p50: median (5 to 95 %)", "asked")
    lines = [
        f"onnxruntime {version('onnxruntime')}; {page.load_average()}.",
        f"Tolerance {TOLERANCE:.0%}, at most {MAX_ROUNDS} rounds of {ROUND.warmup_s} +",
        f"{ROUND.timed_s} s, in turns of {measure.TURN_NS / 1e6:g} ms.",
        "To repeat: `python -m benchmarks.profiling.verdicts`.",
        "",
        *page.table(head, rows),
    ]
    page.write("verdicts", "Verdicts of `slipway compare`", lines, __doc__)


if __name__ == "__main__":
    main()
