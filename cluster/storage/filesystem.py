"""Where results are kept: a folder of this machine, or any filesystem that pyarrow opens.

A file is there whole or not at all. On a local folder it is written beside its place and moved there; how an object
store keeps to that is told in `remote_files.py`.

A storage that fails for a moment is tried again for a minute: see `Storage.patience_s`.

What is below the place that a `Storage` is given stays below it: no path leads out of it by `..`, and on a local folder
no symbolic link is followed, whoever put it there. The place itself may be reached by links, as people link to a
scratch disk. Each folder is opened in the one above it, so there is no moment between looking and doing in which a
folder could be swapped for a link. What remains: a hard link, or a mount, looks like what it leads to.

Credentials come from the environment (or from where the provider's own tools keep them), never from a URI: a URI is
recorded with the results and shown in messages.
"""

import copy
import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote

import pyarrow
import pyarrow.fs

from cluster.storage import object_store as remote_files
from data_pipeline.user_error import UserError

_PARTIAL = ".partial"
_THIS_PROCESS = f"{os.getpid()}-{secrets.token_hex(4)}"  # two nodes may each have a process of this number

# To open files in a folder, and no more where the system has that: it asks for no right to list its names.
_FOLDER = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)

_FIRST_PAUSE_S = 0.1  # between two attempts; each is twice as long as the one before
_LONGEST_PAUSE_S = 5.0
_SILENCE_S = 1.0  # an attempt more is nothing to tell of, a wait is

# What a shared folder answers while its server is away. ENOTCONN is that of filesystems in user space.
_PASSING = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EAGAIN),
    *(errno.ENETRESET, errno.EINTR),
}

T = TypeVar("T")


class StorageError(UserError):
    """Results cannot be read or written; the text says where and why."""


class Storage:
    """A folder, local or remote, with whole files in it. Paths are relative to it, with forward slashes.

    Args:
        location: A path, or a URI that pyarrow knows (`s3://bucket/folder`). `file:///folder` is a path too.

    Attributes:
        location: What it is called, without the options of a URI.
        local: The folder, None where it is not of this machine.
        patience_s: How long an operation that fails for a passing reason (no connection, a server that is away or asks
            to slow down) is tried again, also in the folders below. One that fails for good (no space, access denied,
            no such bucket) is an error at once.

    Raises:
        StorageError: For a `file:` URI that is not of this form, and for a URI with credentials.
    """

    patience_s = 60.0

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.path.expanduser(location)  # noqa: PTH111 - the other one breaks the slashes of a URI
        self.local: Path | None = None
        if self.location.startswith("file:"):
            if not self.location.startswith("file:///"):
                raise StorageError(f"{self.location} is not a folder of this machine; write file:///folder, or /folder")
            self.local = Path(unquote(self.location.removeprefix("file://")))
        elif "://" not in self.location:
            self.local = Path(self.location)
        self._root = self.local or Path()
        self._uri, self._folder = self.location, ""
        if self.local is None:
            if remote_files.has_credentials(self._uri):
                raise StorageError(
                    f"a URI that begins with {self._uri.partition('://')[0]}:// was given with credentials. Leave them "
                    "out, since it is recorded with the results, and set them in the environment, such as "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3"
                )
            self.location = self.location.partition("?")[0]

    def __truediv__(self, name: str) -> "Storage":
        if not name:
            raise StorageError(f"a folder in {self.location} has a name")
        self._require_below(name)
        below = copy.copy(self)
        below.location = f"{self.location.rstrip('/')}/{name}"
        below.local = None if self.local is None else self.local / name
        below._folder = f"{self._folder}/{name}"
        return below

    @contextmanager
    def opened(self, path: str = "", *, make: bool = False) -> Iterator[int]:
        """Opens a folder of a local storage for the block, yields its file descriptor.

        Args:
            path: The folder.
            make: Make it, and those above it, where they are missing.

        Raises:
            StorageError: If it is, or is behind, a symbolic link.
            OSError: If it cannot be opened or made.
        """
        self._require_below(path)
        try:
            folder = os.open(self._root, _FOLDER)
        except FileNotFoundError:
            if not make:
                raise
            self._root.mkdir(parents=True, exist_ok=True)
            folder = os.open(self._root, _FOLDER)
        try:
            names = [name for name in f"{self._folder}/{path}".split("/") if name]
            for depth, name in enumerate(names, 1):
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=folder)
                with self._no_link(folder, "/".join(names[:depth])):
                    below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def opened_file(self, path: str, flags: int, *, make: bool = False) -> Iterator[IO[bytes]]:
        """Opens a file of a local storage for the block.

        Args:
            path: The file.
            flags: Those of `os.open`.
            make: Make the folders above it where they are missing.

        Raises:
            StorageError: If it is, or is behind, a symbolic link.
            OSError: If it cannot be opened.
        """
        self._require_below(path)
        above, _, name = path.rpartition("/")
        with self.opened(above, make=make) as folder, self._no_link(folder, f"{self._folder}/{path}".lstrip("/")):
            file = os.open(name, flags | os.O_NOFOLLOW, 0o666, dir_fd=folder)
        mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb"}.get(flags & os.O_ACCMODE, "r+b")
        with os.fdopen(file, mode, buffering=0) as opened:  # what was not written on a full disk is not tried again
            yield opened

    @contextmanager
    def _no_link(self, folder: int, path: str) -> Iterator[None]:
        """Says which link is in the way where something was not opened because it is one."""
        try:
            yield
        except OSError as error:
            is_link = False
            with suppress(OSError):
                name = path.rpartition("/")[2]
                is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            if not is_link or error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise StorageError(
                f"{self._root}/{path} is a symbolic link, which is not followed: it could lead anywhere. Put what it "
                "leads to in its place; only the results folder as a whole may be a link"
            ) from error

    def _require_below(self, path: str) -> None:
        if path.startswith("/") or "\0" in path or {".", ".."} & set(path.split("/")):
            raise StorageError(
                f"{path!r} is no name of a file or folder in {self.location}: it would lead out of it, or nowhere"
            )

    def write(self, path: str, data: bytes) -> None:
        """Writes a file, replacing one that is there.

        Raises:
            StorageError: If it cannot be written; what was there before is still there.
        """

        def attempt() -> None:
            if self.local is not None:
                self._write_local(path, data)
            else:
                filesystem, root = self._remote()
                remote_files.write(filesystem, f"{root}/{path}", data)

        advice = (
            ". Is there space, and may this user write there? Run the script again when it is mended: what is finished "
            "stays finished."
        )
        self._try(attempt, path, "written", advice)

    def read(self, path: str) -> bytes | None:
        """Returns a file's content, None if there is no such file.

        Raises:
            StorageError: If it is there and cannot be read.
        """

        def attempt() -> bytes | None:
            try:
                if self.local is not None:
                    with self.opened_file(path, os.O_RDONLY) as file:
                        return file.read()
                filesystem, root = self._remote()
                return remote_files.read(filesystem, f"{root}/{path}")
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self._try(attempt, path, "read")

    def remove(self, path: str) -> None:
        """Removes a file if it is there.

        Raises:
            StorageError: If it cannot be removed.
        """

        def attempt() -> None:
            if self.local is not None:
                above, _, name = path.rpartition("/")
                with suppress(FileNotFoundError, NotADirectoryError), self.opened(above) as folder:
                    os.unlink(name, dir_fd=folder)
                return
            filesystem, root = self._remote()
            if filesystem.get_file_info(f"{root}/{path}").type == pyarrow.fs.FileType.File:
                with suppress(FileNotFoundError):  # another process was quicker
                    filesystem.delete_file(f"{root}/{path}")

        self._try(attempt, path, "removed")

    def names(self, path: str = "") -> list[str]:
        """Returns the sorted names of the files and folders in a folder; none if it is not there.

        Raises:
            StorageError: If it is there and cannot be read.
        """

        def attempt() -> list[str]:
            try:
                if self.local is not None:
                    with self.opened(path) as folder:
                        return _names(folder)
                filesystem, root = self._remote()
                selector = pyarrow.fs.FileSelector(f"{root}/{path}".rstrip("/"), allow_not_found=True)
                return sorted(info.base_name for info in filesystem.get_file_info(selector))
            except (FileNotFoundError, NotADirectoryError):
                return []

        return self._try(attempt, path, "read")

    def files(self, path: str = "") -> list[str]:
        """Returns the sorted paths of all files below a folder, relative to it; none if it is not there.

        A symbolic link to a folder is one of them. An object store is asked once for each thousand of them.

        Raises:
            StorageError: If it is there and cannot be read.
        """

        def attempt() -> list[str]:
            try:
                if self.local is not None:
                    with self.opened(path) as folder:
                        walked = list(os.fwalk(".", dir_fd=folder, onerror=_raise_unless_gone))
                    folders = {f"{place}/{name}" for place, names, _, _ in walked for name in names}
                    found = {f"{place}/{name}" for place, _, names, _ in walked for name in names}
                    links = folders - {place for place, _, _, _ in walked}
                    return sorted(name.removeprefix("./") for name in found | links)
                filesystem, root = self._remote()
                folder_path = f"{root}/{path}".rstrip("/")
                selector = pyarrow.fs.FileSelector(folder_path, allow_not_found=True, recursive=True)
                return sorted(
                    info.path.removeprefix(f"{folder_path}/")
                    for info in filesystem.get_file_info(selector)
                    if info.type == pyarrow.fs.FileType.File
                )
            except (FileNotFoundError, NotADirectoryError):
                return []

        return self._try(attempt, path, "read")

    def remove_empty_folder(self, path: str) -> None:
        """Removes a local folder if it is there and has nothing in it."""
        above, _, name = path.rpartition("/")
        if self.local is not None:
            with suppress(OSError), self.opened(above) as folder:
                os.rmdir(name, dir_fd=folder)

    def clear_partial_files(self, path: str = "") -> None:
        """Removes what writers that were killed half-way left in a local folder."""
        if self.local is None:
            return
        with suppress(OSError), self.opened(path) as folder:
            for name in _names(folder):
                if name.startswith(".") and name.endswith(_PARTIAL):
                    with suppress(OSError):  # it is in nobody's way; whoever writes next says why that is impossible
                        os.unlink(name, dir_fd=folder)

    def _write_local(self, path: str, data: bytes) -> None:
        above, _, name = path.rpartition("/")
        partial = f".{name}.{_THIS_PROCESS}{_PARTIAL}"
        with self.opened(above, make=True) as folder:
            try:
                with suppress(FileNotFoundError):  # of an attempt before this one, which could not remove it
                    os.unlink(partial, dir_fd=folder)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with os.fdopen(os.open(partial, flags, 0o666, dir_fd=folder), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):  # what went wrong first is what matters
                    os.unlink(partial, dir_fd=folder)
                raise

    def _remote(self) -> tuple[pyarrow.fs.FileSystem, str]:
        try:
            filesystem, root = remote_files.open_uri(self._uri)
        except (ValueError, ImportError) as error:
            raise StorageError(f"{self.location} is not a place that pyarrow can open: {error}") from error
        return filesystem, f"{root.rstrip('/')}{self._folder}"

    def _try(self, attempt: Callable[[], T], path: str, what: str, advice: str = "") -> T:
        """Returns what `attempt` does, which is made again while it fails for a passing reason and patience lasts."""
        self._require_below(path)
        began = time.monotonic()
        pause, told = _FIRST_PAUSE_S, False
        while True:
            try:
                return attempt()
            except OSError as error:
                reason = error.strerror or str(error)
                tried_s = time.monotonic() - began
                if not _is_passing(error) or tried_s + pause > self.patience_s:
                    tried = f", tried for {tried_s:.0f} s" if pause > _FIRST_PAUSE_S else ""
                    raise StorageError(
                        f"{self.location}/{path} cannot be {what}{tried}: {reason.rstrip('.')}{advice}"
                    ) from error
            if tried_s > _SILENCE_S and not told:
                told = True
                print(
                    f"{self.location} cannot be reached now ({reason}): trying again for up to {self.patience_s:.0f} s",
                    file=sys.stderr,
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _is_passing(error: OSError) -> bool:
    return remote_files.will_pass(error) if error.errno is None else error.errno in _PASSING


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _names(folder: int) -> list[str]:
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        return sorted(os.listdir(listed))  # noqa: PTH208 - no other takes a file descriptor
    finally:
        os.close(listed)
