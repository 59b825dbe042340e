"""Layers, other loads, energy and rooflines: what is drawn, beside what, and why not."""

import re

import msgspec
import pytest

from pipeline import params
from pipeline.conversion.onnx_count import Costs
from pipeline.measurement import Latency, Layer, Load
from pipeline.reporting import further_view, hardware_view, layer_view, load_view, roofline
from pipeline.reporting.answer import ordered
from pipeline.reporting.charts import layers as layer_chart
from pipeline.reporting.charts import marks, throughput
from pipeline.reporting.evidence import Evidence
from pipeline.targets import hardware

NBSP = "\N{NO-BREAK SPACE}"
COSTS = {"dense": Costs(1_000_000, 20_000, 80_000), "pruned": Costs(250_000, 5_000, 40_000)}


def look_of(answer):
    measured = ordered(answer)
    return measured, marks.of(answer, measured, marks.series_of([answer]))


def changed(answer, candidate, **fields):
    """The answer with other figures of one candidate."""
    return msgspec.structs.replace(
        answer,
        candidates=tuple(
            msgspec.structs.replace(m, **fields) if m.candidate == candidate else m
            for m in answer.candidates
        ),
    )


def cells(plot):
    return [[cell.value for cell in row] for row in plot.table.rows]


class TestLayers:
    def plot(self, answer):
        return layer_view.plot(answer, "k", look_of(answer)[1])

    def test_what_ships_stands_beside_fp32_and_lone_layers_stay_alone(self, samples):
        plot = self.plot(samples.many())
        assert plot.title == "Layer by layer: pruned, int8-static against dense, fp32"
        columns = plot.table.header
        assert columns[0] == "layer"
        by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in cells(plot)}
        first = by_name["conv_0"]
        assert first["dense, fp32: time"] == f"30{NBSP}\N{MICRO SIGN}s"
        assert first["pruned, int8-static: time"] == f"8{NBSP}\N{MICRO SIGN}s"
        assert (first["ratio"], first["paired by"]) == ("0.27\N{MULTIPLICATION SIGN}", "name")
        assert first["run by"] == "CPUExecutionProvider"
        for alone in ("add_0", "ReorderOutput"):
            assert by_name[alone]["paired by"] == "nothing"
            assert by_name[alone]["ratio"] == "\N{EM DASH}"

    def test_the_sum_against_p50_is_said_of_both(self, samples):
        notes = " ".join(self.plot(samples.many()).notes)
        times = "\N{MULTIPLICATION SIGN}"
        assert f"0.84{times} of dense, fp32, 1.16{times} of pruned, int8-static" in notes
        assert "in a session of its own" in notes

    def test_a_lone_layer_has_one_bar_and_no_more_than_the_longest_are_drawn(self, samples):
        plot = self.plot(samples.many())
        assert "24 longest of 31 layers" in " ".join(plot.notes)
        groups = re.findall(r"<g><title>([^<]*)</title>(.*?)</g>", plot.drawing)
        assert len(groups) == layer_chart.MAX_LAYERS
        bars = {title.split(":")[0]: drawn.count("<rect") for title, drawn in groups}
        assert (bars["conv_0"], bars["ReorderOutput"], bars["add_0"]) == (2, 1, 1)

    def test_bars_are_as_long_as_times_from_zero(self):
        rows = [layer_chart.Row("a", 0.4, 0.1), layer_chart.Row("b", None, 0.2)]
        drawn = layer_chart.chart("k", "t", rows, ("outlined", ""), str)
        widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn)]
        assert widths[0] / widths[1] == pytest.approx(4, rel=0.01)
        assert widths[0] / widths[2] == pytest.approx(2, rel=0.01)

    def test_cycles_of_a_compiler_stand_alone_and_say_that_nothing_was_timed(self, samples):
        plot = self.plot(samples.estimated())
        assert plot.title == "Layer by layer: dense, int8-static"
        assert "nothing was timed" in plot.notes[0]
        assert plot.table.header[2] == "dense, int8-static: cycles"
        assert cells(plot)[0][:3] == ["model/conv2d_0/Conv2D", "Conv2D", f"51.0{NBSP}k"]
        assert cells(plot)[-1][:4] == ["Identity", "Softmax", "\N{EM DASH}", "CPU"]
        assert plot.drawing.count("<rect") == 17

    def test_times_of_another_kind_of_evidence_are_not_put_beside(self, samples):
        answer = changed(samples.many(), "dense-fp32", kind="emulated")
        assert "against" not in self.plot(answer).title

    def test_the_reference_that_ships_has_no_other_beside_it(self, samples):
        layer = Layer(name="a", operator="Conv", time_ms=0.1)
        answer = changed(samples.lone(), "dense-fp32", layers=(layer,))
        assert self.plot(answer).title == "Layer by layer: dense, fp32"

    def test_without_layers_there_is_no_chart(self, samples):
        assert self.plot(samples.lone()) is None
        assert self.plot(samples.SHAPES["failed"]()) is None


class TestLoads:
    def test_one_line_for_each_number_of_threads_and_streams_by_batch(self, samples):
        lines = throughput.lines(samples.loads())
        assert list(lines) == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert [load.batch_size for load in lines[1, 1]] == [1, 2, 4, 8, 16, 32]
        assert throughput.named((1, 2)) == "1 thread, 2 streams"

    def test_the_chart_draws_every_point_and_has_them_in_its_table(self, samples):
        measured, look = look_of(samples.many())
        plot = load_view.plot("t", "k", measured, look)
        assert plot.title == "Throughput against batch: pruned, int8-static"
        assert plot.drawing.count("<polyline") == 4
        assert len(plot.table.rows) == 24
        assert plot.legend[0].text == "1 thread, 1 stream"

    def test_the_other_loads_have_a_table_without_percentiles_that_are_absent(self, samples):
        measured, look = look_of(samples.many())
        found = load_view.loads("t", measured, look)
        rows = [dict(zip(found.header, (c.value for c in row), strict=True)) for row in found.rows]
        assert [row["scenario"] for row in rows] == ["Server", "MultiStream", "Server"]
        assert (rows[0]["queries / s asked"], rows[0]["p99"]) == ("400", f"1.9{NBSP}ms")
        assert (rows[1]["p90"], rows[1]["remarks"]) == ("\N{EM DASH}", "not steady")
        assert rows[2]["p50 of a query"] == "\N{EM DASH}"
        assert rows[2]["remarks"] == "the queue grew without end"

    def test_a_percentile_that_no_load_has_is_no_column(self, samples):
        load = Load(scenario="Server", num_queries=20, throughput_per_s=9.0,
                    latency_ms=Latency(1.0))  # fmt: skip
        measured, look = look_of(changed(samples.lone(), "dense-fp32", loads=(load,)))
        header = load_view.loads("t", measured, look).header
        assert "p50 of a query" in header
        assert not {"p90", "p99"} & set(header)

    def test_what_was_refused_or_is_invalid_is_in_the_table_alone(self, samples):
        refused = Load(scenario="Offline", batch_size=64, num_queries=0, throughput_per_s=0.0,
                       reason="it takes no batch of 64")  # fmt: skip
        invalid = Load(scenario="Offline", batch_size=128, num_queries=1, throughput_per_s=99.0,
                       reason="the machine throttled", flags=("throttled",))  # fmt: skip
        loads = (refused, invalid, *samples.loads())
        answer = changed(samples.many(), "pruned-int8-static", loads=loads)
        plot = load_view.plot("t", "k", *look_of(answer))
        assert re.findall(r">(\d+)</text>", plot.drawing)[:6] == ["1", "2", "4", "8", "16", "32"]
        assert not {"64", "128"} & set(re.findall(r">(\d+)</text>", plot.drawing))
        rows = {row[0]: dict(zip(plot.table.header, row, strict=True)) for row in cells(plot)}
        assert len(plot.table.rows) == 26
        assert rows["64"]["samples / s"] == rows["128"]["samples / s"] == "\N{EM DASH}"
        assert rows["64"]["remarks"] == "it takes no batch of 64"
        assert rows["128"]["remarks"] == "the machine throttled, throttled"

    def test_where_all_are_refused_nothing_is_drawn_and_the_table_has_them(self, samples):
        refused = Load(scenario="Offline", batch_size=64, num_queries=0, throughput_per_s=0.0,
                       reason="it takes no batch of 64")  # fmt: skip
        measured, look = look_of(changed(samples.lone(), "dense-fp32", loads=(refused,)))
        assert load_view.plot("t", "k", measured, look) is None
        table = load_view.loads("t", measured, look)
        (row,) = (dict(zip(table.header, (c.value for c in r), strict=True)) for r in table.rows)
        assert row.get("samples / s done") in (None, "\N{EM DASH}")
        assert row["remarks"] == "it takes no batch of 64"
        assert load_view.why_none(measured) == (
            "no Offline load has a rate: it takes no batch of 64"
        )

    def test_without_loads_there_is_neither(self, samples):
        measured, look = look_of(samples.lone())
        assert load_view.plot("t", "k", measured, look) is None
        assert load_view.loads("t", measured, look) is None


class TestEnergy:
    def test_metered_and_modelled_never_share_a_chart(self, samples):
        answer = changed(
            samples.many(), "dense-int8-static", energy=samples.energy(0.5, "modelled", "power")
        )
        measured, look = look_of(answer)
        metered, modelled = hardware_view.energies("t", "k", measured, look)
        assert metered.title == "Energy against latency, metered (rail)"
        assert [row[0] for row in cells(metered)] == ["pruned, int8-static", "dense, fp32"]
        assert modelled.title == "Energy against latency, modelled"
        assert [row[0] for row in cells(modelled)] == ["dense, int8-static"]
        assert "compared with none" in " ".join(modelled.notes)
        assert cells(modelled)[0][2] == f"\N{ALMOST EQUAL TO} 0.5{NBSP}mJ, modelled"

    def test_a_modelled_one_is_hollow_in_the_chart_and_in_the_legend(self, samples):
        measured, look = look_of(samples.estimated())
        (plot,) = hardware_view.energies("t", "k", measured, look)
        assert '<g class="modelled">' in plot.drawing
        assert all('class="modelled"' in key.icon for key in plot.legend)
        metered = hardware_view.energies("t", "k", *look_of(samples.many()))[0]
        assert "modelled" not in metered.drawing

    def test_kinds_of_evidence_never_share_a_chart(self, samples):
        answer = changed(samples.many(), "dense-fp32", kind="estimated")
        plots = hardware_view.energies("t", "k", *look_of(answer))
        assert [len(plot.table.rows) for plot in plots] == [2, 1]

    def test_energy_without_a_latency_is_not_drawn(self, samples):
        answer = changed(samples.estimated(), "dense-int8-static", latency_ms=Latency())
        assert hardware_view.energies("t", "k", *look_of(answer)) == []


PI = hardware.load("raspberry-pi-5")


class TestRoofline:
    def test_operations_and_bytes_are_the_formula(self, samples):
        (m,) = samples.lone().candidates
        (placed,) = roofline.place([m], COSTS, roofline.roofs_of(PI))
        assert placed.ops_per_byte == 2_000_000 / (4 * 20_000 + 4 * 80_000)
        assert placed.ops_per_s == 2_000_000 / 250e-6
        assert placed.attainable == 17.1e9 * placed.ops_per_byte, "memory is the lower roof"

    def test_precision_decides_the_bytes_and_the_peak(self, samples):
        found = roofline.place(samples.many().candidates, COSTS, roofline.roofs_of(PI))
        by_name = {p.measurement.candidate: p for p in found}
        static, dynamic = by_name["pruned-int8-static"], by_name["pruned-int8-dynamic"]
        assert static.ops_per_byte == 500_000 / 45_000
        assert dynamic.ops_per_byte == 500_000 / (5_000 + 4 * 40_000)
        assert static.roof == dynamic.roof == "int8"
        assert by_name["dense-fp16-weights"].roof == "fp32"
        assert "dense-bf16" not in by_name, "it has no latency"

    def test_sparse_peaks_are_no_roof(self):
        roofs = roofline.roofs_of(hardware.load("jetson-orin-nano-8gb"))
        assert roofs.peaks == {}
        assert roofline.roofs_of(hardware.load("jetson-agx-orin-64gb")).peaks["int8"] == 137.5e12

    def test_every_kind_of_evidence_has_a_chart_of_its_own(self, samples):
        answer = changed(samples.many(), "dense-int8-static", kind="estimated")
        measured, look = look_of(answer)
        plots, reason = hardware_view.rooflines("t", "k", measured, PI, COSTS, look)
        assert [plot.title for plot in plots] == [
            "Roofline of Raspberry Pi 5, measured", "Roofline of Raspberry Pi 5, estimated",
        ]  # fmt: skip
        assert reason == ""
        assert [len(plot.table.rows) for plot in plots] == [4, 1]

    def test_roofs_have_their_figures_and_of_what_kind_their_source_is(self, samples):
        measured, look = look_of(samples.many())
        (plot,), _ = hardware_view.rooflines("t", "k", measured, PI, COSTS, look)
        roofs = [(key.text.replace(NBSP, " "), key.remark) for key in plot.legend][:3]
        assert roofs == [
            ("int8 peak 614 GOPS", "derived"), ("fp32 peak 154 GOPS", "derived"),
            ("memory 17.1 GB/s", "derived"),
        ]  # fmt: skip
        assert plot.drawing.count('class="roof ') == 3
        assert "bytes moved are the weights, inputs and outputs" in plot.notes[0]

    def test_the_machine_that_was_measured_is_named(self, samples):
        """An Intel processor's figures under an AMD one's roofs are seen to be such."""
        measured, look = look_of(samples.many())
        (plot,), _ = hardware_view.rooflines("t", "k", measured, PI, COSTS, look)
        assert "Measured on A CPU @ 2.50GHz." in plot.notes
        on_gpu = changed(samples.lone(), "dense-fp32", host={"facts": {"device": "A GPU"}})
        (plot,), _ = hardware_view.rooflines("t", "k", on_gpu.candidates, PI, COSTS, look)
        assert "Measured on A GPU." in plot.notes

    def test_roofs_meet_at_the_ridge(self, samples):
        measured, look = look_of(samples.many())
        (plot,), _ = hardware_view.rooflines("t", "k", measured, PI, COSTS, look)
        lines = {
            name: [float(v) for v in values]
            for *values, name in re.findall(
                r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" '
                r'class="roof roof-(\w+)"', plot.drawing
            )
        }  # fmt: skip
        x1, y1, _, y2 = lines["int8"]
        assert y1 == y2
        assert lines["memory"][2:] == pytest.approx([x1, y1], abs=0.1)

    def test_hardware_without_figures_has_no_roofline_but_a_reason(self, samples):
        measured, look = look_of(samples.many())
        bare = hardware.load("x86-avx512-vnni")
        plots, reason = hardware_view.rooflines("t", "k", measured, bare, COSTS, look)
        assert plots == []
        assert reason == f"the catalogue has no peak and no bandwidth of {bare.name}"

    def test_another_machines_times_are_not_put_under_its_roofs(self, samples):
        answer = changed(samples.lone(), "dense-fp32", device={"arch": "x86_64"})
        measured, look = look_of(answer)
        plots, reason = hardware_view.rooflines("t", "k", measured, PI, COSTS, look)
        assert (plots, reason) == ([], "it was measured on x86_64, which is not Raspberry Pi 5")
        there = changed(samples.lone(), "dense-fp32", device={"arch": "aarch64"})
        assert hardware_view.rooflines("t", "k", there.candidates, PI, COSTS, look)[0]

    def test_emulated_time_is_under_no_roof(self, samples):
        answer = changed(samples.lone(), "dense-fp32", kind="emulated", latency_ms=Latency())
        measured, look = look_of(answer)
        found = hardware_view.rooflines("t", "k", measured, PI, COSTS, look)
        assert found == ([], "emulated time is not latency")

    def test_without_costs_there_is_a_reason(self, samples):
        measured, look = look_of(samples.lone())
        plots, reason = hardware_view.rooflines("t", "k", measured, PI, {}, look)
        assert plots == []
        assert "known multiply-accumulates" in reason


ASKED = {
    "layers": ({"layers": True}, "No times of layers: LiteRT's Python interpreter gives no times"),
    "a sweep": ({"sweep": params.Sweep()}, "No throughput against batch: no Offline load"),
    "Offline": (
        {"scenarios": (params.Scenario(scenario="Offline"),)},
        "No throughput against batch: no Offline load",
    ),
    "energy": (
        {"energy": params.EnergyMeter(meter="rapl")},
        "No energy: meter rapl gave none beside a latency.",
    ),
}


class TestAsked:
    def lines(self, samples, answer, profile):
        target = samples.target_of("to_litert", "litert", profile=params.Profile(**profile))
        found = Evidence(targets={answer.target: target})
        return further_view.plots(answer, "k", *self.both(answer, found))[1]

    def both(self, answer, found):
        measured, look = look_of(answer)
        return measured, found, look

    @pytest.mark.parametrize(("profile", "line"), ASKED.values(), ids=ASKED)
    def test_what_was_asked_for_in_vain_has_its_reason(self, samples, profile, line):
        (found,) = self.lines(samples, samples.lone(), profile)
        assert found.startswith(line)

    def test_what_nobody_asked_for_is_not_missed(self, samples):
        assert self.lines(samples, samples.lone(), {}) == []

    def test_what_is_there_is_not_missed(self, samples):
        everything = {key: value for profile, _ in ASKED.values() for key, value in profile.items()}
        assert self.lines(samples, samples.many(), everything) == []

    def test_a_target_that_failed_is_not_told_what_it_lacks(self, samples):
        assert self.lines(samples, samples.SHAPES["failed"](), {"layers": True}) == []
