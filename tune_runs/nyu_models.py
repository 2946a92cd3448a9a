"""Compares six kinds of network as correctors of four published backbones, at a distance from the training frames.

The data and the protocol are those of nyu_recording.py; its --help shows the command that makes the datasets. Each
backbone has its own corrector. Every kind of network has the same search: four settings of dropout and learning rate.
Validation frames choose the epoch and the setting, and the table reports the test frames. Kinds that take longer have
fewer epochs, and the table shows the training time of each.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from cluster.experiment import Experiment
from cluster.reports.tables.summary import mean_and_std
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import (
    Corrector,
    CorrectorGNN,
    CorrectorLCN,
    CorrectorMLP,
    CorrectorTransformer,
    GlobalShiftMLP,
    TemporalLCN,
)

BACKBONES = ["Pose-REN", "DeepModel", "DeepPrior", "DeepPrior++"]

experiment_config = {
    "name": "nyu_models",
    "train_set": "recording_Pose-REN_train",  # varied below, together with the other two sets
    "val_set": "recording_Pose-REN_val",
    "test_set": "recording_Pose-REN_test",
    "normalizer": Shifter,
    "n_repetitions": 3,
}

solver_config = {
    "num_epochs": 100,
    "batch_size": 256,
    "val_example_indices": [0, 500, 1000],
}

base_hyperparams: dict[str, Any] = {
    "model": CorrectorMLP,
    "model_args": {"hidden_dims": [256, 256], "dropout": None},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": torch.optim.Adam,
    "optimizer_args": {"lr": 1e-3},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 40, "gamma": 0.3},
}

KEYS = [
    *("model", "model_args", "optimizer_args.lr"),
    *("solver_config.batch_size", "solver_config.num_epochs", "scheduler_args"),
]

GNN = {
    **{"n_iter": 2, "latent_dim": 32, "message_dims": [64]},
    **{"encoder": "whole_pose", "encoder_dims": [512], "decoder": "whole_pose", "decoder_dims": [512]},
}

MLP = {"hidden_dims": [256, 256]}

LCN = {"dim": 32, "n_blocks": 1, "reach": 2}

TRANSFORMER = {"dim": 32, "n_layers": 2, "n_heads": 4, "feedforward_dim": 64}


NETWORKS: list[tuple[type[Corrector], dict[str, Any], int, int]] = [
    (CorrectorMLP, MLP, 256, 60),
    (CorrectorLCN, LCN, 256, 30),
    (TemporalLCN, {**LCN, "size": 17}, 256, 25),
    (CorrectorGNN, GNN, 256, 25),
    (CorrectorTransformer, TRANSFORMER, 64, 20),
    (GlobalShiftMLP, MLP, 256, 60),
]
"""The kinds of network, with their sizes, the samples in a batch, and the number of epochs."""


def settings() -> list[list[Any]]:
    """Returns four settings of each kind of network, each a row of values for `KEYS`."""
    return [
        [model, {**sizes, "dropout": dropout}, lr, batch_size, n_epochs, {"step_size": n_epochs * 2 // 5, "gamma": 0.3}]
        for model, sizes, batch_size, n_epochs in NETWORKS
        for dropout in (0.3, 0.5)
        for lr in (1e-3, 3e-3)
    ]


def model_table(table: Results) -> str:
    """Returns a row for each kind of network: the test errors of its settings that are best in validation."""
    best: dict[tuple[str, str], Row] = {}
    seconds: dict[str, float] = {}
    on_test = SummaryColumns.of("test")
    for row in table.summary:
        best.setdefault((row["model"], _backbone(row)), row)
    for trial in table.trials:
        seconds[trial["model"]] = seconds.get(trial["model"], 0.0) + (trial["train_seconds"] or 0.0)
    rows = [
        [
            model,
            *(
                mean_and_std(best[model, backbone][on_test.mean], best[model, backbone][on_test.std])
                for backbone in BACKBONES
            ),
            f"{seconds[model] / 60:.1f} min",
        ]
        for model in dict.fromkeys(model for model, _ in best)
    ]
    before = [f"{best[rows[0][0], backbone][on_test.before]:.2f}" for backbone in BACKBONES]
    rows.sort(key=lambda cells: cells[0] != "CorrectorMLP")
    rows.insert(0, ["uncorrected", *before, ""])
    headers = ["", *BACKBONES, "trained for"]
    alignment = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, tablefmt="simple", colalign=alignment, disable_numparse=True)


def _backbone(row: Row) -> str:
    name: str = row["experiment_config.test_set"]
    return name.removeprefix("recording_").removesuffix("_test")


def main() -> None:
    """Runs the experiment and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    parser.add_argument("--wait-for-nodes", action="store_true", help="wait if the cluster has no node for a trial yet")
    arguments = parser.parse_args()
    if not dataset_path(arguments.data_dir, "recording_Pose-REN_train", "labels").is_file():
        parser.error(
            f"{arguments.data_dir} does not have the NYU datasets; nyu_recording.py --help shows how to make them"
        )

    config = {**experiment_config, "data_dir": arguments.data_dir}
    experiment = Experiment(config, solver_config, base_hyperparams)
    splits = ("train", "val", "test")
    experiment.add_joint_options(
        [f"experiment_config.{split}_set" for split in splits],
        [[f"recording_{backbone}_{split}" for split in splits] for backbone in BACKBONES],
    )
    experiment.add_joint_options(KEYS, settings())
    table = experiment.run(wait_for_nodes=arguments.wait_for_nodes)
    print(f"\n{model_table(table)}")


if __name__ == "__main__":
    main()
