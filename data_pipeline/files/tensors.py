"""Tensors in files: loaded without running code, and checked before anything is computed from them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_pipeline.user_error import UserError, first_line

Array = npt.NDArray[np.float32]

LARGEST = 1e6
"""Pixels and millimetres beyond this (a kilometre) are damage, not a hand."""


def load(path: Path, error: type[UserError], *, mapped: bool) -> Any:
    """Returns what `torch.save` wrote, on the CPU.

    Args:
        path: The file.
        error: What is raised.
        mapped: Leave tensors on disk, so that only what is taken of a large file costs memory. Who keeps their numbers
            copies them: they change with the file, though not where another one takes its place.

    Raises:
        UserError: An `error` that names the file, if it cannot be read or holds anything but tensors and plain values.
    """
    text = f"{path} is not a file that torch.load(..., weights_only=True) reads"
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise error(f"{text}: it was cut, or torch.save did not write it")
            file.seek(0)
            return torch.load(path if mapped else file, weights_only=True, mmap=mapped, map_location="cpu")
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from problem
    except UserError:
        raise
    except Exception as problem:
        # torch.load has no error of its own for a damaged file: what it raises depends on the damage.
        reason = first_line(problem)
        raise error(f"{text}: {reason}") from problem


def vectors(content: object, where: object, error: type[UserError]) -> Array:
    """Returns the vectors of joints, (N, J, 3), mm, that a file holds; they share the tensor's memory.

    Raises:
        UserError: An `error` that begins with `where`, if it is no float32 tensor of such a shape, or has a number that
            is not finite or beyond `LARGEST`.
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
    """Returns a tensor's numbers, which share its memory; a sparse one is an `error` that begins with `where`."""
    try:
        array: npt.NDArray[Any] = content.detach().numpy()
    except (TypeError, RuntimeError) as problem:  # a sparse tensor, bfloat16, or one without numbers
        raise error(f"{where} holds a tensor that numpy cannot read: {problem}") from problem
    return array
