"""Tables: files in the data folder that distorters read, in addition to the datasets.

`NAME_errors.pt`
    The errors, prediction minus label, of M recorded samples: a dict of `errors`, float32 (M, J, 3), mm, and
    `label_keys`, int64 (M,), the keys of these samples' labels; or only the tensor of errors.
`NAME_error_stats.json`
    Their mean and standard deviation for each joint and axis, mm: `mean_mm` and `std_mm`, J rows of 3 numbers each;
    `joints`, the joint names; `samples`, M.
`NAME_neighbors.pt`
    The most similar samples of a bank of M for each of N samples, nearest first: a dict of `indices`, int32 (N, K);
    `label_keys`, int64 (N,), the keys of the N samples' labels; `n_bank`, M; and, if known, `bank_keys`, int64 (M,),
    the keys of the bank's labels.

The *key* of a label is a hash of all its bits; it identifies the sample. `tune_runs/prepare_data.py` makes tables.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_pipeline.dataset_name import NAME_RULE, is_dataset_name
from data_pipeline.files.regular import read_file
from data_pipeline.files.replacement import finish_replacing
from data_pipeline.files.tensors import LARGEST, Array, load, numbers, tensor, vectors
from data_pipeline.pose_dataset import visible_files
from data_pipeline.skeleton import Skeleton, skeleton_for
from data_pipeline.user_error import UserError

Indices = npt.NDArray[np.int32]
Keys = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15  # an odd number with random-looking bits: 2⁶⁴ divided by the golden ratio

_ERRORS, _ERROR_STATS, _NEIGHBORS = "_errors.pt", "_error_stats.json", "_neighbors.pt"


class TableError(UserError):
    """A table is missing or broken; the message names the file."""


@dataclass(frozen=True)
class Table:
    """The data of a distorter.

    Never write to the array: other trials may read the same memory.

    Attributes:
        array: Errors, (M, J, 3), mm; or mean and standard deviation, (2, J, 3), mm; or rows of a bank, (N, K).
        fingerprint: A hash of the array.
        label_keys: The key of each row's label, (M,) or (N,); None if unknown.
    """

    array: Array | Indices
    fingerprint: str
    label_keys: Keys | None = None


@dataclass(frozen=True, kw_only=True)
class NeighborTable(Table):
    """The most similar samples of a bank for each sample of a training set, nearest first, (N, K).

    Attributes:
        label_keys: The keys of the training set's labels, (N,).
        n_bank: M, the number of samples in the bank.
        bank_keys: The keys of the bank's labels, (M,); None if unknown.
    """

    label_keys: Keys
    n_bank: int
    bank_keys: Keys | None = None


def errors_file(name: str) -> str:
    """Returns the name of the file with the recorded errors `name`."""
    return f"{name}{_ERRORS}"


def error_stats_file(name: str) -> str:
    """Returns the name of the file with the error statistics `name`."""
    return f"{name}{_ERROR_STATS}"


def neighbors_file(name: str) -> str:
    """Returns the name of the file with the neighbours `name`."""
    return f"{name}{_NEIGHBORS}"


def label_keys(labels: Array) -> Keys:
    """Returns a hash of all bits of each label, (N, J, 3): (N,).

    Different labels have the same key with a probability of about 2⁻⁶⁴. The key is a polynomial at a fixed point modulo
    2⁶⁴, whose coefficients are the bits of the 3·J numbers, read as integers.
    """
    bits = np.ascontiguousarray(labels, dtype=np.float32).reshape(len(labels), -1).view(np.uint32)  # (N, 3·J)
    powers = np.cumprod(np.full(bits.shape[1], _BASE, np.uint64))  # (3·J,)
    keys: Keys = np.einsum("nj,j->n", bits, powers).view(np.int64)  # (N, 3·J) -> (N,)
    return keys


def write_errors(data_dir: Path, name: str, errors: Array, labels: Array | None = None) -> None:
    """Writes recorded errors.

    Args:
        data_dir: The folder of the table.
        name: The table's name in it.
        errors: Prediction minus label, (M, J, 3), mm.
        labels: The labels, (M, J, 3), mm; their keys allow neighbours in another set to be refused. None if unknown.

    Raises:
        TableError: If the content is not valid.
    """
    path = Path(data_dir) / errors_file(name)
    content: Any = torch.from_numpy(np.ascontiguousarray(errors, dtype=np.float32))
    if labels is not None:
        content = {"errors": content, "label_keys": torch.from_numpy(label_keys(labels))}
    _check_errors(content, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def write_error_stats(
    data_dir: Path, name: str, mean_mm: Array, std_mm: Array, skeleton: Skeleton, n_samples: int
) -> None:
    """Writes mean and standard deviation, (J, 3) each, mm, of the errors of `n_samples` samples.

    Raises:
        TableError: If the content is not valid.
    """
    path = Path(data_dir) / error_stats_file(name)
    content = {
        "mean_mm": np.asarray(mean_mm, dtype=np.float64).tolist(),
        "std_mm": np.asarray(std_mm, dtype=np.float64).tolist(),
        "joints": list(skeleton.joint_names),
        "samples": int(n_samples),
    }
    _check_error_stats(content, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_neighbors(
    data_dir: Path, name: str, indices: Indices, labels: Array, n_bank: int, bank: Array | None = None
) -> None:
    """Writes the most similar samples of a bank for each sample of a training set.

    Args:
        data_dir: The folder of the table.
        name: The table's name in it.
        indices: Rows of the bank, nearest first, (N, K).
        labels: The set's labels, (N, J, 3), mm; their keys allow another set to be refused.
        n_bank: M, the number of samples in the bank.
        bank: The bank's labels, (M, J, 3), mm; their keys allow errors of another set to be refused. None if unknown.

    Raises:
        TableError: If the content is not valid.
    """
    path = Path(data_dir) / neighbors_file(name)
    content = {
        "indices": torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int32)),
        "label_keys": torch.from_numpy(label_keys(labels)),
        "n_bank": int(n_bank),
    }
    if bank is not None:
        content["bank_keys"] = torch.from_numpy(label_keys(bank))
    _check_neighbors(content, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def read_table(data_dir: Path, file_name: str) -> Table:
    """Reads a table.

    Args:
        data_dir: The data folder.
        file_name: The result of `errors_file`, `error_stats_file` or `neighbors_file`; it may start with a folder.

    Raises:
        TableError: If the file is missing or broken.
    """
    path = Path(data_dir) / file_name
    kind = next((kind for kind in (_ERRORS, _ERROR_STATS, _NEIGHBORS) if file_name.endswith(kind)), None)
    if kind is None:
        raise TableError(f"{path} is not a table: names of tables end in {_ERRORS}, {_ERROR_STATS} or {_NEIGHBORS}")
    if not is_dataset_name(file_name.removesuffix(kind)):
        raise TableError(f"{file_name!r} is not the name of a table: {NAME_RULE}")
    finish_replacing(Path(data_dir), TableError)
    if not path.exists():
        names = visible_files(data_dir, kind)
        has = f"has {', '.join(names)}" if names else f"has no file *{kind}"
        raise TableError(
            f"{path} does not exist; {data_dir} {has}. Make tables with posetune prepare-data (see its --help)."
        )
    if kind == _ERROR_STATS:
        array = _check_error_stats(_load_json(path), path)
        return Table(array, _fingerprint(array))
    content = load(path, TableError, mapped=False)
    return _check_errors(content, path) if kind == _ERRORS else _check_neighbors(content, path)


def _load_json(path: Path) -> Any:
    try:
        return json.loads(read_file(path))
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path} is not JSON: {error}") from error


def _check_errors(content: object, where: object) -> Table:
    """Checks the content of a file and returns the recorded errors."""
    if isinstance(content, torch.Tensor):
        errors, keys = content, None
    else:
        _check_keys(content, ("errors", "label_keys"), where)
        assert isinstance(content, dict)
        errors, keys = content["errors"], content["label_keys"]
    array = vectors(errors, where, TableError)
    return Table(
        array,
        _fingerprint(array),
        None if keys is None else _check_label_keys(keys, len(array), f"{where}: label_keys"),
    )


def _check_error_stats(content: object, where: object) -> Array:
    """Checks the content of a file and returns mean and standard deviation, (2, J, 3)."""
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
            f"{where} has statistics of the joints {', '.join(joints)}; expected the {len(joints)} joints "
            f"{', '.join(expected)}, in this order"
        )
    arrays = []
    for key in ("mean_mm", "std_mm"):
        try:
            array = np.array(content[key], dtype=np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise TableError(f"{where}: {key} is not an array of numbers: {error}") from error
        if array.shape != (len(joints), 3):
            raise TableError(f"{where}: {key} has the shape {array.shape}; expected ({len(joints)}, 3)")
        least = -LARGEST if key == "mean_mm" else 0
        sound = (array >= least) & (array <= LARGEST)  # (J, 3); with NaN no comparison holds
        if not sound.all():
            joint = joints[int(np.argmin(sound.all(axis=1)))]
            raise TableError(f"{where}: {key} of {joint} are not all finite numbers from {least:.0f} to {LARGEST:.0f}")
        arrays.append(array)
    return np.stack(arrays).astype(np.float32)  # (2, J, 3)


def _check_neighbors(content: object, where: object) -> NeighborTable:
    """Checks the content of a file and returns the table of neighbours."""
    _check_keys(content, ("indices", "label_keys", "n_bank"), where)
    assert isinstance(content, dict)
    indices = _integers(content["indices"], torch.int32, f"{where}: indices")
    if indices.ndim != 2 or 0 in indices.shape:
        raise TableError(f"{where}: indices have the shape {indices.shape}; expected (N, K)")
    n_bank = content["n_bank"]
    if not isinstance(n_bank, int) or isinstance(n_bank, bool) or n_bank < 1:
        raise TableError(f"{where}: n_bank is {n_bank!r}; expected a number of samples")
    wrong = ((indices < 0) | (indices >= n_bank)).any(axis=1)  # (N,)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TableError(f"{where}: row {row} refers to samples outside of the bank, which has {n_bank}")
    return NeighborTable(
        indices,
        _fingerprint(indices),
        label_keys=_check_label_keys(content["label_keys"], len(indices), f"{where}: label_keys"),
        n_bank=n_bank,
        bank_keys=_check_label_keys(content["bank_keys"], n_bank, f"{where}: bank_keys")
        if "bank_keys" in content
        else None,
    )


def _check_label_keys(content: object, n_labels: int, where: str) -> Keys:
    keys: Keys = _integers(content, torch.int64, where)
    if keys.shape != (n_labels,):
        raise TableError(f"{where} have the shape {keys.shape}; expected ({n_labels},)")
    return keys


def _integers(content: object, dtype: torch.dtype, where: str) -> Any:
    return numbers(tensor(content, where, TableError, dtype), where, TableError)


def _check_keys(content: object, keys: tuple[str, ...], where: object) -> None:
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        has = (
            f"dict of {', '.join(map(str, content)) or 'nothing'}"
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise TableError(
            f"{where} holds a {has}; expected a dict of {', '.join(keys)}. Make the table again with "
            "posetune prepare-data"
        )


def _fingerprint(array: Array | Indices) -> str:
    digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]
