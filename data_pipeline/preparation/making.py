"""Datasets from nothing but a seed, or from published results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.formats.leaderboard import read_results
from data_pipeline.pose_dataset import Samples, dataset_path, write_datasets
from data_pipeline.preparation.chunks import progress
from data_pipeline.preparation.parts import Part, part_name, parts_of
from data_pipeline.preparation.splits import PARTS, Split
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.subsets import DEFAULT_SUBSET


def synthetic_parts(name: str, sizes: Mapping[str, int], subsets: Sequence[str], seed: int) -> list[Part]:
    """Makes moving hands, and what imagined backbones see of them.

    Args:
        name: What the datasets are called, without the part.
        sizes: The number of frames of each part that is wanted.
        subsets: The backbones; without any there is one without a name.
        seed: The same seed, the same datasets.
    """
    # A part's seed does not depend on which parts there are: training data stay the same with a test set beside
    # them. The parts share no subject and no noise; a backbone has the same character in all of them.
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
            parts.append(Part(name, part, Samples(labels, poses)))
    return parts


def write_stand_in(data_dir: Path, name: str, sizes: Mapping[str, int]) -> None:
    """Writes synthetic datasets for scripts that can do without real ones, unless they are there.

    Args:
        data_dir: The data folder.
        name: What the datasets are called, without the part.
        sizes: The number of frames of each part.

    Raises:
        ReplacementError: If they cannot be written.
    """
    if not all(dataset_path(data_dir, part_name(name, part), "labels").is_file() for part in sizes):
        write_datasets(data_dir, {part.name: part.samples for part in synthetic_parts(name, sizes, [], seed=0)})


def leaderboard_parts(
    bases: Mapping[str, str], dataset: str, ground_truth: Path, results: Mapping[str, Path], split: Split
) -> list[Part]:
    """Reads files of the leaderboard and splits their frames.

    Args:
        bases: For each estimator what the datasets with its predictions are called, without the part.
        dataset: A key of `LEADERBOARD_DATASETS`.
        ground_truth: The file of true joints.
        results: The file of each estimator.
        split: How the frames are divided.

    Raises:
        FormatError: If a file is broken, or has another number of frames than the ground truth.
        SplitError: If the split leaves a part without samples.
    """
    with progress(f"reading {1 + len(results)} files", None):
        labels, poses = read_results(ground_truth, results, dataset)
    parts = []
    for base in dict.fromkeys(bases.values()):
        group = [subset for subset in poses if bases[subset] == base]
        # One prediction alone needs no subset.
        names = group if len(group) > 1 else [DEFAULT_SUBSET]
        arrays = [poses[subset] for subset in group]
        parts += parts_of(base, Samples(labels, dict(zip(names, arrays, strict=True))), split)
    return parts
