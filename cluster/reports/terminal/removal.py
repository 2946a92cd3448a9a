"""Removes experiments or their useless files, but nothing outside the results folder and no running experiment."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from cluster.reports.terminal.overview import find_experiment, is_running
from cluster.results.results import Results
from cluster.storage.archive import map_files
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lock import experiment_lock
from data_pipeline.words import count, size_text

_PARTIAL = ".partial"


@dataclass(frozen=True)
class Removal:
    """Files of an experiment that would be removed.

    Attributes:
        storage_path: The results folder.
        name: The experiment.
        is_whole: Whether to remove the whole experiment, or only its useless files.
        files: Their paths in its folder.
        what: A description for people.
        size_bytes: Their size; None if they are not on a local filesystem.
        is_running: Whether a process is running the experiment, so that nothing can be removed now.
    """

    storage_path: str
    name: str
    is_whole: bool
    files: Sequence[str]
    what: str
    size_bytes: int | None
    is_running: bool

    @property
    def text(self) -> str:
        """The files to remove, in one line."""
        size = "–" if self.size_bytes is None else size_text(self.size_bytes)
        running = "; it is running and cannot be removed now" if self.is_running else ""
        return f"{self.name}: {self.what}, {count(len(self.files), 'file')}, {size}{running}"


def whole_experiment(storage_path: str, name: str) -> Removal:
    """Returns the removal of a whole experiment.

    Raises:
        NoResultsError: If there is no experiment with that name.
        StorageError: If it cannot be read, or if it contains a link.
    """
    folder = find_experiment(storage_path, name)
    return _removal(storage_path, folder, name, _all_files(folder), "the whole experiment", is_whole=True)


def useless_files(storage_path: str, name: str) -> Removal | None:
    """Returns the removal of an experiment's useless files; None if there are none.

    These are trials that are not in its last plan, for example because an option was removed, and files that killed
    writers left. Trials in the archive stay, because a part of the archive is never changed.

    Raises:
        NoResultsError: If there is no experiment with that name, or if its description is broken.
        StorageError: If it cannot be read, or if it contains a link.
    """
    folder = find_experiment(storage_path, name)
    files = _useless_files(folder)
    if not files:
        return None
    n = len({"/".join(path.split("/")[1:3]) for path in files if not _is_partial(path)})
    what = f"{count(n, 'trial')} with other settings" if n else "half-written files"
    return _removal(storage_path, folder, name, files, what, is_whole=False)


def remove(removal: Removal) -> None:
    """Removes the files while no other process can run the experiment.

    Raises:
        AlreadyRunningError: If a process is running the experiment.
        StorageError: If something cannot be removed; the same command can then remove the rest.
    """
    results = Storage(removal.storage_path)
    folder = ExperimentFolder(results / removal.name)
    storage = folder.storage
    with experiment_lock(storage):
        # Searched again, because a run that has just ended may have another plan.
        files = _all_files(folder) if removal.is_whole else _useless_files(folder)
        # The description is removed last: as long as it exists, the rest can be found again.
        map_files(storage, storage.remove, [path for path in files if path != FileNames.EXPERIMENT])
        _remove_empty_folders(storage)
        if removal.is_whole:
            storage.remove(FileNames.EXPERIMENT)
            storage.remove(FileNames.LOCK)
    if removal.is_whole:
        results.remove_empty_folder(removal.name)


def _all_files(folder: ExperimentFolder) -> list[str]:
    """Returns all files except the locks."""
    return [
        path
        for path in folder.storage.files()
        if path != FileNames.LOCK and not path.startswith(f"{FileNames.LEASE_FOLDER}/")
    ]


def _useless_files(folder: ExperimentFolder) -> list[str]:
    Results.read(folder)  # an error if anything is broken or a link
    # Not the rows of the results: these lack the fresh repetitions of combinations that a race dropped.
    planned = set(folder.read_experiment().plan.trial_ids())
    files = [path.split("/") for path in _all_files(folder)]
    return [
        "/".join(parts)
        for parts in files
        if _is_partial(parts[-1]) or (parts[0] == FileNames.TRIALS_FOLDER and "/".join(parts[1:3]) not in planned)
    ]


def _is_partial(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(".") and name.endswith(_PARTIAL)


def _remove_empty_folders(storage: Storage) -> None:
    if storage.local is not None:
        for place, names, _ in os.walk(storage.local, topdown=False):  # those below first; links are not followed
            for name in names:
                storage.remove_empty_folder(os.path.relpath(os.path.join(place, name), storage.local))  # noqa: PTH118


def _removal(
    storage_path: str, folder: ExperimentFolder, name: str, files: Sequence[str], what: str, *, is_whole: bool
) -> Removal:
    return Removal(
        storage_path, name, is_whole, files, what, _size(folder.storage, files), is_running=is_running(folder)
    )


def _size(storage: Storage, files: Sequence[str]) -> int | None:
    if storage.local is None:
        return None
    size = 0
    for path in files:
        with suppress(OSError):  # a run has just moved it
            size += (storage.local / path).lstat().st_size
    return size
