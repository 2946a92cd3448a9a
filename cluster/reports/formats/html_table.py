"""A table as an HTML element that a screen reader can read: a caption, and headers with their scope."""

import itertools
import re
from collections.abc import Sequence

from cluster.reports.formats.grid import Cell, Grid
from cluster.reports.formats.html import Markup, joined, tag

_SIGN = re.compile(r"(?<![\de])-(?=[\d.])")
"""The sign of a number, but not of the exponent in 1e-05."""

_MARKS = {"best": "strong", "second": "u"}


def html_table(grid: Grid, *, class_: str | None = None) -> Markup:
    """Returns a `<table>` for a page, and after it its second table. Columns of numbers have the class 'number'.

    Args:
        grid: The table; a text in it that is `Markup` is already HTML.
        class_: The class of the element.
    """
    classes = ["number" if alignment == "r" else None for alignment in grid.alignments]
    heads = zip(grid.headers, classes, strict=True)
    head = [tag("tr", *(tag("th", header, scope="col", class_=name) for header, name in heads))]
    if grid.spans:
        spans = [
            tag("th", title, scope="colgroup", colspan=n, class_="group") if title else tag("td", colspan=n)
            for title, n in grid.spans
        ]
        head.insert(0, tag("tr", *spans))
    keys: Sequence[str | None] = grid.keys or [None] * len(grid.rows)
    rows = iter(zip(grid.rows, keys, strict=True))
    groups = [_group(grid, list(itertools.islice(rows, n)), classes) for n in grid.groups]
    # A header with the scope rowgroup applies to its <tbody>.
    bodies = groups if len(groups) < len(grid.rows) else [joined(groups)]
    foot = tag("tfoot", tag("tr", tag("td", " ".join(grid.notes), colspan=len(grid.headers))))
    table = tag(
        "table",
        tag("caption", grid.caption),
        tag("thead", *head),
        *(tag("tbody", "\n", body) for body in bodies),
        *([foot] if grid.notes else []),
        class_=class_,
    )
    return table if grid.below is None else joined([table, html_table(grid.below, class_=class_)])


def _group(grid: Grid, rows: Sequence[tuple[Sequence[Cell], str | None]], classes: Sequence[str | None]) -> Markup:
    lines: list[str] = []
    for i, (row, key) in enumerate(rows):
        labels = [tag("th", cell.text, scope="row") for cell in row[: grid.n_labels]]
        if len(rows) > 1:
            labels[:1] = [] if i else [tag("th", row[0].text, scope="rowgroup", rowspan=len(rows))]
        cells = zip(row[grid.n_labels :], classes[grid.n_labels :], strict=True)
        lines += [
            tag("tr", *labels, *(tag("td", _marked(cell), class_=name) for cell, name in cells), data_key=key),
            "\n",
        ]
    return joined(lines)


def _marked(cell: Cell) -> str:
    text = cell.text
    if cell.is_number and not isinstance(text, Markup):
        text = _SIGN.sub("−", text)
    return tag(_MARKS[cell.mark], text) if cell.mark else text
