"""Races replayed on an experiment that was trained completely, as text for the terminal and as JSON."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.racing.replay import Numbers, RandomSearch, Replay, TrainedGrid, replay_first_epochs, replay_race
from cluster.racing.successive_halving import MIN_COMBINATIONS, Race, Rung, SuccessiveHalving
from cluster.reports.formats.grid import MISSING, Cell, Grid, number_cell
from cluster.reports.formats.terminal import terminal
from cluster.reports.tables.captions import n_folds
from cluster.results.folds import mean_over_frames
from cluster.results.learning_curves import Curve, read_logged
from cluster.results.names import ChoiceError
from cluster.results.results import Results
from cluster.results.rows import Row, column
from data_pipeline.words import count

BEST_OF_ONE_EPOCH = 6
"""The one-epoch baseline trains one combination in this many to the end."""


@dataclass(frozen=True)
class ReplayedRaces:
    """What several rules would have found among the combinations on one data set, and two baselines.

    Attributes:
        data: The name of the data; an empty string if there is only one.
        results: The results on the data.
        grid: The errors of its combinations that were trained completely.
        races: The outcome of each rule.
        first_epoch: The outcome of one epoch of all combinations, and then the best of them to the end.
        by_chance: The outcome of a random choice at the cost of the first rule.
    """

    data: str
    results: Results
    grid: TrainedGrid
    races: Sequence[tuple[SuccessiveHalving, Replay]]
    first_epoch: Replay
    by_chance: RandomSearch

    @property
    def n_left_out(self) -> int:
        """The number of combinations that were not trained completely."""
        return len(self.results.summary) - len(self.grid.val_mm)


def replay_races(results: Results, rules: Sequence[SuccessiveHalving]) -> list[ReplayedRaces]:
    """Replays rules on each data set of an experiment; only errors on the same data can be compared.

    The folds of a combination race as one, as in `cluster.schedules.brackets.Entrant`.

    Raises:
        ChoiceError: If the experiment was raced, if no data set has at least two combinations that were trained
            completely and one that did not diverge, or if their trainings are too short for the rules.
        StorageError: If records cannot be read.
    """
    if results.dropped:
        raise ChoiceError(
            f"{results.name} was raced, so it does not show what a race may miss. Run its script without the race "
            "first: it trains the dropped combinations to the end"
        )
    single = results.single_folds
    curves = read_logged(single.files, split="val", wanted=_planned(single), is_metric=lambda name: False).curves
    by_data = results.by_data()
    found = []
    for data, of_data in by_data.items():
        grid = _trained_grid(of_data.single_folds, curves)
        grid = _over_folds(grid, of_data) if of_data.folds else grid
        if len(grid.val_mm) > 1 and math.isfinite(grid.final_mm[grid.winner]):
            races = _races(grid, rules)
            first_epoch = replay_first_epochs(grid, _n_after_first_epoch(grid))
            by_chance = RandomSearch.of(grid, races[0][1].cost)
            name = data if len(by_data) > 1 else ""
            found.append(ReplayedRaces(name, of_data, grid, races, first_epoch, by_chance))
    if not found:
        raise ChoiceError(
            f"no race can be replayed on {results.name}: this needs at least two combinations on the same data whose "
            "repetitions all finished or diverged, and for one of them all finished"
        )
    return found


def _races(grid: TrainedGrid, rules: Sequence[SuccessiveHalving]) -> list[tuple[SuccessiveHalving, Replay]]:
    """Replays the rules that drop combinations before the end; rules with the same rungs and factor only once."""
    different = {(rule.reduction_factor, *_epochs(grid, rule)): rule for rule in reversed(rules)}
    racing = [rule for (_, *epochs), rule in reversed(different.items()) if len(epochs) > 1]
    if not racing:
        n, longest = min(rule.min_epochs for rule in rules), max(grid.num_epochs.values())
        raise ChoiceError(
            f"trials of {longest} epochs are too short for a race whose first rung is at epoch {n} or later; give a "
            "smaller --min-epochs"
        )
    return [(rule, replay_race(grid, rule)) for rule in racing]


def _planned(results: Results) -> Callable[[str], bool]:
    keys = {row["key"] for row in results.summary}
    return lambda trial_id: trial_id.partition("/")[0] in keys


def _trained_grid(results: Results, curves: dict[str, Curve]) -> TrainedGrid:
    """Returns the errors of the trained combinations whose repetitions all finished or diverged, and are readable."""
    known, test = dict[str, list[Numbers]](), {}
    finished = set[str]()
    for key, all_trials in results.repetitions.items():
        trials = all_trials[: results.n_repetitions]  # without those that confirm finalists
        found = [curves.get(f"{key}/{trial['repetition']}") for trial in trials]
        ended = zip((trial["status"] for trial in trials), found, strict=True)
        # A trial that diverged in its first epoch has no curve.
        if any(status != "diverged" and (status != "finished" or curve is None) for status, curve in ended):
            continue
        finished |= {key} if any(trial["status"] == "finished" for trial in trials) else set()
        known[key] = [np.zeros(0) if curve is None else curve.val_after_epochs_mm for curve in found]
        if results.split == "test":
            test[key] = np.array([_or_infinite(trial) for trial in trials])
    longest = max((len(row) for rows in known.values() for row in rows), default=0)
    val = {}
    for key, rows in known.items() if longest else ():
        n_epochs = max(map(len, rows)) if key in finished else longest  # where no repetition shows how long it is
        val[key] = np.array([np.pad(row, (0, n_epochs - len(row)), constant_values=np.inf) for row in rows])
    return TrainedGrid(val, test)


def _over_folds(of_folds: TrainedGrid, results: Results) -> TrainedGrid:
    """Returns the errors of the combinations whose folds are all in the grid: their means over the folds' frames."""
    val, test = {}, {}
    for key, folds in results.folds.items():
        if any(fold.key not in of_folds.val_mm for fold in folds):
            continue
        best = [of_folds.best_mm[fold.key] for fold in folds]
        n_epochs = min(values.shape[1] for values in best)  # a fold that always diverged does not show its own
        val[key] = _mean([values[:, :n_epochs] for values in best], [fold.n_frames["val"] for fold in folds])  # (R, E)
        if of_folds.test_mm:
            values = [of_folds.test_mm[fold.key] for fold in folds]
            test[key] = _mean(values, [fold.n_frames["test"] for fold in folds])  # (R,)
    return TrainedGrid(val, test)


def _mean(of_folds: Sequence[Numbers], n_frames: Sequence[int]) -> Numbers:
    """Returns the mean over the frames of all folds, rounded as in a race."""
    by_place = np.stack([values.ravel() for values in of_folds], axis=1)  # F arrays of N values -> (N, F)
    return np.array([mean_over_frames(row, n_frames) for row in by_place.tolist()]).reshape(of_folds[0].shape)


def _or_infinite(trial: Row) -> float:
    value = trial[column("test", "distance")]
    return math.inf if value is None else float(value)


def replays_text(name: str, replayed: Sequence[ReplayedRaces]) -> str:
    """Returns the replays as tables, one for each data set."""
    return "\n\n\n".join([f"{name}: replayed races, nothing was trained", *map(_text, replayed)])


def _text(replayed: ReplayedRaces) -> str:
    grid, races = replayed.grid, replayed.races
    has_test = bool(grid.test_mm)
    rows = [
        [
            Cell(f"factor {rule.reduction_factor}{_first_repetitions(grid, rule)}"),
            Cell(", ".join(map(str, _epochs(grid, rule)))),
            *_cells(found, len(found.decisions[-1].kept), has_test=has_test),
        ]
        for rule, found in races
    ]
    first, chance = replayed.first_epoch, replayed.by_chance
    longest = max(grid.num_epochs.values())
    rows.append(
        [
            Cell("one epoch, then the best"),
            Cell(f"1, {longest}"),
            *_cells(first, _n_after_first_epoch(grid), has_test=has_test),
        ]
    )
    by_chance = [Cell(f"{100 * chance.cost:.1f}", is_number=True), Cell(str(chance.n), is_number=True)]
    by_chance += [Cell(f"{100 * chance.probability:.0f} % of draws"), number_cell(chance.val_regret_mm, precision=2)]
    rows.append([Cell("a random choice, mean"), Cell(str(longest)), *by_chance, *[MISSING] * has_test])
    setting = ", ".join(f"{name} {text}" for name, text in replayed.results.described[grid.winner].items())
    n = len(grid.val_mm)
    of_data = f" on {replayed.data}" if replayed.data else ""
    of_folds = f" × {n_folds(replayed.results, grid.val_mm)} folds" if replayed.results.folds else ""
    caption = (
        f"{count(n, 'combination')} × {count(grid.n_repetitions, 'repetition')}{of_folds}{of_data}. Best of the grid "
        f"in validation: {setting or 'no options'}, {grid.final_mm[grid.winner]:.2f} mm. Cost: share of the grid's "
        "epochs. Regret: how much worse the winner is, mean over all repetitions, mm."
    )
    headers = ["rule", "epochs", "cost (%)", "finalists", "finds the best", "regret", *["test regret"] * has_test]
    notes = []
    if replayed.n_left_out:
        notes.append(f"{count(replayed.n_left_out, 'combination')} left out, because not all repetitions finished.")
    if chance.all_diverged:
        share = f"{100 * chance.all_diverged:.1f}" if chance.all_diverged > 0.001 else "less than 0.1"
        notes.append(
            f"In {share} % of draws, the random choice has only combinations that diverged; its regret is the mean "
            "over the other draws."
        )
    if any(of.winner is None for of in (first, *(of for _, of in races))):
        notes.append("Without a regret: all combinations that the rule trains to the end diverge.")
    if n < MIN_COMBINATIONS:
        notes.append(f"A race needs at least {MIN_COMBINATIONS} combinations to save much.")
    return terminal(Grid("races", caption, headers, rows, n_labels=2, notes=notes))


def _n_after_first_epoch(grid: TrainedGrid) -> int:
    """Returns how many combinations the one-epoch baseline trains to the end."""
    return min(len(grid.val_mm), max(3, math.ceil(len(grid.val_mm) / BEST_OF_ONE_EPOCH)))


def _first_repetitions(grid: TrainedGrid, rule: SuccessiveHalving) -> str:
    n = _rungs(grid, rule)[0].n_repetitions  # no more than there are
    return "" if rule.first_repetitions is None else f", {count(n, 'repetition')} at first"


def _epochs(grid: TrainedGrid, rule: SuccessiveHalving) -> list[int]:
    longest = max(grid.num_epochs.values())
    return [rung.epoch(longest) for rung in _rungs(grid, rule)]


def _rungs(grid: TrainedGrid, rule: SuccessiveHalving) -> list[Rung]:
    return Race(rule, grid.num_epochs, grid.n_repetitions).rungs


def _cells(found: Replay, n_finalists: int, *, has_test: bool) -> list[Cell]:
    cells = [
        Cell(f"{100 * found.cost:.1f}", is_number=True),
        Cell(str(n_finalists), is_number=True),
        Cell("yes" if found.val_regret_mm == 0 else "no"),
        number_cell(found.val_regret_mm, precision=2),
    ]
    return [*cells, number_cell(found.test_regret_mm, precision=2)] if has_test else cells


def replays_json(replayed: Sequence[ReplayedRaces]) -> list[dict[str, Any]]:
    """Returns the replays for a script, with all digits: costs as shares of the grid's epochs, regrets in mm."""
    return [
        {
            "data": of_data.data or None,
            "combinations": len(of_data.grid.val_mm),
            "left_out": of_data.n_left_out,
            "repetitions": of_data.grid.n_repetitions,
            "winner_of_the_grid": of_data.grid.winner,
            "races": [
                {
                    "rule": vars(rule),
                    "epochs": _epochs(of_data.grid, rule),
                    "kept": [len(decision.kept) for decision in found.decisions],
                    **_json(found),
                }
                for rule, found in of_data.races
            ],
            "one_epoch": _json(of_data.first_epoch),
            "random_choice": vars(of_data.by_chance),
        }
        for of_data in replayed
    ]


def _json(found: Replay) -> dict[str, Any]:
    return {name: value for name, value in vars(found).items() if name != "decisions"}
