"""The base classes of correctors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from data_pipeline.skeleton import Skeleton


class Corrector(nn.Module, ABC):
    """An additive corrector: its output is the input pose plus a correction.

    The constructor takes the skeleton first and its settings after `*`; these are the keys of `model_args`.

    Args:
        skeleton: The skeleton of the poses.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        self.skeleton = skeleton

    @abstractmethod
    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""

    def forward(self, poses: Tensor) -> Tensor:
        """Returns the corrected poses, (N, J, 3), in the space of `poses`."""
        return poses + self.correction(poses)


class ClosedFormCorrector(Corrector):
    """A corrector that is fitted without gradients, from sums over the training samples.

    In each epoch, the solver calls `add` with every batch, and `fit` after the last one.
    """

    @abstractmethod
    def add(self, poses: Tensor, labels: Tensor) -> None:
        """Adds the samples of a batch to the sums; poses and labels are (N, J, 3), in the same space."""

    @abstractmethod
    def fit(self) -> None:
        """Fits the weights to the samples of all epochs so far."""

    @abstractmethod
    def sums(self) -> dict[str, Any]:
        """Returns what the next epoch needs in addition to the weights, for a checkpoint between two epochs."""

    @abstractmethod
    def load_sums(self, sums: Mapping[str, Any]) -> None:
        """Continues from the result of `sums`; the weights are loaded separately."""
