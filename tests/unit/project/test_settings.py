"""The sections that `slipway init` writes: presets, defaults, and the YAML that a person reads."""

from pathlib import Path

import pytest
import yaml

from pipeline import params
from pipeline.compatibility import PRECISIONS
from pipeline.errors import ParamsError
from pipeline.project import settings

ROOT = Path(__file__).parents[3]
OWN = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def written(tmp_path, sections):
    path = tmp_path / "params.yaml"
    path.write_text(settings.text(sections, "params.schema.json"), encoding="utf-8")
    return path


def test_targets_come_in_the_order_asked_for():
    assert list(settings.targets(["x86-litert", "x86-onnxruntime"])) == [
        "x86-litert", "x86-onnxruntime",
    ]  # fmt: skip
    assert settings.targets(["all"]) == settings.presets()


def test_an_unknown_target_is_one_line_with_the_known_ones():
    with pytest.raises(ParamsError, match=r"'toaster' is not known; known: x86-onnxruntime, .*, or "
                                          r"all; add your own to params\.yaml$"):  # fmt: skip
        settings.targets(["x86-litert", "toaster"])


def test_presets_are_valid_and_hold_every_converter(tmp_path):
    p = params.load(written(tmp_path, {**OWN, "targets": settings.presets()}))
    assert {target.converter for target in p.targets.values()} == PRECISIONS.keys()


def test_a_project_that_trains_starts_from_what_this_repository_measures():
    for name, section in settings.trained().items():
        assert section == OWN[name], name


def test_an_onnx_file_takes_no_training():
    found = settings.adopted("model.onnx")
    assert list(found["recipes"]) == ["dense"]
    assert not {"train", "prune", "distill"} & found.keys()
    assert found["task"] == {"kind": "agreement", "metric": "top1"}


def test_what_is_written_is_what_is_read(tmp_path):
    path = written(tmp_path, {**OWN, "targets": settings.targets(["x86-litert"])})
    assert yaml.safe_load(path.read_text()) == {
        **OWN, "targets": {"x86-litert": OWN["targets"]["x86-litert"]},
    }  # fmt: skip
    params.load(path)


def test_a_person_reads_it_from_top_to_bottom(tmp_path):
    lines = written(tmp_path, OWN).read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=params.schema.json"
    order = [line.split(":")[0] for line in lines if line[:1].isalpha()]
    assert order == [name for name in settings.SECTIONS if name in OWN]
    assert "  - {step: scale, factor: 0.0625}" in lines
    assert "      precisions: [fp32, int8-dynamic, int8-static]" in lines
    assert lines[lines.index("task:") - 1] == "# By what quality is judged."
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(("number", "samples", "calibration"), [(20, 20, 20), (100, 64, 100)])
def test_few_samples_are_asked_for_where_there_are_few(number, samples, calibration):
    sections, targets = settings.trained(), settings.targets(["x86-litert"])
    settings.lower_calibration(sections, targets, number)
    assert sections["quantize"]["int8"]["num_samples"] == samples
    assert targets["x86-litert"]["convert"]["num_calibration"] == calibration


def test_enough_samples_change_nothing():
    sections, targets = settings.trained(), settings.targets(["x86-litert"])
    settings.lower_calibration(sections, targets, settings.NUM_CALIBRATION)
    assert (sections, targets) == (settings.trained(), settings.targets(["x86-litert"]))
