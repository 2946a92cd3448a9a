"""A table for a terminal."""

import shutil
import textwrap
from dataclasses import replace
from itertools import pairwise

from tabulate import tabulate

from cluster.reports.formats.grid import Cell, Grid

_MAX_ROWS = 100
_MAX_WIDTH = 120
_MAX_CELL = 50


def terminal(grid: Grid) -> str:
    """Returns a table with its caption above it and its notes below. Rows with the same label show it once."""
    rows = [list(row) for row in grid.rows[:_MAX_ROWS]]
    labels = [row[: grid.n_labels - 1] for row in rows]
    for (before, own), row in zip(pairwise(labels), rows[1:], strict=True):
        if own == before:
            row[: len(own)] = [Cell("")] * len(own)
    parts = [_wrapped(grid.caption), terminal_table(replace(grid, rows=rows))]
    if len(grid.rows) > _MAX_ROWS:
        parts.append(f"and {len(grid.rows) - _MAX_ROWS} more rows; --json has all")
    if grid.notes:
        parts.append("\n".join(map(_wrapped, grid.notes)))
    return "\n\n".join(parts)


def terminal_table(grid: Grid) -> str:
    """Returns a table without its caption and notes."""
    headers = [header.replace(".", ".\n") for header in grid.headers[: grid.n_labels]]
    headers += grid.headers[grid.n_labels :]
    start = 0
    for title, n in grid.spans:
        if title:
            headers[start : start + n] = [f"{title * (not i)}\n{headers[start + i]}" for i in range(n)]
        start += n
    alignment = ["right" if one == "r" else "left" for one in grid.alignments]
    return tabulate(
        [[cell.text for cell in row] for row in grid.rows],
        headers,
        tablefmt="simple",
        disable_numparse=True,
        colalign=alignment,
        maxcolwidths=[None if one == "right" else _MAX_CELL for one in alignment],
    )


def _wrapped(sentence: str) -> str:
    width = min(shutil.get_terminal_size().columns, _MAX_WIDTH)
    return textwrap.fill(sentence, width, break_long_words=False, break_on_hyphens=False)
