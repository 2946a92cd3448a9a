"""The files of an experiment and of its trials: written, read and removed by name."""

import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cluster.storage.archive import Archive, map_files
from cluster.storage.bounded import read_array
from cluster.storage.experiment_file import MAX_EXPERIMENT_BYTES, ExperimentFile, NoResultsError
from cluster.storage.file_names import FileNames, is_trial_id
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.run_file import MAX_RUN_BYTES, RunFile, is_run_id
from cluster.storage.trial_file import MAX_TRIAL_BYTES, TrialFile

_TRIAL_FILE = re.compile(r"(?P<trial_id>[^/]+/[^/]+)/(?P<name>.+)")

T = TypeVar("T")


def _check_readable(text: bytes) -> None:
    """Raises a `ValueError` if the text of a finished trial's file could not be read again."""
    try:
        problems = list(TrialFile.from_json(text).problems)
    except ValueError as error:
        problems = [f"{error}; what a normalizer learned may take most of it"]
    if problems:
        raise ValueError(f"{FileNames.TRIAL} could not be read again: {problems[0]}")


class TrialFolder:
    """The files of one trial.

    Args:
        experiment: The folder of the experiment.
        trial_id: The combination's key and the repetition: `KEY/REPETITION`.
    """

    def __init__(self, experiment: Storage, trial_id: str) -> None:
        self.experiment = experiment
        self.trial_id = trial_id

    def read_trial(self, *, is_described: bool = True) -> TrialFile:
        """Returns the content of `trial.json`; that of a pending trial if there is none, or if it is broken.

        See `TrialFile.from_json` for `is_described`.
        """
        content = self.experiment.read(self._path(FileNames.TRIAL), at_most=MAX_TRIAL_BYTES)
        try:
            return TrialFile() if content is None else TrialFile.from_json(content, is_described=is_described)
        except ValueError as error:
            return TrialFile(problems=(str(error),))

    def write_trial(self, content: TrialFile, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Writes `trial.json`, and before it other files by their names, in their order.

        One that says that the trial is interrupted is not synchronised with the disk: nothing relies on it.

        Raises:
            ValueError: If the trial has finished, but its file could not be read again.
        """
        # Messages with names of files that are not UTF-8 contain halves of surrogate pairs.
        text = content.to_json().encode(errors="backslashreplace")
        if content.status == "finished":
            _check_readable(text)
        files = {**files, FileNames.TRIAL: text}
        is_needed = content.status != "interrupted" or len(files) > 1
        self.experiment.write_files(self._path(""), files, sync=is_needed)

    def read(self, name: str) -> bytes | None:
        """Returns the content of another file; None if it does not exist."""
        return self.experiment.read(self._path(name))

    def has(self, name: str) -> bool:
        """Returns whether another file exists."""
        return name in self.experiment.names(self._path(""))

    def write(self, name: str, data: bytes) -> None:
        """Writes another file."""
        self.experiment.write(self._path(name), data)

    def remove(self, name: str) -> None:
        """Removes another file if it exists."""
        self.experiment.remove(self._path(name))

    @property
    def local(self) -> Path | None:
        """The folder's path; None if it is not on a local filesystem."""
        return None if self.experiment.local is None else self.experiment.local / self._path("")

    def clear_partial_files(self) -> None:
        """Removes the partial files of killed writers."""
        for name in ("", FileNames.PLOTS_FOLDER):
            with suppress(StorageError):  # the next write reports what is wrong
                self.experiment.clear_partial_files(self._path(name))

    def _path(self, name: str) -> str:
        return FileNames.in_trial(self.trial_id, name)


class ExperimentFolder:
    """The files of an experiment.

    Args:
        storage: The folder, `results/NAME`.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def trial(self, trial_id: str) -> TrialFolder:
        """Returns the folder of a trial."""
        return TrialFolder(self.storage, trial_id)

    @property
    def archive(self) -> Archive:
        """The archive of ended trials."""
        return Archive(self.storage)

    def read_trials(
        self,
        of: Callable[[TrialFile], T],
        wanted: Callable[[str], bool] = lambda trial_id: True,
        *,
        is_described: bool = True,
    ) -> dict[str, T]:
        """Reads the trials, in their folders and in the archive.

        Args:
            of: Selects what is needed from the content of a `trial.json`, since a hundred thousand of them would fill
                the memory.
            wanted: Decides by the id which trials' files are read; the others count as pending.
            is_described: See `TrialFile.from_json`.

        Returns:
            What `of` returned, by the id of each trial that has a file.

        Raises:
            StorageError: If a file cannot be read.
        """
        paths = self.storage.files(FileNames.TRIALS_FOLDER)
        for path in paths:
            if path.count("/") < 2:
                self.storage.names(FileNames.in_trial(path))  # a link instead of a folder is an error
        files = [found for path in paths if (found := _TRIAL_FILE.match(path)) and is_trial_id(found["trial_id"])]
        pending = of(TrialFile())
        known = {file["trial_id"]: pending for file in files}
        with_file = [file["trial_id"] for file in files if file["name"] == FileNames.TRIAL and wanted(file["trial_id"])]

        def read(trial_id: str) -> T:
            return of(self.trial(trial_id).read_trial(is_described=is_described))

        known.update(zip(with_file, map_files(self.storage, read, with_file), strict=True))
        # The archive takes precedence and is read last: trials that a run moves at the same time are found there.
        archived = self.archive.trials(wanted, is_described=is_described)
        known.update((trial_id, of(content)) for trial_id, content in archived)
        return known

    def read_trial(self, trial_id: str) -> TrialFile:
        """Returns the file of a trial, from its folder or the archive; that of a pending trial if there is none.

        Raises:
            StorageError: If a file cannot be read.
        """
        if not is_trial_id(trial_id):
            return TrialFile()
        own = self.trial(trial_id).read_trial()
        # The archive takes precedence and is read last, as in `read_trials`.
        archived = (trial for archived_id, trial in self.archive.trials(trial_id.__eq__) if archived_id == trial_id)
        return next(archived, own)

    def read_experiment(self) -> ExperimentFile:
        """Returns the content of `experiment.json`.

        Raises:
            NoResultsError: If there is none, or if it is broken.
            StorageError: If it cannot be read.
        """
        content = self.storage.read(FileNames.EXPERIMENT, at_most=MAX_EXPERIMENT_BYTES)
        try:
            return ExperimentFile.from_json(content or b"")
        except ValueError as error:
            problem = None if content is None else str(error)
            raise NoResultsError.of(self.storage.location, problem) from error

    def write_experiment(self, content: Mapping[str, Any]) -> None:
        """Writes `experiment.json`."""
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        self.storage.write(FileNames.EXPERIMENT, text.encode())

    def read_run(self, run_id: str) -> RunFile | None:
        """Returns what produced the trials of a run; None if its file is missing or broken.

        Raises:
            StorageError: If the file cannot be read.
        """
        if not is_run_id(run_id):
            return None  # from an edited file; it could lead out of the folder
        content = self.storage.read(FileNames.run(run_id), at_most=MAX_RUN_BYTES)
        try:
            return RunFile.from_json(content or b"")
        except ValueError:
            return None

    def read_runs(self) -> Mapping[str, RunFile]:
        """Reads what produced the trials, by the id of the run.

        Raises:
            StorageError: If a file cannot be read.
        """
        run_ids = [name.removesuffix(".json") for name in self.storage.names(FileNames.RUNS_FOLDER)]
        read = zip(run_ids, map_files(self.storage, self.read_run, run_ids), strict=True)
        return {run_id: run for run_id, run in read if run is not None} or self.read_run_of_0_4_0()

    def read_run_of_0_4_0(self) -> Mapping[str, RunFile]:
        """Returns the last run, by its id, if version 0.4.0 recorded it in `experiment.json`."""
        try:
            return self.read_experiment().run_of_0_4_0
        except NoResultsError:
            return {}

    def write_run(self, run_id: str, run: RunFile) -> None:
        """Writes what produces the trials of a run."""
        self.storage.write(FileNames.run(run_id), run.to_json().encode())

    def clear_partial_files(self) -> None:
        """Removes the partial files of killed writers outside the trials' folders."""
        race = {name.rpartition("/")[0] for name in self.storage.files(FileNames.RACE_FOLDER)}
        folders = [FileNames.TABLES_FOLDER, FileNames.TRAINING_FRAMES_FOLDER, FileNames.RUNS_FOLDER]
        folders += [FileNames.SEARCH_FOLDER, *(f"{FileNames.RACE_FOLDER}/{name}" for name in race)]
        for name in ("", *folders):
            self.storage.clear_partial_files(name)

    def write_table(self, name: str, data: bytes) -> None:
        """Writes a file of `tables/`."""
        self.storage.write(f"{FileNames.TABLES_FOLDER}/{name}", data)

    def write_training_frames(self, fingerprint: str, keys: npt.NDArray[np.int64]) -> None:
        """Writes the hashes of a training set's poses and labels.

        Args:
            fingerprint: Identifies the training set.
            keys: The hashes, (K,).
        """
        buffer = io.BytesIO()
        np.save(buffer, keys)
        self.storage.write(FileNames.training_frames(fingerprint), buffer.getvalue())

    def has_training_frames(self, fingerprint: str) -> bool:
        """Returns whether the hashes of a training set's poses and labels were written."""
        name = FileNames.training_frames(fingerprint).rpartition("/")[2]
        return name in self.storage.names(FileNames.TRAINING_FRAMES_FOLDER)

    def read_training_frames(self, fingerprint: str) -> npt.NDArray[np.int64] | None:
        """Returns the hashes of a training set's poses and labels, (K,), ascending; None if they are missing or broken.

        Raises:
            StorageError: If the file cannot be read.
        """
        if not re.fullmatch(r"[0-9a-f]{1,64}", fingerprint):
            return None  # from an edited file; it could lead out of the folder
        content = self.storage.read(FileNames.training_frames(fingerprint))
        try:
            keys = None if content is None else read_array(content)
        except ValueError:
            return None
        return np.sort(keys) if keys is not None and keys.dtype == np.int64 and keys.ndim == 1 else None

    def write_report(self, page: str) -> str:
        """Writes `report.html` and returns its location."""
        self.storage.write(FileNames.REPORT, page.encode())
        return f"{self.storage.location}/{FileNames.REPORT}"
