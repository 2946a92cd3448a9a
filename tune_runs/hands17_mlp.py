r"""A sweep of an MLP corrector on HANDS17: learning rate, regularisation, losses, distortion, normalizers.

These commands make the datasets from the challenge's annotation and a backbone's predictions for the same images:

    python tune_runs/prepare_data.py import --format hands17 --name hands17_all \
        --labels Training_Annotation.txt --predictions my_backbone=predictions.txt
    python tune_runs/prepare_data.py clusters --dataset hands17_all --name hands17
    python tune_runs/prepare_data.py split --dataset hands17_all --name hands17 \
        --split clusters:data/hands17_clusters.txt:0:1

The file may list its frames in random order, so blocks of frames would put neighbouring frames of a video into training
and test. The second command therefore groups frames by their bone lengths, which distinguish subjects, and prints the
size of each group. The last two numbers are the groups for validation and for testing; all others are for training.
Choose two that are large enough, in place of 0 and 1; several are separated by commas (0,3:1). If the command finds no
clear groups, set their number with --k.

Without these files, --synthetic trains on a smaller synthetic dataset for fewer epochs: 21 joints, moving hands of many
subjects, and the predictions of a simulated backbone. The script makes the dataset if it is missing.
"""

# Imports with F401 are for the options that are commented out below.
import argparse
from functools import partial  # noqa: F401
from pathlib import Path
from typing import Any

import torch

from cluster.executors.executor import default_device
from cluster.experiment import Experiment
from data_pipeline.augmenters import RandomRotator, RandomScaler  # noqa: F401
from data_pipeline.distorters import InterpolationDistorter
from data_pipeline.normalizers import (
    GlobalNormalizer,  # noqa: F401
    IndividualNormalizer,  # noqa: F401
    Shifter,
    ViewpointNormalizer,
)
from data_pipeline.pose_dataset import dataset_path
from data_pipeline.preparation.making import write_stand_in
from posenet import errors
from posenet.losses import CombinedLoss, MetricLoss
from posenet.models import CorrectorMLP

experiment_config: dict[str, Any] = {
    "name": "hands17_mlp",
    "train_set": "hands17_train",
    "val_set": "hands17_val",
    "test_set": "hands17_test",
    "use_preset": True,  # False trains on labels with errors added by the distorter, without a backbone
    "normalizer": Shifter,
    "target_device": default_device(),
    "n_repetitions": 3,
}

solver_config = {
    "num_epochs": 60,
    "batch_size": 2048,
    "val_example_indices": [0, 500, 1000, 1500],
}

base_hyperparams: dict[str, Any] = {
    "model": CorrectorMLP,
    "model_args": {
        "hidden_dims": [512, 512],
        "activation": "leaky_relu",
        "dropout": 0.1,
        "batchnorm": False,
        "zero_init": False,
    },
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "optimizer": torch.optim.AdamW,
    "optimizer_args": {"lr": 1e-3, "weight_decay": 1e-2},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 20, "gamma": 0.3},
    "distorter": InterpolationDistorter,
    "distorter_args": {"strength_scale": 0.0},
}

OPTIONS: dict[str, list[Any]] = {
    "optimizer_args.lr": [1e-3, 3e-3],
    # "optimizer_args.weight_decay": [1e-3, 1e-2, 1e-1],
    # "model_args.hidden_dims": [[256, 256], [512, 512], [1024, 1024]],
    # "model_args.dropout": [None, 0.1, 0.3],
    # "model_args.batchnorm": [False, True],
    # "model_args.zero_init": [False, True],
    "loss_function": [
        MetricLoss(errors.coordinate_difference, "absolute"),
        # Penalises wrong hand proportions in addition to distances.
        CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.proportion_error, 10.0, "absolute")]),
        # CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.proportion_error, 30.0, "absolute")]),
        # CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.bone_length_error, 0.3, "absolute")]),
    ],
    # "loss_space": ["default", "original"],
    # Makes the errors of the backbone randomly weaker or stronger; 0 leaves them as they are.
    "distorter_args.strength_scale": [0.0, 0.3],
    # "augmenters": [[], [RandomRotator()], [RandomScaler(low=0.9, high=1.1)]],
    "experiment_config.normalizer": [
        Shifter,
        ViewpointNormalizer,
        # IndividualNormalizer,
        # GlobalNormalizer,
        # partial(GlobalNormalizer, individual_scaling=True),
    ],
    # "experiment_config.train_set_size": [10_000, 100_000, None],  # a learning curve
}

STAND_IN = "hands17_synthetic"


def use_stand_in() -> None:
    """Changes the dicts for the synthetic dataset; training on it takes some minutes on two cores."""
    experiment_config["name"] = "hands17_mlp_synthetic"
    experiment_config.update({f"{split}_set": f"{STAND_IN}_{split}" for split in ("train", "val", "test")})
    solver_config.update({"num_epochs": 12, "batch_size": 256})
    base_hyperparams["scheduler_args"] = {"step_size": 5, "gamma": 0.3}


def main() -> None:
    """Runs the experiment and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", type=Path, help="the folder with the datasets (default: data)")
    parser.add_argument("--synthetic", action="store_true", help="train on a small synthetic dataset")
    parser.add_argument(
        "--device",
        default=experiment_config["target_device"].type,
        choices=["cpu", "cuda"],
        help="where to train (default: cuda on a cluster, and on a machine with a GPU)",
    )
    parser.add_argument("--wait-for-nodes", action="store_true", help="wait if the cluster has no node for a trial yet")
    arguments = parser.parse_args()
    experiment_config.update(data_dir=arguments.data_dir, target_device=torch.device(arguments.device))
    if arguments.synthetic:
        write_stand_in(arguments.data_dir, STAND_IN, {"train": 8000, "val": 2000, "test": 2000})
        use_stand_in()
    elif not dataset_path(arguments.data_dir, experiment_config["train_set"], "labels").is_file():
        parser.error(
            f"{arguments.data_dir} does not have {experiment_config['train_set']}: see --help, or use --synthetic"
        )

    experiment = Experiment(experiment_config, solver_config, base_hyperparams)
    experiment.add_options(OPTIONS)
    experiment.run(wait_for_nodes=arguments.wait_for_nodes)


if __name__ == "__main__":
    main()
