import datetime as dt
import re
import types
import typing
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from pipeline import cli, compatibility
from pipeline.errors import ParamsError, TargetError
from pipeline.project import settings
from pipeline.targets import hardware

BOARD = """\
name: My board
sources:
  sheet: {text: Data sheet DS1234 rev 2, date: 2026-11-21, kind: vendor}
converters:
  to_litert: {precisions: [fp32, int8-static]}
cpu:
  clock_hz: {value: 500.0e+6, source: sheet}
artifact:
  formats: {value: [tflite], source: sheet}
numerics:
  precisions: {value: [fp32, int8-static], source: sheet}
"""


@pytest.fixture
def write_board(tmp_path):
    """Write the file above with some of it replaced."""

    def write(*changes, name="my-board.yaml"):
        text = BOARD
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def invoke(*args):
    return CliRunner().invoke(cli.app, ["targets", *map(str, args)])


def test_there_are_at_least_twenty_entries():
    assert len(hardware.ids()) >= 20


@pytest.mark.parametrize("name", hardware.ids())
def test_an_entry_is_valid_and_every_fact_has_a_dated_source(name):
    found, problems = hardware.parse(hardware.CATALOGUE_PATH / f"{name}.yaml")
    assert problems == []
    facts = list(hardware.facts(found))
    assert facts
    for key, fact in facts:
        source = found.sources[fact.source]
        assert source.text, key
        assert isinstance(source.date, dt.date), key
        assert source.kind in hardware.Kind.__args__, key


def unsourced(kind, at):
    """Every field of the schema that holds a value outside a sourced statement."""
    members = [m for m in typing.get_args(kind) if m is not type(None)]
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        (kind,) = members
    if typing.get_origin(kind) is dict:
        kind = members[1]
    kind = typing.get_origin(kind) or kind
    if not issubclass(kind, msgspec.Struct):
        return [at]
    if issubclass(kind, hardware.Sourced):
        return []
    fields = msgspec.structs.fields(kind)
    return [key for f in fields for key in unsourced(f.type, f"{at}.{f.name}")]


def test_the_schema_has_no_place_for_a_fact_without_a_source():
    of_the_file = {"name", "vendor", "sources", "converters", "not_supported_yet"}
    fields = [f for f in msgspec.structs.fields(hardware.Hardware) if f.name not in of_the_file]
    assert len(fields) > 10
    assert [key for f in fields for key in unsourced(f.type, f.name)] == []


SERVED = [
    (name, converter, preset)
    for name in hardware.ids()
    for converter, service in hardware.load(name).converters.items()
    for preset in service.presets
]


@pytest.mark.parametrize(("name", "converter", "preset"), SERVED)
def test_a_preset_makes_something_for_the_entry_that_names_it(name, converter, preset):
    entry, made = hardware.load(name), settings.presets()[preset]
    assert made["converter"] == converter
    # fp32 is the reference of every preset, also where nothing computes it
    assert {*made["convert"]["precisions"]} & {*entry.converters[converter].precisions} - {"fp32"}
    compiled_for = made["convert"].get("vela") or made["convert"].get("tensorrt") or {}
    for key in compiled_for.keys() & {"accelerator_config", "compute_capability"}:
        assert getattr(entry.artifact, key).value == compiled_for[key]


def test_every_preset_serves_some_hardware():
    assert {preset for *_, preset in SERVED} == settings.presets().keys()


def test_a_preset_of_one_piece_of_hardware_names_it():
    """What runs on any x86 machine names none."""
    named = {name: preset.get("hardware") for name, preset in settings.presets().items()}
    assert {name for name, found in named.items() if found is None} == {
        "x86-onnxruntime", "x86-litert", "linux-tflite-runtime", "x86-openvino",
    }  # fmt: skip
    for name, found in named.items():
        assert found is None or (found, settings.presets()[name]["converter"], name) in SERVED


KNOWN = {
    "raspberry-pi-5": [
        ("memory.bandwidth_bytes_per_s", 17.1e9, "derived"),
        ("peak.int8_dense_ops_per_s", 4 * 2.4e9 * 2 * 16 * 2, "derived"),
        ("power.idle_w", 2.4, "vendor"),
        ("cpu.clock_hz", 2.4e9, "general_knowledge"),
    ],
    "ethos-u55-128": [
        ("peak.int8_dense_ops_per_s", 128e9, "derived"),
        ("accelerator.clock_hz", 500e6, "vendor"),
        ("artifact.accelerator_config", "ethos-u55-128", "general_knowledge"),
    ],
    "jetson-agx-orin-64gb": [
        ("peak.int8_sparse_ops_per_s", 275e12, "general_knowledge"),
        ("peak.int8_dense_ops_per_s", 137.5e12, "derived"),
        ("artifact.compute_capability", "8.7", "general_knowledge"),
    ],
    "jetson-nano-2019": [
        ("peak.fp16_ops_per_s", 472e9, "vendor"),
        ("numerics.precisions", ("fp32", "fp16"), "vendor"),
    ],
    "stm32mp2": [
        ("numerics.weight_granularity", ("per_tensor",), "vendor"),
        ("numerics.weight_symmetry", ("asymmetric",), "vendor"),
    ],
    "stm32l4r5": [("memory.ram_bytes", 640_000, "vendor"), ("cpu.clock_hz", 120e6, "vendor")],
    "coral-edge-tpu": [("graph.max_rank", 3, "vendor"), ("graph.static_shapes", True, "vendor")],
    "ryzen-ai-xdna2": [("graph.recommended_opset", 17, "vendor")],
}


@pytest.mark.parametrize(
    ("name", "key", "value", "kind"),
    [(name, *fact) for name, facts in KNOWN.items() for fact in facts],
)
def test_a_known_fact(name, key, value, kind):
    entry = hardware.load(name)
    fact = dict(hardware.facts(entry))[tuple(key.split("."))]
    assert fact.value == (pytest.approx(value) if isinstance(value, float) else value)
    assert entry.sources[fact.source].kind == kind


def test_published_results_are_those_of_mlperf_tiny():
    results = hardware.load("stm32u385").results["x-cube-ai-10-2-v1-3"]
    assert results.inferences_per_s == hardware.Figures(ic01=5.48, kws01=20.7, vww01=10.1, ad01=185)
    assert results.energy_mj == hardware.Figures(ic01=0.966, kws01=0.245, vww01=0.519, ad01=0.032)
    assert hardware.load("riscv-k1").results["v1-3"].inferences_per_s.ic01 == 1023


def test_system_configurations_are_velas():
    configs = hardware.load("ethos-u55-256").artifact.system_configs
    assert configs["Ethos_U55_High_End_Embedded"].sram_bytes_per_s == 3.7e9
    assert configs["Ethos_U55_Deep_Embedded"].clock_hz == 200e6


def test_the_jetson_nano_has_no_int8_and_no_converter():
    nano = hardware.load("jetson-nano-2019")
    assert not [p for p in nano.numerics.precisions.value if p.startswith("int8")]
    assert nano.converters == {}
    assert "8.2" in nano.not_supported_yet


def test_every_converter_serves_some_hardware():
    served = {converter for name in hardware.ids() for converter in hardware.load(name).converters}
    assert served == set(compatibility.Converter.__args__)


UPSIDE_DOWN = "power: {min_w: {value: 9, source: sheet}, max_w: {value: 5, source: sheet}}\n"
REFUSED = {
    "an unknown key": (
        ("  clock_hz:", "  clock:"),
        r"cpu\.clock is not known; allowed: core, .* \(my-board\.yaml:7\)",
    ),
    "an unknown key of a fact": (
        ("500.0e+6, source", "500.0e+6, unit: Hz, source"),
        r"cpu\.clock_hz\.unit is not known; allowed: source, note, value \(my-board\.yaml:7\)",
    ),
    "a precision that the converter does not make": (
        ("{precisions: [fp32, int8-static]}", "{precisions: [fp32, bf16]}"),
        r"converters\.to_litert\.precisions: it makes fp32, .*, got bf16 \(my-board\.yaml:5\)",
    ),
    "a precision that the hardware does not compute": (
        ("value: [fp32, int8-static]", "value: [fp32]"),
        r"to_litert\.precisions: the hardware computes fp32, got int8-static \(my-board\.yaml:5\)",
    ),
    "a converter without precisions": (
        ("{precisions: [fp32, int8-static]}", "{precisions: []}"),
        r"converters\.to_litert\.precisions: it makes fp32, .*, got none",
    ),
    "a converter that there is not": (
        ("to_litert", "to_coral"),
        r"converters\.to_coral is not known; allowed: to_onnxruntime, .* \(my-board\.yaml:5\)",
    ),
    "a converter that compiles for a key that is absent": (
        ("to_litert", "to_ethos_u"),
        r"artifact\.accelerator_config is missing; to_ethos_u compiles for it \(my-board\.yaml:8\)",
    ),
    "neither a converter nor a reason": (
        ("converters:\n  to_litert: {precisions: [fp32, int8-static]}\n", ""),
        r"one of converters and not_supported_yet \(the reason\) must be there, got neither",
    ),
    "both a converter and a reason": (
        ("converters:", "not_supported_yet: no runtime\nconverters:"),
        r"not_supported_yet \(the reason\) must be there, got both",
    ),
    "a fact without provenance": (
        ("{value: 500.0e+6, source: sheet}", "{value: 500.0e+6}"),
        r"cpu\.clock_hz\.source is missing \(my-board\.yaml:7\)",
    ),
    "a bare value": (
        ("{value: 500.0e+6, source: sheet}", "500"),
        r"cpu\.clock_hz must be a mapping of source, note, value, got 500 \(my-board\.yaml:7\)",
    ),
    "a source that there is not": (
        ("500.0e+6, source: sheet", "500.0e+6, source: shet"),
        r"cpu\.clock_hz\.source must be one of sheet, got 'shet' \(my-board\.yaml:7\)",
    ),
    "a source of nothing": (
        ("sources:\n", "sources:\n  rumour: {text: a, date: 2026-11-21, kind: vendor}\n"),
        r"sources\.rumour is the source of no fact; remove it \(my-board\.yaml:3\)",
    ),
    "a source without a date": (
        (", date: 2026-11-21", ""),
        r"sources\.sheet\.date is missing \(my-board\.yaml:3\)",
    ),
    "an unknown kind": (
        ("kind: vendor", "kind: rumour"),
        r"kind must be one of measured, vendor, derived, general_knowledge, got 'rumour'",
    ),
    "a negative clock": (
        ("500.0e+6", "-500.0e+6"),
        r"cpu\.clock_hz\.value must be float > 0\.0, got -500000000\.0 \(my-board\.yaml:7\)",
    ),
    "a number that YAML takes for text": (
        ("500.0e+6", "500e6"),
        r"value must be float, got str, got '500e6'; to YAML that is text, write 500\.0e\+6",
    ),
    "a format that there is not": (
        ("value: [tflite]", "value: [hef]"),
        r"artifact\.formats\.value\[0\] must be one of c_source, .*, got 'hef'",
    ),
    "a key that stands twice": (
        ("cpu:\n", "name: Again\ncpu:\n"),
        r"name stands twice \(my-board\.yaml:6\)",
    ),
    "idling that takes more than working": (
        ("artifact:\n", f"{UPSIDE_DOWN.replace('min_w', 'idle_w')}artifact:\n"),
        r"power\.idle_w must be at most power\.max_w 5, got 9 \(my-board\.yaml:8\)",
    ),
    "a range upside down": (
        ("artifact:\n", f"{UPSIDE_DOWN}artifact:\n"),
        r"power\.min_w must be at most power\.max_w 5, got 9 \(my-board\.yaml:8\)",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_a_broken_file_is_refused_in_one_line(write_board, change, message):
    path = write_board(change)
    done = invoke("check", path)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    with pytest.raises(ParamsError, match=message):
        hardware.read(path)


def test_check_says_all_problems_at_once(write_board):
    path = write_board(("kind: vendor", "kind: rumour"), ("500.0e+6", "-1"), ("name: ", "title: "))
    done = invoke("check", path)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 4  # title is not known, name is missing


def test_a_file_name_that_is_no_id_is_refused(write_board):
    with pytest.raises(ParamsError, match=r"must match \[a-z0-9\].*, got 'My Board'"):
        hardware.read(write_board(name="My Board.yaml"))


def test_a_file_that_is_no_yaml_is_a_one_line_error(tmp_path):
    with pytest.raises(ParamsError, match=r"absent\.yaml cannot be read"):
        hardware.read(tmp_path / "absent.yaml")


def test_a_file_of_the_users_own_passes_check_and_is_shown(write_board):
    path = write_board()
    done = invoke("check", path)
    assert (done.exit_code, "3 facts, each with its source: ok" in done.stdout) == (0, True)
    shown = invoke("show", path)
    assert "cpu.clock_hz: 500 MHz  [sheet, vendor]" in shown.stdout
    assert "[sheet] vendor, 2026-11-21: Data sheet DS1234 rev 2" in shown.stdout


@pytest.mark.parametrize("name", hardware.ids())
def test_show_says_every_fact_of_an_entry(name):
    done = invoke("show", name)
    assert done.exit_code == 0, done.output
    for key, _ in hardware.facts(hardware.load(name)):
        assert f"{'.'.join(key)}: " in done.stdout


SHOWN = {
    "raspberry-pi-5": "memory.bandwidth_bytes_per_s: 17.1 GB/s  [bus, derived]",
    "ethos-u55-128": "peak.int8_dense_ops_per_s: 128 GOPS (at 500 MHz)  [twice, derived]",
    "jetson-agx-orin-64gb": "peak.int8_dense_ops_per_s: 137.5 TOPS  [half, derived]",
    "stm32l4r5": "energy_mj ic01 5.496 mJ, kws01 1.431 mJ",
    "stm32n6": "power.ops_per_s_per_w: 3 TOPS/W (about)",
    "coral-edge-tpu": "graph.static_shapes: yes  [vendor, vendor]",
}


@pytest.mark.parametrize(("name", "line"), SHOWN.items())
def test_show_writes_units_and_sources(name, line):
    assert line in invoke("show", name).stdout


def test_an_unknown_id_names_the_close_ones_first():
    with pytest.raises(TargetError, match=r"'jetson-nano' is not known; known: jetson-nano-2019, "):
        hardware.load("jetson-nano")


def test_params_name_an_entry_or_a_file_of_the_project(write_board, tmp_path):
    assert hardware.find("raspberry-pi-5") == hardware.load("raspberry-pi-5")
    write_board()
    assert hardware.find("my-board.yaml", tmp_path).name == "My board"
    with pytest.raises(ParamsError, match=r"my-board\.yaml cannot be read"):
        hardware.find("my-board.yaml")


def test_list_has_every_id_sorted(capsys):
    cli.cli_targets.list_hardware()
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    assert listed == sorted(hardware.ids())
    assert any("137 GB/s" in line and "32.0 TOPS" in line for line in lines)


def test_params_name_an_id_or_a_file_beside_them(tmp_path):
    assert hardware.find("raspberry-pi-5", tmp_path) == hardware.load("raspberry-pi-5")
    (tmp_path / "boards").mkdir()
    path = tmp_path / "boards/my-pi.yaml"
    path.write_bytes((hardware.CATALOGUE_PATH / "raspberry-pi-5.yaml").read_bytes())
    assert hardware.find("boards/my-pi.yaml", tmp_path) == hardware.load("raspberry-pi-5")


def test_the_catalogue_travels_with_the_wheel():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"pipeline.targets" = ["catalogue/*.yaml"]' in text
