"""The transport of a target: its connection, or else its environment on this machine."""

from pathlib import Path

import pipeline
from pipeline import params
from pipeline.targets import tools
from pipeline.transports.adb import Adb
from pipeline.transports.base import Local, Transport
from pipeline.transports.shell import Shell
from pipeline.transports.ssh import CONNECT_LIMIT_S, Ssh


def of(target: params.Target, environments: Path | None = None) -> Transport:
    """Return the way to where the target's runner runs; a device is not asked yet.

    Raises:
        TargetError: the target's environment was never made.
    """
    if target.connection is not None:
        return to(target.connection)
    environment = target.profile.environment
    python = tools.environment_python(environment, environments)
    return Local(
        where=f"environment {environment}",
        command=(str(python), "-m", "pipeline.runtimes.runner"),
        # elsewhere than here for a foreign environment: it finds its own wheel alone
        home=Path(pipeline.__file__).parents[1] if environment == tools.BUILD else python.parent,
    )


def to(connection: params.Connection, connect_limit_s: int = CONNECT_LIMIT_S) -> Shell:
    """Return the way to a device."""
    if isinstance(connection, params.Ssh):
        return Ssh(connection, connect_limit_s)
    return Adb(connection)
