"""A split by the numbers of the samples, listed in a file."""

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.files.regular import read_file
from data_pipeline.frame_table import FrameTable
from data_pipeline.preparation.splits.split import PARTS, Indices, Split
from data_pipeline.user_error import UserError
from data_pipeline.words import listed


@dataclass(frozen=True)
class ByIndex(Split):
    """A file lists the samples of each part.

    Attributes:
        path: A JSON file, if its name ends in `.json`: an object with a list of indices for each part, or a list of
            such objects, one for each fold; samples that are not listed are dropped. Otherwise a text file with the
            index of a validation sample on each line; the others are for training. Indices are counted from 0.
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
        return tuple(_read_folds(self.path)[0]) if self._is_json else PARTS[:2]

    @property
    def _is_json(self) -> bool:
        return self.path.suffix.lower() == ".json"

    def parts(self, n_samples: int, frames: FrameTable | None = None, fold: int = 0) -> dict[str, Indices]:
        """Returns the indices of the parts that the file has."""
        named = _read_folds(self.path)[fold] if self._is_json else {"val": read_numbers(self.path)}
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

    def n_folds(self, n_samples: int, frames: FrameTable | None = None) -> int:
        """Returns the number of objects in a JSON file."""
        folds = _read_folds(self.path) if self._is_json else []
        tested = [fold["test"] for fold in folds if "test" in fold]
        if len(folds) < 2 or len(tested) < len(folds):
            raise UserError(
                f"{self.path} has no folds; they are a JSON list of at least two objects with 'train', 'val' and 'test'"
            )
        samples, times = np.unique(np.concatenate(tested), return_counts=True)
        if (times > 1).any():
            raise UserError(f"{self.path} tests sample {samples[np.argmax(times > 1)]} in more than one fold")
        return len(folds)


def read_numbers(path: Path) -> Indices:
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


def _read_folds(path: Path) -> list[dict[str, Indices]]:
    """Returns the parts of each fold in a JSON file, in the order of `PARTS`; an object is a single fold."""
    try:
        content: Any = json.loads(_read_text(path), object_pairs_hook=partial(_object, path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    is_list = isinstance(content, list) and content and all(isinstance(fold, dict) for fold in content)
    return [_parts_of(fold, path) for fold in (content if is_list else [content])]


def _parts_of(content: Any, path: Path) -> dict[str, Indices]:
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
        return read_file(path).decode()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text: {error.reason}") from error
