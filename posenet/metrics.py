"""Metrics: one number per sample from its errors, or values whose mean over samples is exact from partial sums."""

from typing import Literal, get_args

import torch
from torch import Tensor

Mode = Literal["absolute", "squared"]

MODES: tuple[Mode, ...] = get_args(Mode)


def in_mode(errors: Tensor, mode: Mode) -> Tensor:
    """Returns the absolute or squared errors, of any shape."""
    if mode == "absolute":
        return errors.abs()
    if mode == "squared":
        return errors.square()
    raise ValueError(f"the mode must be one of {', '.join(map(repr, MODES))}, not {mode!r}")


def mean_error(errors: Tensor, mode: Mode = "absolute") -> Tensor:
    """Returns the mean of each sample's absolute or squared errors, (N, K): (N,)."""
    return in_mode(errors, mode).mean(dim=1)


def max_error(errors: Tensor, mode: Mode = "absolute") -> Tensor:
    """Returns the largest of each sample's absolute or squared errors, (N, K): (N,)."""
    return in_mode(errors, mode).amax(dim=1)


def success(errors: Tensor, threshold: float) -> Tensor:
    """Returns which errors are at most `threshold`, as 0 and 1; the success rate is their mean."""
    return errors.le(threshold).to(errors.dtype)


def success_counts(errors: Tensor, n_thresholds: int) -> Tensor:
    """Returns how many errors, of any shape, are at most 0, 1, 2, …: (T,), int64, for T = `n_thresholds`.

    Divided by the number of errors, this is the success-rate curve at whole thresholds. A NaN counts nowhere.
    """
    # The first threshold that an error does not exceed; T for none. Comparing with every threshold takes 60 times as
    # long, and `bincount` would wait for a GPU.
    first = errors.flatten().ceil().clamp_(0, n_thresholds).nan_to_num_(n_thresholds).long()  # (K,)
    counts = torch.zeros(n_thresholds + 1, dtype=torch.int64, device=errors.device)
    return counts.index_add_(0, first, torch.ones_like(first))[:-1].cumsum(0)


def area_under_curve(errors: Tensor, low: float, high: float) -> Tensor:
    """Returns each error's contribution to the area under the success-rate curve between `low` and `high`.

    The curve over thresholds t is the fraction of errors e <= t. Its area from `low` to `high`, divided by
    `high` − `low`, is the mean over errors of (high − max(e, low)) / (high − low), at least 0. This is exact and needs
    no grid of thresholds.
    """
    return (high - errors.clamp(min=low, max=high)) / (high - low)
