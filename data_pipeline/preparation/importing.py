"""Files of any format into one dataset: labels, and the predictions of any number of backbones for the same frames."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.formats.catalogue import PoseFormat, format_among, format_given
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.pose_dataset import Array, Samples
from data_pipeline.preparation import selection
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.inspection import inspect_samples
from data_pipeline.subsets import DEFAULT_SUBSET

_SHOWN = 5  # names in an error

_N_LOOKED_AT = 4096  # samples; as many tell what all are


@dataclass(frozen=True)
class Source:
    """A file that is imported.

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
        with progress(f"reading {self.path.name}", None) as advance:
            for frames in self.pose_format.read(self.path):
                poses.append(frames.poses)
                names.extend(frames.names or ())
                advance(len(frames.poses))
        return Frames(np.concatenate(poses), tuple(names) or None)  # (n, J, 3) each -> (N, J, 3)


@dataclass(frozen=True)
class Sources:
    """The files of one dataset.

    Attributes:
        labels: That of the true joints.
        predictions: That of each backbone, by the name that its subset gets. That of a single one is dropped.
    """

    labels: Source
    predictions: Mapping[str, Source]

    @classmethod
    def of(
        cls, labels: Path, predictions: Mapping[str, Path], format_name: str | None, labels_format: str | None
    ) -> "Sources":
        """Returns files with their formats.

        Args:
            labels: The file of true joints.
            predictions: The file of each backbone.
            format_name: What `--format` names, see `format_among`; None for nothing.
            labels_format: What `--labels-format` names, for the labels alone; None for nothing.

        Raises:
            FormatError: If a file does not tell its format.
        """
        return cls(
            Source(
                labels,
                format_among(labels, format_name, "--format or --labels-format")
                if labels_format is None
                else format_given(labels, labels_format, "--labels-format"),
            ),
            {name: Source(path, format_among(path, format_name, "--format")) for name, path in predictions.items()},
        )

    def read(self) -> Samples:
        """Reads labels and predictions.

        Frames belong together by their names where both files have names, whatever their order, and else by their
        number.

        Returns:
            The samples, in the order of the labels and with their names.

        Raises:
            FormatError: If a file is broken, or if its frames are not those of the labels.
        """
        labels = self.labels.read()
        if labels.names is not None:
            _check_single(labels.names, self.labels.path)
        poses = {}
        for subset, source in self.predictions.items():
            frames = source.read()
            if frames.poses.shape[1] != labels.poses.shape[1]:
                raise FormatError(
                    f"{source.path} has {frames.poses.shape[1]} joints, but the labels {self.labels.path} have "
                    f"{labels.poses.shape[1]}"
                )
            name = subset if len(self.predictions) > 1 else DEFAULT_SUBSET
            poses[name] = _matched(frames, source.path, labels, self.labels.path)
        return Samples(labels.poses, poses, labels.names)

    def text(self) -> str:
        """Returns which file was read as which format, a line for each format."""
        paths: dict[str, list[str]] = {}
        for source in self._all():
            told = f"{source.pose_format.name} ({source.pose_format.description})"
            paths.setdefault(told, []).append(str(source.path))
        return "\n".join(f"Read as {told}: {', '.join(which)}" for told, which in paths.items())

    def doubts(self, samples: Samples) -> list[str]:
        """Returns what may be wrong with the files, or with all `samples` that were read: units, axes, joints' order.

        It is what `check` finds, of some thousand samples.
        """
        of_files = [(str(source.path), source.pose_format.doubt(source.path)) for source in self._all()]
        some = samples.take(selection.every(len(samples), -(-len(samples) // _N_LOOKED_AT)))
        of_samples = [(found.about, found.text) for found in inspect_samples(some).warnings if found.samples is None]
        return [f"{about}: {text}" for about, text in [*of_files, *of_samples] if text is not None]

    def _all(self) -> list[Source]:
        return [self.labels, *self.predictions.values()]


def _matched(frames: Frames, path: Path, labels: Frames, labels_path: Path) -> Array:
    """Returns the predictions, (N, J, 3), in the order of the labels."""
    if frames.names is None or labels.names is None:
        if len(frames) != len(labels):
            raise FormatError(
                f"{path} has {len(frames)} frames, but the labels {labels_path} have {len(labels)}; without names in "
                "both files, frames can only be matched where both have the same number"
            )
        return frames.poses
    if frames.names == labels.names:
        return frames.poses
    _check_single(frames.names, path)
    rows = {name: row for row, name in enumerate(frames.names)}
    missing = [name for name in labels.names if name not in rows]
    if missing:
        raise FormatError(f"{path} lacks {_counted(missing)} of the labels {labels_path}")
    if len(frames) > len(labels):
        known = set(labels.names)
        extra = [name for name in frames.names if name not in known]
        raise FormatError(f"{path} has {_counted(extra)} that the labels {labels_path} lack")
    return frames.poses[[rows[name] for name in labels.names]]  # (N, J, 3)


def _check_single(names: Sequence[str], path: Path) -> None:
    if len(set(names)) < len(names):
        twice = [name for name, times in Counter(names).items() if times > 1]
        raise FormatError(f"{path} has {_counted(twice)} more than once; a frame needs a name of its own")


def _counted(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {'frame' if len(names) == 1 else 'frames'} ({shown}{more})"
