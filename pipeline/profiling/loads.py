"""Loads beside SingleStream: which ones a profile asks for, and what their raw results say.

Scenarios of a profile are run in every restart of the preset and pooled; a sweep's combinations
once, since they are many and what they give is throughput alone.

How many queries a percentile needs stands in `statistics.MIN_SAMPLES`. These are MLPerf Inference's
own floors where it names one: 64 queries for the p90 of SingleStream, 662 for the p99 of
MultiStream (LoadGen 6.0, results.cc, early stopping). Its Offline holds 24,576 samples at least and
every run lasts 600 s; ours are no MLPerf results, and `pipeline.profiling.loadgen` gives those.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import params
from pipeline.measurement import INVALID, Latency, Load, Scenario
from pipeline.profiling import statistics
from pipeline.profiling.bench import NS_PER_S, Preset
from pipeline.profiling.summary import MAX_OTHERS_RATIO, NS_PER_MS, SEED

Reply = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One load to measure; ``num_restarts`` times, each in a process of its own."""

    scenario: Scenario
    batch_size: int
    num_streams: int
    num_threads: int
    samples_per_query: int
    queries_per_s: float | None
    num_restarts: int

    def document(self, preset: Preset, restart: int) -> dict[str, Any]:
        """Return the runner's ``load``; each restart has arrivals of its own, by its number."""
        fields = asdict(self)
        del fields["num_restarts"]
        plan = preset.plan()
        return {
            **fields,
            "warmup_ns": plan["warmup_ns"],
            "timed_ns": plan["timed_ns"],
            "min_queries": plan["min_samples"],
            "seed": restart,
        }

    def __str__(self) -> str:
        """Say it in a few words."""
        said = [str(self.scenario)]
        if self.queries_per_s is not None:
            said.append(f"{self.queries_per_s:g}/s")
        said += [f"batch {self.batch_size}"] if self.batch_size > 1 else []
        said += [f"{self.num_streams} streams"] if self.num_streams > 1 else []
        said += [f"{self.num_threads} threads"] if self.num_threads > 1 else []
        return ", ".join(said)


def requests(profile: params.Profile, preset: Preset) -> list[Request]:
    """Return the loads that a profile asks for, scenarios first; none twice.

    What a scenario asks for already, the sweep does not ask for again, with its one restart.
    """
    found = [
        Request(
            scenario=each.scenario,
            batch_size=each.batch_size,
            num_streams=each.num_streams,
            num_threads=profile.num_threads,
            samples_per_query=each.samples_per_query if each.scenario == "MultiStream" else 1,
            queries_per_s=each.queries_per_s,
            num_restarts=preset.num_restarts,
        )
        for each in profile.scenarios
    ]
    if profile.sweep is not None:
        sweep = profile.sweep
        found += [
            Request("Offline", batch_size, num_streams, num_threads, 1, None, 1)
            for num_threads, num_streams, batch_size in itertools.product(
                sweep.num_threads, sweep.num_streams, sweep.batch_size
            )
        ]
    once: dict[Request, Request] = {}
    for request in found:
        once.setdefault(replace(request, num_restarts=1), request)
    return list(once.values())


def num_calls(asked: Sequence[Request]) -> int:
    """Return how often `measure` calls the runner when nothing is refused."""
    return sum(request.num_restarts for request in asked)


def measure(
    asked: Sequence[Request],
    preset: Preset,
    call: Callable[[Mapping[str, Any]], Reply],
    on_step: Callable[[str], None] = lambda _note: None,
) -> tuple[Load, ...]:
    """Measure every load, in rounds of one restart each; what is refused is not asked for again.

    Args:
        asked: as `requests` gave them.
        preset: how much of each.
        call: runs one ``load`` in a runner of its own and returns its reply.
        on_step: called before each call with a short note.

    Raises:
        TargetError: a runner failed for a reason that may pass; then nothing is returned.
    """
    replies: dict[Request, list[Reply]] = {request: [] for request in asked}
    for restart in range(preset.num_restarts):
        for request, found in replies.items():
            if restart < request.num_restarts and not any(_reason(reply) for reply in found):
                on_step(str(request))
                found.append(call(request.document(preset, restart)))
    return tuple(load_of(request, found) for request, found in replies.items())


def load_of(request: Request, replies: Sequence[Reply]) -> Load:
    """Summarize the replies of a load's restarts.

    ``reason`` says why a load is not what was asked for: it was refused, and has no figures; or the
    machine throttled or was suspended, and a percentile would be nobody's; or the server could not
    keep up, and it would say only how long the queue was let grow; or there was no time for enough
    queries.
    """
    fields = asdict(request)
    del fields["num_restarts"]
    refused = next((reason for reply in replies if (reason := _reason(reply))), None)
    if refused is not None:
        return Load(**fields, num_queries=0, throughput_per_s=0.0, reason=refused)
    flags = {flag for reply in replies for flag in reply["flags"]}
    if any((reply.get("others_ratio") or 0) > MAX_OTHERS_RATIO for reply in replies):
        flags.add("host_busy")
    seconds = sum(reply["duration_ns"] for reply in replies) / NS_PER_S
    throughput = sum(reply["num_samples"] for reply in replies) / seconds
    num_queries = sum(reply["num_queries"] for reply in replies)
    reason, latency = None, Latency()
    invalid = next((what for flag, what in INVALID.items() if flag in flags), None)
    if invalid is not None:
        reason = f"{invalid} meanwhile, so the run is invalid"
    elif "overloaded" in flags:
        reason = (
            f"overloaded: {request.queries_per_s:g} queries/s were asked for, {throughput:.4g} "
            "were answered; ask for fewer, or raise num_streams"
        )
    else:
        latency = _latency([_ms(reply["latencies_ns"]) for reply in replies])
        if "too_short" in flags:
            reason = (
                f"too short: {num_queries} queries in {seconds:.3g} s was all there was time for"
            )
    return Load(
        **fields,
        num_queries=num_queries,
        latency_ms=latency,
        throughput_per_s=throughput,
        reason=reason,
        flags=tuple(sorted(flags)),
    )


def _reason(reply: Reply) -> str | None:
    reason: str | None = reply.get("reason")
    return reason


def _ms(latencies_ns: Sequence[int]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(latencies_ns, np.float64) / NS_PER_MS
    return values


def _latency(restarts_ms: Sequence[NDArray[np.float64]]) -> Latency:
    """Pool the restarts; with one alone nothing is known of the next, and there is no interval."""
    pooled = np.concatenate(restarts_ms)
    if len(restarts_ms) > 1 and all(len(each) for each in restarts_ms):
        return statistics.latency(restarts_ms, batched=False, seed=SEED)
    return Latency(
        p50=statistics.percentile(pooled, 50),
        p90=statistics.percentile(pooled, 90),
        p99=statistics.percentile(pooled, 99),
    )
