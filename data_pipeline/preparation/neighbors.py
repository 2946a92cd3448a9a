"""Nearest neighbours: for each hand the most similar poses of a bank, regardless of position."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from data_pipeline.pose_dataset import Array
from data_pipeline.preparation.chunks import chunks, progress
from data_pipeline.user_error import UserError

_ROWS = 8192  # per chunk; smaller chunks are slower
_PAIRS = 150_000_000  # comparisons per chunk: about a second, so that the bar moves and Ctrl-C takes effect


@dataclass(frozen=True)
class Neighbors:
    """The most similar poses of a bank for each of N labels.

    Attributes:
        rows: Their rows in the bank, nearest first, (N, K).
        distances_mm: Their distances, root mean square over joints, (N, K), mm.
        n_bank: The number of poses in the bank.
    """

    rows: npt.NDArray[np.int32]
    distances_mm: Array
    n_bank: int

    @property
    def facts(self) -> dict[str, Any]:
        """A summary as JSON values."""
        means = self.distances_mm.mean(axis=0, dtype=np.float64)  # (N, K) -> (K,)
        return {
            "samples": len(self.rows),
            "bank": self.n_bank,
            "neighbors": len(means),
            "mean_distance_of_nearest_mm": float(means[0]),
            "mean_distance_of_farthest_mm": float(means[-1]),
        }


def nearest_neighbors(labels: Array, bank: Array, k: int, *, is_same: bool) -> Neighbors:
    """Finds the poses of a bank with the smallest Euclidean distance over all joints from each label.

    The mean of its joints is first subtracted from each pose, so the position of the hand does not matter.

    Args:
        labels: (N, J, 3), mm.
        bank: (M, J, 3), mm.
        k: K, the number of neighbours.
        is_same: Whether the bank is `labels`; then no row is its own neighbour.

    Raises:
        UserError: If the bank has fewer than K poses (excluding the pose itself), or another number of joints.
    """
    if labels.shape[1] != bank.shape[1]:
        raise UserError(f"the bank has {bank.shape[1]} joints, but the dataset has {labels.shape[1]}")
    n_others = len(bank) - is_same
    if not 1 <= k <= n_others:
        other = "other " if is_same else ""
        allowed = f"; expected a number from 1 to {n_others}" if n_others else ""
        raise UserError(f"{k} neighbours requested, but the bank has {n_others} {other}poses{allowed}")
    finder = NearestNeighbors(n_neighbors=k + is_same, algorithm="brute").fit(_centred(bank))
    indices = np.empty((len(labels), k), np.int32)
    distances = np.empty((len(labels), k), np.float32)
    with progress("finding neighbours", len(labels)) as advance:
        for rows in chunks(len(labels), max(1, min(_ROWS, _PAIRS // len(bank)))):
            found_mm, found = finder.kneighbors(_centred(labels[rows]))  # (n, K) each, or (n, K + 1)
            if is_same:
                found_mm, found = _without_self(found_mm, found, np.arange(rows.start, rows.stop))
            indices[rows], distances[rows] = found, found_mm / np.sqrt(labels.shape[1])
            advance(len(found))
    return Neighbors(indices, distances, len(bank))


def _centred(poses: Array) -> Array:
    centred: Array = poses - poses.mean(axis=1, keepdims=True)
    return centred.reshape(len(poses), -1)  # (n, J, 3) -> (n, 3·J)


def _without_self(
    distances: npt.NDArray[Any], found: npt.NDArray[Any], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Removes each row itself from the neighbours, (n, K + 1) each, of `rows`, (n,)."""
    is_self = found == rows[:, None]  # (n, K + 1)
    # If other poses are identical, the row itself may be missing: drop the farthest.
    is_self[~is_self.any(axis=1), -1] = True
    shape = (len(rows), found.shape[1] - 1)
    return distances[~is_self].reshape(shape), found[~is_self].reshape(shape)  # (n, K) each
