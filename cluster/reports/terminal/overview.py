"""The experiments of a results folder and the status of each."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from cluster.reports.tables.summary import mean_and_std
from cluster.results.results import NoResultsError, Results
from cluster.results.rows import SummaryColumns
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lock import is_locked
from data_pipeline.user_error import UserError, did_you_mean
from data_pipeline.words import size_text

_ENDED = ("finished", "failed", "diverged", "dropped")


@dataclass(frozen=True)
class Best:
    """The combination that is best in validation among those that were measured on the same data.

    Attributes:
        data: The data's name.
        split: The split of the numbers.
        best_mm: Its mean distance, mm; None if no combination has finished.
        best_std_mm: The sample standard deviation over repetitions, mm.
        n: Its finished repetitions.
    """

    data: str
    split: str
    best_mm: float | None
    best_std_mm: float | None
    n: int


@dataclass(frozen=True)
class ExperimentStatus:
    """The status of an experiment.

    Attributes:
        name: The experiment's name.
        state: `running`, `unfinished`, `complete`, one of these two with `, with failures`, `failed` if no trial
            finished or can be continued, or `broken`; if it is broken, the rest is None.
        trials: The number of trials.
        ended: The number of trials that finished, failed or diverged, or that a race dropped.
        dropped: The number of trials that a race dropped.
        not_proposed: The number of combinations that a search has still to propose; their trials are not counted.
        split: As in `Best`, like the next three; None if there are several data sets, since they have no common best.
        best_mm: As in `Best`.
        best_std_mm: As in `Best`.
        n: As in `Best`.
        best_of_each: The best on each data set.
        size_bytes: The size of its files; None if they are not on a local filesystem.
        started: As in `Results`.
        n_ignored: The number of values in its files that are not valid and were ignored.
    """

    name: str
    state: str
    trials: int | None = None
    ended: int | None = None
    dropped: int | None = None
    not_proposed: int | None = None
    split: str | None = None
    best_mm: float | None = None
    best_std_mm: float | None = None
    n: int | None = None
    best_of_each: Sequence[Best] = ()
    size_bytes: int | None = None
    started: float | None = None
    n_ignored: int | None = None


def find_experiment(storage_path: str, name: str) -> ExperimentFolder:
    """Returns the folder of an experiment.

    Raises:
        NoResultsError: If there is no experiment with that name; the text names a similar one, or all.
        StorageError: If the results folder cannot be read.
    """
    names = experiment_names(storage_path)
    if name not in names:
        hint = did_you_mean(name, names) or ", which has no experiments"
        raise NoResultsError(f"no experiment {name!r} in {storage_path}{hint}")
    return ExperimentFolder(Storage(storage_path) / name)


def experiment_names(storage_path: str) -> list[str]:
    """Returns the names of the experiments in a results folder.

    Raises:
        NoResultsError: If there is no such folder on this machine.
        StorageError: If it cannot be read.
    """
    storage = Storage(storage_path)
    if storage.local is not None and not storage.local.is_dir():
        raise NoResultsError(f"there is no results folder {storage_path}; choose one with --storage-path")
    return [name for name in storage.names() if _is_experiment(storage, name)]


def statuses(storage_path: str) -> list[ExperimentStatus]:
    """Returns the status of every experiment of a results folder, by name."""
    return [
        experiment_status(ExperimentFolder(Storage(storage_path) / name), name)
        for name in experiment_names(storage_path)
    ]


def experiment_status(folder: ExperimentFolder, name: str) -> ExperimentStatus:
    """Returns the status of an experiment."""
    try:
        table = Results.read(folder)
        running = is_running(folder)
        size_bytes = _size(folder)
    except UserError:  # no description, a broken part of the archive, or a link: `show` reports it
        return ExperimentStatus(name, "broken")
    best_of_each = [_best(data, of_data) for data, of_data in table.by_data().items()]
    best = best_of_each[0] if len(best_of_each) == 1 else None
    return ExperimentStatus(
        name,
        "running" if running else state(table),
        trials=len(table.single_folds.trials),
        ended=sum(row["status"] in _ENDED for row in table.single_folds.trials),
        dropped=sum(row["status"] == "dropped" for row in table.single_folds.trials),
        not_proposed=table.n_not_proposed,
        split=None if best is None else best.split,
        best_mm=None if best is None else best.best_mm,
        best_std_mm=None if best is None else best.best_std_mm,
        n=None if best is None else best.n,
        best_of_each=best_of_each,
        size_bytes=size_bytes,
        started=table.started,
        n_ignored=len(table.warnings),
    )


def is_running(folder: ExperimentFolder) -> bool:
    """Returns whether a process is running an experiment; for a local folder, a process of this machine."""
    return is_locked(folder.storage)


def state(table: Results) -> str:
    """Returns the state of an experiment that is not running."""
    counts = Counter(row["status"] for row in table.single_folds.trials)
    if table.failures and not counts["finished"] and not counts["interrupted"]:
        return "failed"  # `stop_if_all_fail` leaves the other trials pending
    any_left = counts["interrupted"] or counts["pending"] or table.n_not_proposed
    progress = "unfinished" if any_left else "complete"
    return f"{progress}, with failures" if table.failures else progress


def statuses_text(found: list[ExperimentStatus]) -> str:
    """Returns the statuses as a table for a terminal."""
    headers = ["experiment", "state", "trials done", "best (mm)", "on", "n", "size", "started"]
    rows = [
        [
            one.name,
            one.state,
            _done(one),
            _best_text(one),
            one.split or "–",
            "–" if one.n is None else str(one.n),
            "–" if one.size_bytes is None else size_text(one.size_bytes),
            "–" if one.started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(one.started)),
        ]
        for one in found
    ]
    alignment = ["left", "left", "right", "right", "left", "right", "right", "left"]
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=alignment)


def statuses_json(found: list[ExperimentStatus]) -> list[dict[str, Any]]:
    """Returns the statuses for a script."""
    return [asdict(one) for one in found]


def _done(one: ExperimentStatus) -> str:
    if one.trials is None:
        return "–"
    dropped = f", {one.dropped} dropped" if one.dropped else ""
    not_proposed = f", {one.not_proposed} to propose" if one.not_proposed else ""
    return f"{one.ended}/{one.trials}{dropped}{not_proposed}"


def _best_text(one: ExperimentStatus) -> str:
    n = len(one.best_of_each)
    return f"{n} sets of data" if n > 1 else mean_and_std(one.best_mm, one.best_std_mm)


def _best(data: str, results: Results) -> Best:
    row = results.summary[0]
    columns = SummaryColumns.of(results.split)
    return Best(data, results.split, row[columns.mean], row[columns.std], row["n"])


def _is_experiment(storage: Storage, name: str) -> bool:
    try:
        return FileNames.EXPERIMENT in storage.names(name)
    except StorageError:
        return True  # it cannot be read, or is a link; `show` says why


def _size(folder: ExperimentFolder) -> int | None:
    """Returns the size of all files in bytes, without following links; None if they are not on a local filesystem."""
    local = folder.storage.local
    if local is None:
        return None
    total = 0
    for path in folder.storage.files():
        with suppress(OSError):  # a run has just moved it
            total += os.lstat(f"{local}/{path}").st_size
    return total
