"""Subjects: frames that belong to one hand, found by the lengths of its bones."""

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
"""How many clusters are tried where nobody says how many there are."""

MIN_SILHOUETTE = 0.5
"""Below it there is no more than a weak structure (Kaufman and Rousseeuw, "Finding Groups in Data", 1990, table 4)."""

_SEED = 0  # the same dataset, the same clusters
_FIT_SAMPLES = 10_000
_SILHOUETTE_SAMPLES = 2_000  # all pairs of them are compared
_MIN_LENGTH_MM = 1e-3  # keeps the logarithm finite for a bone of no length

_Numbers = npt.NDArray[np.float64]


class SubjectsError(UserError):
    """There are fewer different hands than clusters."""


@dataclass(frozen=True)
class Clusters:
    """Frames in groups, each of which may be one subject.

    Attributes:
        of_sample: The cluster of each sample, (N,), 0 for that of the first sample, 1 for the next that comes, ...
        bone_lengths_mm: The mean length of each bone in each cluster, (K, B), mm.
        bone_names: The names of the B bones.
        silhouettes: By number of clusters, how well the samples are grouped, −1 to 1; empty where K was given.
    """

    of_sample: npt.NDArray[np.int64]
    bone_lengths_mm: _Numbers
    bone_names: list[str]
    silhouettes: dict[int, float]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The number of samples in each cluster, (K,)."""
        return np.bincount(self.of_sample)

    @property
    def facts(self) -> dict[str, Any]:
        """What a person or a program wants to know of them, as JSON values."""
        lengths = self.bone_lengths_mm.tolist()
        clusters = [
            {"samples": size, "mean_bone_lengths_mm": dict(zip(self.bone_names, row, strict=True))}
            for size, row in zip(self.sizes.tolist(), lengths, strict=True)
        ]
        # In a recording each subject comes once: then the cluster changes one time less than there are clusters.
        changes = int(np.count_nonzero(np.diff(self.of_sample)))
        return {"clusters": clusters, "changes": changes, "silhouettes": self.silhouettes}


def cluster_subjects(labels: Array, skeleton: Skeleton, k: int | None) -> Clusters:
    """Groups hands by the lengths of their bones.

    What is compared are logarithms of lengths, so that a short bone counts as much as a long one, and the unit does not
    count; k-means then groups them. Without `k` the number from 2 to `MAX_CLUSTERS` with the best silhouette
    (Rousseeuw, "Silhouettes", J. Comput. Appl. Math. 20, 1987) is taken, or 1 where that is below `MIN_SILHOUETTE`.

    Args:
        labels: (N, J, 3), mm.
        skeleton: The skeleton with J joints.
        k: The number of clusters; None chooses it.

    Raises:
        SubjectsError: If there are fewer than `k` hands of different bones.
    """
    # So few samples gain little from threads, and lose much where another process has the cores.
    with threadpool_limits(1):
        return _clusters(labels, skeleton, k)


def write_clusters(path: Path, dataset: str, clusters: Clusters) -> None:
    """Writes the cluster of each sample, one a line, below comments on sizes and bones.

    It is what a split `clusters:FILE:...` reads.
    """
    lines = [f"# The cluster of each sample of {dataset}, in order. Mean bone lengths, mm:"]
    for i, (size, lengths) in enumerate(zip(clusters.sizes, clusters.bone_lengths_mm, strict=True)):
        bones = ", ".join(f"{bone} {mm:.1f}" for bone, mm in zip(clusters.bone_names, lengths, strict=True))
        lines.append(f"# cluster {i}: {size} samples; {bones}")
    lines += map(str, clusters.of_sample.tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def clusters_file(name: str) -> str:
    """Returns the name of the file with the clusters `name`."""
    return f"{name}_clusters.txt"


def _clusters(labels: Array, skeleton: Skeleton, k: int | None) -> Clusters:
    features = np.empty((len(labels), len(skeleton.bones)))
    with progress("measuring bones", len(labels)) as advance:
        for rows in chunks(len(labels)):
            features[rows] = np.log(np.maximum(bone_lengths(labels[rows], skeleton), _MIN_LENGTH_MM))  # (n, B)
            advance(len(features[rows]))
    rng = np.random.default_rng(_SEED)
    sample = features[_some(len(features), _FIT_SAMPLES, rng)]  # (n, B)
    few = sample[_some(len(sample), _SILHOUETTE_SAMPLES, rng)]  # (n, B)
    n_different = len(np.unique(sample, axis=0))
    if k is not None and not 1 <= k <= n_different:
        raise SubjectsError(
            f"{k} clusters were asked for; needed is a number from 1 to {n_different}, that of hands of different bones"
        )

    silhouettes: dict[int, float] = {}
    if k is None:
        candidates = range(2, min(MAX_CLUSTERS, n_different - 1) + 1)
        with progress("choosing the number of clusters", len(candidates)) as advance:
            for candidate in candidates:
                of_few = _fitted(sample, candidate).predict(few)
                # It is defined for 2 clusters at least, and for fewer than there are samples.
                if 2 <= len(np.unique(of_few)) < len(few):
                    silhouettes[candidate] = float(silhouette_score(few, of_few))
                advance(1)
        best = max(silhouettes, key=lambda n: silhouettes[n], default=1)
        k = best if silhouettes.get(best, 0.0) >= MIN_SILHOUETTE else 1

    with progress("grouping frames", None):
        of_sample = _in_order_of_appearance(_fitted(sample, k).predict(features))
    means = [np.exp(features[of_sample == i]).mean(axis=0) for i in range(int(of_sample.max()) + 1)]  # (B,) each
    return Clusters(of_sample, np.stack(means), bone_names(skeleton), silhouettes)


def _fitted(sample: _Numbers, k: int) -> Any:
    return KMeans(k, n_init=5, random_state=_SEED).fit(sample)


def _some(n: int, at_most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.arange(n) if n <= at_most else np.sort(rng.choice(n, at_most, replace=False))


def _in_order_of_appearance(clusters: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Numbers clusters, (N,), anew, by their first sample."""
    _, first, which = np.unique(clusters, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which]
