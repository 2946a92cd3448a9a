"""The base class of distorters and the samples they receive.

Distorters are used where real predictions of a backbone are rare or missing.
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
    """N samples of a training set whose inputs are to be distorted. Nobody writes to the tensors.

    Attributes:
        poses: Inputs, (N, J, 3), mm; in memory with the samples last where the distorter wants them so.
        labels: Labels, (N, J, 3), mm; likewise.
        indices: The samples' places in the training set, (N,).
        skeleton: The skeleton with J joints.
        tables: The tables that the distorter reads, by the names of their files, on the device of `poses`.
    """

    poses: Tensor
    labels: Tensor
    indices: Tensor
    skeleton: Skeleton
    tables: Mapping[str, Tensor]


class Distorter(ABC):
    """The base of the family. Members are frozen dataclasses, so that they compare and print by value."""

    @property
    def makes_input(self) -> bool:
        """Whether the distorter can make an input out of a label, for training without a backbone."""
        return True

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the files below the data folder that it reads, see `data_pipeline.tables`."""
        return ()

    @property
    def wants_samples_last(self) -> bool:
        """Whether it computes with the joints of poses and labels, see `data_pipeline.layout`."""
        return False

    def check(self, skeleton: Skeleton, tables: Mapping[str, Table], labels: Array) -> None:  # noqa: B027 - most fit all
        """Makes sure that the distorter can be used with a training set.

        Args:
            skeleton: The skeleton of the training set.
            tables: The tables that it reads, by the names of their files.
            labels: The labels of the training set, (N, J, 3), mm.

        Raises:
            ValueError: If it makes no sense for them.
        """

    @abstractmethod
    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the distorted inputs, (N, J, 3), mm.

        Args:
            samples: What is to be distorted.
            generator: All randomness comes from here; on the device of the samples.
        """


def check_joints(file: str, table: Table, skeleton: Skeleton) -> None:
    """Makes sure that a table of vectors of joints, (..., J, 3), has the joints of a skeleton.

    Raises:
        ValueError: If it has others.
    """
    n_joints = table.array.shape[1]
    if n_joints != skeleton.n_joints:
        raise ValueError(
            f"{file} is of hands with {n_joints} joints; the training set has the {skeleton.name} skeleton of "
            f"{skeleton.n_joints}"
        )
