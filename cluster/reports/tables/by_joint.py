"""Errors of fingers and joints, before and after, and the table of them for the best combination."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cluster.reports.formats.grid import Cell, Grid, change_cell, number_cell, option_texts
from cluster.reports.formats.xlsx import Style
from cluster.reports.tables import captions
from cluster.reports.tables.captions import SPLIT_NAMES
from cluster.reports.tables.combinations import by_validation_set, chosen_split
from cluster.reports.tables.metric_labels import MEASURES
from cluster.reports.tables.table_options import TableOptions
from cluster.results.combination_logs import read_combination_logs
from cluster.results.deserialize import decode_skeleton
from cluster.results.names import ChoiceError, short_names
from cluster.results.results import Results, Row, SummaryColumns
from cluster.results.statistics import Estimate, estimate
from cluster.storage.folders import ExperimentFolder
from data_pipeline.skeleton import Skeleton

_ALL = "all"
_NO_FINGER = "–"


class PartErrors(NamedTuple):
    """The mean distance of a finger or a joint over repetitions, mm."""

    before: Estimate
    after: Estimate
    change_mm: float | None

    @classmethod
    def of(cls, before: Sequence[float], after: Sequence[float]) -> "PartErrors":
        """Computes the means of the repetitions' distances, before and after."""
        change = estimate([b - a for a, b in zip(before, after, strict=False)])
        return cls(estimate(before), estimate(after), change.mean)

    @property
    def change_percent(self) -> float | None:
        """The change in percent of the distance before."""
        return None if self.change_mm is None or not self.before.mean else 100 * self.change_mm / self.before.mean

    def cells(self, precision: int) -> list[Cell]:
        """Returns the cells below `PART_HEADERS`."""
        return [
            number_cell(self.before.mean, precision=precision),
            number_cell(self.after.mean, self.after.std, precision=precision),
            change_cell(self.change_mm, precision=precision),
            change_cell(self.change_percent, precision=1),
        ]


PART_HEADERS = ("before (mm)", "after (mm)", "change (mm)", "change (%)")


class ByJointTable:
    """The mean distance of each finger and each joint, in mm, of the combination that is best in validation.

    If combinations were validated on different sets, the table shows the best on each set.

    Args:
        folder: The experiment's folder.
        results: Its results.
        table_options: The split and the precision; rows, columns and the metric are fixed.

    Raises:
        ChoiceError: If no trial of that combination has finished, or if its records are missing.
    """

    def __init__(self, folder: ExperimentFolder, results: Results, table_options: TableOptions) -> None:
        self.results = results
        self.table_options = table_options
        self.split = chosen_split(results, table_options)
        mean = SummaryColumns.of(self.split).mean
        finished = [row for row in results.summary if row[mean] is not None]
        if not finished:
            raise ChoiceError(f"{results.name} has no errors by joint: no trial has finished")
        self.best = [ranked[0] for ranked in by_validation_set(results, finished)]
        self.hands = [_hand(folder, results, row, self.split) for row in self.best]

    def records(self) -> list[Row]:
        """Returns a row for all joints together, for each finger, and for each joint."""
        return [
            {"key": best["key"], "finger": finger, "joint": joint, "n": errors.after.n}
            | {"before_mm": errors.before.mean, "after_mm_mean": errors.after.mean, "after_mm_std": errors.after.std}
            | {"change_mm": errors.change_mm, "change_percent": errors.change_percent}
            for best, hand in zip(self.best, self.hands, strict=True)
            for finger, joint, errors in hand
        ]

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns of `records` that need one."""
        return dict.fromkeys(["before_mm", "after_mm_mean", "after_mm_std", "change_mm", "change_percent"], "decimals")

    def grid(self) -> Grid:
        """Returns the table for reading."""
        results, sets, settings = self.results, self._set_names(), self._settings()
        rows = [
            [
                *([Cell(name)] if len(sets) > 1 else []),
                Cell(finger),
                Cell(joint),
                *errors.cells(self.table_options.precision),
            ]
            for name, hand in zip(sets, self.hands, strict=True)
            for finger, joint, errors in hand
        ]
        headers = ["finger", "joint", *PART_HEADERS]
        what = captions.measured(results, self.best, self.split, ["distance"], MEASURES["distance"])
        if len(sets) == 1:
            of = f" of the combination that is best in validation{settings[0] and f' ({settings[0]})'}"
            notes = []
        else:
            headers.insert(0, f"{SPLIT_NAMES[self.split]} set")
            of = " of the combination that is best on each validation set"
            notes = [f"{name}: {setting}." for name, setting in zip(sets, settings, strict=True)]
        # Only repetitions whose records exist.
        n = captions.repeated([{"n": hand[0][2].after.n} for hand in self.hands])
        return Grid(
            name=f"{results.name} by joint",
            caption=f"{what}; {n}{of if len(results.summary) > 1 else ''}.",
            headers=headers,
            rows=rows,
            n_labels=len(headers) - 4,
            notes=[
                *notes,
                *captions.chosen_epochs(self.split),
                *captions.over_folds(results, self.best),
                *captions.unfinished(results, self.best),
                *captions.passed_over(results, self.best, lambda row: None),
            ],
        )

    def _set_names(self) -> list[str]:
        """The data of each shown combination, by the set of its errors."""
        splits = self.results.splits[: self.results.splits.index(self.split) + 1]
        parts = replace(self.results, splits=splits).by_data()
        names = {row["key"]: name for name, part in parts.items() for row in part.summary}
        return [names[row["key"]] for row in self.best]

    def _settings(self) -> list[str]:
        """The options of each shown combination."""
        results, names = self.results, short_names(self.results.option_paths)
        places = [results.summary.index(row) for row in self.best]
        options = [
            [f"{names[path]} = {text}" for text in option_texts([row[path] for row in results.summary])]
            for path in results.distinguishing_paths
        ]
        return [", ".join(of_option[place] for of_option in options) for place in places]


def _hand(folder: ExperimentFolder, results: Results, row: Row, split: str) -> list[tuple[str, str, PartErrors]]:
    """Reads the errors of a combination: finger, joint and errors."""
    trials = [trial for trial in results.trials if (trial["key"], trial["status"]) == (row["key"], "finished")]
    ids = [f"{trial['key']}/{trial['repetition']}" for trial in trials]
    logged = read_combination_logs(folder, results, [row], split=split, is_metric=_is_shown, only_finished=True)
    values = {metric: [float(of[i]) for of in logged.final.values()] for i, metric in enumerate(logged.metrics)}
    without = f"{results.name} has no errors by joint"
    best = f"the trials of {row['key']}, the best in validation,"
    if "distance" not in values:
        raise ChoiceError(f"{without}: the records of {best} are missing or broken")
    try:
        skeleton = decode_skeleton(folder.read_trial(results.trained_ids(ids[0])[0]))
    except (LookupError, TypeError, ValueError) as error:
        raise ChoiceError(f"{without}: the files of {best} do not say which skeleton they use") from error
    return [
        (finger, joint, PartErrors.of(values.get(f"{metric}_before", []), values.get(metric, [])))
        for finger, joint, metric in _parts(skeleton)
    ]


def _is_shown(metric: str) -> bool:
    return metric.startswith("distance[") or metric in ("distance", "distance_before")


def _parts(skeleton: Skeleton) -> Sequence[tuple[str, str, str]]:
    """Finger, joint and metric of each row: all joints together, joints outside fingers, then finger by finger."""
    in_a_finger = {joint for _, joints in skeleton.fingers for joint in joints}
    parts = [(_ALL, _ALL, "distance")]
    parts += [
        (_NO_FINGER, name, f"distance[{name}]")
        for joint, name in enumerate(skeleton.joint_names)
        if joint not in in_a_finger
    ]
    for finger, joints in skeleton.fingers:
        parts.append((finger, _ALL, f"distance[{finger}]"))
        for joint in joints:
            parts.append((finger, skeleton.joint_names[joint], f"distance[{skeleton.joint_names[joint]}]"))
    return parts
