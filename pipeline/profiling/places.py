"""A place is a runtime and where it runs, as it is written on a command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from pipeline import params
from pipeline.compatibility import ENVIRONMENTS, RUNTIMES, Converter, Environment, Runtime
from pipeline.errors import InputsError


@dataclass(frozen=True)
class Place:
    """A runtime somewhere, as `place_of` read it; ``text`` is what was written."""

    text: str
    target: params.Target


def place_of(text: str, targets: Mapping[str, params.Target], profile: params.Profile) -> Place:
    """Read ``RUNTIME`` or ``RUNTIME@WHERE``.

    Args:
        text: WHERE is an environment of this machine (``emulated-aarch64``), ``ssh:HOST[:PORT]``,
            ``adb:SERIAL``, or a target whose connection is meant.
        targets: of the project, if there is one.
        profile: how it is measured; its environment is replaced by the place's.

    Raises:
        InputsError: the runtime or the place is not known.
    """
    runtime, _, where = text.partition("@")
    converter = next((c for c, known in RUNTIMES.items() if runtime in known), None)
    if converter is None:
        known = ", ".join(dict.fromkeys(r for found in RUNTIMES.values() for r in found))
        raise InputsError(f"runtime {runtime!r} is not known; known: {known}")
    name = cast(Runtime, runtime)
    environment, connection = _where(where, name, targets)
    hardware = targets[where].hardware if where in targets else None
    return Place(text, _target(converter, name, profile, environment, connection, hardware))


def _where(
    where: str, runtime: Runtime, targets: Mapping[str, params.Target]
) -> tuple[Environment, params.Connection | None]:
    here = ENVIRONMENTS[runtime][0]
    if not where:
        return here, None
    if where in ENVIRONMENTS[runtime]:
        return where, None
    kind, _, rest = where.partition(":")
    if kind == "ssh" and rest:
        host, _, port = rest.partition(":")
        return here, _connection({"transport": "ssh", "host": host}, port)
    if kind == "adb" and rest:
        return here, _connection({"transport": "adb", "serial": rest}, "")
    target = targets.get(where)
    if target is not None:
        return target.profile.environment, target.connection
    known = ", ".join([*ENVIRONMENTS[runtime], "ssh:HOST", "adb:SERIAL", *targets])
    raise InputsError(f"{where!r} is no place for {runtime}; known: {known}")


def _connection(fields: dict[str, Any], port: str) -> params.Connection:
    if port:
        fields["port"] = int(port) if port.isdigit() else port
    try:
        found: params.Connection = msgspec.convert(fields, params.Ssh | params.Adb)
    except msgspec.ValidationError as error:
        raise InputsError(f"{fields} is no device: {error}") from error
    return found


def _target(
    converter: Converter,
    runtime: Runtime,
    profile: params.Profile,
    environment: Environment,
    connection: params.Connection | None,
    hardware: str | None,
) -> params.Target:
    return params.Target(
        converter=converter,
        runtime=runtime,
        hardware=hardware,
        connection=connection,
        convert=params.Convert(precisions=()),
        profile=msgspec.structs.replace(profile, environment=environment),
        select=params.Select(),
    )
