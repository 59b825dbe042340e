"""The chain's files of a project: dvc.yaml, and one thin stage a step, which runs the wheel's."""

import ast
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from pipeline import chain

HEADER = """\
# The chain. `slipway check` first: DVC deletes a stage's outs before it runs the command.
# models/toolchain/slipway.json names the installed slipway: another one runs the chain again.
"""
# What a trained ONNX file makes needless, and what takes the place of `export` there.
TRAINING = ("train", "prune", "distill", "quantize", "export")
ADOPTION = ("adopt",)
OF_TRAINING = ("models/trained", "models/distilled", "models/quantized")


def dvc_yaml(*, from_onnx: bool) -> str:
    """Return dvc.yaml of a project that trains its net, or that starts from an ONNX file."""
    document = _template()
    for name in TRAINING if from_onnx else ADOPTION:
        del document["stages"][name]
    if from_onnx:
        del document["plots"]
        for stage in document["stages"].values():
            body = stage.get("do", stage)
            body["deps"] = [dep for dep in body["deps"] if dep not in OF_TRAINING]
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=100)


def stage_names(*, from_onnx: bool) -> list[str]:
    """Return the stages in the order of the chain."""
    without = TRAINING if from_onnx else ADOPTION
    return [name for name in _template()["stages"] if name not in without]


def stage_module(name: str) -> str:
    """Return the source of ``stages/NAME.py``: what the step is, and a call of the wheel's."""
    source = Path(chain.__path__[0]) / f"{name}.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    said = ast.get_docstring(tree)
    assert said is not None, source
    (main,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    takes_target = bool(main.args.args)
    imports, arguments = ("import sys\n\n", "*sys.argv[1:]") if takes_target else ("", "")
    return (
        f'"""{said.splitlines()[0]}"""\n\n{imports}from pipeline.chain import {name}\n\n'
        f'if __name__ == "__main__":\n    {name}.main({arguments})\n'
    )


def _template() -> dict[str, Any]:
    # not named dvc.yaml: DVC would read it as one of this repository's
    path = resources.files("pipeline.project") / "template" / "chain.yaml"
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document
