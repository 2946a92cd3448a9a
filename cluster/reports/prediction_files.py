"""Errors of other methods on the same frames, from files of errors or of predictions. Predictions need torch."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from cluster.figures.curves import Measure
from cluster.figures.style import FigureError
from cluster.results.experiment_description import DataSet
from cluster.results.learning_curves import Numbers
from data_pipeline.files.regular import open_file


def read_errors(path: Path) -> Numbers:
    """Returns the errors in a file, mm, in its shape: one number per frame, or one per joint of each frame.

    Raises:
        FigureError: If the file is missing or contains something else.
    """
    _check_there(path)
    try:
        with open_file(path):  # numpy opens it by its name
            read = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
        found: Numbers = np.asarray(read, dtype=np.float64)
    except (OSError, TypeError, ValueError) as error:
        raise FigureError(f"{path} is not a file of errors with one number per frame: {error}") from error
    return found


def errors_of(predictions: Path, labels: Path, measure: Measure, format: str | None, *, force: bool = False) -> Numbers:
    """Returns the errors of predicted poses, mm: (N,), or for the measure `joint` each joint of each frame, (N, J).

    Args:
        predictions: A file in a format of `predict.py`.
        labels: The true poses of the same frames in the same order.
        measure: The error of a frame: that of its worst joint, the mean over its joints, or that of each joint.
        format: The name of the format of both files; None to detect it from their extensions or first lines.
        force: Accept files that seem to be in another unit.

    Raises:
        FormatError: If a file is broken, if its format cannot be detected, or if it seems to be in another unit.
        FigureError: If a file is missing, if the files have different frames or joints, or if torch is missing.
    """
    try:
        from data_pipeline.formats.catalogue import format_for
        from data_pipeline.formats.tensor_file import split_subset
        from data_pipeline.formats.units import require_hands
    except ImportError as error:
        raise FigureError(f"reading files of predictions needs the packages in requirements.txt: {error}") from error
    for path in (labels, predictions):
        _check_there(split_subset(path)[0])
    files = [(path, format_for(path, format)) for path in (predictions, labels)]
    given, true = (
        np.concatenate([frames.poses for frames in pose_format.read(path)]) for path, pose_format in files
    )  # (N, J, 3) each, mm
    if given.shape != true.shape:
        raise FigureError(
            f"{predictions} has {len(given):,} frames of {given.shape[1]} joints, {labels} has {len(true):,} of "
            f"{true.shape[1]}; both need the same frames"
        )
    if not force:
        for file, poses in zip(files, (given, true), strict=True):
            require_hands(*file, poses)
    distances = np.linalg.norm(given.astype(np.float64) - true, axis=2)  # (N, J)
    by_measure = {"worst": distances.max(axis=1), "mean": distances.mean(axis=1), "joint": distances}
    errors: Numbers = by_measure[measure]
    return errors


def sets_of_errors(
    path: Path, n_errors: int, data_sets: Collection[DataSet], n_joints: int | None
) -> Collection[DataSet]:
    """Returns the sets on which errors may have been measured: those with the right number of frames.

    Args:
        path: The file of the errors.
        n_errors: The number of errors.
        data_sets: The sets; a set with an unknown number of frames always fits.
        n_joints: The number of errors per frame, one for each joint; None for one error per frame.

    Raises:
        FigureError: If no set fits.
    """
    each = "each frame" if n_joints is None else f"each of the {n_joints} joints of each frame"
    return _fitting(path, f"{n_errors:,} errors", n_errors / (n_joints or 1), data_sets, f"an error for {each}")


def sets_of_predictions(path: Path, n_frames: int, data_sets: Collection[DataSet]) -> Collection[DataSet]:
    """Returns the sets to which predicted poses may belong, see `sets_of_errors`."""
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
