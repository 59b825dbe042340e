"""How stages and commands speak: one entry point, one line an error, noise in a log."""

import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from pipeline.errors import PipelineError

LOG_PATH = Path(".slipway/log")
EXIT_BAD_INPUT = 2
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

# The user's terminal, also while `quiet_libraries` sends file descriptors 1 and 2 to the log.
# Without a terminal (CI, a file) rich would fold tables at 80 columns.
terminal = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def run_stage(name: str, stage: Callable[[], None]) -> None:
    """Run a DVC stage to its process's end: dies with dvc, logs noise, says errors in one line."""
    die_with_parent()
    try:
        with quiet_libraries(LOG_PATH / f"{name}.log"):
            stage()
    except PipelineError as error:
        if "SLIPWAY_DEBUG" in os.environ:
            raise
        fail(f"{name}: {error}")
    leave(0)


def leave(code: int) -> NoReturn:
    """End this process with all written, but do not take its libraries down.

    What they asked to be called at exit is called; to free torch's or a converter's modules one by
    one after that takes a second, of every stage.
    """
    atexit._run_exitfuncs()
    flush()
    os._exit(code)


def flush() -> None:
    """Write what Python and C's libraries hold back for standard output and error."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)


def fail(line: str) -> NoReturn:
    """Print the one line of an error and exit 2."""
    print(" ".join(line.split()), file=sys.stderr)  # noqa: T201 - the one place that speaks to stderr
    raise SystemExit(EXIT_BAD_INPUT)


def die_with_parent() -> None:
    """Be killed when the parent is: a killed dvc must leave no writer behind (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def quiet_libraries(log: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2 to the log; `say` and `track` still reach the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    flush()
    saved_out, saved_err = os.dup(1), os.dup(2)
    shown = os.fdopen(os.dup(saved_out), "w", buffering=1, encoding="utf-8")
    with log.open("w", encoding="utf-8") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    # not the property, which would give today's sys.stdout, to be kept when that has been replaced
    previous, terminal.file = terminal._file, shown
    try:
        yield
    finally:
        flush()
        os.dup2(saved_out, 1)
        os.dup2(saved_err, 2)
        terminal._file = previous
        shown.close()
        os.close(saved_out)
        os.close(saved_err)


def say(stage: str, text: str) -> None:
    """Print one aligned line: the stage or target, then what it did."""
    terminal.print(f"{stage:<11} {text}", markup=False)


def scaled(value: float, unit: str = "") -> str:
    """Write a count with three digits and a prefix: ``77.4 k``, ``12.5 MB``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.5 and above would be written as 1e+03
        if value >= 0.9995 * factor:
            return f"{value / factor:#.3g}".rstrip(".") + f" {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


@contextmanager
def track(stage: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar, on a terminal only; call what is yielded once a step, with a short note."""
    # here, not above: `slipway --help` shows no bar and should not wait for one
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(f"{stage:<11}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda note: bar.update(task, advance=1, description=note)
