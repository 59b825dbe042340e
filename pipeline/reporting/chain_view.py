"""The sections on the chain itself: sensitivity, training curves, lineage."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from markupsafe import Markup

from pipeline.reporting import figures
from pipeline.reporting.charts import curves, graph, sensitivity, svg
from pipeline.reporting.evidence import Curve, Layer
from pipeline.reporting.lineage import Lineage, Link, Node
from pipeline.reporting.views import Column, Key, Plot, table

# The curves that are known, in the order of interest.
TITLES = {
    "loss": "Loss",
    "validation_accuracy": "Validation accuracy, %",
    "learning_rate": "Learning rate",
}
ONE_LAYER = (
    "One layer at a time at low precision, against the same net at fp32; the fewer dB, the more "
    "that layer costs. Most sensitive first."
)
LINES = (
    "A line goes from an output to what was made of it, by the digests in the manifests. Inputs "
    "that also went into an earlier step are in the table alone."
)
OUTSIDE = (
    "A dashed box has an input that no folder here holds: it came from outside, or was replaced "
    "since."
)


def sensitivity_plot(
    variants: Mapping[str, tuple[Layer, ...]], series: Mapping[str, int]
) -> Plot | None:
    """Show what each layer alone costs at low precision; None when nothing was scored."""
    variants = {name: layers for name, layers in variants.items() if layers}
    if not variants:
        return None
    layers = sensitivity.most_sensitive(variants)
    by_layer = {name: {s.layer: s for s in scores} for name, scores in variants.items()}
    columns: list[Column[str]] = [("layer", str)]
    for name, scores in by_layer.items():
        columns += [
            (f"{name}: SQNR, dB", partial(_sqnr, scores)),
            (f"{name}: equal classes", partial(_agreement, scores)),
        ]
    notes = [ONE_LAYER]
    if len(layers) > sensitivity.MAX_LAYERS:
        notes.append(
            f"Drawn are the {sensitivity.MAX_LAYERS} most sensitive of {len(layers)} layers; "
            "all are in the table."
        )
    title = "Sensitivity of each layer"
    return Plot(
        "sensitivity",
        title,
        sensitivity.chart("sensitivity", title, variants, series),
        table(title, columns, layers),
        tuple(notes),
        tuple(
            Key(_icon(sensitivity.dot(order, series.get(name, 1), 11, 11)), name)
            for order, name in enumerate(variants)
        ),
    )


def _sqnr(scores: Mapping[str, Layer], layer: str) -> str:
    found = scores.get(layer)
    if found is None:
        return figures.ABSENT
    return "no error" if found.sqnr_db is None else f"{found.sqnr_db:.1f}"


def _agreement(scores: Mapping[str, Layer], layer: str) -> str:
    found = scores.get(layer)
    if found is None or found.top1_agreement is None:
        return figures.ABSENT
    return f"{found.top1_agreement:.2%}"


def curve_plots(found: tuple[Curve, ...]) -> list[Plot]:
    """Show the training curves, those with one unit together."""
    plots = []
    groups = curves.grouped(found)
    known = [name for name in TITLES if name in groups]
    for index, name in enumerate([*known, *sorted(groups.keys() - TITLES.keys())]):
        group = groups[name]
        title = TITLES.get(name, _spoken(name))
        steps = sorted({step for curve in group for step in curve.steps})
        columns: list[Column[float]] = [("epoch", lambda step: f"{step:g}")]
        for curve in group:
            by_step = dict(zip(curve.steps, curve.values, strict=True))
            columns.append((_spoken(curve.name), partial(_value, by_step)))
        key = f"curve-{index}"
        legend = (Key(_stroke(i), _spoken(c.name)) for i, c in enumerate(group))
        plots.append(
            Plot(
                key,
                title,
                curves.chart(key, f"{title} by epoch", group),
                table(f"{title} by epoch", columns, steps),
                legend=tuple(legend) if len(group) > 1 else (),
            )
        )
    return plots


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _value(by_step: Mapping[float, float], step: float) -> str:
    return f"{by_step[step]:.4g}" if step in by_step else figures.ABSENT


class _Step(NamedTuple):
    node: Node
    link: Link | None


def lineage_plot(found: Lineage) -> Plot | None:
    """Show which stage's output made which; None when there is no manifest."""
    if not found.inputs:
        return None
    rows = [
        _Step(node, link) for node, links in found.inputs.items() for link in (links or (None,))
    ]
    columns: list[Column[_Step]] = [
        ("output of", lambda row: row.node.name),
        ("digest of its manifest", lambda row: row.node.digest.rpartition(":")[2][:16]),
        ("made from", lambda row: row.link.role if row.link else "no other output"),
        ("which is", lambda row: _source(row.link) if row.link else figures.ABSENT),
        ("digest read", lambda row: row.link.digest.rpartition(":")[2][:16] if row.link else ""),
    ]
    notes = [LINES]
    if any(link.source is None for links in found.inputs.values() for link in links):
        notes.append(OUTSIDE)
    title = "What was made from what"
    return Plot(
        "lineage", title, graph.chart("lineage", title, found), table(title, columns, rows),
        tuple(notes), is_wide=True,
    )  # fmt: skip


def _source(link: Link) -> str:
    if link.source is None:
        return "not here: from outside, or replaced since"
    return f"{link.part} of {link.source.name}" if link.part else link.source.name


def _icon(drawn: Markup) -> Markup:
    return svg.element(
        "svg", drawn, class_="icon", viewBox="0 0 22 22", aria_hidden="true", focusable="false"
    )


def _stroke(order: int) -> Markup:
    return _icon(svg.line(1, 11, 21, 11, f"curve curve-{order % 3 + 1}"))
