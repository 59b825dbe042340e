"""What is LiteRT's own; what it shares with the other converters is in tests/contract."""

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from pipeline import compatibility, manifest, params, preprocessing
from pipeline.conversion import onnx_to_tflite, to_litert
from pipeline.conversion.candidates import Variant
from pipeline.nets import store
from pipeline.runtimes import litert, session, structured

ALL = compatibility.PRECISIONS["to_litert"]


def convert(variant, samples, out, precisions=ALL):
    cfg = params.Convert(precisions=precisions, num_calibration=8)
    return to_litert.convert(variant, precisions, samples, cfg, out)


def test_static_input_and_output_are_int8_with_the_range_of_the_chosen_samples(
    make_variant, samples, tmp_path
):
    samples[8:] *= 100  # beyond num_calibration: must not count
    (outcome,) = convert(make_variant("plain"), samples, tmp_path / "out", ("int8-static",))
    (stated,) = outcome.signature.inputs
    chosen = samples[:8]
    assert stated.quantization.scale == pytest.approx(
        ((chosen.max() - chosen.min()) / 255,), rel=1e-5
    )
    low = round(-128 - chosen.min() / stated.quantization.scale[0])
    assert stated.quantization.zero_point == (low,)
    interpreter = Interpreter(str(outcome.path))
    interpreter.allocate_tensors()
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["input"], "outputs": ["output"]}
    }
    dtypes = {np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    assert dtypes <= {"int8", "int32"}


def test_operator_without_int8_form_stops_that_candidate_alone(make_variant, samples, tmp_path):
    outcomes = {o.precision: o for o in convert(make_variant("sine"), samples, tmp_path / "out")}
    assert [outcome.status for outcome in outcomes.values()] == ["built"] * 3 + ["not_built"]
    assert outcomes["int8-static"].reason == (
        "ai-edge-quantizer has no int8 form of operator SIN; replace the layer"
    )
    assert not (tmp_path / "out" / "sine-int8-static").exists()


def test_operator_without_lowering_stops_the_variant(make_variant, samples, tmp_path):
    outcomes = convert(make_variant("determinant"), samples, tmp_path / "out")
    assert [outcome.precision for outcome in outcomes] == list(ALL)
    for outcome in outcomes:
        assert outcome.status == "not_built"
        assert outcome.reason.startswith(
            "litert-torch does not support operator aten._linalg_det.default: Lowering not found"
        )
    assert not (tmp_path / "out").exists()


def test_operator_without_kernel_stops_the_variant(make_variant, samples, tmp_path):
    (outcome,) = convert(make_variant("sorted"), samples, tmp_path / "out", ("fp32",))
    assert outcome.status == "not_built"
    assert outcome.reason.startswith("litert does not support operator STABLEHLO_SORT: ")


def test_nothing_to_quantize_is_not_called_int8(make_variant, samples, tmp_path):
    outcomes = convert(make_variant("bare"), samples, tmp_path / "out", ALL[:3])
    assert [outcome.status for outcome in outcomes] == ["built", "not_built", "not_built"]
    assert outcomes[1].reason.startswith("ai-edge-quantizer finds no weight to turn into float16")
    assert outcomes[2].reason.startswith("ai-edge-quantizer finds no weight to turn into int8")


# what the quantizer says where it overflows; the outputs are what counts
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_a_channel_that_died_in_training_keeps_its_bias(make_net, samples, tmp_path):
    """Its weights are near zero: a bias counted in steps of their scale would overflow int32."""
    net, cfg = make_net("plain")
    with torch.no_grad():
        net.conv.weight[0] *= 1e-30
        net.norm.bias[0] = 3.0  # what the channel gives now, everywhere
        net.norm.running_mean[0] = 0.0
    store.save(tmp_path / "net", net, cfg=cfg, input_shape=(1, 8, 8), num_classes=3)
    described = manifest.write(tmp_path / "net", model="tiny", stage="quantize")
    variant = Variant("dead", tmp_path / "model.onnx", tmp_path / "net", described)
    (outcome,) = convert(variant, samples, tmp_path / "out", ("int8-static",))
    loaded = litert.load(str(outcome.path), 1)
    found = np.concatenate(
        [
            session.decode(
                loaded.run([session.encode(sample[None], loaded.inputs[0])])[0], loaded.outputs[0]
            )
            for sample in samples
        ]
    )
    with torch.no_grad():
        expected = net(torch.from_numpy(samples)).numpy()
        share = 3.0 * net.head.weight[:, 0].abs().max().item()  # of the channel, in the outputs
    assert np.abs(found - expected).max() < 0.1 * share


FIRST, LAST, HALF = ({"step": s} for s in ("channels_first", "channels_last", "scale"))
HALF["factor"] = 0.5
RAW = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
# steps of the ONNX file, those of the .tflite file whose channels come last
TURNED = {
    "images need no turning": ((HALF, FIRST), (HALF,)),
    "tensors are turned at the end": ((HALF,), (HALF, LAST)),
    "no steps": ((), (LAST,)),
    "what is turned twice": ((FIRST, LAST, FIRST), (FIRST, LAST)),
}


@pytest.mark.parametrize(("steps", "expected"), TURNED.values(), ids=TURNED)
def test_a_turned_files_steps_give_what_its_samples_were_laid_out_as(steps, expected):
    found = to_litert.preprocessing_of(steps, ["image"])
    assert found == expected
    lowered = to_litert.Lowered(b"", axes={"image": onnx_to_tflite.CHANNELS_LAST})
    laid_out = lowered.arranged(preprocessing.apply(steps, RAW))
    assert np.array_equal(preprocessing.apply(found, RAW), laid_out)


def test_of_several_inputs_those_that_were_turned_get_other_steps():
    steps = {"image": (HALF,), "table": (HALF,)}
    found = to_litert.preprocessing_of(steps, ["image"])
    assert found == {"image": (HALF, LAST), "table": (HALF,)}
    raw = structured.join({"table": RAW[:, 0, 0], "image": RAW})
    axes = {"image": onnx_to_tflite.CHANNELS_LAST, "table": onnx_to_tflite.AS_IS}
    lowered = to_litert.Lowered(b"", axes=axes)
    laid_out = lowered.arranged(preprocessing.apply_all(steps, raw))
    again = preprocessing.apply_all(found, raw)
    assert again.dtype == laid_out.dtype
    assert np.array_equal(again["image"], laid_out["image"])
    assert np.array_equal(again["table"], laid_out["table"])


def test_a_net_that_is_not_turned_keeps_its_samples():
    assert to_litert.Lowered(b"").arranged(RAW) is RAW
