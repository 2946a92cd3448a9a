"""Metrics: one number per sample from its errors, or values whose mean over samples is exact from partial sums."""

from typing import Literal, get_args

from torch import Tensor

Mode = Literal["absolute", "squared"]

MODES: tuple[Mode, ...] = get_args(Mode)


def mean_error(errors: Tensor, mode: Mode = "absolute") -> Tensor:
    """Returns the mean of each sample's absolute or squared errors, (N, K): (N,)."""
    return _in_mode(errors, mode).mean(dim=1)


def max_error(errors: Tensor, mode: Mode = "absolute") -> Tensor:
    """Returns the largest of each sample's absolute or squared errors, (N, K): (N,)."""
    return _in_mode(errors, mode).amax(dim=1)


def success(errors: Tensor, threshold: float) -> Tensor:
    """Returns which errors are at most `threshold`, as 0 and 1; the success rate is their mean."""
    return errors.le(threshold).to(errors.dtype)


def area_under_curve(errors: Tensor, low: float, high: float) -> Tensor:
    """Returns each error's contribution to the area under the success-rate curve between `low` and `high`.

    The curve over thresholds t is the fraction of errors e <= t. Its area from `low` to `high`, divided by
    `high` − `low`, is the mean over errors of (high − max(e, low)) / (high − low), at least 0. This is exact and needs
    no grid of thresholds.
    """
    return (high - errors.clamp(min=low, max=high)) / (high - low)


def _in_mode(errors: Tensor, mode: Mode) -> Tensor:
    if mode == "absolute":
        return errors.abs()
    if mode == "squared":
        return errors.square()
    raise ValueError(f"the mode must be one of {', '.join(map(repr, MODES))}, not {mode!r}")
