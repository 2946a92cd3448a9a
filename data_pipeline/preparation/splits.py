"""Splits: which samples of a sequence train, which validate and which test.

Neighbouring frames of a sequence are nearly alike, so a split never draws single frames: it takes the end of
the sequence, whole blocks of it, whole clusters (such as all frames of a subject), or what a file lists. A split is
written as a short text, such as `blocks:100:5`.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.user_error import UserError

Indices = npt.NDArray[np.int64]

PARTS = ("train", "val", "test")
"""The names of the parts."""

ALL_PART = "all"
"""The only part where nothing is split."""

SPELLINGS = """\
blocks:M:K        blocks of M frames; of every K the last validates, the one in the middle tests
last:P            the last P percent validate
last:P:Q          the last Q percent test, the P percent before them validate
clusters:F:V      of the clusters that the file F has, one number for each frame, as the command clusters writes
                  it: the frames of clusters V validate; V is a number or several, such as 3,5
clusters:F:V:T    the frames of clusters T test
indices:F         frames by their number, counted from 0. F is JSON, {"train": [0, 1], "val": [...], "test": [...]},
                  where a part may be missing and what is not listed is left out; or text with a number on each
                  line: these validate, the others train
none              a single dataset"""
"""What a split may be, one a line, for a help text."""

_USAGE = (
    "a split is 'blocks:M:K' (blocks of M frames; of every K the last validates and the one in the middle "
    "tests), 'last:P' or 'last:P:Q' (the last Q percent test, the P percent before them validate), 'clusters:FILE:V' "
    "or 'clusters:FILE:V:T' (the clusters with the numbers V validate, those with T test), 'indices:FILE' (the frames "
    "that a file lists) or 'none', for example 'blocks:100:5' or 'last:20'"
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

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return PARTS

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
    """The last samples test, those before them validate, those before these train.

    Attributes:
        percent: Share that validates, from 1 on; the number of samples is rounded down.
        test_percent: Share that tests, likewise, or None for no such part; both together are at most 99.
    """

    percent: int
    test_percent: int | None = None

    def __post_init__(self) -> None:
        shares = [self.percent] if self.test_percent is None else [self.percent, self.test_percent]
        if not all(1 <= share <= 99 for share in shares):
            raise SplitError(f"'{self}': the percentage is a whole number from 1 to 99")
        if sum(shares) > 99:
            raise SplitError(f"'{self}' leaves the training set empty: both shares together are at most 99 percent")

    def __str__(self) -> str:
        return f"last:{self.percent}" if self.test_percent is None else f"last:{self.percent}:{self.test_percent}"

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return PARTS[:2] if self.test_percent is None else PARTS

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts "train", "val" and, where it has a share, "test".

        Raises:
            SplitError: If there are too few samples for one in each part.
        """
        shares = {"val": self.percent} | ({} if self.test_percent is None else {"test": self.test_percent})
        sizes = {part: n_samples * share // 100 for part, share in shares.items()}
        # The training set never is empty: the shares' sum is below 100.
        for part, size in sizes.items():
            if size == 0:
                n_needed = -(-100 // min(shares.values()))
                raise SplitError(
                    f"'{self}' leaves the {'validation' if part == 'val' else 'test'} set empty: it needs at least "
                    f"{n_needed} frames, there are {n_samples}"
                )
        ends = n_samples - np.cumsum([*reversed(sizes.values())])[::-1]
        indices = np.split(np.arange(n_samples), ends)  # (N,) -> (N_train,), (N_val,), ...
        return dict(zip(["train", *sizes], indices, strict=True))


@dataclass(frozen=True)
class ByCluster:
    """Whole clusters of samples validate and test, the others train.

    Attributes:
        path: A text file with the number of a cluster, 0 or larger, for each sample, one a line; what follows a
            `#` is a comment.
        val: The clusters that validate, at least one.
        test: The clusters that test; empty for no such part.
    """

    path: Path
    val: tuple[int, ...]
    test: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        named = [*self.val, *self.test]
        twice = sorted({number for number in named if named.count(number) > 1})
        if twice:
            raise SplitError(f"'{self}' names {_listed(twice)} twice; each cluster belongs to one part")

    def __str__(self) -> str:
        numbers = [",".join(map(str, clusters)) for clusters in (self.val, self.test) if clusters]
        return ":".join(["clusters", str(self.path), *numbers])

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return PARTS if self.test else PARTS[:2]

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts "train", "val" and, where it has clusters, "test".

        Raises:
            SplitError: If the file cannot be read, has another number of samples, or lacks a named cluster; or if no
                cluster is left to train.
        """
        clusters = _read_numbers(self.path)
        if len(clusters) != n_samples:
            raise SplitError(
                f"{self.path} has the clusters of {len(clusters)} frames, but there are {n_samples}; it has to be made "
                "from the same dataset"
            )
        has = np.unique(clusters).tolist()
        absent = [number for number in (*self.val, *self.test) if number not in has]
        if absent:
            raise SplitError(f"{self.path} has no cluster {_listed(absent)}; it has {_listed(has)}")
        is_val, is_test = np.isin(clusters, self.val), np.isin(clusters, self.test)  # (N,) each
        masks = {"train": ~is_val & ~is_test, "val": is_val} | ({"test": is_test} if self.test else {})
        if not masks["train"].any():
            raise SplitError(f"'{self}' leaves the training set empty: {self.path} has no other clusters")
        return {part: np.flatnonzero(mask) for part, mask in masks.items()}  # (N,) -> (N_part,)


@dataclass(frozen=True)
class ByIndex:
    """The parts are what a file says.

    Attributes:
        path: A JSON file, if its name ends in `.json`: an object with a list of indices for each part; samples that it
            does not list are in no part. Else a text file with the index of a validating sample on each line; the
            others train. Indices are counted from 0.
    """

    path: Path

    def __str__(self) -> str:
        return f"indices:{self.path}"

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts, which a JSON file tells.

        Raises:
            SplitError: If it cannot be read.
        """
        return tuple(_read_parts(self.path)) if self._is_json else PARTS[:2]

    @property
    def _is_json(self) -> bool:
        return self.path.suffix.lower() == ".json"

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts.

        Raises:
            SplitError: If the file cannot be read, or if it lists a sample that there is not, or one twice, or leaves a
                part without samples.
        """
        listed = _read_parts(self.path) if self._is_json else {"val": _read_numbers(self.path)}
        samples, times = np.unique(np.concatenate(list(listed.values())), return_counts=True)
        if (times > 1).any():
            sample = samples[np.argmax(times > 1)]
            where = " and ".join(part for part, indices in listed.items() if sample in indices)
            raise SplitError(f"{self.path} lists sample {sample} more than once, in {where}")
        if samples.size and not 0 <= samples[0] <= samples[-1] < n_samples:
            outside = samples[0] if samples[0] < 0 else samples[-1]
            raise SplitError(f"{self.path} lists sample {outside}, but there are {n_samples}, counted from 0")
        if not self._is_json:
            listed = {"train": np.setdiff1d(np.arange(n_samples), samples), **listed}
        empty = [part for part, indices in listed.items() if len(indices) == 0]
        if empty:
            raise SplitError(f"{self.path} leaves the part {empty[0]!r} without samples")
        return {part: np.sort(indices) for part, indices in listed.items()}


@dataclass(frozen=True)
class NoSplit:
    """All samples stay together."""

    def __str__(self) -> str:
        return "none"

    @property
    def part_names(self) -> tuple[str, ...]:
        """The name of the only part."""
        return (ALL_PART,)

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns all indices as the part `ALL_PART`.

        Raises:
            SplitError: If there are no samples.
        """
        if n_samples < 1:
            raise SplitError("there are no frames")
        return {ALL_PART: np.arange(n_samples)}


Split = Blocks | LastPercent | ByCluster | ByIndex | NoSplit


def parse_split(text: str) -> Split:
    """Returns the split that `text` describes; `SPELLINGS` has what is possible. Files are not opened.

    Raises:
        SplitError: If it describes none; the text says what is possible.
    """
    if text == "none":
        return NoSplit()
    if match := re.fullmatch(r"blocks:(\d{1,9}):(\d{1,9})", text, re.ASCII):
        return Blocks(size=int(match[1]), every=int(match[2]))
    if match := re.fullmatch(r"last:(\d{1,9})(?::(\d{1,9}))?", text, re.ASCII):
        return LastPercent(int(match[1]), None if match[2] is None else int(match[2]))
    numbers = r"\d{1,9}(?:,\d{1,9})*"
    if match := re.fullmatch(rf"clusters:(.+?):({numbers})(?::({numbers}))?", text, re.ASCII):
        val, test = (tuple(map(int, (group or "").split(","))) if group else () for group in match.groups()[1:])
        return ByCluster(Path(match[1]), val, test)
    if match := re.fullmatch(r"indices:(.+)", text):
        return ByIndex(Path(match[1]))
    raise SplitError(f"{text!r} is not a split: {_USAGE}")


def _read_numbers(path: Path) -> Indices:
    """Returns the whole numbers of a text file, one a line, without its comments."""
    numbers = []
    for i, line in enumerate(_read_text(path).splitlines(), start=1):
        token = line.partition("#")[0].strip()
        if re.fullmatch(r"\d{1,18}", token, re.ASCII):
            numbers.append(int(token))
        elif token:
            raise SplitError(f"{path}, line {i}: {token[:30]!r} is no whole number; a line has one, 0 or larger")
    if not numbers:
        raise SplitError(f"{path} has no number; it needs one on each line")
    return np.array(numbers, np.int64)


def _read_parts(path: Path) -> dict[str, Indices]:
    """Returns the lists of a JSON file, in the order of `PARTS`."""
    try:
        content: Any = json.loads(_read_text(path), object_pairs_hook=partial(_object, path))
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict) or not content or not content.keys() <= set(PARTS):
        has = (
            f"an object with {', '.join(content) or 'nothing'}" if isinstance(content, dict) else type(content).__name__
        )
        raise SplitError(f"{path} holds {has}; needed is an object with lists named {', '.join(PARTS)}")
    for part, indices in content.items():
        if not isinstance(indices, list) or not all(type(index) is int and abs(index) < 2**62 for index in indices):
            raise SplitError(f"{path}: {part!r} is no list of whole numbers")
    return {part: np.array(content[part], np.int64) for part in PARTS if part in content}


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):  # of a key that comes twice Python would keep the last
        raise SplitError(f"{path} has the keys {', '.join(key for key, _ in pairs)}; each part may come once")
    return dict(pairs)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SplitError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SplitError(f"{path} is no text: {error.reason}") from error


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
