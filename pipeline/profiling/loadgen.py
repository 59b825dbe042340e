"""MLPerf's verdict: LoadGen drives an artifact in its own target's runner, and judges the run.

The rules are LoadGen's, not ours. An official result needs more than a VALID here: MLPerf's nets
and data, 600 s, its seeds of the round, and an accuracy run (MLPerf Inference rules).
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline.errors import TargetError
from pipeline.measurement import Scenario
from pipeline.params import Positive, PositiveFloat, Seed
from pipeline.profiling import workers
from pipeline.profiling.summary import NS_PER_MS
from pipeline.profiling.workers import Job

# What MLPerf Inference asks for (mlperf.conf of LoadGen 6.0): every run lasts 600 s. Queries: what
# early stopping needs with one late query, for a p90 (SingleStream) and a p99 (MultiStream, where
# it is also named; Server); Offline counts samples, as of its image nets.
MIN_DURATION_S = 600.0
MIN_QUERY_COUNT: dict[Scenario, int] = {
    "SingleStream": 64,
    "MultiStream": 662,
    "Server": 662,
    "Offline": 24_576,
}
NS_PER_S, MS_PER_S = 1e9, 1e3
WARMUP_S = 5.0
NotNegative = Annotated[float, Meta(ge=0)]
# How much longer than the least duration a run may take: start, pilot, an Offline of too many
# samples, a server that is behind.
LIMIT_RATIO, START_LIMIT_S = 4.0, 300.0
_VERDICT = re.compile(r"^Result is : (\w+)", re.MULTILINE)
_CONDITION = re.compile(r"^  ([A-Z][\w ]+ satisfied) ?: ?(\w+)", re.MULTILINE)
_PERCENTILE = re.compile(r"^(\d+\.\d+) percentile latency \(ns\) +: (\d+)", re.MULTILINE)
_ESTIMATE = re.compile(r"Early stopping (\d+(?:\.\d+)?)th percentile estimate: (\d+)")
_RATE = re.compile(r"^(?:Completed samples|Samples) per second *: ([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Settings:
    """What LoadGen is asked for; the fields of `pipeline.runtimes.loadgen.Settings`, in seconds."""

    scenario: Scenario = "SingleStream"
    min_duration_s: NotNegative = MIN_DURATION_S
    min_query_count: Positive | None = None  # None is MLPerf's own
    warmup_s: NotNegative = WARMUP_S
    batch_size: Positive = 1
    num_streams: Positive = 1
    samples_per_query: Positive = 8
    queries_per_s: PositiveFloat | None = None
    target_latency_ms: PositiveFloat | None = None
    seed: Seed = 0

    def document(self, num_threads: int) -> dict[str, Any]:
        """Return the runner's ``loadgen``."""
        fields = asdict(self)
        for name in ("min_duration_s", "min_query_count", "warmup_s"):
            del fields[name]
        return {
            **fields,
            "num_threads": num_threads,
            "min_duration_ms": round(self.min_duration_s * MS_PER_S),
            "min_query_count": self.min_query_count or MIN_QUERY_COUNT[self.scenario],
            "warmup_ns": round(self.warmup_s * NS_PER_S),
        }


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What LoadGen found. Percentiles are its own, by percent, of queries (of samples in Offline).

    ``estimates_ms`` are the higher ones that its early stopping gives, by which MLPerf ranks.
    ``reason`` says why there was no run; then there is no verdict and there are no figures.
    """

    scenario: Scenario
    verdict: Literal["VALID", "INVALID"] | None = None
    reason: str | None = None
    unsatisfied: tuple[str, ...] = ()
    percentiles_ms: dict[str, float] = {}
    estimates_ms: dict[str, float] = {}
    samples_per_s: float | None = None
    num_queries: int = 0
    num_samples: int = 0
    min_duration_s: float
    min_query_count: int
    batch_size: int = 1
    num_streams: int = 1
    num_threads: int = 1
    loadgen_version: str | None = None
    runtime: str | None = None
    runtime_version: str | None = None
    summary: str = ""

    @property
    def p50_ms(self) -> float | None:
        """The median latency, None if LoadGen gave none."""
        return self.percentiles_ms.get("50")


def judge(job: Job, settings: Settings) -> Verdict:
    """Let LoadGen judge an artifact on its target.

    Args:
        job: the artifact there, and the samples that LoadGen draws from (the first 64).
        settings: what it is asked for.

    Raises:
        TargetError: LoadGen is not installed there, or the runner failed.
    """
    document = settings.document(job.target.profile.num_threads)
    limit_s = START_LIMIT_S + LIMIT_RATIO * settings.min_duration_s
    reply = workers.call(job, "loadgen", time_limit_s=limit_s, loadgen=document)
    return verdict_of(settings, document, reply)


def verdict_of(
    settings: Settings, document: Mapping[str, Any], reply: Mapping[str, Any]
) -> Verdict:
    """Make a verdict of what the runner replied to the document."""
    asked: dict[str, Any] = {
        "scenario": settings.scenario,
        "min_duration_s": settings.min_duration_s,
        **{
            name: document[name]
            for name in ("min_query_count", "batch_size", "num_streams", "num_threads")
        },
    }
    if reply["reason"] is not None:
        return Verdict(**asked, reason=reply["reason"])
    return Verdict(
        **asked,
        **parse(reply["summary"]),
        num_queries=reply["num_queries"],
        num_samples=reply["num_samples"],
        loadgen_version=reply["loadgen_version"],
        runtime=reply["facts"]["runtime"],
        runtime_version=reply["facts"]["version"],
        summary=reply["summary"],
    )


def parse(summary: str) -> dict[str, Any]:
    """Read LoadGen's summary: the fields of a `Verdict` that stand in it.

    Raises:
        TargetError: it holds no verdict, so LoadGen broke off.
    """
    verdict = _VERDICT.search(summary)
    if verdict is None:
        last = (summary.strip().splitlines() or ["nothing"])[-1]
        raise TargetError(f"LoadGen gives no verdict, its summary ends with {last!r}; run it again")
    rate = _RATE.search(summary)
    return {
        "verdict": verdict[1],
        "unsatisfied": tuple(
            what for what, said in _CONDITION.findall(summary) if said.lower() == "no"
        ),
        "percentiles_ms": _ms(_PERCENTILE.findall(summary)),
        "estimates_ms": _ms(_ESTIMATE.findall(summary)),
        "samples_per_s": float(rate[1]) if rate else None,
    }


def _ms(found: list[tuple[str, str]]) -> dict[str, float]:
    """Return times in ms by percent, written as short as may be: 99.9, 50."""
    return {f"{float(percent):g}": int(value) / NS_PER_MS for percent, value in found}
