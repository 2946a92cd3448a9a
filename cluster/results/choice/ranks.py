"""The ranks of combinations in validation and on the test set, and what choosing in validation costs."""

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
    def test_ranks(self) -> Array:
        """The rank of each combination on the test set, (N,), from 1; equal errors share their mean rank."""
        return _ranks(self.test_mm)

    @property
    def best_in_test(self) -> int:
        """The index of the combination with the lowest test error."""
        return int(self.test_mm.argmin())

    @property
    def gap_mm(self) -> float:
        """How much worse the best in validation is on the test set than the best there, mm.

        This is the test regret of a search that chose in validation (Schneider, Bischl and Feurer 2025, "Overtuning in
        Hyperparameter Optimization", arXiv 2506.19540). By construction it is at least 0, even if all combinations are
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
    """Returns Spearman's rank correlation of two sets of numbers, (N,) each: -1 to 1.

    It is None if all numbers of a set are equal. Infinite numbers are allowed.
    """
    ranks = _ranks(first), _ranks(second)  # (N,) each
    return float(np.corrcoef(*ranks)[0, 1]) if all(np.ptp(of) > 0 for of in ranks) else None


def _ranks(values: Array) -> Array:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks
