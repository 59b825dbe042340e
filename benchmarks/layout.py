"""Channels-last inputs and batches against batch 1 in NCHW: `python -m benchmarks.layout`.

The same fp32 weights in ONNX Runtime, OpenVINO and LiteRT on one thread, as three files: as the
chain makes them (NCHW, batch 1), with inputs in NHWC, and with a batch of 8. Every round is a fresh
process that times all files of one net in turn, forwards then backwards; the ratios are a round's,
their 95 % interval is over rounds. Times are processor time of the process, which on one thread is
the work's own and which other programs hardly change. A batch's time is divided by its items. What
the host would do to the data beforehand (transposing, collecting a batch) is not counted.
"""

import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
NETS = {"resnet8": ((3, 32, 32), 10), "dscnn": ((1, 49, 10), 12)}
RUNTIMES = {"onnxruntime": ".onnx", "openvino": ".xml", "litert": ".tflite"}
FORMS = {"NCHW": 1, "NHWC": 1, "batch 8": 8}
NUM_ROUNDS, NUM_BLOCKS, NUM_RUNS = 6, 8, 60
TOOLS = ("onnxruntime", "openvino", "ai-edge-litert", "litert-torch", "torch")


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (shape, num_classes) in NETS.items():
            home = Path(folder) / name
            home.mkdir()
            build(home, name, shape, num_classes)
            rows += compare(name, home)
    write(rows)


def build(home: Path, name: str, shape: tuple[int, ...], num_classes: int) -> None:
    """Write home/RUNTIME/FORM/model.* and, beside each, an input of its shape."""
    import msgspec
    import torch

    from pipeline import params
    from pipeline.nets import factory

    torch.manual_seed(0)
    net = factory.build(msgspec.convert({"name": name}, params.Net), shape, num_classes).eval()
    for form, batch in FORMS.items():
        example = torch.randn(batch, *shape)
        folders = {runtime: home / runtime / form for runtime in RUNTIMES}
        for folder in folders.values():
            folder.mkdir(parents=True)
            given = example.permute(0, 2, 3, 1).contiguous() if form == "NHWC" else example
            np.save(folder / "input.npy", given.numpy())
        path = folders["onnxruntime"] / "model.onnx"
        build_onnx(net, example, form, path)
        build_openvino(path, batch, folders["openvino"])
        build_litert(net, example, form, folders["litert"] / "model.tflite")


def build_onnx(net: Any, example: Any, form: str, path: Path) -> None:
    import onnx

    from pipeline.conversion.to_onnx import to_onnx

    to_onnx(net, example[:1], path, 20)
    if form != "NHWC":
        return
    model = onnx.load(path)
    (taken,) = model.graph.input
    for node in model.graph.node:
        node.input[:] = ["turned" if name == taken.name else name for name in node.input]
    turn = onnx.helper.make_node("Transpose", [taken.name], ["turned"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, turn)
    dims = list(taken.type.tensor_type.shape.dim)
    axes = [dims[i].dim_param or dims[i].dim_value for i in (0, 2, 3, 1)]
    taken.CopyFrom(onnx.helper.make_tensor_value_info(taken.name, onnx.TensorProto.FLOAT, axes))
    onnx.save(model, path)


def build_openvino(source: Path, batch: int, folder: Path) -> None:
    import openvino

    from pipeline.conversion import to_openvino
    from pipeline.runtimes import openvino as adapter

    model = to_openvino._read(source)
    model.reshape({port: [batch, *list(port.shape)[1:]] for port in model.inputs})
    model.set_rt_info("fp32", [adapter.STATEMENT, adapter.PRECISION])
    model.set_rt_info("f32", [adapter.STATEMENT, adapter.HINT])
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def build_litert(net: Any, example: Any, form: str, path: Path) -> None:
    import litert_torch

    if form == "NHWC":
        net = litert_torch.to_channel_last_io(net, args=[0])
        example = example.permute(0, 2, 3, 1).contiguous()
    litert_torch.convert(net.eval(), (example,)).export(str(path))


def compare(name: str, home: Path) -> list[tuple[str, ...]]:
    from pipeline.profiling.statistics import median_interval, ratio_interval

    rounds = []
    for _ in range(NUM_ROUNDS):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.layout", str(home)],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        rounds.append(json.loads(done.stdout.splitlines()[-1]))
    rows: list[tuple[str, ...]] = []
    for runtime in RUNTIMES:
        times = {f: [np.array(r[f"{runtime}/{f}"]) for r in rounds] for f in FORMS}
        for form, samples in times.items():
            median = median_interval(samples, 0).value
            ratio = None if form == "NCHW" else ratio_interval(samples, times["NCHW"], 0)
            rows.append((name, runtime, form, f"{median:.1f}", shown(ratio)))
    return rows


def shown(ratio: Any) -> str:
    if ratio is None:
        return "1"
    verdict = "faster" if ratio.upper < 1 else "slower" if ratio.lower > 1 else "not decided"
    return f"{ratio.value:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f}) | {verdict}"


def time_all(home: Path) -> dict[str, list[float]]:
    """One round: microseconds an item, one sample a block of runs, of every file in turn."""
    cases = [f"{runtime}/{form}" for runtime in RUNTIMES for form in FORMS]
    loaded = {}
    for case in cases:
        runtime, form = case.split("/")
        adapter = import_module(f"pipeline.runtimes.{runtime}")
        model = adapter.load(str(home / case / f"model{RUNTIMES[runtime]}"), 1)
        loaded[case] = (model, [np.load(home / case / "input.npy")], FORMS[form])
        for _ in range(NUM_RUNS):
            model.run(loaded[case][1])
    times: dict[str, list[float]] = {case: [] for case in cases}
    for index in range(NUM_BLOCKS):
        for case in cases if index % 2 else reversed(cases):
            model, inputs, batch = loaded[case]
            started = time.process_time_ns()
            for _ in range(NUM_RUNS):
                model.run(inputs)
            times[case].append((time.process_time_ns() - started) / NUM_RUNS / batch / 1000)
    return times


def write(rows: list[tuple[str, ...]]) -> None:
    date = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
    text = Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"model name\s*: (.*)", text)
    tools = ", ".join(f"{tool} {version(tool)}" for tool in TOOLS)
    load = os.getloadavg()[0]
    lines = [
        f"# Channels-last and batch size: {cpu and cpu[1]}, {date}",
        "",
        f"{tools}; load average {load:.1f} on {os.cpu_count()} cores at the end.",
        "To repeat: `python -m benchmarks.layout`.",
        "",
        "| net | runtime | form | us an item | ratio to NCHW, batch 1 (95 %) | |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" + ("" if "|" in row[-1] else " |")
          for row in rows),
        "",
        (__doc__ or "").partition("\n\n")[2].strip(),
    ]  # fmt: skip
    path = ROOT / f"docs/benchmarks/layout_{date}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(time_all(Path(sys.argv[1]))))
    else:
        main()
