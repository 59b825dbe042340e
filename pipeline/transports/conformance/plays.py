"""What is played with a runner in each case: each yields what is not as the page says."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtimes import runner, structured
from pipeline.transports import replies
from pipeline.transports.conformance import conversation
from pipeline.transports.conformance.conversation import Answer
from pipeline.transports.conformance.subject import (
    BIAS,
    DENSE,
    FORMATS,
    GIVEN,
    MAX_ERROR,
    QUANTIZED,
    RAW,
    SCALE,
    SHORT,
    STEPS,
    WEIGHTS,
    WIDE,
    ZERO_POINT,
    Subject,
)

MAX_TURNS = 4 * 2 + 5  # of a quarter of the time each, twice as many at most, or of a sample each
QUIET_S = 0.5  # in which a runner that is told to wait must say nothing
LONG = {"warmup_ns": 0, "timed_ns": 1_000_000_000, "min_samples": 5}
QUERIES = {
    "scenario": "MultiStream",
    "batch_size": 1,
    "num_streams": 1,
    "num_threads": 1,
    "samples_per_query": 4,
    "queries_per_s": None,
    "warmup_ns": 0,
    "timed_ns": 20_000_000,
    "min_queries": 5,
    "seed": 0,
}
ENDLESS = {"warmup_ns": 0, "timed_ns": 600_000_000_000, "min_samples": 5}
MIN_SAMPLE_NS = 50_000  # half of what the page says: clocks may rise after the warm-up

Problems = Iterator[str]
Play = Callable[[Subject], Problems]


def describes(subject: Subject) -> Problems:
    """It describes itself."""
    subject.done("describe", None)
    yield from ()


def describes_alike(subject: Subject) -> Problems:
    """It describes itself the same a second time."""
    first, second = (subject.done("describe", None) for _ in range(2))
    for key in ("runner", "device", "runtimes"):
        if first[key] != second[key]:
            yield f"{key} was {first[key]}, then {second[key]}"


def versions_agree(subject: Subject) -> Problems:
    """What runs is what it says to have."""
    described = subject.done("describe", None)["runtimes"].get(subject.runtime)
    loaded = subject.done("load", subject.request())["facts"]["version"]
    if described != loaded:
        yield f"describe says {described}, load {loaded}"


def loads(subject: Subject) -> Problems:
    """It loads the model and tells its tensors."""
    reply = subject.done("load", subject.request())
    for tensor in (*reply["inputs"], *reply["outputs"]):
        if not _is_dtype(tensor["dtype"]):
            yield f"{tensor['name']!r} has dtype {tensor['dtype']!r}, which numpy does not know"
    if not reply["inputs"] or not reply["outputs"]:
        yield "no inputs or no outputs"


def _is_dtype(name: str) -> bool:
    try:
        return np.dtype(name).name == name
    except TypeError:
        return False


def signature(subject: Subject) -> Problems:
    """The tiny models' tensors are known."""
    batch = None if FORMATS[subject.runtime] == "onnx" else 1
    reply = subject.done("load", subject.request())
    yield from _differences(reply["inputs"], [("x", "float32", [batch, 2], None, None)])
    yield from _differences(reply["outputs"], [("y", "float32", [batch, 3], None, None)])
    steps: tuple[Any, ...] = ("float64", [1, 4], None, None)
    if FORMATS[subject.runtime] == "tflite":
        steps = ("int8", [1, 4], SCALE, ZERO_POINT)
    reply = subject.done("load", subject.request(model=subject.tiny("several")))
    wide = ("float32", [1, 2], None, None)
    yield from _differences(reply["inputs"], [("wide", *wide), ("steps", *steps)])
    yield from _differences(reply["outputs"], [("twice", *wide), ("same", *steps)])


def _differences(tensors: list[dict[str, Any]], expected: list[tuple[Any, ...]]) -> Problems:
    """Compare tensors with what is known of them; an axis None is a free one."""
    found = [
        (t["name"], t["dtype"], [None if isinstance(a, str) else a for a in t["shape"]],
         t["scale"], t["zero_point"])
        for t in tensors
    ]  # fmt: skip
    if found != expected:
        yield f"{found} instead of {expected}"


def unknown_keys(subject: Subject) -> Problems:
    """Keys that nobody knows change nothing."""
    subject.done("load", subject.request(colour="blue"))
    subject.outputs(colour={"of": ["the", "sky"]})
    yield from ()


def ends(command: str, request: Callable[[Subject], Any], *codes: int) -> Play:
    """Return a play: the runner ends with one of the codes, and says why in one line."""

    def play(subject: Subject) -> Problems:
        answer = subject.ask(command, request(subject))
        if answer.code not in codes:
            yield f"{answer.told} instead of exit {' or '.join(map(str, codes))}"
        problem = replies.problem(answer.reply, replies.Failed)
        if problem is not None:
            yield f"the reply is no error: {problem}"

    return play


def absent(subject: Subject) -> Problems:
    """Ask for a runtime of ours that it does not have; one that it never heard of is misuse."""
    described = subject.done("describe", None)["runtimes"]
    absent = next((name for name in runner.RUNTIMES if name not in described), None)
    if absent is not None:
        line = subject.request(runtime=absent)
        yield from ends("load", lambda _: line, runner.ABSENT, runner.MISUSED)(subject)


def writes_outputs(subject: Subject) -> Problems:
    """The file and the reply say the same."""
    reply, found = subject.outputs()
    names = [tensor["name"] for tensor in reply["tensors"]]
    parts = structured.parts(found)
    if reply["num_samples"] != len(subject.inputs) or len(found) != len(subject.inputs):
        yield f"{len(found)} outputs, num_samples {reply['num_samples']}, of {len(subject.inputs)}"
    if any(part.dtype != np.float32 for part in parts):
        yield f"outputs are {found.dtype}, not float32"
    if len(names) > 1 and list(found.dtype.names or ()) != names:
        yield f"fields {found.dtype.names}, the model's outputs are {names}"
    loaded = subject.done("load", subject.request())["outputs"]
    if reply["tensors"] != loaded:
        yield f"tensors {reply['tensors']}, load says {loaded}"


def repeats(subject: Subject) -> Problems:
    """Equal samples give equal bytes."""
    (_, first), (_, second) = subject.outputs(), subject.outputs()
    if first.tobytes() != second.tobytes():
        yield "the same samples gave other outputs"


def values(subject: Subject) -> Problems:
    """The numbers are those of the product."""
    yield from _compare(subject.outputs()[1], DENSE @ WEIGHTS + BIAS)


def preprocesses(subject: Subject) -> Problems:
    """Steps are applied to raw integers."""
    _, found = subject.outputs(samples=RAW, preprocessing=STEPS)
    tensor = (RAW * 0.5 - np.array([1, 2])) / np.array([2, 4])
    yield from _compare(found, tensor @ WEIGHTS + BIAS)


def several(subject: Subject) -> Problems:
    """Inputs go in, and outputs come out, by name, in the file's own dtypes."""
    # in another order than the model's: it goes by names
    samples = structured.join({"steps": GIVEN, "wide": WIDE})
    _, found = subject.outputs(
        model=subject.tiny("several"),
        samples=samples,
        preprocessing={"wide": [{"step": "scale", "factor": 2.0}], "steps": []},
    )
    if found.dtype.names != ("twice", "same"):
        yield f"fields {found.dtype.names} instead of ('twice', 'same')"
        return
    yield from _compare(found["twice"], 4 * WIDE)
    is_quantized = FORMATS[subject.runtime] == "tflite"
    yield from _compare(found["same"], QUANTIZED if is_quantized else GIVEN)


def _compare(found: NDArray[Any], expected: NDArray[Any]) -> Problems:
    if found.shape != expected.shape or found.dtype != np.float32:
        yield f"{found.dtype} {found.shape} instead of float32 {expected.shape}"
    elif not np.allclose(found, expected, rtol=MAX_ERROR, atol=MAX_ERROR):
        yield f"{found.tolist()} instead of {expected.tolist()}"


def times(subject: Subject) -> Problems:
    """Samples are as many and as long as the plan says."""
    reply = subject.done("run", subject.request("latency"))
    samples = reply["samples_ns"]
    if len(samples) < SHORT["min_samples"]:
        yield f"{len(samples)} samples, min_samples was {SHORT['min_samples']}"
    # the rest is between samples, where others run on a busy device
    if sum(samples) < 0.5 * SHORT["timed_ns"]:
        yield f"{sum(samples)} ns timed, timed_ns was {SHORT['timed_ns']}"
    if np.median(samples) < MIN_SAMPLE_NS:
        yield f"samples of {np.median(samples):.0f} ns; shorter runs are repeated within one"


def takes_turns(subject: Subject) -> Problems:
    """It says when it waits for a turn, and counts samples by turn; or it knows no turns."""
    lock = f"{subject.scratch}/lock-of-turns"
    turns = {"turn_ns": SHORT["timed_ns"] // 4, "core": 0}
    request = subject.request("latency", turns=turns, lock=lock, wait=True)
    num_turns = 0
    with conversation.started(subject.transport, "run", request, subject.limit_s) as asked:
        asked.ready()
        asked.go()
        while num_turns <= MAX_TURNS and asked.has_said({"turn": num_turns}):
            if not asked.is_quiet(QUIET_S):
                yield "it went on before the line came"
                return
            if num_turns == 1:  # it has given it back
                subject.done("run", subject.request("latency", lock=lock))
            num_turns += 1
            asked.go()
        answer = asked.answer()
    problem = replies.problem(answer.reply, replies.Latency)
    if answer.code != runner.DONE or problem is not None:
        yield f"{answer.told}; {problem}"
        return
    assert answer.reply is not None
    counts = answer.reply.get("samples_per_turn") or []
    num_samples = len(answer.reply["samples_ns"])
    if len(counts) != num_turns:
        yield f"samples_per_turn {counts} of {num_turns} turns"
    if num_turns and sum(counts) != num_samples:
        yield f"samples_per_turn {counts}, and {num_samples} samples"
    cores = answer.reply["host_before"].get("affinity")
    if num_turns and cores is not None and len(cores) > request["num_threads"]:
        yield f"it may use the cores {cores}, num_threads is {request['num_threads']}"


def loads_queries(subject: Subject) -> Problems:
    """It answers queries one after another, says why not, or does not know of loads."""
    answer = subject.ask("run", subject.request("scenario", load=QUERIES))
    if answer.code == runner.MISUSED:
        return
    asked = "run scenario"
    problem = replies.problem(answer.reply, replies.kind_of(answer.reply, asked))
    if answer.code != runner.DONE or problem is not None:
        yield f"{answer.told}; {problem}"
        return
    assert answer.reply is not None
    if answer.reply.get("reason") is None:
        yield from _counts(answer.reply)


def _counts(reply: dict[str, Any]) -> Problems:
    num_queries = reply["num_queries"]
    if num_queries < QUERIES["min_queries"]:
        yield f"{num_queries} queries, min_queries was {QUERIES['min_queries']}"
    if len(reply["latencies_ns"]) != num_queries:
        yield f"{len(reply['latencies_ns'])} latencies of {num_queries} queries"
    per_query = QUERIES["samples_per_query"]
    if reply["num_samples"] != num_queries * per_query:
        yield f"{reply['num_samples']} samples, queries were {num_queries} of {per_query}"


def tells_layers(subject: Subject) -> Problems:
    """It tells operators' times, or that it cannot."""
    answer = subject.ask("run", subject.request("layers", num_runs=5))
    if answer.code in (runner.FAILED, runner.MISUSED):
        return
    problem = replies.problem(answer.reply, replies.Layers)
    if answer.code != runner.DONE or problem is not None:
        yield f"{answer.told}; {problem}"


def digests(subject: Subject) -> Problems:
    """Only the first sample is timed, and the digest is that of what goes in."""
    alone, changed = subject.inputs[:1], subject.inputs[1:2]
    whole, first, other = (
        subject.done("run", subject.request("latency", samples=samples))["input_digest"]
        for samples in (subject.inputs, alone, changed)
    )
    if whole != first:
        yield "another input_digest of the same first sample"
    if first == other:
        yield "the same input_digest of another sample"


def waits(subject: Subject) -> Problems:
    """It says that it is ready and goes on at a line."""
    request = subject.request("outputs", wait=True)
    with conversation.started(subject.transport, "run", request, subject.limit_s) as asked:
        if not asked.ready():
            yield f'no line {{"ready": true}}; {asked.answer().told}'
            return
        if not asked.is_quiet(QUIET_S):
            yield "it went on before the line came"
        asked.go()
        answer = asked.answer()
    problem = replies.problem(answer.reply, replies.Outputs)
    if answer.code != runner.DONE or problem is not None:
        yield f"{answer.told}; {problem}"


def leaves(subject: Subject) -> Problems:
    """The end of its input, in place of that line, means exit."""
    request = subject.request("outputs", wait=True)
    with conversation.started(subject.transport, "run", request, subject.limit_s) as asked:
        asked.ready()
        answer = asked.answer()  # which closes its standard input
    if (answer.reply or {}).get("num_samples") is not None:
        yield "it did what it was asked for"


def holds_lock(subject: Subject) -> Problems:
    """Two that share a lock do not time at once."""
    request = subject.request("latency", plan=LONG, lock=f"{subject.scratch}/lock", wait=True)

    def play(_: int) -> Answer:
        with conversation.started(subject.transport, "run", request, subject.limit_s) as asked:
            asked.ready()
            asked.go()
            return asked.answer()

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(play, range(2)))
    if runner.BUSY in [answer.code for answer in answers]:
        return
    for answer in answers:
        if answer.code != runner.DONE:
            yield answer.told
    apart_s = abs(answers[0].time_s - answers[1].time_s)
    if apart_s < LONG["timed_ns"] / 2e9:
        yield f"two that timed for 1 s each were done {apart_s:.2f} s apart: they ran side by side"


def ends_unread(subject: Subject) -> Problems:
    """A runner whose host is gone lets the next one measure."""
    lock = f"{subject.scratch}/lock-of-a-killed-one"
    request = subject.request("latency", plan=ENDLESS, lock=lock, wait=True)
    with conversation.started(subject.transport, "run", request, subject.limit_s) as asked:
        if asked.ready():
            asked.go()
        time.sleep(QUIET_S)  # it has the lock by then, or will never
    subject.done("run", subject.request("latency", lock=lock))
    yield from ()


def garbage(subject: Subject, content: bytes = b"this is no model" * 16) -> dict[str, Any]:
    """Ask for a file that is no model."""
    return subject.request(model=subject.place(Path(subject.model).name, content))


def unknown_operator(subject: Subject) -> dict[str, Any]:
    """Ask for a model with an operator that no runtime has."""
    return subject.request(model=subject.tiny("unknown"))


def at_run(request: dict[str, Any], subject: Subject) -> dict[str, Any]:
    """Ask for outputs of the same model instead."""
    return subject.request("outputs", model=request["model"])
