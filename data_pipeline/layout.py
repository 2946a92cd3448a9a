"""The order in which points lie in memory while much is computed with single joints or axes.

With the samples last, a joint's x of all samples is a row of N numbers, and what is done to rows takes a fraction of
the time. So whoever computes with joints puts the samples last, and who comes after finds them so; a `Frame` makes
whole samples of them. Both ways go over a matrix, which is turned round faster than a tensor.
"""

from torch import Tensor


def samples_last(points: Tensor) -> Tensor:
    """Returns points (N, J, 3) as (J, 3, N).

    They are a copy, unless they lie in memory in that order already: write to none of them.
    """
    wanted = points.permute(1, 2, 0)  # (N, J, 3) -> (J, 3, N)
    if wanted.is_contiguous():
        return wanted
    return points.flatten(1).t().contiguous().view(wanted.shape)  # (N, J, 3) -> (3J, N) -> (J, 3, N)


def samples_first(points: Tensor) -> Tensor:
    """Returns points (J, 3, N) as (N, J, 3), which lie in memory as they did."""
    return points.permute(2, 0, 1)  # (J, 3, N) -> (N, J, 3)


def stored_samples_last(points: Tensor) -> Tensor:
    """Returns points (N, J, 3) in the same shape; in memory they lie with the samples last."""
    return samples_first(samples_last(points))  # (N, J, 3)


def whole_samples(points: Tensor) -> Tensor:
    """Returns points (N, J, 3) in the same shape; in memory the numbers of a sample lie side by side."""
    return points.flatten(1).contiguous().view(points.shape)  # (N, J, 3)


def turned(points: Tensor, matrices: Tensor) -> Tensor:
    """Returns points, (J, 3, N), as rows times `matrices`, (3, 3, N), with all their bits: (J, 3, N).

    A matrix product would lose some on a device that is told to round to 10 bits (TF32): at 100 mm up to 0.1 mm.
    """
    x, y, z = points.unsqueeze(2).unbind(dim=1)  # (J, 3, N) -> 3 times (J, 1, N)
    return (x * matrices[0]).addcmul_(y, matrices[1]).addcmul_(z, matrices[2])  # (J, 3, N)


def crossed(a: Tensor, b: Tensor) -> Tensor:
    """Returns the cross products of vectors, (..., 3, N) each: (..., 3, N).

    `torch.linalg.cross` does one vector after the other on a CPU, which takes several times as long.
    """
    # Of a × b this is z, x, y.
    products = (a * b.roll(-1, dims=-2)).addcmul_(a.roll(-1, dims=-2), b, value=-1)  # (..., 3, N)
    return products.roll(-1, dims=-2)


def squared_lengths(vectors: Tensor) -> Tensor:
    """Returns the squares of the lengths of vectors, (..., 3, N): (..., N)."""
    x, y, z = vectors.unbind(dim=-2)  # (..., N) each
    return x.square().addcmul_(y, y).addcmul_(z, z)  # a third of the time of a sum over an inner axis
