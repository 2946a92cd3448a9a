"""Datasets that are ready to be written, one for each part of a split, and how far off their predictions are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.pose_dataset import Samples
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.sample_errors import SampleErrors
from data_pipeline.preparation.splits import ALL_PART, Split

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
    with progress("dividing frames", None):
        return [Part(base, part, samples.take(indices)) for part, indices in split.parts(len(samples)).items()]


def error_rows(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Returns how far off each subset is: one row of JSON values for each, without errors for labels alone."""
    return [row for part in parts for row in _rows_of(part)]


def _rows_of(part: Part) -> Sequence[dict[str, Any]]:
    what = {"dataset": part.name, "part": part.part}
    nothing = {"mean_error_mm": None, "mean_worst_joint_mm": None, "share_worst_joint_within_20mm": None}
    rows = []
    for subset, poses in part.samples.poses.items():
        found = SampleErrors.of(poses, part.samples.labels)
        errors = {
            "mean_error_mm": float(found.mean_mm.mean()),
            "mean_worst_joint_mm": float(found.worst_mm.mean()),
            "share_worst_joint_within_20mm": float((found.worst_mm <= WORST_JOINT_LIMIT_MM).mean()),
        }
        rows.append({**what, "subset": subset, "frames": len(poses), **errors})
    return rows or [{**what, "subset": None, "frames": len(part.samples), **nothing}]
