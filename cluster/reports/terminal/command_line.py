"""The command line of `report.py`: its commands' arguments, their help with examples, and what Tab completes."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.reports.tables.table_options import TableOptions
from cluster.reports.terminal import overview
from cluster.results.results import METRICS, Results
from data_pipeline.user_error import UserError

Given = argparse.Namespace
Command = Callable[[Given], int]
Add = Callable[..., argparse.ArgumentParser]

TABLE_ENDINGS = {
    **{".csv": "csv", ".json": "json", ".parquet": "parquet", ".xlsx": "xlsx"},
    **{".md": "md", ".tex": "latex", ".html": "html"},
}
"""The formats of tables, by how a file ends."""

FIGURE_ENDINGS = {".pdf": "pdf", ".svg": "svg", ".png": "png"}
"""The formats of figures, by how a file ends."""

_FIGURES = {
    "curves": "learning curves",
    "success": "success rates from 0 to 80 mm, with the area under them",
    "joints": "errors per joint and finger",
    "heatmap": "two options against each other",
    "parallel": "all options and the result",
    "histogram": "the errors of frames",
    "improvement": "what a frame gains, by how wrong it was",
    "hands": "examples in 3D: uncorrected, corrected at several log points, and true",
}

_CALL = "python tune_runs/report.py"
_A_KEY = "the beginning of a combination's key, which `show` prints, or 'best' where all were measured on the same data"


def parser(description: str, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Returns the command line.

    Args:
        description: What the script does, and examples.
        commands: What each command does, by its name; `run` of what is parsed. Their docstrings are their help.
    """
    main = argparse.ArgumentParser(
        prog="report.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    added = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--storage-path", metavar="FOLDER", default="results", help="with the experiments (default: %(default)s)"
    )

    def add(name: str, *examples: str, json: bool = False) -> argparse.ArgumentParser:
        text = (commands[name].__doc__ or "").strip()
        command = added.add_parser(
            name,
            parents=[common],
            help=text[0].lower() + text[1:].rstrip("."),
            description=text,
            epilog="\n".join(["examples:", *(f"  {_CALL} {name} {example}".rstrip() for example in examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=commands[name])
        if json:
            command.add_argument("--json", action="store_true", help="write JSON, for a script")
        return command

    _add_reading(add)
    _add_export(add)
    _add_effects(add)
    _add_figure(add)
    _add_page(add)
    _add_reproduce(add)
    _add_removing(add)
    return main


def _add_reading(add: Add) -> None:
    add("list", "", "--storage-path s3://bucket/results", "--json", json=True)

    _name(add("show", "minimal_example", "minimal_example --json", json=True))

    compare = add("compare", "first_try second_try", "baseline wider deeper --json", json=True)
    _names(compare, "+", "the experiments; all others are compared with the first")

    diff = add("diff", "minimal_example 05fe 048d", "minimal_example best 048d", json=True)
    _name(diff)
    _key(diff, "first", _A_KEY)
    _key(diff, "second", "the same of the other one")

    log = add("log", "minimal_example best", "minimal_example 048d/2 --json", json=True)
    _name(log)
    _key(log, "key", f"{_A_KEY}; with /N behind it, the repetition N alone")

    curves = add("curves", "minimal_example", "minimal_example best 048d")
    _name(curves)
    _key(curves, "keys", f"{_A_KEY}; without any, the best six, or the best on each data", nargs="*")


def _add_export(add: Add) -> None:
    export = add(
        "export",
        "minimal_example --out table.tex",
        "minimal_example --format csv --columns lr,n,before,after --sort=-after",
        "minimal_example --rows lr --columns augmenters --out pivot.md",
        "nyu_backbones --best-for-each train_set --format latex --standalone",
        "minimal_example --by-joint --format md",
        "minimal_example --to tensorboard --out runs/minimal_example",
    )
    _name(export)
    form = export.add_mutually_exclusive_group()
    form.add_argument("--format", choices=sorted(TABLE_ENDINGS.values()), help="by default, as FILE ends")
    form.add_argument(
        "--to", choices=("tensorboard", "mlflow", "wandb"), help="write a folder for another tool instead of a table"
    )
    export.add_argument("--out", metavar="FILE", type=Path, help="where to (default: text is printed)")
    export.add_argument(
        "--columns",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="the columns in their order: options, n, failed, diverged, key, before, after, change, change_percent, "
        "and the columns of tables/trials.csv; with --rows, the option that goes across a pivot table",
    )
    export.add_argument("--rows", metavar="OPTION", help="make a pivot table with this option going down")
    export.add_argument("--sort", metavar="NAME", help="the column to sort by; --sort=-NAME from high to low")
    chosen = export.add_mutually_exclusive_group()
    chosen.add_argument("--best", metavar="N", type=int, help="only the N combinations that are best in validation")
    chosen.add_argument("--best-for-each", metavar="OPTION", help="only the best one for each value of an option")
    chosen.add_argument("--trials", action="store_true", help="a row for each trial")
    chosen.add_argument("--by-joint", action="store_true", help="the best combination's errors per joint and finger")
    export.add_argument(
        "--precision", metavar="N", type=int, default=TableOptions.precision, help="decimals (default: %(default)s)"
    )
    export.add_argument(
        "--metric",
        metavar="METRIC",
        default=TableOptions.metric,
        help=f"what before, after and change are of: {', '.join(METRICS)} (default: %(default)s)",
    )
    export.add_argument("--split", choices=("val", "test"), help="by default the test set, where there is one")
    export.add_argument("--standalone", action="store_true", help="LaTeX as a document of its own, to look at")


def _add_effects(add: Add) -> None:
    effects = add(
        "effects",
        "minimal_example",
        "minimal_example --metric auc_0_50 --json",
        "minimal_example --format latex --out effects.tex",
        "minimal_example --interactions --out interactions.csv",
        json=True,
    )
    _name(effects)
    effects.add_argument(
        "--metric", metavar="METRIC", default=TableOptions.metric, help=f"{', '.join(METRICS)} (default: %(default)s)"
    )
    effects.add_argument("--split", choices=("val", "test"), help="by default the test set, where there is one")
    effects.add_argument(
        "--precision", metavar="N", type=int, default=TableOptions.precision, help="decimals (default: %(default)s)"
    )
    effects.add_argument(
        "--format", choices=sorted(TABLE_ENDINGS.values()), help="write a table of the means; by default, as FILE ends"
    )
    effects.add_argument("--out", metavar="FILE", type=Path, help="where to write that table (default: it is printed)")
    effects.add_argument("--interactions", action="store_true", help="a table of all pairs of options instead")


def _add_figure(add: Add) -> None:
    figure = add(
        "figure",
        "minimal_example curves --out curves.pdf",
        "minimal_example success --other Published=errors.npy --out success.pdf",
        "nyu_backbones success --other Theirs=theirs.txt --labels labels.txt --out success.pdf",
        "minimal_example joints --combination 05fe --out joints.svg",
        "minimal_example heatmap --rows lr --columns augmenters --out heatmap.png",
        "minimal_example hands --examples 2 --log-points 100 --out hands.pdf",
    )
    _name(figure)
    figure.add_argument(
        "figure", metavar="FIGURE", choices=_FIGURES, help="; ".join(f"{k}: {v}" for k, v in _FIGURES.items())
    )
    figure.add_argument("--out", metavar="FILE", type=Path, required=True, help="where to: .pdf, .svg or .png")
    figure.add_argument("--width", metavar="INCHES", type=float, default=3.5, help="(default: %(default)s, a column)")
    figure.add_argument("--rows", metavar="OPTION", help="of a heat map: the option that goes down")
    figure.add_argument("--columns", metavar="OPTION", help="of a heat map: the option that goes across")
    figure.add_argument(
        "--measure",
        choices=("worst", "mean", "joint"),
        help="of success rates: by a frame's worst joint, its mean, or by single joints (default: worst)",
    )
    figure.add_argument(
        "--other",
        metavar="LABEL=FILE",
        type=_labelled_file,
        action="append",
        default=[],
        help="of success rates: another method's errors on the same set, a number a frame, mm, .npy or text; up to ten",
    )
    figure.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="the true poses: each --other is then a file of predicted poses, in the formats of predict.py",
    )
    figure.add_argument("--format", metavar="F", help="the format of these files, where they do not tell it")
    figure.add_argument("--examples", metavar="N", type=int, help="of hands: at most so many (default: 3)")
    figure.add_argument(
        "--log-points",
        metavar="N",
        type=int,
        help="of hands: at most so many, from the first to the last (default: 3); a large number for all",
    )
    _key(
        figure,
        "--combination",
        "the beginning of a combination's key; several for learning curves (default: the best)",
        action="append",
        default=[],
    )


def _add_page(add: Add) -> None:
    html = add("html", "minimal_example", "minimal_example --out report.html")
    _name(html)
    html.add_argument("--out", metavar="FILE", type=Path, help="(default: report.html in the experiment's folder)")

    watch = add("watch", "minimal_example", "minimal_example --port 8000")
    _name(watch)
    watch.add_argument("--port", metavar="N", type=int, default=0, help="the port (default: one that is free)")


def _add_reproduce(add: Add) -> None:
    reproduce = add("reproduce", "minimal_example best 0", "my_sweep 05fe 2 --import my_models", json=True)
    _name(reproduce)
    _key(reproduce, "key", _A_KEY)
    reproduce.add_argument("repetition", metavar="REP", help="the repetition, from 0")
    reproduce.add_argument("--data-dir", metavar="FOLDER", help="with the datasets (default: the experiment's)")
    reproduce.add_argument("--device", metavar="D", help="cpu, cuda:1, … (default: one of the kind it was trained on)")
    reproduce.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module with classes of your own that the experiment used; may be given several times",
    )


def _add_removing(add: Add) -> None:
    rm = add("rm", "first_try", "first_try second_try --yes", json=True)
    _names(rm, "+", "the experiments")
    clean = add("clean", "", "minimal_example --yes", json=True)
    _names(clean, "*", "the experiments (default: all)")
    for command in (rm, clean):
        command.add_argument("--yes", action="store_true", help="remove it")


def _name(command: argparse.ArgumentParser) -> None:
    _completed(command.add_argument("name", metavar="NAME", help="the experiment's name"), _experiments)


def _names(command: argparse.ArgumentParser, n: str, what: str) -> None:
    _completed(command.add_argument("names", metavar="NAME", nargs=n, help=what), _experiments)


def _key(command: argparse.ArgumentParser, of: str, what: str, **how: Any) -> None:
    _completed(command.add_argument(of, metavar="KEY", help=what, **how), _combinations)


def _completed(argument: argparse.Action, by: Callable[..., list[str]]) -> None:
    argument.completer = by  # type: ignore[attr-defined]


def _labelled_file(text: str) -> tuple[str, Path]:
    label, equals, path = text.partition("=")
    if not (label and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL=FILE")
    return label, Path(path)


def _experiments(prefix: str, parsed_args: Given, **_: object) -> list[str]:
    """Completes the name of an experiment."""
    try:
        return [name for name in overview.experiment_names(parsed_args.storage_path) if name.startswith(prefix)]
    except UserError:
        return []


def _combinations(prefix: str, parsed_args: Given, **_: object) -> list[str]:
    """Completes the key of a combination."""
    try:
        table = Results.read(overview.find_experiment(parsed_args.storage_path, parsed_args.name))
    except UserError:
        return []
    return [key for key in ("best", *(row["key"] for row in table.summary)) if key.startswith(prefix)]
