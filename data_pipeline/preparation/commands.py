"""The commands of `tune_runs/prepare_data.py`, one function each: from checked options to files and what they tell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data_pipeline.pose_dataset import PoseDataset, Samples, read_dataset, read_samples, save_dataset
from data_pipeline.preparation import selection
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.importing import Sources
from data_pipeline.preparation.inspection import inspect_samples
from data_pipeline.preparation.making import leaderboard_parts, synthetic_parts
from data_pipeline.preparation.parts import Part, error_rows, part_name, parts_of
from data_pipeline.preparation.pose_errors import pose_errors, write_pose_errors
from data_pipeline.preparation.splits import ALL_PART, parse_split
from data_pipeline.preparation.targets import Target, check_subsets
from data_pipeline.preparation.texts import (
    clusters_text,
    error_table,
    inspection_text,
    neighbors_text,
    pose_errors_text,
)
from data_pipeline.tables import error_stats_file, errors_file, neighbors_file, write_neighbors
from data_pipeline.user_error import UserError


@dataclass(frozen=True)
class Outcome:
    """What a command tells.

    Attributes:
        facts: The figures, as JSON values.
        text: The same for a person.
        notes: What else a person should know, a line each.
        status: The exit status.
    """

    facts: Any
    text: str
    notes: tuple[str, ...] = ()
    status: int = 0


def synthetic(target: Target, sizes: Mapping[str, int], subsets: Sequence[str], seed: int) -> Outcome:
    """Makes moving hands, and what imagined backbones see of them; for the arguments see `synthetic_parts`."""
    for part, size in sizes.items():
        if not 1 <= size <= 10**9:
            hint = "; leave it out for no test set" if part == "test" else ""
            raise UserError(f"--{part} {size}: needed is a number of frames from 1 to {10**9}{hint}")
    _check_seed(seed)
    check_subsets(subsets, "--subsets")
    target.check(datasets=[part_name(target.name, part) for part in sizes])
    return _written(target, synthetic_parts(target.name, sizes, subsets, seed))


def leaderboard(
    target: Target, dataset: str, ground_truth: Path, predictions: Sequence[str], split: str, *, separate: bool
) -> Outcome:
    """Reads files of the leaderboard; `separate` gives each of the `predictions`, NAME=FILE, datasets of its own."""
    way, paths = parse_split(split), _named_paths(predictions)
    bases = {subset: f"{target.name}_{subset}" if separate else target.name for subset in paths}
    target.check(datasets=[part_name(base, part) for base in bases.values() for part in way.part_names])
    return _written(target, leaderboard_parts(bases, dataset, ground_truth, paths, way))


def import_(
    target: Target,
    format_name: str | None,
    labels_format: str | None,
    labels: Path,
    predictions: Sequence[str],
    split: str,
) -> Outcome:
    """Reads files, labels and any number of `predictions`, NAME=FILE, of any formats: for these see `Sources.of`."""
    way, paths = parse_split(split), _named_paths(predictions)
    target.check(datasets=[part_name(target.name, part) for part in way.part_names])
    sources = Sources.of(labels, paths, format_name, labels_format)
    samples = sources.read()
    outcome = _written(target, parts_of(target.name, samples, way))
    notes = (*(f"note: {doubt}" for doubt in sources.doubts(samples)), *outcome.notes)
    return replace(outcome, text=f"{sources.text()}\n\n{outcome.text}", notes=notes)


def split(target: Target, dataset: str, text: str) -> Outcome:
    """Divides a dataset into parts."""
    way = parse_split(text)
    target.check(datasets=[part_name(target.name, part) for part in way.part_names])
    return _written(target, parts_of(target.name, _samples(target.data_dir, dataset), way), source=dataset)


def subset(target: Target, dataset: str, which: str, n: int, seed: int) -> Outcome:
    """Makes a smaller dataset; `which` samples it keeps is "every", "random" or "first"."""
    _check_seed(seed)
    target.check(datasets=[target.name])
    samples = _samples(target.data_dir, dataset)
    if which == "random":
        indices = selection.random(len(samples), n, seed)
    else:
        indices = {"every": selection.every, "first": selection.first}[which](len(samples), n)
    with progress("taking samples", None):
        kept = samples.take(indices)
    return _written(target, [Part(target.name, ALL_PART, kept)], source=dataset)


def clusters(target: Target, dataset: str, k: int | None) -> Outcome:
    """Groups the frames of a dataset by subject."""
    # Imported where it is needed, as below: scikit-learn takes a second to load.
    from data_pipeline.preparation.subjects import cluster_subjects, clusters_file, write_clusters

    file = clusters_file(target.name)
    target.check(files=[file])
    labelled = _dataset(target.data_dir, dataset, use_preset=False)
    found = cluster_subjects(labelled.labels, labelled.skeleton, k)
    with target.replaced(files=[file]) as folder:
        write_clusters(folder / file, dataset, found)
    notes: tuple[str, ...] = ()
    if k is None and len(found.sizes) == 1:
        best = max(found.silhouettes.values(), default=0.0)
        notes = (
            f"note: bone lengths form no clear clusters (the best silhouette is {best:.2f}), so that this may be one "
            "subject; --k makes clusters all the same",
        )
    return _told(target, found.facts, clusters_text(found.facts), [file], notes)


def neighbors(target: Target, dataset: str, bank: str, k: int) -> Outcome:
    """Finds for each label of a dataset the most similar labels of the dataset `bank`."""
    from data_pipeline.preparation.neighbors import nearest_neighbors

    file = neighbors_file(target.name)
    target.check(files=[file])
    labelled, others = (_dataset(target.data_dir, name, use_preset=False) for name in (dataset, bank))
    is_same = labelled.fingerprint == others.fingerprint
    found = nearest_neighbors(labelled.labels, others.labels, k, is_same=is_same)
    with target.replaced(files=[file]) as folder:
        write_neighbors(folder, target.name, found.rows, labelled.labels, found.n_bank, others.labels)
    return _told(target, found.facts, neighbors_text(found.facts), [file])


def errors(target: Target, dataset: str, subset_name: str | None) -> Outcome:
    """Makes tables of the errors of a subset; None for the only one."""
    files = [errors_file(target.name), error_stats_file(target.name)]
    target.check(files=files)
    found = pose_errors(_dataset(target.data_dir, dataset), subset_name)
    with target.replaced(files=files) as folder:
        write_pose_errors(folder, target.name, found)
    return _told(target, found.facts, pose_errors_text(found.facts), files)


def check(data_dir: Path, dataset: str) -> Outcome:
    """Looks at a dataset; the status is 0 for a good one, 1 where something looks wrong, 2 for a broken one."""
    try:
        found = inspect_samples(_samples(data_dir, dataset))
    except UserError as error:
        facts = {"dataset": dataset, "state": "broken", "error": str(error)}
        return Outcome(facts, "", (f"error: {error}",), 2)
    state = "suspicious" if found.warnings else "good"
    facts = {"dataset": dataset, "state": state, **asdict(found)}
    return Outcome(facts, inspection_text(dataset, found), status=1 if found.warnings else 0)


def _samples(data_dir: Path, name: str) -> Samples:
    with progress(f"reading {name}", None):
        return read_samples(data_dir, name)


def _dataset(data_dir: Path, name: str, *, use_preset: bool = True) -> PoseDataset:
    with progress(f"reading {name}", None):
        return read_dataset(data_dir, name, use_preset=use_preset)


def _written(target: Target, parts: Sequence[Part], source: str | None = None) -> Outcome:
    """Writes datasets, and tells how far off their predictions are; `source` is the dataset that they are made of."""
    rows = error_rows(parts)
    with target.replaced(datasets=[part.name for part in parts]) as folder:
        for part in parts:
            save_dataset(folder, part.name, part.samples)
    left = target.left_over(parts, source)
    notes = (
        f"note: {target.data_dir} also has {', '.join(left)} from an earlier run, with frames that may be in the "
        "datasets of this run too",
    )
    text = f"{error_table(rows)}\n\nWritten to {target.data_dir}: {', '.join(part.name for part in parts)}"
    return Outcome(rows, text, notes if left else ())


def _told(
    target: Target, facts: Mapping[str, Any], text: str, files: Sequence[str], notes: tuple[str, ...] = ()
) -> Outcome:
    written = f"Written to {target.data_dir}: {', '.join(files)}"
    return Outcome({**facts, "written": [*files]}, f"{text}\n\n{written}", notes)


def _named_paths(texts: Sequence[str]) -> dict[str, Path]:
    """Returns the files of --predictions by the names that they were given with."""
    pairs = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UserError(f"--predictions {text}: name each file, NAME=FILE, for example Pose-REN=results.txt")
        pairs.append((name, Path(path)))
    check_subsets([name for name, _ in pairs], "--predictions")
    return dict(pairs)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"--seed {seed}: a seed is 0 or larger")
