"""Datasets that are ready to be written, one for each part of a split, and how far off their predictions are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.pose_dataset import Samples, write_datasets
from data_pipeline.preparation.chunks import chunks
from data_pipeline.splits import ALL_PART, Split

WORST_JOINT_LIMIT_MM = 20.0


@dataclass(frozen=True)
class Part:
    """A dataset that is ready to be written.

    Attributes:
        base: Its name without the part.
        part: "train", "val" or "test", or `ALL_PART`.
        samples: Its content.
    """

    base: str
    part: str
    samples: Samples

    @property
    def name(self) -> str:
        """The name below the data folder."""
        return part_name(self.base, self.part)


def part_name(base: str, part: str) -> str:
    """Returns what the dataset of a `part` is called."""
    return base if part == ALL_PART else f"{base}_{part}"


def parts_of(base: str, samples: Samples, split: Split) -> list[Part]:
    """Returns the datasets that a split makes of `samples`.

    Raises:
        SplitError: If it leaves a part without samples, or if its file cannot be used.
    """
    return [Part(base, part, samples.take(indices)) for part, indices in split.parts(len(samples)).items()]


def write_parts(data_dir: Path, parts: Iterable[Part]) -> None:
    """Writes datasets to the data folder: all, or none.

    Raises:
        DatasetError: If one cannot be written.
    """
    write_datasets(data_dir, {part.name: part.samples for part in parts})


def error_rows(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Returns how far off each subset is: one row of JSON values for each, without errors for labels alone."""
    return [row for part in parts for row in _rows_of(part)]


def _rows_of(part: Part) -> Sequence[dict[str, Any]]:
    labels = part.samples.labels
    n_frames, n_joints, _ = labels.shape
    what = {"dataset": part.name, "part": part.part}
    nothing = {"mean_error_mm": None, "mean_worst_joint_mm": None, "share_worst_joint_within_20mm": None}
    rows = []
    for subset, predicted in part.samples.poses.items():
        total_mm, total_worst_mm, n_within = 0.0, 0.0, 0
        for rows_of_chunk in chunks(n_frames):
            difference = predicted[rows_of_chunk].astype(np.float64) - labels[rows_of_chunk]
            error_mm = np.linalg.norm(difference, axis=2)  # (n, J, 3) -> (n, J)
            worst_mm = error_mm.max(axis=1)  # (n,)
            total_mm += float(error_mm.sum())
            total_worst_mm += float(worst_mm.sum())
            n_within += int((worst_mm <= WORST_JOINT_LIMIT_MM).sum())
        errors = {
            "mean_error_mm": total_mm / (n_frames * n_joints),
            "mean_worst_joint_mm": total_worst_mm / n_frames,
            "share_worst_joint_within_20mm": n_within / n_frames,
        }
        rows.append({**what, "subset": subset, "frames": n_frames, **errors})
    return rows or [{**what, "subset": None, "frames": n_frames, **nothing}]
