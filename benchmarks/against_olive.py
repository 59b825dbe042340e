"""One ONNX file (ResNet-8) to measured int8 artifacts: `python -m benchmarks.against_olive`.

Against Olive, wall time of whole processes, interleaved (ours, Olive, Olive, ours). Both take the
same file, the same samples (smooth random images, labels by the fp32 net) and the same versions of
ONNX Runtime, OpenVINO, NNCF and torch, and make static int8 (uint8 activations, int8 weights a
channel, 128 calibration samples) for ONNX Runtime and for OpenVINO.

- Olive 0.13 in an environment of its own, one process, two workflows: upgrade the opset and
  quantize; convert to OpenVINO and quantize. It evaluates accuracy on all evaluation samples and
  latency by its default of 10 warm-up and 20 timed runs, of the file that came in (each workflow)
  and of the one that came out.
- Ours, one process: split the data, check and upgrade the file with parity, convert to fp32 and
  int8 for both targets, and measure all four in workers of their own: agreement with fp32 on as
  many samples, peak memory, latency interleaved in 2 restarts, each warmed up for 5 blocks of 10 ms
  at least, with 20 samples at least. Digests and manifests of everything.

Then, without Olive: `slipway init --targets` of five targets and `dvc repro`, the whole chain.
"""

import argparse
import datetime as dt
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SLIPWAY_DATA", ROOT.parent / "shared" / "data"))
MODEL = DATA / "mlperf-tiny/models/onnx/pretrainedResnet.onnx"
OLIVE = ROOT / ".venvs/bench-olive/bin/python"
TWO = ("x86-onnxruntime", "x86-openvino")
FIVE = (*TWO, "x86-litert", "linux-tflite-runtime", "cortex-m55-ethos-u55")
NUM_CALIBRATION, NUM_EVALUATION = 128, 256
# Neither side sends anything to anybody; openvino knows CI only as "true".
QUIET = {"OLIVE_DISABLE_TELEMETRY": "1", "CI": "true", "NNCF_CI": "1", "HF_HUB_OFFLINE": "1"}
MAX_RATIO, MAX_FIVE_S = 0.5, 180.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--part", choices=("olive", "five", "both"), default="both")
    parser.add_argument("--ours", type=Path, help="(internal) run our side in this project")
    chosen = parser.parse_args()
    if chosen.ours:
        from pipeline import console

        ours(chosen.ours)
        console.leave(0)  # as a stage does
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        samples(home)
        lines = []
        if chosen.part != "five":
            lines += against_olive(home, chosen.pairs)
        if chosen.part != "olive":
            lines += ["", *five_targets(home)]
    write(lines)


def samples(home: Path) -> None:
    """Write what both sides read: raw images with the fp32 net's own classes as labels."""
    import onnxruntime
    from scipy import ndimage

    # ours makes a test split that nobody reads here, so that validation is NUM_EVALUATION
    total = NUM_CALIBRATION + 2 * NUM_EVALUATION
    coarse = np.random.default_rng(0).uniform(0, 255, (total, 3, 8, 8))
    images = np.stack([ndimage.zoom(image, (1, 4, 4), order=1) for image in coarse])
    images = images.clip(0, 255).astype(np.float32)
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    scores = [session.run(None, {"input_1": image[None]})[0] for image in images]
    labels = np.concatenate(scores).argmax(1)
    np.savez(home / "all.npz", inputs=images)  # ours judges by agreement with its own fp32
    for name, part in (
        ("calibration", slice(0, NUM_CALIBRATION)),
        ("evaluation", slice(NUM_CALIBRATION, NUM_CALIBRATION + NUM_EVALUATION)),
    ):
        np.savez(home / f"{name}.npz", inputs=images[part], labels=labels[part])


def against_olive(home: Path, pairs: int) -> list[str]:
    project = init(home / "two", TWO)
    narrow(project / "params.yaml")
    sides = {
        "ours": [sys.executable, "-m", "benchmarks.against_olive", "--ours", str(project)],
        "Olive": [
            str(OLIVE), str(ROOT / "benchmarks/olive_side.py"), str(MODEL),
            str(home / "calibration.npz"), str(home / "evaluation.npz"), str(home / "olive"),
        ],
    }  # fmt: skip
    outs = {"ours": project / "models", "Olive": home / "olive"}
    wall: dict[str, list[float]] = {side: [] for side in sides}
    processor: dict[str, list[float]] = {side: [] for side in sides}
    for index in range(pairs):
        for side in sides if index % 2 == 0 else reversed(sides):
            shutil.rmtree(outs[side], ignore_errors=True)
            seconds, used = timed(sides[side], ROOT)
            wall[side].append(seconds)
            processor[side].append(used)
    ratios = [a / b for a, b in zip(wall["ours"], wall["Olive"], strict=True)]
    used_ratios = [a / b for a, b in zip(processor["ours"], processor["Olive"], strict=True)]
    rows = [
        *(
            (f"{side}, wall (processor) time",
             ", ".join(f"{w:.1f} s ({p:.1f})" for w, p in zip(wall[side], processor[side],
                                                              strict=True)), "")
            for side in sides
        ),
        ("ratio of wall times, median of pairs", f"{statistics.median(ratios):.2f}",
         f"{MAX_RATIO}"),
        ("ratio of processor times", f"{statistics.median(used_ratios):.2f}", ""),
    ]  # fmt: skip
    return [*table(rows), "", *found_by_both(home, project)]


def found_by_both(home: Path, project: Path) -> list[str]:
    """Say what came out, so that nobody compares different work."""
    found = json.loads((home / "olive/found.json").read_text())
    lines = ["What Olive found: " + json.dumps({name: found[name]["output"] for name in
             ("onnxruntime", "openvino")})]  # fmt: skip
    for target in TWO:
        for path in sorted((project / "models/profiled" / target).glob("*/measurement.json")):
            read = json.loads(path.read_text())
            lines.append(
                f"- ours, {target} {path.parent.name}: agreement {read['quality']['value']:.1f} %, "
                f"p50 {read['latency_ms']['p50']:.3f} ms"
            )
    return lines


def ours(project: Path) -> None:
    """Do in one process what these stages of the project do."""
    os.chdir(project)
    from pipeline import params
    from pipeline.chain import adopt, convert, prepare, profile, toolchain
    from pipeline.profiling.bench import Preset

    p, models = params.load(), Path("models")
    least = Preset(num_restarts=2, warmup_s=0.0, timed_s=0.0, min_samples=20)
    prepare.run(models / "data", p)
    toolchain.run(models / "toolchain", p, Path(".venvs"), toolchain.KNOWN_DEVICES)
    validation = models / "data/validation.npz"
    adopt.run(
        validation, Path(p.net.onnx or ""), models / "exported", models / "metrics/export.json", p
    )
    for target in p.targets:
        tools = models / "toolchain" / target
        convert.run(
            models / "exported", None, models / "data/calibration.npz", tools / "tools.json",
            models / "converted" / target, p, target,
        )  # fmt: skip
        profile.run(
            models / "converted" / target, validation, tools / "tools.json", tools / "device.json",
            models / "profiled" / target, p, target, preset=least,
        )  # fmt: skip


def init(project: Path, targets: tuple[str, ...]) -> Path:
    data = str(project.parent / "all.npz")
    options = ["--onnx", str(MODEL), "--data", data, "--targets", ",".join(targets)]
    run(["slipway", "init", str(project), *options], ROOT)
    return project


def narrow(path: Path) -> None:
    """Ask for fp32 and static int8 alone, and for as many samples as Olive takes."""
    text = path.read_text()
    text = re.sub(r"precisions: \[.*\]", "precisions: [fp32, int8-static]", text)
    total = NUM_CALIBRATION + 2 * NUM_EVALUATION
    ratio = NUM_EVALUATION / total
    text = re.sub(r"train_ratio: .*", f"train_ratio: {NUM_CALIBRATION / total}", text, count=1)
    path.write_text(re.sub(r"validation_ratio: .*", f"validation_ratio: {ratio}", text, count=1))


def five_targets(home: Path) -> list[str]:
    project = home / "five"
    if not (home / "all.npz").is_file():
        samples(home)
    started = time.monotonic()
    init(project, FIVE)
    run([sys.executable, "-m", "dvc", "repro", "--quiet"], project)
    seconds = time.monotonic() - started
    rows = [
        ("`slipway init` and `dvc repro`, five targets", f"{seconds:.0f} s", f"{MAX_FIVE_S:.0f} s")
    ]
    lines = [*table(rows), ""]
    for target in FIVE:
        shipped = json.loads((project / "models/selected" / target / "selection.json").read_text())
        lines.append(f"- {target}: {shipped['chosen'] or shipped['rejected']}")
    return lines


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Run it; give wall seconds, and processor seconds of it and all that it waited for."""
    before, started = children_s(), time.monotonic()
    run(command, folder)
    return time.monotonic() - started, children_s() - before


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | QUIET | {"PATH": path}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def table(rows: list[tuple[str, str, str]]) -> list[str]:
    return ["| what | measured | limit |", "|---|---|---|", *(f"| {' | '.join(r)} |" for r in rows)]


def write(lines: list[str]) -> None:
    date = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    tools = ("onnxruntime", "openvino", "nncf", "torch", "dvc")
    header = [
        f"# From one ONNX file, against Olive: {cpu and cpu[1]}, {os.cpu_count()} cores, {date}",
        "",
        ", ".join(f"{tool} {version(tool)}" for tool in tools)
        + f"; load average {os.getloadavg()[0]:.1f} at the end.",
        "To repeat: make `.venvs/bench-olive` as `constraints/bench-olive.txt` says, then",
        "`python -m benchmarks.against_olive`.",
        "",
    ]
    path = ROOT / f"docs/benchmarks/against_olive_{date}.md"
    path.write_text("\n".join([*header, *lines, "", (__doc__ or "").partition("\n\n")[2].strip()]))
    print(path.read_text())


if __name__ == "__main__":
    main()
