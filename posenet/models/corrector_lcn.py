"""A locally connected network: separate weights for every pair of joints that are close on the skeleton."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import Dropout, check_count, check_dropout, zero


class CorrectorLCN(Corrector):
    """A residual network whose layers connect each joint with the joints within its reach.

    A graph convolution shares its weights among all edges; here each pair of joints has its own. If the reach covers
    the whole skeleton, the network is a multilayer perceptron. Each layer is followed by batch normalisation, leaky
    ReLU and dropout; a residual block has two of them. After Ci, Wang, Ma and Wang, "Optimizing Network Structure for
    3D Human Pose Estimation", ICCV 2019 (designed for lifting 2D poses to 3D; here it refines 3D poses).

    Args:
        skeleton: The skeleton of the poses; any.
        dim: Features per joint.
        n_blocks: Residual blocks.
        reach: The largest distance of two connected joints, in edges of `Skeleton.message_edges`.
        dropout: Dropout probability of features.
        zero_init: Initialise the last layer with zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        dim: int,
        n_blocks: int,
        reach: int,
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__(skeleton)
        for name, value in {"dim": dim, "n_blocks": n_blocks, "reach": reach}.items():
            check_count(name, value)
        check_dropout(dropout)
        near = within_reach(skeleton, reach)  # (J, J)
        self.first = connected_layer(near, 3, dim, dropout)
        self.blocks = nn.Sequential(*(ResidualBlock(near, dim, dropout) for _ in range(n_blocks)))
        self.last = LocallyConnected(near, dim, 3)
        if zero_init:
            zero(self.last)

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""
        features = self.blocks(self.first(poses.flatten(1)))  # (N, J, 3) -> (N, J·dim)
        correction: Tensor = self.last(features).view_as(poses)  # (N, J·dim) -> (N, J, 3)
        return correction


class LocallyConnected(nn.Module):
    """A linear layer on the features of all joints, without weights between joints that are not near each other.

    Args:
        near: Which joints are connected, (J, J), bool.
        n_inputs: Input features per joint.
        n_outputs: Output features per joint.
    """

    def __init__(self, near: Tensor, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        # One product with a masked matrix: with so few joints that is faster than many small products.
        mask = near.repeat_interleave(n_outputs, dim=0).repeat_interleave(n_inputs, dim=1)  # (J·outputs, J·inputs)
        self.register_buffer("mask", mask, persistent=False)
        # Initialised like `torch.nn.Linear`, for the number of connected inputs.
        bounds = 1 / math.sqrt(n_inputs) / near.sum(dim=1).sqrt().repeat_interleave(n_outputs)  # (J·outputs,)
        weight = torch.empty(mask.shape).uniform_(-1, 1) * bounds.unsqueeze(1)
        self.weight = nn.Parameter(weight * mask)
        self.bias = nn.Parameter(torch.empty(len(mask)).uniform_(-1, 1) * bounds)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the outputs, (N, J·outputs), for features, (N, J·inputs)."""
        return functional.linear(features, self.weight * self.get_buffer("mask"), self.bias)


class ResidualBlock(nn.Sequential):
    """Two locally connected layers whose outputs are added to their inputs, the features of all joints, (N, J·dim).

    Args:
        near: Which joints are connected, (J, J), bool.
        dim: Features per joint.
        dropout: Dropout probability of features.
    """

    def __init__(self, near: Tensor, dim: int, dropout: float) -> None:
        super().__init__(*(part for _ in range(2) for part in connected_layer(near, dim, dim, dropout)))

    def forward(self, features: Tensor) -> Tensor:
        """Returns the outputs, (N, J·dim), for features, (N, J·dim)."""
        outputs: Tensor = features + super().forward(features)  # type: ignore[no-untyped-call] # torch has no types
        return outputs


def connected_layer(near: Tensor, n_inputs: int, n_outputs: int, dropout: float) -> nn.Sequential:
    """Returns a locally connected layer with batch normalisation, leaky ReLU and dropout, for (N, J·inputs)."""
    connected = LocallyConnected(near, n_inputs, n_outputs)
    normalised = nn.BatchNorm1d(len(connected.bias))
    # Both in place, and dropout first, as in `mlp`.
    return nn.Sequential(connected, normalised, Dropout(dropout, inplace=True), nn.LeakyReLU(inplace=True))


def within_reach(skeleton: Skeleton, reach: int) -> Tensor:
    """Returns which joints are at most `reach` edges apart, themselves included, (J, J), bool."""
    near = torch.eye(skeleton.n_joints, dtype=torch.bool)
    for _ in range(reach):
        near = torch.stack([near[[joint, *others]].any(dim=0) for joint, others in enumerate(skeleton.neighbours)])
    return near
