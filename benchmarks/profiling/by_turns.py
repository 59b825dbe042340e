"""Let whole programs run by turns on one core, so that all meet the same machine.

On a shared machine a core goes at half its speed for a quarter of a second to some seconds at a
time. Programs that nobody can ask to wait are stopped and continued by signals. A run that is under
way when its program is stopped seems long; turns are long enough for these to be few.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from benchmarks.profiling import page

TURN_S = 0.1


def run(commands: Mapping[str, Sequence[str]], core: int) -> dict[str, str]:
    """Run all to their end, each with what it starts; return the last line that each prints.

    Args:
        commands: by name, in the order of turns.
        core: the one to run on, counted round.
    """
    with page.on_one_core(core):
        started = {
            name: subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )
            for name, command in commands.items()
        }  # fmt: skip
    try:
        for process in started.values():
            _signal(process, signal.SIGSTOP)
        while any([_turn(process) for process in started.values()]):  # noqa: C419 - a turn for all
            pass
        return {name: _last_line(name, process) for name, process in started.items()}
    finally:
        for process in started.values():
            _signal(process, signal.SIGKILL)
            process.wait()


def _turn(process: subprocess.Popen[str]) -> bool:
    """Let it run for a while; False if it has ended."""
    if process.poll() is not None:
        return False
    _signal(process, signal.SIGCONT)
    time.sleep(TURN_S)
    _signal(process, signal.SIGSTOP)
    return True


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, number)


def _last_line(name: str, process: subprocess.Popen[str]) -> str:
    said, noise = process.communicate()
    if process.returncode:
        sys.exit(f"{name} failed:\n{said[-2000:]}\n{noise[-2000:]}")
    return said.splitlines()[-1]
