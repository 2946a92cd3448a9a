"""NYU (Tompson et al., 2014): `joint_data.mat`, with 36 joints; results are evaluated on 14 of them.

Its `joint_xyz`, (cameras, N, 36, 3), is in mm in the frame of each of three cameras; results are published for the
first one. The dataset's own conversion computes y from 0.5 − v / 480, so y points up and z forward: the camera frame of
the leaderboard's files of NYU. The leaderboard rounds the focal lengths, 588.036865 and 587.075073, to 588.03 and
587.07, which moves a joint by at most a few hundredths of a millimetre.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipeline.files.atomic import atomic_file
from data_pipeline.files.regular import open_file
from data_pipeline.formats.frames import FormatError, Frames, checked_frames, collect_poses, frames_from_array
from data_pipeline.skeleton import NYU

_VARIABLE = "joint_xyz"

_N_JOINTS_IN_FILE = 36

EVALUATED = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
"""The indices of the skeleton's 14 joints among the 36."""


def read(path: Path) -> Iterator[Frames]:
    """Yields the frames of the first camera; the file has them in one array, which is read as a whole.

    Raises:
        FormatError: If the file is not a readable MATLAB file, has no `joint_xyz` of the shape (cameras, N, 36, 3), or
            has a coordinate that is not finite or too large.
    """
    from scipy.io import loadmat  # imported here, so that other formats do not pay for it

    try:
        with open_file(path) as file:
            content = loadmat(file, variable_names=[_VARIABLE])
    except NotImplementedError as error:
        raise FormatError(f"{path} is a file of MATLAB 7.3; save it again with the option -v7") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # loadmat has no specific error for damaged files: what it raises depends on the damage.
        raise FormatError(
            f"{path} is not a MATLAB file that can be read: {str(error) or type(error).__name__}"
        ) from error
    if _VARIABLE not in content:
        raise FormatError(f"{path} has no variable {_VARIABLE}")
    joints = np.asarray(content[_VARIABLE])
    if (
        joints.ndim != 4
        or joints.shape[0] == 0
        or joints.shape[2:] != (_N_JOINTS_IN_FILE, 3)
        or joints.dtype.kind not in "fiu"
    ):
        raise FormatError(
            f"{path}: {_VARIABLE} has the shape {joints.shape} and the type {joints.dtype}; expected numbers of the "
            f"shape (cameras, frames, {_N_JOINTS_IN_FILE}, 3)"
        )
    yield from frames_from_array(joints[0][:, list(EVALUATED)], path)  # (N, 36, 3) -> (N, 14, 3)


def write(path: Path, frames: Iterable[Frames]) -> None:
    """Writes frames as `joint_xyz` of one camera, (1, N, 36, 3), double; the 22 unknown joints are zeros.

    MATLAB's format needs the array in memory: 864 bytes per frame, twice while it is written. NYU's training set has
    72,757 frames.

    Raises:
        FormatError: If there are no frames, or if they do not have 14 joints.
        UserError: If the file cannot be written.
    """
    from scipy.io import savemat

    with atomic_file(path) as file, collect_poses(checked_frames(frames, path, NYU.n_joints), path) as poses:
        joints = np.zeros((1, len(poses), _N_JOINTS_IN_FILE, 3))
        joints[0][:, list(EVALUATED)] = poses  # (N, 14, 3) -> 14 of (N, 36, 3)
        savemat(file, {_VARIABLE: joints}, do_compression=True)
