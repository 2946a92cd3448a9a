"""Keeps two runs of one experiment apart where a storage has no locks.

Each run writes a file of its own into `lease/` of the experiment, and writes it anew every few seconds with a higher
count: its heartbeat. A run may begin when it has written its file (state `wanting`) and a listing made after that shows
no other; it then writes `holding` into it. Clocks of two machines are never compared: whether a run is alive is seen
from its file changing while one watches, by the watcher's own clock. A file that does not change for `expiry_s` is of a
run that is dead, and is removed.

Can two hold at once? What is needed of the storage is that a listing shows every file whose writing is complete, as S3
and the like promise.

1. While no file is removed by another run: of two runs that both began, one wrote its file last. It listed after that,
   and the other's file was there already, since that run keeps its file from before its own listing until its end. So
   the last one saw it and did not begin.
2. A file is removed by another run only when that has seen the same content for `expiry_s`, so at least this long after
   the owner began its last heartbeat that arrived. The owner counts from the moment that it *began* that one, and takes
   itself for dead after two thirds of `expiry_s`; a heartbeat that took longer to arrive does not count. As long as
   clocks of two machines differ in their speed by less than a third (not in what they show), the owner knows first.
   The last third is for what it and its workers are at to come to an end.
3. A process that was suspended cannot know. When it goes on, it finds that its time is over, its file gone, or another
   file that says `holding`, and ends itself: what it can still do is to end the write of one file that it was in. As
   files are whole and a trial gives the same numbers whoever trains it, that spoils nothing. Its next heartbeat may
   bring its file back: the owner then knows by its clock, or finds the other one, as does the other: both end.

So two can hold at once only from a process's going on until it looks at its clock, which its threads do at once.

Of runs that want to begin at the same time the one with the smallest token stays; the others withdraw their files, and
see it hold, or die, or give up.
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

_WANTING, _HOLDING = "wanting", "holding"

# A machine whose clock is wrong learns the time of S3 from an error, and pyarrow has only as much room for that as the
# file has that it wanted to read.
_FILE_BYTES = 1024

BEAT_S = 5.0
EXPIRY_S = 90.0
"""Two thirds of it, after which a run gives up, are as long as `Storage` is patient."""


class AlreadyRunningError(UserError):
    """Another process runs this experiment."""


class LeaseLostError(UserError):
    """This run could not show that it is alive, so another one may have begun."""


def this_run() -> dict[str, Any]:
    """Returns what tells a run from others, for people: its process, its host, and when it began."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}


def already_running(location: object, run: Any) -> AlreadyRunningError:
    """Returns the error that `run`, as of `this_run`, runs the experiment at `location`."""
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["since"]))
        owner = (
            f"process {run['pid']} on {run['host']} has been running this experiment since {since}. Wait for it "
            "or end it, or give this run another name."
        )
    except (LookupError, TypeError, ValueError, OverflowError, OSError):  # of a file that no run has written
        owner = "another process is running this experiment"
    return AlreadyRunningError(f"{location} is in use: {owner}")


@contextmanager
def lease(storage: Storage, *, beat_s: float = BEAT_S, expiry_s: float = EXPIRY_S) -> Iterator[Callable[[], None]]:
    """Holds the experiment in `storage` for the block; yields a function that raises if it is not held any more.

    The block is ended with Ctrl-C's `KeyboardInterrupt` where the lease is lost, which becomes `LeaseLostError` on its
    way out. A block that is not in the main thread is not ended, and has to ask.

    Args:
        storage: The experiment's folder.
        beat_s: Between two heartbeats.
        expiry_s: A run that shows none for this long is dead; the same for all runs of an experiment.

    Raises:
        AlreadyRunningError: If another run holds it and is alive.
        LeaseLostError: If the lease was lost.
        StorageError: If the storage cannot be used.
    """
    run = _Run(storage, beat_s, expiry_s)
    try:
        run.begin()
        try:
            yield run.check
            run.check()
        finally:
            run.end()
    except KeyboardInterrupt:
        run.raise_if_lost()  # then it was of our own making
        raise


def is_leased(storage: Storage) -> bool:
    """Tells whether a run holds the experiment in `storage`.

    It does not wait for a heartbeat: a run that was killed counts until the next one has found that out.
    """
    return any(other.state == _HOLDING for other in _files(storage / FileNames.LEASE_FOLDER).values())


@dataclass(frozen=True)
class _File:
    """What a run has written."""

    content: bytes

    @property
    def run(self) -> Mapping[str, Any]:
        """What it says of itself; nothing where it is no file of ours."""
        with suppress(ValueError, RecursionError):
            run = json.loads(self.content)
            if isinstance(run, dict):
                return run
        return {}

    @property
    def state(self) -> str:
        state: str = self.run.get("state", _HOLDING)
        return state


def _files(folder: Storage) -> dict[str, _File]:
    found = {name: folder.read(name) for name in folder.names() if name.endswith(".json")}
    return {name: _File(content) for name, content in found.items() if content is not None}


def _clock() -> float:
    # The time that a machine sleeps counts too.
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class _Run:
    """A run that wants the lease, and then holds it."""

    def __init__(self, storage: Storage, beat_s: float, expiry_s: float) -> None:
        self.storage = storage
        self.folder = storage / FileNames.LEASE_FOLDER
        self.beat_s, self.expiry_s = beat_s, expiry_s
        self.give_up_s = expiry_s * 2 / 3
        self.who = this_run()
        self.beats = 0
        self.name: str | None = None  # of the file that is there
        self.renewed = 0.0  # when the last heartbeat that arrived was begun
        self.others: dict[str, tuple[_File, float]] = {}  # each with when it was first seen as it is
        self.lost: str | None = None
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._watch)]
        self.ended = threading.Event()
        self.ending = threading.Lock()
        self.interrupts = threading.current_thread() is threading.main_thread()

    def begin(self) -> None:
        """Waits until the lease is held, or somebody is seen to hold it."""
        try:
            self._acquire()
        except BaseException:
            self._withdraw()
            raise
        self.folder.patience_s = 0.0  # a heartbeat that is late is followed by another
        self.handler = signal.getsignal(signal.SIGINT)
        if self.interrupts and self.handler is signal.SIG_IGN:
            # A shell's background process ignores it, and could not be ended.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Gives the lease back."""
        with self.ending:
            self.ended.set()
        for thread in self.threads:
            thread.join(timeout=self.expiry_s - self.give_up_s)
        self.folder.patience_s = self.beat_s
        if self.interrupts and self.handler is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._withdraw()

    def check(self) -> None:
        """Raises `LeaseLostError` if the lease is not held any more."""
        if self.lost is None and not self._in_time():
            self.lost = self._late()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raises `LeaseLostError` if it was seen that the lease is not held any more."""
        if self.lost is not None:
            raise LeaseLostError(
                f"{self.storage.location}: {self.lost}. Another run may have begun, so this one ends and writes "
                "nothing more. Run the script again: what is finished stays finished"
            )

    def _acquire(self) -> None:
        told = False
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
                    self._withdraw()  # it took so long that others may have taken this run for dead
                continue
            first = [n for n in others if self.name is None or n < self.name or others[n].state == _HOLDING]
            if first:
                self._withdraw()
            else:
                self._write(_WANTING)  # the others will withdraw, or are dead
            silent = [name for name in first if _clock() - self.others[name][1] >= self.beat_s / 5]
            if silent and not told:
                told = True
                print(self._waiting_text(others[silent[0]]), file=sys.stderr, flush=True)
            time.sleep(self.beat_s / 5)

    def _look(self) -> None:
        """Looks what other runs have written, and removes the files of those that are dead.

        Raises:
            AlreadyRunningError: If one is seen alive that holds the lease.
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
        """Writes a heartbeat; tells whether it arrived before the one before it was too old."""
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
            with suppress(StorageError):  # it is removed by the next run
                self.folder.remove(self.name)
        self.name = None

    def _beat(self) -> None:
        while not self.ended.wait(self.beat_s):
            try:
                files = _files(self.folder)
                if self.name not in files:
                    self._lose("its lease was taken away, as this run had shown no sign of life for too long")
                    return
                if any(name != self.name and file.state == _HOLDING for name, file in files.items()):
                    self._lose("another run holds it as well")
                    return
                if not self._write(_HOLDING):
                    self._lose(self._late())
                    return
            except StorageError:
                pass  # `_watch` counts the time

    def _watch(self) -> None:
        while not self.ended.wait(max(0.0, self.renewed + self.give_up_s - _clock())):
            if not self._in_time():
                self._lose(self._late())
                return

    def _late(self) -> str:
        return (
            f"this run could not renew its lease for {_clock() - self.renewed:.0f} s, since it was suspended or the "
            "storage was not there"
        )

    def _lose(self, why: str) -> None:
        with self.ending:
            if self.ended.is_set() or self.lost is not None:
                return
            self.lost = why
            if self.interrupts:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _waiting_text(self, file: _File) -> str:
        run = file.run
        return (
            f"{self.storage.location}: an earlier run on {run.get('host', 'a host')}, process {run.get('pid', '?')}, "
            f"may still be alive: waiting up to {self.expiry_s:.0f} s for a sign of it"
        )
