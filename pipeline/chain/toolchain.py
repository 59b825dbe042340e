"""Stage ``toolchain``: which tools are installed, which machines measure. Never fails.

Reads   params.yaml [targets]; the installed distributions; this machine, and the connected devices,
        each for five seconds at most; what those said the last time
Writes  models/toolchain/ {slipway.json, T/{tools.json, device.json} for each target T}; what
        connected devices said, to be remembered
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import console, files, params
from pipeline.errors import PipelineError
from pipeline.targets import device, hardware, tools

if TYPE_CHECKING:
    from pipeline.transports.probe import Probe

KNOWN_DEVICES = Path(".slipway/devices")


def run(out: Path, p: params.Params, environments: Path, known: Path) -> None:
    out.mkdir(parents=True)
    files.write_atomic(out / "slipway.json", files.encode_json(tools.own_version()))
    machine = device.describe()
    machine["fingerprint"] = device.fingerprint(machine)
    probes = _ask(p, known, environments)
    for name, target in p.targets.items():
        folder = out / name
        folder.mkdir(parents=True)
        probe = probes.get(name)
        found = tools.versions(
            target,
            environments,
            from_onnx=p.net.onnx is not None,
            runtimes=probe.runtimes if probe and probe.unreachable is None else None,
        )
        files.write_atomic(folder / "tools.json", files.encode_json(found))
        described = (probe.device if probe else machine) | _power(target)
        files.write_atomic(folder / "device.json", files.encode_json(described))


def _power(target: params.Target) -> dict[str, float]:
    """Return the catalogue's power where energy is modelled from it: then the profile hangs on it.

    Hardware that is not known is said by `slipway check`, and by the profile itself.
    """
    energy = target.profile.energy
    if energy is None or energy.meter != "modelled" or target.hardware is None:
        return {}
    with suppress(PipelineError):
        power = hardware.find(target.hardware).power
        facts = {"max_power_w": power.max_w, "idle_power_w": power.idle_w}
        return {name: fact.value for name, fact in facts.items() if fact is not None}
    return {}


def _ask(p: params.Params, known: Path, environments: Path) -> "dict[str, Probe]":
    """Describe the devices that are not this machine, all at once."""
    elsewhere = {
        name: target
        for name, target in p.targets.items()
        if target.connection is not None or target.evidence == "emulated"
    }
    if not elsewhere:
        return {}
    from pipeline.transports import probe  # numpy comes with it

    with ThreadPoolExecutor(len(elsewhere)) as pool:
        asked = {
            name: pool.submit(probe.remembered, target, known / f"{name}.json", environments)
            for name, target in elsewhere.items()
        }
        found = {name: each.result() for name, each in asked.items()}
    for name, each in found.items():
        said = each.unreachable or each.note
        if said is not None:
            console.say("toolchain", f"{name}: {said}")
    return found


def main() -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "toolchain",
        lambda: run(
            Path("models/toolchain"), params.load(), tools.environments_path(), KNOWN_DEVICES
        ),
    )
