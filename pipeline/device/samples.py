"""Raw samples for an artifact, from what `slipway run` is given: a .npz, a wav or an image.

What its raw samples look like is known from those in its golden.npz. A wav or an image is read as
the data source read those that the net learned from (`pipeline.raw`).
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import raw
from pipeline.errors import DeviceError
from pipeline.manifest import Preprocessing
from pipeline.runtimes import structured
from pipeline.runtimes.errors import RunnerError

GOLDEN = "golden.npz"
PREFIX = "inputs."  # of the arrays of a model with several inputs
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,  # no such array; of a plain .npy, no such field
    EOFError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
)


def read(path: Path, artifact: Path, steps: Preprocessing) -> NDArray[Any]:
    """Return raw samples [N, ...] as the steps take them, structured for several inputs.

    Args:
        path: a .npz of many samples, or one sample: a .wav, or an image.
        artifact: what `slipway pull` made.
        steps: the artifact's preprocessing.

    Raises:
        DeviceError: one line: the file cannot be read, or is no sample of this artifact.
    """
    suffix = raw.suffix(path.name)
    try:
        if suffix in raw.AUDIO_SUFFIXES:
            return _waveform(path, artifact, steps)[np.newaxis]
        if suffix in raw.IMAGE_FORMATS:
            return _image(path, artifact, steps)[np.newaxis]
    except RunnerError as error:
        raise DeviceError(str(error)) from error
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror}; name another") from error
    return _arrays(path)


def _waveform(path: Path, artifact: Path, steps: Preprocessing) -> NDArray[Any]:
    like = _raw_sample(artifact)
    rate = _first(steps, "mfcc").get("sample_rate_hz")
    if like.dtype != np.int16 or like.ndim != 1 or rate is None:
        raise DeviceError(
            f"{path}: a wav is int16 [time] of a known sample rate, {artifact} takes "
            f"{_words(like)} {'without' if rate is None else 'with'} a step mfcc; give a .npz"
        )
    return raw.waveform(path.read_bytes(), rate, len(like), str(path))


def _image(path: Path, artifact: Path, steps: Preprocessing) -> NDArray[Any]:
    like = _raw_sample(artifact)
    shape = like.shape if like.ndim == 3 else (*like.shape, 1)
    if like.dtype != np.uint8 or len(shape) != 3 or shape[2] not in {1, 3}:
        raise DeviceError(
            f"{path}: an image is uint8 [height, width, 1 or 3 channels], {artifact} takes "
            f"{_words(like)}; give a .npz"
        )
    size = shape[:2] if _first(steps, "resize") else None
    found = raw.pixels(path.read_bytes(), shape[2], size, str(path))
    if found.shape != shape:
        raise DeviceError(
            f"{path} is {found.shape[1]}x{found.shape[0]}, {artifact} takes "
            f"{shape[1]}x{shape[0]} and has no step resize; resize the image"
        )
    return found.reshape(like.shape)


def _raw_sample(artifact: Path) -> NDArray[Any]:
    """Return one raw sample that the artifact is known to take."""
    path = artifact / GOLDEN
    try:
        with path.open("rb") as file:
            sample: NDArray[Any] = np.load(file, allow_pickle=False)["inputs"][0]
    except UNREADABLE as error:
        raise DeviceError(
            f"{path} cannot be read ({type(error).__name__}), and says what raw samples are; "
            "pull the artifact again, or give a .npz"
        ) from error
    return sample


def _first(steps: Preprocessing, name: str) -> dict[str, Any]:
    if isinstance(steps, Mapping):
        return {}
    return next((step for step in steps if step.get("step") == name), {})


def _words(sample: NDArray[Any]) -> str:
    if sample.dtype.names is not None:
        return f"several inputs ({', '.join(sample.dtype.names)})"
    return f"{sample.dtype} {list(sample.shape)}"


def _arrays(path: Path) -> NDArray[Any]:
    """Read ``inputs`` [N, ...], or every ``inputs.NAME`` as a field of one structured array."""
    try:
        with path.open("rb") as file:  # numpy leaves its own file open when it fails
            archive = np.load(file, allow_pickle=False)
            named = {n: archive[n] for n in archive.files if n.startswith(PREFIX)}
            found: dict[str, NDArray[Any]] = named or {"inputs": archive["inputs"]}
    except (*UNREADABLE, AttributeError) as error:  # a .npy has no files
        raise DeviceError(
            f"{path} is not an npz file with `inputs` ({type(error).__name__}), a wav or an image; "
            "write it by numpy.savez(path, inputs=inputs)"
        ) from error
    for name, inputs in found.items():
        if inputs.dtype.kind not in "biuf" or inputs.ndim < 2 or not len(inputs):
            raise DeviceError(
                f"{path}: {name} have dtype {inputs.dtype} and shape {list(inputs.shape)}; "
                "give real numbers [N, ...] with N of 1 or more"
            )
        if not np.isfinite(inputs).all():
            raise DeviceError(f"{path}: {name} hold NaN or inf; remove those samples")
    if not named:
        return found["inputs"]
    sizes = {name: len(inputs) for name, inputs in named.items()}
    if len(set(sizes.values())) > 1:
        raise DeviceError(f"{path}: inputs have {sizes} samples; give each input as many")
    return structured.join({name.removeprefix(PREFIX): each for name, each in named.items()})
