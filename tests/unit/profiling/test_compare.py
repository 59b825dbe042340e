"""Comparisons of two artifacts: verdicts by intervals alone, two looks at most."""

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import manifest, params
from pipeline.errors import TargetError
from pipeline.measurement import Drop, Interval
from pipeline.profiling import compare, quality
from pipeline.profiling.bench import Bench, Candidate, Preset

TINY = Preset(num_restarts=3, warmup_s=0.01, timed_s=0.02, min_samples=6)
RAW = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
WEIGHTS = np.array([[1, -1], [-1, 1]], np.float32)
LABELS = (RAW @ WEIGHTS).argmax(axis=1)


@pytest.fixture(scope="module")
def bench(target, make_inputs):
    return Bench("x86", target, {"fingerprint": "sha256:f"}, make_inputs(RAW), LABELS, TINY)


@pytest.fixture(scope="module")
def make_chain(tmp_path_factory):
    """An artifact that multiplies by the weights, then so many times by the identity."""

    def make(num_more, weights=WEIGHTS):
        folder = tmp_path_factory.mktemp("chains") / f"chain-{num_more}"
        folder.mkdir()
        names = ["input", *(f"h{i}" for i in range(num_more)), "output"]
        nodes = [
            helper.make_node("MatMul", [a, "weights" if i == 0 else "same"], [b])
            for i, (a, b) in enumerate(itertools.pairwise(names))
        ]
        constants = {"weights": weights, "same": np.eye(2, dtype=np.float32)}
        graph = helper.make_graph(
            nodes,
            "chain",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
        onnx.save(model, folder / "model.onnx")
        manifest.write(folder, model="tiny", stage="convert", preprocessing=())
        return Candidate(folder.name, folder)

    return make


LATENCIES = {
    "wholly above the tolerance": ((1.05, 1.03, 1.07), "worse"),
    "above 1, not above the tolerance": ((1.03, 1.01, 1.05), "inconclusive"),
    "wholly below the tolerance": ((0.9, 0.85, 0.97), "better"),
    "below 1, not below the tolerance": ((0.97, 0.95, 0.99), "inconclusive"),
    "within the tolerance": ((1.0, 0.99, 1.01), "unchanged"),
    "wide": ((1.5, 0.7, 3.0), "inconclusive"),
}


@pytest.mark.parametrize(("ratio", "verdict"), LATENCIES.values(), ids=LATENCIES)
def test_latency_is_judged_by_its_whole_interval(ratio, verdict):
    assert compare.of_latency(Interval(*ratio), 0.02) == verdict


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [((0.1, 2.0), "worse"), ((-2.0, -0.1), "better"), ((-0.1, 2.0), "inconclusive")],
)
def test_quality_is_judged_by_whether_its_interval_holds_no_difference(bounds, verdict):
    lower, upper = bounds
    assert compare.of_quality(Drop((lower + upper) / 2, lower, upper, 100, 5)) == verdict
    assert compare.of_quality(None) is None


def against(before, after, bench, max_rounds=12, tolerance_ratio=0.02):
    notes = []
    found = compare.compare(
        before, after, bench, tolerance_ratio=tolerance_ratio, max_rounds=max_rounds,
        on_step=notes.append,
    )  # fmt: skip
    assert sum("round" in note for note in notes) == found.after.num_restarts
    return found


def test_much_more_work_and_wrong_classes_are_worse(bench, make_chain):
    found = against(make_chain(0), make_chain(400, WEIGHTS[:, ::-1]), bench)
    assert (found.latency, found.quality) == ("worse", "worse")
    assert found.ratio.lower > 1.02
    assert found.after.drop.value == 100
    assert found.before.latency_ratio is None
    assert found.after.num_restarts == found.before.num_restarts == 4
    turned = against(make_chain(400), make_chain(0), bench)
    assert (turned.latency, turned.quality) == ("better", "inconclusive")


@pytest.mark.parametrize(("max_rounds", "looks"), [(2, {2}), (6, {4, 6})])
def test_it_is_looked_at_twice_at_most(bench, make_chain, max_rounds, looks):
    same = make_chain(100)
    found = against(same, same, bench, max_rounds, tolerance_ratio=0)
    assert found.after.num_restarts in looks
    if found.latency == "inconclusive":
        assert found.after.num_restarts == max_rounds
    assert found.quality == "inconclusive"


def test_what_is_judged_against_fp32_has_no_quality_without_it(bench, make_chain):
    judge = quality.judge_of(params.Task(kind="agreement", metric="top1"))
    unlabelled = dataclasses.replace(bench, labels=None, judge=judge)
    found = against(make_chain(0), make_chain(400, WEIGHTS[:, ::-1]), unlabelled)
    assert (found.latency, found.quality) == ("worse", None)
    assert [m.quality or m.drop for m in (found.before, found.after)] == [None, None]


def test_a_model_that_does_not_run_is_named(bench, make_chain, make_artifact):
    odd = Candidate("odd", make_artifact(WEIGHTS, "odd", ("Nonsense", "acme")))
    with pytest.raises(TargetError, match=r"odd cannot be compared: .*Nonsense"):
        against(make_chain(0), odd, bench)
