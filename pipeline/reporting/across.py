"""The same model in different places: its outputs against fp32, and between runtimes.

Kinds of evidence stand side by side here, each with its word: there is no time in agreement, and an
emulated or a compiled-for target's outputs are its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args
from zipfile import BadZipFile

import msgspec
import numpy as np

from pipeline import manifest
from pipeline.errors import ManifestError, ParityError
from pipeline.measurement import Kind
from pipeline.params import Precision
from pipeline.profiling import agreement
from pipeline.profiling.agreement import Across, Outputs
from pipeline.reporting import words
from pipeline.reporting.answer import Answer

PRECISIONS = get_args(Precision)
REFERENCE = "fp32"
TASKS_WITH_CLASSES = ("classification", "agreement")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate on one target against another candidate on ``reference_target``."""

    variant: str
    precision: str
    target: str
    kind: Kind
    reference_target: str
    found: Across


class Agreements(msgspec.Struct, frozen=True, kw_only=True):
    """``against_fp32`` of the same variant, where that ran first; ``between`` one precision's.

    ``targets`` in their order; ``left_out`` says what could not be compared, and why.
    """

    targets: tuple[str, ...] = ()
    against_fp32: tuple[Row, ...] = ()
    between: tuple[Row, ...] = ()
    left_out: tuple[str, ...] = ()


NO_AGREEMENTS = Agreements()


@dataclass(frozen=True)
class _Place:
    """A candidate's outputs on one target; ``signature`` tells in which steps they come."""

    target: str
    kind: Kind
    path: Path
    signature: manifest.Signature | None

    def outputs(self) -> Outputs:
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found: Outputs = arrays["outputs"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ManifestError(
                f"{self.path} is malformed: {error}; restore it (dvc checkout, or dvc repro)"
            ) from error
        return found


class Candidate(NamedTuple):
    """A variant at one precision."""

    variant: str
    precision: str


_Places = dict[Candidate, list[_Place]]


def gather(
    answers: Sequence[Answer],
    profiled: Mapping[str, Path],
    converted: Mapping[str, Path],
    *,
    has_classes: bool = True,
) -> Agreements:
    """Compare what every target of the answers has outputs of, on the same validation inputs.

    Args:
        answers: in the order of the targets; fp32 is that of the first that has it, and between
            runtimes the first is compared with whose outputs' scale another has too.
        profiled: by target the folder that holds, per candidate, outputs.npz.
        converted: by target the folder that holds, per candidate, the manifest with its signature.
        has_classes: the task tells classes apart, so that a changed one can be counted.

    Raises:
        ManifestError: naming a file that exists and cannot be read.
    """
    left_out: list[str] = []
    places = _places(answers, profiled, converted, left_out)
    against = tuple(_rows(_against_fp32(places), left_out, has_classes))
    between = tuple(_rows(_between(places), left_out, has_classes))
    return Agreements(
        targets=tuple(answer.target for answer in answers),
        against_fp32=against,
        between=between,
        left_out=tuple(dict.fromkeys(left_out)),
    )


def _places(
    answers: Sequence[Answer],
    profiled: Mapping[str, Path],
    converted: Mapping[str, Path],
    left_out: list[str],
) -> _Places:
    """List where each candidate has outputs; targets on other validation data are left out."""
    found: _Places = {}
    first: tuple[str, str] | None = None
    for answer in answers:
        measured = [
            (m, path)
            for m in answer.candidates
            if (path := profiled[answer.target] / m.candidate / "outputs.npz").is_file()
        ]
        if not measured:
            continue
        digest = _validation_digest(profiled[answer.target])
        first = first or (answer.target, digest)
        if digest != first[1]:
            left_out.append(f"{answer.target} was profiled on other inputs than {first[0]}")
            continue
        for m, path in measured:
            signature = _signature(converted[answer.target] / m.candidate)
            candidate = Candidate(*words.parts(m.candidate))
            found.setdefault(candidate, []).append(_Place(answer.target, m.kind, path, signature))
    variants = list(dict.fromkeys(candidate.variant for candidate in found))
    return dict(
        sorted(found.items(), key=lambda item: (variants.index(item[0].variant), _rank(item[0])))
    )


def _rank(candidate: Candidate) -> int:
    known = candidate.precision in PRECISIONS
    return PRECISIONS.index(candidate.precision) if known else len(PRECISIONS)


def _validation_digest(profiled: Path) -> str:
    described = manifest.read(profiled)
    return next((i.digest for i in described.inputs if i.path == "validation"), "")


def _signature(artifact: Path) -> manifest.Signature | None:
    """Read the signature; where artifacts were not checked out there is none."""
    if not (artifact / manifest.FILE_NAME).is_file():
        return None
    return manifest.read(artifact).signature


class _Comparison(NamedTuple):
    candidate: Candidate
    others: Sequence[_Place]
    reference: _Place


def _against_fp32(places: _Places) -> Iterator[_Comparison]:
    for candidate, found in places.items():
        references = places.get(Candidate(candidate.variant, REFERENCE))
        if references:
            others = [place for place in found if place != references[0]]
            yield _Comparison(candidate, others, references[0])


def _between(places: _Places) -> Iterator[_Comparison]:
    for candidate, found in places.items():
        if candidate.precision != REFERENCE:  # that has its row against fp32 already
            first = _compared_with(found)
            yield _Comparison(candidate, [place for place in found if place != first], first)


def _compared_with(places: Sequence[_Place]) -> _Place:
    """Choose the first that shares its scale with another, so that steps can be told."""
    for first in places:
        if any(_shares_scale(other, first) for other in places if other != first):
            return first
    return places[0]


def _shares_scale(place: _Place, reference: _Place) -> bool:
    scales = _scales(place, reference)
    return bool(scales) and None not in scales


def _rows(
    comparisons: Iterable[_Comparison], left_out: list[str], has_classes: bool
) -> Iterator[Row]:
    for candidate, others, reference in comparisons:
        expected = reference.outputs() if others else None
        for place in others:
            assert expected is not None
            scales = _scales(place, reference)
            try:
                found = agreement.across(place.outputs(), expected, scales, has_classes=has_classes)
            except ParityError as error:
                name = ", ".join(filter(None, candidate))
                left_out.append(f"{name} on {place.target} against {reference.target}: {error}")
                continue
            yield Row(
                variant=candidate.variant,
                precision=candidate.precision,
                target=place.target,
                kind=place.kind,
                reference_target=reference.target,
                found=found,
            )


def _scales(place: _Place, reference: _Place) -> tuple[float | None, ...]:
    """Give for each of the reference's outputs the scale that both have, or None."""
    if place.signature is None or reference.signature is None:
        return ()
    quantized = {tensor.name: tensor.quantization for tensor in place.signature.outputs}
    alone = len(place.signature.outputs) == len(reference.signature.outputs) == 1
    scales: list[float | None] = []
    for tensor in reference.signature.outputs:
        own, other = tensor.quantization, quantized.get(tensor.name)
        if alone:  # a lone output may have another name in another format
            other = place.signature.outputs[0].quantization
        alike = own is not None and own == other and len(own.scale) == 1
        scales.append(own.scale[0] if own is not None and alike else None)
    return tuple(scales)
