"""The table of an experiment's combinations, one per row: which rows and columns it shows, and which are the best."""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cluster.racing.dropped import DROPPED_COLUMNS
from cluster.reports.formats.grid import Grid
from cluster.reports.formats.xlsx import Style
from cluster.reports.tables import captions
from cluster.reports.tables.captions import SPLIT_NAMES
from cluster.reports.tables.columns import (
    ChangeColumn,
    Column,
    CountColumn,
    FoldsColumn,
    MeasuredColumn,
    OptionColumn,
)
from cluster.reports.tables.dropped import dropped_grid
from cluster.reports.tables.marks import Ranking, Rating, ResultGroup, rate
from cluster.reports.tables.metric_labels import MEASURES, Measure
from cluster.reports.tables.table_options import TableOptions
from cluster.results.change_intervals import change_intervals
from cluster.results.experiment_description import DataSet
from cluster.results.names import NOT_APPLICABLE, ChoiceError, named, option_texts, short_names
from cluster.results.results import Results
from cluster.results.rows import DECIDING, METRICS, UNITS, Row, column
from data_pipeline.subsets import MEAN_SUBSET
from data_pipeline.words import listed

_COUNTS = ("n", "failed", "diverged")
_RESULTS = ("before", "after", "change", "change_percent")
_NUMBERS = ("train_seconds", "best_epoch", "gpu_peak_gib")
_FOLDS = "folds"

Place = Callable[[Row], Hashable]
"""Tells the place of a combination in a table that shows only the best of each place."""


class CombinationTable:
    """The chosen combinations of an experiment. Those that a race dropped follow, unless only the best are shown.

    Args:
        results: The experiment's results.
        table_options: What to show.

    Raises:
        ChoiceError: If the experiment does not have what was chosen.
    """

    def __init__(self, results: Results, table_options: TableOptions) -> None:
        self.results = results
        self.table_options = table_options
        self.split = chosen_split(results, table_options)
        self.rows = chosen_rows(results, table_options)
        self._intervals = None
        if table_options.intervals:
            self._intervals = {row["key"]: change_intervals(results, row, self.split) for row in self.rows}
        self._measured = measured_columns(results, self.split, with_subsets=False)
        self._names = named_columns(results, self._measured)
        self._verdicts, self.explained = self._rate()
        self._order = captions.best_first(results, self.rows)
        if table_options.sort is not None:
            by, descending = self._column(table_options.sort.removeprefix("-")), table_options.sort.startswith("-")
            self.rows = sorted_rows(self.rows, by.value, descending=descending)
            self._order = captions.sorted_by(by.header, descending=descending)

    def records(self) -> list[Row]:
        """Returns the rows for programs."""
        columns = self._columns(self._for_programs())
        rows = [*self.rows, *(self.results.not_ranked if self._has_dropped else ())]
        return [{name: value for c in columns for name, value in c.record(row).items()} for row in rows]

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns of `records` that need one."""
        return {name: style for c in self._columns(self._for_programs()) for name, style in c.styles().items()}

    def grid(self) -> Grid:
        """Returns the table for reading."""
        results, rows, precision = self.results, self.rows, self.table_options.precision
        described = rows or results.summary
        columns = self._columns(self.table_options.columns or self._for_reading())
        cells = [c.cells(rows, precision) for c in columns]
        is_label = [isinstance(c, OptionColumn) and not isinstance(c, CountColumn) for c in columns]
        n_labels = is_label.index(False) if False in is_label else len(is_label)
        shown = [c for c in columns if isinstance(c, MeasuredColumn | ChangeColumn) and c.measure is not None]
        measures = {c.measure for c in shown}
        the_measure = next(iter(measures)) if len(measures) == 1 else None
        what = captions.measured(results, described, self.split, [c.name for c in shown], the_measure)
        intervals = self._intervals if any(isinstance(c, ChangeColumn) for c in columns) else None
        explained = [self.explained, *captions.in_brackets(intervals)]
        sentences = [f"{what}; {captions.repeated(rows)}.", *captions.raced(results), self._selected()]
        sentences += [*self._order, *explained]
        return Grid(
            name=results.name,
            caption=" ".join(filter(None, sentences)),
            headers=[c.header for c in columns],
            rows=list(zip(*cells, strict=True)),
            n_labels=n_labels,
            notes=[
                *captions.chosen_epochs(self.split),
                *captions.over_folds(results, described),
                *([captions.OVER_FOLDS] if any(isinstance(c, FoldsColumn) for c in columns) else []),
                *captions.distances(results, rows, self.split),
                *captions.versions(results, rows),
                *captions.unfinished(results, rows),
                *captions.without_interval(rows, intervals),
                *self._passed_over(),
            ],
            below=dropped_grid(results, precision) if self._has_dropped else None,
        )

    @property
    def _has_dropped(self) -> bool:
        return self.table_options.best is None and self.table_options.best_for_each is None

    def _for_programs(self) -> Sequence[str]:
        folds = [_FOLDS] * bool(self.results.folds)
        race = race_columns(self.results)
        return self.table_options.columns or ("key", *self.results.option_paths, *_COUNTS, *_RESULTS, *folds, *race)

    def _for_reading(self) -> list[str]:
        options = list(self.results.distinguishing_paths)
        if self.table_options.best_for_each is not None:
            path = named(self.table_options.best_for_each, self.results.option_paths, "option")
            options = [path, *(other for other in options if not _are_equivalent(self.results.summary, path, other))]
        is_uneven = len({(row["n"], row["failed"], row["diverged"]) for row in self.rows}) > 1
        change = "change" if MEASURES[self.table_options.metric].in_percent else "change_percent"
        counts = [name for name in _COUNTS if name == "n" or any(row[name] for row in self.rows)]
        folds = [_FOLDS] * bool(self.results.folds)
        return [*options, *(counts if is_uneven else ()), "before", "after", change, *folds]

    def _selected(self) -> str:
        results, best = self.results, self.table_options.best
        validated_on = results.data_sets.get("val", {})
        is_on_one = len({validated_on.get(row["key"]) for row in self.rows}) == 1
        where = "in validation" if is_on_one else "on each validation set"
        if best is not None and len(self.rows) < len(results.ranked):
            n = max(map(len, by_validation_set(results, self.rows)))
            return f"The best {f'{n} ' if n > 1 else ''}of {len(results.ranked)} combinations {where}."
        if self.table_options.best_for_each is not None:
            path = named(self.table_options.best_for_each, results.option_paths, "option")
            is_one_each = len({repr(row[path]) for row in self.rows}) == len(self.rows)
            where = "in validation" if is_one_each else "on each validation set"
            name, shown = short_names(results.option_paths)[path], {repr(row[path]) for row in self.rows}
            missing = {repr(row[path]): row[path] for row in results.not_ranked if repr(row[path]) not in shown}
            values = listed(option_texts(list(missing.values())))
            without = f" No combination with {name} {values} has finished." if missing else ""
            return f"For each {name}, the combination that is best {where}.{without}"
        return ""

    def _passed_over(self) -> list[str]:
        results, table_options = self.results, self.table_options
        place = place_of(results, table_options)
        return [] if place is None else captions.passed_over(results, chosen_rows(results, table_options), place)

    def _columns(self, names: Sequence[str]) -> list[Column]:
        return [self._column(name) for name in names]

    def _column(self, name: str) -> Column:
        name = self._named(name)
        metric, split = self.table_options.metric, self.split
        measure = MEASURES[metric]
        if name in self.results.option_paths:
            return OptionColumn(name, short_names(self.results.option_paths)[name])
        if name in ("key", *_COUNTS, *DECIDING, *DROPPED_COLUMNS):
            return CountColumn(name, name)
        if name == _FOLDS:
            raw = column(split, metric)
            return FoldsColumn(name, f"± over folds ({measure.unit})", raw, self.results.fold_means(raw), measure)
        before, after = column(split, metric, before=True), column(split, metric)
        if name in ("change", "change_percent"):
            is_relative = name == "change_percent"
            unit = "_percent" if is_relative else UNITS.get(metric, "")
            return ChangeColumn(
                name=name,
                header=f"change ({'%' if is_relative else 'points' if measure.in_percent else measure.unit})",
                record_name=f"{split}_{metric}_change{unit}",
                before=self.results.values(before),
                after=self.results.values(after),
                measure=measure,
                is_relative=is_relative,
                intervals=self._intervals,
            )
        raw = {"before": before, "after": after}.get(name, name)
        known, is_before, header = self._measured[raw]
        return MeasuredColumn(
            name=raw,
            header=f"{name} ({measure.unit})" if name in ("before", "after") else header,
            values=self.results.values(raw),
            measure=known,
            is_before=is_before,
            ratings=self._verdicts.get(raw, {}),
        )

    def _named(self, name: str) -> str:
        if name.endswith("]") and name in self.results.trials[0] and name not in self._names:
            raise ChoiceError(f"{name} is of one subset; --by subset makes a row for each")
        return named(name, self._names, "column")

    def _rate(self) -> tuple[dict[str, dict[str, Rating]], str]:
        after = column(self.split, self.table_options.metric)
        shown = [self._named(name) for name in self.table_options.columns or ("after",)]
        raws = dict.fromkeys(after if name == "after" else name for name in shown)
        rated = [raw for raw in raws if raw in self._measured and is_rated(*self._measured[raw][:2])]
        chosen_from = rankings(self.results, self.rows, place_of(self.results, self.table_options))
        return rate_columns(self.results, self.rows, {raw: self._measured[raw][0] for raw in rated}, chosen_from)


def chosen_split(results: Results, table_options: TableOptions) -> str:
    """Returns the split to show."""
    return results.split if table_options.split is None else named(table_options.split, results.splits, "split")


def chosen_rows(results: Results, table_options: TableOptions) -> list[Row]:
    """Returns the combinations to show: those with the same validation set together, the best first.

    Raises:
        ChoiceError: If there is no such option, or if the best were chosen and a race dropped all combinations.
    """
    rows = results.ranked
    if table_options.best_for_each is not None:
        rows = results.best_for_each(named(table_options.best_for_each, results.option_paths, "option"))
    if not rows and (table_options.best is not None or table_options.best_for_each is not None):
        raise ChoiceError(f"{results.name} has no best combination: {' '.join(captions.raced(results))}")
    return [row for ranked in by_validation_set(results, rows) for row in ranked[: table_options.best]]


def by_validation_set(results: Results, rows: Sequence[Row]) -> list[list[Row]]:
    """Groups rows by their validation set, since errors on different sets cannot be compared."""
    sets = results.data_sets.get("val", {})
    found: dict[DataSet | None, list[Row]] = {data_set: [] for data_set in sets.values()}  # in the order of the plan
    for row in rows:
        found.setdefault(sets.get(row["key"]), []).append(row)
    return [ranked for ranked in found.values() if ranked]


def sorted_rows(rows: Sequence[Row], value: Any, *, descending: bool) -> list[Row]:
    """Returns rows sorted by one of their values: numbers before texts, rows without a value at the end."""

    def rank(row: Row) -> tuple[bool, Any]:
        found = value(row)
        return isinstance(found, str), found

    # NaN equals nothing. An option that does not apply has no value.
    is_known = [found is not None and found == found and found != NOT_APPLICABLE for found in map(value, rows)]
    known = list(itertools.compress(rows, is_known))
    unknown = [row for row, is_so in zip(rows, is_known, strict=True) if not is_so]
    return sorted(known, key=rank, reverse=descending) + unknown


def is_rated(measure: Measure | None, is_before: bool) -> bool:
    """Returns whether a column ranks combinations."""
    return measure is not None and not is_before


def place_of(results: Results, table_options: TableOptions) -> Place | None:
    """Returns the place for which a table shows only the best: a value of an option, or the whole table.

    Returns None if it shows all combinations.
    """
    if table_options.best_for_each is None:
        return None if table_options.best is None else anywhere
    path = named(table_options.best_for_each, results.option_paths, "option")
    return lambda row: repr(row[path])


def anywhere(row: Row) -> Hashable:
    """The only place of a table."""
    return None


def rankings(results: Results, rows: Sequence[Row], place: Place | None) -> dict[str, Ranking]:
    """Returns what each row was chosen from, by its key: the combinations of its place and validation set.

    Nothing is returned without a choice, or if fresh repetitions, which took no part in it, confirm the results.

    Args:
        results: The experiment's results.
        rows: The first few combinations of each place on each validation set.
        place: The place of a combination; None if nothing was chosen.
    """
    if place is None or results.n_confirming:
        return {}
    sets = results.data_sets.get("val", {})
    trained = (row for row in results.summary if row["n"] or row["key"] in results.dropped)
    counts = Counter((place(row), sets.get(row["key"])) for row in trained)
    places = {row["key"]: (place(row), sets.get(row["key"])) for row in rows}
    return {key: Ranking(found, counts[found]) for key, found in places.items()}


def rate_columns(
    results: Results,
    rows: Sequence[Row],
    measures: Mapping[str, Measure | None],
    chosen_from: Mapping[str, Ranking] = MappingProxyType({}),
) -> tuple[dict[str, dict[str, Rating]], str]:
    """Rates combinations that were measured on the same data, in some columns of the trials' table.

    Args:
        results: The experiment's results.
        rows: The combinations.
        measures: The metric of each column, by its name.
        chosen_from: What each was chosen from, by its key; see `rankings`.

    Returns:
        The ratings by key for each column, and a sentence that explains the marks.
    """
    groups, of_column, of_several = [], [], set()
    for name, measure in measures.items():
        values = results.values(name)
        split = name.partition("_")[0]
        sets = results.data_sets.get(split, {})
        if len({sets[row["key"]] for row in rows if row["key"] in sets}) > 1:
            of_several.add(split)
        for data_set in dict.fromkeys(sets.get(row["key"]) for row in rows):
            keys = [row["key"] for row in rows if sets.get(row["key"]) == data_set]
            lower = measure is None or measure.is_lower_better
            groups.append(ResultGroup({key: values[key] for key in keys}, lower, chosen_from))
            of_column.append(name)
    one_split = next(iter(of_several)) if len(of_several) == 1 else ""
    on = f"each {SPLIT_NAMES[one_split]} set" if one_split else "each set" if of_several else ""
    ratings, explained = rate(groups, on=on)
    by_column: dict[str, dict[str, Rating]] = {name: {} for name in measures}
    for name, found in zip(of_column, ratings, strict=True):
        by_column[name] |= found
    return by_column, explained


def named_columns(results: Results, measured: Mapping[str, Any]) -> list[str]:
    """Returns every column that can be chosen."""
    folds = [_FOLDS] * bool(results.folds)
    return ["key", *results.option_paths, *_COUNTS, *_RESULTS, *folds, *race_columns(results), *measured]


def race_columns(results: Results) -> list[str]:
    """Returns the columns of the summary on a race: the numbers that decide, and how far dropped combinations got."""
    return [*(DECIDING if results.n_confirming else ()), *(DROPPED_COLUMNS if results.dropped else ())]


def measured_columns(
    results: Results, shown_split: str, *, with_subsets: bool = True
) -> dict[str, tuple[Measure | None, bool, str]]:
    """Returns for each number of the trials its metric, whether it is before the correction, and its header."""
    columns: dict[str, tuple[Measure | None, bool, str]] = {}
    for split in results.splits:
        for metric, measure in MEASURES.items():
            for subset in (MEAN_SUBSET, *(results.subsets(split) if with_subsets else ())):
                for before in (True, False) if metric in METRICS else (False,):
                    words = [measure.short, "" if subset == MEAN_SUBSET else subset, "before" if before else ""]
                    words.insert(0, "" if split == shown_split else split)
                    arrow = "↓" if measure.is_lower_better else "↑"
                    header = f"{' '.join(filter(None, words))} ({measure.unit}) {arrow}"
                    columns[column(split, metric, before=before, subset=subset)] = measure, before, header
    columns = {name: known for name, known in columns.items() if name in results.trials[0]}
    return columns | {name: (None, False, name.replace("_", " ")) for name in _NUMBERS}


def _are_equivalent(rows: Sequence[Row], a: str, b: str) -> bool:
    values = {(repr(row[a]), repr(row[b])) for row in rows}
    return len(values) == len({x for x, _ in values}) == len({y for _, y in values})
