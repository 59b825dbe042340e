"""How far outputs agree, as tables: a row a candidate, a column a target."""

from collections.abc import Mapping, Sequence
from functools import partial

from pipeline.reporting import figures
from pipeline.reporting.across import REFERENCE, Agreements, Candidate, Row
from pipeline.reporting.figures import Figure
from pipeline.reporting.views import Column, Table, table


def tables(found: Agreements) -> list[Table]:
    """Lay out both comparisons: a row a candidate, a column a target."""
    titles = {
        "Against fp32 of the same variant": found.against_fp32,
        "Between runtimes, at one precision": found.between,
    }
    return [_table(title, rows, found.targets) for title, rows in titles.items() if rows]


def _table(title: str, rows: Sequence[Row], targets: Sequence[str]) -> Table:
    cells: dict[Candidate, dict[str, Row]] = {}
    for row in rows:
        cells.setdefault(Candidate(row.variant, row.precision), {})[row.target] = row
    compared = {c: next(iter(found.values())).reference_target for c, found in cells.items()}
    columns: list[Column[Candidate]] = [
        ("candidate", lambda c: ", ".join(filter(None, c))),
        ("compared with", lambda c: compared[c]),
    ]
    for target in targets:
        kinds = dict.fromkeys(row.kind.replace("_", " ") for row in rows if row.target == target)
        if kinds:
            write = partial(_cell, target, cells, compared)
            columns.append((f"{target}, {' and '.join(kinds)}", write))
    return table(title, columns, list(cells))


def _cell(
    target: str,
    cells: Mapping[Candidate, Mapping[str, Row]],
    compared: Mapping[Candidate, str],
    candidate: Candidate,
) -> str | Figure:
    row = cells[candidate].get(target)
    if row is None:
        is_itself = candidate.precision == REFERENCE and compared[candidate] == target
        return "itself" if is_itself else figures.ABSENT
    found = row.found
    said = f"{found.n:,} samples"
    if found.num_changed is not None:
        said = f"{found.num_changed:,} of {found.n:,} classes change"
    if found.bit_exact_ratio == 1:
        return Figure(said, "every output bit-equal")
    largest = f"{found.max_abs_error:.2g}"
    if found.max_step is not None:
        largest = f"{found.max_step} step{'' if found.max_step == 1 else 's'}"
    share = f"{found.bit_exact_ratio * 100:.1f}{figures.SPACE}%"
    return Figure(said, f"{share} bit-equal, else off by {largest} at most")
