"""Selects the samples of a smaller dataset. Each function raises a `UserError` if there are fewer than `n` samples."""

import numpy as np
import numpy.typing as npt

from data_pipeline.user_error import UserError

Indices = npt.NDArray[np.int64]


def first(n_samples: int, n: int) -> Indices:
    """Returns the indices of the first `n` of `n_samples` samples."""
    _check(n_samples, n)
    return np.arange(n)


def every(n_samples: int, n: int) -> Indices:
    """Returns the indices of the first and of every n-th sample after it, of `n_samples`."""
    _check(n_samples, n)
    return np.arange(0, n_samples, n)


def random(n_samples: int, n: int, seed: int) -> Indices:
    """Draws `n` of `n_samples` samples without replacement and returns their indices, ascending."""
    _check(n_samples, n)
    return np.sort(np.random.default_rng(seed).choice(n_samples, n, replace=False))


def _check(n_samples: int, n: int) -> None:
    if not 1 <= n <= n_samples:
        raise UserError(f"got {n}; expected a number from 1 to {n_samples}, the size of the dataset")
