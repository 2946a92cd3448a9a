"""Replacing several files of a folder together, even if the writer is killed at any moment.

New files are written to a hidden folder inside the destination. Renaming this folder commits all of them; then they are
moved to their destinations. A writer that is killed before the commit leaves the old files, and a folder that the next
writer clears. A writer that is killed after it leaves a folder from which the next reader or writer moves the files.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.files.regular import absolute_path
from data_pipeline.user_error import UserError, first_line

_UNCOMMITTED = ".writing"
_COMMITTED = ".written"
_ATTEMPTS = 10

# Errors of filesystems without locks, such as some Lustre mounts: there, a folder must have only one writer at a time.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def replace_together(folder: Path) -> Iterator[Path]:
    """Yields an empty folder; the files that the block writes there are moved to `folder` at the end of the block.

    An empty file removes the file at its destination. If the block raises, nothing changes. Only one process at a time
    writes to `folder`; others wait.

    Args:
        folder: The destination; created if it is missing.

    Raises:
        UserError: If it cannot be written to.
    """
    absolute_path(folder)  # in a working folder that was deleted nothing can be made
    new = folder / _UNCOMMITTED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _move_committed(folder)
            shutil.rmtree(new, ignore_errors=True)  # left by a killed writer
            new.mkdir()
            try:
                yield new
                _check_destinations(folder, new)
                _sync(new)
                new.rename(folder / _COMMITTED)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            _move_committed(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk with a RuntimeError
        raise UserError(f"{folder} cannot be written to: {_reason(error)}") from error


def finish_replacing(folder: Path, error: type[UserError]) -> None:
    """Moves committed files to their destinations if their writer was killed before it could.

    Raises:
        UserError: An `error`, if there are such files and they cannot be moved.
    """
    try:
        if (folder / _COMMITTED).exists():
            with _locked(folder):
                _move_committed(folder)
    except OSError as problem:
        raise error(
            f"{folder} has new files from a writer that was ended before it moved them to their destinations, and they "
            f"cannot be moved there: {_reason(problem)}. Run the same command once as a user with write permission."
        ) from problem


def _check_destinations(folder: Path, new: Path) -> None:
    """Refuses files that cannot be moved to their destinations: once committed, they would block every reader."""
    for path in _files_below(new):
        destination = folder / path
        if destination.is_dir():
            raise UserError(f"{destination} is a folder, but a file must be written there")
        for parent in destination.parents:
            if parent.is_file():
                raise UserError(f"{parent} is a file, but a folder must be created there")


def _move_committed(folder: Path) -> None:
    committed = folder / _COMMITTED
    if not committed.exists():
        return
    for path in _files_below(committed):
        new, destination = committed / path, folder / path
        if new.stat().st_size == 0:
            destination.unlink(missing_ok=True)
            new.unlink()
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            new.replace(destination)
    for path in [*sorted(committed.rglob("*"), reverse=True), committed]:  # folders, each after its subfolders
        path.rmdir()


def _sync(folder: Path) -> None:
    """Waits until all files below a folder are on the disk: else committed ones may be empty after a power cut."""
    for path in _files_below(folder):
        descriptor = os.open(folder / path, os.O_WRONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _files_below(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks `folder` for the block; the lock of a killed process ends with it.

    The folder itself is locked: a lock file would belong to the user who created it and exclude other users. On NFS
    such a lock holds only within one machine. While a process waits for it, the folder may be replaced by another one
    of the same name, which is then locked.
    """
    for _ in range(_ATTEMPTS):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                yield
                return
        finally:
            os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "it is replaced again and again")


def _reason(error: OSError | RuntimeError) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return text or first_line(error)
