"""The brackets of races: which combinations compete with each other, and what has been decided.

All combinations with the same validation data compete in one bracket. Decisions are final, so combinations that are
added later compete in a new bracket, together with the finalists of the earlier ones.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import NamedTuple

from cluster.planning.identity import canonical_json, digest
from cluster.planning.inputs import Inputs, SetKey
from cluster.planning.plan import Combination
from cluster.planning.search_space import RowIndices, SearchSpace
from cluster.racing.decision_file import Competitor, DecisionFile
from cluster.racing.successive_halving import Race, Rung, SuccessiveHalving
from cluster.results.folds import key_of_folds, mean_over_frames
from cluster.schedules.decision_checks import epochs_allowed


class Data(NamedTuple):
    """Validation data: only errors on the same frames can be compared."""

    name: str
    """The name of the set; with folds, that of the split dataset."""

    size: int | None
    """How many of its samples are used; None for all."""


@dataclass(frozen=True)
class Entrant:
    """A combination in a race.

    Attributes:
        key: Its key; with folds, one key for all of them.
        num_epochs: How many epochs it trains.
        trained: The combinations that are trained for it: one for each fold, or only itself.
        n_frames: The number of validation frames of each of these.
    """

    key: str
    num_epochs: int
    trained: Sequence[Combination]
    n_frames: Sequence[int]

    @cached_property
    def course(self) -> str:
        """A hash of its training that ignores the number of epochs."""
        return digest(canonical_json([_without_epochs(combination) for combination in self.trained]))

    def over_folds(self, values_mm: Sequence[float]) -> float:
        """Returns the mean of one value per fold, weighted so that every frame counts the same."""
        return mean_over_frames(values_mm, self.n_frames)


def _without_epochs(combination: Combination) -> object:
    description = json.loads(combination.encoded)
    return {**description, "schedule": {**description["schedule"], "num_epochs": None}}


@dataclass(kw_only=True)
class Bracket:
    """Combinations that compete with each other.

    Attributes:
        data: Their validation data.
        number: The number of the bracket, from 0.
        rule: Decides which combinations stay.
        n_rungs: How many rungs it has; the last one is the end of the training.
        n_repetitions: How many repetitions decide.
        n_planned: How many repetitions of finalists are planned; the plan may have changed since the first decision.
        n_fresh: How many fresh repetitions confirm the finalists. They decide nothing.
        entrants: The planned combinations that enter the race in this bracket, by key.
        earlier: The brackets before it; their finalists compete in this one too.
        decisions: Its decisions so far, one for each rung.
        shorter: The entrants that take the place of a shorter training, by key. Each has a list with the key under
            which each decision of earlier runs lists it, up to the decision that dropped it.
        was_open: Whether it has been open before; then it still is.
    """

    data: Data
    number: int
    rule: SuccessiveHalving
    n_rungs: int
    n_repetitions: int
    n_planned: int
    n_fresh: int
    entrants: dict[str, Entrant]
    earlier: Sequence["Bracket"] = ()
    decisions: list[DecisionFile] = field(default_factory=list)
    shorter: dict[str, list[str]] = field(default_factory=dict)
    was_open: bool = False

    @property
    def n_of_finalists(self) -> int:
        """How many repetitions of finalists are trained to the end."""
        return self.n_planned + self.n_fresh

    @property
    def place(self) -> int:
        """The number of the current rung, from 0."""
        return len(self.decisions)

    @property
    def rungs(self) -> Sequence[Rung]:
        """All its rungs."""
        return self.rule.rungs(self.n_rungs, self.n_repetitions)

    @property
    def rung(self) -> Rung:
        """The current rung."""
        return self.rungs[self.place]

    @property
    def is_open(self) -> bool:
        """Whether all its competitors are known, so that it can decide."""
        self.was_open = self.was_open or all(bracket.is_settled for bracket in self.earlier)
        return self.was_open

    @property
    def is_decided(self) -> bool:
        """Whether its finalists are known. Earlier brackets whose combinations came back do not change them."""
        return self._has_decided_all or (self.is_open and not self.own_competing)

    @property
    def is_settled(self) -> bool:
        """Whether it has nothing left to decide."""
        return self._has_decided_all or not self.own_competing

    @property
    def _has_decided_all(self) -> bool:
        return self.place == self.n_rungs - 1

    @property
    def guests(self) -> dict[str, Entrant]:
        """The finalists of earlier brackets that were raced, by key. They are never dropped."""
        raced = (bracket for bracket in self.earlier if bracket.n_rungs > 1)
        return {key: entrant for bracket in raced for key, entrant in bracket.own_competing.items()}

    @property
    def own_competing(self) -> dict[str, Entrant]:
        """The `entrants` that are still in the race."""
        if not self.decisions:
            return self.entrants
        stay, place = {competitor.key for competitor in self.decisions[-1].stay}, self.place - 1
        return {key: entrant for key, entrant in self.entrants.items() if self.listed(key, place) in stay}

    def listed(self, key: str, place: int) -> str:
        """Returns the key of an entrant in the decision of a rung: its own, or that of a shorter training."""
        shorter = self.shorter.get(key, ())
        return shorter[place] if place < len(shorter) else key

    @property
    def competing(self) -> dict[str, Entrant]:
        """All combinations that are still in the race, by key; complete once the bracket is open."""
        return {**self.guests, **self.own_competing}

    @property
    def race(self) -> Race:
        """The race between the combinations that are still in it."""
        epochs = {key: entrant.num_epochs for key, entrant in self.competing.items()}
        return Race(self.rule, epochs, self.n_repetitions, self.n_rungs)

    def decide(self, values_mm: Mapping[str, Sequence[float]]) -> DecisionFile:
        """Decides which combinations stay after the current rung.

        Args:
            values_mm: For each combination, the best validation error of each repetition up to the rung, mm.
        """
        competing, race = self.competing, self.race
        allowed = epochs_allowed(race, self.decisions)
        decision = race.decide(self.place, values_mm, allowed, self.guests)
        rung = race.rungs[self.place]
        return DecisionFile(
            data=self.data.name,
            size=self.data.size,
            bracket=self.number,
            rung=self.place,
            n_rungs=self.n_rungs,
            n_repetitions=self.n_repetitions,
            n_epochs_allowed=allowed,
            combinations=[
                Competitor(
                    key=key,
                    course=competing[key].course,
                    num_epochs=competing[key].num_epochs,
                    epoch=rung.epoch(competing[key].num_epochs),
                    values=[value.hex() for value in values_mm[key]],
                    reason=reason,
                )
                for key, reason in decision.reasons.items()
            ],
            rule={name: value for name, value in asdict(self.rule).items() if name != "confirm"},  # decides nothing
        )


def n_val_frames(folds: Sequence[RowIndices], space: SearchSpace, inputs: Inputs) -> list[int]:
    """Returns the number of validation frames in each fold of a combination, its weight; without folds, a single 1."""
    if not space.folds:
        return [1]
    keys = ("val_set", "val_set_size")
    sets = [[space.value(f"experiment_config.{key}", rows) for key in keys] for rows in folds]
    return [len(inputs.sets[SetKey(name, size, use_preset=True)]) for name, size in sets]


def entrants_of(
    combinations: Sequence[Combination], space: SearchSpace, inputs: Inputs
) -> dict[Data, dict[str, Entrant]]:
    """Returns the combinations that can race, by validation data and key. The folds of one form a single entrant."""
    found: dict[Data, dict[str, Entrant]] = {}
    groups: dict[tuple[object, ...], list[Combination]] = {}
    fold_axis = next((place for place, axis in enumerate(space.axes) if axis.folds), None)
    for combination in combinations:
        rows = combination.row_indices
        if fold_axis is None:
            group: tuple[object, ...] = (combination.key,)
        else:
            row = rows[fold_axis]
            assert isinstance(row, int)  # folds are never a range
            dataset = space.axes[fold_axis].folds[row].dataset
            group = (dataset, *rows[:fold_axis], *rows[fold_axis + 1 :])
        groups.setdefault(group, []).append(combination)
    for group, trained in groups.items():
        rows = trained[0].row_indices
        name, size = (space.value(f"experiment_config.{key}", rows) for key in ("val_set", "val_set_size"))
        key = trained[0].key
        if fold_axis is not None:
            key, name = key_of_folds([one.key for one in trained]), str(group[0])
        n_frames = n_val_frames([one.row_indices for one in trained], space, inputs)
        epochs = int(space.value("solver_config.num_epochs", rows))
        found.setdefault(Data(name, size), {})[key] = Entrant(key, epochs, trained, n_frames)
    return found
