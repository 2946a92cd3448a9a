"""A learned filter over time that all joints and coordinates share."""

from collections.abc import Sequence

from torch import Tensor

from data_pipeline.batch import Window
from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import TemporalCorrector
from posenet.models.layers import Activation, check_activation, check_count, check_dropout, check_widths, mlp, zero


class TemporalFilter(TemporalCorrector):
    """A multilayer perceptron from the positions of one coordinate in a window to its correction.

    All coordinates of all joints share it, so it learns how errors evolve over time, and nothing about hands. After
    SmoothNet (Zeng et al., ECCV 2022), which has residual blocks, returns a whole window and averages overlapping
    windows; this filter returns the corrected frame only.

    Args:
        skeleton: The skeleton of the poses; any.
        size: W, the number of frames in a window; odd unless it is causal.
        causal: See only the frame itself and those before it; otherwise it is in the middle of the window.
        hidden_dims: Width of each hidden layer.
        activation: A name of `posenet.models.layers.ACTIVATIONS`, or a module such as `nn.LeakyReLU(0.1)`.
        dropout: Dropout probability of hidden units.
        zero_init: Initialise the last layer with zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        size: int = 33,
        causal: bool = False,
        hidden_dims: Sequence[int] = (64, 64),
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
        zero_init: bool = True,
    ) -> None:
        check_count("size", size)
        super().__init__(skeleton, window(size, causal=causal))
        check_activation(activation)
        check_widths("hidden_dims", hidden_dims)
        check_dropout(dropout)
        self.layers = mlp([size, *hidden_dims, 1], activation=activation, dropout=dropout)
        if zero_init:
            zero(self.layers[-1])

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to the corrected frames, (N, J, 3), of windows, (N, W, J, 3)."""
        relative = poses - self.corrected_frame(poses).unsqueeze(1)  # (N, W, J, 3)
        correction: Tensor = self.layers(relative.movedim(1, 3)).squeeze(3)  # (N, J, 3, W) -> (N, J, 3)
        return correction


def window(size: int, *, causal: bool) -> Window:
    """Returns a window of `size` frames that ends with the corrected one, or has it in the middle."""
    if causal:
        return Window(size - 1, 0)
    if size % 2 == 0:
        raise ValueError(f"size must be odd, so that the corrected frame is in the middle, not {size}; or set causal")
    return Window(size // 2, size // 2)
