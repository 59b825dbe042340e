"""Our runner keeps to docs/runner-protocol.md; other runners and places are in tests/systems."""

from pipeline.transports import choose
from pipeline.transports.conformance import cases
from tests.reference_models import target_of


def test_it_keeps_to_every_case_in_the_build_environment():
    rows = list(cases.check(choose.of(target_of("onnxruntime")), "onnxruntime"))
    assert len(rows) > 30
    assert {row.case: row.found for row in rows if not row.passed} == {}
