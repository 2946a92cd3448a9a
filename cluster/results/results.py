"""The trials of an experiment and their summary, read from its folder: no torch, no Ray.

If the experiment sweeps over the folds of a split, the folds of otherwise equal combinations are one combination: its
numbers are means over the frames of all folds, see `Results.single_folds`.

The trials are those of the experiment's last plan. Other trials in the folder (of an option that was removed, of data
that changed) are only counted.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, cast

from cluster.racing.decision_file import DecisionFile, read_decisions
from cluster.racing.dropped import DROPPED_COLUMNS, Dropped, dropped_combinations, finalists, for_longer
from cluster.results.experiment_description import DataSet, ExperimentDescription, FoldName, Option, setting_of
from cluster.results.folds import DATASET, Fold, combined_trial, key_of_folds, with_dataset
from cluster.results.names import NOT_APPLICABLE, ChoiceError, in_order, option_texts, short_names
from cluster.results.rows import (
    CONFIRMS,
    DECIDES,
    DECIDING,
    ChosenBy,
    Row,
    SummaryColumns,
    TrialOutcome,
    column,
    fold_std_column,
    summarize,
    trial_rows,
)
from cluster.results.statistics import mean, std
from cluster.storage.experiment_file import ExperimentFile
from cluster.storage.experiment_file import NoResultsError as NoResultsError
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder
from cluster.storage.run_file import RunFile
from cluster.storage.trial_file import TrialFile
from data_pipeline.separation.separation import Separation
from data_pipeline.subsets import MEAN_SUBSET

_EPOCHS = "solver_config.num_epochs"

_GOES_ON = ("failed", "interrupted", "pending")

R = TypeVar("R", bound="Results")


@dataclass(frozen=True)
class Results:
    """The trials of an experiment and their summary.

    If a race's finalists are confirmed, their numbers in all tables are of the fresh repetitions alone, in which only
    finalists are trained. The order of combinations is that of the other repetitions, which chose the finalists.

    Attributes:
        name: The experiment's name.
        option_paths: The settings that vary, a column for each in both tables; also the columns of labels.
        distinguishing_paths: The fewest of them that distinguish all combinations: of settings that vary together, the
            first or their labels, see `distinguishing_column`.
        splits: 'val' and, with a test set, 'test'.
        trials: A row for each trial: options, `repetition`, `seed`, `status`, `best_epoch`, metrics, `train_seconds`,
            `node`, `device`, `gpu`, `gpu_peak_gib`, `gpu_total_gib`, `error`. Missing values are None. With folds, a
            row for each repetition of all folds; it is finished if all folds are. The status of a trial that would go
            on if a race had not dropped its combination is `dropped`. If finalists are confirmed, `role` says whether a
            repetition `decides` or `confirms`; only finalists have the latter.
        summary: A row for each combination, the best in validation first, but those with fewer finished repetitions
            than planned after the others: options, `n` (finished repetitions), `failed`, `diverged`, and by split the
            `SummaryColumns`: means and sample standard deviations over finished repetitions. With folds also `folds`,
            their number, and by split `fold_std_column`: the sample standard deviation of their means. Combinations
            that a race dropped come last, in the order of `dropped`. They have no results and `n` is 0, also if single
            repetitions finished; if there are any, all rows have the `DROPPED_COLUMNS`. If finalists are confirmed,
            these are the numbers of `counted` repetitions; the columns of `DECIDING` have those of the others, on which
            the order rests.
        n_repetitions: The planned repetitions of each combination, without those that confirm finalists.
        n_confirming: The planned fresh repetitions of each finalist of a race; 0 if none confirm them.
        n_others: Trials in the folder that are not part of this plan.
        options: The options as the script registered them, by their columns.
        ranges: The settings whose values a search chose from ranges. Hardly two combinations share a value.
        n_not_proposed: How many combinations the search has still to propose.
        data_sets: For each split the dataset of each combination, by its key; without combinations that have none.
        separations: For each split how far the frames are from the training frames of each combination, by its key;
            without combinations whose distance is not known.
        started: When the last run that trained something began, seconds since 1970; None if that is not known.
        folds: The folds of each combination, by its key; empty without folds.
        run_ids: The ids of the runs that trained each trial on disk, by its id; the last one continued what the others
            began.
        runs: What produced the trials of each run, by its id; without runs that recorded nothing.
        trained: With folds, the results of the trained combinations, one for each fold; None without folds.
        folder: The folder that they were read from, for what only some tables show; see `files`.
        dropped: Where a race dropped combinations, by their keys: the latest rung first, there the best first.
        decisions: The decisions of the race in their order, for longer trainings in the place of those that it raced if
            the latter are not planned any more; empty without a race.
        stands_for: The longer trainings that replace shorter ones in the race: the key of the next shorter one, by key.
        warnings: What is in the files but not valid, and therefore missing here, a sentence each.
    """

    name: str
    option_paths: list[str]
    distinguishing_paths: list[str]
    splits: list[str]
    trials: list[Row]
    summary: list[Row]
    n_others: int
    n_repetitions: int
    n_confirming: int = 0
    options: Mapping[str, Option] = field(default_factory=dict)
    ranges: Sequence[str] = ()
    n_not_proposed: int = 0
    data_sets: Mapping[str, Mapping[str, DataSet]] = field(default_factory=dict)
    separations: Mapping[str, Mapping[str, Separation]] = field(default_factory=dict)
    started: float | None = field(default=None, compare=False)
    folds: Mapping[str, Sequence[Fold]] = field(default_factory=dict)
    run_ids: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False, repr=False)
    runs: Mapping[str, RunFile] = field(default_factory=dict, compare=False, repr=False)
    trained: "Results | None" = field(default=None, repr=False)
    folder: ExperimentFolder | None = field(default=None, compare=False, repr=False)
    dropped: Mapping[str, Dropped] = field(default_factory=dict)
    decisions: Sequence[DecisionFile] = field(default=(), repr=False)
    stands_for: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: Sequence[str] = field(default=(), compare=False, repr=False)

    @classmethod
    def read(cls: type[R], folder: ExperimentFolder) -> R:
        """Reads the results on disk, and combines folds.

        Raises:
            NoResultsError: If there is no experiment, or if its description is broken.
            StorageError: If a file cannot be read.
        """
        file = folder.read_experiment()
        try:
            experiment = ExperimentDescription.of(file)
        except ValueError as error:
            raise NoResultsError.of(folder.storage.location, str(error)) from error
        n_repetitions = len(experiment.seeds) - experiment.n_confirming
        planned = [(c, repetition) for repetition in range(len(experiment.seeds)) for c in experiment.combinations]
        ids = [f"{c.key}/{repetition}" for c, repetition in planned]
        wanted = set(ids)
        known = folder.read_trials(TrialOutcome.of, wanted.__contains__, is_described=False)
        pending = TrialOutcome.of(TrialFile())
        outcomes = [known.get(trial_id, pending) for trial_id in ids]
        runs = folder.read_runs()
        decisions, broken = read_decisions(folder.storage) if experiment.is_raced else ([], [])

        warnings = [f"{FileNames.EXPERIMENT}: {problem}" for problem in experiment.problems]
        for trial_id, outcome in known.items():
            warnings += [f"{FileNames.in_trial(trial_id, FileNames.TRIAL)}: {text}" for text in outcome.problems]
        warnings += broken
        option_paths, splits = experiment.option_paths, experiment.splits
        of_repetition = [
            {"repetition": repetition, "seed": seed}
            | ({"role": DECIDES if repetition < n_repetitions else CONFIRMS} if experiment.n_confirming else {})
            for repetition, seed in enumerate(experiment.seeds)
        ]
        combinations, repetitions = zip(*((c, of_repetition[r]) for c, r in planned), strict=True)
        trials = trial_rows(combinations, repetitions, outcomes, option_paths, splits)
        found = cls(
            name=experiment.name,
            option_paths=option_paths,
            distinguishing_paths=experiment.distinguishing_paths,
            splits=splits,
            trials=trials,
            summary=summarize(trials, option_paths, splits, n_repetitions),
            n_others=len(known.keys() - wanted),
            n_repetitions=n_repetitions,
            n_confirming=experiment.n_confirming,
            options=experiment.options,
            ranges=experiment.ranges,
            n_not_proposed=experiment.n_not_proposed,
            data_sets=experiment.data_sets,
            separations=experiment.separations,
            started=max((run.started for run in runs.values() if run.started is not None), default=None),
            run_ids={trial_id: outcome.runs for trial_id, outcome in zip(ids, outcomes, strict=True)},
            runs=runs,
            folder=folder,
            decisions=decisions,
            stands_for=file.stands_for,
            warnings=warnings,
        )
        found = found._over_folds(experiment.folds) if experiment.folds else found
        after_race = replace(found, decisions=found._for_longer(file, ()))._after_race()
        return replace(after_race, decisions=found._for_longer(file, found.repetitions))

    def _for_longer(self, file: ExperimentFile, planned: Collection[str]) -> list[DecisionFile]:
        """Returns the decisions with longer trainings next to the shorter ones that raced in their place.

        With the latter's keys in `planned`, the longer ones are left out: they did not race.
        """
        combinations = {combination.key: combination for combination in file.plan.combinations}
        trained = {key: combinations.get(self.trained_keys(key)[0]) for key in file.stands_for}
        lengths = {key: setting_of(file, one, _EPOCHS) for key, one in trained.items() if one is not None}
        known = {key: epochs for key, epochs in lengths.items() if isinstance(epochs, int)}
        return for_longer(self.decisions, file.stands_for, known, planned)

    @property
    def files(self) -> ExperimentFolder:
        """The folder that they were read from."""
        assert self.folder is not None  # only tests make results without one
        return self.folder

    @cached_property
    def repetitions(self) -> dict[str, list[Row]]:
        """The rows of each combination's trials by its key, one for each repetition."""
        found: dict[str, list[Row]] = {row["key"]: [] for row in self.summary}
        for row in self.trials:
            found[row["key"]].append(row)
        return found

    @cached_property
    def counted(self) -> dict[str, list[Row]]:
        """The rows of `repetitions` that all numbers are means over: those that confirm finalists, if any do."""
        if not self.n_confirming:
            return self.repetitions
        return {key: [row for row in rows if row["role"] == CONFIRMS] for key, rows in self.repetitions.items()}

    @property
    def n_counted(self) -> int:
        """The planned repetitions that all numbers are means over."""
        return self.n_confirming or self.n_repetitions

    @property
    def chosen_by(self) -> "ChosenBy":
        """The columns of the summary that decide which combination is the best."""
        return DECIDING if self.n_confirming else ChosenBy("n", SummaryColumns.of("val").mean)

    def is_complete(self, row: Row) -> bool:
        """Returns whether all planned repetitions of a row of `summary` have finished, also those that confirm it."""
        return bool(row["n"] >= self.n_counted and row[self.chosen_by.n] >= self.n_repetitions)

    @property
    def is_open(self) -> bool:
        """Whether trials of combinations that no race has dropped still have to be trained."""
        rows = (trial for row in self.ranked for trial in self.repetitions[row["key"]])
        return any(trial["status"] in _GOES_ON for trial in rows)

    @cached_property
    def ranked(self) -> list[Row]:
        """The rows of `summary` without those of combinations that a race dropped: only these can be compared."""
        return [row for row in self.summary if row["key"] not in self.dropped]

    @property
    def not_ranked(self) -> list[Row]:
        """The rows of `summary` of combinations that a race dropped, in their order."""
        return self.summary[len(self.ranked) :]

    @property
    def single_folds(self: R) -> R:
        """The results of the combinations as they were trained: each fold has its own. Without folds it is `self`."""
        return self if self.trained is None else cast(R, self.trained)

    def trained_keys(self, key: str) -> list[str]:
        """Returns the keys of the trained combinations that a combination consists of: its folds, or itself."""
        return [fold.key for fold in self.folds[key]] if key in self.folds else [key]

    def trained_ids(self, trial_id: str) -> list[str]:
        """Returns the ids of the trials on disk that a row of `trials`, 'KEY/REPETITION', consists of."""
        key, _, repetition = trial_id.partition("/")
        return [f"{trained}/{repetition}" for trained in self.trained_keys(key)]

    def trained_by(self, rows: Sequence[Row]) -> dict[str, list[RunFile] | None]:
        """Returns the runs that trained each finished trial on disk of some combinations, by its id.

        The value is None if not all runs of a trial were recorded.
        """
        keys = {key for row in rows for key in self.trained_keys(row["key"])}
        trials = [row for row in self.single_folds.trials if row["key"] in keys and row["status"] == "finished"]
        ids = [f"{row['key']}/{row['repetition']}" for row in trials]
        return {trial_id: self.runs_of(trial_id) for trial_id in ids}

    def runs_of(self, trial_id: str) -> list[RunFile] | None:
        """Returns the runs that trained a trial on disk, in their order; None if they were not all recorded."""
        run_ids = self.run_ids.get(trial_id, ())
        return [self.runs[i] for i in run_ids] if run_ids and all(i in self.runs for i in run_ids) else None

    @property
    def failures(self) -> list[Row]:
        """The trials on disk that failed or diverged."""
        return [row for row in self.single_folds.trials if row["status"] in ("failed", "diverged")]

    @property
    def split(self) -> str:
        """The split that results are reported on: the test set if there is one."""
        return self.splits[-1]

    @cached_property
    def described(self) -> dict[str, dict[str, str]]:
        """What distinguishes each combination, by its key: the options that apply, as texts by their short names."""
        names, paths = short_names(self.distinguishing_paths), self.distinguishing_paths
        texts = [option_texts([row[path] for row in self.summary]) for path in paths]
        options = zip(*texts, strict=True) if paths else [()] * len(self.summary)
        return {
            row["key"]: {name: text for name, text in zip(names.values(), of, strict=True) if text != NOT_APPLICABLE}
            for row, of in zip(self.summary, options, strict=True)
        }

    def option_values(self, path: str) -> list[Any]:
        """Returns the values of an option where it applies, in the order of the script.

        A search proposes them in another order.
        """
        planned = {repr(row[path]): row[path] for row in self.trials[: len(self.summary)]}
        planned.pop(repr(NOT_APPLICABLE), None)
        return list(in_order(planned, self.options[path].values if path in self.options else ()).values())

    def subsets(self, split: str) -> list[str]:
        """Returns the subsets that have their own columns; none if there is only one subset."""
        start = f"{column(split, 'distance')}["
        return [name[len(start) : -1] for name in next(iter(self.trials), {}) if name.startswith(start)]

    def values(self, name: str) -> dict[str, list[Any]]:
        """Returns a column of the counted trials of each combination, by its key, in the order of repetitions.

        The values of a combination that a race dropped are None: no mean may contain them.
        """
        missing = [None] * self.n_counted
        return {
            key: missing if key in self.dropped else [trial[name] for trial in trials] or missing
            for key, trials in self.counted.items()
        }

    def fold_means(self, name: str) -> dict[str, list[float | None]]:
        """Returns the mean of a column of the trials for each fold of each combination, by its key.

        The means are over the counted repetitions that all folds finished.
        """
        values = self.single_folds.values(name)
        found = {}
        for key, folds in self.folds.items():
            counted = [place for place, trial in enumerate(self.counted[key]) if trial["status"] == "finished"]
            known = [[values[fold.key][place] for place in counted] for fold in folds]
            found[key] = [mean([value for value in of_fold if value is not None]) for of_fold in known]
        return found

    def best_for_each(self, path: str) -> list[Row]:
        """Returns the best row in validation for each value of an option: the first of its rows in the summary.

        If the combinations of a value were validated on different sets, it returns the best on each set. A value has no
        row if a race dropped all of its combinations.
        """
        validated_on = self.data_sets.get("val", {})
        best: dict[tuple[str, DataSet | None], Row] = {}
        for row in self.ranked:
            # By the text, since 1 and True are the same key.
            best.setdefault((repr(row[path]), validated_on.get(row["key"])), row)
        return list(best.values())

    def where(self: R, is_wanted: Callable[[Row], bool]) -> R:
        """Returns the results of some combinations, with their trials.

        An option that has a single value there is not an option any more.

        Args:
            is_wanted: Decides by a row of `summary`.

        Raises:
            ChoiceError: If no combination is wanted.
        """
        keys = {row["key"] for row in self.summary if is_wanted(row)}
        if not keys:
            raise ChoiceError(f"{self.name} has no such combination; `summary` has all {len(self.summary)}")
        return self._restricted(keys)

    def by_data(self: R) -> dict[str, R]:
        """Returns the results on each data set, by its name: only results on the same data can be compared.

        Returns:
            The data with the best combination in validation come first. An option with a single value on some data is
            not an option there. If all combinations were measured on the same data, the only value is `self`.
        """
        groups: dict[tuple[DataSet | None, ...], set[str]] = {}
        for row in self.summary:
            measured_on = tuple(self.data_sets.get(split, {}).get(row["key"]) for split in self.splits)
            groups.setdefault(measured_on, set()).add(row["key"])
        return dict(zip(_names(list(groups)), map(self._restricted, groups.values()), strict=True))

    def _restricted(self: R, keys: set[str]) -> R:
        if len(keys) == len(self.summary):
            return self
        summary = [row for row in self.summary if row["key"] in keys]
        varied = [path for path in self.option_paths if len({repr(row[path]) for row in summary}) > 1]
        data_sets = {split: {k: found for k, found in of.items() if k in keys} for split, of in self.data_sets.items()}
        separations = {split: {k: s for k, s in of.items() if k in keys} for split, of in self.separations.items()}
        return replace(
            self,
            option_paths=varied,
            distinguishing_paths=[path for path in self.distinguishing_paths if path in varied],
            # Without a description of the data, it is not known which combinations have a test set.
            splits=[s for s in self.splits if s == "val" or data_sets.get(s) or not self.data_sets.get(s)],
            trials=[row for row in self.trials if row["key"] in keys],
            summary=summary,
            n_others=0,
            n_not_proposed=0,
            data_sets=data_sets,
            separations=separations,
            folds={key: folds for key, folds in self.folds.items() if key in keys},
            dropped={key: dropped for key, dropped in self.dropped.items() if key in keys},
            trained=self.trained and self.trained._restricted({t for key in keys for t in self.trained_keys(key)}),
        )

    def _after_race(self: R) -> R:
        """Returns the results with the combinations that the race dropped after the others.

        Only finalists keep rows of trials that confirm them.
        """
        validated_on = self.data_sets.get("val", {})
        unfinished = {row["key"] for row in self.summary if not self.is_complete(row)}
        dropped = dropped_combinations(
            self.decisions, {key: (data.name, data.size) for key, data in validated_on.items() if key in unfinished}
        )
        raced = self._with_all_dropped(dropped) if dropped else self
        if not self.n_confirming:
            return raced
        # A bracket with a single rung decides nothing: what was trained shows its finalists.
        begun = {row["key"] for row in self.trials if row["role"] == CONFIRMS and row["status"] != "pending"}
        return raced._confirming_only((finalists(self.decisions) | begun) - dropped.keys())

    def _confirming_only(self: R, keys: Collection[str]) -> R:
        """Returns the results without the trials that would confirm other combinations than these."""
        trained = {one for key in keys for one in self.trained_keys(key)}
        return replace(
            self,
            trials=[row for row in self.trials if row["role"] == DECIDES or row["key"] in keys],
            trained=self.trained and cast(R, self.trained)._confirming_only(trained),
        )

    def _with_all_dropped(self: R, dropped: Mapping[str, Dropped]) -> R:
        of_folds = {
            fold.key: at._replace(val_distance_mm=None, leader_val_distance_mm=None)  # a fold has none of its own
            for key, at in dropped.items()
            for fold in self.folds.get(key, ())
        }
        trained = self.trained and cast(R, self.trained)._with_dropped(of_folds)
        return replace(self._with_dropped(dropped), trained=trained)

    def _with_dropped(self: R, dropped: Mapping[str, Dropped]) -> R:
        measured = [name for split in self.splits for name in SummaryColumns.of(split)]
        measured += [name for split in self.splits if self.folds for name in [fold_std_column(split, "distance")]]
        no_results = {"n": 0, **dict.fromkeys(measured)}
        no_results |= {DECIDING.n: 0, DECIDING.mean: None} if self.n_confirming else {}
        rows = {row["key"]: row | dict.fromkeys(DROPPED_COLUMNS) for row in self.summary}
        for key, at in dropped.items():
            # The others come first.
            rows[key] = rows.pop(key) | no_results | dict(zip(DROPPED_COLUMNS, at, strict=True))
        return replace(
            self,
            trials=[
                row | {"status": "dropped"} if row["key"] in dropped and row["status"] in _GOES_ON else row
                for row in self.trials
            ],
            summary=list(rows.values()),
            dropped=dropped,
        )

    def _over_folds(self: R, fold_of: Mapping[str, FoldName]) -> R:
        """Returns the results with one combination in place of its folds.

        Args:
            fold_of: The fold of each combination, by its key.
        """
        folds = self._folds_by_combination(fold_of)
        is_named = len({dataset for dataset, _ in fold_of.values()}) > 1
        option_paths = with_dataset(self.option_paths, is_shown=is_named)
        trials = self._trials_of_all_folds(folds, option_paths, fold_of)
        combined = replace(
            self,
            option_paths=option_paths,
            distinguishing_paths=with_dataset(self.distinguishing_paths, is_shown=is_named),
            trials=trials,
            summary=summarize(trials, option_paths, self.splits, self.n_repetitions),
            data_sets={
                split: {
                    key: DataSet(
                        fold_of[first.key].dataset,
                        of_split[first.key].size,
                        sum(f.n_frames[split] for f in all_),
                        sum(f.n_triples[split] for f in all_),
                    )
                    for key, all_ in folds.items()
                    for first in all_[:1]
                }
                for split, of_split in self.data_sets.items()
            },
            separations={},  # each fold has its own
            folds=folds,
            trained=self,
        )
        for split in self.splits:
            means = combined.fold_means(column(split, "distance"))
            for row in combined.summary:
                row["folds"] = len(folds[row["key"]])
                row[fold_std_column(split, "distance")] = std([m for m in means[row["key"]] if m is not None])
        return combined

    def _folds_by_combination(self, fold_of: Mapping[str, FoldName]) -> dict[str, list[Fold]]:
        """Returns the folds of each combination, by its new key, in the order of the plan."""
        other_paths = with_dataset(self.option_paths, is_shown=False)
        groups: dict[tuple[str, ...], list[Fold]] = {}
        for row in self.trials[: len(self.summary)]:  # the first repetition
            dataset, number = fold_of[row["key"]]
            sets = {split: of_split[row["key"]] for split, of_split in self.data_sets.items()}
            n_frames = {split: found.n_frames or 0 for split, found in sets.items()}
            n_triples = {split: found.n_triples for split, found in sets.items()}
            group = groups.setdefault((dataset, *(repr(row[path]) for path in other_paths)), [])
            group.append(Fold(number, row["key"], n_frames, n_triples))
        return {key_of_folds([fold.key for fold in folds]): folds for folds in groups.values()}

    def _trials_of_all_folds(
        self, folds: Mapping[str, Sequence[Fold]], option_paths: Sequence[str], fold_of: Mapping[str, FoldName]
    ) -> list[Row]:
        metrics = {name: split for split in self.splits for name in self.trials[0] if name.startswith(f"{split}_")}
        of_triples = {
            column(split, "acceleration_error", before=before, subset=subset)
            for split in self.splits
            for subset in (MEAN_SUBSET, *self.subsets(split))
            for before in (True, False)
        }
        n_measured = {
            key: {
                name: [(fold.n_triples if name in of_triples else fold.n_frames)[split] for fold in of_key]
                for name, split in metrics.items()
            }
            for key, of_key in folds.items()
        }
        rows = {(row["key"], row["repetition"]): row | {DATASET: fold_of[row["key"]].dataset} for row in self.trials}
        trials = []
        for repetition in range(self.n_repetitions + self.n_confirming):
            for key, of_key in folds.items():
                of_folds = [rows[fold.key, repetition] for fold in of_key]
                described = {"key": key} | {path: of_folds[0][path] for path in option_paths}
                trials.append(combined_trial(of_folds, described, n_measured[key]))
        return trials


def _names(groups: Sequence[tuple[DataSet | None, ...]]) -> list[str]:
    """Returns a name for each data set: that of the reported set, with details if they are needed to distinguish it."""
    reported = [next((found for found in reversed(group) if found is not None), None) for group in groups]
    names = ["the data" if found is None else found.name for found in reported]
    if len(set(names)) < len(names):
        names = [
            name if found is None or found.size is None else f"{name} (first {found.size})"
            for name, found in zip(names, reported, strict=True)
        ]
    if len(set(names)) < len(names):
        chosen_on = ["no set" if group[0] is None else str(group[0].name) for group in groups]
        names = [f"{name}, chosen on {val}" for name, val in zip(names, chosen_on, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} ({place})" for place, name in enumerate(names, 1)]
    return names
