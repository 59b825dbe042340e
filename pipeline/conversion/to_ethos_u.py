"""A net, or the user's ONNX file, to a file for Arm's Ethos-U: LiteRT int8, compiled by Vela.

An artifact is ``model.tflite``, which ships, ``uncompiled.tflite``, the same before Vela, which
the host can run, and ``vela.json``, what Vela says of it. A micro-NPU takes integers only: the
fp32 candidate is the reference that int8 is compared with, and all of it is on the CPU. Shapes: N
samples.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from pipeline import files, params
from pipeline.conversion import candidates, litert_file, tflite_graph, to_litert, vela
from pipeline.conversion.candidates import Description, Outcome, Variant
from pipeline.conversion.fold_transpose import fold_transpose
from pipeline.conversion.learned import said
from pipeline.conversion.to_litert import FILE_NAME, QUANTIZER_TOOLS
from pipeline.errors import ConversionError
from pipeline.nets.ranges import Range
from pipeline.runtimes.ethos_u import UNCOMPILED
from pipeline.targets import ethos_u


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[Any],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/`` for each precision; int8-static has integer inputs and outputs.

    Args:
        variant: its net directory (or ONNX file) is lowered once for all precisions.
        precisions: of fp32, int8-static.
        calibration: [N, ...] preprocessed; int8-static takes ranges (min-max) from the first
            ``cfg.num_calibration``.
        cfg: ``vela`` says for which accelerator, system and use of memory.
        out: where the candidates' folders are made.

    Returns:
        One outcome a precision, in their order. Same inputs, same tools: same bytes.

    Raises:
        ConversionError: a precision that is not made here, too few calibration samples, or
            settings that Vela does not know.
        DependencyError: ethos-u-vela, litert-torch or ai-edge-quantizer is not installed.
        NetError, TargetError: as `to_litert.convert`.
    """
    candidates.check_precisions("to_ethos_u", precisions)
    settings = cfg.vela
    assert settings is not None  # a rule of params.yaml
    vela.check(settings)
    samples = candidates.choose_samples(calibration, cfg, precisions)
    try:
        lowered = to_litert.lower(variant, calibration)
        content = fold_transpose(lowered.content)
    except ConversionError as error:
        return [candidates.not_built(variant.name, p, str(error)) for p in precisions]
    tools = {**lowered.tools, **candidates.versions(("ethos-u-vela",))}
    quantizers = candidates.versions(QUANTIZER_TOOLS)
    arranged = lowered.arranged(samples)
    outcomes = []
    for precision in precisions:
        learned, sources = said(variant.net, precision)
        outcomes.append(
            candidates.attempt(
                variant,
                precision,
                out,
                FILE_NAME,
                partial(_make, content, precision, arranged, settings, lowered.ranges),
                partial(_describe, layouts=lowered.layouts),
                tools=tools if precision == "fp32" else {**tools, **quantizers},
                sources={**lowered.sources, **sources},
                settings={"vela": msgspec.to_builtins(settings), **learned},
                preprocessing=lowered.preprocessing,
            )
        )
    return outcomes


def _make(
    lowered: bytes,
    precision: params.Precision,
    samples: NDArray[Any],
    settings: params.Vela,
    learned: Sequence[Range],
) -> dict[str, bytes]:
    """Give the artifact's files; the fp32 reference stays as lowered, since Vela compiles none."""
    uncompiled = tflite_graph.inlined(litert_file.make(lowered, precision, samples, learned))
    compiled = vela.compile_file(uncompiled, settings)
    estimate = files.encode_json(compiled.estimate)
    if precision == "fp32":
        return {FILE_NAME: uncompiled, ethos_u.FILE_NAME: estimate}
    return {
        FILE_NAME: compiled.content,
        UNCOMPILED: uncompiled,
        ethos_u.FILE_NAME: estimate,
    }


def _describe(path: Path, layouts: Mapping[str, str]) -> Description:
    """Describe the file that LiteRT can load; Vela left inputs and outputs as they are there."""
    uncompiled = path.with_name(UNCOMPILED)
    return litert_file.describe(uncompiled if uncompiled.is_file() else path, layouts=layouts)
