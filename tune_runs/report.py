"""Shows experiments and their results, from what is on disk: needs neither torch nor Ray.

Examples:
    python tune_runs/report.py list
    python tune_runs/report.py show minimal_example
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from cluster.lock import is_locked
from cluster.reports.text import mean_and_std, summary_text
from cluster.result_table import NoResultsError, ResultTable
from cluster.storage import Storage, StorageError
from cluster.trial_folder import ExperimentFolder
from data_pipeline.user_error import UserError


def show(name: str, storage_path: str) -> str:
    """Returns the tables of an experiment as text."""
    folder = ExperimentFolder(Storage(storage_path) / name)
    try:
        table = ResultTable.read(folder)
    except NoResultsError as error:
        names = experiment_names(storage_path)
        raise NoResultsError(f"{error}; {storage_path} has {', '.join(names) or 'no experiments'}") from error
    running = " (running now)" if is_running(folder) else ""
    return f"{summary_text(table)}\nState: {state(table)}{running}\nAll files: {folder.storage.location}/"


def list_experiments(storage_path: str) -> str:
    """Returns a table of all experiments with their state."""
    rows = []
    for name in experiment_names(storage_path):
        folder = ExperimentFolder(Storage(storage_path) / name)
        try:
            table = ResultTable.read(folder)
            running = is_running(folder)
        except (NoResultsError, StorageError):
            rows.append([name, "broken", "", "", ""])
            continue
        done = sum(row["status"] in ("finished", "failed", "diverged") for row in table.trials)
        best = table.summary[0]
        result = mean_and_std(best[f"{table.split}_distance_mm_mean"], best[f"{table.split}_distance_mm_std"])
        rows.append(
            [
                name,
                "running" if running else state(table),
                f"{done}/{len(table.trials)}",
                result,
                _started(folder),
            ]
        )
    if not rows:
        return f"{storage_path} has no experiments"
    headers = ["experiment", "state", "trials done", "best (mm)", "started"]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)


def experiment_names(storage_path: str) -> list[str]:
    """Returns the names of the experiments in a results folder."""
    storage = Storage(storage_path)
    return [name for name in storage.names() if _is_experiment(storage, name)]


def _is_experiment(storage: Storage, name: str) -> bool:
    try:
        return "experiment.json" in storage.names(name)
    except StorageError:
        return True  # one that cannot be read, or a link; `show` says why


def is_running(folder: ExperimentFolder) -> bool:
    """Tells whether a process runs an experiment right now; on a local folder, one of this machine."""
    return is_locked(folder.storage)


def state(table: ResultTable) -> str:
    """Returns an experiment's state in a word or two."""
    counts = Counter(row["status"] for row in table.trials)
    if counts["interrupted"] or counts["pending"]:
        return "unfinished"
    return "complete, with failures" if table.failures else "complete"


def _started(folder: ExperimentFolder) -> str:
    local = folder.storage.local
    if local is None:
        return "–"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime((local / "experiment.json").stat().st_mtime))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--storage-path", default="results", help="the folder with the experiments (default: %(default)s)"
    )
    commands.add_parser("list", parents=[common], help="all experiments with their state")
    shown = commands.add_parser("show", parents=[common], help="the tables of an experiment")
    shown.add_argument("name", metavar="NAME", help="the experiment's name")
    given = parser.parse_args(arguments)
    try:
        text = list_experiments(given.storage_path) if given.command == "list" else show(given.name, given.storage_path)
        print(text, flush=True)
    except BrokenPipeError:
        # Its reader has enough, as `head` has. What is left goes nowhere, else Python complains of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
