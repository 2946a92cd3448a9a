"""Successive halving: all combinations train a little, the best of them train more, and a few train to the end.

A race is synchronous: a rung is decided once all its trials have reached it. The decision is a pure function of their
validation errors, so it depends neither on the number of workers nor on the order in which trials end. See Jamieson and
Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016. The budget here is epochs.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from cluster.racing.decision_file import STAYS, Reason

MIN_COMBINATIONS = 6
"""With fewer combinations a race saves little, since half of them would be finalists."""

_STANDARD_ERRORS = 2.0


class Rung(NamedTuple):
    """A rung of a race.

    Attributes:
        share: Its epoch, as a share of each combination's own epochs.
        n_repetitions: How many repetitions train to it.
    """

    share: Fraction
    n_repetitions: int

    def epoch(self, num_epochs: int) -> int:
        """Returns its epoch for a combination that trains `num_epochs`: the share, rounded, and at least 1."""
        of, parts = self.share.as_integer_ratio()
        return max(1, (2 * num_epochs * of + parts) // (2 * parts))


@dataclass(frozen=True)
class Decision:
    """Which combinations stay after a rung.

    Attributes:
        means_mm: The mean validation error of each combination at the rung, mm; infinite if a repetition diverged.
        reasons: Why each combination stays or is dropped, the best first.
    """

    means_mm: Mapping[str, float]
    reasons: Mapping[str, Reason]

    @property
    def kept(self) -> list[str]:
        """The keys of the combinations that stay, the best first."""
        return [key for key, reason in self.reasons.items() if reason in STAYS]


@dataclass(frozen=True, kw_only=True)
class SuccessiveHalving:
    """Stops the training of combinations that are clearly behind.

    After each rung, the best combinations stay: one in `reduction_factor`. Combinations that differ from the leader by
    no more than the noise of the repetitions stay too, unless that would make the race too expensive. The last rung is
    the end of the training. A race changes no number: without it, the same script trains the dropped trials to the end.

    Args:
        reduction_factor: The ratio of combinations, and of epochs, between two rungs; at least 2.
        min_epochs: The first rung is the earliest at which each combination has trained at least this many epochs.
        first_repetitions: How many repetitions train to the first rung; None for all.
        min_finalists: At least this many combinations train to the end, with all repetitions.
        max_cost: Close combinations stay only as long as the race costs at most this share of the grid's epochs.
        confirm: How many fresh repetitions of the finalists are trained after the race. They had no part in choosing
            the finalists, so tables and tests use them alone.
    """

    reduction_factor: int = 2
    min_epochs: int = 3
    first_repetitions: int | None = None
    min_finalists: int = 3
    max_cost: float = 0.25
    confirm: int = 0

    @property
    def wrong(self) -> dict[str, str]:
        """What is allowed for each setting that is wrong."""
        minima = {"reduction_factor": 2, "min_epochs": 1, "min_finalists": 1, "confirm": 0}
        wrong = {
            name: f"an int of at least {minimum}"
            for name, minimum in minima.items()
            if not _is_int(getattr(self, name), minimum)
        }
        if self.first_repetitions is not None and not _is_int(self.first_repetitions, 1):
            wrong["first_repetitions"] = "an int of at least 1, or None"
        cost = self.max_cost
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost <= 1:
            wrong["max_cost"] = "a number above 0 and at most 1"
        return wrong

    def n_rungs(self, num_epochs: int) -> int:
        """Returns the number of rungs of a race whose shortest training has `num_epochs` epochs."""
        n, epoch = 1, num_epochs
        # Two rungs at the same epoch would decide twice from the same values.
        while self.min_epochs <= (earlier := self._epoch(n, num_epochs)) < epoch:
            n, epoch = n + 1, earlier
        return n

    def _epoch(self, n_later: int, num_epochs: int) -> int:
        """Returns the epoch of the rung before `n_later` others."""
        return Rung(Fraction(1, self.reduction_factor**n_later), 1).epoch(num_epochs)

    def rungs(self, n_rungs: int, n_repetitions: int) -> list[Rung]:
        """Returns the rungs; the last one is the end of the training, with all repetitions."""
        shares = [Fraction(1, self.reduction_factor**place) for place in reversed(range(n_rungs))]
        first = min(self.first_repetitions or n_repetitions, n_repetitions) if n_rungs > 1 else n_repetitions
        return [Rung(share, first if place == 0 else n_repetitions) for place, share in enumerate(shares)]


def _is_int(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


@dataclass(frozen=True)
class Race:
    """A race between combinations with the same validation data.

    Attributes:
        rule: The rule.
        num_epochs: The epochs of each combination, by its key.
        n_repetitions: The planned repetitions of each.
        n_rungs: The number of rungs; None for as many as the shortest training allows.
    """

    rule: SuccessiveHalving
    num_epochs: Mapping[str, int]
    n_repetitions: int
    n_rungs: int | None = None

    @cached_property
    def rungs(self) -> list[Rung]:
        """The rungs."""
        n = self.n_rungs or self.rule.n_rungs(min(self.num_epochs.values()))
        return self.rule.rungs(n, self.n_repetitions)

    @cached_property
    def n_epochs_of_grid(self) -> int:
        """The epochs of all combinations and repetitions without a race."""
        return sum(self.num_epochs.values()) * self.n_repetitions

    @property
    def n_epochs_allowed(self) -> int:
        """How many epochs the whole race may cost if close combinations stay."""
        return math.floor(self.rule.max_cost * self.n_epochs_of_grid)

    def n_epochs(self, keys: Collection[str], rung: Rung) -> int:
        """Returns the epochs that combinations train up to a rung, over all its repetitions."""
        return sum(rung.epoch(self.num_epochs[key]) for key in keys) * rung.n_repetitions

    def decide(
        self,
        place: int,
        values_mm: Mapping[str, Sequence[float]],
        n_epochs_allowed: int,
        finalists: Collection[str] = (),
    ) -> Decision:
        """Decides which combinations stay after a rung; after the last one, ranks the finalists.

        Args:
            place: The index of the rung in `rungs`.
            values_mm: For each combination at the rung, the best validation error of each repetition so far, mm;
                infinite if it diverged.
            n_epochs_allowed: How many epochs the combinations at the rung may cost in total if close ones stay: the
                cost allowed for the race, without the epochs of combinations that were dropped before.
            finalists: Combinations that were finalists of an earlier bracket. They compete with the others, but are
                never dropped.
        """
        means = {key: math.fsum(values) / len(values) for key, values in values_mm.items()}
        ranked = sorted(means, key=lambda key: (means[key], key))
        finite = [key for key in ranked if math.isfinite(means[key])]
        n_best = len(ranked) if place == len(self.rungs) - 1 else self.n_best(len(ranked))
        best = finite[:n_best]
        close = finite[n_best:]
        if close:
            bound = means[best[0]] + _bound(values_mm, finite[: max(2, math.ceil(len(ranked) / 2))])
            close = [key for key in close if means[key] <= bound]
            affordable = self._n_affordable(place, ranked, n_epochs_allowed)
            close = close[: max(0, affordable - len(best))]

        stay: dict[str, Reason] = dict.fromkeys(finalists, "earlier finalist")
        stay |= dict.fromkeys(close, "close to the best")
        stay |= dict.fromkeys(best, "best")
        reasons: dict[str, Reason] = {
            key: stay.get(key, "behind" if math.isfinite(means[key]) else "diverged") for key in ranked
        }
        return Decision(means, reasons)

    def sizes(self) -> list[int]:
        """Returns how many combinations train to each rung if none stays only because it is close to the best."""
        sizes = [len(self.num_epochs)]
        for _ in self.rungs[1:]:
            sizes.append(self.n_best(sizes[-1]))
        return sizes

    def n_best(self, n: int) -> int:
        """Returns how many of `n` combinations stay as the best, whatever their errors."""
        return max(math.ceil(n / self.rule.reduction_factor), min(self.rule.min_finalists, n))

    def _n_affordable(self, place: int, ranked: Sequence[str], n_epochs_allowed: int) -> int:
        """Returns how many of the combinations may stay without making the race cost more than its rule allows.

        This assumes that at later rungs only the best combinations stay.
        """
        rungs = self.rungs
        means = [self.n_epochs(ranked, rung) / len(ranked) for rung in rungs]  # the epochs of a combination
        n = len(ranked)
        while n > 0:
            sizes = [len(ranked), n]
            while place + len(sizes) < len(rungs):
                sizes.append(self.n_best(sizes[-1]))
            sizes.append(0)
            ends = zip(sizes[:-1], sizes[1:], means[place:], strict=True)
            if sum((size - later) * mean for size, later, mean in ends) <= n_epochs_allowed:
                return n
            n -= 1
        return 0


def _bound(values_mm: Mapping[str, Sequence[float]], keys: Sequence[str]) -> float:
    """Returns the largest difference between two means that may be due to noise of the repetitions, mm.

    This is two standard errors of a paired difference. The spread is that of the residuals after removing the means of
    combinations and of repetitions, pooled over `keys`, so a few repetitions suffice. It is 0 for a single repetition.
    """
    n = len(values_mm[keys[0]])
    if n < 2 or len(keys) < 2:
        return 0.0
    rows = [values_mm[key] for key in keys]
    row_means = [math.fsum(row) / n for row in rows]
    column_means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    mean = math.fsum(row_means) / len(rows)
    residuals = [
        value - row_mean - column_mean + mean
        for row, row_mean in zip(rows, row_means, strict=True)
        for value, column_mean in zip(row, column_means, strict=True)
    ]
    variance = math.fsum(residual**2 for residual in residuals) / ((len(rows) - 1) * (n - 1))
    return _STANDARD_ERRORS * math.sqrt(2 * variance / n)
