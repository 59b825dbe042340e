"""MLPerf's LoadGen itself drives our sessions."""

import itertools
import threading
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import manifest, params
from pipeline.profiling import loadgen, workers
from pipeline.profiling.loadgen import Settings
from pipeline.runtimes import clock
from pipeline.runtimes import loadgen as adapter
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Tensor

SIZE = 64
QUICK = {"min_duration_s": 0.5, "warmup_s": 0.1}


@pytest.fixture(scope="module")
def make_job(tmp_path_factory):
    """A job on y = x @ w @ w @ ... in ONNX Runtime; its batch axis is free, or fixed at one."""

    def make(batch="batch"):
        folder = tmp_path_factory.mktemp("artifacts") / "dense-fp32"
        folder.mkdir()
        names = ["input", *(f"h{i}" for i in range(20)), "output"]
        nodes = [
            helper.make_node("MatMul", [before, "w"], [after])
            for before, after in itertools.pairwise(names)
        ]
        weights = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32) / 8
        graph = helper.make_graph(
            nodes, "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, SIZE])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, SIZE])],
            [numpy_helper.from_array(weights, "w")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, folder / "model.onnx")
        manifest.write(folder, model="net", stage="convert", preprocessing=())
        inputs = folder.parent / "inputs.npz"
        np.savez(inputs, inputs=np.random.default_rng(1).normal(size=(10, SIZE)).astype("f4"))
        target = params.Target(
            converter="to_onnxruntime", runtime="onnxruntime",
            convert=params.Convert(precisions=("fp32",)),
            profile=params.Profile(), select=params.Select(),
        )  # fmt: skip
        return workers.job_of(folder, inputs, target)

    return make


RUNS = {
    "SingleStream": Settings("SingleStream", **QUICK),
    "MultiStream, batches": Settings("MultiStream", batch_size=4, **QUICK),
    "Server, two streams": Settings(
        "Server", num_streams=2, queries_per_s=1500.0, target_latency_ms=1000.0, **QUICK
    ),
    "Offline, batches and two streams": Settings(
        "Offline", batch_size=8, num_streams=2, min_query_count=1001, **QUICK
    ),
}


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_loadgen_finds_the_run_valid(settings, make_job):
    found = loadgen.judge(make_job(), settings)
    assert (found.verdict, found.unsatisfied, found.reason) == ("VALID", (), None), found.summary
    assert f"Scenario : {settings.scenario}" in found.summary
    assert "No errors encountered during test." in found.summary
    assert found.loadgen_version.startswith("6.")
    assert 0 < found.percentiles_ms["50"] <= found.percentiles_ms["99.9"]
    assert (found.samples_per_s is not None) == (settings.scenario in ("Server", "Offline"))
    per_query = {"MultiStream": 8, "Offline": found.num_samples}.get(settings.scenario, 1)
    assert found.num_samples == found.num_queries * per_query
    counted = found.num_samples if settings.scenario == "Offline" else found.num_queries
    assert counted >= found.min_query_count


def test_loadgen_finds_too_few_queries_invalid(make_job):
    settings = Settings("MultiStream", min_duration_s=0.0, min_query_count=100, warmup_s=0.0)
    found = loadgen.judge(make_job(), settings)
    assert (found.verdict, found.unsatisfied) == ("INVALID", ("Early stopping satisfied",))
    assert found.estimates_ms == {}


def test_loadgen_finds_a_server_that_is_too_slow_invalid(make_job):
    settings = Settings("Server", queries_per_s=200.0, target_latency_ms=1e-6, **QUICK)
    found = loadgen.judge(make_job(), settings)
    assert found.verdict == "INVALID"
    assert "Performance constraints satisfied" in found.unsatisfied


def test_a_file_that_takes_no_batch_says_so(make_job):
    found = loadgen.judge(make_job(batch=1), Settings("Offline", batch_size=8, **QUICK))
    assert found.verdict is None
    assert "takes no batch of 8" in found.reason


class Noting:
    """A session that notes in which threads it is opened and run."""

    def __init__(self):
        self.inputs = self.outputs = (Tensor("x", "float32", (1, 1)),)
        self.facts = {}
        self.threads = {threading.get_ident()}

    def run(self, inputs):
        self.threads.add(threading.get_ident())
        return inputs


@pytest.mark.parametrize("scenario", adapter.SCENARIOS)
def test_a_session_is_opened_and_run_in_one_thread(scenario):
    """A CUDA context is current in its own thread alone."""
    opened = []

    def load_model(*_):
        opened.append(Noting())
        return opened[-1]

    settings = {
        "scenario": scenario, "min_duration_ms": 0, "min_query_count": 700, "warmup_ns": 0,
        "num_streams": 1 if scenario in adapter.INLINE else 2,
        "queries_per_s": 5000.0, "target_latency_ms": 500.0,
    }  # fmt: skip
    assert adapter.run_load(load_model, np.ones((3, 1)), settings)["num_samples"] >= 700
    assert {len(session.threads) for session in opened} == {1}


class Failing:
    """A session that refuses its hundredth request."""

    def __init__(self):
        self.inputs = self.outputs = (Tensor("x", "float32", (1, 1)),)
        self.facts = {}
        self.num_requests = 0

    def run(self, inputs):
        self.num_requests += 1
        if self.num_requests >= 100:
            raise RunnerError("the runtime refuses the request: it is the hundredth")
        return inputs


@pytest.mark.parametrize("scenario", adapter.SCENARIOS)
def test_a_request_that_fails_ends_the_run_with_its_reason(scenario, monkeypatch):
    """LoadGen waits for every answer: it must get one, though nothing more is computed."""
    pilot = SimpleNamespace(samples_ns=[100_000], runs_per_sample=1)
    monkeypatch.setattr(clock, "time_runs", lambda *_: pilot)
    opened = []

    def load_model(*_):
        opened.append(Failing())
        return opened[-1]

    settings = {
        "scenario": scenario, "min_duration_ms": 0, "min_query_count": 200, "warmup_ns": 0,
        "queries_per_s": 5000.0, "target_latency_ms": 5.0,
    }  # fmt: skip
    with pytest.raises(RunnerError, match="it is the hundredth"):
        adapter.run_load(load_model, np.ones((3, 1)), settings)
    assert opened[-1].num_requests == 100


WRONG = {
    "an unknown scenario": ({"scenario": "Burst"}, r"scenarios are Single.*; got 'Burst'"),
    "a setting of another version": ({"scenario": "Offline", "burst": 2}, "not one of ours: "),
    "a server without its limit": (
        {"scenario": "Server", "queries_per_s": 5.0},
        r"Server needs queries_per_s and target_latency_ms above 0, got 5\.0 and None",
    ),
    "streams for queries one at a time": (
        {"scenario": "MultiStream", "num_streams": 2},
        "LoadGen issues one query of MultiStream at a time, .* one stream; got num_streams 2",
    ),
}


@pytest.mark.parametrize(("changed", "words"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_asked_for_is_one_line(changed, words):
    settings = {"min_duration_ms": 0, "min_query_count": 1, "warmup_ns": 0, **changed}
    with pytest.raises(RunnerError, match=words):
        adapter.run_load(lambda *_: Failing(), np.ones((3, 1)), settings)
