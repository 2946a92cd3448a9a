"""The lock that prevents two runs of one experiment at the same time: a file lock, or a lease on an object store."""

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
_REMOVALS = 200  # other runs may remove the folder as fast as they can
_PAUSE_AFTER_REMOVAL_S = 0.005


@contextmanager
def experiment_lock(storage: Storage, pause: Callable[[float], None] = time.sleep) -> Iterator[Callable[[], None]]:
    """Holds the lock of an experiment's folder for the block; yields a function that raises if it is lost.

    On a local folder the operating system releases the lock when the process ends, however it ends: the file of a
    killed process does no harm. Whoever removes the folder meanwhile removes the name of the locked file, and another
    run can lock a new file: then the lock is lost. For other storages see `cluster/storage/lease.py`.

    Args:
        storage: The experiment's folder.
        pause: Waits for some seconds while an earlier run may still be alive; what it raises ends the wait.

    Raises:
        AlreadyRunningError: If another process holds it; the message names process and host.
        LeaseLostError: If a lease was lost during the block.
        StorageError: If the folder cannot be written to, or if its filesystem has no locks; the function raises it if
            the folder was removed during the block.
    """
    if storage.local is None:
        with lease(storage, pause=pause) as check:
            yield check
    else:
        with _file_lock(storage) as check:
            yield check


def is_locked(storage: Storage) -> bool:
    """Returns whether a process is running the experiment in `storage`.

    With a lease, a killed run counts as long as no other run has removed its file.
    """
    return is_leased(storage) if storage.local is None else _is_file_locked(storage)


@contextmanager
def _file_lock(folder: Storage) -> Iterator[Callable[[], None]]:
    with ExitStack() as stack:
        try:
            file = _locked_file(folder, stack)
        except OSError as error:
            raise _no_lock(folder, error) from error

        def check() -> None:
            if not _has_its_name(folder, file):
                raise StorageError(
                    f"{folder.location} was removed or replaced while this run was training in it, so results are "
                    "lost. Run the script again: it trains what is missing"
                )

        yield check
        with suppress(OSError):  # its content is only valid while it is locked
            file.truncate(0)


def _locked_file(folder: Storage, stack: ExitStack) -> IO[bytes]:
    """Returns the lock file, locked and open until the end of `stack`."""
    for _ in range(_REMOVALS):
        # Its folder may be removed before it is opened; `mkdir` calls a folder that is removed meanwhile existing.
        with ExitStack() as opened, suppress(FileNotFoundError, FileExistsError):
            file = opened.enter_context(folder.opened_file(FileNames.LOCK, os.O_RDWR | os.O_CREAT, make=True))
            _acquire(folder, file)
            # Before it was locked, its last owner may have removed it, and others may have locked a new file.
            if _has_its_name(folder, file):
                stack.push(opened.pop_all())
                return file
        time.sleep(_PAUSE_AFTER_REMOVAL_S)
    raise FileNotFoundError(errno.ENOENT, "it cannot be created, or others remove it again and again")


def _has_its_name(folder: Storage, file: IO[bytes]) -> bool:
    """Returns whether an open lock file is still the one that other processes would open."""
    try:
        with folder.opened() as descriptor:
            found = os.stat(FileNames.LOCK, dir_fd=descriptor, follow_symlinks=False)
        return os.path.samestat(os.fstat(file.fileno()), found)
    except OSError as error:
        # A file that was removed elsewhere is stale on NFS; for another reason it may be unavailable for a while.
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


def _no_lock(folder: Storage, error: OSError) -> StorageError:
    if error.errno in _NO_LOCKS:
        return StorageError(
            f"{folder.location} is on a filesystem without file locks ({error.strerror}), so two runs of an "
            "experiment cannot exclude each other. Set a storage_path on another filesystem, or mount this one with "
            "locks."
        )
    return StorageError(
        f"{folder.location}/{FileNames.LOCK} cannot be written: {error.strerror or error}. Is there space, and may "
        "this user write there?"
    )


def _is_file_locked(folder: Storage) -> bool:
    try:
        with folder.opened_file(FileNames.LOCK, os.O_RDONLY) as file:
            # A shared lock is refused while the exclusive lock is held; closing the file releases it immediately.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # it never ran, or the filesystem has no locks
    return False


def _acquire(folder: Storage, file: IO[bytes]) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt == _ATTEMPTS - 1:
                raise already_running(folder.location, _owner(file)) from None
            time.sleep(_PAUSE_S)  # it may be a process that only checks, see `is_locked`
    file.truncate(0)
    file.write(json.dumps(this_run()).encode())


def _owner(file: IO[bytes]) -> Any:
    try:
        return json.loads(file.read())
    except (ValueError, RecursionError, OSError):
        return None
