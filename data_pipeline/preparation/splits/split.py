"""What every split has: parts and folds.

Neighbouring frames of a sequence are nearly identical, so a split never draws single frames: it takes the end of the
sequence, whole blocks, whole groups (such as all frames of a subject), or the frames listed in a file. The *folds* of
a split have the same form; together they test each frame exactly once.
"""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from data_pipeline.frame_table import FrameTable
from data_pipeline.user_error import UserError

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PARTS = ("train", "val", "test")
"""The names of the parts."""

PART_WORDS = {"train": "training", "val": "validation", "test": "test"}
"""The names of the parts in words."""

ALL_PART = "all"
"""The only part of an unsplit dataset."""


class Split(ABC):
    """A way to split N samples; `str` gives its text, as `parse_split` reads it."""

    @property
    @abstractmethod
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""

    @abstractmethod
    def parts(self, n_samples: int, frames: FrameTable | None = None, fold: int = 0) -> dict[str, Indices]:
        """Returns the indices of each part, ascending.

        Args:
            n_samples: N.
            frames: What is known about the samples; None for nothing.
            fold: The number of the fold, below `n_folds`; fold 0 is the split itself.

        Raises:
            UserError: If the samples cannot be split in this way, or if a part would be empty.
        """

    @abstractmethod
    def n_folds(self, n_samples: int, frames: FrameTable | None = None) -> int:
        """Returns the number of folds.

        Raises:
            UserError: If the split has no folds, or if the samples cannot be split in this way.
        """


class NoSplit(Split):
    """All samples stay together."""

    def __str__(self) -> str:
        return "none"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoSplit)

    def __hash__(self) -> int:
        return hash(NoSplit)

    @property
    def part_names(self) -> tuple[str, ...]:
        """The name of the only part."""
        return (ALL_PART,)

    def parts(self, n_samples: int, frames: FrameTable | None = None, fold: int = 0) -> dict[str, Indices]:
        """Returns all indices as the part `ALL_PART`."""
        if n_samples < 1:
            raise UserError("there are no frames")
        return {ALL_PART: np.arange(n_samples)}

    def n_folds(self, n_samples: int, frames: FrameTable | None = None) -> int:
        """Raises a `UserError`."""
        raise UserError("'none' does not split a dataset, so it has no folds")


def distant_parts(masks: dict[str, Mask], gap: int) -> dict[str, Indices]:
    """Returns the samples of each part that are at a distance from those of later parts.

    Args:
        masks: The samples of "train", "val" and "test" before, (N,) each.
        gap: The distance in samples.
    """
    near: Mask = np.zeros(len(masks["train"]), np.bool_)
    parts = {}
    for part in reversed(masks):
        parts[part] = np.flatnonzero(masks[part] & ~near)  # (N,) -> (N_part,)
        near |= _within(gap, masks[part])
    return {part: parts[part] for part in masks}


def _within(distance: int, mask: Mask) -> Mask:
    """Returns which samples are at most `distance` samples away from one in the mask, (N,) -> (N,)."""
    places = np.arange(len(mask))
    sums = np.concatenate([[0], np.cumsum(mask)])  # (N + 1,)
    found: Mask = sums[np.minimum(places + distance + 1, len(mask))] > sums[np.maximum(places - distance, 0)]
    return found
