"""Replays races on a grid that was trained completely: what they would have cost and found. Nothing is trained.

A complete grid contains the validation error after every epoch of every repetition. So it shows for each rule which
combination would have won, how many epochs the race would have taken, and how much worse its winner is than the grid's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cluster.racing.successive_halving import Decision, Race, SuccessiveHalving

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainedGrid:
    """The errors of combinations that were trained completely on the same data.

    Attributes:
        val_mm: For each combination, the validation error of each repetition after each epoch, (R, E), mm; infinite
            from the epoch on in which the repetition diverged. E may differ between combinations. With folds, it is the
            mean over them of the best error so far, which a race compares.
        test_mm: For each combination, the test error of each repetition, (R,), mm; empty without a test set.
    """

    val_mm: Mapping[str, Numbers]
    test_mm: Mapping[str, Numbers]

    @property
    def num_epochs(self) -> dict[str, int]:
        """The epochs of each combination."""
        return {key: values.shape[1] for key, values in self.val_mm.items()}

    @property
    def n_repetitions(self) -> int:
        """The repetitions of each combination."""
        return len(next(iter(self.val_mm.values())))

    @cached_property
    def best_mm(self) -> dict[str, Numbers]:
        """The best validation error up to each epoch, (R, E), mm; infinite wherever `val_mm` is."""
        return {
            key: np.where(np.isinf(values), values, np.minimum.accumulate(values, axis=1))
            for key, values in self.val_mm.items()
        }

    @cached_property
    def final_mm(self) -> dict[str, float]:
        """The final validation error of each combination, mean over repetitions, mm; the best combination first."""
        means = {key: math.fsum(values[:, -1]) / len(values) for key, values in self.best_mm.items()}
        return {key: means[key] for key in sorted(means, key=lambda key: (means[key], key))}

    @property
    def winner(self) -> str:
        """The combination with the lowest final validation error."""
        return next(iter(self.final_mm))

    def resampled(self, repetitions: Sequence[int]) -> "TrainedGrid":
        """Returns the grid with these repetitions, each as often as it is named."""
        chosen = list(repetitions)
        test = {key: values[chosen] for key, values in self.test_mm.items()}
        return TrainedGrid({key: values[chosen] for key, values in self.val_mm.items()}, test)


@dataclass(frozen=True)
class Replay:
    """What a race or another method finds in a grid.

    Attributes:
        winner: The combination that it finds; None if all that it trains to the end diverge.
        cost: The epochs that it trains, as a share of the grid's epochs.
        val_regret_mm: How much worse in validation its winner is than the grid's, mean over all repetitions, mm; None
            without a winner.
        test_regret_mm: The same on the test set, where it may be negative; None without a winner or a test set.
        decisions: The decisions, if it is a race.
    """

    winner: str | None
    cost: float
    val_regret_mm: float | None
    test_regret_mm: float | None
    decisions: Sequence[Decision] = ()

    @classmethod
    def of(
        cls, grid: TrainedGrid, trained: Sequence[str], n_epochs: float, decisions: Sequence[Decision] = ()
    ) -> "Replay":
        """Compares the best of the combinations that were trained to the end with the grid's winner."""
        cost = n_epochs / (sum(grid.num_epochs.values()) * grid.n_repetitions)
        winner = min(trained, key=lambda key: (grid.final_mm[key], key), default=None)
        if winner is None or math.isinf(grid.final_mm[winner]):
            return cls(None, cost, None, None, decisions)
        test = None
        if grid.test_mm:
            test = float(np.mean(grid.test_mm[winner]) - np.mean(grid.test_mm[grid.winner]))
        return cls(winner, cost, grid.final_mm[winner] - grid.final_mm[grid.winner], test, decisions)


def replay_race(grid: TrainedGrid, rule: SuccessiveHalving) -> Replay:
    """Races the combinations of a grid."""
    race = Race(rule, grid.num_epochs, grid.n_repetitions)
    competing, n_epochs_of_dropped, decisions = list(grid.val_mm), 0, list[Decision]()
    for place, rung in enumerate(race.rungs):
        values = {
            key: grid.best_mm[key][: rung.n_repetitions, rung.epoch(grid.num_epochs[key]) - 1].tolist()
            for key in competing
        }
        decision = race.decide(place, values, race.n_epochs_allowed - n_epochs_of_dropped)
        decisions.append(decision)
        if rung == race.rungs[-1]:
            break
        kept = set(decision.kept)
        n_epochs_of_dropped += race.n_epochs([key for key in competing if key not in kept], rung)
        competing = decision.kept
    n_epochs = n_epochs_of_dropped + race.n_epochs(competing, race.rungs[-1])
    return Replay.of(grid, decisions[-1].kept, n_epochs, decisions)


def replay_first_epochs(grid: TrainedGrid, n_kept: int, n_epochs: int = 1) -> Replay:
    """Trains all combinations for a few epochs, and then only the best ones to the end.

    This is the baseline of Egelé et al., "Is One Epoch All You Need For Multi-Fidelity Hyperparameter Optimization?",
    2023.

    Args:
        grid: The grid.
        n_kept: How many combinations train to the end.
        n_epochs: After how many epochs they are chosen.
    """
    early = {key: float(np.mean(values[:, min(n_epochs, values.shape[1]) - 1])) for key, values in grid.best_mm.items()}
    kept = sorted(early, key=lambda key: (early[key], key))[:n_kept]
    dropped = len(early) - len(kept)
    total = grid.n_repetitions * (dropped * n_epochs + sum(grid.num_epochs[key] for key in kept))
    return Replay.of(grid, kept, total)


@dataclass(frozen=True)
class RandomSearch:
    """What a random choice of combinations finds on average, computed exactly.

    Attributes:
        n: How many combinations are chosen and trained to the end.
        cost: Their share of the grid.
        probability: The probability that the grid's winner is among them.
        all_diverged: The probability that all of them diverge.
        val_regret_mm: The mean regret in validation of the other choices, mm.
    """

    n: int
    cost: float
    probability: float
    all_diverged: float
    val_regret_mm: float

    @classmethod
    def of(cls, grid: TrainedGrid, cost: float) -> "RandomSearch":
        """Chooses as many combinations as `cost`, a share of the grid, pays for; at least one.

        At least one combination of the grid must not have diverged.
        """
        finals = list(grid.final_mm.values())
        n = max(1, math.floor(cost * len(finals) + 1e-9))
        # The best of the chosen has rank i if that one is chosen and all others come from lower ranks.
        share = [math.comb(len(finals) - 1 - place, n - 1) / math.comb(len(finals), n) for place in range(len(finals))]
        n_finite = sum(map(math.isfinite, finals))
        regrets = [p * (value - finals[0]) for p, value in zip(share[:n_finite], finals[:n_finite], strict=True)]
        all_diverged = math.fsum(share[n_finite:])
        return cls(n, n / len(finals), n / len(finals), all_diverged, math.fsum(regrets) / (1 - all_diverged))
