"""Run a pulled artifact on raw samples: its own preprocessing, its own runtime, its own labels."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline import manifest, measurement, preprocessing
from pipeline.device import samples as raw_samples
from pipeline.errors import DeviceError
from pipeline.files import digest_file
from pipeline.params import Runtime
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Session, decode_all, encode_all

NUM_TOP = 3
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
        samples: npz with ``inputs`` [N, ...], or ``inputs.NAME`` each, as the preprocessing takes
            them; or one sample: a .wav, or an image.
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
        raw = raw_samples.read(samples, artifact, described.preprocessing)
        tensors = preprocessing.apply_all(described.preprocessing, raw)
        for index in range(len(tensors)):
            encoded = encode_all(tensors[index : index + 1], session.inputs)
            scores = decode_all(session.run(encoded), session.outputs)
            yield _top(scores, described.labels, artifact)
    except RunnerError as error:
        raise DeviceError(f"{artifact} cannot run {samples.name}: {error}") from error


def _load(runtime: str, path: Path) -> Session:
    if runtime not in EXTRAS:
        raise DeviceError(f"runtime {runtime!r} is not known; known: {', '.join(EXTRAS)}")
    if path.suffix != SUFFIXES[runtime]:
        if (path.parent / "build.json").is_file():
            raise DeviceError(
                f"{path.parent} is a build bundle, of which {runtime} reads the engine; "
                f"slipway device build {path.parent} --to DIR"
            )
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


def _top(scores: NDArray[Any], labels: tuple[str, ...], artifact: Path) -> list[tuple[str, float]]:
    """Softmax of one sample's scores [1, K], then the first `NUM_TOP` of it."""
    if scores.dtype.names is not None:
        raise DeviceError(
            f"{artifact} has outputs {', '.join(scores.dtype.names)}; classes can be told of one"
        )
    scores = scores.reshape(-1)
    if len(labels) not in {0, len(scores)}:
        raise DeviceError(
            f"{artifact} gives {len(scores)} values and has {len(labels)} labels; it is no "
            "classifier, so there are no top classes"
        )
    powers = np.exp(scores - scores.max())
    probabilities = powers / powers.sum()
    order = np.argsort(-scores, kind="stable")[:NUM_TOP]  # where probabilities vanish too
    return [(labels[i] if labels else str(i), float(probabilities[i])) for i in order]
