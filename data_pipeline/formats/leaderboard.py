"""The text files of the hand-pose leaderboard: ground truth and results of NYU and ICVL.

Source: github.com/xinghaochen/awesome-hand-pose-estimation, folder `evaluation`. A line is a frame: u, v (in
pixels) and depth d (in mm) of each joint, split by spaces, without a name. Frames of different files therefore
belong together by their line number alone, and a file with another number of lines cannot be matched.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.camera import Camera
from data_pipeline.skeleton import ICVL, NYU, Skeleton
from data_pipeline.user_error import UserError

Array = npt.NDArray[np.float32]

_LARGEST = 1e6
"""Pixels and millimetres beyond this (a kilometre) are damage, not a hand."""


class FormatError(UserError):
    """A leaderboard file is missing or broken; the text names the file and, where there is one, the line."""


@dataclass(frozen=True)
class LeaderboardDataset:
    """What has to be known to read a dataset's files.

    Attributes:
        skeleton: Tells the number J of joints, 3·J numbers a line, and their order.
        camera: The camera that the leaderboard's own evaluation uses.
    """

    skeleton: Skeleton
    camera: Camera


LEADERBOARD_DATASETS = {
    "nyu": LeaderboardDataset(NYU, Camera(fx=588.03, fy=-587.07, cx=320.0, cy=240.0)),
    # Some papers use 241.42 for both focal lengths of ICVL; the published figures come from these.
    "icvl": LeaderboardDataset(ICVL, Camera(fx=240.99, fy=240.96, cx=160.0, cy=120.0)),
}


def read_leaderboard(path: Path, dataset: str) -> Array:
    """Reads one file, ground truth or results.

    Any line ending is read (ICVL's are space, CR, CR, LF), and so are blank lines at the end of the file.

    Args:
        path: The text file.
        dataset: A key of `LEADERBOARD_DATASETS`.

    Returns:
        Joints, (N, J, 3), mm, camera frame.

    Raises:
        FormatError: If the file cannot be read or is empty, or if a line is blank, has another number of
            numbers than 3·J, or holds something that is not a number of a sensible size.
    """
    layout = LEADERBOARD_DATASETS[dataset]
    n_joints = layout.skeleton.n_joints
    # Bytes, since text mode would take the two CRs of ICVL for two lines; and any byte outside ASCII fails
    # as a number in its own line.
    try:
        lines = Path(path).read_bytes().rstrip().split(b"\n")
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    if lines == [b""]:
        raise FormatError(f"{path} is empty")

    rows = [_numbers(line.split(), 3 * n_joints, f"{path}, line {i}") for i, line in enumerate(lines, start=1)]
    uvd = np.array(rows).reshape(-1, n_joints, 3)  # (N, 3·J) -> (N, J, 3)
    return layout.camera.to_xyz(uvd).astype(np.float32)


def read_results(ground_truth: Path, results: Mapping[str, Path], dataset: str) -> tuple[Array, dict[str, Array]]:
    """Reads a ground truth and results for the same frames.

    Args:
        ground_truth: The file of true joints.
        results: The file of each estimator.
        dataset: A key of `LEADERBOARD_DATASETS`.

    Returns:
        The true joints and those of each estimator, each (N, J, 3), mm, camera frame.

    Raises:
        FormatError: If a file is broken, or if one has another number of frames than the ground truth.
    """
    labels = read_leaderboard(ground_truth, dataset)
    poses = {}
    for name, path in results.items():
        poses[name] = read_leaderboard(path, dataset)
        if len(poses[name]) != len(labels):
            raise FormatError(
                f"{path} has {len(poses[name])} frames, but the ground truth {ground_truth} has {len(labels)}; "
                "frames have no names, so they can only be matched where both files have the same number"
            )
    return labels, poses


def _numbers(tokens: list[bytes], n_needed: int, where: str) -> list[float]:
    """Returns the numbers of one line, or tells which of them is wrong."""
    if not tokens:
        raise FormatError(f"{where} is blank; only the end of the file may have blank lines")
    if len(tokens) != n_needed:
        hint = "".join(
            f"; that is the number of the dataset {name}"
            for name, layout in LEADERBOARD_DATASETS.items()
            if len(tokens) == 3 * layout.skeleton.n_joints
        )
        raise FormatError(
            f"{where} has {len(tokens)} entries; needed are {n_needed} numbers, u v d of {n_needed // 3} joints{hint}"
        )
    numbers = []
    for i, token in enumerate(tokens, start=1):
        try:
            number = float(token)
        except ValueError:
            number = math.nan
        # With NaN no comparison holds. The underscore is Python's own: it reads 1_0 as 10.
        if not abs(number) <= _LARGEST or b"_" in token:
            text = token.decode(errors="replace")
            shown = text if len(text) <= 30 else f"{text[:27]}..."
            raise FormatError(
                f"{where}: entry {i} is {shown!r}; needed is a finite number, at most {_LARGEST:.0f} in size"
            )
        numbers.append(number)
    return numbers
