"""The base class of distorters and the samples they receive.

Distorters are used when real predictions of a backbone are rare or missing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton
from data_pipeline.tables import Table


@dataclass(frozen=True, slots=True)
class TrainingSamples:
    """N samples of a training set whose inputs are to be distorted. Never write to the tensors.

    Attributes:
        poses: Inputs, (N, J, 3), mm; stored with the samples last if the distorter wants that.
        labels: Labels, (N, J, 3), mm; likewise.
        indices: The indices of the samples in the training set, (N,).
        skeleton: The skeleton with J joints.
        tables: The tables that the distorter reads, by file name, on the device of `poses`.
    """

    poses: Tensor
    labels: Tensor
    indices: Tensor
    skeleton: Skeleton
    tables: Mapping[str, Tensor]


class Distorter(ABC):
    """The base class of distorters. They are frozen dataclasses, so they compare and print by value."""

    @property
    def makes_input(self) -> bool:
        """Whether the distorter can turn a label into an input, for training without a backbone."""
        return True

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the files in the data folder that it reads, see `data_pipeline.tables`."""
        return ()

    @property
    def wants_samples_last(self) -> bool:
        """Whether poses and labels should be stored with the samples last, see `data_pipeline.layout`."""
        return False

    def check(self, skeleton: Skeleton, tables: Mapping[str, Table], labels: Array) -> None:  # noqa: B027 - most fit all
        """Checks that the distorter can be used with a training set.

        Args:
            skeleton: The skeleton of the training set.
            tables: The tables that it reads, by file name.
            labels: The labels of the training set, (N, J, 3), mm.

        Raises:
            ValueError: If it does not fit them.
        """

    @abstractmethod
    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the distorted inputs, (N, J, 3), mm.

        Args:
            samples: The samples to distort.
            generator: The only source of randomness; on the device of the samples.
        """


def check_joints(file: str, table: Table, skeleton: Skeleton) -> None:
    """Raises a `ValueError` if a table of joint vectors, (..., J, 3), does not have the joints of a skeleton."""
    n_joints = table.array.shape[1]
    if n_joints != skeleton.n_joints:
        raise ValueError(
            f"{file} is for hands with {n_joints} joints, but the training set has the {skeleton.name} skeleton with "
            f"{skeleton.n_joints}"
        )
