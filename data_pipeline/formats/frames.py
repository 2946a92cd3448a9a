"""Frames: the common representation that every format is read into and written from, and its checks."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.files.tensors import LARGEST
from data_pipeline.files.tensors import Array as Array
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable
from data_pipeline.skeleton import skeleton_for
from data_pipeline.user_error import UserError

_CHUNK = 4096  # frames; some MB


class FormatError(UserError):
    """A file is missing or broken, or frames do not fit a format; the message names the file and the position in it."""


@dataclass(frozen=True)
class Frames:
    """Some frames of a file, in order.

    Attributes:
        poses: Joints, (n, J, 3), mm, camera frame, in the order of the format's skeleton.
        names: The names of the n frames; None if the format has no names.
        table: The sequence, index and subject of each frame, as far as the file knows them.
    """

    poses: Array
    names: tuple[str, ...] | None = None
    table: FrameTable = UNKNOWN_FRAMES

    def __len__(self) -> int:
        return len(self.poses)

    def take(self, rows: slice) -> "Frames":
        """Returns the frames `rows`."""
        return Frames(self.poses[rows], None if self.names is None else self.names[rows], self.table.take(rows))


def runs(chunks: Iterable[Frames]) -> Iterator[Frames]:
    """Yields the frames of a file again, one run of successive frames of a sequence at a time.

    A whole run is kept in memory. Frames of unknown sequences are one run.

    Args:
        chunks: The frames of one file, in order; all chunks have the same columns in their tables.
    """
    run: list[Frames] = []
    for chunk in chunks:
        starts = chunk.table.run_starts(len(chunk))  # (n,)
        starts[0] = bool(run) and not _follows(run[-1].table, chunk.table)
        borders = [0, *np.flatnonzero(starts).tolist(), len(chunk)]
        for start, stop in pairwise(borders):
            if starts[start] and run:
                yield _joined(run)
                run = []
            if stop > start:
                run.append(chunk.take(slice(start, stop)))
    if run:
        yield _joined(run)


def _follows(table: FrameTable, following: FrameTable) -> bool:
    """Returns whether the first frame of a table is the one after the last frame of another."""
    is_same = following.sequence is None or table.sequence is None or table.sequence[-1] == following.sequence[0]
    return is_same and (following.index is None or table.index is None or table.index[-1] + 1 == following.index[0])


def _joined(run: Sequence[Frames]) -> Frames:
    names = None if run[0].names is None else tuple(chain.from_iterable(frames.names or () for frames in run))
    table = FrameTable.joined([frames.table for frames in run])
    return Frames(np.concatenate([frames.poses for frames in run]), names, table)


def frames_from_array(
    array: npt.NDArray[Any], path: Path, *, mm_per_unit: float = 1.0, first_frame: int = 0
) -> Iterator[Frames]:
    """Yields the frames of an array from a file, without names.

    Args:
        array: Joints, (N, J, 3), camera frame; it may be memory-mapped, and only a chunk of it is read at a time.
        path: The file, for error messages.
        mm_per_unit: Millimetres per unit of the array.
        first_frame: The number of the array's first frame in the file, counted from 0.

    Raises:
        FormatError: If there are no frames, or if a coordinate is not finite or exceeds `LARGEST`.
    """
    if len(array) == 0:
        raise FormatError(f"{path} is empty: it has no frames")
    for start in range(0, len(array), _CHUNK):
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            poses = np.multiply(array[start : start + _CHUNK], mm_per_unit, dtype=np.float64)  # (n, J, 3)
        check_coordinates(poses, path, first_frame + start)
        yield Frames(poses.astype(np.float32))


def check_coordinates(poses: npt.NDArray[np.floating[Any]], path: Path, first_frame: int) -> None:
    """Raises a `FormatError` if a coordinate of `poses`, (n, J, 3), mm, is not finite or exceeds `LARGEST`.

    Args:
        poses: The joints.
        path: The file that they are read from or written to.
        first_frame: The number of the first pose in the file, counted from 0.
    """
    sound = np.abs(poses) <= LARGEST  # (n, J, 3); with NaN no comparison holds
    if not sound.all():
        frame, joint, axis = np.argwhere(~sound)[0]
        raise FormatError(
            f"{path}, frame {first_frame + frame} (counted from 0): {'xyz'[axis]} of joint {joint} is "
            f"{poses[frame, joint, axis]:g} mm; expected a finite number of at most ±{LARGEST:.0f}"
        )


def checked_frames(
    frames: Iterable[Frames], path: Path, n_joints: int | None = None, *, named: bool = False
) -> Iterator[Frames]:
    """Checks `frames` before they are written and yields them as they arrive, without empty chunks.

    Args:
        frames: The frames to write.
        path: The destination, for error messages.
        n_joints: The number of joints of the format; None takes that of the first frames.
        named: Whether the format needs names.

    Raises:
        FormatError: If there are no frames; if some have another number of joints, or a coordinate that is not finite
            or exceeds `LARGEST`; or if names are missing or their number differs from that of the frames.
    """
    n_frames = 0
    for chunk in frames:
        shape = chunk.poses.shape
        if n_joints is None and len(shape) == 3:
            check_joint_count(shape[1], path)
            n_joints = shape[1]
        if shape[1:] != (n_joints, 3):
            raise FormatError(
                f"{path} needs poses of shape (n, {n_joints or 'J'}, 3), but from frame {n_frames} (counted from 0) on "
                f"they have the shape {shape}"
            )
        if named and chunk.names is None:
            raise FormatError(f"{path} needs a name for each frame, but frame {n_frames} (counted from 0) has none")
        if named and len(chunk.names or ()) != len(chunk):
            raise FormatError(
                f"{path} needs a name for each frame, but from frame {n_frames} (counted from 0) on there are "
                f"{len(chunk.names or ())} names for {len(chunk)} frames"
            )
        check_coordinates(chunk.poses, path, n_frames)
        n_frames += len(chunk)
        if len(chunk) > 0:
            yield chunk
    if n_frames == 0:
        raise FormatError(f"{path} is not written: there are no frames")


def check_joint_count(n_joints: int, path: Path) -> None:
    """Raises a `FormatError` if there is no skeleton with `n_joints` joints."""
    try:
        skeleton_for(n_joints)
    except UserError as error:
        raise FormatError(f"{path}: {error}") from error


@contextmanager
def collect_poses(frames: Iterable[Frames], path: Path) -> Iterator[Array]:
    """Yields the poses of all `frames`, at least one, as an array, (N, J, 3), for formats that need their number first.

    The array is mapped to an anonymous file on the disk of `path`, so it takes no memory, and the file disappears with
    the process.
    """
    n_frames, n_joints = 0, 0
    with TemporaryFile(dir=path.parent) as file:
        for chunk in frames:
            file.write(np.ascontiguousarray(chunk.poses, dtype=np.float32).data)
            n_frames, n_joints = n_frames + len(chunk), chunk.poses.shape[1]
        file.flush()
        # Writable, because torch warns about read-only arrays.
        yield np.memmap(file, np.float32, "r+", shape=(n_frames, n_joints, 3))
