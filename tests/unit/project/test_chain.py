"""What a project's chain is made of, held against this repository's own."""

from pathlib import Path

import pytest
import yaml

from pipeline.project import chain

ROOT = Path(__file__).parents[3]
OWN = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
WHEEL = "models/toolchain/slipway.json"


def body(stage):
    return stage.get("do", stage)


def is_code(dep):
    return dep.endswith(".py")


@pytest.mark.parametrize("name", OWN["stages"])
def test_a_projects_stage_reads_and_writes_what_ours_does(name):
    ours = OWN["stages"][name]
    theirs = yaml.safe_load(chain.dvc_yaml(from_onnx=False))["stages"][name]
    for key in ("cmd", "params", "outs", "metrics", "always_changed"):
        assert body(theirs).get(key) == body(ours).get(key), key
    assert [d for d in body(theirs)["deps"] if not is_code(d) and d != WHEEL] == [
        d for d in body(ours).get("deps", []) if not is_code(d)
    ]
    # ours follows its code file by file, theirs the installed wheel as a whole
    assert (WHEEL in body(theirs)["deps"]) == (name != "toolchain")
    assert theirs.get("foreach") == ours.get("foreach")


def test_both_have_the_same_stages():
    assert chain.stage_names(from_onnx=False) == list(OWN["stages"])


def test_an_onnx_file_enters_where_export_stands():
    stages = yaml.safe_load(chain.dvc_yaml(from_onnx=True))["stages"]
    assert list(stages) == [
        "toolchain", "prepare", "adopt", "convert", "profile", "select", "certify", "register",
    ]  # fmt: skip
    outs = {out for stage in stages.values() for out in body(stage)["outs"]}
    for name, stage in stages.items():
        for dep in body(stage)["deps"]:
            made = any(dep == out or dep.startswith(f"{out}/") for out in outs)
            assert made or is_code(dep), f"{name} depends on {dep}, which nothing makes"


@pytest.mark.parametrize("name", chain.stage_names(from_onnx=False))
def test_our_own_stages_are_what_init_writes(name):
    own = (ROOT / f"stages/{name}.py").read_text(encoding="utf-8")
    assert own == chain.stage_module(name)
