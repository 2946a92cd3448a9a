"""Tables: the files below the data folder that distorters read, beside the sets of poses.

`NAME_errors.pt`
    The errors, prediction minus label, of M recorded samples: a float32 tensor (M, J, 3), mm.
`NAME_error_stats.json`
    Their mean and standard deviation for each joint and axis, mm: `mean_mm` and `std_mm`, J rows of 3 numbers each;
    `joints`, the joints' names; `samples`, M.
`NAME_neighbors.pt`
    For each of N samples, those of a bank of M that are most like it, nearest first: a dict of `indices`, int32 (N, K);
    `labels`, the first min(N, 16) labels of these samples; `n_bank`, M.

`tune_runs/prepare_data.py` makes them.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton, skeleton_for
from data_pipeline.user_error import UserError

Indices = npt.NDArray[np.int32]

N_FIRST_LABELS = 16
"""How many labels a table of neighbours keeps of the set that it was made for."""

_ERRORS, _ERROR_STATS, _NEIGHBORS = "_errors.pt", "_error_stats.json", "_neighbors.pt"


class TableError(UserError):
    """A table is missing or broken; the text names the file."""


@dataclass(frozen=True)
class Table:
    """What a distorter takes its numbers from.

    The array may be memory that other trials read too: nobody writes to it.

    Attributes:
        array: Errors, (M, J, 3), mm; or mean and standard deviation, (2, J, 3), mm; or the rows of a bank, (N, K).
        fingerprint: A hash of the array.
    """

    array: Array | Indices
    fingerprint: str


@dataclass(frozen=True)
class NeighborTable(Table):
    """The most similar samples of a bank for each sample of a training set, nearest first, (N, K).

    Attributes:
        first_labels: Labels of the set that it was made for, the first min(N, 16), (n, J, 3), mm.
        n_bank: M, the number of samples in the bank.
    """

    first_labels: Array
    n_bank: int


def errors_file(name: str) -> str:
    """Returns the name of the file with the recorded errors `name`."""
    return f"{name}{_ERRORS}"


def error_stats_file(name: str) -> str:
    """Returns the name of the file with the error statistics `name`."""
    return f"{name}{_ERROR_STATS}"


def neighbors_file(name: str) -> str:
    """Returns the name of the file with the neighbours `name`."""
    return f"{name}{_NEIGHBORS}"


def write_errors(data_dir: Path, name: str, errors: Array) -> None:
    """Writes recorded errors, prediction minus label, (M, J, 3), mm.

    Raises:
        TableError: If they are not what can be read again.
    """
    path = Path(data_dir) / errors_file(name)
    tensor = torch.from_numpy(np.ascontiguousarray(errors, dtype=np.float32))
    _vectors(tensor, path)
    _write(path, lambda partial: torch.save(tensor, partial))


def write_error_stats(
    data_dir: Path, name: str, mean_mm: Array, std_mm: Array, skeleton: Skeleton, n_samples: int
) -> None:
    """Writes mean and standard deviation, (J, 3) each, mm, of the errors of `n_samples` samples.

    Raises:
        TableError: If they are not what can be read again.
    """
    path = Path(data_dir) / error_stats_file(name)
    content = {
        "mean_mm": np.asarray(mean_mm, dtype=np.float64).tolist(),
        "std_mm": np.asarray(std_mm, dtype=np.float64).tolist(),
        "joints": list(skeleton.joint_names),
        "samples": int(n_samples),
    }
    _error_stats(content, path)
    _write(path, lambda partial: partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def write_neighbors(data_dir: Path, name: str, indices: Indices, labels: Array, n_bank: int) -> None:
    """Writes the most similar samples of a bank for each sample of a training set.

    Args:
        data_dir: The data folder; made where it is missing.
        name: The table's name below it.
        indices: Rows of the bank, nearest first, (N, K).
        labels: The set's labels, (N, J, 3), mm; the first of them are kept, to know the set by.
        n_bank: M, the number of samples in the bank.

    Raises:
        TableError: If they are not what can be read again.
    """
    path = Path(data_dir) / neighbors_file(name)
    content = {
        "indices": torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int32)),
        "labels": torch.from_numpy(np.array(labels[:N_FIRST_LABELS], dtype=np.float32)),
        "n_bank": int(n_bank),
    }
    _neighbors(content, path)
    _write(path, lambda partial: torch.save(content, partial))


def read_table(data_dir: Path, file_name: str) -> Table:
    """Reads a table.

    Args:
        data_dir: The data folder.
        file_name: As `errors_file`, `error_stats_file` or `neighbors_file` gives it; a folder may stand in front.

    Raises:
        TableError: If the file is missing or broken.
    """
    path = Path(data_dir) / file_name
    kind = next((kind for kind in (_ERRORS, _ERROR_STATS, _NEIGHBORS) if file_name.endswith(kind)), None)
    if kind is None:
        raise TableError(f"{path} is no table: names of tables end in {_ERRORS}, {_ERROR_STATS} or {_NEIGHBORS}")
    content = _load(path, Path(data_dir), kind)
    if kind == _NEIGHBORS:
        return _neighbors(content, path)
    array = _vectors(content, path) if kind == _ERRORS else _error_stats(content, path)
    return Table(array, _fingerprint(array))


def _load(path: Path, data_dir: Path, kind: str) -> Any:
    if not path.is_file():
        names = sorted(other.relative_to(data_dir).as_posix() for other in data_dir.rglob(f"*{kind}"))
        has = f"has {', '.join(names)}" if names else f"has no file *{kind}"
        raise TableError(
            f"{path} does not exist; {data_dir} {has}. tune_runs/prepare_data.py makes such files: see its --help."
        )
    reader = "json.loads" if kind == _ERROR_STATS else "torch.load(..., weights_only=True)"
    try:
        if kind == _ERROR_STATS:
            return json.loads(path.read_text(encoding="utf-8"))
        return torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # torch.load has no error of its own for a damaged file: what it raises depends on the damage.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TableError(f"{path} is not a file that {reader} reads: {reason}") from error


def _vectors(content: object, where: object) -> Array:
    """Returns vectors of joints from a file, float32 (M, J, 3), or tells what is wrong with them."""
    array: Array = _array(content, torch.float32, where)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise TableError(f"{where} has the shape {array.shape}; needed is (M, J, 3) with at least one sample")
    finite = np.isfinite(array).all(axis=(1, 2))  # (M,)
    if not finite.all():
        raise TableError(f"{where} has NaN or infinite values; the first bad sample is {int(np.argmin(finite))}")
    return array


def _error_stats(content: object, where: object) -> Array:
    """Returns mean and standard deviation from a file, (2, J, 3), or tells what is wrong with them."""
    keys = ("mean_mm", "std_mm", "joints", "samples")
    _check_keys(content, keys, where)
    assert isinstance(content, dict)
    try:
        joints = tuple(map(str, content["joints"]))
        expected = skeleton_for(len(joints)).joint_names
    except (UserError, TypeError) as error:
        raise TableError(f"{where}: joints: {error}") from error
    if joints != expected:
        raise TableError(
            f"{where} has statistics of the joints {', '.join(joints)}, but {len(joints)} joints are "
            f"{', '.join(expected)}, in this order"
        )
    arrays = []
    for key in ("mean_mm", "std_mm"):
        try:
            array = np.array(content[key], dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise TableError(f"{where}: {key} is no array of numbers: {error}") from error
        if array.shape != (len(joints), 3):
            raise TableError(f"{where}: {key} has the shape {array.shape}; needed is ({len(joints)}, 3)")
        wrong = ~np.isfinite(array) if key == "mean_mm" else ~(np.isfinite(array) & (array >= 0))
        if wrong.any():
            joint = joints[int(np.argmax(wrong.any(axis=1)))]
            allowed = "finite numbers" if key == "mean_mm" else "finite numbers of at least 0"
            raise TableError(f"{where}: {key} of {joint} are not all {allowed}")
        arrays.append(array)
    return np.stack(arrays)  # (2, J, 3)


def _neighbors(content: object, where: object) -> NeighborTable:
    """Returns a table of neighbours from a file, or tells what is wrong with it."""
    _check_keys(content, ("indices", "labels", "n_bank"), where)
    assert isinstance(content, dict)
    indices = _array(content["indices"], torch.int32, f"{where}: indices")
    if indices.ndim != 2 or 0 in indices.shape:
        raise TableError(f"{where}: indices have the shape {indices.shape}; needed is (N, K)")
    labels = _vectors(content["labels"], f"{where}: labels")
    n_labels = min(len(indices), N_FIRST_LABELS)
    if len(labels) != n_labels:
        raise TableError(f"{where} has {len(labels)} labels; needed are the first {n_labels} of the set")
    n_bank = content["n_bank"]
    if not isinstance(n_bank, int) or isinstance(n_bank, bool) or n_bank < 1:
        raise TableError(f"{where}: n_bank is {n_bank!r}; needed is a number of samples")
    wrong = ((indices < 0) | (indices >= n_bank)).any(axis=1)  # (N,)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TableError(f"{where}: row {row} names samples outside of the bank, which has {n_bank}")
    return NeighborTable(indices, _fingerprint(indices), labels, n_bank)


def _check_keys(content: object, keys: tuple[str, ...], where: object) -> None:
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        has = (
            f"dict of {', '.join(map(str, content)) or 'nothing'}"
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise TableError(f"{where} holds a {has}; needed is a dict of {', '.join(keys)}")


def _array(content: object, dtype: torch.dtype, where: object) -> Any:
    if not isinstance(content, torch.Tensor):
        raise TableError(f"{where} holds a {type(content).__name__}; needed is a tensor")
    if content.dtype != dtype:
        raise TableError(f"{where} holds {content.dtype} numbers; needed is {dtype}")
    try:
        return content.detach().numpy()
    except (TypeError, RuntimeError) as error:  # a sparse tensor, or one without numbers
        raise TableError(f"{where} holds a tensor that numpy cannot read: {error}") from error


def _fingerprint(array: Array | Indices) -> str:
    digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file so that it is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
