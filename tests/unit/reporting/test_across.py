"""The same model in different places: what is compared with what, and what is not."""

import numpy as np
import pytest

from pipeline import manifest
from pipeline.errors import ManifestError
from pipeline.reporting import across, across_view, report
from pipeline.reporting.answer import Answer
from pipeline.reporting.evidence import Sources

GRID = np.array([[1, 5, 2], [4, -3, 0], [7, 7, 8], [0, 1, 0]]) * 0.5
QUANTIZED = manifest.Quantization((0.5,), (3,))


@pytest.fixture
def places(samples, tmp_path):
    """Targets with outputs of candidates: ``add(target, {candidate: (outputs, quantization)})``."""

    class Places:
        answers, profiled, converted = (), {}, {}

        def add(self, target, candidates, kind="measured", validation="sha256:0"):
            self.profiled[target] = tmp_path / "profiled" / target
            self.converted[target] = tmp_path / "converted" / target
            for name, (outputs, quantization) in candidates.items():
                folder = self.profiled[target] / name
                folder.mkdir(parents=True)
                np.savez(folder / "outputs.npz", outputs=outputs.astype(np.float32))
                artifact = self.converted[target] / name
                artifact.mkdir(parents=True)
                output = manifest.Tensor("out", "int8", (1, 3), quantization=quantization)
                signature = manifest.Signature((), (output,))
                manifest.write(artifact, model="m", stage="convert", signature=signature)
            inputs = (manifest.Input("validation", validation),)
            manifest.write(self.profiled[target], model="m", stage="profile", inputs=inputs)
            measured = tuple(samples.measured(n, target=target, kind=kind) for n in candidates)
            self.answers += (Answer(target=target, status="ships", candidates=measured),)

        def gather(self, **more):
            return across.gather(self.answers, self.profiled, self.converted, **more)

    return Places()


def rows(found):
    return [(r.variant, r.precision, r.target, r.reference_target) for r in found]


def test_every_candidate_is_held_against_its_variants_first_fp32_and_its_precisions_first(places):
    places.add("a", {"dense-fp32": (GRID, None), "dense-int8-static": (GRID + 0.5, None)})
    places.add("b", {"dense-fp32": (GRID, None), "dense-int8-static": (GRID, None)})
    found = places.gather()
    assert rows(found.against_fp32) == [
        ("dense", "fp32", "b", "a"),
        ("dense", "int8-static", "a", "a"),
        ("dense", "int8-static", "b", "a"),
    ]
    assert rows(found.between) == [("dense", "int8-static", "b", "a")]
    assert [row.found.bit_exact_ratio for row in found.against_fp32] == [1, 0, 1]


def test_between_runtimes_the_first_is_one_whose_steps_another_shares(places):
    places.add("floats", {"dense-int8-static": (GRID, None)})
    places.add("steps", {"dense-int8-static": (GRID, QUANTIZED)})
    places.add("alike", {"dense-int8-static": (GRID + [[0, 0, 1]] * 4, QUANTIZED)})
    found = places.gather()
    assert found.against_fp32 == ()
    assert rows(found.between) == [
        ("dense", "int8-static", "floats", "steps"),
        ("dense", "int8-static", "alike", "steps"),
    ]
    assert [row.found.max_step for row in found.between] == [None, 2]


def test_another_zero_point_is_another_scale(places):
    other = manifest.Quantization((0.5,), (4,))
    places.add("a", {"dense-int8-static": (GRID, QUANTIZED)})
    places.add("b", {"dense-int8-static": (GRID, other)})
    assert [row.found.max_step for row in places.gather().between] == [None]


def test_kinds_stand_side_by_side_each_with_its_word(places):
    places.add("box", {"dense-fp32": (GRID, None), "dense-int8-static": (GRID, QUANTIZED)})
    places.add("pi", {"dense-int8-static": (GRID + 0.5, QUANTIZED)}, kind="emulated")
    places.add("npu", {"dense-int8-static": (GRID, QUANTIZED)}, kind="estimated")
    against, between = across_view.tables(places.gather())
    assert against.header == (
        "candidate", "compared with", "box, measured", "pi, emulated", "npu, estimated",
    )  # fmt: skip
    assert [str(cell) for cell in between.rows[0]] == [
        "dense, int8-static",
        "box",
        "0 of 4 classes change (0.0\N{NO-BREAK SPACE}% bit-equal, else off by 1 step at most)",
        "0 of 4 classes change (every output bit-equal)",
    ]


def test_a_target_on_other_validation_data_is_left_out_and_named(places):
    places.add("a", {"dense-fp32": (GRID, None)})
    places.add("b", {"dense-fp32": (GRID, None)}, validation="sha256:1")
    found = places.gather()
    assert (found.against_fp32, found.between) == ((), ())
    assert found.left_out == ("b was profiled on other inputs than a",)


def test_outputs_of_other_shapes_are_left_out_and_named(places):
    places.add("a", {"dense-fp32": (GRID, None)})
    places.add("b", {"dense-fp32": (GRID[:2], None)})
    (line,) = places.gather().left_out
    assert line.startswith("dense, fp32 on b against a: outputs have shape [2, 3]")


def test_without_artifacts_steps_are_not_known_and_all_else_is(places):
    places.add("a", {"dense-int8-static": (GRID, QUANTIZED)})
    places.add("b", {"dense-int8-static": (GRID, QUANTIZED)})
    (places.converted["b"] / "dense-int8-static/manifest.json").unlink()
    (row,) = places.gather().between
    assert (row.found.max_step, row.found.bit_exact_ratio) == (None, 1)


def test_a_target_that_failed_has_nothing_to_compare(places):
    places.add("a", {"dense-fp32": (GRID, None)})
    places.answers += (Answer(target="gone", status="failed", reason="device gone"),)
    assert places.gather().left_out == ()


def test_where_the_task_has_no_classes_none_is_counted(places):
    places.add("a", {"dense-fp32": (GRID, None)})
    places.add("b", {"dense-fp32": (GRID + [[0, 0, 9]] * 4, None)})
    found = places.gather(has_classes=False)
    assert found.against_fp32[0].found.num_changed is None
    (cell,) = (row[-1] for row in across_view.tables(found)[0].rows)
    assert cell.value == "4 samples"
    assert cell.detail == "0.0\N{NO-BREAK SPACE}% bit-equal, else off by 9 at most"


def test_outputs_that_cannot_be_read_are_named(places):
    places.add("a", {"dense-fp32": (GRID, None)})
    places.add("b", {"dense-fp32": (GRID, None)})
    path = places.profiled["b"] / "dense-fp32/outputs.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ManifestError, match=r"outputs\.npz is malformed: .*; restore it"):
        places.gather()


def test_the_markdown_and_the_json_hold_the_same(places, tmp_path):
    places.add("a", {"dense-fp32": (GRID, None), "dense-int8-static": (GRID + 1, None)})
    found = places.gather()
    made = report.Report(model="m", answers=(), stages={}, agreements=found)
    text = report.markdown(made)
    assert "## How far outputs agree" in text
    assert "| dense, int8-static | a | 0 of 4 classes change (0.0" in text
    report.write(made, tmp_path, Sources())
    assert report.read(tmp_path / "report.json").agreements == found
