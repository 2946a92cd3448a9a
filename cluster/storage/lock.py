"""Keeps two runs of one experiment apart: by a lock of the operating system, or by a lease where there is none."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.lease import already_running, is_leased, lease, this_run

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_ATTEMPTS = 5
_PAUSE_S = 0.05


@contextmanager
def experiment_lock(storage: Storage) -> Iterator[Callable[[], None]]:
    """Holds an experiment's folder for the block; yields a function that raises where it is not held any more.

    On a local folder the operating system gives the lock back when its process ends, however it ends: a file left by a
    killed process is not in the way. Elsewhere see `cluster/storage/lease.py`.

    Raises:
        AlreadyRunningError: If another process holds it; the text names process and host.
        LeaseLostError: If it could not be held until the block's end, which is ended then; only where it is a lease.
        StorageError: If the folder cannot be written to, or if its filesystem has no locks.
    """
    if storage.local is None:
        with lease(storage) as check:
            yield check
    else:
        with _file_lock(storage):
            yield lambda: None


def is_locked(storage: Storage) -> bool:
    """Tells whether a process runs the experiment in `storage` right now.

    Where it is a lease, a run that was killed counts until the next one has found that out.
    """
    return is_leased(storage) if storage.local is None else _is_file_locked(storage)


@contextmanager
def _file_lock(folder: Storage) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(folder.opened_file(FileNames.LOCK, os.O_RDWR | os.O_CREAT, make=True))
            _acquire(folder, file)
        except OSError as error:
            raise _no_lock(folder, error) from error
        yield
        with suppress(OSError):  # what it says counts only while it is locked
            file.truncate(0)


def _no_lock(folder: Storage, error: OSError) -> StorageError:
    if error.errno in _NO_LOCKS:
        return StorageError(
            f"{folder.location} is on a filesystem without file locks ({error.strerror}), so that two runs of an "
            "experiment could not be kept apart there. Give a storage_path on another one, or mount it with locks."
        )
    return StorageError(
        f"{folder.location} cannot be written: {error.strerror or error}. Is there space, and may this user write "
        "there?"
    )


def _is_file_locked(folder: Storage) -> bool:
    try:
        with folder.opened_file(FileNames.LOCK, os.O_RDONLY) as file:
            # A shared lock is refused where the other one is held; it is gone again at once.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # it was never run, or nobody can lock it
    return False


def _acquire(folder: Storage, file: IO[bytes]) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt == _ATTEMPTS - 1:
                raise already_running(folder.location, _owner(file)) from None
            time.sleep(_PAUSE_S)  # it may be someone who only looks, see `is_locked`
    file.truncate(0)
    file.write(json.dumps(this_run()).encode())


def _owner(file: IO[bytes]) -> Any:
    try:
        return json.loads(file.read())
    except (ValueError, RecursionError, OSError):
        return None
