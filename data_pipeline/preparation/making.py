"""Makes datasets from a seed or from published results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import Frames
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS, read_results
from data_pipeline.formats.units import require_hands
from data_pipeline.frame_table import FrameTable
from data_pipeline.pose_dataset import Samples, dataset_path, write_datasets
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.parts import DatasetPart, dataset_name, split_samples
from data_pipeline.preparation.splits.split import PARTS, Split
from data_pipeline.preparation.synthetic import SEQUENCE_LENGTH, Backbone, synthetic_hands
from data_pipeline.subsets import DEFAULT_SUBSET


def synthetic_parts(name: str, sizes: Mapping[str, int], subsets: Sequence[str], seed: int) -> list[DatasetPart]:
    """Makes moving hands and predictions of simulated backbones for them.

    Args:
        name: The name of the datasets, without the part.
        sizes: The number of frames of each part to make.
        subsets: The names of the backbones; empty for a single one without a name.
        seed: The same seed gives the same datasets.
    """
    # The seed of a part does not depend on which other parts are made: training data are the same with and without a
    # test set. The parts share no subject and no noise; a backbone makes the same kind of errors in all of them.
    part_seeds = dict(zip(PARTS, np.random.SeedSequence(seed).generate_state(len(PARTS)), strict=True))
    backbones = [Backbone(subset, seed) for subset in subsets or [DEFAULT_SUBSET]]
    parts = []
    with progress("making hands", sum(sizes.values()) * (1 + len(backbones))) as advance:
        for part, size in sizes.items():
            part_seed = int(part_seeds[part])
            labels = synthetic_hands(size, part_seed)
            advance(size)
            poses = {}
            for backbone in backbones:
                poses[backbone.subset] = backbone.predict(labels, part_seed)
                advance(size)
            parts.append(DatasetPart(name, part, Samples(labels, poses, _synthetic_frames(size, part))))
    return parts


def write_stand_in(data_dir: Path, name: str, sizes: Mapping[str, int]) -> None:
    """Writes synthetic datasets, unless they exist, for scripts that also run without real data.

    Args:
        data_dir: The data folder.
        name: The name of the datasets, without the part.
        sizes: The number of frames of each part.

    Raises:
        UserError: If they cannot be written.
    """
    if not all(dataset_path(data_dir, dataset_name(name, part), "labels").is_file() for part in sizes):
        write_datasets(data_dir, {part.name: part.samples for part in synthetic_parts(name, sizes, [], seed=0)})


def leaderboard_parts(
    bases: Mapping[str, str],
    dataset: str,
    ground_truth: Path,
    results: Mapping[str, Path],
    split: Split,
    *,
    folds: bool = False,
    force: bool = False,
) -> list[DatasetPart]:
    """Reads leaderboard files and splits their frames.

    Args:
        bases: For each backbone the name of the datasets with its predictions, without the part.
        dataset: A key of `LEADERBOARD_DATASETS`.
        ground_truth: The file with the true joints.
        results: The file of each backbone.
        split: How to split the frames.
        folds: Make the datasets of all folds.
        force: Accept files that seem to be in another unit.

    Raises:
        FormatError: If a file is broken, if its number of frames differs from the ground truth's, or if it seems to be
            in another unit.
        UserError: If the frames cannot be split in this way.
    """
    with progress(f"reading {1 + len(results)} files", None):
        labels, poses = read_results(ground_truth, results, dataset)
        frames = LEADERBOARD_DATASETS[dataset].frame_table(Frames(labels))
    if not force:
        for path, array in [(ground_truth, labels), *((results[subset], poses[subset]) for subset in poses)]:
            require_hands(path, FORMATS[f"leaderboard-{dataset}"], array)
    parts = []
    for base in dict.fromkeys(bases.values()):
        group = [subset for subset in poses if bases[subset] == base]
        # A single prediction needs no subset name.
        names = group if len(group) > 1 else [DEFAULT_SUBSET]
        arrays = [poses[subset] for subset in group]
        samples = Samples(labels, dict(zip(names, arrays, strict=True)), frames)
        parts += split_samples(base, samples, split, folds=folds)
    return parts


def _synthetic_frames(n: int, part: str) -> FrameTable:
    """Returns the table of a part's frames; each sequence shows another subject."""
    number, index = np.divmod(np.arange(n), SEQUENCE_LENGTH)  # (N,) each
    names = np.array([f"{part}-{i}" for i in range(number[-1] + 1)], np.object_)[number]
    return FrameTable.of(sequence=names, index=index, subject=names)
