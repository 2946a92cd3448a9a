"""HANDS17 (Yuan et al., 2017): annotation files, result files, and submissions to the challenge.

Each line is a frame: the image name, then x y z in mm of the 21 joints, camera frame, y down, separated by tabs. Any
fields after the 63 numbers are ignored.
"""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from data_pipeline.files.atomic import atomic_file
from data_pipeline.files.regular import read_file
from data_pipeline.formats.frames import FormatError, Frames, checked_frames
from data_pipeline.formats.text_lines import LineFormat, is_name, read_lines, write_lines
from data_pipeline.skeleton import HANDS17
from data_pipeline.words import first_of

_N_JOINTS = HANDS17.n_joints

_LINE = LineFormat(3 * _N_JOINTS, f"x y z of {_N_JOINTS} joints", named=True)

_DECIMALS = 4  # required by the challenge

_RESULT_NAME = "result.txt"

_WIDEST_LINE = 1024  # bytes: 63 numbers of up to 13 characters, and a name

_CHUNK = 4096  # frames

_SHOWN = 3  # wrong names in an error message


def read(path: Path) -> Iterator[Frames]:
    """Yields the frames of an annotation or result file with their names.

    Raises:
        FormatError: If the file cannot be read or is empty, or if a line is blank, has no name, has fewer than 63
            numbers, or has an entry that is not a number of plausible size.
    """
    for numbers, names in read_lines(path, _LINE):
        yield Frames(numbers.reshape(-1, _N_JOINTS, 3).astype(np.float32), names)  # (n, 63) -> (n, 21, 3)


def write(path: Path, frames: Iterable[Frames]) -> None:
    """Writes frames as a result file, with four decimals.

    Raises:
        FormatError: If there are no frames, if they do not have 21 joints, or if a name is missing or not printable.
        UserError: If the file cannot be written.
    """
    with atomic_file(path) as file:
        for chunk in checked_frames(frames, path, _N_JOINTS, named=True):
            _write(file, chunk, path)


def read_official_names(path: Path) -> list[str]:
    """Reads a list of the challenge's frame names, one per line, in the order of the challenge.

    Text after a tab, such as the bounding boxes in the challenge's `BoundingBox.txt`, and blank lines are ignored.

    Raises:
        FormatError: If the file cannot be read, is not text, is empty, or a line has no name.
    """
    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise FormatError(f"{path}, the list of official names, cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}, the list of official names, is not UTF-8 text: {error.reason}") from error
    names = []
    for number, line in enumerate(lines, start=1):
        name = line.partition("\t")[0].strip()
        if name:
            names.append(name)
        elif line.strip():
            raise FormatError(f"{path}, the list of official names, has no name before the first tab in line {number}")
    if not names:
        raise FormatError(f"{path}, the list of official names, is empty")
    return names


def write_hands17_submission(path: Path, frames: Iterable[Frames], official_names: Sequence[str]) -> bool:
    """Writes a submission to the HANDS17 challenge: a zip file with one result file that has every official frame.

    The same frames give the same bytes. All poses are kept in memory, 252 bytes per frame, because they may arrive in
    any order.

    Args:
        path: The zip file.
        frames: A prediction for each official name: in any order if they have names, else in the official order.
        official_names: The names of the frames, in the order of the challenge.

    Returns:
        Whether the frames have names. If not, only their number was checked against the official names.

    Raises:
        FormatError: If an official name has no frame or more than one, if a frame has an unknown name, if only some
            frames have names, or if frames do not have 21 joints.
        UserError: If the file cannot be written.
    """
    places = {name: place for place, name in enumerate(official_names)}
    if len(places) < len(official_names):
        repeated = [name for place, name in enumerate(official_names) if places[name] != place]
        raise FormatError(f"{path} is not written: {len(repeated):,} official names are duplicates: {_join(repeated)}")

    remaining = iter(frames)
    first = [*islice(remaining, 1)]  # empty if there are no frames
    are_named = all(chunk.names is not None for chunk in first)
    all_frames = chain(first, remaining)
    named_frames = all_frames if are_named else _add_names(path, all_frames, official_names)

    poses = np.empty((len(places), _N_JOINTS, 3), np.float32)
    n_found = np.zeros(len(places), np.int64)  # (N,)
    unknown: list[str] = []
    with atomic_file(path) as file:
        for chunk in checked_frames(named_frames, path, _N_JOINTS, named=True):
            names = chunk.names or ()
            found = np.array([places.get(name, -1) for name in names], np.int64)  # (n,)
            unknown += [name for name, place in zip(names, found, strict=True) if place < 0]
            poses[found[found >= 0]] = chunk.poses[found >= 0]
            np.add.at(n_found, found[found >= 0], 1)
        _check_complete(path, official_names, n_found, unknown)

        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            # The archive must not depend on the time or the operating system.
            info = zipfile.ZipInfo(_RESULT_NAME, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            info.file_size = len(poses) * _WIDEST_LINE  # reserves the larger size field for files beyond 2 GB
            with archive.open(info, "w") as result:
                for start in range(0, len(poses), _CHUNK):
                    rows = slice(start, start + _CHUNK)
                    _write(result, Frames(poses[rows], tuple(official_names[rows])), path)
    return are_named


def matches_first_line(line: bytes) -> bool:
    """Returns whether `line` may be the first line, even if its tabs were replaced by spaces: `read` reports that."""
    return line.count(b"\t") >= _LINE.n_numbers or len(line.split()) > _LINE.n_numbers


def _add_names(path: Path, frames: Iterable[Frames], official_names: Sequence[str]) -> Iterator[Frames]:
    """Yields frames without names with the official names, in order."""
    n_frames = 0
    for chunk in frames:
        names = chunk.names or tuple(official_names[n_frames : n_frames + len(chunk)])
        n_frames += len(chunk)
        if n_frames <= len(official_names):
            yield Frames(chunk.poses, names)
    if n_frames != len(official_names):
        raise FormatError(
            f"{path} is not written: there are {n_frames:,} poses without names, but {len(official_names):,} official "
            "names; without names there must be one pose for each official name, in the same order"
        )


def _write(file: IO[bytes], frames: Frames, path: Path) -> None:
    for name in frames.names or ():
        if not is_name(name):
            raise FormatError(
                f"{path} is not written: {name!r} is not a valid frame name; expected printable characters"
            )
    numbers = frames.poses.reshape(len(frames), -1).astype(np.float64)  # (n, 21, 3) -> (n, 63)
    write_lines(file, numbers, "\t", _DECIMALS, frames.names)


def _check_complete(
    path: Path, official_names: Sequence[str], n_found: npt.NDArray[np.int64], unknown: list[str]
) -> None:
    missing = [official_names[place] for place in np.flatnonzero(n_found == 0).tolist()]
    repeated = [official_names[place] for place in np.flatnonzero(n_found > 1).tolist()]
    problems = [
        f"{len(names):,} {what}: {_join(names)}"
        for names, what in (
            (missing, "official names have no frame"),
            (repeated, "official names have more than one frame"),
            (unknown, "frames have a name that is not official"),
        )
        if names
    ]
    if problems:
        raise FormatError(f"{path} is not written: {'; '.join(problems)}")


def _join(names: Sequence[str]) -> str:
    return first_of([repr(name) for name in names], _SHOWN)
