"""In every place: golden inputs give golden outputs, and the runner keeps to its protocol."""

import shutil
import tarfile

import numpy as np
import pytest

from pipeline import manifest
from pipeline.errors import ParityError
from pipeline.profiling import golden, measure
from pipeline.transports import choose
from pipeline.transports.conformance import cases
from tests.systems.measuring import ENVIRONMENTS, target_of

LOCAL = "device-tflite"
PLACES = ["local", "ssh", "adb", "emulated"]
MODELS = {
    "fp32": ("kws_ref_model_float32.tflite", "fp32"),
    "int8-static": ("kws_ref_model.tflite", "int8-static"),
}
# Of the keyword set's int8 inputs, as its README states them.
SCALE, ZERO_POINT = 0.5847029, 83
# What is asked of a runner under an emulator, which tells no times; a start takes seconds there.
UNTIMED = {
    "describe", "load", "signature", "no model", "unknown operator", "outputs", "values",
    "preprocessing", "several inputs",
}  # fmt: skip


@pytest.fixture
def place(request):
    """The target in a place, and where its environment is."""
    name = request.param
    if name == "local":
        if not (ENVIRONMENTS / LOCAL / "bin/python").is_file():
            pytest.skip("environment device-tflite is absent; run make setup")
        return target_of(environment=LOCAL), ENVIRONMENTS
    if name == "emulated":
        environments = request.getfixturevalue("emulated_environments")
        return target_of(environment="emulated-aarch64"), environments
    device = request.getfixturevalue({"ssh": "board", "adb": "android"}[name])
    return target_of(device.connection()), None


@pytest.fixture
def keywords(data_path):
    """The first samples of the official keyword-spotting set, as floats."""
    with tarfile.open(data_path / "mlperf-tiny/kws01/kws01_inputs.tar") as archive:
        members = sorted((m for m in archive if m.isfile()), key=lambda member: member.name)
        raw = [archive.extractfile(each).read() for each in members[: golden.NUM_GOLDEN]]
    levels = np.stack([np.frombuffer(each, np.int8) for each in raw]).astype(np.float32)
    return (levels.reshape(-1, 49, 10, 1) - ZERO_POINT) * np.float32(SCALE)


@pytest.fixture
def recorded(data_path, keywords, tmp_path):
    """An artifact, and its golden file as this machine makes it."""

    def make(name, precision):
        folder = tmp_path / f"kws-{precision}"
        folder.mkdir()
        shutil.copyfile(data_path / "mlperf-tiny/models" / name, folder / "model.tflite")
        manifest.write(folder, model="kws", stage="convert", preprocessing=())
        np.savez(tmp_path / "inputs.npz", inputs=keywords)
        here = target_of(environment=LOCAL)
        outputs = measure.outputs(folder, tmp_path / "inputs.npz", here, ENVIRONMENTS)
        golden.make_golden(tmp_path / "golden.npz", keywords, outputs, precision)
        return folder, tmp_path / "golden.npz"

    return make


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_golden_inputs_give_golden_outputs(place, model, recorded):
    artifact, path = recorded(*model)
    target, environments = place
    difference = golden.check_golden(artifact, path, target, environments)
    if target.evidence == "measured":  # the same processor and the same runtime
        assert difference == 0


@pytest.mark.parametrize("place", ["ssh"], indirect=True)
def test_golden_outputs_of_another_model_are_found(place, recorded):
    artifact, path = recorded(*MODELS["fp32"])
    with np.load(path) as arrays:
        changed = dict(arrays)
    changed["outputs"] = changed["outputs"] + 0.01
    np.savez(path, **changed)
    with pytest.raises(ParityError, match=r"differ by 0.01 on tflite_runtime, allowed"):
        golden.check_golden(artifact, path, *place)


@pytest.mark.parametrize("place", ["ssh", "adb", "emulated"], indirect=True)
def test_our_runner_keeps_to_its_protocol(place, monkeypatch):
    target, environments = place
    if target.evidence == "emulated":
        untimed = tuple(case for case in cases.CASES if case.name in UNTIMED)
        assert len(untimed) == len(UNTIMED)
        monkeypatch.setattr(cases, "CASES", untimed)
    rows = list(cases.check(choose.of(target, environments), target.runtime))
    assert {row.case: row.found for row in rows if not row.passed} == {}
