import msgspec
import pytest
import torch

from pipeline import files, manifest
from pipeline.errors import InputsError, NetError
from pipeline.nets import store


def test_the_teacher_and_its_manifest(tiny_project):
    trained = tiny_project.run("train")
    found = manifest.verify(trained.out)
    assert set(found.files) == {"weights.safetensors", "net.json"}
    assert (found.model, found.stage) == ("tiny", "train")
    assert found.labels == ("a", "b", "c")
    assert found.preprocessing == ({"step": "channels_first"},)
    assert [i.path for i in found.inputs] == ["train", "validation"]
    assert found.inputs[0].digest == files.digest_file(tiny_project.models / "data/train.npz")
    assert set(found.params) == {"net", "train"}
    assert set(found.tools) == {"torch", "safetensors"}
    assert str(tiny_project.root) not in (trained.out / "manifest.json").read_text()


def test_it_learned_and_the_metrics_say_so(tiny_project):
    teacher = tiny_project.run("train").metrics["teacher"]
    assert teacher["validation_accuracy"] > 85
    assert teacher["parameters"] == 8 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 16 * 3 + 3
    assert teacher["macs"] == 16 * 9 * (8 + 64) + 8 * 16 * 3
    assert teacher["size_bytes"] == 4 * teacher["parameters"]


def test_two_runs_give_the_same_bytes(tiny_project):
    first = tiny_project.run("train").out.rename(tiny_project.root / "first")
    torch.manual_seed(12345)
    second = tiny_project.run("train").out
    for name in ("weights.safetensors", "net.json", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_another_seed_gives_another_teacher(tiny_project):
    first = manifest.read(tiny_project.run("train").out.rename(tiny_project.root / "first"))
    train = msgspec.structs.replace(tiny_project.p.train, seed=5)
    changed = msgspec.structs.replace(tiny_project.p, train=train)
    second = manifest.read(tiny_project.run("train", changed).out)
    assert first.files["weights.safetensors"] != second.files["weights.safetensors"]
    assert first.files["net.json"] == second.files["net.json"]


def test_curves_are_written_one_point_an_epoch(tiny_project):
    curves = tiny_project.models / "training"
    tiny_project.run("train", live=curves)
    names = {path.stem for path in (curves / "plots" / "metrics").iterdir()}
    assert names == {"loss", "validation_loss", "validation_accuracy", "learning_rate"}
    lines = (curves / "plots" / "metrics" / "loss.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["step", "0", "1", "2"]
    assert not (tiny_project.root / "dvc.yaml").exists()


@pytest.fixture
def checkpoint(tiny_project):
    """A checkpoint at hand, and params that take it instead of training."""
    stored = store.load(tiny_project.run("train").out.rename(tiny_project.root / "first"))
    path = tiny_project.root / "weights.pt"
    torch.save(stored.net.state_dict(), path)

    def pin(digest=None):
        train = msgspec.structs.replace(
            tiny_project.p.train,
            seed=99,
            checkpoint=str(path),
            checkpoint_digest=digest or files.digest_file(path),
        )
        return msgspec.structs.replace(tiny_project.p, train=train)

    return path, pin


def test_a_checkpoint_replaces_training(tiny_project, checkpoint):
    path, pin = checkpoint
    trained = tiny_project.run("train", pin(), live=tiny_project.models / "training")
    first = tiny_project.root / "first" / "weights.safetensors"
    assert (trained.out / "weights.safetensors").read_bytes() == first.read_bytes()
    text = (trained.out / "manifest.json").read_text()
    assert files.digest_file(path) in text
    assert str(path) not in text
    assert (tiny_project.models / "training").is_dir()  # DVC misses an out that is not there


def test_a_checkpoint_with_other_bytes_than_pinned_is_refused(tiny_project, checkpoint):
    with pytest.raises(InputsError, match=r"train\.checkpoint: .*weights\.pt has sha256:"):
        tiny_project.run("train", checkpoint[1]("sha256:" + "0" * 64))
    assert not (tiny_project.models / "trained").exists()


def test_a_checkpoint_of_another_net_is_refused(tiny_project, checkpoint):
    path, pin = checkpoint
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(NetError, match=r"does not fit the net: .* missing .*1 unexpected"):
        tiny_project.run("train", pin())
