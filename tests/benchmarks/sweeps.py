"""Small sweeps over random poses, which the benchmarks train."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from cluster.experiment import Experiment
from data_pipeline.distorters import NoDistorter
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import write_dataset
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP


def write_random_dataset(data_dir: Path, name: str, n: int, seed: int = 0) -> None:
    """Writes n random labels of 21 joints and predictions that are 10 mm off."""
    rng = np.random.default_rng(seed)
    labels = rng.standard_normal((n, 21, 3), dtype=np.float32) * 50 + np.float32([0, 0, 500])
    write_dataset(data_dir, name, labels, labels + 6 * rng.standard_normal((n, 21, 3), dtype=np.float32))


def experiment(
    folder: Path,
    *,
    solver_config: dict[str, Any],
    hyperparams: Mapping[str, Any] = MappingProxyType({}),
    **experiment_config: Any,
) -> Experiment:
    """Returns an experiment on the sets `train` and `val` of `folder/data`."""
    return Experiment(
        {
            "name": "bench",
            "train_set": "train",
            "train_set_size": None,
            "val_set": "val",
            "val_set_size": None,
            "use_preset": True,
            "normalizer": Shifter,
            "target_device": torch.device("cpu"),
            "n_repetitions": 1,
            "init_weights_path": None,
            "data_dir": folder / "data",
            "storage_path": folder / "results",
            **experiment_config,
        },
        {
            "num_epochs": 1,
            "batch_size": 512,
            "log_frequency": 1,
            "log_loss": False,
            "log_grad": False,
            "verbose": False,
            "show_plots": False,
            "interest_keys": [],
            "val_example_indices": [],
            "val_example_subset": "DEFAULT",
            **solver_config,
        },
        {
            "model": CorrectorMLP,
            "model_args": {"hidden_dims": [256, 256]},
            "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
            "loss_space": "default",
            "eval_space": "original",
            "optimizer": torch.optim.Adam,
            "optimizer_args": {"lr": 1e-3},
            "scheduler": torch.optim.lr_scheduler.StepLR,
            "scheduler_args": {"step_size": 10},
            "scheduler_requires_metric": False,
            "distorter": NoDistorter,
            "distorter_args": {},
            "augmenters": [],
            **hyperparams,
        },
    )


def run_quietly(experiment: Experiment, executor: str) -> str:
    """Runs an experiment without its table; returns what it says while it runs."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        experiment.run(executor)
    return said.getvalue()
