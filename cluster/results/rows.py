"""The rows of trials and combinations in tables, and the names of their columns."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cluster.results.statistics import mean, std
from cluster.storage.experiment_file import Combination
from cluster.storage.trial_file import Status, TrialFile
from data_pipeline.subsets import DEFAULT_SUBSET, MEAN_SUBSET

Row = dict[str, Any]

UNITS = {
    **dict.fromkeys(("distance", "aligned_distance", "max_distance", "bone_length_error"), "_mm"),
    "acceleration_error": "_mm_per_frame2",
}
"""The suffix of a metric's columns; metrics without one are shares and ratios."""

METRICS = (
    *("distance", "aligned_distance", "max_distance", "frames_within_20mm", "auc_0_50", "auc_20_50"),
    *("bone_length_error", "proportion_error", "acceleration_error"),
)

RUN_COLUMNS = ("train_seconds", "node", "device", "gpu", "gpu_peak_gib", "gpu_total_gib", "error")
"""The columns of trials after the metrics."""


class TrialOutcome(NamedTuple):
    """The small part of a `trial.json` that a table needs."""

    status: Status
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    """By split, subset and name; only of finished trials."""
    best_epoch: int | None
    run: dict[str, Any]
    """The `RUN_COLUMNS`."""
    runs: Sequence[str]
    """The ids of the runs that trained it."""

    problems: Sequence[str] = ()
    """See `TrialFile`."""

    @classmethod
    def of(cls, trial: TrialFile) -> "TrialOutcome":
        """Selects it from the file's content."""
        metrics = {}
        for split, subsets in trial.metrics.items():
            is_only_one = subsets.keys() == {MEAN_SUBSET, DEFAULT_SUBSET}
            metrics[split] = {MEAN_SUBSET: subsets[MEAN_SUBSET]} if is_only_one else subsets
        columns = {name: getattr(trial, name) for name in RUN_COLUMNS}
        runs = tuple(map(sys.intern, trial.runs))  # a hundred thousand trials share a few ids
        return cls(trial.status, metrics, trial.best_epoch, columns, runs, trial.problems)


def column(split: str, metric: str, *, before: bool = False, subset: str = MEAN_SUBSET) -> str:
    """Returns the name of a metric's column."""
    group = "" if subset == MEAN_SUBSET else f"[{subset}]"
    return f"{split}_{metric}{'_before' if before else ''}{UNITS.get(metric, '')}{group}"


def fold_std_column(split: str, metric: str) -> str:
    """Returns the name of the column with the sample standard deviation of the means of folds."""
    return f"{column(split, metric)}_fold_std"


class SummaryColumns(NamedTuple):
    """The names of a split's columns in the summary: distances in mm, and their change by the correction."""

    before: str
    mean: str
    std: str
    change: str
    change_percent: str

    @classmethod
    def of(cls, split: str) -> "SummaryColumns":
        """Names the columns of a split."""
        after = column(split, "distance")
        changes = f"{split}_change_mm", f"{split}_change_percent"
        return cls(column(split, "distance", before=True), f"{after}_mean", f"{after}_std", *changes)


class ChosenBy(NamedTuple):
    """The columns of the summary that decide which combination is the best."""

    n: str
    mean: str


DECIDING = ChosenBy("deciding_n", "deciding_val_distance_mm")
"""These columns if finalists are confirmed: how many of the other repetitions finished, and their mean."""

DECIDES, CONFIRMS = "decides", "confirms"
"""The roles of repetitions if finalists are confirmed."""


class _ColumnGroup(NamedTuple):
    """The columns of a subset of a split: their names, and the names of the metrics in a trial's file."""

    split: str
    subset: str
    columns: list[str]
    metrics: list[str]


def trial_rows(
    combinations: Sequence[Combination],
    repetitions: Sequence[Row],
    outcomes: Sequence[TrialOutcome],
    option_paths: Sequence[str],
    splits: Sequence[str],
) -> list[Row]:
    """Returns the row of each trial.

    Args:
        combinations: The combination of each trial.
        repetitions: What is known of the repetition of each trial: `repetition`, `seed` and, if there is one, `role`.
        outcomes: The outcome of each trial.
        option_paths: The options that have columns.
        splits: The splits that have columns.
    """
    groups, rows = list(_column_groups(splits, outcomes)), []
    names = ["key", *option_paths, *repetitions[0], "status", "best_epoch"]
    empty: Row = dict.fromkeys([*names, *(name for group in groups for name in group.columns), *RUN_COLUMNS])
    for combination, repetition, outcome in zip(combinations, repetitions, outcomes, strict=True):
        row = empty.copy()  # a copy that is filled takes half as long as a dict that grows
        row["key"] = combination.key
        for path in option_paths:
            row[path] = combination.options[path]
        row.update(repetition, status=outcome.status, best_epoch=outcome.best_epoch)
        for split, subset, columns, metrics in groups:
            values = outcome.metrics.get(split, {}).get(subset)
            if values is not None:
                row.update(zip(columns, map(values.get, metrics), strict=True))
        row.update(outcome.run)
        rows.append(row)
    return rows


def _column_groups(splits: Sequence[str], outcomes: Sequence[TrialOutcome]) -> Iterator[_ColumnGroup]:
    for split in splits:
        subsets = {MEAN_SUBSET: None}  # in the order of the files
        for outcome in outcomes:
            of_trial = outcome.metrics.get(split, {})
            if not of_trial.keys() <= subsets.keys():
                subsets |= dict.fromkeys(of_trial)
        known = (*METRICS, *_own_metrics(outcomes, split))
        for subset in subsets:
            columns, metrics = [], []
            for metric in known:
                columns += [column(split, metric, before=True, subset=subset), column(split, metric, subset=subset)]
                metrics += [f"{metric}_before", metric]
            for metric in ("improved", "worsened"):
                columns.append(column(split, metric, subset=subset))
                metrics.append(metric)
            yield _ColumnGroup(split, subset, columns, metrics)


def _own_metrics(outcomes: Sequence[TrialOutcome], split: str) -> list[str]:
    """Returns the names of the user's own metrics, in order; without those that would be in a column of another."""
    names: dict[str, None] = {}
    for outcome in outcomes:
        of_trial = outcome.metrics.get(split, {}).get(MEAN_SUBSET, {})
        if not of_trial.keys() <= names.keys():
            names |= dict.fromkeys(of_trial)
    taken = {column(split, metric) for metric in (*METRICS, "improved", "worsened")}
    return [name for name in names if f"{name}_before" in names and column(split, name) not in taken]


def summarize(
    trials: Sequence[Row], option_paths: Sequence[str], splits: Sequence[str], n_repetitions: int
) -> list[Row]:
    """Returns the row of each combination, the best in validation first; those with missing repetitions come later.

    Args:
        trials: The rows of all its trials.
        option_paths: The options that have columns.
        splits: The splits that have columns.
        n_repetitions: The planned repetitions, without those that confirm finalists.
    """
    is_confirmed = "role" in trials[0]
    names_of = {
        split: (column(split, "distance", before=True), column(split, "distance"), SummaryColumns.of(split))
        for split in splits
    }
    by_key: dict[str, list[Row]] = {}
    for row in trials:
        by_key.setdefault(row["key"], []).append(row)
    summary = []
    for key, rows in by_key.items():
        ended = [row for row in rows if row["status"] == "finished"]
        finished = [row for row in ended if row.get("role") != DECIDES]
        summed: Row = {
            "key": key,
            **{path: rows[0][path] for path in option_paths},
            "n": len(finished),
            "failed": sum(row["status"] == "failed" for row in rows),
            "diverged": sum(row["status"] == "diverged" for row in rows),
        }
        for name_before, name_after, names in names_of.values():
            # If the test set is an option, a combination may have none.
            measured = [row for row in finished if row[name_after] is not None]
            before = [row[name_before] for row in measured]
            after = [row[name_after] for row in measured]
            mean_before, mean_after = mean(before), mean(after)
            change = None if mean_after is None or mean_before is None else mean_after - mean_before
            change_percent = None if change is None or not mean_before else 100 * change / mean_before
            values = (mean_before, mean_after, std(after), change, change_percent)
            summed |= zip(names, values, strict=True)
        deciding = [row[column("val", "distance")] for row in ended if row.get("role") == DECIDES]
        if is_confirmed:
            summed |= zip(DECIDING, (len(deciding), mean([mm for mm in deciding if mm is not None])), strict=True)
        summary.append(summed)
    by = DECIDING if is_confirmed else ChosenBy("n", SummaryColumns.of("val").mean)
    return sorted(summary, key=lambda row: (row[by.mean] is None, row[by.n] < n_repetitions, row[by.mean] or 0.0))
