"""Files that take their places together: whoever writes them may be killed at any moment.

New files are written into a hidden folder beside their places. Its renaming is the one moment at which all of them
begin to count; then they are moved to their places. Who is killed before it leaves the old files, and a folder that
the next writer clears. Who is killed after it leaves a folder that the next reader or writer moves from.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = ".writing.lock"
_NEW = ".writing"
_WHOLE = ".written"

# Of a filesystem without locks, as Lustre may be mounted: there nobody may write to a folder twice at a time.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def replaced_together(folder: Path) -> Iterator[Path]:
    """Yields an empty folder; what the block writes to it takes its place in `folder` at the block's end.

    An empty file stands for none: the one in its place is removed. Where the block raises, all stays as it was. One
    process at a time writes to `folder`; another one waits.

    Args:
        folder: Where the files belong; made where it is missing.

    Raises:
        OSError: If it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / _NEW
    with _locked(folder):
        _move_to_places(folder)
        shutil.rmtree(new, ignore_errors=True)  # of a writer that was killed
        new.mkdir()
        try:
            yield new
            for path in _files_below(new):
                # Later it would be in the way of every reader.
                if (folder / path).is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / path))
            new.rename(folder / _WHOLE)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _move_to_places(folder)


def finish_replacing(folder: Path) -> None:
    """Brings files to their places whose writer was killed after they began to count.

    Raises:
        OSError: If there are such files and they cannot be moved.
    """
    if (folder / _WHOLE).exists():
        with _locked(folder):
            _move_to_places(folder)


def _move_to_places(folder: Path) -> None:
    whole = folder / _WHOLE
    if not whole.exists():
        return
    for path in _files_below(whole):
        new, place = whole / path, folder / path
        if new.stat().st_size == 0:
            place.unlink(missing_ok=True)
            new.unlink()
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            new.replace(place)
    for path in [*sorted(whole.rglob("*"), reverse=True), whole]:  # folders, each after those in it
        path.rmdir()


def _files_below(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds `folder` for the block; a process that was killed holds nothing."""
    path = folder / _LOCK
    with os.fdopen(_open_locked(path), "wb"):
        try:
            yield
        finally:
            # While it is locked, so that nobody can be waiting for a file that is gone.
            path.unlink(missing_ok=True)


def _open_locked(path: Path) -> int:
    while True:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            # Whoever held it has removed the file: then it is another one's, or none.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
