r"""Corrects poses with a trained corrector of an experiment, or exports the corrector for use elsewhere.

Examples:
    correct a backbone's result file with the best repetition of the best combination
      posetune predict --experiment my_sweep --poses backbone.txt --out corrected.txt

    use all repetitions as an ensemble, and print the error before and after
      posetune predict --experiment my_sweep --repetition all --format openpose21 \
          --poses backbone.npy --labels truth.npy --out corrected.npy

    write the file to submit to the HANDS17 challenge
      posetune predict --experiment my_sweep --poses result.txt --out result.zip --submission names.txt

    fuse the poses of several backbones: all subsets of a dataset's file
      posetune predict --experiment my_fusion --poses data/nyu_test_poses.pt --out fused.pt

    export it for use without PoseTune: torch.export.load("corrector.pt2").module()(poses_mm)
      posetune predict --experiment my_sweep --export corrector.pt2
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import argcomplete
import numpy as np
import torch

from cluster.reports.terminal.correction_text import correction_text
from cluster.reports.terminal.overview import find_experiment
from cluster.results.names import NOT_APPLICABLE, setting_of
from cluster.results.user_modules import add_import_option, own_module
from cluster.storage.folders import ExperimentFolder
from cluster.trained import TrainedCorrector, read_corrector
from data_pipeline.batch import fuses, window_of
from data_pipeline.bones import bone_lengths
from data_pipeline.files.atomic import atomic_file, require_free
from data_pipeline.files.sigterm import exit_on_sigterm
from data_pipeline.formats.catalogue import FORMATS, PoseFormat, format_from_option
from data_pipeline.formats.frames import FormatError, Frames, runs
from data_pipeline.formats.hands17 import read_official_names, write_hands17_submission
from data_pipeline.formats.tensor_file import frame_table_path, split_subset
from data_pipeline.formats.units import require_unit
from data_pipeline.frame_table import FrameTable
from data_pipeline.pose_range import PoseRange, PoseRangeCheck
from data_pipeline.preparation.chunks import progress
from data_pipeline.skeleton import Skeleton, register_skeleton
from data_pipeline.tables import Keys, label_keys
from data_pipeline.user_error import UserError, exit_status, first_line
from data_pipeline.words import count, listed, say
from posenet.evaluator import CorrectionMeans
from posenet.export import check_suffix, export_corrector

_FRAMES_AT_ONCE = 4096  # by a corrector over time


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`, by default the process's own, and returns the exit status."""
    parser = _parser()
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    _require_pairs(parser, args)
    with exit_on_sigterm():
        return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    # Check the whole command line first, before anything slow is read and anything is written.
    inputs = [path for path in (args.poses, args.labels, args.submission) if path is not None]
    for path in (args.out, args.export):
        _require_free(path, inputs, force=args.force)
    if args.export is not None:
        check_suffix(args.export)
    device = _device(args.device)
    files = None if args.poses is None else Files.of(args)
    if files is not None and files.table_path is not None:
        require_free(files.table_path, force=args.force)
    modules = [own_module(name) for name in args.modules]

    folder = find_experiment(args.storage_path, args.experiment)
    trained = read_corrector(folder, combination=args.combination, repetition=args.repetition, modules=modules)
    say(_description(args.experiment, trained), sys.stderr)
    register_skeleton(trained.skeleton)  # for formats whose files have only the number of joints
    if files is not None:
        known = _training_range(folder, trained), folder.read_training_frames(trained.train_set_fingerprint)
        correction = Correction(trained, files, device, *known, force=args.force)
        correction.write()
        if correction.means is not None:
            metrics = correction.means.metrics()
            say(json.dumps(metrics, indent=2) if args.json else correction_text(metrics, trained.skeleton))
    if args.export is not None:
        fused = len(trained.train_subsets) if fuses(trained.corrector) else None
        export_corrector(trained.corrector.cpu(), trained.skeleton, args.export, fused)
        of = "" if fused is None else f" (N, {fused}, J, 3) of {listed(trained.train_subsets)}, in this order,"
        say(f"Exported to {args.export}; it takes poses{of} in mm and returns corrected poses in mm", sys.stderr)
    return 0


@dataclass(frozen=True)
class Files:
    """The files to read and write, and their formats.

    Attributes:
        poses: The file of the poses to correct.
        source: Its format.
        labels: The file of the true poses; None without labels.
        labels_format: Its format; without labels, the format of the poses.
        out: The file for the corrected poses.
        target: Its format; None for the zip file of the challenge.
        official_names: The names of the frames in the zip file; None for any other format.
    """

    poses: Path
    source: PoseFormat
    labels: Path | None
    labels_format: PoseFormat
    out: Path
    target: PoseFormat | None
    official_names: Sequence[str] | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Files":
        """Returns the files of a command line."""
        source = format_from_option(args.poses, args.format, "--format")
        for path in (args.poses, args.labels):
            if path is not None and not split_subset(path)[0].exists():
                raise FormatError(f"{path} does not exist")
        return cls(
            poses=args.poses,
            source=source,
            labels=args.labels,
            labels_format=(
                source
                if args.labels is None
                else format_from_option(args.labels, args.labels_format, "--labels-format", companion=source)
            ),
            out=args.out,
            target=(
                None
                if args.submission
                else format_from_option(args.out, args.out_format, "--out-format", companion=source)
            ),
            official_names=None if args.submission is None else read_official_names(args.submission),
        )

    @property
    def table_path(self) -> Path | None:
        """The frame table next to corrected poses that are a dataset's file; None for other files."""
        return frame_table_path(self.out) if self.target is FORMATS["pt"] else None

    def write_table(self, table: FrameTable) -> None:
        """Writes what is known about the frames next to the corrected poses, or removes an old table."""
        if self.table_path is None:
            return
        if not table.columns:
            self.table_path.unlink(missing_ok=True)
            return
        with atomic_file(self.table_path) as file:
            table.write(file)

    def write(self, frames: Iterator[Frames]) -> None:
        """Writes the corrected frames. In a submission, frames without names get the official ones, with a note."""
        if self.target is not None:
            self.target.write(self.out, frames)
        elif self.official_names is not None and not write_hands17_submission(self.out, frames, self.official_names):
            say(f"note: {self.poses} has no names; its frames got the names of the list, in order", sys.stderr)


def _noting(frames: Iterator[Frames], tables: list[FrameTable]) -> Iterator[Frames]:
    """Yields frames and appends their tables to a list."""
    for chunk in frames:
        tables.append(chunk.table)
        yield chunk


class Correction:
    """Reads, corrects and writes a file of poses.

    Args:
        trained: The corrector.
        files: The files to read and write.
        device: The device the corrector runs on.
        training_range: The range of the training poses; None if the experiment does not have it.
        training_keys: The hashes of the training poses and labels, (K,), ascending; None if there are none.
        force: Correct poses that seem to be in another unit.

    Attributes:
        means: The errors before and after; None without labels.
    """

    def __init__(
        self,
        trained: TrainedCorrector,
        files: Files,
        device: torch.device,
        training_range: PoseRange | None,
        training_keys: Keys | None,
        *,
        force: bool,
    ) -> None:
        self.files = files
        self.device = device
        known = trained.skeleton, training_range, training_keys, force
        self.poses: _Input | _FusedInput
        if fuses(trained.corrector):
            paths = _subset_paths(files, trained.train_subsets)
            self.poses = _FusedInput([_Input(path, files.source, *known) for path in paths])
        else:
            self.poses = _Input(files.poses, files.source, *known)
        self.labels = None if files.labels is None else _Input(files.labels, files.labels_format, *known)
        self.corrector = trained.corrector.to(device)
        self.means = None if files.labels is None else CorrectionMeans(trained.skeleton)
        self.n_frames = 0

    def write(self) -> None:
        """Corrects all frames, a few thousand at a time."""
        tables: list[FrameTable] = []
        try:
            with torch.inference_mode():
                self.files.write(_noting(self._corrected(), tables))
            self.files.write_table(FrameTable.joined(tables))
        finally:  # a suspicious file may be the reason for an error
            for input_file in (self.poses, self.labels):
                if input_file is not None:
                    input_file.warn()
        say(f"{self.n_frames} frames written to {self.files.out}", sys.stderr)

    def _corrected(self) -> Iterator[Frames]:
        labels = None if self.labels is None else _LabelReader(self.labels)
        with progress("correcting", total=None) as advance:
            for chunk, poses, corrected in self._corrected_chunks():
                if self.means is not None and labels is not None:
                    true = torch.from_numpy(labels.take(chunk)).to(self.device)
                    self.means.add(poses, corrected, true)
                self.n_frames += len(chunk)
                advance(len(chunk))
                yield Frames(corrected.cpu().numpy(), chunk.names, chunk.table)
        if labels is not None:
            labels.require_end()

    def _corrected_chunks(self) -> Iterator[tuple[Frames, torch.Tensor, torch.Tensor]]:
        """Yields chunks of the file with their poses before and after, (n, J, 3) each, mm, on the device.

        If the corrector fuses subsets, the poses before are the means over them.
        """
        window = window_of(self.corrector)
        if window is None:
            for chunk in self.poses:
                poses = torch.from_numpy(chunk.poses).to(self.device)  # (n, J, 3)
                yield chunk, poses, self.corrector(poses)
            return
        for run in runs(self.poses):
            poses = torch.from_numpy(run.poses).to(self.device)  # (N, J, 3) or (N, S, J, 3)
            before = poses.mean(dim=1) if fuses(self.corrector) else poses  # (N, J, 3)
            for start in range(0, len(run), _FRAMES_AT_ONCE):
                rows = slice(start, min(start + _FRAMES_AT_ONCE, len(run)))
                first = max(0, start + window.first)
                corrected = self.corrector(poses[first : rows.stop + window.last])  # with the neighbours of the rows
                yield run.take(rows), before[rows], corrected[start - first : rows.stop - first]


class _Input:
    """The frames of a file, compared with the frames that the corrector was trained on."""

    def __init__(
        self,
        path: Path,
        pose_format: PoseFormat,
        skeleton: Skeleton,
        training_range: PoseRange | None,
        training_keys: Keys | None,
        force: bool,
    ) -> None:
        self.path = path
        self.pose_format = pose_format
        self.skeleton = skeleton
        self._training_keys = training_keys
        self._hand_mm: tuple[float, float] | None = None
        if training_range is not None and not force:
            shortest, longest = training_range.hand_mm
            self._hand_mm = shortest / 2, 2 * longest
        self.n_frames = self._n_trained = 0
        self._comparison = None if training_range is None else PoseRangeCheck(training_range, skeleton)

    def __iter__(self) -> Iterator[Frames]:
        for chunk in self.pose_format.read(self.path):
            n_joints = chunk.poses.shape[1]
            if n_joints != self.skeleton.n_joints:
                raise FormatError(
                    f"{self.path} has poses of {n_joints} joints; this corrector was trained on the "
                    f"{self.skeleton.n_joints} joints of {self.skeleton.name}"
                )
            if not self.n_frames and self._hand_mm is not None:
                length_mm = float(np.median(bone_lengths(chunk.poses, self.skeleton).mean(axis=1)))  # (n, B) -> (n,)
                what = "the mean bone length of a hand"
                require_unit(self.path, self.pose_format, what, length_mm, self._hand_mm)
            if self._comparison is not None:
                self._comparison.add(chunk.poses)
            self.n_frames += len(chunk)
            if self._training_keys is not None and len(self._training_keys):
                keys = label_keys(chunk.poses)  # (n,)
                places = np.searchsorted(self._training_keys, keys).clip(max=len(self._training_keys) - 1)
                self._n_trained += int((self._training_keys[places] == keys).sum())  # `isin` takes 20 times as long
            yield chunk

    def warn(self) -> None:
        """Prints what is suspicious about the frames that were read."""
        cut = self.pose_format.warning(self.path)
        unlike = [] if self._comparison is None else self._comparison.texts()
        trained = (
            f"the corrector was trained on {self._n_trained:,} of these {count(self.n_frames, 'frame')}; what it does "
            "to them shows how well it remembers, not how well it corrects"
        )
        for text in [*([] if cut is None else [cut]), *unlike, *([trained] if self._n_trained else [])]:
            say(f"warning: {self.path}: {text}", sys.stderr)


def _subset_paths(files: Files, subsets: Sequence[str]) -> list[Path]:
    """Returns the paths of the subsets in the file of the poses, for a corrector that fuses them.

    Raises:
        FormatError: If the file cannot have subsets, or if one of them is selected.
    """
    fused = f"this corrector fuses the subsets {listed(subsets)}"
    if files.source is not FORMATS["pt"]:
        raise FormatError(f"{files.poses}: {fused}, and only a .pt file has subsets: a dict of tensors (N, J, 3)")
    if split_subset(files.poses)[1] is not None:
        raise FormatError(f"{files.poses}: {fused}; name the file without #SUBSET")
    return [files.poses.with_name(f"{files.poses.name}#{subset}") for subset in subsets]


class _FusedInput:
    """The frames of S subsets of one file, with poses (n, S, J, 3)."""

    def __init__(self, subsets: Sequence[_Input]) -> None:
        self.subsets = subsets

    def __iter__(self) -> Iterator[Frames]:
        for chunks in zip_longest(*self.subsets, fillvalue=Frames(np.empty((0, 0, 3), np.float32))):
            if len({len(chunk) for chunk in chunks}) > 1:
                file, _ = split_subset(self.subsets[0].path)
                raise FormatError(f"{file}: its subsets have different numbers of frames; they need the same frames")
            poses = np.stack([chunk.poses for chunk in chunks], axis=1)  # (n, S, J, 3)
            yield Frames(poses, chunks[0].names, chunks[0].table)

    def warn(self) -> None:
        """Prints what is suspicious about the frames that were read."""
        for subset in self.subsets:
            subset.warn()


class _LabelReader:
    """Reads the labels in chunks of the poses' sizes."""

    def __init__(self, labels: _Input) -> None:
        self.path = labels.path
        self._frames = iter(labels)
        self._left = Frames(np.empty((0, 0, 3), np.float32))
        self._n_taken = 0

    def take(self, poses: Frames) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Returns the labels of the next poses, which must have the same names if both have names."""
        chunks = [self._left] if len(self._left) else []
        while sum(map(len, chunks)) < len(poses):
            following = next(self._frames, None)
            if following is None:
                raise FormatError(f"{self.path} has fewer frames than the poses; both files need the same frames")
            chunks.append(following)
        labels = np.concatenate([chunk.poses for chunk in chunks])
        names = tuple(chain.from_iterable(chunk.names or () for chunk in chunks)) or None
        n = len(poses)
        if names is not None and poses.names is not None and names[:n] != poses.names:
            place = next(i for i, pair in enumerate(zip(names, poses.names, strict=False)) if pair[0] != pair[1])
            raise FormatError(
                f"{self.path}: frame {self._n_taken + place} is {names[place]}, but in the poses it is "
                f"{poses.names[place]}; both files need the same frames in the same order"
            )
        self._n_taken += n
        self._left = Frames(labels[n:], None if names is None else names[n:])
        return labels[:n]

    def require_end(self) -> None:
        """Refuses labels that are left over after the poses."""
        if len(self._left) or next(self._frames, None) is not None:
            raise FormatError(f"{self.path} has more frames than the poses; both files need the same frames")


def _training_range(folder: ExperimentFolder, trained: TrainedCorrector) -> PoseRange | None:
    """Returns the range of the training poses; None if the experiment does not have it."""
    with suppress(LookupError, TypeError, ValueError, AttributeError):
        for entry in folder.read_experiment().data:
            if entry.fingerprint == trained.train_set_fingerprint:
                return PoseRange.from_json(entry.poses or {})
    return None


def _description(experiment: str, trained: TrainedCorrector) -> str:
    applied = {path: value for path, value in trained.options.items() if value != NOT_APPLICABLE}
    options = ", ".join(f"{setting_of(path)} {value}" for path, value in applied.items()) or "no options"
    repetitions = ", ".join(map(str, trained.repetitions))
    which = f"repetition {repetitions}" if len(trained.repetitions) == 1 else f"mean of repetitions {repetitions}"
    return f"{experiment}: combination {trained.key} ({options}), {which}"


def _require_pairs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program if an option lacks another one that it needs."""
    if args.poses is None and args.export is None:
        parser.error("give --poses and --out to correct a file, or --export to write the corrector")
    needs = {
        **{"--out": "--poses", "--poses": "--out", "--labels": "--poses", "--submission": "--poses"},
        **{"--format": "--poses", "--out-format": "--poses", "--labels-format": "--labels", "--json": "--labels"},
    }
    for option, other in needs.items():
        if _is_given(args, option) and not _is_given(args, other):
            parser.error(f"{option} needs {other}")
    if args.submission is not None and args.out_format is not None:
        parser.error("--submission determines the format; omit --out-format")
    if args.export is not None and args.export == args.out:
        parser.error("--out and --export name the same file")


def _is_given(args: argparse.Namespace, option: str) -> bool:
    return getattr(args, option.removeprefix("--").replace("-", "_")) not in (None, False)


def _require_free(path: Path | None, inputs: Sequence[Path], *, force: bool) -> None:
    if path is None:
        return
    for input_path in (split_subset(name)[0] for name in inputs):
        if path.exists() and input_path.exists() and path.samefile(input_path):
            raise UserError(f"{path} is an input and would be overwritten; choose another name for the output")
    require_free(path, force=force)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # the device "meta" has no numbers
    except (RuntimeError, AssertionError) as error:  # torch has no special error for a missing device
        reason = first_line(error)
        raise UserError(f"--device {name}: torch cannot use this device: {reason}") from error
    return device


def _repetition(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _parser() -> argparse.ArgumentParser:
    formats: Mapping[str, PoseFormat] = FORMATS
    listed = "\n".join(f"  {name:22}{pose_format.description}" for name, pose_format in formats.items())
    parser = argparse.ArgumentParser(
        prog="posetune predict",
        description=__doc__,
        epilog=f"formats:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    corrector = parser.add_argument_group("corrector")
    corrector.add_argument("--experiment", required=True, metavar="NAME", help="the experiment that trained it")
    corrector.add_argument(
        "--storage-path", default="results", metavar="D", help="folder or URI of the results (default: results)"
    )
    corrector.add_argument(
        "--combination",
        default="best",
        metavar="KEY",
        help="the key of a combination, or of one of its folds if it has folds, or its beginning (default: best)",
    )
    corrector.add_argument(
        "--repetition",
        default="best",
        type=_repetition,
        metavar="R",
        help="a number, 'best', or 'all' for the mean of all repetitions (default: best)",
    )
    add_import_option(corrector)
    corrector.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda, cuda:1, … (default: cpu)")

    poses = parser.add_argument_group("poses to correct")
    poses.add_argument("--poses", type=Path, metavar="FILE", help="a backbone's predictions")
    poses.add_argument("--format", choices=formats, metavar="F", help="their format (default: detected)")
    poses.add_argument("--out", type=Path, metavar="FILE", help="the file for the corrected poses")
    poses.add_argument(
        "--out-format", choices=formats, metavar="F", help="its format (default: the format of the poses)"
    )
    poses.add_argument(
        "--labels", type=Path, metavar="FILE", help="the true poses, to print the error before and after"
    )
    poses.add_argument(
        "--labels-format", choices=formats, metavar="F", help="their format (default: the format of the poses)"
    )
    poses.add_argument(
        "--submission",
        type=Path,
        metavar="FILE",
        help="write the zip file for the HANDS17 challenge, with the frames that FILE lists, in its order",
    )
    poses.add_argument("--json", action="store_true", help="print the errors as JSON")

    parser.add_argument("--export", type=Path, metavar="FILE", help="write the corrector as a .pt2 or .onnx file")
    parser.add_argument(
        "--force", action="store_true", help="overwrite existing files, and read files that seem to be in another unit"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
