"""The order of a tensor's dimensions while much is computed with single joints or axes.

With the samples last, these are rows of N numbers, and what is done to rows takes a fraction of the time. Both ways go
over a matrix, which is turned round faster than a tensor.
"""

from torch import Tensor


def samples_last(points: Tensor) -> Tensor:
    """Returns points (N, J, 3) as (J, 3, N)."""
    n_samples, n_joints, _ = points.shape
    return points.flatten(1).t().contiguous().view(n_joints, 3, n_samples)  # (N, J, 3) -> (3J, N) -> (J, 3, N)


def samples_first(points: Tensor) -> Tensor:
    """Returns points (J, 3, N) as (N, J, 3)."""
    n_joints, _, n_samples = points.shape
    return points.flatten(0, 1).t().contiguous().view(n_samples, n_joints, 3)  # (J, 3, N) -> (N, 3J) -> (N, J, 3)
