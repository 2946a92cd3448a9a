"""A multilayer perceptron over the whole pose."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import ACTIVATIONS, check_activation, check_widths, zero


class CorrectorMLP(Corrector):
    """Computes the correction from all coordinates at once; the last layer is linear.

    Args:
        skeleton: The skeleton of the poses; any.
        hidden_dims: Width of each hidden layer.
        activation: One of `ACTIVATIONS`.
        dropout: Probability that a hidden unit is left out in training; None for none.
        batchnorm: Normalise each hidden layer over the batch, before its activation.
        zero_init: Begin with a last layer of zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        hidden_dims: Sequence[int],
        activation: str = "leaky_relu",
        dropout: float | None = None,
        batchnorm: bool = False,
        zero_init: bool = False,
    ) -> None:
        super().__init__(skeleton)
        check_activation(activation)
        check_widths("hidden_dims", hidden_dims)
        if dropout is not None and not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability from 0 to 1 or None, not {dropout!r}")
        coordinates = 3 * skeleton.n_joints
        layers: list[nn.Module] = []
        for n_inputs, n_outputs in pairwise([coordinates, *hidden_dims]):
            layers.append(nn.Linear(n_inputs, n_outputs))
            if batchnorm:
                layers.append(nn.BatchNorm1d(n_outputs))
            layers.append(ACTIVATIONS[activation]())
            if dropout is not None:
                layers.append(nn.Dropout(dropout))
        last = nn.Linear(hidden_dims[-1] if hidden_dims else coordinates, coordinates)
        if zero_init:
            zero(last)
        self.layers = nn.Sequential(*layers, last)

    def correction(self, poses: Tensor) -> Tensor:
        """Returns what is to be added to `poses`, (N, J, 3)."""
        flat: Tensor = self.layers(poses.flatten(1))  # (N, J, 3) -> (N, 3J)
        return flat.view_as(poses)  # (N, 3J) -> (N, J, 3)
