"""fsdd, one speaker held out at a time: `python -m benchmarks.fsdd_folds` writes a page.

Six folds by docs/examples/fsdd.params.yaml, through the chain's own stages: the dense teacher, then
int8 on every runtime that is installed, on the speaker held out. The epoch is chosen on another
speaker, and no setting changes between folds. Differences are from the teacher in PyTorch, on the
same 500 samples, with Tango's paired 95 % interval.

Give names of speakers to run their folds alone. Results stay in .slipway/fsdd_folds/; they are read
again while the example is the same.
"""

import datetime as dt
import json
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline import params
from pipeline.chain import convert, distill, export, prepare, prune, quantize, toolchain, train
from pipeline.compression.variants import tools as versions_of
from pipeline.data import splits
from pipeline.nets import store
from pipeline.profiling import measure, quality
from pipeline.targets import tools
from pipeline.training import loop

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs/examples/fsdd.params.yaml"
NOTES = ROOT / "benchmarks/fsdd_folds_notes.md"  # how the settings were found
WORK = ROOT / ".slipway/fsdd_folds"
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
INT8 = "dense-int8-static"
TOOLS = ("torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "kaldi-native-fbank")


def main() -> None:
    chosen = sys.argv[1:] or SPEAKERS
    results = [fold(speaker) for speaker in SPEAKERS if speaker in chosen]
    for line in lines(results):
        print(line)
    if len(results) == len(SPEAKERS):
        write(results)


def settings(speaker: str) -> params.Params:
    """The example with this speaker held out, the next one for choices, and the dense recipe."""
    p = params.load(EXAMPLE)
    following = SPEAKERS[(SPEAKERS.index(speaker) + 1) % len(SPEAKERS)]
    return msgspec.structs.replace(
        p,
        data=msgspec.structs.replace(
            p.data, test_speakers=(speaker,), validation_speakers=(following,)
        ),
        recipes={"dense": p.recipes["dense"]},
    )


def fold(speaker: str) -> dict[str, Any]:
    """Run one fold, or read what an earlier run with the same example found."""
    path, key = WORK / f"{speaker}.json", repr(params.load(EXAMPLE))
    if path.is_file() and (found := json.loads(path.read_text()))["key"] == key:
        return dict(found)
    folder = WORK / speaker
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    p = settings(speaker)
    data, train_s = folder / "data", chain(folder, p)
    stored, test = store.load(folder / "trained"), splits.read(data / "test.npz")
    teacher = loop.outputs(stored.net, loop.Tensors.read(data / "test.npz").inputs).numpy()
    judge, truth = quality.judge_of(p.task), quality.Truth(np.asarray(test.labels))
    rows = {}
    for name in p.targets:
        found = on_target(folder, name, p)
        if isinstance(found, str):
            rows[name] = {"reason": found}
            continue
        rows[name] = {
            "quality": msgspec.to_builtins(judge.quality(found, truth)),
            "drop": msgspec.to_builtins(judge.drop(found, teacher, truth)),
            "predictions": found.argmax(1).tolist(),
        }
    metrics = json.loads((folder / "metrics/train.json").read_text())["teacher"]
    result = {
        "key": key,
        "speaker": speaker,
        "validation_speaker": p.data.validation_speakers[0],
        "validation": metrics["validation_accuracy"],
        "teacher": msgspec.to_builtins(judge.quality(teacher, truth)),
        "teacher_predictions": teacher.argmax(1).tolist(),
        "labels": test.labels.tolist(),
        "rows": rows,
        "train_s": train_s,
        "seconds": time.monotonic() - started,
    }
    path.write_text(json.dumps(result))
    return result


def chain(folder: Path, p: params.Params) -> float:
    """Run the stages up to export; return the seconds that training took."""
    data, metrics = folder / "data", folder / "metrics"
    prepare.run(data, p)
    started = time.monotonic()
    both = (data / "train.npz", data / "validation.npz")
    train.run(*both, folder / "trained", metrics / "train.json", p)
    seconds = time.monotonic() - started
    prune.run(*both, folder / "trained", folder / "pruned", metrics / "prune.json", p)
    distill.run(
        *both,
        folder / "trained",
        folder / "pruned",
        folder / "distilled",
        metrics / "distill.json",
        p,
    )
    quantize.run(
        data / "train.npz",
        data / "calibration.npz",
        data / "validation.npz",
        folder / "trained",
        folder / "distilled",
        folder / "quantized",
        metrics / "quantize.json",
        p,
    )
    export.run(
        data / "validation.npz",
        folder / "quantized",
        folder / "exported",
        metrics / "export.json",
        p,
    )
    toolchain.run(folder / "toolchain", p, tools.environments_path(), folder / "known")
    return seconds


def on_target(folder: Path, name: str, p: params.Params) -> Any:
    """Convert to int8 and run the test speaker; give outputs [N, 10], or why there are none."""
    out = folder / "converted" / name
    convert.run(
        folder / "exported",
        folder / "quantized",
        folder / "data/calibration.npz",
        folder / "toolchain" / name / "tools.json",
        out,
        p,
        name,
    )
    made = {
        entry["candidate"]: entry for entry in json.loads((out / "candidates.json").read_text())
    }
    if made[INT8]["status"] != "built":
        return made[INT8]["reason"]
    data, environments = folder / "data/test.npz", tools.environments_path()
    return measure.outputs(out / INT8, data, p.targets[name], environments)


def lines(results: list[dict[str, Any]]) -> list[str]:
    """The table: a row a fold, then the mean of the folds and all samples pooled."""
    names = list(results[0]["rows"])
    head = ["held out", "epochs by", "teacher, validation", "teacher, test", *names]
    rows = []
    for result in results:
        teacher = result["teacher"]
        rows.append(
            [
                result["speaker"],
                result["validation_speaker"],
                f"{result['validation']:.1f}",
                f"**{teacher['value']:.1f}** ± {teacher['half_width']:.1f}",
                *(cell(result["rows"][name]) for name in names),
            ]
        )
    mean = float(np.mean([result["teacher"]["value"] for result in results]))
    mean_validation = float(np.mean([result["validation"] for result in results]))
    rows.append(["mean", "", f"{mean_validation:.1f}", f"**{mean:.1f}**", *pooled(results, names)])
    table = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in table]


def cell(row: dict[str, Any]) -> str:
    if "reason" in row:
        return str(row["reason"])
    # the other way round: here more is better; plus zero, or nothing would be minus nothing
    gained, lower, upper = (-row["drop"][key] + 0.0 for key in ("value", "upper", "lower"))
    return f"{row['quality']['value']:.1f} ({gained:+.1f} [{lower:+.1f}..{upper:+.1f}])"


def pooled(results: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Pair int8 with the teacher over all folds at once."""
    judge = quality.ACCURACY
    cells = []
    for name in names:
        kept = [result for result in results if "predictions" in result["rows"][name]]
        if not kept:
            cells.append("")
            continue
        labels = np.concatenate([result["labels"] for result in kept])
        found, teacher = (
            np.eye(10, dtype=np.float32)[np.concatenate(predictions)]
            for predictions in (
                [result["rows"][name]["predictions"] for result in kept],
                [result["teacher_predictions"] for result in kept],
            )
        )
        truth = quality.Truth(labels)
        cells.append(
            cell(
                {
                    "quality": msgspec.to_builtins(judge.quality(found, truth)),
                    "drop": msgspec.to_builtins(judge.drop(found, teacher, truth)),
                }
            )
        )
    return cells


def write(results: list[dict[str, Any]]) -> None:
    today = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
    seconds = [result["train_s"] for result in results]
    page = TEMPLATE.format(
        today=today,
        machine=platform.machine(),
        table="\n".join(lines(results)),
        least=min(seconds),
        most=max(seconds),
        tools=", ".join(f"{name} {version}" for name, version in versions_of(*TOOLS).items()),
    )
    path = ROOT / f"docs/benchmarks/fsdd_folds_{today}.md"
    path.write_text(page + NOTES.read_text(encoding="utf-8"), encoding="utf-8")
    print(path)


TEMPLATE = """\
# fsdd, DS-CNN: one speaker held out at a time

{today}, {machine}, one thread. `python -m benchmarks.fsdd_folds`; settings of
`docs/examples/fsdd.params.yaml`.

Accuracy in % on the 500 recordings of the speaker held out, ± half of Wilson's 95 % interval. int8
is post-training and static; in brackets its difference from the fp32 teacher in points, with
Tango's paired 95 % interval. The last row is the mean of the folds, and for int8 all 3,000
recordings at once. The epoch is chosen on the validation speaker; settings are the same in all
folds.

{table}

Training took {least:.0f} to {most:.0f} s a fold, on a machine shared with others. Tools: {tools}.

"""

if __name__ == "__main__":
    main()
