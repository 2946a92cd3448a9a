"""Makes datasets for training correctors, divides and examines them, and makes the tables that distorters read.

A dataset N is what `train_set`, `val_set` and `test_set` of a run script name. What a command writes is there as a
whole at its end; what was there before stays until then, and for good if the command is interrupted or fails.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from data_pipeline.files.sigterm import ended_by_sigterm
from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS
from data_pipeline.preparation import commands
from data_pipeline.preparation.commands import Outcome
from data_pipeline.preparation.splits import PARTS, SPELLINGS
from data_pipeline.preparation.targets import Target
from data_pipeline.user_error import UserError, exit_status

_SPLITS = f"""splits:
{textwrap.indent(SPELLINGS, "  ")}

There is no random split of frames: neighbouring frames are nearly alike, and a corrector would be tested on what it has
seen.

"""

_EXAMPLES = {
    "synthetic": """\
  a small synthetic dataset with two imagined backbones
    python tune_runs/prepare_data.py synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B
""",
    "leaderboard": """\
  two published results for NYU as two subsets of one dataset; add --separate for a dataset of each
    python tune_runs/prepare_data.py leaderboard --dataset nyu --name nyu \\
        --ground-truth nyu_test_groundtruth_label.txt \\
        --predictions Pose-REN=NEUCOM18_NYU_Pose_REN.txt DeepPrior=CVWW15_NYU_Prior.txt

The leaderboard's files: https://github.com/xinghaochen/awesome-hand-pose-estimation, folder evaluation.
""",
    "import": """\
  annotations and the results of two backbones; frames are matched by their names
    python tune_runs/prepare_data.py import --format hands17 --name hands --split last:20 \\
        --labels Training_Annotation.txt --predictions A=result_A.txt B=result_B.txt
""",
    "split": """\
  the last 10 percent test, the 20 percent before them validate
    python tune_runs/prepare_data.py split --dataset demo_train --split last:20:10 --name demo_part
""",
    "clusters": """\
  the subjects of a dataset; then `split --split clusters:data/demo_train_clusters.txt:0:1` keeps each in one part
    python tune_runs/prepare_data.py clusters --dataset demo_train --name demo_train
""",
    "neighbors": """\
  for each training label the 20 most similar ones of the same set
    python tune_runs/prepare_data.py neighbors --dataset demo_train --bank demo_train --max-k 20 --name demo_train
""",
    "errors": """\
  the errors of one backbone
    python tune_runs/prepare_data.py errors --dataset demo_train --subset A --name demo_A
""",
    "subset": """\
  every tenth sample
    python tune_runs/prepare_data.py subset --dataset demo_train --every 10 --name demo_small
""",
    "check": """\
  a look at a dataset before anything is trained on it
    python tune_runs/prepare_data.py check --dataset demo_train
""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`, by default the process's own, and returns the exit status."""
    args = _parser().parse_args(arguments)
    with ended_by_sigterm():
        return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    try:
        outcome: Outcome = args.run(args)
    except MemoryError as error:
        raise UserError("the datasets do not fit into memory; make fewer frames at a time") from error
    _print(outcome, as_json=args.json)
    return outcome.status


def _print(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.facts, indent=2, allow_nan=False), flush=True)
    elif outcome.text:
        print(outcome.text, flush=True)
    for note in outcome.notes:
        print(note, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)
    parser = argparse.ArgumentParser(
        prog="prepare_data.py",
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
    run: Callable[[argparse.Namespace], Outcome],
    description: str,
    *,
    summary: str,
    named: str | None = None,
    below: str = "",
) -> argparse.ArgumentParser:
    """Adds a command; `named` tells what its --name names, None where it writes nothing."""
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
        parser.add_argument("--force", action="store_true", help="overwrite what exists")
    folder = "folder of the datasets (default: data)"
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help=folder)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, and nothing else, to stdout")
    return parser


def _add_makers(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands that make datasets of something else."""
    parts = "datasets become N_train, N_val and N_test"
    divided = "how frames are divided, see below (default: %(default)s)"

    synthetic = add(
        "synthetic",
        lambda args: commands.synthetic(
            _target(args),
            {part: getattr(args, part) for part in PARTS if getattr(args, part) is not None},
            [] if args.subsets is None else args.subsets.split(","),
            args.seed,
        ),
        "Makes moving hands with the 21 joints of HANDS17, and what imagined backbones see of them.",
        summary="moving hands, and predictions of imagined backbones",
        named=parts,
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

    leaderboard = add(
        "leaderboard",
        lambda args: commands.leaderboard(
            _target(args), args.dataset, args.ground_truth, args.predictions, args.split, separate=args.separate
        ),
        "Reads text files of the leaderboard, in pixels and mm, into mm in the camera frame.",
        summary="ground truth and published results of NYU or ICVL",
        named=parts,
        below=_SPLITS,
    )
    leaderboard.add_argument(
        "--dataset",
        required=True,
        choices=sorted(LEADERBOARD_DATASETS),
        help="tells the number of joints and the camera",
    )
    leaderboard.add_argument("--ground-truth", type=Path, required=True, metavar="F", help="file of the true joints")
    _add_predictions(leaderboard, required=True)
    leaderboard.add_argument("--split", default="blocks:100:5", metavar="S", help=divided)
    leaderboard.add_argument(
        "--separate", action="store_true", help="give each prediction datasets of its own, N_NAME_train, ..."
    )

    formats = "\n".join(f"  {name:<20} {known.description}" for name, known in FORMATS.items())
    importer = add(
        "import",
        lambda args: commands.import_(
            _target(args), args.format, args.labels_format, args.labels, args.predictions, args.split
        ),
        "Reads files of a known format, in whatever unit and order of joints, into mm in the camera frame. Where all "
        "files have names for their frames, frames are matched by them, in any order, and the names are kept in "
        "N_names.txt; else by their number. Without predictions the dataset has labels alone, for training with "
        "use_preset=False.",
        summary="files of other formats, labels alone or with predictions",
        named=f"{parts}; or, without --split, a dataset N",
        below=f"formats:\n{formats}\n\n{_SPLITS}",
    )
    importer.add_argument(
        "--format",
        choices=FORMATS,
        metavar="F",
        help="see below, of all files but those with an ending of other formats (default: what a file looks like)",
    )
    importer.add_argument(
        "--labels-format", choices=FORMATS, metavar="F", help="that of the labels, where it is another"
    )
    importer.add_argument("--labels", type=Path, required=True, metavar="FILE", help="file of the true joints")
    _add_predictions(importer, required=False)
    importer.add_argument("--split", default="none", metavar="S", help=divided)


def _add_dividers(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands that look at a dataset and take parts of it."""
    split = add(
        "split",
        lambda args: commands.split(_target(args), args.dataset, args.split),
        "Divides a dataset, with all its subsets and names.",
        summary="a dataset into training, validation and test",
        named="datasets become N_train, N_val and N_test",
        below=_SPLITS,
    )
    _add_dataset(split)
    split.add_argument("--split", required=True, metavar="S", help="how frames are divided, see below")

    subset = add(
        "subset",
        lambda args: commands.subset(_target(args), args.dataset, *_selection(args), args.seed),
        "Makes a smaller dataset, with all subsets and names, in the order of the original.",
        summary="some samples of a dataset",
        named="the smaller dataset",
    )
    _add_dataset(subset)
    which = subset.add_mutually_exclusive_group(required=True)
    which.add_argument("--every", type=int, metavar="n", help="the first sample and every n-th after it")
    which.add_argument("--random", type=int, metavar="n", help="n samples, drawn without replacement")
    which.add_argument("--first", type=int, metavar="n", help="the first n samples")
    subset.add_argument("--seed", type=int, default=0, metavar="s", help="of --random (default: 0)")

    check = add(
        "check",
        lambda args: commands.check(args.data_dir, args.dataset),
        "Tells what is in a dataset and what in it looks wrong: units, axes, the order of joints, frames that are no "
        "hands, frames that come twice, predictions that are labels. Ends with 0 for a good dataset, 1 where something "
        "looks wrong, 2 for a broken one.",
        summary="what is in a dataset, and what looks wrong",
    )
    _add_dataset(check)


def _add_tables(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands that make something else of a dataset."""
    clusters = add(
        "clusters",
        lambda args: commands.clusters(_target(args), args.dataset, args.k),
        "Groups the frames of a dataset by the bone lengths of their labels, which tell one subject from another, and "
        "writes the cluster of each frame to N_clusters.txt, which --split takes. Without --k the number of clusters, "
        "at most 20, is that with the best silhouette, or 1 where none is good.",
        summary="frames into subjects, for a split",
        named="the file becomes N_clusters.txt",
    )
    _add_dataset(clusters)
    clusters.add_argument("--k", type=int, metavar="K", help="the number of clusters")

    neighbors = add(
        "neighbors",
        lambda args: commands.neighbors(_target(args), args.dataset, args.bank, args.max_k),
        "Finds for each label of a dataset the most similar labels of another, or of itself without the label's own: "
        "those with the smallest Euclidean distance over all joints, after each is shifted by the mean of its joints.",
        summary="the most similar labels of each label, for distorters",
        named="the file becomes N_neighbors.pt",
    )
    _add_dataset(neighbors)
    neighbors.add_argument("--bank", required=True, metavar="B", help="the dataset that they are looked for in")
    neighbors.add_argument("--max-k", type=int, required=True, metavar="K", help="how many for each label")

    errors = add(
        "errors",
        lambda args: commands.errors(_target(args), args.dataset, args.subset),
        "Writes the errors of a subset, prediction minus label, and their mean and spread for each joint.",
        summary="the errors of a backbone, for distorters",
        named="the files become N_errors.pt and N_error_stats.json",
    )
    _add_dataset(errors)
    errors.add_argument("--subset", metavar="S", help="whose errors; needed where the dataset has several subsets")


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, metavar="D", help="a dataset below the data folder")


def _add_predictions(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--predictions",
        nargs="+",
        # Without this a second --predictions would silently replace the first.
        action="extend",
        required=required,
        default=None if required else [],
        metavar="NAME=F",
        help="result files; several become subsets with these names, a single one is stored without its name",
    )


def _target(args: argparse.Namespace) -> Target:
    return Target(args.data_dir, args.name, args.force)


def _selection(args: argparse.Namespace) -> tuple[str, int]:
    return next((which, n) for which in ("every", "random", "first") if (n := getattr(args, which)) is not None)


if __name__ == "__main__":
    sys.exit(main())
