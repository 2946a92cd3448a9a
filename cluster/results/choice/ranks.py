"""The places of combinations in validation and on the test set, and what choosing in validation costs."""

from dataclasses import dataclass

import numpy as np

from cluster.results.statistics import Array


@dataclass(frozen=True)
class ValidationAndTest:
    """The mean errors of N combinations that were measured on the same data, in the order of validation.

    Attributes:
        val_mm: In validation, (N,), mm, ascending.
        test_mm: On the test set, (N,), mm.
    """

    val_mm: Array
    test_mm: Array

    @property
    def test_places(self) -> Array:
        """The place of each combination on the test set, (N,), from 1; equal errors share the mean of their places."""
        return _places(self.test_mm)

    @property
    def best_in_test(self) -> int:
        """The index of the combination with the lowest test error."""
        return int(self.test_mm.argmin())

    @property
    def gap_mm(self) -> float:
        """How much worse the first in validation is on the test set than the best there, mm.

        This is the test regret of a search that chose in validation (Schneider, Bischl and Feurer 2025, "Overtuning in
        Hyperparameter Optimization", arXiv 2506.19540). It is at least 0 by construction, also if all combinations are
        equally good: the minimum of noisy numbers is low by chance.
        """
        return float(self.test_mm[0] - self.test_mm.min())

    @property
    def correlation(self) -> float | None:
        """Spearman's rank correlation, -1 to 1; None if all errors of a set are equal."""
        return rank_correlation(self.val_mm, self.test_mm)

    def first(self, n: int) -> "ValidationAndTest":
        """Returns the n best combinations in validation."""
        return ValidationAndTest(self.val_mm[:n], self.test_mm[:n])


def rank_correlation(first: Array, second: Array) -> float | None:
    """Returns Spearman's rank correlation of two rows of numbers, (N,) each: -1 to 1.

    It is None if all numbers of a row are equal. Infinite numbers are allowed.
    """
    places = _places(first), _places(second)  # (N,) each
    return float(np.corrcoef(*places)[0, 1]) if all(np.ptp(of) > 0 for of in places) else None


def _places(values: Array) -> Array:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    places: Array = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return places
