"""Normalizers: they transform poses to the coordinates in which a corrector works.

A normalizer computes a transform from each *input* pose (or once from the training set), because at prediction time
nothing else is available; the label is transformed like its input.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    """A change of coordinates for each of N poses.

    Attributes:
        origin: The point that becomes zero, mm; broadcasts against (N, J, 3).
        scale: The length that becomes one, mm; broadcasts against (N, J, 3). None keeps lengths in mm.
        rotation: The new axes in the camera frame, as the columns of proper rotations, (N, 3, 3). None keeps the axes
            of the camera.
    """

    origin: Tensor
    scale: Tensor | None = None
    rotation: Tensor | None = None

    def normalize(self, poses: Tensor) -> Tensor:
        """Transforms poses, (N, J, 3), mm, to normalised coordinates: ((poses − origin) @ rotation) / scale."""
        if self.rotation is None:
            shifted = poses - _for_each_joint(self.origin, poses)  # (N, J, 3)
            scaled = shifted if self.scale is None else shifted / _for_each_joint(self.scale, poses)  # (N, J, 3)
            return whole_samples(scaled)
        # Scale the rotation: it has fewer numbers than the poses.
        rotation = self.rotation if self.scale is None else self.rotation / self.scale  # (N, 3, 3)
        return whole_samples(_rotate(stored_samples_last(poses) - self.origin, rotation))  # (N, J, 3)

    def denormalize(self, poses: Tensor) -> Tensor:
        """Transforms normalised poses, (N, J, 3), back to mm in the camera frame."""
        if self.rotation is None:
            relative = poses if self.scale is None else poses * _for_each_joint(self.scale, poses)  # (N, J, 3)
        else:
            rotation = self.rotation if self.scale is None else self.rotation * self.scale  # (N, 3, 3)
            relative = _rotate(poses, rotation.mT)  # (N, J, 3)
        return whole_samples(relative + _for_each_joint(self.origin, relative))  # (N, J, 3)

    def select(self, rows: slice) -> "PoseTransform":
        """Returns the transforms of some of the poses; a tensor shared by all poses is kept."""
        tensors = (self.origin, self.scale, self.rotation)
        origin, scale, rotation = (
            each if each is None or each.ndim < 3 or len(each) == 1 else each[rows] for each in tensors
        )
        assert origin is not None
        return PoseTransform(origin, scale, rotation)


def _for_each_joint(points: Tensor, poses: Tensor) -> Tensor:
    """Returns an origin or a scale in the shape that is combined with `poses`, (N, J, 3), in the shortest time."""
    are_points = points.ndim == 3 and points.shape[1:] == (1, 3)
    if not are_points or poses.device.type != "cpu" or not poses.is_contiguous() or torch.compiler.is_exporting():
        return points
    # A CPU broadcasts three numbers at a time. Repeating them for each joint first takes half as long, but not with
    # `repeat`, which broadcasts too.
    repeated = points.flatten(1).index_select(1, _coordinates(poses.shape[1]))  # (N or 1, 3J)
    return repeated.view(-1, *poses.shape[1:])  # (N or 1, J, 3)


# The cached tensor may be created in an evaluation and used in training, which refuses inference-mode tensors.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _coordinates(n_joints: int) -> Tensor:
    return torch.arange(3, device="cpu").repeat(n_joints)  # (3J,)


def _rotate(poses: Tensor, rotation: Tensor) -> Tensor:
    """Returns poses, (N, J, 3), as row vectors times `rotation`, (N, 3, 3): (N, J, 3)."""
    return samples_first(rotate(samples_last(poses), rotation.permute(1, 2, 0)))  # (N, J, 3)


class Normalizer(ABC):
    """The base class of normalizers. The constructor takes the skeleton first and its settings after `*`.

    Args:
        skeleton: The skeleton of the poses.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton

    def fit(self, poses: Iterable[Tensor]) -> None:  # noqa: B027 - most members learn nothing
        """Learns from the training inputs, given as chunks (n, J, 3), mm, on the trial's device."""

    @abstractmethod
    def transform(self, poses: Tensor) -> PoseTransform:
        """Computes the transforms of input poses (N, J, 3), mm."""

    def normalize(self, poses: Tensor) -> tuple[Tensor, PoseTransform]:
        """Returns normalised input poses, (N, J, 3), and their transforms; `poses` are in mm."""
        transform = self.transform(poses)
        return transform.normalize(poses), transform

    def learned(self) -> dict[str, list[float]]:
        """Returns the result of `fit` as plain numbers, for the trial's record."""
        return {}

    def restore(self, learned: Mapping[str, Sequence[float]]) -> None:  # noqa: B027 - most members learn nothing
        """Restores the result of `learned` instead of calling `fit`; the transforms are bitwise the same.

        Raises:
            KeyError: If a number is missing.
        """


class Shifter(Normalizer):
    """Moves the centre of the input pose, the mean of its joints, to the origin; lengths stay in mm."""

    def transform(self, poses: Tensor) -> PoseTransform:
        """Computes the transforms of input poses (N, J, 3), mm."""
        if poses.is_contiguous():
            # Transposing does not pay, and with the samples last the last bit would depend on the number of samples.
            return PoseTransform(origin=poses.mean(dim=1, keepdim=True))  # (N, 1, 3)
        centre = samples_last(poses).mean(dim=0, keepdim=True)  # (N, J, 3) -> (1, 3, N)
        return PoseTransform(origin=samples_first(centre))  # (1, 3, N) -> (N, 1, 3)


class GlobalNormalizer(Normalizer):
    """Standardises with the mean and standard deviation of all joints of the poses in the training set.

    These are its stored poses, or without `use_preset` its labels, before distorter and augmenters. All poses have the
    same transform, so the position of a hand in front of the camera is kept.

    Args:
        skeleton: The skeleton of the poses; any.
        individual_scaling: Divide x, y and z by separate standard deviations. By default all are divided by a common
            one, so that the hand keeps its shape.
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
        # Sum in float64, relative to the first joint: coordinates are far from zero compared with their spread.
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
        # A constant coordinate (a single flat sample) is only shifted.
        std = torch.where(std > 0, std, 1.0)
        self._transform = PoseTransform(origin=(pivot + shift).float().view(1, 1, 3), scale=std.float().view(1, 1, 3))

    def transform(self, poses: Tensor) -> PoseTransform:
        """Returns the same transform for all input poses (N, J, 3), mm."""
        if self._transform is None or self._transform.scale is None:
            raise RuntimeError("GlobalNormalizer.transform was called before fit")
        # A restored transform is on the CPU.
        return PoseTransform(self._transform.origin.to(poses.device), self._transform.scale.to(poses.device))

    def learned(self) -> dict[str, list[float]]:
        """Returns the mean and the standard deviation of x, y and z, mm."""
        transform = self.transform(torch.empty(0))
        assert transform.scale is not None
        return {"mean_mm": transform.origin.flatten().tolist(), "std_mm": transform.scale.flatten().tolist()}

    def restore(self, learned: Mapping[str, Sequence[float]]) -> None:
        """Restores the mean and the standard deviation from `learned`."""
        mean, std = (torch.tensor(learned[name], dtype=torch.float32) for name in ("mean_mm", "std_mm"))  # (3,) each
        self._transform = PoseTransform(origin=mean.view(1, 1, 3), scale=std.view(1, 1, 3))


class PalmNormalizer(Normalizer, ABC):
    """The base class of normalizers that rotate hands by their palms.

    Args:
        skeleton: The skeleton of the poses, with a palm.

    Raises:
        ValueError: If the skeleton has no palm.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__(skeleton)
        if skeleton.palm is None:
            raise ValueError(
                f"{type(self).__name__} needs a skeleton with a palm, but {skeleton.name} has none; add one: "
                "Skeleton(..., palm=Palm(base=(...), knuckles=(...))), both from data_pipeline.skeleton"
            )
        self._palm = skeleton.palm

    def normalize(self, poses: Tensor) -> tuple[Tensor, PoseTransform]:
        """Returns normalised input poses, (N, J, 3), and their transforms; `poses` are in mm."""
        return super().normalize(stored_samples_last(poses))  # both steps need this layout


class ViewpointNormalizer(PalmNormalizer):
    """Rotates each hand so that its palm faces the camera and its fingers point along x.

    The palm's normal becomes −z and the fingers' mean direction +x. The rotation is about the centre of the input pose,
    the mean of its joints; lengths stay in mm. The corrector thus does not see the viewpoint. `palm_rotation` defines
    normal and direction, and what happens if there are none; `Palm` says for which hands the back faces the camera.
    """

    def transform(self, poses: Tensor) -> PoseTransform:
        """Computes the transforms of input poses (N, J, 3), mm."""
        joints = samples_last(poses)  # (N, J, 3) -> (J, 3, N)
        centre = joints.mean(dim=0, keepdim=True)  # (1, 3, N)
        return PoseTransform(origin=samples_first(centre), rotation=palm_rotation(joints, self._palm))


class IndividualNormalizer(PalmNormalizer):
    """Uses the palm's centre as origin, the palm's axes, and the mean bone length as unit, for each hand.

    The origin is the mean of the palm's joints; the axes are those of `ViewpointNormalizer`. The input's mean bone
    length becomes 1, so the corrector does not see the size of the hand. A pose whose bones all have zero length keeps
    its lengths in mm.
    """

    def transform(self, poses: Tensor) -> PoseTransform:
        """Computes the transforms of input poses (N, J, 3), mm."""
        joints = samples_last(poses)  # (N, J, 3) -> (J, 3, N)
        origin = _select_joints(joints, self._palm.outline).mean(dim=0, keepdim=True)  # (J, 3, N) -> (1, 3, N)
        starts, ends = zip(*self.skeleton.bones, strict=True)
        bones = _select_joints(joints, ends) - _select_joints(joints, starts)  # (B, 3, N)
        # The square root has no finite gradient at zero.
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
"""A palm has axes if its length exceeds this fraction of the pose's extent, and its area this fraction of extent²."""


def palm_rotation(joints: Tensor, palm: Palm) -> Tensor:
    """Returns the rotations whose columns are the axes of the palm: x along the fingers, z opposite to the normal.

    The normal is the direction of the outline's vector area, the sum of the cross products of adjacent corners
    (Newell's method; Sutherland, Sproull and Schumacker, "A Characterization of Ten Hidden-Surface Algorithms", 1974).
    It uses all corners, which need not be coplanar. The fingers' mean direction points from the mean of the base to the
    mean of the knuckles, without its component along the normal. With y = z × x every rotation is proper.

    A palm that is a line or a point, or whose base and knuckles have the same mean, has no such axes. Its rotation is
    the identity, which keeps the camera's axes. `FLATNESS` defines what counts as a line.

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

    # The mean squared distance of the joints from their centre.
    extent = squared_lengths(joints - joints.mean(dim=0)).mean(dim=0)  # (J, 3, N) -> (J, N) -> (N,), mm²
    normal, has_normal = _unit_vectors(area, FLATNESS**2 * extent.square())
    across = direction - (direction * normal).sum(dim=0) * normal  # (3, N)
    along, has_direction = _unit_vectors(across, FLATNESS**2 * extent)
    y = cross_product(along, normal)  # (3, N), z × x
    # Orthogonalise again: what is left of a direction close to the normal is not exactly orthogonal to it.
    x = cross_product(normal, y)  # (3, N), y × z
    rotation = torch.stack([x, y, -normal])  # (3 axes, 3, N)
    identity = torch.eye(3, dtype=joints.dtype, device=joints.device).unsqueeze(2)  # (3, 3, 1)
    # `where` instead of a branch: it does not synchronise with the device, and the transform can be exported.
    chosen = torch.where(has_normal & has_direction, rotation, identity)  # (3 axes, 3, N)
    return chosen.permute(2, 1, 0)  # (N, 3, 3 axes)


def _unit_vectors(vectors: Tensor, shortest: Tensor) -> tuple[Tensor, Tensor]:
    """Normalises vectors (3, N) and returns which of them were longer than the root of `shortest`, (N,).

    The others become zero.
    """
    squared = squared_lengths(vectors)  # (N,)
    long = squared > shortest
    return vectors * torch.where(long, squared, torch.inf).rsqrt(), long


def _select_joints(joints: Tensor, numbers: Sequence[int]) -> Tensor:
    first, n = numbers[0], len(numbers)
    if tuple(numbers) == tuple(range(first, first + n)):
        return joints[first : first + n]  # (J, 3, N) -> (K, 3, N), without a copy
    # By slices: copying a tensor of indices to the device would synchronise with it.
    return torch.stack([joints[number] for number in numbers])  # (J, 3, N) -> (K, 3, N)
