"""Where the source file of the user's factory lies, found without running any of its code."""

from pathlib import Path

from pipeline import users_code
from pipeline.errors import NetError


def find(factory: str) -> Path:
    """Return the source file of ``package.module:function``; the working directory goes first."""
    return users_code.find("net.factory", factory, NetError)
