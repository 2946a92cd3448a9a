"""The text files of the hand-pose leaderboard: ground truth and results of NYU, ICVL and MSRA15.

Source: github.com/xinghaochen/awesome-hand-pose-estimation, folder `evaluation`. Each line is a frame: u, v (in
pixels) and depth d (in mm) of each joint, separated by spaces, without a name. Frames of different files can therefore
only be matched by line number, and all files must have the same number of lines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.camera import Camera
from data_pipeline.files.atomic import atomic_file
from data_pipeline.formats.frames import Array, FormatError, Frames, check_coordinates, checked_frames
from data_pipeline.formats.joint_orders import MSRA15, JointOrder
from data_pipeline.formats.recordings import icvl_frames, nyu_frames
from data_pipeline.formats.text_lines import LineFormat, read_lines, write_lines
from data_pipeline.frame_table import FrameTable, video_frames
from data_pipeline.skeleton import HANDS17, ICVL, NYU, Skeleton

# At 1 m a pixel is up to 4.2 mm wide (ICVL), so half a unit of the last decimal is 0.0002 mm.
_DECIMALS = 4


@dataclass(frozen=True)
class LeaderboardDataset:
    """The properties of a dataset's files.

    Attributes:
        skeleton: Determines the number J of joints, with 3·J numbers per line, and their order in poses.
        camera: The camera that the leaderboard's own evaluation uses.
        frame_table: Returns the sequences and subjects of the ground truth's frames.
        split: The text of a split of these frames that keeps a distance between its parts.
        joint_order: The order of the joints in a line; None if it is that of the skeleton.
    """

    skeleton: Skeleton
    camera: Camera
    frame_table: Callable[[Frames], FrameTable]
    split: str
    joint_order: JointOrder | None = None


LEADERBOARD_DATASETS = {
    "nyu": LeaderboardDataset(NYU, Camera(fx=588.03, fy=-587.07, cx=320.0, cy=240.0), nyu_frames, "blocks:500:5:50"),
    # Some papers use 241.42 for both focal lengths of ICVL; the published results were computed with these values.
    "icvl": LeaderboardDataset(
        ICVL, Camera(fx=240.99, fy=240.96, cx=160.0, cy=120.0), icvl_frames, "sequences:20%:2:10"
    ),
    "msra15": LeaderboardDataset(
        HANDS17,
        Camera(fx=241.42, fy=241.42, cx=160.0, cy=120.0),
        lambda frames: video_frames(frames.poses),
        "blocks:500:5:50",
        MSRA15,
    ),
}


def read_frames(path: Path, dataset: str) -> Iterator[Frames]:
    """Yields the frames of one file, ground truth or results.

    Any line ending is accepted (ICVL's are space, CR, CR, LF), and so are blank lines at the end of the file.

    Args:
        path: The text file.
        dataset: A key of `LEADERBOARD_DATASETS`.

    Raises:
        FormatError: If the file cannot be read or is empty, or if a line is blank, does not have 3·J entries, or has an
            entry that is not a number of plausible size.
    """
    properties = LEADERBOARD_DATASETS[dataset]
    n_frames = 0
    for numbers, _ in read_lines(path, _line(dataset)):
        uvd = numbers.reshape(len(numbers), -1, 3)  # (n, 3·J) -> (n, J, 3)
        xyz = properties.camera.to_xyz(uvd)  # (n, J, 3)
        check_coordinates(xyz, path, n_frames)
        n_frames += len(xyz)
        poses = xyz.astype(np.float32)
        yield Frames(poses if properties.joint_order is None else properties.joint_order.to_hands17(poses))


def write_frames(path: Path, frames: Iterable[Frames], dataset: str) -> None:
    """Writes frames as results for the leaderboard, with four decimals; names are left out.

    Args:
        path: The text file; an existing file is replaced after all frames are written.
        frames: The frames, in the order of the ground truth.
        dataset: A key of `LEADERBOARD_DATASETS`.

    Raises:
        FormatError: If there are no frames, if they have another number of joints, or if a joint is not in front of the
            camera and therefore has no image coordinates.
        UserError: If the file cannot be written.
    """
    properties = LEADERBOARD_DATASETS[dataset]
    n_frames = 0
    with atomic_file(path) as file:
        for chunk in checked_frames(frames, path, properties.skeleton.n_joints):
            poses = chunk.poses if properties.joint_order is None else properties.joint_order.from_hands17(chunk.poses)
            in_front = (poses[:, :, 2] > 0).all(axis=1)  # (n, J, 3) -> (n,)
            if not in_front.all():
                raise FormatError(
                    f"{path}, frame {n_frames + int(np.argmin(in_front))} (counted from 0): a joint is not in front "
                    "of the camera (z is 0 or less), so it has no u and v"
                )
            uvd = properties.camera.to_uvd(poses.astype(np.float64))  # (n, J, 3)
            write_lines(file, uvd.reshape(len(uvd), -1), " ", _DECIMALS)  # (n, J, 3) -> (n, 3·J)
            n_frames += len(chunk)


def read_leaderboard(path: Path, dataset: str) -> Array:
    """Reads one file, ground truth or results, as `read_frames` does, and returns all joints, (N, J, 3), mm."""
    return np.concatenate([frames.poses for frames in read_frames(path, dataset)])  # (n, J, 3) each -> (N, J, 3)


def read_results(ground_truth: Path, results: Mapping[str, Path], dataset: str) -> tuple[Array, dict[str, Array]]:
    """Reads a ground truth and results for the same frames.

    Args:
        ground_truth: The file with the true joints.
        results: The file of each backbone.
        dataset: A key of `LEADERBOARD_DATASETS`.

    Returns:
        The true joints and those of each backbone, each (N, J, 3), mm, camera frame.

    Raises:
        FormatError: If a file is broken, or if its number of frames differs from that of the ground truth.
    """
    labels = read_leaderboard(ground_truth, dataset)
    poses = {}
    for name, path in results.items():
        poses[name] = read_leaderboard(path, dataset)
        if len(poses[name]) != len(labels):
            raise FormatError(
                f"{path} has {len(poses[name])} frames, but the ground truth {ground_truth} has {len(labels)}; "
                "frames have no names, so both files must have the same number of frames"
            )
    return labels, poses


def matches_first_line(line: bytes, dataset: str) -> bool:
    """Returns whether `line` may be the first line of a file of `dataset`."""
    return len(line.split()) == 3 * LEADERBOARD_DATASETS[dataset].skeleton.n_joints


def _line(dataset: str) -> LineFormat:
    n_joints = LEADERBOARD_DATASETS[dataset].skeleton.n_joints
    others = ", ".join(
        f"{3 * other.skeleton.n_joints} the dataset {name}"
        for name, other in LEADERBOARD_DATASETS.items()
        if name != dataset
    )
    return LineFormat(3 * n_joints, f"u v d of {n_joints} joints ({others})")
