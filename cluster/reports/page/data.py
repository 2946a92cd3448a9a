"""The content of the report page, read from an experiment's folder, and the part that the page's scripts receive."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from cluster.figures.style import FigureError
from cluster.reports.draw import skeleton_of
from cluster.results.combination_logs import read_combination_logs
from cluster.results.groups import GROUPINGS, Group, Grouping, part_groups, part_names, read_groups, whole
from cluster.results.learning_curves import Curve, Logged, Numbers
from cluster.results.names import ChoiceError
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns, column
from cluster.results.statistics import Comparison, adjusted, compare, repetitions_needed
from cluster.storage.examples import FollowedExamples
from cluster.storage.experiment_file import ExperimentFile, Range
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lock import is_locked
from data_pipeline.skeleton import Skeleton

MAX_DATA_GROUPS = 12
"""The largest number of data sets with their own sections. This keeps a page with a hundred test sets short."""

_CURVE_POINTS = 200_000
"""The approximate number of log points on the page, all trials together. This keeps the page small."""

_MIN_POINTS_OF_A_TRIAL = 20
_MAX_POINTS_OF_A_TRIAL = 200
_MAX_STEPS = 60
"""Log points in the viewer of examples."""

_MAX_EXAMPLES = 12


class DataGroup(NamedTuple):
    """The results on one data set of an experiment that was measured on several."""

    number: int
    name: str
    """The data's name."""


@dataclass(frozen=True)
class PageData:
    """Everything that a report shows about an experiment, or about its results on one data set.

    Attributes:
        table: The trials and their summary.
        experiment: The content of `experiment.json`.
        logged: Learning curves and mean distances of joints and fingers, on the reported split.
        is_running: Whether a process is running the experiment.
        example_trial: The trial whose examples are shown: the first trial of the best combination that has examples.
        examples: Its examples; None if no trial has examples.
        skeletons: The skeleton of the poses of each data set, by its name, if a trial's file has it.
        groups: The errors of the best combination of each data set on the reported split, by its key and by what
            distinguishes the groups. Groupings are left out if they are not known or have only one group.
        group: The data set of these results; None for the whole experiment.
        whole: The whole experiment, if these are the results on one of its data sets.
    """

    table: Results
    experiment: ExperimentFile
    logged: Logged
    is_running: bool
    example_trial: str | None
    examples: FollowedExamples | None
    skeletons: Mapping[str, Skeleton]
    groups: Mapping[str, Mapping[Grouping, Sequence[Group]]]
    group: DataGroup | None = None
    whole: "PageData | None" = None

    @classmethod
    def read(cls, folder: ExperimentFolder, results: Results | None = None) -> "PageData":
        """Reads the files; reads the results only if they are not given.

        Raises:
            NoResultsError: If there is no experiment, or if its description is broken.
            StorageError: If a file cannot be read.
        """
        table = Results.read(folder) if results is None else results
        logged = read_combination_logs(folder, table, table.summary, split=table.split, is_metric=_is_of_a_part)
        best_ids = [trial_id(row) for row in table.repetitions[table.summary[0]["key"]]]
        trained_ids = [trained for best_id in best_ids for trained in table.trained_ids(best_id)]
        example_trial, examples = _first_examples(folder, trained_ids)
        skeletons = _skeletons(folder, table)
        return cls(
            table=table,
            experiment=folder.read_experiment(),
            logged=logged,
            is_running=is_locked(folder.storage),
            example_trial=example_trial,
            examples=examples,
            skeletons=skeletons,
            groups=_groups(folder, table, logged, skeletons),
        )

    @property
    def ranges(self) -> dict[str, Range]:
        """The ranges of a search, by setting. Ranges from damaged files are left out, because they have no axis."""
        found = {axis.paths[0]: axis.range for axis in self.experiment.options if axis.range is not None}
        return {path: of for path, of in found.items() if of.low < of.high and (of.low > 0 or not of.log)}

    @property
    def skeleton(self) -> Skeleton | None:
        """The skeleton of the poses of the first data set; None if no trial's file has it."""
        name = next(iter(self._tables)) if self.group is None else self.group.name
        return self.skeletons.get(name)

    @cached_property
    def _tables(self) -> dict[str, Results]:
        return self.table.by_data()

    @cached_property
    def by_data(self) -> list["PageData"]:
        """The results on each data set; only this object if all results are on the same data."""
        if len(self._tables) == 1:
            return [self]
        groups = enumerate(self._tables.items(), 1)
        return [replace(self, table=table, group=DataGroup(i, name), whole=self) for i, (name, table) in groups]

    @cached_property
    def rows(self) -> list[Row]:
        """The ranked combinations, best in validation first; those that were measured on the same data are together.

        Combinations that a race dropped are not among them; they have their own table.
        """
        return [row for data in self.by_data for row in data.table.ranked]

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """The comparison of each combination with the best on the same data, on the reported split, by key.

        The p-values are adjusted for all pairs on all data, since the best was selected by the same numbers.
        """
        if self.whole is not None:
            return {row["key"]: self.whole.comparisons[row["key"]] for row in self.table.ranked[1:]}
        found: dict[str, Comparison] = {}
        for table in self._tables.values():
            values = table.values(column(table.split, "distance"))
            found |= {
                row["key"]: compare(values[row["key"]], values[table.ranked[0]["key"]]) for row in table.ranked[1:]
            }
        return dict(zip(found, adjusted(list(found.values()), n_possible=self._n_pairs), strict=True))

    @property
    def n_needed(self) -> int | None:
        """The number of repetitions that a test of all pairs on all data needs; None if no number is enough."""
        return repetitions_needed(self._n_pairs if self.whole is None else self.whole._n_pairs)

    @property
    def _n_pairs(self) -> int:
        return sum(math.comb(len(table.ranked), 2) for table in self._tables.values())

    @cached_property
    def parts(self) -> list[str]:
        """The joints and fingers whose errors are known, fingers first."""
        own = [final for row in self.table.trials if (final := self.logged.final.get(trial_id(row))) is not None]
        finals = np.reshape(own, (len(own), len(self.logged.metrics)))  # (trials, M)
        metrics = [self.logged.metrics[place] for place in np.flatnonzero(np.isfinite(finals).any(axis=0))]
        names = [part_of(name) for name in metrics if not name.endswith("_before")]
        fingers = [name for name, _ in self.skeleton.fingers] if self.skeleton else []
        return sorted(names, key=lambda name: fingers.index(name) if name in fingers else len(fingers))

    def errors_by_joint(self, key: str) -> tuple[Numbers, Numbers] | None:
        """Returns a combination's mean distances of joints and fingers, before and after.

        Returns:
            Two arrays (n, P), mm, for its n finished repetitions and the P `parts`; None if there are none.
        """
        ids = [trial_id(row) for row in self.table.counted[key] if row["status"] == "finished"]
        finals = [self.logged.final[i] for i in ids if i in self.logged.final]
        if not finals or not self.parts:
            return None
        places = {name: place for place, name in enumerate(self.logged.metrics)}
        before, after = (
            np.stack(finals)[:, [places[f"distance[{part}]{suffix}"] for part in self.parts]]
            for suffix in ("_before", "")
        )  # (n, P) each
        return None if np.isnan(after).all() else (before, after)

    @cached_property
    def thinning(self) -> int:
        """This is n if the page has every n-th log point of a learning curve, counted from the last."""
        n_allowed = _CURVE_POINTS // max(1, len(self.logged.curves))
        n_allowed = min(max(n_allowed, _MIN_POINTS_OF_A_TRIAL), _MAX_POINTS_OF_A_TRIAL)
        longest = max((len(curve.epochs) for curve in self.logged.curves.values()), default=0)
        return max(1, math.ceil(longest / n_allowed))

    def for_scripts(self) -> dict[str, Any]:
        """Returns what the page's table needs to open a combination, as compactly as possible."""
        grids: dict[tuple[float, ...], int] = {}
        befores: dict[tuple[float | None, ...], int] = {}
        combinations = [
            {
                "key": row["key"],
                "before": _rounded(row[SummaryColumns.of("val").before]),
                "trials": [self._trial(trial) for trial in self.table.repetitions[row["key"]]],
                "curves": [self._curve(trial_id(trial), grids) for trial in self.table.repetitions[row["key"]]],
                "parts": self._parts(row["key"], befores),
            }
            for row in self.rows
        ]
        return {
            "splits": self.table.splits,
            # The number of repetitions of the race; later ones confirm its finalists. Null if none do.
            "deciding": self.table.n_repetitions if self.table.n_confirming else None,
            "grids": [list(grid) for grid in grids],
            "thinning": self.thinning,
            "parts": self.parts,
            "befores": [list(before) for before in befores],
            "combinations": combinations,
        }

    def examples_for_scripts(self) -> dict[str, Any] | None:
        """Returns the examples for the viewer: hundredths of a millimetre from the middle of each label."""
        if self.examples is None or self.skeleton is None:
            return None
        shown = self.examples
        steps = np.unique(np.linspace(0, len(shown.epochs) - 1, min(len(shown.epochs), _MAX_STEPS)).round().astype(int))
        kept = slice(None, _MAX_EXAMPLES)
        labels = shown.labels_mm[kept]
        middles = labels.mean(axis=1, keepdims=True)  # (E, 1, 3)

        def hundredths(poses: Any) -> Any:
            return np.round(100 * np.nan_to_num(poses - middles)).astype(int).tolist()

        n_batches = int(shown.batches.max(initial=1))
        return {
            "bones": self.skeleton.bones,
            "indices": shown.indices[kept].tolist(),
            "epochs": [_rounded(shown.epochs[s] - 1 + shown.batches[s] / n_batches) for s in steps],
            "inputs": hundredths(shown.inputs_mm[kept]),
            "labels": hundredths(labels),
            "predictions": [hundredths(shown.predictions_mm[s][kept]) for s in steps],
        }

    def _trial(self, row: Row) -> list[Any]:
        distances = [_rounded(row[column(split, "distance")]) for split in self.table.splits]
        # With folds it is a mean over them.
        epoch = _rounded(row["best_epoch"]) if self.table.folds else row["best_epoch"]
        return [row["status"], str(row["seed"]), epoch, _rounded(row["train_seconds"]), *distances]

    def _curve(self, trial: str, grids: dict[tuple[float, ...], int]) -> list[Any] | None:
        curve = self.logged.curves.get(trial)
        if curve is None or not len(curve.epochs):
            return None
        kept = thinned(curve, self.thinning)
        grid = tuple(_rounded(epoch) or 0.0 for epoch in kept.epochs)
        return [grids.setdefault(grid, len(grids)), _all_rounded(kept.val_mm), _all_rounded(kept.train_mm)]

    def _parts(self, key: str, befores: dict[tuple[float | None, ...], int]) -> list[Any] | None:
        errors = self.errors_by_joint(key)
        if errors is None:
            return None
        before, after = (values.mean(axis=0) for values in errors)  # (P,) each
        place = befores.setdefault(tuple(_all_rounded(before)), len(befores))
        return [place, _all_rounded(after)]


def trial_id(row: Row) -> str:
    """Returns the id of a trial by its row in the table."""
    return f"{row['key']}/{row['repetition']}"


def part_of(metric: str) -> str:
    """Returns the joint or finger in the name of a metric such as `distance[thumb]_before`."""
    return metric[metric.index("[") + 1 : metric.rindex("]")]


def thinned(curve: Curve, step: int) -> Curve:
    """Returns every `step`-th log point of a curve, counted from its last."""
    return Curve(*(values[::-1][::step][::-1] for values in curve))


def _is_of_a_part(metric: str) -> bool:
    return metric.startswith("distance[")


def _first_examples(folder: ExperimentFolder, ids: Sequence[str]) -> tuple[str | None, FollowedExamples | None]:
    for found_id in ids:
        try:
            examples = FollowedExamples.read(folder.trial(found_id))
        except ValueError:
            continue  # the file is broken; use that of another repetition
        if examples is not None and examples.predictions_mm.size:
            return found_id, examples
    return None, None


def _skeletons(folder: ExperimentFolder, table: Results) -> dict[str, Skeleton]:
    found: dict[str, Skeleton] = {}
    for name, of_data in list(table.by_data().items())[:MAX_DATA_GROUPS]:
        best = of_data.summary[0]["key"]
        for row in of_data.repetitions[best]:
            if name not in found:
                with suppress(FigureError):  # it has not begun, or an older version that recorded less wrote it
                    found[name] = skeleton_of(folder, table.trained_ids(trial_id(row))[0])
    return found


def _groups(
    folder: ExperimentFolder, table: Results, logged: Logged, skeletons: Mapping[str, Skeleton]
) -> dict[str, dict[Grouping, Sequence[Group]]]:
    found: dict[str, dict[Grouping, Sequence[Group]]] = {}
    for name, of_data in list(table.by_data().items())[:MAX_DATA_GROUPS]:
        best, split = of_data.summary[0], of_data.split
        of_best = found[best["key"]] = {}
        for by in GROUPINGS:
            if by in ("finger", "joint"):  # their records have been read already
                if name in skeletons:
                    ids = [trial_id(row) for row in of_data.counted[best["key"]]]
                    parts = part_names(skeletons[name], by)
                    of_best[by] = part_groups(whole(of_data, best, split), logged, ids, parts)
            else:
                with suppress(ChoiceError):
                    of_best[by] = read_groups(folder, of_data, best, by, split=split)
    return {
        key: {
            by: groups
            for by, groups in of_best.items()
            if len(groups) > 2 and any(value is not None for value in groups[1].after)
        }
        for key, of_best in found.items()
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 2)


def _all_rounded(values: Numbers) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in np.round(values, 2).tolist()]
