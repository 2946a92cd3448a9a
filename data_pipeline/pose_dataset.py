"""Datasets of poses on disk and in memory.

A dataset `NAME` is two files, `NAME_labels.pt` and `NAME_poses.pt`, written with `torch.save` and read with
`weights_only=True`: float32 tensors (N, J, 3) in millimetres, camera frame. The poses are one such tensor, or
a dict of them, a *subset* for each backbone that made predictions for the same labels. A third file,
`NAME_names.txt`, may hold the names of the frames, one a line in the order of the samples.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_pipeline.dataset_name import NAME_RULE, is_dataset_name
from data_pipeline.files.replacement import finish_replacing, replace_together
from data_pipeline.files.tensors import Array as Array
from data_pipeline.files.tensors import load, vectors
from data_pipeline.skeleton import Skeleton, skeleton_for
from data_pipeline.subsets import DEFAULT_SUBSET, SUBSET_RULE, is_subset_name
from data_pipeline.user_error import UserError


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
    contents = _open(data_dir, name, ("labels", "poses") if use_preset else ("labels",))
    return _dataset(Path(data_dir), name, contents, size)


def read_samples(data_dir: Path, name: str) -> Samples:
    """Reads all that a dataset has: labels, every subset if there are poses, and names if there are any.

    Raises:
        DatasetError: As `read_dataset`, and if a name is not in UTF-8 or there is another number of names than samples.
    """
    contents = _open(data_dir, name, ("labels",), ("poses", "names"))
    dataset = _dataset(Path(data_dir), name, contents, None)
    names = _names(contents["names"], Path(data_dir), name, len(dataset)) if "names" in contents else None
    return Samples(dataset.labels, dataset.poses if "poses" in contents else {}, names)


def write_dataset(data_dir: Path, name: str, labels: Array, poses: Array | Mapping[str, Array]) -> None:
    """Writes a dataset so that `read_dataset` finds it whole, or what was there before.

    Args:
        data_dir: The data folder; made where it is missing.
        name: The dataset's name below it.
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints, (N, J, 3), mm, or a mapping of such from subset names.

    Raises:
        DatasetError: If it is none that could be read again.
        UserError: If the folder cannot be written to.
    """
    by_subset = poses if isinstance(poses, Mapping) else {DEFAULT_SUBSET: poses}
    write_datasets(data_dir, {name: Samples(labels, by_subset)})


def write_datasets(data_dir: Path, datasets: Mapping[str, Samples]) -> None:
    """Writes datasets that belong together: all of them are found afterwards, or all that were there before.

    Args:
        data_dir: The data folder; made where it is missing.
        datasets: Their contents by name.

    Raises:
        DatasetError: If one is none that could be read again.
        UserError: If the folder cannot be written to.
    """
    with replace_together(Path(data_dir)) as folder:
        for name, samples in datasets.items():
            save_dataset(folder, name, samples)


def save_dataset(folder: Path, name: str, samples: Samples) -> None:
    """Writes a dataset to a folder that `replace_together` yields: what it does not have will be gone.

    Raises:
        DatasetError: If it is none that could be read again; then nothing is written.
    """
    if not is_dataset_name(name):
        raise DatasetError(f"{name!r} is not the name of a dataset: {NAME_RULE}")
    contents: dict[str, Any] = {"labels": _tensor(samples.labels)}
    if samples.poses:
        tensors = {subset: _tensor(array) for subset, array in samples.poses.items()}
        contents["poses"] = tensors[DEFAULT_SUBSET] if list(tensors) == [DEFAULT_SUBSET] else tensors
    _checked(Path(), name, contents)
    names = b"" if samples.names is None else _text(samples.names, name, len(samples))

    for part in ("labels", "poses", "names"):
        path = dataset_path(folder, name, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if part in contents:
            torch.save(contents[part], path)
    dataset_path(folder, name, "names").write_bytes(names)


def dataset_path(data_dir: Path, name: str, part: str) -> Path:
    """Returns the file that holds the `part`, "labels", "poses" or "names", of dataset `name`."""
    return Path(data_dir) / f"{name}_{part}.{'txt' if part == 'names' else 'pt'}"


def dataset_names(data_dir: Path) -> list[str]:
    """Returns the names of all datasets that have labels in `data_dir`."""
    suffix = "_labels.pt"
    return [file.removesuffix(suffix) for file in visible_files(data_dir, suffix)]


def visible_files(data_dir: Path, suffix: str) -> list[str]:
    """Returns the files below `data_dir` that end in `suffix`, sorted, without hidden ones such as unfinished ones."""
    paths = [path.relative_to(data_dir) for path in Path(data_dir).rglob(f"*{suffix}") if path.is_file()]
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def _open(data_dir: Path, name: str, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what files of a dataset hold, without the optional ones that there are not: all of one writer.

    A writer that replaces files meanwhile is noticed by their versions; tensors stay those of the files that were
    opened.
    """
    if not is_dataset_name(name):
        raise DatasetError(f"{name!r} is not the name of a dataset: {NAME_RULE}")
    paths = {part: dataset_path(data_dir, name, part) for part in (*needed, *optional)}
    while True:
        finish_replacing(Path(data_dir), DatasetError)
        versions = {part: _version(path) for part, path in paths.items()}
        contents, problem = {}, None
        try:
            for part, path in paths.items():
                if versions[part] is not None:
                    contents[part] = _read_bytes(path) if part == "names" else load(path, DatasetError, mapped=True)
                elif part in needed:
                    raise _missing(path, Path(data_dir))
        except DatasetError as error:
            problem = error
        # Of a writer that is moving files some may be in their places: first the others go there too.
        finish_replacing(Path(data_dir), DatasetError)
        if versions == {part: _version(path) for part, path in paths.items()}:
            if problem is not None:
                raise problem
            return contents


def _version(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from one that takes its place; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return found.st_ino, found.st_mtime_ns


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _missing(path: Path, data_dir: Path) -> DatasetError:
    names = dataset_names(data_dir)
    has = f"has the datasets {', '.join(names)}" if names else "has no dataset"
    return DatasetError(
        f"{path} does not exist; {data_dir} {has}. tune_runs/prepare_data.py makes datasets: see its --help."
    )


def _dataset(data_dir: Path, name: str, contents: Mapping[str, Any], size: int | None) -> PoseDataset:
    """Returns the first `size` samples, None for all, of a dataset whose files hold `contents`."""
    labels, poses, skeleton = _checked(data_dir, name, contents)
    if size is not None and size > len(labels):
        labels_path = dataset_path(data_dir, name, "labels")
        raise DatasetError(f"{labels_path} has {len(labels)} samples, fewer than the requested {size}")

    # Copied, since the files are mapped: whoever writes to one must not change what is trained on, nor what it is
    # known by.
    labels = np.array(labels[:size])
    poses = {subset: np.array(array[:size]) for subset, array in poses.items()} or {DEFAULT_SUBSET: labels}
    return PoseDataset(name, labels, poses, skeleton, _fingerprint(labels, poses))


def _checked(data_dir: Path, name: str, contents: Mapping[str, Any]) -> tuple[Array, dict[str, Array], Skeleton]:
    """Returns labels, subsets and skeleton of a dataset whose files hold `contents`, or tells what is wrong."""
    labels_path = dataset_path(data_dir, name, "labels")
    labels = vectors(contents["labels"], labels_path, DatasetError)
    poses = _subsets(contents["poses"], data_dir, name, labels) if "poses" in contents else {}
    try:
        return labels, poses, skeleton_for(labels.shape[1])
    except UserError as error:
        raise DatasetError(f"{labels_path}: {error}") from error


def _subsets(content: object, data_dir: Path, name: str, labels: Array) -> dict[str, Array]:
    path = dataset_path(data_dir, name, "poses")
    by_subset = content if isinstance(content, dict) else {DEFAULT_SUBSET: content}
    if not by_subset:
        raise DatasetError(f"{path} is a dict without any subset")
    poses = {}
    for subset, tensor in by_subset.items():
        if not is_subset_name(subset):
            raise DatasetError(f"{path} has a subset named {subset!r}; {SUBSET_RULE}")
        where = f"{path}, subset {subset}" if isinstance(content, dict) else f"{path}"
        array = vectors(tensor, where, DatasetError)
        if len(array) != len(labels):
            raise DatasetError(
                f"{where} has {len(array)} poses, but {dataset_path(data_dir, name, 'labels')} has "
                f"{len(labels)} labels; sample {min(len(array), len(labels))} is the first without a partner"
            )
        if array.shape != labels.shape:
            raise DatasetError(f"{where} has {array.shape[1]} joints, but the labels have {labels.shape[1]}")
        poses[subset] = array
    return poses


def _names(content: bytes, data_dir: Path, name: str, n_samples: int) -> list[str]:
    path = dataset_path(data_dir, name, "names")
    try:
        names = content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: the name is not in UTF-8; names are text in UTF-8") from error
    if len(names) != n_samples:
        raise DatasetError(
            f"{path} has {len(names)} names, but {dataset_path(data_dir, name, 'labels')} has {n_samples} labels; "
            "it needs one name a line, in the order of the samples, or has to go"
        )
    return names


def _text(names: Sequence[str], name: str, n_samples: int) -> bytes:
    """Returns the file of names."""
    if len(names) != n_samples:
        raise DatasetError(f"dataset {name} has {n_samples} samples, but {len(names)} names")
    for i, frame in enumerate(names):
        if "\n" in frame:
            raise DatasetError(f"dataset {name}, sample {i}: the name {frame!r} has a line break; names are lines")
    try:
        return "\n".join([*names, ""]).encode()
    except UnicodeEncodeError as error:
        i = error.object.count("\n", 0, error.start)
        raise DatasetError(f"dataset {name}, sample {i}: the name {names[i]!r} cannot be written in UTF-8") from error


def _fingerprint(labels: Array, poses: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for subset, array in [("", labels), *sorted(poses.items())]:
        digest.update(f"{subset} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def _tensor(array: Array) -> torch.Tensor:
    with np.errstate(over="ignore"):  # the check of what is written tells
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
