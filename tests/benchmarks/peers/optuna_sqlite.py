"""The sweep as a study of Optuna in an SQLite file, which a process for each core works on.

A `GridSampler` gives each combination to one process. Enqueued combinations would be an error here: two processes that
share an SQLite file sometimes take the same one. The processes are spawned, because a connection to SQLite must not be
carried across a fork.

Optuna also keeps settings, times and learning curves in its database. If the script is interrupted, another one can
train the combinations that have not begun. Each process ends at its first exception.
"""

import multiprocessing
from functools import partial
from pathlib import Path

import optuna
import torch

from tests.benchmarks.peers.training import LRS, N_CORES, WEIGHT_DECAYS, Sweep, train

STUDY = "sweep"


def storage(out: Path) -> str:
    return f"sqlite:///{out}/study.db"


def objective(sweep: Sweep, trial: optuna.Trial) -> float:
    settings = {
        "lr": trial.suggest_categorical("lr", LRS),
        "weight_decay": trial.suggest_categorical("weight_decay", WEIGHT_DECAYS),
        "seed": trial.suggest_categorical("seed", range(sweep.n_seeds)),
    }
    for epoch in train(sweep.data, n_epochs=sweep.n_epochs, batch_size=sweep.batch_size, **settings):
        trial.report(epoch.val_mm, epoch.number)
    torch.save(epoch.best_weights, sweep.out / f"{trial.number}.pt")
    return epoch.best_mm


def work(sweep: Sweep, n_trials: int) -> None:
    grid = optuna.samplers.GridSampler({"lr": LRS, "weight_decay": WEIGHT_DECAYS, "seed": range(sweep.n_seeds)})
    study = optuna.load_study(study_name=STUDY, storage=storage(sweep.out), sampler=grid)
    study.optimize(partial(objective, sweep), n_trials=n_trials)


if __name__ == "__main__":
    sweep = Sweep.from_command_line()
    optuna.create_study(study_name=STUDY, storage=storage(sweep.out))
    shares = [len(sweep.settings()[core::N_CORES]) for core in range(N_CORES)]
    with multiprocessing.get_context("spawn").Pool(N_CORES) as pool:
        pool.map(partial(work, sweep), shares, chunksize=1)
