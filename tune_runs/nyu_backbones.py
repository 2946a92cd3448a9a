r"""Trains correctors for four published backbones on the NYU test set, with real predictions and real labels.

The authors of the papers published the predictions (github.com/xinghaochen/awesome-hand-pose-estimation, folder
evaluation/). With the files for NYU in $D, this command makes the datasets:

    python tune_runs/prepare_data.py leaderboard --dataset nyu --name nyu --separate --split blocks:100:5 \
        --ground-truth $D/nyu_test_groundtruth_label.txt \
        --predictions Pose-REN=$D/NEUCOM18_NYU_Pose_REN.txt DeepModel=$D/IJCAI16_NYU_DeepModel.txt \
                      DeepPrior=$D/CVWW15_NYU_Prior.txt "DeepPrior++=$D/ICCVW17_NYU_DeepPrior++.txt"

Each backbone has its own corrector, trained on blocks of 100 frames. Of every five blocks, one chooses the epoch and
the setting, and another one is reported. The table measures interpolation between labelled frames of one recording:
each test block of 100 frames lies between two training blocks. At a distance of 50 frames from the training frames,
Pose-REN improves from 12.64 only to 12.03 mm instead of 9.14. Training and test frames show the same two people.
"""

import argparse
from pathlib import Path

import torch
from tabulate import tabulate

from cluster.experiment import Experiment
from cluster.reports.tables.summary import mean_and_std, percent_and_interval
from cluster.results.change_intervals import change_intervals
from cluster.results.results import Results
from cluster.results.rows import SummaryColumns
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP

BACKBONES = ["Pose-REN", "DeepModel", "DeepPrior", "DeepPrior++"]

experiment_config = {
    "name": "nyu_backbones",
    "train_set": "nyu_Pose-REN_train",  # varied below, together with the other two sets
    "val_set": "nyu_Pose-REN_val",
    "test_set": "nyu_Pose-REN_test",
    "normalizer": Shifter,
    "n_repetitions": 3,
}

solver_config = {
    "num_epochs": 100,
    "batch_size": 256,
    "val_example_indices": [0, 400, 800, 1200],
}

base_hyperparams = {
    "model": CorrectorMLP,
    "model_args": {"hidden_dims": [256, 256], "dropout": None},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": torch.optim.Adam,
    "optimizer_args": {"lr": 1e-3},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 40, "gamma": 0.3},
}


def backbone_table(table: Results) -> str:
    """Returns a row for each backbone: the test error of the setting that is best in validation."""
    rows = []
    for row in table.best_for_each("experiment_config.test_set"):
        backbone = row["experiment_config.test_set"].removeprefix("nyu_").removesuffix("_test")
        before, after, std, _, percent = (row[name] for name in SummaryColumns.of("test"))
        setting = f"lr {row['optimizer_args.lr']:g}, dropout {row['model_args.dropout']}"
        change = percent_and_interval(percent, change_intervals(table, row, "test"))
        cells = [backbone, f"{before:.2f}", mean_and_std(after, std), change]
        rows.append([*cells, row["n"], setting])
    rows.sort(key=lambda cells: BACKBONES.index(cells[0]))
    headers = ["backbone", "before (mm)", "after (mm)", "Δ", "n", "best setting in validation"]
    return tabulate(rows, headers, tablefmt="simple", colalign=["left", "right", "right", "right", "right", "left"])


def main() -> None:
    """Runs the experiment and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    parser.add_argument("--wait-for-nodes", action="store_true", help="wait if the cluster has no node for a trial yet")
    arguments = parser.parse_args()
    if not dataset_path(arguments.data_dir, "nyu_Pose-REN_train", "labels").is_file():
        parser.error(f"{arguments.data_dir} does not have the NYU datasets; see --help for the command that makes them")

    config = {**experiment_config, "data_dir": arguments.data_dir}
    experiment = Experiment(config, solver_config, base_hyperparams)
    splits = ("train", "val", "test")
    experiment.add_joint_options(
        [f"experiment_config.{split}_set" for split in splits],
        [[f"nyu_{backbone}_{split}" for split in splits] for backbone in BACKBONES],
    )
    experiment.add_options("model_args.dropout", [None, 0.2, 0.4])
    experiment.add_options("optimizer_args.lr", [1e-3, 3e-3])
    table = experiment.run(wait_for_nodes=arguments.wait_for_nodes)
    print(f"\n{backbone_table(table)}")


if __name__ == "__main__":
    main()
