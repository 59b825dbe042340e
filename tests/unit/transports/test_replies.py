"""What a runner prints, and what a reply must hold."""

import copy
import signal
import subprocess

import pytest

from pipeline.errors import TargetError
from pipeline.transports import base, replies

TENSOR = {"name": "x", "dtype": "int8", "shape": [1, "n"], "scale": 0.5, "zero_point": -3}
FACTS = {"version": "2.14.0", "provider": "CPU"}
WHOLE = {
    "describe": {
        "protocol": 1, "runner": "mine 1", "runtimes": {"litert": "2.3.0"}, "more": [1],
        "device": {"arch": "aarch64", "cpu_model": "Pi", "isa_flags": [], "num_cores": 4,
                   "accelerator": "none", "board": "B"},
    },
    "load": {
        "protocol": 1, "load_ns": 5, "peak_memory_bytes": None, "facts": FACTS,
        "inputs": [TENSOR], "outputs": [{**TENSOR, "scale": None, "zero_point": None}],
    },
    "run outputs": {
        "protocol": 1, "num_samples": 3, "peak_memory_bytes": 0, "facts": FACTS,
        "tensors": [TENSOR],
    },
    "run latency": {
        "protocol": 1, "load_ns": 5, "first_ns": 5, "samples_ns": [9], "runs_per_sample": 1,
        "num_warmup": 0, "steady": False, "loop_overhead_ns": 0.0, "facts": FACTS,
        "input_digest": "sha256:" + "0" * 64, "host_before": {}, "host_after": {},
        "others_ratio": None,
    },
    "run scenario": {
        "protocol": 1, "latencies_ns": [5], "num_queries": 1, "num_samples": 8, "duration_ns": 9,
        "flags": [], "facts": FACTS,
    },
    "run layers": {
        "protocol": 1,
        "layers": [{"name": "a", "operator": "Add", "time_ns": 5, "provider": "CPU"}],
    },
    "run loadgen": {
        "protocol": 1, "reason": None, "summary": "Result is : VALID", "num_queries": 1,
        "num_samples": 1, "loadgen_version": "6", "facts": {**FACTS, "runtime": "litert"},
    },
}  # fmt: skip
CASES = [(what, key) for what, reply in WHOLE.items() for key in reply if key != "more"]
WRONG = [
    ("describe", ("device", "num_cores"), 0),
    ("describe", ("device", "isa_flags"), "neon"),
    ("describe", ("device", "arch"), ""),
    ("describe", ("runtimes", "litert"), None),
    ("describe", ("protocol",), 2),
    ("load", ("load_ns",), 1.5),
    ("load", ("load_ns",), 0),
    ("load", ("inputs", 0, "shape"), [-1]),
    ("load", ("inputs", 0, "scale"), "0.5"),
    ("load", ("facts", "version"), ""),
    ("run outputs", ("num_samples",), 0),
    ("run latency", ("samples_ns",), []),
    ("run latency", ("samples_ns", 0), 0),
    ("run latency", ("runs_per_sample",), 0),
    ("run latency", ("steady",), None),
    ("run latency", ("input_digest",), "0" * 64),
    ("run latency", ("others_ratio",), 1.5),
]


@pytest.mark.parametrize("what", WHOLE)
def test_a_whole_reply_may_hold_more(what):
    replies.check(WHOLE[what], what, "board")
    assert replies.problem(WHOLE[what], replies.KINDS[what]) is None


@pytest.mark.parametrize(("what", "key"), CASES)
def test_what_a_reply_lacks_is_named(what, key):
    reply = {name: value for name, value in WHOLE[what].items() if name != key}
    with pytest.raises(
        TargetError, match=rf"^board: the runner's reply to {what} .*`{key}`.*check"
    ):
        replies.check(reply, what, "board")


@pytest.mark.parametrize(("what", "path", "value"), WRONG)
def test_a_value_that_cannot_be_is_refused(what, path, value):
    reply = copy.deepcopy(WHOLE[what])
    *before, last = path
    place = reply
    for key in before:
        place = place[key]
    place[last] = value
    with pytest.raises(TargetError, match=r"is not as docs/runner-protocol.md says"):
        replies.check(reply, what, "board")


@pytest.mark.parametrize("reply", [None, {"ready": True}])
@pytest.mark.parametrize("asked", [*WHOLE, "run energy"])
def test_no_reply_is_refused(reply, asked):
    with pytest.raises(TargetError, match=rf"the runner's reply to {asked} is not as"):
        replies.check(reply, asked, "board")


@pytest.mark.parametrize(
    ("asked", "is_enough"), [("run scenario", True), ("run loadgen", True), ("run latency", False)]
)
def test_a_load_that_cannot_be_had_is_told_by_its_reason(asked, is_enough):
    reply = {"protocol": 1, "reason": "its batch axis is fixed"}
    assert (replies.problem(reply, replies.kind_of(reply, asked)) is None) == is_enough


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("noise\n{}", {}), ('{"a": 1}\n', {"a": 1}), ("", None), ("{}\nnoise", None),
        ("[1]", None), ("{", None), ('\n{"a": 1}\r\n', {"a": 1}),
    ],
)  # fmt: skip
def test_the_last_line_is_the_reply(said, found):
    assert base.document(said) == found


@pytest.mark.parametrize(
    ("returncode", "name"),
    [(-9, "SIGKILL"), (137, "SIGKILL"), (139, "SIGSEGV"), (0, None), (1, None), (127, None),
     (191, "signal 63"), (128, None), (255, None)],
)  # fmt: skip
def test_codes_of_signals(returncode, name):
    assert base.killed_by(returncode) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "no message"),
        ("a\n\n b \n\n", "b"),
        ("\x1b[31mred\x00", "[31mred"),
        ("é" * 400, "é" * 300),
    ],
)
def test_the_last_line_can_be_shown(text, shown):
    assert base.last_line(text) == shown


READY = '{"ready": true}'


@pytest.mark.parametrize(
    ("script", "is_in_time", "said"),
    [
        (f"echo '{READY}'; exec sleep 60", True, f"{READY}\n"),
        (f"echo motd; echo '{{}}'; echo '{READY}'; exec sleep 60", True, f"motd\n{{}}\n{READY}\n"),
        (f"printf '%s' '{READY[:5]}'; sleep 0.1; echo '{READY[5:]}'; sleep 60", True, f"{READY}\n"),
        ("echo motd; exec sleep 60", False, "motd\n"),
        ('echo \'{"error": "absent"}\'', True, '{"error": "absent"}\n'),
        ("true", True, ""),
    ],
    ids=["ready", "after noise", "in two parts", "never", "failed", "ended"],
)
def test_a_runner_is_ready_when_it_says_so(script, is_in_time, said):
    found = bytearray()
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert base.read_until(process, found, 60 if is_in_time else 0.3) == is_in_time
        assert found.decode() == said
        if is_in_time:  # what was read once is not waited for again
            assert base.read_until(process, found, 0)
        process.send_signal(signal.SIGKILL)
