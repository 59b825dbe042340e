"""What a target's device is and has: asked of it, or remembered from the last time it answered."""

import json
import tempfile
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import msgspec

from pipeline import files, params
from pipeline.errors import TargetError
from pipeline.targets import device as devices
from pipeline.transports import base, choose, replies
from pipeline.transports.ssh import Ssh

# `dvc repro` asks every time: a device that does not answer must not hold it up.
CONNECT_LIMIT_S = 1
TIME_LIMIT_S = 20.0


class Probe(msgspec.Struct, frozen=True):
    """A device with its fingerprint, and the runtimes that it has with their versions.

    ``unreachable`` says why it did not answer; then ``device`` holds no more than that.
    """

    device: dict[str, Any]
    runtimes: dict[str, str] = {}
    unreachable: str | None = None


def of(target: params.Target) -> Probe:
    """Describe the device of a target: this machine, an emulated one, or the connected one.

    Raises:
        TargetError: the connected one does not answer, or not as a runner does.
    """
    if target.connection is not None:
        return ask(target.connection)
    if target.evidence == "emulated":
        return _stamped(devices.emulated(target.profile.environment))
    return _stamped(devices.describe())


def ask(connection: params.Connection) -> Probe:
    """Ask a connected device.

    Raises:
        TargetError: it does not answer within a second, or not as a runner does.
    """
    transport = (
        Ssh(connection, CONNECT_LIMIT_S)
        if isinstance(connection, params.Ssh)
        else choose.to(connection)
    )
    with tempfile.TemporaryFile("w+", errors="replace") as noise:
        with transport.start("describe", noise) as process:
            try:
                said, _ = process.communicate(timeout=TIME_LIMIT_S)
            except TimeoutExpired as error:
                raise TargetError(
                    f"{transport.where}: the runner there does not describe itself within "
                    f"{TIME_LIMIT_S:g} s; look what keeps it busy, and try again"
                ) from error
            finally:
                process.kill()
        noise.seek(0)
        reply = base.document(said)
        why = transport.failure(process.returncode, noise.read(), replied=base.is_error(reply))
    if why is not None:
        raise TargetError(why)
    if process.returncode != 0 and reply is not None:
        raise TargetError(f"{transport.where}: {reply.get('error')}")
    replies.check(reply, "describe", transport.where)
    assert reply is not None
    device: dict[str, Any] = reply["device"]
    if not transport.ours:
        device["runner"] = reply["runner"]
    return _stamped(device, reply["runtimes"])


def remembered(target: params.Target, path: Path) -> Probe:
    """Describe the device of a target; one that does not answer is what it was the last time.

    Args:
        target: with or without a connection.
        path: where a connected device's description is kept for that.
    """
    if target.connection is None:
        return of(target)
    asked = files.digest_bytes(files.encode_json(target.connection))
    try:
        found = ask(target.connection)
    except TargetError as error:
        known = _read(path, asked)
        if known is not None:
            return known
        return Probe({"unreachable": True}, unreachable=str(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, files.encode_json({"asked": asked, "probe": found}))
    return found


def _read(path: Path, asked: str) -> Probe | None:
    if not path.is_file():
        return None
    kept = json.loads(path.read_bytes())
    return msgspec.convert(kept["probe"], Probe) if kept["asked"] == asked else None


def _stamped(device: dict[str, Any], runtimes: dict[str, str] | None = None) -> Probe:
    return Probe(device | {"fingerprint": devices.fingerprint(device)}, runtimes or {})
