"""The base class of correctors."""

from abc import ABC, abstractmethod

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
