"""Layers of correctors: multilayer perceptrons, single or many of the same size stacked."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    # In place: the gradients of these two follow from their outputs.
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),
    "relu": partial(nn.ReLU, inplace=True),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

Activation = str | nn.Module
"""A name of `ACTIVATIONS`, or a module such as `nn.LeakyReLU(0.1)`, of which each layer gets a copy."""


def mlp(
    dims: Sequence[int], *, activation: Activation = "leaky_relu", dropout: float = 0.0, batchnorm: bool = False
) -> nn.Sequential:
    """Returns a multilayer perceptron over the last axis; its last layer is linear.

    Args:
        dims: Numbers of inputs, of units in each hidden layer, and of outputs.
        activation: Applied to each hidden layer.
        dropout: Dropout probability of hidden units.
        batchnorm: Apply batch normalisation to each hidden layer, before its activation; for inputs (N, dims[0]).
    """
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise(dims[:-1]):
        layers.append(Linear(n_inputs, n_outputs))
        if batchnorm:
            layers.append(nn.BatchNorm1d(n_outputs))
        hidden = _activation_layer(activation, n_outputs)
        if dropout == 0:
            layers.append(hidden)
        elif type(hidden) in (nn.ReLU, nn.LeakyReLU):
            # Multiplying by the factors before, as none is negative, gives the same except for rounding. It can be done
            # in place, since a linear layer needs its inputs for the gradient, not its outputs.
            layers += [Dropout(dropout, inplace=True), hidden]
        else:
            layers += [hidden, Dropout(dropout)]
    return nn.Sequential(*layers, Linear(dims[-2], dims[-1]))


def _activation_layer(activation: Activation, width: int) -> nn.Module:
    if isinstance(activation, str):
        return ACTIVATIONS[activation]()
    layer = copy.deepcopy(activation).to(torch.get_default_device())
    with torch.no_grad():
        n_outputs = layer.eval()(torch.zeros(2, width)).shape[-1]  # draws no random numbers
    if n_outputs != width:
        raise ValueError(f"activation {activation} makes {n_outputs} units of {width}; it must keep their number")
    return layer.train()


class Linear(nn.Linear):
    """`torch.nn.Linear`, in less time on a CPU where the inputs or outputs are the 63 coordinates of 21 joints.

    MKL takes longer for a matrix product if the rows of the result do not fill its vectors of 16 numbers. Where each
    number of the result is a long sum, it takes less time to compute the transpose of the result, and to copy that.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs, (..., outputs), for `x`, (..., inputs)."""
        # torch.export would make this decision once, for the number of samples in its example.
        if torch.compiler.is_compiling() or x.device.type != "cpu" or x.ndim != 2 or len(x) < _LONG_SUM:
            return super().forward(x)
        if _is_slow(self.out_features) and self.in_features >= _LONG_SUM:
            return torch.addmm(self.bias.unsqueeze(1), self.weight, x.t()).t().contiguous()
        if _is_slow(self.in_features) and self.out_features >= _VECTOR and torch.is_grad_enabled():
            # The gradient of the weights, a sum over samples, has rows of inputs; that of this copy, of outputs.
            return torch.addmm(self.bias, x, self.weight.t().contiguous())
        return super().forward(x)


_LONG_SUM = 128
"""For sums of fewer numbers, copying takes about as long as it saves."""

_VECTOR = 16
"""The numbers in a vector. For shorter rows, MKL computes in another way, with other last bits."""


def _is_slow(row_length: int) -> bool:
    return row_length > _VECTOR and row_length % _VECTOR != 0


def dropout(x: Tensor, p: float, *, training: bool, inplace: bool = False) -> Tensor:
    """Returns `x`, in training with each element set to zero with probability `p`, and the others scaled up.

    This is `torch.nn.functional.dropout`, which draws a random number for each element; on a CPU this takes longer than
    the linear layer before it. Here, 64 random bits of torch's global generator decide over four elements, so `p` is
    rounded to a multiple of 1/65,536. The elements that are kept are divided by the rounded probability of being kept.
    With `inplace`, `x` may be overwritten: this saves time on a CPU, but on a GPU it would take torch more operations.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, p)
    factors = dropout_factors(x, p)
    return x.mul_(factors) if inplace else x * factors


def dropout_factors(x: Tensor, p: float) -> Tensor:
    """Returns the random factors of `dropout` for `x` on a CPU: 0, or what the elements that are kept are scaled by."""
    n_kept = max(1, round((1 - p) * 2**16))  # of the values that 16 bits can have
    if n_kept == 2**16:
        return torch.ones_like(x)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    # In place and in this order, since a comparison with a boolean result takes several times as long.
    kept = bits[: x.numel()].lt_(n_kept - 2**15).to(x.dtype)  # 0 or 1
    return kept.mul_(2**16 / n_kept).view_as(x)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by the function `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x`, in training with some of its elements set to zero."""
        return dropout(x, self.p, training=self.training, inplace=self.inplace)


class StackedLinear(nn.Module):
    """S linear layers of the same size with separate inputs, as one batched matrix product.

    Initialised like `torch.nn.Linear`: uniformly between ±1/√(number of inputs).

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
        """Returns the outputs, (S, N, outputs), for `x`, (S, N, inputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedMLP(nn.Module):
    """S multilayer perceptrons of the same size with separate inputs. Hidden layers use leaky ReLU, the last is linear.

    Args:
        n_stacked: S.
        dims: Numbers of inputs, of units in each hidden layer, and of outputs.
        dropout: Dropout probability of hidden units.
    """

    def __init__(self, n_stacked: int, dims: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(StackedLinear(n_stacked, *sizes) for sizes in pairwise(dims))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs, (S, N, outputs), for `x`, (S, N, inputs)."""
        for layer in self.layers[:-1]:
            # Both in place, and dropout first, as in `mlp`.
            x = dropout(layer(x), self.dropout, training=self.training, inplace=True)
            x = functional.leaky_relu(x, inplace=True)
        outputs: Tensor = self.layers[-1](x)
        return outputs


def zero(layer: nn.Module) -> None:
    """Initialises all parameters of a layer with zeros."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def check_widths(name: str, dims: object) -> None:
    """Raises a `ValueError` if `dims`, the argument `name`, is not a list of widths of hidden layers."""
    if (
        isinstance(dims, str)
        or not isinstance(dims, Sequence)
        or any(isinstance(dim, bool) or not isinstance(dim, int) or dim < 1 for dim in dims)
    ):
        raise ValueError(f"{name} must be a list of widths of at least 1, not {dims!r}")


def check_activation(activation: object) -> None:
    """Raises a `ValueError` if `activation` is neither a name of `ACTIVATIONS` nor a module."""
    if not isinstance(activation, nn.Module) and not (isinstance(activation, str) and activation in ACTIVATIONS):
        names = ", ".join(ACTIVATIONS)
        raise ValueError(
            f"activation must be one of {names}, or a module such as nn.LeakyReLU(0.1), not {activation!r}"
        )


def check_count(name: str, value: object) -> None:
    """Raises a `ValueError` if `value`, the argument `name`, is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_positive(name: str, value: object) -> None:
    """Raises a `ValueError` if `value`, the argument `name`, is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}")


def check_dropout(dropout: object) -> None:
    """Raises a `ValueError` if `dropout` is not a probability below 1."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a probability of at least 0 and below 1, not {dropout!r}")
