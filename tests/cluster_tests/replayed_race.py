"""A race that was not run: drawn learning curves are raced, and written as a race leaves them on disk."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cluster.racing.decision_file import Competitor, DecisionFile, write_decision
from cluster.racing.replay import Numbers, Replay, TrainedGrid, replay_race
from cluster.racing.successive_halving import Race, SuccessiveHalving
from cluster.storage.folders import ExperimentFolder
from tests.cluster_tests.experiment_files import write_experiment, write_records, write_trial
from tests.cluster_tests.results_files import experiment_json, write_json

LR, DECAY = "optimizer_args.lr", "optimizer_args.weight_decay"


def drawn_curves(n: int, n_repetitions: int = 3, n_epochs: int = 27, n_diverged: int = 0) -> dict[str, Numbers]:
    """Draws validation errors, (R, E) by key, mm; the first repetition of the last combinations diverges at once."""
    rng = np.random.default_rng(0)
    curves = {}
    for place in range(n):
        end, rate = 14 + rng.gamma(2, 0.5), rng.uniform(0.1, 0.6)
        own = rng.normal(0, 0.05, (n_repetitions, 1)) + rng.normal(0, 0.03, (n_repetitions, n_epochs))
        curves[f"{place:016x}"] = end + 6 * np.exp(-rate * np.arange(1, n_epochs + 1)) + own
    for key in list(curves)[n - n_diverged :]:
        curves[key][0, :] = np.inf
    return curves


def write_replayed_race(
    path: Path, curves: Mapping[str, Numbers], rule: SuccessiveHalving
) -> tuple[ExperimentFolder, TrainedGrid, Replay]:
    """Races curves, and writes trials, records and decisions.

    Returns:
        The experiment's folder, the curves as a grid, and the race.
    """
    grid = TrainedGrid(curves, {})
    replay = replay_race(grid, rule)
    n, n_repetitions = len(curves), grid.n_repetitions
    outcomes = [({LR: place // 2, DECAY: place % 2}, [None] * n_repetitions) for place in range(n)]
    folder = write_experiment(path, outcomes)
    race = Race(rule, grid.num_epochs, n_repetitions)
    content = experiment_json(folder)
    content["configs"]["experiment_config"]["race"] = {"name": "SuccessiveHalving", "args": asdict(rule)}
    folder.write_experiment(content)
    reached = {}
    for place, (decision, rung) in enumerate(zip(replay.decisions, race.rungs, strict=True)):
        combinations = []
        for key, reason in decision.reasons.items():
            epoch = rung.epoch(grid.num_epochs[key])
            values = grid.best_mm[key][: rung.n_repetitions, epoch - 1]
            reached[key] = epoch, rung.n_repetitions
            combinations.append(Competitor(key, "c", grid.num_epochs[key], epoch, [_hex(mm) for mm in values], reason))
        if rung != race.rungs[-1]:
            file = DecisionFile(
                *("a_val", None, 0, place, len(race.rungs), n_repetitions, race.n_epochs_allowed),
                combinations=combinations,
                rule=asdict(rule),
            )
            write_decision(folder.storage, file)
    for key, (epoch, repetitions) in reached.items():
        for repetition in range(repetitions):
            mm = curves[key][repetition, :epoch]
            if not np.isfinite(mm).all():
                write_json(folder.trial(f"{key}/{repetition}"), {"status": "diverged", "error": "it diverged"})
                continue
            if epoch == grid.num_epochs[key]:
                write_trial(folder, f"{key}/{repetition}", float(mm.min()))
            else:
                write_json(folder.trial(f"{key}/{repetition}"), {"status": "interrupted"})
            write_records(folder, f"{key}/{repetition}", mm.tolist())
    return folder, grid, replay


def _hex(mm: float) -> str:
    return float(mm).hex() if np.isfinite(mm) else "inf"
