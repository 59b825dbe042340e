import msgspec
import pytest

from pipeline.measurement import INVALID, Drop, Energy, Interval, Latency, Measurement, Quality
from pipeline.planning.selection import Rejection, Selection
from pipeline.reporting import figures, report, words
from pipeline.reporting.answer import Answer, NotBuilt, failed
from pipeline.reporting.evidence import Sources


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


def test_the_headline_gives_every_number_its_interval(answer):
    assert words.headline(answer) == (
        "Ship `pruned, int8-static` on box: p50 80 us [72 us..88 us], "
        "0.31 x [0.30..0.33] the latency of fp32; 97.3 kB; "
        "test accuracy 97.50 % (+-1.20, n=702), +0.40 [-0.30..+1.10] point lost."
    )


def test_a_ratio_whose_interval_holds_one_is_not_called_faster():
    unsure = measured("a-fp32", 0.1, latency_ratio=Interval(0.56, 0.3, 1.04))
    assert "not shown to differ" in words.against_reference(unsure)
    sure = measured("a-fp32", 0.1, latency_ratio=Interval(0.56, 0.5, 0.6))
    assert "not shown" not in words.against_reference(sure)


def test_what_was_only_built_ships_unproven_and_claims_nothing(answer):
    engine = Measurement(
        artifact="sha256:0", candidate="dense-fp16", target="box", kind="built", time="",
        runtime="tensorrt", size_bytes=703_900, reason="no CUDA device",
    )  # fmt: skip
    shown = words.explain(msgspec.structs.replace(answer, artifact=engine))
    assert shown[0] == (
        "Ship `dense, fp16` on box unproven: built, not measured: no CUDA device; 703.9 kB."
    )
    assert "none has run, so nothing says which is fastest or how good they are" in shown[1]
    assert not any("p50" in line for line in shown[:2])


def test_an_estimate_is_called_one_and_has_no_interval(answer):
    board = Measurement(
        artifact="sha256:0", candidate="dense-int8-static", target="box", kind="estimated", time="",
        runtime="tflite_micro", runtime_version="0.1", size_bytes=84_432,
        device={"cpu_model": "A CPU"}, host={"latency_meter": "Vela 5.2.0 for ethos-u55-128"},
        latency_ms=Latency(0.403), quality=Quality("accuracy", "higher", "%", 97.5, 702, 1.2),
    )  # fmt: skip
    selection = msgspec.structs.replace(
        answer.selection, chosen=board.candidate, ranking=(board.candidate,), next_best=None
    )
    shown = words.explain(
        msgspec.structs.replace(answer, artifact=board, candidates=(board,), selection=selection)
    )
    assert shown[0] == (
        "Ship `dense, int8-static` on box: latency 403 us, estimated; 84.4 kB; "
        "test accuracy 97.50 % (+-1.20, n=702)."
    )
    assert "(1 estimated): latency 403 us, estimated; " in shown[1]
    assert shown[4] == (
        "Evidence: latency estimated, not measured, by Vela 5.2.0 for ethos-u55-128; outputs and "
        "memory by tflite_micro 0.1 on A CPU."
    )
    assert not any("p50" in line for line in shown[:5])


def test_when_energy_decides_the_reasons_say_it_with_its_meter(answer):
    def with_energy(m, value_mj, **fields):
        fields = {"meter": "rapl", "kind": "package", **fields}
        read = Energy(value_mj=value_mj, window_s=10, num_runs=9, **fields)
        return msgspec.structs.replace(m, energy=read)

    lean, reference = with_energy(answer.artifact, 0.52), with_energy(answer.reference, 1.7)
    selection = msgspec.structs.replace(answer.selection, objective="energy", distinguishable=False)
    reasons = words.reasons(
        msgspec.structs.replace(
            answer, artifact=lean, candidates=(lean, reference), selection=selection
        )
    )
    assert reasons[0].startswith(
        "It is the most frugal of 2 candidates within the budget (2 measured): 0.52 mJ a request "
        "above idle (package, by rapl), p50 80 us [72 us..88 us]; "
    )
    assert reasons[1] == (
        "Next best: `dense, fp32`, 1.7 mJ a request above idle (package, by rapl), p50 250 us "
        "[225 us..275 us], 97.3 kB; energy has no interval, so the order may be chance."
    )
    modelled = with_energy(lean, 0.52, meter="power.max_w of a board", kind="modelled")
    assert words.energy(modelled) == (
        "0.52 mJ a request above idle (modelled from power.max_w of a board)"
    )


@pytest.mark.parametrize("flag", INVALID)
def test_what_makes_a_run_invalid_is_said_in_words(flag):
    m = measured("dense-fp32", 0.25, flags=(flag,))
    assert words.noise(m) == f"; measured under noise: {flag}"
    assert figures.noise(m)


def test_noise_is_in_the_headline_not_in_a_footnote(answer):
    noisy = msgspec.structs.replace(answer.artifact, flags=("batched", "host_busy"))
    shown = words.headline(msgspec.structs.replace(answer, artifact=noisy))
    assert "measured under noise: host_busy." in shown


def test_figures_of_the_stages_are_before_after_with_units():
    stages = {
        "distill": {"p": {"validation_accuracy": 99.6, "validation_accuracy_before": 9.9,
                          "difference": 0.18, "difference_lower": -0.5, "difference_upper": 0.9,
                          "n": 544, "winner": "distilled"}},
        "train": {"teacher": {"macs": 12_206_720}},
    }  # fmt: skip
    page = report.markdown(report.Report(model="m", answers=(), stages=stages))
    assert page.index("### train") < page.index("### distill")
    assert "| 9.9 -> 99.6 | distilled | +0.18 [-0.50..+0.90], n=544 |" in page
    assert "| teacher | 12,206,720 |" in page


def test_the_explanation_names_next_best_rejections_evidence_and_what_was_not_built(answer):
    text = "\n".join(words.explain(answer))
    for part in (
        "fastest of 2 candidates within the budget",
        "upper bound +1.10 (n=702)",
        "Next best: `dense, fp32`",
        "Evidence: measured on A CPU, litert 2.3.0, 1 thread, SingleStream, 300 samples",
        "Rejected: pruned, fp32: quality drop (upper bound) 3 point, allowed 2",
        "Not built: dense, int8-dynamic: litert absent",
    ):
        assert part in text


def test_a_lone_candidate_is_not_called_the_fastest_of_one(samples):
    assert "It is the only candidate within the budget (1 measured)" in words.why(samples.lone())


def test_what_could_not_be_measured_is_not_counted_as_measured(samples):
    answer = samples.many()
    assert len(answer.candidates) == 8
    assert "of 4 candidates within the budget (7 measured)" in words.why(answer)


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
    report.write(made, tmp_path / "report", Sources())
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


def judged_by(answer, quality, drop):
    """The answer of a project with another metric."""
    best, reference = (
        msgspec.structs.replace(m, quality=quality, drop=m.drop and drop)
        for m in (answer.artifact, answer.reference)
    )
    return msgspec.structs.replace(
        answer, artifact=best, reference=reference, candidates=(best, reference)
    )


def test_an_error_is_written_in_its_own_unit(answer):
    quality = Quality("mean absolute error", "lower", "mm", 0.012348, 702, 0.00081)
    shown = judged_by(answer, quality, Drop(0.0004, -0.0003, 0.0011, 702, 702))
    assert words.headline(shown).endswith(
        "test mean absolute error 0.01235 mm (+-0.00081, n=702), "
        "+0.0004 [-0.0003..+0.0011] mm lost."
    )
    assert "its quality drop on validation is +0.0004 mm, upper bound +0.0011 (n=702)" in (
        "\n".join(words.explain(shown))
    )
    assert report.header([shown])[4:] == (
        "test mean absolute error",
        "latency, fp32 = 1",
        "mm lost",
    )
    assert "the artifact's minus the mean absolute error of fp32, paired" in report.note([shown])


def test_agreement_says_what_it_agrees_with(answer):
    quality = Quality("top-1 agreement with fp32", "higher", "%", 99.0, 702, 0.8)
    shown = judged_by(answer, quality, Drop(1.0, 0.3, 1.9, 702, 7))
    assert "test top-1 agreement with fp32 99.00 % (+-0.80, n=702), +1.00 [" in words.headline(
        shown
    )
    page = report.markdown(report.Report(model="m", answers=(shown,), stages={}))
    assert "| test top-1 agreement with fp32 |" in page
    assert "| validation top-1 agreement with fp32 |" in page


def test_accuracy_heads_its_columns_as_ever(answer):
    assert report.header([answer]) == (
        "target", "artifact", "size", "p50", "test accuracy", "latency, fp32 = 1", "points lost"
    )  # fmt: skip
    assert report.note([answer]).startswith("Accuracy is on the test split, read once; intervals")
    assert "points lost are the accuracy of fp32 minus the artifact's, paired" in (
        report.note([answer])
    )


@pytest.mark.parametrize(
    ("kind", "said"), [("measured", "1 x"), ("emulated", "absent"), ("estimated", "absent")]
)
def test_only_what_was_timed_is_1_against_itself(kind, said):
    m = Measurement(
        artifact="sha256:a", candidate="dense-fp32", target="t", kind=kind, runtime="litert",
        time="2026-01-01T00:00:00+00:00", size_bytes=1,
    )  # fmt: skip
    assert words.ratio(m) == said
