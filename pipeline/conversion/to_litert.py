"""A net, or the user's ONNX file, to LiteRT (.tflite) in every precision that LiteRT runs.

A net is rebuilt from its own directory, not from ONNX: litert-torch lowers torch.export's graph. An
ONNX file is lowered by TensorFlow (`onnx_to_tflite`). The batch is fixed at 1. Shapes: N samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline import params
from pipeline.conversion import candidates, litert_file
from pipeline.conversion.candidates import Outcome, Variant
from pipeline.conversion.learned import said
from pipeline.errors import ConversionError, DependencyError
from pipeline.manifest import Preprocessing
from pipeline.nets import ranges
from pipeline.nets.ranges import Range
from pipeline.targets.tools import CONVERTER_TOOLS, LOWERING_TOOLS

INPUT, OUTPUT = "input", "output"
FILE_NAME = "model.tflite"
# of the build environment, beside what lowers; an fp32 file is only read back by the first
QUANTIZER_TOOLS = tuple(name for name in CONVERTER_TOOLS["to_litert"] if name.startswith("ai-edge"))


@dataclass(frozen=True)
class Lowered:
    """A variant's fp32 .tflite (batch 1, signature serving_default), and what it takes.

    ``layouts`` names the layout of inputs by name where it is known, such as ``NHWC``.
    ``preprocessing`` is None where the export's steps give what the file takes. ``sources`` are
    the files it was made from, by role; ``tools`` the versions of what made it. ``ranges`` are
    those that the net learned.
    """

    content: bytes
    layouts: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    axes: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)
    ranges: Sequence[Range] = ()

    def arranged(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Lay samples [N, ...], preprocessed for the export, out as this file takes them."""
        if not self.axes:
            return samples
        from pipeline.conversion import onnx_to_tflite

        return onnx_to_tflite.arranged(samples, self.axes)


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[Any],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/model.tflite`` for each precision; only int8-static has integer I/O.

    Args:
        variant: its net directory (or ONNX file) is lowered once for all precisions.
        precisions: of fp32, fp16-weights, int8-dynamic, int8-static.
        calibration: [N, ...] preprocessed; int8-static takes ranges (min-max) from the first
            ``cfg.num_calibration``. A lowered ONNX file is compared with it on the first few.
        cfg: ``activation_dtype`` None is int8, the only one that LiteRT's kernels take.
        out: where the candidates' folders are made.

    Returns:
        One outcome a precision, in their order. Same inputs, same tools: same bytes.

    Raises:
        ConversionError: a precision that is not made here, or too few calibration samples.
        DependencyError: litert-torch or ai-edge-quantizer is not installed.
        NetError: the net directory cannot be read.
        TargetError: the environment that lowers ONNX files is absent or broken.
    """
    candidates.check_precisions("to_litert", precisions)
    samples = candidates.choose_samples(calibration, cfg, precisions)
    try:
        lowered = lower(variant, calibration)
    except ConversionError as error:
        return [candidates.not_built(variant.name, p, str(error)) for p in precisions]
    quantizers, arranged = candidates.versions(QUANTIZER_TOOLS), lowered.arranged(samples)
    outcomes = []
    for precision in precisions:
        settings, sources = said(variant.net, precision)
        outcomes.append(
            candidates.attempt(
                variant,
                precision,
                out,
                FILE_NAME,
                partial(litert_file.make, lowered.content, precision, arranged, lowered.ranges),
                partial(litert_file.describe, layouts=lowered.layouts),
                tools=lowered.tools if precision == "fp32" else {**lowered.tools, **quantizers},
                sources={**lowered.sources, **sources},
                settings=settings,
                preprocessing=lowered.preprocessing,
            )
        )
    return outcomes


def lower(variant: Variant, calibration: NDArray[Any]) -> Lowered:
    """Lower at batch 1, float32.

    Args:
        variant: lowered from its net directory, or from its ONNX file where it has none.
        calibration: [N, ...] preprocessed for the export; an ONNX file's outputs are compared on
            the first few.

    Raises:
        ConversionError: an operator has no form in LiteRT, or outputs differ from the ONNX file's
            by more than export.max_abs_error.
        DependencyError, NetError, TargetError: as `convert`.
    """
    if variant.net is None:
        return _lower_onnx(variant, calibration)
    from pipeline.nets import store  # which imports torch

    stored = store.load(variant.net)
    return Lowered(
        _lower_net(stored),
        layouts={INPUT: "NCHW"} if len(stored.input_shape) == 3 else {},
        tools=candidates.versions(LOWERING_TOOLS),
        sources={
            "net": variant.net / store.DESCRIPTION_NAME,
            "weights": variant.net / store.WEIGHTS_NAME,
        },
        ranges=ranges.read(variant.net) or (),
    )


def _lower_net(stored: Any) -> bytes:
    import torch
    from torch import nn

    try:
        import litert_torch
    except ImportError as error:
        raise DependencyError("litert-torch", "build") from error

    class Named(nn.Module):
        """Gives the signature's input and output the names that they have in every format."""

        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: A002 - it is the name
            return {OUTPUT: self.net(input)}

    example = torch.zeros(1, *stored.input_shape)
    with candidates.refusals("litert-torch"):
        model = litert_torch.convert(Named(stored.net).eval(), sample_kwargs={INPUT: example})
    return bytes(model.model_content())


def _lower_onnx(variant: Variant, calibration: NDArray[Any]) -> Lowered:
    from pipeline.conversion import onnx_to_tflite

    allowed = variant.manifest.params["export"]["max_abs_error"]
    found = onnx_to_tflite.lower(variant.onnx, calibration, allowed)
    turned = [n for n, layout in found.layouts.items() if layout == onnx_to_tflite.CHANNELS_LAST]
    assert variant.manifest.signature is not None
    layouts = {t.name: t.layout for t in variant.manifest.signature.inputs if t.layout is not None}
    steps = variant.manifest.preprocessing
    return Lowered(
        found.content,
        layouts={**layouts, **dict.fromkeys(turned, "NHWC")},
        preprocessing=preprocessing_of(steps, turned) if turned else None,
        axes=found.layouts,
        tools={**candidates.versions(("onnx", "onnxruntime")), **onnx_to_tflite.versions()},
        sources={"exported": variant.onnx.parent},
    )


def preprocessing_of(steps: Preprocessing, turned: Sequence[str]) -> Preprocessing:
    """Return steps whose samples are as `Lowered.arranged` lays them; ``turned`` names inputs."""
    if isinstance(steps, Mapping):
        return {n: _channels_last(own) if n in turned else own for n, own in steps.items()}
    return _channels_last(steps)


def _channels_last(steps: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    if steps and steps[-1] == {"step": "channels_first"}:
        return tuple(steps[:-1])
    return (*steps, {"step": "channels_last"})
