"""The transport of a target: its connection, or else its environment on this machine."""

from pathlib import Path

import pipeline
from pipeline import params
from pipeline.targets import tools
from pipeline.transports.adb import Adb
from pipeline.transports.base import Local, Transport
from pipeline.transports.ssh import Ssh


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


def to(connection: params.Connection) -> Transport:
    """Return the way to a device."""
    return Ssh(connection) if isinstance(connection, params.Ssh) else Adb(connection)
