import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pipeline import params
from pipeline.chain import toolchain as stage
from pipeline.targets import device

ROOT = Path(__file__).parents[2]


def test_every_target_gets_its_tools_and_this_machine(tmp_path):
    p = params.load(ROOT / "params.yaml")
    stage.run(tmp_path / "out", p, tmp_path / "no-environments", tmp_path / "known")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {*p.targets, "slipway.json"}
    for name, target in p.targets.items():
        machine = json.loads((tmp_path / "out" / name / "device.json").read_bytes())
        is_this_one = machine["fingerprint"] == device.fingerprint(device.describe())
        assert is_this_one == (target.evidence != "emulated")
    assert machine["arch"] == "aarch64"
    tools = json.loads((tmp_path / "out/linux-tflite-runtime/tools.json").read_bytes())
    assert tools["tflite-runtime"] == "absent"
    assert tools["torch"] != "absent"


@pytest.mark.parametrize("name", ["jetson-agx-orin-64gb", "nobody-knows"])
def test_modelled_energy_hangs_on_the_catalogues_power(tmp_path, name):
    p = params.load(ROOT / "params.yaml")
    profile = params.Profile(energy=params.EnergyMeter(meter="modelled"))
    litert = p.targets["x86-litert"]
    changed = msgspec.structs.replace(litert, profile=profile, hardware=name)
    p = msgspec.structs.replace(p, targets={"plain": litert, "modelled": changed})
    stage.run(tmp_path / "out", p, tmp_path, tmp_path / "known")
    plain, modelled = (
        json.loads((tmp_path / "out" / target / "device.json").read_bytes())
        for target in ("plain", "modelled")
    )
    assert modelled["fingerprint"] == plain["fingerprint"]
    more = modelled.keys() - plain.keys()
    assert more == ({"max_power_w"} if name == "jetson-agx-orin-64gb" else set())


def test_what_is_taken_as_it_was_is_said(tmp_path, monkeypatch, capsys):
    reply = {"protocol": 1, "runner": "mine", "device": device.describe(), "runtimes": {}}
    ssh = tmp_path / "ssh"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    p = params.load(ROOT / "params.yaml")
    name, target = next(iter(p.targets.items()))
    board = msgspec.structs.replace(target, connection=params.Ssh(host="board", runner="r"))
    p = msgspec.structs.replace(p, targets={name: board})
    for script in (f"echo '{json.dumps(reply)}'", "exit 255"):
        ssh.write_text(f"#!/bin/sh\n{script}\n")
        ssh.chmod(0o755)
        capsys.readouterr()
        out = tmp_path / str(len(script))
        stage.run(out, p, tmp_path, tmp_path / "known")
        assert json.loads((out / name / "device.json").read_bytes())["runner"] == "mine"
    said = capsys.readouterr()
    assert f"{name}: board: the connection was lost" in said.out + said.err
    assert "taken as it was the last time" in " ".join((said.out + said.err).split())


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
