"""Run a pulled artifact on raw samples: its own preprocessing, its own runtime, its own labels."""

import importlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline import manifest, measurement, preprocessing
from pipeline.errors import DeviceError
from pipeline.files import digest_file
from pipeline.params import Runtime
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Session, decode, encode

NUM_TOP = 3
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,  # no such array; of a plain .npy, no such field
    EOFError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
)
# The extra of this distribution that brings each runtime.
EXTRAS: dict[str, str] = {
    "onnxruntime": "device-onnxruntime",
    "litert": "device-litert",
    "tflite_runtime": "device-tflite",
    "openvino": "device-openvino",
    "tflite_micro": "ethos-u",
    "tensorrt": "device-tensorrt",
}
SUFFIXES: dict[str, str] = {
    "onnxruntime": ".onnx",
    "litert": ".tflite",
    "tflite_runtime": ".tflite",
    "openvino": ".xml",
    "tflite_micro": ".tflite",
    "tensorrt": ".engine",
}
assert SUFFIXES.keys() == set(get_args(Runtime))
assert EXTRAS.keys() == set(get_args(Runtime))


def classify(
    artifact: Path, samples: Path, runtime: str | None = None
) -> Iterator[list[tuple[str, float]]]:
    """Yield, for each raw sample, its top classes as (label, probability), most likely first.

    Args:
        artifact: what `slipway pull` made.
        samples: npz with ``inputs`` [N, ...] as the preprocessing takes them.
        runtime: another runtime than the one that the artifact was measured with.
    """
    missing = [
        n for n in (manifest.FILE_NAME, measurement.FILE_NAME) if not (artifact / n).is_file()
    ]
    if missing:
        raise DeviceError(f"{artifact} has no {', '.join(missing)}; pull the artifact again")
    described = manifest.read(artifact)
    chosen = runtime or measurement.read(artifact / measurement.FILE_NAME).runtime
    model = artifact / manifest.model_file(described, str(artifact))
    for name, file in described.files.items():
        if not (artifact / name).is_file() or digest_file(artifact / name) != file.digest:
            raise DeviceError(
                f"{artifact / name} is not what its manifest says; pull the artifact again"
            )
    try:
        session = _load(chosen, model)
        for sample in preprocessing.apply(described.preprocessing, _read(samples)):
            encoded = encode(sample[None], session.inputs[0])
            (scores,) = decode(session.run([encoded])[0], session.outputs[0])
            yield _top(scores, described.labels)
    except RunnerError as error:
        raise DeviceError(f"{artifact} cannot run {samples.name}: {error}") from error


def _load(runtime: str, path: Path) -> Session:
    if runtime not in EXTRAS:
        raise DeviceError(f"runtime {runtime!r} is not known; known: {', '.join(EXTRAS)}")
    if path.suffix != SUFFIXES[runtime]:
        readers = ", ".join(name for name, suffix in SUFFIXES.items() if suffix == path.suffix)
        raise DeviceError(f"{runtime} does not read {path.name}; use --runtime {readers}")
    try:
        adapter = importlib.import_module(f"pipeline.runtimes.{runtime}")
    except ImportError as error:
        raise DeviceError(
            f"{path.name} needs {runtime}, which is not installed here; "
            f"pip install 'slipway[{EXTRAS[runtime]}]', or name another with --runtime"
        ) from error
    session: Session = adapter.load(str(path), num_threads=1)
    return session


def _read(samples: Path) -> NDArray[Any]:
    try:
        with samples.open("rb") as file:  # numpy leaves its own file open when it fails
            inputs: NDArray[Any] = np.load(file, allow_pickle=False)["inputs"]
    except UNREADABLE as error:
        raise DeviceError(
            f"{samples} is not an npz file with `inputs` ({type(error).__name__}); "
            "write it by numpy.savez(path, inputs=inputs)"
        ) from error
    if inputs.dtype.kind not in "biuf" or inputs.ndim < 2 or not len(inputs):
        raise DeviceError(
            f"{samples}: inputs have dtype {inputs.dtype} and shape {list(inputs.shape)}; "
            "give real numbers [N, ...] with N of 1 or more"
        )
    if not np.isfinite(inputs).all():
        raise DeviceError(f"{samples}: inputs hold NaN or inf; remove those samples")
    return inputs


def _top(scores: NDArray[np.float32], labels: tuple[str, ...]) -> list[tuple[str, float]]:
    """Softmax, then the first `NUM_TOP` of it."""
    powers = np.exp(scores - scores.max())
    probabilities = powers / powers.sum()
    order = np.argsort(-probabilities, kind="stable")[:NUM_TOP]
    return [(labels[i] if labels else str(i), float(probabilities[i])) for i in order]
