"""The columns of a table of combinations: their values for programs and their texts for readers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.reports.formats.grid import MISSING, Cell, change_cell, number_cell, option_cells, plain_cell
from cluster.reports.formats.xlsx import Style
from cluster.reports.tables.marks import Rating
from cluster.reports.tables.metric_labels import Measure
from cluster.results.change_intervals import ChangeIntervals
from cluster.results.rows import Row
from cluster.results.statistics import Interval, estimate


def interval_record(name: str, interval: Interval | None) -> Row:
    """Returns the columns for programs of the interval of a number."""
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return {f"{name}_ci_low": low, f"{name}_ci_high": high}


def intervals_record(change: str, change_percent: str, intervals: ChangeIntervals | None) -> Row:
    """Returns the columns for programs of the intervals of a change in mm and in %."""
    mm, percent, _ = intervals or (None, None, None)
    return interval_record(change, mm) | interval_record(change_percent, percent)


class Column(Protocol):
    """A column of a table of combinations; a row is one of `Results.summary`."""

    @property
    def name(self) -> str:
        """The name that selects it."""

    @property
    def header(self) -> str:
        """Its header for readers."""

    def value(self, row: Row) -> Any:
        """Returns the value to sort rows by."""

    def record(self, row: Row) -> Row:
        """Returns the columns for programs, with all digits."""

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns that need one."""

    def cells(self, rows: Sequence[Row], precision: int) -> list[Cell]:
        """Returns the cells for readers."""


@dataclass(frozen=True)
class OptionColumn:
    """The values of an option."""

    name: str
    header: str

    def value(self, row: Row) -> Any:  # noqa: D102
        return row[self.name]

    def record(self, row: Row) -> Row:  # noqa: D102
        return {self.name: row[self.name]}

    def styles(self) -> dict[str, Style]:  # noqa: D102
        return {}

    def cells(self, rows: Sequence[Row], precision: int) -> list[Cell]:  # noqa: D102
        return option_cells([row[self.name] for row in rows])


@dataclass(frozen=True)
class CountColumn(OptionColumn):
    """The key, how many repetitions finished, failed or diverged, or how far a dropped combination got."""

    def styles(self) -> dict[str, Style]:  # noqa: D102
        return {self.name: "decimals"} if self.name.endswith("_mm") else {}

    def cells(self, rows: Sequence[Row], precision: int) -> list[Cell]:  # noqa: D102
        return [plain_cell(row[self.name]) for row in rows]


@dataclass(frozen=True)
class MeasuredColumn:
    """A number of the trials: its mean and spread over finished repetitions.

    Attributes:
        name: The column of the trials' table, such as 'test_distance_mm'.
        header: Its header for readers.
        values: Its value in each repetition, by the combination's key; None for a missing value.
        measure: Its metric; None for other numbers, such as seconds.
        is_before: Whether it is measured on the uncorrected poses, which are nearly or exactly the same in each
            repetition.
        ratings: The rating of each combination among those that are shown.
    """

    name: str
    header: str
    values: Mapping[str, Sequence[float | None]]
    measure: Measure | None
    is_before: bool
    ratings: Mapping[str, Rating]

    def value(self, row: Row) -> Any:  # noqa: D102
        return estimate(self.values[row["key"]]).mean

    def record(self, row: Row) -> Row:  # noqa: D102
        summed = estimate(self.values[row["key"]])
        if self.is_before:
            return {self.name: summed.mean}
        record = {f"{self.name}_mean": summed.mean, f"{self.name}_std": summed.std}
        record |= interval_record(self.name, summed.interval)
        if self.measure is not None:
            rating = self.ratings.get(row["key"])
            record[f"{self.name}_p_adjusted"] = None if rating is None else rating.p_adjusted
        return record

    def styles(self) -> dict[str, Style]:  # noqa: D102
        style: Style = "share" if self.measure is not None and self.measure.in_percent else "decimals"
        return dict.fromkeys([self.name] if self.is_before else self._names, style)

    def cells(self, rows: Sequence[Row], precision: int) -> list[Cell]:  # noqa: D102
        return [self.cell(row, precision) for row in rows]

    def cell(self, row: Row, precision: int) -> Cell:
        """Returns the cell of one combination, with its own n if some finished repetitions have no number."""
        summed = estimate(self.values[row["key"]])
        if summed.mean is None:
            return MISSING
        in_percent = self.measure is not None and self.measure.in_percent
        # The error before differs between repetitions only with a random distorter.
        hidden = self.is_before and not round((summed.std or 0) * (100 if in_percent else 1), precision)
        rating = self.ratings.get(row["key"])
        cell = number_cell(
            summed.mean,
            None if hidden else summed.std,
            precision=precision,
            in_percent=in_percent,
            mark="" if rating is None else rating.mark,
        )
        return cell._replace(text=f"{cell.text} (n = {summed.n})") if summed.n < row["n"] else cell

    @property
    def _names(self) -> list[str]:
        return [f"{self.name}_mean", f"{self.name}_std", *interval_record(self.name, None)]


@dataclass(frozen=True)
class ChangeColumn:
    """The change of a metric by the correction: the mean of after minus before.

    Attributes:
        name: 'change', or 'change_percent' for the change in % of the mean before.
        header: Its header for readers.
        record_name: Its column for programs.
        before: The metric before the correction in each repetition, by the combination's key.
        after: The metric after the correction.
        measure: Its metric. The change of a share is in percentage points.
        is_relative: Whether the change is in % of the mean before.
        intervals: Its intervals over frames, by the combination's key; None for a column without intervals.
    """

    name: str
    header: str
    record_name: str
    before: Mapping[str, Sequence[float | None]]
    after: Mapping[str, Sequence[float | None]]
    measure: Measure
    is_relative: bool
    intervals: Mapping[str, ChangeIntervals | None] | None

    def value(self, row: Row) -> Any:  # noqa: D102
        pairs = zip(self.before[row["key"]], self.after[row["key"]], strict=True)
        known = [(b, a) for b, a in pairs if b is not None and a is not None]
        change = estimate([a - b for b, a in known]).mean
        if not self.is_relative:
            return change
        before = estimate([b for b, _ in known]).mean
        return None if change is None or not before else 100 * change / before

    def record(self, row: Row) -> Row:  # noqa: D102
        record = {self.record_name: self.value(row)}
        return record if self.intervals is None else record | interval_record(self.record_name, self._interval(row))

    def styles(self) -> dict[str, Style]:  # noqa: D102
        names = [self.record_name, *(() if self.intervals is None else interval_record(self.record_name, None))]
        return dict.fromkeys(names, "share" if self.measure.in_percent and not self.is_relative else "decimals")

    def cells(self, rows: Sequence[Row], precision: int) -> list[Cell]:  # noqa: D102
        decimals, scaled = (1, False) if self.is_relative else (precision, self.measure.in_percent)
        return [
            change_cell(self.value(row), self._interval(row), precision=decimals, in_percent=scaled) for row in rows
        ]

    def _interval(self, row: Row) -> Interval | None:
        found = (self.intervals or {}).get(row["key"])
        return found and (found.percent if self.is_relative else found.mm)


@dataclass(frozen=True)
class FoldsColumn:
    """The spread of a metric over the folds: the sample standard deviation of their means.

    Attributes:
        name: 'folds'.
        header: Its header for readers.
        raw: The column of the trials' table.
        means: The mean of each fold, by the combination's key.
        measure: The metric.
    """

    name: str
    header: str
    raw: str
    means: Mapping[str, Sequence[float | None]]
    measure: Measure

    def value(self, row: Row) -> Any:  # noqa: D102
        means = self.means[row["key"]]
        return None if None in means else estimate(means).std

    def record(self, row: Row) -> Row:  # noqa: D102
        return {"folds": row["folds"], f"{self.raw}_fold_std": self.value(row)}

    def styles(self) -> dict[str, Style]:  # noqa: D102
        return {f"{self.raw}_fold_std": "share" if self.measure.in_percent else "decimals"}

    def cells(self, rows: Sequence[Row], precision: int) -> list[Cell]:  # noqa: D102
        return [number_cell(self.value(row), precision=precision, in_percent=self.measure.in_percent) for row in rows]
