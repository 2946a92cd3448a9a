"""How much of a result comes from the options and how much from the seeds, and how many repetitions separate two."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cluster.results.statistics import SIGNIFICANCE, Array

POWER = 0.8
"""The probability with which a test is to find a difference: the usual choice (Cohen 1988)."""

MAX_REPETITIONS = 100
"""A difference that needs more repetitions is not worth them."""

_N_QUANTILES = 1_000


class Variances(NamedTuple):
    """The variance of single results by its origin, in the square of their unit.

    Attributes:
        options: Between the expected results of combinations.
        shared: Between repetitions, the same for all combinations; it cancels out in paired comparisons.
        own: Between trainings, after removing both: what a seed does to one combination and not to the others.
    """

    options: float
    shared: float
    own: float

    @property
    def seeds(self) -> float:
        """The variance that comes from the seeds."""
        return self.shared + self.own

    @property
    def share_of_options(self) -> float | None:
        """The share of the variance that comes from the options, 0 to 1; None if all results are equal."""
        total = self.options + self.seeds
        return self.options / total if total else None


def variances(results: Array) -> Variances:
    """Returns the variance components of a two-way layout, combinations times repetitions.

    A result is modelled as y_cr = mean + a_c + b_r + e_cr, with random effects a of a combination, b of a repetition
    and e of a single training. The ANOVA estimators (Searle, Casella and McCulloch 1992, chapter 4) follow from the
    mean squares of combinations, repetitions and residuals: var(e) = MS_e, var(a) = (MS_c - MS_e) / R and
    var(b) = (MS_r - MS_e) / C. A negative estimate counts as 0.

    Args:
        results: At least two combinations with the same two or more repetitions, (C, R).
    """
    n_combinations, n_repetitions = results.shape
    of_combinations, of_repetitions = results.mean(axis=1), results.mean(axis=0)  # (C,), (R,)
    residuals = results - of_combinations[:, None] - of_repetitions + results.mean()  # (C, R)
    own = np.square(residuals).sum() / ((n_combinations - 1) * (n_repetitions - 1))
    options = of_combinations.var(ddof=1) - own / n_repetitions
    shared = of_repetitions.var(ddof=1) - own / n_combinations
    return Variances(max(0.0, float(options)), max(0.0, float(shared)), float(own))


def repetitions_to_separate(differences: Sequence[float]) -> int | None:
    """Returns how many repetitions a test would need to find a difference as large as this one.

    It is the smallest n for which a paired, two-sided t test at the 5 % level has a power of 80 %, if the true
    difference and its standard deviation are those observed. The power follows from the noncentral t distribution
    (Cohen 1988, chapter 2): with z normal and s the square root of a chi-square number over its n - 1 degrees of
    freedom, it is the probability that |z + sqrt(n) mean / std| > t s. It is computed as a mean over quantiles of s,
    since `scipy.special.nctdtr` returns NaN for many arguments.

    Args:
        differences: The difference of the two in each of at least two repetitions.

    Returns:
        At least 2; None if more than `MAX_REPETITIONS` would be needed.
    """
    from scipy import special  # not at the top of the file: it takes a tenth of a second to import

    values = np.asarray(differences, dtype=np.float64)  # (R,)
    mean, std = abs(float(values.mean())), float(values.std(ddof=1))
    if mean == 0:
        return None
    if std <= 1e-9 * mean:  # rounding
        return 2
    n = np.arange(2, MAX_REPETITIONS + 1)[:, None]  # (N, 1)
    middles = (np.arange(_N_QUANTILES) + 0.5) / _N_QUANTILES  # (K,)
    limits = special.stdtrit(n - 1, 1 - SIGNIFICANCE / 2) * np.sqrt(
        special.gammaincinv((n - 1) / 2, middles) * 2 / (n - 1)
    )
    shift = np.sqrt(n) * mean / std  # (N, 1)
    power = (special.ndtr(shift - limits) + special.ndtr(-shift - limits)).mean(axis=1)  # (N, K) -> (N,)
    enough = np.flatnonzero(power >= POWER)
    return int(n[enough[0], 0]) if len(enough) else None
