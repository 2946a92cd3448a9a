"""Splits that follow the order of the samples: blocks, or the end."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.frame_table import FrameTable
from data_pipeline.preparation.splits.split import PART_WORDS, PARTS, Indices, Split, distant_parts
from data_pipeline.user_error import UserError


@dataclass(frozen=True)
class Blocks(Split):
    """Groups of blocks of consecutive samples; one block of each group is for validation and one for testing.

    Counted from 0, block `every` − 1 is for validation and block `every` // 2 for testing; the others are for training.
    Each fold moves both by one block.

    Attributes:
        size: Samples in a block, at least 1; the very last block may have fewer.
        every: Blocks in a group, at least 3, so that each part gets one.
        gap: Samples that are left out on each side of validation and test blocks. Test blocks stay whole: a validation
            block next to one loses its own samples.
    """

    size: int
    every: int
    gap: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"'{self}': a block has at least 1 frame")
        if self.every < 3:
            raise UserError(f"'{self}': training, validation and test need at least 3 blocks, so K must be at least 3")

    def __str__(self) -> str:
        return f"blocks:{self.size}:{self.every}" + (f":{self.gap}" if self.gap else "")

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return PARTS

    def parts(self, n_samples: int, frames: FrameTable | None = None, fold: int = 0) -> dict[str, Indices]:
        """Returns the indices of the parts "train", "val" and "test"."""
        # Checked before any array is made, so sizes beyond int64 are rejected too.
        n_needed = self.size * (self.every - 1) + 1
        if n_samples < n_needed:
            raise UserError(
                f"'{self}' leaves the validation set empty: it needs at least {n_needed} frames, there are {n_samples}"
            )
        position = (np.arange(n_samples) // self.size - fold) % self.every  # (N,)
        is_val = position == self.every - 1
        is_test = position == self.every // 2
        parts = distant_parts({"train": ~is_val & ~is_test, "val": is_val, "test": is_test}, self.gap)
        for part, indices in parts.items():
            if len(indices) == 0:
                raise UserError(
                    f"'{self}' leaves the {PART_WORDS[part]} set empty: GAP is too large for blocks of {self.size} "
                    "frames"
                )
        return parts

    def n_folds(self, n_samples: int, frames: FrameTable | None = None) -> int:
        """Returns K: each block of a group is tested once."""
        return self.every


@dataclass(frozen=True)
class LastPercent(Split):
    """The last samples are for testing, those before them for validation, the rest for training.

    Each fold tests the samples before those of the fold before it; validation samples that would be before the first
    sample are taken from the end.

    Attributes:
        percent: Percentage for validation; the number of samples is rounded down. 0 for no validation part.
        test_percent: Percentage for testing, at least 1; None for no test part. Both together are from 1 to 99.
        gap: Samples that are left out on each side of test samples, and between training and validation samples.
    """

    percent: int
    test_percent: int | None = None
    gap: int = 0

    def __post_init__(self) -> None:
        last = self.percent if self.test_percent is None else self.test_percent
        if not 0 <= self.percent <= 99 or not 1 <= last <= 99:
            raise UserError(f"'{self}': the percentage must be a whole number from 1 to 99")
        if sum(self._shares.values()) > 99:
            raise UserError(f"'{self}' leaves the training set empty: both percentages must sum to at most 99")

    def __str__(self) -> str:
        numbers = [self.percent, self.test_percent, self.gap or None]
        return ":".join(["last", *(str(number) for number in numbers if number is not None)])

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return ("train", *self._shares)

    def parts(self, n_samples: int, frames: FrameTable | None = None, fold: int = 0) -> dict[str, Indices]:
        """Returns the indices of "train" and of the parts that have a percentage, "val" and "test"."""
        n_val, n_test = self._sizes(n_samples)
        tested_later = fold * n_test
        n_test = min(n_test, n_samples - tested_later)  # of the last fold, what is left
        # How many samples there are from each one to the end of the fold's test samples; after them it goes on with the
        # last sample.
        from_end = (n_samples - 1 - tested_later - np.arange(n_samples)) % n_samples  # (N,)
        is_test = from_end < n_test
        is_val = ~is_test & (from_end < n_test + n_val)
        parts = distant_parts({"train": ~is_val & ~is_test, "val": is_val, "test": is_test}, self.gap)
        for part in self.part_names:
            if len(parts[part]) == 0:
                raise UserError(
                    f"'{self}' leaves the {PART_WORDS[part]} set empty: GAP is too large for {n_samples} frames"
                )
        return {part: parts[part] for part in self.part_names}

    def n_folds(self, n_samples: int, frames: FrameTable | None = None) -> int:
        """Returns how many test parts there are in N samples."""
        if self.test_percent is None:
            raise UserError(f"'{self}' has no test part, and folds are for testing; give 'last:P:Q'")
        return -(-n_samples // self._sizes(n_samples)[1])

    @property
    def _shares(self) -> dict[str, int]:
        """The percentages of the parts other than "train"."""
        shares = {"val": self.percent, "test": self.test_percent}
        return {part: share for part, share in shares.items() if share}

    def _sizes(self, n_samples: int) -> tuple[int, int]:
        """Returns the numbers of validation and test samples."""
        sizes = {part: n_samples * share // 100 for part, share in self._shares.items()}
        # The training set is never empty, because the percentages sum to less than 100.
        for part, size in sizes.items():
            if size == 0:
                n_needed = -(-100 // min(self._shares.values()))
                raise UserError(
                    f"'{self}' leaves the {PART_WORDS[part]} set empty: it needs at least "
                    f"{n_needed} frames, there are {n_samples}"
                )
        return sizes.get("val", 0), sizes.get("test", 0)
