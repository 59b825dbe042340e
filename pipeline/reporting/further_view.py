"""What a target shows beyond single requests: layers, other loads, energy, its hardware's roofs.

Each is there where there is data; what was asked for and is not there has its reason in a line.
"""

from collections.abc import Sequence

from pipeline import params
from pipeline.measurement import Measurement
from pipeline.profiling import layers
from pipeline.reporting import hardware_view, layer_view, load_view
from pipeline.reporting.answer import Answer
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.evidence import Evidence
from pipeline.reporting.views import Plot


def plots(
    answer: Answer,
    key: str,
    measured: Sequence[Measurement],
    evidence: Evidence,
    look: dict[str, Mark],
) -> tuple[list[Plot], list[str]]:
    """Return the charts of one target, and a line for each that was asked for in vain."""
    target = answer.target
    if not measured:
        return [], []
    asked = evidence.targets.get(target)
    by_layer = layer_view.plot(answer, f"{key}-layers", look)
    by_batch = load_view.plot(target, f"{key}-loads", measured, look)
    energies = hardware_view.energies(target, f"{key}-energy", measured, look)
    found = [*([by_batch] if by_batch else []), *energies]
    absent = []
    if asked is not None and asked.profile.layers and by_layer is None:
        ran = (m.kind for m in measured if m.kind != "not_measured")
        reason = layers.why_none(asked.runtime, next(ran, "not_measured"))
        absent.append(f"No times of layers: {reason}.")
    if asked is not None and _asked_for_batches(asked) and by_batch is None:
        absent.append(f"No throughput against batch: {load_view.why_none(measured)}.")
    if asked is not None and asked.profile.energy and not energies:
        meter = asked.profile.energy.meter
        absent.append(f"No energy: meter {meter} gave none beside a latency.")
    if target in evidence.hardware:
        hardware = evidence.hardware[target]
        roofs, reason = hardware_view.rooflines(
            target, f"{key}-roofline", measured, hardware, evidence.costs, look
        )
        found += roofs
        absent += [f"No roofline: {reason}."] if reason else []
    if by_layer is not None:  # the tallest, so at the end
        found.append(by_layer)
    return found, absent


def _asked_for_batches(asked: params.Target) -> bool:
    offline = any(scenario.scenario == "Offline" for scenario in asked.profile.scenarios)
    return offline or asked.profile.sweep is not None
