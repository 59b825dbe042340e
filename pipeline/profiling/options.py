"""What is asked for on a command line, as the sections of params.yaml that mean the same."""

import math
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from pipeline import params, target_rules
from pipeline.errors import InputsError
from pipeline.profiling.loadgen import Settings

Asked = TypeVar("Asked", params.Scenario, params.EnergyMeter, params.Sweep, Settings)
# Keys of a target's rules that hold wherever it is measured; the others are of the runtime there.
RULES = (("profile", "scenarios"), ("profile", "energy", "port"))


def scenario(text: str) -> params.Scenario:
    """Read ``NAME[:key=value,...]``, such as ``Server:queries_per_s=100,num_streams=2``.

    Raises:
        InputsError: it is no scenario.
    """
    return _read("--scenario", text, "scenario", params.Scenario)


def loadgen(text: str) -> Settings:
    """Read ``NAME[:key=value,...]``, such as ``SingleStream:min_duration_s=60``.

    Raises:
        InputsError: LoadGen knows no such scenario or setting.
    """
    return _read("--loadgen", text, "scenario", Settings)


def energy(text: str) -> params.EnergyMeter:
    """Read ``METER[:key=value,...]``, such as ``serial:port=/dev/ttyUSB0``.

    Raises:
        InputsError: it is no meter.
    """
    return _read("--energy", text, "meter", params.EnergyMeter)


def sweep(texts: Sequence[str]) -> params.Sweep | None:
    """Read ``key=value,...`` of each axis, such as ``batch_size=1,4,8``; None without any.

    Raises:
        InputsError: an axis is not known, is given twice, or has a value that it cannot have.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        key, _, values = text.partition("=")
        if key in fields:
            raise InputsError(f"--sweep {text}: {key} is given twice; give all its values at once")
        fields[key] = values.split(",")
    return _converted("--sweep " + " ".join(texts), fields, params.Sweep) if texts else None


def check(profile: params.Profile) -> params.Profile:
    """Return a profile whose settings go together, as those of a target must.

    Raises:
        InputsError: they do not.
    """
    target = params.Target(
        converter="to_onnxruntime",
        runtime="onnxruntime",
        convert=params.Convert(precisions=("fp32",)),
        profile=profile,
        select=params.Select(),
    )
    data = params.Data(source="npz", seed=0, num_calibration=target.convert.num_calibration)
    for key, what in target_rules.problems(target, data):
        if key in RULES:
            raise InputsError(f"{key[1]}: {what}")
    return profile


def _read(option: str, text: str, name: str, kind: type[Asked]) -> Asked:
    value, _, rest = text.partition(":")
    fields: dict[str, Any] = {name: value}
    for pair in filter(None, rest.split(",")):
        key, _, fields[key] = pair.partition("=")
    return _converted(f"{option} {text}", fields, kind)


def _converted(said: str, fields: dict[str, Any], kind: type[Asked]) -> Asked:
    """Make what text says; numbers come as text."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for key, value in fields.items():
        if key not in hints:
            raise InputsError(f"{said}: {key!r} is not known; known: {', '.join(hints)}")
        try:
            found = msgspec.convert(value, hints[key], strict=False)
        except msgspec.ValidationError as error:
            choices = typing.get_args(hints[key])
            is_closed = typing.get_origin(hints[key]) is typing.Literal
            known = f"known: {', '.join(choices)}" if is_closed else str(error)
            raise InputsError(f"{said}: {key} cannot be {value!r}; {known}") from error
        if isinstance(found, float) and not math.isfinite(found):
            raise InputsError(f"{said}: {key} cannot be {value!r}; give a finite number")
    return msgspec.convert(fields, kind, strict=False)
