"""Variants on disk: one net directory each, named for its recipe; a skipped step hands it on."""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from pipeline import manifest, params

OPTIONAL = ("augmentation", "qat")  # whole sections: null where there is none would say nothing


def settings_of(p: params.Params, step: str) -> dict[str, Any]:
    """Map each variant to its settings of a step (prune, distill ...), None where it skips."""
    chosen = {name: getattr(recipe, step) for name, recipe in p.recipes.items()}
    return {
        name: None if key == params.SKIP else getattr(p, step)[key] for name, key in chosen.items()
    }


def describe(settings: dict[str, Any]) -> dict[str, Any]:
    """Turn what `settings_of` gave into what a manifest says: builtins, or ``skip``."""
    return {
        name: params.SKIP if found is None else builtins(found) for name, found in settings.items()
    }


def builtins(settings: msgspec.Struct) -> dict[str, Any]:
    """Turn a step's settings into what a manifest says of them; what is not asked for is absent."""
    found: dict[str, Any] = msgspec.to_builtins(settings)
    return {k: value for k, value in found.items() if not (k in OPTIONAL and value is None)}


def hand_on(source: Path, destination: Path) -> None:
    """Copy a net directory unchanged, without a manifest and without its files' permissions."""
    # copyfile: DVC protects what it checks out, and the copy must stay removable
    shutil.copytree(
        source,
        destination,
        copy_function=shutil.copyfile,
        ignore=shutil.ignore_patterns(manifest.FILE_NAME),
    )


def tools(*distributions: str) -> dict[str, str]:
    """Return the installed version of each distribution, for a manifest."""
    return {name: version(name) for name in distributions}
