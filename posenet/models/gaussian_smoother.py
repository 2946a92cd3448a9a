"""Smoothing over time, without training."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data_pipeline.batch import Window
from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import ClosedFormCorrector, TemporalCorrector
from posenet.models.layers import check_positive

_REACH = 3  # standard deviations; the weights beyond are below 1 % of the largest


class GaussianSmoother(TemporalCorrector, ClosedFormCorrector):
    """Replaces each joint by a weighted mean of its positions in neighbouring frames; nothing is trained.

    The weight of a frame at the distance d is proportional to exp(−d² / (2 · sigma²)).

    Args:
        skeleton: The skeleton of the poses; any.
        sigma: The width of the kernel in frames.
        causal: See only the frame itself and those before it.
    """

    def __init__(self, skeleton: Skeleton, *, sigma: float, causal: bool = False) -> None:
        check_positive("sigma", sigma)
        reach = math.ceil(_REACH * sigma)
        super().__init__(skeleton, Window(reach, 0 if causal else reach))
        self.sigma = sigma
        self.causal = causal
        distances = torch.arange(-self.window.before, self.window.after + 1, dtype=torch.float32)  # (W,)
        weights = (distances.square() / (-2 * sigma**2)).exp()
        self.register_buffer("weights", weights / weights.sum())

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the smoothed poses minus the poses, (N, J, 3), of windows, (N, W, J, 3)."""
        # Relative to the corrected frame, since large coordinates would be rounded more.
        relative = poses - self.corrected_frame(poses).unsqueeze(1)  # (N, W, J, 3)
        smoothed: Tensor = (relative * self.get_buffer("weights").view(-1, 1, 1)).sum(dim=1)  # (N, J, 3)
        return smoothed

    def add(self, poses: Tensor, labels: Tensor) -> None:
        """Does nothing, since nothing is fitted."""

    def fit(self) -> None:
        """Does nothing, since nothing is fitted."""

    def sums(self) -> dict[str, Any]:
        """Returns nothing, since nothing is fitted."""
        return {}

    def load_sums(self, sums: Mapping[str, Any]) -> None:
        """Does nothing, since nothing is fitted."""
