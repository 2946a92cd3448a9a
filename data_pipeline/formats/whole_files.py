"""Files and folders that are there whole or not at all: made beside their place, then moved there.

What is being made holds a lock, which ends with its process. So whoever writes to the same place next removes
what a killed process left, and leaves alone what another one is still at.
"""

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from data_pipeline.formats.frames import FormatError

_PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to, which takes the place of `path` when the block ends without an error.

    Raises:
        FormatError: If it cannot be written; `path` is then as it was before.
    """
    if path.is_dir():
        raise FormatError(f"{path} is a folder; give the name of a file")
    with _told(path):
        _remove_left_over(path)
        partial, descriptor = _made(path, lambda partial: os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which becomes `path` when the block ends without an error.

    Raises:
        FormatError: If `path` exists, or if it cannot be written.
    """
    _refuse_existing(path)
    with _told(path):
        _remove_left_over(path)
        partial, lock = _made(path, _open_new_folder)
        try:
            yield partial
            _refuse_existing(path)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            os.close(lock)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FormatError(f"{path} exists already; choose another folder, or remove it first")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FormatError(f"{path} cannot be written: {error.strerror or error}") from error


def _made(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Returns what is made beside `path`, and its descriptor, by which it is held."""
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
        try:
            descriptor = make(partial)
        except FileNotFoundError:
            if path.parent.is_dir():  # a folder that another writer removed before it was opened, see below
                continue
            raise
        with suppress(OSError):  # a filesystem without locks keeps what was left over
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Before it was held another writer may have taken it for one that was left over.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), partial.stat()):
                return partial, descriptor
        os.close(descriptor)


def _open_new_folder(folder: Path) -> int:
    folder.mkdir()
    return os.open(folder, os.O_RDONLY)


def _remove_left_over(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{_PARTIAL}"):
        with suppress(OSError):  # its writer lives, or another process was quicker
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(descriptor)
