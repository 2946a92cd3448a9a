r"""Corrects poses with what an experiment trained, or exports its corrector for use elsewhere.

Examples:
    the best combination's best training, on a result file of a backbone
      python tune_runs/predict.py --experiment my_sweep --poses backbone.txt --out corrected.txt

    all its trainings as an ensemble, with the error before and after
      python tune_runs/predict.py --experiment my_sweep --repetition all --format openpose21 \
          --poses backbone.npy --labels truth.npy --out corrected.npy

    the file that is handed in to the HANDS17 challenge
      python tune_runs/predict.py --experiment my_sweep --poses result.txt --out result.zip --submission names.txt

    for use without PoseTune: torch.export.load("corrector.pt2").module()(poses_mm)
      python tune_runs/predict.py --experiment my_sweep --export corrector.pt2
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from cluster.reports.correction import correction_text
from cluster.storage import Storage
from cluster.trained import TrainedCorrector, read_corrector
from cluster.trial_folder import ExperimentFolder
from data_pipeline.formats.catalogue import FORMATS, PoseFormat, format_for
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.hands17 import read_official_names, write_hands17_submission
from data_pipeline.formats.tensor_file import split_subset
from data_pipeline.pose_range import PoseRange
from data_pipeline.preparation.chunks import progress
from data_pipeline.skeleton import register_skeleton
from data_pipeline.user_error import UserError, first_line
from posenet.evaluator import CorrectionMeans
from posenet.export import check_suffix, export_corrector


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`, by default the process's own, and returns the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    _require_pairs(parser, args)
    try:
        # All that can be wrong with the command line, before anything is read that takes time or written.
        for path in (args.out, args.export):
            _require_free(path, force=args.force)
        if args.export is not None:
            check_suffix(args.export)
        device = _device(args.device)
        files = None if args.poses is None else Files.of(args)
        modules = [_imported(name) for name in args.modules]

        folder = ExperimentFolder(Storage(args.storage_path) / args.experiment)
        trained = read_corrector(folder, combination=args.combination, repetition=args.repetition, modules=modules)
        print(_description(args.experiment, trained), file=sys.stderr)
        register_skeleton(trained.skeleton)  # for formats whose files tell the number of joints alone
        if files is not None:
            correction = Correction(trained, files, device, _training_range(folder, trained))
            correction.write()
            if correction.means is not None:
                metrics = correction.means.metrics()
                print(json.dumps(metrics, indent=2) if args.json else correction_text(metrics, trained.skeleton))
        if args.export is not None:
            export_corrector(trained.corrector.cpu(), trained.skeleton, args.export)
            print(f"Exported to {args.export}: poses in mm in, corrected poses in mm out", file=sys.stderr)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


@dataclass(frozen=True)
class Files:
    """What is read and written, in which formats.

    Attributes:
        poses: The poses to correct.
        source: Their format.
        labels: The true poses; None for none.
        labels_format: Their format, that of the poses where there are none.
        out: Where the corrected poses go.
        target: Their format; None for the zip file of the challenge.
        official_names: The names of its frames; None where that is not written.
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
        """Returns what a command line names."""
        source = _format(args.poses, args.format, "--format")
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
                else _format(args.labels, args.labels_format, "--labels-format", like=source)
            ),
            out=args.out,
            target=None if args.submission else _format(args.out, args.out_format, "--out-format", like=source),
            official_names=None if args.submission is None else read_official_names(args.submission),
        )

    def write(self, frames: Iterator[Frames]) -> None:
        """Writes the corrected frames."""
        if self.target is not None:
            self.target.write(self.out, frames)
        elif self.official_names is not None:
            write_hands17_submission(self.out, frames, self.official_names)


class Correction:
    """A file of poses on its way through a corrector.

    Args:
        trained: The corrector.
        files: What is read and written.
        device: Where the corrector runs.
        training_range: Where the hands were that it was trained on; None where the experiment does not tell.

    Attributes:
        means: The errors before and after; None without labels.
    """

    def __init__(
        self, trained: TrainedCorrector, files: Files, device: torch.device, training_range: PoseRange | None
    ) -> None:
        self.trained = trained
        self.files = files
        self.device = device
        self.training_range = training_range
        self.corrector = trained.corrector.to(device)
        self.means = None if files.labels is None else CorrectionMeans(trained.skeleton)
        self.n_frames = 0

    def write(self) -> None:
        """Reads, corrects and writes the frames, some thousand at a time."""
        with torch.inference_mode():
            self.files.write(self._corrected(self.files.source.read(self.files.poses)))
        print(f"{self.n_frames} frames written to {self.files.out}", file=sys.stderr)

    def _corrected(self, frames: Iterator[Frames]) -> Iterator[Frames]:
        labels = None if self.files.labels is None else _Rows(self.files.labels, self.files.labels_format)
        with progress("correcting", total=None) as advance:
            for chunk in frames:
                self._require_fit(chunk)
                poses = torch.from_numpy(chunk.poses).to(self.device)  # (n, J, 3)
                corrected = self.corrector(poses)
                if self.means is not None and labels is not None:
                    true = torch.from_numpy(labels.take(chunk)).to(self.device)
                    self.means.add(poses, corrected, true)
                self.n_frames += len(chunk)
                advance(len(chunk))
                yield Frames(corrected.cpu().numpy(), chunk.names)
        if labels is not None:
            labels.require_end()

    def _require_fit(self, chunk: Frames) -> None:
        skeleton = self.trained.skeleton
        if chunk.poses.shape[1] != skeleton.n_joints:
            raise FormatError(
                f"{self.files.poses} has poses of {chunk.poses.shape[1]} joints; this corrector was trained on the "
                f"{skeleton.n_joints} joints of {skeleton.name}"
            )
        if self.n_frames == 0 and self.training_range is not None:
            for text in self.training_range.unlike(chunk.poses, skeleton):
                print(f"warning: {self.files.poses}: {text}", file=sys.stderr)


class _Rows:
    """The labels beside the poses, taken in the poses' chunks."""

    def __init__(self, path: Path, pose_format: PoseFormat) -> None:
        self.path = path
        self._frames = pose_format.read(path)
        self._left = Frames(np.empty((0, 0, 3), np.float32))
        self._n_taken = 0

    def take(self, beside: Frames) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Returns the next labels, as many as there are frames in `beside`."""
        parts = [self._left] if len(self._left) else []
        while sum(map(len, parts)) < len(beside):
            following = next(self._frames, None)
            if following is None:
                raise FormatError(f"{self.path} has fewer frames than the poses; both files need the same")
            parts.append(following)
        poses = np.concatenate([part.poses for part in parts])
        names = tuple(chain.from_iterable(part.names or () for part in parts)) or None
        n = len(beside)
        if poses.shape[1] != beside.poses.shape[1]:
            raise FormatError(f"{self.path} has {poses.shape[1]} joints, but the poses have {beside.poses.shape[1]}")
        if names is not None and beside.names is not None and names[:n] != beside.names:
            place = next(i for i, pair in enumerate(zip(names, beside.names, strict=False)) if pair[0] != pair[1])
            raise FormatError(
                f"{self.path}: frame {self._n_taken + place} is {names[place]}, but that of the poses is "
                f"{beside.names[place]}; both files need the same frames in the same order"
            )
        self._n_taken += n
        self._left = Frames(poses[n:], None if names is None else names[n:])
        return poses[:n]

    def require_end(self) -> None:
        """Refuses labels that are more than the poses."""
        if len(self._left) or next(self._frames, None) is not None:
            raise FormatError(f"{self.path} has more frames than the poses; both files need the same")


def _format(path: Path, name: str | None, option: str, like: PoseFormat | None = None) -> PoseFormat:
    """Returns a file's format: the one that `option` names, that of the file it goes with, or by its ending.

    Args:
        path: The file.
        name: What `option` says.
        option: The option that names it.
        like: The format of the file it goes with, taken where the ending fits.
    """
    if name is None and like is not None and split_subset(path)[0].suffix in (like.suffixes or ("",)):
        return like
    try:
        return format_for(path, name)
    except FormatError as error:
        raise FormatError(f"{error} ({option})") from error


def _training_range(folder: ExperimentFolder, trained: TrainedCorrector) -> PoseRange | None:
    """Returns where the hands of the training set were; None where the experiment does not tell."""
    with suppress(LookupError, TypeError, ValueError, AttributeError):
        for entry in (folder.read_experiment() or {})["data"]:
            if entry["fingerprint"] == trained.train_set_fingerprint:
                return PoseRange.from_json(entry["poses"])
    return None


def _description(experiment: str, trained: TrainedCorrector) -> str:
    options = ", ".join(f"{path} {value}" for path, value in trained.options.items()) or "no options"
    repetitions = ", ".join(map(str, trained.repetitions))
    which = f"repetition {repetitions}" if len(trained.repetitions) == 1 else f"mean of repetitions {repetitions}"
    return f"{experiment}: combination {trained.key} ({options}), {which}"


def _require_pairs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where options that belong together are not given together."""
    if args.poses is None and args.export is None:
        parser.error("give --poses and --out to correct a file, or --export to write the corrector")
    needs = {
        **{"--out": "--poses", "--poses": "--out", "--labels": "--poses", "--submission": "--poses"},
        **{"--format": "--poses", "--out-format": "--poses", "--labels-format": "--labels", "--json": "--labels"},
    }
    for option, other in needs.items():
        if _given(args, option) and not _given(args, other):
            parser.error(f"{option} needs {other}")
    if args.submission is not None and args.out_format is not None:
        parser.error("--submission is a format of its own: leave out --out-format")
    if args.export is not None and args.export == args.out:
        parser.error("--out and --export are the same file")


def _given(args: argparse.Namespace, option: str) -> bool:
    return getattr(args, option.removeprefix("--").replace("-", "_")) not in (None, False)


def _require_free(path: Path | None, *, force: bool) -> None:
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder that is there already; choose another name, or remove it first")
    if path.exists() and not force:
        raise UserError(f"{path} is there already; choose another name, or overwrite it with --force")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path.absolute().parent}, where {path.name} is to be written, is not a folder")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has no error of its own for a device that is not there
        reason = first_line(error)
        raise UserError(f"--device {name}: torch cannot use it here: {reason}") from error
    return device


def _imported(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module may fail in any way
        hint = "; name it without .py" if name.endswith(".py") else ""
        raise UserError(f"--import {name}: it cannot be imported: {type(error).__name__}: {error}{hint}") from error
    finally:
        sys.path.remove(str(Path.cwd()))


def _repetition(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _parser() -> argparse.ArgumentParser:
    formats: Mapping[str, PoseFormat] = FORMATS
    listed = "\n".join(f"  {name:22}{pose_format.description}" for name, pose_format in formats.items())
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description=__doc__,
        epilog=f"formats:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    which = parser.add_argument_group("which corrector")
    which.add_argument("--experiment", required=True, metavar="NAME", help="the experiment that trained it")
    which.add_argument("--storage-path", default="results", metavar="D", help="folder or URI of the results (results)")
    which.add_argument(
        "--combination", default="best", metavar="KEY", help="its key, or the beginning of it (default: best)"
    )
    which.add_argument(
        "--repetition",
        default="best",
        type=_repetition,
        metavar="R",
        help="a number, 'best', or 'all' for the mean of all as an ensemble (default: best)",
    )
    which.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module with a model or normalizer of your own",
    )

    poses = parser.add_argument_group("poses to correct")
    poses.add_argument("--poses", type=Path, metavar="FILE", help="a backbone's predictions")
    poses.add_argument("--format", choices=formats, metavar="F", help="their format, where the file does not tell it")
    poses.add_argument("--out", type=Path, metavar="FILE", help="where the corrected poses are written")
    poses.add_argument("--out-format", choices=formats, metavar="F", help="its format (default: as the poses)")
    poses.add_argument("--labels", type=Path, metavar="FILE", help="the true poses: tells the error before and after")
    poses.add_argument("--labels-format", choices=formats, metavar="F", help="their format (default: as the poses)")
    poses.add_argument(
        "--submission",
        type=Path,
        metavar="FILE",
        help="write the zip file for the HANDS17 challenge, with the frames of this list of names, in its order",
    )
    poses.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda, cuda:1, … (default: cpu)")
    poses.add_argument("--json", action="store_true", help="print the errors as JSON")

    parser.add_argument("--export", type=Path, metavar="FILE", help="write the corrector itself, as .pt2 or .onnx")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    return parser


if __name__ == "__main__":
    sys.exit(main())
