"""The table of an experiment's trials, one per row."""

from typing import Any

from cluster.reports.formats.grid import Cell, Grid, number_cell, option_cells, plain_cell
from cluster.reports.formats.xlsx import Style
from cluster.reports.tables import captions
from cluster.reports.tables.combinations import chosen_rows, chosen_split, measured_columns, sorted_rows
from cluster.reports.tables.metric_labels import MEASURES
from cluster.reports.tables.table_options import TableOptions
from cluster.results.names import named, short_names
from cluster.results.results import Results
from cluster.results.rows import Row, column
from data_pipeline.words import count


class TrialTable:
    """The trials of the chosen combinations, with folds those of each fold.

    Args:
        results: The experiment's results.
        table_options: What to show. 'before' and 'after' are the metric's columns; trials have no 'change'.

    Raises:
        ChoiceError: If the experiment does not have what was chosen.
    """

    def __init__(self, results: Results, table_options: TableOptions) -> None:
        combinations = chosen_rows(results, table_options)
        if table_options.best is None and table_options.best_for_each is None:
            combinations += results.not_ranked
        chosen = [key for row in combinations for key in results.trained_keys(row["key"])]
        self._order = [*captions.dropped(results), *captions.best_first(results, combinations)]
        self.results = results = results.single_folds
        self.table_options = table_options
        self.split = chosen_split(results, table_options)
        self._measured = measured_columns(results, self.split)
        by_key = {row["key"]: row for row in results.summary}
        self._shown = [by_key[key] for key in chosen]
        trials: dict[str, list[Row]] = {row["key"]: [] for row in self._shown}
        for row in results.trials:
            trials.get(row["key"], []).append(row)
        self.rows = [row for of_combination in trials.values() for row in of_combination]
        if table_options.sort is not None:
            by = self._column(table_options.sort.removeprefix("-"))
            descending = table_options.sort.startswith("-")
            self.rows = sorted_rows(self.rows, lambda row: row[by], descending=descending)
            self._order = captions.sorted_by(self._header(by), descending=descending)

    def records(self) -> list[Row]:
        """Returns the rows for programs."""
        columns = self._for_programs()
        return [{name: row[name] for name in columns} for row in self.rows]

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns of `records` that need one."""
        measures = {name: self._measured[name][0] for name in self._for_programs() if name in self._measured}
        return {
            name: "share" if measure is not None and measure.in_percent else "decimals"
            for name, measure in measures.items()
            if name != "best_epoch"
        }

    def grid(self) -> Grid:
        """Returns the table for reading."""
        results, n = self.results, len(self.rows)
        before, after = self._column("before"), self._column("after")
        paths = results.distinguishing_paths
        columns = [self._column(name) for name in self.table_options.columns] or [
            *(*paths, "repetition", *["role"] * bool(results.n_confirming), "status", "best_epoch", before, after)
        ]
        cells = [self._cells(name) for name in columns]
        labels = (*paths, "repetition", "role")
        n_labels = next((i for i, name in enumerate(columns) if name not in labels), len(columns))
        measured = [name for name in columns if name in self._measured and self._measured[name][0] is not None]
        measures = {self._measured[name][0] for name in measured}
        the_measure = next(iter(measures)) if len(measures) == 1 else None
        what = captions.measured(results, self._shown, self.split, measured, the_measure)
        return Grid(
            name=f"{results.name} trials",
            caption=" ".join([f"{what}; {count(n, 'trial')}.", *self._order]),
            headers=[self._header(name) for name in columns],
            rows=list(zip(*cells, strict=True)),
            n_labels=n_labels,
            notes=[
                *["Repetitions that confirm a finalist took no part in the race."] * bool(results.n_confirming),
                *captions.chosen_epochs(self.split),
                *captions.distances(results, self._shown, self.split),
                *captions.versions(results, self._shown),
            ],
        )

    def _for_programs(self) -> list[str]:
        return [self._column(name) for name in self.table_options.columns] or list(self.rows[0])

    def _column(self, name: str) -> str:
        metric, split = self.table_options.metric, self.split
        known = ["before", "after", *self.results.trials[0]]
        name = named(name, known, "column of trials")
        raw = {"before": column(split, metric, before=True), "after": column(split, metric)}
        return raw.get(name, name)

    def _header(self, name: str) -> str:
        measure = MEASURES[self.table_options.metric]
        names = {self._column(side): f"{side} ({measure.unit})" for side in ("before", "after")}
        names |= short_names(self.results.option_paths)
        measured = self._measured[name][2] if name in self._measured else name.replace("_", " ")
        return names.get(name, measured)

    def _cells(self, name: str) -> list[Cell]:
        values: list[Any] = [row[name] for row in self.rows]
        if name in self.results.option_paths:
            return option_cells(values)
        measure = self._measured[name][0] if name in self._measured else None
        if measure is None:
            return [plain_cell(value) for value in values]
        return [number_cell(v, precision=self.table_options.precision, in_percent=measure.in_percent) for v in values]
