"""Finds the frames of each subject by the bone lengths of the hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from data_pipeline.bones import bone_lengths, bone_names
from data_pipeline.pose_dataset import Array
from data_pipeline.preparation.chunks import chunks, progress
from data_pipeline.skeleton import Skeleton
from data_pipeline.user_error import UserError

MAX_CLUSTERS = 20
"""The largest number of clusters to try if the number is not given."""

MIN_SILHOUETTE = 0.5
"""Smaller values indicate at best a weak structure (Kaufman and Rousseeuw, "Finding Groups in Data", 1990, table 4)."""

_SEED = 0  # the same dataset gives the same clusters
_FIT_SAMPLES = 10_000
_SILHOUETTE_SAMPLES = 2_000  # all pairs of them are compared
_MIN_LENGTH_MM = 1e-3  # keeps the logarithm finite for a bone of zero length

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """Frames in groups, each of which may be one subject.

    Attributes:
        assignments: The cluster of each sample, (N,); clusters are numbered from 0 in order of appearance.
        bone_lengths_mm: The mean length of each bone in each cluster, (K, B), mm.
        bone_names: The names of the B bones.
        silhouettes: The silhouette, −1 to 1, for each number of clusters that was tried; empty if K was given.
    """

    assignments: npt.NDArray[np.int64]
    bone_lengths_mm: _Numbers
    bone_names: list[str]
    silhouettes: dict[int, float]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The number of samples in each cluster, (K,)."""
        return np.bincount(self.assignments)

    @property
    def facts(self) -> dict[str, Any]:
        """A summary as JSON values."""
        lengths = self.bone_lengths_mm.tolist()
        clusters = [
            {"samples": size, "mean_bone_lengths_mm": dict(zip(self.bone_names, row, strict=True))}
            for size, row in zip(self.sizes.tolist(), lengths, strict=True)
        ]
        # In a recording each subject appears once, so there is one change fewer than there are clusters.
        changes = int(np.count_nonzero(np.diff(self.assignments)))
        return {"clusters": clusters, "changes": changes, "silhouettes": self.silhouettes}


def cluster_subjects(labels: Array, skeleton: Skeleton, k: int | None) -> Clusters:
    """Groups hands by their bone lengths.

    k-means groups the logarithms of the lengths, so that short bones count as much as long ones and the unit does not
    matter. Without `k` the number from 2 to `MAX_CLUSTERS` with the best silhouette (Rousseeuw, "Silhouettes", J.
    Comput. Appl. Math. 20, 1987) is used, or 1 if that silhouette is below `MIN_SILHOUETTE`.

    Args:
        labels: (N, J, 3), mm.
        skeleton: The skeleton with J joints.
        k: The number of clusters; None chooses it.

    Raises:
        UserError: If there are fewer than `k` hands with different bones.
    """
    # With so few samples threads gain little, and cost a lot when another process uses the cores.
    with threadpool_limits(1):
        return _find_clusters(labels, skeleton, k)


def write_clusters(path: Path, dataset: str, clusters: Clusters) -> None:
    """Writes the cluster of each sample, one per line, below comments on sizes and bones; for `clusters:FILE:...`."""
    lines = [f"# The cluster of each sample of {dataset}, in order. Mean bone lengths, mm:"]
    for i, (size, lengths) in enumerate(zip(clusters.sizes, clusters.bone_lengths_mm, strict=True)):
        bones = ", ".join(f"{bone} {mm:.1f}" for bone, mm in zip(clusters.bone_names, lengths, strict=True))
        lines.append(f"# cluster {i}: {size} samples; {bones}")
    lines += map(str, clusters.assignments.tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def clusters_file(name: str) -> str:
    """Returns the name of the file with the clusters `name`."""
    return f"{name}_clusters.txt"


def _find_clusters(labels: Array, skeleton: Skeleton, k: int | None) -> Clusters:
    features = np.empty((len(labels), len(skeleton.bones)))
    with progress("measuring bones", len(labels)) as advance:
        for rows in chunks(len(labels)):
            features[rows] = np.log(np.maximum(bone_lengths(labels[rows], skeleton), _MIN_LENGTH_MM))  # (n, B)
            advance(len(features[rows]))
    rng = np.random.default_rng(_SEED)
    sample = features[_draw(len(features), _FIT_SAMPLES, rng)]  # (n, B)
    few = sample[_draw(len(sample), _SILHOUETTE_SAMPLES, rng)]  # (n, B)
    n_different = len(np.unique(sample, axis=0))
    if k is not None and not 1 <= k <= n_different:
        raise UserError(
            f"{k} clusters requested; expected a number from 1 to {n_different}, the number of hands with different "
            "bones"
        )

    silhouettes: dict[int, float] = {}
    if k is None:
        candidates = range(2, min(MAX_CLUSTERS, n_different - 1) + 1)
        with progress("choosing the number of clusters", len(candidates)) as advance:
            for candidate in candidates:
                clusters = _fit(sample, candidate).predict(few)
                # The silhouette is defined for at least 2 clusters and fewer clusters than samples.
                if 2 <= len(np.unique(clusters)) < len(few):
                    silhouettes[candidate] = float(silhouette_score(few, clusters))
                advance(1)
        best = max(silhouettes, key=lambda n: silhouettes[n], default=1)
        k = best if silhouettes.get(best, 0.0) >= MIN_SILHOUETTE else 1

    with progress("grouping frames", None):
        assignments = _renumber(_fit(sample, k).predict(features))
    means = [np.exp(features[assignments == i]).mean(axis=0) for i in range(int(assignments.max()) + 1)]  # (B,) each
    return Clusters(assignments, np.stack(means), bone_names(skeleton), silhouettes)


def _fit(sample: _Numbers, k: int) -> Any:
    return KMeans(k, n_init=5, random_state=_SEED).fit(sample)


def _draw(n: int, at_most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.arange(n) if n <= at_most else np.sort(rng.choice(n, at_most, replace=False))


def _renumber(clusters: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Renumbers clusters, (N,), in order of appearance."""
    _, first, which = np.unique(clusters, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which]
