"""Folds of split datasets: finds their sets in the data folder, and checks that each frame is tested once."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cluster.planning.config import ConfigError, Problem
from cluster.planning.inputs import Inputs
from cluster.planning.search_space import FoldName, SearchSpace
from data_pipeline.dataset_name import fold_name
from data_pipeline.frame_table import group_codes
from data_pipeline.pose_dataset import PoseDataset, dataset_names
from data_pipeline.words import count, first_of, listed

PATHS = tuple(f"experiment_config.{split}_set" for split in ("train", "val", "test"))
"""The settings that vary from fold to fold."""

_WHERE = "add_folds"
_PARTS = ("train", "val", "test")
_SHOWN = 10
_MAX_INDEX = 2**31  # of a frame in its sequence, see `FrameTable`

_MAKE = (
    "`posetune prepare-data split DATASET … --folds` makes the sets of all folds, of a split with a validation set; so "
    "do `import` and `leaderboard`"
)


def find_folds(data_folder: Path, names: Sequence[str]) -> dict[FoldName, tuple[str, ...]]:
    """Returns the training, validation and test set of each fold, in the order of `names` and folds.

    Args:
        data_folder: The folder with the datasets.
        names: Split datasets: `NAME` for the sets `NAME_fold1_train`, `NAME_fold1_val`, `NAME_fold1_test`,
            `NAME_fold2_train`, ...

    Raises:
        ConfigError: With a problem for each name that has no folds, or whose folds lack a set.
    """
    existing = set(dataset_names(data_folder))
    matches = [re.fullmatch(r"(.+)_fold([1-9]\d*)_(?:train|val|test)", name) for name in sorted(existing)]
    numbers: dict[str, set[int]] = {}
    for match in filter(None, matches):
        numbers.setdefault(match[1], set()).add(int(match[2]))
    found: dict[FoldName, tuple[str, ...]] = {}
    problems = []
    for name in names:
        if name not in numbers:
            has = f"these have folds: {first_of(list(numbers), _SHOWN)}" if numbers else "no dataset there has folds"
            text = f"{data_folder} has no folds of {name!r}, such as {fold_name(name, 1)}_train; {has}. {_MAKE}"
            problems.append(Problem(_WHERE, text))
            continue
        last = max(numbers[name])
        sets = {
            FoldName(name, number): tuple(f"{fold_name(name, number)}_{part}" for part in _PARTS)
            for number in range(1, last + 1)
        }
        missing = [one for of_fold in sets.values() for one in of_fold if one not in existing]
        if missing:
            text = f"the folds of {name} go up to {last}, but {data_folder} has no {first_of(missing, _SHOWN)}"
            problems.append(Problem(_WHERE, f"{text}. Make all folds again: {_MAKE}"))
        elif last == 1:
            problems.append(Problem(_WHERE, f"{name} has only one fold; it takes at least two to test all frames"))
        found |= sets
    if problems:
        raise ConfigError(problems)
    return found


def check_folds(space: SearchSpace, inputs: Inputs) -> list[str]:
    """Checks the frames of all folds, as far as their sequences are known.

    Args:
        space: The search space.
        inputs: Has read all sets.

    Returns:
        A warning for each dataset with frames that no fold tests.

    Raises:
        ConfigError: If two folds of a dataset test the same frame, so that they are not of the same split.
    """
    warnings, problems = [], []
    for name, sets in _sets_of_datasets(space).items():
        read = {key.name: dataset for key, dataset in sorted(inputs.sets.items(), key=lambda item: len(item[1]))}
        frames = _numbered({one: read[one] for of_fold in sets for one in of_fold})
        if frames is None:
            continue
        all_tested = np.concatenate([frames[test] for _, _, test in sets])
        if len(np.unique(all_tested)) < len(all_tested):
            problems.append(Problem(_WHERE, _tested_twice(name, {test: frames[test] for _, _, test in sets})))
        others = np.unique(np.concatenate([frames[one] for train, val, _ in sets for one in (train, val)]))
        n_untested = len(np.setdiff1d(others, all_tested))
        if n_untested:
            are = "is" if n_untested == 1 else "are"
            text = f"{name}: {count(n_untested, 'frame')} of its training and validation sets {are} tested in no fold"
            warnings.append(f"{text}, so results are not about all frames.")
    if problems:
        raise ConfigError(problems)
    return warnings


def _sets_of_datasets(space: SearchSpace) -> dict[str, list[tuple[str, str, str]]]:
    """Returns the training, validation and test set of each fold, by the name of the split dataset."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for axis in space.axes:
        for fold, (train, val, test) in zip(axis.folds, axis.rows if axis.folds else (), strict=True):
            found.setdefault(fold.dataset, []).append((train, val, test))
    return found


def _numbered(sets: Mapping[str, PoseDataset]) -> dict[str, npt.NDArray[np.int64]] | None:
    """Returns numbers of the frames of each set, the same for the same frame; None if they are not known."""
    sequences, indices = [], []
    for dataset in sets.values():
        if dataset.frames.sequence is None or dataset.frames.index is None:
            return None
        sequences.append(dataset.frames.sequence)
        indices.append(dataset.frames.index)
    numbers = group_codes(np.concatenate(sequences)) * _MAX_INDEX + np.concatenate(indices)  # (N,) of all sets
    ends = np.cumsum([len(of_set) for of_set in indices])[:-1]
    return dict(zip(sets, np.split(numbers, ends), strict=True))


def _tested_twice(name: str, frames: Mapping[str, npt.NDArray[np.int64]]) -> str:
    tests = list(frames)
    pairs = [(a, b) for i, a in enumerate(tests) for b in tests[i + 1 :]]
    a, b = next((a, b) for a, b in pairs if np.intersect1d(frames[a], frames[b]).size)
    n = np.intersect1d(frames[a], frames[b]).size
    return (
        f"{listed([a, b])} have {count(n, 'frame')} in common, but the folds of a split test each frame once. The "
        f"folds of {name} are not of the same split: remove them, and make them again with "
        "`posetune prepare-data … --folds`"
    )
