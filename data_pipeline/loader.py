"""Training batches: gathered on the device, in a new random order for each epoch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_pipeline.augmenters import Augmenter
from data_pipeline.batch import Batch, DeviceDataset, Window, rows
from data_pipeline.distorters import Distorter, TrainingSamples
from data_pipeline.layout import stored_samples_last
from data_pipeline.normalizers import Normalizer


@dataclass(frozen=True)
class Generators:
    """A loader's sources of randomness, one for each purpose, so that an option does not change the draws of others.

    Attributes:
        order: For the order of samples and each batch's subset; on the CPU, so that it is the same on every device.
        distorting: For the distorter; on the data's device.
        augmenting: For the augmenters; on the data's device.
    """

    order: torch.Generator
    distorting: torch.Generator
    augmenting: torch.Generator


_SAMPLES_PER_GROUP_OF_A_CPU, _SAMPLES_PER_GROUP_OF_A_GPU = 2048, 4096
"""Batches are distorted, augmented and normalised in groups of about this many samples, or poses of their windows.

That takes about a hundred operations, whose cost on a small batch is mostly launch overhead, especially on a GPU. With
2048 samples a tensor has half a megabyte, so that an operation's inputs and outputs fit in a core's cache. The numbers
depend on it, because random numbers are drawn for a group.
"""


class TrainingLoader:
    """Batches of a training set: gathered, distorted, augmented and then normalised.

    Args:
        data: The training set, on the device.
        batch_size: Samples in a batch; the last one of an epoch may have fewer.
        distorter: Changes the inputs.
        augmenters: Change inputs and labels, in this order.
        normalizer: Normalises inputs and labels; None leaves mm in the camera frame.
        generators: The sources of randomness; the loader advances them.
        tables: The tables that the distorter reads, by file name, on the device; None if it reads none.
        window: The frames that the corrector sees; None for single frames. The distorter changes each frame of a window
            on its own; the augmenters change a window as a whole, about its centre.
        fused: Whether the corrector sees all subsets of each sample, in windows. The distorter changes each of their
            poses on its own; the augmenters change all of them as a whole.
    """

    def __init__(
        self,
        data: DeviceDataset,
        *,
        batch_size: int,
        distorter: Distorter,
        augmenters: Sequence[Augmenter],
        normalizer: Normalizer | None,
        generators: Generators,
        tables: Mapping[str, Tensor] | None = None,
        window: Window | None = None,
        fused: bool = False,
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.distorter = distorter
        self.augmenters = augmenters
        self.normalizer = normalizer
        self.generators = generators
        self.tables = tables or {}
        self.window = window
        self.fused = fused

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.data) // self.batch_size)

    def epoch(self) -> Iterator[Batch]:
        """Yields every sample once: of a subset that is drawn at random for each batch, or of all subsets together."""
        data, generators = self.data, self.generators
        order = torch.randperm(len(data), generator=generators.order).to(data.labels.device)  # (N,)
        # The subsets of the whole epoch are drawn together: a draw for each batch would synchronise with the GPU.
        subsets = torch.randint(len(data.subsets), (len(self),), generator=generators.order).tolist()
        n_poses = (1 if self.window is None else self.window.size) * (len(data.subsets) if self.fused else 1)
        is_cpu = data.labels.device.type == "cpu"
        per_group = _SAMPLES_PER_GROUP_OF_A_CPU if is_cpu else _SAMPLES_PER_GROUP_OF_A_GPU
        group_size = max(1, per_group // (self.batch_size * n_poses))  # batches
        for first in range(0, len(self), group_size):
            group = subsets[first : first + group_size]
            indices = order[first * self.batch_size : (first + len(group)) * self.batch_size]  # (n,)
            yield from self._prepare(indices, group).split(self.batch_size)

    def _prepare(self, indices: Tensor, subsets: Sequence[int]) -> Batch:
        """Returns the samples `indices`, (n,), of one or more batches; `subsets` has the subset of each batch."""
        data, generators, window = self.data, self.generators, self.window
        batch_size = self.batch_size
        n_samples = len(indices)
        if window is not None:
            indices = data.window_rows(indices, window).flatten()  # (n,) -> (n·W,)
            batch_size *= window.size
        if self.fused:
            poses = torch.cat([rows(data.poses[subset], indices) for subset in data.subsets])  # (S·n·W, J, 3)
            indices = indices.repeat(len(data.subsets))  # (n·W,) -> (S·n·W,)
        else:
            of_subsets = [data.poses[data.subsets[subset]] for subset in subsets]  # (N, J, 3) each
            of_batches = torch.split(indices, batch_size)
            poses = torch.cat([rows(*each) for each in zip(of_subsets, of_batches, strict=True)])  # (n·W, J, 3)
        labels = rows(data.labels, indices)  # the shape of `poses`
        if self.distorter.wants_samples_last:
            # Converted here and not in the distorter, so that the following steps find the labels in this layout too.
            poses, labels = stored_samples_last(poses), stored_samples_last(labels)
        samples = TrainingSamples(poses, labels, indices, data.skeleton, self.tables)
        poses = self.distorter(samples, generators.distorting)
        n_views = len(data.subsets) if self.fused else 1  # S
        if window is not None:
            # To an augmenter, the joints of a window, or of those of all subsets, are those of one large hand.
            poses, labels = (
                each.reshape(n_views, n_samples, -1, 3).transpose(0, 1).flatten(1, 2) for each in (poses, labels)
            )  # (S·n·W, J, 3) -> (n, S·W·J, 3) each
        for augmenter in self.augmenters:
            poses, labels = augmenter(poses, labels, data.skeleton, generators.augmenting)
        if window is None:
            return Batch.of(poses, labels, self.normalizer)
        windows, labels = (
            each.reshape(n_samples, n_views, window.size, -1, 3) for each in (poses, labels)
        )  # (n, S·W·J, 3) -> (n, S, W, J, 3) each
        return Batch.of_windows(windows, labels[:, 0, window.before], self.normalizer, window, fused=self.fused)

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of the generators, for a checkpoint at the end of an epoch."""
        return {name: generator.get_state() for name, generator in vars(self.generators).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state_dict`."""
        for name, generator in vars(self.generators).items():
            generator.set_state(state[name])
