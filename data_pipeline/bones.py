"""Bone lengths, and a guess of their unit."""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.skeleton import Skeleton

_Numbers = npt.NDArray[np.floating[Any]]

MM_PER_UNIT = {"metres": 1000.0, "centimetres": 10.0, "micrometres": 0.001}


def bone_lengths(poses: _Numbers, skeleton: Skeleton) -> _Numbers:
    """Returns the length of every bone of poses (N, J, 3), mm: (N, B), mm."""
    start, end = np.array(skeleton.bones).T  # (B,) each
    lengths: _Numbers = np.linalg.norm(poses[:, end] - poses[:, start], axis=2)  # (N, B, 3) -> (N, B)
    return lengths


def bone_names(skeleton: Skeleton) -> list[str]:
    """Returns the names of the bones, such as W-TMCP, in order."""
    return [f"{skeleton.joint_names[a]}-{skeleton.joint_names[b]}" for a, b in skeleton.bones]


def guess_unit(length: float, shortest_mm: float, longest_mm: float) -> str | None:
    """Returns the unit that would bring a length into the given range; None if no unit does."""
    return next((unit for unit, mm in MM_PER_UNIT.items() if shortest_mm <= length * mm <= longest_mm), None)
