"""Normalizers: the coordinate frame in which a corrector sees a pose.

A normalizer reads a frame off each *input* pose (or, once, off the training set), since at prediction time there
is nothing else; the label is brought into the frame of its input.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Frame:
    """A coordinate frame for each of N poses; both tensors broadcast against (N, J, 3).

    Attributes:
        origin: What becomes zero, mm.
        scale: What becomes one, mm; None leaves lengths in mm.
    """

    origin: Tensor
    scale: Tensor | None = None

    def normalize(self, poses: Tensor) -> Tensor:
        """Brings poses, (N, J, 3), mm, into the frame."""
        shifted = poses - self.origin  # (N, J, 3)
        return shifted if self.scale is None else shifted / self.scale

    def denormalize(self, poses: Tensor) -> Tensor:
        """Brings poses, (N, J, 3), from the frame back to mm in the camera frame."""
        scaled = poses if self.scale is None else poses * self.scale  # (N, J, 3)
        return scaled + self.origin


class Normalizer(ABC):
    """The base of the family. A member's constructor takes its settings after `*`."""

    def fit(self, poses: Iterable[Tensor]) -> None:  # noqa: B027 - most members learn nothing
        """Learns from the inputs of the training set, given as chunks (n, J, 3), mm, on the trial's device."""

    @abstractmethod
    def frame(self, poses: Tensor) -> Frame:
        """Returns the frames of input poses (N, J, 3), mm."""

    def learned(self) -> dict[str, list[float]]:
        """Returns what `fit` learned, as plain numbers for the trial's record."""
        return {}


class Shifter(Normalizer):
    """Puts the centre of the input pose, the mean of its joints, at the origin; lengths stay in mm."""

    def frame(self, poses: Tensor) -> Frame:
        """Returns the frames of input poses (N, J, 3), mm."""
        return Frame(origin=poses.mean(dim=1, keepdim=True))  # (N, 1, 3)


class GlobalNormalizer(Normalizer):
    """Standardises with the mean and standard deviation of all joints of the training inputs.

    One frame for all poses: it keeps where in front of the camera a hand is.

    Args:
        individual_scaling: Divide x, y and z each by its own standard deviation. By default all are divided by
            the one over all coordinates, so that the hand keeps its shape.
    """

    def __init__(self, *, individual_scaling: bool = False) -> None:
        self.individual_scaling = individual_scaling
        self._frame: Frame | None = None

    def fit(self, poses: Iterable[Tensor]) -> None:
        """Learns mean and standard deviation from chunks (n, J, 3), mm."""
        chunks = iter(poses)
        first = next(chunks, None)
        if first is None:
            raise ValueError("a GlobalNormalizer cannot be fitted to an empty training set")
        # Summed in float64 about the first joint: coordinates lie far from zero compared with their spread.
        pivot = first[0, 0].double()  # (3,)
        count, total, squares = 0, torch.zeros_like(pivot), torch.zeros_like(pivot)
        for chunk in chain([first], chunks):
            points = chunk.reshape(-1, 3).double() - pivot  # (n·J, 3)
            count += len(points)
            total += points.sum(dim=0)
            squares += points.square().sum(dim=0)
        shift = total / count  # (3,)
        variance = (squares / count - shift.square()).clamp(min=0)  # (3,)
        if not self.individual_scaling:
            variance = variance.mean().expand(3)
        std = variance.sqrt()  # (3,)
        # A coordinate that never changes (one flat sample) is only shifted.
        std = torch.where(std > 0, std, 1.0)
        self._frame = Frame(origin=(pivot + shift).float().view(1, 1, 3), scale=std.float().view(1, 1, 3))

    def frame(self, poses: Tensor) -> Frame:
        """Returns the one frame, for input poses (N, J, 3), mm."""
        if self._frame is None:
            raise RuntimeError("GlobalNormalizer.frame was called before fit")
        return self._frame

    def learned(self) -> dict[str, list[float]]:
        """Returns the mean and the standard deviation of x, y and z, mm."""
        frame = self.frame(torch.empty(0))
        assert frame.scale is not None
        return {"mean_mm": frame.origin.flatten().tolist(), "std_mm": frame.scale.flatten().tolist()}
