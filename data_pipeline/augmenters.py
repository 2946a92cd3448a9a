"""Augmenters: they change input and label alike, to show a corrector hands it has not seen.

Each acts about the centre of the input pose, so that the hand stays where it is in front of the camera.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor


class Augmenter(ABC):
    """The base of the family. Members are frozen dataclasses, so that they compare and print by value."""

    @abstractmethod
    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the augmented inputs and labels.

        Args:
            poses: Inputs, (N, J, 3), mm. They are not changed.
            labels: Labels, (N, J, 3), mm. They are not changed.
            generator: All randomness comes from here; on the device of `poses`.
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
        centres = poses.mean(dim=1, keepdim=True)  # (N, 1, 3)
        return centres + (poses - centres) * factors, centres + (labels - centres) * factors


@dataclass(frozen=True, kw_only=True)
class RandomRotator(Augmenter):
    """Turns each hand by a rotation drawn uniformly from SO(3)."""

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the rotated inputs and labels, (N, J, 3) each."""
        transposed = _random_rotations(len(poses), generator, poses).mT  # (N, 3, 3), acts on rows
        centres = poses.mean(dim=1, keepdim=True)  # (N, 1, 3)
        return centres + (poses - centres) @ transposed, centres + (labels - centres) @ transposed


def _random_rotations(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draws n rotation matrices, (n, 3, 3), uniform over SO(3).

    Four normal numbers, normalised, are uniform on the sphere of unit quaternions (Marsaglia 1972; Shoemake,
    "Uniform random rotations", Graphics Gems III, 1992).
    """
    quaternions = torch.randn((n, 4), generator=generator, device=like.device, dtype=like.dtype)
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(dim=1)  # (n,) each
    rows = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(rows, dim=1).view(n, 3, 3)  # (n, 9) -> (n, 3, 3)
