"""Makes datasets for training correctors: synthetic hands, or published results of the leaderboard.

With --name N, a run writes the datasets N_train, N_val and, where there is one, N_test: the names that
`train_set`, `val_set` and `test_set` of a run script take. Then it tells how far off the predictions are.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from data_pipeline.dataset_name import DATASET_NAME
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS, read_results
from data_pipeline.pose_dataset import Array, dataset_path, write_dataset
from data_pipeline.splits import ALL_PART, parse_split
from data_pipeline.subsets import DEFAULT_SUBSET, MEAN_SUBSET
from data_pipeline.synthetic import Backbone, synthetic_hands
from data_pipeline.user_error import UserError

PARTS = ("train", "val", "test")

WORST_JOINT_LIMIT_MM = 20.0

_CHUNK = 16_384  # frames; keeps the float64 copies of a large dataset small

_SYNTHETIC_EXAMPLE = """\
  a small synthetic dataset with two imagined backbones
    python tune_runs/prepare_data.py synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B
"""

_LEADERBOARD_EXAMPLE = """\
  two published results for NYU as two subsets of one dataset; add --separate for a dataset of each
    python tune_runs/prepare_data.py leaderboard --dataset nyu --name nyu \\
        --ground-truth nyu_test_groundtruth_label.txt \\
        --predictions Pose-REN=NEUCOM18_NYU_Pose_REN.txt DeepPrior=CVWW15_NYU_Prior.txt

The leaderboard's files: https://github.com/xinghaochen/awesome-hand-pose-estimation, folder evaluation.
"""


@dataclass(frozen=True)
class Prepared:
    """A dataset that is ready to be written.

    Attributes:
        base: Its name without the part.
        part: "train", "val" or "test", or `ALL_PART`.
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints, (N, J, 3), mm, camera frame, or such for each subset.
    """

    base: str
    part: str
    labels: Array
    poses: Array | Mapping[str, Array]

    @property
    def name(self) -> str:
        """The name below the data folder."""
        return _dataset_name(self.base, self.part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`, by default the process's own, and returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        _check_dataset_name(args.name)
        # Everything is made and checked before the first file is touched.
        datasets: list[Prepared] = args.prepare(args)
        rows = [row for dataset in datasets for row in statistics(dataset)]
        for dataset in datasets:
            _write(args.data_dir, dataset)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: the datasets do not fit into memory; make fewer frames at a time", file=sys.stderr)
        return 2

    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(_table(rows))
        print(f"\nWritten to {args.data_dir}: {', '.join(dataset.name for dataset in datasets)}")
    _note_leftovers(args.data_dir, datasets)
    return 0


def statistics(dataset: Prepared) -> list[dict[str, Any]]:
    """Returns how far off each subset of `dataset` is: one row of JSON values for each."""
    poses = dataset.poses if isinstance(dataset.poses, Mapping) else {DEFAULT_SUBSET: dataset.poses}
    rows = []
    for subset, predicted in poses.items():
        total_mm, total_worst_mm, n_within = 0.0, 0.0, 0
        for start in range(0, len(predicted), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            difference = predicted[chunk].astype(np.float64) - dataset.labels[chunk]
            error_mm = np.linalg.norm(difference, axis=2)  # (n, J, 3) -> (n, J)
            worst_mm = error_mm.max(axis=1)  # (n,)
            total_mm += float(error_mm.sum())
            total_worst_mm += float(worst_mm.sum())
            n_within += int((worst_mm <= WORST_JOINT_LIMIT_MM).sum())
        n_frames, n_joints, _ = predicted.shape
        rows.append(
            {
                "dataset": dataset.name,
                "part": dataset.part,
                "subset": subset,
                "frames": n_frames,
                "mean_error_mm": total_mm / (n_frames * n_joints),
                "mean_worst_joint_mm": total_worst_mm / n_frames,
                "share_worst_joint_within_20mm": n_within / n_frames,
            }
        )
    return rows


def _prepare_synthetic(args: argparse.Namespace) -> list[Prepared]:
    """Makes a dataset for each part that has a size."""
    sizes = {part: getattr(args, part) for part in PARTS if getattr(args, part) is not None}
    for part, size in sizes.items():
        if not 1 <= size <= 10**9:
            hint = "; leave it out for no test set" if part == "test" else ""
            raise UserError(f"--{part} {size}: needed is a number of frames from 1 to {10**9}{hint}")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: a seed is 0 or larger")
    subsets = [] if args.subsets is None else args.subsets.split(",")
    _check_subsets(subsets, "--subsets")
    _check_free(args, [_dataset_name(args.name, part) for part in sizes])

    # A part's seed does not depend on which parts there are: training data stay the same with a test set beside
    # them. The parts share no subject and no noise; a backbone has the same character in all of them.
    part_seeds = dict(zip(PARTS, np.random.SeedSequence(args.seed).generate_state(len(PARTS)), strict=True))
    datasets = []
    for part, size in sizes.items():
        seed = int(part_seeds[part])
        labels = synthetic_hands(size, seed)
        poses = {subset: Backbone(subset, args.seed).predict(labels, seed) for subset in subsets or [DEFAULT_SUBSET]}
        datasets.append(Prepared(args.name, part, labels, poses if subsets else poses[DEFAULT_SUBSET]))
    return datasets


def _prepare_leaderboard(args: argparse.Namespace) -> list[Prepared]:
    """Reads the files and splits their frames."""
    split = parse_split(args.split)
    pairs = [_named_path(text) for text in args.predictions]
    _check_subsets([name for name, _ in pairs], "--predictions")
    labels, poses = read_results(args.ground_truth, dict(pairs), args.dataset)
    parts = split.parts(len(labels))

    groups: dict[str, Mapping[str, Array]] = {args.name: poses}
    if args.separate:
        groups = {f"{args.name}_{subset}": {subset: array} for subset, array in poses.items()}
    datasets = []
    for base, group in groups.items():
        for part, indices in parts.items():
            chosen = {subset: array[indices] for subset, array in group.items()}  # (N, J, 3) -> (N_part, J, 3)
            # One prediction alone needs no subset.
            content = chosen if len(chosen) > 1 else next(iter(chosen.values()))
            datasets.append(Prepared(base, part, labels[indices], content))
    _check_free(args, [dataset.name for dataset in datasets])
    return datasets


def _named_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UserError(f"--predictions {text}: name each file, NAME=FILE, for example Pose-REN=results.txt")
    return name, Path(path)


def _dataset_name(base: str, part: str) -> str:
    return base if part == ALL_PART else f"{base}_{part}"


def _check_subsets(names: Sequence[str], option: str) -> None:
    for i, name in enumerate(names):
        _check_name(name, option)
        if name == MEAN_SUBSET:
            raise UserError(f"{option}: the name {name!r} is taken, for the mean over subsets; choose another")
        if name in names[:i]:
            raise UserError(f"{option}: the name {name!r} is given twice")


def _check_dataset_name(name: str) -> None:
    _check_name(name, "--name")
    if not DATASET_NAME.fullmatch(name):
        raise UserError(f"--name: {name!r} is not a name of datasets; it begins with a letter or digit")


def _check_name(name: str, option: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,100}", name):
        raise UserError(f"{option}: {name!r} is not a name; a name has 1 to 100 letters, digits, '.', '_', '+', '-'")


def _check_free(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Refuses a data folder that is none, and, without --force, datasets that are there already."""
    if args.data_dir.exists() and not args.data_dir.is_dir():
        raise UserError(f"--data-dir {args.data_dir} is not a folder")
    existing = [name for name in names if _exists(args.data_dir, name)]
    if existing and not args.force:
        raise UserError(
            f"{args.data_dir} already has {', '.join(existing)}; choose another --name, or overwrite with --force"
        )


def _exists(data_dir: Path, name: str) -> bool:
    return any(dataset_path(data_dir, name, part).exists() for part in ("labels", "poses"))


def _write(data_dir: Path, dataset: Prepared) -> None:
    try:
        write_dataset(data_dir, dataset.name, dataset.labels, dataset.poses)
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk with a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{dataset.name} cannot be written to {data_dir}: {reason}") from error


def _note_leftovers(data_dir: Path, datasets: Iterable[Prepared]) -> None:
    """Warns of parts from an earlier run: with another split they may hold the frames that now train."""
    written = {dataset.name for dataset in datasets}
    family = {_dataset_name(dataset.base, part) for dataset in datasets for part in (*PARTS, ALL_PART)}
    left = sorted(name for name in family - written if _exists(data_dir, name))
    if left:
        print(
            f"note: {data_dir} also has {', '.join(left)} from an earlier run, with frames that may be in the "
            "datasets of this run too",
            file=sys.stderr,
        )


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    return tabulate(
        [
            [
                *(row[key] for key in ("dataset", "part", "subset", "frames", "mean_error_mm")),
                row["mean_worst_joint_mm"],
                100 * row["share_worst_joint_within_20mm"],
            ]
            for row in rows
        ],
        headers=[
            *("dataset", "part", "subset", "frames", "mean error\n(mm)"),
            "mean of frames'\nworst joint (mm)",
            "worst joint\nwithin 20 mm (%)",
        ],
        floatfmt=".2f",
        disable_numparse=[0, 1, 2],  # a subset may be called 2017
    )


def _parser() -> argparse.ArgumentParser:
    layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)
    parser = argparse.ArgumentParser(
        prog="prepare_data.py",
        description=__doc__,
        epilog=f"examples:\n{_SYNTHETIC_EXAMPLE}\n{_LEADERBOARD_EXAMPLE}",
        formatter_class=layout,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands, each with its own --help", required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", required=True, metavar="N", help="datasets become N_train, N_val and N_test")
    common.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="D", help="folder to write to (default: data)"
    )
    common.add_argument("--force", action="store_true", help="overwrite datasets that exist")
    common.add_argument("--json", action="store_true", help="print the statistics as JSON, and nothing else, to stdout")

    synthetic = commands.add_parser(
        "synthetic",
        parents=[common],
        help="moving hands, and predictions of imagined backbones",
        description="Makes moving hands with the 21 joints of HANDS17, and what imagined backbones see of them.",
        epilog=f"example:\n{_SYNTHETIC_EXAMPLE}",
        formatter_class=layout,
        allow_abbrev=False,
    )
    synthetic.add_argument("--train", type=int, required=True, metavar="n", help="frames to train with")
    synthetic.add_argument("--val", type=int, required=True, metavar="n", help="frames to validate with")
    synthetic.add_argument("--test", type=int, metavar="n", help="frames to test with (default: no test set)")
    synthetic.add_argument(
        "--subsets",
        metavar="A,B",
        help="an imagined backbone for each name, each with errors of its own (default: one, without a name)",
    )
    synthetic.add_argument("--seed", type=int, default=0, metavar="s", help="same seed, same datasets (default: 0)")
    synthetic.set_defaults(prepare=_prepare_synthetic)

    leaderboard = commands.add_parser(
        "leaderboard",
        parents=[common],
        help="ground truth and published results of NYU or ICVL",
        description="Reads text files of the leaderboard, in pixels and mm, into mm in the camera frame.",
        epilog=f"example:\n{_LEADERBOARD_EXAMPLE}",
        formatter_class=layout,
        allow_abbrev=False,
    )
    leaderboard.add_argument(
        "--dataset",
        required=True,
        choices=sorted(LEADERBOARD_DATASETS),
        help="tells the number of joints and the camera",
    )
    leaderboard.add_argument("--ground-truth", type=Path, required=True, metavar="F", help="file of the true joints")
    leaderboard.add_argument(
        "--predictions",
        nargs="+",
        # Without this a second --predictions would silently replace the first.
        action="extend",
        required=True,
        metavar="NAME=F",
        help="result files; several become subsets with these names, a single one is stored without its name",
    )
    leaderboard.add_argument(
        "--split",
        default="blocks:100:5",
        metavar="S",
        help="blocks:M:K (blocks of M frames; of every K the last validates, the one in the middle tests), last:P "
        "(the last P percent validate) or none (a single dataset N) (default: %(default)s)",
    )
    leaderboard.add_argument(
        "--separate", action="store_true", help="give each prediction datasets of its own, N_NAME_train, ..."
    )
    leaderboard.set_defaults(prepare=_prepare_leaderboard)
    return parser


if __name__ == "__main__":
    sys.exit(main())
