"""Compares races with other search methods, replayed on complete grids of NYU: four backbones, 100 epochs.

A grid has 60 combinations of width, dropout and learning rate, with 6 repetitions. What a method finds is compared with
the winner of the grid: first on the grid as it is, then on 200 resamplings of its repetitions with replacement, each of
which has its own winner. Methods that depend on chance run in a new random order each time; on the grid itself, their
numbers are means over 100 orders.

All methods see the same numbers, and all costs are counted alike: epochs times repetitions. A trial of Ray or Optuna is
a combination with all its repetitions; it reports the mean of their best validation errors so far. The first rung and
the reduction factor of these methods are the race's defaults. Their winner is the best of the combinations that trained
to the end.

Bounds for the races: at most 1/4 of the grid's epochs (target: 1/8), and a regret in validation of at most 0.05 mm.
`python -m tests.benchmarks.races FILE` reads another file that `trained_grids` wrote.
"""

import heapq
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import AsyncHyperBandScheduler

from cluster.racing.replay import Replay, TrainedGrid, replay_first_epochs, replay_race
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.formats.grid import Cell, Grid, number_cell
from cluster.reports.formats.terminal import terminal
from data_pipeline.words import count
from tests.benchmarks.trained_grids import read_grids

FILE = Path(__file__).with_name("data") / "nyu_races.parquet"
N_RESAMPLINGS, N_ORDERS = 200, 100
MAX_COST, TARGET_COST, MAX_REGRET_MM = 1 / 4, 1 / 8, 0.05
MEDIAN_INTERVAL = 4
"""The median pruner decides only after every fourth epoch; after every epoch, Optuna would take four times as long."""

Method = Callable[[TrainedGrid, np.random.Generator], Replay]


def race(**settings: float) -> Method:
    """PoseTune's race."""
    return lambda grid, _: replay_race(grid, SuccessiveHalving(**settings))


def epochs_of_grid(grid: TrainedGrid) -> int:
    """Returns the number of epochs, which all combinations share."""
    (n_epochs,) = set(grid.num_epochs.values())
    return n_epochs


def rungs(grid: TrainedGrid, first: int, factor: int) -> list[int]:
    """Returns the epochs at which Ray and Optuna decide, and the last epoch."""
    last, epochs = epochs_of_grid(grid), [first]
    while epochs[-1] * factor < last:
        epochs.append(epochs[-1] * factor)
    return [*epochs, last]


def means_mm(grid: TrainedGrid) -> dict[str, list[float]]:
    """Returns what each combination reports after each epoch."""
    return {key: values.mean(axis=0).tolist() for key, values in grid.best_mm.items()}


def defaults(grid: TrainedGrid) -> tuple[int, int]:
    """Returns the first rung, in epochs, and the factor of a race with default settings."""
    rule = SuccessiveHalving()
    return rule.rungs(rule.n_rungs(epochs_of_grid(grid)), 1)[0].epoch(epochs_of_grid(grid)), rule.reduction_factor


def outcome(grid: TrainedGrid, trained: dict[str, int]) -> Replay:
    """Returns what training each combination for its number of epochs finds, with all repetitions."""
    complete = [key for key, n_epochs in trained.items() if n_epochs == epochs_of_grid(grid)]
    return Replay.of(grid, complete, sum(trained.values()) * grid.n_repetitions)


def one_epoch_best_at_equal_cost(grid: TrainedGrid, _: np.random.Generator) -> Replay:
    """Trains all combinations for one epoch, and as many to the end as the race's cost pays for; at least one."""
    n, last = len(grid.val_mm), epochs_of_grid(grid)
    cost = replay_race(grid, SuccessiveHalving()).cost
    return replay_first_epochs(grid, max(1, math.floor((cost * n * last - n) / (last - 1))))


def random_choice_at_equal_cost(grid: TrainedGrid, rng: np.random.Generator) -> Replay:
    """Trains as many combinations as the race's cost pays for; at least one."""
    keys, cost = list(grid.val_mm), replay_race(grid, SuccessiveHalving()).cost
    chosen = rng.choice(len(keys), max(1, math.floor(cost * len(keys))), replace=False)
    return outcome(grid, {keys[i]: epochs_of_grid(grid) for i in chosen})


def asha(n_workers: int) -> Method:
    """Ray's scheduler with a number of workers. The speeds of combinations differ by up to a factor of three."""

    def search(grid: TrainedGrid, rng: np.random.Generator) -> Replay:
        first, factor = defaults(grid)
        milestones, reports = rungs(grid, first, factor), means_mm(grid)
        scheduler = AsyncHyperBandScheduler(
            "epoch", "val_mm", "min", max_t=milestones[-1], grace_period=first, reduction_factor=factor
        )
        keys = list(grid.val_mm)
        waiting = [keys[i] for i in rng.permutation(len(keys))]
        seconds = dict(zip(keys, rng.uniform(0.5, 1.5, len(keys)), strict=True))  # for an epoch
        arrivals: list[tuple[float, str, int]] = []  # time, combination, index of the milestone
        trained = {}

        def start(now: float) -> None:
            if waiting:
                key = waiting.pop()
                scheduler.on_trial_add(None, SimpleNamespace(trial_id=key))
                heapq.heappush(arrivals, (now + seconds[key] * first, key, 0))

        for _ in range(n_workers):
            start(0)
        while arrivals:
            now, key, place = heapq.heappop(arrivals)
            epoch = trained[key] = milestones[place]
            result = {"epoch": epoch, "val_mm": reports[key][epoch - 1]}
            if scheduler.on_trial_result(None, SimpleNamespace(trial_id=key), result) == TrialScheduler.STOP:
                start(now)
            else:
                heapq.heappush(arrivals, (now + seconds[key] * (milestones[place + 1] - epoch), key, place + 1))
        return outcome(grid, trained)

    return search


def with_optuna(pruner: BasePruner, grid: TrainedGrid, keys: Sequence[str], steps: Sequence[int]) -> Replay:
    """Trains one combination after another in a study, and asks the pruner at the given epochs."""
    study, reports, trained = optuna.create_study(pruner=pruner), means_mm(grid), {}
    for key in keys:
        trial = study.ask()
        for epoch in steps:
            trained[key] = epoch
            trial.report(reports[key][epoch - 1], epoch)
            if epoch < steps[-1] and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, reports[key][-1])
    return outcome(grid, trained)


def optuna_halving(*, shuffled: bool) -> Method:
    """Optuna's asynchronous successive halving, in random order or in the order of the grid."""

    def search(grid: TrainedGrid, rng: np.random.Generator) -> Replay:
        first, factor = defaults(grid)
        pruner = SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        return with_optuna(pruner, grid, order(grid, rng, shuffled=shuffled), rungs(grid, first, factor))

    return search


def optuna_median(*, shuffled: bool) -> Method:
    """Optuna's median pruner, in random order or in the order of the grid."""

    def search(grid: TrainedGrid, rng: np.random.Generator) -> Replay:
        first, _ = defaults(grid)
        last = epochs_of_grid(grid)
        pruner = MedianPruner(n_warmup_steps=first)
        steps = [*range(first, last, MEDIAN_INTERVAL), last]
        return with_optuna(pruner, grid, order(grid, rng, shuffled=shuffled), steps)

    return search


def order(grid: TrainedGrid, rng: np.random.Generator, *, shuffled: bool) -> list[str]:
    """Returns the combinations in the order in which they start."""
    keys = list(grid.val_mm)
    return [keys[i] for i in rng.permutation(len(keys))] if shuffled else keys


OWN: dict[str, Method] = {
    "race, default settings": race(),
    "race, close ones within 1/8": race(max_cost=TARGET_COST),
    "race, factor 3": race(reduction_factor=3),
    "race, factor 4": race(reduction_factor=4),
    "race, from epoch 1": race(min_epochs=1),
    "race, from epoch 11": race(min_epochs=11),
    "race, 2 first repetitions": race(first_repetitions=2),
}
RIVALS: dict[str, Method] = {
    "one epoch, best 10": lambda grid, _: replay_first_epochs(grid, 10),
    "one epoch, best at the race's cost": one_epoch_best_at_equal_cost,
    "Optuna halving, the grid's order": optuna_halving(shuffled=False),
    "Optuna median, the grid's order": optuna_median(shuffled=False),
}
RIVALS_BY_CHANCE: dict[str, Method] = {
    "Optuna halving": optuna_halving(shuffled=True),
    "Optuna median": optuna_median(shuffled=True),
    "Ray ASHA, 4 workers": asha(4),
    "Ray ASHA, 16 workers": asha(16),
    "random choice at the race's cost": random_choice_at_equal_cost,
}
METHODS = OWN | RIVALS | RIVALS_BY_CHANCE


class Found(NamedTuple):
    """What a method finds on a grid, in one or more orders, and on resamplings of it."""

    on_grid: Sequence[Replay]
    resampled: Sequence[Replay]
    seconds: float


def compare(grid: TrainedGrid, seed: int) -> Iterator[tuple[str, Found]]:
    """Runs all methods on the same resamplings."""
    drawn = np.random.default_rng(seed).integers(grid.n_repetitions, size=(N_RESAMPLINGS, grid.n_repetitions))
    resampled = [grid.resampled(repetitions.tolist()) for repetitions in drawn]
    for name, method in METHODS.items():
        rng, start = np.random.default_rng([seed, 1]), time.perf_counter()
        on_grid = [method(grid, rng) for _ in range(N_ORDERS if name in RIVALS_BY_CHANCE else 1)]
        found = [method(one, rng) for one in resampled]
        yield name, Found(on_grid, found, time.perf_counter() - start)


def row(backbone: str, name: str, found: Found) -> list[Cell]:
    """Returns the cells of a method."""
    cost = float(np.mean([one.cost for one in found.on_grid]))
    regret = float(np.mean([one.val_regret_mm for one in found.on_grid]))
    in_test = float(np.mean([one.test_regret_mm for one in found.on_grid]))
    regrets = [one.val_regret_mm for one in found.resampled]
    bound = ""
    if name in OWN:
        costs = "≤ 12.5" if cost <= TARGET_COST else "≤ 25" if cost <= MAX_COST else "> 25"
        bound = f"{costs}, {'≤' if regret <= MAX_REGRET_MM else '>'} {MAX_REGRET_MM}"
    return [
        Cell(backbone),
        Cell(name),
        number_cell(cost, precision=1, in_percent=True),
        number_cell(regret, precision=3),
        number_cell(in_test, precision=3),
        Cell(bound),
        number_cell(float(np.mean([one.cost for one in found.resampled])), precision=1, in_percent=True),
        number_cell(float(np.mean([regret == 0 for regret in regrets])), precision=0, in_percent=True),
        number_cell(float(np.mean(regrets)), precision=3),
        number_cell(float(np.quantile(regrets, 0.95)), precision=3),
    ]


def described(backbone: str, grid: TrainedGrid) -> str:
    """Says what a grid contains, and which combinations the race with default settings keeps."""
    finals = list(grid.final_mm.values())
    *decisions, _ = replay_race(grid, SuccessiveHalving()).decisions
    kept = [f"{len(one.kept)} ({list(one.reasons.values()).count('close to the best')})" for one in decisions]
    return (
        f"{backbone}: {len(finals)} combinations × {count(grid.n_repetitions, 'repetition')} × {epochs_of_grid(grid)} "
        f"epochs; the best have {', '.join(f'{value:.3f}' for value in finals[:4])} mm in validation. With default "
        f"settings, {', '.join(kept)} combinations stay after the rungs; in brackets, those only close to the best."
    )


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    if not file.exists():
        print(f"skipped: {file} does not exist; `python -m tests.benchmarks.trained_grids` writes it")
        sys.exit()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows, notes, seconds = [], [], dict.fromkeys(METHODS, 0.0)
    for seed, (backbone, grid) in enumerate(read_grids(file).items()):
        notes.append(described(backbone, grid))
        for name, found in compare(grid, seed):
            rows.append(row(backbone, name, found))
            seconds[name] += found.seconds
    caption = (
        "Cost: epochs as a share of the grid's epochs, %. Regret: how much worse the winner is than the grid's, in "
        f"validation and on the test set, mm. Bounds for the races: cost {100 * MAX_COST:.0f} % (target "
        f"{100 * TARGET_COST:.1f} %), regret in validation {MAX_REGRET_MM} mm."
    )
    headers = ["backbone", "method", "cost", "regret", "in test", "bounds", "cost", "same (%)", "regret", "95 %"]
    spans = [("", 2), ("on the grid", 4), (f"{N_RESAMPLINGS} resamplings of the repetitions", 4)]
    print(terminal(Grid("races", caption, headers, rows, n_labels=2, spans=spans, notes=notes)))
    times = ", ".join(f"{name} {of:.1f} s" for name, of in seconds.items())
    print(f"\n{sum(seconds.values()):.0f} s: {times}")
