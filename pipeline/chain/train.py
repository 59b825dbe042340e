"""Stage ``train``: the teacher, trained here or taken from a checkpoint.

Reads   params.yaml [model, task, net, train]; models/data/{train,validation}.npz
Writes  models/trained/ {weights.safetensors, net.json, manifest.json}; models/training/ (curves);
        models/metrics/train.json
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from pipeline import console, files, manifest, params
from pipeline.compression import figures, variants
from pipeline.data import splits
from pipeline.errors import DependencyError, PipelineError
from pipeline.nets import factory, store
from pipeline.training import loop, objective
from pipeline.training.objective import Objective


def run(
    train_npz: Path,
    validation_npz: Path,
    out: Path,
    metrics: Path,
    p: params.Params,
    live: Path | None = None,
) -> None:
    assert p.train is not None  # rules ask for it where there is a net to train
    started = time.monotonic()
    goal = objective.of(p.task)
    split, validation_split = splits.read(train_npz), splits.read(validation_npz)
    train, validation = loop.Tensors.of_split(split), loop.Tensors.of_split(validation_split)
    input_shape = tuple(train.inputs.shape[1:])
    num_classes = goal.num_outputs(input_shape, train.labels, split.label_names)
    with loop.deterministic(p.train.seed):
        net = factory.build(p.net, input_shape, num_classes)
        came_from = _teach(net, loop.learnable(train, goal), validation, p.train, goal, live)
        found = figures.measure(net, input_shape, validation, goal)
    out.mkdir(parents=True)
    store.save(out, net, cfg=p.net, input_shape=input_shape, num_classes=num_classes)
    figures.write(metrics, {"teacher": (None, found)})
    settings = {"net": store.describe(p.net), "train": variants.builtins(p.train)}
    del settings["train"]["checkpoint"]  # its digest says which one; a path says where we are
    manifest.write(
        out,
        model=p.model,
        stage="train",
        inputs=manifest.inputs_of(train=train_npz, validation=validation_npz),
        params=settings,
        tools=variants.tools("torch", "safetensors"),
        labels=split.label_names,
        preprocessing=split.preprocessing,
    )
    console.say(
        "train",
        f"{p.net.name or p.net.factory}   {came_from}   validation "
        f"{goal.words(found.quality)}   {time.monotonic() - started:.0f} s",
    )
    console.terminal.print(figures.table({"teacher": (None, found)}))


def _teach(
    net: nn.Module,
    train: loop.Tensors,
    validation: loop.Tensors,
    cfg: params.Train,
    goal: Objective,
    live: Path | None,
) -> str:
    """Give the net its weights and say where they came from."""
    if cfg.checkpoint is not None:
        path = Path(cfg.checkpoint)
        files.check_pin(path, cfg.checkpoint_digest, "train.checkpoint", "train.checkpoint_digest")
        store.load_checkpoint(path, net)
        with _curves(live, goal):
            return f"checkpoint {path.name}"
    with console.track("train", cfg.epochs) as advance, _curves(live, goal) as log:

        def on_epoch(epoch: loop.Epoch) -> None:
            log(epoch)
            advance(f"validation {goal.words(epoch.quality)}")

        fit = loop.fit(net, train, validation, cfg, cfg.seed, objective=goal, on_epoch=on_epoch)
    return f"epoch {fit.best_epoch} of {len(fit.epochs)}"


@contextlib.contextmanager
def _curves(live: Path | None, goal: Objective) -> Iterator[Callable[[loop.Epoch], None]]:
    """Write the training curves with DVCLive, or nothing."""
    if live is None:
        yield lambda _: None
        return
    try:
        from dvclive import Live
    except ImportError as error:
        raise DependencyError("dvclive", "build") from error
    try:
        # by default DVCLive rewrites the project's dvc.yaml and records an experiment
        with Live(dir=str(live), dvcyaml=None, save_dvc_exp=False) as curves:

            def log(epoch: loop.Epoch) -> None:
                curves.log_metric("loss", epoch.loss)
                curves.log_metric("validation_loss", epoch.validation_loss)
                curves.log_metric(goal.validation_key, epoch.quality)
                curves.log_metric("learning_rate", epoch.learning_rate)
                curves.next_step()

            yield log
    except PipelineError:
        # half a set of curves is no out, and `dvc checkout` would not overwrite it
        shutil.rmtree(live, ignore_errors=True)
        raise


def main() -> None:
    """Run the stage on the project in the current folder."""
    data = Path("models/data")
    console.run_stage(
        "train",
        lambda: run(
            data / "train.npz",
            data / "validation.npz",
            Path("models/trained"),
            Path("models/metrics/train.json"),
            params.load(),
            Path("models/training"),
        ),
    )
