"""An interpreter as boards have it: numpy, one runtime, and no slipway."""

import shlex
import sys
from importlib import metadata
from pathlib import Path

PARTS = ("numpy", "onnxruntime")


def make(folder: Path) -> Path:
    """Write a program that runs this Python with the parts alone, and return it."""
    site = folder / "site"
    site.mkdir(parents=True)
    for part in PARTS:
        distribution = metadata.distribution(part)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(distribution.locate_file(top))
    python = folder / "python3"
    # -S leaves out the environment's own packages, of which slipway is one
    command = f"PYTHONPATH={shlex.quote(str(site))} exec {shlex.quote(sys.executable)} -S"
    python.write_text(f'#!/bin/sh\n{command} "$@"\n')
    python.chmod(0o755)
    return python
