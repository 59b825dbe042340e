"""What ships now beside the last release, target by target: did anything get worse?

First what has no noise: the same bytes, size, operator placement, cycles. Then both artifacts are
measured beside each other (`pipeline.profiling.compare`), where this machine can measure them;
what is emulated, estimated or built is judged by its records, and never against another kind.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from pipeline import manifest, measurement, params
from pipeline.errors import PipelineError
from pipeline.measurement import Measurement, digits
from pipeline.profiling import compare as comparing
from pipeline.profiling.bench import Bench, Candidate
from pipeline.profiling.compare import Comparison
from pipeline.registry import lock, release, resolve
from pipeline.registry.store import Store
from pipeline.reporting import difference, words

Verdict = Literal["better", "worse", "inconclusive", "unchanged", "new", "gone", "failed"]
# What keeps a gate shut; `failed` too: what cannot be judged has not passed.
SHUT: tuple[Verdict, ...] = ("worse", "gone", "failed")
HEADER = ("target", "verdict", "why")


@dataclass(frozen=True)
class Limits:
    """Growth of latency and size that is no matter (a ratio), and the rounds of the second look."""

    tolerance: float
    max_rounds: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One target: the verdict on what ships now, and what it rests on."""

    target: str
    verdict: Verdict
    why: str
    against: str | None = None  # the released version
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Gate:
    """What all targets share.

    Args:
        project: its folder, with dvc.lock.
        p: its params.
        store: the registry that holds the last release.
        version: the release to hold against; None is the newest that has the target.
        release_of: where a target's release directory is.
        bench_of: the bench of a target; called for those that are measured.
        limits: what is no matter.
        on_step: called with a short note at each first pass and each round.
    """

    project: Path
    p: params.Params
    store: Store
    version: str | None
    release_of: Callable[[str], Path]
    bench_of: Callable[[str], Bench]
    limits: Limits
    on_step: Callable[[str], None] = lambda _note: None

    def rows(self) -> Iterator[Row]:
        """Judge every target, of this project and of the last release; one's failure stops none.

        Raises:
            RegistryError: the registry has no release of this model at all.
        """
        last = resolve.find(self.store, self.p.model, self.version)
        stale = lock.stale_targets(self.p.targets, self.project)
        for target in dict.fromkeys([*self.p.targets, *last.targets]):
            yield self._row_or_why(target, stale)

    def _row_or_why(self, target: str, stale: Mapping[str, str | None]) -> Row:
        try:
            return self._row(target, stale)
        except PipelineError as error:
            return Row(target=target, verdict="failed", why=str(error))

    def _row(self, target: str, stale: Mapping[str, str | None]) -> Row:
        with tempfile.TemporaryDirectory(prefix="slipway-") as name:
            released = Path(name) / "released"
            against = self._fetch(target, released)
            if target not in self.p.targets:
                why = "it is no target of params.yaml any more"
                return Row(target=target, verdict="gone", why=why, against=against)
            if stale[target] is not None:
                why = f"what ships now is not known: {stale[target]}"
                return Row(target=target, verdict="failed", why=why, against=against)
            return self._judge(target, self.release_of(target), released, against)

    def _fetch(self, target: str, to: Path) -> str | None:
        """Pull the released artifact; None where no release has the target."""
        found = next(
            (
                each
                for each in resolve.newest_first(self.store, self.p.model)
                if target in each.targets and self.version in (None, each.version)
            ),
            None,
        )
        if found is None:
            return None
        name, version = found.name, found.version
        resolve.pull(self.store, name, target, version, to, accept_unproven=True)
        return version

    def _judge(self, target: str, now: Path, released: Path, against: str | None) -> Row:
        ships = difference.read(now)
        if ships is None or ships.measurement is None:
            why = (ships.reason if ships else None) or "it has no release directory; run dvc repro"
            gone = against is not None
            return Row(
                target=target, verdict="gone" if gone else "unchanged", why=why, against=against
            )
        artifact = now / release.ARTIFACT
        manifest.verify(artifact)
        if against is None:
            return Row(target=target, verdict="new", why="no release has it")
        old = measurement.read(released / measurement.FILE_NAME)
        if old.artifact == ships.measurement.artifact:
            return Row(target=target, verdict="unchanged", why="the same bytes", against=against)
        worse = list(_exact(old, ships.measurement, self.limits.tolerance))
        if worse:
            return Row(target=target, verdict="worse", why="; ".join(worse), against=against)
        kinds = {old.kind, ships.measurement.kind}
        if kinds != {"measured"} or self.p.targets[target].evidence != "measured":
            return self._by_records(target, old, ships.measurement, against)
        return self._by_measuring(target, released, artifact, against, (old, ships.measurement))

    def _by_records(self, target: str, old: Measurement, new: Measurement, against: str) -> Row:
        (found,) = difference.compare(
            {target: difference.Shipped(old)},
            {target: difference.Shipped(new)},
            self.limits.tolerance,
        )
        return Row(target=target, verdict=found.verdict, why=found.why, against=against)

    def _by_measuring(
        self,
        target: str,
        released: Path,
        artifact: Path,
        against: str,
        records: tuple[Measurement, Measurement],
    ) -> Row:
        old, new = records
        found = comparing.compare(
            Candidate(f"{self.p.model} {against}", released),
            Candidate("what ships now", artifact),
            self.bench_of(target),
            tolerance_ratio=self.limits.tolerance,
            max_rounds=self.limits.max_rounds,
            on_step=self.on_step,
        )
        budget = self.p.targets[target].select.max_quality_drop
        recorded = [] if found.after.quality else difference.quality(old, new)
        verdict, why = judge(found, budget, recorded)
        return Row(target=target, verdict=verdict, why=why, against=against, comparison=found)


def judge(
    found: Comparison, max_quality_drop: float, recorded: Sequence[tuple[Verdict, str]] = ()
) -> tuple[Verdict, str]:
    """Sum a comparison up: the worst of latency and quality, with its figures.

    Quality is worse if the paired interval lies below that of the release, or reaches beyond the
    target's own budget (``max_quality_drop``, in the metric's unit). ``recorded`` are verdicts by
    both records, for tasks whose quality is against fp32, which is not among the two.
    """
    latency = f"p50 {words.interval(found.ratio)}"
    said: list[tuple[str, str]] = [(found.latency, latency), *recorded]
    drop, quality = found.after.drop, found.after.quality
    if drop is not None and quality is not None:
        unit = quality.unit_of_drop
        lost = f"{quality.metric} {digits(-drop.value, quality.unit, '+')} {unit}".rstrip()
        if drop.upper > max_quality_drop:
            upper, allowed = (digits(v, quality.unit) for v in (drop.upper, max_quality_drop))
            said.append(("worse", f"{lost}, maybe {upper} lost of {allowed} allowed"))
        elif found.quality in {"worse", "better"}:
            said.append((found.quality, lost))
    for verdict in ("worse", "inconclusive", "better"):
        reasons = [why for each, why in said if each == verdict]
        if reasons:
            return verdict, "; ".join(reasons)
    return "unchanged", latency


def _exact(old: Measurement, new: Measurement, tolerance: float) -> Iterator[str]:
    """Say what got worse of the figures that have no noise."""
    if new.size_bytes > old.size_bytes * (1 + tolerance):
        yield f"size {new.size_bytes / old.size_bytes:.2f} x"
    if old.placement and new.placement:
        before, after = old.placement.num_fallback, new.placement.num_fallback
        if after > before:
            names = ", ".join(new.placement.fallback_operators)
            yield f"{after} operators on the CPU, {before} before ({names})"
    old_arena, new_arena = old.peak_memory_bytes, new.peak_memory_bytes
    exact = old.kind == new.kind == "estimated"  # an arena; a process's memory varies
    if exact and old_arena and new_arena and new_arena > old_arena * (1 + tolerance):
        yield f"{new_arena / old_arena:.2f} x of the memory"
    if old.num_cycles and new.num_cycles and new.num_cycles > old.num_cycles * (1 + tolerance):
        yield f"{new.num_cycles / old.num_cycles:.2f} x of the cycles"


def markdown(rows: list[Row], model: str) -> str:
    """Write a comment: the first line says what keeps the gate shut."""
    shut = [row for row in rows if row.verdict in SHUT]
    first = "; ".join(f"**{row.target} {_words(row.verdict)}**: {row.why}" for row in shut)
    cells = [(row.target, _against(row), row.why) for row in rows]
    lines = [
        first or f"No target of {model} is worse than its last release.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{' --- |' * len(HEADER)}",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells),
    ]
    return "\n".join(lines) + "\n"


def _against(row: Row) -> str:
    return f"{row.verdict} (against {row.against})" if row.against else row.verdict


def _words(verdict: Verdict) -> str:
    return "could not be judged" if verdict == "failed" else f"is {verdict}"
