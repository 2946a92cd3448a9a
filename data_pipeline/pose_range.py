"""Where the hands of a set are and how large they are, to notice poses that are of another kind."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.bones import bone_lengths, bone_names, guess_unit
from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton

_Numbers = npt.NDArray[np.floating[Any]]
_Mask = npt.NDArray[np.bool_]

_MOST_FRAMES = 10_000  # as many tell the range of a million
_PERCENTILES = (1, 99)

_STRANGE_SHARE = 0.2
"""Of bones. A backbone may make some too short, and a subject have one that no other has; another order makes many."""

_WINDOW = 1000
"""Frames that are looked at together. Of as many in a row the worst backbone of NYU (DeepPrior) has odd bones in 0.36,
joints in another order make them in 0.7 of the frames; of fewer a backbone may be wrong in nearly all."""

_SHOWN = 3  # bones in a text


@dataclass(frozen=True)
class PoseRange:
    """Between which values nearly all poses of a set lie: from the first percentile to the 99th.

    Attributes:
        hand_mm: Of the mean length of a pose's bones.
        bones_mm: Of the length of each bone.
        centre_mm: Of x, y and z of a pose's centre, the mean of its joints.
        curl_mm: Of how far the fingertips are before the palm, see `_curls`; None where the skeleton has no palm, and
            in results of versions that did not tell it.
    """

    hand_mm: tuple[float, float]
    bones_mm: tuple[tuple[float, float], ...]
    centre_mm: tuple[tuple[float, float], ...]
    curl_mm: tuple[float, float] | None

    @classmethod
    def of(cls, poses: Array, skeleton: Skeleton) -> "PoseRange":
        """Returns the range of poses, (N, J, 3), mm; of a large set, that of some of them."""
        some = poses[:: -(-len(poses) // _MOST_FRAMES)]  # (n, J, 3)
        bones_mm = bone_lengths(some, skeleton)  # (n, B)
        (hand_mm,) = _ranges(bones_mm.mean(axis=1, keepdims=True))
        curls_mm = _curls(some, skeleton)  # (n,)
        curl_mm = None if curls_mm is None else _ranges(curls_mm[:, None])[0]
        return cls(hand_mm, _ranges(bones_mm), _ranges(some.mean(axis=1)), curl_mm)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PoseRange":
        """Returns the range that `to_json` told; LookupError, TypeError or ValueError if it is none."""
        hand_mm = _pair(content["hand_mm"])
        bones_mm, centre_mm = (tuple(map(_pair, content[key])) for key in ("bones_mm", "centre_mm"))
        curl_mm = content.get("curl_mm")
        if len(centre_mm) != 3:
            raise ValueError(f"expected the ranges of x, y and z, not of {len(centre_mm)} axes")
        return cls(hand_mm, bones_mm, centre_mm, None if curl_mm is None else _pair(curl_mm))

    def to_json(self) -> dict[str, Any]:
        """Returns the range as JSON."""
        return asdict(self)


@dataclass
class _Finding:
    """What is strange in one way: in how many frames, in which first, and how it is in the first window with such."""

    n_frames: int
    first: int
    text: str


class PoseRangeCheck:
    """Poses that come in chunks of any size, compared with those of a training set.

    Size and place count in each frame. Odd bones, and fingers that bend to the other side, are in some frames of any
    backbone: they count where they are in more than half of a thousand frames in a row, or of a smaller file.

    Args:
        expected: The range of the training set.
        skeleton: The skeleton of both.
    """

    def __init__(self, expected: PoseRange, skeleton: Skeleton) -> None:
        self.expected = expected
        self.skeleton = skeleton
        self._waiting = np.empty((0, skeleton.n_joints, 3), np.float32)
        self._n_frames = 0
        self._found: dict[str, _Finding] = {}

    def add(self, poses: Array) -> None:
        """Compares the poses that follow, (n, J, 3), mm."""
        self._waiting = np.concatenate([self._waiting, poses])  # (n, J, 3)
        while len(self._waiting) >= 2 * _WINDOW:  # so that what is left at the end is no short window
            self._compare(self._waiting[:_WINDOW])
            self._waiting = self._waiting[_WINDOW:]

    def texts(self) -> list[str]:
        """Returns, when no poses follow, what tells that some are unlike the training set's; nothing if none are."""
        self._compare(self._waiting)
        self._waiting = self._waiting[:0]
        return [
            f"{found.n_frames:,} of {self._n_frames:,} frames"
            f"{'' if found.n_frames == self._n_frames else f', the first is frame {found.first} (counted from 0)'}: "
            f"{found.text}"
            for found in self._found.values()
        ]

    def _compare(self, poses: Array) -> None:
        bones_mm = bone_lengths(poses, self.skeleton)  # (n, B)
        has_size = self._compare_sizes(bones_mm.mean(axis=1))  # (n,)
        # Of hands of another size the rest tells nothing, and of joints in another order the palm.
        has_order = self._compare_bones(bones_mm, has_size)  # (n,)
        self._compare_sides(poses, has_order)
        self._compare_places(poses.mean(axis=1), has_size)
        self._n_frames += len(poses)

    def _compare_sizes(self, hand_mm: _Numbers) -> _Mask:
        """Returns which hands, (n,) by the mean length of their bones, have about the size of those of the range."""
        shortest, longest = self.expected.hand_mm
        fits: _Mask = (shortest / 2 <= hand_mm) & (hand_mm <= 2 * longest)  # (n,)
        if not fits.all():
            length = float(np.median(hand_mm[~fits]))
            unit = guess_unit(length, shortest / 2, 2 * longest)
            hint = "" if unit is None else f". They seem to be in {unit}; expected millimetres"
            self._note(
                "size",
                ~fits,
                f"the bones are {length:.3g} mm long in the mean of a hand, those of the training set {shortest:.3g} "
                f"to {longest:.3g} mm{hint}",
            )
        return fits

    def _compare_bones(self, bones_mm: _Numbers, among: _Mask) -> _Mask:
        """Returns which `among` some poses, (n,), seem to have the joints in order, by their bones' lengths, (n, B)."""
        low, high = np.array(self.expected.bones_mm).T  # (B,) each
        is_odd = (bones_mm < low / 1.5) | (bones_mm > 1.5 * high)  # (n, B)
        is_strange = _if_most(among & (is_odd.mean(axis=1) >= _STRANGE_SHARE))  # (n,)
        if is_strange.any():
            median_mm = np.median(bones_mm[is_strange], axis=0)  # (n, B) -> (B,)
            often = np.argsort(-is_odd[is_strange].mean(axis=0), kind="stable")[:_SHOWN]  # (n, B) -> (3,)
            names = bone_names(self.skeleton)
            shown = ", ".join(f"{names[i]} {median_mm[i]:.0f} mm ({low[i]:.0f} to {high[i]:.0f})" for i in often)
            self._note(
                "bones",
                is_strange,
                f"many bones have a length that they had not in the training set: {shown}, …. Are the joints in "
                "another order than the format's?",
            )
        return among & ~is_strange

    def _compare_sides(self, poses: Array, among: _Mask) -> None:
        curls_mm = _curls(poses, self.skeleton)  # (n,)
        if curls_mm is None or self.expected.curl_mm is None:
            return
        as_given, in_mirror = (_outside(curls, self.expected.curl_mm) for curls in (curls_mm, -curls_mm))  # (n,) each
        self._note(
            "side",
            _if_most(among & (in_mirror < as_given / 2)),
            "the fingers bend to the other side of the palm than in the training set. Are the hands mirrored, or left "
            "ones where it has right ones?",
        )

    def _compare_places(self, centres_mm: _Numbers, among: _Mask) -> None:
        for axis, (low, high), centre_mm in zip("xyz", self.expected.centre_mm, centres_mm.T, strict=True):
            # As far outside as the range is wide, and at least a hand's length: that is no matter of a few hands.
            margin = max(high - low, 10 * self.expected.hand_mm[1])
            is_strange = among & (_outside(centre_mm, (low, high)) > margin)  # (n,)
            if is_strange.any():
                self._note(
                    axis,
                    is_strange,
                    f"the hands are at {axis} = {np.median(centre_mm[is_strange]):.0f} mm (median), those of the "
                    f"training set at {low:.0f} to {high:.0f} mm",
                )

    def _note(self, kind: str, is_strange: _Mask, text: str) -> None:
        if is_strange.any():
            first = self._n_frames + int(np.argmax(is_strange))
            self._found.setdefault(kind, _Finding(0, first, text)).n_frames += int(is_strange.sum())


def _if_most(mask: _Mask) -> _Mask:
    """Returns a mask, (n,), or none of it where it is of no more than half."""
    return mask if 2 * mask.sum() > len(mask) else np.zeros_like(mask)


def _outside(values: _Numbers, between: tuple[float, float]) -> _Numbers:
    """Returns how far values, (n,), are outside of a range; 0 for those inside."""
    low, high = between
    distances: _Numbers = np.maximum(0, np.maximum(low - values, values - high))  # (n,)
    return distances


def _curls(poses: Array, skeleton: Skeleton) -> _Numbers | None:
    """Returns how far the mean of the fingertips is before the palm, on the side of its normal, (N,), mm.

    Fingers bend to one side of the palm and hardly to the other, so that the sign tells hands from mirrored ones.
    Which sign is which is not said: the frames of datasets are right- and left-handed, see `Palm`.

    Returns:
        None for a skeleton without a palm or fingers.
    """
    if skeleton.palm is None or not skeleton.fingers:
        return None
    outline = poses[:, list(skeleton.palm.outline)]  # (N, P, 3)
    sides = outline[:, 1:] - outline[:, :1]  # (N, P - 1, 3)
    area = np.cross(sides[:, :-1], sides[:, 1:]).sum(axis=1)  # (N, P - 2, 3) -> (N, 3), as in `palm_rotation`
    tips = poses[:, [joints[-1] for _, joints in skeleton.fingers]].mean(axis=1)  # (N, F, 3) -> (N, 3)
    lengths = np.linalg.norm(area, axis=1)  # (N,)
    before = ((tips - outline.mean(axis=1)) * area).sum(axis=1)  # (N, 3) -> (N,)
    curls: _Numbers = np.divide(before, lengths, out=np.zeros_like(lengths), where=lengths > 0)  # a flat palm has none
    return curls


def _pair(values: Iterable[Any]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _ranges(values: _Numbers) -> tuple[tuple[float, float], ...]:
    """Returns between which values nearly all of each column lie, (N, K)."""
    low, high = np.percentile(values, _PERCENTILES, axis=0)  # (K,) each
    return tuple(zip(low.tolist(), high.tolist(), strict=True))
