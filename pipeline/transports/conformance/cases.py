"""The table of cases, and playing them."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import TargetError
from pipeline.runtimes import runner
from pipeline.transports.base import Transport
from pipeline.transports.conformance import plays
from pipeline.transports.conformance.plays import Play
from pipeline.transports.conformance.subject import Own, Subject, opened
from pipeline.transports.shell import BrokenLineError

LIMIT_S = 90.0  # of one answer: another one's timing may have to be waited for


@dataclass(frozen=True)
class Row:
    """One case: what was expected, and what was found instead."""

    case: str
    passed: bool
    expected: str
    found: str


@dataclass(frozen=True)
class Case:
    """One sentence of the page; ``play`` yields what is not so.

    ``is_known`` where numbers of the tiny models are needed.
    """

    name: str
    expected: str
    play: Play
    is_known: bool = False


def check(
    transport: Transport, runtime: str, own: Own | None = None, limit_s: float = LIMIT_S
) -> Iterator[Row]:
    """Play every case and give a row each, as they come.

    Args:
        transport: the way to the runner.
        runtime: which of its runtimes.
        own: the user's model, instead of the tiny ones.
        limit_s: for one answer.

    Raises:
        TargetError: there is no tiny model for the runtime and none of the user's; or the device
            is not reached.
    """
    with opened(transport, runtime, own, limit_s) as subject:
        for case in CASES:
            if case.is_known and own is not None:
                continue
            yield _row(case, subject)


def _row(case: Case, subject: Subject) -> Row:
    try:
        problems = list(case.play(subject))
    except BrokenLineError:
        raise  # the device is gone, which is no fault of the runner's
    except TargetError as error:
        problems = [str(error)]
    found = "; ".join(" ".join(problem.split()) for problem in problems)
    return Row(case.name, not problems, case.expected, found or "as expected")


FAILED, MISUSED, REFUSED = runner.FAILED, runner.MISUSED, runner.REFUSED
_ONE_LINE = "and an error of one line"
CASES = (
    Case("describe", "its keys and their types", plays.describes),
    Case("describe twice", "the same runner, device and runtimes", plays.describes_alike),
    Case("version", "describe and facts name the same one", plays.versions_agree),
    Case("load", "its keys and their types", plays.loads),
    Case("signature", "names, dtypes, shapes, scales, zero points", plays.signature, is_known=True),
    Case("unknown keys", "are ignored", plays.unknown_keys),
    Case("another command", f"exit 2 {_ONE_LINE}", plays.ends("train", lambda _: None, MISUSED)),
    Case("no request", f"exit 2 {_ONE_LINE}", plays.ends("load", lambda _: None, MISUSED)),
    Case("no JSON", f"exit 2 {_ONE_LINE}", plays.ends("run", lambda _: "{", MISUSED)),
    Case(
        "another protocol",
        f"exit 2 {_ONE_LINE}",
        plays.ends("load", lambda s: s.request(protocol=0), MISUSED),
    ),
    Case(
        "a key is missing",
        f"exit 2 {_ONE_LINE}",
        plays.ends("run", lambda s: s.request("outputs", inputs=None), MISUSED),
    ),
    Case(
        "another what",
        f"exit 2 {_ONE_LINE}",
        plays.ends("run", lambda s: s.request("outputs") | {"what": "train"}, MISUSED),
    ),
    Case(
        "unknown runtime",
        f"exit 2 {_ONE_LINE}",
        plays.ends("load", lambda s: s.request(runtime="abacus"), MISUSED),
    ),
    Case("absent runtime", f"exit 4 {_ONE_LINE}; 2 if it never heard of it", plays.absent),
    Case("no model", f"exit 3 {_ONE_LINE}", plays.ends("load", plays.garbage, REFUSED)),
    Case(
        "no model, at run",
        f"exit 3 {_ONE_LINE}",
        plays.ends("run", lambda s: plays.at_run(plays.garbage(s), s), REFUSED),
    ),
    Case(
        "unknown operator",
        f"exit 3 {_ONE_LINE}",
        plays.ends("load", plays.unknown_operator, REFUSED),
        is_known=True,
    ),
    Case(
        "empty model file",
        f"exit 3 {_ONE_LINE}",
        plays.ends("load", lambda s: plays.garbage(s, b""), REFUSED),
    ),
    Case(
        "model file absent",
        f"exit 1 {_ONE_LINE}",
        plays.ends("load", lambda s: s.request(model=f"{s.scratch}/absent"), FAILED),
    ),
    Case(
        "inputs file absent",
        f"exit 1 {_ONE_LINE}",
        plays.ends("run", lambda s: s.request("outputs", inputs=s.somewhere()), FAILED),
    ),
    Case(
        "unknown step",
        f"exit 1 or 2 {_ONE_LINE}",
        plays.ends(
            "run",
            lambda s: s.request("outputs", preprocessing=[{"step": "guess"}]),
            FAILED,
            MISUSED,
        ),
    ),
    Case("outputs", "float32 [N, ...] in the file, a field each if several", plays.writes_outputs),
    Case("outputs twice", "the same bytes", plays.repeats),
    Case("values", "y = x @ W + b", plays.values, is_known=True),
    Case("preprocessing", "its steps, on integers", plays.preprocesses, is_known=True),
    Case("several inputs", "by name; quantized, or cast", plays.several, is_known=True),
    Case("latency", "its keys and types; samples so many, so long", plays.times),
    Case("turns", "waits for each, and counts its samples; or ignores them", plays.takes_turns),
    Case("input digest", "of the first sample alone", plays.digests, is_known=True),
    Case("load of queries", "counts agree; or a reason; or exit 2", plays.loads_queries),
    Case("layers", "operators' times; or exit 1 or 2", plays.tells_layers),
    Case("wait", "ready, then nothing before a line comes", plays.waits),
    Case("end of input", "means exit", plays.leaves),
    Case("lock", "two do not time at once: one waits, or exit 5", plays.holds_lock),
    Case("killed", "leaves nothing behind that holds the lock", plays.ends_unread),
)
