"""What one field of params.yaml says of another: each rule yields (key, what) for each problem."""

from collections.abc import Iterator

from pipeline import target_rules
from pipeline.params import (
    METRICS,
    NAME,
    SKIP,
    STEPS,
    TARGET_ID,
    Data,
    Params,
    reference_recipes,
)

Problems = Iterator[tuple[tuple[str, ...], str]]


def _names(params: Params) -> Problems:
    if not NAME.fullmatch(params.model):
        yield ("model",), f"model must match {NAME.pattern}, got {params.model!r}"
    for section in ("prune", "distill", "quantize", "recipes"):
        for name in getattr(params, section):
            if name == SKIP or not NAME.fullmatch(name):
                rule = f"must match {NAME.pattern} and not be {SKIP}, got {name!r}"
                yield (section, name), f"{section}: a name {rule}"
    if not params.targets:
        yield ("targets",), "targets must name at least one target, got none"
    for name in params.targets:
        if not TARGET_ID.fullmatch(name):
            yield ("targets", name), f"targets: an id must match {TARGET_ID.pattern}, got {name!r}"


def _splits(params: Params) -> Problems:
    data = params.data
    if data.source == "fsdd":
        yield from _speakers(data)
        return
    if data.train_ratio is None or data.validation_ratio is None:
        what = f"data.train_ratio and data.validation_ratio split {data.source}"
        yield ("data",), f"{what}, got {data.train_ratio} and {data.validation_ratio}"
    elif data.train_ratio + data.validation_ratio >= 1:
        what = "data.train_ratio + data.validation_ratio must be below 1 to leave a test split"
        got = f"got {data.train_ratio + data.validation_ratio:g}"
        yield ("data", "validation_ratio"), f"{what}, {got}"
    if data.channels != 3 and data.source != "image_folder":
        what = "data.channels is of the images of image_folder"
        yield ("data", "channels"), f"{what}, got data.source {data.source}"
    if data.test_speakers or data.validation_speakers:
        yield ("data",), f"data.test_speakers split fsdd, got data.source {data.source}"


def _speakers(data: Data) -> Problems:
    if data.train_ratio is not None or data.validation_ratio is not None:
        yield ("data",), "data.train_ratio does not go with fsdd, which is split by speaker"
    for key in ("test_speakers", "validation_speakers"):
        if not getattr(data, key):
            yield ("data",), f"data.{key} must name at least one speaker, got none"
    both = sorted(set(data.test_speakers) & set(data.validation_speakers))
    if both:
        what = "data.validation_speakers must not be test speakers: choices would know the voices"
        yield ("data", "validation_speakers"), f"{what}, got {', '.join(both)}"


def _sources(params: Params) -> Problems:
    data, net, train, task = params.data, params.net, params.train, params.task
    if data.source == "digits" and (data.path or data.url):
        what = "data.source digits is embedded, and takes no data.path or data.url"
        yield ("data", "path"), f"{what}, got {data.path or data.url!r}"
    elif data.source != "digits" and (data.path is None) == (data.url is None):
        what = f"data.source {data.source} needs one of data.path and data.url"
        yield ("data", "path"), f"{what}, got {data.path!r} and {data.url!r}"
    if isinstance(data.preprocessing, dict) and net.onnx is None:
        what = "steps by input go with net.onnx: net.name and net.factory take one input"
        got = ", ".join(data.preprocessing)
        yield ("data", "preprocessing"), f"data.preprocessing: {what}, got {got}"
    given = [key for key in ("name", "factory", "onnx") if getattr(net, key) is not None]
    if len(given) != 1:
        yield ("net",), f"net needs one of name, factory and onnx, got {given or 'none'}"
    if (net.onnx is None) != (train is not None):
        what = "train goes with net.name or net.factory; an ONNX file is trained already"
        yield ("net",), f"{what}, got net.{(given or ['?'])[0]} and {'a' if train else 'no'} train"
    pins: tuple[tuple[str, str, str | None, str | None], ...] = (
        ("data", "digest", data.path or data.url, data.digest),
        ("net", "factory_digest", net.factory, net.factory_digest),
        ("net", "onnx_digest", net.onnx, net.onnx_digest),
        ("task", "metric_digest", task.metric if ":" in task.metric else None, task.metric_digest),
    )
    if train is not None:
        pins += (("train", "checkpoint_digest", train.checkpoint, train.checkpoint_digest),)
    for section, key, source, digest in pins:
        if source is not None and digest is None:
            yield (section, key), f"{section}.{key} must pin {source}; run slipway inputs lock"


def _task(params: Params) -> Problems:
    task = params.task
    own = METRICS[task.kind]
    if task.metric == own:
        if task.direction is not None or task.unit is not None:
            what = f"task.direction and task.unit go with a metric of your own, {own} has its own"
            yield ("task",), f"{what}; leave them out"
    elif ":" not in task.metric or task.kind == "agreement":
        what = f"task.metric of {task.kind} must be {own}"
        also = "" if task.kind == "agreement" else " or your own module:function"
        yield ("task", "metric"), f"{what}{also}, got {task.metric!r}"
    elif task.direction is None:
        yield ("task",), f"task.direction must say which {task.metric} is better: higher or lower"


def _recipes(params: Params) -> Problems:
    for name, settings in params.quantize.items():
        if settings.num_samples > params.data.num_calibration:
            what = f"must be at most data.num_calibration {params.data.num_calibration}"
            key = ("quantize", name, "num_samples")
            yield key, f"{'.'.join(key)} {what}, got {settings.num_samples}"
    for name, recipe in params.recipes.items():
        for step in STEPS:
            chosen, known = getattr(recipe, step), getattr(params, step, {})
            if chosen != SKIP and params.net.onnx is not None and step != "quantize":
                key = ("recipes", name, step)
                what = "must be skip: net.onnx enters behind it"
                yield key, f"{'.'.join(key)} {what}, got {chosen!r}"
            elif chosen != SKIP and chosen not in known:
                allowed = ", ".join([SKIP, *known])
                key = ("recipes", name, step)
                yield key, f"{'.'.join(key)} must be one of {allowed}, got {chosen!r}"


def _references(params: Params) -> Problems:
    found = reference_recipes(params)
    if len(found) != 1:
        what = "recipes needs exactly one that skips prune and distill, as the reference"
        yield ("recipes",), f"{what}, got {', '.join(found) or 'none'}"


def _targets(params: Params) -> Problems:
    for name, target in params.targets.items():
        at = ("targets", name)
        for key, what in target_rules.problems(target, params.data):
            yield (*at, *key), f"{'.'.join((*at, *key))}: {what}"


ALL = (_names, _splits, _sources, _task, _recipes, _references, _targets)
