"""This project's own files: a float tensor (N, J, 3), mm, camera frame, written with `torch.save`.

These are the labels or the poses of a dataset, see `pose_dataset.py`. Poses may be a dict of such tensors, a
subset for each backbone; `NAME_poses.pt#SUBSET` names one of several.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from data_pipeline.files.atomic import atomic_file
from data_pipeline.files.tensors import load, numbers
from data_pipeline.formats.frames import (
    FormatError,
    Frames,
    check_joint_count,
    checked_frames,
    collect_poses,
    frames_from_array,
)

SUFFIX = ".pt"


def read(path: Path) -> Iterator[Frames]:
    """Yields the frames of a tensor file, which stays on disk.

    Args:
        path: The file, with `#SUBSET` behind it where it has several subsets.

    Raises:
        FormatError: If the file cannot be read with `weights_only=True`, if it holds something else than a tensor
            of such a shape, if no skeleton has so many joints, if a subset is not there or one of several is not
            named, or if a coordinate is not finite or too large.
    """
    file, subset = split_subset(path)
    tensor = _chosen(load(file, FormatError, mapped=True), subset, file)
    if not isinstance(tensor, torch.Tensor):
        raise FormatError(f"{path} holds a {type(tensor).__name__}; expected a float tensor (N, J, 3)")
    if tensor.ndim != 3 or tensor.shape[2] != 3 or not tensor.is_floating_point():
        raise FormatError(
            f"{path} has the shape {tuple(tensor.shape)} and the type {tensor.dtype}; expected a float tensor (N, J, 3)"
        )
    check_joint_count(tensor.shape[1], path)
    yield from frames_from_array(numbers(tensor, path, FormatError), path)


def write(path: Path, frames: Iterable[Frames]) -> None:
    """Writes frames as one float32 tensor; names are left out.

    Raises:
        FormatError: If the file cannot be written, if there are no frames, or if no skeleton has so many joints.
    """
    with atomic_file(path) as file, collect_poses(checked_frames(frames, path), path) as poses:
        torch.save(torch.from_numpy(poses), file)


def split_subset(path: Path) -> tuple[Path, str | None]:
    """Returns the file that `path` means, and the subset where one is named behind it."""
    before, mark, subset = path.name.rpartition(f"{SUFFIX}#")
    return (path.with_name(before + SUFFIX), subset) if mark and not path.exists() else (path, None)


def _chosen(content: object, subset: str | None, file: Path) -> object:
    if not isinstance(content, dict):
        if subset is not None:
            raise FormatError(f"{file} is a single tensor; it has no subset {subset!r}")
        return content
    names = ", ".join(map(str, content))
    if subset is None and len(content) != 1:
        raise FormatError(f"{file} has the subsets {names or 'none'}; name one of them: {file}#SUBSET")
    if subset is not None and subset not in content:
        raise FormatError(f"{file} has no subset {subset!r}; it has {names or 'none'}")
    return content[subset] if subset is not None else next(iter(content.values()))
