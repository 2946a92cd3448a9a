"""Combines the trials of all folds of a split into one, as if a single trial had been tested on all frames."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]

DATASET = "experiment_config.dataset"
"""The column that replaces those of the sets: the name of the split dataset."""

SET_PATHS = tuple(f"experiment_config.{split}_set" for split in ("train", "val", "test"))
"""The settings that vary from fold to fold."""

_STATUSES = ("failed", "diverged", "interrupted", "pending")
"""What makes a repetition of all folds unfinished, the worst first."""


class Fold(NamedTuple):
    """One of the trained combinations that a combination with folds consists of.

    Attributes:
        number: The number of the fold, from 1.
        key: The key of the trained combination.
        n_frames: The frames of its validation and test set, by split.
        n_triples: How many times three frames of these are successive, by split.
    """

    number: int
    key: str
    n_frames: Mapping[str, int]
    n_triples: Mapping[str, int]


def combined_trial(rows: Sequence[Row], of_combination: Row, n_measured: Mapping[str, Sequence[int]]) -> Row:
    """Returns the row of a repetition of all folds.

    Each number is the mean over all frames of the folds: every fold counts with what it was measured on.

    Args:
        rows: The row of each fold in this repetition.
        of_combination: The columns that describe the combination.
        n_measured: For each column with a metric, on how many frames, or triples of frames, each fold was measured.
    """
    first, status = rows[0], combined_status([row["status"] for row in rows])
    is_finished = status == "finished"
    of_repetition: Row = {name: first[name] for name in ("repetition", "seed", "role") if name in first}
    row = {**of_combination, **of_repetition, "status": status}
    epochs = [fold["best_epoch"] for fold in rows]
    row["best_epoch"] = sum(epochs) / len(rows) if is_finished and None not in epochs else None
    for name, counts in n_measured.items():
        measured = [(fold[name], n) for fold, n in zip(rows, counts, strict=True) if n]
        is_known = is_finished and measured and all(value is not None for value, _ in measured)
        row[name] = mean_over_frames(*zip(*measured, strict=True)) if is_known else None
    seconds = [fold["train_seconds"] for fold in rows]
    row["train_seconds"] = None if None in seconds else sum(seconds)
    peaks = [fold["gpu_peak_gib"] for fold in rows]
    row["gpu_peak_gib"] = None if None in peaks else max(peaks)
    for name in ("node", "device", "gpu", "gpu_total_gib"):
        row[name] = first[name] if all(fold[name] == first[name] for fold in rows) else None
    row["error"] = next((fold["error"] for fold in rows if fold["status"] == status), None)
    return row


def key_of_folds(keys: Sequence[str]) -> str:
    """Returns the key of a combination with folds, from the keys of its folds."""
    return hashlib.sha256("/".join(keys).encode()).hexdigest()[:16]


def with_dataset(paths: Sequence[str], *, is_shown: bool = True) -> list[str]:
    """Returns option paths with `DATASET` in place of the sets, or with nothing in their place."""
    place = next((place for place, path in enumerate(paths) if path in SET_PATHS), 0)
    others = [[path for path in part if path not in SET_PATHS] for part in (paths[:place], paths[place:])]
    return [*others[0], *([DATASET] if is_shown else []), *others[1]]


def combined_status(statuses: Sequence[str]) -> str:
    """Returns the status of a repetition: finished if all folds are, otherwise that of the worst fold."""
    if "pending" in statuses and "finished" in statuses and not {"failed", "diverged"} & set(statuses):
        return "interrupted"
    return next((status for status in _STATUSES if status in statuses), "finished")


def mean_over_frames(values: Sequence[float], n_frames: Sequence[int]) -> float:
    """Returns the mean of a value of each fold, in which each frame counts the same."""
    return math.fsum(value * n for value, n in zip(values, n_frames, strict=True)) / sum(n_frames)
