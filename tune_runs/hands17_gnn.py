r"""A sweep of a message-passing corrector on HANDS17: rounds, sizes, learning rate, losses, distortion.

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
from pathlib import Path
from typing import Any

import torch

from cluster.executors.executor import default_device
from cluster.experiment import Experiment
from data_pipeline.augmenters import RandomRotator, RandomScaler  # noqa: F401
from data_pipeline.distorters import LayeredGaussianDistorter
from data_pipeline.normalizers import IndividualNormalizer, Shifter, ViewpointNormalizer  # noqa: F401
from data_pipeline.pose_dataset import dataset_path
from data_pipeline.preparation.making import write_stand_in
from posenet import errors
from posenet.losses import CombinedLoss, MetricLoss  # noqa: F401
from posenet.models import CorrectorGNN

experiment_config: dict[str, Any] = {
    "name": "hands17_gnn",
    "train_set": "hands17_train",
    "val_set": "hands17_val",
    "test_set": "hands17_test",
    "use_preset": True,  # False trains on labels with errors added by the distorter, without a backbone
    "normalizer": IndividualNormalizer,
    "target_device": default_device(),
    "n_repetitions": 3,
}

solver_config = {
    "num_epochs": 40,
    "batch_size": 2048,
    "val_example_indices": [0, 500, 1000, 1500],
}

base_hyperparams: dict[str, Any] = {
    "model": CorrectorGNN,
    "model_args": {
        "n_iter": 6,
        "latent_dim": 64,
        "encoder": "shared",
        "encoder_dims": [32, 32],
        "message_dims": [128],
        "decoder": "shared",
        "decoder_dims": [32, 32],
        "dropout": 0.0,
        "zero_init": False,
    },
    "loss_function": MetricLoss(errors.distance_error, "absolute"),
    "loss_space": "original",
    "optimizer": torch.optim.AdamW,
    "optimizer_args": {"lr": 1e-3, "weight_decay": 1e-2},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 15, "gamma": 0.3},
    "distorter": LayeredGaussianDistorter,
    # Most joints jitter slightly, some are off by a few millimetres, and a few by many millimetres.
    "distorter_args": {"layers": [(0.8, 0.0, 1.0), (0.15, 4.0, 2.0), (0.05, 15.0, 5.0)], "confusion_prob": 0.0},
}

OPTIONS: dict[str, list[Any]] = {
    "model_args.n_iter": [2, 4],
    "model_args.message_dims": [[64], [64, 64]],
    # "model_args.latent_dim": [24, 64],
    # "model_args.encoder": ["shared", "per_joint", "whole_pose"],
    # "model_args.decoder": ["shared", "per_joint", "whole_pose"],
    # "model_args.dropout": [0.0, 0.1, 0.3],
    # "model_args.zero_init": [False, True],
    "optimizer_args.lr": [1e-3, 3e-3],
    # "optimizer_args.weight_decay": [1e-3, 1e-2, 1e-1],
    # "loss_function": [
    #     MetricLoss(errors.distance_error, "absolute"),
    #     CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.proportion_error, 10.0, "absolute")]),
    #     CombinedLoss([(errors.distance_error, 1.0, "absolute"), (errors.bone_length_error, 0.3, "absolute")]),
    # ],
    # "loss_space": ["default", "original"],
    # Displacements of half, the same and twice the size.
    # "distorter_args.layers": [
    #     [(0.8, 0.0, 0.5), (0.15, 2.0, 1.0), (0.05, 7.5, 2.5)],
    #     [(0.8, 0.0, 1.0), (0.15, 4.0, 2.0), (0.05, 15.0, 5.0)],
    #     [(0.8, 0.0, 2.0), (0.15, 8.0, 4.0), (0.05, 30.0, 10.0)],
    # ],
    # "distorter_args.confusion_prob": [0.0, 0.02, 0.05],
    # "augmenters": [[], [RandomRotator()], [RandomScaler(low=0.9, high=1.1)]],
    # "experiment_config.normalizer": [IndividualNormalizer, ViewpointNormalizer, Shifter],
    # "experiment_config.train_set_size": [10_000, 100_000, None],  # a learning curve
}

STAND_IN = "hands17_synthetic"


def use_stand_in() -> None:
    """Changes the dicts for the synthetic dataset; training on it takes some minutes on two cores."""
    experiment_config["name"] = "hands17_gnn_synthetic"
    experiment_config.update({f"{split}_set": f"{STAND_IN}_{split}" for split in ("train", "val", "test")})
    solver_config.update({"num_epochs": 8, "batch_size": 256})
    base_hyperparams["model_args"] = {**base_hyperparams["model_args"], "latent_dim": 24}
    base_hyperparams["scheduler_args"] = {"step_size": 3, "gamma": 0.3}


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
