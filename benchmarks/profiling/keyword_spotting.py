"""MLPerf Tiny keyword spotting, its whole official set: `python -m benchmarks.profiling.keyword_spotting`.

Through `slipway profile --json`: both files of the reference model in LiteRT, in tflite-runtime
here and on emulated aarch64, and in tflite-micro. Inputs are the 1,000 that MLPerf Tiny's runner
sends to a device (int8), as floats r = scale (q - zero_point); SLIPWAY_DATA names the folder of
`mlperf-tiny`. Accuracies and arena are asserted, times are not.
"""  # noqa: E501 - the command is one line

import csv
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.profiling import page
from pipeline.profiling.any_file import Row
from pipeline.reporting import places_view

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SLIPWAY_DATA", ROOT.parent / "shared" / "data"))
INT8, FLOAT = "kws_ref_model.tflite", "kws_ref_model_float32.tflite"
MICRO, LITERT, HERE = "tflite_micro", "litert", "tflite_runtime"
EMULATED = "tflite_runtime@emulated-aarch64"
PLACES = (MICRO, LITERT, HERE, EMULATED)  # outputs are compared with the first place's
SCALE, ZERO_POINT = 0.5847029, 83  # of the int8 file's input
SHAPE = (49, 10, 1)
# What submitters of MLPerf Tiny v1.2 published for the reference model, closed division.
PUBLISHED, ROUNDING = (90.0, 90.2), 0.05
ARENA_KB = 24.3
SOME_FAILED = 4
# Accuracy of a file with LiteRT's built-in kernels, which no adapter of ours takes.
BUILT_IN = """
import sys, numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
interpreter = Interpreter(sys.argv[1], experimental_op_resolver_type=kernels, num_threads=1)
interpreter.allocate_tensors()
(given,), (got,) = interpreter.get_input_details(), interpreter.get_output_details()
arrays, right = np.load(sys.argv[2]), 0
for sample, label in zip(arrays["inputs"], arrays["labels"]):
    interpreter.set_tensor(given["index"], sample[None])
    interpreter.invoke()
    right += int(interpreter.get_tensor(got["index"]).argmax()) == label
print(100 * right / len(arrays["labels"]))
"""


class Found(NamedTuple):
    """One file in every place, in their order."""

    name: str
    rows: list[Row]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        data = write_data(DATA, Path(name))
        found = [measure(INT8, data, "--reference", str(model(FLOAT))), measure(FLOAT, data)]
        built_in = subprocess.run(
            [sys.executable, "-c", BUILT_IN, str(model(FLOAT)), str(data)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    check(*found)
    write(found, float(built_in.stdout))


def model(name: str) -> Path:
    return DATA / "mlperf-tiny/models" / name


def write_data(data: Path, folder: Path, num_rows: int | None = None) -> Path:
    """Write the official inputs as floats, with their labels: all, or the first ones."""
    room = data / "mlperf-tiny/kws01"
    with (room / "y_labels.csv").open(newline="") as file:
        listed = [(name, int(label)) for name, _, label in csv.reader(file)][:num_rows]
    with tarfile.open(room / "kws01_inputs.tar") as archive:
        quantized = np.stack([_read(archive, name) for name, _ in listed])
    inputs = (quantized.astype(np.float32) - ZERO_POINT) * np.float32(SCALE)
    path = folder / "kws01.npz"
    labels = np.array([label for _, label in listed])
    np.savez(path, inputs=inputs.reshape(-1, *SHAPE), labels=labels)
    return path


def _read(archive: tarfile.TarFile, name: str) -> NDArray[np.int8]:
    member = archive.extractfile(name)
    assert member is not None
    return np.frombuffer(member.read(), np.int8)


def measure(name: str, data: Path, *options: str, places: Sequence[str] = PLACES) -> Found:
    """Run `slipway profile`; tflite-micro may refuse the file, which is exit code 4."""
    asked = [word for place in places for word in ("--runtime", place)]
    command = [sys.executable, "-m", "pipeline.cli", "profile", str(model(name)), *asked]
    done = subprocess.run(
        [*command, "--data", str(data), "--json", *options],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in {0, SOME_FAILED}:
        raise SystemExit(done.returncode)
    return Found(name, msgspec.json.decode(done.stdout, type=list[Row]))


def accuracies(found: Found) -> dict[str, float]:
    """Give each place's accuracy in %, where the file runs."""
    measured = {row.place: row.measurement for row in found.rows if row.measurement}
    return {place: m.quality.value for place, m in measured.items() if m.quality}


def arena_kb(found: Found) -> float:
    """Give what the file takes in tflite-micro, in kB, to the digit that is published."""
    (row,) = (row for row in found.rows if row.place == MICRO)
    assert row.measurement is not None
    assert row.measurement.peak_memory_bytes is not None
    return round(row.measurement.peak_memory_bytes / 1000, 1)


def is_published(accuracy: float) -> bool:
    """Tell whether an accuracy in % is among the published ones, as these are rounded."""
    low, high = PUBLISHED
    return low - ROUNDING <= accuracy <= high + ROUNDING


def check(int8: Found, floats: Found) -> None:
    """Hold what was found against what was published; see the page for the other float figures."""
    found = accuracies(int8)
    assert list(found) == list(PLACES), found
    assert all(is_published(accuracy) for accuracy in found.values()), found
    assert is_published(accuracies(floats)[LITERT])
    assert arena_kb(int8) == ARENA_KB
    (refused,) = (row for row in floats.rows if row.measurement is None)
    assert refused.place == MICRO
    assert "Hybrid models are not supported" in (refused.reason or ""), refused.reason


def write(found: Sequence[Found], built_in: float) -> Path:
    int8, floats = found
    low, high = PUBLISHED
    here, there = accuracies(int8), accuracies(floats)
    asked = f"{low} to {high} %"
    rows = [
        ("accuracy, int8 file", asked, _list(here)),
        ("accuracy, float file", asked, f"{_list(there)}; tflite-micro refuses it"),
        ("arena in tflite-micro, int8 file", f"{ARENA_KB} kB", f"{arena_kb(int8)} kB"),
    ]
    lines = [
        f"{versions(int8)}; preset quick, 1 thread; {page.load_average()}.",
        "To repeat: `python -m benchmarks.profiling.keyword_spotting`.",
        "",
        *page.table(("", "asked", "found"), rows),
        "",
    ]
    for each, names in ((int8, (INT8, FLOAT)), (floats, (FLOAT, ""))):
        measured, agreement = places_view.tables(each.rows, names)
        lines += [f"## {each.name}", "", *page.table(measured.header, measured.rows), ""]
        lines += ["Their outputs beside each other:", ""]
        lines += [*page.table(agreement.header, agreement.rows), ""]
    lines += [
        "The float file is a hybrid: the weights of five of its convolutions are int8, and kernels",
        "quantize activations as they come. So tflite-micro refuses it, and its accuracy is that",
        f"of the kernels: LiteRT's XNNPACK gives {there[LITERT]:.1f} %, LiteRT's built-in ones",
        f"{built_in:.1f} %, and so do tflite-runtime's ({there[HERE]:.1f} %, on aarch64",
        f"{there[EMULATED]:.1f} %), which is more than was published and within the half-width.",
        "",
        "There is no time in agreement, so emulated places stand beside measured ones.",
        "tflite-micro runs here with a micro-controller's kernels, so its time is nobody's.",
        f"Flags of what was timed: {', '.join(flags(found)) or 'none'}.",
    ]
    return page.write("keyword_spotting", "MLPerf Tiny keyword spotting", lines, __doc__)


def versions(found: Found) -> str:
    """Name what ran the file."""
    measured = {row.place: row.measurement for row in found.rows if row.measurement}
    named = {f"{m.runtime} {m.runtime_version}" for m in measured.values()}
    return f"{', '.join(sorted(named))}; aarch64 {measured[EMULATED].device['cpu_model']}"


def flags(found: Sequence[Found]) -> list[str]:
    """Name what makes the times less sure."""
    timed = [row.measurement for each in found for row in each.rows if row.measurement]
    return sorted({flag for m in timed for flag in m.flags if flag != "no_reference"})


def _list(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.1f} % ({place})" for place, value in values.items())


if __name__ == "__main__":
    main()
