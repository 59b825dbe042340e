"""What a target's device is and has: asked of it, or remembered from the last time it answered."""

import tempfile
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import msgspec

from pipeline import files, params
from pipeline.errors import TargetError
from pipeline.targets import device as devices
from pipeline.transports import base, choose, replies
from pipeline.transports.base import NotReachedError
from pipeline.transports.ssh import CONNECT_LIMIT_S

TIME_LIMIT_S = 20.0  # of a description
# `dvc repro` asks every time: a device that does not answer must not hold it up.
QUICK_CONNECT_LIMIT_S = 1
QUICK_LIMIT_S = 5.0  # of all, our runner's way there too


class Probe(msgspec.Struct, frozen=True):
    """A device with its fingerprint, and the runtimes that it has with their versions.

    ``unreachable`` says why it did not answer, or not as it should; then ``device`` holds no more
    than that. ``note`` says why it is what it was the last time.
    """

    device: dict[str, Any]
    runtimes: dict[str, str] = {}
    unreachable: str | None = None
    note: str | None = None


class _Kept(msgspec.Struct, frozen=True):
    asked: str
    probe: Probe


def of(target: params.Target, environments: Path | None = None) -> Probe:
    """Describe the device of a target: this machine, an emulated one, or the connected one.

    Args:
        target: with or without a connection.
        environments: where foreign environments are, and so an emulator's.

    Raises:
        TargetError: the connected one does not answer, or not as a runner does.
    """
    if target.connection is not None:
        return ask(target.connection)
    if target.evidence == "emulated":
        return _stamped(devices.emulated(target.profile.environment, environments))
    return _stamped(devices.describe())


def ask(
    connection: params.Connection,
    connect_limit_s: int = CONNECT_LIMIT_S,
    limit_s: float | None = None,
) -> Probe:
    """Ask a connected device.

    Args:
        connection: the way there.
        connect_limit_s: how long ssh may take to connect.
        limit_s: how long all may take, and nothing is tried twice; None limits each step alone.

    Raises:
        NotReachedError: it does not answer, or not in time.
        TargetError: it answers otherwise than a runner does.
    """
    transport = choose.to(connection, connect_limit_s)
    if limit_s is not None:
        transport.hurry(limit_s)
    with tempfile.TemporaryFile("w+", errors="replace") as noise:
        with transport.start("describe", noise) as process:
            try:
                said, _ = process.communicate(timeout=min(TIME_LIMIT_S, transport.left_s))
            except TimeoutExpired as error:
                raise NotReachedError(
                    f"{transport.where}: the runner there does not describe itself within "
                    f"{limit_s or TIME_LIMIT_S:g} s; look what keeps it busy, and try again"
                ) from error
            finally:
                process.kill()
        noise.seek(0)
        text = noise.read()
    reply = base.document(said)
    why = transport.failure(process.returncode, text, replied=base.is_error(reply))
    if why is not None:
        is_broken = transport.broken(process.returncode, text) is not None
        raise (NotReachedError if is_broken else TargetError)(why)
    if process.returncode != 0 and reply is not None:
        raise TargetError(f"{transport.where}: {reply.get('error')}")
    replies.check(reply, "describe", transport.where)
    assert reply is not None
    device: dict[str, Any] = reply["device"]
    if not transport.ours:
        device["runner"] = reply["runner"]
    return _stamped(device, reply["runtimes"])


def remembered(target: params.Target, path: Path, environments: Path | None = None) -> Probe:
    """Describe the device of a target; one that is not reached is what it was the last time.

    One that is reached and answers otherwise than a runner does is ``unreachable``: it may not be
    what it was.

    Args:
        target: with or without a connection.
        path: where a connected device's description is kept for that.
        environments: where foreign environments are.
    """
    if target.connection is None:
        return of(target, environments)
    asked = files.digest_bytes(files.encode_json(target.connection))
    try:
        found = ask(target.connection, QUICK_CONNECT_LIMIT_S, QUICK_LIMIT_S)
    except TargetError as error:
        known = _read(path, asked) if isinstance(error, NotReachedError) else None
        if known is not None:
            return msgspec.structs.replace(known, note=f"{error}; taken as it was the last time")
        return Probe({"unreachable": True}, unreachable=str(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, files.encode_json(_Kept(asked, found)))
    return found


def _read(path: Path, asked: str) -> Probe | None:
    """Return what is remembered; None if nothing is, or its file is damaged."""
    if not path.is_file():
        return None
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return kept.probe if kept.asked == asked else None


def _stamped(device: dict[str, Any], runtimes: dict[str, str] | None = None) -> Probe:
    return Probe(device | {"fingerprint": devices.fingerprint(device)}, runtimes or {})
