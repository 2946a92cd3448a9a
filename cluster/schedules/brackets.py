"""The brackets of a plan's races: which combinations compete with each other, and what has been decided.

All combinations with the same validation data compete in one bracket. Decisions are final, so combinations that are
added later compete in a new bracket, together with the finalists of the earlier ones. A combination that differs from
an earlier one only in training longer is not new: it takes the place of the shorter one.
"""

import json
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from cluster.planning.identity import canonical_json, digest
from cluster.planning.inputs import Inputs, SetKey
from cluster.planning.plan import Combination
from cluster.planning.search_space import SearchSpace
from cluster.racing.decision_file import Competitor, DecisionFile
from cluster.racing.successive_halving import Race, Rung, SuccessiveHalving
from cluster.results.folds import key_of_folds, mean_over_frames
from cluster.storage.file_names import FileNames
from data_pipeline.user_error import UserError

_FIXES = (
    "Restore the file from a copy, give the experiment another name, or remove the folder race/; the next run then "
    "makes all decisions again from the trials on disk"
)


class RaceError(UserError):
    """A race cannot continue, because its decisions do not match what is on disk."""

    @classmethod
    def of(cls, path: str, problem: str) -> "RaceError":
        """Returns the error for a decision's file: what is wrong with it, and what to do."""
        return cls(f"{FileNames.RACE_FOLDER}/{path}: {problem}. {_FIXES}")


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
        shorter: For an entrant that takes the place of a shorter training: the key of that training in earlier
            decisions, by the entrant's key.
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
    shorter: dict[str, str] = field(default_factory=dict)
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
        """Whether its finalists are known."""
        return self.is_open and self.is_settled

    @property
    def is_settled(self) -> bool:
        """Whether it has nothing left to decide."""
        return self.place == self.n_rungs - 1 or not self.own_competing

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
        last = {competitor.key: competitor.stays for competitor in self.decisions[-1].combinations}
        return {key: entrant for key, entrant in self.entrants.items() if last.get(self.listed(key, last), False)}

    def listed(self, key: str, keys: Container[str]) -> str:
        """Returns the key of an entrant in a decision, which has `keys`: its own, or that of a shorter training."""
        return key if key in keys else self.shorter.get(key, key)

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
        allowed = _n_epochs_allowed(race, self.decisions)
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


def _n_epochs_allowed(race: Race, decisions: Sequence[DecisionFile]) -> int:
    """Returns how many epochs the combinations at a rung may cost in total if close ones stay, see `Race.decide`."""
    if not decisions:
        return race.n_epochs_allowed
    last = decisions[-1]
    dropped = sum(c.epoch * len(c.values) for c in last.combinations if not c.stays)
    return max(0, last.n_epochs_allowed - dropped)


def check_values(decision: DecisionFile, values_mm: Mapping[str, Sequence[float | None]]) -> None:
    """Checks the values of a decision against those on disk.

    Args:
        decision: The decision.
        values_mm: For each combination, the value of each repetition on disk, mm; None if it is no longer there.

    Raises:
        RaceError: If a value has changed.
    """
    for competitor in decision.combinations:
        known = values_mm.get(competitor.key, ())
        for repetition, (then, now) in enumerate(zip(competitor.values_mm, known, strict=False)):
            if now is not None and now != then:
                raise RaceError.of(
                    decision.path,
                    f"the decision is based on a validation error of {then!r} mm for trial "
                    f"{competitor.key}/{repetition} at epoch {competitor.epoch}, but the trial's records now say "
                    f"{now!r} mm. The data, the code or the results have changed since then",
                )


def _check_decision(
    decision: DecisionFile, before: Sequence[DecisionFile], earlier_finalists: Sequence[Competitor]
) -> None:
    """Checks that a decision follows from its rule and values, and from the decisions before it.

    Args:
        decision: The decision.
        before: The earlier decisions of its bracket.
        earlier_finalists: The finalists of earlier brackets.

    Raises:
        RaceError: If it does not.
    """
    given = {competitor.key: competitor for competitor in decision.combinations}
    guests = [competitor for competitor in given.values() if competitor.reason == "earlier finalist"]
    may_compete = [*before[-1].stay, *earlier_finalists] if before else decision.combinations
    for stranger in [*_strangers(given.values(), may_compete), *_strangers(guests, earlier_finalists)]:
        raise RaceError.of(decision.path, f"{stranger.key} competes, but no earlier decision let it stay")
    epochs = {key: competitor.num_epochs for key, competitor in given.items()}
    race = Race(_rule_of(decision), epochs, decision.n_repetitions, decision.n_rungs)
    rung, n_epochs_allowed = race.rungs[decision.rung], _n_epochs_allowed(race, before)
    values = {key: competitor.values_mm for key, competitor in given.items()}
    again = race.decide(decision.rung, values, n_epochs_allowed, [guest.key for guest in guests]).reasons
    facts = [
        ("n_epochs_allowed", decision.n_epochs_allowed, n_epochs_allowed),
        *((f"the epoch of {key}", one.epoch, rung.epoch(one.num_epochs)) for key, one in given.items()),
        *((f"the reason for {key}", one.reason, again[key]) for key, one in given.items()),
        ("the order of the combinations", list(given), list(again)),
    ]
    for name, value, expected in facts:
        if value != expected:
            wrong = f"{name} is {value!r}, but should be {expected!r}"
            raise RaceError.of(decision.path, f"the decision does not follow from its rule and values: {wrong}")


def _strangers(competitors: Iterable[Competitor], known: Iterable[Competitor]) -> Iterator[Competitor]:
    """Yields the competitors that are neither known nor longer trainings of known ones."""
    keys, shortest = set(), dict[str, int]()
    for one in known:
        keys.add(one.key)
        shortest[one.course] = min(one.num_epochs, shortest.get(one.course, one.num_epochs))
    for one in competitors:
        if one.key not in keys and one.num_epochs <= shortest.get(one.course, one.num_epochs):
            yield one


def open_brackets(
    entrants: Mapping[Data, Mapping[str, Entrant]],
    decisions: Sequence[DecisionFile],
    rule: SuccessiveHalving,
    n_repetitions: int,
    round_size: int | None = None,
) -> list[Bracket]:
    """Returns the brackets of a plan, with the decisions made so far.

    Args:
        entrants: For each validation data, the planned combinations by key, in order.
        decisions: All decisions so far, in order.
        rule: The rule for brackets that have decided nothing yet; the others keep theirs.
        n_repetitions: The planned repetitions.
        round_size: How many combinations a round of a search proposes; each round is a bracket. None without a search.

    Raises:
        RaceError: If decisions are missing or contradict each other.
    """
    brackets = []
    for data, planned in entrants.items():
        made = [decision for decision in decisions if (decision.data, decision.size) == data]
        known: list[Bracket] = []
        for number, group in groupby(made, lambda decision: decision.bracket):
            of_bracket = list(group)
            if number != len(known):
                raise RaceError.of(of_bracket[0].path, f"the decisions of bracket {len(known)} are missing")
            known.append(_decided_bracket(data, of_bracket, list(known), n_planned=n_repetitions, n_fresh=rule.confirm))
        new = _placed(planned, known, is_search=round_size is not None)
        for of_round in [planned] if round_size is None else _rounds(planned, round_size):
            _add_bracket(known, data, {k: new[k] for k in of_round if k in new}, rule, n_repetitions)
        brackets += known
    return brackets


def _rounds(planned: Mapping[str, Entrant], size: int) -> list[dict[str, Entrant]]:
    items = list(planned.items())
    return [dict(items[start : start + size]) for start in range(0, len(items), size)]


def add_round(
    brackets: list[Bracket],
    data: Data,
    entrants: Mapping[str, Entrant],
    rule: SuccessiveHalving,
    n_repetitions: int,
) -> None:
    """Adds a round of a search: combinations to the brackets that have decided about them, others to a new bracket.

    Args:
        brackets: All brackets of this data; a new one is appended.
        data: The validation data.
        entrants: The combinations, by key.
        rule: The rule of a new bracket.
        n_repetitions: The planned repetitions.
    """
    new = _placed(entrants, [bracket for bracket in brackets if bracket.decisions], is_search=True)
    _add_bracket(brackets, data, new, rule, n_repetitions)


def _add_bracket(
    brackets: list[Bracket], data: Data, entrants: dict[str, Entrant], rule: SuccessiveHalving, n_repetitions: int
) -> None:
    """Appends a bracket that has decided nothing, if it has entrants."""
    if not entrants:
        return
    bracket = Bracket(
        data=data,
        number=sum(bracket.n_rungs > 1 for bracket in brackets),  # others have no decisions on disk
        rule=rule,
        n_rungs=rule.n_rungs(min(entrant.num_epochs for entrant in entrants.values())),
        n_repetitions=n_repetitions,
        n_planned=n_repetitions,
        n_fresh=rule.confirm,
        entrants=entrants,
        earlier=tuple(brackets),
    )
    brackets.append(bracket)


def _decided_bracket(
    data: Data, made: list[DecisionFile], earlier: list[Bracket], *, n_planned: int, n_fresh: int
) -> Bracket:
    """Returns a bracket that has made decisions, without its entrants."""
    first = made[0]
    earlier_finalists = [competitor for bracket in earlier for competitor in bracket.decisions[-1].stay]
    for place, decision in enumerate(made):
        if decision.rung != place:
            raise RaceError.of(decision.path, f"the decision of rung {place} of its bracket is missing")
        of_bracket = ("n_rungs", "n_repetitions", "rule")
        changed = next((name for name in of_bracket if getattr(decision, name) != getattr(first, name)), None)
        if changed is not None or place > first.n_rungs - 2:
            raise RaceError.of(decision.path, f"{changed or 'n_rungs'} does not match the decisions before it")
        _check_decision(decision, made[:place], earlier_finalists)
    return Bracket(
        data=data,
        number=first.bracket,
        rule=_rule_of(first),
        n_rungs=first.n_rungs,
        n_repetitions=first.n_repetitions,
        n_planned=n_planned,
        n_fresh=n_fresh,
        entrants={},
        earlier=earlier,
        decisions=made,
    )


def _rule_of(decision: DecisionFile) -> SuccessiveHalving:
    try:
        rule = SuccessiveHalving(**decision.rule)
    except TypeError as error:
        raise RaceError.of(decision.path, f"its rule is not valid: {error}") from error
    if rule.wrong:
        allowed = ", ".join(f"{name}: {text}" for name, text in rule.wrong.items())
        raise RaceError.of(decision.path, f"its rule is not valid; allowed: {allowed}")
    return rule


def _placed(planned: Mapping[str, Entrant], known: Sequence[Bracket], *, is_search: bool) -> dict[str, Entrant]:
    """Assigns planned combinations to the brackets that have decided about them; returns the new ones.

    A search cannot be continued with more epochs, so its combinations of different lengths are different ones.
    """
    owner: dict[str, tuple[Bracket, Competitor]] = {}
    for bracket in known:
        last = {competitor.key for competitor in bracket.decisions[-1].combinations}
        for competitor in _last_standings(bracket).values():
            # If one stayed but is missing from the next decision, it was not planned then. Planned again, it is new.
            if competitor.key in last or not competitor.stays:
                owner.setdefault(competitor.key, (bracket, competitor))
    new = {}
    for key, entrant in planned.items():
        if key in owner:
            owner[key][0].entrants[key] = entrant
        else:
            new[key] = entrant
    if is_search:
        return new
    for bracket in known:
        _note_shorter(bracket)
    if not owner or not new:
        return new
    lengths: dict[str, dict[int, str]] = defaultdict(dict)  # by course, the key for each number of epochs
    for key, (_, competitor) in owner.items():
        lengths[competitor.course][competitor.num_epochs] = key
    for key, entrant in list(new.items()):
        shorter = [epochs for epochs in lengths.get(entrant.course, ()) if epochs < entrant.num_epochs]
        if shorter:
            stands_for = lengths[entrant.course][max(shorter)]
            bracket = owner[stands_for][0]
            bracket.entrants[key] = new.pop(key)
            bracket.shorter[key] = stands_for
    return new


def _note_shorter(bracket: Bracket) -> None:
    """Notes which entrants took the place of a shorter training after the first rung."""
    first = {competitor.key: competitor for competitor in bracket.decisions[0].combinations}
    for key in bracket.entrants.keys() - first.keys():
        entrant = bracket.entrants[key]
        shorter = [c for c in first.values() if c.num_epochs < entrant.num_epochs and c.course == entrant.course]
        if shorter:
            bracket.shorter[key] = max(shorter, key=lambda competitor: competitor.num_epochs).key


def _last_standings(bracket: Bracket) -> dict[str, Competitor]:
    """Returns the last decision about each combination, by key."""
    return {competitor.key: competitor for decision in bracket.decisions for competitor in decision.combinations}


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
        key, n_frames = trained[0].key, [1]
        if fold_axis is not None:
            sets = [space.value("experiment_config.val_set", one.row_indices) for one in trained]
            n_frames = [len(inputs.sets[SetKey(one, size, use_preset=True)]) for one in sets]
            key, name = key_of_folds([one.key for one in trained]), str(group[0])
        epochs = int(space.value("solver_config.num_epochs", rows))
        found.setdefault(Data(name, size), {})[key] = Entrant(key, epochs, trained, n_frames)
    return found
