"""What an artifact is bound to: what must be equal where it is made and where it runs."""

from pipeline import params
from pipeline.targets.hardware import Bound, Hardware, Key

# Where an entry of the catalogue says what it takes.
FACTS: dict[Bound, Key] = {
    "accelerator_config": ("artifact", "accelerator_config"),
    "compute_capability": ("artifact", "compute_capability"),
    "memory_mode": ("artifact", "memory_modes"),
    "system_config": ("artifact", "system_configs"),
}


def of(target: params.Target) -> dict[Bound, str]:
    """Return what a target's settings bind its artifacts to: a compiler's, none without one."""
    vela, tensorrt = target.convert.vela, target.convert.tensorrt
    found: dict[Bound, str] = {}
    if vela is not None:
        found["accelerator_config"] = vela.accelerator_config
        found["system_config"] = vela.system_config
        found["memory_mode"] = vela.memory_mode
    if tensorrt is not None:
        found["compute_capability"] = tensorrt.compute_capability
    if tensorrt is not None and tensorrt.version is not None:
        found["runtime_version"] = tensorrt.version
    return found


def taken(hardware: Hardware) -> dict[Bound, tuple[str, ...]]:
    """Return what a piece of hardware takes of each; what its entry does not say is absent."""
    artifact = hardware.artifact
    found: dict[Bound, tuple[str, ...]] = {}
    if artifact.accelerator_config is not None:
        found["accelerator_config"] = (artifact.accelerator_config.value,)
    if artifact.compute_capability is not None:
        found["compute_capability"] = (artifact.compute_capability.value,)
    if artifact.memory_modes is not None:
        found["memory_mode"] = artifact.memory_modes.value
    if artifact.system_configs:
        found["system_config"] = tuple(artifact.system_configs)
    return found
