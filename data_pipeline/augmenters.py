"""Augmenters: they apply the same random change to input and label, so that the corrector sees new hands.

Each acts about the centre of the input pose, so the hand keeps its position in front of the camera.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from data_pipeline.layout import cross_product, rotate, samples_first, samples_last, squared_lengths


class Augmenter(ABC):
    """The base class of augmenters. They are frozen dataclasses, so they compare and print by value."""

    @abstractmethod
    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the augmented inputs and labels.

        Args:
            poses: Inputs, (N, J, 3), mm, in any memory layout. They are not modified.
            labels: Labels, (N, J, 3), mm, likewise.
            generator: The only source of randomness; on the device of `poses`.
        """


@dataclass(frozen=True, kw_only=True)
class RandomScaler(Augmenter):
    """Scales each hand by a factor drawn uniformly between `low` and `high`.

    Attributes:
        low: The smallest factor.
        high: The largest factor.
    """

    low: float = 0.8
    high: float = 1.2

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < inf:
            raise ValueError(f"0 < low <= high < inf must hold, not low = {self.low}, high = {self.high}")

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the scaled inputs and labels, (N, J, 3) each."""
        uniform = torch.rand(len(poses), generator=generator, device=poses.device, dtype=poses.dtype)
        factors = self.low + (self.high - self.low) * uniform  # (N,)
        return _scaled(poses, labels, factors)


@dataclass(frozen=True, kw_only=True)
class NormalScaler(Augmenter):
    """Scales each hand by a normally distributed factor with the mean 1.

    Factors more than three standard deviations from 1, about one in 370, are set to that distance, so that all are
    above 0.

    Attributes:
        std: The standard deviation of the factor before that; at most 0.3.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.std <= 0.3:
            raise ValueError(f"0 <= std <= 0.3 must hold, so that all factors are above 0, not std = {self.std}")

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the scaled inputs and labels, (N, J, 3) each."""
        normal = torch.randn(len(poses), generator=generator, device=poses.device, dtype=poses.dtype)
        factors = 1 + self.std * normal.clamp_(min=-3, max=3)  # (N,)
        return _scaled(poses, labels, factors)


def _scaled(poses: Tensor, labels: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Returns inputs and labels, (N, J, 3) each, times factors, (N,), about the centres of the inputs."""
    poses, labels = samples_last(poses), samples_last(labels)  # (N, J, 3) -> (J, 3, N) each
    offset = poses.mean(dim=0) * (1 - factors)  # (3, N), keeps the centre in place
    scaled = torch.addcmul(offset, poses, factors), torch.addcmul(offset, labels, factors)  # (J, 3, N) each
    return samples_first(scaled[0]), samples_first(scaled[1])  # (J, 3, N) -> (N, J, 3) each


@dataclass(frozen=True, kw_only=True)
class RandomRotator(Augmenter):
    """Rotates each hand by a rotation drawn uniformly from SO(3)."""

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the rotated inputs and labels, (N, J, 3) each."""
        rotations = _random_rotations(len(poses), generator, poses)  # (3, 3, N)
        poses, labels = samples_last(poses), samples_last(labels)  # (N, J, 3) -> (J, 3, N) each
        centres = poses.mean(dim=0)  # (3, N)
        around = rotate(poses - centres, rotations), rotate(labels - centres, rotations)  # (J, 3, N) each
        return samples_first(around[0].add_(centres)), samples_first(around[1].add_(centres))  # (N, J, 3) each


def _random_rotations(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draws n rotation matrices, samples last, (3, 3, n), uniform over SO(3).

    The direction of a normally distributed vector is uniform; so is the direction of a second one's component
    orthogonal to it. Orthonormalised (Gram-Schmidt), they are the first two rows of a uniform rotation (Stewart, "The
    Efficient Generation of Random Orthogonal Matrices", SIAM J. Numer. Anal. 17, 1980) and determine the third.
    """
    first, second = torch.randn((2, 3, n), generator=generator, device=like.device, dtype=like.dtype)  # (3, n) each
    x = _unit_vectors(first)
    y = _unit_vectors(second - (second * x).sum(dim=0) * x)
    return torch.stack([x, y, cross_product(x, y)])  # (3, 3, n)


def _unit_vectors(vectors: Tensor) -> Tensor:
    return vectors * squared_lengths(vectors).rsqrt_()  # (3, n)
