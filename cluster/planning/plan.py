"""What there is to train: a trial for every combination and repetition, and how far each has come."""

from collections import Counter
from dataclasses import dataclass, field

from cluster.planning.combination_checks import ASPECTS
from cluster.planning.config import ConfigError, Problem
from cluster.planning.identity import Primitive, canonical_json, digest
from cluster.planning.inputs import Sources
from cluster.planning.search_space import Choice, SearchSpace
from cluster.planning.seeds import repetition_seed
from cluster.storage.trial_file import Status


@dataclass(frozen=True, slots=True)
class Combination:
    """One combination of options.

    Attributes:
        key: Its identity, 16 hex digits: a hash of everything that can change a number.
        choice: The row it takes of each axis of the search space.
        options: The labels of its values by path.
        description: What the key is a hash of: canonical JSON.
    """

    key: str
    choice: Choice
    options: dict[str, Primitive]
    description: str


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One training: a combination and a repetition. `(key, repetition)` is its identity.

    Attributes:
        combination: The combination.
        repetition: The number of the repetition, from 0.
        seed: The repetition's seed.
    """

    combination: Combination
    repetition: int
    seed: int

    @property
    def key(self) -> str:
        """The combination's key."""
        return self.combination.key

    @property
    def id(self) -> str:
        """The trial's name in records and messages."""
        return f"{self.key}/{self.repetition}"


@dataclass(frozen=True)
class Plan:
    """All trials of an experiment, in the order of repetitions.

    Attributes:
        combinations: All combinations.
        trials: A trial for every combination and repetition.
        statuses: How far each has come, by trial id; those that are not in it were never started.
    """

    combinations: list[Combination]
    trials: list[TrialSpec]
    statuses: dict[str, Status] = field(default_factory=dict)

    @property
    def to_train(self) -> list[TrialSpec]:
        """The trials that a run would train.

        What is finished is not trained again, nor what diverged: the same numbers would diverge again.
        """
        return [trial for trial in self.trials if self.statuses.get(trial.id) not in ("finished", "diverged")]

    def __str__(self) -> str:
        counts = Counter(self.statuses.get(trial.id, "pending") for trial in self.trials)
        combinations = _number(len(self.combinations), "combination")
        repetitions = _number(len(self.trials) // len(self.combinations), "repetition")
        parts = [f"{counts['finished']} finished"] if counts["finished"] else []
        parts += [f"{counts['interrupted']} to continue"] if counts["interrupted"] else []
        parts += [f"{counts['failed']} failed, to train again"] if counts["failed"] else []
        parts += [f"{counts['diverged']} diverged"] if counts["diverged"] else []
        parts += [f"{counts['pending']} to train"] if counts["pending"] else []
        return f"{combinations} × {repetitions} = {_number(len(self.trials), 'trial')}: {', '.join(parts)}"


def make_plan(space: SearchSpace, sources: Sources, *, n_repetitions: int, seed: int) -> Plan:
    """Checks every combination and plans its trials, as if none had been started.

    Args:
        space: The base settings and options.
        sources: Where data and weights are read from.
        n_repetitions: Trainings of each combination.
        seed: The experiment's seed.

    Raises:
        ConfigError: With everything that is wrong with any combination, or if two combinations are the same training.
    """
    combinations = _examine_all(space, sources)
    seeds = [repetition_seed(seed, repetition) for repetition in range(n_repetitions)]
    trials = [
        TrialSpec(combination, repetition, seed_of_repetition)
        for repetition, seed_of_repetition in enumerate(seeds)
        for combination in combinations
    ]
    return Plan(combinations, trials)


def _number(n: int, noun: str) -> str:
    return f"1 {noun}" if n == 1 else f"{n} {noun}s"


def _examine_all(space: SearchSpace, sources: Sources) -> list[Combination]:
    """Examines all combinations; each aspect once for each distinct choice on the axes that it reads."""
    axes_of = [
        [i for i, axis in enumerate(space.axes) if any(_reads(aspect.keys, path) for path in axis.paths)]
        for aspect in ASPECTS
    ]
    examined: list[dict[Choice, str]] = [{} for _ in ASPECTS]
    problems: dict[Problem, None] = {}  # in order, each once
    combinations: dict[str, Combination] = {}
    for choice in space.choices():
        members = []
        for aspect, axes, known in zip(ASPECTS, axes_of, examined, strict=True):
            part = tuple(choice[i] for i in axes)
            if part not in known:
                description, found = aspect.examine(space.settings(choice), sources)
                problems.update(dict.fromkeys(found))
                known[part] = f'"{aspect.name}":' + ("null" if found else canonical_json(description))
            members.append(known[part])
        text = "{" + ",".join(members) + "}"
        combination = Combination(digest(text), choice, space.options(choice), text)
        twin = combinations.setdefault(combination.key, combination)
        if twin is not combination and not problems:
            problems[_same_training(twin, combination)] = None
    if problems:
        raise ConfigError(list(problems))
    return list(combinations.values())


def _reads(keys: tuple[str, ...], path: str) -> bool:
    return any(f"{path}.".startswith(f"{key}.") for key in keys)


def _same_training(one: Combination, other: Combination) -> Problem:
    different = [path for path, label in one.options.items() if other.options[path] != label]
    values = " and ".join(
        ", ".join(f"{path} = {combination.options[path]}" for path in different) for combination in (one, other)
    )
    return Problem(" & ".join(different), f"{values} are the same training; leave one of them out")
