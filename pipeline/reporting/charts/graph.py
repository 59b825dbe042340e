"""The lineage as a graph: what all targets share on top, then one row a target."""

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.reporting.charts import svg
from pipeline.reporting.lineage import Lineage, Node

COLUMN, BOX_WIDTH, BOX_HEIGHT = 132, 116, 48
LEFT, TOP = 26, 8
SHARED_ROW, TARGET_ROW = 84, 84
DIGITS = 8  # of a digest: enough to tell versions apart by eye; the table has more
TRUNK = 10


def chart(key: str, title: str, lineage: Lineage) -> Markup:
    """Draw the direct steps; an input that also went into a source of the node is left out."""
    shared = [node for node in lineage.inputs if node.target is None]
    targets = list(dict.fromkeys(n.target for n in lineage.inputs if n.target is not None))
    top_of_targets = TOP + (SHARED_ROW if shared else 0)
    places: dict[Node, tuple[float, float]] = {}
    _place(shared, lineage, TOP, places)
    parts: list[Markup] = [_arrow()]
    for index, target in enumerate(targets):
        row = top_of_targets + index * TARGET_ROW
        of_target = [node for node in lineage.inputs if node.target == target]
        _place(of_target, lineage, row + 24, places)
        parts.append(svg.text(target, LEFT, row + 16, "row-name strong"))
    parts += _edges(lineage, places, top_of_targets - 14)
    parts += [_box(node, lineage, *at) for node, at in places.items()]
    width = max(x for x, _ in places.values()) + BOX_WIDTH + 8
    height = max(y for _, y in places.values()) + BOX_HEIGHT + 8
    description = (
        f"{len(places)} outputs of stages: {', '.join(node.stage for node in shared)} for all "
        f"targets, then a row for each of {len(targets)} targets. "
        "Every input is in the table below."
    )
    return svg.image(key, title, description, width, height, parts, is_fixed=True)


def _arrow() -> Markup:
    """Define the head of a line, which report.css puts on every edge."""
    head = svg.element("path", d="M0,0L7,3.5L0,7Z", class_="arrow")
    marker = svg.element(
        "marker", head, id="arrow", viewBox="0 0 7 7", refX=6, refY=3.5, markerWidth=7,
        markerHeight=7, orient="auto", markerUnits="userSpaceOnUse",
    )  # fmt: skip
    return svg.element("defs", marker)


def _place(
    nodes: Sequence[Node], lineage: Lineage, y: float, places: dict[Node, tuple[float, float]]
) -> None:
    """Put nodes that depend on one another into columns by depth; equals side by side."""
    column: dict[Node, int] = {}
    taken: set[int] = set()
    for node in nodes:
        before = [column[source] for source in lineage.sources(node) if source in column]
        column[node] = max(before, default=-1) + 1
        while column[node] in taken:
            column[node] += 1
        taken.add(column[node])
        places[node] = (LEFT + column[node] * COLUMN, y)


def _edges(lineage: Lineage, places: dict[Node, tuple[float, float]], bus: float) -> list[Markup]:
    parts = []
    for node, (x, y) in places.items():
        for source in lineage.direct(node):
            sx, sy = places[source]
            if sy == y:
                parts.append(_along(sx, x, y))
            else:
                parts.append(_down(sx, sy, x, y, bus))
    return parts


def _along(source_x: float, x: float, y: float) -> Markup:
    """Connect within a row; over boxes between, the line passes above them."""
    middle = y + BOX_HEIGHT / 2
    start = source_x + BOX_WIDTH
    if x - start <= COLUMN - BOX_WIDTH:
        return _path(f"M{svg.number(start)},{svg.number(middle)}H{svg.number(x - 3)}")
    return _path(
        f"M{svg.number(source_x + BOX_WIDTH / 2)},{svg.number(y)}v-5"
        f"H{svg.number(x + BOX_WIDTH / 2)}V{svg.number(y - 2)}"
    )


def _down(source_x: float, source_y: float, x: float, y: float, bus: float) -> Markup:
    """Connect what all share to a target's row: down to a bus, left, down a trunk, right."""
    bottom = source_y + BOX_HEIGHT
    middle = y + BOX_HEIGHT / 2
    return _path(
        f"M{svg.number(source_x + BOX_WIDTH / 2)},{svg.number(bottom)}V{svg.number(bus)}"
        f"H{TRUNK}V{svg.number(middle)}H{svg.number(x - 3)}"
    )


def _path(d: str) -> Markup:
    return svg.element("path", d=d, class_="edge")


def _box(node: Node, lineage: Lineage, x: float, y: float) -> Markup:
    links = lineage.inputs[node]
    outside = any(link.source is None for link in links)
    read = "; ".join(f"{link.role} {link.digest}" for link in links) or "no inputs"
    return svg.element(
        "g",
        svg.element("title", f"{node.name} {node.digest}; made from: {read}"),
        svg.element(
            "rect", x=x, y=y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=6,
            class_="node outside" if outside else "node",
        ),
        svg.text(node.stage, x + BOX_WIDTH / 2, y + 20, "row-name strong", "middle"),
        svg.text(shortened(node.digest), x + BOX_WIDTH / 2, y + 37, "digest", "middle"),
    )  # fmt: skip


def shortened(digest: str) -> str:
    """Give the first digits of a digest, without its algorithm."""
    return digest.rpartition(":")[2][:DIGITS]
