"""Which results of a table are the best and the second best, and which do not differ significantly from them."""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.reports.formats.grid import Mark
from cluster.results.statistics import MIN_REPETITIONS, Comparison, adjusted, compare, estimate, repetitions_needed

Values = Sequence[float | None]


class Ranking(NamedTuple):
    """A ranking of combinations; a table shows its first few.

    Attributes:
        place: What distinguishes it from other rankings.
        n: How many combinations it has.
    """

    place: Hashable
    n: int


@dataclass(frozen=True)
class ResultGroup:
    """Comparable results: one metric, measured on the same data, paired by repetition.

    Attributes:
        values: The results of each combination, by its key.
        is_lower_better: Whether the best is the lowest.
        rankings: What each combination was chosen from, by its key; nothing for those that were not chosen.
    """

    values: Mapping[str, Values]
    is_lower_better: bool
    rankings: Mapping[str, Ranking] = field(default_factory=dict)

    def n_pairs(self, keys: Sequence[str]) -> int:
        """Returns how many pairs the comparisons of these combinations could have been.

        The best of many settings has lower errors than a single one, also if all of them are equal. So all pairs of
        two rankings count. Within a ranking, only the shown pairs do: the choice favours none over the others.
        """
        n_shown = Counter(self.rankings.get(key, Ranking(key, 1)) for key in keys)
        sizes = [ranking.n for ranking in n_shown]
        between = (sum(sizes) ** 2 - sum(n**2 for n in sizes)) // 2
        return between + sum(math.comb(n, 2) for n in n_shown.values())


class Rating(NamedTuple):
    """The rating of a combination in a group.

    Attributes:
        mark: The mark of its result.
        p_adjusted: The adjusted p-value of its comparison with the best; None for the best itself, and if there are too
            few repetitions for a test.
    """

    mark: Mark
    p_adjusted: float | None


def rate(groups: Sequence[ResultGroup], *, on: str = "") -> tuple[list[dict[str, Rating]], str]:
    """Marks the best and the second best of each group, and results that do not differ significantly from them.

    The best is the result with the best mean among those with the most finished repetitions; a mean over fewer is not
    marked. If there are enough repetitions for a test, all results that do not differ significantly from the best are
    marked as best too. The second best is the best of the remaining results, and all remaining results that do not
    differ significantly from it are marked as second best too. Both are selected by the same numbers that are tested,
    so p-values are adjusted for all pairs of all groups together: if results differ only by chance, one table in twenty
    has a second best. Without a test, only results that equal the best or the second best share its mark.

    Args:
        groups: The groups.
        on: For groups on several sets: what the sets are, such as 'each test set'.

    Returns:
        The ratings of each group, by key; and a sentence that explains the marks, empty without marks.
    """
    ranked = [_ranked(group) for group in groups]
    with_best = {
        (i, key): compare(group.values[key], group.values[keys[0]])
        for i, (group, keys) in enumerate(zip(groups, ranked, strict=True))
        for key in keys[1:]
    }
    n = max((comparison.n for comparison in with_best.values()), default=0)
    n_pairs = sum(group.n_pairs(keys) for group, keys in zip(groups, ranked, strict=True))
    with_best = dict(zip(with_best, adjusted(list(with_best.values()), n_possible=n_pairs), strict=True))
    is_tested = any(not comparison.too_few for comparison in with_best.values())
    best = {place for place, comparison in with_best.items() if _shares_mark(comparison, is_tested=is_tested)}
    others = [[key for key in keys[1:] if (i, key) not in best] for i, keys in enumerate(ranked)]

    with_second = {
        (i, key): comparison
        for i, (group, keys) in enumerate(zip(groups, others, strict=True))
        for key, comparison in _with_first(group, keys, is_tested=is_tested)
    }
    if is_tested:
        # Holm's adjustment covers these pairs together with those of the best.
        both = adjusted([*with_best.values(), *with_second.values()], n_possible=n_pairs)
        with_second = dict(zip(with_second, both[len(with_best) :], strict=True))

    marks: dict[tuple[int, str], Mark] = dict.fromkeys(best, "best")
    marks |= {
        place: "second" for place, comparison in with_second.items() if _shares_mark(comparison, is_tested=is_tested)
    }
    marks |= {(i, keys[0]): "best" for i, keys in enumerate(ranked) if len(keys) > 1}
    marks |= {(i, keys[0]): "second" for i, keys in enumerate(others) if keys}
    p_values = {place: comparison.p_adjusted for place, comparison in with_best.items()}
    ratings = [
        {key: Rating(marks.get((i, key), ""), p_values.get((i, key))) for key in group.values}
        for i, group in enumerate(groups)
    ]
    has_fewer = any(
        estimate(group.values[key]).n > 0
        for group, keys in zip(groups, ranked, strict=True)
        for key in group.values.keys() - set(keys)  # not looked up in the list, which may have thousands
    )
    among = " among those with the most repetitions" * has_fewer + f" on {on}" * bool(on)
    n_shown = sum(math.comb(len(keys), 2) for keys in ranked)
    pairs = "pairs that could have been chosen" if n_pairs > n_shown else "pairs"
    return ratings, _explained(n_pairs, pairs, n, among, is_tested=is_tested) if with_best else ""


def _ranked(group: ResultGroup) -> list[str]:
    """Returns the keys with the most numbers, best mean first."""
    estimates = {key: estimate(values) for key, values in group.values.items()}
    most = max((e.n for e in estimates.values()), default=0)
    means = {key: e.mean for key, e in estimates.items() if e.n == most and e.mean is not None}
    return sorted(means, key=means.__getitem__, reverse=not group.is_lower_better)


def _with_first(group: ResultGroup, ranked: Sequence[str], *, is_tested: bool) -> Iterator[tuple[str, Comparison]]:
    """Compares the others with the first: all of them for a test, otherwise only those that equal it."""
    compared = ((key, compare(group.values[key], group.values[ranked[0]])) for key in ranked[1:])
    return compared if is_tested else itertools.takewhile(lambda pair: pair[1].difference == 0, compared)


def _shares_mark(comparison: Comparison, *, is_tested: bool) -> bool:
    if is_tested:
        return not comparison.too_few and not comparison.is_significant
    return comparison.difference == 0


def _explained(n_pairs: int, pairs: str, n: int, among: str, *, is_tested: bool) -> str:
    if is_tested:
        return (
            f"Bold: the best{among} and results not significantly different from it (paired sign-flip test, "
            f"Holm-adjusted over all {pairs}, p > 0.05). Underlined: the second best and results not significantly "
            "different from that."
        )
    n_needed = repetitions_needed(n_pairs)
    needed = "" if n_needed is None else f", which need n = {n_needed}"
    reason = "a test" if n < MIN_REPETITIONS else f"tests of {n_pairs:,} {pairs}{needed}"
    return f"Bold: best mean{among}. Underlined: second best. n = {n} is too few for {reason}."
