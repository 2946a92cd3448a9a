"""Smoothing over time, without training."""

import math

import torch
from torch import Tensor

from data_pipeline.batch import Window
from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import FixedCorrector, TemporalCorrector
from posenet.models.layers import check_positive

_REACH = 3  # standard deviations; the weights beyond are below 1 % of the largest


class GaussianSmoother(TemporalCorrector, FixedCorrector):
    """Replaces each joint by a weighted mean of its positions in neighbouring frames; nothing is trained.

    The weight of a frame at the distance d is proportional to exp(−d² / (2 · sigma²)).

    Args:
        skeleton: The skeleton of the poses; any.
        sigma: The width of the kernel in frames.
        causal: See only the frame itself and those before it.
    """

    def __init__(self, skeleton: Skeleton, *, sigma: float, causal: bool = False) -> None:
        super().__init__(skeleton, gaussian_window(sigma, causal=causal))
        self.sigma = sigma
        self.causal = causal
        self.register_buffer("weights", gaussian_weights(sigma, self.window))

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the smoothed poses minus the poses, (N, J, 3), of windows, (N, W, J, 3)."""
        # Relative to the corrected frame, since large coordinates would be rounded more.
        relative = poses - self.corrected_frame(poses).unsqueeze(1)  # (N, W, J, 3)
        smoothed: Tensor = (relative * self.get_buffer("weights").view(-1, 1, 1)).sum(dim=1)  # (N, J, 3)
        return smoothed


def gaussian_window(sigma: float, *, causal: bool) -> Window:
    """Returns the window that a Gaussian kernel of the width `sigma`, in frames, reaches."""
    check_positive("sigma", sigma)
    reach = math.ceil(_REACH * sigma)
    return Window(reach, 0 if causal else reach)


def gaussian_weights(sigma: float, window: Window) -> Tensor:
    """Returns the weights of the frames of a window, (W,); their sum is 1."""
    distances = torch.arange(-window.before, window.after + 1, dtype=torch.float32)  # (W,)
    weights = (distances.square() / (-2 * sigma**2)).exp()
    return weights / weights.sum()
