"""Build a bundle's engine on the device it is for, with the device's own TensorRT.

What was timed while an engine was built is kept on the device, in the file that the recipe names:
later builds are quicker, and choose the same kernels.
"""

import importlib
import importlib.util
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from pipeline import files, manifest, measurement
from pipeline.conversion import tensorrt_engine
from pipeline.conversion.tensorrt_engine import FILE_NAME, RECIPE_NAME, Recipe
from pipeline.errors import DeviceError
from pipeline.manifest import Manifest, decode_document
from pipeline.measurement import Measurement
from pipeline.runtimes import cuda

REASON = "built on this device and not measured since"


@dataclass(frozen=True)
class Here:
    """What builds on this machine: the module ``tensorrt``, and the GPU or why there is none."""

    tensorrt: Any
    gpu: cuda.Device | str


def find() -> Here:
    """Look for TensorRT and a GPU.

    Raises:
        DeviceError: TensorRT is not installed.
    """
    if importlib.util.find_spec("tensorrt") is None:
        raise DeviceError(
            "TensorRT is not installed here; slipway device build runs on the device itself: "
            "install what its maker provides (JetPack: python3-libnvinfer)"
        )
    return Here(importlib.import_module("tensorrt"), cuda.find())


def default_caches() -> Path:
    """Return where a device keeps what it timed: XDG_CACHE_HOME/slipway."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway"


def build(bundle: Path, to: Path, *, caches: Path, here: Here | None = None) -> Manifest:
    """Build the engine into a directory that does not exist yet, and return its manifest.

    The directory holds model.engine, manifest.json and measurement.json (kind ``built``), and
    appears by one rename when all is written; on failure nothing appears.

    Args:
        bundle: what `slipway pull` fetched for a target of ``to_tensorrt_bundle``.
        to: a new directory, or an empty one.
        caches: where the timing cache is kept.
        here: what builds; None finds it.

    Raises:
        DeviceError: no bundle, a destination in use, or this device is not the recipe's.
        ConversionError: TensorRT refuses the file.
    """
    described, recipe = _read(bundle)
    _require_free(to)
    here = here or find()
    if isinstance(here.gpu, str):
        raise DeviceError(f"{bundle} is built on its device: {here.gpu}")
    wrong = tensorrt_engine.wrong_gpu(recipe, here.gpu) or tensorrt_engine.wrong_version(
        recipe, here.tensorrt
    )
    if wrong is not None:
        raise DeviceError(f"{bundle}: {wrong}; pull the artifact of this device's own target")
    content = (bundle / manifest.model_file(described, str(bundle))).read_bytes()
    cache = _cache_path(recipe, caches, here)
    known = None if cache is None else cache.read_bytes() if cache.is_file() else b""
    built = tensorrt_engine.build(content, recipe, here.tensorrt, known)
    try:
        if cache is not None and built.timing_cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(cache, built.timing_cache)
        with files.appearing(to) as folder:
            (folder / FILE_NAME).write_bytes(built.engine)
            return _describe(folder, bundle, described, recipe, here)
    except OSError as error:
        raise DeviceError(
            f"{error.filename or to} cannot be written: {error.strerror}; give a place with space"
        ) from error


def _read(bundle: Path) -> tuple[Manifest, Recipe]:
    """Read a bundle and compare its bytes with its manifest; what a pull adds is no part of it."""
    described = manifest.read(bundle)
    for name, file in described.files.items():
        if not (bundle / name).is_file() or files.digest_file(bundle / name) != file.digest:
            raise DeviceError(
                f"{bundle / name} is not what its manifest says; pull the artifact again"
            )
    if RECIPE_NAME not in described.files:
        raise DeviceError(
            f"{bundle} holds no {RECIPE_NAME}, so it is no build bundle; run it as it is"
        )
    where = str(bundle / RECIPE_NAME)
    content = (bundle / RECIPE_NAME).read_bytes()
    recipe = decode_document(content, Recipe, tensorrt_engine.SCHEMA_VERSION, where)
    if recipe.timing_cache is not None and Path(recipe.timing_cache).name != recipe.timing_cache:
        raise DeviceError(
            f"{where} names the timing cache {recipe.timing_cache!r}, which leaves its directory; "
            "do not use it"
        )
    return described, recipe


def _require_free(to: Path) -> None:
    if not to.parent.is_dir():
        raise DeviceError(f"{to.parent} is not a directory; make it, or build to another place")
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise DeviceError(f"{to} exists already; remove it, or build to a new directory")


def _cache_path(recipe: Recipe, caches: Path, here: Here) -> Path | None:
    """Return where the recipe's timing cache is kept; None where the library times nothing."""
    if recipe.timing_cache is None or tensorrt_engine.builds_for_others(here.tensorrt):
        return None
    return caches / recipe.timing_cache


def _describe(
    folder: Path, bundle: Path, described: Manifest, recipe: Recipe, here: Here
) -> Manifest:
    """Write the manifest and the measurement that says that nothing was measured."""
    written = manifest.write(
        folder,
        model=described.model,
        stage="device-build",
        variant=described.variant,
        format="engine",
        precision=described.precision,
        target=described.target,
        opset=described.opset,
        inputs=manifest.inputs_of(bundle=bundle),
        params={"tensorrt": msgspec.to_builtins(recipe)},
        tools={here.tensorrt.__name__: here.tensorrt.__version__},
        signature=described.signature,
        labels=described.labels,
        preprocessing=described.preprocessing,
    )
    assert not isinstance(here.gpu, str)
    found = Measurement(
        kind="built",
        reason=REASON,
        artifact=files.digest_file(folder / manifest.FILE_NAME),
        candidate=f"{described.variant}-{described.precision}",
        target=described.target or "",
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        device={"gpu": here.gpu._asdict()},
        runtime="tensorrt",
        runtime_version=here.tensorrt.__version__,
        size_bytes=sum(file.size_bytes for file in written.files.values()),
    )
    measurement.write(folder / measurement.FILE_NAME, found)
    return written
