"""The errors of a backbone, as tables that distorters draw from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.pose_dataset import Array, PoseDataset
from data_pipeline.preparation.chunks import chunks, progress
from data_pipeline.skeleton import Skeleton
from data_pipeline.tables import write_error_stats, write_errors
from data_pipeline.user_error import UserError


@dataclass(frozen=True)
class PoseErrors:
    """Errors, prediction minus label.

    Attributes:
        errors: (M, J, 3), mm.
        labels: The true joints, (M, J, 3), mm.
        mean_mm: Their mean over samples, (J, 3), mm.
        std_mm: Their standard deviation over samples, (J, 3), mm.
        skeleton: The skeleton with J joints.
    """

    errors: Array
    labels: Array
    mean_mm: Array
    std_mm: Array
    skeleton: Skeleton

    @property
    def facts(self) -> dict[str, Any]:
        """The statistics as JSON values, x y z for each joint."""
        joints = self.skeleton.joint_names
        return {
            "samples": len(self.errors),
            "mean_mm": dict(zip(joints, self.mean_mm.tolist(), strict=True)),
            "std_mm": dict(zip(joints, self.std_mm.tolist(), strict=True)),
        }


def pose_errors(dataset: PoseDataset, subset: str | None) -> PoseErrors:
    """Returns the errors of a subset; None for the only one.

    Raises:
        UserError: If there is no such subset, or if there are several and `subset` is None.
    """
    has = ", ".join(dataset.poses)
    if subset is None and len(dataset.poses) > 1:
        raise UserError(f"{dataset.name} has the subsets {has}; choose one with --subset")
    chosen = next(iter(dataset.poses)) if subset is None else subset
    if chosen not in dataset.poses:
        raise UserError(f"{dataset.name} has no subset {chosen}; it has {has}")
    errors: Array = dataset.poses[chosen] - dataset.labels  # (M, J, 3)
    mean_mm = errors.mean(axis=0, dtype=np.float64)  # (M, J, 3) -> (J, 3)
    squares = np.zeros_like(mean_mm)
    with progress("measuring errors", len(errors)) as advance:
        for rows in chunks(len(errors)):
            squares += np.square(errors[rows] - mean_mm).sum(axis=0)  # (n, J, 3) -> (J, 3)
            advance(len(errors[rows]))
    std_mm = np.sqrt(squares / len(errors))
    return PoseErrors(errors, dataset.labels, mean_mm.astype(np.float32), std_mm.astype(np.float32), dataset.skeleton)


def write_pose_errors(folder: Path, name: str, found: PoseErrors) -> None:
    """Writes errors and their statistics as tables called `name` in a folder."""
    write_errors(folder, name, found.errors, found.labels)
    write_error_stats(folder, name, found.mean_mm, found.std_mm, found.skeleton, len(found.errors))
