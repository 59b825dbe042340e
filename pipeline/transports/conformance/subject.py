"""A runner under test, the files that it is given, and the numbers that it must give back."""

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TargetError
from pipeline.runtimes import runner
from pipeline.transports import replies
from pipeline.transports.base import Transport
from pipeline.transports.conformance import conversation
from pipeline.transports.conformance.conversation import Answer

TINY = Path(__file__).parent / "tiny"
FORMATS = {
    "onnxruntime": "onnx",
    "litert": "tflite",
    "tflite_runtime": "tflite",
    "tflite_micro": "tflite",
}
SHORT = {"warmup_ns": 0, "timed_ns": 20_000_000, "min_samples": 5}
# What the tiny models hold, and what goes in: y = x @ WEIGHTS + BIAS.
WEIGHTS = np.array([[1, 2, -1], [0.5, -2, 4]], np.float32)
BIAS = np.array([0.25, 0, -1], np.float32)
DENSE = np.array([[0, 0], [1, 0], [0, 1], [-2, 4], [1.5, -0.25]], np.float32)
RAW = np.array([[0, 255], [10, 20], [3, 4]], np.uint8)
STEPS = (
    {"step": "scale", "factor": 0.5},
    {"step": "normalize", "mean": [1.0, 2.0], "std": [2.0, 4.0]},
)
WIDE = np.array([[1, 2], [-0.5, 8]], np.float32)
SCALE, ZERO_POINT = 0.5, 3
# Halves between two steps go to the even one; what is beyond int8 stays at its end.
GIVEN = np.array([[0.25, 0.75, 1000, -1000], [-0.25, 1.25, 62, 0.3]], np.float32)
QUANTIZED = np.array([[0, 1, 62, -65.5], [0, 1, 62, 0.5]], np.float32)
MAX_ERROR = 1e-5


@dataclass(frozen=True)
class Own:
    """A model of the user's, and samples [N, ...] that it takes as they are."""

    model: Path
    inputs: NDArray[Any]


@dataclass(frozen=True)
class Subject:
    """A runner under test, with files placed and a folder of this run's own there."""

    transport: Transport
    runtime: str
    model: str
    inputs: NDArray[Any]
    scratch: str
    here: Path
    limit_s: float
    numbers: Iterator[int]

    def request(self, what: str | None = None, **changes: Any) -> dict[str, Any]:
        """Return a whole request, with changes; None leaves a key out."""
        found: dict[str, Any] = {
            "protocol": runner.PROTOCOL,
            "runtime": self.runtime,
            "model": self.model,
            "num_threads": 1,
        }
        if what is not None:
            samples = changes.pop("samples", self.inputs)
            names = samples.dtype.names
            found |= {
                "what": what,
                "inputs": self.place_inputs(samples),
                "preprocessing": {name: [] for name in names} if names else [],
                "plan": SHORT,
                "outputs": self.somewhere(),
            }
        return {key: value for key, value in (found | changes).items() if value is not None}

    def somewhere(self) -> str:
        """Return a path there that no file has yet."""
        return f"{self.scratch}/{next(self.numbers)}.npz"

    def tiny(self, name: str) -> str:
        """Have one of the tiny models there."""
        path = TINY / f"{name}.{FORMATS[self.runtime]}"
        return f"{self.transport.place({path.name: path})}/{path.name}"

    def place(self, name: str, content: bytes) -> str:
        """Have these bytes there, in a file of that name."""
        folder = self.here / str(next(self.numbers))
        folder.mkdir()
        (folder / name).write_bytes(content)
        return f"{self.transport.place({name: folder / name})}/{name}"

    def place_inputs(self, samples: NDArray[Any]) -> str:
        """Have a file of samples there."""
        # the same are sent once
        kind = f"{samples.dtype} {samples.shape} ".encode()
        path = self.here / f"{hashlib.sha256(kind + samples.tobytes()).hexdigest()[:12]}.npz"
        np.savez(path, inputs=samples)
        return f"{self.transport.place({path.name: path})}/{path.name}"

    def fetch(self, there: str) -> NDArray[Any]:
        """Return the array that a runner wrote.

        Raises:
            TargetError: it wrote none.
        """
        path = self.here / f"{next(self.numbers)}.npz"
        self.transport.fetch(there, path)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found: NDArray[Any] = arrays["outputs"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise TargetError(f"the file holds no array outputs: {error}") from error
        return found

    def ask(self, command: str, request: Any) -> Answer:
        """Let it answer one request."""
        with conversation.started(self.transport, command, request, self.limit_s) as asked:
            return asked.answer()

    def done(self, command: str, request: Any) -> dict[str, Any]:
        """Let it answer one request, and return the reply.

        Raises:
            TargetError: it did not end with 0, or the reply is not as it must be.
        """
        answer = self.ask(command, request)
        if answer.code != runner.DONE or answer.failure is not None:
            raise TargetError(answer.told)
        asked = f"run {request['what']}" if command == "run" else command
        problem = replies.problem(answer.reply, replies.kind_of(answer.reply, asked))
        if problem is not None:
            raise TargetError(problem)
        assert answer.reply is not None
        return answer.reply

    def outputs(self, **changes: Any) -> tuple[dict[str, Any], NDArray[Any]]:
        """Let it run samples: the reply, and the array."""
        request = self.request("outputs", **changes)
        return self.done("run", request), self.fetch(request["outputs"])


@contextmanager
def opened(
    transport: Transport, runtime: str, own: Own | None, limit_s: float
) -> Iterator[Subject]:
    """Place a model and give the runner under test, with a folder of this run's own there.

    Raises:
        TargetError: there is no tiny model for the runtime and none of the user's.
    """
    if own is None and runtime not in FORMATS:
        raise TargetError(
            f"there is no tiny model for {runtime}, only for {', '.join(FORMATS)}; give --model "
            "and --data of your own"
        )
    path = TINY / f"dense.{FORMATS[runtime]}" if own is None else own.model
    with tempfile.TemporaryDirectory(prefix="slipway-") as here, transport.scratch() as scratch:
        model = f"{transport.place({path.name: path})}/{path.name}"
        inputs = DENSE if own is None else own.inputs
        numbers = itertools.count()
        yield Subject(
            transport, runtime, model, inputs, scratch, Path(here), limit_s, numbers
        )  # fmt: skip
