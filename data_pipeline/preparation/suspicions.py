"""Warnings about a readable dataset: wrong units, axes or joint order, and frames that are not hands."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from data_pipeline.bones import bone_lengths, bone_names, guess_unit
from data_pipeline.formats.joint_orders import OPENPOSE
from data_pipeline.formats.units import HAND_SIZES_MM
from data_pipeline.frame_table import CUT_MM, FrameTable, group_codes
from data_pipeline.pose_dataset import Array, Samples
from data_pipeline.preparation.chunks import chunks
from data_pipeline.preparation.motion import Motion
from data_pipeline.preparation.sample_errors import SampleErrors
from data_pipeline.skeleton import HANDS17, Skeleton
from data_pipeline.tables import label_keys
from data_pipeline.words import count, first_of, listed

BONE_LENGTHS_MM = (0.5, 150.0)
"""Plausible bone lengths: from two distinct joints to more than from wrist to knuckle in a large hand."""

_N_FEW = 256  # evenly spaced samples for expensive checks
_SHOWN = 5  # samples that a text names

_MAX_TREE_RATIO = 1.9  # NYU, ICVL and synthetic hands have at most 1.65; shuffled joints nearly always have more
_BETTER = 0.75  # an explanation counts if it leaves less than this fraction of the error
_MIN_LINE_SHARE = 0.02  # of the longest extent of a pose; straight fingers in one plane have 0.3
_MIN_POINT_SHARE = 0.01  # of the typical extent of the poses

Mask = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspicion:
    """Something that looks wrong.

    Attributes:
        about: "labels", "subset NAME" or "frames".
        text: What looks wrong, and what to do about it.
        samples: The number of affected samples; None if it affects the dataset as a whole.
        first: The indices of the first of these samples, counted from 0.
    """

    about: str
    text: str
    samples: int | None = None
    first: tuple[int, ...] = ()


@dataclass(frozen=True)
class Extents:
    """The sizes of N poses.

    Attributes:
        size_mm: Twice the distance of the farthest joint from the mean of all joints, (N,), mm.
        longest: The root mean square of the joints along their first principal axis, (N,), mm.
        second: The same along the second principal axis, (N,), mm.
    """

    size_mm: _Numbers
    longest: _Numbers
    second: _Numbers

    @classmethod
    def of(cls, poses: Array) -> "Extents":
        """Measures poses, (N, J, 3), mm."""
        size, longest, second = np.empty((3, len(poses)))  # (N,) each
        for rows in chunks(len(poses)):
            centred = _centred(poses[rows])  # (n, J, 3)
            size[rows] = 2 * np.linalg.norm(centred, axis=2).max(axis=1)  # (n, J, 3) -> (n,)
            spread = centred.swapaxes(1, 2) @ centred / poses.shape[1]  # (n, 3, 3)
            squares = np.linalg.eigvalsh(spread).clip(min=0)  # (n, 3), ascending
            second[rows], longest[rows] = np.sqrt(squares[:, 1:]).T
        return cls(size, longest, second)


def suspicions(
    samples: Samples,
    skeleton: Skeleton,
    motion: Motion,
    extents: Mapping[str, Extents],
    lengths_mm: Array,
    errors: Mapping[str, SampleErrors],
) -> list[Suspicion]:
    """Returns everything that looks wrong in a dataset.

    Args:
        samples: The dataset.
        skeleton: The skeleton of its poses.
        motion: How its samples follow each other.
        extents: The extents of "labels" and of each "subset NAME".
        lengths_mm: The bone lengths of the labels, (N, B), mm.
        errors: The errors of each subset.
    """
    return [
        *frame_suspicions(samples.frames, motion),
        *_check_poses("labels", samples.labels, extents["labels"]),
        *_check_bones(samples.labels, skeleton, lengths_mm, float(np.median(extents["labels"].size_mm))),
        *_check_duplicates(samples.labels),
        *(
            suspicion
            for subset, poses in samples.poses.items()
            for suspicion in [
                *_check_poses(f"subset {subset}", poses, extents[f"subset {subset}"]),
                *_check_predictions(subset, poses, samples.labels, skeleton),
                *_check_errors(subset, poses, samples.labels, errors[subset].mean_mm, extents["labels"].size_mm),
            ]
        ),
    ]


def frame_suspicions(frames: FrameTable, motion: Motion) -> Iterator[Suspicion]:
    """Yields what looks wrong in a frame table and in the order of the samples."""
    if frames.name is not None:
        n_repeated = len(frames.name) - len(set(frames.name))
        if n_repeated:
            yield Suspicion("frames", f"{n_repeated} {_have(n_repeated)} the name of an earlier sample")
    if frames.sequence is not None and frames.index is not None:
        places = np.stack([group_codes(frames.sequence), frames.index])  # (2, N)
        n_repeated = places.shape[1] - np.unique(places, axis=1).shape[1]
        if n_repeated:
            yield Suspicion("frames", f"{n_repeated} {_have(n_repeated)} the sequence and index of an earlier sample")
    if motion.is_shuffled:
        yield Suspicion(
            "frames",
            f"successive samples differ by {motion.step_mm:.0f} mm, about as much as random ones: the frames are "
            "shuffled, or are not a video. Blocks of such frames keep no distance; split by subject or cluster",
        )
    elif frames.sequence is not None and motion.cuts:
        first = tuple(motion.cuts[:_SHOWN])
        yield Suspicion(
            "frames",
            f"{count(len(motion.cuts), 'sample')} lie more than {CUT_MM:.0f} mm from the frame before in the same "
            "sequence; a sequence has no cuts, so begin a new one there",
            len(motion.cuts),
            first,
        )


def _have(n: int) -> str:
    return "sample has" if n == 1 else "samples have"


def _check_poses(about: str, poses: Array, extents: Extents) -> Iterator[Suspicion]:
    """Checks poses on their own: units, position, degenerate poses."""
    size_mm = float(np.median(extents.size_mm))
    smallest, largest = HAND_SIZES_MM
    if not smallest <= size_mm <= largest:
        unit = guess_unit(size_mm, smallest, largest)
        guess = "" if unit is None else f"; the unit seems to be {unit}"
        yield Suspicion(about, f"the median size of a hand is {size_mm:.3g} mm{guess}; expected millimetres")

    # In chunks: comparing all samples together would take another quarter of a large dataset's memory.
    is_behind = np.empty(len(poses), np.bool_)
    depth = np.empty(len(poses))
    for rows in chunks(len(poses)):
        is_behind[rows] = (poses[rows, :, 2] <= 0).any(axis=1)  # (n, J) -> (n,)
        depth[rows] = poses[rows, :, 2].mean(axis=1, dtype=np.float64)  # (n, J) -> (n,)
    if np.median(np.abs(depth)) < size_mm / 2:
        yield Suspicion(about, "hands are at the camera: z is about 0, as if poses were shifted to the origin")
    elif np.median(depth) < 0:
        yield Suspicion(about, "z is negative: hands are behind the camera, as if z pointed towards it; flip the axes")
    elif is_behind.any():
        yield _sample_suspicion(about, is_behind, "joints behind the camera (z is 0 or less)")

    typical = np.median(extents.longest)
    is_point = extents.longest <= _MIN_POINT_SHARE * typical  # (N,)
    is_line = ~is_point & (extents.second <= _MIN_LINE_SHARE * extents.longest)  # (N,)
    if is_point.any():
        yield _sample_suspicion(about, is_point, "all joints at one point")
    if is_line.any():
        yield _sample_suspicion(about, is_line, "all joints on one line")


def _check_bones(labels: Array, skeleton: Skeleton, lengths_mm: Array, size_mm: float) -> Iterator[Suspicion]:
    """Checks the bones: a wrong joint order or misplaced joints make them far too long."""
    few = _few(labels).astype(np.float64)  # (n, J, 3)
    length = bone_lengths(few, skeleton).sum(axis=1).mean()
    # Bone lengths alone do not distinguish one finger from another.
    if skeleton == HANDS17 and bone_lengths(OPENPOSE.to_hands17(few), skeleton).sum(axis=1).mean() < 0.8 * length:
        yield Suspicion(
            "labels",
            "joints seem to be ordered finger by finger, as in MSRA15 (thumb last) or OpenPose (thumb first); import "
            "the original file with its format",
        )
        return
    # The minimum spanning tree of the joints is a lower bound of the total bone length in any pose.
    shortest = np.mean([minimum_spanning_tree(cdist(pose, pose)).sum() for pose in few])
    if length > _MAX_TREE_RATIO * shortest:
        yield Suspicion(
            "labels",
            f"bones are {length / shortest:.1f} times as long as the minimum spanning tree of the joints; up to 1.7 "
            "times is usual. The joints seem to be in another order",
        )
        return
    if not HAND_SIZES_MM[0] <= size_mm <= HAND_SIZES_MM[1]:
        return  # with wrong units lengths mean nothing

    names = np.array(bone_names(skeleton))
    shortest_mm, longest_mm = BONE_LENGTHS_MM
    for what, is_odd in (
        (f"longer than {longest_mm:g} mm", np.greater(lengths_mm, longest_mm)),  # (N, B)
        (f"shorter than {shortest_mm:g} mm", np.less(lengths_mm, shortest_mm)),  # (N, B)
    ):
        is_odd_sample: Mask = np.any(is_odd, axis=1)  # (N, B) -> (N,)
        if is_odd_sample.any():
            odd = ", ".join(names[is_odd.any(axis=0)])
            yield _sample_suspicion("labels", is_odd_sample, f"a bone {what} ({odd})")


def _check_duplicates(labels: Array) -> Iterator[Suspicion]:
    is_duplicate = duplicates(labels)
    if is_duplicate.any():
        yield _sample_suspicion("labels", is_duplicate, "exactly the same label as an earlier sample")


def duplicates(labels: Array) -> Mask:
    """Returns which of labels (N, J, 3) are exactly equal to one with a smaller index, (N,)."""
    _, first = np.unique(label_keys(labels), return_index=True)
    is_duplicate = np.ones(len(labels), np.bool_)
    is_duplicate[first] = False
    return is_duplicate


def _check_predictions(subset: str, poses: Array, labels: Array, skeleton: Skeleton) -> Iterator[Suspicion]:
    """Yields possible explanations of errors: axes with flipped signs, or joints in another order."""
    few, true = _centred(_few(poses)), _centred(_few(labels))  # (n, J, 3) each
    error = np.linalg.norm(few - true, axis=2).mean()
    errors = {
        signs: np.linalg.norm(few * signs - true, axis=2).mean()
        for signs in product((1, -1), repeat=3)
        if signs != (1, 1, 1)
    }
    best = min(errors, key=lambda signs: errors[signs])
    if errors[best] < _BETTER * error:
        axes = listed([axis for axis, sign in zip("xyz", best, strict=True) if sign < 0])
        kind = ", so hands are mirrored" if np.prod(best) < 0 else ""
        yield Suspicion(f"subset {subset}", f"the sign of {axes} seems to be flipped relative to the labels{kind}")
        return

    # (n, J, 1, 3) and (n, 1, J, 3) -> (J, J): the mean distance of each predicted joint from each true joint.
    distances = np.mean([cdist(pose, label) for pose, label in zip(few, true, strict=True)], axis=0)
    _, nearest = linear_sum_assignment(distances)  # (J,)
    moved = np.flatnonzero(nearest != np.arange(len(nearest)))
    if len(moved) and distances[moved, nearest[moved]].mean() < _BETTER * distances[moved, moved].mean():
        names = skeleton.joint_names
        pairs = [f"{names[joint]} is where {names[nearest[joint]]} should be" for joint in moved]
        text = f"joints seem to be ordered differently from the labels: {first_of(pairs, _SHOWN)}"
        yield Suspicion(f"subset {subset}", text)


def _check_errors(
    subset: str, poses: Array, labels: Array, errors_mm: _Numbers, size_mm: _Numbers
) -> Iterator[Suspicion]:
    is_identical = np.empty(len(poses), np.bool_)
    for rows in chunks(len(poses)):
        is_identical[rows] = (poses[rows] == labels[rows]).all(axis=(1, 2))  # (n, J, 3) -> (n,)
    if is_identical.any():
        yield _sample_suspicion(f"subset {subset}", is_identical, "the prediction exactly equals the label")
    is_far = errors_mm > size_mm  # (N,)
    if is_far.any():
        yield _sample_suspicion(f"subset {subset}", is_far, "a mean error larger than the hand")


def _sample_suspicion(about: str, mask: Mask, text: str) -> Suspicion:
    n = int(mask.sum())
    return Suspicion(about, f"{n} of {len(mask)} samples: {text}", n, tuple(np.flatnonzero(mask)[:_SHOWN].tolist()))


def _few(poses: Array) -> Array:
    return poses[:: max(1, len(poses) // _N_FEW)]


def _centred(poses: npt.NDArray[np.floating]) -> _Numbers:
    numbers = poses.astype(np.float64)
    centred: _Numbers = numbers - numbers.mean(axis=1, keepdims=True)
    return centred
