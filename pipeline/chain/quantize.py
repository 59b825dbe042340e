"""Stage ``quantize``: how sensitive each layer is to int8, and the range of what flows into it.

Reads   params.yaml [model, recipes, quantize]; models/data/{calibration,validation}.npz;
        models/distilled/
Writes  models/quantized/ {VARIANT/ (a net directory, sensitivity.json), manifest.json};
        models/metrics/quantize.json
"""

from pathlib import Path
from typing import Any

from pipeline import console, files, manifest, params
from pipeline.compression import figures, variants
from pipeline.compression.quantize import LayerSensitivity, sensitivity
from pipeline.nets import store
from pipeline.training.loop import Tensors, deterministic

SENSITIVITY = "sensitivity.json"
NUM_SAID = 2


def run(
    calibration_npz: Path,
    validation_npz: Path,
    distilled: Path,
    out: Path,
    metrics: Path,
    p: params.Params,
) -> None:
    made_from = manifest.verify(distilled)
    settings = variants.settings_of(p, "quantize")
    calibration, validation = Tensors.read(calibration_npz), Tensors.read(validation_npz)
    out.mkdir(parents=True)
    rows: dict[str, tuple[None, figures.Figures]] = {}
    more: dict[str, dict[str, Any]] = {}
    with deterministic(seed=0):  # nothing is drawn; for the one thread
        for name, cfg in settings.items():
            variants.hand_on(distilled / name, out / name)
            stored = store.load(out / name)
            rows[name] = None, figures.measure(stored.net, stored.input_shape, validation)
            if cfg is not None:
                scores = sensitivity(stored.net, calibration.inputs, cfg)
                files.write_atomic(out / name / SENSITIVITY, files.encode_json(scores))
                more[name] = _summary(scores)
                console.say("quantize", f"{name}   {_said(scores)}")
    figures.write(metrics, rows, more)
    manifest.write(
        out,
        model=p.model,
        stage="quantize",
        inputs=manifest.inputs_of(distilled=distilled, calibration=calibration_npz),
        params={"quantize": variants.describe(settings)},
        tools=variants.tools("torch", "torch-pruning", "safetensors"),
        labels=made_from.labels,
        preprocessing=made_from.preprocessing,
    )
    console.terminal.print(figures.table(rows))


def _summary(scores: tuple[LayerSensitivity, ...]) -> dict[str, Any]:
    return {
        "num_layers": len(scores),
        "most_sensitive": scores[0].layer,
        "lowest_sqnr_db": scores[0].sqnr_db,
        "lowest_top1_agreement": min(score.top1_agreement for score in scores),
    }


def _said(scores: tuple[LayerSensitivity, ...]) -> str:
    worst = ", ".join(
        score.layer if score.sqnr_db is None else f"{score.layer} ({score.sqnr_db:.1f} dB)"
        for score in scores[:NUM_SAID]
    )
    return f"{len(scores)} layers scored   most sensitive: {worst}"


def main() -> None:
    """Run the stage on the project in the current folder."""
    models = Path("models")
    console.run_stage(
        "quantize",
        lambda: run(
            models / "data/calibration.npz",
            models / "data/validation.npz",
            models / "distilled",
            models / "quantized",
            models / "metrics/quantize.json",
            params.load(),
        ),
    )
