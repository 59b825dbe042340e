"""Queries that arrive by themselves, as a Poisson process, and the queue in which they wait."""

from __future__ import annotations

import math
import random
import select
import sys
import threading
import time
from typing import Callable, List, NamedTuple, Optional, Sequence

from pipeline.runtimes.session import Array, Session

NS_PER_S = 1e9
# Sleeping ends late by the kernel's timer slack (50 us) and the wake-up, so the last stretch before
# an arrival is waited awake.
AWAKE_NS = 150_000

Now = Callable[[], int]
Sleep = Callable[[float], None]
Request = List[Array]


class Watch(NamedTuple):
    """The clock of a run, in ns, and how to wait for it (`pause`); tests script both."""

    now: Now
    sleep: Sleep


def pause(seconds: float) -> None:
    """Sleep; for 0 seconds only let other threads have Python's lock.

    Python 3.11's ``time.sleep(0)`` is clock_nanosleep, which takes the timer slack of 50 us; a
    ``select`` that waits for nothing takes 1 us.
    """
    if seconds > 0:
        time.sleep(seconds)
    elif sys.platform == "win32":  # its select takes no empty lists
        time.sleep(0)
    else:
        select.select([], [], [], 0)


class Answer(NamedTuple):
    """One query: when it arrived and when it was answered.

    ``occupied_ns`` is how long it kept its stream from the others: from its start, or, if it had
    been waiting, from when that stream got free. ``lag_ns`` is from arrival to start where the
    stream was free, which is the harness's own; None where it was not.
    """

    due_ns: int
    done_ns: int
    occupied_ns: int
    lag_ns: Optional[int]


def poisson_ns(
    queries_per_s: float, timed_ns: int, min_queries: int, limit_ns: int, seed: int
) -> List[int]:
    """Return when queries arrive: a Poisson process from time 0, the same for the same seed.

    It ends with the first arrival at which both the time and the number of queries are reached, or
    before the limit. Python's own generator gives the same numbers in every version, numpy's need
    not (NEP 19).
    """
    generator = random.Random(seed)  # noqa: S311 - no secret
    found: List[int] = []
    at = 0.0
    while len(found) < min_queries or at < timed_ns:
        at -= math.log(1.0 - generator.random()) / queries_per_s * NS_PER_S
        if at > limit_ns:
            break
        found.append(round(at))
    return found


class Queue:
    """Queries in the order of their arrival, which streams take one by one."""

    def __init__(self, arrivals_ns: Sequence[int], start: int, end: int, watch: Watch) -> None:
        """Arrivals count from ``start``; nothing starts from ``end`` on."""
        self.answers: List[Answer] = []
        self._left = iter(enumerate(arrivals_ns))
        self._turn = threading.Lock()
        self._start, self._end, self._watch = start, end, watch

    def serve(self, session: Session, requests: Sequence[Request]) -> None:
        """Answer queries until none is left, or it is too late; several streams do so at once."""
        now = self._watch.now
        free = now()
        while True:
            with self._turn:  # whose turn it is waits for the next arrival, alone
                taken = next(self._left, None)
                if taken is None:
                    return
                index, arrival = taken
                due = self._start + arrival
                self._wait_until(due)
                began = now()
                if began >= self._end:
                    return
            session.run(requests[index % len(requests)])
            done = now()
            if due <= free:
                self.answers.append(Answer(due, done, done - free, None))
            else:
                self.answers.append(Answer(due, done, done - began, began - due))
            free = done

    def _wait_until(self, due: int) -> None:
        now, sleep = self._watch
        left = due - now()
        if left > AWAKE_NS:
            sleep((left - AWAKE_NS) / NS_PER_S)
        while now() < due:
            sleep(0)
