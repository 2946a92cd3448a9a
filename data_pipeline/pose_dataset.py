"""Datasets of poses on disk and in memory.

A dataset `NAME` consists of two files, `NAME_labels.pt` and `NAME_poses.pt`, written with `torch.save` and read with
`weights_only=True`: float32 tensors (N, J, 3) in millimetres, camera frame. The poses are one such tensor, or a dict
of them: a *subset* for each backbone that made predictions for the same labels. A third file, `NAME_frames.parquet`,
may say which sequence and subject each frame shows, see `frame_table.py`. Datasets of PoseTune 0.4 may have
`NAME_names.txt` instead: the names of the frames, one per line, in the order of the samples.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_pipeline.dataset_name import NAME_RULE, is_dataset_name
from data_pipeline.files.regular import read_file
from data_pipeline.files.replacement import finish_replacing, replace_together
from data_pipeline.files.tensors import Array as Array
from data_pipeline.files.tensors import load, vectors
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable
from data_pipeline.skeleton import Skeleton, skeleton_for
from data_pipeline.subsets import DEFAULT_SUBSET, SUBSET_RULE, is_subset_name
from data_pipeline.user_error import UserError

_ENDINGS = {"labels": "pt", "poses": "pt", "frames": "parquet", "names": "txt"}


class DatasetError(UserError):
    """A dataset file is missing, broken or inconsistent with the others; the message names the file."""


class SizeError(DatasetError):
    """More samples were requested than the dataset has."""


@dataclass(frozen=True)
class PoseDataset:
    """Labels and predictions for the same N samples, as numpy arrays that may be shared between processes.

    Never write to the arrays: they may be read-only views of memory that other trials read too.

    Attributes:
        name: The dataset's name in the data folder.
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints of each subset, each (N, J, 3), mm, camera frame.
        skeleton: The skeleton with J joints.
        fingerprint: A hash of the content: subset names, shapes, all numbers, and the sequence and index of frames.
        frames: The sequence, index and subject of each frame, as far as they are known.
    """

    name: str
    labels: Array
    poses: Mapping[str, Array]
    skeleton: Skeleton
    fingerprint: str
    frames: FrameTable = UNKNOWN_FRAMES

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Samples:
    """The content of a dataset's files, for selecting samples and writing them again.

    Attributes:
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints of each subset, each (N, J, 3), mm, camera frame; empty if there are only labels.
        frames: What is known about each frame.
    """

    labels: Array
    poses: Mapping[str, Array]
    frames: FrameTable = UNKNOWN_FRAMES

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> "Samples":
        """Returns the samples `indices`, (n,), in that order, as copies."""
        poses = {subset: array[indices] for subset, array in self.poses.items()}  # (N, J, 3) -> (n, J, 3)
        return Samples(self.labels[indices], poses, self.frames.take(indices))  # (N, J, 3) -> (n, J, 3)


def read_dataset(data_dir: Path, name: str, size: int | None = None, *, use_preset: bool = True) -> PoseDataset:
    """Reads a dataset.

    Args:
        data_dir: The data folder.
        name: The dataset's name in it.
        size: The number of samples to take from the start; None takes all.
        use_preset: Read the predictions. False makes the labels the only subset, for training on inputs that a
            distorter generates.

    Raises:
        DatasetError: If a file is missing or broken, or if the numbers of samples differ.
        SizeError: If `size` is larger than the dataset.
    """
    required = ("labels", "poses") if use_preset else ("labels",)
    contents = _read_files(data_dir, name, required, ("frames",))
    dataset = _build_dataset(Path(data_dir), name, contents, size)
    # Names are dropped: nothing in a training needs them, and of a million frames they take 100 MB.
    return replace(dataset, frames=replace(dataset.frames, name=None))


def read_samples(data_dir: Path, name: str) -> Samples:
    """Reads everything in a dataset: labels, and all subsets and what is known about its frames.

    Raises:
        DatasetError: As `read_dataset`.
    """
    contents = _read_files(data_dir, name, ("labels",), ("poses", "frames", "names"))
    dataset = _build_dataset(Path(data_dir), name, contents, None)
    return Samples(dataset.labels, dataset.poses if "poses" in contents else {}, dataset.frames)


def write_dataset(data_dir: Path, name: str, labels: Array, poses: Array | Mapping[str, Array]) -> None:
    """Writes a dataset atomically: `read_dataset` finds either all of it or the previous one.

    Args:
        data_dir: The data folder; created if it is missing.
        name: The dataset's name in it.
        labels: True joints, (N, J, 3), mm, camera frame.
        poses: Predicted joints, (N, J, 3), mm, or a mapping from subset names to such arrays.

    Raises:
        DatasetError: If the content is not valid.
        UserError: If the folder cannot be written to.
    """
    by_subset = poses if isinstance(poses, Mapping) else {DEFAULT_SUBSET: poses}
    write_datasets(data_dir, {name: Samples(labels, by_subset)})


def write_datasets(data_dir: Path, datasets: Mapping[str, Samples]) -> None:
    """Writes several datasets atomically: readers find either all of them or all previous ones.

    Args:
        data_dir: The data folder; created if it is missing.
        datasets: Their contents by name.

    Raises:
        DatasetError: If a content is not valid.
        UserError: If the folder cannot be written to.
    """
    with replace_together(Path(data_dir)) as folder:
        for name, samples in datasets.items():
            save_dataset(folder, name, samples)


def save_dataset(folder: Path, name: str, samples: Samples) -> None:
    """Writes a dataset to a folder of `replace_together`: old files that it does not have are removed.

    Raises:
        DatasetError: If the content is not valid; then nothing is written.
    """
    if not is_dataset_name(name):
        raise DatasetError(f"{name!r} is not the name of a dataset: {NAME_RULE}")
    contents: dict[str, Any] = {"labels": _tensor(samples.labels)}
    if samples.poses:
        tensors = {subset: _tensor(array) for subset, array in samples.poses.items()}
        contents["poses"] = tensors[DEFAULT_SUBSET] if list(tensors) == [DEFAULT_SUBSET] else tensors
    _check(Path(), name, contents)
    _check_frames(samples.frames, name, len(samples))

    for kind in _ENDINGS:
        path = dataset_path(folder, name, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if kind in contents:
            torch.save(contents[kind], path)
    if samples.frames.columns:
        samples.frames.write(dataset_path(folder, name, "frames"))


def dataset_path(data_dir: Path, name: str, kind: str) -> Path:
    """Returns the path of the "labels", "poses", "frames" or "names" file of dataset `name`."""
    return Path(data_dir) / f"{name}_{kind}.{_ENDINGS[kind]}"


def dataset_exists(data_dir: Path, name: str) -> bool:
    """Returns whether there is any file of dataset `name`."""
    return any(dataset_path(data_dir, name, kind).exists() for kind in _ENDINGS)


def dataset_names(data_dir: Path) -> list[str]:
    """Returns the names of all datasets in `data_dir` that have labels."""
    suffix = "_labels.pt"
    return [file.removesuffix(suffix) for file in visible_files(data_dir, suffix)]


def visible_files(data_dir: Path, suffix: str) -> list[str]:
    """Returns the files below `data_dir` that end in `suffix`, sorted, without hidden (such as unfinished) ones."""
    paths = [path.relative_to(data_dir) for path in Path(data_dir).rglob(f"*{suffix}") if path.is_file()]
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def _read_files(data_dir: Path, name: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the contents of a dataset's files, all from the same writer; missing optional files are left out.

    If a writer replaces files meanwhile, their versions change and all are read again; mapped tensors keep the content
    of the files that were opened.
    """
    if not is_dataset_name(name):
        raise DatasetError(f"{name!r} is not the name of a dataset: {NAME_RULE}")
    paths = {kind: dataset_path(data_dir, name, kind) for kind in (*required, *optional)}
    while True:
        finish_replacing(Path(data_dir), DatasetError)
        versions = {kind: _version(path) for kind, path in paths.items()}
        contents, problem = {}, None
        try:
            for kind, path in paths.items():
                if versions[kind] is not None:
                    is_tensor = _ENDINGS[kind] == "pt"
                    contents[kind] = load(path, DatasetError, mapped=True) if is_tensor else _read_bytes(path)
                elif kind in required:
                    raise _missing_error(path, Path(data_dir))
        except DatasetError as error:
            problem = error
        # A writer may have moved only some of its files: wait until the others are moved too.
        finish_replacing(Path(data_dir), DatasetError)
        if versions == {kind: _version(path) for kind, path in paths.items()}:
            if problem is not None:
                raise problem
            return contents


def _version(path: Path) -> tuple[int, int] | None:
    """Returns what distinguishes a file from its replacement; None if there is no file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return found.st_ino, found.st_mtime_ns


def _read_bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _missing_error(path: Path, data_dir: Path) -> DatasetError:
    names = dataset_names(data_dir)
    has = f"has the datasets {', '.join(names)}" if names else "has no dataset"
    return DatasetError(
        f"{path} does not exist; {data_dir} {has}. Make datasets with posetune prepare-data (see its --help)."
    )


def _build_dataset(data_dir: Path, name: str, contents: Mapping[str, Any], size: int | None) -> PoseDataset:
    """Builds a dataset from the first `size` samples, None for all, of the `contents` of its files."""
    labels, poses, skeleton = _check(data_dir, name, contents)
    if size is not None and size > len(labels):
        labels_path = dataset_path(data_dir, name, "labels")
        raise SizeError(f"{labels_path} has {len(labels)} samples, fewer than the requested {size}")
    frames = UNKNOWN_FRAMES
    if "frames" in contents:
        path = dataset_path(data_dir, name, "frames")
        frames = FrameTable.read(contents["frames"], path, len(labels), DatasetError)
    elif "names" in contents:
        frames = FrameTable.of(name=_decode_names(contents["names"], data_dir, name, len(labels)))

    # Copied, because the files are memory-mapped: writing to a file must change neither the data nor the fingerprint.
    labels = np.array(labels[:size])
    poses = {subset: np.array(array[:size]) for subset, array in poses.items()} or {DEFAULT_SUBSET: labels}
    frames = frames.take(slice(size))
    return PoseDataset(name, labels, poses, skeleton, _fingerprint(labels, poses, frames), frames)


def _check(data_dir: Path, name: str, contents: Mapping[str, Any]) -> tuple[Array, dict[str, Array], Skeleton]:
    """Checks the `contents` of a dataset's files and returns labels, subsets and skeleton."""
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
        raise DatasetError(f"{path} is an empty dict; expected at least one subset")
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


def _decode_names(content: bytes, data_dir: Path, name: str, n_samples: int) -> list[str]:
    path = dataset_path(data_dir, name, "names")
    try:
        names = content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: the name is not valid UTF-8") from error
    if len(names) != n_samples:
        raise DatasetError(
            f"{path} has {len(names)} names, but {dataset_path(data_dir, name, 'labels')} has {n_samples} labels; "
            "write one name per line, in the order of the samples, or delete the file"
        )
    return names


def _check_frames(frames: FrameTable, name: str, n_samples: int) -> None:
    for column, values in frames.columns.items():
        if len(values) != n_samples:
            raise DatasetError(f"dataset {name} has {n_samples} samples, but {len(values)} values of {column!r}")
        if column == "index":
            continue
        try:
            "".join(values).encode()
        except UnicodeEncodeError as error:
            i = int(np.searchsorted(np.cumsum([len(text) for text in values]), error.start, side="right"))
            raise DatasetError(
                f"dataset {name}, sample {i}: the {column} {values[i]!r} cannot be written in UTF-8"
            ) from error


def _fingerprint(labels: Array, poses: Mapping[str, Array], frames: FrameTable) -> str:
    digest = hashlib.sha256()
    for subset, array in [("", labels), *sorted(poses.items())]:
        digest.update(f"{subset} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    if frames.sequence is not None or frames.index is not None:
        # They decide which frames are successive, and so the acceleration error.
        rows, lengths = frames.runs(len(labels))
        digest.update(np.concatenate([rows, lengths]).data)
        if frames.has_repeated_places(len(labels)):
            # Then the order of the table also decides which frames are in a window.
            digest.update(frames.run_starts(len(labels)).data)
    return digest.hexdigest()[:32]


def _tensor(array: Array) -> torch.Tensor:
    with np.errstate(over="ignore"):  # the check of the contents reports it
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
