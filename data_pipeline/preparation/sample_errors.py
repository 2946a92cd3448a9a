"""The prediction errors of each sample."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_pipeline.pose_dataset import Array
from data_pipeline.preparation.chunks import chunks, progress

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SampleErrors:
    """Euclidean distances between predicted and true joints, for N samples.

    Attributes:
        mean_mm: The mean over the joints of each sample, (N,), mm.
        worst_mm: The distance of each sample's worst joint, (N,), mm.
        worst_joint: The index of that joint, (N,).
        per_joint_mm: The mean over samples for each joint, (J,), mm.
    """

    mean_mm: _Numbers
    worst_mm: _Numbers
    worst_joint: npt.NDArray[np.int64]
    per_joint_mm: _Numbers

    @classmethod
    def of(cls, poses: Array, labels: Array) -> "SampleErrors":
        """Compares predictions with labels, (N, J, 3) each, mm; only a few thousand samples are copied at a time."""
        n_samples, n_joints, _ = poses.shape
        mean, worst = np.empty((2, n_samples))  # (N,) each
        worst_joint = np.empty(n_samples, np.int64)
        per_joint = np.zeros(n_joints)
        with progress("measuring errors", n_samples) as advance:
            for rows in chunks(n_samples):
                error = np.linalg.norm(poses[rows].astype(np.float64) - labels[rows], axis=2)  # (n, J, 3) -> (n, J)
                worst_joint[rows] = error.argmax(axis=1)  # (n, J) -> (n,)
                mean[rows], worst[rows] = error.mean(axis=1), error.max(axis=1)  # (n, J) -> (n,) each
                per_joint += error.sum(axis=0)  # (n, J) -> (J,)
                advance(len(error))
        return cls(mean, worst, worst_joint, per_joint / n_samples)
