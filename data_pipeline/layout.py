"""The memory layout of points, for computations with single joints or axes.

With the samples last, one coordinate of one joint is a row of N numbers for all samples, and operations on rows take a
fraction of the time. Code that computes with joints therefore stores points with the samples last, and the following
steps keep that layout; a `PoseTransform` restores whole samples. Both conversions transpose a matrix, which is faster
than permuting a tensor.
"""

from torch import Tensor


def samples_last(points: Tensor) -> Tensor:
    """Returns points (N, J, 3) as (J, 3, N).

    The result is a copy unless the points already have that layout: never write to it.
    """
    wanted = points.permute(1, 2, 0)  # (N, J, 3) -> (J, 3, N)
    if wanted.is_contiguous():
        return wanted
    return points.flatten(1).t().contiguous().view(wanted.shape)  # (N, J, 3) -> (3J, N) -> (J, 3, N)


def samples_first(points: Tensor) -> Tensor:
    """Returns points (J, 3, N) as a view (N, J, 3)."""
    return points.permute(2, 0, 1)  # (J, 3, N) -> (N, J, 3)


def stored_samples_last(points: Tensor) -> Tensor:
    """Returns points (N, J, 3) in the same shape, stored with the samples last."""
    return samples_first(samples_last(points))  # (N, J, 3)


def whole_samples(points: Tensor) -> Tensor:
    """Returns points (N, J, 3) in the same shape, stored with the numbers of each sample next to each other."""
    return points.flatten(1).contiguous().view(points.shape)  # (N, J, 3)


def rotate(points: Tensor, matrices: Tensor) -> Tensor:
    """Returns points, (J, 3, N), as row vectors times `matrices`, (3, 3, N), in full precision: (J, 3, N).

    A matrix product with TF32 would round to 10 bits: an error of up to 0.1 mm at 100 mm.
    """
    x, y, z = points.unsqueeze(2).unbind(dim=1)  # (J, 3, N) -> 3 times (J, 1, N)
    return (x * matrices[0]).addcmul_(y, matrices[1]).addcmul_(z, matrices[2])  # (J, 3, N)


def cross_product(a: Tensor, b: Tensor) -> Tensor:
    """Returns the cross products of vectors, (..., 3, N) each: (..., 3, N).

    On a CPU `torch.linalg.cross` processes one vector at a time, which takes several times as long.
    """
    # These are the components z, x, y of a × b.
    products = (a * b.roll(-1, dims=-2)).addcmul_(a.roll(-1, dims=-2), b, value=-1)  # (..., 3, N)
    return products.roll(-1, dims=-2)


def squared_lengths(vectors: Tensor) -> Tensor:
    """Returns the squared lengths of vectors, (..., 3, N): (..., N)."""
    x, y, z = vectors.unbind(dim=-2)  # (..., N) each
    return x.square().addcmul_(y, y).addcmul_(z, z)  # a third of the time of a sum over an inner axis
