"""The effect of options on a result, over all combinations: marginal means, interactions of pairs, importances.

Means for the values of an option are comparable only if each value was trained with the same other options and in the
same repetitions. All means here are over the largest set of trials with this property: all trials of a grid that has
finished, fewer if some failed or are missing. Every result says which.

An option that applies only to some combinations is averaged over those alone. A value of an option on which others
depend is averaged over all their values that apply with it, since these cannot be the same for its other values.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.results.chance import Chance, chances_of_grid, shares_of_grid
from cluster.results.experiment_description import Option
from cluster.results.names import NOT_APPLICABLE, in_order
from cluster.results.statistics import Array, Estimate, estimate

_Mask = npt.NDArray[np.bool_]
_Codes = npt.NDArray[np.intp]

MIN_COMBINATIONS = 12
"""An incomplete grid with fewer combinations than this has no importances: they would say nothing."""

_ROUNDING = 1e-9  # a smaller share is rounding
_UNKNOWN: Mapping[str, Option] = MappingProxyType({})


@dataclass(frozen=True)
class GroupMean:
    """The mean of a group: of all trials with the same value of an option, or the same values of some options.

    Attributes:
        values: The values, one for each option.
        by_repetition: The mean over the other options in each repetition of the basis; empty if the group was left out.
        estimate: The mean of these: `n` counts repetitions. The interval is for other seeds and the same grid.
        n_averaged: The trials in the mean: the same number in each group, unless options depend on theirs; 0 if the
            group was left out.
        n_finished: The trials that have a number.
        n_planned: The planned trials.
    """

    values: tuple[Any, ...]
    by_repetition: list[float]
    estimate: Estimate
    n_averaged: int
    n_finished: int
    n_planned: int


@dataclass(frozen=True)
class Basis:
    """The trials in the means, the same for each group: all of these settings in all of these repetitions.

    Attributes:
        paths: The other options, without dependent ones, and without those with one value where the options apply.
        settings: The combinations of their values that are in the means, in the order of the plan.
        left_out: The other planned combinations of their values.
        repetitions: The repetitions that are in the means, from 0.
        repetitions_left_out: The other planned repetitions.
        dependents: The options that apply only to some of the groups: at each setting, a group's mean is over all
            their values that apply to it.
    """

    paths: tuple[str, ...]
    settings: list[tuple[Any, ...]]
    left_out: list[tuple[Any, ...]]
    repetitions: list[int]
    repetitions_left_out: list[int]
    dependents: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupMeans:
    """The mean of each group: for every value of an option, or every combination of values of some options.

    Attributes:
        paths: The options.
        groups: The means, in the order of the script, of the combinations to which the options apply.
        basis: The trials that they average.
    """

    paths: tuple[str, ...]
    groups: list[GroupMean]
    basis: Basis

    @property
    def is_complete(self) -> bool:
        """Whether all planned trials are in the means."""
        return all(group.n_averaged == group.n_planned for group in self.groups)


@dataclass(frozen=True)
class Interaction:
    """How much the effect of one option depends on the other.

    Attributes:
        means: The means of each pair of values.
        share: The share of the variance of these means that a sum of one effect per option does not explain, 0 to 1;
            it includes chance. None if the sum has as many parameters as there are means, or if all means are equal.
        size: The root mean square of the residuals of that sum, in the unit of the metric; None where `share` is None.
    """

    means: GroupMeans
    share: float | None
    size: float | None


@dataclass(frozen=True)
class Importances:
    """How much of the variance between combinations each option explains by itself, and how much it would by chance.

    Attributes:
        shares: By option, 0 to 1, without options that have a single value left; empty if the combinations do not
            differ, or if an incomplete grid has fewer than `MIN_COMBINATIONS`. The rest is interactions and chance.
        chances: What the share of each of these options would be by chance; empty for an incomplete grid, which would
            need hundreds of forests, and for a single repetition.
        means: The mean of each combination of the options that apply to all combinations; those without a mean are
            excluded from the shares.
    """

    shares: dict[str, float]
    chances: dict[str, Chance]
    means: GroupMeans

    @property
    def averaged(self) -> list[GroupMean]:
        """The combinations that the shares are computed from."""
        return [group for group in self.means.groups if group.n_averaged]

    @property
    def is_complete(self) -> bool:
        """Whether the shares are computed from all planned combinations."""
        return len(self.averaged) == len(self.means.groups)

    def is_above_chance(self, path: str) -> bool | None:
        """Returns whether an option's share is above 95 % of those by chance; None if it is not known."""
        return self.shares[path] > self.chances[path].high + _ROUNDING if path in self.chances else None


def marginal_means(
    trials: Sequence[Mapping[str, Any]],
    options: Sequence[str],
    metric: str,
    described: Mapping[str, Option] = _UNKNOWN,
) -> dict[str, GroupMeans]:
    """Returns the means of each value of each option, without options that have a single value where they apply.

    Args:
        trials: Rows with the options, `repetition`, `status` and the metric, such as `ResultTable.trials`.
        options: The columns of options that distinguish all combinations, such as `ResultTable.distinguishing_paths`.
        metric: A column of numbers.
        described: The options by their columns, for the order of values and for what depends on what.
    """
    coded = _Coded.of(trials, options, metric, described)
    return {path: coded.group_means([i]) for i, path in enumerate(options) if coded.vary([i])}


def interactions(
    trials: Sequence[Mapping[str, Any]],
    options: Sequence[str],
    metric: str,
    described: Mapping[str, Option] = _UNKNOWN,
) -> list[Interaction]:
    """Returns the interaction of each pair of options that vary together, the largest share first.

    Args:
        trials: As for `marginal_means`.
        options: As for `marginal_means`.
        metric: As for `marginal_means`.
        described: As for `marginal_means`.
    """
    coded = _Coded.of(trials, options, metric, described)
    pairs = filter(coded.vary, itertools.combinations(range(len(options)), 2))
    found = [_interaction(coded.group_means(pair)) for pair in pairs]
    return sorted(found, key=lambda interaction: -1.0 if interaction.share is None else interaction.share, reverse=True)


def importances(
    trials: Sequence[Mapping[str, Any]],
    options: Sequence[str],
    metric: str,
    described: Mapping[str, Option] = _UNKNOWN,
) -> Importances:
    """Returns the importance of each option: the share of the variance that its marginal means have (functional ANOVA).

    It is that of options that apply to all combinations. The others are averaged at each combination of these, and have
    no importance: the variance between combinations contains more than the few that they apply to.

    Every value of an option has the same weight, however far apart two learning rates are. For a complete grid the
    shares are computed from its means. If combinations are missing, a random forest predicts them (fANOVA, Hutter et
    al. 2014, by Optuna). Each tree sees a sample of the combinations, so the shares of a dozen combinations are rough.

    Args:
        trials: As for `marginal_means`.
        options: As for `marginal_means`.
        metric: As for `marginal_means`.
        described: As for `marginal_means`.
    """
    coded = _Coded.of(trials, options, metric, described)
    means = coded.group_means(np.flatnonzero(coded.applies.all(axis=0)).tolist())
    if len(means.paths) < min(2, len(options)):
        return Importances({}, {}, means)  # the only option left would explain everything
    averaged = Importances({}, {}, means).averaged
    numbers = np.array([group.estimate.mean for group in averaged], dtype=np.float64)  # (C,)
    if len(set(numbers.tolist())) < 2:
        return Importances({}, {}, means)
    columns = zip(*(group.values for group in averaged), strict=True)
    ranks = dict(zip(means.paths, map(_ranks, columns), strict=True))  # (C,) each
    ranks = {path: column for path, column in ranks.items() if column.any()}
    shape = tuple(int(column.max()) + 1 for column in ranks.values())
    if len(numbers) < math.prod(shape):
        return Importances(_shares_by_forest(ranks, numbers) if len(numbers) >= MIN_COMBINATIONS else {}, {}, means)
    results = np.empty((*shape, len(means.basis.repetitions)))  # (K1, …, KO, R)
    results[tuple(ranks.values())] = [group.by_repetition for group in averaged]
    shares = dict(zip(ranks, shares_of_grid(results.mean(axis=-1)).tolist(), strict=True))
    chances = dict(zip(ranks, chances_of_grid(results), strict=True)) if results.shape[-1] > 1 else {}
    return Importances(shares, chances, means)


@dataclass(frozen=True)
class _Coded:
    """The trials as arrays: a code for each value of each option, and the metric.

    Attributes:
        paths: The O options.
        values: The values of each option in the order of the script; the codes are indices into them.
        codes: (N, O).
        applies: Whether the option applies to the trial, (N, O).
        depends_on: For each option the indices of those that decide whether it applies.
        repetitions: (N,), from 0.
        numbers: The metric, (N,); NaN if the trial has none.
    """

    paths: Sequence[str]
    values: list[list[Any]]
    codes: _Codes
    applies: _Mask
    depends_on: list[set[int]]
    repetitions: _Codes
    numbers: Array

    @classmethod
    def of(
        cls,
        trials: Sequence[Mapping[str, Any]],
        paths: Sequence[str],
        metric: str,
        described: Mapping[str, Option],
    ) -> "_Coded":
        values, codes = [], np.zeros((len(trials), len(paths)), dtype=np.intp)
        for i, path in enumerate(paths):
            # By their text, since 1, 1.0 and True are three values of an option.
            known = {repr(row[path]): row[path] for row in trials}
            known = in_order(known, described[path].values if path in described else ())
            code = {text: j for j, text in enumerate(known)}
            values.append(list(known.values()))
            codes[:, i] = [code[repr(row[path])] for row in trials]
        applies = [[row[path] != NOT_APPLICABLE for path in paths] for row in trials]
        depends_on = [described[path].depends_on if path in described else frozenset() for path in paths]
        numbers = [row[metric] if row["status"] == "finished" else None for row in trials]
        return cls(
            paths,
            values,
            codes,
            np.array(applies, dtype=np.bool_).reshape(codes.shape),
            [{i for i, path in enumerate(paths) if path in of_option} for of_option in depends_on],
            np.array([row["repetition"] for row in trials], dtype=np.intp),
            np.array([math.nan if x is None or not math.isfinite(x) else x for x in numbers], dtype=np.float64),
        )

    def vary(self, which: Sequence[int]) -> bool:
        """Returns whether each of some options has several values where they all apply; True if they always do."""
        rows = self._rows(which)
        return bool(rows.all()) or all(self._n_values(rows, i) > 1 for i in which)

    def group_means(self, which: Sequence[int]) -> GroupMeans:
        """Returns the means of all combinations of values of some options where all of these apply.

        They are over the settings of the other options, and within each setting over the options that depend on these.
        """
        rows = self._rows(which)
        others = [i for i in range(len(self.paths)) if i not in which and (rows.all() or self._n_values(rows, i) > 1)]
        dependents = [i for i in others if not self.depends_on[i].isdisjoint(which)]
        others = [i for i in others if i not in dependents]
        codes, repetition, numbers = self.codes[rows], self.repetitions[rows], self.numbers[rows]  # (M, O), (M,), (M,)
        groups, group = _numbered(codes[:, list(which)])  # (G, options), (M,)
        settings, setting = _numbered(codes[:, others])  # (S, others), (M,)
        needed = np.ones((len(groups), len(settings)), dtype=np.intp)  # trials for each repetition, (G, S)
        needed[group, setting] = self._n_dependent(codes, which, others, dependents)
        known = ~np.isnan(numbers)  # (M,)
        grid = np.zeros((len(groups), len(settings), self.repetitions.max() + 1))  # (G, S, R)
        np.add.at(grid, (group[known], setting[known], repetition[known]), numbers[known])
        n_known = np.zeros(grid.shape, dtype=np.intp)  # (G, S, R)
        np.add.at(n_known, (group[known], setting[known], repetition[known]), 1)
        kept, in_settings, in_repetitions = _same_for_all(n_known == needed[..., None])
        grid /= needed[..., None]
        means = grid[np.ix_(kept, in_settings, in_repetitions)].mean(axis=1) if len(kept) else grid[:0, 0]
        by_repetition = dict(zip(kept.tolist(), means.tolist(), strict=True))  # of each group
        n_in_mean = needed[:, in_settings].sum(axis=1) * len(in_repetitions)  # (G,)
        n_planned = np.bincount(group, minlength=len(groups))  # (G,)
        n_finished = np.bincount(group, known, minlength=len(groups))  # (G,)
        found = [
            GroupMean(
                self._values(which, codes),
                by_repetition.get(i, []),
                estimate(by_repetition.get(i, [])),
                int(n_in_mean[i]) if i in by_repetition else 0,
                int(n_finished[i]),
                int(n_planned[i]),
            )
            for i, codes in enumerate(groups)
        ]
        all_settings = [self._values(others, codes) for codes in settings]
        chosen, repetitions = set(in_settings.tolist()), set(in_repetitions.tolist())
        basis = Basis(
            tuple(self.paths[i] for i in others),
            [values for i, values in enumerate(all_settings) if i in chosen],
            [values for i, values in enumerate(all_settings) if i not in chosen],
            sorted(repetitions),
            sorted(set(self.repetitions.tolist()) - repetitions),
            tuple(self.paths[i] for i in dependents),
        )
        return GroupMeans(tuple(self.paths[i] for i in which), found, basis)

    def _rows(self, which: Sequence[int]) -> _Mask:
        """Returns to which trials all of some options apply, (N,)."""
        rows: _Mask = np.logical_and.reduce(self.applies[:, list(which)], axis=1)
        return rows

    def _n_values(self, rows: _Mask, option: int) -> int:
        return len(np.unique(self.codes[rows, option]))

    def _n_dependent(
        self, codes: _Codes, which: Sequence[int], others: Sequence[int], dependents: Sequence[int]
    ) -> _Codes:
        """Returns for each trial how many settings of dependent options it must be averaged with, (M,).

        These are all that occur with the same values of the options that they depend on. A search may not have proposed
        all of them with each setting of the others; those that it has not proposed are missing.
        """
        deciding = set[int]().union(*(self.depends_on[i] for i in dependents))
        of_same, same = _numbered(codes[:, [*which, *(i for i in others if i in deciding)]])  # (C, deciding), (M,)
        _, dependent = _numbered(codes[:, list(dependents)])  # (M,)
        pairs, _ = _numbered(np.stack([same, dependent], axis=1))  # (P, 2)
        n_settings: _Codes = np.bincount(pairs[:, 0], minlength=len(of_same))[same]
        return n_settings

    def _values(self, which: Sequence[int], codes: _Codes) -> tuple[Any, ...]:
        return tuple(self.values[option][code] for option, code in zip(which, codes.tolist(), strict=True))


def _numbered(rows: _Codes) -> tuple[_Codes, _Codes]:
    """Returns the distinct rows, sorted, and for each row its index among them."""
    # Column by column, since NumPy's way for whole rows takes several times as long.
    first, which = np.zeros(1, dtype=np.intp), np.zeros(len(rows), dtype=np.intp)
    for column in rows.T:
        _, first, which = np.unique(which * (column.max() + 1) + column, return_index=True, return_inverse=True)
    return rows[first], which


def _same_for_all(finished: _Mask) -> tuple[_Codes, _Codes, _Codes]:
    """Chooses groups, settings of the other options, and repetitions, so that all trials of these have finished.

    It chooses as many groups as possible with at least half of the trials of the largest choice: a learning rate with
    hardly a finished trial is left out, while a single failed trial costs its setting or its repetition in all groups.

    Args:
        finished: Which trials have a number, (G, S, R): groups, settings, repetitions.

    Returns:
        The indices of the chosen ones; none if no trial has finished.
    """
    by_group = np.argsort(-finished.sum(axis=(1, 2)), kind="stable")  # (G,)
    choices = []
    for n_groups, in_all in enumerate(np.logical_and.accumulate(finished[by_group], axis=0), start=1):  # (S, R) each
        by_repetition = np.argsort(-in_all.sum(axis=0), kind="stable")  # (R,)
        in_first = np.logical_and.accumulate(in_all[:, by_repetition], axis=1)  # (S, R)
        sizes = in_first.sum(axis=0) * np.arange(1, in_first.shape[1] + 1) * n_groups  # (R,)
        n_repetitions = (
            int(np.flatnonzero(sizes == sizes.max())[-1]) + 1
        )  # of equal sizes, the one with more repetitions
        settings = np.flatnonzero(in_first[:, n_repetitions - 1])
        choices.append((int(sizes.max()), by_group[:n_groups], settings, by_repetition[:n_repetitions]))
    largest = max(choice[0] for choice in choices)
    _, *chosen = [choice for choice in choices if 2 * choice[0] >= largest][-1]
    groups, settings, repetitions = chosen if largest else [indices[:0] for indices in chosen]
    return groups, settings, repetitions


def _interaction(means: GroupMeans) -> Interaction:
    known = [(group.values, group.estimate.mean) for group in means.groups if group.estimate.mean is not None]
    if not known:
        return Interaction(means, None, None)
    values = np.array([mean for _, mean in known])  # (C,)
    columns = zip(*(pair for pair, _ in known), strict=True)
    design = np.hstack([_indicators([repr(value) for value in column]) for column in columns])  # (C, A + B)
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    variance = float(values.var())
    if rank >= len(known) or variance == 0:
        return Interaction(means, None, None)
    residual = float(np.mean((values - design @ fitted) ** 2))
    return Interaction(means, residual / variance, math.sqrt(residual))


def _indicators(texts: Sequence[str]) -> Array:
    return np.array([[float(text == other) for other in dict.fromkeys(texts)] for text in texts])


def _ranks(values: Sequence[Any]) -> _Codes:
    """Returns the rank of each value: numbers by size, other values in the order of the plan."""
    are_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    different = {repr(value): value for value in values}
    ordered = sorted(different, key=different.__getitem__) if are_numbers else list(different)
    place = {text: i for i, text in enumerate(ordered)}
    return np.array([place[repr(value)] for value in values], dtype=np.intp)


def _shares_by_forest(ranks: Mapping[str, _Codes], numbers: Array) -> dict[str, float]:
    # Not at the top of the file: they take more than a second to import.
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs each study
    study = optuna.create_study()
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        # Half a step wider than the ranks, so that each rank covers the same share of the range.
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
    # The time grows with trees and combinations; few combinations need more trees, since each tree sees some of them.
    n_trees = min(64, max(8, 20_000 // len(numbers)))
    found = FanovaImportanceEvaluator(n_trees=n_trees, seed=0).evaluate(study)
    return {path: float(found[path]) for path in ranks}
