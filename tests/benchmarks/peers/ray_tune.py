"""The sweep with a `Tuner` of Ray Tune, in a process for each training, which is Tune's default.

With `--reuse-actors`, which is one argument of Tune, a process for each core trains one combination after another.

Tune also logs all metrics of each epoch as CSV, JSON and for TensorBoard, records failed trainings and continues with
the others, and `Tuner.restore` continues an interrupted sweep. This script reports a checkpoint only at the end of a
training, as the others do, so an interrupted training would start again.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from tests.benchmarks.peers.training import LRS, N_CORES, WEIGHT_DECAYS, Sweep, train

REUSE_ACTORS = "--reuse-actors"


def run(settings: dict[str, Any], sweep: Sweep) -> None:
    for epoch in train(sweep.data, n_epochs=sweep.n_epochs, batch_size=sweep.batch_size, **settings):
        metrics = {"val_mm": epoch.val_mm, "best_mm": epoch.best_mm}
        if epoch.number < sweep.n_epochs:
            tune.report(metrics)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(epoch.best_weights, Path(folder) / "best.pt")
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


if __name__ == "__main__":
    sweep = Sweep.from_command_line()
    ray.init(address="local", num_cpus=N_CORES)
    tuner = tune.Tuner(
        tune.with_parameters(run, sweep=sweep),
        param_space={
            "lr": tune.grid_search(list(LRS)),
            "weight_decay": tune.grid_search(list(WEIGHT_DECAYS)),
            "seed": tune.grid_search(list(range(sweep.n_seeds))),
        },
        tune_config=tune.TuneConfig(metric="best_mm", mode="min", reuse_actors=REUSE_ACTORS in sys.argv),
        run_config=tune.RunConfig(name="sweep", storage_path=str(sweep.out)),
    )
    tuner.fit()
