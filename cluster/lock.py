"""Keeps two runs of one experiment apart."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from cluster.storage import StorageError
from data_pipeline.user_error import UserError

_NAME = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_ATTEMPTS = 5
_PAUSE_S = 0.05


class AlreadyRunningError(UserError):
    """Another process runs this experiment."""


@contextmanager
def experiment_lock(folder: Path) -> Iterator[None]:
    """Holds an experiment's folder for the block.

    The operating system gives the lock back when its process ends, however it ends: a file left by a killed process
    is not in the way.

    Raises:
        AlreadyRunningError: If another process holds it; the text names process and host.
        StorageError: If the folder cannot be written to, or if its filesystem has no locks.
    """
    try:
        file = _acquire(folder)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise StorageError(
                f"{folder} is on a filesystem without file locks ({error.strerror}), so that two runs of an "
                "experiment could not be kept apart there. Give a storage_path on another one, or mount it with locks."
            ) from error
        raise StorageError(
            f"{folder} cannot be written: {error.strerror or error}. Is there space, and may this user write there?"
        ) from error
    with file:
        yield
        file.truncate(0)


def is_locked(folder: Path) -> bool:
    """Tells whether a process runs the experiment in `folder` right now."""
    try:
        with (folder / _NAME).open("r") as file:
            # A shared lock is refused where the other one is held; it is gone again at once.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # it was never run, or nobody can lock it
    return False


def _acquire(folder: Path) -> TextIO:
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context((folder / _NAME).open("a+"))
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _ATTEMPTS - 1:
                    raise AlreadyRunningError(f"{folder} is in use: {_owner(folder)}") from None
                time.sleep(_PAUSE_S)  # it may be someone who only looks, see `is_locked`
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}, file)
        file.flush()
        stack.pop_all()
    return file


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _NAME).read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["since"]))
        return (
            f"process {owner['pid']} on {owner['host']} has been running this experiment since {since}. Wait for it "
            "or end it, or give this run another name."
        )
    except (ValueError, KeyError, TypeError, OSError):
        return "another process is running this experiment"
