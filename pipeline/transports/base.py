"""What every transport gives: files there, a runner there, files back."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO, Protocol

Process = Popen[str]


class Transport(Protocol):
    """A way to one device."""

    @property
    def where(self) -> str:
        """What names it in messages."""
        ...

    @property
    def ours(self) -> bool:
        """Tell whether the runner is this slipway's own, whose sources must be equal."""
        ...

    @property
    def lock(self) -> str | None:
        """A path there that whoever times holds; None where nobody else measures."""
        ...

    def place(self, files: Mapping[str, Path]) -> str:
        """Have these bytes there, by these names, in one folder, which is returned.

        Raises:
            TargetError: it is not reached, or has no room; what arrived is kept for the next try.
        """
        ...

    def scratch(self) -> AbstractContextManager[str]:
        """Give an empty folder there, which is removed at the end."""
        ...

    def start(self, command: str, noise: IO[str]) -> Process:
        """Start the runner with a command; its standard error goes to ``noise``."""
        ...

    def fetch(self, there: str, here: Path) -> None:
        """Copy one file from there.

        Raises:
            TargetError: it is not reached, or the file is not there.
        """
        ...

    def failure(self, returncode: int, noise: str) -> str | None:
        """Say in one line what broke on the way; None if it was the runner that failed."""
        ...


@dataclass(frozen=True)
class Local:
    """An interpreter on this machine; the paths are the same there.

    ``home`` is the folder in which it finds our package, None for an environment that has it.
    """

    where: str
    python: Path
    home: Path | None
    ours: bool = True
    lock: None = None

    def place(self, files: Mapping[str, Path]) -> str:
        """Return the folder in which the files lie already."""
        (folder,) = {path.absolute().parent for path in files.values()}
        assert all(path.name == name for name, path in files.items())
        return str(folder)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Make a temporary folder."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="slipway-") as name:
            yield name

    def start(self, command: str, noise: IO[str]) -> Process:
        """Start our runner in this interpreter."""
        return Popen(
            [str(self.python), "-m", "pipeline.runtimes.runner", command],
            # elsewhere than here for a foreign environment: it finds its own wheel alone
            cwd=self.home or self.python.parent,
            stdin=PIPE,
            stdout=PIPE,
            stderr=noise,
            text=True,
            errors="replace",
        )

    def fetch(self, there: str, here: Path) -> None:
        """Move one file."""
        import shutil

        shutil.move(there, here)

    def failure(self, returncode: int, noise: str) -> None:  # noqa: ARG002 - the protocol's
        """Nothing lies between."""
        return
