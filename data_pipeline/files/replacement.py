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
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.user_error import UserError, first_line

_NEW = ".writing"
_WHOLE = ".written"

# Of a filesystem without locks, as Lustre may be mounted: there nobody may write to a folder twice at a time.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def replace_together(folder: Path) -> Iterator[Path]:
    """Yields an empty folder; what the block writes to it takes its place in `folder` at the block's end.

    An empty file stands for none: the one in its place is removed. Where the block raises, all stays as it was. One
    process at a time writes to `folder`; another one waits.

    Args:
        folder: Where the files belong; made where it is missing.

    Raises:
        UserError: If it cannot be written to.
    """
    new = folder / _NEW
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _move_to_places(folder)
            shutil.rmtree(new, ignore_errors=True)  # of a writer that was killed
            new.mkdir()
            try:
                yield new
                _check_places(folder, new)
                new.rename(folder / _WHOLE)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            _move_to_places(folder)
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk with a RuntimeError
        raise UserError(f"{folder} cannot be written to: {_reason(error)}") from error


def finish_replacing(folder: Path, error: type[UserError]) -> None:
    """Brings files to their places whose writer was killed after they began to count.

    Raises:
        UserError: An `error`, if there are such files and they cannot be moved.
    """
    try:
        if (folder / _WHOLE).exists():
            with _locked(folder):
                _move_to_places(folder)
    except OSError as problem:
        raise error(
            f"{folder} has new files whose writer was ended before they were in their places, and they cannot be "
            f"moved there: {_reason(problem)}. Run the same once as a user who may write there."
        ) from problem


def _check_places(folder: Path, new: Path) -> None:
    """Refuses files whose places cannot be theirs: later these would be in the way of every reader."""
    for path in _files_below(new):
        place = folder / path
        if place.is_dir():
            raise UserError(f"{place} is a folder; a file of this name is to be written")
        for above in place.parents:
            if above.is_file():
                raise UserError(f"{above} is a file; a folder of this name is to be written")


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
    """Holds `folder` for the block; a process that was killed holds nothing.

    It is the folder itself that is locked: a file for this would belong to whoever made it, and bar all others. NFS
    keeps such a lock within a machine.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def _reason(error: OSError | RuntimeError) -> str:
    told = error.strerror if isinstance(error, OSError) else None
    return told or first_line(error)
