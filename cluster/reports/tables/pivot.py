"""A large grid as a pivot table: the rows are the values of one option, the columns those of another."""

import itertools
from collections.abc import Sequence
from typing import Any

from cluster.reports.formats.grid import Cell, Grid, option_cells
from cluster.reports.formats.xlsx import Style
from cluster.reports.tables import captions
from cluster.reports.tables.columns import MeasuredColumn
from cluster.reports.tables.combinations import chosen_split, rankings, rate_columns
from cluster.reports.tables.metric_labels import MEASURES
from cluster.reports.tables.table_options import TableOptions
from cluster.results.experiment_description import DataSet
from cluster.results.names import ChoiceError, named, short_names
from cluster.results.results import Results
from cluster.results.rows import Row, column
from data_pipeline.words import listed


class PivotTable:
    """The results of an experiment for each pair of values of two options.

    If more options vary, a cell shows their values that are best in validation: nothing is averaged over different
    settings. A cell of two values that were not trained together is empty.

    Args:
        results: The experiment's results.
        table_options: The metric, and the two options.
        down: The option of the rows.
        across: The option of the columns.

    Raises:
        ChoiceError: If an option does not vary, or if a cell would choose between results on different data.
    """

    def __init__(self, results: Results, table_options: TableOptions, down: str, across: str) -> None:
        self.results = results
        self.table_options = table_options
        self.down, self.across = (named(path, results.option_paths, "option") for path in (down, across))
        for path in {self.down, self.across} & set(results.ranges):
            raise ChoiceError(
                f"a search drew {path} from a range, so each value would have its own row or column; name an option"
            )
        if self.down == self.across:
            raise ChoiceError(f"{self.down} cannot be in both the rows and the columns; name two different options")
        self.split = chosen_split(results, table_options)
        self.row_values, self.column_values = (_values(results.summary, path) for path in (self.down, self.across))
        self._cells: dict[tuple[str, str], Row] = {}
        for row in results.summary:  # the best in validation comes first
            self._cells.setdefault(self._place(row), row)
        self._check_data()
        raw = column(self.split, table_options.metric)
        measure = MEASURES[table_options.metric]
        shown = list(self._cells.values())
        chosen_from = rankings(results, shown, self._place)
        ratings, self.explained = rate_columns(results, shown, {raw: measure}, chosen_from)
        self._column = MeasuredColumn(raw, raw, results.values(raw), measure, False, ratings[raw])

    def records(self) -> list[Row]:
        """Returns a row for each value of `down`, with mean, deviation and n for each value of `across`."""
        rows = []
        for value in self.row_values:
            record = {self.down: value}
            for other in self.column_values:
                found = self._cells.get((repr(value), repr(other)))
                summed = {} if found is None else self._column.record(found)
                for name in self._names():
                    record[f"{name}[{self._title(other)}]"] = summed.get(name)
                record[f"n[{self._title(other)}]"] = None if found is None else found["n"]
            rows.append(record)
        return rows

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns of `records` that need one."""
        styles = self._column.styles()
        return {f"{name}[{self._title(value)}]": styles[name] for value in self.column_values for name in self._names()}

    def grid(self) -> Grid:
        """Returns the table for reading."""
        results = self.results
        rows_of_cells = list(self._cells.values())
        shown = [row for row in rows_of_cells if row["key"] not in results.dropped] or rows_of_cells
        names = short_names(results.option_paths)
        rows = []
        for value, label in zip(self.row_values, option_cells(self.row_values), strict=True):
            rows.append([label, *(self._cell(value, other) for other in self.column_values)])
        what = captions.measured(results, shown, self.split, [self._column.name], MEASURES[self.table_options.metric])
        chosen = [names[path] for path in self._others()]
        are = "is" if len(chosen) == 1 else "are"
        each = f"Each cell has the {listed(chosen)} that {are} best in validation." if chosen else ""
        return Grid(
            name=f"{results.name} {names[self.down]} {names[self.across]}",
            caption=" ".join(filter(None, [f"{what}; {captions.repeated(shown)}.", each, self.explained])),
            headers=[names[self.down], *(cell.text for cell in option_cells(self.column_values))],
            rows=rows,
            n_labels=1,
            spans=[("", 1), (names[self.across], len(self.column_values))],
            notes=[
                *captions.chosen_epochs(self.split),
                *captions.over_folds(results, shown),
                *captions.distances(results, shown, self.split),
                *captions.versions(results, shown),
                *captions.unfinished(results, shown),
                *captions.raced(results),
                *captions.passed_over(results, self._cells.values(), self._place),
            ],
        )

    def _cell(self, value: Any, other: Any) -> Cell:
        row = self._cells.get((repr(value), repr(other)))
        return Cell("") if row is None else self._column.cell(row, self.table_options.precision)

    def _names(self) -> list[str]:
        return [f"{self._column.name}_{what}" for what in ("mean", "std")]

    def _title(self, value: Any) -> str:
        texts = list(map(str, self.column_values))
        # "1" and 1 have a column each.
        return f"{self.across}={value if len(set(texts)) == len(texts) else repr(value)}"

    def _place(self, row: Row) -> tuple[str, str]:
        return repr(row[self.down]), repr(row[self.across])

    def _others(self) -> list[str]:
        """The other options; a cell chooses among their values."""
        return [
            path
            for path in self.results.distinguishing_paths
            if path not in (self.down, self.across)
            and len({(*self._place(row), repr(row[path])) for row in self.results.summary}) > len(self._cells)
        ]

    def _check_data(self) -> None:
        mixed = self._mixed_data(self.down, self.across)
        if not mixed:
            return
        paths = self.results.option_paths
        # The requested options come first: one of them may stay.
        pairs = itertools.product(paths, dict.fromkeys([self.down, self.across, *paths]))
        fitting = next(((a, b) for a, b in pairs if a != b and not self._mixed_data(a, b)), None)
        names = short_names(paths)
        instead = "" if fitting is None else f", such as --rows {names[fitting[0]]} --columns {names[fitting[1]]}"
        raise ChoiceError(
            f"a cell of {self.down} and {self.across} would choose between results on different data "
            f"({' and '.join('none' if found is None else found.name for found in mixed)}): one of the two options "
            f"must distinguish the data{instead}"
        )

    def _mixed_data(self, down: str, across: str) -> Sequence[DataSet | None]:
        """Returns two sets of data that one cell would mix; nothing if each cell has only one."""
        for split in ("val", self.split):
            sets = self.results.data_sets.get(split, {})
            shown: dict[tuple[str, str], DataSet | None] = {}
            for row in self.results.summary:
                mine = sets.get(row["key"])
                first = shown.setdefault((repr(row[down]), repr(row[across])), mine)
                if mine != first:
                    return mine, first
        return ()


def _values(rows: Sequence[Row], path: str) -> list[Any]:
    """Returns the distinct values of an option: None, numbers in ascending order, texts in alphabetical order."""

    def rank(value: Any) -> tuple[int, Any]:
        return (0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value)

    return sorted({repr(row[path]): row[path] for row in rows}.values(), key=rank)
