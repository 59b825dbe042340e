import pytest

from pipeline import errors, manifest
from pipeline.reporting import lineage


@pytest.fixture
def chain(samples, tmp_path):
    folders = samples._write_chain(tmp_path, ["a", "b"])
    return lineage.trace(folders)


def node(chain, name):
    return next(n for n in chain.inputs if n.name == name)


def test_digests_alone_link_an_output_to_what_was_made_of_it(chain):
    assert [n.name for n in chain.inputs] == [
        "prepare", "adopt", "convert@a", "profile@a", "convert@b", "profile@b",
    ]  # fmt: skip
    assert {n.name for n in chain.sources(node(chain, "convert@a"))} == {"prepare", "adopt"}


def test_a_file_of_a_folder_leads_to_the_folder_and_names_the_file(chain):
    train = next(link for link in chain.inputs[node(chain, "adopt")] if link.role == "train")
    assert (train.source.name, train.part) == ("prepare", "train.npz")


def test_what_no_folder_holds_came_from_outside(chain):
    onnx = next(link for link in chain.inputs[node(chain, "adopt")] if link.role == "onnx")
    assert onnx.source is None


def test_an_input_that_a_source_also_read_is_no_direct_one(chain):
    """convert reads prepare and adopt, and adopt reads prepare: one line is drawn."""
    assert [n.name for n in chain.direct(node(chain, "convert@a"))] == ["adopt"]


def test_a_folder_rewritten_since_is_no_longer_the_source(samples, tmp_path):
    folders = samples._write_chain(tmp_path, ["a"])
    manifest.write(tmp_path / "exported", model="m", stage="adopt")
    found = lineage.trace(folders)
    exported = next(
        link for link in found.inputs[node(found, "convert@a")] if link.role == "exported"
    )
    assert exported.source is None


def test_a_single_variant_is_part_of_its_stage(tmp_path):
    manifest.write(tmp_path, model="m", stage="export", variant="dense")
    assert lineage.trace([tmp_path]).inputs == {}


def test_a_manifest_that_cannot_be_read_is_one_clear_line(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(errors.ManifestError, match="malformed"):
        lineage.trace([tmp_path])
