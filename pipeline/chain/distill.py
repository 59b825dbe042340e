"""Stage ``distill``: smaller nets learn back from the teacher, if that beats plain fine-tuning.

Reads   params.yaml [model, task, recipes, distill]; models/data/{train,validation}.npz;
        models/trained/; models/pruned/
Writes  models/distilled/ {VARIANT/ (a net directory), manifest.json}; models/metrics/distill.json
"""

import time
from pathlib import Path
from typing import Any

from pipeline import console, manifest, params
from pipeline.compression import figures, variants
from pipeline.compression.distill import Recovery, Teacher, recover, teaching
from pipeline.nets import store
from pipeline.profiling import quality
from pipeline.training import loop, objective
from pipeline.training.objective import Objective


def run(
    train_npz: Path,
    validation_npz: Path,
    trained: Path,
    pruned: Path,
    out: Path,
    metrics: Path,
    p: params.Params,
) -> None:
    made_from, _ = manifest.verify(pruned), manifest.verify(trained)
    settings = variants.settings_of(p, "distill")
    goal = objective.of(p.task)
    train = loop.learnable(loop.Tensors.read(train_npz), goal)
    validation = loop.Tensors.read(validation_npz)
    out.mkdir(parents=True)
    rows: dict[str, tuple[figures.Figures, figures.Figures]] = {}
    more: dict[str, dict[str, Any]] = {}
    done: dict[tuple[str, str], str] = {}
    with loop.deterministic(seed=0):  # every fit seeds itself; for the one thread
        teacher = store.load(trained).net
        for name, cfg in settings.items():
            recipe = p.recipes[name]
            twin = done.setdefault((recipe.prune, recipe.distill), name)
            if twin != name:  # the recipes are equal up to here: computed once
                variants.hand_on(out / twin, out / name)
                rows[name], more[name] = rows[twin], more[twin]
                continue
            before = _measure(pruned / name, validation, goal)
            if cfg is None:
                variants.hand_on(pruned / name, out / name)
                rows[name], more[name] = (before, before), {}
                continue
            recovery, more[name] = _recover(
                name, pruned / name, teaching(teacher, train, cfg), train, validation, cfg, p
            )
            _save(recovery, pruned / name, out / name)
            rows[name] = before, _measure(out / name, validation, goal)
    figures.write(metrics, rows, more)
    manifest.write(
        out,
        model=p.model,
        stage="distill",
        inputs=manifest.inputs_of(
            trained=trained, pruned=pruned, train=train_npz, validation=validation_npz
        ),
        params={"distill": variants.describe(settings)},
        tools=variants.tools("torch", "torch-pruning", "safetensors"),
        labels=made_from.labels,
        preprocessing=made_from.preprocessing,
    )
    console.terminal.print(figures.table(rows))


def _recover(
    name: str,
    student: Path,
    teacher: Teacher,
    train: loop.Tensors,
    validation: loop.Tensors,
    cfg: params.Distill,
    p: params.Params,
) -> tuple[Recovery, dict[str, Any]]:
    started, goal = time.monotonic(), objective.of(p.task)
    with console.track("distill", 2 * cfg.epochs) as advance:
        recovery = recover(
            lambda: store.load(student).net,
            teacher,
            train,
            validation,
            cfg,
            lambda epoch: advance(f"{name} validation {goal.words(epoch.quality)}"),
            goal,
        )
    both = _compare(recovery, validation, p.task)
    interval = (both["difference"], both["difference_lower"], both["difference_upper"])
    console.say(
        "distill",
        f"{name}   validation {goal.words(recovery.distilled.best.quality)} (fine-tuning alone: "
        f"{goal.words(recovery.fine_tuned.best.quality)}; {goal.words_of_difference(*interval)}, "
        f"n={both['n']})   {recovery.winner.replace('_', '-')} kept   "
        f"{time.monotonic() - started:.0f} s",
    )
    return recovery, both


def _save(recovery: Recovery, source: Path, destination: Path) -> None:
    store.save_like(destination, recovery.net, store.load(source))


def _compare(recovery: Recovery, validation: loop.Tensors, task: params.Task) -> dict[str, Any]:
    """Pair both nets on validation: their figures, and how much better distillation is."""
    goal = recovery.objective
    distilled, fine_tuned = (
        loop.evaluate(net, validation, goal).outputs
        for net in (recovery.distilled_net, recovery.fine_tuned_net)
    )
    inputs = validation.inputs.numpy() if task.kind == "anomaly" else None
    truth = quality.Truth(validation.labels.numpy(), inputs)
    paired = quality.judge_of(task).drop(fine_tuned, distilled, truth)
    return {
        f"distilled_{goal.name}": recovery.distilled.best.quality,
        f"fine_tuned_{goal.name}": recovery.fine_tuned.best.quality,
        "difference": paired.value,
        "difference_lower": paired.lower,
        "difference_upper": paired.upper,
        "n": paired.n,
        "winner": recovery.winner,
    }


def _measure(directory: Path, validation: loop.Tensors, goal: Objective) -> figures.Figures:
    stored = store.load(directory)
    return figures.measure(stored.net, stored.input_shape, validation, goal)


def main() -> None:
    """Run the stage on the project in the current folder."""
    models = Path("models")
    console.run_stage(
        "distill",
        lambda: run(
            models / "data/train.npz",
            models / "data/validation.npz",
            models / "trained",
            models / "pruned",
            models / "distilled",
            models / "metrics/distill.json",
            params.load(),
        ),
    )
