"""A locally connected network over time: it knows the skeleton, and sees how joints move."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import TemporalCorrector
from posenet.models.corrector_lcn import LocallyConnected, ResidualBlock, connected_layer, within_reach
from posenet.models.layers import check_count, check_dropout, check_widths, mlp, zero
from posenet.models.temporal_filter import window


class TemporalLCN(TemporalCorrector):
    """Filters each coordinate over time, then corrects the filtered pose along the skeleton.

    The filter is that of `TemporalFilter` with several outputs: a multilayer perceptron over the positions of one
    coordinate in a window, which all coordinates of all joints share. Its first output is a correction by itself, since
    layers with dropout smooth badly. The layers of `CorrectorLCN` see the pose after this correction, and the other
    outputs, which describe how the joints move. They add their own correction.

    Args:
        skeleton: The skeleton of the poses; any.
        size: W, the number of frames in a window; odd unless it is causal.
        causal: See only the frame itself and those before it; otherwise it is in the middle of the window.
        n_filters: F, the number of outputs of the filter.
        hidden_dims: Width of each hidden layer of the filter.
        dim: Features per joint.
        n_blocks: Residual blocks.
        reach: The largest distance of two connected joints, in edges of `Skeleton.message_edges`.
        dropout: Dropout probability of the features of joints.
        zero_init: Initialise the first output of the filter and the last layer with zeros, so that the untrained model
            returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        size: int = 33,
        causal: bool = False,
        n_filters: int = 4,
        hidden_dims: Sequence[int] = (64, 64),
        dim: int = 32,
        n_blocks: int = 1,
        reach: int = 2,
        dropout: float = 0.5,
        zero_init: bool = True,
    ) -> None:
        sizes = {"size": size, "n_filters": n_filters, "dim": dim, "n_blocks": n_blocks, "reach": reach}
        for name, value in sizes.items():
            check_count(name, value)
        check_widths("hidden_dims", hidden_dims)
        check_dropout(dropout)
        super().__init__(skeleton, window(size, causal=causal))
        near = within_reach(skeleton, reach)  # (J, J)
        self.filter = mlp([size, *hidden_dims, n_filters])
        self.first = connected_layer(near, 3 * n_filters, dim, dropout)
        self.blocks = nn.Sequential(*(ResidualBlock(near, dim, dropout) for _ in range(n_blocks)))
        self.last = LocallyConnected(near, dim, 3)
        if zero_init:
            for parameter in self.filter[-1].parameters():
                nn.init.zeros_(parameter[0])
            zero(self.last)

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to the corrected frames, (N, J, 3), of windows, (N, W, J, 3)."""
        frame = self.corrected_frame(poses)  # (N, J, 3)
        relative = poses - frame.unsqueeze(1)  # (N, W, J, 3)
        filtered = self.filter(relative.movedim(1, 3))  # (N, J, 3, W) -> (N, J, 3, F)
        smoothing = filtered[..., 0]  # (N, J, 3)
        seen = torch.cat([(frame + smoothing).unsqueeze(3), filtered[..., 1:]], dim=3)  # (N, J, 3, F)
        features = self.blocks(self.first(seen.flatten(1)))  # (N, J, 3, F) -> (N, J·dim)
        correction: Tensor = smoothing + self.last(features).view_as(frame)  # (N, J·dim) -> (N, J, 3)
        return correction
