"""Splits: which samples of a sequence train, which validate and which test.

Neighbouring frames of a sequence are nearly alike, so a split never draws single frames: it takes the end of
the sequence or whole blocks of it. A split is written as a short text, `blocks:100:5`, `last:20` or `none`.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_pipeline.user_error import UserError

Indices = npt.NDArray[np.int64]

ALL_PART = "all"
"""The only part where nothing is split."""

_USAGE = (
    "a split is 'blocks:M:K' (blocks of M frames; of every K the last validates and the one in the middle "
    "tests), 'last:P' (the last P percent validate) or 'none', for example 'blocks:100:5' or 'last:20'"
)


class SplitError(UserError):
    """A split is misspelt or impossible, or it leaves a part without samples."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of samples in order; of every `every` blocks one validates and one tests.

    The last, number `every` − 1, validates and number `every` // 2 tests, counted from 0; the others train.

    Attributes:
        size: Samples in a block, at least 1; the last block of all may have fewer.
        every: Blocks in a group, at least 3, so that each part gets one.
    """

    size: int
    every: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SplitError(f"'{self}': a block has at least 1 frame")
        if self.every < 3:
            raise SplitError(f"'{self}': training, validation and test need at least 3 blocks, so K is 3 or more")

    def __str__(self) -> str:
        return f"blocks:{self.size}:{self.every}"

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts "train", "val" and "test".

        Raises:
            SplitError: If there are too few samples for one in each part.
        """
        # Before any array is made: sizes beyond int64 end here too.
        n_needed = self.size * (self.every - 1) + 1
        if n_samples < n_needed:
            raise SplitError(
                f"'{self}' leaves the validation set empty: it needs at least {n_needed} frames, there are {n_samples}"
            )
        position = np.arange(n_samples) // self.size % self.every  # (N,)
        is_val = position == self.every - 1
        is_test = position == self.every // 2
        masks = {"train": ~is_val & ~is_test, "val": is_val, "test": is_test}
        return {part: np.flatnonzero(mask) for part, mask in masks.items()}  # (N,) -> (N_part,)


@dataclass(frozen=True)
class LastPercent:
    """The last samples validate, those before train.

    Attributes:
        percent: Share that validates, 1 to 99; the number of samples is rounded down.
    """

    percent: int

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 99:
            raise SplitError(f"'{self}': the percentage is a whole number from 1 to 99")

    def __str__(self) -> str:
        return f"last:{self.percent}"

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts "train" and "val".

        Raises:
            SplitError: If there are too few samples for one in each part.
        """
        n_val = n_samples * self.percent // 100
        # Never all of them: the percentage is below 100.
        if n_val == 0:
            n_needed = -(-100 // self.percent)
            raise SplitError(
                f"'{self}' leaves the validation set empty: it needs at least {n_needed} frames, there are {n_samples}"
            )
        train, val = np.split(np.arange(n_samples), [n_samples - n_val])  # (N,) -> (N_train,), (N_val,)
        return {"train": train, "val": val}


@dataclass(frozen=True)
class NoSplit:
    """All samples stay together."""

    def __str__(self) -> str:
        return "none"

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns all indices as the part `ALL_PART`.

        Raises:
            SplitError: If there are no samples.
        """
        if n_samples < 1:
            raise SplitError("there are no frames")
        return {ALL_PART: np.arange(n_samples)}


Split = Blocks | LastPercent | NoSplit


def parse_split(text: str) -> Split:
    """Returns the split that `text` describes: "blocks:M:K", "last:P" or "none".

    Raises:
        SplitError: If it describes none; the text says what is possible.
    """
    if text == "none":
        return NoSplit()
    if match := re.fullmatch(r"blocks:(\d{1,9}):(\d{1,9})", text, re.ASCII):
        return Blocks(size=int(match[1]), every=int(match[2]))
    if match := re.fullmatch(r"last:(\d{1,9})", text, re.ASCII):
        return LastPercent(int(match[1]))
    raise SplitError(f"{text!r} is not a split: {_USAGE}")
