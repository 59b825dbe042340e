"""`slipway profile` of files from a built project, as if they came from anywhere."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.slow
GONE = "litert@ssh:nobody@127.0.0.1:1"  # nothing listens there


@pytest.fixture
def call(built_once, tmp_path):
    """Call the command on the int8 file beside its fp32 form, on data that the net takes."""
    converted = built_once.path / "models/converted/x86-litert"
    generator = np.random.default_rng(0)
    inputs = generator.uniform(0, 1, (50, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", inputs=inputs)

    def run(*options, check=True):
        return built_once.slipway(
            "profile", converted / "dense-int8-static/model.tflite",
            "--reference", converted / "dense-fp32/model.tflite",
            "--data", tmp_path / "mine.npz", "--project", tmp_path, *options, check=check,
        )  # fmt: skip

    return run


def test_every_place_is_a_row_for_programs(call):
    done = call("--runtime", "litert", "--runtime", GONE, "--sweep", "batch_size=1,2",
                "--scenario", "Server:queries_per_s=50", "--json", check=False)  # fmt: skip
    assert done.returncode == 4
    here, gone = json.loads(done.stdout)
    assert (gone["place"], gone["measurement"], gone["agreements"]) == (GONE, None, [])
    assert "nothing listens on its port" in gone["reason"]
    assert here["measurement"]["latency_ms"]["p50"] > 0
    assert here["measurement"]["agreement"]["top1_agreement"] > 0.5
    (against,) = here["agreements"]
    assert (against["model"], against["against"]) == ("reference", "litert")
    assert against["found"]["n"] == 50
    assert against["found"]["max_abs_error"] > 0
    loads = here["measurement"]["loads"]
    assert [(each["scenario"], each["batch_size"]) for each in loads] == [
        ("Server", 1), ("Offline", 1), ("Offline", 2),
    ]  # fmt: skip


def test_a_person_sees_tables(call):
    done = call("--runtime", "litert", "--runtime", "tflite_runtime", "--layers")
    assert "\nagreement\n" in done.stdout
    assert "model.tflite in litert" in done.stdout
    assert "litert: no layers: LiteRT's Python interpreter gives no times" in done.stdout
    assert "in 2 places" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--runtime", "torch"), "runtime 'torch' is not known"),
        (("--runtime", "litert", "--scenario", "Server"), "queries_per_s goes with Server"),
        (("--runtime", "litert", "--energy", "gas"), "meter cannot be 'gas'"),
    ],
    ids=["runtime", "scenario", "meter"],
)
def test_what_cannot_be_asked_for_is_one_line(call, options, said):
    done = call(*options, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
