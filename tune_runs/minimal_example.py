"""The smallest complete experiment: three dicts, two options, three repetitions, on a synthetic dataset.

Make the dataset first (`make demo` does both):

    python tune_runs/prepare_data.py synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B
    python tune_runs/minimal_example.py

If you start it again, it trains nothing. If you add a value to an option, or a repetition, it trains only what is new.
All other keys have their defaults; `tune_runs/README.md` lists them.
"""

import torch

from cluster.experiment import Experiment
from data_pipeline.augmenters import RandomRotator
from data_pipeline.normalizers import Shifter
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP

sets = {"train_set": "demo_train", "val_set": "demo_val", "test_set": "demo_test"}  # data/demo_train_labels.pt, ...
experiment_config = {"name": "minimal_example", **sets, "normalizer": Shifter, "n_repetitions": 3}
solver_config = {"num_epochs": 10, "batch_size": 128, "val_example_indices": [0, 100, 200], "val_example_subset": "A"}
base_hyperparams = {
    "model": CorrectorMLP,
    "model_args": {"hidden_dims": [256, 256]},
    "loss_function": MetricLoss(errors.coordinate_difference),
    "optimizer": torch.optim.Adam,
    "optimizer_args": {"lr": 1e-3},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 8},
}

if __name__ == "__main__":
    experiment = Experiment(experiment_config, solver_config, base_hyperparams)
    experiment.add_options("optimizer_args.lr", [3e-4, 1e-3, 3e-3])
    experiment.add_options("augmenters", [[], [RandomRotator()]])
    experiment.run()
