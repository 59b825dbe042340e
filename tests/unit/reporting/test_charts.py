"""The drawings as geometry: scales, ticks, overlaps, and that text stays text."""

import itertools
import re
from typing import get_args
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measurement import Interval
from pipeline.params import Precision
from pipeline.reporting import chain_view, evidence
from pipeline.reporting.answer import ordered
from pipeline.reporting.charts import (
    bars,
    curves,
    graph,
    marks,
    ratios,
    scales,
    scatter,
    sensitivity,
    svg,
    tradeoff,
)
from pipeline.reporting.evidence import Curve, Layer
from pipeline.reporting.lineage import Lineage

POSITIVE = st.floats(1e-4, 1e4)


NUMBERS = {
    "whole": (3.0, "3"),
    "rounded": (1.23456, "1.23"),
    "zero": (-0.001, "0"),
    "hundred": (100.0, "100"),
}


class TestSvg:
    def test_text_and_attributes_are_escaped(self, samples):
        drawn = svg.element("text", samples.HOSTILE, x=1.0, class_=samples.HOSTILE)
        root = ET.fromstring(drawn)
        assert list(root) == []
        assert root.text == samples.HOSTILE
        assert root.attrib == {"x": "1", "class": samples.HOSTILE}

    @pytest.mark.parametrize(("value", "written"), NUMBERS.values(), ids=NUMBERS)
    def test_coordinates_are_short(self, value, written):
        assert svg.number(value) == written


class TestScale:
    def test_a_wide_span_is_logarithmic_and_a_narrow_one_linear(self):
        assert scales.fit([1, 100], 0, 400).log
        assert not scales.fit([1, 2], 0, 400).log
        assert not scales.fit([-1, 100], 0, 400).log

    @given(values=st.lists(POSITIVE, min_size=1, max_size=6), log=st.booleans())
    def test_every_value_lies_within_and_in_order(self, values, log):
        scale = scales.fit(values, 10, 400, log=log)
        places = [scale(value) for value in sorted(values)]
        assert all(10 <= place <= 400 for place in places)
        assert places == sorted(places)

    @given(values=st.lists(POSITIVE, min_size=1, max_size=6), log=st.booleans())
    def test_ticks_lie_within_and_never_nearer_than_asked(self, values, log):
        scale = scales.fit(values, 10, 400, log=log)
        ticks = scale.ticks(60)
        assert len(ticks) >= 1
        assert all(scale.holds(tick) for tick in ticks)
        places = [scale(tick) for tick in ticks]
        assert len(places) < 3 or all(b - a >= 60 for a, b in itertools.pairwise(places))

    def test_what_lies_beyond_is_put_on_the_border(self):
        assert scales.Scale(0, 1, 0, 100)(5) == 100


def texts(drawn):
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawn)


def look_of(answer):
    measured = ordered(answer)
    return measured, marks.of(answer, measured, marks.series_of([answer]))


class TestMarks:
    def test_number_shape_and_colour_are_one_per_candidate_on_the_page(self, samples):
        _, look = look_of(samples.many())
        assert [mark.number for mark in look.values()] == list(range(1, 9))
        assert look["dense-fp32"].series == look["dense-int8-static"].series == 1
        assert look["pruned-int8-static"].series != 1
        assert look["pruned-int8-static"].standing == "ships"
        assert look["dense-bf16"].standing == "not measured"

    def test_every_precision_has_a_shape_of_its_own(self):
        shapes = [marks.SHAPES[precision] for precision in get_args(Precision)]
        assert len(set(shapes)) == len(shapes)


class TestTradeoff:
    def test_numbers_of_candidates_hide_neither_points_nor_one_another(self, samples):
        measured, look = look_of(samples.many())
        drawn = tradeoff.chart("k", "t", [m for m in measured if m.kind == "measured"], look)
        found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="number"[^>]*>([^<]+)<', drawn)
        assert {written.split()[0] for _, _, written in found} == {
            "1",
            "2",
            "3",
            "4",
            "6",
            "7",
            "8",
        }
        boxes = [scatter.box(float(x), float(y) - 4.5, written) for x, y, written in found]
        assert not any(scatter.overlap(a, b) for a, b in itertools.combinations(boxes, 2))
        for left, _, right, _ in boxes:
            assert left >= scatter.LEFT
            assert right <= scatter.RIGHT

    def test_one_broken_candidate_does_not_press_the_others_into_a_line(self, samples):
        measured, look = look_of(samples.many())
        of_kind = [m for m in measured if m.kind == "measured"]
        assert [m.candidate for m in tradeoff.far_off(of_kind, look)] == ["pruned-int8-dynamic"]
        drawn = tradeoff.chart("k", "t", of_kind, look)
        assert "7 \N{DOWNWARDS ARROW}9.70\N{NO-BREAK SPACE}%" in texts(drawn)

    def test_where_less_is_better_the_arrow_points_down(self, samples):
        measured, look = look_of(samples.regression())
        assert "\N{DOWNWARDS ARROW} mae, mm" in texts(tradeoff.chart("k", "t", measured, look))

    def test_an_estimate_has_no_bar_of_latency(self, samples):
        measured, look = look_of(samples.estimated())
        drawn = tradeoff.chart("k", "t", measured, look)
        whiskers = re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"[^>]*whisker', drawn)
        assert [a == b for a, b in whiskers] == [True], "only quality has an interval"

    def test_what_was_only_built_cannot_be_drawn(self, samples):
        assert tradeoff.drawable(samples.built().candidates) == []


class TestBars:
    def test_lengths_are_as_sizes_from_zero(self, samples):
        measured, look = look_of(samples.built())
        drawn = bars.chart("k", "t", measured, look)
        widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn)]
        assert widths[0] / widths[1] == pytest.approx(300 / 500, rel=0.01)


class TestSensitivity:
    def test_the_most_sensitive_layer_of_any_variant_comes_first(self):
        variants = {
            "a": (Layer("x", 8, 30.0), Layer("y", 8, 20.0), Layer("z", 8, None)),
            "b": (Layer("x", 8, 10.0),),
        }
        assert sensitivity.most_sensitive(variants) == ["x", "y", "z"]

    def test_layers_without_any_error_are_in_the_table_and_not_drawn(self):
        plot = chain_view.sensitivity_plot({"a": (Layer("z", 8, None),)}, {"a": 1})
        assert "<circle" not in plot.drawing
        assert [cell.value for cell in plot.table.rows[0]][:2] == ["z", "no error"]

    def test_many_layers_are_cut_to_the_most_sensitive_and_it_says_so(self):
        layers = tuple(Layer(f"l{i:02d}", 8, 30.0 + i) for i in range(60))
        plot = chain_view.sensitivity_plot({"a": layers}, {})
        assert "24 most sensitive of 60 layers" in " ".join(plot.notes)
        assert len(plot.table.rows) == 60

    def test_a_long_name_keeps_both_ends(self):
        name = "encoder.layers.11.attention.output.dense"
        assert svg.short(name, 20) == "encode\N{HORIZONTAL ELLIPSIS}.output.dense"
        assert svg.short("stem", 20) == "stem"


class TestCurves:
    def test_a_figure_and_its_validation_share_a_chart(self):
        found = [Curve(n, (0.0,), (1.0,)) for n in ("loss", "validation_loss", "validation_mae")]
        groups = curves.grouped(found)
        assert {name: len(group) for name, group in groups.items()} == {
            "loss": 2, "validation_mae": 1,
        }  # fmt: skip

    def test_no_step_at_all_is_an_empty_chart(self):
        assert "no step was logged" in curves.chart("k", "t", [Curve("loss", (), ())])

    def test_accuracy_is_never_on_a_logarithmic_axis(self):
        drawn = curves.chart("k", "t", [Curve("validation_accuracy", (0.0, 1.0), (1.0, 100.0))])
        assert {"25", "50", "75", "100"} <= set(texts(drawn)), "equal steps"


class TestRatios:
    def test_the_scale_holds_every_interval_and_the_reference(self):
        scale = ratios.shared_scale([Interval(0.1, 0.05, 0.2), Interval(3, 2, 9)])
        assert all(scale.holds(value) for value in (0.05, 1.0, 9.0))

    def test_it_is_decoration_beside_words(self):
        drawn = ratios.chart(Interval(0.5, 0.4, 0.6), ratios.shared_scale([]))
        assert 'aria-hidden="true"' in drawn


class TestGraph:
    def test_every_output_has_a_box_and_none_hides_another(self, samples, tmp_path):
        found = evidence.read(samples.write_evidence(tmp_path, samples.all_shapes())).lineage
        drawn = graph.chart("k", "t", found)
        boxes = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', drawn)
        assert len(set(boxes)) == len(found.inputs) == 2 + 2 * len(samples.SHAPES)
        assert drawn.count('class="node outside"') == 1

    def test_no_manifest_no_graph(self):
        assert chain_view.lineage_plot(Lineage()) is None
