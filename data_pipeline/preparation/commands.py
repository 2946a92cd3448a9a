"""The commands of `tune_runs/prepare_data.py`, one function each: they check options, write files and report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS
from data_pipeline.pose_dataset import PoseDataset, Samples, dataset_exists, read_dataset, read_samples, save_dataset
from data_pipeline.preparation import selection
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.importing import ImportFiles
from data_pipeline.preparation.inspection import inspect_samples
from data_pipeline.preparation.making import leaderboard_parts, synthetic_parts
from data_pipeline.preparation.parts import DatasetPart, dataset_name, error_rows, placed, split_samples
from data_pipeline.preparation.pose_errors import pose_errors, write_pose_errors
from data_pipeline.preparation.splits.split import ALL_PART, PART_WORDS, Split
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.preparation.targets import Target, check_subsets
from data_pipeline.preparation.texts import (
    clusters_text,
    error_table,
    inspection_text,
    neighbors_text,
    pose_errors_text,
    separation_text,
)
from data_pipeline.separation.measuring import separation
from data_pipeline.separation.separation import Separation
from data_pipeline.tables import error_stats_file, errors_file, label_keys, neighbors_file, write_neighbors
from data_pipeline.user_error import UserError
from data_pipeline.words import count


@dataclass(frozen=True)
class CommandResult:
    """What a command reports.

    Attributes:
        facts: The figures, as JSON values.
        text: The same figures as text.
        notes: Further notes for the user, one line each.
        status: The exit status.
    """

    facts: Any
    text: str
    notes: tuple[str, ...] = ()
    status: int = 0


def synthetic(target: Target, sizes: Mapping[str, int], subsets: Sequence[str], seed: int) -> CommandResult:
    """Makes moving hands and predictions of simulated backbones; `synthetic_parts` explains the arguments."""
    for part, size in sizes.items():
        if not 1 <= size <= 10**9:
            hint = "; omit it for no test set" if part == "test" else ""
            raise UserError(f"--{part} {size}: the number of frames must be from 1 to {10**9}{hint}")
    _check_seed(seed)
    check_subsets(subsets, "--subsets")
    target.check(datasets=[dataset_name(target.name, part) for part in sizes])
    return _write(target, synthetic_parts(target.name, sizes, subsets, seed))


def leaderboard(
    target: Target,
    dataset: str,
    ground_truth: Path,
    predictions: Sequence[str],
    split: str | None,
    *,
    folds: bool,
    separate: bool,
) -> CommandResult:
    """Reads leaderboard files; `separate` makes separate datasets for each of the `predictions`, NAME=FILE."""
    parsed = parse_split(split or LEADERBOARD_DATASETS[dataset].split)
    paths = _parse_predictions(predictions)
    bases = {subset: f"{target.name}_{subset}" if separate else target.name for subset in paths}
    _check_parts(target, bases.values(), parsed, folds=folds)
    parts = leaderboard_parts(bases, dataset, ground_truth, paths, parsed, folds=folds, force=target.force)
    result = _write(target, parts)
    of_files = [(path, FORMATS[f"leaderboard-{dataset}"].warning(path)) for path in (ground_truth, *paths.values())]
    notes = [f"note: {path}: {warning}" for path, warning in of_files if warning is not None]
    return replace(result, notes=(*notes, *result.notes))


def import_(
    target: Target,
    format_name: str | None,
    labels_format: str | None,
    labels: Path,
    predictions: Sequence[str],
    split: str,
    *,
    folds: bool,
) -> CommandResult:
    """Reads labels and any number of `predictions`, NAME=FILE, in any formats; see `ImportFiles.of` for the formats."""
    parsed, paths = parse_split(split), _parse_predictions(predictions)
    _check_parts(target, [target.name], parsed, folds=folds)
    files = ImportFiles.of(labels, paths, format_name, labels_format)
    samples = files.read()
    if not target.force:
        files.require_millimetres(samples)
    result = _write(target, split_samples(target.name, samples, parsed, folds=folds))
    notes = (*(f"note: {warning}" for warning in files.warnings(samples)), *result.notes)
    return replace(result, text=f"{files.text()}\n\n{result.text}", notes=notes)


def split(target: Target, dataset: str, text: str, *, folds: bool) -> CommandResult:
    """Splits a dataset into parts."""
    parsed = parse_split(text)
    _check_parts(target, [target.name], parsed, folds=folds)
    samples = _samples(target.data_dir, dataset)
    return _write(target, split_samples(target.name, samples, parsed, source=dataset, folds=folds), source=dataset)


def subset(target: Target, dataset: str, which: str, n: int, seed: int) -> CommandResult:
    """Makes a smaller dataset; `which` samples it keeps is "every", "random" or "first"."""
    _check_seed(seed)
    target.check(datasets=[target.name])
    samples = _samples(target.data_dir, dataset)
    if which == "random":
        indices = selection.random(len(samples), n, seed)
    else:
        indices = {"every": selection.every, "first": selection.first}[which](len(samples), n)
    with progress("selecting samples", None):
        kept = placed(samples, dataset).take(indices)
    return _write(target, [DatasetPart(target.name, ALL_PART, kept)], source=dataset)


def clusters(target: Target, dataset: str, k: int | None) -> CommandResult:
    """Groups the frames of a dataset by subject."""
    # Imported here, as in `neighbors`: scikit-learn takes a second to load.
    from data_pipeline.preparation.subjects import cluster_subjects, clusters_file, write_clusters

    file = clusters_file(target.name)
    target.check(files=[file])
    labelled = _dataset(target.data_dir, dataset, use_preset=False)
    found = cluster_subjects(labelled.labels, labelled.skeleton, k)
    with target.writing(files=[file]) as folder:
        write_clusters(folder / file, dataset, found)
    notes: tuple[str, ...] = ()
    if k is None and len(found.sizes) == 1:
        best = max(found.silhouettes.values(), default=0.0)
        notes = (
            f"note: bone lengths do not form clear clusters (the best silhouette is {best:.2f}); this may be a single "
            "subject. Use --k to make clusters anyway",
        )
    return _table_result(target, found.facts, clusters_text(found.facts), [file], notes)


def neighbors(target: Target, dataset: str, bank: str, k: int) -> CommandResult:
    """Finds the most similar labels of the dataset `bank` for each label of a dataset."""
    from data_pipeline.preparation.neighbors import nearest_neighbors

    file = neighbors_file(target.name)
    target.check(files=[file])
    labelled, others = (_dataset(target.data_dir, name, use_preset=False) for name in (dataset, bank))
    is_same = labelled.fingerprint == others.fingerprint
    found = nearest_neighbors(labelled.labels, others.labels, k, is_same=is_same)
    with target.writing(files=[file]) as folder:
        write_neighbors(folder, target.name, found.rows, labelled.labels, found.n_bank, others.labels)
    keys, in_bank = (label_keys(one.labels) for one in (labelled, others))
    n_shared = 0 if is_same else int(np.isin(keys, in_bank).sum())
    notes: tuple[str, ...] = ()
    if n_shared:
        notes = (
            f"note: {bank} contains {count(n_shared, 'frame')} of {dataset}, and each is its own nearest neighbour; a "
            "NeighborErrorBankDistorter would often draw the errors of the frame itself",
        )
    return _table_result(target, found.facts, neighbors_text(found.facts), [file], notes)


def errors(target: Target, dataset: str, subset_name: str | None) -> CommandResult:
    """Makes tables of the errors of a subset; None for the only one."""
    files = [errors_file(target.name), error_stats_file(target.name)]
    target.check(files=files)
    found = pose_errors(_dataset(target.data_dir, dataset), subset_name)
    with target.writing(files=files) as folder:
        write_pose_errors(folder, target.name, found)
    return _table_result(target, found.facts, pose_errors_text(found.facts), files)


def check(data_dir: Path, dataset: str, train: str | None) -> CommandResult:
    """Checks a dataset, and its distance from a training set.

    Args:
        data_dir: The data folder.
        dataset: The dataset.
        train: The training set; None for `NAME_train` next to `NAME_val` or `NAME_test`, if there is one.

    Returns:
        The result; its status is 0 for a good dataset, 1 if something looks wrong, 2 for a broken one.
    """
    base, _, part = dataset.rpartition("_")
    if train is None and base and part in ("val", "test") and dataset_exists(data_dir, f"{base}_train"):
        train = f"{base}_train"
    facts: dict[str, Any]
    try:
        samples = _samples(data_dir, dataset)
        found = inspect_samples(samples)
        apart = None if train is None else _separation(_samples(data_dir, train), samples, train)
    except UserError as error:
        facts = {"dataset": dataset, "state": "broken", "error": str(error)}
        return CommandResult(facts, "", (f"error: {error}",), 2)
    is_good = not found.warnings and not (apart is not None and apart.is_interpolation)
    facts = {"dataset": dataset, "state": "good" if is_good else "suspicious", **asdict(found)}
    text = inspection_text(dataset, found)
    if apart is not None:
        facts["separation"] = {"train": train, **apart.to_json()}
        text = f"{text}\n\n{separation_text(dataset, str(train), PART_WORDS.get(part, 'test'), apart)}"
    return CommandResult(facts, text, status=0 if is_good else 1)


def _check_parts(target: Target, bases: Iterable[str], split: Split, *, folds: bool) -> None:
    """Checks that the datasets of a split can be written; those of folds are checked when their number is known."""
    if not folds:
        target.check(datasets=[dataset_name(base, part) for base in bases for part in split.part_names])


def _samples(data_dir: Path, name: str) -> Samples:
    with progress(f"reading {name}", None):
        return read_samples(data_dir, name)


def _dataset(data_dir: Path, name: str, *, use_preset: bool = True) -> PoseDataset:
    with progress(f"reading {name}", None):
        return read_dataset(data_dir, name, use_preset=use_preset)


def _write(target: Target, parts: Sequence[DatasetPart], source: str | None = None) -> CommandResult:
    """Writes datasets and reports the errors of their predictions; `source` is the dataset that they were made from."""
    rows = error_rows(parts)
    with target.writing(datasets=[part.name for part in parts]) as folder:
        for part in parts:
            save_dataset(folder, part.name, part.samples)
    others = target.other_parts(parts, source)
    notes = (
        f"note: {target.data_dir} also has {', '.join(others)} from an earlier run; the datasets of this run may "
        "contain the same frames",
    )
    text = f"{error_table(rows)}\n\nWritten to {target.data_dir}: {', '.join(part.name for part in parts)}"
    return CommandResult(rows, text, (*(notes if others else ()), *_separation_notes(parts)))


def _separation_notes(parts: Sequence[DatasetPart]) -> Iterator[str]:
    """Yields warnings about parts that are too close to the training frames, each once."""
    train = {part.base: part.samples for part in parts if part.part == "train"}
    warned = set()
    for part in parts:
        if part.part in ("val", "test") and part.part not in warned and part.base in train:
            warning = separation(train[part.base], part.samples).warning(PART_WORDS[part.part])
            if warning is not None:
                warned.add(part.part)
                yield f"warning: {part.name}: {warning}"


def _separation(train: Samples, tested: Samples, name: str) -> Separation:
    if train.labels.shape[1] != tested.labels.shape[1]:
        raise UserError(
            f"the training set {name} has {train.labels.shape[1]} joints, but the dataset has {tested.labels.shape[1]}"
        )
    return separation(train, tested)


def _table_result(
    target: Target, facts: Mapping[str, Any], text: str, files: Sequence[str], notes: tuple[str, ...] = ()
) -> CommandResult:
    written = f"Written to {target.data_dir}: {', '.join(files)}"
    return CommandResult({**facts, "written": [*files]}, f"{text}\n\n{written}", notes)


def _parse_predictions(texts: Sequence[str]) -> dict[str, Path]:
    """Returns the files of --predictions by name."""
    pairs = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UserError(f"--predictions {text}: write NAME=FILE, for example Pose-REN=results.txt")
        pairs.append((name, Path(path)))
    check_subsets([name for name, _ in pairs], "--predictions")
    return dict(pairs)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"--seed {seed}: a seed must be 0 or larger")
