"""Targets held against hardware: the catalogue's, and boards written here."""

import platform
import re
from pathlib import Path

import msgspec
import pytest
import torch
import yaml

from pipeline import check, params
from pipeline.compatibility import EVIDENCE
from pipeline.preflight import cases, net_fit, target_settings
from pipeline.project import settings
from pipeline.targets import bindings, hardware

ROOT = Path(__file__).parents[2]
RESNET8 = net_fit.Model(num_parameters=77_360, shapes=((1, 32, 32),), opset=20)
FACT = {"source": "sheet"}


@pytest.fixture(autouse=True)
def on_x86(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.fixture
def own():
    return params.load(ROOT / "params.yaml")


def target(preset, **changes):
    """A target of `slipway init`, changed section by section."""
    values = settings.presets()[preset]
    for key, change in changes.items():
        together = isinstance(change, dict) and key in values
        values[key] = {**values[key], **change} if together else change
    return msgspec.convert(values, params.Target)


def lines(on, entry=None):
    entry = entry or hardware.load(on.hardware)
    return list(target_settings.problems(cases.Case("t", on, entry)))


NAMED = [name for name, preset in settings.presets().items() if "hardware" in preset]


@pytest.mark.parametrize("name", NAMED)
def test_a_preset_goes_with_its_hardware(own, name):
    case = cases.Case("t", target(name), hardware.load(settings.presets()[name]["hardware"]))
    assert list(target_settings.problems(case)) == []
    assert list(net_fit.problems(case, RESNET8, own)) == []
    assert list(net_fit.remarks(case, RESNET8, own)) == []


SSH = {"transport": "ssh", "host": "board"}
LISTED = [
    (name, preset)
    for name in hardware.ids()
    for service in hardware.load(name).converters.values()
    for preset in service.presets
]


@pytest.mark.parametrize(("name", "preset"), LISTED)
def test_a_preset_goes_with_every_hardware_that_lists_it(own, name, preset):
    values = settings.presets()[preset]
    entry = hardware.load(name)
    is_here = entry.cpu.isa is None or entry.cpu.isa.value == "x86-64"
    runs = EVIDENCE[values["converter"]] == "measured"
    on = target(preset, hardware=name, connection=SSH if runs and not is_here else None)
    assert lines(on, entry) == []
    assert list(net_fit.problems(cases.Case("t", on, entry), RESNET8, own)) == []


VELA = settings.presets()["cortex-m55-ethos-u55"]["convert"]["vela"]
NANO, CORAL = "Jetson Nano (2019)", "Coral Edge TPU"
INTEGERS = {"precisions": ["fp32", "int8-static"]}
OLD_TENSORRT = {"tensorrt": {"compute_capability": "8.7", "version": "8.5"}}
# name: target, and (key, words) of each line
BAD_SETTINGS = {
    "a converter that serves something else": (
        target("x86-openvino", hardware="raspberry-pi-5", connection=SSH),
        [
            ("converter", "Pi 5 is served by to_litert, to_onnxruntime, got to_openvino"),
            ("convert.precisions", "got bf16 [numerics.precisions, general_knowledge]"),
        ],
    ),
    "int8 for a GPU without it, and an engine for another": (
        target("jetson-orin", hardware="jetson-nano-2019"),
        [
            ("hardware", f"nothing here serves {NANO} yet: its last TensorRT is 8.2, of opset 13"),
            ("convert.precisions", "takes fp32, fp16, got int8-static [numerics.precisions, vend"),
            (
                "convert.tensorrt.compute_capability",
                f"{NANO} takes 5.3, got 8.7 [artifact.compute_capability, vendor]",
            ),
            (
                "convert.tensorrt.version",
                f"{NANO} has any to 8.2, got 10.3 [software.tensorrt, vendor]",
            ),
        ],
    ),
    "a TensorRT that is too old": (
        target("jetson-orin", convert=OLD_TENSORRT),
        [
            (
                "convert.tensorrt.version",
                "has 8.6 to 10.x, got 8.5 [software.tensorrt, vendor]",
            )
        ],
    ),
    "floats at the ends of what takes integers alone": (
        target("x86-onnxruntime", hardware="coral-edge-tpu"),
        [
            ("hardware", f"nothing here serves {CORAL} yet: no converter calls edgetpu_compiler"),
            ("convert.precisions", f"{CORAL} takes int8-static, got int8-dynamic [numerics.prec"),
            (
                "convert.precisions",
                f"io_dtypes float32, and {CORAL} takes int8, uint8 [numerics.io_dtypes, vendor]",
            ),
        ],
    ),
    "integers all through": (
        target("x86-litert", hardware="coral-edge-tpu", convert=INTEGERS),
        [("hardware", f"nothing here serves {CORAL} yet: no converter calls edgetpu_compiler")],
    ),
    "a scale a channel where one a tensor is taken": (
        target("x86-litert", hardware="stm32mp2", convert=INTEGERS),
        [
            ("hardware", "yet: its NPU takes per-tensor int8 alone; converters give per-channel"),
            (
                "convert.precisions",
                "per_channel, and STM32MP2 takes per_tensor [numerics.weight_granularity, vendor]",
            ),
            ("convert.precisions", "weight_symmetry symmetric, and STM32MP2 takes asymmetric ["),
        ],
    ),
    "another micro-NPU, and what it does not have": (
        target("cortex-m55-ethos-u55", hardware="ethos-u65-256"),
        [
            (
                "convert.vela.accelerator_config",
                "takes ethos-u65-256, got ethos-u55-128 [",
            ),
            ("convert.vela.memory_mode", "takes Dedicated_Sram_384KB, got Shared_Sram ["),
        ],
    ),
    "a system that the catalogue does not know": (
        target("cortex-m55-ethos-u55", convert={"vela": {**VELA, "system_config": "Mine"}}),
        [
            (
                "convert.vela.system_config",
                "_Embedded, got Mine [artifact.system_configs, vendor]",
            )
        ],
    ),
    "a model of energy without the power": (
        target("cortex-m55-ethos-u55", profile={"energy": {"meter": "modelled"}}),
        [("profile.energy.meter", "Arm Ethos-U55-128: its entry has no power.max_w, so energy")],
    ),
    "a board's figures from this machine": (
        target("linux-tflite-runtime", hardware="raspberry-pi-5"),
        [
            (
                "hardware",
                "Pi 5 is aarch64, and environment device-tflite is x86-64; give a connection, or",
            ),
        ],
    ),
    "an emulator of something else": (
        target("raspberry-pi-5-tflite", hardware="intel-nuc-cpu"),
        [("hardware", "CPU is x86-64, and environment emulated-aarch64 is aarch64; give a connec")],
    ),
}


@pytest.mark.parametrize(("on", "expected"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_it_refuses_with_the_fact_and_its_kind(on, expected):
    found = lines(on)
    assert [line.split(": ")[0] for line in found] == [f"targets.t.{key}" for key, _ in expected]
    for line, (_, words) in zip(found, expected, strict=True):
        assert words in line


GOOD_SETTINGS = {
    "a board that answers": target(
        "linux-tflite-runtime", hardware="raspberry-pi-5", connection=SSH
    ),
    "this machine's own instruction set": target("x86-onnxruntime", hardware="intel-nuc-cpu"),
    "hardware whose instruction set is not known": target("rtx-4090"),
    "fp32, the reference, on what never runs it": target("cortex-m55-ethos-u55"),
    "any TensorRT of the release": target(
        "jetson-orin", convert={"tensorrt": {"compute_capability": "8.7", "version": "10.99.1"}}
    ),
    "energy modelled by a board's power": target(
        "linux-tflite-runtime", hardware="raspberry-pi-5", connection=SSH,
        profile={"energy": {"meter": "modelled"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("on", GOOD_SETTINGS.values(), ids=GOOD_SETTINGS)
def test_it_takes(on):
    assert lines(on) == []


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "loongarch64"])
def test_a_board_that_builds_for_itself_or_cannot_be_told_is_no_problem(monkeypatch, machine):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert lines(target("linux-tflite-runtime", hardware="raspberry-pi-5")) == []


BOARD = {
    "name": "My board",
    "sources": {"sheet": {"text": "Data sheet", "date": "2026-11-21", "kind": "vendor"}},
    "converters": {"to_onnxruntime": {"precisions": ["fp32", "int8-static"]}},
}


def board(**sections):
    return msgspec.convert({**BOARD, **sections}, hardware.Hardware)


def on_board(preset="x86-onnxruntime", precisions=("fp32", "int8-static"), **sections):
    on = target(preset, convert={"precisions": list(precisions)})
    return cases.Case("t", on, board(**sections))


def memory(**sizes):
    return {"memory": {key: {**FACT, "value": value} for key, value in sizes.items()}}


# 77,360 parameters: 309 kB as fp32, 77.4 kB as int8; half pruned away, at least a sixteenth stays
INT8_ONLY = {"to_onnxruntime": {"precisions": ["int8-static"]}}
DENSE = {"dense-fp32": "309 kB", "dense-int8-static": "77.4 kB"}
PRUNED = {"pruned-fp32": "19.3 kB", "pruned-int8-static": "4.83 kB"}
TOO_SMALL = {
    "all fit": (memory(ram_bytes=310_000), {}, "", False),
    "dense fp32 does not": (
        memory(ram_bytes=300_000),
        {"dense-fp32": "309 kB"},
        "300 kB [memory.ram_bytes, vendor]",
        False,
    ),
    "the smaller of two memories decides": (
        memory(ram_bytes=1_000_000, flash_bytes=70_000),
        DENSE,
        "70.0 kB [memory.flash_bytes, vendor]",
        False,
    ),
    "not even a sixteenth of int8 does": (
        memory(flash_bytes=4_000),
        DENSE | PRUNED,
        "4.00 kB [memory.flash_bytes, vendor]",
        True,
    ),
    "a precision that never ships does not count": (
        memory(ram_bytes=300_000) | {"converters": INT8_ONLY},
        {},
        "",
        False,
    ),
    "nothing is known": ({}, {}, "", False),
}


@pytest.mark.parametrize(
    ("sections", "too_large", "has", "is_problem"), TOO_SMALL.values(), ids=TOO_SMALL
)
def test_weights_are_held_against_memory_before_they_are_trained(
    own, sections, too_large, has, is_problem
):
    case = on_board(**sections)
    listed = ", ".join(f"{name} of at least {size}" for name, size in too_large.items())
    said = f"{listed}; My board has {has}"
    assert list(net_fit.problems(case, RESNET8, own)) == (
        [f"targets.t.hardware: no candidate fits: {said}"] if is_problem else []
    )
    if not is_problem:
        assert list(net_fit.remarks(case, RESNET8, own)) == (
            [f"t: candidates will not fit: {said}"] if too_large else []
        )


def test_weights_that_a_compiler_packs_are_a_remark(own):
    npu = {"value": "ethos-u55-128", **FACT}
    case = on_board(
        "cortex-m55-ethos-u55",
        converters={"to_ethos_u": {"precisions": ["int8-static"]}},
        artifact={"accelerator_config": npu},
        # they stay in flash; RAM does not hold them
        **memory(flash_bytes=4_000, ram_bytes=1_000),
    )
    assert list(net_fit.problems(case, RESNET8, own)) == []
    (line,) = net_fit.remarks(case, RESNET8, own)
    assert line.startswith("t: candidates will fit only if its compiler compresses them: dense-int")
    assert line.endswith("My board has 4.00 kB [memory.flash_bytes, vendor]")


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("round_to", [1, 8, 12])
def test_a_net_is_never_pruned_below_the_bound(own, ratio, round_to):
    from pipeline.compression.prune import prune
    from pipeline.nets import count, factory

    shape = (1, 32, 32)
    net = factory.build(own.net, shape, 10)
    settings = params.Prune(ratio=ratio, round_to=round_to, criterion="magnitude")
    pruned = prune(net, torch.zeros(1, *shape), settings)
    dense, left = (count.count(each, shape).parameters for each in (net, pruned.net))
    p = msgspec.structs.replace(own, prune={"half": settings})
    case = on_board(precisions=["fp32", "int8-static"], **memory(ram_bytes=1))
    (line,) = net_fit.problems(case, net_fit.Model(dense, (shape,), 20), p)
    number, kilo = re.search(r"pruned-int8-static of at least ([\d.]+) (k?)B", line).groups()
    bound = float(number) * (1000 if kilo else 1)
    assert 0 < bound <= left


FIXED_BATCH = net_fit.Model(1, ((1, 32, 32),), 20, is_batch_open=False)
GRAPH = {
    "an opset that is too new": (
        {"max_opset": {"value": 17, **FACT}},
        RESNET8,
        ["hardware: My board takes opset 17, the export has 20 [graph.max_opset, vendor]"],
    ),
    "one that is taken": ({"max_opset": {"value": 20, **FACT}}, RESNET8, []),
    "an open batch where shapes are fixed": (
        {"static_shapes": {"value": True, **FACT}},
        RESNET8,
        [
            (
                "converter: My board takes fixed shapes, files of to_onnxruntime leave the batch "
                "open [graph.static_shapes, vendor]"
            )
        ],
    ),
    "a fixed batch": ({"static_shapes": {"value": True, **FACT}}, FIXED_BATCH, []),
    "an input of too many dimensions": (
        {"max_rank": {"value": 3, **FACT}},
        net_fit.Model(1, ((3, 1, 8, 8), (2, 3, 8, 8)), 20),
        [
            (
                "hardware: My board takes 3 dimensions above 1, an input is [2, 3, 8, 8] "
                "[graph.max_rank, vendor]"
            )
        ],
    ),
}


@pytest.mark.parametrize(("graph", "model", "expected"), GRAPH.values(), ids=GRAPH)
def test_the_net_is_held_against_what_a_compiler_takes(own, graph, model, expected):
    found = list(net_fit.problems(on_board(graph=graph), model, own))
    assert found == [f"targets.t.{line}" for line in expected]


def test_an_opset_does_not_reach_what_is_no_onnx_file(own):
    graph = {"max_opset": {"value": 17, **FACT}}
    served = {"to_litert": {"precisions": ["fp32"]}}
    case = on_board("x86-litert", ["fp32"], graph=graph, converters=served)
    assert list(net_fit.problems(case, RESNET8, own)) == []


def test_what_an_artifact_is_bound_to_stands_in_the_targets_settings():
    assert bindings.of(target("x86-litert")) == {}
    assert bindings.of(target("rtx-4090")) == {"compute_capability": "8.9"}
    assert bindings.of(target("jetson-orin")) == {
        "compute_capability": "8.7", "runtime_version": "10.3",
    }  # fmt: skip
    assert bindings.of(target("cortex-m55-ethos-u55")) == VELA


def test_every_binding_that_is_checked_names_its_fact():
    for name in hardware.ids():
        entry = hardware.load(name)
        assert bindings.taken(entry).keys() <= bindings.FACTS.keys()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one target; gives a function that checks it with hardware."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

    def examine(**targets):
        values["targets"] = targets
        Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        return check.examine(Path("params.yaml"), ROOT / ".venvs")

    return examine


def test_check_lists_the_problems_of_all_targets_at_once(project):
    presets = settings.presets()
    found = project(
        a=presets["x86-litert"] | {"hardware": "rasberry-pi"},
        b=presets["x86-litert"] | {"hardware": "mine.yaml"},
        c=presets["x86-onnxruntime"] | {"hardware": "coral-edge-tpu"},
        d=presets["x86-onnxruntime"],
    ).problems
    assert found[0].startswith(
        "targets.a.hardware: hardware 'rasberry-pi' is not known; known: raspberry-pi-5, "
    )
    assert found[1] == "targets.b.hardware: mine.yaml cannot be read: No such file or directory"
    assert [line.split(":")[0] for line in found[2:]] == [
        "targets.c.hardware", "targets.c.convert.precisions", "targets.c.convert.precisions",
        "targets.c.converter",
    ]  # fmt: skip


def test_a_file_of_the_users_own_is_read_from_the_project(project):
    facts = BOARD | memory(ram_bytes=300_000)
    Path("mine.yaml").write_text(yaml.safe_dump(facts))
    on = settings.presets()["x86-onnxruntime"] | {"hardware": "mine.yaml"}
    found = project(t=on)
    assert found.problems == [
        "targets.t.convert.precisions: My board takes fp32, int8-static, got int8-dynamic"
    ]
    on["convert"]["precisions"] = ["fp32", "int8-static"]
    (line,) = project(t=on).remarks
    assert line.startswith("t: candidates will not fit: dense-fp32 of at least 310 kB; My board")


def test_every_problem_of_such_a_file_is_a_line(project):
    text = yaml.safe_dump(BOARD | {"vendor": 5, "colour": "red"})
    Path("mine.yaml").write_text(text.replace("vendor\n", "rumour\n"))
    found = project(t=settings.presets()["x86-onnxruntime"] | {"hardware": "mine.yaml"}).problems
    assert len(found) == 3
    assert all(line.startswith("targets.t.hardware: ") for line in found)
    assert "colour is not known; allowed: name, " in "".join(found)
    assert "(mine.yaml:" in found[0]
