"""The best error that a search of a trained grid would have found after each combination."""

from collections.abc import Sequence

import numpy as np

from cluster.results.statistics import Array


def best_in_order(errors: Array) -> Array:
    """Returns the lowest error so far, (N,), of combinations in the order in which they were trained, (N,)."""
    lowest: Array = np.minimum.accumulate(errors)
    return lowest


def best_in_random_order(errors: Array, quantiles: Sequence[float]) -> Array:
    """Returns quantiles, over all orders of training, of the lowest error after 1 to N combinations.

    It is computed exactly: the first k combinations include none of the m best with the probability
    C(N - m, k) / C(N, k), which is the product of (N - k - j) / (N - j) for j from 0 to m - 1.

    Args:
        errors: The error of each combination, (N,).
        quantiles: The Q quantiles: 0.5 is the error that half of all orders reach.

    Returns:
        The errors, (Q, N).
    """
    n = len(errors)
    n_trained = np.arange(1, n + 1)  # (N,)
    none_found = np.ones(n)  # (N,)
    places = np.zeros((len(quantiles), n), dtype=np.intp)  # (Q, N)
    for j in range(n):
        none_found *= np.maximum(n - n_trained - j, 0) / (n - j)
        places += 1 - none_found < np.asarray(quantiles)[:, None] - 1e-12
    lowest: Array = np.sort(errors)[places]
    return lowest
