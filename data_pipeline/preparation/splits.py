"""Splits a sequence of samples into training, validation and test parts.

Neighbouring frames of a sequence are nearly identical, so a split never draws single frames: it takes the end of the
sequence, whole blocks, whole clusters (such as all frames of a subject), or the frames listed in a file. A split is
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
from data_pipeline.words import listed

Indices = npt.NDArray[np.int64]

PARTS = ("train", "val", "test")
"""The names of the parts."""

_IN_WORDS = {"train": "training", "val": "validation", "test": "test"}

ALL_PART = "all"
"""The only part of an unsplit dataset."""

SPLIT_SYNTAX = """\
blocks:M:K        blocks of M frames; of every K blocks the last is for validation, the middle one for testing
blocks:M:K:GAP    the same without the GAP frames on each side of validation and test blocks, which would be too similar
                  to them: these frames are in no part, and test blocks stay whole
last:P            the last P percent for validation
last:P:Q          the last Q percent for testing, the P percent before them for validation
clusters:F:V      clusters V for validation, where V is a number or a list such as 3,5. The file F has the cluster
                  of each frame, as written by the command `clusters`
clusters:F:V:T    in addition, clusters T for testing
indices:F         frames by number, counted from 0. F is JSON, {"train": [0, 1], "val": [...], "test": [...]}: a
                  part may be missing, and frames that are not listed are dropped. Or F is text with one number per
                  line: these frames are for validation, the others for training
none              a single dataset"""
"""The possible splits, for a help text."""

_USAGE = (
    "a split is 'blocks:M:K' (blocks of M frames; of every K blocks the last is for validation, the middle one for "
    "testing) or 'blocks:M:K:GAP' (without the GAP frames on each side of validation and test blocks), 'last:P' or "
    "'last:P:Q' (the last Q percent for testing, the P percent before them for validation), 'clusters:FILE:V' or "
    "'clusters:FILE:V:T' (clusters V for validation, clusters T for testing), 'indices:FILE' (the frames listed in a "
    "file) or 'none', for example 'blocks:500:5:50' or 'last:20'"
)


@dataclass(frozen=True)
class Blocks:
    """Groups of blocks of consecutive samples; one block of each group is for validation and one for testing.

    Counted from 0, block `every` − 1 is for validation and block `every` // 2 for testing; the others are for training.

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

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts "train", "val" and "test".

        Raises:
            UserError: If there are too few samples for one in each part, or if the gaps leave none.
        """
        # Checked before any array is made, so sizes beyond int64 are rejected too.
        n_needed = self.size * (self.every - 1) + 1
        if n_samples < n_needed:
            raise UserError(
                f"'{self}' leaves the validation set empty: it needs at least {n_needed} frames, there are {n_samples}"
            )
        position = np.arange(n_samples) // self.size % self.every  # (N,)
        is_val = position == self.every - 1
        is_test = position == self.every // 2
        masks = {
            "train": ~_within(self.gap, is_val | is_test),
            "val": is_val & ~_within(self.gap, is_test),
            "test": is_test,
        }
        for part, mask in masks.items():
            if not mask.any():
                raise UserError(
                    f"'{self}' leaves the {_IN_WORDS[part]} set empty: GAP is too large for blocks of {self.size} "
                    "frames"
                )
        return {part: np.flatnonzero(mask) for part, mask in masks.items()}  # (N,) -> (N_part,)


@dataclass(frozen=True)
class LastPercent:
    """The last samples are for testing, those before them for validation, the rest for training.

    Attributes:
        percent: Percentage for validation, at least 1; the number of samples is rounded down.
        test_percent: Percentage for testing, likewise; None for no test part. Both together are at most 99.
    """

    percent: int
    test_percent: int | None = None

    def __post_init__(self) -> None:
        shares = [self.percent] if self.test_percent is None else [self.percent, self.test_percent]
        if not all(1 <= share <= 99 for share in shares):
            raise UserError(f"'{self}': the percentage must be a whole number from 1 to 99")
        if sum(shares) > 99:
            raise UserError(f"'{self}' leaves the training set empty: both percentages must sum to at most 99")

    def __str__(self) -> str:
        return f"last:{self.percent}" if self.test_percent is None else f"last:{self.percent}:{self.test_percent}"

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return PARTS[:2] if self.test_percent is None else PARTS

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts "train", "val" and, if `test_percent` is given, "test".

        Raises:
            UserError: If there are too few samples for one in each part.
        """
        shares = {"val": self.percent} | ({} if self.test_percent is None else {"test": self.test_percent})
        sizes = {part: n_samples * share // 100 for part, share in shares.items()}
        # The training set is never empty, because the percentages sum to less than 100.
        for part, size in sizes.items():
            if size == 0:
                n_needed = -(-100 // min(shares.values()))
                raise UserError(
                    f"'{self}' leaves the {_IN_WORDS[part]} set empty: it needs at least "
                    f"{n_needed} frames, there are {n_samples}"
                )
        ends = n_samples - np.cumsum([*reversed(sizes.values())])[::-1]
        indices = np.split(np.arange(n_samples), ends)  # (N,) -> (N_train,), (N_val,), ...
        return dict(zip(["train", *sizes], indices, strict=True))


@dataclass(frozen=True)
class ByCluster:
    """Whole clusters of samples are for validation and testing, the others for training.

    Attributes:
        path: A text file with the cluster of each sample, a number of at least 0, one per line; text after `#` is a
            comment.
        val: The clusters for validation, at least one.
        test: The clusters for testing; empty for no test part.
    """

    path: Path
    val: tuple[int, ...]
    test: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        named = [*self.val, *self.test]
        repeated = sorted({number for number in named if named.count(number) > 1})
        if repeated:
            raise UserError(f"'{self}' names {_join(repeated)} more than once; each cluster belongs to one part")

    def __str__(self) -> str:
        numbers = [",".join(map(str, clusters)) for clusters in (self.val, self.test) if clusters]
        return ":".join(["clusters", str(self.path), *numbers])

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return PARTS if self.test else PARTS[:2]

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts "train", "val" and, if it has clusters, "test".

        Raises:
            UserError: If the file cannot be read, has another number of samples, or lacks a named cluster; or if no
                cluster is left for training.
        """
        clusters = _read_numbers(self.path)
        if len(clusters) != n_samples:
            raise UserError(
                f"{self.path} has the clusters of {len(clusters)} frames, but there are {n_samples}; it must be made "
                "from the same dataset"
            )
        has = np.unique(clusters).tolist()
        absent = [number for number in (*self.val, *self.test) if number not in has]
        if absent:
            raise UserError(f"{self.path} has no cluster {_join(absent)}; it has {_join(has)}")
        is_val, is_test = np.isin(clusters, self.val), np.isin(clusters, self.test)  # (N,) each
        masks = {"train": ~is_val & ~is_test, "val": is_val} | ({"test": is_test} if self.test else {})
        if not masks["train"].any():
            raise UserError(f"'{self}' leaves the training set empty: {self.path} has no other clusters")
        return {part: np.flatnonzero(mask) for part, mask in masks.items()}  # (N,) -> (N_part,)


@dataclass(frozen=True)
class ByIndex:
    """A file lists the samples of each part.

    Attributes:
        path: A JSON file, if its name ends in `.json`: an object with a list of indices for each part; samples that are
            not listed are dropped. Otherwise a text file with the index of a validation sample on each line; the
            others are for training. Indices are counted from 0.
    """

    path: Path

    def __str__(self) -> str:
        return f"indices:{self.path}"

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts.

        Raises:
            UserError: If a JSON file cannot be read.
        """
        return tuple(_read_parts(self.path)) if self._is_json else PARTS[:2]

    @property
    def _is_json(self) -> bool:
        return self.path.suffix.lower() == ".json"

    def parts(self, n_samples: int) -> dict[str, Indices]:
        """Returns the indices, ascending, of the parts.

        Raises:
            UserError: If the file cannot be read, lists a sample that does not exist or lists one twice, or leaves a
                part empty.
        """
        named = _read_parts(self.path) if self._is_json else {"val": _read_numbers(self.path)}
        samples, times = np.unique(np.concatenate(list(named.values())), return_counts=True)
        if (times > 1).any():
            sample = samples[np.argmax(times > 1)]
            where = listed([part for part, indices in named.items() if sample in indices])
            raise UserError(f"{self.path} lists sample {sample} more than once, in {where}")
        if samples.size and not 0 <= samples[0] <= samples[-1] < n_samples:
            outside = samples[0] if samples[0] < 0 else samples[-1]
            raise UserError(f"{self.path} lists sample {outside}, but there are {n_samples} samples, counted from 0")
        if not self._is_json:
            named = {"train": np.setdiff1d(np.arange(n_samples), samples), **named}
        empty = [part for part, indices in named.items() if len(indices) == 0]
        if empty:
            raise UserError(f"{self.path} leaves the part {empty[0]!r} without samples")
        return {part: np.sort(indices) for part, indices in named.items()}


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
            UserError: If there are no samples.
        """
        if n_samples < 1:
            raise UserError("there are no frames")
        return {ALL_PART: np.arange(n_samples)}


Split = Blocks | LastPercent | ByCluster | ByIndex | NoSplit


def parse_split(text: str) -> Split:
    """Parses a split as described by `SPLIT_SYNTAX`. Files are not opened.

    Raises:
        UserError: If `text` is not a split; the message lists the possible splits.
    """
    if text == "none":
        return NoSplit()
    if match := re.fullmatch(r"blocks:(\d{1,9}):(\d{1,9})(?::(\d{1,9}))?", text, re.ASCII):
        return Blocks(*(int(number) for number in match.groups("0")))
    if match := re.fullmatch(r"last:(\d{1,9})(?::(\d{1,9}))?", text, re.ASCII):
        return LastPercent(int(match[1]), None if match[2] is None else int(match[2]))
    numbers = r"\d{1,9}(?:,\d{1,9})*"
    if match := re.fullmatch(rf"clusters:(.+?):({numbers})(?::({numbers}))?", text, re.ASCII):
        val, test = (tuple(map(int, (group or "").split(","))) if group else () for group in match.groups()[1:])
        return ByCluster(Path(match[1]), val, test)
    if match := re.fullmatch(r"indices:(.+)", text):
        return ByIndex(Path(match[1]))
    raise UserError(f"{text!r} is not a split: {_USAGE}")


def _within(distance: int, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns which samples are at most `distance` samples away from one in the mask, (N,) -> (N,)."""
    places = np.arange(len(mask))
    sums = np.concatenate([[0], np.cumsum(mask)])  # (N + 1,)
    found: npt.NDArray[np.bool_] = (
        sums[np.minimum(places + distance + 1, len(mask))] > sums[np.maximum(places - distance, 0)]
    )
    return found


def _read_numbers(path: Path) -> Indices:
    """Returns the whole numbers of a text file, one per line, without comments."""
    numbers = []
    for i, line in enumerate(_read_text(path).splitlines(), start=1):
        token = line.partition("#")[0].strip()
        if re.fullmatch(r"\d{1,18}", token, re.ASCII):
            numbers.append(int(token))
        elif token:
            raise UserError(f"{path}, line {i}: {token[:30]!r} is not a whole number of at least 0")
    if not numbers:
        raise UserError(f"{path} has no numbers; expected one on each line")
    return np.array(numbers, np.int64)


def _read_parts(path: Path) -> dict[str, Indices]:
    """Returns the lists of a JSON file, in the order of `PARTS`."""
    try:
        content: Any = json.loads(_read_text(path), object_pairs_hook=partial(_object, path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not content or not content.keys() <= set(PARTS):
        has = (
            f"an object with {', '.join(content) or 'nothing'}" if isinstance(content, dict) else type(content).__name__
        )
        raise UserError(f"{path} holds {has}; expected an object with lists named {', '.join(PARTS)}")
    for part, indices in content.items():
        if not isinstance(indices, list) or not all(type(index) is int and abs(index) < 2**62 for index in indices):
            raise UserError(f"{path}: {part!r} is not a list of whole numbers")
    return {part: np.array(content[part], np.int64) for part in PARTS if part in content}


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):  # Python would keep only the last value of a repeated key
        raise UserError(f"{path} has the keys {', '.join(key for key, _ in pairs)}; each part may appear only once")
    return dict(pairs)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text: {error.reason}") from error


def _join(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
