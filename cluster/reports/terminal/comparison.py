"""Compares two experiments, or two combinations of one experiment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cluster.reports.tables.captions import confirmed, raced
from cluster.results.folds import DATASET, with_dataset
from cluster.results.lookup import find_combination
from cluster.results.names import setting_of
from cluster.results.results import Results
from cluster.results.rows import Row, column
from cluster.results.settings_text import MISSING, differences, flat, settings_of, text
from cluster.results.statistics import Comparison, adjusted, compare
from cluster.storage.experiment_file import ExperimentFile
from cluster.storage.run_file import origins_of
from data_pipeline.words import listed

_IRRELEVANT = (
    *("experiment_config.name", "experiment_config.storage_path", "experiment_config.data_dir"),
    *("experiment_config.target_device", "experiment_config.trials_per_device", "experiment_config.max_retries"),
    *("experiment_config.checkpoint_interval_s", "experiment_config.trial_timeout_s", "experiment_config.keep_weights"),
    *("experiment_config.keep_state", "experiment_config.stop_if_all_fail", "experiment_config.n_repetitions"),
    "experiment_config.race",
    *("solver_config.verbose", "solver_config.show_plots", "solver_config.log_frequency", "solver_config.log_loss"),
    *("solver_config.log_grad", "solver_config.val_example_indices", "solver_config.val_example_subset"),
    *("solver_config.metrics", "solver_config.callbacks", "solver_config.interest_keys"),
)
"""Settings that do not change any number in a table."""

_SECTIONS = ("experiment_config", "solver_config")
_HYPERPARAMS = "base_hyperparams"
"""The settings of this section are named without the section, like options."""


@dataclass(frozen=True)
class Pair:
    """Two combinations, one of each experiment, with the same settings except for the differences of the experiments.

    Attributes:
        options: The values that both share, by path, among the options of the two experiments.
        unlike: Both values, as texts, by path, of the options that distinguish pairs but are not shared.
        first: The row in the summary of the first experiment.
        second: The row in the summary of the second experiment.
        comparison: The second minus the first, mm, paired by repetition; None if the two were measured on different
            data or trained with different seeds, or if a race dropped one of them.
    """

    options: Mapping[str, Any]
    unlike: Mapping[str, tuple[str, str]]
    first: Row
    second: Row
    comparison: Comparison | None


@dataclass(frozen=True)
class ExperimentComparison:
    """The comparison of two experiments.

    Attributes:
        names: The names of their folders, which distinguish a copy from its original.
        split: The split that they are compared on.
        differences: Both values, as texts, of each setting that differs; for an option all of its values. Also both
            fingerprints of each data set that has the same name but different content, and the versions that trained
            the trials, if these differ.
        pairs: The combinations that are the same except for the differences of the experiments.
        unpaired: The number of combinations without a counterpart in each experiment.
        raced: A sentence on the race of each experiment that has one.
        n_tests: The comparisons for which p-values are adjusted together, also those with other experiments.
    """

    names: tuple[str, str]
    split: str
    differences: Mapping[str, tuple[str, str]]
    pairs: Sequence[Pair]
    unpaired: tuple[int, int]
    raced: Sequence[str]
    n_tests: int = 0


@dataclass(frozen=True)
class CombinationComparison:
    """The comparison of two combinations of an experiment.

    Attributes:
        rows: Their rows in the summary.
        split: The split that they are compared on.
        differences: Both values, as texts, of each setting that differs, including defaults; also the versions that
            trained the trials, if these differ.
        comparison: See `Pair`.
        dropped: The keys of those that a race dropped.
        confirmed: A sentence on the fresh repetitions that confirm finalists; none if there are none.
    """

    rows: tuple[Row, Row]
    split: str
    differences: Mapping[str, tuple[str, str]]
    comparison: Comparison | None
    dropped: Sequence[str]
    confirmed: Sequence[str]


def compare_experiments(first: Results, others: Sequence[Results]) -> list[ExperimentComparison]:
    """Compares experiments with the first one: their differences, and the results of otherwise equal combinations.

    The p-values are adjusted for the pairs of all experiments together.
    """
    one = _Side.of(first)
    found = [_compare_sides(one, _Side.of(other)) for other in others]
    compared = [pair.comparison for each in found for pair in each.pairs if pair.comparison is not None]
    after = iter(adjusted(compared))
    return [
        replace(
            each,
            pairs=[pair if pair.comparison is None else replace(pair, comparison=next(after)) for pair in each.pairs],
            n_tests=len(compared),
        )
        for each in found
    ]


def _compare_sides(one: "_Side", other: "_Side") -> ExperimentComparison:
    options = list(dict.fromkeys([*one.options, *other.options]))
    values = {path: (one.values(path), other.values(path)) for path in options}
    # Counterparts agree in the options that both experiments vary, and in those that one varies if the other's value is
    # among its values. All other options differ in every pair.
    common = [
        path
        for path, (these, those) in values.items()
        if (len(these) > 1 and len(those) > 1) or not set(these).isdisjoint(those)
    ]
    varied = [path for path in options if max(map(len, values[path])) > 1]
    shown = [path for path in varied if path in common]
    if shown == varied:
        # Both share whole combinations, which fewer columns distinguish.
        of_one = one.table.distinguishing_paths
        others = [path for path in other.table.distinguishing_paths if setting_of(path) not in one.table.option_paths]
        shown = list(dict.fromkeys([*of_one, *others]))
    counterparts: dict[tuple[str, ...], list[Row]] = {}
    for row in other.table.summary:
        counterparts.setdefault(other.texts(row, common), []).append(row)
    split = one.table.split if one.table.split == other.table.split else "val"
    pairs = [
        Pair(
            {path: row.get(path, counterpart.get(path)) for path in shown},
            {
                path: (one.texts(row, [path])[0], other.texts(counterpart, [path])[0])
                for path in varied
                if path not in common
            },
            row,
            counterpart,
            _compared(one, row, other, counterpart, split),
        )
        for row in one.table.summary
        for counterpart in counterparts.get(one.texts(row, common), ())
    ]
    n_paired = len({pair.first["key"] for pair in pairs}), len({pair.second["key"] for pair in pairs})
    return ExperimentComparison(
        names=(one.name, other.name),
        split=split,
        differences=_differences(one, other, values),
        pairs=pairs,
        unpaired=(len(one.table.summary) - n_paired[0], len(other.table.summary) - n_paired[1]),
        raced=[f"{side.name}: {sentence}" for side in (one, other) for sentence in raced(side.table)],
    )


def _differences(
    one: "_Side", other: "_Side", options: Mapping[str, tuple[list[str], list[str]]]
) -> dict[str, tuple[str, str]]:
    found = {
        path: (", ".join(these), ", ".join(those))
        for path, (these, those) in options.items()
        if set(these) != set(those)
    }
    fixed = differences(one.fixed(options), other.fixed(options))
    found |= {path: texts for path, texts in fixed.items() if path not in _IRRELEVANT and not _is_of_race(path)}
    data = one.fingerprints, other.fingerprints
    for key in data[0]:
        if data[0][key] != data[1].get(key, data[0][key]):
            found[f"data of {key[0]}"] = (data[0][key][:8], data[1][key][:8])
    return found | _different_versions((one, one.table.summary), (other, other.table.summary))


def _is_of_race(path: str) -> bool:
    """Returns whether a setting belongs to the race, which changes what is trained but no number."""
    return f"{path}.".startswith("experiment_config.race.")


def _different_versions(*sides: "tuple[_Side, Sequence[Row]]") -> dict[str, tuple[str, str]]:
    """Returns which versions trained the finished trials of some rows of two experiments, where both are known."""
    origins = [
        origins_of(run for runs in side.table.trained_by(rows).values() for run in runs or ()) for side, rows in sides
    ]
    names = [name for name in origins[0] if name in origins[1]]
    ours, theirs = ({name: listed(of_side[name]) for name in names} for of_side in origins)
    return differences(ours, theirs)


def compare_combinations(table: Results, wanted: tuple[str, str]) -> CombinationComparison:
    """Compares two combinations of an experiment.

    Args:
        table: The experiment's results.
        wanted: The beginnings of their keys; `best` is the best in validation.

    Raises:
        ChoiceError: If there is no such combination, see `find_combination`.
    """
    side = _Side.of(table)
    rows = find_combination(side.table, wanted[0]), find_combination(side.table, wanted[1])
    # With folds, the first fold describes the combination: the others differ only in their data.
    keys = {side.table.trained_keys(row["key"])[0]: row["key"] for row in rows}
    trials = table.files.read_trials(
        lambda trial: trial.description, lambda trial_id: trial_id.partition("/")[0] in keys
    )
    settings: dict[str, dict[str, str]] = {}
    for trial_id, description in trials.items():
        if description:
            settings[keys[trial_id.partition("/")[0]]] = settings_of(description)
    if settings.keys() != set(keys.values()):
        # A combination that was not started has no description, only options.
        settings = {row["key"]: {path: text(row[path]) for path in side.table.option_paths} for row in rows}
    one, other = (settings[row["key"]] for row in rows)
    # A description has the content of data, not their names.
    named = [path for path in side.table.option_paths if path.startswith("experiment_config.")]
    found = {path: (text(rows[0][path]), text(rows[1][path])) for path in named if rows[0][path] != rows[1][path]}
    # Combinations without a test set are compared in validation.
    tested_on = side.table.data_sets.get("test", {})
    split = "test" if any(row["key"] in tested_on for row in rows) else "val"
    # The names of data come first, in place of what the descriptions say about them.
    found = found | differences(one, other) | found | _different_versions((side, rows[:1]), (side, rows[1:]))
    dropped = [row["key"] for row in rows if row["key"] in table.dropped]
    comparison = _compared(side, rows[0], side, rows[1], split)
    return CombinationComparison(rows, split, found, comparison, dropped, confirmed(table))


@dataclass(frozen=True)
class _Side:
    """An experiment to compare."""

    name: str
    table: Results
    content: ExperimentFile
    trials: Mapping[str, Mapping[int, Row]]
    """The trials of each combination, by its key and their seed."""

    @classmethod
    def of(cls, table: Results) -> "_Side":
        trials = {key: {trial["seed"]: trial for trial in of} for key, of in table.counted.items()}
        name = table.files.storage.location.rstrip("/").rpartition("/")[2]
        return cls(name, table, table.files.read_experiment(), trials)

    @cached_property
    def options(self) -> list[str]:
        """The paths of all options, also of those with one value."""
        paths = list(self.content.plan.combinations[0].options)
        return with_dataset(paths) if self.table.folds else paths

    @cached_property
    def fingerprints(self) -> dict[tuple[str, Any], str]:
        """The fingerprint of each data set, by the set's name and the requested size."""
        return {(data.name, data.size): data.fingerprint for data in self.content.data if data.fingerprint is not None}

    @cached_property
    def _values_of_options(self) -> dict[str, list[str]]:
        found = {
            path: list(dict.fromkeys(text(c.options[path]) for c in self.content.plan.combinations))
            for path in self.options
            if path in self.content.plan.combinations[0].options
        }
        if self.table.folds:
            of_split = self.table.data_sets["val"]
            found[DATASET] = list(dict.fromkeys(text(of_split[key].name) for key in self.table.folds))
        return found

    def values(self, path: str) -> list[str]:
        """Returns all values of an option as texts; of any other setting, its only value."""
        if path in self._values_of_options:
            return self._values_of_options[path]
        value: Any = self.content.configs
        for name in path.split(".") if path.startswith(_SECTIONS) else (_HYPERPARAMS, *path.split(".")):
            value = value.get(name, MISSING) if isinstance(value, Mapping) else MISSING
        return [text(value)]

    def texts(self, row: Row, paths: Sequence[str]) -> tuple[str, ...]:
        """Returns a combination's values of some settings; each setting is an option or has a single value."""
        return tuple(text(row[path]) if path in row else self.values(path)[0] for path in paths)

    def fixed(self, options: Iterable[str]) -> dict[str, str]:
        """Returns the settings outside these options, as texts by path."""
        prefixes = tuple(f"{option}." for option in options)
        settings = flat(self.content.configs)
        named = {path.removeprefix(f"{_HYPERPARAMS}."): setting for path, setting in settings.items()}
        return {path: setting for path, setting in named.items() if not f"{path}.".startswith(prefixes)}

    def measured_on(self, row: Row, split: str) -> list[str] | None:
        """Returns the fingerprints of the data that a combination was measured on; None if one is unknown."""
        sets = self.table.single_folds.data_sets.get(split, {})
        found = [sets.get(key) for key in self.table.trained_keys(row["key"])]
        known = [None if one is None else self.fingerprints.get((one.name, one.size)) for one in found]
        return None if None in known else [one for one in known if one is not None]


def _compared(one: _Side, row: Row, other: _Side, counterpart: Row, split: str) -> Comparison | None:
    """Returns the second minus the first, paired by seed.

    It is None if they were measured on different data, or if a race dropped one of them.
    """
    if row["key"] in one.table.dropped or counterpart["key"] in other.table.dropped:
        return None
    data = one.measured_on(row, split)
    if data is None or data != other.measured_on(counterpart, split):
        return None
    first, second = one.trials[row["key"]], other.trials[counterpart["key"]]
    name = column(split, "distance")
    seeds = [seed for seed in first if seed in second]
    return compare([second[s][name] for s in seeds], [first[s][name] for s in seeds]) if seeds else None
