"""A run script whose sweep the tests disturb; a JSON object on its command line says what it trains.

It trains three learning rates on a small set. Classes are at the top level, so that workers find them.
"""

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import cluster.training
from cluster.executors.job import Job
from cluster.experiment import Experiment
from cluster.planning.inputs import Inputs
from cluster.planning.plan import TrialSpec
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.schedules.schedule import Step
from cluster.searching.search import Search
from cluster.trial.rehearsal import N_SAMPLES
from cluster.trial.trainable import TrialReport, run_trial
from data_pipeline.distorters import NeighborErrorBankDistorter, TrainingSamples
from data_pipeline.normalizers import Shifter
from posenet import errors
from posenet.losses import Loss, MetricLoss
from posenet.models import CorrectorMLP
from posenet.solver import EpochReport


@dataclass(frozen=True, kw_only=True)
class Noise(NeighborErrorBankDistorter):
    """Errors from tables."""

    bank_name: str = "bank"
    neighbors_name: str = "near"
    max_k: int = 3


@dataclass(frozen=True, kw_only=True)
class HangingNoise(Noise):
    """Hangs in training without output."""

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        if len(samples.poses) > N_SAMPLES:
            time.sleep(3600)
        return samples.poses


class SlowMLP(CorrectorMLP):
    """Trains slowly, so that a test can disturb a trial, and records its process.

    A variable of the environment, or else a file, sets the time of a batch; another variable multiplies it on a node.
    """

    def correction(self, poses: Tensor) -> Tensor:
        if self.training and len(poses) > N_SAMPLES:
            control = Path(os.environ["SWEEP_CONTROL"])
            factor = float(os.environ.get("SLOW_FACTOR", "1"))
            with (control / "batches").open("a") as batches:
                batches.write(f"{os.getpid()} {factor} {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}\n")
            if "RECORD_MODULES" in os.environ:
                (control / f"modules_{os.getpid()}").write_text(" ".join(sys.modules))
            start = time.monotonic()
            while (rest := start + _slow(control) * factor - time.monotonic()) > 0:
                time.sleep(min(rest, 0.05))  # the file may change meanwhile
        return super().correction(poses)


def _slow(control: Path) -> float:
    return float(os.environ.get("SLOW") or (control / "slow").read_text())


class MLPOfABadGpu(SlowMLP):
    """Fails in training on the first GPU of a machine, as if the GPU were bad."""

    def correction(self, poses: Tensor) -> Tensor:
        corrected = super().correction(poses)
        if len(poses) > N_SAMPLES and os.environ["CUDA_VISIBLE_DEVICES"] == "0":
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        return corrected


class FailingMLP(CorrectorMLP):
    """Raises in the first forward pass of its training."""

    def correction(self, poses: Tensor) -> Tensor:
        if len(poses) > N_SAMPLES:
            raise RuntimeError("this model is broken")
        return super().correction(poses)


class HungryMLP(CorrectorMLP):
    """Requests more memory than there is."""

    def correction(self, poses: Tensor) -> Tensor:
        return torch.empty(2**50).sum() * poses


LOCK = threading.Lock()


class LockedMLP(CorrectorMLP):
    """Uses a variable of this script that no other process can use."""

    def correction(self, poses: Tensor) -> Tensor:
        with LOCK:
            return super().correction(poses)


def locked(trial_id: str, report: EpochReport, model: torch.nn.Module) -> None:
    """A callback like `LockedMLP`."""
    with LOCK:
        pass


@dataclass(frozen=True)
class ExplodingLoss(Loss):
    """Returns NaN immediately."""

    def __call__(self, poses: Tensor, labels: Tensor, skeleton: object) -> Tensor:
        return (poses - labels).square().mean() * float("nan")


def experiment(spec: dict) -> Experiment:
    config = {
        "name": "sweep",
        "train_set": "small_train",
        "train_set_size": None,
        "val_set": "small_val",
        "val_set_size": None,
        "use_preset": True,
        "normalizer": Shifter,
        "target_device": torch.device(spec.get("device", "cpu")),
        "n_repetitions": 2,
        "init_weights_path": None,
        "data_dir": spec["data_dir"],
        "storage_path": spec["storage_path"],
        "checkpoint_interval_s": 0,
        "race": SuccessiveHalving(**{"reduction_factor": 3, **spec["race"]}) if "race" in spec else None,
        **spec.get("experiment_config", {}),
        "search": Search(**spec["search"]) if "search" in spec else None,
    }
    solver = {
        "num_epochs": 6,
        "batch_size": 16,
        "log_frequency": 2,
        "log_loss": True,
        "log_grad": True,
        "verbose": False,
        "show_plots": False,
        "interest_keys": [],
        "val_example_indices": [0, 3],
        "val_example_subset": "A",
        "callbacks": [globals()[name] for name in spec.get("callbacks", [])],
        **spec.get("solver_config", {}),
    }
    hyperparams = {
        "model": SlowMLP,
        "model_args": {"hidden_dims": [16], "dropout": 0.1},
        "loss_function": MetricLoss(errors.distance_error, "absolute"),
        "loss_space": "default",
        "eval_space": "original",
        "optimizer": torch.optim.Adam,
        "optimizer_args": {"lr": 1e-3},
        "scheduler": torch.optim.lr_scheduler.StepLR,
        "scheduler_args": {"step_size": 2},
        "scheduler_requires_metric": False,
        "distorter": Noise,
        "distorter_args": {},
        "augmenters": [],
    }
    sweep = Experiment(config, solver, hyperparams)
    if "search" in spec:
        sweep.add_range("optimizer_args.lr", 1e-3, 1e-1, log=True)
    else:
        sweep.add_options("optimizer_args.lr", spec.get("lrs", [1e-3, 3e-3, 1e-2]))
    if "epochs" in spec:
        sweep.add_options("solver_config.num_epochs", spec["epochs"])
    if "models" in spec:
        sweep.add_options("model", [globals()[name] for name in spec["models"]])
    if "losses" in spec:
        sweep.add_options("loss_function", [globals()[name]() for name in spec["losses"]])
    if "distorters" in spec:
        sweep.add_options("distorter", [globals()[name] for name in spec["distorters"]])
    return sweep


class Rungs:
    """A schedule that pauses all trials after epochs 2 and 4 until the last one is there: a race without losers."""

    def __init__(self, trials: list[TrialSpec]) -> None:
        self.n_parallel = len(trials)
        self.trials = trials
        self.rungs = [2, 4, None]
        self.waiting: list[Step] = []
        self.running: dict[str, int | None] = {}

    @property
    def all_given(self) -> bool:
        return not self.rungs and not self.waiting

    def next(self) -> Step | None:
        if not self.waiting and not self.running and self.rungs:
            until = self.rungs.pop(0)
            self.waiting = [Step(trial, until) for trial in self.trials]
        if not self.waiting:
            return None
        step = self.waiting.pop(0)
        self.running[step.trial.id] = step.until
        return step

    def ended(self, report: TrialReport) -> None:
        until = self.running.pop(report.trial_id)
        assert (report.status, report.epoch) == ("paused", until) or (report.status, until) == ("finished", None)


def train_one_epoch_of_each(sweep: Experiment) -> None:
    """Leaves every trial with a checkpoint."""
    inputs = Inputs(sweep.config.data_folder)
    plan = sweep._plan(inputs)
    job = Job.of(sweep.config, sweep.space, inputs)
    for spec in plan.trials:
        trial = job.trial(spec, torch.device("cpu"))
        reports = run_trial(trial, job.data(trial.settings), job.folder.trial(trial.id), should_stop=lambda: True)
        assert [report.status for report in reports] == ["interrupted"]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    if given.get("rungs"):
        cluster.training.GridSchedule = Rungs
    if given.get("one_epoch"):
        train_one_epoch_of_each(experiment(given))
    else:
        experiment(given).run(given.get("executor", "ray"))
        if "RECORD_MODULES" in os.environ:
            (Path(os.environ["SWEEP_CONTROL"]) / "driver").write_text(" ".join(sys.modules))
