"""Publishers that are killed, in processes of their own; run by test_crashes.py.

``step PROJECT STORES``: publish into STORES/0, STORES/1, ...; the publisher of STORES/n is killed
just before it touches its store for the nth time. Ends with the first that finishes; prints how
many there were.

``storm STORE SEED PROJECT...``: one publisher a project, all at once into one store; half of them
are killed at a random moment. Prints the projects that finished.
"""

import functools
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

from pipeline.registry.publish import publish
from pipeline.registry.store import DirectoryStore


def releases_of(project):
    return {path.name: path for path in (project / "models/release").iterdir()}


def fork_publisher(project, store, prepare=lambda: None):
    """Start a publisher and return its process id."""
    process = os.fork()
    if process:
        return process
    try:
        prepare()
        publish(project, DirectoryStore(store), None, releases_of(project))
        os._exit(0)
    finally:
        os._exit(1)


def die_at_touch(store, number):
    """Kill this process just before its nth call that opens or changes a name in the store."""
    left = number

    def hook(event, arguments):
        nonlocal left
        if event in {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.chmod"} and any(
            str(argument).startswith(f"{store}/") for argument in arguments[:2]
        ):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def finished(process):
    """Wait; True if it ended by itself, which must be well, False if it was killed."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def step(project, stores):
    for number in itertools.count():
        store = stores / str(number)
        die = functools.partial(die_at_touch, store, number)
        if finished(fork_publisher(project, store, die)):
            sys.stdout.write(str(number + 1))
            return


def storm(store, seed, *projects):
    generator = random.Random(seed)
    started = time.monotonic()
    processes = {project: fork_publisher(project, store) for project in projects}
    doomed = generator.sample(list(projects), len(projects) // 2)
    moments = sorted((generator.uniform(0, 0.06), project) for project in doomed)
    for moment, project in moments:
        time.sleep(max(0, started + moment - time.monotonic()))
        os.kill(processes[project], signal.SIGKILL)
    survivors = [str(project) for project, process in processes.items() if finished(process)]
    sys.stdout.write("\n".join(survivors))


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "step":
        step(*map(Path, arguments))
    else:
        storm(Path(arguments[0]), int(arguments[1]), *map(Path, arguments[2:]))
