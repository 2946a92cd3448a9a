"""Which samples a smaller dataset keeps."""

import numpy as np
import numpy.typing as npt

from data_pipeline.user_error import UserError

Indices = npt.NDArray[np.int64]


class SelectionError(UserError):
    """There are not as many samples as were asked for."""


def first(n_samples: int, n: int) -> Indices:
    """Returns the indices of the first `n` of `n_samples` samples.

    Raises:
        SelectionError: If there are fewer.
    """
    _check(n_samples, n)
    return np.arange(n)


def every(n_samples: int, n: int) -> Indices:
    """Returns the index of the first of `n_samples` samples and of each n-th after it.

    Raises:
        SelectionError: If there are fewer than `n`.
    """
    _check(n_samples, n)
    return np.arange(0, n_samples, n)


def random(n_samples: int, n: int, seed: int) -> Indices:
    """Returns the indices, ascending, of `n` of `n_samples` samples, drawn without replacement.

    Raises:
        SelectionError: If there are fewer.
    """
    _check(n_samples, n)
    return np.sort(np.random.default_rng(seed).choice(n_samples, n, replace=False))


def _check(n_samples: int, n: int) -> None:
    if not 1 <= n <= n_samples:
        raise SelectionError(f"{n} was asked for: needed is a number from 1 to {n_samples}, the dataset's size")
