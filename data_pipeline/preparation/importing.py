"""Imports files of any format into one dataset: labels, and any number of predictions for the same frames."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.formats.catalogue import PoseFormat, format_from_option, format_from_shared_option
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.units import require_hands
from data_pipeline.frame_table import FrameTable
from data_pipeline.pose_dataset import Array, Samples
from data_pipeline.preparation import selection
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.inspection import inspect_samples
from data_pipeline.preparation.motion import Motion
from data_pipeline.preparation.suspicions import frame_suspicions
from data_pipeline.subsets import DEFAULT_SUBSET
from data_pipeline.words import count, first_of

_SHOWN = 5  # names in an error

_N_CHECKED = 4096  # samples; enough to represent all of them


@dataclass(frozen=True)
class ImportFile:
    """A file to import.

    Attributes:
        path: The file.
        pose_format: Its format.
    """

    path: Path
    pose_format: PoseFormat

    def read(self) -> Frames:
        """Reads all frames.

        Raises:
            FormatError: If the file is broken.
        """
        poses: list[Array] = []
        names: list[str] = []
        tables: list[FrameTable] = []
        with progress(f"reading {self.path.name}", None) as advance:
            for frames in self.pose_format.read(self.path):
                poses.append(frames.poses)
                names.extend(frames.names or ())
                tables.append(frames.table)
                advance(len(frames.poses))
        return Frames(np.concatenate(poses), tuple(names) or None, FrameTable.joined(tables))  # (n, J, 3) -> (N, J, 3)


@dataclass(frozen=True)
class ImportFiles:
    """The files of one dataset.

    Attributes:
        labels: The file with the true joints.
        predictions: The file of each backbone by the name of its subset. The name of a single backbone is dropped.
    """

    labels: ImportFile
    predictions: Mapping[str, ImportFile]

    @classmethod
    def of(
        cls, labels: Path, predictions: Mapping[str, Path], format_name: str | None, labels_format: str | None
    ) -> "ImportFiles":
        """Returns files with their formats.

        Args:
            labels: The file with the true joints.
            predictions: The file of each backbone.
            format_name: The value of `--format`, see `format_from_shared_option`; None if it is not given.
            labels_format: The value of `--labels-format`, for the labels only; None if it is not given.

        Raises:
            FormatError: If the format of a file cannot be detected.
        """
        return cls(
            ImportFile(
                labels,
                format_from_shared_option(labels, format_name, "--format or --labels-format")
                if labels_format is None
                else format_from_option(labels, labels_format, "--labels-format"),
            ),
            {
                name: ImportFile(path, format_from_shared_option(path, format_name, "--format"))
                for name, path in predictions.items()
            },
        )

    def read(self) -> Samples:
        """Reads labels and predictions.

        Frames are matched by name, in any order, if both files have names, and otherwise by number.

        Returns:
            The samples, in the order of the labels, with what the labels' format says about their frames.

        Raises:
            FormatError: If a file is broken, or if its frames do not match those of the labels.
        """
        labels = self.labels.read()
        if labels.names is not None:
            _check_unique(labels.names, self.labels.path)
        poses = {}
        for subset, source in self.predictions.items():
            frames = source.read()
            if frames.poses.shape[1] != labels.poses.shape[1]:
                raise FormatError(
                    f"{source.path} has {frames.poses.shape[1]} joints, but the labels {self.labels.path} have "
                    f"{labels.poses.shape[1]}"
                )
            name = subset if len(self.predictions) > 1 else DEFAULT_SUBSET
            poses[name] = _match(frames, source.path, labels, self.labels.path)
        return Samples(labels.poses, poses, self.labels.pose_format.frame_table(labels))

    def require_millimetres(self, samples: Samples) -> None:
        """Checks the unit of each file by the size of its hands.

        Raises:
            FormatError: If a file seems to be in another unit than its format.
        """
        for source, poses in zip(self._files(), [samples.labels, *samples.poses.values()], strict=True):
            require_hands(source.path, source.pose_format, poses)

    def text(self) -> str:
        """Returns which files were read as which format, one line per format."""
        paths: dict[str, list[str]] = {}
        for source in self._files():
            title = f"{source.pose_format.name} ({source.pose_format.description})"
            paths.setdefault(title, []).append(str(source.path))
        return "\n".join(f"Read as {title}: {', '.join(which)}" for title, which in paths.items())

    def warnings(self, samples: Samples) -> list[str]:
        """Returns what may be wrong with the files or with `samples` as a whole: units, axes, joint order.

        These are the warnings of `check`, computed from a few thousand samples; their order from all.
        """
        of_files = [(str(source.path), source.pose_format.warning(source.path)) for source in self._files()]
        some = samples.take(selection.every(len(samples), -(-len(samples) // _N_CHECKED)))
        found = [suspicion for suspicion in inspect_samples(some).warnings if suspicion.about != "frames"]
        found += frame_suspicions(samples.frames, Motion.of(samples.labels, samples.frames))
        of_samples = [(suspicion.about, suspicion.text) for suspicion in found if suspicion.samples is None]
        return [f"{about}: {text}" for about, text in [*of_files, *of_samples] if text is not None]

    def _files(self) -> list[ImportFile]:
        return [self.labels, *self.predictions.values()]


def _match(frames: Frames, path: Path, labels: Frames, labels_path: Path) -> Array:
    """Returns the predictions, (N, J, 3), in the order of the labels."""
    if frames.names is None or labels.names is None:
        if len(frames) != len(labels):
            raise FormatError(
                f"{path} has {len(frames)} frames, but the labels {labels_path} have {len(labels)}; unless both files "
                "name their frames, both must have the same number of frames"
            )
        return frames.poses
    if frames.names == labels.names:
        return frames.poses
    _check_unique(frames.names, path)
    rows = {name: row for row, name in enumerate(frames.names)}
    missing = [name for name in labels.names if name not in rows]
    if missing:
        raise FormatError(f"{path} lacks {_count_frames(missing)} of the labels {labels_path}")
    if len(frames) > len(labels):
        known = set(labels.names)
        extra = [name for name in frames.names if name not in known]
        raise FormatError(f"{path} has {_count_frames(extra)} that the labels {labels_path} lack")
    return frames.poses[[rows[name] for name in labels.names]]  # (N, J, 3)


def _check_unique(names: Sequence[str], path: Path) -> None:
    if len(set(names)) < len(names):
        repeated = [name for name, times in Counter(names).items() if times > 1]
        raise FormatError(f"{path} has {_count_frames(repeated)} more than once; frame names must be unique")


def _count_frames(names: Sequence[str]) -> str:
    return f"{count(len(names), 'frame')} ({first_of(names, _SHOWN)})"
