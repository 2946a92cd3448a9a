"""Batches of samples for a corrector, and the datasets on the device that they are taken from."""

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable
from data_pipeline.layout import whole_samples
from data_pipeline.normalizers import Normalizer, PoseTransform
from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.skeleton import Skeleton


@dataclass(frozen=True)
class Window:
    """The frames that a corrector sees together: the one that it corrects, and its neighbours in time.

    A window never leaves a run of successive frames: beyond its ends the first or last frame is repeated.

    Attributes:
        before: The number of frames before the corrected one.
        after: The number of frames after it; 0 for a causal window.
        distant: Further frames, by their distance from the corrected one; negative for earlier ones. In a window they
            follow the others.
    """

    before: int
    after: int
    distant: range = range(0)

    @property
    def n_near(self) -> int:
        """The number of frames that are not distant."""
        return self.before + 1 + self.after

    @property
    def size(self) -> int:
        """W, the number of frames in a window."""
        return self.n_near + len(self.distant)

    @property
    def first(self) -> int:
        """The distance of the earliest frame from the corrected one, at most 0."""
        return min(chain([-self.before], self.distant))

    @property
    def last(self) -> int:
        """The distance of the latest frame from the corrected one, at least 0."""
        return max(chain([self.after], self.distant))

    def neighbours(self, rows: Tensor) -> Tensor:
        """Returns the rows around each of `rows`, (n,), also those beyond its run: (n, W)."""
        # Made on the device: a copy of a list would synchronise with a GPU.
        distances = torch.arange(-self.before, self.after + 1, device=rows.device)
        if self.distant:
            distant = torch.arange(self.distant.start, self.distant.stop, self.distant.step, device=rows.device)
            distances = torch.cat([distances, distant])  # (W,)
        return rows[:, None] + distances

    def of_run(self, poses: Tensor) -> Tensor:
        """Returns the windows of one run of frames, (N, ..., 3): (N, W, ..., 3)."""
        n = poses.shape[0]  # `len` would fix the number of frames of an exported corrector
        rows = self.neighbours(torch.arange(n, device=poses.device))  # (N, W)
        return poses[rows.clamp(0, n - 1)]


def window_of(model: torch.nn.Module) -> Window | None:
    """Returns the window that a corrector sees; None if it sees single frames."""
    window = getattr(model, "window", None)
    return window if isinstance(window, Window) else None


def fuses(model: torch.nn.Module | type[torch.nn.Module]) -> bool:
    """Returns whether a corrector sees the poses of all subsets of a frame, and returns one pose for them."""
    return getattr(model, "fuses_subsets", False) is True


@dataclass(frozen=True)
class Batch:
    """N samples, with inputs in the corrector's space.

    Attributes:
        poses: The poses to correct, (N, J, 3), normalised.
        labels_mm: Labels, (N, J, 3), mm, camera frame.
        transform: The transforms that normalised the inputs; None if the inputs are in mm.
        windows: The frames around each pose, (N, W, J, 3), normalised like it; those of S subsets, (N, S, W, J, 3), for
            a corrector that fuses them; None for a corrector of single frames.
        sliced_from: The larger batch that this one is a slice of, and its rows there.
    """

    poses: Tensor
    labels_mm: Tensor
    transform: PoseTransform | None
    windows: Tensor | None = None
    sliced_from: "tuple[Batch, slice] | None" = None

    @classmethod
    def of(cls, poses: Tensor, labels: Tensor, normalizer: Normalizer | None, windows: Tensor | None = None) -> "Batch":
        """Normalises inputs.

        Args:
            poses: The poses to correct, (N, J, 3), mm.
            labels: Their labels, (N, J, 3), mm.
            normalizer: The normalizer; None for none.
            windows: The frames around each pose, (N, W, J, 3) or (N, S, W, J, 3), mm; None for a corrector of single
                frames.
        """
        if normalizer is None:
            return cls(whole_samples(poses), whole_samples(labels), None, windows)
        normalized, transform = normalizer.normalize(poses)
        if windows is not None:
            windows = normalized_windows(windows, transform)
        return cls(normalized, labels, transform, windows)

    @classmethod
    def of_windows(
        cls, windows: Tensor, labels: Tensor, normalizer: Normalizer | None, window: Window, *, fused: bool
    ) -> "Batch":
        """Normalises inputs of a corrector over time. The poses to correct are the means over the subsets.

        Args:
            windows: The frames around each pose of each of S subsets, (N, S, W, J, 3), mm.
            labels: The labels of the poses to correct, (N, J, 3), mm.
            normalizer: The normalizer; None for none.
            window: The frames that the corrector sees.
            fused: Whether the corrector fuses subsets; otherwise S is 1, and it sees windows (N, W, J, 3).
        """
        poses = fused_mean(windows, window)  # (N, J, 3)
        return cls.of(poses, labels, normalizer, windows if fused else windows.squeeze(1))

    @property
    def inputs(self) -> Tensor:
        """What the corrector sees: the poses, (N, J, 3), or the windows, (N, W, J, 3) or (N, S, W, J, 3)."""
        return self.poses if self.windows is None else self.windows

    def split(self, size: int) -> Iterator["Batch"]:
        """Yields batches of `size` samples, in order; the last one may have fewer. They share this batch's memory."""
        for start in range(0, len(self.poses), size):
            rows = slice(start, start + size)
            transform = None if self.transform is None else self.transform.select(rows)
            # Detached: if a model writes to a view, its gradients must not reach the following batches.
            windows = None if self.windows is None else self.windows[rows].detach()
            yield Batch(self.poses[rows].detach(), self.labels_mm[rows].detach(), transform, windows, (self, rows))

    @cached_property
    def labels(self) -> Tensor:
        """The labels, (N, J, 3), normalised by the transforms of their inputs."""
        if self.transform is None:
            return self.labels_mm
        if self.sliced_from is None:
            return self.transform.normalize(self.labels_mm)
        whole, rows = self.sliced_from
        return whole.labels[rows].detach()

    def in_mm(self, poses: Tensor) -> Tensor:
        """Converts poses, (N, J, 3), from this batch's space to mm in the camera frame."""
        return poses if self.transform is None else self.transform.denormalize(poses)


@dataclass(frozen=True)
class DeviceDataset:
    """A `PoseDataset` as tensors on the training device.

    On the CPU the tensors share the dataset's memory, which other trials read at the same time, and torch would write
    to it without an error. Therefore `gather` and `chunks` return copies.

    Attributes:
        labels: (N, J, 3), mm.
        poses: The inputs of each subset, (N, J, 3), mm.
        skeleton: The skeleton with J joints.
        frames: The sequence and index of each frame, as far as they are known.
        runs: The first and the last row of the run of successive frames that each sample is in, (2, N); None if all
            samples are one run.
    """

    labels: Tensor
    poses: Mapping[str, Tensor]
    skeleton: Skeleton
    frames: FrameTable = UNKNOWN_FRAMES
    runs: Tensor | None = None

    @classmethod
    def of(cls, dataset: PoseDataset, device: torch.device) -> "DeviceDataset":
        """Copies a dataset to `device`; on the CPU it shares the memory."""
        poses = {subset: on_device(array, device) for subset, array in dataset.poses.items()}
        starts = dataset.frames.run_starts(len(dataset))  # (N,)
        runs = None if starts.sum() == 1 else torch.from_numpy(_runs(starts)).to(device)
        return cls(on_device(dataset.labels, device), poses, dataset.skeleton, dataset.frames, runs)

    @property
    def subsets(self) -> tuple[str, ...]:
        """The names of the subsets, in file order."""
        return tuple(self.poses)

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, subset: str, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns copies of the poses and labels, (n, J, 3) each, of the samples `indices`, (n,)."""
        return rows(self.poses[subset], indices), rows(self.labels, indices)

    def window_rows(self, indices: Tensor, window: Window) -> Tensor:
        """Returns the samples in the window of each of the samples `indices`, (n,): (n, W)."""
        neighbours = window.neighbours(indices)  # (n, W)
        if self.runs is None:
            return neighbours.clamp(0, len(self) - 1)
        first, last = self.runs[:, indices, None]  # (n, 1) each
        return neighbours.clamp(first, last)

    def chunks(self, subset: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields copies of all poses and labels, (n, J, 3) each, in order, in chunks of `size` samples."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield self.poses[subset][rows].clone(), self.labels[rows].clone()


def _runs(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Returns the first and the last row of each sample's run, (2, N), from where runs start, (N,)."""
    run = np.cumsum(starts) - 1  # (N,)
    first = np.flatnonzero(starts)  # (R,)
    last = np.append(first[1:], len(starts)) - 1  # (R,)
    return np.stack([first[run], last[run]])


Data = TypeVar("Data")
OnDevice = TypeVar("OnDevice")


def dataset_identity(dataset: PoseDataset) -> Hashable:
    """Returns what identifies a dataset; the fingerprint alone does not cover subset order and skeleton."""
    return dataset.fingerprint, tuple(dataset.poses), dataset.skeleton


class DeviceCache(Generic[Data, OnDevice]):
    """A process's cache of data on a device, for the next trials with the same data.

    Args:
        load: Copies data to a device.
        identity: Returns what identifies data; it must cover everything that `load` uses.
    """

    def __init__(self, load: Callable[[Data, torch.device], OnDevice], identity: Callable[[Data], Hashable]) -> None:
        self._load = load
        self._identity = identity
        self._cached: dict[tuple[Hashable, torch.device], OnDevice] = {}

    def get(self, data: Mapping[str, Data], device: torch.device) -> dict[str, OnDevice]:
        """Returns `data` on `device`, under the same names.

        First drops everything from the previous call that is not in `data`, so that the data of two calls never take
        memory together.
        """
        keys = {name: (self._identity(one), device) for name, one in data.items()}
        self._cached = {key: value for key, value in self._cached.items() if key in keys.values()}
        for name, key in keys.items():
            if key not in self._cached:
                self._cached[key] = self._load(data[name], device)
        return {name: self._cached[key] for name, key in keys.items()}


def rows(tensor: Tensor, indices: Tensor) -> Tensor:
    """Returns copies of the rows `indices`, (n,), of a tensor (N, J, 3): (n, J, 3)."""
    # Gathering rows of 3·J numbers is faster than gathering J×3 blocks.
    return tensor.flatten(1).index_select(0, indices).view(-1, *tensor.shape[1:])  # (n, J, 3)


def fused_mean(windows: Tensor, window: Window) -> Tensor:
    """Returns the mean over the S subsets of the corrected frame of windows, (N, S, W, J, 3): (N, J, 3)."""
    return windows[:, :, window.before].mean(dim=1)


def normalized_windows(windows: Tensor, transform: PoseTransform) -> Tensor:
    """Returns windows, (N, ..., J, 3), mm, in the coordinates of the poses that they are around, (N, ..., J, 3)."""
    # To a transform, the joints of a window are those of one large pose.
    return transform.normalize(windows.flatten(1, -2)).view(windows.shape)  # (N, W, J, 3) -> (N, W·J, 3) -> back


_PINNED_SAMPLES = 65_536  # about 16 MB: a large set must not be duplicated in page-locked memory


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Returns an array as a tensor on a device; on the CPU it shares the array's memory and must not be written to."""
    with warnings.catch_warnings():
        # The array is read-only on purpose; `DeviceDataset` protects the tensor.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        host = torch.from_numpy(array)
    if device.type == "cpu":
        return host
    copied = torch.empty_like(host, device=device)
    for start in range(0, len(host), _PINNED_SAMPLES):
        rows = slice(start, start + _PINNED_SAMPLES)
        # One chunk is copied while the next one is pinned.
        copied[rows].copy_(host[rows].pin_memory(), non_blocking=True)
    return copied
