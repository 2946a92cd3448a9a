"""Normalizers: the coordinate frame in which a corrector sees a pose.

A normalizer reads a frame off each *input* pose (or, once, off the training set), since at prediction time there
is nothing else; the label is brought into the frame of its input.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from data_pipeline.layout import (
    cross_product,
    rotate,
    samples_first,
    samples_last,
    squared_lengths,
    stored_samples_last,
    whole_samples,
)
from data_pipeline.skeleton import Palm, Skeleton


@dataclass(frozen=True, slots=True)
class PoseTransform:
    """A coordinate frame for each of N poses.

    Attributes:
        origin: What becomes zero, mm; broadcasts against (N, J, 3).
        scale: What becomes one, mm; broadcasts against (N, J, 3). None leaves lengths in mm.
        rotation: The frame's axes in the camera frame, as the columns of proper rotations, (N, 3, 3). None leaves
            the axes of the camera.
    """

    origin: Tensor
    scale: Tensor | None = None
    rotation: Tensor | None = None

    def normalize(self, poses: Tensor) -> Tensor:
        """Brings poses, (N, J, 3), mm, into the frame: ((poses − origin) @ rotation) / scale."""
        if self.rotation is None:
            inside = poses - self.origin  # (N, J, 3)
            return whole_samples(inside if self.scale is None else inside / self.scale)  # (N, J, 3)
        # The rotation has fewer numbers than the poses.
        rotation = self.rotation if self.scale is None else self.rotation / self.scale  # (N, 3, 3)
        return whole_samples(_rotate(stored_samples_last(poses) - self.origin, rotation))  # (N, J, 3)

    def denormalize(self, poses: Tensor) -> Tensor:
        """Brings poses, (N, J, 3), from the frame back to mm in the camera frame."""
        if self.rotation is None:
            outside = poses if self.scale is None else poses * self.scale  # (N, J, 3)
        else:
            rotation = self.rotation if self.scale is None else self.rotation * self.scale  # (N, 3, 3)
            outside = _rotate(poses, rotation.mT)  # (N, J, 3)
        return whole_samples(outside + self.origin)  # (N, J, 3)

    def select(self, rows: slice) -> "PoseTransform":
        """Returns the frames of some of the poses; one that is the same for all stays so."""
        parts = (self.origin, self.scale, self.rotation)
        origin, scale, rotation = (part if part is None or len(part) == 1 else part[rows] for part in parts)
        assert origin is not None
        return PoseTransform(origin, scale, rotation)


def _rotate(poses: Tensor, rotation: Tensor) -> Tensor:
    """Returns poses, (N, J, 3), as rows times `rotation`, (N, 3, 3): (N, J, 3)."""
    return samples_first(rotate(samples_last(poses), rotation.permute(1, 2, 0)))  # (N, J, 3)


class Normalizer(ABC):
    """The base of the family. A member's constructor takes the skeleton first and its settings after `*`.

    Args:
        skeleton: The skeleton of the poses.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton

    def fit(self, poses: Iterable[Tensor]) -> None:  # noqa: B027 - most members learn nothing
        """Learns from the inputs of the training set, given as chunks (n, J, 3), mm, on the trial's device."""

    @abstractmethod
    def transform(self, poses: Tensor) -> PoseTransform:
        """Returns the frames of input poses (N, J, 3), mm."""

    def normalize(self, poses: Tensor) -> tuple[Tensor, PoseTransform]:
        """Returns input poses, (N, J, 3), mm, in the frames that they give, and the frames."""
        transform = self.transform(poses)
        return transform.normalize(poses), transform

    def learned(self) -> dict[str, list[float]]:
        """Returns what `fit` learned, as plain numbers for the trial's record."""
        return {}

    def restore(self, learned: Mapping[str, Sequence[float]]) -> None:  # noqa: B027 - most members learn nothing
        """Learns what `learned` told, in place of `fit`; the frames are the same to the last bit.

        Raises:
            KeyError: If a number is missing.
        """


class Shifter(Normalizer):
    """Puts the centre of the input pose, the mean of its joints, at the origin; lengths stay in mm."""

    def transform(self, poses: Tensor) -> PoseTransform:
        """Returns the frames of input poses (N, J, 3), mm."""
        if poses.is_contiguous():
            # Not worth turning round; and with the samples last, the last bit would depend on how many there are.
            return PoseTransform(origin=poses.mean(dim=1, keepdim=True))  # (N, 1, 3)
        centre = samples_last(poses).mean(dim=0, keepdim=True)  # (N, J, 3) -> (1, 3, N)
        return PoseTransform(origin=samples_first(centre))  # (1, 3, N) -> (N, 1, 3)


class GlobalNormalizer(Normalizer):
    """Standardises with the mean and standard deviation of all joints of the training inputs.

    One frame for all poses: it keeps where in front of the camera a hand is.

    Args:
        skeleton: The skeleton of the poses; any.
        individual_scaling: Divide x, y and z each by its own standard deviation. By default all are divided by
            the one over all coordinates, so that the hand keeps its shape.
    """

    def __init__(self, skeleton: Skeleton, *, individual_scaling: bool = False) -> None:
        super().__init__(skeleton)
        self.individual_scaling = individual_scaling
        self._transform: PoseTransform | None = None

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
        self._transform = PoseTransform(origin=(pivot + shift).float().view(1, 1, 3), scale=std.float().view(1, 1, 3))

    def transform(self, poses: Tensor) -> PoseTransform:
        """Returns the one frame, for input poses (N, J, 3), mm."""
        if self._transform is None or self._transform.scale is None:
            raise RuntimeError("GlobalNormalizer.transform was called before fit")
        # What was restored lies on the CPU.
        return PoseTransform(self._transform.origin.to(poses.device), self._transform.scale.to(poses.device))

    def learned(self) -> dict[str, list[float]]:
        """Returns the mean and the standard deviation of x, y and z, mm."""
        transform = self.transform(torch.empty(0))
        assert transform.scale is not None
        return {"mean_mm": transform.origin.flatten().tolist(), "std_mm": transform.scale.flatten().tolist()}

    def restore(self, learned: Mapping[str, Sequence[float]]) -> None:
        """Learns the mean and the standard deviation that `learned` told."""
        mean, std = (torch.tensor(learned[name], dtype=torch.float32) for name in ("mean_mm", "std_mm"))  # (3,) each
        self._transform = PoseTransform(origin=mean.view(1, 1, 3), scale=std.view(1, 1, 3))


class PalmNormalizer(Normalizer, ABC):
    """The base of those that turn hands by their palms.

    Args:
        skeleton: The skeleton of the poses; one with a palm.

    Raises:
        ValueError: If the skeleton has no palm.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__(skeleton)
        if skeleton.palm is None:
            raise ValueError(
                f"{type(self).__name__} needs to know the palm, and the skeleton {skeleton.name} has none; give one to "
                "it: Skeleton(..., palm=Palm(base=(...), knuckles=(...))), both of data_pipeline.skeleton"
            )
        self._palm = skeleton.palm

    def normalize(self, poses: Tensor) -> tuple[Tensor, PoseTransform]:
        """Returns input poses, (N, J, 3), mm, in the frames that they give, and the frames."""
        return super().normalize(stored_samples_last(poses))  # both want them so


class ViewpointNormalizer(PalmNormalizer):
    """Turns each hand so that its palm faces the camera and its fingers point along x.

    The palm's normal becomes −z and the fingers' mean direction +x, about the centre of the input pose, the mean of
    its joints; lengths stay in mm. So the corrector does not see from where the hand was seen. What normal and
    direction are, and what is done where there are none, says `palm_rotation`; of which hands it is the back that
    faces the camera, says `Palm`.
    """

    def transform(self, poses: Tensor) -> PoseTransform:
        """Returns the frames of input poses (N, J, 3), mm."""
        joints = samples_last(poses)  # (N, J, 3) -> (J, 3, N)
        centre = joints.mean(dim=0, keepdim=True)  # (1, 3, N)
        return PoseTransform(origin=samples_first(centre), rotation=palm_rotation(joints, self._palm))


class IndividualNormalizer(PalmNormalizer):
    """Takes each hand in a frame of its own: the palm's centre, the palm's axes, and the mean bone length as unit.

    The origin is the mean of the palm's joints; the axes are those of `ViewpointNormalizer`. The mean length of the
    input's bones becomes 1, so that the corrector does not see how large the hand is. A pose whose bones have no length
    keeps its lengths in mm.
    """

    def transform(self, poses: Tensor) -> PoseTransform:
        """Returns the frames of input poses (N, J, 3), mm."""
        joints = samples_last(poses)  # (N, J, 3) -> (J, 3, N)
        origin = _select_joints(joints, self._palm.outline).mean(dim=0, keepdim=True)  # (J, 3, N) -> (1, 3, N)
        starts, ends = zip(*self.skeleton.bones, strict=True)
        bones = _select_joints(joints, ends) - _select_joints(joints, starts)  # (B, 3, N)
        # Of a length of zero the root has no gradient.
        shortest = torch.finfo(bones.dtype).tiny
        lengths = squared_lengths(bones).clamp(min=shortest).sqrt()  # (B, 3, N) -> (B, N)
        scale = lengths.mean(dim=0)  # (N,)
        scale = torch.where(scale > 2 * shortest**0.5, scale, 1.0)
        return PoseTransform(
            origin=samples_first(origin),
            scale=scale.view(-1, 1, 1),  # (N,) -> (N, 1, 1)
            rotation=palm_rotation(joints, self._palm),
        )


FLATNESS = 1e-3
"""What share of a pose's extent the palm's length is at least, and of the extent's square its area, to have axes."""


def palm_rotation(joints: Tensor, palm: Palm) -> Tensor:
    """Returns the rotations whose columns are the axes of the palm: x along the fingers, z against the normal.

    The normal is that of the outline's vector area, the sum of the cross products of its neighbouring corners (Newell's
    method; Sutherland, Sproull and Schumacker, "A Characterization of Ten Hidden-Surface Algorithms", 1974), so that
    all corners count and they need not lie in a plane. The fingers' mean direction is that from the mean of the base to
    the mean of the knuckles, without its part along the normal. With y = z × x every rotation is proper.

    A palm on a line or a point, or whose base and knuckles have one mean, has no such axes. Its rotation is the
    identity, which leaves the camera's axes. What counts as a line is judged by the pose's extent, see `FLATNESS`.

    Args:
        joints: Poses, samples last, (J, 3, N), mm.
        palm: The joints of the palm.

    Returns:
        (N, 3, 3). Gradients are finite for all poses.
    """
    corners = _select_joints(joints, palm.outline)  # (P, 3, N)
    sides = corners[1:] - corners[:1]  # (P - 1, 3, N)
    area = cross_product(sides[:-1], sides[1:]).sum(dim=0)  # (P - 2, 3, N) -> (3, N), twice the area
    n_base = len(palm.base)
    direction = corners[n_base:].mean(dim=0) - corners[:n_base].mean(dim=0)  # (3, N)

    # The squared distance of the joints from their centre, as a mean.
    extent = squared_lengths(joints - joints.mean(dim=0)).mean(dim=0)  # (J, 3, N) -> (J, N) -> (N,), mm²
    normal, has_normal = _unit_vectors(area, FLATNESS**2 * extent.square())
    across = direction - (direction * normal).sum(dim=0) * normal  # (3, N)
    along, has_direction = _unit_vectors(across, FLATNESS**2 * extent)
    y = cross_product(along, normal)  # (3, N), z × x
    # Once more, since what was left of a direction near the normal is not quite at right angles to it.
    x = cross_product(normal, y)  # (3, N), y × z
    rotation = torch.stack([x, y, -normal])  # (3 axes, 3, N)
    identity = torch.eye(3, dtype=joints.dtype, device=joints.device).unsqueeze(2)  # (3, 3, 1)
    # Chosen and not branched on: the device need not be waited for, and the frame can be exported.
    chosen = torch.where(has_normal & has_direction, rotation, identity)  # (3 axes, 3, N)
    return chosen.permute(2, 1, 0)  # (N, 3, 3 axes)


def _unit_vectors(vectors: Tensor, shortest: Tensor) -> tuple[Tensor, Tensor]:
    """Returns vectors (3, N) with length 1, and which of them were longer than the root of `shortest`, (N,).

    The others become zero.
    """
    squared = squared_lengths(vectors)  # (N,)
    long = squared > shortest
    return vectors * torch.where(long, squared, torch.inf).rsqrt(), long


def _select_joints(joints: Tensor, numbers: Sequence[int]) -> Tensor:
    first, n = numbers[0], len(numbers)
    if tuple(numbers) == tuple(range(first, first + n)):
        return joints[first : first + n]  # (J, 3, N) -> (K, 3, N), without a copy
    # By slices: a tensor of indices would have to be brought to the device, which waits for it.
    return torch.stack([joints[number] for number in numbers])  # (J, 3, N) -> (K, 3, N)
