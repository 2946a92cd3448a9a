"""Where the hands of a set are and how large they are, to notice poses that are of another kind."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_pipeline.bones import bone_lengths, guessed_unit
from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton

_MOST_FRAMES = 10_000  # as many tell the range of a million
_PERCENTILES = (1, 99)


@dataclass(frozen=True)
class PoseRange:
    """Between which values nearly all poses of a set lie: from the first percentile to the 99th.

    Attributes:
        bone_mm: Of the mean length of a pose's bones.
        centre_mm: Of x, y and z of a pose's centre, the mean of its joints.
    """

    bone_mm: tuple[float, float]
    centre_mm: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, poses: Array, skeleton: Skeleton) -> "PoseRange":
        """Returns the range of poses, (N, J, 3), mm; of a large set, that of some of them."""
        some = poses[:: -(-len(poses) // _MOST_FRAMES)]  # (n, J, 3)
        bone_mm, centre_mm = _bone_and_centre(some, skeleton)
        low, high = np.percentile(centre_mm, _PERCENTILES, axis=0)  # (3,) each
        shortest, longest = np.percentile(bone_mm, _PERCENTILES)
        centres = tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))
        return cls((float(shortest), float(longest)), centres)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PoseRange":
        """Returns the range that `to_json` told; LookupError, TypeError or ValueError if it is none."""
        pairs = [(float(low), float(high)) for low, high in [content["bone_mm"], *content["centre_mm"]]]
        if len(pairs) != 4:
            raise ValueError(f"needed are the ranges of x, y and z, not of {len(pairs) - 1} axes")
        return cls(pairs[0], tuple(pairs[1:]))

    def to_json(self) -> dict[str, Any]:
        """Returns the range as JSON."""
        return asdict(self)

    def unlike(self, poses: Array, skeleton: Skeleton) -> list[str]:
        """Returns what tells that `poses`, (N, J, 3), mm, are not such as those of the range; nothing if they are."""
        bone_mm, centre_mm = _bone_and_centre(poses, skeleton)
        shortest, longest = self.bone_mm
        bone = float(np.median(bone_mm))
        if not shortest / 2 <= bone <= 2 * longest:
            unit = guessed_unit(bone, shortest / 2, 2 * longest)
            hint = "" if unit is None else f". They seem to be in {unit}; needed are millimetres"
            return [
                f"the bones are {bone:.3g} mm long in the mean of a hand, those of the training set "
                f"{shortest:.3g} to {longest:.3g} mm{hint}"
            ]
        found = []
        for axis, (low, high), centre in zip("xyz", self.centre_mm, np.median(centre_mm, axis=0), strict=True):
            # As far outside as the range is wide, and at least a hand's length: that is no matter of a few hands.
            margin = max(high - low, 10 * longest)
            if not low - margin <= centre <= high + margin:
                found.append(
                    f"the hands are at {axis} = {centre:.0f} mm (median), those of the training set at {low:.0f} to "
                    f"{high:.0f} mm"
                )
        return found


def _bone_and_centre(poses: Array, skeleton: Skeleton) -> tuple[Array, Array]:
    """Returns each pose's mean bone length, (N,), and centre, (N, 3), mm."""
    return bone_lengths(poses, skeleton).mean(axis=1), poses.mean(axis=1)
