"""Ended trials, moved together, so that a folder of results does not become slow by a hundred thousand small files.

Once more than 1,000 trials of an experiment have ended for good (`finished` or `diverged`: they are not trained again),
the run moves `trial.json` and `records.parquet` of 1,000 into a part: two files with one name. Weights, examples and
plots stay where they are. A `trial.json` is kept as the text that it was, and records as the rows that they were.

Only the run does that, which holds the experiment's lock, in this order:

1. the part's records are written, and read back;
2. the part's trials are written, and read back: from here on it counts;
3. the trials' own files are removed, and folders that are empty then.

So nothing is removed before it is in a part that was read, and a run may be killed in between: records without their
trials are no part, and the next run removes them, as it does files of trials that are in a part. A trial that is found
in both counts once, and it is the part that counts: a worker that was given up for lost may write to a trial's folder
later. A part is never changed, nor is its name used again: it has a number, for people, and a token.
"""

import copy
import io
import json
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.records import are_joinable, joined
from data_pipeline.user_error import UserError

PART_TRIALS = 1000
PART_BYTES = 32 * 2**20
"""A part is closed when the trials' own records are so large; reading them takes some ten times that in memory."""

AT_A_TIME = 16
"""Files that are read or removed at a time on an object store."""

T = TypeVar("T")

_FOLDER = "archive"
_PART = re.compile(r"(\d{6}-[0-9a-f]{8})\.(trials|records)\.parquet")
_SCHEMA = pa.schema({"trial_id": pa.string(), "trial_json": pa.string()})
_MOVED = ("records.parquet", "trial.json")
_FINAL = ("finished", "diverged")
_PATIENCE_S = 5.0  # what cannot be moved now is moved later, and the end of a run waits for this


class ArchiveError(UserError):
    """A part of an archive cannot be read; the text says which and what to do."""


class Archive:
    """The parts of an experiment's archive.

    Args:
        experiment: The folder of the experiment.
    """

    def __init__(self, experiment: Storage) -> None:
        self.experiment = experiment

    def trials(self, wanted: Callable[[str], bool] = lambda trial_id: True) -> Iterator[tuple[str, Any]]:
        """Yields the id of each trial with the content of its `trial.json`; None for those that are not `wanted`.

        Raises:
            ArchiveError: If a part is broken.
        """
        seen: set[str] = set()
        for part in self.parts():
            rows = self._read(part)
            try:
                for trial_id, text in zip(*(rows.column(name).to_pylist() for name in _SCHEMA.names), strict=True):
                    if trial_id not in seen:
                        seen.add(trial_id)
                        yield trial_id, json.loads(text) if wanted(trial_id) else None
            except ValueError as error:
                raise self._broken(part, error) from error

    def parts(self) -> list[str]:
        """Returns the names of the parts, in their order."""
        return [name for name, kinds in self._files().items() if "trials" in kinds]

    def add(self, trial_ids: Sequence[str], go_on: Callable[[], bool] = lambda: True) -> Sequence[str]:
        """Moves ended trials into a new part: the first of `trial_ids`, and as many more as there is room for.

        One that has not ended for good, or without readable records, stays where it is.

        Args:
            trial_ids: The trials; they are in no part yet.
            go_on: Asked between the steps; where it says no, the next run does the rest.

        Returns:
            Those that are left.

        Raises:
            StorageError: If files cannot be read, written or removed; nothing is lost.
        """
        taken, n_taken = self._take(trial_ids)
        left = trial_ids[n_taken:]
        if not taken or not go_on():
            return left
        ids = sorted(taken)
        texts = pa.table([ids, [taken[trial_id][0] for trial_id in ids]], schema=_SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(texts, buffer, compression="zstd", write_page_checksum=True)
        name = f"{1 + max((int(part[:6]) for part in self._files()), default=0):06d}-{secrets.token_hex(4)}"
        self._write(f"{name}.records.parquet", joined([taken[trial_id][1] for trial_id in ids]))
        if go_on():
            self._write(f"{name}.trials.parquet", buffer.getvalue())
            self._remove(_files_of(ids), go_on)
        pa.default_memory_pool().release_unused()
        return left

    def clear_leftovers(self) -> set[str]:
        """Removes what a killed run left: records without their trials, and files of trials that are in a part.

        Returns:
            The trials that are in a part.

        Raises:
            ArchiveError: If a part is broken.
        """
        self.experiment.clear_partial_files(_FOLDER)
        last = max(self.parts(), default="")
        for name in self._files():
            if name > last:  # one before it may be all that is left of a part
                self.experiment.remove(f"{_FOLDER}/{name}.records.parquet")
        archived = {trial_id for trial_id, _ in self.trials(lambda trial_id: False)}
        if archived:
            files = [path.rpartition("/") for path in self.experiment.files("trials")]
            self._remove([f"trials/{i}/{name}" for i, _, name in files if i in archived and name in _MOVED])
        return archived

    def _files(self) -> dict[str, set[str]]:
        files: dict[str, set[str]] = {}
        for found in map(_PART.fullmatch, self.experiment.names(_FOLDER)):
            if found is not None:
                files.setdefault(found[1], set()).add(found[2])
        return files

    def _read(self, part: str) -> pa.Table:
        content = self.experiment.read(f"{_FOLDER}/{part}.trials.parquet") or b""
        try:
            rows = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True).read(use_threads=False)
        except Exception as error:
            # What pyarrow raises depends on the damage.
            raise self._broken(part, error) from error
        if rows.schema != _SCHEMA:
            raise self._broken(part, f"it has the columns {', '.join(rows.schema.names)}")
        return rows

    def _broken(self, part: str, why: object) -> ArchiveError:
        path = f"{self.experiment.location}/{_FOLDER}/{part}"
        return ArchiveError(
            f"{path}.trials.parquet is broken, and up to {PART_TRIALS} trials are in it: {why}. Put a copy of it in "
            f"its place; or take it away together with {path}.records.parquet, and the script trains these trials again"
        )

    def _take(self, trial_ids: Sequence[str]) -> tuple[dict[str, tuple[str, bytes]], int]:
        """Returns text and records of trials that can be moved, and how many were looked at; in portions."""
        taken: dict[str, tuple[str, bytes]] = {}
        n_bytes = n_looked_at = 0
        while n_looked_at < min(len(trial_ids), PART_TRIALS) and n_bytes < PART_BYTES:
            portion = trial_ids[n_looked_at : min(n_looked_at + AT_A_TIME, PART_TRIALS)]
            n_looked_at += len(portion)
            contents = [
                content or b"" for content in several(self.experiment, self.experiment.read, _files_of(portion))
            ]
            for trial_id, records, trial in zip(portion, contents[::2], contents[1::2], strict=True):
                if _is_final(trial) and are_joinable(records):
                    taken[trial_id] = (trial.decode(), records)
                    n_bytes += len(records)
        return taken, n_looked_at

    def _write(self, name: str, data: bytes) -> None:
        path = f"{_FOLDER}/{name}"
        self.experiment.write(path, data)
        if self.experiment.read(path) != data:
            raise StorageError(f"{self.experiment.location}/{path} is not what was written")

    def _remove(self, paths: Sequence[str], go_on: Callable[[], bool] = lambda: True) -> None:
        def remove(path: str) -> None:
            if go_on():
                self.experiment.remove(path)

        several(self.experiment, remove, paths)
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
            self.experiment.remove_empty_folder(folder)
            self.experiment.remove_empty_folder(folder.rpartition("/")[0])


def several(storage: Storage, do: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """Returns what `do` returns for each name; at the same time where each takes a while, whatever it does."""
    if storage.local is not None:
        return [do(name) for name in names]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(do, names))


def _files_of(trial_ids: Sequence[str]) -> list[str]:
    return [f"trials/{trial_id}/{name}" for trial_id in trial_ids for name in _MOVED]


def _is_final(trial: bytes) -> bool:
    try:
        return json.loads(trial)["status"] in _FINAL
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


class Archiver:
    """Moves trials into the archive while a run goes on, in a thread; use it as a context.

    At the end of the block it does what is left to do; at once if the block is left by an error, or after `stop`.

    Args:
        archive: Where to.
        ended: Trials that have ended for good before, and are not in the archive.
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
        finally:  # also after Ctrl-C: it is at most within one file then
            self.stop()

    def add(self, trial_id: str) -> None:
        """A trial has ended for good."""
        with self.wake:
            self.waiting.append(trial_id)
            if len(self.waiting) > PART_TRIALS:
                self.wake.notify()

    def stop(self) -> None:
        """Has it end after the file that it is at."""
        self.stopped.set()

    def _work(self) -> None:
        while True:
            with self.wake:
                self.wake.wait_for(lambda: self.closing or len(self.waiting) > PART_TRIALS)
                if self.stopped.is_set() or len(self.waiting) <= PART_TRIALS:
                    return
                trial_ids, self.waiting = self.waiting, []
            try:
                left = self.archive.add(trial_ids, lambda: not self.stopped.is_set())
            except StorageError as error:
                print(
                    f"warning: trials were not moved into an archive, the next run tries it: {error}", file=sys.stderr
                )
                return
            with self.wake:
                self.waiting[:0] = left
