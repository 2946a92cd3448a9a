"""A table as an HTML element that a screen reader can read: a caption, and headers with their scope."""

import itertools
from collections.abc import Sequence

from cluster.reports.formats.grid import Cell, Grid
from cluster.reports.formats.html import escaped

_MARKS = {"": "{}", "best": "<strong>{}</strong>", "second": "<u>{}</u>"}


def html_table(grid: Grid) -> str:
    """Returns a `<table>`, to be put into a page."""
    lines = ["<table>", f"<caption>{escaped(grid.caption)}</caption>", "<thead>"]
    n_results = len(grid.headers) - grid.n_labels
    if grid.across:
        empty = "<td></td>" * grid.n_labels
        lines.append(f'<tr>{empty}<th scope="colgroup" colspan="{n_results}">{escaped(grid.across)}</th></tr>')
    headers = "".join(f'<th scope="col">{escaped(header)}</th>' for header in grid.headers)
    lines += [f"<tr>{headers}</tr>", "</thead>"]
    rows = iter(grid.rows)
    groups = [_group(grid, list(itertools.islice(rows, n))) for n in grid.groups]
    # What a header of the scope rowgroup is of is its <tbody>.
    bodies = groups if len(groups) < len(grid.rows) else [list(itertools.chain(*groups))]
    for body in bodies:
        lines += ["<tbody>", *body, "</tbody>"]
    if grid.notes:
        notes = escaped(" ".join(grid.notes))
        lines.append(f'<tfoot><tr><td colspan="{len(grid.headers)}">{notes}</td></tr></tfoot>')
    return "\n".join([*lines, "</table>"]) + "\n"


def _group(grid: Grid, rows: Sequence[Sequence[Cell]]) -> list[str]:
    lines = []
    for i, row in enumerate(rows):
        labels = [_label(cell) for cell in row[: grid.n_labels]]
        if len(rows) > 1:
            labels[0] = "" if i else f'<th scope="rowgroup" rowspan="{len(rows)}">{escaped(row[0].text)}</th>'
        lines.append(f"<tr>{''.join(labels)}{''.join(map(_cell, row[grid.n_labels :]))}</tr>")
    return lines


def _label(cell: Cell) -> str:
    return f'<th scope="row">{escaped(cell.text)}</th>'


def _cell(cell: Cell) -> str:
    return f"<td>{_MARKS[cell.mark].format(escaped(cell.text))}</td>"
