"""Makes, splits and checks datasets for training correctors, and makes the tables that distorters read.

`train_set`, `val_set` and `test_set` of a run script name datasets. A command writes all its files or none: if it fails
or is interrupted, the data folder stays as it was.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import argcomplete

from data_pipeline.files.sigterm import exit_on_sigterm
from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS
from data_pipeline.preparation import commands
from data_pipeline.preparation.commands import CommandResult
from data_pipeline.preparation.splits.split import PARTS
from data_pipeline.preparation.splits.syntax import SPLIT_SYNTAX
from data_pipeline.preparation.targets import Target
from data_pipeline.user_error import UserError, exit_status
from data_pipeline.words import listed, say

_SPLITS = f"""splits:
{textwrap.indent(SPLIT_SYNTAX, "  ")}

Frames are never split at random, and a split should keep a distance: neighbouring frames are nearly identical, so the
corrector would be tested on frames that it has practically seen in training. `check` shows how far the test frames are
from the training frames. GAP is a number of frames, in the order of the files.

"""

_INSIST = ", and read files that seem to be in another unit"

_EXAMPLES = {
    "synthetic": """\
  a small synthetic dataset with two simulated backbones
    posetune prepare-data synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B
""",
    "leaderboard": """\
  two published results for NYU as two subsets of one dataset; --separate makes a dataset for each
    posetune prepare-data leaderboard --dataset nyu --name nyu \\
        --ground-truth nyu_test_groundtruth_label.txt \\
        --predictions Pose-REN=NEUCOM18_NYU_Pose_REN.txt DeepPrior=CVWW15_NYU_Prior.txt

Leaderboard files: https://github.com/xinghaochen/awesome-hand-pose-estimation, folder evaluation.
""",
    "import": """\
  annotations and the results of two backbones; frames are matched by name
    posetune prepare-data import --format hands17 --name hands \\
        --labels Training_Annotation.txt --predictions A=result_A.txt B=result_B.txt
""",
    "split": """\
  the last 10 percent for testing, the 20 percent before them for validation
    posetune prepare-data split --dataset demo_train --split last:20:10 --name demo_part
""",
    "clusters": """\
  the subjects of a dataset; `split --split clusters:data/demo_train_clusters.txt:0:1` then keeps each in one part
    posetune prepare-data clusters --dataset demo_train --name demo_train
""",
    "neighbors": """\
  the 20 most similar labels of the same set for each training label
    posetune prepare-data neighbors --dataset demo_train --bank demo_train --max-k 20 --name demo_train
""",
    "errors": """\
  the errors of one backbone
    posetune prepare-data errors --dataset demo_train --subset A --name demo_A
""",
    "subset": """\
  every tenth sample
    posetune prepare-data subset --dataset demo_train --every 10 --name demo_small
""",
    "check": """\
  check a dataset before you train on it
    posetune prepare-data check --dataset demo_train
""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`, by default the process's own, and returns the exit status."""
    parser = _parser()
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    with exit_on_sigterm():
        return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    try:
        outcome: CommandResult = args.run(args)
    except MemoryError as error:
        raise UserError("the datasets do not fit into memory; process fewer frames at a time") from error
    _print(outcome, as_json=args.json)
    return outcome.status


def _print(outcome: CommandResult, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps(outcome.facts, indent=2, allow_nan=False))
    elif outcome.text:
        say(outcome.text)
    for note in outcome.notes:
        say(note, sys.stderr)


def _parser() -> argparse.ArgumentParser:
    layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)
    parser = argparse.ArgumentParser(
        prog="posetune prepare-data",
        description=__doc__,
        epilog=f"examples:\n{_EXAMPLES['synthetic']}\n{_EXAMPLES['leaderboard']}",
        formatter_class=layout,
        allow_abbrev=False,
    )
    added = parser.add_subparsers(title="commands, each with its own --help", required=True, metavar="COMMAND")
    add = partial(_add_command, added, layout)
    _add_makers(add)
    _add_dividers(add)
    _add_tables(add)
    return parser


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    layout: Callable[..., argparse.HelpFormatter],
    name: str,
    run: Callable[[argparse.Namespace], CommandResult],
    description: str,
    *,
    summary: str,
    named: str | None = None,
    below: str = "",
    insist: str = "",
) -> argparse.ArgumentParser:
    """Adds a command; `named` is the help text of --name, None for a command that writes nothing."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 100),
        epilog=f"{below}example:\n{_EXAMPLES[name]}",
        formatter_class=layout,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    if named is not None:
        parser.add_argument("--name", required=True, metavar="N", help=named)
        parser.add_argument("--force", action="store_true", help=f"overwrite what exists{insist}")
    folder = "data folder (default: data)"
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help=folder)
    parser.add_argument("--json", action="store_true", help="print only the numbers, as JSON, to stdout")
    return parser


def _add_makers(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands that make new datasets."""
    parts = "name of the datasets: N_train, N_val and N_test"
    divided = "how to split the frames, see below"

    synthetic = add(
        "synthetic",
        lambda args: commands.synthetic(
            _target(args),
            {part: getattr(args, part) for part in PARTS if getattr(args, part) is not None},
            [] if args.subsets is None else args.subsets.split(","),
            args.seed,
        ),
        "Makes moving hands with the 21 joints of HANDS17, and predictions of simulated backbones for them.",
        summary="moving hands, and predictions of simulated backbones",
        named=parts,
    )
    synthetic.add_argument("--train", type=int, required=True, metavar="n", help="number of training frames")
    synthetic.add_argument("--val", type=int, required=True, metavar="n", help="number of validation frames")
    synthetic.add_argument("--test", type=int, metavar="n", help="number of test frames (default: no test set)")
    synthetic.add_argument(
        "--subsets",
        metavar="A,B",
        help="names of the simulated backbones, each with its own kind of errors (default: one without a name)",
    )
    synthetic.add_argument(
        "--seed", type=int, default=0, metavar="s", help="the same seed gives the same datasets (default: 0)"
    )

    leaderboard = add(
        "leaderboard",
        lambda args: commands.leaderboard(
            _target(args),
            args.dataset,
            args.ground_truth,
            args.predictions,
            args.split,
            folds=args.folds,
            separate=args.separate,
        ),
        "Reads leaderboard text files, in pixels and mm, and converts them to mm in the camera frame.",
        summary="ground truth and published results of NYU, ICVL or MSRA15",
        insist=_INSIST,
        named=parts,
        below=_SPLITS,
    )
    leaderboard.add_argument(
        "--dataset",
        required=True,
        choices=sorted(LEADERBOARD_DATASETS),
        help="determines the number of joints and the camera",
    )
    leaderboard.add_argument("--ground-truth", type=Path, required=True, metavar="F", help="file with the true joints")
    _add_predictions(leaderboard, required=True)
    splits = listed([f"{known.split} for {name}" for name, known in LEADERBOARD_DATASETS.items()])
    leaderboard.add_argument("--split", metavar="S", help=f"{divided} (default: {splits.replace('%', '%%')})")
    _add_folds(leaderboard)
    leaderboard.add_argument(
        "--separate", action="store_true", help="make separate datasets for each prediction: N_NAME_train, ..."
    )

    formats = "\n".join(f"  {name:<20} {known.description}" for name, known in FORMATS.items())
    importer = add(
        "import",
        lambda args: commands.import_(
            _target(args),
            args.format,
            args.labels_format,
            args.labels,
            args.predictions,
            args.split,
            folds=args.folds,
        ),
        "Reads files of a known format and converts their units and joint order to mm in the camera frame. If all "
        "files name their frames, frames are matched by name, in any order; otherwise they are matched by number. What "
        "the format of the labels says about names, sequences and subjects is kept in N_frames.parquet. Without "
        "predictions the dataset has only labels, for training with use_preset=False.",
        summary="files of other formats, with or without predictions",
        insist=_INSIST,
        named=f"{parts}; without --split, a single dataset N",
        below=f"formats:\n{formats}\n\n{_SPLITS}",
    )
    importer.add_argument(
        "--format",
        choices=FORMATS,
        metavar="F",
        help="format of all files that can have it by their extension, see below (default: detected for each file)",
    )
    importer.add_argument("--labels-format", choices=FORMATS, metavar="F", help="format of the labels, if it differs")
    importer.add_argument("--labels", type=Path, required=True, metavar="FILE", help="file with the true joints")
    _add_predictions(importer, required=False)
    importer.add_argument("--split", default="none", metavar="S", help=f"{divided} (default: none)")
    _add_folds(importer)


def _add_dividers(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands that check a dataset or take parts of it."""
    split = add(
        "split",
        lambda args: commands.split(_target(args), args.dataset, args.split, folds=args.folds),
        "Splits a dataset, with all its subsets and what is known about its frames.",
        summary="a dataset into training, validation and test sets",
        named="name of the datasets: N_train, N_val and N_test",
        below=_SPLITS,
    )
    _add_dataset(split)
    split.add_argument("--split", required=True, metavar="S", help="how to split the frames, see below")
    _add_folds(split)

    subset = add(
        "subset",
        lambda args: commands.subset(_target(args), args.dataset, *_selection(args), args.seed),
        "Makes a smaller dataset, with all subsets and what is known about its frames, in the original order.",
        summary="some samples of a dataset",
        named="name of the smaller dataset",
    )
    _add_dataset(subset)
    which = subset.add_mutually_exclusive_group(required=True)
    which.add_argument("--every", type=int, metavar="n", help="the first sample and every n-th after it")
    which.add_argument("--random", type=int, metavar="n", help="n samples, drawn without replacement")
    which.add_argument("--first", type=int, metavar="n", help="the first n samples")
    subset.add_argument("--seed", type=int, default=0, metavar="s", help="seed of --random (default: 0)")

    check = add(
        "check",
        lambda args: commands.check(args.data_dir, args.dataset, args.train),
        "Describes a dataset and warns about everything that looks wrong: units, axes, the order of joints, frames "
        "that are not hands, duplicate frames, shuffled frames, predictions that equal their labels, and validation or "
        "test frames that are too close to training frames. The exit code is 0 for a good dataset, 1 if something "
        "looks wrong, 2 for a broken dataset.",
        summary="the contents of a dataset, and what looks wrong",
    )
    _add_dataset(check)
    check.add_argument(
        "--train",
        metavar="T",
        help="the training set whose distance is checked (default: N_train for a dataset N_val or N_test)",
    )


def _add_tables(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands that make tables from a dataset."""
    clusters = add(
        "clusters",
        lambda args: commands.clusters(_target(args), args.dataset, args.k),
        "Groups the frames of a dataset by the bone lengths of their labels, which distinguish subjects, and writes "
        "the cluster of each frame to N_clusters.txt, which --split can read. Without --k the command tries up to 20 "
        "clusters and takes the number with the best silhouette, or 1 if no silhouette is good.",
        summary="frames grouped by subject, for a split",
        named="name of the file N_clusters.txt",
    )
    _add_dataset(clusters)
    clusters.add_argument("--k", type=int, metavar="K", help="the number of clusters")

    neighbors = add(
        "neighbors",
        lambda args: commands.neighbors(_target(args), args.dataset, args.bank, args.max_k),
        "Finds the most similar labels of a bank for each label of a dataset: those with the smallest Euclidean "
        "distance over all joints, after the mean of the joints is subtracted. If bank and dataset are the same, the "
        "label itself is excluded.",
        summary="the most similar labels for each label, for distorters",
        named="name of the file N_neighbors.pt",
    )
    _add_dataset(neighbors)
    neighbors.add_argument("--bank", required=True, metavar="B", help="dataset to search for neighbours")
    neighbors.add_argument("--max-k", type=int, required=True, metavar="K", help="neighbours for each label")

    errors = add(
        "errors",
        lambda args: commands.errors(_target(args), args.dataset, args.subset),
        "Writes the errors of a subset, prediction minus label, and their mean and standard deviation for each joint.",
        summary="the errors of a backbone, for distorters",
        named="name of the files N_errors.pt and N_error_stats.json",
    )
    _add_dataset(errors)
    errors.add_argument("--subset", metavar="S", help="the subset; required if the dataset has more than one")


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, metavar="D", help="a dataset in the data folder")


def _add_folds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folds",
        action="store_true",
        help="make the datasets of all folds, N_fold1_train, ...; together they test each frame exactly once. "
        "experiment.add_folds(N) in a run script sweeps over them",
    )


def _add_predictions(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--predictions",
        nargs="+",
        # Without "extend" a second --predictions would silently replace the first.
        action="extend",
        required=required,
        default=None if required else [],
        metavar="NAME=F",
        help="result files; several become subsets with these names, the name of a single one is dropped",
    )


def _target(args: argparse.Namespace) -> Target:
    return Target(args.data_dir, args.name, args.force)


def _selection(args: argparse.Namespace) -> tuple[str, int]:
    return next((which, n) for which in ("every", "random", "first") if (n := getattr(args, which)) is not None)


if __name__ == "__main__":
    sys.exit(main())
