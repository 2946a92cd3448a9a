"""Where the hands of a set are and how large they are, to notice poses that are of another kind."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.bones import bone_lengths, bone_names, guessed_unit
from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton

_Numbers = npt.NDArray[np.floating[Any]]

_MOST_FRAMES = 10_000  # as many tell the range of a million
_PERCENTILES = (1, 99)

_STRANGE_SHARE = 0.2
"""Of bones. A backbone may make some too short, and a subject have one that no other has; another order makes many."""


@dataclass(frozen=True)
class PoseRange:
    """Between which values nearly all poses of a set lie: from the first percentile to the 99th.

    Attributes:
        hand_mm: Of the mean length of a pose's bones.
        bones_mm: Of the length of each bone.
        centre_mm: Of x, y and z of a pose's centre, the mean of its joints.
    """

    hand_mm: tuple[float, float]
    bones_mm: tuple[tuple[float, float], ...]
    centre_mm: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, poses: Array, skeleton: Skeleton) -> "PoseRange":
        """Returns the range of poses, (N, J, 3), mm; of a large set, that of some of them."""
        some = poses[:: -(-len(poses) // _MOST_FRAMES)]  # (n, J, 3)
        bones_mm = bone_lengths(some, skeleton)  # (n, B)
        (hand_mm,) = _ranges(bones_mm.mean(axis=1, keepdims=True))
        return cls(hand_mm, _ranges(bones_mm), _ranges(some.mean(axis=1)))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PoseRange":
        """Returns the range that `to_json` told; LookupError, TypeError or ValueError if it is none."""
        (hand_mm,), bones_mm, centre_mm = (
            tuple((float(low), float(high)) for low, high in pairs)
            for pairs in ([content["hand_mm"]], content["bones_mm"], content["centre_mm"])
        )
        if len(centre_mm) != 3:
            raise ValueError(f"needed are the ranges of x, y and z, not of {len(centre_mm)} axes")
        return cls(hand_mm, bones_mm, centre_mm)

    def to_json(self) -> dict[str, Any]:
        """Returns the range as JSON."""
        return asdict(self)

    def unlike(self, poses: Array, skeleton: Skeleton) -> list[str]:
        """Returns what tells that `poses`, (N, J, 3), mm, are not such as those of the range; nothing if they are."""
        bones_mm = bone_lengths(poses, skeleton)  # (N, B)
        shortest, longest = self.hand_mm
        hand_mm = float(np.median(bones_mm.mean(axis=1)))
        if not shortest / 2 <= hand_mm <= 2 * longest:
            unit = guessed_unit(hand_mm, shortest / 2, 2 * longest)
            hint = "" if unit is None else f". They seem to be in {unit}; needed are millimetres"
            return [
                f"the bones are {hand_mm:.3g} mm long in the mean of a hand, those of the training set "
                f"{shortest:.3g} to {longest:.3g} mm{hint}"
            ]
        return [*self._strange_bones(np.median(bones_mm, axis=0), skeleton), *self._strange_places(poses)]

    def _strange_bones(self, bones_mm: _Numbers, skeleton: Skeleton) -> Iterator[str]:
        strange = [
            f"{name} {bone:.0f} mm ({low:.0f} to {high:.0f})"
            for name, bone, (low, high) in zip(bone_names(skeleton), bones_mm, self.bones_mm, strict=True)
            if not low / 1.5 <= bone <= 1.5 * high
        ]
        if len(strange) >= _STRANGE_SHARE * len(bones_mm):
            yield (
                f"{len(strange)} of {len(bones_mm)} bones have a length that they had not in the training set: "
                f"{', '.join(strange[:3])}, …. Are the joints in another order than the format's?"
            )

    def _strange_places(self, poses: Array) -> Iterator[str]:
        centre_mm = np.median(poses.mean(axis=1), axis=0)  # (N, J, 3) -> (3,)
        for axis, (low, high), centre in zip("xyz", self.centre_mm, centre_mm, strict=True):
            # As far outside as the range is wide, and at least a hand's length: that is no matter of a few hands.
            margin = max(high - low, 10 * self.hand_mm[1])
            if not low - margin <= centre <= high + margin:
                yield (
                    f"the hands are at {axis} = {centre:.0f} mm (median), those of the training set at {low:.0f} to "
                    f"{high:.0f} mm"
                )


def _ranges(values: _Numbers) -> tuple[tuple[float, float], ...]:
    """Returns between which values nearly all of each column lie, (N, K)."""
    low, high = np.percentile(values, _PERCENTILES, axis=0)  # (K,) each
    return tuple(zip(low.tolist(), high.tolist(), strict=True))
