#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""Lives with results: shows, compares, draws, exports and removes experiments, from what is on disk.

Needs neither torch nor Ray, but for `reproduce`, which trains.

Examples:
    python tune_runs/report.py list
    python tune_runs/report.py show minimal_example
    python tune_runs/report.py html minimal_example
    python tune_runs/report.py export nyu_backbones --best-for-each train_set --out table.tex
    python tune_runs/report.py effects minimal_example
    python tune_runs/report.py figure minimal_example curves --out curves.pdf
    python tune_runs/report.py compare first_try second_try
    python tune_runs/report.py COMMAND --help

Tab completion, in a bash: eval "$(register-python-argcomplete report.py)", and then ./tune_runs/report.py.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import argcomplete

from cluster.reports.formats.json_text import json_text
from cluster.reports.terminal import overview
from cluster.reports.terminal.command_line import FIGURE_ENDINGS, TABLE_ENDINGS, Given, parser
from cluster.reports.terminal.option_checks import (
    CommandLineError,
    refuse_idle_figure_options,
    refuse_idle_table_options,
    refuse_table_options,
)
from cluster.results.results import Results
from cluster.results.user_modules import own_module
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from data_pipeline.user_error import UserError

if TYPE_CHECKING:
    from cluster.reports.terminal.removal import Removal

# What only some commands need is imported in them: the start of the others stays under a second.


def list_(given: Given) -> int:
    """All experiments, with their state, their best combination, their size and when they were started."""
    found = overview.standings(given.storage_path)
    if given.json:
        return _print_json(overview.standings_json(found))
    return _print(overview.standings_text(found) if found else f"{given.storage_path} has no experiments")


def show(given: Given) -> int:
    """The tables of an experiment."""
    from cluster.reports.tables.summary import summary_text

    folder = overview.find_experiment(given.storage_path, given.name)
    table = Results.read(folder)
    running = overview.is_running(folder)
    if given.json:
        return _print_json(
            {
                "name": table.name,
                "state": overview.state(table),
                "running": running,
                "folder": folder.storage.location,
                "options": table.option_paths,
                "splits": table.splits,
                "combinations": table.summary,
                "trials": table.trials,
                "trials_of_other_settings": table.n_others,
            }
        )
    now = " (running now)" if running else ""
    return _print(
        f"{summary_text(table, with_keys=True)}\n"
        "`log`, `diff`, `curves`, `reproduce` and `figure --combination` take a key.\n"
        f"State: {overview.state(table)}{now}\nAll files: {folder.storage.location}/"
    )


def compare(given: Given) -> int:
    """Experiments held against the first one: settings that differ, and results paired where those are the same."""
    from cluster.reports.terminal import comparison, comparison_text

    first, *others = (overview.find_experiment(given.storage_path, name) for name in given.names)
    if not others:
        raise CommandLineError("one experiment alone compares with nothing; name another one, or see `diff`")
    found = comparison.compare_experiments(first, others)
    if given.json:
        return _print_json([comparison_text.experiments_json(one) for one in found])
    return _print("\n\n\n".join(map(comparison_text.experiments_text, found)))


def diff(given: Given) -> int:
    """Two combinations of an experiment: the settings that differ, defaults filled in, and the paired difference."""
    from cluster.reports.terminal import comparison, comparison_text

    folder = overview.find_experiment(given.storage_path, given.name)
    found = comparison.compare_combinations(folder, (given.first, given.second))
    if given.json:
        return _print_json(comparison_text.combinations_json(found))
    return _print(comparison_text.combinations_text(found))


def log(given: Given) -> int:
    """What the repetitions of a combination logged, and why they failed where they did."""
    from cluster.reports.terminal import trial_logs as trial_text

    logs = trial_text.trial_logs(overview.find_experiment(given.storage_path, given.name), given.key)
    return _print_json(logs) if given.json else _print(trial_text.logs_text(logs))


def curves(given: Given) -> int:
    """Learning curves in the terminal: of the best combinations, or of those that are named."""
    from cluster.reports.terminal import trial_logs as trial_text

    folder = overview.find_experiment(given.storage_path, given.name)
    in_colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return _print(trial_text.curves_text(folder, given.keys, in_colour=in_colour))


def export(given: Given) -> int:
    """The results as a table for a paper or a program, or as files of another tool."""
    folder = overview.find_experiment(given.storage_path, given.name)
    if given.to is not None:
        refuse_table_options(given)
        return _export_to(folder, given)
    from cluster.reports.tables.choices import Choices
    from cluster.reports.tables.export import export as exported
    from cluster.reports.tables.export import export_by_joint

    table = Results.read(folder)
    is_pivot = given.rows is not None
    columns = tuple(name for names in given.columns or () for name in names.split(","))
    if is_pivot and len(columns) != 1:
        raise CommandLineError("a pivot table has one option down and one across: --rows lr --columns weight_decay")
    choices = Choices(
        columns=() if is_pivot else columns,
        sort=given.sort,
        best=given.best,
        best_for_each=given.best_for_each,
        precision=given.precision,
        metric=given.metric,
        split=given.split,
        trials=given.trials,
        rows=given.rows,
        columns_of=columns[0] if is_pivot else None,
        standalone=given.standalone,
    )
    format = _format(given.format, given.out, TABLE_ENDINGS)
    refuse_idle_table_options(given, format)
    content = export_by_joint(folder, table, format, choices) if given.by_joint else exported(table, format, choices)
    return _deliver(content, given.out, is_text=format not in ("parquet", "xlsx"))


def effects(given: Given) -> int:
    """What each option does to the result: the mean for each of its values, its importance, and its interactions."""
    from cluster.reports.tables.choices import Choices

    table = Results.read(overview.find_experiment(given.storage_path, given.name))
    choices = Choices(metric=given.metric, split=given.split, precision=given.precision)
    if given.format is not None or given.out is not None:
        from cluster.reports.tables.export import export_effects

        if given.json:
            raise CommandLineError("--json has all effects, a table of --format or --out has some; choose one of them")
        format = _format(given.format, given.out, TABLE_ENDINGS)
        content = export_effects(table, format, choices, interactions=given.interactions)
        return _deliver(content, given.out, is_text=format not in ("parquet", "xlsx"))
    from cluster.reports.tables.effects import effects_of
    from cluster.reports.terminal.effects_text import effects_json, effects_text

    if given.interactions:
        raise CommandLineError("--interactions is for a table (--format or --out); without one all effects are shown")
    found = effects_of(table, choices)
    if given.json:
        return _print_json({"name": table.name, "effects": effects_json(found)})
    return _print(effects_text(table, found, choices))


def _export_to(folder: ExperimentFolder, given: Given) -> int:
    if given.out is None:
        raise CommandLineError(f"--to {given.to} writes a folder; name it: --out FOLDER")
    module = importlib.import_module(f"cluster.reports.trackers.{given.to}")
    getattr(module, f"export_{given.to}")(folder, given.out)
    return _print(f"{given.out}/ has the trials of {given.name} for {given.to}")


def figure(given: Given) -> int:
    """A figure for a paper."""
    from cluster.figures.style import save
    from cluster.reports.draw import Drawing, draw

    folder = overview.find_experiment(given.storage_path, given.name)
    refuse_idle_figure_options(given)
    format = _format(None, given.out, FIGURE_ENDINGS)
    drawing = Drawing(
        folder=folder,
        combinations=tuple(given.combination),
        rows=given.rows,
        columns=given.columns,
        others=tuple(given.other),
        labels=given.labels,
        format=given.format,
        measure=given.measure or "worst",
        n_examples=Drawing.n_examples if given.examples is None else given.examples,
        n_log_points=Drawing.n_log_points if given.log_points is None else given.log_points,
        width_in=given.width,
    )
    return _deliver(save(draw(given.figure, drawing), format), given.out, is_text=False)


def html(given: Given) -> int:
    """The report as one file, at any moment of an experiment."""
    from cluster.reports.page.page import page

    folder = overview.find_experiment(given.storage_path, given.name)
    if given.out is None:
        return _print(folder.write_report(page(folder)))
    return _deliver(page(folder).encode(), given.out, is_text=False)


def watch(given: Given) -> int:
    """The report while the experiment runs: served to this machine alone, updated without a reload, until Ctrl-C."""
    from cluster.reports.page.live_server import serve

    folder = overview.find_experiment(given.storage_path, given.name)
    serve(folder, port=given.port, announce=lambda address: print(f"{address}\nCtrl-C ends it.", flush=True))
    return 0


def reproduce(given: Given) -> int:
    """Trains a finished trial again in this process, and says whether its numbers are the same bits."""
    from cluster.results.lookup import find_combination, find_repetition

    folder = overview.find_experiment(given.storage_path, given.name)
    table = Results.read(folder)
    trial = find_repetition(table, find_combination(table, given.key), given.repetition)
    try:
        from cluster.reproduction import reproduce as reproduced
    except ImportError as error:
        raise CommandLineError(f"reproduce trains, so it needs what requirements.txt names: {error}") from error
    with _progress_line() as show:
        found = reproduced(
            folder,
            f"{trial['key']}/{trial['repetition']}",
            modules=[own_module(name) for name in given.modules],
            data_dir=given.data_dir,
            device=given.device,
            on_report=lambda report: show(f"epoch {report.epoch}"),
        )
    if given.json:
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
    """Yields a function that shows a text in place of the one before, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    to_the_start = "\r\x1b[K"
    try:
        yield lambda text: print(text, end=to_the_start[:1], file=sys.stderr, flush=True)
    finally:
        print(end=to_the_start, file=sys.stderr, flush=True)


def rm(given: Given) -> int:
    """Removes experiments. Without --yes it says what would go, and does nothing."""
    from cluster.reports.terminal import removal

    return _remove([removal.whole_experiment(given.storage_path, name) for name in dict.fromkeys(given.names)], given)


def clean(given: Given) -> int:
    """Removes what is of no use in experiments: trials that are not of the last plan, and half-written files."""
    from cluster.reports.terminal import removal

    found = []
    for name in dict.fromkeys(given.names) or overview.experiment_names(given.storage_path):
        try:
            found.append(removal.useless_files(given.storage_path, name))
        except UserError as error:
            if given.names:
                raise
            print(f"{name} is left as it is: {error}", file=sys.stderr)
    return _remove([one for one in found if one is not None], given)


def _remove(removals: Sequence["Removal"], given: Given) -> int:
    from cluster.reports.terminal import removal

    removed, status = [], 0
    for one in removals if given.yes else ():
        try:
            removal.remove(one)
            removed.append(one)
        except UserError as error:
            print(f"error: {one.name} is not removed: {error}", file=sys.stderr)
            status = 2
    if given.json:
        _print_json([{"experiment": one.name, "files": one.files, "removed": one in removed} for one in removals])
    elif not removals:
        _print("Nothing is to be removed.")
    elif given.yes:
        _print("\n".join(f"Removed {one.text}" for one in removed))
    else:
        _print("\n".join([*(one.text for one in removals), "That is what would go. To remove it, add --yes."]))
    return status


def _format(format: str | None, out: Path | None, endings: Mapping[str, str]) -> Any:
    if format is not None:
        if out is not None and endings.get(out.suffix, format) != format:
            raise CommandLineError(f"{out} would hold {format}; name a file that does not end in {out.suffix}")
        return format
    if out is None:
        raise CommandLineError(f"name a format (--format {', '.join(endings.values())}), or a file (--out table.tex)")
    if out.suffix not in endings:
        raise CommandLineError(f"{out} ends in none of {', '.join(endings)}")
    return endings[out.suffix]


def _deliver(content: bytes, out: Path | None, *, is_text: bool) -> int:
    if out is not None:
        if not out.absolute().parent.is_dir():
            raise CommandLineError(f"{out} cannot be written: there is no folder {out.parent}")
        Storage(out.absolute().parent).write(out.name, content)
        return _print(f"{out}")
    if not is_text:
        raise CommandLineError("this format is not for a terminal; name a file: --out FILE")
    return _print(content.decode().rstrip("\n"))


def _print(text: str) -> int:
    print(text, flush=True)
    return 0


def _print_json(content: Any) -> int:
    return _print(json_text(content))


COMMANDS = {
    **{"list": list_, "show": show, "compare": compare, "diff": diff, "log": log, "curves": curves, "export": export},
    **{"effects": effects, "figure": figure, "html": html, "watch": watch, "reproduce": reproduce, "rm": rm},
    "clean": clean,
}


def _with_sort_joined(arguments: Sequence[str]) -> list[str]:
    """Returns arguments in which `--sort -after` is `--sort=-after`: argparse takes what begins with '-' for an option.

    An option that is written out begins with '--', so it is left alone.
    """
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--sort" and argument.startswith("-") and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    of_commands = parser(__doc__ or "", COMMANDS)
    argcomplete.autocomplete(of_commands)
    given = of_commands.parse_args(_with_sort_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        status: int = given.run(given)
    except BrokenPipeError:
        # Its reader has enough, as `head` has. What is left goes nowhere, else Python complains of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
