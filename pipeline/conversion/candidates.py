"""What a converter takes and gives: a variant in, one outcome a candidate out.

A toolchain that refuses a candidate is recorded with its reason and the others go on; an exception
that nobody expected keeps its trace.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from pipeline import params
from pipeline.compatibility import PRECISIONS
from pipeline.errors import ConversionError, ParityError
from pipeline.manifest import Manifest, Preprocessing, Signature
from pipeline.targets import tools as installation

FILE_NAME = "candidates.json"
# Beside a variant's model.onnx, where it was trained for int8: symmetric Q/DQ with learned ranges.
QDQ_NAME = "model.qdq.onnx"
MAX_REASON_LENGTH = 300
# How torch, MLIR, LiteRT and ONNX Runtime say which operator they refuse, most telling first.
_OPERATORS = (
    re.compile(r"target=torch\.ops\.([\w.]+)"),
    re.compile(r"failed to legalize operation '([\w.]+)'"),
    re.compile(r"builtin opcode '(\w+)'"),
    re.compile(r"custom op: (\w+)"),
    re.compile(r"an implementation for ([\w.:]+)\("),
    re.compile(r"([\w.]+:\w+)\(-?\d+\) is not a registered function"),
    re.compile(r"No Op registered for (\w+)"),
)
# Messages name temporary files; a reason is kept in an out, which must not differ from run to run.
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:'\"]+/)+")


@dataclass(frozen=True)
class Variant:
    """A compressed form: its exported ONNX file, its net directory, its export's manifest.

    ``net`` is None where the model came as an ONNX file (net.onnx).
    """

    name: str
    onnx: Path
    net: Path | None
    manifest: Manifest


@dataclass(frozen=True)
class Outcome:
    """One candidate: built, with all that its manifest says, or not built, with the reason."""

    candidate: str
    variant: str
    precision: params.Precision
    status: Literal["built", "not_built"]
    reason: str | None = None
    path: Path | None = None
    format: str | None = None
    signature: Signature | None = None
    opset: int | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)  # what the converter read, by role
    settings: Mapping[str, Any] = field(default_factory=dict)  # the converter's own, for params
    preprocessing: Preprocessing | None = (
        None  # of a file that takes another layout; None is the export's
    )

    def record(self) -> dict[str, str | None]:
        """Return what candidates.json says of it."""
        return {
            "candidate": self.candidate,
            "variant": self.variant,
            "precision": self.precision,
            "status": self.status,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Description:
    """What a finished file says of itself."""

    signature: Signature
    opset: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # beside `attempt`'s, for params


def candidate_id(variant: str, precision: str) -> str:
    """Name a candidate, such as ``pruned-int8-static``."""
    return f"{variant}-{precision}"


def not_built(variant: str, precision: params.Precision, reason: str) -> Outcome:
    """Record why there is no such candidate."""
    return Outcome(candidate_id(variant, precision), variant, precision, "not_built", reason)


def refused(
    variant: str, recipe: params.Recipe, asked: Sequence[params.Precision], absent: Sequence[str]
) -> list[Outcome]:
    """List the candidates that are not even tried: tools are absent, or the recipe says skip."""
    if absent:
        remedies = dict.fromkeys(installation.remedy(tool, _environment(tool)) for tool in absent)
        reason = f"{', '.join(absent)} is absent on this machine; {', '.join(remedies)}"
        return [not_built(variant, precision, reason) for precision in asked]
    if recipe.quantize != params.SKIP:
        return []
    reason = f"recipe {variant} skips quantize"
    return [not_built(variant, p, reason) for p in asked if p.startswith("int8")]


def absent_tools(
    converter: params.Converter, installed: Mapping[str, str], *, from_onnx: bool = False
) -> list[str]:
    """List the converter's tools that tools.json calls absent."""
    needed = installation.converter_tools(converter, from_onnx=from_onnx)
    return [name for name in needed if installed.get(name) == installation.ABSENT]


def _environment(tool: str) -> str:
    if tool in installation.ONNX_LOWERING_TOOLS:
        return installation.CONVERT_TENSORFLOW
    return installation.BUILD


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: metadata.version(name) for name in names}


def check_precisions(converter: params.Converter, asked: Sequence[str]) -> None:
    """Refuse a precision that the converter does not make; it is never replaced by another.

    Raises:
        ConversionError: naming the first one and the allowed.
    """
    makes = PRECISIONS[converter]
    for precision in asked:
        if precision not in makes:
            raise ConversionError(
                f"{converter} makes {', '.join(makes)}, got {precision!r}; "
                "mend convert.precisions of the target"
            )


def choose_samples(
    calibration: NDArray[Any], cfg: params.Convert, asked: Sequence[str]
) -> NDArray[Any]:
    """Take the first ``cfg.num_calibration`` samples of the (already shuffled) calibration set.

    None are taken, nor missed, where int8-static is not asked for.

    Raises:
        ConversionError: there are fewer; nobody would learn that the ranges rest on less.
    """
    if "int8-static" not in asked:
        return calibration[:0]
    if len(calibration) < cfg.num_calibration:
        raise ConversionError(
            f"convert.num_calibration of the target asks for {cfg.num_calibration} samples, the "
            f"calibration set has {len(calibration)}; lower it, or raise data.num_calibration"
        )
    return calibration[: cfg.num_calibration]


def attempt(
    variant: Variant,
    precision: params.Precision,
    out: Path,
    name: str,
    make: Callable[[], bytes | Mapping[str, bytes]],
    describe: Callable[[Path], Description],
    *,
    tools: Mapping[str, str],
    sources: Mapping[str, Path],
    settings: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Outcome:
    """Make one candidate's file, ``out/CANDIDATE/name``, or record why the toolchain refuses.

    Args:
        variant: what it is made from.
        precision: which candidate of it.
        out: where the candidate's own folder is made.
        name: of the file there that the runtime loads.
        make: gives its bytes, or those of each file of the folder by name, raising
            `ConversionError` or `ParityError` for a refusal.
        describe: reads the file back through the runtime, raising `ConversionError` where that
            cannot; then the folder is removed again.
        tools: versions of what made the bytes.
        sources: what the bytes were made from, by role.
        settings: what of the target's own compiler influenced the bytes.
        preprocessing: the steps of a file that takes another layout than the export.
    """
    candidate = candidate_id(variant.name, precision)
    path = out / candidate / name
    try:
        made = make()
        path.parent.mkdir(parents=True)
        for file, content in ({name: made} if isinstance(made, bytes) else made).items():
            (path.parent / file).write_bytes(content)
        description = describe(path)
    except (ConversionError, ParityError) as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        return not_built(variant.name, precision, str(error))
    return Outcome(
        candidate,
        variant.name,
        precision,
        "built",
        path=path,
        format=path.suffix.removeprefix("."),
        signature=description.signature,
        opset=description.opset,
        tools=tools,
        sources=sources,
        settings={**(settings or {}), **description.settings},
        preprocessing=preprocessing,
    )


@contextmanager
def refusals(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a toolchain raises to refuse a model into one line that names the operator.

    Args:
        what: begins the line, such as ``litert-torch``.
        kinds: of exception; beside ValueError and RuntimeError (with NotImplementedError), which
            all of them use. Any other exception passes through as the defect that it is.

    Raises:
        ConversionError: chained to the library's own exception.
    """
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        if isinstance(error, (ValueError, RuntimeError, *kinds)):
            raise ConversionError(_one_line(what, error)) from error
        raise


def shortened(text: str) -> str:
    """Return the first line of what a library says, short and without folders' names."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _FOLDERS.sub("", lines[0] if lines else "")[:MAX_REASON_LENGTH]


def _one_line(what: str, error: BaseException) -> str:
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    operator = next((m[1] for text in causes for p in _OPERATORS if (m := p.search(text))), None)
    reason = shortened(causes[0]) or type(error).__name__
    if operator is None:
        return f"{what} refuses the model: {reason}"
    return f"{what} does not support operator {operator}: {reason}; replace the layer"
