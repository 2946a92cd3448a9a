"""Files of any format into one dataset: labels, and the predictions of any number of backbones for the same frames."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.formats.catalogue import format_for
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.pose_dataset import Array, Samples
from data_pipeline.preparation.chunks import progress
from data_pipeline.subsets import DEFAULT_SUBSET

_SHOWN = 5  # names in an error


def import_files(labels_path: Path, predictions: Mapping[str, Path], format_name: str | None) -> Samples:
    """Reads labels and predictions.

    Frames belong together by their names where both files have names, whatever their order, and else by their number.

    Args:
        labels_path: The file of true joints.
        predictions: The file of each backbone, by the name that its subset gets. That of a single one is dropped.
        format_name: The format of all files; None tells it from each file.

    Returns:
        The samples, in the order of the labels and with their names.

    Raises:
        FormatError: If a file is broken or tells no format, or if its frames are not those of the labels.
    """
    labels = read_frames(labels_path, format_name)
    if labels.names is not None:
        _check_single(labels.names, labels_path)
    poses = {}
    for subset, path in predictions.items():
        frames = read_frames(path, format_name)
        if frames.poses.shape[1] != labels.poses.shape[1]:
            raise FormatError(
                f"{path} has {frames.poses.shape[1]} joints, but the labels {labels_path} have {labels.poses.shape[1]}"
            )
        poses[subset if len(predictions) > 1 else DEFAULT_SUBSET] = _matched(frames, path, labels, labels_path)
    return Samples(labels.poses, poses, labels.names)


def read_frames(path: Path, format_name: str | None) -> Frames:
    """Reads all frames of a file.

    Raises:
        FormatError: If the file is broken, or if it tells no format and `format_name` is None.
    """
    poses: list[Array] = []
    names: list[str] = []
    with progress(f"reading {path.name}", None) as advance:
        for frames in format_for(path, format_name).read(path):
            poses.append(frames.poses)
            names.extend(frames.names or ())
            advance(len(frames.poses))
    return Frames(np.concatenate(poses), tuple(names) or None)  # (n, J, 3) each -> (N, J, 3)


def _matched(frames: Frames, path: Path, labels: Frames, labels_path: Path) -> Array:
    """Returns the predictions, (N, J, 3), in the order of the labels."""
    if frames.names is None or labels.names is None:
        if len(frames) != len(labels):
            raise FormatError(
                f"{path} has {len(frames)} frames, but the labels {labels_path} have {len(labels)}; without names in "
                "both files, frames can only be matched where both have the same number"
            )
        return frames.poses
    if frames.names == labels.names:
        return frames.poses
    _check_single(frames.names, path)
    rows = {name: row for row, name in enumerate(frames.names)}
    missing = [name for name in labels.names if name not in rows]
    if missing:
        raise FormatError(f"{path} lacks {_counted(missing)} of the labels {labels_path}")
    if len(frames) > len(labels):
        known = set(labels.names)
        extra = [name for name in frames.names if name not in known]
        raise FormatError(f"{path} has {_counted(extra)} that the labels {labels_path} lack")
    return frames.poses[[rows[name] for name in labels.names]]  # (N, J, 3)


def _check_single(names: Sequence[str], path: Path) -> None:
    if len(set(names)) < len(names):
        twice = [name for name, times in Counter(names).items() if times > 1]
        raise FormatError(f"{path} has {_counted(twice)} more than once; a frame needs a name of its own")


def _counted(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {'frame' if len(names) == 1 else 'frames'} ({shown}{more})"
