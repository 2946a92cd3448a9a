"""What an option does to a result, over all combinations: marginal means, interactions of pairs, importances.

A mean over trials says something about an option only if each of its values was tried with the same other options and
the same repetitions. So what is averaged here is the largest set of trials with which that is so. In a grid whose
trials have all finished these are all trials; with failed or missing ones it is fewer, and every result says which.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.results.statistics import Array, Estimate, estimate

_Mask = npt.NDArray[np.bool_]
_Codes = npt.NDArray[np.intp]

MIN_COMBINATIONS = 12
"""Of a grid with holes: fewer combinations tell nothing of how much an option matters."""


@dataclass(frozen=True)
class Cell:
    """The mean of all trials that have a value of an option, or a pair of values of two.

    Attributes:
        values: The values, one for each option.
        estimate: Of the mean over the other options, which each repetition gives once: `n` is the repetitions. The
            interval holds for other seeds and the same grid.
        n_averaged: The trials in the mean: as many in each cell, or 0 if the cell was left out.
        n_finished: The trials that have a number.
        n_planned: The trials of the plan.
    """

    values: tuple[Any, ...]
    estimate: Estimate
    n_averaged: int
    n_finished: int
    n_planned: int


@dataclass(frozen=True)
class Basis:
    """The trials that means are over, the same for each of them: all of these settings in all of these repetitions.

    Attributes:
        paths: The other options.
        settings: The combinations of their values that are in the means, in the order of the plan.
        left_out: The combinations of their values that are planned and in no mean.
        repetitions: The repetitions that are in the means, from 0.
        repetitions_left_out: The other repetitions of the plan.
    """

    paths: tuple[str, ...]
    settings: list[tuple[Any, ...]]
    left_out: list[tuple[Any, ...]]
    repetitions: list[int]
    repetitions_left_out: list[int]


@dataclass(frozen=True)
class CellMeans:
    """The means for every value of an option, or every pair of values of two, in the order of the plan.

    Attributes:
        paths: The options.
        cells: Their values with means.
        basis: What the means are over.
    """

    paths: tuple[str, ...]
    cells: list[Cell]
    basis: Basis

    @property
    def is_complete(self) -> bool:
        """Whether all trials of the plan are in the means."""
        return all(cell.n_averaged == cell.n_planned for cell in self.cells)


@dataclass(frozen=True)
class Interaction:
    """How far the effects of two options depend on one another.

    Attributes:
        means: The means of each pair of values.
        share: The part of the variance of these means that a sum of an effect of one option and an effect of the other
            leaves over, 0 to 1; chance is a part of it. None if no mean is left over to tell, or if all are equal.
        size: The root mean square of what is left over, in the unit of the metric; None where `share` is.
    """

    means: CellMeans
    share: float | None
    size: float | None


@dataclass(frozen=True)
class Importances:
    """How much of the variance between combinations each option alone explains.

    Attributes:
        shares: By option, 0 to 1, but for options of which one value is left; empty if the combinations do not differ,
            or if a grid with holes has fewer than `MIN_COMBINATIONS`. What they lack to 1 is due to interactions and
            chance.
        means: The mean of each combination; those without one are in no share.
    """

    shares: dict[str, float]
    means: CellMeans

    @property
    def averaged(self) -> list[Cell]:
        """The combinations that the shares rest on."""
        return [cell for cell in self.means.cells if cell.n_averaged]

    @property
    def is_complete(self) -> bool:
        """Whether all combinations of the plan are in them."""
        return len(self.averaged) == len(self.means.cells)


def marginal_means(trials: Sequence[Mapping[str, Any]], options: Sequence[str], metric: str) -> dict[str, CellMeans]:
    """Returns the means of each value of each option.

    Args:
        trials: Rows with the options, `repetition`, `status` and the metric, such as `ResultTable.trials`.
        options: The columns of options that tell all combinations apart, such as `ResultTable.distinguishing_paths`.
        metric: A column of numbers.
    """
    coded = _Coded.of(trials, options, metric)
    return {path: coded.cell_means([i]) for i, path in enumerate(options)}


def interactions(trials: Sequence[Mapping[str, Any]], options: Sequence[str], metric: str) -> list[Interaction]:
    """Returns the interaction of each pair of options, the largest share first.

    Args:
        trials: As for `marginal_means`.
        options: As for `marginal_means`.
        metric: As for `marginal_means`.
    """
    coded = _Coded.of(trials, options, metric)
    found = [_interaction(coded.cell_means(pair)) for pair in itertools.combinations(range(len(options)), 2)]
    return sorted(found, key=lambda interaction: -1.0 if interaction.share is None else interaction.share, reverse=True)


def importances(trials: Sequence[Mapping[str, Any]], options: Sequence[str], metric: str) -> Importances:
    """Returns the importance of each option: the share of the variance that its marginal means have (functional ANOVA).

    Every value of an option weighs the same, however far apart two learning rates are. In a whole grid the shares are
    reckoned from its means. Where combinations are missing, a random forest fills them in (fANOVA, Hutter et al. 2014,
    by Optuna); each of its trees sees a sample of the combinations, so shares of a dozen combinations are rough then.

    Args:
        trials: As for `marginal_means`.
        options: As for `marginal_means`.
        metric: As for `marginal_means`.
    """
    means = _Coded.of(trials, options, metric).cell_means(range(len(options)))
    averaged = Importances({}, means).averaged
    numbers = np.array([cell.estimate.mean for cell in averaged], dtype=np.float64)  # (C,)
    if len(set(numbers.tolist())) < 2:
        return Importances({}, means)
    columns = zip(*(cell.values for cell in averaged), strict=True)
    ranks = dict(zip(options, map(_ranks, columns), strict=True))  # (C,) each
    ranks = {path: column for path, column in ranks.items() if column.any()}
    if len(numbers) == math.prod(int(column.max()) + 1 for column in ranks.values()):
        return Importances(_shares_of_grid(ranks, numbers), means)
    return Importances(_shares_by_forest(ranks, numbers) if len(numbers) >= MIN_COMBINATIONS else {}, means)


@dataclass(frozen=True)
class _Coded:
    """The trials as arrays: a code for each value of each option, and the metric.

    Attributes:
        paths: The O options.
        values: The values of each option in the order of the plan, which the codes count through.
        codes: (N, O).
        repetitions: (N,), from 0.
        numbers: The metric, (N,); NaN if the trial has none.
    """

    paths: Sequence[str]
    values: list[list[Any]]
    codes: _Codes
    repetitions: _Codes
    numbers: Array

    @classmethod
    def of(cls, trials: Sequence[Mapping[str, Any]], paths: Sequence[str], metric: str) -> "_Coded":
        values, codes = [], np.zeros((len(trials), len(paths)), dtype=np.intp)
        for i, path in enumerate(paths):
            # By their texts, since 1, 1.0 and True are three values of an option.
            known = {repr(row[path]): row[path] for row in trials}
            code = {text: j for j, text in enumerate(known)}
            values.append(list(known.values()))
            codes[:, i] = [code[repr(row[path])] for row in trials]
        numbers = [row[metric] if row["status"] == "finished" else None for row in trials]
        return cls(
            paths,
            values,
            codes,
            np.array([row["repetition"] for row in trials], dtype=np.intp),
            np.array([math.nan if x is None or not math.isfinite(x) else x for x in numbers], dtype=np.float64),
        )

    def cell_means(self, which: Sequence[int]) -> CellMeans:
        """Returns the means of all combinations of values of some of the options, over all others."""
        others = [i for i in range(len(self.paths)) if i not in which]
        cells, cell = _numbered(self.codes[:, list(which)])  # (C, options), (N,)
        settings, setting = _numbered(self.codes[:, others])  # (S, others), (N,)
        grid = np.full((len(cells), len(settings), self.repetitions.max() + 1), np.nan)  # (C, S, R)
        grid[cell, setting, self.repetitions] = self.numbers
        kept, in_settings, in_repetitions = _same_for_all(~np.isnan(grid))
        means = grid[np.ix_(kept, in_settings, in_repetitions)].mean(axis=1) if len(kept) else grid[:0, 0]
        mean_of = dict(zip(kept.tolist(), means.tolist(), strict=True))  # one for each repetition, by cell
        n_in_mean = len(in_settings) * len(in_repetitions)
        n_planned = np.bincount(cell, minlength=len(cells))  # (C,)
        n_finished = np.bincount(cell, ~np.isnan(self.numbers), minlength=len(cells))  # (C,)
        found = [
            Cell(
                self._values(which, codes),
                estimate(mean_of.get(i, [])),
                n_in_mean if i in mean_of else 0,
                int(n_finished[i]),
                int(n_planned[i]),
            )
            for i, codes in enumerate(cells)
        ]
        return CellMeans(
            tuple(self.paths[i] for i in which), found, self._basis(others, settings, in_settings, in_repetitions)
        )

    def _basis(self, others: Sequence[int], settings: _Codes, in_settings: _Codes, in_repetitions: _Codes) -> Basis:
        all_settings = [self._values(others, codes) for codes in settings]
        chosen, repetitions = set(in_settings.tolist()), set(in_repetitions.tolist())
        return Basis(
            tuple(self.paths[i] for i in others),
            [values for i, values in enumerate(all_settings) if i in chosen],
            [values for i, values in enumerate(all_settings) if i not in chosen],
            sorted(repetitions),
            sorted(set(self.repetitions.tolist()) - repetitions),
        )

    def _values(self, which: Sequence[int], codes: _Codes) -> tuple[Any, ...]:
        return tuple(self.values[option][code] for option, code in zip(which, codes.tolist(), strict=True))


def _numbered(rows: _Codes) -> tuple[_Codes, _Codes]:
    """Returns the rows that differ, sorted, and for each row which of them it is."""
    # Column by column, since NumPy's way for whole rows takes several times as long.
    first, which = np.zeros(1, dtype=np.intp), np.zeros(len(rows), dtype=np.intp)
    for column in rows.T:
        _, first, which = np.unique(which * (column.max() + 1) + column, return_index=True, return_inverse=True)
    return rows[first], which


def _same_for_all(finished: _Mask) -> tuple[_Codes, _Codes, _Codes]:
    """Chooses cells, settings of the other options, and repetitions, so that all trials of these have finished.

    As many cells as leave at least half of the trials that could be chosen at most: a learning rate with which hardly a
    trial finished is left out, while a single failed trial costs its setting or its repetition in all cells.

    Args:
        finished: Which trials have a number, (C, S, R): cells, settings, repetitions.

    Returns:
        The indices of the chosen ones; none where no trial has finished.
    """
    by_cell = np.argsort(-finished.sum(axis=(1, 2)), kind="stable")  # (C,)
    choices = []
    for n_cells, in_all in enumerate(np.logical_and.accumulate(finished[by_cell], axis=0), start=1):  # (S, R) each
        by_repetition = np.argsort(-in_all.sum(axis=0), kind="stable")  # (R,)
        in_first = np.logical_and.accumulate(in_all[:, by_repetition], axis=1)  # (S, R)
        sizes = in_first.sum(axis=0) * np.arange(1, in_first.shape[1] + 1) * n_cells  # (R,)
        n_repetitions = int(np.flatnonzero(sizes == sizes.max())[-1]) + 1  # of equals, the one with more repetitions
        settings = np.flatnonzero(in_first[:, n_repetitions - 1])
        choices.append((int(sizes.max()), by_cell[:n_cells], settings, by_repetition[:n_repetitions]))
    largest = max(choice[0] for choice in choices)
    _, *chosen = [choice for choice in choices if 2 * choice[0] >= largest][-1]
    cells, settings, repetitions = chosen if largest else [indices[:0] for indices in chosen]
    return cells, settings, repetitions


def _interaction(means: CellMeans) -> Interaction:
    known = [(cell.values, cell.estimate.mean) for cell in means.cells if cell.estimate.mean is not None]
    if not known:
        return Interaction(means, None, None)
    values = np.array([mean for _, mean in known])  # (C,)
    columns = zip(*(pair for pair, _ in known), strict=True)
    design = np.hstack([_indicators([repr(value) for value in column]) for column in columns])  # (C, A + B)
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    variance = float(values.var())
    if rank >= len(known) or variance == 0:
        return Interaction(means, None, None)
    left = float(np.mean((values - design @ fitted) ** 2))
    return Interaction(means, left / variance, math.sqrt(left))


def _indicators(texts: Sequence[str]) -> Array:
    return np.array([[float(text == other) for other in dict.fromkeys(texts)] for text in texts])


def _ranks(values: Sequence[Any]) -> _Codes:
    """Returns the place of each value among those that differ: numbers by size, all else in the order of the plan."""
    are_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    different = {repr(value): value for value in values}
    ordered = sorted(different, key=different.__getitem__) if are_numbers else list(different)
    place = {text: i for i, text in enumerate(ordered)}
    return np.array([place[repr(value)] for value in values], dtype=np.intp)


def _shares_of_grid(ranks: Mapping[str, _Codes], numbers: Array) -> dict[str, float]:
    means = {path: np.bincount(column, numbers) / np.bincount(column) for path, column in ranks.items()}
    return {path: float(of_values.var() / numbers.var()) for path, of_values in means.items()}


def _shares_by_forest(ranks: Mapping[str, _Codes], numbers: Array) -> dict[str, float]:
    # Not at the top, since they take more than a second to load.
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces each study
    study = optuna.create_study()
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        # Half a step wider than the ranks, so that each takes up as much of the range.
        path: optuna.distributions.FloatDistribution(-0.5, float(column.max()) + 0.5)
        for path, column in ranks.items()
    }
    rows = zip(*(column.astype(float).tolist() for column in ranks.values()), strict=True)
    study.add_trials(
        [
            optuna.create_trial(
                params=dict(zip(ranks, row, strict=True)), distributions=distributions, value=float(number)
            )
            for row, number in zip(rows, numbers, strict=True)
        ]
    )
    # Time grows with trees and combinations; few combinations need more trees, since each tree sees a part of them.
    n_trees = min(64, max(8, 20_000 // len(numbers)))
    found = FanovaImportanceEvaluator(n_trees=n_trees, seed=0).evaluate(study)
    return {path: float(found[path]) for path in ranks}
