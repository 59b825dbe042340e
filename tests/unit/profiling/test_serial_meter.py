"""A meter played on the other end of a real pseudo-terminal; the clock is scripted."""

import os
import select
import threading
import tty
from functools import reduce
from operator import xor

import pytest

from pipeline.errors import TargetError
from pipeline.profiling import energy, serial_meter
from pipeline.runtimes import meters

MS, S = 1_000_000, 1_000_000_000
HELLO = b"slipway-meter 1 wall shunt-7\n"
GREETING = HELLO + b"0*30\n"


def count(microjoules):
    digits = str(microjoules)
    return f"{digits}*{reduce(xor, digits.encode()):02X}\n".encode()


class Played:
    """The meter's end: answers ``hello`` with `greeting`, and says what the test tells it to.

    The clock stands still until `tick` has seen its line arrive, so every time is known.
    """

    def __init__(self, greeting=GREETING):
        self.end, self.host_end = os.openpty()
        tty.setraw(self.end)
        self.port = os.ttyname(self.host_end)
        self.greeting, self.now_ns, self.microjoules = greeting, 1000 * S, 0
        self.meter, self.is_open = None, True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self):
        while not self._stopped.is_set():
            if select.select([self.end], [], [], 0.01)[0] and b"hello\n" in os.read(self.end, 64):
                self.say(self.greeting)

    def say(self, line):
        os.write(self.end, line)

    def now(self):
        return self.now_ns

    def tick(self, time_ns, watts, line=None):
        """Let time pass, then say the sum (or another line) and wait until it has arrived."""
        self.now_ns += time_ns
        self.microjoules += round(time_ns * watts / 1000)
        before = len(self.meter._counts), self.meter._num_strange
        self.say(line or count(self.microjoules))
        with self.meter._changed:
            assert self.meter._changed.wait_for(
                lambda: (len(self.meter._counts), self.meter._num_strange) != before, 10
            )

    def pass_by(self, time_ns, watts, step_ns=100 * MS):
        for _ in range(time_ns // step_ns):
            self.tick(step_ns, watts)

    def unplug(self):
        self.close()

    def close(self):
        self._stopped.set()
        self._thread.join()
        if self.is_open:
            os.close(self.end)
            self.is_open = False


@pytest.fixture
def play():
    made = []

    def make(greeting=GREETING):
        made.append(Played(greeting))
        return made[-1]

    yield make
    for played in made:
        played.close()
        os.close(played.host_end)


def opened(played, **limits):
    return serial_meter.opened(played.port, now=played.now, **{"hello_s": 5, **limits})


MARKS = {
    "idle_before": 1001 * S, "idle_before_end": 1003 * S, "busy": 1003 * S, "busy_end": 1013 * S,
    "idle_after": 1013 * S, "idle_after_end": 1015 * S,
}  # fmt: skip


def record(played, meter):
    """Two seconds at 1.5 W around ten at 6 W, and a second more at each end."""
    played.meter = meter
    for time_ns, watts in ((3 * S, 1.5), (10 * S, 6.0), (3 * S, 1.5)):
        played.pass_by(time_ns, watts)


def test_a_meter_says_who_it_is_and_counts(play):
    played = play()
    with opened(played) as meter:
        assert (meter.name, meter.kind) == ("shunt-7", "wall")
        record(played, meter)
        found = meter.read(MARKS)
    assert found == {
        "window_ns": 10 * S, "joules": pytest.approx(60), "idle_w": pytest.approx([1.5, 1.5]),
        "place": "wall", "facts": {"reads": "energy", "name": "shunt-7", "num_garbled": 0},
    }  # fmt: skip


def test_between_two_lines_energy_flows_evenly(play):
    played = play()
    with opened(played) as meter:
        record(played, meter)
        shifted = {name: time_ns + 30 * MS for name, time_ns in MARKS.items()}
        # 30 ms of the window are at 1.5 W instead of 6, and 30 ms of idling before at 6 W
        found = meter.read(shifted)
    assert found["joules"] == pytest.approx(60 - 0.03 * 4.5)
    assert found["idle_w"] == pytest.approx([1.5 + 0.03 * 4.5 / 2, 1.5])


def test_the_whole_way_from_marks_to_energy(play):
    """The device takes 6 W for requests of 100 ms and idles at 1.5 W: 450 mJ above idle each."""
    played = play()
    with opened(played) as meter:
        played.meter, marks = meter, {}
        played.pass_by(1 * S, 1.5)
        reply = meters.measure(
            lambda: played.pass_by(100 * MS, 6.0), "serial", 10 * S, now=played.now,
            sleep=lambda seconds: played.pass_by(round(seconds * S), 1.5),
            mark=lambda name: marks.setdefault(name, played.now()),
        )  # fmt: skip
        found = energy.metered({**reply, **meter.read(marks)})
    assert found.value_mj == pytest.approx(450)
    assert (found.meter, found.kind, found.num_runs) == ("serial: shunt-7", "wall", 100)
    assert set(found.flags) <= {"host_busy"}  # this machine's own, while tests run beside


BAD_LINES = {
    "noise": b"\xff\x00\xfe~~\n",
    "half a count": b"1234\n",
    "a digit that was lost": count(1234567).replace(b"3", b"", 1),
    "a digit that flipped": count(1234567).replace(b"3", b"4", 1),
    "a blank line": b"\r\n",
    "no end for long": b"7" * 201 + b"\n",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_left_out_and_told_of(play, line):
    played = play()
    with opened(played) as meter:
        played.meter = meter
        played.pass_by(8 * S, 2.0)
        played.tick(50 * MS, 2.0, line)
        played.pass_by(8 * S, 2.0)
        found = meter.read(MARKS)
    assert found["joules"] == pytest.approx(20)
    assert energy.metered({"meter": "serial", "num_runs": 1, **found}).flags == (
        "below_idle", "meter_garbled",
    )  # fmt: skip


def test_lines_that_arrive_together_count_from_the_last(play):
    played = play(b"noise\r\n" + HELLO + count(5) + count(7) + HELLO + count(9))
    with opened(played) as meter:
        played.meter = meter
        played.pass_by(1 * S, 2.0)
        assert meter._counts[0] == (1000 * S, 9)
        assert meter._num_strange == 0


def test_a_meter_that_cannot_hear_says_who_it_is_by_itself(play):
    played = play(b"")
    threading.Timer(
        0.05, lambda: played.say(b"17*06\n" + HELLO.replace(b"\n", b"\r\n") + count(3))
    ).start()
    with opened(played) as meter:
        assert meter.name == "shunt-7"


GREETINGS = {
    "a silent port": (b"", r"meter on /dev/\S+: nothing came within 0\.3 s, and no first line"),
    "another program's lines": (
        b"$GPGGA,123519\n" * 2,
        r"meter on /dev/\S+: \d+ lines came within 0\.3 s, and no first line .* at 115200 baud",
    ),
    "a later protocol": (
        HELLO.replace(b"1", b"2"),
        r"speaks version 2 of the protocol and this slipway version 1; update one of them; noth",
    ),
    "a meter that sits nowhere": (
        HELLO.replace(b"wall", b"roof"),
        r"a meter is rail, package, wall, and it says 'roof'",
    ),
    "a meter that never counts": (HELLO, r"shunt-7 counted nothing for 0\.3 s after it said who"),
}


@pytest.mark.parametrize(("greeting", "words"), GREETINGS.values(), ids=GREETINGS)
def test_before_anything_runs_it_refuses(play, greeting, words):
    with (
        pytest.raises(TargetError, match=words) as caught,
        opened(play(greeting), hello_s=0.3, silence_s=0.3),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_meter_that_falls_silent_at_the_end_is_said(play):
    played = play()
    with opened(played, silence_s=0.2) as meter:
        played.meter = meter
        played.pass_by(14 * S, 2.0)  # of fifteen
        with pytest.raises(TargetError, match=r"shunt-7 counted nothing for 0\.2 s at the end; ch"):
            meter.read(MARKS)


def test_a_gap_in_a_phase_is_not_bridged(play):
    played = play()
    with opened(played) as meter:
        played.meter = meter
        played.pass_by(5 * S, 2.0)
        played.tick(1100 * MS, 2.0)
        played.pass_by(10 * S, 2.0)
        with pytest.raises(TargetError, match="counted nothing for 1 s while it was read"):
            meter.read(MARKS)


def test_a_phase_before_the_first_line_is_not_guessed(play):
    played = play()
    with opened(played) as meter:
        record(played, meter)
        with pytest.raises(TargetError, match="counted nothing for 1 s while it was read"):
            meter.read({**MARKS, "idle_before": 999 * S})


def test_a_meter_that_starts_again_is_said(play):
    played = play()
    with opened(played) as meter:
        record(played, meter)
        played.say(count(12))
        with meter._changed:
            meter._changed.wait_for(lambda: meter._failure, 10)
        with pytest.raises(
            TargetError, match=r"its sum fell from 69000000 to 12 uJ, it started aga"
        ):
            meter.read(MARKS)


def test_a_meter_that_is_unplugged_is_said(play):
    played = play()
    with opened(played) as meter:
        record(played, meter)
        played.unplug()
        with meter._changed:
            meter._changed.wait_for(lambda: meter._failure, 10)
        with pytest.raises(TargetError, match=r"the port is gone \(.*\); plug the meter in again"):
            meter.read(MARKS)


def test_a_runner_that_does_not_mark_is_said(play):
    played = play()
    with opened(played) as meter:
        record(played, meter)
        some = {name: MARKS[name] for name in ("idle_before", "busy", "busy_end")}
        with pytest.raises(
            TargetError, match="did not mark idle_before_end, idle_after, idle_after_end; each"
        ):
            meter.read(some)


def test_two_sessions_do_not_share_a_meter(play):
    played = play()
    with (
        opened(played),
        pytest.raises(TargetError, match="another session reads it; wait until"),
        opened(played),
    ):
        pass


def test_a_port_that_is_not_there_or_is_a_file_is_one_line(tmp_path):
    for path, words in (
        (tmp_path / "ttyUSB7", r"meter on .*ttyUSB7: it cannot be opened: No such file .*; plug"),
        (
            tmp_path / "file",
            r"meter on .*file: it is no serial port; correct profile\.energy\.port",
        ),
    ):
        if path.name == "file":
            path.write_text("")
        with pytest.raises(TargetError, match=words), serial_meter.opened(str(path)):
            pass


def test_the_documents_example_is_one(play):
    """docs/serial-meter.md shows lines that are read."""
    for line in (b"1203344*33\n", b"1203980*31\n"):
        assert count(int(line.split(b"*")[0])) == line
    played = play(b"slipway-meter 1 wall shunt-7\n1203344*33\n")
    with opened(played) as meter:
        assert meter._counts[0][1] == 1203344
