"""Datasets of poses on disk and in memory.

A dataset `NAME` is two files, `NAME_labels.pt` and `NAME_poses.pt`, written with `torch.save` and read with
`weights_only=True`: float32 tensors (N, J, 3) in millimetres, camera frame. The poses are one such tensor, or
a dict of them, a *subset* for each backbone that made predictions for the same labels. A third file,
`NAME_names.txt`, may hold the names of the frames, one a line in the order of the samples.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_pipeline.replacement import finish_replacing, replaced_together
from data_pipeline.skeleton import Skeleton, skeleton_for
from data_pipeline.subsets import DEFAULT_SUBSET, MEAN_SUBSET
from data_pipeline.user_error import UserError

Array = npt.NDArray[np.float32]

_SUBSET_NAME = re.compile(r"[A-Za-z0-9._+-]+")


class DatasetError(UserError):
    """A dataset file is missing, broken or does not fit its partner; the text names the file."""


@dataclass(frozen=True)
class PoseDataset:
    """Labels and predictions for the same N samples, as numpy arrays that may be shared between processes.

    The arrays may be read-only views of memory that other trials read too: nobody writes to them.

    Attributes:
        name: The dataset's name below the data folder.
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints of each subset, each (N, J, 3), mm, camera frame.
        skeleton: The skeleton with J joints.
        fingerprint: A hash of the content: subset names, shapes and every number.
    """

    name: str
    labels: Array
    poses: Mapping[str, Array]
    skeleton: Skeleton
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Samples:
    """What the files of a dataset hold, to be chosen from and written again.

    Attributes:
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints of each subset, each (N, J, 3), mm, camera frame; empty for labels alone.
        names: The name of each frame; None where frames have none.
    """

    labels: Array
    poses: Mapping[str, Array]
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> "Samples":
        """Returns the samples `indices`, (n,), in that order, as copies."""
        poses = {subset: array[indices] for subset, array in self.poses.items()}  # (N, J, 3) -> (n, J, 3)
        names = None if self.names is None else [self.names[i] for i in indices]
        return Samples(self.labels[indices], poses, names)  # (N, J, 3) -> (n, J, 3)


def read_dataset(data_dir: Path, name: str, size: int | None = None, *, use_preset: bool = True) -> PoseDataset:
    """Reads a dataset.

    Args:
        data_dir: The data folder.
        name: The dataset's name below it.
        size: Take only the first `size` samples; None takes all.
        use_preset: Read the predictions. False makes the labels the only subset, for training on inputs that
            a distorter makes.

    Raises:
        DatasetError: If a file is missing or broken, if the numbers of samples differ, or if `size` is larger
            than the dataset.
    """
    _finish_writing(data_dir)
    labels_path = dataset_path(data_dir, name, "labels")
    labels = _checked(_load(data_dir, name, "labels"), labels_path)
    poses = _read_poses(data_dir, name, labels) if use_preset else {}
    if size is not None and size > len(labels):
        raise DatasetError(f"{labels_path} has {len(labels)} samples, fewer than the {size} asked for")
    try:
        skeleton = skeleton_for(labels.shape[1])
    except UserError as error:
        raise DatasetError(f"{labels_path}: {error}") from error

    # Copied, since the files are mapped: whoever writes to one must not change what is trained on, nor what it is
    # known by.
    labels = np.array(labels[:size])
    poses = {subset: np.array(array[:size]) for subset, array in poses.items()} or {DEFAULT_SUBSET: labels}
    return PoseDataset(name, labels, poses, skeleton, _fingerprint(labels, poses))


def read_samples(data_dir: Path, name: str) -> Samples:
    """Reads all that a dataset has: labels, every subset if there are poses, and names if there are any.

    Raises:
        DatasetError: As `read_dataset`, and if there is another number of names than samples.
    """
    _finish_writing(data_dir)
    has_poses = dataset_path(data_dir, name, "poses").exists()
    dataset = read_dataset(data_dir, name, use_preset=has_poses)
    return Samples(dataset.labels, dataset.poses if has_poses else {}, _read_names(data_dir, name, len(dataset)))


def write_dataset(data_dir: Path, name: str, labels: Array, poses: Array | Mapping[str, Array]) -> None:
    """Writes a dataset so that `read_dataset` finds it whole, or what was there before.

    Args:
        data_dir: The data folder; made where it is missing.
        name: The dataset's name below it.
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints, (N, J, 3), mm, or a mapping of such from subset names.

    Raises:
        DatasetError: If it cannot be written.
    """
    by_subset = poses if isinstance(poses, Mapping) else {DEFAULT_SUBSET: poses}
    write_datasets(data_dir, {name: Samples(labels, by_subset)})


def write_datasets(data_dir: Path, datasets: Mapping[str, Samples]) -> None:
    """Writes datasets that belong together: all of them are found afterwards, or all that were there before.

    Args:
        data_dir: The data folder; made where it is missing.
        datasets: Their contents by name, at least one.

    Raises:
        DatasetError: If one cannot be written; the text names it.
    """
    name = next(iter(datasets))
    try:
        with replaced_together(Path(data_dir)) as folder:
            for name, samples in datasets.items():
                _save(folder, name, samples)
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk with a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DatasetError(f"{name} cannot be written to {data_dir}: {reason}") from error


def dataset_path(data_dir: Path, name: str, part: str) -> Path:
    """Returns the file that holds the `part`, "labels", "poses" or "names", of dataset `name`."""
    return Path(data_dir) / f"{name}_{part}.{'txt' if part == 'names' else 'pt'}"


def dataset_names(data_dir: Path) -> list[str]:
    """Returns the names of all datasets that have labels in `data_dir`."""
    suffix = "_labels.pt"
    paths = [path.relative_to(data_dir) for path in Path(data_dir).rglob(f"*{suffix}")]
    # What is being written lies in a hidden folder.
    visible = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    return sorted(path.as_posix().removesuffix(suffix) for path in visible)


def _load(data_dir: Path, name: str, part: str) -> Any:
    path = dataset_path(data_dir, name, part)
    if not path.is_file():
        names = dataset_names(data_dir)
        has = f"has the datasets {', '.join(names)}" if names else "has no dataset"
        raise DatasetError(
            f"{path} does not exist; {Path(data_dir)} {has}. tune_runs/prepare_data.py makes datasets: see its --help."
        )
    try:
        # Mapped, not read: only what is taken of a large file costs memory.
        return torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # torch.load has no error of its own for a damaged file: what it raises depends on the damage.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DatasetError(f"{path} is not a file that torch.load(..., weights_only=True) reads: {reason}") from error


def _read_poses(data_dir: Path, name: str, labels: Array) -> dict[str, Array]:
    path = dataset_path(data_dir, name, "poses")
    content = _load(data_dir, name, "poses")
    by_subset = content if isinstance(content, dict) else {DEFAULT_SUBSET: content}
    if not by_subset:
        raise DatasetError(f"{path} is a dict without any subset")
    poses = {}
    for subset, tensor in by_subset.items():
        if not isinstance(subset, str) or not _SUBSET_NAME.fullmatch(subset) or subset == MEAN_SUBSET:
            raise DatasetError(
                f"{path} has a subset named {subset!r}; a name has letters, digits, '.', '_', '+', '-', and "
                f"{MEAN_SUBSET!r} is taken"
            )
        where = f"{path}, subset {subset}" if isinstance(content, dict) else f"{path}"
        array = _checked(tensor, where)
        if len(array) != len(labels):
            raise DatasetError(
                f"{where} has {len(array)} poses, but {dataset_path(data_dir, name, 'labels')} has "
                f"{len(labels)} labels; sample {min(len(array), len(labels))} is the first without a partner"
            )
        if array.shape != labels.shape:
            raise DatasetError(f"{where} has {array.shape[1]} joints, but the labels have {labels.shape[1]}")
        poses[subset] = array
    return poses


def _read_names(data_dir: Path, name: str, n_samples: int) -> list[str] | None:
    path = dataset_path(data_dir, name, "names")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    names = content.decode(errors="surrogateescape").removesuffix("\n").split("\n")
    if len(names) != n_samples:
        raise DatasetError(
            f"{path} has {len(names)} names, but {dataset_path(data_dir, name, 'labels')} has {n_samples} labels; "
            "it needs one name a line, in the order of the samples, or has to go"
        )
    return names


def _save(folder: Path, name: str, samples: Samples) -> None:
    """Writes the files of a dataset, those that it does not have as empty ones."""
    if samples.names is not None:
        _check_names(name, samples)
    paths = {part: dataset_path(folder, name, part) for part in ("labels", "poses", "names")}
    paths["labels"].parent.mkdir(parents=True, exist_ok=True)
    for path in paths.values():
        path.touch()
    torch.save(_tensor(samples.labels), paths["labels"])
    if samples.poses:
        tensors = {subset: _tensor(array) for subset, array in samples.poses.items()}
        torch.save(tensors[DEFAULT_SUBSET] if list(tensors) == [DEFAULT_SUBSET] else tensors, paths["poses"])
    if samples.names is not None:
        text = "\n".join([*samples.names, ""])
        paths["names"].write_bytes(text.encode(errors="surrogateescape"))


def _check_names(name: str, samples: Samples) -> None:
    names = samples.names or []
    if len(names) != len(samples):
        raise DatasetError(f"dataset {name} has {len(samples)} samples, but {len(names)} names")
    for i, frame in enumerate(names):
        if "\n" in frame:
            raise DatasetError(f"dataset {name}, sample {i}: the name {frame!r} has a line break; names are lines")


def _finish_writing(data_dir: Path) -> None:
    try:
        finish_replacing(Path(data_dir))
    except OSError as error:
        raise DatasetError(
            f"{data_dir} has new files whose writer was ended before they were in their places, and they cannot be "
            f"moved there: {error.strerror}. Run the same once as a user who may write there."
        ) from error


def _checked(tensor: object, where: object) -> Array:
    """Returns the (N, J, 3) float32 array of a tensor from a file, or tells what is wrong with it."""
    if not isinstance(tensor, torch.Tensor):
        raise DatasetError(f"{where} holds a {type(tensor).__name__}; needed is a float32 tensor (N, J, 3)")
    if tensor.dtype != torch.float32:
        raise DatasetError(f"{where} holds {tensor.dtype} numbers; needed is torch.float32")
    if tensor.ndim != 3 or tensor.shape[2] != 3 or 0 in tensor.shape:
        raise DatasetError(f"{where} has the shape {tuple(tensor.shape)}; needed is (N, J, 3) with at least one sample")
    try:
        array: Array = tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # a sparse tensor, or one without numbers
        raise DatasetError(f"{where} holds a tensor that numpy cannot read: {error}") from error
    finite = np.isfinite(array).all(axis=(1, 2))  # (N,)
    if not finite.all():
        raise DatasetError(f"{where} has NaN or infinite values; the first bad sample is {int(np.argmin(finite))}")
    return array


def _fingerprint(labels: Array, poses: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for subset, array in [("", labels), *sorted(poses.items())]:
        digest.update(f"{subset} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
