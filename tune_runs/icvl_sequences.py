r"""Corrects a recording that the corrector has never seen: trains on one sequence of ICVL and tests on the other.

The authors of the papers published the predictions (github.com/xinghaochen/awesome-hand-pose-estimation, folder
evaluation/). With the files for ICVL in $D, this command makes the datasets:

    python tune_runs/prepare_data.py leaderboard --dataset icvl --name icvl --separate --split sequences:40%:2:10 \
        --folds --ground-truth $D/icvl_test_groundtruth_label.txt \
        --predictions Pose-REN=$D/NEUCOM18_ICVL_Pose_REN.txt DeepModel=$D/IJCAI16_ICVL_DeepModel.txt \
                      LRF=$D/CVPR14_LRF_Results.txt

Each backbone has its own corrector, kernel ridge regression of the correction, in both directions. First, the settings
are chosen inside the training sequence: trained on its first 60 %, validated on its last 40 %, with 10 frames between
them; the errors of these backbones correlate at 0.04 at that distance. Then the chosen setting is fitted to the whole
training sequence and tested on the other one, once. The fit is a closed form over one epoch, so nothing else is chosen.
"""

import argparse
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cluster.experiment import Experiment
from cluster.reports.tables.summary import mean_and_std, percent_and_interval
from cluster.results.change_intervals import change_intervals
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import KernelCorrector

BACKBONES = ["Pose-REN", "DeepModel", "LRF"]

DIRECTIONS = {"1 → 2": ("fold1", "fold2"), "2 → 1": ("fold2", "fold1")}
"""The fold that tests the second sequence of the direction, and the one that tests the first."""

experiment_config: dict[str, Any] = {
    "name": "icvl_sequences_choice",
    "train_set": "icvl_Pose-REN_fold1_train",  # varied below, together with the other set
    "val_set": "icvl_Pose-REN_fold1_val",
    "normalizer": Shifter,
    "n_repetitions": 1,
}

solver_config = {
    "num_epochs": 1,
    "batch_size": 256,
}

base_hyperparams: dict[str, Any] = {
    "model": KernelCorrector,
    "model_args": {"bandwidth": 16.0, "ridge": 0.3, "n_centres": 512, "axes": ["input", "palm"], "sigma": None},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": None,  # the model is fitted in closed form
}

OPTIONS: dict[str, list[Any]] = {
    "model_args.bandwidth": [6.0, 8.0, 12.0, 16.0, 24.0, 32.0],
    "model_args.ridge": [0.1, 0.3, 1.0, 3.0],
    "model_args.sigma": [None, 0.5, 1.0],
}


def chosen_settings(data_dir: Path) -> dict[tuple[str, str], Row]:
    """Trains every setting inside the training sequences, and returns the best one for each direction and backbone."""
    experiment = Experiment({**experiment_config, "data_dir": data_dir}, solver_config, base_hyperparams)
    sets = {
        (direction, backbone): [f"icvl_{backbone}_{tests_second}_{split}" for split in ("train", "val")]
        for direction, (tests_second, _) in DIRECTIONS.items()
        for backbone in BACKBONES
    }
    paths = [f"experiment_config.{split}_set" for split in ("train", "val")]
    experiment.add_joint_options(paths, list(sets.values()))
    experiment.add_options(OPTIONS)
    best = {row[paths[0]]: row for row in experiment.run("inline").best_for_each(paths[0])}
    return {key: best[train_set] for key, (train_set, _) in sets.items()}


def transfer(data_dir: Path, chosen: dict[tuple[str, str], Row]) -> Results:
    """Fits the chosen settings to whole sequences and tests them on the other ones."""
    config = {
        **experiment_config,
        "data_dir": data_dir,
        "name": "icvl_sequences",
        "test_set": "icvl_Pose-REN_fold1_test",
        "n_repetitions": 6,
    }
    experiment = Experiment(config, solver_config, base_hyperparams)
    experiment.add_joint_options(
        [*(f"experiment_config.{split}_set" for split in ("train", "val", "test")), *OPTIONS],
        [
            [
                # The whole training sequence is what the other fold tests. Nothing is chosen on the validation set.
                f"icvl_{backbone}_{DIRECTIONS[direction][1]}_test",
                f"icvl_{backbone}_{DIRECTIONS[direction][0]}_val",
                f"icvl_{backbone}_{DIRECTIONS[direction][0]}_test",
                *(row[path] for path in OPTIONS),
            ]
            for (direction, backbone), row in chosen.items()
        ],
    )
    return experiment.run("inline")


def transfer_table(table: Results, chosen: dict[tuple[str, str], Row]) -> str:
    """Returns a row for each direction and backbone."""
    by_set = {row["experiment_config.test_set"]: row for row in table.summary}
    rows = []
    for backbone in BACKBONES:
        for direction, (tests_second, _) in DIRECTIONS.items():
            row = by_set[f"icvl_{backbone}_{tests_second}_test"]
            before, after, std, _, percent = (row[name] for name in SummaryColumns.of("test"))
            change = percent_and_interval(percent, change_intervals(table, row, "test"))
            setting = ", ".join(f"{path.rpartition('.')[2]} {chosen[direction, backbone][path]}" for path in OPTIONS)
            cells = [backbone, direction, f"{before:.2f}", mean_and_std(after, std), change, row["n"]]
            rows.append([*cells, setting])
    headers = ["backbone", "train → test", "before (mm)", "after (mm)", "Δ", "n", "chosen inside the training sequence"]
    alignment = ["left", "left", "right", "right", "right", "right", "left"]
    return tabulate(rows, headers, tablefmt="simple", colalign=alignment)


def main() -> None:
    """Runs both experiments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    data_dir = parser.parse_args().data_dir
    if not dataset_path(data_dir, "icvl_Pose-REN_fold1_train", "labels").is_file():
        parser.error(f"{data_dir} does not have the ICVL datasets; see --help for the command that makes them")
    chosen = chosen_settings(data_dir)
    print(f"\n{transfer_table(transfer(data_dir, chosen), chosen)}")


if __name__ == "__main__":
    main()
