"""A table as Markdown, in GitHub's flavour."""

import re
from collections.abc import Sequence

from cluster.reports.formats.grid import Cell, Grid

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~#$&]")
_MARKS = {"": "{}", "best": "**{}**", "second": "<ins>{}</ins>"}


def markdown(grid: Grid) -> str:
    """Returns a table with its caption above it and its notes below; then its second table."""
    # A table in Markdown has one line of headers.
    titles = [title for title, n in grid.spans for _ in range(n)] or [""] * len(grid.headers)
    headers = [escaped(f"{t}: {header}" if t else header) for t, header in zip(titles, grid.headers, strict=True)]
    rule = [":--" if alignment == "l" else "--:" for alignment in grid.alignments]
    lines = [escaped(grid.caption), "", _line(headers), _line(rule), *(_line(_cells(row)) for row in grid.rows)]
    if grid.notes:
        lines += ["", *map(escaped, grid.notes)]
    text = "\n".join(lines) + "\n"
    return text if grid.below is None else f"{text}\n{markdown(grid.below)}"


def escaped(text: str) -> str:
    """Returns a text as Markdown that shows it, on one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def _cells(row: Sequence[Cell]) -> list[str]:
    return [_MARKS[cell.mark].format(escaped(cell.text)) for cell in row]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
