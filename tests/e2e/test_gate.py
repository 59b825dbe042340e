"""`slipway gate` in a built project: real releases, real workers."""

import json

import pytest

pytestmark = pytest.mark.slow
FEW = ("--max-rounds", "4")
TARGET = "x86-litert"


def ship(project, precision):
    """Let one target ship another precision; only select, certify and register run again."""

    def change(values):
        values["targets"][TARGET]["select"] = {"precision": precision, "max_quality_drop": 50.0}

    project.edit(change)
    project.repro()
    project.commit()


def rows(project, *arguments):
    done = project.slipway("gate", "--json", *FEW, *arguments, check=False)
    found = json.loads(done.stdout)
    return done.returncode, {row["target"]: row for row in found}


def test_the_gate_holds_what_ships_against_the_last_release(built):
    ship(built, "int8-static")
    built.slipway("publish")
    returncode, found = rows(built)
    assert returncode == 0
    assert {row["verdict"] for row in found.values()} == {"unchanged"}

    ship(built, "fp32")
    returncode, found = rows(built)
    assert (returncode, found[TARGET]["verdict"]) == (4, "worse")
    assert found[TARGET]["why"].startswith("size ")
    assert found["x86-onnxruntime"]["verdict"] == "unchanged"

    built.slipway("publish")
    ship(built, "int8-static")
    returncode, found = rows(built, "--out", "gate.md")
    compared = found[TARGET]["comparison"]
    assert compared["after"]["latency_ms"]["p50"] > 0
    assert compared["latency"] in {"better", "worse", "unchanged", "inconclusive"}
    assert found[TARGET]["verdict"] in {"better", "worse", "unchanged", "inconclusive"}
    assert (returncode == 4) == (found[TARGET]["verdict"] == "worse")
    written = (built.path / "gate.md").read_text()
    assert f"| {TARGET} | {found[TARGET]['verdict']} (against 0.0.0+" in written


def test_what_is_stale_or_gone_does_not_pass(built):
    built.slipway("publish")
    built.edit(lambda values: values["targets"].pop("x86-onnxruntime"))
    built.edit(lambda values: values["targets"][TARGET]["select"].update(max_size_bytes=10**9))
    returncode, found = rows(built)
    assert returncode == 4
    assert found["x86-onnxruntime"]["verdict"] == "gone"
    assert found[TARGET]["verdict"] == "failed"
    assert "what ships now is not known" in found[TARGET]["why"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--registry", "nowhere"), "registry nowhere is no folder; slipway publish makes one"),
        (("--registry", "."), "model 'digits' is not in this registry"),
    ],
    ids=["no registry", "no release"],
)
def test_a_gate_without_a_release_is_one_line(built_once, arguments, said):
    done = built_once.slipway("gate", *arguments, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
