"""The params.yaml that `slipway init` writes: sections as data, chosen from what the user gave."""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import yaml

from pipeline.errors import ParamsError

# Comments that stand above a section; the keys give their order.
SECTIONS = {
    "model": "",
    "data": "Where samples come from, how they are split, how a raw one becomes a tensor.",
    "task": "By what quality is judged.",
    "net": "",
    "train": "",
    "recipes": "One variant each: `skip`, or settings named in the step's section.",
    "prune": "",
    "distill": "",
    "quantize": "",
    "export": "",
    "targets": "A target is on if and only if it stands here. Its id is yours to choose.",
}
RATIOS = {"train_ratio": 0.3, "validation_ratio": 0.35}
NUM_CALIBRATION = 128


def presets() -> dict[str, Any]:
    """Return the targets that can be switched on by name."""
    return _read("presets.yaml")


def targets(names: Sequence[str]) -> dict[str, Any]:
    """Return the sections of the named targets; ``all`` names every one.

    Raises:
        ParamsError: a name is not known.
    """
    known = presets()
    if list(names) == ["all"]:
        return known
    for name in names:
        if name not in known:
            raise ParamsError(
                f"--targets: {name!r} is not known; known: {', '.join(known)}, or all; "
                "add your own to params.yaml"
            )
    return {name: known[name] for name in names}


def trained() -> dict[str, Any]:
    """Return the sections of a project that trains its own net."""
    return _read("template/training.yaml")


def speech() -> dict[str, Any]:
    """Return the net and the preprocessing of a project of spoken words."""
    return _read("template/speech.yaml")


def adopted(onnx: str) -> dict[str, Any]:
    """Return the sections of a project that starts from an ONNX file."""
    sections = trained()
    return {
        "task": {"kind": "agreement", "metric": "top1"},
        "net": {"onnx": onnx},
        "recipes": {"dense": sections["recipes"]["dense"]},
        "quantize": sections["quantize"],
        "export": sections["export"] | {"max_abs_error": 0.001},
    }


def lower_calibration(sections: dict[str, Any], targets: dict[str, Any], number: int) -> None:
    """Ask for no more calibration samples than there are: ``number``, where it is below usual."""
    for chosen in sections["quantize"].values():
        chosen["num_samples"] = min(chosen["num_samples"], number)
    if number < NUM_CALIBRATION:
        for target in targets.values():
            target["convert"]["num_calibration"] = number


def text(sections: dict[str, Any], schema: str) -> str:
    """Write the sections as YAML with their comments, in the order of the chain."""
    parts = [
        f"# yaml-language-server: $schema={schema}",
        "# What is built, and for which hardware. `slipway check` reads all of it before it runs.",
    ]
    for name, comment in SECTIONS.items():
        if name in sections:
            parts += ["", f"# {comment}"] if comment else [""] if name != "model" else []
            parts.append(_dump({name: sections[name]}).rstrip())
    return "\n".join(parts) + "\n"


class _Dumper(yaml.SafeDumper):
    """Writes short lists and preprocessing steps on one line, everything else as a block."""


def _represent(dumper: _Dumper, value: Any) -> yaml.Node:
    if isinstance(value, dict):
        return dumper.represent_mapping(
            "tag:yaml.org,2002:map", value.items(), flow_style="step" in value or not value
        )
    short = not any(isinstance(member, (dict, list)) for member in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


_Dumper.add_representer(dict, _represent)
_Dumper.add_representer(list, _represent)


def _dump(value: dict[str, Any]) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100)


def _read(name: str) -> dict[str, Any]:
    path = resources.files("pipeline.project").joinpath(name)
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
