"""Answers of every shape, with the files behind them: what the report's tests draw.

Loaded by path (`runpy.run_path`): tests are no package.
"""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline import manifest, params
from pipeline.measurement import (
    Agreement,
    Drop,
    Energy,
    Interval,
    Latency,
    Layer,
    Load,
    Measurement,
    Placement,
    Quality,
)
from pipeline.planning.selection import Breach, Rejection, Selection
from pipeline.reporting import across
from pipeline.reporting.answer import Answer, NotBuilt, failed
from pipeline.reporting.evidence import Sources
from pipeline.targets import hardware

HOSTILE = "<script>alert(1)</script>\" onload='x' & {{ 7*7 }} </svg>"


def measured(candidate, p50=None, *, target="box", quality=None, **fields):
    """Make a measurement; with a p50 it has an interval of 10 % around it."""
    times = Latency()
    if p50 is not None:
        times = Latency(p50, p50 * 1.3, p50 * 1.6, p50 * 0.9, p50 * 1.1)
    fields.setdefault("kind", "measured")
    return Measurement(
        artifact="sha256:" + "0" * 64,
        candidate=candidate,
        target=target,
        time="2026-11-21T08:27:12+00:00",
        runtime=fields.pop("runtime", "litert"),
        runtime_version="2.3.0",
        num_threads=1,
        num_restarts=3,
        num_samples=fields.pop("num_samples", 3000),
        size_bytes=fields.pop("size_bytes", 97_300),
        load_ms=5.0,
        device={"cpu_model": "A CPU @ 2.50GHz"},
        latency_ms=fields.pop("latency_ms", times),
        quality=quality,
        **fields,
    )


def accuracy(value, half_width=0.9, n=703):
    return Quality("accuracy", "higher", "%", value, n, half_width)


def drop(value, spread=0.7):
    return Drop(value, value - spread, value + spread, 703, 9)


def over_budget(candidate, upper, allowed=2.0, unit="point"):
    breach = Breach("quality drop (upper bound)", upper, allowed, unit)
    words = f"quality drop (upper bound) {upper:g} {unit}, allowed {allowed:g}"
    return Rejection(candidate, f"{words}, over by {upper - allowed:g}", (breach,))


def selection(target, chosen, ranking=(), rejected=(), objective="latency", reference="dense-fp32"):
    waiting = [r for r in rejected if r.breaches]
    return Selection(
        target=target,
        objective=objective,
        reference=reference,
        chosen=chosen,
        ranking=tuple(ranking),
        rejected=tuple(rejected),
        next_best=ranking[1] if len(ranking) > 1 else None,
        distinguishable=False if len(ranking) > 1 else None,
        better_if=waiting[0].candidate if waiting else None,
        better_if_max_quality_drop=waiting[0].breaches[0].measured if waiting else None,
    )


def layers_of(precision, num_blocks=14):
    """Layers as ONNX Runtime names them: fp32 fused, int8-static with its own conversions."""
    if precision == "fp32":
        found = [("Conv", f"node_conv_{i}_nchwc", 0.03 - 0.0015 * i) for i in range(num_blocks)]
        found += [("ReorderOutput", "ReorderOutput", 0.002), ("Gemm", "node_linear", 0.004)]
    else:
        found = [("QuantizeLinear", "input_QuantizeLinear", 0.001)]
        for i in range(num_blocks):
            found.append(("QLinearConv", f"node_conv_{i}_token_{i}", 0.008 - 0.0003 * i))
            found.append(("QLinearAdd", f"node_add_{i}", 0.0004))
        found.append(("QGemm", "node_linear", 0.0015))
    return tuple(
        Layer(name=name, operator=kind, time_ms=time, provider="CPUExecutionProvider")
        for kind, name, time in found
    )


def loads():
    """A sweep of Offline loads over batch, threads and streams, and one of each other scenario."""
    swept = [
        Load(scenario="Offline", batch_size=batch, num_threads=threads, num_streams=streams,
             num_queries=1, throughput_per_s=rate * batch / (batch + 2))
        for threads, streams, rate in ((1, 1, 9e3), (1, 2, 15e3), (2, 1, 12e3), (2, 2, 16e3))
        for batch in (1, 2, 4, 8, 16, 32)
    ]  # fmt: skip
    return (
        *swept,
        Load(scenario="Server", queries_per_s=400.0, num_queries=800, throughput_per_s=398.2,
             latency_ms=Latency(0.2, 0.5, 1.9)),
        Load(scenario="MultiStream", samples_per_query=8, num_queries=40, throughput_per_s=2100.0,
             latency_ms=Latency(3.7), flags=("not_steady",)),
        Load(scenario="Server", queries_per_s=9000.0, num_queries=100, throughput_per_s=5000.0,
             reason="the queue grew without end"),
    )  # fmt: skip


def energy(value_mj, kind="rail", meter="INA3221 rail VDD_IN"):
    return Energy(value_mj=value_mj, meter=meter, kind=kind, window_s=10.0, num_runs=31_000,
                  idle_w=2.4, busy_w=6.1)  # fmt: skip


def many(target="phone-litert"):
    """Eight candidates of four variants; two would win with a wider budget, two are far off."""
    found = [
        measured("pruned-int8-static", 0.080, quality=accuracy(98.4), drop=drop(0.6),
                 latency_ratio=Interval(0.24, 0.13, 0.44), size_bytes=40_000, flags=("batched",),
                 layers=layers_of("int8-static"), loads=loads(), energy=energy(0.31)),
        measured("dense-int8-static", 0.140, quality=accuracy(99.0), drop=drop(0.1),
                 latency_ratio=Interval(0.41, 0.25, 0.66), size_bytes=102_000, energy=energy(0.52)),
        measured("dense-fp16-weights", 0.340, quality=accuracy(99.1), drop=drop(0.0),
                 latency_ratio=Interval(0.97, 0.8, 1.2), size_bytes=173_000, flags=("host_busy",)),
        measured("dense-fp32", 0.345, quality=accuracy(99.1), size_bytes=324_000,
                 layers=layers_of("fp32"), energy=energy(1.31)),
        measured("pruned-half-qat-int8-static", 0.060, quality=accuracy(96.4), drop=drop(2.6),
                 latency_ratio=Interval(0.18, 0.1, 0.3), size_bytes=30_000),
        measured("pruned-most-int8-static", 0.030, quality=accuracy(93.4), drop=drop(5.6),
                 latency_ratio=Interval(0.09, 0.05, 0.2), size_bytes=12_000),
        measured("pruned-int8-dynamic", 0.900, quality=accuracy(9.7), drop=drop(90.0),
                 latency_ratio=Interval(2.9, 2.0, 4.0), size_bytes=37_000),
        measured("dense-bf16", kind="not_measured", reason="the CPU has no bfloat16"),
    ]  # fmt: skip
    chosen = selection(
        target,
        "pruned-int8-static",
        ("pruned-int8-static", "dense-int8-static", "dense-fp16-weights", "dense-fp32"),
        (
            over_budget("pruned-half-qat-int8-static", 3.3),
            over_budget("pruned-most-int8-static", 6.3),
            over_budget("pruned-int8-dynamic", 90.7),
            Rejection("dense-bf16", "not measured: the CPU has no bfloat16"),
        ),
    )
    return Answer(
        target=target, status="ships", artifact=found[0], reference=found[3], selection=chosen,
        candidates=tuple(found),
        not_built=(NotBuilt("pruned-fp16-weights", "litert 2.3 refuses operator 'GridSample'"),),
    )  # fmt: skip


def lone(target="lone-onnxruntime"):
    """One candidate, which is the reference itself."""
    only = measured("dense-fp32", 0.25, target=target, quality=accuracy(97.5))
    chosen = selection(target, "dense-fp32", ("dense-fp32",))
    return Answer(target=target, status="ships", artifact=only, reference=only, selection=chosen,
                  candidates=(only,))  # fmt: skip


def none(target="strict-openvino"):
    """Nothing meets the budget."""
    found = (
        measured("dense-fp32", 0.25, target=target, quality=accuracy(97.5)),
        measured("dense-int8-static", 0.15, target=target, quality=accuracy(94.0), drop=drop(3.5)),
    )
    too_slow = Breach("latency p50", 0.25, 0.2, "ms")
    chosen = selection(
        target, None, (),
        (Rejection("dense-fp32", "latency p50 0.25 ms, allowed 0.2, over by 0.05", (too_slow,)),
         over_budget("dense-int8-static", 4.2)),
    )  # fmt: skip
    return Answer(target=target, status="none", reason="no candidate meets the budget",
                  selection=chosen, candidates=found)  # fmt: skip


def estimated(target="cortex-m55-ethos-u55"):
    """A compiler's estimate: one number, without an interval; fp32 was refused."""
    only = measured(
        "dense-int8-static", target=target, kind="estimated", runtime="tflite_micro",
        latency_ms=Latency(p50=1.234), num_cycles=617_000, quality=accuracy(97.1), drop=drop(0.4),
        placement=Placement(17, 1, ("SOFTMAX",)), peak_memory_bytes=61_000, num_samples=0,
        layers=(
            *(Layer(name=f"model/act_{i}/Relu;model/conv2d_{i}/Conv2D", operator="Conv2D",
                    num_cycles=51_000 - 2000 * i, num_macs=700_000, provider="NPU")
              for i in range(17)),
            Layer(name="Identity", operator="Softmax", provider="CPU"),
        ),
        energy=energy(0.09, "modelled", "catalogue power of the hardware"),
    )  # fmt: skip
    chosen = selection(target, only.candidate, (only.candidate,))
    return Answer(
        target=target, status="ships", artifact=only, reference=None, selection=chosen,
        candidates=(only,),
        not_built=(NotBuilt("dense-fp32", "ethos-u runs integers only"),),
    )  # fmt: skip


def built(target="rtx-4090"):
    """An engine that no GPU here could load: neither quality nor latency."""
    found = tuple(
        measured(name, target=target, kind="built", runtime="tensorrt", size_bytes=size,
                 reason="no GPU here", num_samples=0)
        for name, size in (("dense-int8-static", 300_000), ("dense-fp16", 500_000))
    )  # fmt: skip
    chosen = selection(target, found[0].candidate, [m.candidate for m in found])
    return Answer(target=target, status="ships", artifact=found[0], reference=None,
                  selection=chosen, candidates=found)  # fmt: skip


def regression(target="meter-litert"):
    """Less is better, in the labels' own unit."""

    def mae(value):
        return Quality("mae", "lower", "mm", value, 812, value / 20)

    found = (
        measured("dense-int8-static", 0.4, target=target, quality=mae(0.01234),
                 drop=Drop(0.0004, -0.0001, 0.0009, 812, 0), latency_ratio=Interval(0.5, 0.4, 0.6)),
        measured("dense-fp32", 0.8, target=target, quality=mae(0.01194)),
        measured("pruned-fp32", 0.3, target=target, quality=mae(0.02),
                 drop=Drop(0.008, 0.007, 0.009, 812, 0), latency_ratio=Interval(0.4, 0.3, 0.5)),
    )  # fmt: skip
    chosen = selection(
        target, found[0].candidate, [m.candidate for m in found[:2]],
        (over_budget("pruned-fp32", 0.009, 0.002, "mm"),),
    )  # fmt: skip
    return Answer(target=target, status="ships", artifact=found[0], reference=found[1],
                  selection=chosen, candidates=found)  # fmt: skip


def hostile():
    """Names and reasons from outside that would like to be markup."""
    only = measured(
        f"{HOSTILE}-fp32", 0.2, quality=Quality(HOSTILE, "higher", HOSTILE, 1.0, 9, 0.1),
        agreement=Agreement(0.0, None, None), runtime=HOSTILE,
        placement=Placement(1, 1, (HOSTILE,)),
        layers=(Layer(name=HOSTILE, operator=HOSTILE, time_ms=0.1, provider=HOSTILE),),
        loads=(Load(scenario="Offline", num_queries=1, throughput_per_s=9.0, reason=HOSTILE,
                    flags=(HOSTILE,)),),
        energy=energy(0.1, meter=HOSTILE),
    )  # fmt: skip
    chosen = selection(
        "hostile", only.candidate, (only.candidate,), (Rejection(HOSTILE, HOSTILE),),
        reference=only.candidate,
    )  # fmt: skip
    return Answer(
        target=HOSTILE, status="ships", artifact=only, reference=only, selection=chosen,
        candidates=(only,), not_built=(NotBuilt(HOSTILE, HOSTILE),),
    )  # fmt: skip


SHAPES = {
    "many candidates": many,
    "one candidate": lone,
    "nothing ships": none,
    "failed": lambda: failed("far-tflite", "device gone; run dvc repro"),
    "estimated": estimated,
    "built": built,
    "less is better": regression,
}


def target_of(converter, runtime, **fields):
    """Make what params.yaml says of a target."""
    fields.setdefault("profile", params.Profile())
    convert = params.Convert(precisions=("fp32", "int8-static"))
    return params.Target(converter=converter, runtime=runtime, convert=convert,
                         select=params.Select(), **fields)  # fmt: skip


EVERYTHING = params.Profile(
    layers=True, sweep=params.Sweep(batch_size=(1, 8)), energy=params.EnergyMeter(meter="rapl")
)
TARGETS = {
    "phone-litert": target_of("to_onnxruntime", "onnxruntime", hardware="raspberry-pi-5",
                              profile=EVERYTHING),
    "lone-onnxruntime": target_of("to_litert", "litert", hardware="x86-avx512-vnni",
                                  profile=EVERYTHING),
    "cortex-m55-ethos-u55": target_of("to_ethos_u", "tflite_micro", hardware="ethos-u55-128"),
}  # fmt: skip
STAGES = {
    "train": {"teacher": {"macs": 12_206_720, "validation_accuracy": 99.8}},
    "prune": {"pruned": {"macs": 3_088_704, "macs_before": 12_206_720}},
}


def all_shapes():
    return tuple(make() for make in SHAPES.values())


def write_evidence(root, answers):
    """Write samples, sensitivity, curves and manifests below ``root``; return their `Sources`."""
    generator = np.random.default_rng(0)
    profiled = {answer.target: root / "profiled" / answer.target for answer in answers}
    for answer in answers:
        for m in answer.candidates:
            if m.kind == "measured":
                _write_samples(profiled[answer.target] / m.candidate, m.latency_ms.p50, generator)
    _write_sensitivity(root / "quantized")
    _write_curves(root / "curves")
    _write_exported(root / "exported")
    asked = {
        answer.target: TARGETS[answer.target] for answer in answers if answer.target in TARGETS
    }
    return Sources(
        profiled=profiled,
        targets=asked,
        hardware={name: hardware.load(t.hardware) for name, t in asked.items()},
        exported=root / "exported",
        quantized=root / "quantized",
        curves=root / "curves",
        manifests=_write_chain(root / "chain", [answer.target for answer in answers]),
    )


def _write_samples(folder, p50_ms, generator):
    folder.mkdir(parents=True)
    runs = np.array([1, 1, 1], np.int64)
    times = {
        f"samples_ns_{index}": (p50_ms * 1e6 * generator.lognormal(0, 0.1, 400)).astype(np.int64)
        for index in range(len(runs))
    }
    np.savez(folder / "samples.npz", allow_pickle=False, runs_per_sample=runs, **times)


def write_agreements(root, answers, num_samples=200):
    """Write outputs of what ran, and its signatures; return how they agree."""
    generator = np.random.default_rng(1)
    exact = np.rint(generator.normal(0, 20, (num_samples, 4)))
    profiled = {
        answer.target: root / "agreement" / "profiled" / answer.target for answer in answers
    }
    converted = {
        answer.target: root / "agreement" / "converted" / answer.target for answer in answers
    }
    for answer in answers:
        for m in answer.candidates:
            if m.kind not in {"measured", "emulated", "estimated"}:
                continue
            noise = generator.integers(-1, 2, exact.shape) * (generator.random(exact.shape) < 0.1)
            if "int8" not in m.candidate:
                noise = generator.normal(0, 1e-6, exact.shape)
            folder = profiled[answer.target] / m.candidate
            folder.mkdir(parents=True)
            np.savez(folder / "outputs.npz", outputs=((exact + noise) * 0.5).astype(np.float32))
            _write_signature(converted[answer.target] / m.candidate, m.candidate)
        if profiled[answer.target].is_dir():
            inputs = (manifest.Input("validation", "sha256:0"),)
            manifest.write(profiled[answer.target], model="m", stage="profile", inputs=inputs)
    return across.gather(answers, profiled, converted)


def _write_signature(folder, candidate):
    folder.mkdir(parents=True)
    steps = manifest.Quantization((0.5,), (0,)) if "int8-static" in candidate else None
    output = manifest.Tensor("output", "int8" if steps else "float32", (1, 4), quantization=steps)
    signature = manifest.Signature((), (output,))
    manifest.write(folder, model="m", stage="convert", signature=signature)


def _write_exported(folder):
    """Write a net of one convolution for each variant: 16 channels out, 8x8 in."""
    for variant, channels in (("dense", 64), ("pruned", 16)):
        (folder / variant).mkdir(parents=True)
        weights = numpy_helper.from_array(np.zeros((16, channels, 3, 3), np.float32), "w")
        node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4)
        graph = helper.make_graph(
            [node], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])], [weights],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        onnx.save(model, folder / variant / "model.onnx")


def _write_sensitivity(folder):
    for shift, variant in enumerate(("dense", "pruned", "pruned-half-qat")):
        layers = [
            {"layer": f"encoder.blocks.{index}.mlp.fc1", "weight_bits": 8,
             "sqnr_db": None if index == 29 else 30.0 + index + 3 * shift, "top1_agreement": 1.0,
             "activation_min": 0.0, "activation_max": 1.0}
            for index in range(30)
        ]  # fmt: skip
        (folder / variant).mkdir(parents=True)
        (folder / variant / "sensitivity.json").write_text(json.dumps(layers))


def _write_curves(folder):
    folder.mkdir(parents=True)
    figures = {"loss": 2.0, "validation_loss": 2.2, "validation_accuracy": 90.0, "own_figure": -1.0}
    for name, scale in figures.items():
        rows = "".join(f"{step}\t{scale / (step + 1)}\n" for step in range(12))
        (folder / f"{name}.tsv").write_text(f"step\t{name}\n{rows}")


def _write_chain(root, targets):
    """Write a miniature chain of manifests: two stages for all targets, two for each."""
    data, exported = root / "data", root / "exported"
    for folder in (data, exported):
        folder.mkdir(parents=True)
    (data / "train.npz").write_bytes(b"samples")
    manifest.write(data, model="m", stage="prepare")
    manifest.write(
        exported, model="m", stage="adopt",
        inputs=manifest.inputs_of(train=data / "train.npz", onnx=_outside(root)),
    )  # fmt: skip
    folders = [data, exported]
    for index, target in enumerate(targets):
        converted, profiled = root / f"converted{index}", root / f"profiled{index}"
        for folder in (converted, profiled):
            folder.mkdir()
        manifest.write(converted, model="m", stage="convert", target=target,
                       inputs=manifest.inputs_of(exported=exported, data=data))  # fmt: skip
        manifest.write(profiled, model="m", stage="profile", target=target,
                       inputs=manifest.inputs_of(converted=converted))  # fmt: skip
        folders += [converted, profiled]
    return [*folders, root / "never-made"]


def _outside(root):
    path = root / "model.onnx"
    path.write_bytes(b"onnx")
    return path
