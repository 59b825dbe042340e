"""What the templates lay out: tables and charts as plain text and finished drawings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from markupsafe import Markup

from pipeline.reporting import figures
from pipeline.reporting.figures import Figure

T = TypeVar("T")


class Key(NamedTuple):
    """One entry of a legend: a drawing that decorates, and the words that say it."""

    icon: Markup
    text: str
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """Cells; the first of a row names it. ``icons`` holds one drawing a row, or none.

    ``strong`` is the row of what ships.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Figure, ...], ...]
    icons: tuple[Markup, ...] = ()
    strong: int | None = None


@dataclass(frozen=True)
class Plot:
    """A chart with what a reader needs beside it; ``key`` is unique on the page."""

    key: str
    title: str
    drawing: Markup
    table: Table
    notes: tuple[str, ...] = ()
    legend: tuple[Key, ...] = ()
    is_wide: bool = False


Column = tuple[str, Callable[[T], str | Figure]]


def table(
    caption: str,
    columns: Sequence[Column[T]],
    items: Sequence[T],
    icons: Sequence[Markup] = (),
    strong: int | None = None,
) -> Table:
    """Fill a table; a column in which no item has a figure is left out."""
    cells = [[_cell(write(item)) for item in items] for _, write in columns]
    kept = [
        index
        for index, column in enumerate(cells)
        if index == 0 or any(cell.value not in {"", figures.ABSENT} for cell in column)
    ]
    return Table(
        caption=caption,
        header=tuple(columns[index][0] for index in kept),
        rows=tuple(tuple(cells[index][row] for index in kept) for row in range(len(items))),
        icons=tuple(icons),
        strong=strong,
    )


def _cell(written: str | Figure) -> Figure:
    return written if isinstance(written, Figure) else Figure(written)
