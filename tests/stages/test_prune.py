import json
from pathlib import Path

import msgspec
import pytest

from pipeline import files, manifest, params
from pipeline.errors import DigestMismatchError, ParamsError
from pipeline.nets import count, store


@pytest.fixture
def trained(tiny_project):
    return tiny_project.run("train").out


def test_variants_and_manifest(tiny_project, trained):
    pruned = tiny_project.run("prune").out
    found = manifest.verify(pruned)
    net = ("net.json", "weights.safetensors")
    names = {f"{variant}/{name}" for variant in tiny_project.p.recipes for name in net}
    assert set(found.files) == names | {"kept_whole.json"}
    assert (found.stage, found.labels) == ("prune", ("a", "b", "c"))
    assert found.preprocessing == ({"step": "channels_first"},)
    assert [i.path for i in found.inputs] == ["trained"]
    assert found.inputs[0].digest == files.digest_file(trained / "manifest.json")
    assert found.params["prune"]["dense"] == "skip"
    assert found.params["prune"]["pruned"]["ratio"] == 0.5
    assert "torch-pruning" in found.tools


def test_a_pruned_variant_is_smaller_also_when_it_is_loaded_again(tiny_project, trained):
    pruned = tiny_project.run("prune")
    stored = store.load(pruned.out / "pruned")
    counts = count.count(stored.net, stored.input_shape)
    before = count.count(store.load(trained).net, stored.input_shape)
    assert counts.macs < 0.5 * before.macs
    assert stored.net[0].out_channels == stored.net[3].out_channels == 4
    figures = pruned.metrics["pruned"]
    assert (figures["macs"], figures["macs_before"]) == (counts.macs, before.macs)
    assert figures["size_bytes"] < figures["size_bytes_before"]
    assert figures["validation_accuracy_before"] > 85


def test_a_skipped_variant_is_handed_on_unchanged(tiny_project, trained):
    pruned = tiny_project.run("prune")
    for name in ("weights.safetensors", "net.json"):
        assert (pruned.out / "dense" / name).read_bytes() == (trained / name).read_bytes()
    assert pruned.metrics["dense"]["macs"] == pruned.metrics["dense"]["macs_before"]


def test_layers_kept_whole_are_on_record(tiny_project, trained):
    assert trained.is_dir()
    found = json.loads((tiny_project.run("prune").out / "kept_whole.json").read_text())
    assert found["pruned"] == {"6": "its outputs are the net's"}
    assert "dense" not in found


def test_a_ratio_that_removes_nothing_is_refused_and_nothing_is_written(tiny_project, trained):
    assert trained.is_dir()
    cfg = params.Prune(ratio=0.9, round_to=64, criterion="magnitude")
    p = msgspec.structs.replace(tiny_project.p, prune={"half": cfg})
    with pytest.raises(ParamsError, match=r"removes no channel with ratio 0\.9 and round_to 64"):
        tiny_project.run("prune", p)
    assert not (trained.parent / "pruned").exists()


def test_taylor_reads_train_and_says_so(tiny_project, trained):
    cfg = params.Prune(ratio=0.5, round_to=4, criterion="taylor")
    pruned = tiny_project.run("prune", msgspec.structs.replace(tiny_project.p, prune={"half": cfg}))
    assert trained.is_dir()
    assert [i.path for i in manifest.read(pruned.out).inputs] == ["trained", "train"][::-1]
    assert pruned.metrics["pruned"]["macs"] < pruned.metrics["dense"]["macs"]


def test_a_trained_net_with_other_bytes_is_refused(tiny_project, trained):
    path = Path(trained) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DigestMismatchError, match=r"manifest: weights\.safetensors"):
        tiny_project.run("prune")
    assert not (tiny_project.models / "pruned").exists()
