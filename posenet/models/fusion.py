"""Correctors that fuse the poses of several backbones for the same frame into one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_pipeline.batch import Window
from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import FixedCorrector, FusingCorrector
from posenet.models.gaussian_smoother import gaussian_weights, gaussian_window
from posenet.models.layers import Activation, check_activation, check_count, check_dropout, check_widths, mlp, zero


class SmoothingFusion(FusingCorrector):
    """A corrector that smooths the poses of each subset over time before it fuses them.

    Args:
        skeleton: The skeleton of the poses; any.
        sigma: The width of the Gaussian kernel in frames, as for `GaussianSmoother`; None sees the frame alone.
        causal: See only the frame itself and those before it.
    """

    def __init__(self, skeleton: Skeleton, sigma: float | None, *, causal: bool) -> None:
        super().__init__(skeleton, Window(0, 0) if sigma is None else gaussian_window(sigma, causal=causal))
        self.sigma = sigma
        self.causal = causal
        weights = torch.ones(1) if sigma is None else gaussian_weights(sigma, self.window)
        self.register_buffer("frame_weights", weights, persistent=False)

    def smoothed(self, poses: Tensor) -> Tensor:
        """Returns the smoothed pose of each subset minus the mean pose, (N, S, J, 3), of windows, (N, S, W, J, 3)."""
        # Relative to the mean pose, since large coordinates would be rounded more.
        relative = poses - self.corrected_frame(poses)[:, None, None]  # (N, S, W, J, 3)
        smoothed: Tensor = (relative * self.get_buffer("frame_weights").view(-1, 1, 1)).sum(dim=2)  # (N, S, J, 3)
        return smoothed


class MeanFusion(SmoothingFusion, FixedCorrector):
    """The mean of all subsets, smoothed over time if `sigma` is given; nothing is trained.

    Args:
        skeleton: The skeleton of the poses; any.
        sigma: The width of the Gaussian kernel in frames, as for `GaussianSmoother`; None for no smoothing.
        causal: See only the frame itself and those before it.
    """

    def __init__(self, skeleton: Skeleton, *, sigma: float | None = None, causal: bool = False) -> None:
        super().__init__(skeleton, sigma, causal=causal)

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the smoothed mean pose minus the mean pose, (N, J, 3), of windows, (N, S, W, J, 3)."""
        return self.smoothed(poses).mean(dim=1)


class SteadinessFusion(SmoothingFusion, FixedCorrector):
    """A weighted mean of all subsets, in which the steadier ones count more; nothing is trained.

    The hand's own acceleration is the same for all subsets, so the subset that accelerates more has more noise. The
    weight of a subset is inversely proportional to its mean squared second difference over the frames of the window,
    as the weights of independent measurements to their variances. It is the same for all joints. A backbone that
    smooths its own poses counts too much.

    Args:
        skeleton: The skeleton of the poses; any.
        sigma: The width of the Gaussian kernel in frames, as for `GaussianSmoother`; the window needs three frames.
        causal: See only the frame itself and those before it.
    """

    def __init__(self, skeleton: Skeleton, *, sigma: float, causal: bool = False) -> None:
        super().__init__(skeleton, sigma, causal=causal)
        if self.window.size < 3:
            raise ValueError(f"sigma must be at least 0.34 for a causal window of three frames, not {sigma}")

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the weighted mean minus the mean pose, (N, J, 3), of windows, (N, S, W, J, 3)."""
        noise = poses.diff(n=2, dim=2).square().mean(dim=(2, 3, 4))  # (N, S)
        # Logarithms: without noise, all subsets have the same weight.
        weights = noise.clamp(min=torch.finfo(noise.dtype).tiny).log().neg().softmax(dim=1)  # (N, S)
        fused: Tensor = (self.smoothed(poses) * weights[:, :, None, None]).sum(dim=1)  # (N, J, 3)
        return fused


class WeightedFusion(SmoothingFusion):
    """A weighted mean of all subsets, with learned weights for each joint: the softmax of a number for each subset.

    All weights are equal at the start.

    Args:
        skeleton: The skeleton of the poses; any.
        n_subsets: S, the number of subsets of the dataset.
        sigma: The width of the Gaussian kernel in frames, as for `GaussianSmoother`; None for no smoothing.
        causal: See only the frame itself and those before it.
    """

    def __init__(self, skeleton: Skeleton, *, n_subsets: int, sigma: float | None = None, causal: bool = False) -> None:
        check_count("n_subsets", n_subsets)
        super().__init__(skeleton, sigma, causal=causal)
        self.n_subsets = n_subsets
        self.scores = nn.Parameter(torch.zeros(n_subsets, skeleton.n_joints))

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the weighted mean minus the mean pose, (N, J, 3), of windows, (N, S, W, J, 3)."""
        weights = self.scores.softmax(dim=0).unsqueeze(2)  # (S, J, 1)
        return (self.smoothed(poses) * weights).sum(dim=1)  # (N, S, J, 3) -> (N, J, 3)


class AgreementFusion(SmoothingFusion):
    """A weighted mean of all subsets whose weights depend on how far they agree, and on how steadily each moves.

    A multilayer perceptron, the same for all joints, computes a number for each subset; the weights of a joint are the
    softmax of these numbers. It sees two distances of each subset, as log(1 + distance), for the joint and as means
    over all joints: that from the mean pose of all subsets, and, with smoothing, that from the subset's own smoothed
    pose.

    Args:
        skeleton: The skeleton of the poses; any.
        n_subsets: S, the number of subsets of the dataset.
        sigma: The width of the Gaussian kernel in frames, as for `GaussianSmoother`; None for no smoothing.
        causal: See only the frame itself and those before it.
        hidden_dims: Width of each hidden layer.
        activation: A name of `posenet.models.layers.ACTIVATIONS`, or a module such as `nn.LeakyReLU(0.1)`.
        dropout: Dropout probability of hidden units.
        zero_init: Initialise the last layer with zeros, so that all weights are equal at the start.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        n_subsets: int,
        sigma: float | None = None,
        causal: bool = False,
        hidden_dims: Sequence[int] = (16,),
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
        zero_init: bool = True,
    ) -> None:
        check_count("n_subsets", n_subsets)
        super().__init__(skeleton, sigma, causal=causal)
        check_activation(activation)
        check_widths("hidden_dims", hidden_dims)
        check_dropout(dropout)
        self.n_subsets = n_subsets
        n_distances = 2 if sigma is None else 4
        self.layers = mlp([n_subsets * n_distances, *hidden_dims, n_subsets], activation=activation, dropout=dropout)
        if zero_init:
            zero(self.layers[-1])

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the weighted mean minus the mean pose, (N, J, 3), of windows, (N, S, W, J, 3)."""
        smoothed = self.smoothed(poses)  # (N, S, J, 3)
        scores = self.layers(self._distances(poses, smoothed))  # (N, J, inputs) -> (N, J, S)
        weights = scores.softmax(dim=2).transpose(1, 2).unsqueeze(3)  # (N, S, J, 1)
        fused: Tensor = (smoothed * weights).sum(dim=1)  # (N, J, 3)
        return fused

    def _distances(self, poses: Tensor, smoothed: Tensor) -> Tensor:
        """Returns what the network sees, (N, J, inputs)."""
        relative = poses[:, :, self.window.before] - self.corrected_frame(poses).unsqueeze(1)  # (N, S, J, 3)
        vectors = [relative] if self.sigma is None else [relative, relative - smoothed]
        distances = torch.cat([vector.norm(dim=3) for vector in vectors], dim=1)  # (N, S or 2·S, J)
        of_hand = distances.mean(dim=2, keepdim=True).expand_as(distances)
        return torch.cat([distances, of_hand], dim=1).log1p().transpose(1, 2)
