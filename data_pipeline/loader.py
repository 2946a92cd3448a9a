"""Training batches: gathered on the device, in an order drawn anew for each epoch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_pipeline.augmenters import Augmenter
from data_pipeline.batch import Batch, DeviceDataset
from data_pipeline.distorters import Distorter, TrainingSamples
from data_pipeline.layout import stored_samples_last
from data_pipeline.normalizers import Normalizer


@dataclass(frozen=True)
class Generators:
    """Where a loader's randomness comes from, each on its own, so that one option leaves the others' draws alone.

    Attributes:
        order: The order of samples and each batch's subset; on the CPU, so that it is the same on every device.
        distorting: For the distorter; on the data's device.
        augmenting: For the augmenters; on the data's device.
    """

    order: torch.Generator
    distorting: torch.Generator
    augmenting: torch.Generator


_SAMPLES_AT_ONCE = 4096
"""Batches are distorted, augmented and normalised as many together as have about so many samples.

It is some hundred operations, of which each costs on a small batch little more than to start it, above all on a GPU.
At so many samples one of their tensors is a MB and still stays in a core's cache; with more of them it does not.
"""


class TrainingLoader:
    """Batches of a training set: gathered, distorted, augmented and then normalised.

    Args:
        data: The training set, on the device.
        batch_size: Samples in a batch; the last one of an epoch may have fewer.
        distorter: Changes the inputs.
        augmenters: Change inputs and labels, in this order.
        normalizer: Gives the frames; None leaves mm in the camera frame.
        generators: The sources of randomness; the loader advances them.
        tables: The tables that the distorter reads, by the names of their files, on the device; None where it reads
            none.
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
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.distorter = distorter
        self.augmenters = augmenters
        self.normalizer = normalizer
        self.generators = generators
        self.tables = tables or {}

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.data) // self.batch_size)

    def epoch(self) -> Iterator[Batch]:
        """Yields every sample once; with several subsets each batch comes from one drawn for it."""
        data, generators = self.data, self.generators
        order = torch.randperm(len(data), generator=generators.order).to(data.labels.device)  # (N,)
        # All subsets of the epoch are drawn at once: on a GPU a draw for each batch would wait for it.
        subsets = torch.randint(len(data.subsets), (len(self),), generator=generators.order).tolist()
        at_once = max(1, _SAMPLES_AT_ONCE // self.batch_size)  # batches
        for first in range(0, len(self), at_once):
            some = subsets[first : first + at_once]
            indices = order[first * self.batch_size : (first + len(some)) * self.batch_size]  # (n,)
            yield from self._prepared(indices, some).split(self.batch_size)

    def _prepared(self, indices: Tensor, subsets: Sequence[int]) -> Batch:
        """Returns the samples `indices`, (n,), of one batch or several, of which `subsets` has the subset of each."""
        data, generators = self.data, self.generators
        gathered = [
            data.gather(data.subsets[subset], some)
            for subset, some in zip(subsets, torch.split(indices, self.batch_size), strict=True)
        ]
        poses, labels = (torch.cat(parts) for parts in zip(*gathered, strict=True))  # (n, J, 3) each
        if self.distorter.wants_samples_last:
            # Here and not there, so that whoever comes next finds the labels so too.
            poses, labels = stored_samples_last(poses), stored_samples_last(labels)
        samples = TrainingSamples(poses, labels, indices, data.skeleton, self.tables)
        poses = self.distorter(samples, generators.distorting)
        for augmenter in self.augmenters:
            poses, labels = augmenter(poses, labels, generators.augmenting)
        return Batch.of(poses, labels, self.normalizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of the generators, for a checkpoint at an epoch's end."""
        return {name: generator.get_state() for name, generator in vars(self.generators).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        for name, generator in vars(self.generators).items():
            generator.set_state(state[name])
