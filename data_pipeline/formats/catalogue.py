"""All formats, by the names used on command lines."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_pipeline.files.regular import open_file
from data_pipeline.formats import hands17, leaderboard, msra15, nyu, openpose21, tensor_file
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.recordings import msra15_frames, named_frames, nyu_frames
from data_pipeline.formats.text_lines import lacks_line_end
from data_pipeline.frame_table import FrameTable
from data_pipeline.skeleton import HANDS17, ICVL, NYU, Skeleton

_TEXT = (".txt",)


@dataclass(frozen=True)
class PoseFormat:
    """A format of files or folders with poses.

    Attributes:
        name: The name used on command lines.
        description: A description in one line.
        skeleton: The skeleton of the poses that `read` yields and `write` takes; None if it depends on the file.
        suffixes: The extensions of its files; empty for a folder.
        read: Yields the frames of a file, a few thousand at a time, and raises a `FormatError` if it is broken. The
            file is known to be valid only after all frames have been read.
        write: Writes frames as they arrive, atomically: after an error the file is unchanged.
        mm_per_unit: Millimetres per unit of its files.
        needs_names: Whether its frames have names: `read` yields them, and `write` requires them.
        matches_first_line: Whether a line may be the first line of a file, for formats that share an extension; None if
            the extension is unique.
        frame_table: Returns what the format says about all frames of a file with labels: names, sequences, subjects.
    """

    name: str
    description: str
    skeleton: Skeleton | None
    suffixes: tuple[str, ...]
    read: Callable[[Path], Iterator[Frames]]
    write: Callable[[Path, Iterable[Frames]], None]
    mm_per_unit: float = 1.0
    needs_names: bool = False
    matches_first_line: Callable[[bytes], bool] | None = None
    frame_table: Callable[[Frames], FrameTable] = named_frames

    def warning(self, path: Path) -> str | None:
        """Returns what may be wrong with a file that `read` accepts; None if nothing seems wrong.

        A text file truncated within its last number still has the right number of numbers.
        """
        if self.suffixes != _TEXT or not lacks_line_end(path):
            return None
        return "the last line has no line end; if the file was truncated there, its last number is incomplete"


def _leaderboard(dataset: str, skeleton: Skeleton, title: str) -> PoseFormat:
    return PoseFormat(
        name=f"leaderboard-{dataset}",
        description=f"text of the hand-pose leaderboard for {title}: u v d of {skeleton.n_joints} joints per line",
        skeleton=skeleton,
        suffixes=_TEXT,
        read=partial(leaderboard.read_frames, dataset=dataset),
        write=partial(leaderboard.write_frames, dataset=dataset),
        matches_first_line=partial(leaderboard.matches_first_line, dataset=dataset),
        frame_table=leaderboard.LEADERBOARD_DATASETS[dataset].frame_table,
    )


def _openpose21(name: str, unit: str, mm_per_unit: float) -> PoseFormat:
    return PoseFormat(
        name=name,
        description=f"array (N, 21, 3) in the joint order of OpenPose, MediaPipe, FreiHAND, {unit}: .npy, .npz, .json",
        skeleton=HANDS17,
        suffixes=openpose21.SUFFIXES,
        read=partial(openpose21.read, mm_per_unit=mm_per_unit),
        write=partial(openpose21.write, mm_per_unit=mm_per_unit),
        mm_per_unit=mm_per_unit,
    )


FORMATS = {
    pose_format.name: pose_format
    for pose_format in (
        PoseFormat(
            name="hands17",
            description="annotation and result files of HANDS17: image name and x y z of 21 joints per line",
            skeleton=HANDS17,
            suffixes=_TEXT,
            read=hands17.read,
            write=hands17.write,
            needs_names=True,
            matches_first_line=hands17.matches_first_line,
        ),
        PoseFormat(
            name="msra15",
            description="folder of MSRA15: P0/1/joint.txt etc., one file per subject and gesture",
            skeleton=HANDS17,
            suffixes=(),
            read=msra15.read,
            write=msra15.write,
            needs_names=True,
            frame_table=msra15_frames,
        ),
        PoseFormat(
            name="nyu",
            description="joint_data.mat of NYU: 14 of its 36 joints, first camera",
            skeleton=NYU,
            suffixes=(".mat",),
            read=nyu.read,
            write=nyu.write,
            frame_table=nyu_frames,
        ),
        _openpose21("openpose21", "in mm", 1.0),
        _openpose21("openpose21-m", "in metres", 1000.0),
        _leaderboard("nyu", NYU, "NYU"),
        _leaderboard("icvl", ICVL, "ICVL"),
        _leaderboard("msra15", HANDS17, "MSRA15"),
        PoseFormat(
            name="pt",
            description="tensor (N, J, 3) of torch.save: labels or poses of a dataset; FILE.pt#SUBSET selects a subset",
            skeleton=None,
            suffixes=(tensor_file.SUFFIX,),
            read=tensor_file.read,
            write=tensor_file.write,
            frame_table=tensor_file.frame_table,
        ),
    )
}


def format_for(path: Path, name: str | None) -> PoseFormat:
    """Returns the format called `name`, or detects the format of `path` if `name` is None.

    The extension determines the format, or the first line if several text formats share the extension; a folder is
    MSRA15. Whether a file is in mm or metres is not guessed.

    Raises:
        FormatError: If there is no format of that name, or if none or several are possible.
    """
    if name is not None:
        if name not in FORMATS:
            raise FormatError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
        return FORMATS[name]

    possible = sharing = _formats_by_extension(path)
    if len(sharing) != 1 and path.exists() and not path.is_dir():
        line = _first_line(path)
        possible = [
            pose_format
            for pose_format in sharing
            if pose_format.matches_first_line is None or pose_format.matches_first_line(line)
        ]
    if len(possible) != 1:
        names = ", ".join(pose_format.name for pose_format in possible or sharing or FORMATS.values())
        there = "" if path.exists() else ", which does not exist,"
        raise FormatError(f"the format of {path}{there} cannot be detected; give one of {names}")
    return possible[0]


def format_from_option(path: Path, name: str | None, option: str, companion: PoseFormat | None = None) -> PoseFormat:
    """Returns the format of a file that has its own command-line option.

    Args:
        path: The file.
        name: The value of the option; None if it is not given.
        option: The option, for the error message.
        companion: The format of a related file, used if `name` is None and the extension fits; None for none.

    Raises:
        FormatError: If there is no format of that name, or if the format cannot be detected.
    """
    ending = tensor_file.split_subset(path)[0].suffix
    if name is None and companion is not None and ending in (companion.suffixes or ("",)):
        return companion
    try:
        return format_for(path, name)
    except FormatError as error:
        raise FormatError(f"{error} ({option})") from error


def format_from_shared_option(path: Path, name: str | None, option: str) -> PoseFormat:
    """Returns the format of one of several files that share a command-line option.

    The option applies to files with an extension of that format or an unknown one; other formats are detected.

    Args:
        path: The file.
        name: The value of the option; None if it is not given.
        option: The option, for the error message.

    Raises:
        FormatError: As `format_from_option`.
    """
    possible = [pose_format.name for pose_format in _formats_by_extension(path)]
    return format_from_option(path, name if name in possible or not possible else None, option)


def _formats_by_extension(path: Path) -> list[PoseFormat]:
    """Returns the formats with the extension of `path`; the formats of folders if it is one."""
    if path.is_dir():
        return [pose_format for pose_format in FORMATS.values() if not pose_format.suffixes]
    suffix = tensor_file.split_subset(path)[0].suffix
    return [pose_format for pose_format in FORMATS.values() if suffix in pose_format.suffixes]


def _first_line(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.readline(1 << 16)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
