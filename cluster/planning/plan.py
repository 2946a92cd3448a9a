"""The trials of an experiment: one for every combination and repetition, each with its status."""

import gc
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from cluster.planning.combination_checks import SETTINGS_GROUPS
from cluster.planning.config import ConfigError, Problem
from cluster.planning.disk import DISK_KEYS, DiskUse, disk_use, report_bytes
from cluster.planning.folds import check_folds
from cluster.planning.identity import Primitive, canonical_json, digest
from cluster.planning.inputs import Inputs
from cluster.planning.own_code import own_sources
from cluster.planning.search_space import RowIndices, SearchSpace
from cluster.planning.seeds import repetition_seed
from cluster.results.names import setting_of
from cluster.searching.search import Search
from cluster.storage.trial_file import FINAL, Status
from data_pipeline.words import count, size_text
from posenet.models.corrector import FixedCorrector


@dataclass(frozen=True, slots=True)
class Combination:
    """One combination of options.

    Attributes:
        key: Its identity, 16 hex digits: a hash of everything that can change a number.
        row_indices: What it takes from each axis of the search space, see `RowIndices`.
        options: The labels of its values by path.
        encoded: Its encoded settings, canonical JSON; the key is their hash.
    """

    key: str
    row_indices: RowIndices
    options: dict[str, Primitive]
    encoded: str


class Shorter(NamedTuple):
    """A trial that a longer one can continue: the same training with fewer epochs."""

    epochs: int
    trial_id: str


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One training: a combination and a repetition. `(key, repetition)` is its identity.

    Attributes:
        combination: The combination.
        repetition: The number of the repetition, from 0.
        seed: The repetition's seed.
        shorter: The trials that it can continue, the longest first.
        is_prolonged: Whether another trial of the plan continues it and needs its final state.
    """

    combination: Combination
    repetition: int
    seed: int
    shorter: tuple[Shorter, ...] = ()
    is_prolonged: bool = False

    @property
    def key(self) -> str:
        """The combination's key."""
        return self.combination.key

    @property
    def id(self) -> str:
        """The trial's name in records and messages, `KEY/REPETITION`."""
        return f"{self.key}/{self.repetition}"


@dataclass(frozen=True)
class Plan:
    """All trials of an experiment, ordered by repetition; with a search, those of the combinations proposed so far.

    Attributes:
        combinations: The combinations.
        trials: A trial for every combination and repetition.
        warnings: What results on the validation and test sets would measure, if they are too close to the training set
            and that matters; which frames the folds do not test; and which trials of other versions would be mixed with
            those of this one, or trained again.
        statuses: The status of each trial that was started, by trial id.
        fold_counts: How many folds each dataset has that `add_folds` named; empty without folds.
        disk: How much disk a trial of each combination takes, by its key.
        keep_weights: As in the config.
        sources: Hashes of the code of the user's own classes and functions, by name.
        epochs_done: How many epochs of a trial need no training, by its id; 0 for others.
        dropped: The ids of the trials that a race has dropped.
        races: What each race trains: a sentence and a table for each.
        n_epochs_of_races: About how many epochs the races still have to train; None without a race.
        n_confirming: How many of the last repetitions are fresh ones, trained only for the finalists of a race.
        search: The search; None for a grid.
    """

    combinations: list[Combination]
    trials: list[TrialSpec]
    warnings: list[str] = field(default_factory=list)
    statuses: dict[str, Status] = field(default_factory=dict)
    fold_counts: Sequence[int] = ()
    disk: Mapping[str, DiskUse] = field(default_factory=dict)
    keep_weights: str = "all"
    sources: Mapping[str, str] = field(default_factory=dict)
    epochs_done: Mapping[str, int] = field(default_factory=dict)
    dropped: Collection[str] = ()
    races: Sequence[str] = ()
    n_epochs_of_races: int | None = None
    n_confirming: int = 0
    search: Search | None = None

    @property
    def n_proposed(self) -> int:
        """How many combinations there are so far; the folds of one count once."""
        return len(self.combinations) * (len(self.fold_counts) or 1) // (sum(self.fold_counts) or 1)

    @property
    def n_not_proposed(self) -> int:
        """How many combinations a search still has to propose."""
        return 0 if self.search is None else self.search.n_combinations - self.n_proposed

    @property
    def n_trials(self) -> int:
        """How many trials there will be, including those of combinations that a search has yet to propose."""
        return len(self.trials) + self.n_not_proposed * len(self.trials) // self.n_proposed

    def with_more(self, other: "Plan") -> "Plan":
        """Returns a plan with the combinations and trials of both, and the statuses of both."""
        trials = sorted([*self.trials, *other.trials], key=lambda trial: trial.repetition)
        combinations = [*self.combinations, *other.combinations]
        disk, statuses = {**self.disk, **other.disk}, {**self.statuses, **other.statuses}
        return replace(self, combinations=combinations, trials=trials, disk=disk, statuses=statuses)

    @property
    def to_train(self) -> list[TrialSpec]:
        """The trials that a run may train.

        Not among them are finished trials, those that diverged and would diverge again, and those that a race dropped.
        """
        return [t for t in self.trials if self.statuses.get(t.id) not in FINAL and t.id not in self.dropped]

    @property
    def failed_before(self) -> set[str]:
        """The trials that failed in an earlier run; none if all trials to train did."""
        failed = {trial.id for trial in self.to_train if self.statuses.get(trial.id) == "failed"}
        return failed if len(failed) < len(self.to_train) else set()

    def __str__(self) -> str:
        n_repetitions = len(self.trials) // len(self.combinations) - self.n_confirming
        trials = [trial for trial in self.trials if trial.repetition < n_repetitions]
        counts = Counter(self._status_text(trial) for trial in trials)
        folds = f" × {' or '.join(map(str, sorted(set(self.fold_counts))))} folds" if self.fold_counts else ""
        combinations = f"{count(self.n_proposed, 'combination')}{folds}"
        repetitions = count(n_repetitions, "repetition")
        by_status = ", ".join(f"{counts[text]:,} {text}" for text in sorted(counts, key=_order))
        counted = f"{combinations} × {repetitions} = {count(len(trials), 'trial')}: {by_status}"
        search = [] if self.search is None else [f"search: {self.search}; {self.n_proposed:,} proposed"]
        warnings = (f"warning: {warning}" for warning in self.warnings)
        return "\n".join([*search, counted, *self.races, *self._disk_texts(), *warnings])

    __repr__ = __str__  # a notebook shows it; the encoded settings of all combinations are very long

    def _status_text(self, trial: TrialSpec) -> str:
        status = self.statuses.get(trial.id, "pending")
        if trial.id in self.dropped and status not in FINAL:
            return _DROPPED
        if status == "pending" and trial.shorter:
            return f"{_STATUS_TEXTS['interrupted']} from epoch {trial.shorter[0].epochs:,}"
        return _STATUS_TEXTS[status]

    def _disk_texts(self) -> list[str]:
        """Returns a sentence on the disk that the trials to train will use; nothing if there are none."""
        used = [self.disk[trial.key] for trial in self.to_train if trial.key in self.disk]
        if not used:
            return []
        # This assumes that combinations that a search has yet to propose resemble those proposed so far.
        missing = [self.disk[trial.key] for trial in self.trials if trial.key in self.disk]
        share = (self.n_trials - len(self.trials)) / len(missing)

        def total(file: Literal["weights", "logs", "state"]) -> int:
            return int(sum(getattr(of, file) for of in used) + share * sum(getattr(of, file) for of in missing))

        weights = size_text(total("weights"))
        logs = size_text(total("logs") + report_bytes(self.n_trials))
        kept = {
            "all": f"{weights} of weights and frame errors",
            "best": f"{weights} of weights and frame errors until all trials have ended; then only those of the best",
            "none": "no weights",
        }
        states = total("state")
        kept_states = f"; {size_text(states)} of final states" if states else ""
        return [
            f"disk: about {logs} of records, examples, tables and the report, {kept[self.keep_weights]}{kept_states}"
        ]


_STATUS_TEXTS: dict[Status, str] = {
    "finished": "finished",
    "interrupted": "to continue",
    "failed": "failed, to train again",
    "diverged": "diverged",
    "pending": "to train",
}
_DROPPED = "dropped by the race"


def _order(text: str) -> tuple[int, str]:
    """Returns the place of a status among others."""
    return next(i for i, known in enumerate([*_STATUS_TEXTS.values(), _DROPPED]) if text.startswith(known)), text


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Makes Python look for garbage less often in the block, which creates many objects that stay.

    For 10,000 combinations, Python would search all objects of torch again and again, which takes a tenth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@fewer_collections()
def make_plan(
    space: SearchSpace,
    inputs: Inputs,
    *,
    n_repetitions: int,
    seed: int,
    n_confirming: int = 0,
    chosen: Sequence[RowIndices] | None = None,
) -> Plan:
    """Checks every combination and plans its trials, without their statuses.

    Args:
        space: The base settings and options.
        inputs: Reads data and weights.
        n_repetitions: Trainings of each combination.
        seed: The experiment's seed.
        n_confirming: Fresh repetitions, which are trained only for the finalists of a race.
        chosen: The combinations; None for all.

    Raises:
        ConfigError: With all problems of all combinations, or if two combinations are the same training, or if folds
            are not of the same split.
    """
    combinations = _checked_combinations(space, inputs, space.combinations() if chosen is None else chosen)
    seeds = [repetition_seed(seed, repetition) for repetition in range(n_repetitions + n_confirming)]
    trials = [
        TrialSpec(combination, repetition, seed_of_repetition)
        for repetition, seed_of_repetition in enumerate(seeds)
        for combination in combinations
    ]
    warnings = [*_warnings(space, inputs), *check_folds(space, inputs)]
    fold_counts = Counter(fold.dataset for fold in space.folds)
    return Plan(
        combinations,
        trials,
        warnings,
        fold_counts=list(fold_counts.values()),
        disk=_disk_use(combinations, space, inputs),
        keep_weights=space.base.experiment.keep_weights,
        sources=own_sources(combination.encoded for combination in combinations),
        n_confirming=n_confirming,
    )


def _disk_use(combinations: Sequence[Combination], space: SearchSpace, inputs: Inputs) -> dict[str, DiskUse]:
    """Estimates the disk use of each combination, once for each distinct choice of rows of the axes that matter."""
    axes = [i for i, axis in enumerate(space.axes) if any(_reads(DISK_KEYS, path) for path in axis.paths)]
    known: dict[RowIndices, DiskUse] = {}
    for combination in combinations:
        rows = tuple(combination.row_indices[i] for i in axes)
        if rows not in known:
            known[rows] = disk_use(space.settings(combination.row_indices), inputs)
    return {combination.key: known[tuple(combination.row_indices[i] for i in axes)] for combination in combinations}


def _warnings(space: SearchSpace, inputs: Inputs) -> list[str]:
    """Returns a warning for the validation sets and one for the test sets: about the set with the closest frames.

    Models without anything to train remember no training frames, so there are none. Validation sets that choose nothing
    may be close.
    """
    if all(issubclass(model, FixedCorrector) for model in space.values("model")):
        return []
    parts = {"val": "validation", "test": "test"} if _validation_matters(space) else {"test": "test"}
    warnings = []
    for split, part in parts.items():
        found = [
            (separation.correlation or separation.near_share, tested.name, text)
            for (_, of_split, tested), separation in inputs.separations.items()
            if of_split == split and (text := separation.warning(part)) is not None
        ]
        if found:
            _, name, text = max(found)
            others = len({other for _, other, _ in found} - {name})
            more = f" {count(others, f'other {part} set')} {'is' if others == 1 else 'are'} too close as well."
            warnings.append(f"{name}: {text}{more if others else ''}")
    return warnings


def _validation_matters(space: SearchSpace) -> bool:
    """Returns whether validation chooses a setting, an epoch or a strength, or is the only result."""
    test_sets = set(space.values("experiment_config.test_set"))
    n_sets = 1 if space.folds else len(test_sets)  # folds do not count as combinations
    chooses_settings = space.n_combinations(n_sets + 1) > n_sets
    chooses_epochs = max(space.values("solver_config.num_epochs")) > 1
    return None in test_sets or chooses_settings or chooses_epochs or any(space.values("choose_strength"))


def _checked_combinations(space: SearchSpace, inputs: Inputs, chosen: Sequence[RowIndices]) -> list[Combination]:
    """Checks combinations: each group once for each distinct choice of rows of the axes that it reads."""
    axes_of = [
        [i for i, axis in enumerate(space.axes) if any(_reads(group.keys, path) for path in axis.paths)]
        for group in SETTINGS_GROUPS
    ]
    encoded_groups: list[dict[RowIndices, str]] = [{} for _ in SETTINGS_GROUPS]
    found: dict[tuple[Problem, tuple[int, ...]], list[RowIndices]] = {}  # the rows of its axes that have a problem
    same: list[Problem] = []
    combinations: dict[str, Combination] = {}
    for row_indices in chosen:
        members = []
        for group, axes, known in zip(SETTINGS_GROUPS, axes_of, encoded_groups, strict=True):
            rows = tuple(row_indices[i] for i in axes)
            if rows not in known:
                encoded, problems = group.encode(space.settings(row_indices), inputs)
                for problem in problems:
                    found.setdefault((problem, tuple(axes)), []).append(rows)
                known[rows] = f'"{group.name}":' + ("null" if problems else canonical_json(encoded))
            members.append(known[rows])
        text = "{" + ",".join(members) + "}"
        combination = Combination(digest(text), row_indices, space.options(row_indices), text)
        twin = combinations.setdefault(combination.key, combination)
        if twin is not combination and not found:
            same.append(_same_training(twin, combination))
    if found or same:
        all_problems = [*(_in_rows(*key, rows, space) for key, rows in found.items()), *same]
        raise ConfigError(list(dict.fromkeys(all_problems)))
    return list(combinations.values())


def _in_rows(problem: Problem, axes: Sequence[int], found: Sequence[RowIndices], space: SearchSpace) -> Problem:
    """Returns a problem with the joint options that have it, unless all have it."""
    texts = []
    for place, axis in enumerate(space.axes[i] for i in axes):
        rows = sorted({row for rows in found if (row := rows[place]) is not None})
        if len(axis.paths) > 1 and 0 < len(rows) < len(axis.rows):
            texts.append(f"{setting_of(axis.distinguishing_column[0])} {' or '.join(map(axis.text, rows))}")
    return replace(problem, text=f"{problem.text} (with {', '.join(texts)})") if texts else problem


def _reads(keys: tuple[str, ...], path: str) -> bool:
    return any(f"{path}.".startswith(f"{key}.") for key in keys)


def _same_training(one: Combination, other: Combination) -> Problem:
    different = [path for path, label in one.options.items() if other.options[path] != label]
    values = " and ".join(
        ", ".join(f"{path} = {combination.options[path]}" for path in different) for combination in (one, other)
    )
    return Problem(" & ".join(different), f"{values} are the same training; leave one of them out")
