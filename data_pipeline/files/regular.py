"""Paths that stay valid, and opening regular files only.

A named pipe would block its reader for ever, and a device may have no end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from data_pipeline.user_error import UserError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def absolute_path(path: str | os.PathLike[str], error: type[UserError] = UserError) -> Path:
    """Returns a path that means the same after a change of the working folder.

    Raises:
        UserError: An `error`, if no file can have this path, or if it is relative and the working folder was deleted.
    """
    text = os.fspath(path)
    if (reason := why_no_path(text)) is not None:
        raise error(f"{text!r} is not a path: {reason}")
    try:
        return Path(text).absolute()
    except FileNotFoundError as problem:
        raise error(
            f"{text} is relative to the working folder, which was deleted; change to another folder (cd), or give an "
            "absolute path"
        ) from problem


def why_no_path(text: str) -> str | None:
    """Returns why no file can have this path; None if one can."""
    if "\0" in text:
        return "it contains a NUL character"
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return "it contains characters that no file name can have"
    return None


def kind_of(mode: int) -> str | None:
    """Returns what a file with the mode of `os.stat` is in words; None for a regular file or a folder."""
    return _KINDS.get(stat.S_IFMT(mode))


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, folder: int | None = None) -> int:
    """Returns a file descriptor, as `os.open` does, but only of a regular file.

    Args:
        path: The file.
        flags: The flags of `os.open`.
        folder: The descriptor of the folder that `path` is relative to; None for the working folder.

    Raises:
        OSError: If it cannot be opened, or if it is something else; its `strerror` says what.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer. Regular files ignore it.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket, or a pipe that nobody reads
            raise
        raise _refused(os.stat(path, dir_fd=folder).st_mode, path) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _refused(mode, path)
    return descriptor


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading; raises an OSError as `open_regular`."""
    return os.fdopen(open_regular(path), "rb")


def read_file(path: Path) -> bytes:
    """Returns the content of a regular file; raises an OSError as `open_regular`."""
    with open_file(path) as file:
        return file.read()


def _refused(mode: int, path: str | os.PathLike[str]) -> OSError:
    kind = kind_of(mode)
    if kind is None:
        return OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    text = f"it is {kind}; only regular files are accepted, not pipes such as /dev/stdin or <(…)"
    return OSError(errno.EINVAL, text, os.fspath(path))
