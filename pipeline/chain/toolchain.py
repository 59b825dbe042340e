"""Stage ``toolchain``: which tools are installed, which machine this is. Never fails.

Reads   params.yaml [targets]; the installed distributions; this machine
Writes  models/toolchain/ {slipway.json, T/{tools.json, device.json} for each target T}
"""

from pathlib import Path

from pipeline import console, files, params
from pipeline.targets import device, tools


def run(out: Path, p: params.Params, environments: Path) -> None:
    out.mkdir(parents=True)
    files.write_atomic(out / "slipway.json", files.encode_json(tools.own_version()))
    machine = device.describe()
    machine["fingerprint"] = device.fingerprint(machine)
    for name, target in p.targets.items():
        folder = out / name
        folder.mkdir(parents=True)
        found = tools.versions(target, environments, from_onnx=p.net.onnx is not None)
        files.write_atomic(folder / "tools.json", files.encode_json(found))
        files.write_atomic(folder / "device.json", files.encode_json(machine))


def main() -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "toolchain",
        lambda: run(Path("models/toolchain"), params.load(), tools.environments_path()),
    )
