"""Which machine measures: this one, or the one that an emulator plays; and its fingerprint."""

import re
import subprocess
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.compatibility import Environment
from pipeline.runtimes.machine import describe
from pipeline.targets import tools

__all__ = ["describe", "emulated", "fingerprint"]

EMULATORS: dict[Environment, tuple[str, str]] = {
    "emulated-aarch64": ("aarch64", "qemu-aarch64-static")
}


def fingerprint(device: dict[str, Any]) -> str:
    """Return the digest of a description: equal machines measure for one another, no others."""
    facts = {key: value for key, value in device.items() if key != "fingerprint"}
    return files.digest_bytes(files.encode_json(facts))


def emulated(environment: Environment, environments: Path | None = None) -> dict[str, Any]:
    """Describe the machine that an environment's emulator plays: the same on every host.

    The emulator is the environment's own copy, which its interpreter runs under, whatever is on
    PATH; ``environments`` is the folder of all.
    """
    arch, program = EMULATORS[environment]
    own = (environments or tools.environments_path()) / environment / "bin" / program
    return {
        "accelerator": "none",
        "arch": arch,
        "cpu_model": f"emulated by {program} {_version(own)}",
        "isa_flags": [],
        "num_cores": 1,
    }


def _version(program: Path) -> str:
    if not program.is_file():
        return "(absent)"
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:  # it is there and does not start: as good as one that tells no version
        return "(unknown)"
    found = re.search(r"version (\S+)", said.stdout)
    return found.group(1) if found else "(unknown)"
