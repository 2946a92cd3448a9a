"""Measures the separation of two sets of poses, from their frame tables and from the poses themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.frame_table import FrameTable, group_codes, in_order, mean_distances_mm
from data_pipeline.pose_dataset import Array, PoseDataset, Samples
from data_pipeline.separation.separation import MAX_CORRELATION, NEAR_MM, Separation
from data_pipeline.tables import label_keys

Frames = PoseDataset | Samples
Numbers = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]

_N_QUERIES = 500  # frames whose nearest training frame is searched; a share of them is known to 2 %
_CHUNK = 65_536  # training frames that are compared at a time
_MIN_PAIRS = 10  # for a correlation
_LAGS = (5, 10, 25, 50, 100, 200, 500, 1000)
_SPAN = 2**32  # between the places of two sequences; larger than any distance of interest


@dataclass(frozen=True)
class _Errors:
    """The errors of a backbone by coordinate, without their mean, mm.

    Attributes:
        train: Those of the training frames, (N, 3·J); None if the backbone made no predictions for them.
        tested: Those of the other frames, (M, 3·J).
    """

    train: Numbers | None
    tested: Numbers

    @classmethod
    def of(cls, subset: str, train: Frames, tested: Frames) -> "_Errors":
        """Computes the errors of a subset of `tested`."""
        found = (tested.poses[subset] - tested.labels).reshape(len(tested), -1)  # (M, J, 3) -> (M, 3·J)
        # Without predictions, inputs are labels that a distorter changes.
        if subset not in train.poses or train.poses[subset] is train.labels:
            return cls(None, found - found.mean(axis=0))
        others = (train.poses[subset] - train.labels).reshape(len(train), -1)  # (N, J, 3) -> (N, 3·J)
        mean = (found.sum(axis=0) + others.sum(axis=0)) / (len(found) + len(others))  # (3·J,)
        return cls(others - mean, found - mean)


def separation(train: Frames, tested: Frames) -> Separation:
    """Measures how far the frames of a set are from those of the training set.

    Errors of a backbone are correlated by their 3·J coordinates, after the mean error is subtracted.

    Args:
        train: The training set.
        tested: The validation or test set, with the same number of joints.
    """
    errors = [_Errors.of(subset, train, tested) for subset in tested.poses]
    near_share, near_correlation = _near_duplicates(train.labels, tested.labels, errors)
    found = Separation(
        frames=len(tested),
        shared_subjects=_shared_subjects(train.frames, tested.frames),
        duplicates=int(np.isin(label_keys(tested.labels), label_keys(train.labels)).sum()),
        near_share=near_share,
        near_correlation=near_correlation,
    )
    places = _places(train, tested)
    if places is not None:
        distances = _within_sequences(*places)
        distances = distances[~np.isnan(distances)]
        found = replace(found, frames_in_shared_sequences=len(distances))
        if len(distances):
            shortest, median = int(distances.min()), float(np.median(distances))
            found = replace(
                found,
                min_distance=shortest,
                median_distance=median,
                correlation=_correlation_at(places, errors, shortest),
                median_correlation=_correlation_at(places, errors, round(median)),
            )
    return (
        replace(found, better_split=_better_split(train, tested, places, errors)) if found.is_interpolation else found
    )


def training_distances(train: Frames, tested: Frames) -> npt.NDArray[np.float64] | None:
    """Returns how far each tested frame is from the nearest training frame of its sequence.

    Returns:
        The distances, (M,), in frames; NaN for frames of sequences without training frames. None if the sequences of
        either set are not known.
    """
    places = _places(train, tested)
    return None if places is None else _within_sequences(*places)


def _within_sequences(places: Indices, others: Indices) -> npt.NDArray[np.float64]:
    """Returns the distances of `training_distances` between places of `_places`."""
    distances = _nearest_distances(places, others)
    return np.where(distances < _SPAN // 2, distances, np.nan)


def _places(train: Frames, tested: Frames) -> tuple[Indices, Indices] | None:
    """Returns where the frames of both sets are, (N,) and (M,): far apart in different sequences; None if unknown.

    Without indices it is unknown where the frames of a shared sequence are. A sequence of the same name whose frames
    have other labels is another one: importers number the sequences of each recording from 1.
    """
    if train.frames.sequence is None or tested.frames.sequence is None:
        return None
    codes = group_codes(np.concatenate([train.frames.sequence, tested.frames.sequence]))  # (N + M,)
    n = len(train)
    if (train.frames.index is None or tested.frames.index is None) and not set(codes[:n]).isdisjoint(codes[n:]):
        return None
    completed = [found.frames.completed(len(found), "") for found in (train, tested)]
    index = np.concatenate([frames.index for frames in completed if frames.index is not None])  # (N + M,)
    places = codes * _SPAN + index
    of_train, of_tested = places[:n], places[n:]
    common, rows, other_rows = np.intersect1d(of_train, of_tested, return_indices=True)
    if not len(common) or any(found.frames.has_repeated_places(len(found)) for found in (train, tested)):
        # With repeated places, such as those of two hands in a frame, labels cannot tell recordings apart.
        return of_train, of_tested
    far = mean_distances_mm(train.labels[rows], tested.labels[other_rows]) > NEAR_MM
    n_common, n_far = (np.bincount(found // _SPAN, minlength=codes.max() + 1) for found in (common, common[far]))
    is_other = 2 * n_far > n_common  # of each sequence; half, since annotations of a recording may be revised
    return of_train, of_tested + np.where(is_other[codes[n:]], len(is_other) * _SPAN, 0)


def _nearest_distances(places: Indices, others: Indices) -> Indices:
    """Returns the distance of each of `others`, (M,), from the nearest of `places`, (N,): (M,)."""
    ordered = np.sort(places)
    following = np.searchsorted(ordered, others)  # (M,)
    before, after = ordered[np.maximum(following - 1, 0)], ordered[np.minimum(following, len(ordered) - 1)]
    distances: Indices = np.minimum(np.abs(others - before), np.abs(after - others))
    return distances


def _correlation_at(places: tuple[Indices, Indices], errors: Sequence[_Errors], lag: int) -> float | None:
    """Returns the correlation of errors at a distance, of the backbone where it is largest; None if there are few."""
    found = []
    for of_subset in errors:
        if of_subset.train is None:
            at, numbers = places[1], of_subset.tested
        else:
            at, numbers = np.concatenate(places), np.concatenate([of_subset.train, of_subset.tested])
        order = np.argsort(at)
        ordered = at[order]
        partner = np.searchsorted(ordered, ordered + lag).clip(max=len(ordered) - 1)
        has_partner = ordered[partner] == ordered + lag
        if has_partner.sum() >= _MIN_PAIRS:
            found.append(_correlation(numbers[order[has_partner]], numbers[order[partner[has_partner]]]))
    return max(found, default=None)


def _correlation(one: Numbers, other: Numbers) -> float:
    """Returns the correlation of two sets of vectors without a mean, (n, 3·J) each."""
    scale = np.sqrt(np.square(one, dtype=np.float64).sum() * np.square(other, dtype=np.float64).sum())
    return float((one * other).sum(dtype=np.float64) / scale) if scale > 0 else 0.0


def _near_duplicates(train: Array, tested: Array, errors: Sequence[_Errors]) -> tuple[float, float | None]:
    """Returns the share of `tested` with a training label within `NEAR_MM`, and the correlation of their errors."""
    rows = np.unique(np.linspace(0, len(tested) - 1, min(_N_QUERIES, len(tested))).astype(np.int64))  # (n,)
    queries = tested[rows].reshape(len(rows), -1)  # (n, J, 3) -> (n, 3·J)
    origin = queries.mean(axis=0)  # subtracted, so that the squares are small enough for float32
    queries = queries - origin
    best, nearest = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
    for start in range(0, len(train), _CHUNK):
        bank = train[start : start + _CHUNK].reshape(-1, queries.shape[1]) - origin  # (m, J, 3) -> (m, 3·J)
        squares = np.square(bank).sum(axis=1) - 2 * queries @ bank.T  # (n, m); without the queries' own squares
        closest = squares.argmin(axis=1)  # (n,)
        smallest = squares[np.arange(len(rows)), closest]
        nearest = np.where(smallest < best, start + closest, nearest)
        best = np.minimum(best, smallest)
    distances_mm = mean_distances_mm(tested[rows], train[nearest])  # (n,)
    is_near = distances_mm <= NEAR_MM
    correlations = [
        _correlation(of_subset.train[nearest[is_near]], of_subset.tested[rows[is_near]])
        for of_subset in errors
        if of_subset.train is not None and is_near.sum() >= _MIN_PAIRS
    ]
    return float(is_near.mean()), max(correlations, default=None)


def _shared_subjects(train: FrameTable, tested: FrameTable) -> tuple[str, ...] | None:
    if train.subject is None or tested.subject is None:
        return None
    of_train = set(in_order(train.subject))
    return tuple(name for name in in_order(tested.subject) if name in of_train)


def _better_split(
    train: Frames, tested: Frames, places: tuple[Indices, Indices] | None, errors: Sequence[_Errors]
) -> str | None:
    """Returns a split of the same frames that keeps a distance; None if they are too few for one."""
    if places is None:
        return "by subject, sequence or cluster (the command `clusters` groups frames by subject)"
    gap = next((lag for lag in _LAGS if (_correlation_at(places, errors, lag) or 0.0) <= MAX_CORRELATION), _LAGS[-1])
    # The recording has at least these frames, and perhaps those of a third part.
    n = len(train) + len(tested)
    same = f"blocks:{10 * gap}:5:{gap}" if n > 40 * gap else f"last:20:20:{gap}" if n > 5 * gap else None
    for kind, columns in (
        ("subjects", (train.frames.subject, tested.frames.subject)),
        ("sequences", (train.frames.sequence, tested.frames.sequence)),
    ):
        names = [name for column in columns if column is not None for name in in_order(column)]
        if len(set(names)) > 1 and not set("".join(names)) & set(":,%"):
            other = f"{kind}:20%:{names[-1]}:{gap} (other {kind})"
            return other if same is None else f"{other}, or {same} (the same recording)"
    return same
