"""The page as text: what stands in it, that it is well-formed, and that nothing gets into it."""

# ruff: noqa: RUF001 - the page writes real minus and multiplication signs

import itertools
import re
from html.parser import HTMLParser

import pytest

from pipeline.reporting import evidence, page, report
from pipeline.reporting.across import Agreements
from pipeline.reporting.evidence import Evidence

VOID = {"meta", "link", "input", "br"}
# Elements that fetch, run or send something.
FORBIDDEN = {"script", "iframe", "object", "embed", "img", "form", "base", "audio", "video"}


class Outline(HTMLParser):
    """Check nesting while reading; keep elements, ids, references and the text of each."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute"
        self.elements.append((tag, dict(attributes), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]


def rendered(samples, answers, found=Evidence(), stages=None, **more):  # noqa: B008 - frozen
    return page.render("m", answers, samples.STAGES if stages is None else stages, found, **more)


@pytest.fixture(scope="module")
def whole(samples, tmp_path_factory):
    answers, root = samples.all_shapes(), tmp_path_factory.mktemp("evidence")
    found = evidence.read(samples.write_evidence(root, answers))
    agreements = samples.write_agreements(root, answers)
    return rendered(samples, answers, found, agreements=agreements)


@pytest.fixture
def shown(samples):
    """Give the text of a page about one target."""

    def text(name):
        outline = Outline(rendered(samples, (samples.SHAPES[name](),), stages={}))
        words = " ".join(outline.text).replace("\N{NO-BREAK SPACE}", " ").split()
        return re.sub(r" (?=[.,:])", "", " ".join(words[words.index("Skip") :]))

    return text


class TestWellFormed:
    def test_it_is_one_html5_document_with_every_element_closed(self, whole):
        assert whole.lstrip().startswith("<!DOCTYPE html>")
        outline = Outline(whole)
        assert [a["lang"] for a in outline.all("html")] == ["en"]

    def test_ids_are_unique_and_every_reference_to_one_is_met(self, whole):
        elements = Outline(whole).elements
        ids = [a["id"] for _, a, _ in elements if "id" in a]
        assert len(ids) == len(set(ids))
        for _, a, _ in elements:
            for name in ("aria-labelledby", "aria-describedby", "for"):
                assert a.get(name) is None or a[name] in ids
            if a.get("href", "").startswith("#"):
                assert a["href"][1:] in ids

    def test_nothing_is_fetched_run_or_sent(self, whole):
        elements = Outline(whole).elements
        assert not FORBIDDEN & {tag for tag, _, _ in elements}
        assert not [a for _, a, _ in elements for name in a if name.startswith("on")]
        assert [a["href"] for t, a, _ in elements if t == "link"] == ["data:,"]
        assert not re.search(r"https?:|@import|url\((?!#)", whole)
        policy = next(a["content"] for t, a, _ in elements if "http-equiv" in a and t == "meta")
        assert policy.startswith("default-src 'none'")

    def test_every_chart_is_a_named_image_with_its_table_beside_it(self, whole):
        elements = Outline(whole).elements
        charts = [a for t, a, _ in elements if t == "svg" and "chart" in a["class"]]
        figures = whole.split("<figure")[1:]
        assert len(charts) == len(figures) > 15
        for chart in charts:
            assert chart["role"] == "img"
        for figure in figures:
            inside = figure.split("</figure>")[0]
            assert re.search(
                r"<svg[^>]*role=\"img\"[^>]*><title id=[^>]+>[^<]+</title><desc", inside
            )
            assert re.search(r"<figcaption.*<details>.*<table", inside, re.DOTALL)

    def test_other_drawings_are_hidden_from_screen_readers(self, whole):
        drawings = [a for a in Outline(whole).all("svg") if "chart" not in a["class"]]
        assert drawings
        assert all(a["aria-hidden"] == "true" for a in drawings)

    def test_every_header_cell_says_what_it_heads(self, whole):
        assert {a.get("scope") for a in Outline(whole).all("th")} == {"col", "row"}

    def test_headings_skip_no_level(self, whole):
        levels = [int(t[1]) for t, _, _ in Outline(whole).elements if re.fullmatch(r"h[1-6]", t)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))

    @pytest.mark.parametrize("num_targets", [0, 1, 18])
    def test_any_number_of_targets(self, samples, num_targets):
        answers = tuple(samples.many(f"target-{i}") for i in range(num_targets))
        sections = Outline(rendered(samples, answers)).all("section")
        assert sum(a["id"].startswith("target-") for a in sections if "id" in a) == num_targets


class TestHostile:
    def test_names_and_reasons_from_outside_stay_text(self, samples):
        h = samples.HOSTILE
        layer = evidence.Layer(layer=h, weight_bits=8, sqnr_db=30.0)
        found = Evidence(
            sensitivity={h: (layer,)}, curves=(evidence.Curve(h, (0.0, 1.0), (1.0, 2.0)),)
        )
        text = page.render(h, (samples.hostile(),), {h: {h: {h: h}}}, found)
        outline = Outline(text)
        assert not FORBIDDEN & {tag for tag, _, _ in outline.elements}
        assert not [a for _, a, _ in outline.elements for name in a if name.startswith("on")]
        assert "<script" not in text
        assert "49" not in "".join(outline.text), "a template in a name was run"
        assert "".join(outline.text).count("<script>alert(1)</script>") > 20

    def test_a_failed_target_tells_its_reason_as_text(self, samples):
        answer = report.Answer(target="t", status="failed", reason=samples.HOSTILE)
        outline = Outline(rendered(samples, (answer,)))
        assert samples.HOSTILE in "".join(outline.text)


class TestAnswer:
    def test_the_top_says_what_ships_with_figures_and_kind(self, shown):
        text = shown("many candidates").split("Why, target by target")[0]
        for part in ("pruned int8-static", "measured", "80 µs 72 to 88 µs", "40.0 kB 0.12× of fp32",
                     "98.40 % ± 0.90 %, n = 703", "0.24× 0.13 to 0.44",
                     "lost against fp32: +0.60 points, −0.10 to +1.30"):  # fmt: skip
            assert part in text, part

    def test_the_top_says_what_more_budget_would_buy(self, shown):
        text = shown("many candidates").split("Why, target by target")[0]
        assert "+1.30 points of budget: pruned-half-qat, int8-static, 0.75× the latency." in text
        assert "+4.30 points of budget: pruned-most, int8-static, 0.38× the latency." in text
        assert "Next best: dense, int8-static, 140 µs; the order may be chance." in text

    def test_the_section_tells_every_alternative_also_those_that_never_win(self, shown):
        text = shown("many candidates").split("Why, target by target")[1]
        assert "from max_quality_drop 3.30 points on." in text
        never = "No budget makes pruned, int8-dynamic win: it needs 90.70 points and is slower than"
        assert f"{never} pruned-most, int8-static." in text

    def test_what_was_left_out_has_its_reason(self, shown):
        text = shown("many candidates")
        assert "pruned, fp16-weights not built litert 2.3 refuses operator 'GridSample'" in text
        assert "not measured: the CPU has no bfloat16" in text

    def test_where_nothing_ships_it_says_so_and_what_would(self, shown):
        text = shown("nothing ships")
        assert "Nothing ships on the target." in text
        assert "no candidate meets the budget +2.20 points of budget" in text
        assert "dense, int8-static would ship." in text

    def test_a_failed_target_gives_its_reason_twice(self, shown):
        assert shown("failed").lower().count("device gone; run dvc repro") == 2

    def test_an_estimate_is_one_number_and_never_without_its_word(self, shown):
        text = shown("estimated")
        assert "≈ 1.23 ms estimated by the compiler, 617,000 cycles" in text
        assert "Quality against latency, estimated" in text
        assert "computed by the target's compiler; never compared with a measured time" in text
        assert "17 of 18 operators" in text

    def test_what_never_ran_claims_neither_time_nor_quality(self, shown):
        text = shown("built")
        assert "— built, never run" in text
        assert "— unknown: never run" in text
        assert "Measuring it on the hardware." in text
        assert "Why it was not measured: no GPU here." in text
        assert "Quality against latency" not in text

    def test_a_lone_reference_is_not_compared_with_itself(self, shown):
        assert "1× the fp32 reference itself" in shown("one candidate")

    def test_a_metric_other_than_accuracy_keeps_its_name_unit_and_direction(self, shown):
        text = shown("less is better")
        assert "Mae on test" in text
        assert "0.01234 mm" in text
        assert "↓ mae, mm" in text
        assert "+0.007 mm of budget: pruned, fp32, 0.75× the latency." in text

    def test_kinds_of_evidence_are_explained_where_they_occur(self, whole, shown):
        for kind in ("measured", "estimated", "built"):
            assert f'<dt><span class="badge badge-{kind}">' in whole
        assert "computed by the target's compiler" not in shown("one candidate")


class TestSections:
    def test_without_training_or_sensitivity_or_manifests_their_sections_are_absent(self, samples):
        text = rendered(samples, (samples.lone(),), stages={})
        assert "How the variants were made" not in text
        assert "Lineage" not in text
        assert "How far outputs agree" not in text

    def test_with_them_each_has_its_drawing(self, whole):
        for title in ("Sensitivity of each layer", "Training of the teacher", "Lineage",
                      "How latencies are spread", "Size of the artifact",
                      "Layer by layer: pruned, int8-static against dense, fp32",
                      "Layer by layer: dense, int8-static<", "Throughput against batch",
                      "Roofline of Raspberry Pi 5, measured",
                      "Roofline of Arm Ethos-U55-128, estimated",
                      "Energy against latency, metered (rail)", "Energy against latency, modelled",
                      "Under other loads", "How far outputs agree"):  # fmt: skip
            assert title in whole, title

    def test_what_was_asked_for_and_is_not_there_has_its_line(self, whole):
        lines = re.findall(r'<ul class="absent">(.*?)</ul>', whole, re.DOTALL)
        assert [line.count("<li>") for line in lines] == [4], "of one target alone"
        assert "No times of layers: LiteRT&#39;s Python interpreter" in lines[0]

    def test_nothing_absent_is_written_as_none(self, whole):
        assert "None" not in " ".join(Outline(whole).text)

    def test_what_cannot_be_compared_is_told(self, samples):
        agreements = Agreements(left_out=(f"{samples.HOSTILE} has other inputs",))
        text = rendered(samples, (samples.lone(),), agreements=agreements)
        outline = Outline(text)
        assert f"Not compared: {samples.HOSTILE} has other inputs." in "".join(outline.text)
        assert "<script" not in text

    def test_a_reason_may_hold_brackets_and_dots(self):
        assert page.prose("p50 80 us [72 us..88 us], `x`") == (
            "p50 80\N{NO-BREAK SPACE}\N{MICRO SIGN}s (72\N{NO-BREAK SPACE}\N{MICRO SIGN}s to "
            "88\N{NO-BREAK SPACE}\N{MICRO SIGN}s), <b>x</b>"
        )
        assert page.prose("see ../x[0]") == "see ../x[0]"


def test_the_same_answers_give_the_same_bytes(samples, tmp_path):
    answers = samples.all_shapes()
    sources = samples.write_evidence(tmp_path, answers)
    made = report.Report(model="m", answers=answers, stages=samples.STAGES)
    for name in ("a", "b"):
        report.write(made, tmp_path / name, sources)
    a, b = ((tmp_path / name / "report.html").read_bytes() for name in "ab")
    assert a == b
    assert str(tmp_path).encode() not in a
