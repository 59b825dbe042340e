"""Stage ``quantize``: how sensitive each layer is to int8; with ``qat`` a net also learns on it.

Reads   params.yaml [model, task, recipes, quantize]; models/data/{calibration,validation}.npz;
        models/distilled/; of settings with ``qat`` also models/data/train.npz and models/trained/
Writes  models/quantized/ {VARIANT/ (a net directory, sensitivity.json, ranges.json of one with
        ``qat``), manifest.json}; models/metrics/quantize.json
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline import console, files, manifest, params
from pipeline.compression import figures, qat, variants
from pipeline.compression.distill import teaching
from pipeline.compression.quantize import LayerSensitivity, sensitivity
from pipeline.nets import ranges, store
from pipeline.training import objective
from pipeline.training.loop import Tensors, deterministic, learnable
from pipeline.training.objective import Objective

SENSITIVITY = "sensitivity.json"
TOOLS = ("torch", "torch-pruning", "safetensors")
QAT_TOOLS = ("nvidia-modelopt",)
NUM_SAID = 2


def run(
    train_npz: Path,
    calibration_npz: Path,
    validation_npz: Path,
    trained: Path,
    distilled: Path,
    out: Path,
    metrics: Path,
    p: params.Params,
) -> None:
    made_from, goal = manifest.verify(distilled), objective.of(p.task)
    settings = variants.settings_of(p, "quantize")
    calibration, validation = Tensors.read(calibration_npz), Tensors.read(validation_npz)
    school = None
    if any(cfg and cfg.qat for cfg in settings.values()):
        manifest.verify(trained)
        train_on = learnable(Tensors.read(train_npz), goal)
        school = _School(store.load(trained).net, train_on, calibration, validation, goal)
    out.mkdir(parents=True)
    rows: dict[str, tuple[None, figures.Figures]] = {}
    more: dict[str, dict[str, Any]] = {}
    with deterministic(seed=0):  # nothing is drawn but what seeds itself; for the one thread
        for name, cfg in settings.items():
            variants.hand_on(distilled / name, out / name)
            learned = _learn(name, out / name, cfg, school)
            stored = store.load(out / name)
            rows[name] = None, figures.measure(stored.net, stored.input_shape, validation, goal)
            if cfg is not None:
                scores = sensitivity(stored.net, calibration.inputs, cfg, goal)
                files.write_atomic(out / name / SENSITIVITY, files.encode_json(scores))
                more[name] = {**_summary(scores), **learned}
                console.say("quantize", f"{name}   {_said(scores)}")
    figures.write(metrics, rows, more)
    inputs = {"distilled": distilled, "calibration": calibration_npz}
    if school is not None:
        inputs |= {"train": train_npz, "trained": trained, "validation": validation_npz}
    manifest.write(
        out,
        model=p.model,
        stage="quantize",
        inputs=manifest.inputs_of(**inputs),
        params={"quantize": variants.describe(settings)},
        tools=variants.tools(*TOOLS, *(QAT_TOOLS if school else ())),
        labels=made_from.labels,
        preprocessing=made_from.preprocessing,
    )
    console.terminal.print(figures.table(rows))


@dataclass(frozen=True, eq=False)
class _School:
    """What quantization-aware training of any variant learns from."""

    teacher: nn.Module
    train: Tensors
    calibration: Tensors
    validation: Tensors
    goal: Objective


def _learn(
    name: str, directory: Path, cfg: params.Quantize | None, school: _School | None
) -> dict[str, Any]:
    """Train a variant on int8 where its settings ask for it; return what metrics say of that."""
    if cfg is None or cfg.qat is None:
        return {}
    assert school is not None
    started, stored, goal = time.monotonic(), store.load(directory), school.goal
    with console.track("quantize", cfg.qat.epochs) as advance:
        found = qat.train(
            stored.net,
            school.calibration.inputs[: cfg.num_samples],
            school.train,
            school.validation,
            teaching(school.teacher, school.train, cfg.qat),
            cfg.qat,
            goal,
            lambda epoch: advance(f"{name} validation {goal.words(epoch.quality)}"),
        )
    store.save_like(directory, found.net, stored)
    ranges.write(directory, found.ranges)
    after, before = found.fit.best.quality, found.calibrated_quality
    console.say(
        "quantize",
        f"{name}   trained on int8: validation {goal.words(after)} (by ranges alone: "
        f"{goal.words(before)})   epoch {found.fit.best_epoch} of {len(found.fit.epochs)}   "
        f"{time.monotonic() - started:.0f} s",
    )
    return {f"int8_{goal.validation_key}": after, f"int8_{goal.validation_key}_before": before}


def _summary(scores: tuple[LayerSensitivity, ...]) -> dict[str, Any]:
    agreements = [s.top1_agreement for s in scores if s.top1_agreement is not None]
    return {
        "num_layers": len(scores),
        "most_sensitive": scores[0].layer,
        "lowest_sqnr_db": scores[0].sqnr_db,
        **({"lowest_top1_agreement": min(agreements)} if agreements else {}),
    }


def _said(scores: tuple[LayerSensitivity, ...]) -> str:
    worst = ", ".join(
        score.layer if score.sqnr_db is None else f"{score.layer} ({score.sqnr_db:.1f} dB)"
        for score in scores[:NUM_SAID]
    )
    return f"{len(scores)} layers scored   most sensitive: {worst}"


def main() -> None:
    """Run the stage on the project in the current folder."""
    models = Path("models")
    console.run_stage(
        "quantize",
        lambda: run(
            models / "data/train.npz",
            models / "data/calibration.npz",
            models / "data/validation.npz",
            models / "trained",
            models / "distilled",
            models / "quantized",
            models / "metrics/quantize.json",
            params.load(),
        ),
    )
