"""Poses in the joint order of OpenPose, MediaPipe and FreiHAND: NumPy arrays, or FreiHAND's lists in JSON.

An array (N, 21, 3) is the content of an .npy file or one of the arrays in an .npz file; in a .json file it is a list of
N lists of 21 lists [x, y, z]. The axes are not changed: FreiHAND uses those of the camera, y down and z forward;
MediaPipe's world landmarks are relative to the centre of the hand. Both are in metres.
"""

import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.files.atomic import atomic_file
from data_pipeline.files.regular import open_file
from data_pipeline.formats.frames import FormatError, Frames, checked_frames, collect_poses, frames_from_array
from data_pipeline.formats.joint_orders import OPENPOSE
from data_pipeline.skeleton import HANDS17
from data_pipeline.user_error import first_line

SUFFIXES = (".npy", ".npz", ".json")

_N_JOINTS = HANDS17.n_joints

_ARRAY_NAMES = ("poses", "xyz", "keypoints")

_BLOCK = 1 << 20  # characters of JSON per read

# The end of a frame that is followed by another one.
_END_OF_FRAME = re.compile(r"\]\s*\]\s*(,)")

_DIGITS_OF_MM = 4


def read(path: Path, mm_per_unit: float) -> Iterator[Frames]:
    """Yields the frames of an .npy, .npz or .json file.

    An .npy file is memory-mapped, JSON is read piece by piece, and the array of an .npz file is read as a whole.

    Args:
        path: The file.
        mm_per_unit: Millimetres per unit of the file.

    Raises:
        FormatError: If the file cannot be read, has another extension or content, or has a coordinate that is not
            finite or too large.
    """
    frames = (
        _read_json(path, mm_per_unit)
        if _suffix(path) == ".json"
        else frames_from_array(_array(path), path, mm_per_unit=mm_per_unit)
    )
    for chunk in frames:
        yield Frames(OPENPOSE.to_hands17(chunk.poses))


def write(path: Path, frames: Iterable[Frames], mm_per_unit: float) -> None:
    """Writes frames to an .npy, .npz (as `poses`) or .json file; names are left out.

    Args:
        path: The file.
        frames: The frames.
        mm_per_unit: Millimetres per unit of the file.

    Raises:
        FormatError: If the file has another extension, if there are no frames, or if they do not have 21 joints.
        UserError: If the file cannot be written.
    """
    suffix = _suffix(path)
    in_order = (
        Frames(OPENPOSE.from_hands17(chunk.poses) / np.float32(mm_per_unit))
        for chunk in checked_frames(frames, path, _N_JOINTS)
    )
    with atomic_file(path) as file:
        if suffix == ".json":
            digits = _DIGITS_OF_MM + round(math.log10(mm_per_unit))
            separator = b"["
            for chunk in in_order:
                rounded = np.round(chunk.poses.astype(np.float64), digits).tolist()
                for pose in rounded:
                    file.write(separator + json.dumps(pose).encode())
                    separator = b",\n"
            file.write(b"]\n")
            return
        with collect_poses(in_order, path) as poses:
            np.save(file, poses) if suffix == ".npy" else np.savez(file, poses=poses)


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise FormatError(f"{path} has the extension {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    return path.suffix


def _array(path: Path) -> npt.NDArray[Any]:
    """Returns the poses of an .npy or .npz file, (N, 21, 3), of any numeric type."""
    try:
        if path.suffix == ".npy":
            with open_file(path):  # numpy opens it by its name
                array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        else:
            with open_file(path) as file:
                content = np.load(file, allow_pickle=False)
                is_npy = isinstance(content, np.ndarray)
                array = content if is_npy else np.asarray(content[_array_name(content.files, path)])
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except FormatError:
        raise
    except Exception as error:
        # numpy has no specific error for damaged files: what it raises depends on the damage.
        reason = first_line(error)
        raise FormatError(f"{path} is not an {path.suffix} file that numpy reads without pickle: {reason}") from error
    _require_poses(array, path)
    return array


def _array_name(names: list[str], path: Path) -> str:
    if len(names) == 1:
        return names[0]
    known = [name for name in _ARRAY_NAMES if name in names]
    if len(known) != 1:
        raise FormatError(
            f"{path} has the arrays {', '.join(names) or 'none'}; expected a single one, or exactly one named "
            f"{' or '.join(_ARRAY_NAMES)}"
        )
    return known[0]


def _require_poses(array: npt.NDArray[Any], where: object) -> None:
    if array.ndim != 3 or array.shape[1:] != (_N_JOINTS, 3) or array.dtype.kind not in "fiu":
        raise FormatError(
            f"{where} has the shape {array.shape} and the type {array.dtype}; expected numbers of the shape "
            f"(N, {_N_JOINTS}, 3)"
        )


def _read_json(path: Path, mm_per_unit: float) -> Iterator[Frames]:
    n_frames = 0
    for piece in _json_pieces(path):
        try:
            frames = json.loads(piece)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise FormatError(
                f"{path} is not JSON after {n_frames} frames, or it is truncated there: {reason}"
            ) from error
        if not frames:
            raise FormatError(f"{path} is empty: it has no frames" if n_frames == 0 else f"{path} ends with a comma")
        try:
            array = np.array(frames)  # (n, 21, 3)
            _require_poses(array, path)
        except (ValueError, FormatError) as error:
            wrong = next(i for i, frame in enumerate(frames) if not _is_pose(frame))
            raise FormatError(
                f"{path}, frame {n_frames + wrong} (counted from 0) is not {_N_JOINTS} lists [x, y, z] of numbers"
            ) from error
        yield from frames_from_array(array, path, mm_per_unit=mm_per_unit, first_frame=n_frames)
        n_frames += len(array)


def _is_pose(frame: object) -> bool:
    try:
        array = np.array(frame)
    except ValueError:  # lists of different lengths
        return False
    return array.shape == (_N_JOINTS, 3) and array.dtype.kind in "fiu"


def _json_pieces(path: Path) -> Iterator[str]:
    """Yields the list in a JSON file as many short lists, each with the frames that end in one block."""
    text = ""
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8") as file:
            # Skip the bracket that opens the list; each piece gets its own.
            while (character := file.read(1)).isspace():
                pass
            if character != "[":
                raise FormatError(f"{path} is empty" if not character else f"{path} is not a list of frames in JSON")
            while block := file.read(_BLOCK):
                text += block
                ends = [match.start(1) for match in _END_OF_FRAME.finditer(text)]
                if ends:
                    yield f"[{text[: ends[-1]]}]"
                    text = text[ends[-1] + 1 :]
                elif len(text) > 2 * _BLOCK:
                    raise FormatError(
                        f"{path} has a frame of more than {_BLOCK:,} characters; this is not a list of poses"
                    )
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not JSON: it is not UTF-8 text") from error
    yield f"[{text}"
