"""Any model file in any place, by real workers."""

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from pipeline import params
from pipeline.errors import DataError, InputsError
from pipeline.profiling import any_file
from pipeline.profiling.bench import Preset
from pipeline.profiling.loadgen import Settings
from pipeline.profiling.places import Place, place_of

TINY = Preset(num_restarts=2, warmup_s=0.01, timed_s=0.02, min_samples=6)
ASKED = any_file.Asked(TINY)
SETTINGS = params.Profile()
GONE = "ssh:nobody@127.0.0.1:1"  # nothing listens there


@pytest.fixture
def file(make_artifact):
    return make_artifact([[1, -1], [-1, 1]]) / "model.onnx"


@pytest.fixture
def coarse(make_artifact):
    """The same net with weights that lost most of their digits."""
    return make_artifact([[1, 0], [-1, 1]]) / "model.onnx"


@pytest.fixture
def data(tmp_path):
    raw = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    labels = (raw[:, 0] < raw[:, 1]).astype(np.int64)
    np.savez_compressed(tmp_path / "mine.npz", inputs=raw, labels=labels)
    (tmp_path / "data").mkdir()
    return any_file.data_of(tmp_path / "mine.npz", tmp_path / "data")


def places(*texts):
    return [place_of(text, {}, SETTINGS) for text in texts]


def test_a_file_is_measured_against_its_reference(file, coarse, data):
    (found,) = any_file.profile(coarse, file, places("onnxruntime"), data, ASKED)
    m = found.row.measurement
    assert (m.kind, m.quality.metric, m.quality.n) == ("measured", "accuracy", 200)
    assert m.latency_ms.p50 > 0
    assert m.drop.value > 5
    assert found.row.reference.quality.value == 100
    assert 0.5 < m.agreement.top1_agreement < 1
    assert found.outputs.shape == (200, 2)


def test_without_labels_and_reference_there_is_speed_alone(file, data):
    unlabelled = any_file.Data(data.inputs, None)
    (found,) = any_file.profile(file, None, places("onnxruntime"), unlabelled, ASKED)
    assert found.row.measurement.latency_ms.p50 > 0
    assert (found.row.measurement.quality, found.row.measurement.drop) == (None, None)


def test_a_place_that_is_gone_stops_no_other(file, data):
    gone, here = any_file.profile(
        file, None, places(f"onnxruntime@{GONE}", "onnxruntime"), data, ASKED
    )
    assert here.row.measurement.kind == "measured"
    assert (gone.row.measurement, gone.outputs) == (None, None)
    assert "127.0.0.1:1: nothing listens on its port" in gone.row.reason


def test_places_of_one_device_are_measured_one_after_another():
    found = any_file._by_device(
        places("litert@ssh:a", "litert", "onnxruntime@ssh:b", "onnxruntime@ssh:a", "openvino")
    )
    assert [[place.text for place in device] for device in found] == [
        ["litert@ssh:a", "onnxruntime@ssh:a"], ["litert", "openvino"], ["onnxruntime@ssh:b"],
    ]  # fmt: skip


def test_outputs_are_held_against_the_reference_and_against_the_first_place(file, coarse, data):
    """The place that is gone neither gives outputs nor has any compared."""
    away, here = places(f"onnxruntime@{GONE}", "onnxruntime")
    gone, first, second = any_file.profile(coarse, file, [away, here, twin(here)], data, ASKED)
    assert gone.row.agreements == ()
    (against,) = first.row.agreements
    assert (against.model, against.against) == ("reference", "onnxruntime")
    assert against.found.n == 200
    assert against.found.num_changed == round(200 * (1 - changed_ratio(first)))
    assert against.found.bit_exact_ratio < 0.1
    same, own = second.row.agreements
    assert same == against
    assert (own.model, own.against) == ("file", "onnxruntime")
    assert (own.found.bit_exact_ratio, own.found.num_changed) == (1, 0)


def changed_ratio(profiled):
    return profiled.row.measurement.agreement.top1_agreement


def twin(place):
    """The same place by another name."""
    return Place("again", place.target)


def test_loads_and_layers_are_measured_where_they_are_asked_for(file, data):
    load = params.Scenario(scenario="Offline", batch_size=4)
    settings = params.Profile(layers=True, scenarios=(load,))
    where = [place_of("onnxruntime", {}, settings)]
    (found,) = any_file.profile(file, None, where, data, ASKED)
    m = found.row.measurement
    assert [(each.scenario, each.batch_size) for each in m.loads] == [("Offline", 4)]
    assert m.loads[0].throughput_per_s > 0
    assert [layer.operator for layer in m.layers] == ["MatMul"]


def test_where_loadgen_is_not_there_its_verdict_has_the_reason_and_the_row_stays(
    file, data, monkeypatch, tmp_path
):
    (tmp_path / "mlperf_loadgen.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    where, steps = places("onnxruntime"), []
    asked = any_file.Asked(TINY, [Settings(min_duration_s=0.1)])
    (found,) = any_file.profile(file, None, where, data, asked, on_step=steps.append)
    assert found.row.measurement.kind == "measured"
    (verdict,) = found.row.loadgen
    assert (verdict.verdict, verdict.p50_ms) == (None, None)
    assert "LoadGen cannot be imported: none here" in verdict.reason
    assert any_file.num_steps(where, data, asked, has_reference=False) == len(steps)


def test_modelled_energy_needs_the_hardware_of_a_target(file, data):
    settings = params.Profile(energy=params.EnergyMeter(meter="modelled"))
    bare = place_of("onnxruntime", {}, settings)
    known = replace(bare.target, hardware="raspberry-pi-5")
    board = place_of("onnxruntime@pi", {"pi": known}, settings)
    none, some = any_file.profile(file, None, [bare, board], data, ASKED)
    assert "modelled takes the power of the catalogue's hardware" in none.row.reason
    assert some.row.measurement.energy.kind == "modelled"


def test_what_the_runtime_refuses_is_a_row_with_the_reason(make_artifact, file, data):
    odd = make_artifact(np.eye(2), operator=("Nonsense", "acme")) / "model.onnx"
    (found,) = any_file.profile(odd, file, places("onnxruntime"), data, ASKED)
    assert (found.row.measurement, found.row.agreements) == (None, ())
    assert "Nonsense" in found.row.reason
    assert found.row.reference.quality.value == 100


PLACES = {
    "here": ("litert", "build", None),
    "its own environment": ("tflite_runtime", "device-tflite", None),
    "an emulator": ("tflite_runtime@emulated-aarch64", "emulated-aarch64", None),
    "a board": ("onnxruntime@ssh:pi@board", "build", params.Ssh(host="pi@board")),
    "a board's port": (
        "onnxruntime@ssh:pi@board:2222", "build", params.Ssh(host="pi@board", port=2222),
    ),
    "a phone": ("litert@adb:R58", "build", params.Adb(serial="R58")),
}  # fmt: skip


@pytest.mark.parametrize(("text", "environment", "connection"), PLACES.values(), ids=PLACES)
def test_places(text, environment, connection):
    (found,) = places(text)
    assert found.target.profile.environment == environment
    assert found.target.connection == connection


def test_a_target_of_the_project_is_a_place():
    board = params.Ssh(host="pi@board", identity="key")
    target = place_of("tflite_runtime", {}, SETTINGS).target
    known = {"pi": msgspec.structs.replace(target, connection=board)}
    assert place_of("litert@pi", known, SETTINGS).target.connection == board


WRONG = {
    "runtime": ("torch", r"runtime 'torch' is not known; known: onnxruntime, litert"),
    "place": ("litert@moon", r"'moon' is no place for litert; known: build, ssh:HOST"),
    "an emulator it is not in": ("litert@emulated-aarch64", r"is no place for litert"),
    "port": ("litert@ssh:a:x", r"is no device: .*port"),
    "an option as host": ("litert@ssh:-oProxyCommand=x", r"is no device"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_place_is_one_line(text, message):
    with pytest.raises(InputsError, match=message):
        places(text)


def test_a_missing_file_is_one_line(data, tmp_path):
    with pytest.raises(InputsError, match=r"gone.onnx is missing"):
        any_file.profile(tmp_path / "gone.onnx", None, places("onnxruntime"), data, ASKED)


def test_data_without_inputs_is_one_line(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.ones((3, 2)))
    with pytest.raises(DataError, match=r"no array 'inputs'"):
        any_file.data_of(tmp_path / "mine.npz", tmp_path)
