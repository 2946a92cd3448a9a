"""A multilayer perceptron over the whole pose."""

from collections.abc import Sequence

from torch import Tensor

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import Activation, check_activation, check_dropout, check_widths, mlp, zero


class CorrectorMLP(Corrector):
    """Computes the correction from all coordinates together; the last layer is linear.

    Args:
        skeleton: The skeleton of the poses; any.
        hidden_dims: Width of each hidden layer.
        activation: A name of `posenet.models.layers.ACTIVATIONS`, or a module such as `nn.LeakyReLU(0.1)`. Each hidden
            layer gets a copy of it, so those with parameters of their own, such as `nn.PReLU()`, learn them separately.
        dropout: Dropout probability of hidden units; None for none.
        batchnorm: Apply batch normalisation to each hidden layer, before its activation.
        zero_init: Initialise the last layer with zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        hidden_dims: Sequence[int],
        activation: Activation = "leaky_relu",
        dropout: float | None = None,
        batchnorm: bool = False,
        zero_init: bool = False,
    ) -> None:
        super().__init__(skeleton)
        check_activation(activation)
        check_widths("hidden_dims", hidden_dims)
        check_dropout(0.0 if dropout is None else dropout)
        coordinates = 3 * skeleton.n_joints
        dims = [coordinates, *hidden_dims, coordinates]
        self.layers = mlp(dims, activation=activation, dropout=dropout or 0.0, batchnorm=batchnorm)
        if zero_init:
            zero(self.layers[-1])

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""
        flat: Tensor = self.layers(poses.flatten(1))  # (N, J, 3) -> (N, 3J)
        return flat.view_as(poses)  # (N, 3J) -> (N, J, 3)
