"""How errors change along a range: a smooth line through the combinations of a search."""

from typing import NamedTuple

import numpy as np

from cluster.results.statistics import CONFIDENCE, Array

MIN_COMBINATIONS = 10
MIN_VALUES = 5
"""A line through fewer combinations, or fewer distinct values, would only follow individual ones."""

_BANDWIDTHS = np.array([0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8])
"""Standard deviations of the kernel, as shares of the values' span."""

_N_VALIDATED = 1_000
_N_RESAMPLES = 400
_SEED = 2_718

_RIDGE = 1e-6
"""Where all weight is on one value, this makes the line level instead of dividing by zero."""


class Marginal(NamedTuple):
    """A smooth line and its 95 % band, at G places.

    Attributes:
        places: The places, (G,), evenly from the lowest value to the highest.
        line: The line there, (G,).
        low: The lower end of the band, (G,).
        high: Its upper end, (G,).
    """

    places: Array
    line: Array
    low: Array
    high: Array


def marginal(values: Array, errors: Array, n_places: int = 60) -> Marginal | None:
    """Returns a local-linear regression of errors on the values of a range, with a bootstrap band.

    The kernel is Gaussian. Its width is the one with the lowest leave-one-out error (Wasserman 2006, "All of
    Nonparametric Statistics", sections 5.3 and 5.4). The band has pointwise percentiles over resamples of the
    combinations, all with the same width (Davison and Hinkley 1997, "Bootstrap Methods and their Application", section
    7.6). It shows how well the line is known, but not how far smoothing has moved it.

    Args:
        values: The value of each combination, (N,); logarithms for a logarithmic range.
        errors: The error of each combination, (N,).
        n_places: The number of places, G.

    Returns:
        The line and its band; None if there are too few combinations or distinct values.
    """
    n = len(values)
    if n < MIN_COMBINATIONS or len(np.unique(values)) < MIN_VALUES:
        return None
    low, high = values.min(), values.max()
    scaled, shares = (values - low) / (high - low), np.linspace(0, 1, n_places)  # (N,), (G,)
    generator = np.random.default_rng(_SEED)
    kept = generator.permutation(n)[:_N_VALIDATED]
    width = min(_BANDWIDTHS, key=lambda width: _left_out(scaled[kept], errors[kept], width))
    resampled = generator.multinomial(n, np.full(n, 1 / n), size=_N_RESAMPLES)  # (B, N)
    counts = np.vstack([np.ones(n), resampled])  # (1 + B, N)
    distances = scaled - shares[:, None]  # (G, N)
    line, *others = _fitted(distances, _kernel(distances, width), errors, counts, width).T  # (G,) each
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(others, (tail, 1 - tail), axis=0)  # (2, G)
    return Marginal(low + shares * (high - low), line, *ends)


def _left_out(values: Array, errors: Array, width: float) -> float:
    """Returns the mean squared leave-one-out error."""
    distances = values - values[:, None]  # (N, N)
    kernel = _kernel(distances, width)
    np.fill_diagonal(kernel, 0)
    fitted = _fitted(distances, kernel, errors, np.ones((1, len(errors))), width)[:, 0]  # (N,)
    return float(np.square(errors - fitted).mean())


def _kernel(distances: Array, width: float) -> Array:
    kernel: Array = np.exp(-np.square(distances / width) / 2)
    return kernel


def _fitted(distances: Array, kernel: Array, errors: Array, counts: Array, width: float) -> Array:
    """Returns the local-linear regressions of B samples at G places, (G, B).

    Args:
        distances: The values minus the places, (G, N).
        kernel: The weights of the values at the places, (G, N).
        errors: The errors, (N,).
        counts: How often each sample has each combination, (B, N).
        width: The width of the kernel.
    """
    first = kernel * distances  # (G, N)
    s0, s1 = kernel @ counts.T, first @ counts.T  # (G, B) each
    s2 = (first * distances) @ counts.T + _RIDGE * width**2 * s0  # (G, B)
    t0, t1 = (of @ (counts * errors).T for of in (kernel, first))  # (G, B) each
    found: Array = (s2 * t0 - s1 * t1) / (s2 * s0 - np.square(s1))
    return found
