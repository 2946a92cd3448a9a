"""The range of position and size of a set's hands, to detect poses that differ from it."""

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

_MOST_FRAMES = 10_000  # enough to estimate the range of a million
_PERCENTILES = (1, 99)

_STRANGE_SHARE = 0.2
"""Fraction of odd bones that makes a frame strange. A backbone may make a few bones too short, and a subject may have
an unusual bone; a wrong joint order makes many bones odd."""

_WINDOW = 1000
"""Frames that are judged together. In such a window the worst backbone of NYU (DeepPrior) has odd bones in 0.36 of the
frames, a wrong joint order in 0.7; in a shorter window a backbone may be wrong in nearly all frames."""

_SHOWN = 3  # bones in a text


@dataclass(frozen=True)
class PoseRange:
    """The ranges of a set's poses, from the 1st to the 99th percentile.

    Attributes:
        hand_mm: The range of the mean bone length of a pose.
        bones_mm: The range of the length of each bone.
        centre_mm: The ranges of x, y and z of a pose's centre, the mean of its joints.
        curl_mm: The range of the distance of the fingertips in front of the palm, see `_curls`; None if the skeleton
            has no palm, and in results of versions that did not record it.
    """

    hand_mm: tuple[float, float]
    bones_mm: tuple[tuple[float, float], ...]
    centre_mm: tuple[tuple[float, float], ...]
    curl_mm: tuple[float, float] | None

    @classmethod
    def of(cls, poses: Array, skeleton: Skeleton) -> "PoseRange":
        """Returns the range of poses, (N, J, 3), mm; for a large set it is estimated from evenly spaced frames."""
        sample = poses[:: -(-len(poses) // _MOST_FRAMES)]  # (n, J, 3)
        bones_mm = bone_lengths(sample, skeleton)  # (n, B)
        (hand_mm,) = _ranges(bones_mm.mean(axis=1, keepdims=True))
        curls_mm = _curls(sample, skeleton)  # (n,)
        curl_mm = None if curls_mm is None else _ranges(curls_mm[:, None])[0]
        return cls(hand_mm, _ranges(bones_mm), _ranges(sample.mean(axis=1)), curl_mm)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PoseRange":
        """Reads the result of `to_json`; raises LookupError, TypeError or ValueError if `content` is not one."""
        hand_mm = _pair(content["hand_mm"])
        bones_mm, centre_mm = (tuple(map(_pair, content[key])) for key in ("bones_mm", "centre_mm"))
        curl_mm = content.get("curl_mm")
        if len(centre_mm) != 3:
            raise ValueError(f"expected the ranges of x, y and z, got {len(centre_mm)} ranges")
        return cls(hand_mm, bones_mm, centre_mm, None if curl_mm is None else _pair(curl_mm))

    def to_json(self) -> dict[str, Any]:
        """Returns the range as JSON."""
        return asdict(self)


@dataclass
class _Finding:
    """One kind of difference: the number of frames that have it, the first of them, and a text on its first window."""

    n_frames: int
    first: int
    text: str


class PoseRangeCheck:
    """Compares poses, in chunks of any size, with the range of a training set.

    Size and position count in every frame. Odd bones and fingers that bend to the other side occur in some frames of
    any backbone: they count only if more than half of a thousand consecutive frames, or of a smaller file, have them.

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
        """Compares the next poses, (n, J, 3), mm."""
        self._waiting = np.concatenate([self._waiting, poses])  # (n, J, 3)
        while len(self._waiting) >= 2 * _WINDOW:  # so that the last window is not short
            self._compare(self._waiting[:_WINDOW])
            self._waiting = self._waiting[_WINDOW:]

    def texts(self) -> list[str]:
        """Returns the differences from the training set; call it after all poses were added."""
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
        # The other checks mean nothing for hands of another size, nor the palm for joints in another order.
        has_order = self._compare_bones(bones_mm, has_size)  # (n,)
        self._compare_sides(poses, has_order)
        self._compare_positions(poses.mean(axis=1), has_size)
        self._n_frames += len(poses)

    def _compare_sizes(self, hand_mm: _Numbers) -> _Mask:
        """Returns which hands, (n,), given by their mean bone length, have about the expected size."""
        shortest, longest = self.expected.hand_mm
        fits: _Mask = (shortest / 2 <= hand_mm) & (hand_mm <= 2 * longest)  # (n,)
        if not fits.all():
            length = float(np.median(hand_mm[~fits]))
            unit = guess_unit(length, shortest / 2, 2 * longest)
            hint = "" if unit is None else f". The unit seems to be {unit}; expected millimetres"
            self._note(
                "size",
                ~fits,
                f"the mean bone length of a hand is {length:.3g} mm, in the training set {shortest:.3g} to "
                f"{longest:.3g} mm{hint}",
            )
        return fits

    def _compare_bones(self, bones_mm: _Numbers, among: _Mask) -> _Mask:
        """Returns which of the poses `among`, (n,), seem to have the right joint order, by bone lengths, (n, B)."""
        low, high = np.array(self.expected.bones_mm).T  # (B,) each
        is_odd = (bones_mm < low / 1.5) | (bones_mm > 1.5 * high)  # (n, B)
        is_strange = _keep_if_most(among & (is_odd.mean(axis=1) >= _STRANGE_SHARE))  # (n,)
        if is_strange.any():
            median_mm = np.median(bones_mm[is_strange], axis=0)  # (n, B) -> (B,)
            often = np.argsort(-is_odd[is_strange].mean(axis=0), kind="stable")[:_SHOWN]  # (n, B) -> (3,)
            names = bone_names(self.skeleton)
            shown = ", ".join(f"{names[i]} {median_mm[i]:.0f} mm ({low[i]:.0f} to {high[i]:.0f})" for i in often)
            self._note(
                "bones",
                is_strange,
                f"many bone lengths are outside the range of the training set: {shown}, …. Does the joint order differ "
                "from that of the format?",
            )
        return among & ~is_strange

    def _compare_sides(self, poses: Array, among: _Mask) -> None:
        curls_mm = _curls(poses, self.skeleton)  # (n,)
        if curls_mm is None or self.expected.curl_mm is None:
            return
        as_given, in_mirror = (
            _distance_outside(curls, self.expected.curl_mm) for curls in (curls_mm, -curls_mm)
        )  # (n,) each
        self._note(
            "side",
            _keep_if_most(among & (in_mirror < as_given / 2)),
            "the fingers bend to the opposite side of the palm compared with the training set. Are the hands mirrored, "
            "or left hands where it has right hands?",
        )

    def _compare_positions(self, centres_mm: _Numbers, among: _Mask) -> None:
        for axis, (low, high), centre_mm in zip("xyz", self.expected.centre_mm, centres_mm.T, strict=True):
            # The margin is the width of the range, and at least the length of a hand.
            margin = max(high - low, 10 * self.expected.hand_mm[1])
            is_strange = among & (_distance_outside(centre_mm, (low, high)) > margin)  # (n,)
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


def _keep_if_most(mask: _Mask) -> _Mask:
    """Returns a mask, (n,), or an empty mask if no more than half is set."""
    return mask if 2 * mask.sum() > len(mask) else np.zeros_like(mask)


def _distance_outside(values: _Numbers, between: tuple[float, float]) -> _Numbers:
    """Returns the distances of values, (n,), from a range; 0 for values inside."""
    low, high = between
    distances: _Numbers = np.maximum(0, np.maximum(low - values, values - high))  # (n,)
    return distances


def _curls(poses: Array, skeleton: Skeleton) -> _Numbers | None:
    """Returns the distance of the mean fingertip in front of the palm, in the direction of its normal, (N,), mm.

    Fingers bend to one side of the palm and hardly to the other, so the sign distinguishes hands from mirrored hands.
    It does not say which is which: datasets have right- and left-handed camera frames, see `Palm`.

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
