"""Where results are stored: a local folder, or any filesystem that pyarrow opens.

A file is written completely or not at all. In a local folder it is written under another name and then renamed; for
object stores see `object_store.py`. A killed process leaves everything that it renamed. A power cut leaves for certain
only what was synchronised with the disk, so files are renamed when they and those before them are: otherwise a
`trial.json` could say that a trial is finished whose records are empty.

An operation that fails temporarily is tried again for a minute: see `Storage.patience_s`.

No path leads out of a `Storage`: `..` is refused, and in a local folder no symbolic link is followed. Only the path of
the storage itself may contain links, as people link to a scratch disk. Each folder is opened relative to its parent, so
a folder cannot be replaced by a link between check and use. Hard links and mounts remain: they look like what they lead
to.

Credentials come from the environment (or from where the provider's tools keep them), never from a URI: a URI is
recorded with the results and shown in messages.
"""

import copy
import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote

import pyarrow
import pyarrow.fs

from cluster.storage import object_store
from data_pipeline.files.regular import absolute_path, open_regular
from data_pipeline.user_error import UserError
from data_pipeline.words import say

_PARTIAL = ".partial"
_THIS_PROCESS = f"{os.getpid()}-{secrets.token_hex(4)}"  # two nodes may each have a process with this number

# Only to open files in a folder, if the system supports that: it needs no permission to list the folder.
_FOLDER = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)

_FIRST_PAUSE_S = 0.1  # between two attempts; each pause is twice as long as the previous one
_LONGEST_PAUSE_S = 5.0
_UNREPORTED_S = 1.0  # shorter waits are not reported

# The errors of a shared folder while its server is away. ENOTCONN comes from filesystems in user space.
_TEMPORARY = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EAGAIN),
    *(errno.ENETRESET, errno.EINTR),
}

_LARGEST = 2**34
"""The largest file that is read, in bytes; the file system can claim any size for a file with holes."""

_MAX_LEVELS = 16
"""How deep the folders of an experiment can be nested; a run makes five levels."""

T = TypeVar("T")


class StorageError(UserError):
    """Results cannot be read or written; the message says where and why."""


class Storage:
    """A local or remote folder. Paths are relative to it, with forward slashes.

    Methods raise `StorageError` if an operation fails; a file that was there before a failed `write` is still there.

    Args:
        location: A path, or a URI that pyarrow knows (`s3://bucket/folder`). `file:///folder` is a path too.

    Attributes:
        location: The path or URI, without the options of a URI.
        local: The absolute path of the folder, also after a later change of the working folder; None if it is not a
            local folder.
        patience_s: How long an operation that fails for a temporary reason (no connection, a server that is away or
            asks to slow down) is tried again; folders below inherit it. A permanent failure (no space, access denied,
            no such bucket) is an immediate error.

    Raises:
        StorageError: For another form of `file:` URI, for a URI with credentials, for a path that cannot be one, and
            for a relative path in a working folder that was deleted.
    """

    patience_s = 60.0

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.path.expanduser(location)  # noqa: PTH111 - the other one breaks the slashes of a URI
        self.local: Path | None = None
        if self.location.startswith("file:"):
            if not self.location.startswith("file:///"):
                raise StorageError(f"{self.location} is not a local folder; write file:///folder, or /folder")
            self.local = absolute_path(unquote(self.location.removeprefix("file://")), StorageError)
        elif "://" not in self.location:
            self.local = absolute_path(self.location, StorageError)
        self._root = self.local or Path()
        self._uri, self._folder = self.location, ""
        if self.local is None:
            if object_store.has_credentials(self._uri):
                raise StorageError(
                    f"a {self._uri.partition('://')[0]}:// URI was given with credentials. Leave them out, since the "
                    "URI is recorded with the results, and set them in the environment, such as AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY for S3"
                )
            self.location = self.location.partition("?")[0]

    def __truediv__(self, name: str) -> "Storage":
        if not name:
            raise StorageError(f"a folder in {self.location} needs a name")
        self._require_below(name)
        below = copy.copy(self)
        below.location = f"{self.location.rstrip('/')}/{name}"
        below.local = None if self.local is None else self.local / name
        below._folder = f"{self._folder}/{name}"
        return below

    @contextmanager
    def opened(self, path: str = "", *, make: bool = False) -> Iterator[int]:
        """Opens a folder of a local storage for the block and yields its file descriptor.

        Args:
            path: The folder.
            make: Whether to make missing folders.

        Raises:
            StorageError: If the path contains a symbolic link.
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
                above, folder = folder, below  # first, or after Ctrl-C another thread's file would be closed below
                os.close(above)
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def opened_file(self, path: str, flags: int, *, make: bool = False) -> Iterator[IO[bytes]]:
        """Opens a file of a local storage for the block.

        Args:
            path: The file.
            flags: The flags of `os.open`.
            make: Whether to make missing folders.

        Raises:
            StorageError: If the path contains a symbolic link.
            OSError: If it cannot be opened, or is not a regular file.
        """
        self._require_below(path)
        above, _, name = path.rpartition("/")
        with self.opened(above, make=make) as folder, self._no_link(folder, f"{self._folder}/{path}".lstrip("/")):
            file = open_regular(name, flags | os.O_NOFOLLOW, folder=folder)
        mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb"}.get(flags & os.O_ACCMODE, "r+b")
        with os.fdopen(file, mode, buffering=0) as opened:  # on a full disk, a buffer would be written again
            yield opened

    @contextmanager
    def _no_link(self, folder: int, path: str) -> Iterator[None]:
        """Turns the error of a symbolic link into one that names the link."""
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
                f"{self._root}/{path} is a symbolic link, which is not followed: it could lead anywhere. Replace it "
                "with what it leads to; only the results folder as a whole may be a link"
            ) from error

    def _require_below(self, path: str) -> None:
        if path.startswith("/") or "\0" in path or {".", ".."} & set(path.split("/")):
            raise StorageError(
                f"{path!r} does not name a file or folder in {self.location}: it would lead out of it, or nowhere"
            )

    def _require_size(self, path: str, n_bytes: int, at_most: int) -> None:
        if n_bytes > at_most:
            raise StorageError(
                f"{self.location}/{path} has more than {at_most:,} bytes, which no run writes; remove it"
            )

    def write(self, path: str, data: bytes) -> None:
        """Writes a file, replacing one that is there."""
        self._require_below(path)
        above, _, name = path.rpartition("/")
        self.write_files(above, {name: data})

    def write_files(self, folder: str, files: Mapping[str, bytes], *, sync: bool = True) -> None:
        """Writes files of a folder by their names, in this order, replacing those that are there.

        A file is there only if those before it are. All are written before the first one is synchronised with the disk,
        so that the disk writes them together.

        Args:
            folder: The folder.
            files: The content of each file.
            sync: Wait until the files are on the disk; without it, a power cut may leave empty ones.
        """
        paths = [f"{folder}/{name}" if folder else name for name in files]
        for path in paths:
            self._require_below(path)

        def attempt() -> None:
            if self.local is not None:
                self._write_local(folder, files, sync=sync)
                return
            filesystem, root = self._remote()
            for path, data in zip(paths, files.values(), strict=True):
                object_store.write(filesystem, f"{root}/{path}", data)

        advice = (
            ". Is there space, and may this user write there? Run the script again when this is fixed: finished trials "
            "stay finished."
        )
        self._try(attempt, paths[0] if len(paths) == 1 else folder, "written", advice)

    def read(self, path: str, *, at_most: int = _LARGEST) -> bytes | None:
        """Returns a file's content; None if it does not exist.

        Raises:
            StorageError: Also if it has more than `at_most` bytes.
        """

        def attempt() -> bytes | None:
            try:
                if self.local is not None:
                    with self.opened_file(path, os.O_RDONLY) as file:
                        self._require_size(path, os.fstat(file.fileno()).st_size, at_most)
                        return file.read()
                filesystem, root = self._remote()
                content = object_store.read(filesystem, f"{root}/{path}", at_most)
                self._require_size(path, len(content or b""), at_most)
                return content
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self._try(attempt, path, "read")

    def remove(self, path: str) -> None:
        """Removes a file if it exists."""

        def attempt() -> None:
            if self.local is not None:
                above, _, name = path.rpartition("/")
                with suppress(FileNotFoundError, NotADirectoryError), self.opened(above) as folder:
                    os.unlink(name, dir_fd=folder)
                return
            filesystem, root = self._remote()
            if filesystem.get_file_info(f"{root}/{path}").type == pyarrow.fs.FileType.File:
                with suppress(FileNotFoundError):  # another process was faster
                    filesystem.delete_file(f"{root}/{path}")

        self._try(attempt, path, "removed")

    def names(self, path: str = "") -> list[str]:
        """Returns the sorted names of the files and folders in a folder; none if it does not exist."""

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
        """Returns the sorted paths of all files below a folder, relative to it; none if it does not exist.

        A symbolic link to a folder counts as a file. An object store gets one request per thousand files.

        Raises:
            StorageError: Also if folders are nested deeper than those of any experiment.
        """

        def attempt() -> list[str]:
            try:
                if self.local is not None:
                    with self.opened(path) as folder:
                        return sorted(self._files_below(folder, ".", path))
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

    def _files_below(self, above: int, name: str, path: str, place: str = "") -> Iterator[str]:
        """Yields the files in a folder and below it, which is `place` below `path`; faster than `os.fwalk`."""
        if place.count("/") > _MAX_LEVELS:
            inner = "/".join([path, *place.split("/")[:2]]).lstrip("/")
            raise StorageError(
                f"{self.location}/{inner} has folders in folders, more than {_MAX_LEVELS} levels deep, which no "
                "run makes; remove it"
            )
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield place + entry.name
                        continue
                    with suppress(FileNotFoundError, NotADirectoryError):  # it was just removed or replaced
                        yield from self._files_below(folder, entry.name, path, f"{place}{entry.name}/")
        finally:
            os.close(folder)

    def remove_empty_folder(self, path: str) -> None:
        """Removes a local folder if it is empty."""
        above, _, name = path.rpartition("/")
        if self.local is not None:
            with suppress(OSError), self.opened(above) as folder:
                os.rmdir(name, dir_fd=folder)

    def clear_partial_files(self, path: str = "") -> None:
        """Removes the partial files that killed writers left in a local folder."""
        if self.local is None:
            return
        with suppress(OSError), self.opened(path) as folder:
            for name in _names(folder):
                if name.startswith(".") and name.endswith(_PARTIAL):
                    with suppress(OSError):  # it does no harm; the next write reports what is wrong
                        os.unlink(name, dir_fd=folder)

    def _write_local(self, path: str, files: Mapping[str, bytes], *, sync: bool) -> None:
        partials = {name: f".{name}.{_THIS_PROCESS}{_PARTIAL}" for name in files}
        with self.opened(path, make=True) as folder:
            try:
                with ExitStack() as stack:
                    written = []
                    for name, data in files.items():
                        with suppress(FileNotFoundError):  # left by an earlier attempt that could not remove it
                            os.unlink(partials[name], dir_fd=folder)
                        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                        descriptor = os.open(partials[name], flags, 0o666, dir_fd=folder)
                        written.append(stack.enter_context(os.fdopen(descriptor, "wb")))
                        written[-1].write(data)
                        written[-1].flush()
                    for file in written if sync else []:
                        os.fsync(file.fileno())
                for name, partial in partials.items():
                    os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                for partial in partials.values():
                    with suppress(OSError):  # the first error is the one to report
                        os.unlink(partial, dir_fd=folder)
                raise

    def _remote(self) -> tuple[pyarrow.fs.FileSystem, str]:
        try:
            filesystem, root = object_store.open_uri(self._uri)
        except (ValueError, ImportError) as error:
            raise StorageError(f"{self.location} is not a place that pyarrow can open: {error}") from error
        return filesystem, f"{root.rstrip('/')}{self._folder}"

    def _try(self, attempt: Callable[[], T], path: str, what: str, advice: str = "") -> T:
        """Returns the result of `attempt`; tries again for `patience_s` while it fails for a temporary reason."""
        self._require_below(path)
        began = time.monotonic()
        pause, reported = _FIRST_PAUSE_S, False
        while True:
            try:
                return attempt()
            except OSError as error:
                reason = error.strerror or str(error)
                tried_s = time.monotonic() - began
                if not _is_temporary(error) or tried_s + pause > self.patience_s:
                    tried = f", tried for {tried_s:.0f} s" if pause > _FIRST_PAUSE_S else ""
                    raise StorageError(
                        f"{self.location}/{path} cannot be {what}{tried}: {reason.rstrip('.')}{advice}"
                    ) from error
            if tried_s > _UNREPORTED_S and not reported:
                reported = True
                say(
                    f"{self.location} cannot be reached ({reason}): trying again for up to {self.patience_s:.0f} s",
                    sys.stderr,
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _is_temporary(error: OSError) -> bool:
    return object_store.is_temporary(error) if error.errno is None else error.errno in _TEMPORARY


def _names(folder: int) -> list[str]:
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        return sorted(os.listdir(listed))  # noqa: PTH208 - pathlib takes no file descriptor
    finally:
        os.close(listed)
