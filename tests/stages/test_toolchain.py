import json
import subprocess
import sys
from pathlib import Path

from pipeline import params
from pipeline.chain import toolchain as stage
from pipeline.targets import device

ROOT = Path(__file__).parents[2]


def test_every_target_gets_its_tools_and_this_machine(tmp_path):
    p = params.load(ROOT / "params.yaml")
    stage.run(tmp_path / "out", p, tmp_path / "no-environments", tmp_path / "known")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {*p.targets, "slipway.json"}
    for name in p.targets:
        machine = json.loads((tmp_path / "out" / name / "device.json").read_bytes())
        assert machine["fingerprint"] == device.fingerprint(device.describe())
    tools = json.loads((tmp_path / "out/linux-tflite-runtime/tools.json").read_bytes())
    assert tools["tflite-runtime"] == "absent"
    assert tools["torch"] != "absent"


def test_it_writes_the_same_bytes_again(tmp_path):
    p = params.load(ROOT / "params.yaml")
    for name in ("first", "second"):
        stage.run(tmp_path / name, p, tmp_path, tmp_path / "known")
    for path in (tmp_path / "first").rglob("*.json"):
        assert (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes() == (
            path.read_bytes()
        )


def test_what_dvc_always_runs_imports_neither_torch_nor_dvc():
    code = "import sys, pipeline.chain.toolchain; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert not {"torch", "dvc", "onnx", "onnxruntime", "numpy"} & set(done.stdout.split())
