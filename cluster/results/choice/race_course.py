"""The course of a race: how far each combination got, with which errors, and what the race cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np

from cluster.racing.decision_file import Competitor, DecisionFile
from cluster.racing.dropped import of_plan, shortest
from cluster.results.choice.ranks import rank_correlation
from cluster.results.learning_curves import Curve
from cluster.results.results import Results
from cluster.results.rows import column
from cluster.results.statistics import Array
from cluster.storage.trial_file import FINAL

MIN_RANKED = 3
"""With fewer combinations, the orders at two rungs are not compared."""


class Piece(NamedTuple):
    """A part of the course of a combination, over which the same repetitions are averaged.

    Attributes:
        epochs: Epochs, (E,).
        best_mm: The best validation error up to each epoch, mean over the repetitions, (E,), mm; infinite from the rung
            at which the combination had diverged.
        n_repetitions: The number of repetitions.
    """

    epochs: Array
    best_mm: Array
    n_repetitions: int


class RungOutcome(NamedTuple):
    """What happened at a rung.

    Attributes:
        epochs: The lowest and the highest epoch of combinations there; equal unless their numbers of epochs differ.
        n: How many combinations reached it.
        n_repetitions: How many repetitions each had there.
        n_stay: How many of them stayed.
        n_close: How many of these stayed only because they were close to the best.
        n_diverged: How many had diverged.
        n_epochs: How many epochs of all combinations but guests the race has taken up to this rung.
        best_mm: The lowest mean validation error, mm.
        correlation: Spearman's rank correlation of their errors here and at the next rung, over those that have both;
            None if there are too few or if all errors of a rung are equal.
        n_correlated: How many combinations have both.
    """

    epochs: tuple[int, int]
    n: int
    n_repetitions: int
    n_stay: int
    n_close: int
    n_diverged: int
    n_epochs: int
    best_mm: float
    correlation: float | None
    n_correlated: int


@dataclass(frozen=True)
class RaceCourse:
    """The course of a bracket, whose combinations competed on the same validation data.

    Attributes:
        results: The results of the experiment.
        curves: The learning curve of each trial, by its id 'KEY/REPETITION'.
        decisions: The decisions of the bracket in order, with only the combinations of the plan.
        guests: The combinations that already competed in an earlier bracket, or whose shorter trainings did.
    """

    results: Results
    curves: Mapping[str, Curve]
    decisions: Sequence[DecisionFile]
    guests: frozenset[str]

    @cached_property
    def last(self) -> dict[str, Competitor]:
        """The last decision about each combination, by key: those dropped first come first, at each rung the best."""
        found: dict[str, Competitor] = {}
        for decision in self.decisions:
            for competitor in decision.combinations:
                found.pop(competitor.key, None)
                found[competitor.key] = competitor
        left = [key for key, competitor in found.items() if not competitor.stays]
        return {key: found[key] for key in [*left, *self.staying]}

    @cached_property
    def staying(self) -> list[str]:
        """The keys of the combinations that stayed after the last decision, the best first."""
        return [competitor.key for competitor in self.decisions[-1].combinations if competitor.stays]

    @property
    def is_decided(self) -> bool:
        """Whether the finalists are known."""
        return self.decisions[-1].rung == self.decisions[-1].n_rungs - 2

    @property
    def n_repetitions(self) -> int:
        """How many repetitions decide, without any that were removed from the plan since."""
        return min(self.decisions[0].n_repetitions, self.results.n_repetitions)

    @cached_property
    def have_equal_epochs(self) -> bool:
        """Whether all combinations have the same number of epochs."""
        return len({competitor.num_epochs for competitor in self.decisions[0].combinations}) == 1

    def competitors(self, key: str) -> Iterator[Competitor]:
        """Yields the entries of the decisions on a combination."""
        return (decision.by_key[key] for decision in self.decisions if key in decision.by_key)

    def pieces(self, key: str) -> list[Piece]:
        """Returns the course of a combination up to the rung at which it was dropped, or as far as it was trained.

        Between rungs, the values come from the learning curves. With folds there are none: a race averages the best
        error of each fold, which differs from the best error of their mean.
        """
        found = list[Piece]()
        start = 1
        for competitor in self.competitors(key):
            found.append(self._piece(key, start, competitor.epoch, len(competitor.values), competitor.mean_mm))
            start = competitor.epoch
        competitor = self.last[key]
        if competitor.stays:
            end = competitor.num_epochs
            found.append(self._piece(key, start, end, self.n_repetitions, self.at_the_end(key)))
        return [piece for piece in found if len(piece.epochs)]

    def at_the_end(self, key: str) -> float | None:
        """Returns the mean error of a combination at the end of its training, mm; None before it has finished.

        It is the mean over the repetitions that decide; the other repetitions only confirm it.
        """
        competitor = self.last[key]
        n, end = self.n_repetitions, competitor.num_epochs
        if not competitor.stays:
            return None
        if self.results.folds:
            values = [
                trial[column("val", "distance")] for trial in self.results.repetitions[key] if trial["repetition"] < n
            ]
            known = [value for value in values if value is not None]
            return math.fsum(known) / n if len(known) == n else None
        best = self._best_mm(key, n)
        return float(best[end - 1]) if 0 < end <= len(best) else None

    def has_diverged(self, key: str) -> bool:
        """Returns whether a repetition of a combination that decides has diverged."""
        trials = self.results.repetitions[key]
        return any(trial["status"] == "diverged" for trial in trials if trial["repetition"] < self.n_repetitions)

    @property
    def completed(self) -> list[str]:
        """The keys of combinations that were dropped, and then trained to the end without the race."""
        return [key for key, last in self.last.items() if not last.stays and key not in self.results.dropped]

    @cached_property
    def rungs(self) -> list[RungOutcome]:
        """What happened at each rung that has been decided."""
        means = [{c.key: c.mean_mm for c in decision.combinations} for decision in self.decisions]
        ends = {key: self.at_the_end(key) for key in self.staying} if self.is_decided else {}
        means.append({key: mm for key, mm in ends.items() if mm is not None})
        found, taken = [], dict[str, int]()
        for decision, here, after in zip(self.decisions, means[:-1], means[1:], strict=True):
            both = [key for key in here if key in after]
            known = len(both) >= MIN_RANKED
            correlation = (
                rank_correlation(*(np.array([of[key] for key in both]) for of in (here, after))) if known else None
            )
            own = [competitor for competitor in decision.combinations if competitor.key not in self.guests]
            taken |= {competitor.key: self._n_epochs_at_rung(competitor) for competitor in own}
            reasons = [competitor.reason for competitor in decision.combinations]
            epochs = [competitor.epoch for competitor in decision.combinations]
            found.append(
                RungOutcome(
                    epochs=(min(epochs), max(epochs)),
                    n=len(here),
                    n_repetitions=len(decision.leader.values),
                    n_stay=sum(competitor.stays for competitor in decision.combinations),
                    n_close=reasons.count("close to the best"),
                    n_diverged=reasons.count("diverged"),
                    n_epochs=sum(taken.values()),
                    best_mm=min(here.values()),
                    correlation=correlation,
                    n_correlated=len(both),
                )
            )
        return found

    @property
    def n_epochs_of_grid(self) -> int:
        """The epochs that all combinations except guests would take, in all repetitions, without the race."""
        n = self.results.n_repetitions
        return sum(n * self._n_folds(key) * competitor.num_epochs for key, competitor in self._own)

    @property
    def n_epochs(self) -> int:
        """The epochs of dropped combinations up to their last rung, and of finalists to the end."""
        n = self.results.n_repetitions
        return sum(
            n * self._n_folds(key) * competitor.num_epochs if competitor.stays else self._n_epochs_at_rung(competitor)
            for key, competitor in self._own
        )

    @property
    def n_epochs_to_confirm(self) -> int:
        """The epochs of the fresh repetitions that confirm its finalists."""
        lengths = [self._n_folds(key) * competitor.num_epochs for key, competitor in self._own if competitor.stays]
        return self.results.n_confirming * sum(lengths)

    @property
    def n_epochs_in_vain(self) -> int | None:
        """The epochs of dropped combinations beyond their last rung; None with folds, where they are not known.

        Trials that have ended do not count: they were trained to the end without the race.
        """
        if self.results.folds:
            return None
        n = 0
        for key, competitor in self._own:
            for trial in self.results.repetitions[key] if not competitor.stays else ():
                curve = self.curves.get(f"{key}/{trial['repetition']}")
                if curve is not None and len(curve.epochs) and trial["status"] not in FINAL:
                    counted = competitor.epoch if trial["repetition"] < len(competitor.values) else 0
                    n += max(0, math.floor(curve.epochs[-1]) - counted)
        return n

    @property
    def _own(self) -> Iterator[tuple[str, Competitor]]:
        return ((key, last) for key, last in self.last.items() if key not in self.guests)

    def _n_epochs_at_rung(self, competitor: Competitor) -> int:
        n_repetitions = min(len(competitor.values), self.results.n_repetitions)
        return n_repetitions * self._n_folds(competitor.key) * competitor.epoch

    def _n_folds(self, key: str) -> int:
        return len(self.results.trained_keys(key))

    def _best_mm(self, key: str, n: int) -> Array:
        """Returns the mean over the first `n` repetitions of the best error up to each epoch that all have, (E,)."""
        curves = [self.curves.get(f"{key}/{repetition}") for repetition in range(n)]
        ends = [np.zeros(0) if curve is None else curve.val_after_epochs_mm for curve in curves]
        shortest = min(map(len, ends))
        best: Array = np.minimum.accumulate([mm[:shortest] for mm in ends], axis=1).mean(axis=0)  # (n, E) -> (E,)
        return best[: np.argmin(np.isfinite(best))] if not np.isfinite(best).all() else best

    def _piece(self, key: str, start: int, end: int, n: int, at_end_mm: float | None) -> Piece:
        best = np.zeros(0) if self.results.folds else self._best_mm(key, n)[start - 1 : end]
        epochs = np.arange(start, start + len(best), dtype=np.float64)
        if at_end_mm is not None and (not len(epochs) or epochs[-1] < end or math.isinf(at_end_mm)):
            epochs, best = np.append(epochs, end), np.append(best, at_end_mm)
        return Piece(epochs, best, n)


def race_courses(results: Results, curves: Mapping[str, Curve]) -> list[RaceCourse]:
    """Returns the course of each bracket of an experiment's races, in their order; empty without a race.

    Args:
        results: The results of the experiment.
        curves: The learning curve of each trial, by its id.
    """
    planned, found = of_plan(results.decisions, results.repetitions), []
    for _, of_data in groupby(planned, lambda decision: (decision.data, decision.size)):
        earlier = frozenset[str]()
        for _, of_bracket in groupby(of_data, lambda decision: decision.bracket):
            decisions = list(of_bracket)
            firsts = {c.key: shortest(c.key, results.stands_for) for c in decisions[0].combinations}
            guests = frozenset(key for key, first in firsts.items() if first in earlier)
            found.append(RaceCourse(results, curves, decisions, guests))
            earlier |= set(firsts.values())
    return found
