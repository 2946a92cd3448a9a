"""A folder of files for another tool, written completely or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.user_error import UserError


class NewFolderError(UserError):
    """The folder to write to is not empty, or cannot be created."""


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Yields a folder to write to, next to `to`, and moves it to `to` when the block ends without an error.

    Args:
        to: A folder that is not there yet, or is empty.

    Raises:
        NewFolderError: If there is something at `to`, or if it cannot be written.
    """
    to = Path(os.path.abspath(to))  # noqa: PTH100 - `absolute` keeps the `..` of a path, which then has no name
    partial = to.with_name(f".{to.name}.{secrets.token_hex(4)}.partial")
    try:
        if to.exists() and not (to.is_dir() and not any(to.iterdir())):
            raise NewFolderError(f"{to} already exists and is not empty; choose another folder or empty it")
        partial.mkdir(parents=True)
        try:
            yield partial
            partial.replace(to)  # fails where another process has put something there in the meantime
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise NewFolderError(f"{to} cannot be written: {error.strerror or error}") from error
