"""Proposes the next combination of a search, as a pure function of its settings and of what came before."""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.searching.dimensions import Choice, Choices, Dimension, Range
from cluster.searching.search import Sampler
from data_pipeline.user_error import UserError
from data_pipeline.words import count

if TYPE_CHECKING:
    import optuna

_N_BEFORE_TPE = 10
"""How many combinations must have results before TPE learns from them. Until then, the search takes Sobol points."""

_N_ATTEMPTS = 20
"""How often TPE may propose a known combination before a Sobol point takes its place."""

_LOG2_FIRST_DRAWS, _LOG2_MOST_DRAWS = 6, 16


@dataclass(frozen=True)
class Proposing:
    """What all proposals of a search have in common.

    Attributes:
        sampler: The sampler.
        seed: The experiment's seed.
        dimensions: What there is to choose.
        points: The combinations that the search tries first, in order.
        accepts: Returns whether a combination can be trained; others are not proposed. It is not asked about points.
    """

    sampler: Sampler
    seed: int
    dimensions: Sequence[Dimension]
    points: Sequence[Choices] = ()
    accepts: Callable[[Choices], bool] = lambda choices: True

    def next(self, results: Mapping[Choices, float | None], same_round: Sequence[Choices]) -> Choices:
        """Returns a combination that has not been proposed yet.

        Args:
            results: The mean error of each combination of earlier rounds, mm; None if it diverged.
            same_round: The combinations that this round has already proposed.

        Raises:
            UserError: If no new combination is found.
        """
        known = {*results, *same_round}
        first = next((point for point in self.points if point not in known), None)
        if first is not None:
            return first
        if self.sampler == "tpe" and len(results) >= _N_BEFORE_TPE:
            for attempt in range(_N_ATTEMPTS):
                seed = np.random.SeedSequence([self.seed, len(known), attempt]).generate_state(1)
                found = self._by_tpe(results, same_round, int(seed[0]))
                if found not in known and self.accepts(found):
                    return found
        return self._first_new(known)

    def _first_new(self, known: Collection[Choices]) -> Choices:
        for shares in self._draws():
            found: list[Choice] = []
            for dimension, share in zip(self.dimensions, shares, strict=True):
                found.append(dimension.at(share) if dimension.applies(found) else None)
            if tuple(found) not in known and self.accepts(tuple(found)):
                return tuple(found)
        raise UserError(
            f"the search has proposed {count(len(known), 'combination')} and found no new one in "
            f"{2**_LOG2_MOST_DRAWS:,} draws; lower n_combinations to {len(known)}, or widen the ranges"
        )

    def _draws(self) -> Iterator[list[float]]:
        """Yields points of the unit cube, the same ones each time."""
        # Sobol points cover the cube evenly if their number is a power of two: 64, then 64 more, then 128 more.
        sizes = [_LOG2_FIRST_DRAWS, *range(_LOG2_FIRST_DRAWS, _LOG2_MOST_DRAWS)]
        rng, d = np.random.default_rng(self.seed), len(self.dimensions)
        if self.sampler == "random":
            for size in sizes:
                yield from rng.random((2**size, d)).tolist()
            return
        from scipy.stats import qmc  # late: it takes a second to import

        sobol = qmc.Sobol(d, rng=rng)
        for size in sizes:
            yield from sobol.random_base2(size).tolist()

    def _by_tpe(self, results: Mapping[Choices, float | None], same_round: Sequence[Choices], seed: int) -> Choices:
        import optuna  # late: it is slow to import

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs each study
        finite = [value for value in results.values() if value is not None]
        worst = max(finite, default=0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(n_startup_trials=0, seed=seed, **_TPE)
        study = optuna.create_study(sampler=sampler)
        for choices, value in results.items():
            study.add_trial(self._optuna_trial(choices, worst if value is None else value))
        for choices in same_round:
            study.add_trial(self._optuna_trial(choices))  # as running, so that the sampler keeps away from it
        trial = study.ask()
        found: list[Choice] = []
        for place, dimension in enumerate(self.dimensions):
            found.append(_suggested(trial, str(place), dimension.choices) if dimension.applies(found) else None)
        return tuple(found)

    def _optuna_trial(self, choices: Choices, value: float | None = None) -> "optuna.trial.FrozenTrial":
        import optuna

        state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
        chosen = {
            str(place): (dimension.choices, choice)
            for place, (dimension, choice) in enumerate(zip(self.dimensions, choices, strict=True))
            if choice is not None
        }
        return optuna.create_trial(
            state=state,
            value=value,
            params={name: _place_of(choice, of) for name, (of, choice) in chosen.items()},
            distributions={name: _distribution(of) for name, (of, _) in chosen.items()},
        )


_TPE: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True}


def _distribution(of: Range | int) -> "optuna.distributions.BaseDistribution":
    """Returns what Optuna chooses from: the indices of the values if the range has a step."""
    from optuna import distributions

    if isinstance(of, int):
        return distributions.CategoricalDistribution(list(range(of)))
    if of.step is not None:
        return distributions.IntDistribution(0, (of.n_values or 1) - 1)
    if of.integer:
        return distributions.IntDistribution(int(of.low), int(of.high), log=of.log)
    return distributions.FloatDistribution(of.low, of.high, log=of.log)


def _place_of(choice: int | float, of: Range | int) -> int | float:
    return of.place(choice) if isinstance(of, Range) and of.step is not None else choice


def _suggested(trial: "optuna.Trial", name: str, of: Range | int) -> int | float:
    if isinstance(of, int):
        return int(trial.suggest_categorical(name, list(range(of))))
    if of.step is not None:
        return of.value(trial.suggest_int(name, 0, (of.n_values or 1) - 1))
    if of.integer:
        return trial.suggest_int(name, int(of.low), int(of.high), log=of.log)
    return of.nearest(trial.suggest_float(name, of.low, of.high, log=of.log))
