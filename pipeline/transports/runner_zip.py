"""Our runner as one file that a device's Python runs: `pipeline.runtimes` and `preprocessing`.

The same sources give the same bytes, so that it is sent once. The device needs Python 3.8 or later,
numpy and its one runtime.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pipeline
from pipeline.runtimes import runner

NAME = "slipway-runner.pyz"
MAIN = "from pipeline.runtimes import runner\n\nrunner.start()\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold


@contextmanager
def built() -> Iterator[Path]:
    """Give the zipapp, as a file that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / NAME
        write(path)
        yield path


def write(path: Path) -> None:
    """Write the zipapp."""
    room = Path(pipeline.__file__).parent
    sources = [room / "__init__.py", room / "preprocessing.py", *room.glob("runtimes/*.py")]
    members = {p.relative_to(room.parent).as_posix(): p.read_text("utf-8") for p in sources}
    members["__main__.py"] = MAIN
    members[f"pipeline/runtimes/{runner.SOURCE_DIGEST}"] = runner.source_digest()
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text)
