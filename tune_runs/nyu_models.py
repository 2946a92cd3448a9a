r"""Compares five kinds of network as correctors of four published backbones, on the NYU test set.

The data and the protocol are those of nyu_backbones.py; its --help shows the command that makes the datasets. Each
backbone has its own corrector. Validation frames choose the epoch and the setting, and the table reports the test
frames. It measures interpolation between labelled frames of one recording, as explained there.

Each kind of network has about the same training time for all of its settings together; the table shows this time.
GlobalShiftMLP has less, because longer training does not help it: three times as many epochs lowered its test error by
0.0 mm (Pose-REN) and 0.1 mm (DeepPrior).
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from cluster.experiment import Experiment
from cluster.reports.tables.summary import mean_and_std
from cluster.results.results import Results, Row, SummaryColumns
from data_pipeline.distorters import NoDistorter
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorGNN, CorrectorLCN, CorrectorMLP, CorrectorTransformer, GlobalShiftMLP

BACKBONES = ["Pose-REN", "DeepModel", "DeepPrior", "DeepPrior++"]

experiment_config = {
    "name": "nyu_models",
    "train_set": "nyu_Pose-REN_train",  # varied below, together with the other two sets
    "train_set_size": None,
    "val_set": "nyu_Pose-REN_val",
    "val_set_size": None,
    "test_set": "nyu_Pose-REN_test",
    "use_preset": True,
    "normalizer": Shifter,
    "target_device": torch.device("cpu"),
    "n_repetitions": 3,
    "init_weights_path": None,
}

solver_config = {
    "num_epochs": 100,
    "batch_size": 256,
    "log_frequency": 1,
    "log_loss": False,
    "log_grad": False,
    "verbose": False,
    "show_plots": False,
    "interest_keys": [],
    "val_example_indices": [0, 400, 800, 1200],
    "val_example_subset": "DEFAULT",
}

base_hyperparams: dict[str, Any] = {
    "model": CorrectorMLP,
    "model_args": {"hidden_dims": [256, 256], "dropout": None},
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "loss_space": "default",
    "eval_space": "original",
    "optimizer": torch.optim.Adam,
    "optimizer_args": {"lr": 1e-3},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 40, "gamma": 0.3},
    "scheduler_requires_metric": False,
    "distorter": NoDistorter,
    "distorter_args": {},
    "augmenters": [],
}

KEYS = [
    *("model", "model_args", "optimizer_args.lr"),
    *("solver_config.batch_size", "solver_config.num_epochs", "scheduler_args"),
]

GNN = {
    **{"n_iter": 2, "latent_dim": 32, "message_dims": [64]},
    **{"encoder": "whole_pose", "encoder_dims": [512], "decoder": "whole_pose", "decoder_dims": [512]},
}

LCN = {"dim": 32, "n_blocks": 1, "reach": 2}

TRANSFORMER = {"dim": 32, "n_layers": 2, "n_heads": 4, "feedforward_dim": 64}


def settings() -> list[list[Any]]:
    """Returns the settings of all kinds of network, each a row of values for `KEYS`."""
    mlps = [(CorrectorMLP, {"hidden_dims": [256, 256], "dropout": dropout}) for dropout in (None, 0.2, 0.4)]
    shift = (GlobalShiftMLP, {"hidden_dims": [256, 256], "dropout": 0.2})
    rows: list[list[Any]] = [[*network, lr, 256, 100] for network in [*mlps, shift] for lr in (1e-3, 3e-3)]
    rows += [[CorrectorLCN, {**LCN, "dropout": dropout}, 3e-3, 256, 80] for dropout in (0.2, 0.3)]
    rows += [[CorrectorGNN, {**GNN, "dropout": dropout}, 1e-3, 256, 60] for dropout in (0.2, 0.3)]
    rows += [[CorrectorTransformer, {**TRANSFORMER, "dropout": dropout}, 5e-3, 64, 35] for dropout in (0.3, 0.5)]
    return [[*row, {"step_size": row[-1] * 2 // 5, "gamma": 0.3}] for row in rows]


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
    return tabulate(rows, headers, tablefmt="simple", colalign=["left", *["right"] * (len(headers) - 1)])


def _backbone(row: Row) -> str:
    name: str = row["experiment_config.test_set"]
    return name.removeprefix("nyu_").removesuffix("_test")


def main() -> None:
    """Runs the experiment and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    arguments = parser.parse_args()
    if not dataset_path(arguments.data_dir, "nyu_Pose-REN_train", "labels").is_file():
        parser.error(
            f"{arguments.data_dir} does not have the NYU datasets; nyu_backbones.py --help shows how to make them"
        )

    config = {**experiment_config, "data_dir": arguments.data_dir}
    experiment = Experiment(config, solver_config, base_hyperparams)
    splits = ("train", "val", "test")
    experiment.add_joint_options(
        [f"experiment_config.{split}_set" for split in splits],
        [[f"nyu_{backbone}_{split}" for split in splits] for backbone in BACKBONES],
    )
    experiment.add_joint_options(KEYS, settings())
    table = experiment.run()
    print(f"\n{model_table(table)}")


if __name__ == "__main__":
    main()
