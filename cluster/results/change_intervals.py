"""Intervals of the change by the correction, from the errors of frames, which are kept together with the weights.

They say how far the mean change depends on which frames of the recordings were tested. They say nothing about other
recordings, other people or other trainings.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cluster.results.groups import Group, Grouping, split_of_frames
from cluster.results.results import Results
from cluster.results.rows import Row
from cluster.results.statistics import Interval, block_bootstrap_interval, block_length
from cluster.storage.frame_errors import FrameErrors


class ChangeIntervals(NamedTuple):
    """The 95 % intervals of a mean change over frames: after minus before.

    Attributes:
        mm: In mm.
        percent: In % of the mean before; None if this mean is 0.
        block_length: The number of frames of a block, for the interval in mm.
    """

    mm: Interval
    percent: Interval | None
    block_length: int


def intervals_of(frames: FrameErrors) -> ChangeIntervals | None:
    """Returns the intervals of the mean change of frames, by block bootstrap within recordings.

    The change in % is a ratio of two means. Its interval is that of the linearised ratio, which is a mean over frames
    (Cochran 1977, Sampling Techniques).

    Returns:
        None if there are too few frames.
    """
    before, after = frames.means
    rows, lengths = frames.runs
    before, change = before[rows], (after - before)[rows]  # (N,) each, as recorded
    length = block_length(change, lengths)
    mm = block_bootstrap_interval(change, sequence_lengths=lengths, length=length)
    if mm is None:
        return None
    mean = before.mean()
    if not mean:
        return ChangeIntervals(mm, None, length)
    ratio = change.mean() / mean
    linearised = ratio + (change - ratio * before) / mean  # (N,), with the mean `ratio`
    return ChangeIntervals(mm, block_bootstrap_interval(100 * linearised, sequence_lengths=lengths), length)


def change_intervals(results: Results, row: Row, split: str) -> ChangeIntervals | None:
    """Returns the intervals of a combination; None if `mean_frame_errors` does, or if there are too few frames.

    Args:
        results: The experiment's results.
        row: The combination's row in the summary.
        split: The split.

    Raises:
        StorageError: If a file cannot be read.
    """
    frames = mean_frame_errors(results, row, split)
    return None if frames is None else intervals_of(frames)


def mean_frame_errors(results: Results, row: Row, split: str) -> FrameErrors | None:
    """Reads the errors of a combination's frames, of all folds, as means over its finished repetitions.

    Returns:
        None if a finished repetition did not keep them: the mean over the others is another number than the table's.

    Raises:
        StorageError: If a file cannot be read.
    """
    if results.folder is None or split != split_of_frames(results, row):
        return None
    repetitions = []
    for trial in results.counted[row["key"]]:
        if trial["status"] == "finished":
            ids = results.trained_ids(f"{trial['key']}/{trial['repetition']}")
            found = FrameErrors.read_folds(results.folder, ids)
            if found is None:
                return None
            repetitions.append(found)
    return FrameErrors.mean(repetitions) if repetitions else None


def group_intervals(
    results: Results, row: Row, by: Grouping, groups: Sequence[Group], split: str
) -> list[ChangeIntervals | None]:
    """Returns the intervals of the groups of a combination.

    Args:
        results: The experiment's results.
        row: The combination's row in the summary.
        by: 'subset', 'subject' or 'sequence'.
        groups: What `read_groups` returns: all frames, then the groups.
        split: The split.

    Raises:
        StorageError: If a file cannot be read.
    """
    frames = mean_frame_errors(results, row, split)
    if frames is None:
        return [None] * len(groups)
    return [intervals_of(frames), *(_intervals_of_group(frames, by, group.name) for group in groups[1:])]


def _intervals_of_group(frames: FrameErrors, by: Grouping, name: str) -> ChangeIntervals | None:
    if by == "subset":
        errors = frames.by_subset.get(name)
        return None if errors is None else intervals_of(replace(frames, by_subset={name: errors}))
    names = getattr(frames.frames, by)
    return None if names is None else intervals_of(frames.take(names == name))
