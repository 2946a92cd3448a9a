"""Errors of other methods on the same frames, from files of errors or of predictions, which need torch."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from cluster.figures.curves import Measure
from cluster.figures.style import FigureError
from cluster.results.learning_curves import Numbers
from cluster.results.results import DataSet


def read_errors(path: Path) -> Numbers:
    """Returns the errors in a file, mm, in the shape that it has: a number a frame, or a number for each joint of each.

    Raises:
        FigureError: If the file is missing or holds something else.
    """
    _check_there(path)
    try:
        read = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
        found: Numbers = np.asarray(read, dtype=np.float64)
    except (OSError, TypeError, ValueError) as error:
        raise FigureError(f"{path} is not a file of errors with one number per frame: {error}") from error
    return found


def errors_of(predictions: Path, labels: Path, measure: Measure, format: str | None) -> Numbers:
    """Returns the errors of predicted poses, mm, (N,), or of `joint` a number for each joint of each frame, (N, J).

    Args:
        predictions: A file in a format of `predict.py`.
        labels: The true poses of the same frames in the same order.
        measure: A frame's error: of its worst joint, the mean over its joints, or of each joint.
        format: The name of both files' format; None where they tell it by their endings or first lines.

    Raises:
        FormatError: If a file is broken, or does not tell its format.
        FigureError: If a file is missing, if one has other frames or joints than the other, or if torch is missing.
    """
    try:
        from data_pipeline.formats.catalogue import format_for
        from data_pipeline.formats.tensor_file import split_subset
    except ImportError as error:
        raise FigureError(f"reading files of predictions needs the packages in requirements.txt: {error}") from error
    for path in (labels, predictions):
        _check_there(split_subset(path)[0])
    given, true = (
        np.concatenate([frames.poses for frames in format_for(path, format).read(path)])
        for path in (predictions, labels)
    )  # (N, J, 3) each, mm
    if given.shape != true.shape:
        raise FigureError(
            f"{predictions} has {len(given):,} frames of {given.shape[1]} joints, {labels} has {len(true):,} of "
            f"{true.shape[1]}; both need the same frames"
        )
    distances = np.linalg.norm(given.astype(np.float64) - true, axis=2)  # (N, J)
    by_measure = {"worst": distances.max(axis=1), "mean": distances.mean(axis=1), "joint": distances}
    errors: Numbers = by_measure[measure]
    return errors


def sets_of_errors(
    path: Path, n_errors: int, data_sets: Collection[DataSet], n_joints: int | None
) -> Collection[DataSet]:
    """Returns on which of some sets errors may have been measured: those with as many frames.

    Args:
        path: The file that they are of.
        n_errors: How many there are.
        data_sets: The sets; one whose frames are not known fits whatever the number.
        n_joints: Of how many joints each frame has an error; None for one error a frame.

    Raises:
        FigureError: If none fits.
    """
    each = "each frame" if n_joints is None else f"each of the {n_joints} joints of each frame"
    return _fitting(path, f"{n_errors:,} errors", n_errors / (n_joints or 1), data_sets, f"an error for {each}")


def sets_of_predictions(path: Path, n_frames: int, data_sets: Collection[DataSet]) -> Collection[DataSet]:
    """Returns of which of some sets predicted poses may be, see `sets_of_errors`."""
    return _fitting(path, f"{n_frames:,} frames", n_frames, data_sets, "a pose for each frame")


def _fitting(path: Path, has: str, n: float, data_sets: Collection[DataSet], needed: str) -> Collection[DataSet]:
    fitting = [found for found in data_sets if found.n_frames in (None, n)]
    if data_sets and not fitting:
        listed = ", ".join(f"{found.name} has {found.n_frames:,} frames" for found in data_sets)
        raise FigureError(f"{path} has {has}, {listed}; it needs {needed} of the same set")
    return fitting


def _check_there(path: Path) -> None:
    if not path.exists():
        raise FigureError(f"there is no file {path}")
