import pytest

from pipeline.measurement import Drop, Interval, Latency, Measurement, Quality
from pipeline.planning.selection import Rejection, Selection
from pipeline.reporting import report, words
from pipeline.reporting.answer import Answer, NotBuilt, failed


def measured(name, p50, **fields):
    return Measurement(
        artifact="sha256:0", candidate=name, target="box", kind="measured", time="",
        runtime="litert", runtime_version="2.3.0", num_threads=1, num_restarts=3,
        num_samples=300, size_bytes=97_300,
        device={"cpu_model": "A CPU"},
        latency_ms=Latency(p50, p50 * 1.2, None, p50 * 0.9, p50 * 1.1),
        quality=Quality("accuracy", "higher", "%", 97.5, 702, 1.2), **fields,
    )  # fmt: skip


@pytest.fixture
def answer():
    best = measured(
        "pruned-int8-static", 0.08, latency_ratio=Interval(0.31, 0.3, 0.33),
        drop=Drop(0.4, -0.3, 1.1, 702, 9),
    )  # fmt: skip
    reference = measured("dense-fp32", 0.25)
    selection = Selection(
        target="box", objective="latency", reference="dense-fp32", chosen=best.candidate,
        ranking=(best.candidate, "dense-fp32"), next_best="dense-fp32", distinguishable=True,
        rejected=(Rejection("pruned-fp32", "quality drop (upper bound) 3 point, allowed 2"),),
        better_if=None, better_if_max_quality_drop=None,
    )  # fmt: skip
    return Answer(
        target="box", status="ships", artifact=best, reference=reference, selection=selection,
        candidates=(best, reference), not_built=(NotBuilt("dense-int8-dynamic", "litert absent"),),
    )  # fmt: skip


def test_the_headline_says_what_size_latency_and_quality_with_its_interval(answer):
    assert words.headline(answer) == (
        "Ship `pruned, int8-static` on box: p50 80 us, 0.31 x the latency of fp32, 97.3 kB, "
        "test accuracy 97.50 % (+-1.20, n=702)."
    )


def test_the_explanation_names_next_best_rejections_evidence_and_what_was_not_built(answer):
    text = "\n".join(words.explain(answer))
    for part in (
        "fastest of 2 candidates within the budget",
        "upper bound +1.10 (n=702)",
        "Next best: `dense, fp32`",
        "Evidence: measured on A CPU, litert 2.3.0, 1 thread(s), SingleStream, 300 samples",
        "Rejected: pruned, fp32: quality drop (upper bound) 3 point, allowed 2",
        "Not built: dense, int8-dynamic: litert absent",
    ):
        assert part in text


def test_a_target_whose_chain_failed_says_so():
    assert words.headline(failed("far", "device gone")) == "Nothing ships on far: device gone."


def test_an_absent_percentile_is_absent_in_the_page(answer):
    page = report.markdown(report.Report(model="m", answers=(answer,), stages={}))
    assert "| 80 us [72 us..88 us] | 96 us |" in page
    lone = measured("dense-fp32", 0.25)
    assert words.duration(lone.latency_ms.p99) == "absent"


def test_the_report_reads_back_as_written(answer, tmp_path):
    made = report.Report(
        model="m",
        answers=(answer, failed("far", "gone")),
        stages={"train": {"dense": {"macs": 12}}},
    )
    report.write(made, tmp_path / "report")
    assert report.read(tmp_path / "report/report.json") == made
    page = (tmp_path / "report/report.md").read_text()
    assert "- Nothing ships on far: gone." in page
    assert "| dense | 12 |" in page


SIZES = {
    "bytes": (12, "12 B"),
    "kilobytes": (97_300, "97.3 kB"),
    "megabytes": (2_500_000, "2.50 MB"),
}


@pytest.mark.parametrize(("num_bytes", "expected"), SIZES.values(), ids=SIZES)
def test_sizes_are_decimal(num_bytes, expected):
    assert words.size(num_bytes) == expected
