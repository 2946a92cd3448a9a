"""The effects of options and of pairs of options on a result, as tables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cluster.reports.formats.grid import MISSING, Cell, Grid, number_cell, option_cells
from cluster.reports.formats.xlsx import Style
from cluster.reports.tables import captions
from cluster.reports.tables.captions import SPLIT_NAMES
from cluster.reports.tables.combinations import chosen_split
from cluster.reports.tables.effect_phrases import (
    against_chance,
    averaged_over,
    importance_rests_on,
    no_importance,
    no_mean,
    no_means,
)
from cluster.reports.tables.first_rung import at_first_rung
from cluster.reports.tables.metric_labels import MEASURES
from cluster.reports.tables.table_options import TableOptions
from cluster.results.chance import Chance
from cluster.results.names import NOT_APPLICABLE, ChoiceError, short_names
from cluster.results.option_effects import (
    GroupMeans,
    Importances,
    Interaction,
    importances,
    interactions,
    marginal_means,
)
from cluster.results.results import Results
from cluster.results.rows import CONFIRMS, Row, column
from cluster.results.statistics import Interval

IMPORTANCE = (
    "Importance is the share of the variance between combinations that a single option explains (functional ANOVA); "
    "interactions and chance explain the rest."
)
"""Explains importances to readers."""

CONDITIONAL = (
    "The mean of an option that applies only to some combinations covers only those. If other options depend on a "
    "value, its mean covers all of their values."
)
"""Says to readers what is averaged if options have conditions."""

IMPORTANCE_WITH_CONDITIONS = (
    "Options that apply only to some combinations have no importance; that of the others is computed from means over "
    "them."
)
"""Says to readers what importances are of if options have conditions."""

LEFT_OUT_PAIRS = "Pairs of options that do not vary together, or without comparable trials, are left out."
"""Says to readers which interactions are missing."""

NO_DECISION = (
    "the decision at the first rung of the race is missing or broken, and later results lack the dropped combinations"
)
"""Says why a raced experiment has no effects."""

CHANCE = (
    "By chance: the importance of an option that has no effect, as the mean and the limit of 95 % of cases, from the "
    "differences between repetitions. An importance up to that limit says nothing."
)
"""Explains to readers what importances are compared with."""


@dataclass(frozen=True)
class Effects:
    """The effects of options on a metric, over the combinations that were measured on the same data.

    Attributes:
        data: The name of the data; empty if all combinations of the experiment were measured on the same data.
        results: The results on this data; if a race dropped combinations, those at its first rung.
        metric: The column of the trials' table.
        at: Which rung that is, for a sentence; empty for results at the end of the training.
    """

    data: str
    results: Results
    metric: str
    at: str = ""

    @classmethod
    def of(cls, data: str, results: Results, metric: str) -> "Effects | None":
        """Uses the results at the end, or at the first rung of a race; None if the decision there is missing."""
        if not results.dropped:
            return cls(data, results, metric)
        rung = at_first_rung(results)
        return None if rung is None else cls(data, rung.results, column("val", "distance"), rung.at)

    @property
    def names(self) -> dict[str, str]:
        """The names of the options, by their paths."""
        return short_names(self.results.distinguishing_paths)

    @cached_property
    def _trials(self) -> list[Row]:
        """The trials that count; all of them until it is known which combinations are confirmed."""
        if not self.results.n_confirming:
            return self.results.trials
        return [row for row in self.results.trials if row["role"] == CONFIRMS] or self.results.trials

    @property
    def have_conditions(self) -> bool:
        """Whether an option applies only to some combinations."""
        return any(NOT_APPLICABLE in map(row.get, self.results.distinguishing_paths) for row in self.results.summary)

    @cached_property
    def means(self) -> dict[str, GroupMeans]:
        """The mean of each value of each option, by the option's path."""
        return marginal_means(self._trials, self.results.distinguishing_paths, self.metric, self.results.options)

    @cached_property
    def interactions(self) -> list[Interaction]:
        """The interaction of each pair of options with means, the strongest first."""
        found = interactions(self._trials, self.results.distinguishing_paths, self.metric, self.results.options)
        return [one for one in found if one.means.basis.settings]

    @property
    def lacks_pairs(self) -> bool:
        """Whether a pair of options has no interaction."""
        return len(self.interactions) < math.comb(len(self.results.distinguishing_paths), 2)

    @cached_property
    def importances(self) -> Importances:
        """The share of the variance between combinations that each option alone explains."""
        return importances(self._trials, self.results.distinguishing_paths, self.metric, self.results.options)


def effects_of(results: Results, table_options: TableOptions) -> list[Effects]:
    """Returns the effects on each data set, if an option varies and a trial has finished on it.

    After a race, these are the effects at its first rung, on the validation distance.

    Args:
        results: The experiment's results.
        table_options: The metric and the split.

    Raises:
        ChoiceError: If there is no such data set, if a race was decided without this metric, or if options have ranges.
    """
    split = _split_of(results, table_options)
    if results.ranges:
        raise ChoiceError(f"{results.name} has no effects of options. {no_means(results.ranges)}")
    metric = column(split, table_options.metric)
    parts = replace(results, splits=results.splits[: results.splits.index(split) + 1]).by_data()
    varied = {name: part for name, part in parts.items() if part.distinguishing_paths}
    if not varied:
        on = " on the same data" if len(parts) > 1 else ""
        raise ChoiceError(f"{results.name} has no effects of options: no option has more than one value{on}")
    of_all = [Effects.of(name if len(parts) > 1 else "", part, metric) for name, part in varied.items()]
    if None in of_all:
        raise ChoiceError(f"{results.name} has no effects of options: {NO_DECISION}")
    found = [
        of_data
        for of_data in of_all
        if of_data and any(cell.n_averaged for means in of_data.means.values() for cell in means.groups)
    ]
    if not found:
        raise ChoiceError(
            f"{results.name} has no effects of options: no trial has finished with this metric on the "
            f"{SPLIT_NAMES[split]} set"
        )
    return found


def _split_of(results: Results, table_options: TableOptions) -> str:
    """Returns the split of the effects."""
    split = chosen_split(results, table_options)
    if not results.dropped:
        return split
    if table_options.metric != "distance" or (table_options.split or "val") != "val":
        raise ChoiceError(
            f"{results.name} was raced, so effects of its options are computed at the first rung of the race, where "
            "only distances on the validation set are known; leave out metric and split"
        )
    return "val"


@dataclass(frozen=True)
class _EffectTable:
    """The common part of the tables of means and of interactions.

    Attributes:
        results: The experiment's results.
        effects: The effects to show, from `effects_of`.
        table_options: The metric, the split and the precision.
    """

    results: Results
    effects: Sequence[Effects]
    table_options: TableOptions

    @property
    def _rows(self) -> list[Row]:
        return [row for of_data in self.effects for row in of_data.results.summary]

    @property
    def _split(self) -> str:
        return self.effects[0].metric.partition("_")[0]

    @property
    def _have_conditions(self) -> bool:
        return any(of_data.have_conditions for of_data in self.effects)

    @property
    def _has_data(self) -> bool:
        return any(of_data.data for of_data in self.effects)

    def _grid(
        self, name: str, what: str, headers: list[str], n_labels: int, rows: list[list[Cell]], notes: list[str]
    ) -> Grid:
        measure = MEASURES[self.table_options.metric]
        measured = captions.measured(self.results, self._rows, self._split, [self.effects[0].metric], measure)
        if self._has_data:
            headers.insert(0, f"{SPLIT_NAMES[self._split]} set")
        rungs = {of_data.at for of_data in self.effects}
        at = f" {next(iter(rungs))}" if len(rungs) == 1 and rungs != {""} else ""
        if any(rungs):
            notes = [*notes, "Values at a rung are the best validation distances up to its epoch."]
        if len(rungs) > 1:
            notes = [*(f"{one.data}: {one.at or 'at the end of the training'}." for one in self.effects), *notes]
        return Grid(
            name=f"{self.results.name} {name}",
            caption=f"{measured}{at}: {what}",
            headers=headers,
            rows=rows,
            n_labels=n_labels + self._has_data,
            notes=[
                *notes,
                *captions.chosen_epochs(self._split),
                *captions.over_folds(self.results, self._rows),
                *captions.distances(self.results, self._rows, self._split),
                *captions.versions(self.results, self._rows),
                *captions.unfinished(self.results, self._rows),
                *dict.fromkeys(text for of_data in self.effects for text in captions.confirmed(of_data.results)),
            ],
        )

    def _named(self, of_data: Effects) -> Row:
        named = {"data": of_data.data} if self._has_data else {}
        return {**named, "at": of_data.at or "at the end"} if any(one.at for one in self.effects) else named

    def _lines(self, of_data: Effects, rows: list[list[Cell]]) -> list[list[Cell]]:
        return [[Cell(of_data.data), *row] for row in rows] if self._has_data else rows

    def _note(self, of_data: Effects, what: str, words: str) -> str:
        return f"{f'{of_data.data}, ' * self._has_data}{what}: {words}."

    def _style(self) -> Style:
        return "share" if MEASURES[self.table_options.metric].in_percent else "decimals"


class MeanTable(_EffectTable):
    """The mean of each value of each option, averaged over the other options."""

    def records(self) -> list[Row]:
        """Returns a row for each value, with all digits and a description of the averaged trials."""
        rows: list[Row] = []
        for of_data in self.effects:
            name, found = of_data.metric, of_data.importances
            for path, means in of_data.means.items():
                chance = found.chances.get(path)
                importance = {
                    "importance": found.shares.get(path),
                    "importance_by_chance_mean": None if chance is None else chance.mean,
                    "importance_by_chance_high": None if chance is None else chance.high,
                    "importance_is_above_chance": found.is_above_chance(path),
                }
                names = {p: p for p in of_data.names}
                over = averaged_over(means, names) if means.basis.settings else None
                for cell in means.groups:
                    estimate, interval = cell.estimate, cell.estimate.interval
                    rows.append(
                        {
                            **self._named(of_data),
                            **{"option": path, "value": cell.values[0], **importance},
                            **{f"{name}_mean": estimate.mean, f"{name}_std": estimate.std},
                            f"{name}_ci_low": None if interval is None else interval.low,
                            f"{name}_ci_high": None if interval is None else interval.high,
                            **{"n": estimate.n, "trials_averaged": cell.n_averaged, "trials_finished": cell.n_finished},
                            **{"trials_planned": cell.n_planned, "averaged_over": over if cell.n_averaged else None},
                        }
                    )
        return rows

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns of `records` that need one."""
        names = [f"{self.effects[0].metric}_{what}" for what in ("mean", "std", "ci_low", "ci_high")]
        shares = ("importance", "importance_by_chance_mean", "importance_by_chance_high")
        return {**dict.fromkeys(names, self._style()), **dict.fromkeys(shares, "share")}

    def grid(self) -> Grid:
        """Returns the table for reading."""
        measure, precision = MEASURES[self.table_options.metric], self.table_options.precision
        are_complete = all(means.is_complete for of_data in self.effects for means in of_data.means.values())
        have_others = any(len(of_data.means) > 1 for of_data in self.effects)
        rows = []
        for of_data in self.effects:
            for path, means in of_data.means.items():
                labels = option_cells([cell.values[0] for cell in means.groups])
                of_option = [number_cell(of_data.importances.shares.get(path), precision=1, in_percent=True)]
                of_option += [_chance_cell(of_data.importances.chances.get(path))] * self._have_chances
                importance = [of_option] + [[Cell("", True)] * len(of_option)] * len(labels)
                lines = []
                for label, cell, in_line in zip(labels, means.groups, importance, strict=False):
                    mean = number_cell(cell.estimate.mean, precision=precision, in_percent=measure.in_percent)
                    interval = interval_cell(cell.estimate.interval, precision=precision, in_percent=measure.in_percent)
                    line = [Cell(of_data.names[path]), label, mean, interval]
                    line.append(Cell(str(cell.estimate.n), is_number=True))
                    if not are_complete:
                        line.append(Cell(f"{cell.n_averaged:,} of {cell.n_planned:,}", is_number=True))
                    lines.append([*line, *in_line] if self._has_importances else line)
                rows += self._lines(of_data, lines)
        what = "the mean for each value of an option, averaged over "
        if are_complete:
            what += f"{'all values of the other options and ' * have_others}all repetitions"
        else:
            what += "the trials that all values of the option have in common"
        what += "; 95 % intervals are for the mean over n repetitions (Student's t)."
        what += f" {CONDITIONAL}" * self._have_conditions
        headers = ["option", "value", f"mean ({measure.unit})", f"95 % interval ({measure.unit})", "n"]
        headers += ["trials"] * (not are_complete) + ["importance (%)"] * self._has_importances
        headers += ["by chance (%)"] * self._have_chances
        return self._grid("effects", what, headers, 2, rows, list(self._notes()))

    @property
    def _has_importances(self) -> bool:
        return any(len(of_data.means) > 1 and of_data.importances.shares for of_data in self.effects)

    @property
    def _have_chances(self) -> bool:
        return any(len(of_data.means) > 1 and of_data.importances.chances for of_data in self.effects)

    def _notes(self) -> Iterator[str]:
        """Yields notes: which trials the means average, unless it is all, and what importances are."""
        if self._has_importances:
            yield IMPORTANCE
            if self._have_conditions:
                yield IMPORTANCE_WITH_CONDITIONS
        if self._have_chances:
            yield CHANCE
        for of_data in self.effects:
            for path, means in of_data.means.items():
                if not means.is_complete:
                    has_mean = bool(means.basis.settings)
                    over = averaged_over(means, of_data.names) if has_mean else no_mean(means, of_data.names)
                    yield self._note(of_data, of_data.names[path], f"over {over}" if has_mean else over)
            found = of_data.importances
            if len(of_data.means) > 1 and not (found.means.is_complete and len(found.means.paths) > 1):
                known = f"over {importance_rests_on(found, of_data.names)}" if found.shares else no_importance(found)
                yield self._note(of_data, "importance", known)
            if len(of_data.means) > 1 and found.shares:
                importance = f"{of_data.data}: importance" if self._has_data else "Importance"
                yield f"{importance} is {against_chance(found, of_data.names)}."


def _chance_cell(chance: Chance | None) -> Cell:
    """Writes the importance by chance in %: '7.7, up to 21.3'."""
    return (
        MISSING if chance is None else Cell(f"{100 * chance.mean:.1f}, up to {100 * chance.high:.1f}", is_number=True)
    )


def interval_cell(interval: Interval | None, *, precision: int, in_percent: bool = False) -> Cell:
    """Writes an interval: '9.41 to 9.62'."""
    if interval is None:
        return MISSING
    low, high = (
        number_cell(end, precision=precision, in_percent=in_percent).text for end in (interval.low, interval.high)
    )
    return Cell(f"{low} to {high}", is_number=True)


class InteractionTable(_EffectTable):
    """The interaction of each pair of options, the strongest first."""

    def records(self) -> list[Row]:
        """Returns a row for each pair, with all digits and a description of the averaged trials."""
        return [
            {
                **self._named(of_data),
                **dict(zip(("option", "other_option"), found.means.paths, strict=True)),
                **{"share_left_over": found.share, f"{of_data.metric}_left_over": found.size},
                "pairs_averaged": sum(cell.n_averaged > 0 for cell in found.means.groups),
                "pairs_planned": len(found.means.groups),
                "averaged_over": averaged_over(found.means, {path: path for path in of_data.names}),
            }
            for of_data in self.effects
            for found in of_data.interactions
        ]

    def styles(self) -> dict[str, Style]:
        """Returns the styles of those columns of `records` that need one."""
        return {"share_left_over": "share", f"{self.effects[0].metric}_left_over": self._style()}

    def grid(self) -> Grid:
        """Returns the table for reading."""
        measure, precision = MEASURES[self.table_options.metric], self.table_options.precision
        are_complete = all(found.means.is_complete for of_data in self.effects for found in of_data.interactions)
        rows = []
        for of_data in self.effects:
            lines = []
            for found in of_data.interactions:
                line = [Cell(of_data.names[path]) for path in found.means.paths]
                n, over = rests_on(found.means, of_data.names)
                line += [] if are_complete else [Cell(over)]
                line.append(number_cell(found.share, precision=1, in_percent=True))
                line.append(number_cell(found.size, precision=precision, in_percent=measure.in_percent))
                lines.append(line if are_complete else [*line, Cell(n, is_number=True)])
            rows += self._lines(of_data, lines)
        what = "the part of the means of pairs of values that the sum of the two options' effects does not explain, "
        what += "as a share of the variance of these means and as root mean square; part of it is chance."
        what += f" {LEFT_OUT_PAIRS}" * any(of_data.lacks_pairs for of_data in self.effects)
        headers = ["option", "other option", *(() if are_complete else ("averaged over",))]
        n_labels = len(headers)
        headers += ["interaction (%)", f"interaction ({'points' if measure.in_percent else measure.unit})"]
        headers += [] if are_complete else ["pairs"]
        return self._grid("interactions", what, headers, n_labels, rows, [])


def rests_on(means: GroupMeans, names: Mapping[str, str]) -> tuple[str, str]:
    """Says how many pairs of values have a mean, '5 of 6', and which trials these means average."""
    n = sum(cell.n_averaged > 0 for cell in means.groups)
    return f"{n:,} of {len(means.groups):,}", averaged_over(means, names)


def interaction_table(results: Results, effects: Sequence[Effects], table_options: TableOptions) -> InteractionTable:
    """Returns the table for the data sets on which several options vary.

    Raises:
        ChoiceError: If there is no such data set.
    """
    of_several = [of_data for of_data in effects if of_data.interactions]
    if not of_several:
        if any(len(of_data.results.distinguishing_paths) > 1 for of_data in effects):
            raise ChoiceError(f"{results.name} has no interactions. {LEFT_OUT_PAIRS}")
        raise ChoiceError(f"{results.name} has only one option that varies; an interaction needs two")
    return InteractionTable(results, of_several, table_options)
