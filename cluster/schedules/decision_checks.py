"""Checks that the decisions of a race follow from each other and match what is on disk."""

from collections.abc import Iterable, Mapping, Sequence

from cluster.racing.decision_file import Competitor, DecisionFile
from cluster.racing.successive_halving import Race, SuccessiveHalving
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


def check_values(decision: DecisionFile, values_mm: Mapping[str, Sequence[float | None]]) -> None:
    """Checks the values of a decision against those on disk.

    Args:
        decision: The decision.
        values_mm: The values on disk, mm: for each combination one per repetition, None where records are missing.

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


class Competing:
    """Combinations that may compete, because they or shorter trainings of them stayed before."""

    def __init__(self, competitors: Iterable[Competitor] = ()) -> None:
        self._keys: set[str] = set()
        self._shortest: dict[str, int] = {}  # number of epochs, by course
        self.add(competitors)

    def add(self, competitors: Iterable[Competitor]) -> None:
        """Adds combinations that stayed."""
        for one in competitors:
            self._keys.add(one.key)
            self._shortest[one.course] = min(one.num_epochs, self._shortest.get(one.course, one.num_epochs))

    def __contains__(self, one: Competitor) -> bool:
        return one.key in self._keys or one.num_epochs > self._shortest.get(one.course, one.num_epochs)


def _check_decision(decision: DecisionFile, before: Sequence[DecisionFile], earlier_finalists: Competing) -> None:
    """Checks that a decision follows from its rule and values, and from the decisions before it.

    Args:
        decision: The decision.
        before: The earlier decisions of its bracket.
        earlier_finalists: The finalists of earlier brackets.

    Raises:
        RaceError: If it does not.
    """
    given = decision.by_key
    guests = [competitor for competitor in given.values() if competitor.reason == "earlier finalist"]
    stayed = Competing(before[-1].stay if before else decision.combinations)
    others = [*guests, *(one for one in decision.combinations if one not in stayed)]
    for stranger in (one for one in others if one not in earlier_finalists):
        raise RaceError.of(decision.path, f"{stranger.key} competes, but no earlier decision let it stay")
    epochs = {key: competitor.num_epochs for key, competitor in given.items()}
    race = Race(rule_of(decision), epochs, decision.n_repetitions, decision.n_rungs)
    rung, n_epochs_allowed = race.rungs[decision.rung], epochs_allowed(race, before)
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


def check_bracket(made: Sequence[DecisionFile], earlier_finalists: Competing) -> None:
    """Checks that the decisions of a bracket follow from each other.

    Args:
        made: Its decisions, in order, at least one.
        earlier_finalists: The finalists of earlier brackets.

    Raises:
        RaceError: If they do not.
    """
    first = made[0]
    for place, decision in enumerate(made):
        if decision.rung != place:
            raise RaceError.of(decision.path, f"the decision of rung {place} of its bracket is missing")
        of_bracket = ("n_rungs", "n_repetitions", "rule")
        changed = next((name for name in of_bracket if getattr(decision, name) != getattr(first, name)), None)
        if changed is not None or place > first.n_rungs - 2:
            raise RaceError.of(decision.path, f"{changed or 'n_rungs'} does not match the decisions before it")
        _check_decision(decision, made[:place], earlier_finalists)


def epochs_allowed(race: Race, decisions: Sequence[DecisionFile]) -> int:
    """Returns how many epochs the combinations at a rung may cost in total if close ones stay, see `Race.decide`."""
    if not decisions:
        return race.n_epochs_allowed
    last = decisions[-1]
    dropped = sum(c.epoch * len(c.values) for c in last.combinations if not c.stays)
    return max(0, last.n_epochs_allowed - dropped)


def rule_of(decision: DecisionFile) -> SuccessiveHalving:
    """Returns the rule of a decision.

    Raises:
        RaceError: If it is not valid.
    """
    try:
        rule = SuccessiveHalving(**decision.rule)
    except TypeError as error:
        raise RaceError.of(decision.path, f"its rule is not valid: {error}") from error
    if rule.wrong:
        allowed = ", ".join(f"{name}: {text}" for name, text in rule.wrong.items())
        raise RaceError.of(decision.path, f"its rule is not valid; allowed: {allowed}")
    return rule
