"""`slipway compare` in a built project: real workers, the project's own data."""

import json
import re

import pytest

pytestmark = pytest.mark.slow
FEW = ("--max-rounds", "4")


def test_candidates_are_compared_on_the_projects_data(built):
    done = built.slipway(
        "compare", "dense-fp32", "dense-int8-static", "--target", "x86-litert", "--json", *FEW
    )
    found = json.loads(done.stdout)
    assert found["latency"] in {"better", "worse", "inconclusive"}
    assert found["after"]["latency_ratio"]["lower"] <= found["after"]["latency_ratio"]["upper"]
    assert found["after"]["drop"]["n"] == found["before"]["quality"]["n"] > 500
    shown = built.slipway(
        "compare", "dense-fp32", "dense-int8-static", "--target", "x86-litert", *FEW
    ).stdout
    assert "dense-int8-static against dense-fp32 on x86-litert: latency " in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dense-fp32", "none", "--target", "x86-litert"), "'none' is no artifact: .*dense-fp32"),
        (("a", "b", "--target", "board"), "'board' is no target of params.yaml; there is x86-onnx"),
    ],
    ids=["no such artifact", "no such target"],
)
def test_what_is_not_there_is_one_line(built_once, arguments, said):
    done = built_once.slipway("compare", *arguments, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.search(said, done.stderr)
