"""Compares TPE with random and Sobol points: searches of 60 combinations over 4 ranges on NYU, with 5 seeds each.

`python -m tests.benchmarks.searches FOLDER` trains what is missing in FOLDER, which takes an hour on two cores, and
then prints the validation error of the best of the first 20, 40 and 60 combinations. You can stop it and start it
again. Training and validation frames are those of `tune_runs/nyu_recording.py`; there is no test set.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from cluster.experiment import Experiment, TrialsFailedError
from cluster.reports.formats.grid import Cell, Grid
from cluster.reports.formats.terminal import terminal
from cluster.reports.tables.summary import mean_and_std
from cluster.results.results import Results
from cluster.results.rows import column
from cluster.searching.search import Sampler, Search
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_path
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from tests.support import ROOT, SHARED_DATA

N_COMBINATIONS, N_SEEDS = 60, 5
AFTER = (20, 40, 60)
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)


def experiment(folder: Path, sampler: Sampler, seed: int) -> Experiment:
    """Returns the experiment of one search."""
    found = Experiment(
        {
            "name": f"{sampler}_{seed}",
            "train_set": "recording_train",
            "val_set": "recording_val",
            "normalizer": Shifter,
            "n_repetitions": 1,
            "seed": seed,
            "data_dir": folder / "data",
            "storage_path": folder / "results",
            "keep_weights": "none",
            "search": Search(sampler, N_COMBINATIONS),
        },
        {"num_epochs": 20, "batch_size": 64},
        {
            "model": CorrectorMLP,
            "model_args": {"hidden_dims": [256, 256], "dropout": 0.2},
            "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
            "optimizer": torch.optim.AdamW,
            "optimizer_args": {"lr": 1e-3, "weight_decay": 1e-2},
        },
    )
    found.add_range("optimizer_args.lr", 1e-5, 1e-1, log=True)
    found.add_range("optimizer_args.weight_decay", 1e-5, 10.0, log=True)
    found.add_range("model_args.dropout", 0.0, 0.8)
    found.add_range("solver_config.batch_size", 16, 1024, log=True, integer=True)
    return found


def best_so_far_mm(results: Results) -> np.ndarray:
    """Returns the lowest validation error so far after each combination, in the order of proposals, (C,), mm."""
    errors_mm = [row[column("val", "distance")] for row in results.trials]
    return np.minimum.accumulate([np.inf if error is None else error for error in errors_mm])


def make_data(folder: Path) -> None:
    """Makes the datasets if they are missing."""
    if dataset_path(folder, "recording_train", "labels").is_file():
        return
    nyu = SHARED_DATA / "nyu"
    files = ["--ground-truth", nyu / "nyu_test_groundtruth_label.txt"]
    files += ["--predictions", f"Pose-REN={nyu / 'NEUCOM18_NYU_Pose_REN.txt'}"]
    options = ["--dataset", "nyu", "--name", "recording", "--split", "blocks:500:5:50", "--data-dir", folder]
    script = ROOT / "tune_runs" / "prepare_data.py"
    subprocess.run([sys.executable, str(script), "leaderboard", *map(str, [*options, *files])], check=True)


def comparison(best_mm: Mapping[str, Sequence[np.ndarray]]) -> Grid:
    """Returns a row for each sampler: mean and deviation over seeds, and for how many seeds it beats random."""
    rows = []
    for sampler, of_seeds in best_mm.items():
        values = np.array(of_seeds)[:, [n - 1 for n in AFTER]]  # (S, 3)
        of_random = np.array(best_mm["random"])[:, [n - 1 for n in AFTER]]
        cells = [Cell(mean_and_std(of.mean(), of.std(ddof=1) if len(of) > 1 else None), True) for of in values.T]
        better = (values < of_random).sum(axis=0)
        wins = [Cell("" if sampler == "random" else f"{n} of {len(values)}", True) for n in better]
        rows.append([Cell(sampler), *cells, *wins])
    after = [f"after {n}" for n in AFTER]
    caption = (
        f"Validation error of the best combination so far, mm: mean ± sample standard deviation over {N_SEEDS} seeds "
        "of search and training. On the right: for how many seeds it is lower than with random points."
    )
    spans = [("", 1), ("best so far (mm)", len(AFTER)), ("better than random", len(AFTER))]
    return Grid("searches", caption, ["sampler", *after, *after], rows, n_labels=1, spans=spans)


def main(folder: Path) -> None:
    """Trains what is missing, and prints the comparison."""
    make_data(folder / "data")
    best_mm: dict[str, list[np.ndarray]] = {sampler: [] for sampler in SAMPLERS}
    for seed in range(N_SEEDS):
        for sampler in SAMPLERS:
            one = experiment(folder, sampler, seed)
            with redirect_stdout(StringIO()):
                try:
                    one.run()
                except TrialsFailedError as error:  # a large learning rate may diverge, which is a result
                    print(error, file=sys.stderr)
            best_mm[sampler].append(best_so_far_mm(one.results()))
    print(terminal(comparison(best_mm)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give a folder for datasets and results: python -m tests.benchmarks.searches FOLDER; it takes an hour")
    main(Path(sys.argv[1]))
