"""The errors of a combination by group: by subset, subject, sequence, finger or joint.

A mean can hide that a group gets worse. Means of subsets come from `trial.json`, those of fingers and joints from the
records, and those of subjects and sequences from the errors of frames, which are kept together with the weights.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from cluster.results.combination_logs import read_combination_logs
from cluster.results.deserialize import decode_skeleton
from cluster.results.learning_curves import Logged
from cluster.results.names import ChoiceError
from cluster.results.results import Results
from cluster.results.rows import Row, column
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder
from cluster.storage.frame_errors import FrameErrors
from data_pipeline.files.json_numbers import LARGEST
from data_pipeline.frame_table import in_order
from data_pipeline.skeleton import Skeleton
from data_pipeline.subsets import MEAN_SUBSET

Grouping = Literal["subset", "subject", "sequence", "finger", "joint"]

GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

ALL = "all"
"""The name of the group of all frames and joints."""

Values = list[float | None]


class Group(NamedTuple):
    """A group of a test or validation set.

    Attributes:
        name: Its name; `ALL`, or 'mean' for the mean over subsets.
        n_frames: The number of frames that it consists of; None if it is not known.
        before: Its metric before the correction in each planned repetition; None for missing numbers.
        after: The same after the correction.
    """

    name: str
    n_frames: int | None
    before: Values
    after: Values


def read_groups(
    folder: ExperimentFolder, results: Results, row: Row, by: Grouping, *, split: str, metric: str = "distance"
) -> list[Group]:
    """Reads the errors of a combination by group.

    A repetition that lacks these numbers has none in any group, so all groups are means over the same repetitions.

    Args:
        folder: The experiment's folder.
        results: Its results.
        row: The combination's row in the summary.
        by: What distinguishes the groups.
        split: The split.
        metric: The metric; only subsets have others than 'distance'.

    Returns:
        All frames and joints first, then the groups.

    Raises:
        ChoiceError: If these errors are not known; the message says why.
        StorageError: If a file cannot be read.
    """
    trials = results.counted[row["key"]]
    without = f"{results.name} has no errors by {by}"
    if all(trial[column(split, "distance")] is None for trial in trials):
        raise ChoiceError(f"{without}: no trial of {row['key']} has finished with a {split} set")
    total = whole(results, row, split, metric)
    if by == "subset":
        subsets = [
            subset
            for subset in results.subsets(split)
            if any(trial[column(split, "distance", subset=subset)] is not None for trial in trials)
        ]
        if not subsets:
            raise ChoiceError(f"{without}: its {split} set has only one subset")
        return [
            total._replace(name=MEAN_SUBSET),
            *(_of_columns(trials, split, metric, subset, total.n_frames) for subset in subsets),
        ]
    if metric != "distance":
        raise ChoiceError(f"{without} of the metric {metric}: they are distances; leave out --metric")
    ids = [f"{trial['key']}/{trial['repetition']}" for trial in trials]
    finished = [i for i, trial in zip(ids, trials, strict=True) if trial["status"] == "finished"]
    if by in ("finger", "joint"):
        logged = read_combination_logs(folder, results, [row], split=split, is_metric=_is_of_a_part, only_finished=True)
        if not logged.metrics:
            raise ChoiceError(f"{without}: the records of the trials of {row['key']} are missing or broken")
        try:
            skeleton = decode_skeleton(folder.read_trial(results.trained_ids(finished[0])[0]))
        except (LookupError, TypeError, ValueError) as error:
            raise ChoiceError(
                f"{without}: the files of the trials of {row['key']} do not say which skeleton they use"
            ) from error
        return part_groups(total, logged, ids, part_names(skeleton, by))
    if split != split_of_frames(results, row):
        raise ChoiceError(f"{without} on the {split} set: errors of frames are only kept for the test set")
    frames = {trial_id: FrameErrors.read_folds(folder, results.trained_ids(trial_id)) for trial_id in finished}
    if all(found is None for found in frames.values()):
        raise ChoiceError(
            f"{without}: no trial of {row['key']} has kept the errors of its frames ({FileNames.FRAMES}); they are "
            "kept together with the weights, see keep_weights"
        )
    groups = frame_groups(total, [frames.get(trial_id) for trial_id in ids], by)
    if not groups:
        raise ChoiceError(
            f"{without}: the {FileNames.FRAMES} of the trials of {row['key']} name no {by}, because the frame table of "
            "the dataset (NAME_frames.parquet) did not, or because an older version of PoseTune trained them"
        )
    return groups


def split_of_frames(results: Results, row: Row) -> str:
    """Returns the split whose frames have errors on disk: the test set of a combination if it has one."""
    return "test" if row["key"] in results.data_sets.get("test", {}) else "val"


def whole(results: Results, row: Row, split: str, metric: str = "distance") -> Group:
    """Returns the errors of a combination over all frames and joints, as means over the subsets."""
    trials = results.counted[row["key"]]
    data_set = results.data_sets.get(split, {}).get(row["key"])
    n_frames = None if data_set is None else data_set.n_frames
    return _of_columns(trials, split, metric, MEAN_SUBSET, n_frames)._replace(name=ALL)


def part_groups(total: Group, logged: Logged, ids: Sequence[str], parts: Sequence[str]) -> list[Group]:
    """Returns the errors of fingers or joints.

    Args:
        total: The errors of all frames and joints.
        logged: The final metrics of the trials.
        ids: The trial of each repetition.
        parts: The names of the fingers or joints.
    """
    places = {metric: place for place, metric in enumerate(logged.metrics)}

    def values(metric: str) -> Values:
        found = [logged.final[i][places[metric]] if i in logged.final and metric in places else np.nan for i in ids]
        return [float(value) if abs(value) <= LARGEST else None for value in found]  # None for NaN too

    groups = [
        Group(part, total.n_frames, values(f"distance[{part}]_before"), values(f"distance[{part}]")) for part in parts
    ]
    return [_only(total, [i in logged.final for i in ids]), *groups]


def frame_groups(total: Group, frames: Sequence[FrameErrors | None], by: Grouping) -> list[Group]:
    """Returns the errors of subjects or sequences; nothing if no repetition names them.

    Args:
        total: The errors of all frames.
        frames: The errors of the frames in each repetition; None for a repetition that has none.
        by: 'subject' or 'sequence'.
    """
    columns = [None if found is None else getattr(found.frames, by) for found in frames]
    column_of_all = next((names for names in columns if names is not None), None)
    if column_of_all is None:
        return []
    # Repetitions that name other frames are not averaged with these.
    is_known = [names is not None and np.array_equal(names, column_of_all) for names in columns]
    means = [
        found.means if found is not None and known else None for found, known in zip(frames, is_known, strict=True)
    ]
    groups = [_only(total, is_known)._replace(n_frames=len(column_of_all))]
    for name in in_order(column_of_all):
        rows = column_of_all == name  # (N,)
        before, after = (
            [None if errors is None else float(errors[place][rows].mean()) for errors in means] for place in (0, 1)
        )
        groups.append(Group(name, int(rows.sum()), before, after))
    return groups


def part_names(skeleton: Skeleton, by: Grouping) -> list[str]:
    """Returns the names of the fingers; or of the joints, those outside fingers first, then finger by finger."""
    if by == "finger":
        return [name for name, _ in skeleton.fingers]
    in_fingers = [joint for _, joints in skeleton.fingers for joint in joints]
    others = [joint for joint in range(skeleton.n_joints) if joint not in in_fingers]
    return [skeleton.joint_names[joint] for joint in dict.fromkeys([*others, *in_fingers])]


def _of_columns(trials: Sequence[Row], split: str, metric: str, subset: str, n_frames: int | None) -> Group:
    before, after = (
        [trial[column(split, metric, before=is_before, subset=subset)] for trial in trials]
        for is_before in (True, False)
    )
    return Group(subset, n_frames, before, after)


def _only(group: Group, is_known: Sequence[bool]) -> Group:
    before, after = (
        [value if known else None for value, known in zip(values, is_known, strict=True)]
        for values in (group.before, group.after)
    )
    return group._replace(before=before, after=after)


def _is_of_a_part(metric: str) -> bool:
    return metric.startswith("distance[")
