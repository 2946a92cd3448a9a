"""Figures that describe a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.bones import bone_lengths, bone_names
from data_pipeline.frame_table import Names
from data_pipeline.pose_dataset import Array, Samples
from data_pipeline.preparation.chunks import chunks, progress
from data_pipeline.preparation.motion import Motion
from data_pipeline.preparation.sample_errors import SampleErrors
from data_pipeline.preparation.suspicions import Extents, Suspicion, suspicions
from data_pipeline.skeleton import Skeleton, skeleton_for

N_WORST = 5
"""How many of the worst samples are reported."""

SAME_LENGTH = 0.01
"""Bone lengths that differ by at most this fraction count as equal."""

_MOSTLY = 0.95  # of the steps from one frame to the next

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bones:
    """The bones of the labels.

    Attributes:
        mean_mm: The mean length of each bone, mm.
        std_mm: The standard deviation of its length, mm.
        constancy: "constant"; "constant within sequences" if lengths jump occasionally; or "not constant".
        share_unchanged: The fraction of steps from one sample to the next in which no bone length changes by more than
            `SAME_LENGTH`; 1 for a single sample.
    """

    mean_mm: dict[str, float]
    std_mm: dict[str, float]
    constancy: str
    share_unchanged: float

    @classmethod
    def of(cls, lengths: Array, skeleton: Skeleton) -> "Bones":
        """Computes the statistics of bone lengths, (N, B), mm."""
        mean, std = lengths.mean(axis=0, dtype=np.float64), lengths.std(axis=0, dtype=np.float64)  # (N, B) -> (B,)
        same = SAME_LENGTH * mean  # (B,)
        n_changed = sum(
            int((np.abs(np.diff(lengths[rows.start : rows.stop + 1], axis=0)) > same).any(axis=1).sum())  # (n, B) -> ()
            for rows in chunks(len(lengths))
        )
        share_unchanged = 1 - n_changed / max(1, len(lengths) - 1)
        if (std <= same).all():
            constancy = "constant"
        else:
            constancy = "constant within sequences" if share_unchanged >= _MOSTLY else "not constant"
        names = bone_names(skeleton)
        return cls(_named(names, mean), _named(names, std), constancy, share_unchanged)


@dataclass(frozen=True)
class SubsetErrors:
    """The errors of a subset: Euclidean distances from the labels, mm.

    Attributes:
        mean_mm: The mean over samples and joints.
        median_mm: The median over samples of the mean over joints.
        mean_worst_joint_mm: The mean over samples of the worst joint's error.
        per_joint_mm: The mean error of each joint.
        per_finger_mm: The mean error of each finger's joints; empty for a skeleton without fingers.
        worst: The samples with the largest mean over joints, largest first, each with its number `sample`, its `name`
            (None without names), this mean as `mean_mm` and its `worst_joint`.
    """

    mean_mm: float
    median_mm: float
    mean_worst_joint_mm: float
    per_joint_mm: dict[str, float]
    per_finger_mm: dict[str, float]
    worst: list[dict[str, Any]]


@dataclass(frozen=True)
class Inspection:
    """The description of a dataset; `dataclasses.asdict` turns it into JSON.

    Attributes:
        samples: N.
        joints: J.
        skeleton: The name of the skeleton with J joints.
        has_names: Whether frames have names.
        motion: Sequences, subjects, and how the samples follow each other.
        ranges_mm: The smallest and largest x, y and z of "labels" and of each "subset NAME", mm.
        bones: The bones of the labels.
        errors: The errors of each subset.
        warnings: What looks wrong.
    """

    samples: int
    joints: int
    skeleton: str
    has_names: bool
    motion: Motion
    ranges_mm: dict[str, dict[str, tuple[float, float]]]
    bones: Bones
    errors: dict[str, SubsetErrors]
    warnings: list[Suspicion]


def inspect_samples(samples: Samples) -> Inspection:
    """Describes a dataset; only a few thousand samples are copied at a time."""
    skeleton = skeleton_for(samples.labels.shape[1])
    arrays = {"labels": samples.labels} | {f"subset {name}": poses for name, poses in samples.poses.items()}
    extents = {}
    with progress("measuring hands", len(arrays)) as advance:
        for what, array in arrays.items():
            extents[what] = Extents.of(array)
            advance(1)
    errors = {subset: SampleErrors.of(poses, samples.labels) for subset, poses in samples.poses.items()}
    lengths_mm = np.empty((len(samples), len(skeleton.bones)), np.float32)
    for rows in chunks(len(samples)):
        lengths_mm[rows] = bone_lengths(samples.labels[rows], skeleton)  # (n, J, 3) -> (n, B)
    motion = Motion.of(samples.labels, samples.frames)
    return Inspection(
        samples=len(samples),
        joints=skeleton.n_joints,
        skeleton=skeleton.name,
        has_names=samples.frames.name is not None,
        motion=motion,
        ranges_mm={what: _ranges_mm(array) for what, array in arrays.items()},
        bones=Bones.of(lengths_mm, skeleton),
        errors={subset: _errors(found, samples.frames.name, skeleton) for subset, found in errors.items()},
        warnings=suspicions(samples, skeleton, motion, extents, lengths_mm, errors),
    )


def _ranges_mm(poses: Array) -> dict[str, tuple[float, float]]:
    low, high = poses.min(axis=(0, 1)), poses.max(axis=(0, 1))  # (N, J, 3) -> (3,) each
    return {axis: (float(low[i]), float(high[i])) for i, axis in enumerate("xyz")}


def _errors(found: SampleErrors, names: Names | None, skeleton: Skeleton) -> SubsetErrors:
    n_worst = min(N_WORST, len(found.mean_mm))
    largest = np.argpartition(found.mean_mm, -n_worst)[-n_worst:]  # (n_worst,)
    largest = largest[np.argsort(-found.mean_mm[largest])]
    worst = [
        {
            "sample": int(sample),
            "name": None if names is None else names[sample],
            "mean_mm": float(found.mean_mm[sample]),
            "worst_joint": skeleton.joint_names[found.worst_joint[sample]],
        }
        for sample in largest
    ]
    return SubsetErrors(
        mean_mm=float(found.mean_mm.mean()),
        median_mm=float(np.median(found.mean_mm)),
        mean_worst_joint_mm=float(found.worst_mm.mean()),
        per_joint_mm=_named(skeleton.joint_names, found.per_joint_mm),
        per_finger_mm={name: float(found.per_joint_mm[list(finger)].mean()) for name, finger in skeleton.fingers},
        worst=worst,
    )


def _named(names: Sequence[str], numbers: _Numbers) -> dict[str, float]:
    return dict(zip(names, numbers.tolist(), strict=True))
