import re

import pytest

from pipeline import compatibility, manifest, params
from pipeline.conversion import candidates
from pipeline.conversion.candidates import Description, Variant
from pipeline.errors import ConversionError
from pipeline.targets.tools import CONVERTER_TOOLS

SIGNATURE = manifest.Signature((), ())

# What the libraries really said, shortened -> what the record must name. (torch 2.13,
# litert-torch 0.10, ai-edge-litert 2.3, onnxruntime 1.31; MLIR's from its library's strings.)
SAID = {
    "litert-torch has no lowering": (
        """Lowering not found: aten._linalg_det.default

While executing %_linalg_det : [num_users=1] = call_function[
target=torch.ops.aten._linalg_det.default](args = (%clone_1,))
Original traceback:
File "/home/somebody/net.py", line 6, in forward""",
        "operator aten._linalg_det.default: Lowering not found",
    ),
    "the MLIR converter fails": (
        "error: failed to legalize operation 'stablehlo.cholesky' that was marked illegal",
        "operator stablehlo.cholesky: ",
    ),
    "LiteRT has no kernel": (
        "Didn't find op for builtin opcode 'STABLEHLO_SORT' version '1'. An older version",
        "operator STABLEHLO_SORT: ",
    ),
    "LiteRT meets a custom operator": (
        "Encountered unresolved custom op: FlexErfinv.\nSee instructions",
        "operator FlexErfinv: ",
    ),
    "onnxruntime has no kernel": (
        "9 : NOT_IMPLEMENTED : Could not find an implementation for ConvInteger(10) node with name",
        "operator ConvInteger: ",
    ),
    "onnxruntime does not know the operator": (
        "[ONNXRuntimeError] : 1 : FAIL : Fatal error: mine:Foo(-1) is not a registered function/op",
        "operator mine:Foo: ",
    ),
}


@pytest.mark.parametrize(("said", "expected"), SAID.values(), ids=SAID)
def test_refusal_names_the_operator_in_one_line(said, expected):
    with pytest.raises(ConversionError) as raised, candidates.refusals("tool"):
        raise RuntimeError(said)
    assert str(raised.value).startswith("tool does not support ")
    assert expected in str(raised.value)
    assert str(raised.value).endswith("; replace the layer")
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_refusal_finds_the_operator_in_the_cause():
    expected = "onnx does not support operator aten.lgamma.default: Failed; replace the layer"
    with (
        pytest.raises(ConversionError, match=re.escape(expected)),
        candidates.refusals("onnx"),
    ):
        raise RuntimeError("Failed") from ValueError("[target=torch.ops.aten.lgamma.default]")


def test_refusal_without_an_operator_keeps_the_reason_and_drops_folders():
    with pytest.raises(ConversionError) as raised, candidates.refusals("tool"):
        raise ValueError("\n  Load model from /tmp/pre.quant.x1/deep/model.onnx failed: bad\nmore")
    assert str(raised.value) == "tool refuses the model: Load model from model.onnx failed: bad"


@pytest.mark.parametrize("kind", [KeyError, TypeError, AssertionError, IndexError])
def test_a_defect_is_no_refusal(kind):
    with pytest.raises(kind, match="ours"), candidates.refusals("tool", OSError):
        raise kind("ours")


def test_a_further_kind_is_a_refusal():
    with (
        pytest.raises(ConversionError, match="tool refuses the model: no"),
        candidates.refusals("tool", OSError),
    ):
        raise OSError("no")


@pytest.fixture
def variant(tmp_path):
    return Variant(
        "dense", tmp_path / "o", tmp_path / "n", manifest.Manifest(model="m", stage="export")
    )


def refuse(*_):
    raise ConversionError("no such operator")


def test_attempt_that_succeeds(variant, tmp_path):
    path = tmp_path / "out" / "dense-fp32" / "model.onnx"
    outcome = candidates.attempt(
        variant,
        "fp32",
        tmp_path / "out",
        "model.onnx",
        lambda: b"bytes",
        lambda made: Description(SIGNATURE, opset=len(made.read_bytes())),
        tools={"onnx": "1"},
        sources={"exported": tmp_path},
    )
    assert path.read_bytes() == b"bytes"
    assert (outcome.status, outcome.format, outcome.opset) == ("built", "onnx", 5)
    assert outcome.record() == {
        "candidate": "dense-fp32",
        "variant": "dense",
        "precision": "fp32",
        "status": "built",
        "reason": None,
    }


@pytest.mark.parametrize(
    ("make", "describe"),
    [(refuse, lambda _: Description(SIGNATURE)), (lambda: b"bytes", refuse)],
    ids=["the toolchain refuses", "the runtime does not load the file"],
)
def test_attempt_that_is_refused_leaves_nothing(variant, tmp_path, make, describe):
    path = tmp_path / "out" / "dense-fp32" / "model.onnx"
    outcome = candidates.attempt(
        variant, "fp32", path.parents[1], path.name, make, describe, tools={}, sources={}
    )
    assert (outcome.status, outcome.reason) == ("not_built", "no such operator")
    assert outcome.path is None
    assert not path.parent.exists()


def recipe(quantize):
    return params.Recipe(prune="skip", factorize="skip", distill="skip", quantize=quantize)


REFUSED = {
    "nothing stands in the way": ("int8", [], {}),
    "the recipe skips quantize": (
        "skip",
        [],
        dict.fromkeys(("int8-dynamic", "int8-static"), "recipe dense skips quantize"),
    ),
    "a tool is absent": (
        "int8",
        ["onnx", "onnxruntime"],
        dict.fromkeys(
            ("fp32", "int8-dynamic", "int8-static"),
            "onnx, onnxruntime is absent on this machine; pip install 'slipway[build]'",
        ),
    ),
}


@pytest.mark.parametrize(("quantize", "absent", "reasons"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_even_tried(quantize, absent, reasons):
    asked = compatibility.PRECISIONS["to_onnxruntime"]
    found = candidates.refused("dense", recipe(quantize), asked, absent)
    assert {outcome.precision: outcome.reason for outcome in found} == reasons
    assert all(outcome.status == "not_built" for outcome in found)


def test_absent_tools_are_the_converters_own():
    installed = {"onnxruntime": "absent", "tflite-runtime": "absent", "onnx": "1.23.2"}
    assert candidates.absent_tools("to_onnxruntime", installed) == ["onnxruntime"]
    assert candidates.absent_tools("to_litert", installed) == []


def test_every_tool_of_the_table_is_a_distribution():
    for converter, names in CONVERTER_TOOLS.items():
        if compatibility.CONVERTER_EXTRAS[converter]:
            continue  # installed where a target uses it
        assert candidates.versions(names).keys() == set(names)
