"""What `slipway init` says of the data: the source, its splits, and a preprocessing that fits."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data import archive, npz
from pipeline.errors import InputsError
from pipeline.manifest import Signature, Tensor
from pipeline.project import settings
from pipeline.project.settings import NUM_CALIBRATION, RATIOS

RANDOM_NAME = "random-inputs.npz"
# 224 each to validate and test: a perfect candidate's paired bound, z^2 / (n + z^2), is then below
# the default budget of 2 points, which takes 189 at least
NUM_RANDOM = 640
MAX_RANDOM_BYTES = 200_000_000


@dataclass(frozen=True)
class Source:
    """The section `data` of params.yaml, whether it has labels, and one line on what was found."""

    section: dict[str, Any]
    is_labelled: bool
    line: str

    @property
    def num_calibration(self) -> int:
        """How many samples int8 takes its ranges from."""
        number: int = self.section["num_calibration"]
        return number


def of_training(path: Path | None, project: Path) -> Source:
    """Describe the data of a project that trains its own net; None is the embedded digits."""
    if path is None:
        steps: list[dict[str, Any]] = [
            {"step": "scale", "factor": 0.0625},
            {"step": "resize", "height": 32, "width": 32},
            {"step": "add_channel"},
            {"step": "channels_first"},
        ]
        return Source(
            _section("digits", None, steps, None), True, "no data given: scikit-learn's digits"
        )
    kind = _kind(path)
    steps = []
    if kind == "image_folder":
        steps = _image_steps((3, 32, 32), channels_first=True)
    elif kind == "fsdd":
        steps = settings.speech()["preprocessing"]
    return _found(kind, path, project, steps)


def of_onnx(signature: Signature, path: Path | None, project: Path) -> Source:
    """Describe the data of a project that starts from an ONNX file.

    Raises:
        InputsError: the data do not fit the file's inputs, or none were given and cannot be made.
    """
    if path is None:
        return _random(signature, project)
    kind = _kind(path)
    if len(signature.inputs) > 1:
        if kind != "npz":
            names = ", ".join(f"inputs.{tensor.name}" for tensor in signature.inputs)
            raise InputsError(f"--data: a net of several inputs takes a .npz with {names}")
        _check_names(path, signature)
        return _found(kind, path, project, {tensor.name: [] for tensor in signature.inputs})
    (tensor,) = signature.inputs
    if kind == "image_folder":
        shape = _sample_shape(tensor)
        found = _found(kind, path, project, _steps_of_images(tensor.name, shape))
        if 1 in (shape[0], shape[2]):
            found.section["channels"] = 1
        return found
    if kind == "npz":
        return _found(kind, path, project, _steps_of_npz(path, tensor.shape[1:]))
    raise InputsError(f"--data: {path} goes with a net of your own; give a .npz for an ONNX file")


def _kind(path: Path) -> str:
    """Tell a source from what lies at the path."""
    if path.is_dir():
        return "image_folder"
    if not path.is_file():
        raise InputsError(f"--data: {path} is missing; name a .npz, a folder or an archive")
    if path.suffix == ".npz":
        return "npz"
    if archive.is_archive(path):
        recording = next(archive.members(path, (".wav",)), None)
        return "image_folder" if recording is None else "fsdd"
    raise InputsError(
        f"--data: {path} is no .npz, folder or archive of images; numpy.savez(path, inputs=inputs)"
    )


def _found(kind: str, path: Path, project: Path, steps: Any) -> Source:
    relative = Path(os.path.relpath(path.absolute(), project)).as_posix()
    is_labelled, line, num = True, f"{path.name}: {kind}", None
    if kind == "npz":
        arrays = npz.read_arrays(path)
        names = [n for n in arrays if n == "inputs" or n.startswith("inputs.")]
        if not names:
            raise InputsError(f"--data: {path} has no array `inputs`, only {sorted(arrays)}")
        is_labelled = "labels" in arrays
        num = len(np.atleast_1d(arrays[names[0]]))  # `slipway check` says what shape is wrong
        line = f"{path.name}: {num} samples, {'with' if is_labelled else 'without'} labels"
    elif kind == "image_folder" and path.is_dir():
        classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
        is_labelled = bool(classes)
        num = sum(1 for entry in path.rglob("*") if entry.is_file())
        line = f"{path.name}/: {len(classes) or 'no'} classes, {num} images"
    return Source(_section(kind, relative, steps, num), is_labelled, line)


def _section(kind: str, path: str | None, steps: Any, num: int | None) -> dict[str, Any]:
    """Write the section; of ``num`` samples (None: not counted) train gives the calibration set."""
    section: dict[str, Any] = {"source": kind, **({"path": path} if path else {}), "seed": 0}
    if kind == "fsdd":
        section |= {"test_speakers": ["nicolas", "theo"], "validation_speakers": ["yweweler"]}
    else:
        section |= RATIOS
    calibration = NUM_CALIBRATION
    if num is not None:
        # the splits are stratified and rounded, so not quite all of train's share
        calibration = max(1, min(calibration, int(0.9 * RATIOS["train_ratio"] * num)))
    return {**section, "num_calibration": calibration, "preprocessing": steps}


def _check_names(path: Path, signature: Signature) -> None:
    """Refuse samples that lack an input of the net, or have another."""
    wanted = sorted(f"inputs.{tensor.name}" for tensor in signature.inputs)
    found = sorted(name for name in npz.read_arrays(path) if name.startswith("inputs"))
    if found != wanted:
        raise InputsError(
            f"--data: {path} has {', '.join(found) or 'no inputs'}, the net takes "
            f"{', '.join(wanted)}; give each input its array"
        )


def _sample_shape(tensor: Tensor) -> tuple[int, ...]:
    shape = tensor.shape[1:]
    fixed = tuple(length for length in shape if isinstance(length, int) and length > 0)
    if len(fixed) != len(shape):
        raise InputsError(
            f"input {tensor.name} has free axes {list(tensor.shape)} beside the batch; "
            "give --data with a .npz, whose samples fix them"
        )
    return fixed


def _fits(found: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Tell whether a sample has the net's shape; an axis with a name, or with none, takes any."""
    return len(found) == len(wanted) and all(
        isinstance(want, str) or want in (0, have) for have, want in zip(found, wanted, strict=True)
    )


def _steps_of_images(name: str, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    if len(shape) == 3 and shape[0] in {1, 3}:
        return _image_steps(shape, channels_first=True)
    if len(shape) == 3 and shape[2] in {1, 3}:
        return _image_steps((shape[2], *shape[:2]), channels_first=False)
    raise InputsError(
        f"--data: images do not fit input {name} of shape {list(shape)}; give a .npz of tensors"
    )


def _image_steps(shape: tuple[int, ...], *, channels_first: bool) -> list[dict[str, Any]]:
    """Resize and scale to 0..1; whether that is what the net was trained with, its owner knows."""
    steps: list[dict[str, Any]] = [
        {"step": "resize", "height": shape[1], "width": shape[2]},
        {"step": "scale", "factor": 1 / 255},
    ]
    return steps + ([{"step": "channels_first"}] if channels_first else [])


def _steps_of_npz(path: Path, shape: Sequence[int | str]) -> list[dict[str, Any]]:
    arrays = npz.read_arrays(path)
    if "inputs" not in arrays:
        raise InputsError(f"--data: {path} has no array `inputs`, only {sorted(arrays)}")
    raw = arrays["inputs"].shape[1:]
    if _fits(raw, shape):
        return []
    if len(raw) == 3 and _fits((raw[2], *raw[:2]), shape):
        return [{"step": "channels_first"}]
    if len(raw) == 2 and _fits((1, *raw), shape):
        return [{"step": "add_channel"}, {"step": "channels_first"}]
    if len(raw) == 2 and _fits((*raw, 1), shape):
        return [{"step": "add_channel"}]
    raise InputsError(
        f"--data: {path.name} has samples of shape {list(raw)}, the net takes {list(shape)}; "
        "give samples of that shape"
    )


def _random(signature: Signature, project: Path) -> Source:
    """Make inputs where none were given: enough to convert and to time, not to judge quality."""
    shapes = {tensor.name: (NUM_RANDOM, *_sample_shape(tensor)) for tensor in signature.inputs}
    num_bytes = 4 * sum(math.prod(shape) for shape in shapes.values())
    if num_bytes > MAX_RANDOM_BYTES:
        raise InputsError(
            f"random inputs would take {num_bytes / 1e6:.0f} MB; give --data with real ones"
        )
    draw, several = np.random.default_rng(0), len(shapes) > 1
    arrays = {
        f"inputs.{name}" if several else "inputs": draw.random(shape, dtype=np.float32)
        for name, shape in shapes.items()
    }
    np.savez(project / RANDOM_NAME, allow_pickle=False, **arrays)
    steps: Any = {name: [] for name in shapes} if several else []
    line = (
        f"no data given: {NUM_RANDOM} random inputs in {RANDOM_NAME}; speed and size are real, "
        "agreement and calibration need --data"
    )
    return Source(_section("npz", RANDOM_NAME, steps, NUM_RANDOM), False, line)
