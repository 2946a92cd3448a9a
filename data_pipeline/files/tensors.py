"""Tensors in files: loaded without executing code, and checked before use."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_pipeline.files.regular import open_file
from data_pipeline.user_error import UserError, first_line

Array = npt.NDArray[np.float32]

LARGEST = 1e6
"""Larger values, in pixels or millimetres (a kilometre), indicate damaged data."""


def load(path: Path, error: type[UserError], *, mapped: bool) -> Any:
    """Loads a file of `torch.save` on the CPU.

    Args:
        path: The file.
        error: The class of the errors to raise.
        mapped: Memory-map tensors, so that only the parts of a large file that are used take memory. Copy numbers that
            must be kept: they change if the file is modified, but not if it is replaced.

    Raises:
        UserError: An `error` that names the file, if it cannot be read or holds anything but tensors and plain values.
    """
    text = f"{path} is not a file that torch.load(..., weights_only=True) reads"
    try:
        with open_file(path) as file:
            if not zipfile.is_zipfile(file):
                raise error(f"{text}: it is truncated, or torch.save did not write it")
            file.seek(0)
            return torch.load(path if mapped else file, weights_only=True, mmap=mapped, map_location="cpu")
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from problem
    except UserError:
        raise
    except Exception as problem:
        # torch.load has no specific error for damaged files: what it raises depends on the damage.
        reason = first_line(problem)
        raise error(f"{text}: {reason}") from problem


def require_uncompressed(content: bytes) -> None:
    """Raises a ValueError if a file of tensors is compressed, as `torch.save` never does: it could have any size."""
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            n_bytes = sum(entry.file_size for entry in archive.infolist())
        if n_bytes > len(content):
            raise ValueError(f"it claims {n_bytes:,} bytes of tensors in {len(content):,}")


def vectors(content: object, where: object, error: type[UserError]) -> Array:
    """Returns a file's tensor of joint vectors, (N, J, 3), mm, as an array that shares its memory.

    Raises:
        UserError: An `error` that begins with `where`, if it is not a float32 tensor of that shape, or a number is not
            finite or exceeds `LARGEST`.
    """
    array: Array = numbers(tensor(content, where, error, torch.float32), where, error)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise error(f"{where} has the shape {array.shape}; expected (N, J, 3) with at least one sample")
    if not (array.min() >= -LARGEST and array.max() <= LARGEST):  # with NaN no comparison holds
        sample = int(np.argmin((np.abs(array) <= LARGEST).all(axis=(1, 2))))
        is_finite = np.isfinite(array[sample]).all()
        what = f"values beyond {LARGEST:.0f} mm" if is_finite else "NaN or infinite values"
        raise error(f"{where} has {what}; the first bad sample is {sample}")
    return array


def tensor(content: object, where: object, error: type[UserError], dtype: torch.dtype) -> torch.Tensor:
    """Returns `content` if it is a tensor of `dtype`, or raises an `error` that begins with `where`."""
    if not isinstance(content, torch.Tensor):
        raise error(f"{where} holds a {type(content).__name__}; expected a tensor of {dtype} numbers")
    if content.dtype != dtype:
        raise error(f"{where} holds {content.dtype} numbers; expected {dtype}")
    return content


def numbers(content: torch.Tensor, where: object, error: type[UserError]) -> npt.NDArray[Any]:
    """Returns a tensor as an array that shares its memory; raises an `error` that begins with `where` if it cannot."""
    try:
        array: npt.NDArray[Any] = content.detach().numpy()
    except (TypeError, RuntimeError) as problem:  # a sparse tensor, bfloat16, or one without numbers
        raise error(f"{where} holds a tensor that numpy cannot read: {problem}") from problem
    return array
