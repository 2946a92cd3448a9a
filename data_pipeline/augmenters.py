"""Augmenters: they apply the same random change to input and label, so that the corrector sees new hands.

Each acts about the centre of the input pose, so the hand keeps its position in front of the camera.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from math import inf

import torch
from torch import Tensor

from data_pipeline.layout import cross_product, rotate, samples_first, samples_last, squared_lengths
from data_pipeline.skeleton import Skeleton


class Augmenter(ABC):
    """The base class of augmenters. They are frozen dataclasses, so they compare and print by value."""

    @property
    def fits_windows(self) -> bool:
        """Whether it can change the joints of several frames together, (N, W·J, 3), as those of one hand."""
        return True

    @abstractmethod
    def __call__(
        self, poses: Tensor, labels: Tensor, skeleton: Skeleton, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Returns the augmented inputs and labels.

        Args:
            poses: Inputs, (N, J, 3), mm, in any memory layout. They are not modified.
            labels: Labels, (N, J, 3), mm, likewise.
            skeleton: The skeleton with J joints.
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
        _check_factors(self.low, self.high)

    def __call__(
        self, poses: Tensor, labels: Tensor, skeleton: Skeleton, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
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

    def __call__(
        self, poses: Tensor, labels: Tensor, skeleton: Skeleton, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
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
class RandomBoneScaler(Augmenter):
    """Scales the length of each bone by its own factor, drawn uniformly between `low` and `high`.

    So the corrector sees hands of other proportions. The bones of the input keep their directions, and the joints
    beyond a bone move with it. The label's joints move by the same distances as the input's: the backbone's error stays
    as it is. `RandomScaler` scales whole hands, and the error with them.

    Attributes:
        low: The smallest factor.
        high: The largest factor.
    """

    low: float = 0.9
    high: float = 1.1

    def __post_init__(self) -> None:
        _check_factors(self.low, self.high)

    @property
    def fits_windows(self) -> bool:
        """Whether it can change several frames together: no, it needs the joints of the skeleton."""
        return False

    def __call__(
        self, poses: Tensor, labels: Tensor, skeleton: Skeleton, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Returns the inputs and labels with other bone lengths, (N, J, 3) each."""
        n_bones = len(skeleton.bones)
        uniform = torch.rand((n_bones, len(poses)), generator=generator, device=poses.device, dtype=poses.dtype)
        growth = (self.low - 1) + (self.high - self.low) * uniform  # (B, N), the factors minus 1
        poses, labels = samples_last(poses), samples_last(labels)  # (N, J, 3) -> (J, 3, N) each
        starts, ends, moved_by = _bone_tree(skeleton, poses.device, poses.dtype)
        bones = poses.index_select(0, ends) - poses.index_select(0, starts)  # (B, 3, N)
        grown = (bones * growth.unsqueeze(1)).flatten(1)  # (B, 3, N) -> (B, 3N)
        displacement = (moved_by @ grown).view(poses.shape)  # (J, B) @ (B, 3N) -> (J, 3, N)
        return samples_first(poses + displacement), samples_first(labels + displacement)  # (J, 3, N) -> (N, J, 3) each


def _check_factors(low: float, high: float) -> None:
    if not 0 < low <= high < inf:
        raise ValueError(f"0 < low <= high < inf must hold, not low = {low}, high = {high}")


@lru_cache(maxsize=64)
def _bone_tree(skeleton: Skeleton, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the bones' starts and ends, (B,) each, and how much a joint moves with each bone's growth, (J, B).

    Bones point away from the first joint, or from the first one that has no bones to it. Joint j moves with all bones
    on the way to it. The centre of all joints stays in place, so it does not matter where the bones start. A bone that
    closes a circle does not grow by itself.
    """
    paths: dict[int, list[int]] = {}  # the bones on the way to each joint
    bones = list(skeleton.bones)
    for first in range(skeleton.n_joints):
        if first in paths:
            continue
        paths[first] = []
        reached = [first]
        for joint in reached:  # grows meanwhile
            for index, (a, b) in enumerate(bones):
                other = b if a == joint else a
                if joint in (a, b) and other not in paths:
                    bones[index] = (joint, other)
                    paths[other] = [*paths[joint], index]
                    reached.append(other)
    moved_by = torch.zeros(skeleton.n_joints, len(bones), dtype=dtype)
    for joint, path in paths.items():
        moved_by[joint, path] = 1
    starts, ends = torch.tensor(bones, device=device).unbind(dim=1)  # (B,) each
    return starts, ends, (moved_by - moved_by.mean(dim=0)).to(device)


@dataclass(frozen=True, kw_only=True)
class RandomRotator(Augmenter):
    """Rotates each hand by a rotation drawn uniformly from SO(3)."""

    def __call__(
        self, poses: Tensor, labels: Tensor, skeleton: Skeleton, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
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
