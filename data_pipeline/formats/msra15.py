"""MSRA15 (Sun et al., 2015): a folder with a text file `P0/1/joint.txt` for each subject and gesture.

The first line is the number of frames; each following line has x y z in mm of the 21 joints, in MSRA15's own order. In
the files y points up and z towards the viewer, so z is negative. Both signs are flipped here, which rotates the
coordinates by 180° about x: y points down like v, z points forward, and no hand is mirrored. The result is the camera
frame (241.42, 241.42, 160, 120) of the leaderboard's files of MSRA15.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from data_pipeline.files.atomic import atomic_folder
from data_pipeline.files.regular import open_file
from data_pipeline.formats.frames import Array, FormatError, Frames, checked_frames
from data_pipeline.formats.joint_orders import MSRA15
from data_pipeline.formats.text_lines import LineFormat, read_lines, write_lines
from data_pipeline.frame_table import FrameTable
from data_pipeline.skeleton import HANDS17

_N_JOINTS = HANDS17.n_joints

_LINE = LineFormat(3 * _N_JOINTS, f"x y z of {_N_JOINTS} joints")

_FILE = "joint.txt"

_HALF_TURN_ABOUT_X = np.array([1, -1, -1], np.float32)  # its own inverse

_SUBJECT = re.compile(r"P\d+", re.ASCII)
_NAME = re.compile(r"(P\d+/\w+)/(\d{6,})", re.ASCII)

_DECIMALS = 4


def read(path: Path) -> Iterator[Frames]:
    """Yields the frames of a folder, gesture by gesture, in the natural order of subjects and gestures.

    The name of a frame is like "P0/1/000000": subject, gesture, and number in the file.

    Raises:
        FormatError: If there is no subject folder or a gesture has no file; if the number of frames in a file differs
            from its first line, or a line is broken.
    """
    if not path.is_dir():
        raise FormatError(f"{path} cannot be read: it is not a folder; expected the folder with P0, P1, ...")
    gestures = [
        gesture for subject in _folders(path) if _SUBJECT.fullmatch(subject.name) for gesture in _folders(subject)
    ]
    if not gestures:
        raise FormatError(f"{path} is empty: it has no file such as P0/1/{_FILE}")
    for gesture in gestures:
        yield from _read_gesture(gesture / _FILE, gesture.relative_to(path).as_posix())


def write(path: Path, frames: Iterable[Frames]) -> None:
    """Writes frames as a folder like MSRA15's, with four decimals; the poses of one gesture are kept in memory.

    Args:
        path: The folder; it must not exist.
        frames: The frames, named as by `read`: those of a gesture are consecutive and numbered from 000000.

    Raises:
        FormatError: If there are no frames, if they do not have 21 joints, or if a name is missing, has another form or
            is out of order.
        UserError: If the folder exists or cannot be written.
    """
    with atomic_folder(path) as folder:
        by_gesture = groupby(_named_poses(frames, path), key=lambda named: named[0])
        for gesture, group in by_gesture:
            place = folder / gesture
            if place.exists():
                raise FormatError(f"{path} is not written: the frames of {gesture} are not consecutive")
            place.mkdir(parents=True)
            poses = []
            for expected, (_, number, pose) in enumerate(group):
                if number != expected:
                    raise FormatError(
                        f"{path} is not written: got frame {gesture}/{number:06d}, expected {gesture}/{expected:06d}; "
                        "the frames of a gesture are numbered from 0 without gaps"
                    )
                poses.append(pose)
            in_file = MSRA15.from_hands17(np.stack(poses) * _HALF_TURN_ABOUT_X)  # n times (21, 3) -> (n, 21, 3)
            with (place / _FILE).open("wb") as file:
                file.write(b"%d\n" % len(poses))
                write_lines(file, in_file.reshape(len(poses), -1).astype(np.float64), " ", _DECIMALS)  # (n, 63)


def _folders(path: Path) -> list[Path]:
    try:
        folders = [place for place in path.iterdir() if place.is_dir()]
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    # "P2" comes before "P10", and "9" before "I".
    return sorted(
        folders, key=lambda place: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", place.name)]
    )


def _read_gesture(path: Path, gesture: str) -> Iterator[Frames]:
    n_frames = _first_number(path)
    n_read = 0
    for numbers, _ in read_lines(path, _LINE, skip=1):
        poses = MSRA15.to_hands17(numbers.reshape(-1, _N_JOINTS, 3))  # (n, 63) -> (n, 21, 3)
        numbers_in_file = range(n_read, n_read + len(poses))
        names = tuple(f"{gesture}/{number:06d}" for number in numbers_in_file)
        n_read += len(poses)
        table = FrameTable.of(sequence=[gesture] * len(poses), index=numbers_in_file)
        yield Frames(poses.astype(np.float32) * _HALF_TURN_ABOUT_X, names, table)
    if n_read != n_frames:
        raise FormatError(f"{path} has {n_read} frames, but its first line says {n_frames}; is it truncated?")


def _first_number(path: Path) -> int:
    try:
        with open_file(path) as file:
            line = file.readline(100).strip()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    if not re.fullmatch(rb"\d{1,9}", line):
        raise FormatError(f"{path}, line 1 is {line.decode(errors='replace')!r}; expected the number of frames")
    return int(line)


def _named_poses(frames: Iterable[Frames], path: Path) -> Iterator[tuple[str, int, Array]]:
    """Yields gesture, number and pose, (21, 3), of each frame."""
    for chunk in checked_frames(frames, path, _N_JOINTS, named=True):
        for name, pose in zip(chunk.names or (), chunk.poses, strict=True):
            match = _NAME.fullmatch(name)
            if match is None:
                raise FormatError(
                    f"{path} is not written: the name of a frame is {name!r}; expected names like 'P0/1/000000': "
                    "subject, gesture and number"
                )
            yield match[1], int(match[2]), pose
