"""A multilayer perceptron that shifts the pose as a whole."""

from collections.abc import Sequence

from torch import Tensor

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import Activation, check_activation, check_dropout, check_widths, mlp, zero


class GlobalShiftMLP(Corrector):
    """Computes one shift for all joints from all coordinates.

    It can only correct the error component that is common to the whole hand. As a baseline it shows how much of another
    model's gain a mere shift explains.

    Args:
        skeleton: The skeleton of the poses; any.
        hidden_dims: Width of each hidden layer.
        activation: A name of `posenet.models.layers.ACTIVATIONS`, or a module such as `nn.LeakyReLU(0.1)`. Each hidden
            layer gets a copy of it, so those with parameters of their own, such as `nn.PReLU()`, learn them separately.
        dropout: Dropout probability of hidden units.
        zero_init: Initialise the last layer with zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        hidden_dims: Sequence[int],
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__(skeleton)
        check_activation(activation)
        check_widths("hidden_dims", hidden_dims)
        check_dropout(dropout)
        self.layers = mlp([3 * skeleton.n_joints, *hidden_dims, 3], activation=activation, dropout=dropout)
        if zero_init:
            zero(self.layers[-1])

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""
        shift: Tensor = self.layers(poses.flatten(1))  # (N, J, 3) -> (N, 3)
        return shift.unsqueeze(1).expand_as(poses)  # (N, 3) -> (N, J, 3)
