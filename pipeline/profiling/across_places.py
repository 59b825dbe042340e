"""How far one model's outputs agree across places.

There is no time in agreement, so places of every kind of evidence stand side by side here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from pipeline.errors import ParityError
from pipeline.profiling import agreement
from pipeline.profiling.agreement import Across, Outputs

Tensors = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Ran:
    """What a place gave for the same inputs: outputs of the file and of its fp32 reference.

    They are None where they did not run; ``tensors`` are the file's outputs as the runner described
    them there (docs/runner-protocol.md).
    """

    place: str
    outputs: Outputs | None = None
    tensors: Tensors = ()
    reference_outputs: Outputs | None = None


class Agreed(msgspec.Struct, frozen=True, kw_only=True):
    """How the file's outputs in one place agree with those of ``model`` in the place ``against``.

    ``reason`` says why they cannot be compared.
    """

    model: Literal["reference", "file"]
    against: str
    found: Across | None = None
    reason: str | None = None


def agreed(ran: Sequence[Ran]) -> list[tuple[Agreed, ...]]:
    """Compare, for each place, the file's outputs with others', in the order of the places.

    With the fp32 reference's of the first place that ran it; then with the file's own of the first
    place that ran that, in the quantized outputs' steps where both places have one scale.
    """
    fp32 = next((each for each in ran if each.reference_outputs is not None), None)
    first = next((each for each in ran if each.outputs is not None), None)
    return [tuple(_of(each, fp32, first)) for each in ran]


def _of(place: Ran, fp32: Ran | None, first: Ran | None) -> Iterator[Agreed]:
    if place.outputs is None:
        return
    if fp32 is not None:
        yield _compare("reference", place.outputs, fp32.place, fp32.reference_outputs, (None,))
    if first is not None and first is not place:
        scales = _shared_scales(place.tensors, first.tensors)
        yield _compare("file", place.outputs, first.place, first.outputs, scales)


def _compare(
    model: Literal["reference", "file"],
    outputs: Outputs,
    against: str,
    others: Outputs | None,
    scales: Sequence[float | None],
) -> Agreed:
    assert others is not None
    try:
        found = agreement.across(outputs, others, scales)
    except ParityError as error:
        return Agreed(model=model, against=against, reason=str(error))
    return Agreed(model=model, against=against, found=found)


def _shared_scales(tensors: Tensors, reference: Tensors) -> tuple[float | None, ...]:
    """Give for each of the reference's outputs the scale, where both have that and its zero."""
    by_name = {tensor["name"]: tensor for tensor in tensors}
    if len(tensors) == len(reference) == 1:  # a lone output may have another name elsewhere
        by_name = {reference[0]["name"]: tensors[0]}
    keys = ("dtype", "scale", "zero_point")
    return tuple(
        other["scale"]
        if (own := by_name.get(other["name"])) and all(own[key] == other[key] for key in keys)
        else None
        for other in reference
    )
