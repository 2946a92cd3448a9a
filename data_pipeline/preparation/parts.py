"""Datasets that are ready to be written, one for each part of a split, and the errors of their predictions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_pipeline.dataset_name import fold_name
from data_pipeline.frame_table import FrameTable, in_order, video_frames
from data_pipeline.pose_dataset import Samples
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.sample_errors import SampleErrors
from data_pipeline.preparation.splits.split import ALL_PART, NoSplit, Split

WORST_JOINT_LIMIT_MM = 20.0

_SHORTEST_PIECE = 10  # frames between cuts, on average; of a video with more cuts little is known


@dataclass(frozen=True)
class DatasetPart:
    """A dataset that is ready to be written.

    Attributes:
        base: The name without the part.
        part: "train", "val", "test" or `ALL_PART`.
        samples: The content.
    """

    base: str
    part: str
    samples: Samples

    @property
    def name(self) -> str:
        """The name below the data folder."""
        return dataset_name(self.base, self.part)


def dataset_name(base: str, part: str) -> str:
    """Returns the name of the dataset for `part`."""
    return base if part == ALL_PART else f"{base}_{part}"


def split_samples(
    base: str, samples: Samples, split: Split, *, source: str | None = None, folds: bool = False
) -> list[DatasetPart]:
    """Splits `samples` into datasets. Their frame tables say where each frame was.

    Args:
        base: The name of the datasets, without the part.
        samples: The samples.
        split: How to split them.
        source: The dataset that they come from, which names unknown sequences; None for `base`.
        folds: Make the datasets of all folds, `BASE_fold1`, `BASE_fold2`, ...

    Raises:
        UserError: If the split leaves a part empty, has no folds, or if its file cannot be used.
    """
    if not isinstance(split, NoSplit):
        samples = placed(samples, base if source is None else source)
    with progress("splitting frames", None):
        n_folds = split.n_folds(len(samples), samples.frames) if folds else 1
        return [
            DatasetPart(fold_name(base, fold + 1) if folds else base, part, samples.take(indices))
            for fold in range(n_folds)
            for part, indices in split.parts(len(samples), samples.frames, fold).items()
        ]


def placed(samples: Samples, source: str) -> Samples:
    """Returns samples with sequences and indices, so that parts of them know how far they are from each other.

    Unknown sequences are the pieces of the dataset between cuts. If the frames are shuffled or no video, they stay
    unknown.

    Args:
        samples: The samples, in their original order.
        source: The dataset that they come from; it names unknown sequences.
    """
    frames = samples.frames
    if frames.sequence is None and frames.index is None:
        video = video_frames(samples.labels)
        assert video.sequence is not None
        names = in_order(video.sequence)
        if len(names) > max(1, len(samples) // _SHORTEST_PIECE):
            return samples
        named = {name: f"{source}-{name}" if len(names) > 1 else source for name in names}
        sequence = [named[name] for name in video.sequence]
        frames = FrameTable.of(sequence=sequence, index=video.index, subject=frames.subject, name=frames.name)
    return replace(samples, frames=frames.completed(len(samples), source))


def error_rows(parts: Iterable[DatasetPart]) -> list[dict[str, Any]]:
    """Returns the errors of each subset: one row of JSON values each; the errors are None for a set of only labels."""
    return [row for part in parts for row in _part_rows(part)]


def _part_rows(part: DatasetPart) -> Sequence[dict[str, Any]]:
    names = {"dataset": part.name, "part": part.part}
    no_errors = {"mean_error_mm": None, "mean_worst_joint_mm": None, "share_worst_joint_within_20mm": None}
    rows = []
    for subset, poses in part.samples.poses.items():
        found = SampleErrors.of(poses, part.samples.labels)
        errors = {
            "mean_error_mm": float(found.mean_mm.mean()),
            "mean_worst_joint_mm": float(found.worst_mm.mean()),
            "share_worst_joint_within_20mm": float((found.worst_mm <= WORST_JOINT_LIMIT_MM).mean()),
        }
        rows.append({**names, "subset": subset, "frames": len(poses), **errors})
    return rows or [{**names, "subset": None, "frames": len(part.samples), **no_errors}]
