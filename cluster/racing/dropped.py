"""What a race's decisions say about its finalists, the combinations that it dropped, and its first rung."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from cluster.racing.decision_file import Competitor, DecisionFile, Reason

Data = tuple[str, int | None]
"""A validation set: its name (with folds, that of the split dataset), and how many samples are used; None for all."""


class Dropped(NamedTuple):
    """The rung at which a race dropped a combination.

    Single trials may have trained further.

    Attributes:
        epoch: The epoch of the rung.
        repetitions: How many repetitions reached it.
        val_distance_mm: Their best validation distance up to that epoch, mean over repetitions, mm; None if one
            diverged, and for a single fold.
        leader_val_distance_mm: The same for the leader at the rung, mm.
        reason: Why it was dropped.
    """

    epoch: int
    repetitions: int
    val_distance_mm: float | None
    leader_val_distance_mm: float | None
    reason: Reason


DROPPED_COLUMNS = tuple(f"dropped_{name}" for name in Dropped._fields)
"""The columns of tables for programs that describe dropped combinations."""


def dropped_combinations(decisions: Sequence[DecisionFile], validated_on: Mapping[str, Data]) -> dict[str, Dropped]:
    """Returns the combinations that their latest decision dropped.

    Args:
        decisions: The decisions, in order.
        validated_on: The validation set of each combination to look for, by key. Others are ignored.

    Returns:
        By key: those dropped at the latest rung first, and at each rung the best first.
    """
    latest = {
        competitor.key: (decision, competitor)
        for decision in decisions
        for competitor in decision.combinations
        if validated_on.get(competitor.key) == (decision.data, decision.size)
    }
    found = []
    for key, (decision, competitor) in latest.items():
        if not competitor.stays:
            n, mean = len(competitor.values), competitor.mean_mm
            # Rungs count from the end of the training, where all brackets have one.
            place = (decision.n_rungs - decision.rung, -n, mean, key)
            dropped = Dropped(competitor.epoch, n, _finite(mean), _finite(decision.leader.mean_mm), competitor.reason)
            found.append((place, dropped))
    return {key: dropped for (*_, key), dropped in sorted(found)}


def finalists(decisions: Sequence[DecisionFile]) -> set[str]:
    """Returns the keys of the combinations that races train to the end."""
    last = (decision for decision in decisions if decision.rung == decision.n_rungs - 2)
    return {competitor.key for decision in last for competitor in decision.combinations if competitor.stays}


def for_longer(
    decisions: Sequence[DecisionFile],
    stands_for: Mapping[str, str],
    num_epochs: Mapping[str, int],
    planned: Collection[str] = (),
) -> list[DecisionFile]:
    """Returns the decisions with longer trainings listed next to the shorter ones that raced in their place.

    Args:
        decisions: The decisions.
        stands_for: The key of the next shorter training, by the key of the longer one.
        num_epochs: The epochs of longer trainings, by key, as far as they are known.
        planned: The keys of shorter trainings next to which no longer one is listed, because they are shown themselves.
    """
    chains = {key: [key, *_shorter(key, stands_for)] for key in stands_for}
    if not chains:
        return list(decisions)
    found = []
    for decision in decisions:
        longer = {key: [competitor] for key, competitor in decision.by_key.items()}
        for key, names in list(chains.items()):
            known = next((decision.by_key[name] for name in names if name in decision.by_key), None)
            if known is None:
                continue
            if known.key != key and known.key not in planned:
                epochs = num_epochs.get(key, known.num_epochs)
                longer[known.key].append(replace(known, key=key, num_epochs=epochs))
            if not known.stays:
                del chains[key]  # no shorter one that stays takes its place
        found.append(replace(decision, combinations=list(chain.from_iterable(longer.values()))))
    return found


def shortest(key: str, stands_for: Mapping[str, str]) -> str:
    """Returns the key of the first training of a combination, which was then made longer; often its own."""
    return [key, *_shorter(key, stands_for)][-1]


def _shorter(key: str, stands_for: Mapping[str, str]) -> list[str]:
    names = [key]
    while names[-1] in stands_for and stands_for[names[-1]] not in names:
        names.append(stands_for[names[-1]])
    return names[1:]


def of_plan(decisions: Sequence[DecisionFile], planned: Collection[str]) -> list[DecisionFile]:
    """Returns the decisions that compare planned combinations, with only these; `planned` has their keys."""
    found = [replace(d, combinations=[c for c in d.combinations if c.key in planned]) for d in decisions]
    return [decision for decision in found if decision.combinations]


def first_rung_of_each(
    decisions: Sequence[DecisionFile], data: Data, stands_for: Mapping[str, str]
) -> list[Competitor]:
    """Returns each combination at the first rung of the race, or of the bracket in which it was added.

    Brackets whose first rung is at another share of the epochs, or has fewer repetitions, are left out: their errors
    cannot be compared with the others.

    Args:
        decisions: The decisions, in order.
        data: The validation set.
        stands_for: The key of the next shorter training, by the key of the longer one, which came from its rungs.
    """
    firsts = [d for d in decisions if (d.data, d.size) == data and d.rung == 0]
    found = dict[str, Competitor]()
    for decision in firsts:
        if _share(decision) == _share(firsts[0]) and len(decision.leader.values) >= len(firsts[0].leader.values):
            for competitor in decision.combinations:
                found.setdefault(shortest(competitor.key, stands_for), competitor)
    return list(found.values())


def _share(first: DecisionFile) -> tuple[int, object]:
    """Returns what determines at which share of the epochs a first rung is."""
    return first.n_rungs, first.rule.get("reduction_factor")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
