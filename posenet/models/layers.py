"""What correctors are built of: multilayer perceptrons, one by one or many of one size at a time."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def mlp(
    dims: Sequence[int], *, activation: str = "leaky_relu", dropout: float = 0.0, batchnorm: bool = False
) -> nn.Sequential:
    """Returns a multilayer perceptron over the last axis; its last layer is linear.

    Args:
        dims: Numbers of inputs, of the units of each hidden layer, and of outputs.
        activation: One of `ACTIVATIONS`.
        dropout: Probability that a hidden unit is left out in training.
        batchnorm: Normalise each hidden layer over the batch, before its activation; for inputs (N, dims[0]).
    """
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise(dims[:-1]):
        layers.append(nn.Linear(n_inputs, n_outputs))
        if batchnorm:
            layers.append(nn.BatchNorm1d(n_outputs))
        layers.append(ACTIVATIONS[activation]())
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(dims[-2], dims[-1]))


class StackedLinear(nn.Module):
    """S linear layers of one size, each for an input of its own, as one batched matrix product.

    Initialised as `torch.nn.Linear` is: evenly between ±1/√(number of inputs).

    Args:
        n_stacked: S.
        n_inputs: Inputs of each layer.
        n_outputs: Outputs of each layer.
    """

    def __init__(self, n_stacked: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_inputs)
        self.weight = nn.Parameter(torch.empty(n_stacked, n_inputs, n_outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_stacked, 1, n_outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs, (S, N, outputs), of `x`, (S, N, inputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedMLP(nn.Module):
    """S multilayer perceptrons of one size, each for an input of its own; the last layers are linear.

    Hidden units are leaky rectified linear.

    Args:
        n_stacked: S.
        dims: Numbers of inputs, of the units of each hidden layer, and of outputs.
        dropout: Probability that a hidden unit is left out in training.
    """

    def __init__(self, n_stacked: int, dims: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(StackedLinear(n_stacked, *sizes) for sizes in pairwise(dims))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs, (S, N, outputs), of `x`, (S, N, inputs)."""
        for layer in self.layers[:-1]:
            # In place: the gradient of a leaky rectifier follows from its output, and the memory counts.
            x = functional.leaky_relu(layer(x), inplace=True)
            if self.dropout > 0:
                x = functional.dropout(x, self.dropout, self.training)
        outputs: Tensor = self.layers[-1](x)
        return outputs


def zero(layer: nn.Module) -> None:
    """Makes a linear layer, or a stack of them, return zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def check_widths(name: str, dims: object) -> None:
    """Refuses what is no list of widths of hidden layers.

    Raises:
        ValueError: If it is none; `name` is the argument's.
    """
    if (
        isinstance(dims, str)
        or not isinstance(dims, Sequence)
        or any(isinstance(dim, bool) or not isinstance(dim, int) or dim < 1 for dim in dims)
    ):
        raise ValueError(f"{name} must be a list of widths of at least 1, not {dims!r}")


def check_activation(activation: object) -> None:
    """Refuses what is no name of `ACTIVATIONS`.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")


def check_count(name: str, value: object) -> None:
    """Refuses what is no whole number of at least 1.

    Raises:
        ValueError: If it is none; `name` is the argument's.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_dropout(dropout: object) -> None:
    """Refuses what is no probability, or so high that nothing is left.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a probability from 0 to below 1, not {dropout!r}")
