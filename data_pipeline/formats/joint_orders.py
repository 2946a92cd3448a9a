"""Other orders of the 21 joints of a hand, and conversions between them and that of HANDS17."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.skeleton import HANDS17

Poses = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class JointOrder:
    """An order of the joints of HANDS17.

    Attributes:
        joint_names: HANDS17's names of the joints, in this order.
    """

    joint_names: tuple[str, ...]

    @cached_property
    def in_hands17(self) -> Indices:
        """The index in HANDS17 of each joint of this order, (21,)."""
        return np.array([HANDS17.joint_names.index(name) for name in self.joint_names])

    @cached_property
    def of_hands17(self) -> Indices:
        """The index in this order of each joint of HANDS17, (21,)."""
        return np.argsort(self.in_hands17)

    def to_hands17(self, poses: Poses) -> Poses:
        """Converts `poses`, (n, 21, 3), from this order to that of HANDS17."""
        return poses[:, self.of_hands17]

    def from_hands17(self, poses: Poses) -> Poses:
        """Converts `poses`, (n, 21, 3), from the order of HANDS17 to this one."""
        return poses[:, self.in_hands17]


MSRA15 = JointOrder(
    (
        "W",
        *("IMCP", "IPIP", "IDIP", "ITIP", "MMCP", "MPIP", "MDIP", "MTIP"),
        *("RMCP", "RPIP", "RDIP", "RTIP", "PMCP", "PPIP", "PDIP", "PTIP"),
        *("TMCP", "TPIP", "TDIP", "TTIP"),
    )
)
"""The order of MSRA15 (Sun et al., 2015): the thumb comes last."""

OPENPOSE = JointOrder(
    (
        "W",
        *("TMCP", "TPIP", "TDIP", "TTIP"),
        *("IMCP", "IPIP", "IDIP", "ITIP", "MMCP", "MPIP", "MDIP", "MTIP"),
        *("RMCP", "RPIP", "RDIP", "RTIP", "PMCP", "PPIP", "PDIP", "PTIP"),
    )
)
"""The order of OpenPose (Simon et al., 2017), MediaPipe and FreiHAND: from the thumb to the pinky."""
