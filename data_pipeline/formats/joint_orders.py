"""Orders in which others list the 21 joints of a hand, and the ways from them to HANDS17's and back."""

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
        """Where each joint of this order is in HANDS17's, (21,)."""
        return np.array([HANDS17.joint_names.index(name) for name in self.joint_names])

    @cached_property
    def of_hands17(self) -> Indices:
        """Where each joint of HANDS17's order is in this one, (21,)."""
        return np.argsort(self.in_hands17)

    def to_hands17(self, poses: Poses) -> Poses:
        """Returns `poses`, (n, 21, 3), of this order in HANDS17's."""
        return poses[:, self.of_hands17]

    def from_hands17(self, poses: Poses) -> Poses:
        """Returns `poses`, (n, 21, 3), of HANDS17's order in this one."""
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
