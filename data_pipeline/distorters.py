"""Distorters: they change the input of a training sample and leave its label.

A distorter stands for a backbone's errors, where there are too few real ones or none.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor


class Distorter(ABC):
    """The base of the family. Members are frozen dataclasses, so that they compare and print by value."""

    @property
    def makes_input(self) -> bool:
        """Whether the distorter can make an input out of a label, for training without a backbone."""
        return True

    @abstractmethod
    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the distorted inputs.

        Args:
            poses: Inputs, (N, J, 3), mm. They are not changed.
            labels: Labels, (N, J, 3), mm. They are not changed.
            generator: All randomness comes from here; on the device of `poses`.
        """


@dataclass(frozen=True, kw_only=True)
class NoDistorter(Distorter):
    """Leaves the input as it is."""

    makes_input = False

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Returns `poses`."""
        return poses


@dataclass(frozen=True, kw_only=True)
class GaussianDistorter(Distorter):
    """Adds independent normal noise to every coordinate.

    Attributes:
        std_mm: Its standard deviation, mm.
    """

    std_mm: float

    def __post_init__(self) -> None:
        if not 0 <= self.std_mm < inf:
            raise ValueError(f"std_mm must be finite and at least 0, not {self.std_mm}")

    @property
    def makes_input(self) -> bool:
        """Whether there is any noise."""
        return self.std_mm > 0

    def __call__(self, poses: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Returns `poses` plus noise."""
        noise = torch.randn(poses.shape, generator=generator, device=poses.device, dtype=poses.dtype)  # (N, J, 3)
        return poses.add(noise, alpha=self.std_mm)
