"""The command line of `report.py`: the arguments of each command, its help with examples, and what Tab completes."""

import argparse
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.formats.latex import Fit, Size
from cluster.reports.tables.table_options import TableOptions
from cluster.reports.terminal import overview
from cluster.results.groups import GROUPINGS
from cluster.results.results import Results
from cluster.results.rows import METRICS
from cluster.results.user_modules import add_import_option
from data_pipeline.user_error import UserError
from data_pipeline.words import visible

Command = Callable[[Namespace], int]
AddParser = Callable[..., ArgumentParser]

TABLE_ENDINGS = {
    **{".csv": "csv", ".json": "json", ".parquet": "parquet", ".xlsx": "xlsx"},
    **{".md": "md", ".tex": "latex", ".html": "html"},
}
"""The formats of tables, by the extension of a file."""

FIGURE_ENDINGS = {".pdf": "pdf", ".svg": "svg", ".png": "png"}
"""The formats of figures, by the extension of a file."""

TRACKERS = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}
"""The tools that an experiment can be exported to, by the names of their modules in `cluster.reports.trackers`."""

_CALL = "posetune report"
_A_KEY = "a combination's key or its beginning, as `show` prints it; or 'best', if all combinations share their data"
_A_TRAINED_KEY = f"{_A_KEY}. If it has folds: the key of a fold, as `show --folds` prints it"


class _Parser(ArgumentParser):
    """A parser whose sub-parsers reject unknown arguments themselves, so that the error shows their usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


class _Columns(argparse.Action):
    """Collects names separated by blanks or commas, from all uses of the option."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: Any = None) -> None:
        names = ",".join(values).split(",")
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), *names))


def parser(description: str, commands: Mapping[str, Command]) -> ArgumentParser:
    """Returns the parser of the command line. What it parses has the command's function as `run`.

    Args:
        description: What the script does, and examples.
        commands: The function of each command, by the command's name. Its docstring is the command's help.
    """
    main = _Parser(prog=_CALL, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    main.set_defaults(storage_path="results")
    subparsers = main.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    def add(name: str, *examples: str, json: bool = False) -> ArgumentParser:
        command = _add_parser(subparsers, _CALL, name, commands[name].__doc__ or "", *examples)
        command.set_defaults(run=commands[name])
        if json:
            command.add_argument("--json", action="store_true", help="print JSON, for scripts")
        return command

    _add_reading(add)
    _add_export(add)
    _add_effects(add)
    _add_name(add("methods", "minimal_example", "minimal_example --json", json=True))
    _add_race(add)
    _add_figure(add)
    _add_page(add)
    _add_reproduce(add)
    _add_removing(add)
    return main


def _add_parser(
    subparsers: Any, call: str, name: str, description: str, *examples: str, **options: Any
) -> ArgumentParser:
    added: ArgumentParser = subparsers.add_parser(
        name,
        help=(description[0].lower() + description[1:]).rstrip("."),
        description=description,
        epilog="\n".join(["examples:", *(f"  {call} {name} {example}".rstrip() for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    # A default here would replace what was given before the sub-command.
    added.add_argument(
        "--storage-path", metavar="FOLDER", default=SUPPRESS, help="folder of the experiments (default: results)"
    )
    return added


def _add_kinds(command: ArgumentParser, name: str) -> AddParser:
    """Gives a command sub-commands, one for each kind, and returns the function that adds a kind."""
    kinds = command.add_subparsers(
        title="kinds",
        dest="kind",
        required=True,
        metavar="KIND",
        help=f"`{name} NAME KIND --help` explains the options of a kind",
    )
    # Options that are not given are absent, so that the defaults of `TableOptions` and `FigureOptions` apply.
    return partial(_add_parser, kinds, f"{_CALL} {name} minimal_example", argument_default=SUPPRESS)


def _add_reading(add: AddParser) -> None:
    add("list", "", "--storage-path s3://bucket/results", "--json", json=True)

    show = add(
        "show",
        "minimal_example",
        "minimal_example --by subset",
        "minimal_example --intervals",
        "minimal_example --json",
        "my_folds --folds",
        json=True,
    )
    _add_name(show)
    _add_by(show, "the errors of the best combination for each", default=None)
    _add_folds(show)
    _add_intervals(show)

    compare = add("compare", "first_try second_try", "baseline wider deeper --json", json=True)
    _add_name(compare)
    _add_names(compare, "+", "the experiments to compare with the first one")

    diff = add("diff", "minimal_example 05fe 048d", "minimal_example best 048d", json=True)
    _add_name(diff)
    _add_key(diff, "first", _A_KEY)
    _add_key(diff, "second", "the key of the other combination, or its beginning")

    log = add("log", "minimal_example best", "minimal_example 048d/2 --json", json=True)
    _add_name(log)
    _add_key(log, "key", f"{_A_KEY}; KEY/N selects repetition N. A fold has its own key, see `show --folds`")

    curves = add("curves", "minimal_example", "minimal_example best 048d")
    _add_name(curves)
    _add_key(curves, "keys", f"{_A_KEY} (default: the best six, or the best on each data set)", nargs="*")


def _add_export(add: AddParser) -> None:
    export = add(
        "export",
        "minimal_example table --out table.tex",
        "minimal_example pivot --rows lr --columns augmenters --out pivot.md",
        "minimal_example tensorboard --out runs/minimal_example",
    )
    _add_name(export)
    add_kind = _add_kinds(export, "export")

    table = add_kind(
        "table",
        "A row for each combination, or with --by for each group of the best.",
        "--out table.tex",
        "--format csv --columns lr,n,before,after --sort=-after",
        "--best-for-each augmenters --format latex --standalone",
        "--fit column --size scriptsize --out table.tex",
        "--by subject --intervals --format md",
        "--by joint --best 3 --out joints.csv",
    )
    _add_by(table, "a row for the best combination, or those of --best or --best-for-each, in each")
    _add_columns(
        table,
        "options, n, failed, diverged, key, before, after, change, change_percent, and metrics as in tables/trials.csv",
    )
    _add_folds(table)
    _add_intervals(table)
    chosen = table.add_mutually_exclusive_group()
    chosen.add_argument("--best", metavar="N", type=int, help="only the N combinations that are best in validation")
    chosen.add_argument("--best-for-each", metavar="OPTION", help="only the best combination for each value of OPTION")

    trials = add_kind("trials", "A row for each trial.", "--out trials.csv", "--format md --sort after")
    trials.set_defaults(trials=True)
    _add_columns(trials, "options, key, before, after, and the other columns of tables/trials.csv")

    pivot = add_kind("pivot", "A pivot table of two options.", "--rows lr --columns augmenters --out pivot.md")
    pivot.add_argument("--rows", metavar="OPTION", required=True, help="the option of the rows")
    pivot.add_argument(
        "--columns", dest="columns_of", metavar="OPTION", required=True, help="the option of the columns"
    )

    effects = add_kind(
        "effects", "The mean of each value of each option.", "--out effects.tex", "--interactions --format md"
    )
    effects.add_argument("--interactions", action="store_true", help="a row for each pair of options instead")

    for kind in (table, trials, pivot, effects):
        _add_metric(kind)
    for kind in (table, trials, pivot, effects):
        _add_split_and_precision(kind)
        kind.add_argument(
            "--format", choices=sorted(TABLE_ENDINGS.values()), default=None, help="(default: by the extension of FILE)"
        )
        kind.add_argument("--out", metavar="FILE", type=Path, default=None, help="(default: print the table)")
        kind.add_argument("--standalone", action="store_true", help="write a complete LaTeX document")
        kind.add_argument(
            "--fit",
            choices=get_args(Fit),
            help="for LaTeX: a page, one column of a two-column page, or both columns, as table* (default: page)",
        )
        kind.add_argument(
            "--size", choices=get_args(Size), help="for LaTeX: the font (default: normalsize or footnotesize)"
        )
        _add_force(kind)

    for name, title in TRACKERS.items():
        tracker = add_kind(name, f"A folder with all trials as runs of {title}.", "--out runs/minimal_example")
        tracker.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="the folder to write")


def _add_folds(table: ArgumentParser) -> None:
    table.add_argument(
        "--folds", action="store_true", help="a row for each fold instead of one for the frames of all folds"
    )


def _add_intervals(table: ArgumentParser) -> None:
    table.add_argument(
        "--intervals",
        action="store_true",
        help="95 %% intervals of the changes over frames, from a block bootstrap within recordings",
    )


def _add_by(command: ArgumentParser, text: str, **options: Any) -> None:
    groups = "subset (backbone), subject (person), sequence (recording), finger or joint"
    command.add_argument("--by", choices=GROUPINGS, help=f"{text} {groups}", **options)


def _add_force(command: ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", default=False, help="overwrite an existing file")


def _add_columns(table: ArgumentParser, names: str) -> None:
    table.add_argument(
        "--columns", metavar="NAME", nargs="+", action=_Columns, help=f"the columns in their order; they can be {names}"
    )
    table.add_argument("--sort", metavar="NAME", help="the column to sort by; --sort=-NAME sorts from high to low")


def _add_effects(add: AddParser) -> None:
    effects = add("effects", "minimal_example", "minimal_example --metric auc_0_50 --json", json=True)
    _add_name(effects)
    _add_metric(effects)
    _add_split_and_precision(effects)


def _add_race(add: AddParser) -> None:
    race = add("race", "minimal_example", "minimal_example --reduction-factor 2 3 --min-epochs 1 --json", json=True)
    _add_name(race)
    several: dict[str, Any] = {"metavar": "N", "type": int, "nargs": "+"}
    race.add_argument(
        "--reduction-factor",
        default=[2, 3, 4],
        help="at each rung, one combination in N stays (default: 2 3 4)",
        **several,
    )
    race.add_argument(
        "--min-epochs",
        default=[3, 10],
        help="the minimum number of epochs before the first rung (default: 3 10)",
        **several,
    )
    race.add_argument(
        "--first-repetitions", metavar="N", type=int, help="repetitions up to the first rung (default: all)"
    )
    race.add_argument(
        "--min-finalists",
        metavar="N",
        type=int,
        default=SuccessiveHalving.min_finalists,
        help="at least this many combinations train to the end (default: %(default)s)",
    )
    race.add_argument(
        "--max-cost",
        metavar="SHARE",
        type=float,
        default=SuccessiveHalving.max_cost,
        help="combinations close to the best stay up to this share of the grid's epochs (default: %(default)s)",
    )


def _add_metric(command: ArgumentParser) -> None:
    command.add_argument(
        "--metric", metavar="METRIC", default=TableOptions.metric, help=f"{', '.join(METRICS)} (default: %(default)s)"
    )


def _add_split_and_precision(command: ArgumentParser) -> None:
    command.add_argument("--split", choices=("val", "test"), default=None, help="(default: test, if there is one)")
    command.add_argument(
        "--precision", metavar="N", type=int, default=TableOptions.precision, help="decimals (default: %(default)s)"
    )


def _add_figure(add: AddParser) -> None:
    figure = add(
        "figure",
        "minimal_example curves --out curves.pdf",
        "minimal_example heatmap --rows lr --columns augmenters --out heatmap.png",
    )
    _add_name(figure)
    add_kind = _add_kinds(figure, "figure")

    def add_figure(name: str, description: str, *examples: str, of: str = " (default: the best)") -> ArgumentParser:
        kind = add_kind(name, description, *(f"{example} --out {name}.pdf".lstrip() for example in examples or [""]))
        kind.add_argument("--out", metavar="FILE", type=Path, required=True, help="a .pdf, .svg or .png file")
        _add_force(kind)
        kind.add_argument("--width", dest="width_in", metavar="INCHES", type=float, help="(default: 3.5, one column)")
        _add_key(kind, "--combination", f"a combination's key{of}", dest="combinations", action="append")
        return kind

    add_figure("curves", "Learning curves.", "", of="; may be repeated (default: the best four)")
    success = add_figure(
        "success",
        "Success rates from 0 to 80 mm, with the area under them.",
        "",
        "--other Published=errors.npy",
        "--other Theirs=theirs.txt --labels labels.txt",
        of="; may be repeated (default: the best)",
    )
    success.add_argument(
        "--measure",
        choices=("worst", "mean", "joint"),
        help="count frames by their worst joint or by their mean, or count single joints (default: worst)",
    )
    success.add_argument(
        "--other",
        dest="others",
        metavar="LABEL=FILE",
        type=_labelled_file,
        action="append",
        help="another method's errors on the same set, one number per frame, mm, .npy or text; up to ten",
    )
    success.add_argument(
        "--labels", metavar="FILE", type=Path, help="the true poses; the files of --other then contain predicted poses"
    )
    success.add_argument(
        "--format", metavar="F", help="the format of these poses, as in posetune predict (default: detected)"
    )
    add_figure("joints", "Errors per joint and finger.", "--combination 05fe")
    on_its_data = "; shows all combinations on the same data (default: all)"
    option = add_figure(
        "option",
        "The error against the numbers of an option, such as the size of the training set.",
        "--option lr --lines augmenters",
        of=on_its_data,
    )
    option.add_argument("--option", metavar="OPTION", help="the option of the axis (default: the first with numbers)")
    option.add_argument("--lines", metavar="OPTION", help="the option with a line for each value (default: one line)")
    heatmap = add_figure("heatmap", "A heat map of two options.", "--rows lr --columns augmenters", of=on_its_data)
    heatmap.add_argument("--rows", metavar="OPTION", help="the option of the rows")
    heatmap.add_argument("--columns", metavar="OPTION", help="the option of the columns")
    add_figure("parallel", "All options and the result.", of=on_its_data)
    add_figure("histogram", "The errors of frames.")
    add_figure("improvement", "How much frames improve, by their error before the correction.")
    add_figure("distance", "How much frames improve, by their distance from the nearest training frame.")
    time = add_figure(
        "time", "The errors before and after along the frames of sequences.", "", "--sequence test-0 --sequence test-3"
    )
    time.add_argument(
        "--sequence",
        dest="sequences",
        metavar="NAME",
        action="append",
        help="a sequence, as `show --by sequence` names it; may be repeated (default: the first six)",
    )
    hands = add_figure(
        "hands", "Examples in 3D: uncorrected, corrected at several log points, true.", "--examples 2 --log-points 9"
    )
    hands.add_argument("--examples", dest="n_examples", metavar="N", type=int, help="at most N (default: 3)")
    hands.add_argument(
        "--log-points",
        dest="n_log_points",
        metavar="N",
        type=int,
        help="at most N, from the first to the last (default: 3); a large number shows all",
    )


def _add_page(add: AddParser) -> None:
    html = add("html", "minimal_example", "minimal_example --out report.html")
    _add_name(html)
    html.add_argument("--out", metavar="FILE", type=Path, help="(default: report.html in the experiment's folder)")
    _add_force(html)

    watch = add("watch", "minimal_example", "minimal_example --port 8000")
    _add_name(watch)
    watch.add_argument("--port", metavar="N", type=int, default=0, help="the port (default: any free port)")


def _add_reproduce(add: AddParser) -> None:
    reproduce = add("reproduce", "minimal_example best 0", "my_sweep 05fe 2 --import my_models", json=True)
    _add_name(reproduce)
    _add_key(reproduce, "key", _A_TRAINED_KEY)
    reproduce.add_argument("repetition", metavar="REP", help="the repetition, from 0")
    reproduce.add_argument("--data-dir", metavar="FOLDER", help="folder of the datasets (default: the experiment's)")
    reproduce.add_argument(
        "--device", metavar="D", help="cpu, cuda:1, … (default: a device of the kind it was trained on)"
    )
    add_import_option(reproduce)


def _add_removing(add: AddParser) -> None:
    rm = add("rm", "first_try", "first_try second_try --yes", json=True)
    _add_names(rm, "+", "the experiments")
    clean = add("clean", "", "minimal_example --yes", json=True)
    _add_names(clean, "*", "the experiments (default: all)")
    for command in (rm, clean):
        command.add_argument("--yes", action="store_true", help="remove the files")


def _add_name(command: ArgumentParser) -> None:
    _complete(command.add_argument("name", metavar="NAME", help="the experiment's name"), _experiments)


def _add_names(command: ArgumentParser, nargs: str, text: str) -> None:
    _complete(command.add_argument("names", metavar="NAME", nargs=nargs, help=text), _experiments)


def _add_key(command: ArgumentParser, argument: str, text: str, **options: Any) -> None:
    _complete(command.add_argument(argument, metavar="KEY", help=text, **options), _combinations)


def _complete(argument: argparse.Action, completer: Callable[..., list[str]]) -> None:
    def visible_ones(**how: Any) -> list[str]:
        return [text for text in completer(**how) if visible(text) == text]

    argument.completer = visible_ones  # type: ignore[attr-defined]


def _labelled_file(text: str) -> tuple[str, Path]:
    label, equals, path = text.partition("=")
    if not (label and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL=FILE")
    return label, Path(path)


def _experiments(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
    """Completes the name of an experiment."""
    try:
        return [name for name in overview.experiment_names(parsed_args.storage_path) if name.startswith(prefix)]
    except UserError:
        return []


def _combinations(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
    """Completes the key of a combination."""
    try:
        table = Results.read(overview.find_experiment(parsed_args.storage_path, parsed_args.name))
    except UserError:
        return []
    rows = (*table.summary, *(table.single_folds.summary if table.folds else ()))
    return [key for key in ("best", *(row["key"] for row in rows)) if key.startswith(prefix)]
