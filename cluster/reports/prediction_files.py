"""Errors of other methods, from files of their predictions. The readers of such files need torch."""

from pathlib import Path

import numpy as np

from cluster.logged import Numbers
from cluster.reports.figures.curves import Measure
from cluster.reports.figures.style import FigureError
from data_pipeline.formats.catalogue import format_for


def errors_of(predictions: Path, labels: Path, measure: Measure, format: str | None) -> Numbers:
    """Returns the errors of predicted poses, mm, a number a frame, or of `joint` a number for each joint of each frame.

    Args:
        predictions: A file in a format of `predict.py`.
        labels: The true poses of the same frames in the same order.
        measure: A frame's error: of its worst joint, the mean over its joints, or of each joint.
        format: The name of both files' format; None where they tell it by their endings or first lines.

    Raises:
        FormatError: If a file is missing or broken, or does not tell its format.
        FigureError: If one has other frames or joints than the other.
    """
    given, true = (
        np.concatenate([frames.poses for frames in format_for(path, format).read(path)])
        for path in (predictions, labels)
    )  # (N, J, 3) each, mm
    if given.shape != true.shape:
        raise FigureError(
            f"{predictions} has {len(given):,} frames of {given.shape[1]} joints, {labels} has {len(true):,} of "
            f"{true.shape[1]}; needed are the same frames"
        )
    distances = np.linalg.norm(given.astype(np.float64) - true, axis=2)  # (N, J)
    by_measure = {"worst": distances.max(axis=1), "mean": distances.mean(axis=1), "joint": distances.ravel()}
    errors: Numbers = by_measure[measure]
    return errors
