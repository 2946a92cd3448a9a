"""Ended trials, moved into a few large files, since a hundred thousand small files make a results folder slow.

A trial has ended for good when it is `finished` or `diverged`: it is not trained again. Once an experiment has more
than 1,000 of these, the run moves `trial.json` and `records.parquet` of 1,000 trials into a bundle: two files with one
name. Weights, examples and plots stay where they are. A bundle keeps the text of each `trial.json` and the rows of each
`records.parquet` unchanged.

Only the run moves trials, since it holds the experiment's lock. It works in this order:

1. It writes the bundle's records and reads them back.
2. It writes the bundle's trials and reads them back. From here on the bundle is valid.
3. It removes the trials' own files and the folders that are then empty.

So a file is removed only after it was read from a bundle, and a run may be killed at any step: records without their
trials are not a bundle, and the next run removes them, as it removes files of trials that are in a bundle. A trial that
is found in both places counts once, and its bundle takes precedence: a worker that was considered lost may write to a
trial's folder later. A bundle is never changed and its name is never reused: the name has a number, for people, and a
random token.
"""

import copy
import io
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.bounded import open_parquet
from cluster.storage.file_names import FileNames, is_trial_id
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.records import are_joinable, joined
from cluster.storage.trial_file import FINAL, TrialFile
from data_pipeline.words import say

BUNDLE_TRIALS = 1000
BUNDLE_BYTES = 32 * 2**20
"""A bundle is full when its trials' records have this size; reading them takes about ten times as much memory."""

TEXT_BYTES = 256 * 2**20
"""It is also full when their `trial.json` have this size: a large one has what a normalizer learned."""

N_CONCURRENT = 16
"""How many files of an object store are read or removed concurrently."""

T = TypeVar("T")

_BUNDLE_FILE = re.compile(r"(\d{6}-[0-9a-f]{8})\.(trials|records)\.parquet")
_SCHEMA = pa.schema({"trial_id": pa.string(), "trial_json": pa.string()})
_MAX_ROWS = 10 * BUNDLE_TRIALS
_MAX_BUNDLES = 999_999
_TEXT = pa.dictionary(pa.int32(), pa.string())
_MOVED = (FileNames.RECORDS, FileNames.TRIAL)
_PATIENCE_S = 5.0  # short, since the end of a run waits for it and the next run can move the trials


class Archive:
    """The archive of an experiment: its bundles.

    All methods raise `StorageError` if files cannot be read, written or removed, or if a bundle is broken.

    Args:
        experiment: The folder of the experiment.
    """

    def __init__(self, experiment: Storage) -> None:
        self.experiment = experiment

    def trials(
        self, wanted: Callable[[str], bool] = lambda trial_id: True, *, is_described: bool = True
    ) -> Iterator[tuple[str, TrialFile]]:
        """Yields the id of each trial and the content of its `trial.json`; a pending one if it is not `wanted`.

        See `TrialFile.from_json` for `is_described`.
        """
        seen: set[str] = set()
        pending = TrialFile()
        for bundle in self.bundles():
            rows = self._read(bundle)
            try:
                for trial_id, text in zip(*map(rows.column, _SCHEMA.names), strict=True):
                    trial_id = trial_id.as_py()
                    if not is_trial_id(trial_id):
                        raise ValueError(f"{trial_id!r} is not the id of a trial")
                    if trial_id not in seen:
                        seen.add(trial_id)
                        if wanted(trial_id):
                            yield trial_id, TrialFile.from_json(text.as_py(), is_described=is_described)
                        else:
                            yield trial_id, pending
            except ValueError as error:
                raise self._broken(bundle, error) from error

    def bundles(self) -> list[str]:
        """Returns the names of the bundles, oldest first."""
        return [name for name, kinds in self._files().items() if "trials" in kinds]

    def add(self, trial_ids: Sequence[str], may_continue: Callable[[], bool] = lambda: True) -> Sequence[str]:
        """Moves ended trials into a new bundle: the first of `trial_ids`, as many as it has room for.

        A trial that has not ended for good, or has no readable records, stays where it is. An error loses nothing.

        Args:
            trial_ids: The trials; they are not in a bundle yet.
            may_continue: Called between the steps; if it returns False, the next run does the rest.

        Returns:
            The trials that the bundle had no room for.
        """
        taken, n_taken = self._take(trial_ids)
        left = trial_ids[n_taken:]
        if not taken or not may_continue():
            return left
        ids = sorted(taken)
        texts = pa.table([ids, [taken[trial_id][0] for trial_id in ids]], schema=_SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(texts, buffer, compression="zstd", write_page_checksum=True)
        number = 1 + max((int(bundle[:6]) for bundle in self._files()), default=0)
        if number > _MAX_BUNDLES:
            raise StorageError(
                f"{self.experiment.location}/{FileNames.ARCHIVE_FOLDER} has no number for another bundle"
            )
        name = f"{number:06d}-{secrets.token_hex(4)}"
        self._write(FileNames.in_archive(name, "records"), joined([taken[trial_id][1] for trial_id in ids]))
        if may_continue():
            self._write(FileNames.in_archive(name, "trials"), buffer.getvalue())
            self._read(name)  # raises an error if it could not be read later, before anything is removed
            self._remove(_files_of(ids), may_continue)
        pa.default_memory_pool().release_unused()
        return left

    def clear_leftovers(self) -> set[str]:
        """Removes what a killed run left: records without their trials, and files of trials that are in a bundle.

        Returns:
            The trials that are in a bundle.
        """
        self.experiment.clear_partial_files(FileNames.ARCHIVE_FOLDER)
        last = max(self.bundles(), default="")
        for name in self._files():
            if name > last:  # older records without trials may be all that is left of a damaged bundle
                self.experiment.remove(FileNames.in_archive(name, "records"))
        archived = {trial_id for trial_id, _ in self.trials(lambda trial_id: False)}
        if archived:
            files = [path.rpartition("/") for path in self.experiment.files(FileNames.TRIALS_FOLDER)]
            self._remove([FileNames.in_trial(i, name) for i, _, name in files if i in archived and name in _MOVED])
        return archived

    def _files(self) -> dict[str, set[str]]:
        files: dict[str, set[str]] = {}
        for found in map(_BUNDLE_FILE.fullmatch, self.experiment.names(FileNames.ARCHIVE_FOLDER)):
            if found is not None:
                files.setdefault(found[1], set()).add(found[2])
        return files

    def _read(self, bundle: str) -> pa.Table:
        content = self.experiment.read(FileNames.in_archive(bundle, "trials")) or b""
        try:
            file = open_parquet(content, texts=_SCHEMA.names, max_rows=_MAX_ROWS)
            if file.schema_arrow.names != _SCHEMA.names:
                raise ValueError(f"it has the columns {', '.join(file.schema_arrow.names)}")
            rows = file.read(use_threads=False)
            if any(column.null_count or column.type != _TEXT for column in rows.columns):
                raise ValueError("it has other values than texts")
            rows.validate(full=True)
        except Exception as error:
            # What pyarrow raises depends on the damage.
            raise self._broken(bundle, error) from error
        return rows

    def _broken(self, bundle: str, why: object) -> StorageError:
        trials, records = (
            f"{self.experiment.location}/{FileNames.in_archive(bundle, kind)}" for kind in ("trials", "records")
        )
        return StorageError(
            f"{trials} is broken, and holds up to {BUNDLE_TRIALS} trials: {why}. Replace it with a copy; or remove it "
            f"together with {records}, and the script trains these trials again"
        )

    def _take(self, trial_ids: Sequence[str]) -> tuple[dict[str, tuple[str, bytes]], int]:
        """Returns text and records of the trials that can be moved, and how many trials were examined."""
        taken: dict[str, tuple[str, bytes]] = {}
        n_bytes = n_text_bytes = n_examined = 0
        while n_examined < min(len(trial_ids), BUNDLE_TRIALS) and n_bytes < BUNDLE_BYTES and n_text_bytes < TEXT_BYTES:
            portion = trial_ids[n_examined : min(n_examined + N_CONCURRENT, BUNDLE_TRIALS)]
            n_examined += len(portion)
            read = map_files(self.experiment, self.experiment.read, _files_of(portion))
            contents = [content or b"" for content in read]
            for trial_id, records, trial in zip(portion, contents[::2], contents[1::2], strict=True):
                if _is_final(trial) and are_joinable(records):
                    taken[trial_id] = (trial.decode(), records)
                    n_bytes += len(records)
                    n_text_bytes += len(trial)
        return taken, n_examined

    def _write(self, path: str, data: bytes) -> None:
        self.experiment.write(path, data)
        if self.experiment.read(path) != data:
            raise StorageError(f"{self.experiment.location}/{path} is not what was written")

    def _remove(self, paths: Sequence[str], may_continue: Callable[[], bool] = lambda: True) -> None:
        def remove(path: str) -> None:
            if may_continue():
                self.experiment.remove(path)

        map_files(self.experiment, remove, paths)
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
            self.experiment.remove_empty_folder(folder)
            self.experiment.remove_empty_folder(folder.rpartition("/")[0])


def map_files(storage: Storage, do: Callable[[str], T], paths: Sequence[str]) -> list[T]:
    """Returns what `do` returns for each path; calls it concurrently on an object store, where each request is slow."""
    if storage.local is not None:
        return [do(path) for path in paths]
    with ThreadPoolExecutor(N_CONCURRENT) as pool:
        return list(pool.map(do, paths))


def _files_of(trial_ids: Sequence[str]) -> list[str]:
    return [FileNames.in_trial(trial_id, name) for trial_id in trial_ids for name in _MOVED]


def _is_final(trial: bytes) -> bool:
    try:
        return TrialFile.from_json(trial, is_described=False).status in FINAL
    except ValueError:
        return False


class Archiver:
    """Moves trials into the archive during a run, in a thread; use it as a context manager.

    At the end of the block it moves what is left to move, but not after an error or after `stop`.

    Args:
        archive: The archive.
        ended: Trials that ended for good in an earlier run and are not in the archive.
    """

    def __init__(self, archive: Archive, ended: Sequence[str]) -> None:
        experiment = copy.copy(archive.experiment)
        experiment.patience_s = min(experiment.patience_s, _PATIENCE_S)
        self.archive = Archive(experiment)
        self.waiting = list(ended)
        self.stopped = threading.Event()
        self.wake = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._work, name="archiver", daemon=True)

    def __enter__(self) -> "Archiver":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop()
        with self.wake:
            self.closing = True
            self.wake.notify()
        try:
            self.thread.join()
        finally:  # also after Ctrl-C, so that at most one more file is moved
            self.stop()

    def add(self, trial_id: str) -> None:
        """Adds a trial that has ended for good."""
        with self.wake:
            self.waiting.append(trial_id)
            if len(self.waiting) > BUNDLE_TRIALS:
                self.wake.notify()

    def stop(self) -> None:
        """Ends the thread after the current file."""
        self.stopped.set()

    def _work(self) -> None:
        while True:
            with self.wake:
                self.wake.wait_for(lambda: self.closing or len(self.waiting) > BUNDLE_TRIALS)
                if self.stopped.is_set() or len(self.waiting) <= BUNDLE_TRIALS:
                    return
                trial_ids, self.waiting = self.waiting, []
            try:
                left = self.archive.add(trial_ids, lambda: not self.stopped.is_set())
            except StorageError as error:
                say(
                    f"warning: some trials were not moved into the archive; the next run tries again: {error}",
                    sys.stderr,
                )
                return
            with self.wake:
                self.waiting[:0] = left
