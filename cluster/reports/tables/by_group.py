"""The table of errors by group: subset, subject, sequence, finger or joint, before and after the correction."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cluster.reports.formats.grid import MISSING, Cell, Grid, Mark, change_cell, number_cell, option_cells
from cluster.reports.formats.xlsx import Style
from cluster.reports.tables import captions
from cluster.reports.tables.captions import SPLIT_NAMES
from cluster.reports.tables.columns import intervals_record
from cluster.reports.tables.combinations import (
    Place,
    anywhere,
    by_validation_set,
    chosen_split,
    place_of,
    rankings,
)
from cluster.reports.tables.marks import ResultGroup, rate
from cluster.reports.tables.metric_labels import MEASURES, Measure
from cluster.reports.tables.table_options import TableOptions
from cluster.results.change_intervals import ChangeIntervals, group_intervals
from cluster.results.groups import Group, Grouping, read_groups
from cluster.results.names import ChoiceError, named, short_names
from cluster.results.results import Results
from cluster.results.rows import UNITS, Row, SummaryColumns, column
from cluster.results.statistics import Estimate, Values, estimate
from cluster.storage.folders import ExperimentFolder
from data_pipeline.words import count


class GroupErrors(NamedTuple):
    """The metric of a group, as means over repetitions."""

    before: Estimate
    after: Estimate
    change: float | None

    @classmethod
    def of(cls, before: Values, after: Values) -> "GroupErrors":
        """Computes the means of the repetitions' numbers, before and after."""
        pairs = zip(before, after, strict=True)
        change = estimate([a - b for b, a in pairs if b is not None and a is not None])
        return cls(estimate(before), estimate(after), change.mean)

    @property
    def change_percent(self) -> float | None:
        """The change in percent of the number before."""
        return None if self.change is None or not self.before.mean else 100 * self.change / self.before.mean

    def cells(
        self,
        precision: int,
        measure: Measure = MEASURES["distance"],
        mark: Mark = "",
        intervals: ChangeIntervals | None = None,
    ) -> list[Cell]:
        """Returns the cells below `group_headers`."""
        share = measure.in_percent
        mm, percent, _ = intervals or (None, None, None)
        return [
            number_cell(self.before.mean, precision=precision, in_percent=share),
            number_cell(self.after.mean, self.after.std, precision=precision, in_percent=share, mark=mark),
            change_cell(self.change, mm, precision=precision, in_percent=share),
            *([] if share else [change_cell(self.change_percent, percent, precision=1)]),
        ]


def group_headers(measure: Measure = MEASURES["distance"]) -> list[str]:
    """Returns the headers of the columns of a metric; the change of a share is in percentage points."""
    unit = measure.unit
    if measure.in_percent:
        return [f"before ({unit})", f"after ({unit})", "change (points)"]
    return [f"before ({unit})", f"after ({unit})", f"change ({unit})", "change (%)"]


def frames_cell(group: Group) -> Cell:
    """Returns the number of frames of a group."""
    return MISSING if group.n_frames is None else Cell(f"{group.n_frames:,}", is_number=True)


class _Line(NamedTuple):
    """A row of the table: a group of a combination that was measured on a set."""

    data_set: str
    row: Row
    group: Group
    errors: GroupErrors
    intervals: ChangeIntervals | None


class GroupTable:
    """The errors by group of the combination that is best in validation, or of several combinations.

    If combinations were validated on different sets, the table shows the best on each set. Combinations are listed
    together for each group, so that only errors of the same group are compared.

    Args:
        folder: The experiment's folder.
        results: Its results.
        by: What distinguishes the groups.
        table_options: The metric, the split and the precision, and which combinations to show.

    Raises:
        ChoiceError: If no trial of a shown combination has finished, or if its errors by group are not known, or if
            fingers or joints should have intervals.
    """

    def __init__(self, folder: ExperimentFolder, results: Results, by: Grouping, table_options: TableOptions) -> None:
        if table_options.columns or table_options.sort:
            raise ChoiceError(f"the columns and the order of a table by {by} are fixed; leave out columns and sort")
        if table_options.intervals and by in ("finger", "joint"):
            raise ChoiceError(f"errors of frames are means over the joints; leave out intervals for a table by {by}")
        self.results = results
        self.by = by
        self.table_options = table_options
        self.split = chosen_split(results, table_options)
        self.rows = self._chosen_rows()
        sets = self._set_names()
        read = {
            row["key"]: read_groups(folder, results, row, by, split=self.split, metric=table_options.metric)
            for row in self.rows
        }
        intervals: dict[str, list[ChangeIntervals | None]] = {key: [None] * len(of) for key, of in read.items()}
        if table_options.intervals:
            intervals = {r["key"]: group_intervals(results, r, by, read[r["key"]], self.split) for r in self.rows}
        self.n_left_out = sum(row["n"] - estimate(read[row["key"]][0].after).n for row in self.rows)
        found = [
            _Line(name, row, group, GroupErrors.of(group.before, group.after), of_group)
            for name, row in zip(sets, self.rows, strict=True)
            for group, of_group in zip(read[row["key"]], intervals[row["key"]], strict=True)
        ]
        groups = dict.fromkeys((line.data_set, line.group.name) for line in found)
        self._lines = {group: [line for line in found if (line.data_set, line.group.name) == group] for group in groups}
        self.is_of_several = len(self.rows) > len(set(sets))

    def records(self) -> list[Row]:
        """Returns a row for each group of each combination, the whole first."""
        measured, unit = f"{self.split}_{self.table_options.metric}", UNITS.get(self.table_options.metric, "")
        return [
            {
                "key": line.row["key"],
                **{path: line.row[path] for path in self.results.option_paths},
                self.by: line.group.name,
                "frames": line.group.n_frames,
                "n": line.errors.after.n,
                f"{measured}_before{unit}": line.errors.before.mean,
                f"{measured}{unit}_mean": line.errors.after.mean,
                f"{measured}{unit}_std": line.errors.after.std,
                f"{measured}_change{unit}": line.errors.change,
                f"{measured}_change_percent": line.errors.change_percent,
                **(
                    intervals_record(f"{measured}_change{unit}", f"{measured}_change_percent", line.intervals)
                    if self.table_options.intervals
                    else {}
                ),
            }
            for lines in self._lines.values()
            for line in lines
        ]

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns of `records` that need one."""
        measured = f"{self.split}_{self.table_options.metric}"
        share: Style = "share" if self._measure.in_percent else "decimals"
        names = [name for name in self.records()[0] if name.startswith(measured)]
        return {name: "decimals" if "_percent" in name else share for name in names}

    def grid(self) -> Grid:
        """Returns the table for reading."""
        marks, explained = self._marks()
        lines = [line for of_group in self._lines.values() for line in of_group]
        known = {line.row["key"]: line.intervals for line in lines if line.intervals is not None}
        intervals = known if self.table_options.intervals else None
        is_on_several = len({line.data_set for line in lines}) > 1
        is_uneven = len({line.errors.after.n for line in lines}) > 1
        paths = self.results.distinguishing_paths if self.is_of_several else []
        options = [option_cells([line.row[path] for line in lines]) for path in paths]
        rows = [
            [
                *([Cell(line.data_set)] if is_on_several else []),
                Cell(line.group.name),
                *(of_option[i] for of_option in options),
                *([Cell(str(line.errors.after.n), is_number=True)] if is_uneven else []),
                frames_cell(line.group),
                *line.errors.cells(self.table_options.precision, self._measure, marks[i], line.intervals),
            ]
            for i, line in enumerate(lines)
        ]
        names = short_names(self.results.option_paths)
        labels = [
            *([f"{SPLIT_NAMES[self.split]} set"] if is_on_several else []),
            self.by,
            *(names[path] for path in paths),
        ]
        order = captions.best_first(self.results, self.rows) if self.is_of_several else []
        sentences = [f"{self._what()}.", *order, explained, *captions.in_brackets(intervals)]
        return Grid(
            name=f"{self.results.name} by {self.by}",
            caption=" ".join(filter(None, sentences)),
            headers=[*labels, *["n"] * is_uneven, "frames", *group_headers(self._measure)],
            rows=rows,
            n_labels=len(labels),
            notes=[
                *self._notes(is_on_several=is_on_several),
                *captions.without_interval(self.rows, intervals),
            ],
        )

    @property
    def _place(self) -> Place:
        return place_of(self.results, self.table_options) or anywhere

    @property
    def _measure(self) -> Measure:
        return MEASURES[self.table_options.metric]

    def _chosen_rows(self) -> list[Row]:
        results, path, best = self.results, self.table_options.best_for_each, self.table_options.best
        rows = results.summary
        if path is not None:
            rows = results.best_for_each(named(path, results.option_paths, "option"))
        elif best is None:
            best = 1
        mean = SummaryColumns.of(self.split).mean
        # If finalists are confirmed, the best one is the best even if none of its fresh repetitions has finished.
        decides = results.chosen_by.mean if results.n_confirming else mean
        candidates = [row for row in rows if row[decides] is not None]
        chosen = [row for ranked in by_validation_set(results, candidates) for row in ranked[:best]]
        finished = [row for row in chosen if row[mean] is not None]
        if not finished:
            which = "fresh repetition of the best combination" if chosen else "trial"
            raise ChoiceError(f"{results.name} has no errors by {self.by}: no {which} has finished")
        return finished

    def _set_names(self) -> list[str]:
        """The data of each shown combination, by the set of its errors."""
        splits = self.results.splits[: self.results.splits.index(self.split) + 1]
        parts = replace(self.results, splits=splits).by_data()
        names = {row["key"]: name for name, part in parts.items() for row in part.summary}
        return [names[row["key"]] for row in self.rows]

    def _marks(self) -> tuple[list[Mark], str]:
        """Returns the mark of each line, which compares combinations within a group, and what the marks mean."""
        lower = self._measure.is_lower_better
        chosen_from = rankings(self.results, self.rows, self._place)
        rated, explained = rate(
            [
                ResultGroup({line.row["key"]: line.group.after for line in of}, lower, chosen_from)
                for of in self._lines.values()
            ],
            on=f"each {self.by}",
        )
        marks = [
            ratings[line.row["key"]].mark
            for ratings, of_group in zip(rated, self._lines.values(), strict=True)
            for line in of_group
        ]
        return marks, explained

    def _what(self) -> str:
        """The metric, its data, and the combinations."""
        metric, results = self.table_options.metric, self.results
        names = [column(self.split, metric)]
        if self.by == "subset":
            names += [column(self.split, metric, subset=subset) for subset in results.subsets(self.split)]
        what = captions.measured(results, self.rows, self.split, names, self._measure)
        n = captions.repeated([{"n": line.errors.after.n} for lines in self._lines.values() for line in lines])
        if self.is_of_several or len(results.summary) == 1:
            return f"{what}, by {self.by}; {n}"
        settings = self._settings()
        which = (
            f"is best in validation{settings[0] and f' ({settings[0]})'}"
            if len(self.rows) == 1
            else "is best on each validation set"
        )
        return f"{what}, by {self.by}; {n} of the combination that {which}"

    def _notes(self, *, is_on_several: bool) -> list[str]:
        notes = []
        if is_on_several and not self.is_of_several:
            notes = [f"{name}: {of}." for name, of in zip(self._set_names(), self._settings(), strict=True)]
        if self.n_left_out:
            lack = "lacks" if self.n_left_out == 1 else "lack"
            notes.append(
                f"{count(self.n_left_out, 'finished repetition')} {lack} errors by {self.by} and "
                f"{'is' if self.n_left_out == 1 else 'are'} excluded from all means."
            )
        return [
            *notes,
            *captions.chosen_epochs(self.split),
            *captions.distances(self.results, self.rows, self.split),
            *captions.versions(self.results, self.rows),
            *captions.over_folds(self.results, self.rows),
            *captions.unfinished(self.results, self.rows),
            *captions.raced(self.results),
            *captions.passed_over(self.results, self.rows, self._place),
        ]

    def _settings(self) -> Sequence[str]:
        """The options of each shown combination."""
        described = self.results.described
        return [", ".join(f"{name} = {text}" for name, text in described[row["key"]].items()) for row in self.rows]
