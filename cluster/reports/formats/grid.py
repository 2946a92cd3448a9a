"""A table for reading, the source of its terminal, Markdown, LaTeX and HTML versions."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cluster.results.names import option_texts
from cluster.results.statistics import Interval

Mark = Literal["", "best", "second"]


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: Its text: '9.51 ± 0.06'.
        is_number: Whether it is typeset as a number.
        mark: Whether it is the best of its kind, or the second best.
    """

    text: str
    is_number: bool = False
    mark: Mark = ""


@dataclass(frozen=True)
class Grid:
    """A table for reading.

    Attributes:
        name: The name for the label that a document refers to.
        caption: What it shows, in whole sentences.
        headers: A text for each column.
        rows: A cell for each column, in each row.
        n_labels: The number of columns at the left that label the row; the others hold results.
        spans: Titles above groups of columns from left to right, each with its number of columns; '' for no title.
        keys: The key of each row, for the scripts of a page; empty for no keys.
        notes: Additional remarks, one sentence each.
        below: A second table to show below it, with other columns; None if there is none.
    """

    name: str
    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    n_labels: int
    spans: Sequence[tuple[str, int]] = ()
    keys: Sequence[str] = ()
    notes: Sequence[str] = ()
    below: "Grid | None" = None

    @property
    def alignments(self) -> str:
        """For each column 'l' or 'r': labels and texts are aligned left, numbers right."""
        are_numbers = [all(row[i].is_number for row in self.rows) for i in range(len(self.headers))]
        return "".join("r" if i >= self.n_labels and is_so else "l" for i, is_so in enumerate(are_numbers))

    @property
    def groups(self) -> list[int]:
        """The number of rows with each value of the first column, if equal values are adjacent; else ones."""
        alone = [1] * len(self.rows)
        if self.n_labels < 2:
            return alone
        runs = [(cell, len(list(rows))) for cell, rows in itertools.groupby(row[0] for row in self.rows)]
        are_together = len({cell for cell, _ in runs}) == len(runs)
        return [n for _, n in runs] if are_together else alone


MISSING = Cell("–", is_number=True)
"""Stands for a missing number."""


def number_cell(
    mean: float | None, std: float | None = None, *, precision: int, in_percent: bool = False, mark: Mark = ""
) -> Cell:
    """Writes a mean with its deviation: '9.51 ± 0.06'; a share in %, without the sign, which is in the header."""
    if mean is None or math.isnan(mean):
        return MISSING
    factor = 100 if in_percent else 1
    text = f"{factor * mean:.{precision}f}"
    if std is not None:
        text += f" ± {factor * std:.{precision}f}"
    return Cell(text, is_number=True, mark=mark)


def change_cell(
    change: float | None, interval: Interval | None = None, *, precision: int, in_percent: bool = False
) -> Cell:
    """Writes a change with its sign, and its interval: '+0.30', '-3.16 [-3.40, -2.92]'."""
    if change is None or math.isnan(change):
        return MISSING
    text = f"{100 * change if in_percent else change:+.{precision}f}"
    if interval is not None:
        text += f" [{interval.low:+.{precision}f}, {interval.high:+.{precision}f}]"
    return Cell(text, is_number=True)


def signed(value: float, digits: int = 2) -> str:
    """Writes a difference with its sign, '+0.30' or '−3.16'; one that rounds to zero has none."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def p_text(p_value: float) -> str:
    """Writes a p-value with as many digits as a reader needs: '= 0.012', '< 0.001'."""
    return f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def option_cells(values: Sequence[object]) -> list[Cell]:
    """Writes the values of an option."""
    return [
        Cell(text, is_number=isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
        for text, value in zip(option_texts(values), values, strict=True)
    ]


def plain_cell(value: object) -> Cell:
    """Writes anything else: a status, a count, the first line of an error."""
    if value is None:
        return MISSING
    (text,) = option_texts([value])
    return Cell(text, is_number=isinstance(value, int | float) and not isinstance(value, bool))
