"""Find every problem of a project before anything runs: params.yaml, pins, data, factories, tools.

DVC deletes a stage's outs before it runs the command, so what can be known beforehand is said here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files, params
from pipeline.compatibility import EVIDENCE
from pipeline.errors import ConversionError, DataError, DependencyError, PipelineError
from pipeline.preflight import cases, net_fit, target_settings
from pipeline.runtimes import structured
from pipeline.runtimes.errors import RunnerError
from pipeline.targets import tools

if TYPE_CHECKING:
    from pipeline.data.splits import Split

NUM_TRIED = 4  # samples through the user's ONNX file: enough to see that it takes them


@dataclass(frozen=True)
class Findings:
    """Lines to print. Without problems `dvc repro` can start; remarks are better known before."""

    params: params.Params | None
    problems: list[str]
    remarks: list[str]


def examine(path: Path, environments: Path) -> Findings:
    """Find all problems of a project, and what is no mistake but worth saying."""
    p, lines = params.parse(path)
    if p is None or lines:
        return Findings(p, lines, [])
    problems = list(_pins(p))
    # what is not the pinned input is not worth reading
    made = {} if problems else _splits(p, problems)
    problems += _required_tools(p, environments)
    on_hardware = cases.of(p, path.parent, problems)
    problems += [line for case in on_hardware for line in target_settings.problems(case)]
    model = _net(p, made, problems) if made else None
    if made:
        problems += [*_metric(p), *_compilers(p, problems)]
    if model is not None:
        problems += [line for case in on_hardware for line in net_fit.problems(case, model, p)]
    # a metric that cannot be had is found by the net's loss too
    problems = list(dict.fromkeys(problems))
    if problems or model is None:
        return Findings(p, problems, [])
    too_large = [line for case in on_hardware for line in net_fit.remarks(case, model, p)]
    return Findings(p, [], [*_weak_evidence(p, environments), *_small_data(p, made), *too_large])


def _pins(p: params.Params) -> Iterator[str]:
    """Compare every input from outside with its pinned digest."""
    checkpoint = p.train.checkpoint if p.train else None
    checkpoint_digest = p.train.checkpoint_digest if p.train else None
    for role, source, digest, key in (
        ("data.path", p.data.path, p.data.digest, "data.digest"),
        ("net.onnx", p.net.onnx, p.net.onnx_digest, "net.onnx_digest"),
        ("train.checkpoint", checkpoint, checkpoint_digest, "train.checkpoint_digest"),
    ):
        if source is not None:
            folders = role == "data.path" and p.data.source == "image_folder"
            check = partial(files.check_pin, Path(source), digest, role, key, folders=folders)
            yield from _problem_of(check)


def _required_tools(p: params.Params, environments: Path) -> Iterator[str]:
    """An absent tool is a record of its target, unless the target is required."""
    for name, target in p.targets.items():
        absent = [
            tool
            for tool, version in _tools(p, target, environments).items()
            if version == tools.ABSENT
        ]
        if absent and target.required:
            yield f"targets.{name} is required and {', '.join(absent)} is absent; run make setup"


def _tools(p: params.Params, target: params.Target, environments: Path) -> dict[str, str]:
    return tools.versions(target, environments, from_onnx=p.net.onnx is not None)


def _weak_evidence(p: params.Params, environments: Path) -> Iterator[str]:
    """Say which targets will not be built, or not measured."""
    for name, target in p.targets.items():
        found = _tools(p, target, environments)
        absent = [tool for tool, version in found.items() if version == tools.ABSENT]
        if absent:
            yield (
                f"{name} will not be built or measured: {', '.join(absent)} is absent "
                "(slipway doctor names what installs it)"
            )
        if target.evidence == "emulated":
            yield (
                f"{name} will be emulated, not measured: outputs, quality and agreement only; give "
                "a connection to measure"
            )
        elif target.evidence != "measured":
            what = f"{name} will be {target.evidence}, not measured"
            yield f"{what}: this machine has no such hardware"


def _small_data(p: params.Params, made: "Mapping[str, Split]") -> Iterator[str]:
    """Say where a candidate that loses nothing could not show that it keeps the budget."""
    from pipeline.profiling import intervals, quality

    if not isinstance(quality.judge_of(p.task), quality.Share):
        return
    n = len(made["validation"].inputs)
    least = 100 * intervals.paired_share(0, 0, n)[1]
    short = [
        name
        for name, target in p.targets.items()
        if EVIDENCE[target.converter] != "built" and target.select.max_quality_drop < least
    ]
    if short:
        yield (
            f"{', '.join(short)}: {n} validation samples cannot show a drop below {least:.2f} "
            "points, select.max_quality_drop allows less; a candidate that only equals fp32 will "
            "not ship, give more data"
        )


def _splits(p: params.Params, problems: list[str]) -> "dict[str, Split]":
    """Read the data and split it; what is wrong with it joins the problems, and none is given."""
    try:
        from pipeline.data import source, splits

        return splits.make(source.read(p.data, p.task.kind), p.data)
    except ImportError as error:
        problems.append(str(DependencyError(str(error.name), "build")))
    except PipelineError as error:
        problems.append(str(error))
    return {}


def _net(
    p: params.Params, made: "Mapping[str, Split]", problems: list[str]
) -> net_fit.Model | None:
    """Build the net once: seconds now, not minutes later; what is wrong joins the problems."""
    try:
        return _try_net(p, made)
    except PipelineError as error:
        problems.append(str(error))
    return None


def _try_net(p: params.Params, made: "Mapping[str, Split]") -> net_fit.Model:
    try:
        import torch

        from pipeline.nets import count, factory, store
        from pipeline.training import objective
    except ImportError as error:
        raise DependencyError(str(error.name), "build") from error

    calibration = made["calibration"]
    try:
        tensors = calibration.tensors()
    except RunnerError as error:
        raise DataError(f"data.preprocessing does not fit the samples: {error}") from error
    if p.net.onnx is not None:
        from pipeline.conversion import from_onnx

        few = tensors[:NUM_TRIED]
        adopted = from_onnx.adopt(Path(p.net.onnx), few, p.export.max_abs_error)
        from_onnx.check_classes(adopted.signature, calibration.label_names, p.task)
        _try_metric(p.task, made["validation"], adopted.content)
        taken = [tensor.shape for tensor in adopted.signature.inputs]
        return net_fit.Model(
            num_parameters=from_onnx.describe(Path(p.net.onnx)).parameters,
            shapes=tuple(tuple(int(length) for length in shape[1:]) for shape in taken),
            opset=adopted.opset,
            is_batch_open=isinstance(taken[0][0], str),
        )
    shape = tensors.shape[1:]
    labels = torch.from_numpy(calibration.labels[:1])
    num_outputs = objective.of(p.task).num_outputs(shape, labels, calibration.label_names)
    net = factory.build(p.net, shape, num_outputs)
    if p.train is not None and p.train.checkpoint is not None:
        store.load_checkpoint(Path(p.train.checkpoint), net)
    _try_metric(p.task, made["validation"], None)
    parameters = count.count(net, shape).parameters
    return net_fit.Model(parameters, (shape,), p.export.opset)


def _try_metric(task: params.Task, validation: "Split", onnx_file: bytes | None) -> None:
    """Call the user's metric on the labels that `profile` will judge by.

    The outputs are the ONNX file's for a few samples, again and again; of a net that is still to be
    trained they are a perfect one's, since a metric need not be defined for nonsense.
    """
    import numpy as np

    from pipeline.profiling import quality

    if task.metric == params.METRICS[task.kind]:
        return
    labels, repeated = validation.labels, np.arange(len(validation.labels)) % NUM_TRIED
    few = validation.tensors(list(range(min(NUM_TRIED, len(labels)))))
    inputs = few[repeated]
    if onnx_file is not None:
        from pipeline.conversion import onnx_run

        found = onnx_run.run(onnx_file, few, batch=1)
        named = {name: values[repeated] for name, values in found.items()}
        outputs = structured.join(named) if len(named) > 1 else next(iter(named.values()))
    elif task.kind == "anomaly":
        outputs = inputs + labels.reshape(-1, *[1] * (inputs.ndim - 1)).astype(np.float32)
    elif task.kind == "regression":
        outputs = labels
    else:
        outputs = np.eye(len(validation.label_names), dtype=np.float32)[labels]
    quality.judge_of(task).quality(outputs, quality.Truth(labels, inputs))


def _metric(p: params.Params) -> Iterator[str]:
    """Import the user's metric, if it is the user's."""
    from pipeline.profiling import quality

    yield from _problem_of(lambda: quality.judge_of(p.task))


def _compilers(p: params.Params, told: Sequence[str]) -> Iterator[str]:
    """Ask the compilers that are installed whether they know the settings they will get.

    What was told of a target's settings, by its hardware's entry, is not said twice.
    """
    for name, target in p.targets.items():
        vela_settings = target.convert.vela
        key = f"targets.{name}.convert.vela."
        if vela_settings is None or any(line.startswith(key) for line in told):
            continue
        from pipeline.conversion import vela

        try:
            vela.check(vela_settings)
        except DependencyError:
            continue  # an absent tool is a record of its target
        except ConversionError as error:
            yield f"targets.{name}: {error}"


def _problem_of(attempt: Callable[[], object]) -> Iterator[str]:
    try:
        attempt()
    except PipelineError as error:
        yield str(error)
