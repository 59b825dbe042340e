import msgspec
import pytest

from pipeline import manifest
from pipeline.nets import store
from pipeline.training.loop import Tensors, evaluate


@pytest.fixture
def pruned(tiny_project):
    tiny_project.run("train")
    return tiny_project.run("prune").out


@pytest.fixture
def validation(tiny_project):
    from pipeline.data import splits

    split = splits.read(tiny_project.models / "data/validation.npz")
    return Tensors.of(split.tensors(), split.labels)


def test_variants_and_manifest(tiny_project, pruned):
    found = manifest.verify(tiny_project.run("distill").out)
    net = ("net.json", "weights.safetensors")
    assert set(found.files) == {f"{v}/{name}" for v in tiny_project.p.recipes for name in net}
    assert (found.stage, found.labels) == ("distill", ("a", "b", "c"))
    assert found.preprocessing == ({"step": "channels_first"},)
    assert {i.path for i in found.inputs} == {"trained", "pruned", "train", "validation"}
    assert found.params["distill"]["dense"] == "skip"
    assert found.params["distill"]["pruned"]["temperature"] == 4.0
    assert pruned.is_dir()


def test_the_better_of_two_recoveries_is_kept_and_both_are_recorded(
    tiny_project, pruned, validation
):
    distilled = tiny_project.run("distill")
    found = distilled.metrics["pruned"]
    both = found["distilled_accuracy"], found["fine_tuned_accuracy"]
    assert found["validation_accuracy"] == max(both)
    assert found["difference"] == pytest.approx(both[0] - both[1])
    assert found["difference_lower"] < found["difference"] < found["difference_upper"]
    assert found["winner"] == ("distilled" if both[0] >= both[1] else "fine_tuned")
    stored = store.load(distilled.out / "pruned")
    assert evaluate(stored.net, validation).quality == max(both)
    before = evaluate(store.load(pruned / "pruned").net, validation).quality
    assert found["validation_accuracy_before"] == before < max(both)


def test_a_recovered_variant_keeps_its_small_shape(tiny_project, pruned):
    distilled = tiny_project.run("distill")
    before, after = store.load(pruned / "pruned"), store.load(distilled.out / "pruned")
    assert after.pruning_history == before.pruning_history
    assert after.net[0].out_channels == 4
    assert distilled.metrics["pruned"]["macs"] == distilled.metrics["pruned"]["macs_before"]


def test_a_skipped_variant_is_handed_on_and_equal_recipes_share_a_result(tiny_project, pruned):
    out = tiny_project.run("distill").out
    for name in ("weights.safetensors", "net.json"):
        assert (out / "dense" / name).read_bytes() == (pruned / "dense" / name).read_bytes()
        assert (out / "bare" / name).read_bytes() == (out / "pruned" / name).read_bytes()


def test_two_runs_give_the_same_bytes(tiny_project, pruned):
    assert pruned.is_dir()
    first = manifest.read(tiny_project.run("distill").out.rename(tiny_project.root / "first"))
    assert manifest.read(tiny_project.run("distill").out) == first


def test_the_seed_of_the_recovery_counts(tiny_project, pruned):
    assert pruned.is_dir()
    first = manifest.read(tiny_project.run("distill").out.rename(tiny_project.root / "first"))
    cfg = msgspec.structs.replace(tiny_project.p.distill["recover"], seed=77)
    changed = msgspec.structs.replace(tiny_project.p, distill={"recover": cfg})
    second = manifest.read(tiny_project.run("distill", changed).out)
    name = "pruned/weights.safetensors"
    assert first.files[name] != second.files[name]
