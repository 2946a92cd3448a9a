"""A small experiment that trains in a moment, and models and losses that fail.

Classes are at the top level, so that other processes can import them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.executors.job import Job
from cluster.experiment import Experiment
from cluster.planning.inputs import Inputs
from cluster.planning.plan import make_plan
from cluster.result_table import ResultTable
from cluster.storage.folders import TrialFolder
from cluster.trial.rehearsal import N_SAMPLES
from cluster.trial.trainable import Trial, TrialData
from data_pipeline.distorters import NeighborErrorBankDistorter, NoDistorter
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import Array, write_dataset
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.skeleton import Skeleton
from data_pipeline.tables import write_errors, write_neighbors
from posenet import errors
from posenet.losses import Loss, MetricLoss
from posenet.models import CorrectorMLP, KernelCorrector, MeanFusion

MISSING = object()
"""The value of a key to leave out."""

LR = "optimizer_args.lr"


def case_id(value: object) -> str:
    """Returns the name of a parametrized case: the same in every process, so without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:80]


@dataclass(frozen=True)
class SmallExperiment:
    """A small experiment with its data and results folders."""

    data_dir: Path
    storage_path: Path | str

    @property
    def folder(self) -> Path:
        return Path(self.storage_path) / "small_experiment"

    def dicts(self, changes: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """Returns the three dicts with some changed settings, by dotted path that begins with the dict's name."""
        dicts: dict[str, dict[str, Any]] = {
            "experiment_config": {
                "name": "small_experiment",
                "train_set": "small_train",
                "train_set_size": None,
                "val_set": "small_val",
                "val_set_size": None,
                "test_set": None,
                "test_set_size": None,
                "use_preset": True,
                "normalizer": Shifter,
                "target_device": torch.device("cpu"),
                "n_repetitions": 1,
                "init_weights_path": None,
                "data_dir": self.data_dir,
                "storage_path": self.storage_path,
            },
            "solver_config": {
                "num_epochs": 2,
                "batch_size": 16,
                "log_frequency": 1,
                "log_loss": False,
                "log_grad": False,
                "verbose": False,
                "show_plots": False,
                "interest_keys": [],
                "val_example_indices": [0, 3],
                "val_example_subset": "DEFAULT",
            },
            "base_hyperparams": {
                "model": CorrectorMLP,
                "model_args": {"hidden_dims": [8], "activation": "leaky_relu", "dropout": None, "batchnorm": False},
                "choose_strength": False,
                "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
                "loss_space": "default",
                "eval_space": "original",
                "optimizer": torch.optim.Adam,
                "optimizer_args": {"lr": 1e-3, "weight_decay": 0.0},
                "scheduler": torch.optim.lr_scheduler.StepLR,
                "scheduler_args": {"step_size": 1, "gamma": 0.5},
                "scheduler_requires_metric": False,
                "distorter": NoDistorter,
                "distorter_args": {},
                "augmenters": [],
            },
        }
        for path, value in (changes or {}).items():
            *parents, last = path.split(".")
            target = dicts
            for parent in parents:
                target = target[parent]
            if value is MISSING:
                target.pop(last, None)
            else:
                target[last] = value
        return dicts

    def experiment(
        self, changes: Mapping[str, Any] | None = None, options: Mapping[Any, Sequence[Any]] | None = None
    ) -> Experiment:
        experiment = Experiment(*self.dicts(changes).values())
        experiment.add_options(options or {})
        return experiment

    def run(
        self, changes: Mapping[str, Any] | None = None, options: Mapping[Any, Sequence[Any]] | None = None
    ) -> ResultTable:
        return self.experiment(changes, options).run("inline")

    def trial(
        self, changes: Mapping[str, Any] | None = None, device: torch.device | None = None
    ) -> tuple[Trial, TrialData, TrialFolder]:
        """Returns the only trial, for `run_trial` on the CPU or another device, with its data and its folder."""
        experiment = self.experiment(changes)
        inputs = Inputs(experiment.config.data_folder)
        plan = make_plan(experiment.space, inputs, n_repetitions=1, seed=0)
        job = Job.of(experiment.config, experiment.space, inputs)
        trial = job.trial(plan.trials[0], device or torch.device("cpu"))
        return trial, job.data(trial.settings), job.folder.trial(trial.id)

    def key(self, changes: Mapping[str, Any] | None = None) -> str:
        """Returns the identity of the only combination."""
        (combination,) = self.experiment(changes).plan().combinations
        return combination.key


CLOSED_FORM: dict[str, Any] = {
    "base_hyperparams.model": KernelCorrector,
    "base_hyperparams.model_args": {"bandwidth": 30.0, "ridge": 0.1, "n_centres": 16},
    **{f"base_hyperparams.{name}": None for name in ("optimizer", "scheduler")},
    **{f"base_hyperparams.{name}_args": {} for name in ("optimizer", "scheduler")},
}
"""Settings of a model that is fitted without gradients."""

FUSION: dict[str, Any] = {
    **CLOSED_FORM,
    "base_hyperparams.model": MeanFusion,
    "base_hyperparams.model_args": {"sigma": 1.0},
    **{f"experiment_config.{split}_set": f"two_{split}" for split in ("train", "val", "test")},
    "solver_config.val_example_subset": "A",
}
"""Settings of a model that fuses the subsets A and B; nothing is trained."""

NEIGHBOR_ERRORS: dict[str, Any] = {
    "base_hyperparams.distorter": NeighborErrorBankDistorter,
    "base_hyperparams.distorter_args": {"bank_name": "bank", "neighbors_name": "near", "max_k": 3},
}
"""Settings of a distorter that reads the tables of `write_datasets`."""


def write_datasets(folder: Path) -> None:
    """Writes `small_*`, `two_*` with subsets A and B, and `nyu_*` with another skeleton; 40, 20 and 20 samples.

    Also writes the tables `bank`, 30 errors, and `near`, 4 neighbours in the bank for each training sample.
    """
    write_tables(folder, synthetic_hands(40, 0))
    for seed, (part, n) in enumerate({"train": 40, "val": 20, "test": 20}.items()):
        labels = synthetic_hands(n, seed)
        poses = {name: Backbone(name).predict(labels, seed) for name in ("A", "B")}
        write_dataset(folder, f"small_{part}", labels, poses["A"])
        write_dataset(folder, f"two_{part}", labels, poses)
        write_dataset(folder, f"nyu_{part}", labels[:, :14], poses["A"][:, :14])


def write_tables(folder: Path, labels: Array) -> None:
    """Writes tables `bank` and `near` for a training set with these labels, (N, J, 3), mm."""
    rng = np.random.default_rng(0)
    write_errors(folder, "bank", rng.normal(scale=5, size=(30, *labels.shape[1:])))
    write_neighbors(folder, "near", rng.integers(0, 30, (len(labels), 4)), labels, 30)


class FailingMLP(CorrectorMLP):
    """Raises in training, but not in the rehearsal before it."""

    def correction(self, poses: Tensor) -> Tensor:
        if len(poses) > N_SAMPLES:
            raise RuntimeError("this model is broken\nand has more to say")
        return super().correction(poses)


class NearMLP(CorrectorMLP):
    """Returns NaN for hands that are far away."""

    def correction(self, poses: Tensor) -> Tensor:
        return super().correction(poses).masked_fill(poses.abs() > 1e4, float("nan"))


class HungryMLP(CorrectorMLP):
    """Runs out of GPU memory."""

    def correction(self, poses: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1024.00 GiB.")


class InterruptedMLP(CorrectorMLP):
    """Is interrupted by Ctrl-C in training."""

    def correction(self, poses: Tensor) -> Tensor:
        if len(poses) > N_SAMPLES:
            raise KeyboardInterrupt
        return super().correction(poses)


@dataclass(frozen=True)
class NanLoss(Loss):
    """Is NaN."""

    def __call__(self, poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
        return (poses - labels).square().mean() * float("nan")
