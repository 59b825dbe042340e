import numpy as np
import pytest

from pipeline import errors
from pipeline.reporting import evidence
from pipeline.reporting.evidence import Sources


def write_samples(folder, runs, **arrays):
    folder.mkdir(parents=True)
    np.savez(folder / "samples.npz", runs_per_sample=np.array(runs, np.int64), **arrays)


def test_shares_of_a_histogram_and_what_lies_beyond_add_up(samples, tmp_path):
    answers = samples.all_shapes()
    found = evidence.read(samples.write_evidence(tmp_path, answers))
    spread = found.distributions["phone-litert"]
    assert len(spread.of) == 7, "what was not measured has no samples"
    for histogram in spread.of.values():
        inside = round(float(histogram.shares.sum()) * histogram.num_samples)
        assert inside + histogram.num_beyond == histogram.num_samples == 1200


def test_a_sample_of_several_runs_counts_as_the_mean_of_one(tmp_path):
    times = np.full(100, 4_000_000, np.int64)
    write_samples(tmp_path / "t/a-fp32", [2, 4], samples_ns_0=times, samples_ns_1=2 * times)
    spread = evidence.read(Sources(profiled={"t": tmp_path / "t"})).distributions["t"]
    assert spread.of["a-fp32"].medians_ms == (2.0, 2.0)
    assert spread.of["a-fp32"].runs_per_sample == 4


def test_equal_times_still_have_an_axis(tmp_path):
    write_samples(tmp_path / "t/a-fp32", [1], samples_ns_0=np.full(50, 1_000_000, np.int64))
    spread = evidence.read(Sources(profiled={"t": tmp_path / "t"})).distributions["t"]
    assert (np.diff(spread.edges_ms) > 0).all()
    assert spread.of["a-fp32"].num_beyond == 0


def test_one_slow_sample_does_not_stretch_the_axis(tmp_path):
    times = np.append(np.full(999, 1_000_000), 50_000_000).astype(np.int64)
    write_samples(tmp_path / "t/a-fp32", [1], samples_ns_0=times)
    spread = evidence.read(Sources(profiled={"t": tmp_path / "t"})).distributions["t"]
    assert spread.edges_ms[-1] < 2
    assert spread.of["a-fp32"].num_beyond == 1


def test_what_was_never_made_is_left_out(tmp_path):
    absent = tmp_path / "absent"
    found = evidence.read(
        Sources(profiled={"t": absent}, quantized=absent, curves=absent, manifests=[absent])
    )
    assert (found.distributions, found.sensitivity, found.curves) == ({}, {}, ())
    assert found.lineage.inputs == {}


def test_curves_keep_steps_and_values(samples, tmp_path):
    found = evidence.read(samples.write_evidence(tmp_path, ()))
    loss = next(curve for curve in found.curves if curve.name == "loss")
    assert loss.steps[:3] == (0.0, 1.0, 2.0)
    assert loss.values[:2] == (2.0, 1.0)


BROKEN = {
    "a curve without steps": ("curves/loss.tsv", b"epoch\tloss\n0\t1\n"),
    "a curve of words": ("curves/loss.tsv", b"step\tloss\n0\tone\n"),
    "a curve cut short": ("curves/loss.tsv", b"step\tloss\n0\n"),
    "sensitivity that is no list": ("quantized/dense/sensitivity.json", b"{}"),
    "samples that are no archive": ("profiled/a-fp32/samples.npz", b"random bytes"),
    "samples cut short": ("profiled/a-fp32/samples.npz", b"PK\x03\x04"),
}


@pytest.mark.parametrize(("name", "content"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_named_with_its_remedy(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    sources = Sources(
        profiled={"t": tmp_path / "profiled"},
        quantized=tmp_path / "quantized",
        curves=tmp_path / "curves",
    )
    with pytest.raises(errors.ManifestError, match=r"is malformed: .*; restore it") as caught:
        evidence.read(sources)
    assert str(path) in str(caught.value)
