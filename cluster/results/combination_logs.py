"""What combinations logged; of a combination with folds, the mean over its folds."""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from cluster.results.folds import Fold
from cluster.results.learning_curves import Curve, Logged, read_logged
from cluster.results.results import Results
from cluster.results.rows import Row
from cluster.storage.folders import ExperimentFolder


def read_combination_logs(
    folder: ExperimentFolder,
    results: Results,
    rows: Sequence[Row],
    *,
    split: str,
    is_metric: Callable[[str], bool],
    only_finished: bool = False,
) -> Logged:
    """Reads what some combinations logged, by the ids 'KEY/REPETITION' of the rows of `Results.trials`.

    With folds, final metrics are means over the frames of all folds, and learning curves are means over the folds; the
    validation errors among them are means over the frames of all validation sets. A repetition that lacks a fold is
    left out.

    Args:
        folder: The experiment's folder.
        results: The experiment's results.
        rows: The combinations, rows of the summary.
        split: As for `read_logged`.
        is_metric: As for `read_logged`.
        only_finished: Whether to read only finished repetitions.

    Raises:
        StorageError: If a file cannot be read.
    """
    keys = {row["key"] for row in rows}
    ids = [
        f"{row['key']}/{row['repetition']}"
        for row in results.trials
        if row["key"] in keys and (row["status"] == "finished" or not only_finished)
    ]
    wanted = {trained for trial_id in ids for trained in results.trained_ids(trial_id)}
    logged = read_logged(folder, split=split, wanted=wanted.__contains__, is_metric=is_metric)
    if not results.folds:
        return logged
    curves, final = {}, {}
    for trial_id in ids:
        trained, folds = results.trained_ids(trial_id), results.folds[trial_id.partition("/")[0]]
        if logged.curves.keys() >= set(trained):
            curves[trial_id] = _mean_curve([logged.curves[one] for one in trained], folds)
        if logged.final.keys() >= set(trained):
            n_frames = [fold.n_frames[split] for fold in folds]
            # (folds, M) -> (M,)
            final[trial_id] = np.average([logged.final[one] for one in trained], axis=0, weights=n_frames)
    return Logged(curves, logged.metrics, final)


def _mean_curve(curves: Sequence[Curve], folds: Sequence[Fold]) -> Curve:
    """Returns the mean over the log points that all folds have.

    Folds with different numbers of batches may share only the ends of epochs.
    """
    epochs = reduce(np.intersect1d, [curve.epochs for curve in curves])  # (L,)
    shared = [Curve(*(column[np.isin(curve.epochs, epochs)] for column in curve)) for curve in curves]
    n_frames = [fold.n_frames["val"] for fold in folds]
    return Curve(
        epochs=epochs,
        loss=np.mean([curve.loss for curve in shared], axis=0),  # (folds, L) -> (L,)
        train_mm=np.mean([curve.train_mm for curve in shared], axis=0),
        val_mm=np.average([curve.val_mm for curve in shared], axis=0, weights=n_frames),
    )
