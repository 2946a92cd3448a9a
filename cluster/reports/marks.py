"""Which result of a table is the best, and which cannot be told from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.reports.grid import Mark
from cluster.statistics import MIN_REPETITIONS, Comparison, adjusted, compare, estimate, repetitions_needed

Values = Sequence[float | None]


@dataclass(frozen=True)
class Contest:
    """Results that may be compared: of one metric, measured on the same data, paired by repetition.

    Attributes:
        values: The results of each combination, by its key.
        is_lower_better: Whether the best is the lowest.
    """

    values: Mapping[str, Values]
    is_lower_better: bool


class Verdict(NamedTuple):
    """How a combination did in a contest.

    Attributes:
        mark: How its result is marked.
        p_adjusted: Of its comparison with the best; None for the best itself, and with too few repetitions for a test.
    """

    mark: Mark
    p_adjusted: float | None


def judged(contests: Sequence[Contest], *, on: str = "") -> tuple[list[dict[str, Verdict]], str]:
    """Marks the best and the second of each contest, and what cannot be told from the best.

    The best has the best mean of those with the most finished repetitions; a mean that rests on fewer is not marked.
    Where repetitions suffice for a test, whatever does not differ from the best significantly is best too, and the
    second is the best of the others. The best is seen in the same numbers that it is tested with, so that p-values are
    adjusted for all pairs that might have been the ones to compare, of all contests together: of results that differ by
    chance alone, one table in twenty has a second.

    Args:
        contests: The contests.
        on: Where a table has contests on several sets, what they are, such as 'each test set'.

    Returns:
        The verdicts of each contest, by key; and a sentence that says what the marks mean, empty without any.
    """
    ranked = [_ranked(contest) for contest in contests]
    compared = {
        (i, key): compare(contest.values[key], contest.values[keys[0]])
        for i, (contest, keys) in enumerate(zip(contests, ranked, strict=True))
        for key in keys[1:]
    }
    n = max((comparison.n for comparison in compared.values()), default=0)
    n_pairs = sum(math.comb(len(keys), 2) for keys in ranked)
    n_needed = repetitions_needed(n_pairs)
    if n >= n_needed:
        compared = dict(zip(compared, adjusted(list(compared.values()), n_possible=n_pairs), strict=True))

    verdicts = []
    for i, (contest, keys) in enumerate(zip(contests, ranked, strict=True)):
        of_contest = {key: compared[i, key] for key in keys[1:]}
        marks = _marks(keys, of_contest, is_tested=n >= n_needed)
        p_values = {key: comparison.p_adjusted if n >= n_needed else None for key, comparison in of_contest.items()}
        verdicts.append({key: Verdict(marks.get(key, ""), p_values.get(key)) for key in contest.values})
    return verdicts, _explained(n_pairs, n, n_needed, f" on {on}" * bool(on)) if compared else ""


def _ranked(contest: Contest) -> list[str]:
    """The keys with the most numbers, the best mean first."""
    estimates = {key: estimate(values) for key, values in contest.values.items()}
    most = max((e.n for e in estimates.values()), default=0)
    means = {key: e.mean for key, e in estimates.items() if e.n == most and e.mean is not None}
    return sorted(means, key=means.__getitem__, reverse=not contest.is_lower_better)


def _marks(keys: Sequence[str], others: Mapping[str, Comparison], *, is_tested: bool) -> dict[str, Mark]:
    if len(keys) < 2:
        return {}
    best = {keys[0]}
    if is_tested:
        best |= {key for key, comparison in others.items() if not comparison.too_few and not comparison.is_significant}
    else:
        best |= {key for key, comparison in others.items() if comparison.difference == 0}
    marks: dict[str, Mark] = dict.fromkeys(best, "best")
    rest = [key for key in keys if key not in best]
    if rest:
        marks[rest[0]] = "second"
    return marks


def _explained(n_pairs: int, n: int, n_needed: int, where: str) -> str:
    if n >= n_needed:
        return (
            f"Bold: the best{where}, and what does not differ from it significantly (paired sign-flip test, Holm over "
            "all pairs, p > 0.05). Underlined: the next."
        )
    reason = "a test" if n < MIN_REPETITIONS else f"tests of {n_pairs} pairs, which need {n_needed}"
    return f"Bold: the best mean{where}. Underlined: the next. n = {n}: too few for {reason}."
