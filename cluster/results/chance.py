"""The importances that options without any effect would have by chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.results.statistics import SIGNIFICANCE, Array

_N_DRAWN = 1_000
_MAX_NUMBERS = 2**20  # in memory at the same time
_SEED = 5_489
_ROUNDING = 1e-20  # a smaller share of the sum of squares is rounding


@dataclass(frozen=True)
class Chance:
    """The importance of an option that has no effect: its mean, and the limit that 95 % of cases do not exceed."""

    mean: float
    high: float


def shares_of_grid(means: Array) -> Array:
    """Returns the importance of each option: the share of the variance that its marginal means have (functional ANOVA).

    Args:
        means: The mean of each combination of a complete grid, with an axis for each of O options, (K1, …, KO).

    Returns:
        The shares, (O,), 0 to 1.
    """
    shares: Array = _marginal_variances(means.reshape(1, -1), means.shape)[0] / means.var()
    return shares


def chances_of_grid(results: Array) -> list[Chance]:
    """Returns for each option of a complete grid which importance it would have by chance.

    Chance is the effect of other seeds: what differs between repetitions. The null distribution comes from permuted
    residuals (ter Braak 1992; Anderson and ter Braak 2003). A residual is a result minus the mean of its combination
    and the mean of its repetition, so it contains no effect of an option, no interaction, and nothing that trials with
    the same seed have in common. The residuals of each repetition are exchanged between combinations, 1,000 times with
    a fixed seed. Each time, the option's marginal means get a variance by chance. It is measured relative to the
    scatter of the exchanged residuals around the means of combinations, as in an F ratio, since the scatter of few
    repetitions is itself uncertain. The share is that variance at the observed scatter, with the rest of the variance
    as observed.

    The permutation importance of Altmann et al. 2010 exchanges the option's values instead. That would count real
    effects and interactions as chance, and a real effect with a strong interaction would seem to be none.

    In simulations of options without an effect in grids from 2 x 2 with two repetitions, 3 to 7 % were above the limit,
    with normal and with heavy-tailed results; up to 13 % if some combinations scattered five times as much as others.

    Args:
        results: The result of each trial, with an axis for each of O options and a last one for at least two
            repetitions, (K1, …, KO, R).
    """
    *shape, n_repetitions = results.shape
    table = results.reshape(-1, n_repetitions)  # (C, R)
    means = table.mean(axis=1)  # (C,)
    observed = _marginal_variances(means[None], shape)[0]  # (O,)
    others = np.maximum(means.var() - observed, 0)  # (O,)
    residuals = table - means[:, None] - table.mean(axis=0) + table.mean()  # (C, R)
    scatter = np.square(residuals).sum()
    if scatter <= _ROUNDING * np.square(table - table.mean()).sum():
        return [Chance(0.0, 0.0)] * len(shape)

    rng = np.random.default_rng(_SEED)
    n_at_once = max(1, _MAX_NUMBERS // table.size)
    shares = []
    for start in range(0, _N_DRAWN, n_at_once):
        n = min(n_at_once, _N_DRAWN - start)
        drawn = rng.permuted(np.broadcast_to(residuals, (n, *residuals.shape)), axis=1).mean(axis=2)  # (n, C)
        by_chance = _marginal_variances(drawn, shape)  # (n, O)
        # Means that take more of the scatter leave less of it to judge them by.
        left = 1 - n_repetitions * np.square(drawn).sum(axis=1, keepdims=True) / scatter  # (n, 1)
        total = by_chance + np.maximum(left, 0) * others  # (n, O)
        shares.append(np.divide(by_chance, total, out=np.zeros_like(total), where=total > 0))
    found = np.concatenate(shares)  # (draws, O)
    highs = np.quantile(found, 1 - SIGNIFICANCE, axis=0, method="inverted_cdf")  # (O,)
    return [Chance(*both) for both in zip(found.mean(axis=0).tolist(), highs.tolist(), strict=True)]


def _marginal_variances(means: Array, shape: Sequence[int]) -> Array:
    """Returns the variance of each option's marginal means, (A, O), from A sets of means of combinations, (A, C)."""
    grid = means.reshape(-1, *shape)  # (A, C) -> (A, K1, …, KO)
    axes = range(1, grid.ndim)
    marginal = [grid.mean(axis=tuple(other for other in axes if other != axis)) for axis in axes]  # (A, K) each
    return np.stack([of_option.var(axis=1) for of_option in marginal], axis=1)  # (A, O)
