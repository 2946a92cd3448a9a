"""A table for a terminal."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from cluster.reports.formats.grid import Cell, Grid

FILE_WIDTH = 120
"""The width of texts in files and pipes, and the largest width of a paragraph."""

_MAX_ROWS = 100
_MAX_CELL = 50
_MIN_WIDTH = 8
"""A column is not made narrower than this."""

_GAP = "  "


def terminal(grid: Grid) -> str:
    """Returns a table with its caption above it and its notes below; then its second table.

    Rows with the same label show it once.
    """
    rows = [list(row) for row in grid.rows[:_MAX_ROWS]]
    labels = [row[: grid.n_labels - 1] for row in rows]
    for (before, own), row in zip(pairwise(labels), rows[1:], strict=True):
        if own == before:
            row[: len(own)] = [Cell("")] * len(own)
    parts = [wrapped(grid.caption), terminal_table(replace(grid, rows=rows), terminal_width())]
    if len(grid.rows) > _MAX_ROWS:
        parts.append(f"and {len(grid.rows) - _MAX_ROWS} more rows; --json has all")
    if grid.notes:
        parts.append("\n".join(map(wrapped, grid.notes)))
    if grid.below is not None:
        parts.append(terminal(grid.below))
    return "\n\n".join(parts)


def terminal_width() -> int:
    """Returns the number of columns of the terminal, or of COLUMNS in the environment; in a pipe `FILE_WIDTH`."""
    return shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def terminal_table(grid: Grid, width: int) -> str:
    """Returns a table without its caption and notes, in lines of at most `width` characters if that is possible.

    Headers and labels are broken into lines, between words. If that is not enough, the first group of columns is left
    out, and so on. In the last one, words are broken.
    """
    titles = [title for title, _ in grid.spans if title]
    widths = _widths(grid, width, may_break_words=len(titles) < 2)
    if _total(widths) > width and len(titles) > 1:
        text = terminal_table(_without_span(grid, titles[0]), width)
        return f"{text}\n\n" + textwrap.fill(f"A terminal of {width} columns is too narrow for {titles[0]}.", width)
    starts = list(accumulate((n for _, n in grid.spans), initial=0))
    over = [_total(widths[start:stop]) for start, stop in pairwise(starts)]
    titled = [_GAP.join(title.center(of) for (title, _), of in zip(grid.spans, over, strict=True)).rstrip()]
    headers = [_broken(header, of) for header, of in zip(_headers(grid), widths, strict=True)]
    height = max(map(len, headers))
    rows = [
        [
            _broken(cell.text, of, indent=_GAP) if is_label else [cell.text]
            for cell, of, is_label in zip(row, widths, _are_labels(grid), strict=True)
        ]
        for row in grid.rows
    ]
    lines = [
        *(titled if titles else ()),
        # The last line of each header is next to the rule.
        *_lines([[""] * (height - len(header)) + header for header in headers], grid, widths),
        _GAP.join("-" * of for of in widths),
        *(line for row in rows for line in _lines(row, grid, widths)),
    ]
    return "\n".join(lines)


def wrapped(paragraph: str) -> str:
    """Returns a paragraph in lines that fit the terminal."""
    width = min(terminal_width(), FILE_WIDTH)
    return textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False)


def _headers(grid: Grid) -> list[str]:
    names = [header.replace(".", ". ") for header in grid.headers[: grid.n_labels]]
    return [*names, *grid.headers[grid.n_labels :]]


def _are_labels(grid: Grid) -> list[bool]:
    return [alignment == "l" for alignment in grid.alignments]


def _widths(grid: Grid, width: int, *, may_break_words: bool) -> list[int]:
    """Returns the widths of columns so that a table fits, if that is possible: the widest is narrowed first."""
    widths, steps = [], []
    for i, (header, is_label) in enumerate(zip(_headers(grid), _are_labels(grid), strict=True)):
        cells = [row[i].text for row in grid.rows]
        of_words = _longest(word for text in (header, *cells * is_label) for word in text.split())
        of_cells = 0 if is_label else _longest(cells)
        widths.append(max(min(_longest(cells), _MAX_CELL) if is_label else of_cells, len(header)))
        steps.append((max(of_cells, of_words), max(of_cells, min(of_words, _MIN_WIDTH))))
    for least in list(zip(*steps, strict=True))[: 1 + may_break_words]:
        while _total(widths) > width and (wide := [i for i, of in enumerate(widths) if of > least[i]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def _broken(text: str, width: int, *, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _lines(row: Sequence[Sequence[str]], grid: Grid, widths: Sequence[int]) -> list[str]:
    """Writes a row whose cells have several lines."""
    columns = [
        [text.ljust(of) if is_label else text.rjust(of) for text in cell]
        for cell, of, is_label in zip(row, widths, _are_labels(grid), strict=True)
    ]
    blank = [" " * of for of in widths]
    height = max(map(len, columns))
    return [
        _GAP.join(column[i] if i < len(column) else blank[place] for place, column in enumerate(columns)).rstrip()
        for i in range(height)
    ]


def _without_span(grid: Grid, title: str) -> Grid:
    """Returns a table without the columns below a title."""
    place = [other for other, _ in grid.spans].index(title)
    start = sum(n for _, n in grid.spans[:place])
    stop = start + grid.spans[place][1]
    return replace(
        grid,
        headers=[*grid.headers[:start], *grid.headers[stop:]],
        rows=[[*row[:start], *row[stop:]] for row in grid.rows],
        spans=[*grid.spans[:place], *grid.spans[place + 1 :]],
    )
