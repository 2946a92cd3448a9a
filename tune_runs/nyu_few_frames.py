r"""Corrects a new person from a few labelled frames: 0, 10, 50 or 200 of each of the two people of NYU's test set.

The authors of the papers published the predictions (github.com/xinghaochen/awesome-hand-pose-estimation, folder
evaluation/). With the files for NYU in $D, this command makes the datasets, which nyu_people.py also uses:

    python tune_runs/prepare_data.py leaderboard --dataset nyu --name people --separate --split subjects:20%:2:100 \
        --folds --ground-truth $D/nyu_test_groundtruth_label.txt \
        --predictions Pose-REN=$D/NEUCOM18_NYU_Pose_REN.txt DeepModel=$D/IJCAI16_NYU_DeepModel.txt \
                      DeepPrior=$D/CVWW15_NYU_Prior.txt "DeepPrior++=$D/ICCVW17_NYU_DeepPrior++.txt"

The script splits each person's recording: the last 70 percent are tested, and labelled frames come from those that are
at least 100 frames before them. At that distance the errors of Pose-REN correlate at 0.04. N labelled frames are one
random frame from each of N pieces of equal length.

The corrector is kernel ridge regression of the correction, fitted to the labelled frames alone. It smooths the tested
poses over time, but hardly the labelled ones, since few of these are neighbours. Its settings are the best ones on the
other person, whose labels are all known, with one draw of as many labelled frames. Without any, the poses are only
smoothed. The chosen settings are tested with six draws of labelled frames.
"""

import argparse
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from tabulate import tabulate

from cluster.experiment import Experiment
from cluster.reports.tables.summary import mean_and_std, percent_and_interval
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path, read_samples, write_datasets
from data_pipeline.preparation.splits.syntax import parse_split
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import GaussianSmoother, KernelCorrector

BACKBONES = ["Pose-REN", "DeepModel", "DeepPrior", "DeepPrior++"]

DIRECTIONS = {"1 → 2": ("fold2", "fold1"), "2 → 1": ("fold1", "fold2")}
"""The fold of `people` that tests the other person, who chooses, and the one that tests the new person."""

SPLIT = parse_split("last:0:70:100")
"""How the recording of a person is split. There are too few labels for a validation set."""

N_DRAWS = 6
"""How often labelled frames are drawn."""

experiment_config: dict[str, Any] = {
    "name": "nyu_few_frames",
    "train_set": "few_Pose-REN_fold1_10_0",  # the sets are varied below
    "val_set": "few_Pose-REN_fold2_test",
    "normalizer": Shifter,
    "n_repetitions": 1,  # all repetitions are equal: every labelled frame is a centre, in any order
}

solver_config = {
    "num_epochs": 1,
    "batch_size": 4096,
}

base_hyperparams: dict[str, Any] = {
    "model": KernelCorrector,
    "model_args": {"bandwidth": 32.0, "ridge": 3.0, "n_centres": 200, "axes": ["input", "palm"], "sigma": 1.0},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": None,  # the model is fitted in closed form
}

OPTIONS: dict[str, list[Any]] = {
    "model_args.bandwidth": [16.0, 32.0],
    "model_args.ridge": [0.3, 1.0, 3.0, 10.0],
    "model_args.sigma": [1.0, 2.0],
}

SMOOTHER = {"model": GaussianSmoother, "model_args": {"sigma": 1.0}}

WIDTHS: dict[str, list[Any]] = {"model_args.sigma": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]}

EXPERIMENTS: dict[str, tuple[list[int], dict[str, Any], dict[str, list[Any]]]] = {
    "nyu_few_frames_none": ([0], base_hyperparams | SMOOTHER, WIDTHS),
    "nyu_few_frames": ([10, 50, 200], base_hyperparams, OPTIONS),
}
"""The numbers of labelled frames, the hyperparameters and the options of each experiment."""

Case = tuple[str, str, int]
"""A backbone, a direction and a number of labelled frames."""


def split_people(data_dir: Path) -> None:
    """Writes the test set of each person and all draws of labelled frames."""
    for backbone, fold in product(BACKBONES, ("fold1", "fold2")):
        person = read_samples(data_dir, f"people_{backbone}_{fold}_test")
        parts = SPLIT.parts(len(person))
        datasets = {f"few_{backbone}_{fold}_test": person.take(parts["test"])}
        for n, draw in product(EXPERIMENTS["nyu_few_frames"][0], range(N_DRAWS)):
            edges = np.arange(n + 1) * len(parts["train"]) // n  # (n + 1,)
            drawn = np.random.default_rng(draw).integers(edges[:-1], edges[1:])  # (n,)
            datasets[labelled_frames(backbone, fold, n, draw)] = person.take(parts["train"][drawn])
        write_datasets(data_dir, datasets)


def labelled_frames(backbone: str, fold: str, n: int, draw: int) -> str:
    """Returns the name of a training set. Smoothing needs none, so for n = 0 any will do."""
    return f"few_{backbone}_{fold}_{n or 10}_{draw}"


def chosen_settings(data_dir: Path, name: str) -> dict[Case, Row]:
    """Corrects the other person in every setting, and returns the best one for each case."""
    numbers, hyperparams, options = EXPERIMENTS[name]
    sets = {
        (backbone, direction, n): [labelled_frames(backbone, other, n, 0), f"few_{backbone}_{other}_test"]
        for backbone, (direction, (other, _)), n in product(BACKBONES, DIRECTIONS.items(), numbers)
    }
    paths = [f"experiment_config.{split}_set" for split in ("train", "val")]
    config = {**experiment_config, "name": f"{name}_choice", "data_dir": data_dir}
    experiment = Experiment(config, solver_config, hyperparams)
    experiment.add_joint_options(paths, list(sets.values()))
    experiment.add_options(options)
    best = {row[paths[0]]: row for row in experiment.run("inline").best_for_each(paths[0])}
    return {case: best[train_set] for case, (train_set, _) in sets.items()}


def transfer(data_dir: Path, name: str, chosen: dict[Case, Row]) -> Results:
    """Corrects the new person in the chosen settings, with every draw of labelled frames."""
    _, hyperparams, options = EXPERIMENTS[name]
    config = {**experiment_config, "name": name, "data_dir": data_dir, "test_set": "few_Pose-REN_fold1_test"}
    experiment = Experiment(config, solver_config, hyperparams)
    experiment.add_joint_options(
        [*(f"experiment_config.{split}_set" for split in ("train", "val", "test")), *options],
        [
            [
                labelled_frames(backbone, DIRECTIONS[direction][1], n, draw),
                # Nothing is chosen on the validation set.
                f"few_{backbone}_{DIRECTIONS[direction][0]}_test",
                f"few_{backbone}_{DIRECTIONS[direction][1]}_test",
                *(row[path] for path in options),
            ]
            for (backbone, direction, n), row in chosen.items()
            for draw in range(N_DRAWS if n else 1)
        ],
    )
    return experiment.run("inline")


def few_frames_table(table: Results, chosen: dict[Case, Row]) -> str:
    """Returns a row for each case: mean and sample standard deviation of the test error over the draws."""
    by_set = {row["experiment_config.train_set"]: row for row in table.summary}
    columns = SummaryColumns.of("test")
    rows = []
    for (backbone, direction, n), setting in chosen.items():
        new = DIRECTIONS[direction][1]
        draws = [by_set[labelled_frames(backbone, new, n, draw)] for draw in range(N_DRAWS if n else 1)]
        before, after = draws[0][columns.before], [row[columns.mean] for row in draws]
        std = stdev(after) if n else None
        change = percent_and_interval(100 * (mean(after) / before - 1), None)
        settings = ", ".join(f"{path.rpartition('.')[2]} {setting[path]}" for path in setting if path in OPTIONS)
        rows.append(
            [backbone, direction, n, f"{before:.2f}", mean_and_std(mean(after), std), change, len(draws), settings]
        )
    headers = ["backbone", "other → new", "labels", "before (mm)", "after (mm)", "Δ", "n", "chosen on the other person"]
    alignment = ["left", "left", "right", "right", "right", "right", "right", "left"]
    return tabulate(rows, headers, tablefmt="simple", colalign=alignment, disable_numparse=True)


def main() -> None:
    """Runs all experiments and prints a table for each kind of correction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    data_dir = parser.parse_args().data_dir
    if not dataset_path(data_dir, f"people_{BACKBONES[0]}_fold1_test", "labels").is_file():
        parser.error(
            f"{data_dir} does not have the datasets of both people; see --help for the command that makes them"
        )
    split_people(data_dir)
    tables = []
    for name in EXPERIMENTS:
        chosen = chosen_settings(data_dir, name)
        tables.append(few_frames_table(transfer(data_dir, name, chosen), chosen))
    print("\n" + "\n\n".join(tables))


if __name__ == "__main__":
    main()
