"""PoseTune's own format: a float tensor (N, J, 3), mm, camera frame, written with `torch.save`.

The tensor is the labels or the poses of a dataset, see `pose_dataset.py`. Poses may be a dict of such tensors, a subset
for each backbone; `NAME_poses.pt#SUBSET` selects one of several. The dataset's frame table, `NAME_frames.parquet`, is
read with it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from data_pipeline.files.atomic import atomic_file
from data_pipeline.files.regular import read_file
from data_pipeline.files.tensors import load, numbers
from data_pipeline.formats.frames import (
    FormatError,
    Frames,
    check_joint_count,
    checked_frames,
    collect_poses,
    frames_from_array,
)
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable

SUFFIX = ".pt"

_DATASET_FILES = ("_poses.pt", "_labels.pt")


def read(path: Path) -> Iterator[Frames]:
    """Yields the frames of a tensor file, which is memory-mapped.

    Args:
        path: The file, followed by `#SUBSET` if it has several subsets.

    Raises:
        FormatError: If the file cannot be read with `weights_only=True`, if it does not have a tensor of that shape, if
            no skeleton has that number of joints, if the subset does not exist or must be given, or if a coordinate is
            not finite or too large.
    """
    file, subset = split_subset(path)
    tensor = _select_subset(load(file, FormatError, mapped=True), subset, file)
    if not isinstance(tensor, torch.Tensor):
        raise FormatError(f"{path} holds a {type(tensor).__name__}; expected a float tensor (N, J, 3)")
    if tensor.ndim != 3 or tensor.shape[2] != 3 or not tensor.is_floating_point():
        raise FormatError(
            f"{path} has the shape {tuple(tensor.shape)} and the type {tensor.dtype}; expected a float tensor (N, J, 3)"
        )
    check_joint_count(tensor.shape[1], path)
    table = _frame_table(file, len(tensor))
    start = 0
    for frames in frames_from_array(numbers(tensor, path, FormatError), path):
        of_frames = table.take(slice(start, start + len(frames)))
        start += len(frames)
        yield Frames(frames.poses, None if of_frames.name is None else tuple(of_frames.name), of_frames)


def frame_table(frames: Frames) -> FrameTable:
    """Returns the frame table that was read with the frames of a file."""
    return frames.table


def frame_table_path(file: Path) -> Path | None:
    """Returns the frame table of the dataset that has `file`; None if the name is not that of a dataset's file."""
    name = next((file.name.removesuffix(end) for end in _DATASET_FILES if file.name.endswith(end)), None)
    return None if name is None else file.with_name(f"{name}_frames.parquet")


def write(path: Path, frames: Iterable[Frames]) -> None:
    """Writes frames as one float32 tensor; names are dropped.

    Raises:
        FormatError: If there are no frames, or if no skeleton has that number of joints.
        UserError: If the file cannot be written.
    """
    with atomic_file(path) as file, collect_poses(checked_frames(frames, path), path) as poses:
        torch.save(torch.from_numpy(poses), file)


def split_subset(path: Path) -> tuple[Path, str | None]:
    """Splits `path` into the file and the subset after `#`, None if there is none."""
    before, mark, subset = path.name.rpartition(f"{SUFFIX}#")
    return (path.with_name(before + SUFFIX), subset) if mark and not path.exists() else (path, None)


def _frame_table(file: Path, n_frames: int) -> FrameTable:
    path = frame_table_path(file)
    if path is None or not path.exists():
        return UNKNOWN_FRAMES
    try:
        content = read_file(path)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    return FrameTable.read(content, path, n_frames, FormatError)


def _select_subset(content: object, subset: str | None, file: Path) -> object:
    if not isinstance(content, dict):
        if subset is not None:
            raise FormatError(f"{file} is a single tensor; it has no subset {subset!r}")
        return content
    names = ", ".join(map(str, content))
    if subset is None and len(content) != 1:
        raise FormatError(f"{file} has the subsets {names or 'none'}; select one of them: {file}#SUBSET")
    if subset is not None and subset not in content:
        raise FormatError(f"{file} has no subset {subset!r}; it has {names or 'none'}")
    return content[subset] if subset is not None else next(iter(content.values()))
