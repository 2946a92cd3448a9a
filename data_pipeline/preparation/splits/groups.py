"""Splits of whole groups of samples: those of a subject, a sequence or a cluster."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.frame_table import FrameTable, Names, group_codes, in_order
from data_pipeline.preparation.splits.listed import read_numbers
from data_pipeline.preparation.splits.split import PARTS, Indices, Split
from data_pipeline.user_error import UserError
from data_pipeline.words import first_of

_SHOWN = 30  # names in an error


@dataclass(frozen=True)
class ByGroup(Split):
    """Whole groups of samples are for testing and validation, the others for training.

    Each fold tests other groups, as many as the split itself, in order of appearance. If whole groups are for
    validation, a fold takes as many of those that follow.

    Attributes:
        kind: "subjects", "sequences" or "clusters".
        val: The groups for validation; or a percentage: the last samples of each group that is not tested.
        test: The groups for testing; empty for no test part.
        gap: With a percentage, the samples of each group that are left out between training and validation.
        path: For clusters, a text file with the cluster of each sample, a number of at least 0, one per line; text
            after `#` is a comment.
    """

    kind: str
    val: tuple[str, ...] | int
    test: tuple[str, ...] = ()
    gap: int = 0
    path: Path | None = None

    def __post_init__(self) -> None:
        named = [*(() if isinstance(self.val, int) else self.val), *self.test]
        repeated = sorted({name for name in named if named.count(name) > 1})
        if repeated:
            raise UserError(f"'{self}' names {_join(repeated)} more than once; each {self._one} belongs to one part")
        if isinstance(self.val, int) and not 1 <= self.val <= 99:
            raise UserError(f"'{self}': the percentage must be a whole number from 1 to 99")
        if self.gap and not isinstance(self.val, int):
            raise UserError(f"'{self}': GAP is for validation by a percentage, such as {self.kind}:20%:…")

    def __str__(self) -> str:
        val = f"{self.val}%" if isinstance(self.val, int) else ",".join(self.val)
        fields = [self.kind, None if self.path is None else str(self.path), val, ",".join(self.test) or None]
        return ":".join(field for field in [*fields, str(self.gap) if self.gap else None] if field is not None)

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return PARTS if self.test else PARTS[:2]

    def parts(self, n_samples: int, frames: FrameTable | None = None, fold: int = 0) -> dict[str, Indices]:
        """Returns the indices of the parts "train", "val" and, if it has groups, "test"."""
        groups = self._groups(n_samples, frames)
        val, test = self._of_fold(in_order(groups), fold)
        is_test = np.isin(groups, test)  # (N,)
        if isinstance(val, int):
            is_val, is_train = self._ends(groups, ~is_test, val)
        else:
            is_val = np.isin(groups, val)
            is_train = ~is_val & ~is_test
        masks = {"train": is_train, "val": is_val} | ({"test": is_test} if self.test else {})
        if not is_train.any():
            reason = (
                "GAP is too large" if isinstance(val, int) and not is_test.all() else f"there are no other {self.kind}"
            )
            raise UserError(f"'{self}' leaves the training set empty: {reason}")
        if not is_val.any():
            raise UserError(f"'{self}' leaves the validation set empty: the percentage is too small for so few frames")
        return {part: np.flatnonzero(mask) for part, mask in masks.items()}  # (N,) -> (N_part,)

    def n_folds(self, n_samples: int, frames: FrameTable | None = None) -> int:
        """Returns how many times as many groups as the split tests there are."""
        if not self.test:
            raise UserError(f"'{self}' has no test part, and folds are for testing; name {self.kind} to test")
        names = in_order(self._groups(n_samples, frames))
        return -(-len(names) // len(self.test))

    def _of_fold(self, names: list[str], fold: int) -> tuple[list[str] | int, list[str]]:
        """Returns the groups for validation, or their percentage, and those for testing."""
        if fold == 0:
            return (self.val if isinstance(self.val, int) else [*self.val]), [*self.test]
        others = [name for name in names if name not in self.test]
        start = (fold - 1) * len(self.test)
        test = others[start : start + len(self.test)]
        if isinstance(self.val, int):
            return self.val, test
        last = names.index(test[-1])
        following = [name for name in [*names[last + 1 :], *names[: last + 1]] if name not in test]
        return following[: len(self.val)], test

    def _ends(self, groups: Names, mask: np.ndarray, percent: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the last samples of each group in a mask, (N,), and those that precede them at a distance."""
        rows = np.flatnonzero(mask)
        is_val, is_train = np.zeros((2, len(groups)), np.bool_)  # (N,) each
        codes = group_codes(groups[rows])
        order = rows[np.argsort(codes, kind="stable")]
        for group in np.split(order, np.cumsum(np.bincount(codes))[:-1]):
            n_val = len(group) * percent // 100
            is_val[group[len(group) - n_val :]] = True
            gap = self.gap if n_val else 0
            is_train[group[: max(0, len(group) - n_val - gap)]] = True
        return is_val, is_train

    @property
    def _one(self) -> str:
        return self.kind.removesuffix("s")

    def _groups(self, n_samples: int, frames: FrameTable | None) -> Names:
        """Returns the group of each sample, (N,)."""
        if self.path is not None:
            groups = np.array([str(number) for number in read_numbers(self.path)], np.object_)
            if len(groups) != n_samples:
                raise UserError(
                    f"{self.path} has the clusters of {len(groups)} frames, but there are {n_samples}; it must be made "
                    "from the same dataset"
                )
            source = f"{self.path}"
        else:
            column = None if frames is None else getattr(frames, self._one)
            if column is None:
                raise UserError(
                    f"'{self}': the {self.kind} of these frames are not known; add them to the dataset's "
                    "NAME_frames.parquet, or group frames with the command `clusters`"
                )
            groups, source = column, "the dataset"
        names = in_order(groups)
        absent = [name for name in (*(() if isinstance(self.val, int) else self.val), *self.test) if name not in names]
        if absent:
            raise UserError(f"{source} has no {self._one} {_join(absent)}; it has {first_of(_natural(names), _SHOWN)}")
        return groups


def _natural(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (len(name), name))


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
