"""Nearest neighbours: for each hand, those of a bank that are most like it, wherever they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from data_pipeline.pose_dataset import Array
from data_pipeline.preparation.chunks import chunks, progress
from data_pipeline.user_error import UserError

_ROWS = 8192  # at a time; fewer are slower
_PAIRS = 150_000_000  # that are compared at a time: a second or so of work, so that the bar moves and Ctrl-C is heard


class NeighborsError(UserError):
    """A bank has too few samples or other joints."""


@dataclass(frozen=True)
class Neighbors:
    """The poses of a bank that are most like each of N labels.

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
        """What a person or a program wants to know of them, as JSON values."""
        means = self.distances_mm.mean(axis=0, dtype=np.float64)  # (N, K) -> (K,)
        return {
            "samples": len(self.rows),
            "bank": self.n_bank,
            "neighbors": len(means),
            "mean_distance_of_nearest_mm": float(means[0]),
            "mean_distance_of_farthest_mm": float(means[-1]),
        }


def nearest_neighbors(labels: Array, bank: Array, k: int, *, is_same: bool) -> Neighbors:
    """Finds for each label the poses of a bank with the smallest Euclidean distance over all joints.

    Each pose is first shifted by the mean of its joints to the origin: where the hand is does not matter.

    Args:
        labels: (N, J, 3), mm.
        bank: (M, J, 3), mm.
        k: K, how many neighbours.
        is_same: The bank is `labels`; no row then is its own neighbour.

    Raises:
        NeighborsError: If the bank has fewer than K poses (besides the pose itself), or other joints.
    """
    if labels.shape[1] != bank.shape[1]:
        raise NeighborsError(f"the bank has {bank.shape[1]} joints, but the dataset has {labels.shape[1]}")
    n_others = len(bank) - is_same
    if not 1 <= k <= n_others:
        beside = " besides the label's own" if is_same else ""
        allowed = f"; needed is a number from 1 to {n_others}" if n_others else ""
        raise NeighborsError(f"{k} neighbours were asked for, and the bank has {n_others} poses{beside}{allowed}")
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
    """Leaves out of the neighbours, (n, K + 1) each, of `rows`, (n,), the row itself."""
    is_self = found == rows[:, None]  # (n, K + 1)
    # Where others are at the same place, the row itself may not have been found: the farthest goes.
    is_self[~is_self.any(axis=1), -1] = True
    shape = (len(rows), found.shape[1] - 1)
    return distances[~is_self].reshape(shape), found[~is_self].reshape(shape)  # (n, K) each
