"""The base classes of correctors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.batch import Window, fused_mean
from data_pipeline.skeleton import Skeleton

STRENGTH = "chosen_strength"
"""The name of a corrector's strength among its weights."""


class Corrector(nn.Module, ABC):
    """An additive corrector: its output is the input pose plus a correction.

    The constructor takes the skeleton first and its settings after `*`; these are the keys of `model_args`.

    Args:
        skeleton: The skeleton of the poses.

    Attributes:
        chosen_strength: A factor on the correction in evaluation mode, a scalar; None for 1.
        window: The frames that it sees; None for single frames. With a window, inputs are (N, W, J, 3).
    """

    chosen_strength: Tensor | None
    window: Window | None = None

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        self.skeleton = skeleton
        self.register_buffer(STRENGTH, None)

    def add_strength(self) -> None:
        """Adds a strength to the weights. It starts at 1, and the solver chooses it at each evaluation."""
        self.chosen_strength = torch.ones(())

    @abstractmethod
    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""

    def forward(self, poses: Tensor) -> Tensor:
        """Returns the corrected poses, (N, J, 3), in the space of `poses`."""
        return self.corrected_frame(poses) + self.scaled_correction(poses)

    def corrected_frame(self, poses: Tensor) -> Tensor:
        """Returns the poses that are corrected, (N, J, 3): the inputs, or one frame of each window, (N, W, J, 3)."""
        return poses if self.window is None else poses[:, self.window.before]

    def scaled_correction(self, poses: Tensor) -> Tensor:
        """Returns the correction times the strength, (N, J, 3)."""
        correction = self.correction(poses)  # (N, J, 3)
        if self.chosen_strength is not None and not self.training:
            correction = self.chosen_strength * correction
        return correction


class TemporalCorrector(Corrector):
    """A corrector that sees a window of successive frames, and corrects one of them.

    Args:
        skeleton: The skeleton of the poses.
        window: The frames that it sees.
    """

    window: Window

    def __init__(self, skeleton: Skeleton, window: Window) -> None:
        super().__init__(skeleton)
        self.window = window


class FusingCorrector(TemporalCorrector):
    """A corrector that sees the poses of all subsets of a dataset, those of S backbones, and returns one pose.

    What it corrects is the mean pose over the subsets. It may see a window of successive frames, or the frame alone.

    Args:
        skeleton: The skeleton of the poses.
        window: The frames that it sees.

    Attributes:
        n_subsets: S, if the weights depend on it; None for any number of at least 2.
    """

    fuses_subsets = True
    n_subsets: int | None = None

    @abstractmethod
    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to the mean poses, (N, J, 3), of windows `poses`, (N, S, W, J, 3)."""

    def corrected_frame(self, windows: Tensor) -> Tensor:
        """Returns the mean pose of each corrected frame, (N, J, 3), of windows, (N, S, W, J, 3)."""
        return fused_mean(windows, self.window)


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


class FixedCorrector(ClosedFormCorrector):
    """A corrector without anything to train."""

    def add(self, poses: Tensor, labels: Tensor) -> None:
        """Does nothing, since nothing is fitted."""

    def fit(self) -> None:
        """Does nothing, since nothing is fitted."""

    def sums(self) -> dict[str, Any]:
        """Returns nothing, since nothing is fitted."""
        return {}

    def load_sums(self, sums: Mapping[str, Any]) -> None:
        """Does nothing, since nothing is fitted."""
