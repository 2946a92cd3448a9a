#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""Shows, compares, draws, exports and removes experiments. It reads what is on disk.

It needs neither torch nor Ray, except for `reproduce` and `figure NAME success --labels`.

Examples:
    posetune report list
    posetune report show minimal_example
    posetune report show minimal_example --by subset
    posetune report html minimal_example
    posetune report export nyu_backbones table --best-for-each train_set --out table.tex
    posetune report effects minimal_example
    posetune report figure minimal_example curves --out curves.pdf
    posetune report compare first_try second_try
    posetune report COMMAND --help

For tab completion in bash, run eval "$(register-python-argcomplete posetune)".
"""

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import argcomplete

from cluster.reports.formats.json_text import json_text
from cluster.reports.terminal import overview
from cluster.reports.terminal.command_line import FIGURE_ENDINGS, TABLE_ENDINGS, TRACKERS, parser
from cluster.results.results import Results
from cluster.results.user_modules import own_module
from cluster.storage.filesystem import Storage
from data_pipeline.files.atomic import require_free
from data_pipeline.files.regular import absolute_path
from data_pipeline.user_error import UserError, exit_status
from data_pipeline.words import count, say

if TYPE_CHECKING:
    from cluster.reports.terminal.removal import Removal

_MAX_WARNINGS = 5

# Each command imports what only it needs, so that the others start in less than a second.


def list_(args: argparse.Namespace) -> int:
    """Lists all experiments with their state, best combination, size and start time."""
    found = overview.statuses(args.storage_path)
    for one in found:
        if one.n_ignored:
            say(f"warning: {one.name}: {count(one.n_ignored, 'value')} ignored as invalid, see `show`", sys.stderr)
    if args.json:
        return _print_json(overview.statuses_json(found))
    return _print(overview.statuses_text(found) if found else f"{args.storage_path} has no experiments")


def show(args: argparse.Namespace) -> int:
    """Shows the results of an experiment: all combinations, or with --by the best one by group."""
    from cluster.reports.formats.terminal import terminal_width
    from cluster.reports.tables.summary import summary_records, summary_text
    from cluster.results.change_intervals import change_intervals

    table = _each_fold(args) if args.folds else _results(args, args.name)
    folder = table.files
    if args.by is not None:
        return _show_groups(args, table)
    running = overview.is_running(folder)
    intervals = None
    if args.intervals:
        intervals = {row["key"]: change_intervals(table, row, table.split) for row in table.summary}
    if args.json:
        return _print_json(
            {
                "name": table.name,
                "state": overview.state(table),
                "running": running,
                "folder": folder.storage.location,
                "options": table.option_paths,
                "splits": table.splits,
                "combinations": summary_records(table, intervals),
                "not_proposed": table.n_not_proposed,
                "trials": table.single_folds.trials,
                "trials_of_other_settings": table.n_others,
            }
        )
    now = " (running now)" if running else ""
    return _print(
        f"{summary_text(table, with_keys=True, intervals=intervals, width=terminal_width())}\n"
        "`log`, `diff`, `curves`, `reproduce` and `figure --combination` take a key.\n"
        f"State: {overview.state(table)}{now}\nAll files: {folder.storage.location}/"
    )


def _results(args: argparse.Namespace, name: str) -> Results:
    """Returns the results of an experiment, and warns of what in its files is not valid."""
    results = Results.read(overview.find_experiment(args.storage_path, name))
    for warning in results.warnings[:_MAX_WARNINGS]:
        say(f"warning: {warning}", sys.stderr)
    n_more = len(results.warnings) - _MAX_WARNINGS
    if n_more > 0:
        say(f"warning: and {n_more} more", sys.stderr)
    return results


def _each_fold(args: argparse.Namespace) -> Results:
    """Returns the results with a row for each fold."""
    results = _results(args, args.name)
    if not results.folds:
        raise UserError(f"{results.name} was not trained on folds; leave out --folds")
    return results.single_folds


def _show_groups(args: argparse.Namespace, table: Results) -> int:
    from cluster.reports.formats.terminal import terminal
    from cluster.reports.tables.by_group import GroupTable
    from cluster.reports.tables.table_options import TableOptions

    groups = GroupTable(table.files, table, args.by, TableOptions(intervals=args.intervals))
    if args.json:
        return _print_json({"name": table.name, "groups": groups.records()})
    return _print(terminal(groups.grid()))


def compare(args: argparse.Namespace) -> int:
    """Compares experiments with the first one: the settings that differ, and the results paired by equal settings."""
    from cluster.reports.terminal import comparison, comparison_text

    first, *others = (_results(args, name) for name in (args.name, *args.names))
    found = comparison.compare_experiments(first, others)
    if args.json:
        return _print_json([comparison_text.experiments_json(one) for one in found])
    return _print("\n\n\n".join(map(comparison_text.experiments_text, found)))


def diff(args: argparse.Namespace) -> int:
    """Compares two combinations: the settings that differ, including defaults, and the paired difference of results."""
    from cluster.reports.terminal import comparison, comparison_text

    found = comparison.compare_combinations(_results(args, args.name), (args.first, args.second))
    if args.json:
        return _print_json(comparison_text.combinations_json(found))
    return _print(comparison_text.combinations_text(found))


def log(args: argparse.Namespace) -> int:
    """Shows what the repetitions of a combination logged, and the errors of those that failed."""
    from cluster.reports.terminal import trial_logs

    logs = trial_logs.trial_logs(_results(args, args.name), args.key)
    return _print_json(logs) if args.json else _print(trial_logs.logs_text(logs))


def curves(args: argparse.Namespace) -> int:
    """Draws learning curves in the terminal."""
    from cluster.reports.terminal import trial_logs

    table = _results(args, args.name)
    in_colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(trial_logs.curves_text(table, args.keys, in_colour=in_colour), flush=True)  # `say` would show colour codes
    return 0


def export(args: argparse.Namespace) -> int:
    """Exports results as a table for a paper or a program, or as runs of another tool."""
    if args.kind in TRACKERS:
        module = importlib.import_module(f"cluster.reports.trackers.{args.kind}")
        getattr(module, f"export_{args.kind}")(_results(args, args.name), args.out)
        return _print(f"Wrote the trials of {args.name} to {args.out}/")
    from cluster.reports.tables import export as tables
    from cluster.reports.tables.table_options import TableOptions

    _require_free(args)
    results = _each_fold(args) if "folds" in args else _results(args, args.name)
    table_options = TableOptions(**_given(args, TableOptions))
    format = _format(args.format, args.out, TABLE_ENDINGS)
    for option in ("standalone", "fit", "size"):
        if option in args and format != "latex":
            raise UserError(f"--{option} needs --format latex, not {format}")
    if "by" in args:
        content = tables.export_groups(results.files, results, args.by, format, table_options)
    elif args.kind == "effects":
        content = tables.export_effects(results, format, table_options, interactions="interactions" in args)
    else:
        content = tables.export(results, format, table_options)
    return _deliver(content, args.out, is_text=format not in ("parquet", "xlsx"))


def effects(args: argparse.Namespace) -> int:
    """Shows what each option does to the result: the mean of each value, its importance, and its interactions."""
    from cluster.reports.tables.effects import effects_of
    from cluster.reports.tables.table_options import TableOptions
    from cluster.reports.terminal.effects_text import effects_json, effects_text

    table = _results(args, args.name)
    table_options = TableOptions(**_given(args, TableOptions))
    found = effects_of(table, table_options)
    if args.json:
        return _print_json({"name": table.name, "effects": effects_json(found)})
    return _print(effects_text(table, found, table_options))


def methods(args: argparse.Namespace) -> int:
    """Writes a paragraph for a paper's methods section: what was searched, how, and what was chosen."""
    from cluster.reports.methods import methods_paragraph

    table = _results(args, args.name)
    paragraph = methods_paragraph(table)
    return _print_json({"name": table.name, "paragraph": paragraph}) if args.json else _print(paragraph)


def race(args: argparse.Namespace) -> int:
    """Replays races on a finished experiment: what they would have cost, and how good their winners are."""
    from itertools import product

    from cluster.racing.successive_halving import SuccessiveHalving
    from cluster.reports.terminal.race_replay import replay_races, replays_json, replays_text

    rules = [
        SuccessiveHalving(
            reduction_factor=factor,
            min_epochs=min_epochs,
            first_repetitions=args.first_repetitions,
            min_finalists=args.min_finalists,
            max_cost=args.max_cost,
        )
        for factor, min_epochs in product(args.reduction_factor, args.min_epochs)
    ]
    wrong = {name: allowed for rule in rules for name, allowed in rule.wrong.items()}
    if wrong:
        raise UserError("\n  ".join(f"--{name.replace('_', '-')}: allowed: {text}" for name, text in wrong.items()))
    table = _results(args, args.name)
    replayed = replay_races(table, rules)
    if args.json:
        return _print_json({"name": table.name, "data": replays_json(replayed)})
    return _print(replays_text(table.name, replayed))


def figure(args: argparse.Namespace) -> int:
    """Draws a figure for a paper."""
    from cluster.figures.style import save
    from cluster.reports.draw import FigureOptions, draw

    if "labels" in args and "others" not in args:
        raise UserError("--labels needs --other LABEL=FILE, with the predictions of another method")
    if "format" in args and "labels" not in args:
        raise UserError("--format needs --labels FILE and --other LABEL=FILE, the files of poses in this format")
    format = _format(None, args.out, FIGURE_ENDINGS)
    _require_free(args)
    figure_options = FigureOptions(**_given(args, FigureOptions))
    drawn = draw(args.kind, _results(args, args.name), figure_options)
    return _deliver(save(drawn, format), args.out, is_text=False)


def _given(args: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Returns the arguments that are fields of a dataclass."""
    return {field.name: getattr(args, field.name) for field in fields(settings) if field.name in args}


def html(args: argparse.Namespace) -> int:
    """Writes the report as one HTML file, also while the experiment runs."""
    from cluster.reports.page.page import page

    _require_free(args)
    results = _results(args, args.name)
    content = page(results.files, results)
    if args.out is None:
        return _print(results.files.write_report(content))
    return _deliver(content.encode(), args.out, is_text=False)


def watch(args: argparse.Namespace) -> int:
    """Serves the report live while the experiment runs, to this machine only, until Ctrl-C."""
    from cluster.reports.page.live_server import serve

    folder = overview.find_experiment(args.storage_path, args.name)
    serve(folder, port=args.port, announce=lambda address: say(f"{address}\nPress Ctrl-C to stop."))
    return 0


def reproduce(args: argparse.Namespace) -> int:
    """Trains a finished trial again in this process, and reports whether all numbers are the same to the bit."""
    from cluster.results.lookup import find_one_trained, find_repetition

    table = _results(args, args.name)
    trial = find_repetition(table.single_folds, find_one_trained(table, args.key), args.repetition)
    try:
        from cluster.reproduction import reproduce as reproduced
    except ImportError as error:
        raise UserError(f"reproduce trains; install requirements.txt first: {error}") from error
    with _progress_line() as show_progress:
        found = reproduced(
            table.files,
            f"{trial['key']}/{trial['repetition']}",
            modules=[own_module(name) for name in args.modules],
            data_dir=args.data_dir,
            device=args.device,
            on_report=lambda report: show_progress(f"epoch {report.epoch}"),
        )
    if args.json:
        _print_json(
            {
                "trial": found.trial_id,
                "is_same": found.is_same,
                "compared": found.n_compared,
                "missing": found.n_missing,
                "different": [different._asdict() for different in found.different],
                "weights_are_same": found.weights_are_same,
                "changed": found.changed,
            }
        )
    else:
        _print(found.text)
    return 0 if found.is_same else 1


@contextmanager
def _progress_line() -> Iterator[Callable[[str], None]]:
    """Yields a function that replaces the text of a line on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    clear = "\r\x1b[K"
    try:
        yield lambda text: print(text, end=clear[:1], file=sys.stderr, flush=True)
    finally:
        print(end=clear, file=sys.stderr, flush=True)


def rm(args: argparse.Namespace) -> int:
    """Removes experiments. Without --yes it only lists what it would remove."""
    from cluster.reports.terminal import removal

    return _remove([removal.whole_experiment(args.storage_path, name) for name in dict.fromkeys(args.names)], args)


def clean(args: argparse.Namespace) -> int:
    """Removes useless files: trials that do not belong to the last plan, and half-written files."""
    from cluster.reports.terminal import removal

    found = []
    for name in dict.fromkeys(args.names) or overview.experiment_names(args.storage_path):
        try:
            found.append(removal.useless_files(args.storage_path, name))
        except UserError as error:
            if args.names:
                raise
            say(f"skipped {name}: {error}", sys.stderr)
    return _remove([one for one in found if one is not None], args)


def _remove(removals: Sequence["Removal"], args: argparse.Namespace) -> int:
    from cluster.reports.terminal import removal

    removed, status = [], 0
    for one in removals if args.yes else ():
        try:
            removal.remove(one)
            removed.append(one)
        except UserError as error:
            say(f"error: {one.name} was not removed: {error}", sys.stderr)
            status = 2
    if args.json:
        _print_json([{"experiment": one.name, "files": one.files, "removed": one in removed} for one in removals])
    elif not removals:
        _print("There is nothing to remove.")
    elif args.yes:
        _print("\n".join(f"Removed {one.text}" for one in removed))
    else:
        _print("\n".join([*(one.text for one in removals), "Nothing has been removed yet. Add --yes to remove this."]))
    return status


def _format(format: str | None, out: Path | None, endings: Mapping[str, str]) -> Any:
    if format is not None:
        if out is not None and endings.get(out.suffix, format) != format:
            raise UserError(f"--format {format} does not match the extension of {out}")
        return format
    if out is None:
        raise UserError(f"give a format (--format {', '.join(endings.values())}) or a file (--out table.tex)")
    if out.suffix not in endings:
        raise UserError(f"{out} must end in one of {', '.join(endings)}")
    return endings[out.suffix]


def _require_free(args: argparse.Namespace) -> None:
    """Checks that the file of --out may be written, before anything slow."""
    if args.out is not None:
        require_free(args.out, force=args.force)


def _deliver(content: bytes, out: Path | None, *, is_text: bool) -> int:
    if out is not None:
        path = absolute_path(out)
        Storage(path.parent).write(path.name, content)
        return _print(f"{out}")
    if not is_text:
        raise UserError("this format cannot be printed; give a file: --out FILE")
    return _print(content.decode().rstrip("\n"))


def _print(text: str) -> int:
    say(text)
    return 0


def _print_json(content: Any) -> int:
    return _print(json_text(content))


_COMMANDS = (
    show,
    compare,
    diff,
    log,
    curves,
    export,
    effects,
    methods,
    race,
    figure,
    html,
    watch,
    reproduce,
    rm,
    clean,
)

COMMANDS = {"list": list_, **{command.__name__: command for command in _COMMANDS}}


def _with_sort_joined(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with `--sort -after` as `--sort=-after`, because argparse takes `-after` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--sort" and argument.startswith("-") and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    # The rows of ten thousand trials are a million objects that live until the end: with Python's threshold, a tenth of
    # the time is spent looking through them for garbage.
    gc.set_threshold(100_000)
    command_line = parser(__doc__ or "", COMMANDS)
    argcomplete.autocomplete(command_line)
    args = command_line.parse_args(_with_sort_joined(sys.argv[1:] if arguments is None else arguments))
    return exit_status(lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())
