"""Where results are kept: a folder of this machine, or any filesystem that pyarrow opens.

A file is there whole or not at all. On a local folder it is written beside its place and moved there; an object store
shows an object once its upload is complete.
"""

import copy
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import pyarrow.fs

from data_pipeline.user_error import UserError

_PARTIAL = ".partial"


class StorageError(UserError):
    """Results cannot be read or written; the text says where and why."""


class Storage:
    """A folder, local or remote, with whole files in it. Paths are relative to it, with forward slashes.

    Args:
        location: A path, or a URI that pyarrow knows (`s3://bucket/folder`). `file:///folder` is a path too.

    Attributes:
        location: What it is called, without the options of a URI.
        local: The folder, None where it is not of this machine.

    Raises:
        StorageError: For a `file:` URI that is not of this form.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.path.expanduser(location)  # noqa: PTH111 - the other one breaks the slashes of a URI
        self.local: Path | None = None
        if self.location.startswith("file:"):
            if not self.location.startswith("file:///"):
                raise StorageError(f"{self.location} is not a folder of this machine; write file:///folder, or /folder")
            self.local = Path(unquote(self.location.removeprefix("file://")))
        elif "://" not in self.location:
            self.local = Path(self.location)
        self._uri, self._folder = self.location, ""
        if self.local is None:
            self.location = self.location.partition("?")[0]

    def __truediv__(self, name: str) -> "Storage":
        below = copy.copy(self)
        below.location = f"{self.location.rstrip('/')}/{name}"
        below.local = None if self.local is None else self.local / name
        below._folder = f"{self._folder}/{name}"
        return below

    def write(self, path: str, data: bytes) -> None:
        """Writes a file, replacing one that is there.

        Raises:
            StorageError: If it cannot be written; what was there before is still there.
        """
        try:
            if self.local is not None:
                _write_local(self.local / path, data)
            else:
                _write_remote(*self._remote(), path, data)
        except OSError as error:
            raise StorageError(
                f"{self.location}/{path} cannot be written: {error.strerror or error}. Is there space, and may this "
                "user write there? Run the script again when it is mended: what is finished stays finished."
            ) from error

    def read(self, path: str) -> bytes | None:
        """Returns a file's content, None if there is no such file.

        Raises:
            StorageError: If it is there and cannot be read.
        """
        try:
            if self.local is not None:
                return (self.local / path).read_bytes()
            filesystem, root = self._remote()
            with filesystem.open_input_stream(f"{root}/{path}") as stream:
                content: bytes = stream.read()
                return content
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"{self.location}/{path} cannot be read: {error.strerror or error}") from error

    def remove(self, path: str) -> None:
        """Removes a file if it is there.

        Raises:
            StorageError: If it cannot be removed.
        """
        try:
            if self.local is not None:
                (self.local / path).unlink(missing_ok=True)
                return
            filesystem, root = self._remote()
            if filesystem.get_file_info(f"{root}/{path}").type == pyarrow.fs.FileType.File:
                filesystem.delete_file(f"{root}/{path}")
        except OSError as error:
            raise StorageError(f"{self.location}/{path} cannot be removed: {error.strerror or error}") from error

    def names(self, path: str = "") -> list[str]:
        """Returns the sorted names of the files and folders in a folder; none if it is not there.

        Raises:
            StorageError: If it is there and cannot be read.
        """
        try:
            if self.local is not None:
                return sorted(entry.name for entry in os.scandir(self.local / path))
            filesystem, root = self._remote()
            selector = pyarrow.fs.FileSelector(f"{root}/{path}".rstrip("/"), allow_not_found=True)
            return sorted(info.base_name for info in filesystem.get_file_info(selector))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"{self.location}/{path} cannot be read: {error.strerror or error}") from error

    def _remote(self) -> tuple[pyarrow.fs.FileSystem, str]:
        filesystem, root = _open(self._uri)
        return filesystem, f"{root.rstrip('/')}{self._folder}"


@lru_cache(maxsize=16)  # a client for all folders of a place, in each process
def _open(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    try:
        filesystem, root = pyarrow.fs.FileSystem.from_uri(uri)
    except (ValueError, ImportError) as error:
        raise StorageError(f"{uri} is not a place that pyarrow can open: {error}") from error
    return filesystem, root


def _write_remote(filesystem: pyarrow.fs.FileSystem, root: str, path: str, data: bytes) -> None:
    try:
        stream = filesystem.open_output_stream(f"{root}/{path}")
    except FileNotFoundError:
        # Object stores have no folders; where there are some, they must be there first.
        filesystem.create_dir(f"{root}/{path}".rpartition("/")[0])
        stream = filesystem.open_output_stream(f"{root}/{path}")
    with stream:
        stream.write(data)


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def clear_partial_files(folder: Path) -> None:
    """Removes what writers that were killed half-way left in a local folder."""
    for path in folder.glob(f".*{_PARTIAL}"):
        with suppress(OSError):  # it is in nobody's way; whoever writes next says why that is impossible
            path.unlink()
