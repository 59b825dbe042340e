"""The chain as users run it: real dvc, training, converters and timings, in miniature."""

import json
import re
import shutil

import pytest

from pipeline import files

TARGETS = ("x86-onnxruntime", "x86-litert")
SHARED = {"prepare", "train", "prune", "distill", "quantize", "export"}
PER_TARGET = ("convert", "profile", "select", "certify", "register")
pytestmark = pytest.mark.slow


def chain(target):
    return {f"{stage}@{target}" for stage in PER_TARGET}


def drop_target(values):
    del values["targets"]["x86-litert"]


def test_all_stages_run_and_a_second_run_runs_only_toolchain(built_once, built):
    assert set(built_once.ran) == {"toolchain", *SHARED, *chain(TARGETS[0]), *chain(TARGETS[1])}
    assert built.repro() == ["toolchain"]


def test_the_answer_names_what_ships_on_each_target(built):
    shown = built.slipway("report").stdout
    report = json.loads((built.path / "models/report/report.json").read_text())
    assert [answer["target"] for answer in report["answers"]] == list(TARGETS)
    for answer in report["answers"]:
        assert answer["status"] == "ships"
        assert "Ship `" in shown
        assert answer["artifact"]["quality"]["n"] > 600
        assert answer["artifact"]["latency_ms"]["p50"] > 0
    page = (built.path / "models/report/report.md").read_text()
    assert "What ships" in shown
    won = r"\| (distilled|fine_tuned) \| [+-]\d+\.\d\d \[[+-].*\.\.[+-].*\], n=5\d\d \|"
    assert re.search(won, page), "which recovery won, and by how much"
    assert "Ship `" in built.slipway("explain", "x86-litert").stdout


def test_a_candidate_other_than_the_reference_meets_the_default_budget(built_once):
    ranked = {c for target in TARGETS for c in built_once.selection(target)["ranking"]}
    assert ranked - {"dense-fp32"}


def test_two_clones_at_different_paths_give_the_same_manifests_and_hold_no_path(
    built_once, make_clone
):
    other = make_clone("quite/another/place")
    other.repro("--no-commit", *(f"convert@{target}" for target in TARGETS))
    stages = ("data", "trained", "pruned", "distilled", "quantized", "exported", "converted")
    digests = other.manifest_digests(*stages)
    assert len(digests) > len(stages)
    assert digests == built_once.manifest_digests(*stages)
    for project in (built_once, other):
        for path in sorted((project.path / "models").rglob("*")):
            if path.is_file() and not path.is_relative_to(project.path / "models/training"):
                assert bytes(project.path.parent) not in path.read_bytes(), path


CHANGES = {
    "a budget": (
        lambda v: v["targets"]["x86-litert"]["select"].update(max_quality_drop=99.0),
        {"select@x86-litert", "certify@x86-litert", "register@x86-litert"},
    ),
    "a quantize parameter": (
        lambda v: v["quantize"]["int8"].update(num_samples=32),
        {"quantize", "export", "convert@x86-onnxruntime"},
    ),
    "a converter's precisions": (
        lambda v: v["targets"]["x86-onnxruntime"]["convert"].update(
            precisions=["fp32", "int8-dynamic"]
        ),
        chain("x86-onnxruntime"),
    ),
    "a target removed": (drop_target, set()),
    "the order of targets": (
        lambda v: v.update(targets=dict(reversed(v["targets"].items()))), set(),
    ),
    "a target renamed": (
        lambda v: v["targets"].update(mine=v["targets"].pop("x86-onnxruntime")), chain("mine"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "allowed"), CHANGES.values(), ids=CHANGES)
def test_a_change_runs_only_what_it_concerns(built, change, allowed):
    built.edit(change)
    # as far as the change can reach without measuring what no change here concerns
    goals = ["convert@x86-onnxruntime"] if "quantize" in allowed else []
    ran = set(built.repro(*goals)) - {"toolchain"}
    assert ran <= allowed
    assert bool(ran) == bool(allowed)
    assert not ran & {"train", "prune", "distill"}


def test_a_removed_target_is_gone_from_report_and_release(built):
    built.edit(drop_target)
    built.repro()
    built.slipway("report")
    assert "x86-litert" not in (built.path / "models/report/report.md").read_text()
    built.slipway("publish")
    shown = json.loads(built.slipway("registry", "show", "digits").stdout)
    assert set(shown["targets"]) == {"x86-onnxruntime"}


def test_publish_then_pull_then_run_on_a_fresh_clone_without_repro(built, tmp_path):
    remote = tmp_path / "remote"
    built.dvc("remote", "add", "-d", "-f", "here", remote)
    built.commit()
    built.dvc("push", "--run-cache")
    built.run("git", "clone", "-q", ".", tmp_path / "fresh")
    fresh = type(built)(tmp_path / "fresh")
    fresh.dvc("pull", "register")
    assert fresh.run("git", "status", "--porcelain").stdout == ""
    fresh.slipway("publish", "--version", "1.0.0")
    fresh.slipway("pull", "digits", "--target", "x86-litert", "--to", "got")
    assert fresh.slipway("registry", "verify").returncode == 0
    shutil.copy(built.path / "models/data/validation.npz", fresh.path / "samples.npz")
    shown = fresh.slipway("run", "got", "samples.npz").stdout.splitlines()
    assert len(shown) > 500
    ran = fresh.repro("--pull")
    assert ran == ["toolchain"]


def test_publishing_twice_is_a_no_op_and_other_bytes_under_the_same_version_are_refused(built):
    built.slipway("publish", "--version", "1.0.0")
    before = registry_state(built)
    built.slipway("publish", "--version", "1.0.0")
    assert registry_state(built) == before
    built.edit(drop_target)
    built.repro()
    built.commit()
    refused = built.slipway("publish", "--version", "1.0.0", check=False)
    assert refused.returncode == 2
    assert re.search(r"1\.0\.0 .*another digest|1\.0\.0.*other", refused.stderr)
    assert registry_state(built) == before


def registry_state(project):
    root = project.path / "registry"
    return {name: files.digest_file(root / name) for name in files.list_files(root)}


def test_a_tool_that_was_absent_and_is_then_installed_rebuilds_only_its_target(built):
    built.edit(lambda v: v["targets"].update({
        "linux-tflite-runtime": v["targets"]["x86-litert"]
        | {"runtime": "tflite_runtime", "profile": {"environment": "device-tflite"},
           "convert": {"precisions": ["fp32"]}}
    }))  # fmt: skip
    ran = built.repro(SLIPWAY_ENVIRONMENTS=str(built.path / "nowhere"))
    assert set(ran) == {"toolchain", *chain("linux-tflite-runtime")}
    report = built.slipway("report").stdout
    assert "Nothing ships on linux-tflite-runtime" in report
    ran = set(built.repro())
    after = {
        f"{stage}@linux-tflite-runtime" for stage in ("profile", "select", "certify", "register")
    }
    assert after <= ran <= {"toolchain", *chain("linux-tflite-runtime")}
    assert "Ship `" in built.slipway("explain", "linux-tflite-runtime").stdout


def test_one_target_that_fails_leaves_the_others_shipping_and_says_so(built):
    """The device of one target is gone: its worker dies, nothing is recorded, the others go on."""
    (built.path / "pipeline/runtimes/litert.py").write_text("raise SystemExit(9)\n")
    built.edit(lambda v: v["targets"]["x86-onnxruntime"]["profile"].update(num_threads=2))
    done = built.dvc("repro", "--keep-going", check=False)
    assert done.returncode != 0
    assert "profile@x86-litert" in done.stderr + done.stdout
    assert not (built.path / "models/profiled/x86-litert/manifest.json").exists()
    shown = built.slipway("report").stdout
    assert "Nothing ships on x86-litert" in shown
    assert "on x86-onnxruntime: p50" in shown
    published = built.slipway("publish")
    assert "without x86-litert" in published.stdout
    shown = json.loads(built.slipway("registry", "show", "digits").stdout)
    assert set(shown["targets"]) == {"x86-onnxruntime"}


def test_exit_3_when_no_target_can_ship(built):
    built.edit(lambda v: [t["select"].update(max_size_bytes=1) for t in v["targets"].values()])
    built.repro()
    done = built.slipway("report", check=False)
    assert done.returncode == 3
    page = (built.path / "models/report/report.md").read_text()
    assert re.search(r"size \d+ bytes, allowed 1, over by", page.replace("e+04", ""))
    assert built.slipway("publish", check=False).returncode == 2


def test_bad_params_are_refused_before_anything_is_deleted(built):
    before = built.manifest_digests("trained", "release")
    built.edit(lambda v: v["prune"]["half"].update(ratio=1.5))
    done = built.slipway("check", check=False)
    assert done.returncode == 2
    assert re.fullmatch(
        r"prune\.half\.ratio must be float < 1\.0, got 1\.5 \(params\.yaml:\d+\)\n", done.stderr
    )
    assert built.manifest_digests("trained", "release") == before


def test_what_a_failed_run_broke_is_restored_by_dvc_checkout(built):
    before = built.manifest_digests("trained", "release")
    built.edit(lambda v: v["train"].update(learning_rate=1e30))
    done = built.dvc("repro", check=False)
    assert done.returncode != 0
    assert re.search(r"train: .*loss.*\n", done.stderr + done.stdout)
    assert built.manifest_digests("trained", "release") != before
    built.run("git", "checkout", "params.yaml", "dvc.lock")
    built.dvc("checkout")
    assert built.manifest_digests("trained", "release") == before


def test_explain_without_the_outs_names_what_brings_them(built):
    shutil.rmtree(built.path / "models/certified")
    shown = built.slipway("explain", "x86-litert").stdout
    assert "models/certified/x86-litert is not here; run dvc checkout, or dvc pull" in shown


def test_an_unknown_target_is_one_line_with_the_known_ones(built):
    built.slipway("publish")
    for command in (
        ("explain", "toaster"),
        ("pull", "digits", "--target", "toaster", "--to", "got"),
    ):
        done = built.slipway(*command, check=False)
        assert done.returncode == 2
        assert re.fullmatch(r".*toaster.*x86-onnxruntime.*\n", done.stderr)
    assert not (built.path / "got").exists()


DAMAGE = {
    "a flipped byte": lambda blob: blob.write_bytes(
        bytes([blob.read_bytes()[0] ^ 1]) + blob.read_bytes()[1:]
    ),
    "a truncated blob": lambda blob: blob.write_bytes(blob.read_bytes()[:-1]),
    "a missing blob": lambda blob: blob.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_registry_is_found_and_nothing_is_left_behind(built, damage):
    built.slipway("publish")
    release = json.loads(built.slipway("registry", "show", "digits").stdout)
    digest = release["targets"]["x86-litert"]["files"]["artifact/model.tflite"]["digest"][7:]
    blob = built.path / "registry/blobs/sha256" / digest[:2] / digest
    blob.chmod(0o644)
    damage(blob)
    done = built.slipway("pull", "digits", "--target", "x86-litert", "--to", "got", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert digest[:8] in done.stderr
    assert not (built.path / "got").exists()
    verified = built.slipway("registry", "verify", check=False)
    assert verified.returncode == 2
    assert digest[:8] in verified.stderr
