import json

import msgspec
import pytest

from pipeline import manifest, params
from pipeline.errors import ParamsError


@pytest.fixture
def distilled(tiny_project):
    for stage in ("train", "prune"):
        tiny_project.run(stage)
    return tiny_project.run("distill").out


def test_variants_and_manifest(tiny_project, distilled):
    found = manifest.verify(tiny_project.run("quantize").out)
    net = ("net.json", "weights.safetensors")
    names = {f"{variant}/{name}" for variant in tiny_project.p.recipes for name in net}
    # dense and bare skip quantize
    assert set(found.files) == names | {"pruned/sensitivity.json"}
    assert (found.stage, found.labels) == ("quantize", ("a", "b", "c"))
    assert found.preprocessing == ({"step": "channels_first"},)
    assert [i.path for i in found.inputs] == ["calibration", "distilled"]
    assert found.params["quantize"]["dense"] == "skip"
    assert found.params["quantize"]["pruned"] == {"bits": 8, "num_samples": 16}
    for name in names:
        assert found.files[name] == manifest.read(distilled).files[name]


def test_sensitivity_of_every_layer_is_written_worst_first(tiny_project, distilled):
    assert distilled.is_dir()
    quantized = tiny_project.run("quantize")
    scores = json.loads((quantized.out / "pruned" / "sensitivity.json").read_text())
    assert {score["layer"] for score in scores} == {"0", "3", "6"}
    assert [s["sqnr_db"] for s in scores] == sorted(s["sqnr_db"] for s in scores)
    assert all(score["activation_min"] < score["activation_max"] for score in scores)
    metrics = quantized.metrics["pruned"]
    assert metrics["num_layers"] == 3
    assert metrics["most_sensitive"] == scores[0]["layer"]
    assert metrics["lowest_sqnr_db"] == scores[0]["sqnr_db"]
    assert "num_layers" not in quantized.metrics["dense"]


def test_a_calibration_set_that_is_too_small_is_refused(tiny_project, distilled):
    assert distilled.is_dir()
    cfg = params.Quantize(bits=8, num_samples=17)
    changed = msgspec.structs.replace(tiny_project.p, quantize={"int8": cfg})
    with pytest.raises(ParamsError, match="num_samples is 17, but the calibration set has 16"):
        tiny_project.run("quantize", changed)
