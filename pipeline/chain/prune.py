"""Stage ``prune``: one smaller net for each recipe that prunes.

Reads   params.yaml [model, task, recipes, prune]; models/data/{train,validation}.npz;
        models/trained/
Writes  models/pruned/ {VARIANT/ (a net directory), kept_whole.json, manifest.json};
        models/metrics/prune.json
"""

from pathlib import Path

import torch

from pipeline import console, files, manifest, params
from pipeline.compression import figures, variants
from pipeline.compression.prune import Pruned, prune
from pipeline.errors import ParamsError
from pipeline.nets import store
from pipeline.training import objective
from pipeline.training.loop import Tensors, deterministic, learnable

KEPT_WHOLE = "kept_whole.json"


def run(
    train_npz: Path,
    validation_npz: Path,
    trained: Path,
    out: Path,
    metrics: Path,
    p: params.Params,
) -> None:
    made_from, goal = manifest.verify(trained), objective.of(p.task)
    teacher, settings = store.load(trained), variants.settings_of(p, "prune")
    reads_train = any(cfg and cfg.criterion == "taylor" for cfg in settings.values())
    train = learnable(Tensors.read(train_npz), goal) if reads_train else None
    validation = Tensors.read(validation_npz)
    example = torch.zeros(1, *teacher.input_shape)
    with deterministic(seed=0):  # nothing is drawn; for the one thread
        before = figures.measure(teacher.net, teacher.input_shape, validation, goal)
        made = {
            name: prune(teacher.net, example, cfg, train, goal)
            for name, cfg in settings.items()
            if cfg
        }
        rows = {
            name: (before, figures.measure(made[name].net, teacher.input_shape, validation, goal))
            if name in made
            else (before, before)
            for name in settings
        }
    for name, pruned in made.items():
        _require_smaller(name, settings[name], pruned)
    out.mkdir(parents=True)
    for name in settings:
        if name not in made:
            variants.hand_on(trained, out / name)
            continue
        store.save_like(out / name, made[name].net, teacher, made[name].history)
    kept_whole = {name: pruned.kept_whole for name, pruned in made.items()}
    files.write_atomic(out / KEPT_WHOLE, files.encode_json(kept_whole))
    figures.write(metrics, rows)
    manifest.write(
        out,
        model=p.model,
        stage="prune",
        inputs=manifest.inputs_of(trained=trained, **({"train": train_npz} if reads_train else {})),
        params={"prune": variants.describe(settings)},
        tools=variants.tools("torch", "torch-pruning", "safetensors"),
        labels=made_from.labels,
        preprocessing=made_from.preprocessing,
    )
    for name, layers in kept_whole.items():
        whole = f"kept whole: {', '.join(layers)} (why: {out}/{KEPT_WHOLE})" if layers else ""
        console.say("prune", f"{name}   {figures.costs(*rows[name])}   {whole}")
    console.terminal.print(figures.table(rows))


def _require_smaller(name: str, cfg: params.Prune | None, pruned: Pruned) -> None:
    """A recipe that asks for less and gets the same net would ship under a wrong name."""
    assert cfg is not None
    if cfg.ratio > 0 and not pruned.history:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in pruned.kept_whole.items())
        raise ParamsError(
            f"recipe {name} removes no channel with ratio {cfg.ratio:g} and round_to "
            f"{cfg.round_to} ({reasons}); change them in params.yaml, or let it skip prune"
        )


def main() -> None:
    """Run the stage on the project in the current folder."""
    data = Path("models/data")
    console.run_stage(
        "prune",
        lambda: run(
            data / "train.npz",
            data / "validation.npz",
            Path("models/trained"),
            Path("models/pruned"),
            Path("models/metrics/prune.json"),
            params.load(),
        ),
    )
