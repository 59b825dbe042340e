import msgspec

from pipeline import params
from pipeline.compression import variants


def test_each_variant_gets_the_settings_its_recipe_names():
    p = params.load()
    skip = params.Recipe(prune="skip", factorize="skip", distill="skip", quantize="skip")
    recipes = {"dense": skip, "pruned": msgspec.structs.replace(skip, prune="half")}
    p = msgspec.structs.replace(p, recipes=recipes)
    found = variants.settings_of(p, "prune")
    assert found == {"dense": None, "pruned": p.prune["half"]}
    said = variants.describe(found)
    assert said["dense"] == "skip"
    assert said["pruned"]["ratio"] == p.prune["half"].ratio


def test_handing_on_copies_bytes_without_manifest_or_protection(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("net.json", "manifest.json"):
        (source / name).write_text(name)
    (source / "net.json").chmod(0o444)  # as DVC leaves what it checks out
    variants.hand_on(source, tmp_path / "out" / "dense")
    copied = tmp_path / "out" / "dense" / "net.json"
    assert [path.name for path in copied.parent.iterdir()] == ["net.json"]
    assert copied.read_text() == "net.json"
    assert copied.stat().st_mode & 0o200
