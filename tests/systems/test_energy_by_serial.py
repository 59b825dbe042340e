"""Energy of a real artifact beside a meter on a real pseudo-terminal: runner, marks, meter."""

import os
import threading
import time
import tty
from functools import reduce
from operator import xor

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import manifest, params
from pipeline.profiling import measure
from pipeline.profiling.bench import Bench, Candidate, Preset

TINY = Preset(num_restarts=2, warmup_s=0.01, timed_s=0.02, min_samples=6)
IDLE_W, PERIOD_S = 3.0, 0.05


@pytest.fixture
def meter_port():
    """A meter that counts as if the machine took so many watts all the time."""
    end, host_end = os.openpty()
    tty.setraw(end)
    stopped = threading.Event()

    def count():
        start = time.monotonic()
        while not stopped.wait(PERIOD_S):
            digits = str(round((time.monotonic() - start) * IDLE_W * 1e6))
            check = reduce(xor, digits.encode())
            os.write(end, f"{digits}*{check:02X}\n".encode())

    def answer():
        while not stopped.is_set():
            if b"hello" in os.read(end, 64):
                os.write(end, b"slipway-meter 1 wall shunt-7\n")  # each time that it is opened
                if not counting.is_alive():
                    counting.start()

    counting = threading.Thread(target=count, daemon=True)
    threading.Thread(target=answer, daemon=True).start()
    yield os.ttyname(host_end)
    stopped.set()
    if counting.is_alive():
        counting.join()


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "dense-fp32"
    folder.mkdir()
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64])
        for name in ("input", "output")
    ]
    weights = numpy_helper.from_array(np.eye(64, dtype=np.float32), "weights")
    node = helper.make_node("MatMul", ["input", "weights"], ["output"])
    graph = helper.make_graph([node], "tiny", values[:1], values[1:], [weights])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), folder / "model.onnx")
    manifest.write(folder, model="tiny", stage="convert")
    return Candidate("dense-fp32", folder)


def test_a_constant_draw_is_no_energy_of_a_request(meter_port, artifact, tmp_path):
    """What idling takes is taken off: a meter that always shows 3 W leaves nothing to a request."""
    raw = np.ones((4, 64), np.float32)
    np.savez(tmp_path / "inputs.npz", inputs=raw)
    energy = params.EnergyMeter(meter="serial", port=meter_port)
    target = params.Target(
        converter="to_onnxruntime",
        runtime="onnxruntime",
        convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(energy=energy),
        select=params.Select(),
    )
    labels = np.zeros(len(raw), np.int64)
    bench = Bench("x86", target, {}, tmp_path / "inputs.npz", labels, TINY)
    (found,) = measure.measure([artifact], artifact.name, bench)
    measured = found.measurement.energy
    assert (measured.kind, measured.meter) == ("wall", "serial: shunt-7")
    assert measured.window_s >= 9.9  # between arrivals of marks
    assert measured.num_runs > 1000
    assert measured.idle_w == pytest.approx(IDLE_W, rel=0.05)
    assert measured.busy_w == pytest.approx(IDLE_W, rel=0.05)
    of_all = msgspec.to_builtins(measured)["busy_w"] * measured.window_s / measured.num_runs * 1e3
    assert abs(measured.value_mj) < 0.1 * of_all
