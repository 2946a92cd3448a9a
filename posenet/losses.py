"""Losses for training correctors. They compare and print by value, so they can be options."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import Tensor

from data_pipeline.skeleton import Skeleton
from posenet import errors
from posenet.metrics import MODES, Mode, in_mode


class Loss(ABC):
    """The base class of losses. They are frozen dataclasses."""

    @abstractmethod
    def __call__(self, poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
        """Returns the loss of a batch, a scalar; poses and labels are (N, J, 3), in the same space."""


@dataclass(frozen=True, repr=False)
class MetricLoss(Loss):
    """The mean over samples of each sample's mean error.

    Attributes:
        error: A function of `posenet.errors`.
        mode: Whether to use absolute or squared errors.
    """

    error: errors.ErrorFunction = errors.distance_error
    mode: Mode = "absolute"

    def __post_init__(self) -> None:
        _check(self.error, self.mode)

    def __call__(self, poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
        """Returns the loss of a batch, a scalar.

        Raises:
            ValueError: If the error function does not return numbers for each sample.
        """
        found = self.error(poses, labels, skeleton)  # (N, K)
        if found.ndim < 2:
            shape = f"a tensor of shape {tuple(found.shape)}"
            raise ValueError(f"{_name(self.error)} returned {shape} instead of (N, K) for N = {len(poses)} poses")
        return in_mode(found, self.mode).mean()

    def __repr__(self) -> str:
        return f"MetricLoss({_name(self.error)}, {self.mode!r})"


@dataclass(frozen=True, repr=False)
class CombinedLoss(Loss):
    """A weighted sum of metric losses.

    Attributes:
        parts: The error function, weight and mode of each term.
    """

    parts: Sequence[tuple[errors.ErrorFunction, float, Mode]]

    def __post_init__(self) -> None:
        given: Sequence[Any] = self.parts
        parts = tuple(tuple(part) if isinstance(part, Sequence) else (part,) for part in given)
        if not parts:
            raise ValueError("a CombinedLoss needs at least one (error function, weight, mode)")
        for part in parts:
            if len(part) != 3:
                raise ValueError(f"each part is (error function, weight, mode), not {part!r}")
            error, weight, mode = part
            _check(error, mode)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
                raise ValueError(f"a weight must be a finite number, not {weight!r}")
        object.__setattr__(self, "parts", parts)  # a tuple, so that the loss is hashable and immutable

    def __call__(self, poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
        """Returns the loss of a batch, a scalar."""
        terms = [weight * MetricLoss(error, mode)(poses, labels, skeleton) for error, weight, mode in self.parts]
        return sum(terms[1:], start=terms[0])

    def __repr__(self) -> str:
        parts = (f"({_name(error)}, {weight!r}, {mode!r})" for error, weight, mode in self.parts)
        return f"CombinedLoss([{', '.join(parts)}])"


def _check(error: object, mode: object) -> None:
    if not callable(error):
        raise ValueError(f"the error must be a function of posenet.errors, not {error!r}")
    if mode not in MODES:
        raise ValueError(f"the mode must be one of {', '.join(map(repr, MODES))}, not {mode!r}")


def _name(error: errors.ErrorFunction) -> str:
    """Returns the expression for a function in a script with `from posenet import errors`."""
    name = getattr(error, "__qualname__", repr(error))
    return f"errors.{name}" if getattr(error, "__module__", "") == errors.__name__ else name
