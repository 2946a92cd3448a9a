"""Trains the complete grid on which races are evaluated, for one published backbone on NYU; or races it.

The data are those of nyu_recording.py; its --help shows the command that makes them. The grid has 60 combinations of
width, dropout and learning rate, 6 repetitions and 100 epochs: half an hour for each backbone on two cores. Afterwards,
`posetune report race nyu_race_BACKBONE` shows what races would have cost and found. With --race, the script stops
combinations that are clearly behind, so it takes an eighth of the time. Started again without --race, it completes
them.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from cluster.experiment import Experiment
from cluster.racing.successive_halving import SuccessiveHalving
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP

BACKBONES = ["Pose-REN", "DeepModel", "DeepPrior", "DeepPrior++"]

experiment_config: dict[str, Any] = {
    "name": "nyu_race",  # followed by the backbone, like the names of the sets
    "train_set": "recording",
    "val_set": "recording",
    "test_set": "recording",
    "normalizer": Shifter,
    "n_repetitions": 6,
    "keep_weights": "none",
}

solver_config: dict[str, Any] = {"num_epochs": 100, "batch_size": 256}

base_hyperparams: dict[str, Any] = {
    "model": CorrectorMLP,
    "model_args": {"hidden_dims": [256, 256], "dropout": 0.0},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": torch.optim.Adam,
    "optimizer_args": {"lr": 1e-3},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 40, "gamma": 0.3},
}


def main() -> None:
    """Runs the experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", choices=BACKBONES, help="whose predictions are corrected")
    parser.add_argument("--race", action="store_true", help="stop combinations that are clearly behind")
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    parser.add_argument("--wait-for-nodes", action="store_true", help="wait if the cluster has no node for a trial yet")
    arguments = parser.parse_args()
    backbone = arguments.backbone
    if not dataset_path(arguments.data_dir, f"recording_{backbone}_train", "labels").is_file():
        parser.error(
            f"{arguments.data_dir} does not have the NYU datasets; nyu_recording.py --help shows how to make them"
        )
    sets = {f"{part}_set": f"recording_{backbone}_{part}" for part in ("train", "val", "test")}
    name = f"nyu_race_{backbone}".replace("+", "p")
    race = SuccessiveHalving() if arguments.race else None
    config = {**experiment_config, **sets, "name": name, "race": race, "data_dir": arguments.data_dir}
    experiment = Experiment(config, solver_config, base_hyperparams)
    experiment.add_options("model_args.hidden_dims", [[64, 64], [128, 128], [256, 256], [512, 512]])
    experiment.add_options("model_args.dropout", [0.0, 0.2, 0.4])
    experiment.add_options("optimizer_args.lr", [1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    experiment.run(wait_for_nodes=arguments.wait_for_nodes)


if __name__ == "__main__":
    main()
