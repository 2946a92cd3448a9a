"""The brackets of a plan: the one in which each planned combination competes, given the decisions so far.

A combination that differs from an earlier one only in training longer is not new: it takes the place of the shorter
one. All others that no decision names compete in a new bracket.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

from cluster.racing.decision_file import Competitor, DecisionFile
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.schedules.brackets import Bracket, Data, Entrant
from cluster.schedules.decision_checks import Competing, RaceError, check_bracket, rule_of


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
        RaceError: If decisions are missing or contradict each other, or if repetitions that confirm have decided.
    """
    brackets = []
    for data, planned in entrants.items():
        made = [decision for decision in decisions if (decision.data, decision.size) == data]
        known, finalists = list[Bracket](), Competing()
        for number, group in groupby(made, lambda decision: decision.bracket):
            of_bracket = list(group)
            if number != len(known):
                raise RaceError.of(of_bracket[0].path, f"the decisions of bracket {len(known)} are missing")
            check_bracket(of_bracket, finalists)
            finalists.add(of_bracket[-1].stay)
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
    if n_fresh and n_planned < first.n_repetitions:
        raise RaceError(
            f"the race on {data.name} has decided with {first.n_repetitions} repetitions. With n_repetitions "
            f"{n_planned}, the fresh ones that confirm its finalists (confirm={n_fresh}) would be some of them. Set "
            f"n_repetitions to {first.n_repetitions} or more, or leave out confirm"
        )
    return Bracket(
        data=data,
        number=first.bracket,
        rule=rule_of(first),
        n_rungs=first.n_rungs,
        n_repetitions=first.n_repetitions,
        n_planned=n_planned,
        n_fresh=n_fresh,
        entrants={},
        earlier=earlier,
        decisions=made,
    )


def _placed(planned: Mapping[str, Entrant], known: Sequence[Bracket], *, is_search: bool) -> dict[str, Entrant]:
    """Assigns planned combinations to the brackets that have decided about them; returns the new ones.

    A search cannot be continued with more epochs, so its combinations of different lengths are different ones.
    """
    owner: dict[str, tuple[Bracket, Competitor]] = {}
    shortest: dict[str, float] = {}  # in earlier brackets, by course
    for bracket in known:
        last = bracket.decisions[-1].by_key
        own = []
        for competitor in _last_standings(bracket).values():
            # If one stayed but is missing from the next decision, it was not planned then. Planned again, it is new.
            is_known = competitor.key in last or not competitor.stays
            # Longer trainings of earlier combinations are guests, as those with the key of an earlier one.
            is_guest = not is_search and competitor.num_epochs > shortest.get(competitor.course, math.inf)
            if is_known and not is_guest and competitor.key not in owner:
                owner[competitor.key] = bracket, competitor
                own.append(competitor)
        for competitor in own:
            shortest[competitor.course] = min(competitor.num_epochs, shortest.get(competitor.course, math.inf))
    new = {}
    for key, entrant in planned.items():
        if key in owner:
            owner[key][0].entrants[key] = entrant
        else:
            new[key] = entrant
    if is_search:
        return new
    if owner and new:
        lengths: dict[str, dict[int, str]] = defaultdict(dict)  # by course, the key for each number of epochs
        for key, (_, competitor) in owner.items():
            lengths[competitor.course][competitor.num_epochs] = key
        for key, entrant in list(new.items()):
            shorter = [epochs for epochs in lengths.get(entrant.course, ()) if epochs < entrant.num_epochs]
            if shorter:
                owner[lengths[entrant.course][max(shorter)]][0].entrants[key] = new.pop(key)
    for bracket in known:
        _find_shorter(bracket)
    return new


def _find_shorter(bracket: Bracket) -> None:
    """Finds the entrants that take the place of a shorter training, where decisions do not name them."""
    by_course: list[dict[str, list[Competitor]]] = [defaultdict(list) for _ in bracket.decisions]
    for decision, courses in zip(bracket.decisions, by_course, strict=True):
        for competitor in decision.combinations:
            courses[competitor.course].append(competitor)
    for key, entrant in bracket.entrants.items():
        names = []
        for decision, courses in zip(bracket.decisions, by_course, strict=True):
            named = decision.by_key.get(key)
            if named is None:
                shorter = [c for c in courses.get(entrant.course, ()) if c.num_epochs < entrant.num_epochs]
                named = max(shorter, key=lambda competitor: competitor.num_epochs, default=None)
            if named is None:
                break
            names.append(named.key)
            if not named.stays:
                break
        if any(name != key for name in names):
            bracket.shorter[key] = names


def stands_for(brackets: Sequence[Bracket]) -> dict[str, str]:
    """Returns the key of the training that decisions name in place of a longer one, by the latter's key.

    A training that was made longer several times has a chain of shorter ones. Later brackets name it as a guest with
    the length that it had at that time.
    """
    found: dict[str, str] = {}
    if not any(bracket.shorter for bracket in brackets):
        return found
    lengths: dict[tuple[Data, str], dict[int, str]] = defaultdict(dict)  # by data and course, a key for each length
    for bracket in reversed(brackets):
        for decision in bracket.decisions:
            for competitor in decision.combinations:
                lengths[bracket.data, competitor.course][competitor.num_epochs] = competitor.key
        for key in bracket.shorter:
            entrant = bracket.entrants[key]
            known = lengths[bracket.data, entrant.course]
            shorter = [known[epochs] for epochs in sorted(known, reverse=True) if epochs < entrant.num_epochs]
            found |= pairwise([key, *shorter])
    return found


def _last_standings(bracket: Bracket) -> dict[str, Competitor]:
    """Returns the last decision about each combination, by key."""
    return {key: competitor for decision in bracket.decisions for key, competitor in decision.by_key.items()}
