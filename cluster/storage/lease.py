"""A lease that prevents two runs of one experiment at the same time, on a storage without locks.

Each run writes its own file into the experiment's `lease/` folder, and rewrites it every few seconds with a higher
count: its heartbeat. A run may begin when it has written its file (state `wanting`) and a later listing shows no other
file; it then writes the state `holding`. Clocks of two machines are never compared: a run is alive if its file changes
while another run watches, by the watcher's clock. A file that does not change for `expiry_s` belongs to a dead run and
is removed.

Can two runs hold the lease at the same time? The storage must guarantee that a listing shows every file whose write is
complete, as S3 and similar stores do.

1. If no run removes another run's file: of two runs that both began, one wrote its file last and listed the folder
   after that. The other run's file existed at that time, since a run keeps its file from before its listing until its
   end. So the last run saw it and did not begin: a contradiction.
2. A run removes another run's file only after it has seen the same content for `expiry_s`, so at least this long after
   the owner started its last successful heartbeat. The owner counts from this start, and considers its lease lost after
   two thirds of `expiry_s`; a heartbeat that took longer does not count. So the owner knows first, as long as the
   speeds of two clocks (not their times) differ by less than a third. In the last third, the owner and its workers end
   their current work.
3. A suspended process cannot know. When it resumes, it finds its time over, its file removed, or another file that says
   `holding`, and ends itself; at most it completes the write of one file. This does no harm, since files are complete
   and a trial has the same numbers wherever it is trained. Its next heartbeat may restore its file: then it notices by
   its clock or by the other file, and the other run notices too: both end.

So two runs can hold the lease only from the moment a process resumes until its threads check the clock, immediately.

If several runs want to begin, the one with the smallest token stays. The others withdraw their files and wait until it
holds the lease, dies, or gives up.
"""

import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage, StorageError
from data_pipeline.user_error import UserError
from data_pipeline.words import say

_WANTING, _HOLDING = "wanting", "holding"

# A machine with a wrong clock learns the time of S3 from an error. pyarrow's buffer for this error is only as large as
# the file that it reads.
_FILE_BYTES = 1024

BEAT_S = 5.0
EXPIRY_S = 90.0
"""A run gives up after two thirds of it, which is `Storage.patience_s`."""


class AlreadyRunningError(UserError):
    """Another process runs this experiment."""


class LeaseLostError(UserError):
    """This run could not renew its lease, so another run may have begun."""


def this_run() -> dict[str, Any]:
    """Returns what identifies this run for people: its process, its host, and when it began."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}


def already_running(location: object, run: Any) -> AlreadyRunningError:
    """Returns the error that `run`, a result of `this_run`, is running the experiment at `location`."""
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["since"]))
        owner = (
            f"process {run['pid']} on {run['host']} has been running this experiment since {since}. Wait for it "
            "or end it, or give this run another name."
        )
    except (LookupError, TypeError, ValueError, OverflowError, OSError):  # the file was not written by a run
        owner = "another process is running this experiment"
    return AlreadyRunningError(f"{location} is in use: {owner}")


@contextmanager
def lease(
    storage: Storage,
    *,
    beat_s: float = BEAT_S,
    expiry_s: float = EXPIRY_S,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Callable[[], None]]:
    """Holds the lease of the experiment in `storage` for the block; yields a function that raises if it is lost.

    If the lease is lost, a `KeyboardInterrupt`, as after Ctrl-C, ends the block and becomes a `LeaseLostError`. A block
    outside the main thread is not ended, and must call the function.

    Args:
        storage: The experiment's folder.
        beat_s: The time between two heartbeats.
        expiry_s: A run without a heartbeat for this long is dead; the same for all runs of an experiment.
        pause: Waits for some seconds while an earlier run may still be alive; what it raises ends the wait.

    Raises:
        AlreadyRunningError: If another run holds the lease and is alive.
        LeaseLostError: If the lease was lost.
        StorageError: If the storage cannot be used.
    """
    own = _Lease(storage, beat_s, expiry_s, pause)
    try:
        own.begin()
        try:
            yield own.check
            own.check()
        finally:
            own.end()
    except KeyboardInterrupt:
        own.raise_if_lost()  # then the lease sent it, not the user
        raise


def is_leased(storage: Storage) -> bool:
    """Returns whether a run holds the lease of the experiment in `storage`.

    It does not wait for a heartbeat: a killed run counts as long as no other run has removed its file.
    """
    return any(other.state == _HOLDING for other in _files(storage / FileNames.LEASE_FOLDER).values())


@dataclass(frozen=True)
class _LeaseFile:
    """The file of a run."""

    content: bytes

    @property
    def run(self) -> Mapping[str, Any]:
        """What the run wrote; empty if no run wrote the file."""
        with suppress(ValueError, RecursionError):
            run = json.loads(self.content)
            if isinstance(run, dict):
                return run
        return {}

    @property
    def state(self) -> str:
        state: str = self.run.get("state", _HOLDING)
        return state


def _files(folder: Storage) -> dict[str, _LeaseFile]:
    found = {name: folder.read(name) for name in folder.names() if name.endswith(".json")}
    return {name: _LeaseFile(content) for name, content in found.items() if content is not None}


def _clock() -> float:
    # It includes the time that a machine sleeps.
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class _Lease:
    """The lease of this run: first wanted, then held."""

    def __init__(self, storage: Storage, beat_s: float, expiry_s: float, pause: Callable[[float], None]) -> None:
        self.storage = storage
        self.folder = storage / FileNames.LEASE_FOLDER
        self.beat_s, self.expiry_s, self.pause = beat_s, expiry_s, pause
        self.give_up_s = expiry_s * 2 / 3
        self.who = this_run()
        self.beats = 0
        self.name: str | None = None  # of the existing file
        self.renewed = 0.0  # the start of the last successful heartbeat
        self.others: dict[str, tuple[_LeaseFile, float]] = {}  # with the time when this content was first seen
        self.lost: str | None = None
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._watch)]
        self.ended = threading.Event()
        self.ending = threading.Lock()
        self.interrupts = threading.current_thread() is threading.main_thread()
        self.handler = signal.getsignal(signal.SIGINT)

    def begin(self) -> None:
        """Waits until this run holds the lease; raises if another run does."""
        try:
            self._acquire()
            self.folder.patience_s = 0.0  # a failed heartbeat is followed by another
            if self.interrupts and self.handler is signal.SIG_IGN:
                # Background processes of a shell ignore it, and could not be ended.
                signal.signal(signal.SIGINT, signal.default_int_handler)
            for thread in self.threads:
                thread.start()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Releases the lease, or what there is of it."""
        with self.ending:
            self.ended.set()
        try:
            for thread in self.threads:
                if thread.is_alive():
                    thread.join(timeout=self.expiry_s - self.give_up_s)
        finally:  # also after Ctrl-C, with which users end the wait for a slow storage
            self.folder.patience_s = self.beat_s
            if self.interrupts and self.handler is signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._withdraw()

    def check(self) -> None:
        """Raises `LeaseLostError` if the lease is lost."""
        if self.lost is None and not self._in_time():
            self.lost = self._late()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raises `LeaseLostError` if the lease was found to be lost."""
        if self.lost is not None:
            raise LeaseLostError(
                f"{self.storage.location}: {self.lost}. Another run may have begun, so this one ends and writes "
                "nothing more. Run the script again: finished trials stay finished"
            )

    def _acquire(self) -> None:
        reported = False
        while True:
            self._look()
            others = {name: file for name, (file, _) in self.others.items()}
            if not others:
                if self.name is None:
                    self.name, self.renewed = f"{secrets.token_hex(8)}.json", _clock()
                    self._write(_WANTING)
                elif self._in_time() and self._write(_HOLDING):
                    return
                else:
                    self._withdraw()  # it took so long that other runs may consider this run dead
                continue
            first = [n for n in others if self.name is None or n < self.name or others[n].state == _HOLDING]
            if first:
                self._withdraw()
            else:
                self._write(_WANTING)  # the others withdraw, or are dead
            silent = [name for name in first if _clock() - self.others[name][1] >= self.beat_s / 5]
            if silent and not reported:
                reported = True
                say(self._waiting_text(others[silent[0]]), sys.stderr)
            self.pause(self.beat_s / 5)

    def _look(self) -> None:
        """Reads the files of other runs and removes those of dead runs.

        Raises:
            AlreadyRunningError: If a run holds the lease and is alive.
        """
        began = _clock()
        files = _files(self.folder)
        ended = _clock()
        before, self.others = self.others, {}
        for name, file in files.items():
            if name == self.name:
                continue
            file_before, since = before.get(name, (file, ended))
            if file.content != file_before.content:
                if file.state == _HOLDING:
                    raise already_running(self.storage.location, file.run)
                since = ended
            if began - since >= self.expiry_s:
                self.folder.remove(name)
            else:
                self.others[name] = (file, since)

    def _write(self, state: str) -> bool:
        """Writes a heartbeat; returns whether it succeeded before the previous one expired."""
        began = _clock()
        self.beats += 1
        content = json.dumps({**self.who, "state": state, "beat": self.beats})
        self.folder.write(str(self.name), content.ljust(_FILE_BYTES).encode())
        if not self._in_time():
            return False
        self.renewed = began
        return True

    def _in_time(self) -> bool:
        return _clock() - self.renewed < self.give_up_s

    def _withdraw(self) -> None:
        if self.name is not None:
            with suppress(StorageError):  # the next run removes it
                self.folder.remove(self.name)
        self.name = None

    def _beat(self) -> None:
        while not self.ended.wait(self.beat_s):
            try:
                files = _files(self.folder)
                if self.name not in files:
                    self._lose("its lease was taken away, since it had sent no heartbeat for too long")
                    return
                if any(name != self.name and file.state == _HOLDING for name, file in files.items()):
                    self._lose("another run holds the lease as well")
                    return
                if not self._write(_HOLDING):
                    self._lose(self._late())
                    return
            except StorageError:
                pass  # `_watch` notices when it takes too long

    def _watch(self) -> None:
        while not self.ended.wait(max(0.0, self.renewed + self.give_up_s - _clock())):
            if not self._in_time():
                self._lose(self._late())
                return

    def _late(self) -> str:
        return (
            f"this run could not renew its lease for {_clock() - self.renewed:.0f} s, because it was suspended or the "
            "storage was unavailable"
        )

    def _lose(self, why: str) -> None:
        with self.ending:
            if self.ended.is_set() or self.lost is not None:
                return
            self.lost = why
            if self.interrupts:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _waiting_text(self, file: _LeaseFile) -> str:
        run = file.run
        return (
            f"{self.storage.location}: an earlier run on {run.get('host', 'a host')}, process {run.get('pid', '?')}, "
            f"may still be alive: waiting up to {self.expiry_s:.0f} s for a heartbeat"
        )
