"""`slipway compare` and `slipway gate` in a built project: real workers, real releases."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline import manifest

pytestmark = pytest.mark.slow
FEW = ("--max-rounds", "4")


def spoil(artifact):
    """Give the shipped file's classes in reverse order: as fast, and wrong nearly always."""
    model = onnx.load(artifact / "model.onnx")
    (output,) = model.graph.output
    num_classes = output.type.tensor_type.shape.dim[1].dim_value
    for node in model.graph.node:
        node.output[:] = ["right" if name == output.name else name for name in node.output]
    turned = numpy_helper.from_array(np.arange(num_classes - 1, -1, -1), "turned")
    model.graph.initializer.append(turned)
    model.graph.node.append(helper.make_node("Gather", ["right", "turned"], [output.name], axis=1))
    described = manifest.read(artifact)
    onnx.save(model, artifact / "model.onnx")
    fields = {f: getattr(described, f) for f in described.__struct_fields__ if f != "files"}
    manifest.write(artifact, **fields)


def test_candidates_are_compared_on_the_projects_data(built):
    done = built.slipway(
        "compare", "dense-fp32", "dense-int8-static", "--target", "x86-litert", "--json", *FEW
    )
    found = json.loads(done.stdout)
    assert found["latency"] in {"better", "worse", "inconclusive"}
    assert found["after"]["latency_ratio"]["lower"] <= found["after"]["latency_ratio"]["upper"]
    assert found["after"]["drop"]["n"] == found["before"]["quality"]["n"] > 500
    shown = built.slipway(
        "compare", "dense-fp32", "dense-int8-static", "--target", "x86-litert", *FEW
    ).stdout
    assert "dense-int8-static against dense-fp32 on x86-litert: latency " in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dense-fp32", "none", "--target", "x86-litert"), "'none' is no artifact: .*dense-fp32"),
        (("a", "b", "--target", "board"), "'board' is no target of params.yaml; there is x86-onnx"),
    ],
    ids=["no such artifact", "no such target"],
)
def test_what_is_not_there_is_one_line(built_once, arguments, said):
    done = built_once.slipway("compare", *arguments, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.search(said, done.stderr)


def test_the_gate_lets_the_same_pass_and_stops_what_is_worse_or_gone(built):
    built.slipway("publish")
    same = built.slipway("gate", *FEW)
    assert same.stdout.count("unchanged") == 2

    spoil(built.path / "models/release/x86-onnxruntime/artifact")
    worse = built.slipway("gate", *FEW, check=False)
    assert worse.returncode == 4
    (row,) = [line for line in worse.stdout.splitlines() if "x86-onnxruntime" in line]
    assert row.split()[1] == "worse"
    assert "lost: worse" in row
    assert "unchanged" in worse.stdout  # of the other target

    built.edit(lambda values: values["targets"].pop("x86-onnxruntime"))
    (built.path / "models/release/x86-onnxruntime").rename(built.path / "models/before")
    gone = built.slipway("gate", *FEW, check=False)
    assert gone.returncode == 4
    assert "gone" in gone.stdout


def test_a_gate_without_a_release_is_one_line(built_once):
    done = built_once.slipway("gate", "--registry", "nowhere", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "registry nowhere is no folder" in done.stderr
