"""Storage that gets full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Make a new folder with room for so many bytes (whole pages) while this lasts; needs root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "slipway-small", str(folder)]
    subprocess.run(mount, check=True, capture_output=True, text=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
