"""Augmenters: they change input and label alike, to show a corrector hands it has not seen.

Each acts about the centre of the input pose, so that the hand stays where it is in front of the camera.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from data_pipeline.layout import cross_product, rotate, samples_first, samples_last, squared_lengths


class Augmenter(ABC):
    """The base of the family. Members are frozen dataclasses, so that they compare and print by value."""

    @abstractmethod
    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the augmented inputs and labels.

        Args:
            poses: Inputs, (N, J, 3), mm. They are not changed.
            labels: Labels, (N, J, 3), mm. They are not changed.
            generator: All randomness comes from here; on the device of `poses`.

        All tensors may lie in memory in any order.
        """


@dataclass(frozen=True, kw_only=True)
class RandomScaler(Augmenter):
    """Scales each hand by a factor drawn evenly between `low` and `high`.

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
        poses, labels = samples_last(poses), samples_last(labels)  # (N, J, 3) -> (J, 3, N) each
        kept = poses.mean(dim=0) * (1 - factors)  # (3, N), where the centre is
        scaled = torch.addcmul(kept, poses, factors), torch.addcmul(kept, labels, factors)  # (J, 3, N) each
        return samples_first(scaled[0]), samples_first(scaled[1])  # (J, 3, N) -> (N, J, 3) each


@dataclass(frozen=True, kw_only=True)
class RandomRotator(Augmenter):
    """Turns each hand by a rotation drawn uniformly from SO(3)."""

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the rotated inputs and labels, (N, J, 3) each."""
        rotations = _random_rotations(len(poses), generator, poses)  # (3, 3, N)
        poses, labels = samples_last(poses), samples_last(labels)  # (N, J, 3) -> (J, 3, N) each
        centres = poses.mean(dim=0)  # (3, N)
        around = rotate(poses - centres, rotations), rotate(labels - centres, rotations)  # (J, 3, N) each
        return samples_first(around[0].add_(centres)), samples_first(around[1].add_(centres))  # (N, J, 3) each


def _random_rotations(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draws n rotation matrices, samples last, (3, 3, n), uniform over SO(3).

    A normal vector points anywhere alike, and so does, at right angles to it, what another one has there. Made
    orthonormal (Gram and Schmidt), they are the first two rows of a uniform rotation (Stewart, "The Efficient
    Generation of Random Orthogonal Matrices", SIAM J. Numer. Anal. 17, 1980), and tell the third.
    """
    first, second = torch.randn((2, 3, n), generator=generator, device=like.device, dtype=like.dtype)  # (3, n) each
    x = _unit_vectors(first)
    y = _unit_vectors(second - (second * x).sum(dim=0) * x)
    return torch.stack([x, y, cross_product(x, y)])  # (3, 3, n)


def _unit_vectors(vectors: Tensor) -> Tensor:
    return vectors * squared_lengths(vectors).rsqrt_()  # (3, n)
