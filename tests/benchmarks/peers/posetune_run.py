"""The sweep as an experiment of PoseTune, with Ray, or with `--inline` in one process.

PoseTune also logs all its metrics after each epoch and evaluates the best weights on every validation pose. It writes a
checkpoint every 30 s, from which an interrupted training continues, tables of all combinations, and a report for the
browser. A failed training is a row in the table.
"""

import sys

import torch

from cluster.experiment import Experiment
from data_pipeline.normalizers import Shifter
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from tests.benchmarks.peers.training import DROPOUT, HIDDEN_DIMS, LRS, WEIGHT_DECAYS, Sweep

INLINE = "--inline"
NAME = "sweep"

if __name__ == "__main__":
    sweep = Sweep.from_command_line()
    experiment = Experiment(
        {
            "name": NAME,
            "train_set": "train",
            "val_set": "val",
            "normalizer": Shifter,
            "n_repetitions": sweep.n_seeds,
            "data_dir": sweep.data,
            "storage_path": sweep.out,
        },
        {"num_epochs": sweep.n_epochs, "batch_size": sweep.batch_size},
        {
            "model": CorrectorMLP,
            "model_args": {"hidden_dims": HIDDEN_DIMS, "dropout": DROPOUT},
            "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
            "optimizer": torch.optim.Adam,
            "optimizer_args": {"lr": 1e-3, "weight_decay": 0.0},
            "scheduler": torch.optim.lr_scheduler.StepLR,
            "scheduler_args": {"step_size": 1000},  # never: the rivals have no scheduler
        },
    )
    experiment.add_options("optimizer_args.lr", LRS)
    experiment.add_options("optimizer_args.weight_decay", WEIGHT_DECAYS)
    experiment.run("inline" if INLINE in sys.argv else "ray")
