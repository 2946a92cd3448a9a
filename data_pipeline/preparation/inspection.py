"""What is in a dataset, in figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.pose_dataset import Array, Samples
from data_pipeline.preparation.bones import bone_lengths, bone_names
from data_pipeline.preparation.chunks import chunks, progress
from data_pipeline.preparation.suspicions import Extents, Suspicion, suspicions
from data_pipeline.skeleton import Skeleton, skeleton_for

N_WORST = 5
"""How many of the worst samples are told."""

SAME_LENGTH = 0.01
"""Bones whose lengths differ by no more than this share count as equally long."""

_MOSTLY = 0.95  # of the steps from a frame to the next

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bones:
    """The bones of the labels.

    Attributes:
        mean_mm: The mean length of each bone, mm.
        std_mm: The standard deviation of its length, mm.
        constancy: "constant"; "constant within sequences", where lengths jump now and then; or "not constant".
        share_unchanged: Of the steps from a sample to the next one, the share in which no bone changes its length by
            more than `SAME_LENGTH`; 1 for a single sample.
    """

    mean_mm: dict[str, float]
    std_mm: dict[str, float]
    constancy: str
    share_unchanged: float

    @classmethod
    def of(cls, labels: Array, skeleton: Skeleton) -> "Bones":
        """Measures labels, (N, J, 3), mm."""
        lengths = np.empty((len(labels), len(skeleton.bones)), np.float32)
        for rows in chunks(len(labels)):
            lengths[rows] = bone_lengths(labels[rows], skeleton)  # (n, J, 3) -> (n, B)
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
    """How far a subset is from the labels: Euclidean distances, mm.

    Attributes:
        mean_mm: The mean over samples and joints.
        median_mm: The median over samples of their mean over joints.
        mean_worst_joint_mm: The mean over samples of their worst joint.
        per_joint_mm: The mean of each joint.
        per_finger_mm: The mean of each finger's joints; empty for a skeleton without fingers.
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
    """What is in a dataset; `dataclasses.asdict` makes JSON of it.

    Attributes:
        samples: N.
        joints: J.
        skeleton: The name of the skeleton with J joints.
        has_names: Whether frames have names.
        ranges_mm: Of "labels" and of each "subset NAME", the smallest and the largest x, y and z, mm.
        bones: The bones of the labels.
        errors: How far each subset is from the labels.
        warnings: What looks wrong.
    """

    samples: int
    joints: int
    skeleton: str
    has_names: bool
    ranges_mm: dict[str, dict[str, tuple[float, float]]]
    bones: Bones
    errors: dict[str, SubsetErrors]
    warnings: list[Suspicion]


def inspect_samples(samples: Samples) -> Inspection:
    """Returns what is in a dataset; copies are made of some thousand samples at a time only."""
    skeleton = skeleton_for(samples.labels.shape[1])
    arrays = {"labels": samples.labels} | {f"subset {name}": poses for name, poses in samples.poses.items()}
    extents, errors, errors_mm = {}, {}, {}
    with progress("measuring hands", len(arrays)) as advance:
        for what, array in arrays.items():
            extents[what] = Extents.of(array)
            advance(1)
    with progress("measuring errors", len(samples.poses)) as advance:
        for subset, poses in samples.poses.items():
            errors[subset], errors_mm[subset] = _errors(poses, samples, skeleton)
            advance(1)
    return Inspection(
        samples=len(samples),
        joints=skeleton.n_joints,
        skeleton=skeleton.name,
        has_names=samples.names is not None,
        ranges_mm={what: _ranges_mm(array) for what, array in arrays.items()},
        bones=Bones.of(samples.labels, skeleton),
        errors=errors,
        warnings=suspicions(samples, skeleton, extents, errors_mm),
    )


def _ranges_mm(poses: Array) -> dict[str, tuple[float, float]]:
    low, high = poses.min(axis=(0, 1)), poses.max(axis=(0, 1))  # (N, J, 3) -> (3,) each
    return {axis: (float(low[i]), float(high[i])) for i, axis in enumerate("xyz")}


def _errors(poses: Array, samples: Samples, skeleton: Skeleton) -> tuple[SubsetErrors, _Numbers]:
    """Returns the errors of a subset, and the mean error of each sample, (N,), mm."""
    mean_mm, worst_mm = np.empty((2, len(poses)))  # (N,) each
    per_joint = np.zeros(skeleton.n_joints)
    for rows in chunks(len(poses)):
        error_mm = _distances(poses[rows], samples.labels[rows])  # (n, J)
        mean_mm[rows], worst_mm[rows] = error_mm.mean(axis=1), error_mm.max(axis=1)  # (n, J) -> (n,) each
        per_joint += error_mm.sum(axis=0)  # (n, J) -> (J,)
    per_joint /= len(poses)

    n_worst = min(N_WORST, len(poses))
    largest = np.argpartition(mean_mm, -n_worst)[-n_worst:]  # (n_worst,)
    largest = largest[np.argsort(-mean_mm[largest])]
    joints = _distances(poses[largest], samples.labels[largest]).argmax(axis=1)  # (n_worst, J) -> (n_worst,)
    worst = [
        {
            "sample": int(sample),
            "name": None if samples.names is None else samples.names[sample],
            "mean_mm": float(mean_mm[sample]),
            "worst_joint": skeleton.joint_names[joint],
        }
        for sample, joint in zip(largest, joints, strict=True)
    ]
    errors = SubsetErrors(
        mean_mm=float(per_joint.mean()),
        median_mm=float(np.median(mean_mm)),
        mean_worst_joint_mm=float(worst_mm.mean()),
        per_joint_mm=_named(skeleton.joint_names, per_joint),
        per_finger_mm={name: float(per_joint[list(finger)].mean()) for name, finger in skeleton.fingers},
        worst=worst,
    )
    return errors, mean_mm


def _distances(poses: Array, labels: Array) -> _Numbers:
    """Returns the distance of each predicted from each true joint, (n, J), mm."""
    distances: _Numbers = np.linalg.norm(poses.astype(np.float64) - labels, axis=2)  # (n, J, 3) -> (n, J)
    return distances


def _named(names: Sequence[str], numbers: _Numbers) -> dict[str, float]:
    return dict(zip(names, numbers.tolist(), strict=True))
