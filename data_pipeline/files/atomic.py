"""Atomic writing: a file or folder appears whole or not at all.

It is written under a temporary name next to its destination and then renamed. The writer holds a lock on it, which ends
with its process. So the next writer to the same destination removes what killed writers left, but nothing that another
process is still writing.
"""

import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from data_pipeline.files.regular import absolute_path, kind_of
from data_pipeline.user_error import UserError

_PARTIAL = ".partial"
_ATTEMPTS = 10


def require_free(path: Path, *, force: bool) -> None:
    """Checks that a command may write a file: it overwrites nothing unless `force` is given, and never a folder.

    Raises:
        UserError: If it may not, or if there is no folder for it.
    """
    if path.is_dir():
        raise UserError(f"{path} is an existing folder; choose another name, or remove it first")
    require_file_name(path)
    if path.exists() and not force:
        raise UserError(f"{path} exists; choose another name, or overwrite it with --force")
    if not absolute_path(path).parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write to, which replaces `path` when the block ends without an error.

    Raises:
        UserError: If it cannot be written; `path` is then unchanged.
    """
    require_file_name(path)
    with _os_errors(path):
        _remove_left_over(path)
        partial, descriptor = _create(path, lambda new: os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def require_file_name(path: Path) -> None:
    """Refuses a name that a file cannot replace without harm: that of a folder, a device, a pipe or a socket.

    Raises:
        UserError: If there is such a thing.
    """
    with _os_errors(path), suppress(FileNotFoundError):
        mode = path.stat().st_mode
        kind = "a folder" if stat.S_ISDIR(mode) else kind_of(mode)
        if kind is not None:
            raise UserError(f"{path} is {kind}; give the name of a file")


@contextmanager
def atomic_folder(path: Path, *, may_be_empty: bool = False) -> Iterator[Path]:
    """Yields an empty folder to write to, which becomes `path` when the block ends without an error.

    Args:
        path: The folder; it must not exist.
        may_be_empty: Also accept an empty folder, and create missing parent folders.

    Raises:
        UserError: If `path` exists, or if it cannot be written.
    """
    path = Path(os.path.abspath(absolute_path(path)))  # noqa: PTH100 - `absolute` keeps the `..` of a path, which then has no name
    with _os_errors(path):
        _refuse_existing(path, may_be_empty)
        if may_be_empty and not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        partial, lock = _create(path, _open_new_folder)
        try:
            yield partial
            _refuse_existing(path, may_be_empty)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            os.close(lock)


def _refuse_existing(path: Path, may_be_empty: bool) -> None:
    if path.exists() and not (may_be_empty and path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} already exists; choose another folder, or remove it first")


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def _create(path: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """Creates a temporary file or folder next to `path`; returns its path and the descriptor that holds its lock.

    Before it is locked, another writer may remove it as left over; then it is created again, a few times. A filesystem
    on which it is never there, such as /proc, is an error.
    """
    for _ in range(_ATTEMPTS):
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
        try:
            descriptor = create(partial)
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
            continue
        with suppress(OSError):  # on a filesystem without locks nothing left over is removed
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), partial.stat()):
                return partial, descriptor
        os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, f"nothing can be created in {path.parent}, or it disappears at once")


def _open_new_folder(folder: Path) -> int:
    folder.mkdir()
    return os.open(folder, os.O_RDONLY)


def _remove_left_over(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{_PARTIAL}"):
        with suppress(OSError):  # its writer is alive, or another process was faster
            descriptor = os.open(left, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(descriptor)
