"""Augmenters: they change input and label alike, to show a corrector hands it has not seen.

Each acts about the centre of the input pose, so that the hand stays where it is in front of the camera.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from data_pipeline.layout import samples_first, samples_last, stored_samples_last, turned


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
        uniform = torch.rand((len(poses), 1, 1), generator=generator, device=poses.device, dtype=poses.dtype)
        factors = self.low + (self.high - self.low) * uniform  # (N, 1, 1)
        poses, labels = stored_samples_last(poses), stored_samples_last(labels)  # (N, J, 3) each
        kept = poses.mean(dim=1, keepdim=True) * (1 - factors)  # (N, 1, 3)
        return torch.addcmul(kept, poses, factors), torch.addcmul(kept, labels, factors)


@dataclass(frozen=True, kw_only=True)
class RandomRotator(Augmenter):
    """Turns each hand by a rotation drawn uniformly from SO(3)."""

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the rotated inputs and labels, (N, J, 3) each."""
        rotations = _random_rotations(len(poses), generator, poses)  # (3, 3, N)
        poses, labels = samples_last(poses), samples_last(labels)  # (N, J, 3) -> (J, 3, N) each
        centres = poses.mean(dim=0)  # (3, N)
        around = turned(poses - centres, rotations), turned(labels - centres, rotations)  # (J, 3, N) each
        return samples_first(around[0].add_(centres)), samples_first(around[1].add_(centres))  # (N, J, 3) each


def _random_rotations(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draws n rotation matrices, samples last, (3, 3, n), uniform over SO(3).

    Four normal numbers, normalised, are uniform on the sphere of unit quaternions (Marsaglia 1972; Shoemake,
    "Uniform random rotations", Graphics Gems III, 1992).
    """
    quaternions = torch.randn((4, n), generator=generator, device=like.device, dtype=like.dtype)
    # Of length √2, so that products of two components are what the entries are sums of.
    w, x, y, z = quaternions * quaternions.square().mean(dim=0).mul_(2).rsqrt_()  # (n,) each
    xx, yy, zz, xy, xz, yz, wx, wy, wz = x * x, y * y, z * z, x * y, x * z, y * z, w * x, w * y, w * z
    rows = (
        *(1 - yy - zz, xy - wz, xz + wy),
        *(xy + wz, 1 - xx - zz, yz - wx),
        *(xz - wy, yz + wx, 1 - xx - yy),
    )
    return torch.stack(rows).view(3, 3, n)  # (9, n) -> (3, 3, n)
