"""MLPerf's own LoadGen drives a session, and its verdict is what counts.

LoadGen issues the queries, takes the times and judges the run by the rules of MLPerf Inference; we
answer. It measures performance alone: answers are computed and thrown away. A process runs it once.
"""

from __future__ import annotations

import json
import queue
import statistics
import tempfile
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

import mlperf_loadgen
import numpy as np

from pipeline.runtimes import clock
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Session, encode_all, of_one

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
INLINE = ("SingleStream", "MultiStream")  # answered where they are issued
SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
NS_PER_MS = 1e6
NS_PER_S = 1e9
MIN_PILOT_SAMPLES = 5
# LoadGen makes its queries beforehand, from a time that it is told to expect; told that we are so
# much faster than we are, it does not run out of them before the least duration is over. It issues
# no more than it needs, but in Offline, where all are one.
MARGIN, OFFLINE_MARGIN = 4.0, 1.5
_DETAIL_PREFIX = ":::MLLOG "

Request = List[Array]


class Settings(NamedTuple):
    """What LoadGen is asked for; ``seed`` is of its samples and of its schedule.

    ``queries_per_s`` and ``target_latency_ms`` are of Server, which passes if 99 % of queries are
    answered within that; ``min_query_count`` of Offline counts samples.
    """

    scenario: str
    min_duration_ms: int
    min_query_count: int
    warmup_ns: int
    batch_size: int = 1
    num_streams: int = 1
    num_threads: int = 1
    samples_per_query: int = 8
    queries_per_s: Optional[float] = None
    target_latency_ms: Optional[float] = None
    seed: int = 0


def run_load(
    load_model: Callable[[int, int], Session], tensors: Array, settings: Mapping[str, Any]
) -> Dict[str, Any]:
    """Let LoadGen judge a model.

    Args:
        load_model: called with ``num_threads`` and ``batch_size``.
        tensors: [N, ...] preprocessed, structured where there are several inputs; LoadGen draws
            from all of them, with replacement.
        settings: the fields of `Settings`.

    Returns:
        For JSON: LoadGen's ``summary``, a text; ``loadgen_version``; ``num_queries`` and
        ``num_samples`` that we answered; the session's ``facts``. Of a model that does not take
        the batch, ``reason`` alone.

    Raises:
        RunnerError: the scenario is not known, lacks a setting or has one that it does not take, or
            the runtime refused a request.
    """
    asked = _settings(settings)
    try:
        first = load_model(asked.num_threads, asked.batch_size)
    except RunnerError as error:
        return {"reason": " ".join(str(error).split())}
    inputs = of_one(first.inputs)
    samples = [encode_all(tensors[i : i + 1], inputs) for i in range(len(tensors))]
    del first
    with ExitStack() as stack, clock.collector_at_rest():
        system = _System(samples, asked)
        for _ in range(asked.num_streams):
            thread = stack.enter_context(ThreadPoolExecutor(1))
            session = thread.submit(load_model, asked.num_threads, asked.batch_size).result()
            system.streams.append((thread, session))
        each_ns = system.pilot_ns()
        arguments = (system, _test_settings(asked, each_ns), len(samples))
        if system.inline:  # LoadGen issues from the thread that it is started in
            summary, detail = system.streams[0][0].submit(_judge, *arguments).result()
        else:
            summary, detail = _judge(*arguments)
        facts = system.streams[0][1].facts
    return {
        "reason": None,
        "loadgen_version": _detail(detail, "loadgen_version"),
        "num_queries": system.num_queries,
        "num_samples": system.num_samples,
        "facts": facts,
        "summary": summary,
    }


class _System:
    """The system under test: streams that answer what LoadGen issues."""

    def __init__(self, samples: Sequence[Request], asked: Settings) -> None:
        self.streams: List[Any] = []  # (thread, session)
        self.num_queries = 0
        self.num_samples = 0
        self.failure: Optional[Exception] = None
        self._samples = samples
        self._batch_size = asked.batch_size
        self.inline = asked.scenario in INLINE
        self._serving: List["Future[None]"] = []
        self._waiting: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._plan = clock.Plan(asked.warmup_ns, 0, MIN_PILOT_SAMPLES)

    def pilot_ns(self) -> float:
        """Warm up all streams at once; return the time that a request takes the quickest."""

        def one(session: Session) -> float:
            request = self._join(list(range(self._batch_size)))
            timing = clock.time_runs(lambda: session.run(request), self._plan)
            return statistics.median(timing.samples_ns) / timing.runs_per_sample

        started: List["Future[float]"] = [
            thread.submit(one, session) for thread, session in self.streams
        ]
        return min(each.result() for each in started)

    def start(self) -> None:
        """Let the streams wait for queries; those of one at a time are answered where they come."""
        if not self.inline:
            self._serving = [
                thread.submit(self._serve, session) for thread, session in self.streams
            ]

    def stop(self) -> None:
        """Let the streams end, and return when none is inside LoadGen any more.

        It unblocks its own end before it has done with the last answer.
        """
        for _ in self._serving:
            self._waiting.put(None)
        futures.wait(self._serving)

    def issue(self, samples: Sequence[Any]) -> None:
        """Take a query; LoadGen calls this from a thread of its own."""
        self.num_queries += 1
        self.num_samples += len(samples)
        for start in range(0, len(samples), self._batch_size):
            batch = samples[start : start + self._batch_size]
            if self.inline:
                self._answer(self.streams[0][1], batch)
            else:
                self._waiting.put(batch)

    def flush(self) -> None:
        """Nothing is held back."""

    def _serve(self, session: Session) -> None:
        while True:
            batch = self._waiting.get()
            if batch is None:
                return
            self._answer(session, batch)

    def _answer(self, session: Session, batch: Sequence[Any]) -> None:
        try:
            if self.failure is None:
                session.run(self._join([sample.index for sample in batch]))
        except Exception as error:  # noqa: BLE001 - raised behind LoadGen, which would wait for ever
            self.failure = error
        mlperf_loadgen.QuerySamplesComplete(
            [mlperf_loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in batch]
        )

    def _join(self, indices: List[int]) -> Request:
        if self._batch_size == 1:
            return self._samples[indices[0]]
        # a rest that fills no batch is filled up with its last sample
        indices = indices + indices[-1:] * (self._batch_size - len(indices))
        chosen = [self._samples[index % len(self._samples)] for index in indices]
        return [np.concatenate(values) for values in zip(*chosen)]  # noqa: B905 - Python 3.8


def _settings(settings: Mapping[str, Any]) -> Settings:
    try:
        asked = Settings(**settings)
    except TypeError as error:
        raise RunnerError("what LoadGen is asked for is not one of ours: %s" % error) from error
    if asked.scenario not in SCENARIOS:
        raise RunnerError(
            "LoadGen's scenarios are %s; got %r" % (", ".join(SCENARIOS), asked.scenario)
        )
    if asked.scenario == "Server" and not (asked.queries_per_s and asked.target_latency_ms):
        raise RunnerError(
            "Server needs queries_per_s and target_latency_ms above 0, got %s and %s"
            % (asked.queries_per_s, asked.target_latency_ms)
        )
    if asked.num_streams > 1 and asked.scenario in INLINE:
        raise RunnerError(
            "LoadGen issues one query of %s at a time, which runs in one stream; got num_streams %d"
            % (asked.scenario, asked.num_streams)
        )
    return asked


def _test_settings(asked: Settings, request_ns: float) -> Any:
    """Write what is asked for in LoadGen's terms; ``request_ns`` is of a batch."""
    found = mlperf_loadgen.TestSettings()
    found.scenario = getattr(mlperf_loadgen.TestScenario, asked.scenario)
    found.mode = mlperf_loadgen.TestMode.PerformanceOnly
    found.min_duration_ms = asked.min_duration_ms
    found.min_query_count = asked.min_query_count
    found.qsl_rng_seed = found.sample_index_rng_seed = found.schedule_rng_seed = asked.seed
    is_offline = asked.scenario == "Offline"
    sample_ns = request_ns / asked.batch_size / (OFFLINE_MARGIN if is_offline else MARGIN)
    if asked.scenario == "SingleStream":
        found.single_stream_expected_latency_ns = max(1, round(sample_ns))
    elif asked.scenario == "MultiStream":
        found.multi_stream_samples_per_query = asked.samples_per_query
        expected = round(sample_ns * asked.samples_per_query)
        found.multi_stream_expected_latency_ns = max(1, expected)
    elif is_offline:
        found.offline_expected_qps = NS_PER_S / sample_ns * asked.num_streams
    else:
        assert asked.queries_per_s is not None  # `_settings` saw to it
        assert asked.target_latency_ms is not None
        found.server_target_qps = asked.queries_per_s
        found.server_target_latency_ns = round(asked.target_latency_ms * NS_PER_MS)
        found.server_target_latency_percentile = 0.99
    return found


def _judge(system: _System, settings: Any, num_samples: int) -> Any:
    """Run LoadGen once: ``(summary, detail)``, the texts of its logs."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        output = mlperf_loadgen.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        logs = mlperf_loadgen.LogSettings()
        logs.log_output = output
        logs.enable_trace = False
        answers = mlperf_loadgen.ConstructSUT(system.issue, system.flush)
        # all samples are in memory: there is nothing to load, and nothing to unload
        library = mlperf_loadgen.ConstructQSL(num_samples, num_samples, _nothing, _nothing)
        system.start()
        try:
            mlperf_loadgen.StartTestWithLogSettings(
                answers, library, settings, logs, str(Path(folder) / "no_audit.config")
            )
        finally:
            system.stop()
            mlperf_loadgen.DestroyQSL(library)
            mlperf_loadgen.DestroySUT(answers)
        if system.failure is not None:
            raise system.failure
        return tuple((Path(folder) / name).read_text("utf-8") for name in (SUMMARY, DETAIL))


def _nothing(_indices: Sequence[int]) -> None:
    """Stand in for loading samples."""


def _detail(detail: str, key: str) -> Any:
    """Return the value of the last entry of that key in the log of details."""
    value = None
    for line in detail.splitlines():
        if line.startswith(_DETAIL_PREFIX) and '"%s"' % key in line:
            value = json.loads(line[len(_DETAIL_PREFIX) :])["value"]
    return value
