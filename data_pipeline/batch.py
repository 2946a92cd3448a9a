"""What a corrector is given at once, and the datasets on the device that it is taken from."""

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor

from data_pipeline.layout import whole_samples
from data_pipeline.normalizers import Normalizer, PoseTransform
from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.skeleton import Skeleton


@dataclass(frozen=True)
class Batch:
    """N samples as the corrector works on them.

    Attributes:
        poses: Inputs, (N, J, 3), normalised.
        labels_mm: Labels, (N, J, 3), mm, camera frame.
        frame: The frames that the inputs were normalised by; None where they are in mm themselves.
        sliced_from: The larger batch that this one is a part of, and which of its rows.
    """

    poses: Tensor
    labels_mm: Tensor
    transform: PoseTransform | None
    sliced_from: "tuple[Batch, slice] | None" = None

    @classmethod
    def of(cls, poses: Tensor, labels: Tensor, normalizer: Normalizer | None) -> "Batch":
        """Normalises inputs; both (N, J, 3), mm."""
        if normalizer is None:
            return cls(whole_samples(poses), whole_samples(labels), None)
        normalized, transform = normalizer.normalize(poses)
        return cls(normalized, labels, transform)

    def split(self, size: int) -> Iterator["Batch"]:
        """Yields batches of `size` samples, in order; the last one may have fewer. They share this one's memory."""
        for start in range(0, len(self.poses), size):
            rows = slice(start, start + size)
            transform = None if self.transform is None else self.transform.select(rows)
            # Detached, since a view that a model writes to would bring its gradients into the batches that follow.
            yield Batch(self.poses[rows].detach(), self.labels_mm[rows].detach(), transform, (self, rows))

    @cached_property
    def labels(self) -> Tensor:
        """The labels, (N, J, 3), normalised by the frames of their inputs."""
        if self.transform is None:
            return self.labels_mm
        if self.sliced_from is None:
            return self.transform.normalize(self.labels_mm)
        whole, rows = self.sliced_from
        return whole.labels[rows].detach()

    def in_mm(self, poses: Tensor) -> Tensor:
        """Brings poses of this batch's space, (N, J, 3), to mm in the camera frame."""
        return poses if self.transform is None else self.transform.denormalize(poses)


@dataclass(frozen=True)
class DeviceDataset:
    """A `PoseDataset` as tensors on the device that trains on it.

    On the CPU the tensors share the dataset's memory, which other trials read at the same time, and torch would
    write through them without an error. So nobody is handed one of them: `gather` and `chunks` copy.

    Attributes:
        labels: (N, J, 3), mm.
        poses: Of each subset, (N, J, 3), mm.
        skeleton: The skeleton with J joints.
    """

    labels: Tensor
    poses: Mapping[str, Tensor]
    skeleton: Skeleton

    @classmethod
    def of(cls, dataset: PoseDataset, device: torch.device) -> "DeviceDataset":
        """Brings a dataset to `device`."""
        poses = {subset: on_device(array, device) for subset, array in dataset.poses.items()}
        return cls(on_device(dataset.labels, device), poses, dataset.skeleton)

    @property
    def subsets(self) -> tuple[str, ...]:
        """The names of the subsets, in the order of the file."""
        return tuple(self.poses)

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, subset: str, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns copies of the poses and labels, (n, J, 3) each, of the samples `indices`, (n,)."""
        return rows(self.poses[subset], indices), rows(self.labels, indices)

    def chunks(self, subset: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields copies of all poses and labels, (n, J, 3) each, in order, `size` samples at a time."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield self.poses[subset][rows].clone(), self.labels[rows].clone()


Data = TypeVar("Data")
OnDevice = TypeVar("OnDevice")


def dataset_identity(dataset: PoseDataset) -> Hashable:
    """Returns what tells a dataset from others; its fingerprint tells neither the subsets' order nor the skeleton."""
    return dataset.fingerprint, tuple(dataset.poses), dataset.skeleton


class DeviceCache(Generic[Data, OnDevice]):
    """Data on its device, kept by a process for the next trials that it trains on the same.

    Args:
        bring: Brings data to a device.
        identity: Returns what tells data from others: all of it that `bring` takes along.
    """

    def __init__(self, bring: Callable[[Data, torch.device], OnDevice], identity: Callable[[Data], Hashable]) -> None:
        self._bring = bring
        self._identity = identity
        self._kept: dict[tuple[Hashable, torch.device], OnDevice] = {}

    def get(self, data: Mapping[str, Data], device: torch.device) -> dict[str, OnDevice]:
        """Returns data on `device` by the names that it has in `data`.

        What of the call before is not among it is let go first, so that no two calls' data take memory.
        """
        keys = {name: (self._identity(one), device) for name, one in data.items()}
        self._kept = {key: brought for key, brought in self._kept.items() if key in keys.values()}
        for name, key in keys.items():
            if key not in self._kept:
                self._kept[key] = self._bring(data[name], device)
        return {name: self._kept[key] for name, key in keys.items()}


def rows(tensor: Tensor, indices: Tensor) -> Tensor:
    """Returns copies of the rows `indices`, (n,), of a tensor (N, J, 3): (n, J, 3)."""
    # Rows of 3·J numbers are gathered faster than rows of J rows of 3.
    return tensor.flatten(1).index_select(0, indices).view(-1, *tensor.shape[1:])  # (n, J, 3)


_PINNED_SAMPLES = 65_536  # some 16 MB, so that a large set needs no second place in memory that cannot be swapped


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Returns an array as a tensor on a device; on the CPU it shares the array's memory, to which nobody writes."""
    with warnings.catch_warnings():
        # That the array is read-only is known; see the class on who may touch the tensor.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        here = torch.from_numpy(array)
    if device.type == "cpu":
        return here
    there = torch.empty_like(here, device=device)
    for start in range(0, len(here), _PINNED_SAMPLES):
        rows = slice(start, start + _PINNED_SAMPLES)
        # The copy of one part goes on while the next one is pinned.
        there[rows].copy_(here[rows].pin_memory(), non_blocking=True)
    return there
