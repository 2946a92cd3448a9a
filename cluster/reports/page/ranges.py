"""Errors along the ranges and options of a search: a dot for each combination, and a smooth line for each range."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cluster.figures.options import is_number
from cluster.reports.formats.html import Markup, tag
from cluster.reports.page.charts import Axis, Chart, figure, key, within_fence
from cluster.reports.page.data import PageData
from cluster.reports.tables.first_rung import FirstRung, at_first_rung
from cluster.results.choice.marginal import marginal
from cluster.results.names import option_texts, short_names
from cluster.results.rows import Row, column
from cluster.results.statistics import Array, mean
from cluster.storage.experiment_file import Range
from cluster.storage.trial_file import FINAL
from data_pipeline.words import count, listed

_MAX_VALUES = 12
"""With more values of an option, its strips of dots would overlap."""

_WIDTH_OF_TEXTS = 62
"""How many letters fit below a chart."""

_HALF_STRIP = 0.3


def ranges(data: PageData) -> list[Markup]:
    """Returns a text on what the charts show, and a chart for each range and option; empty without results."""
    found = _Search(data)
    if not np.isfinite(found.errors).any():
        return []
    paths = data.table.distinguishing_paths
    shown = [path for path in paths if path in data.ranges or len(found.texts(path)) <= _MAX_VALUES]
    names = short_names(paths)
    where = "over all repetitions" if found.at_rung is None else found.at_rung.at
    texts = [
        f"Each dot is a combination: its mean validation error {where}. A search need not sample evenly: a sampler "
        "such as TPE proposes more where errors were low, and the other settings change from dot to dot as well. So "
        "the lines describe the trained combinations; they do not show the effect of one setting alone."
    ]
    if found.n_incomplete:
        why = "repetitions are missing" if found.at_rung is None else "they did not compete there"
        texts.append(f"Not shown because {why}: {count(found.n_incomplete, 'combination')}.")
    if len(shown) < len(paths):
        left_out = listed([names[path] for path in paths if path not in shown])
        texts.append(f"Without a chart because of more than {_MAX_VALUES} values: {left_out}.")
    charts = [
        found.along(path, names[path], data.ranges[path]) if path in data.ranges else found.by_value(path, names[path])
        for path in shown
    ]
    return [*(tag("p", text) for text in texts), tag("div", *charts, class_="charts")]


@dataclass(frozen=True)
class _Search:
    """The combinations of a search whose repetitions have all ended, with their errors."""

    data: PageData

    @cached_property
    def at_rung(self) -> FirstRung | None:
        """The first rung of a race, where the dropped combinations have errors too; None without a race."""
        return at_first_rung(self.data.table) if self.data.table.dropped else None

    @cached_property
    def rows(self) -> list[Row]:
        """First the combinations that finished all repetitions, best first; then those with a diverged repetition.

        In a race, those that reached the first rung, in the order of the table.
        """
        if self.at_rung is not None:
            at_rung = self.at_rung.results
            ended = {key for key, trials in at_rung.repetitions.items() if all(t["status"] in FINAL for t in trials)}
            return [row for row in at_rung.summary if row["key"] in ended]
        complete = list(filter(self.data.table.is_complete, self.data.table.ranked))
        return [*complete, *(row for row in self.data.table.ranked if row["diverged"])]

    @property
    def n_incomplete(self) -> int:
        """How many combinations are not among `rows`."""
        return len(self.data.table.summary) - len(self.rows)

    @cached_property
    def errors(self) -> Array:
        """Their mean validation errors, (N,), mm; infinite if they diverged."""
        mean_mm = {row["key"]: row[self.data.table.chosen_by.mean] for row in self.data.table.summary}
        if self.at_rung is not None:
            values = self.at_rung.results.values(column("val", "distance"))
            mean_mm = {key: None if None in of_key else mean(of_key) for key, of_key in values.items()}
        means = [None if row["diverged"] else mean_mm[row["key"]] for row in self.rows]
        errors: Array = np.array([np.inf if mm is None else mm for mm in means])
        return np.nan_to_num(errors, nan=np.inf, posinf=np.inf)

    @cached_property
    def shown(self) -> Array:
        """The errors as charts show them, (N,), mm: those far above the others lie at the edge."""
        return within_fence(self.errors)

    @cached_property
    def y(self) -> Axis:
        """The axis of errors, the same in all charts."""
        return Axis.around("validation error, mm", self.shown)

    def texts(self, path: str) -> dict[str, str]:
        """Returns the values of an option as texts, by their `repr`: numbers ascending, others as in the script."""
        values = self.data.table.option_values(path)
        if all(map(is_number, values)):
            values = sorted(values)
        return dict(zip(map(repr, values), option_texts(values), strict=True))

    def along(self, path: str, name: str, of: Range) -> Markup:
        """Returns the chart of a range."""
        applies = np.array([is_number(row[path]) and of.low <= row[path] <= of.high for row in self.rows])
        values = np.array(
            [row[path] for row, has_value in zip(self.rows, applies, strict=True) if has_value], dtype=float
        )
        chart = Chart(
            Axis.around(f"{name} (log)" if of.log else name, np.array([of.low, of.high]), is_log=of.log), self.y
        )
        scaled = np.log(values) if of.log else values
        smooth = marginal(scaled, self.shown[applies])
        drawn: list[Markup] = []
        if smooth is not None:
            places = np.exp(smooth.places) if of.log else smooth.places
            drawn.append(chart.band(places, smooth.low, smooth.high, "band validation"))
            drawn.append(chart.line(places, smooth.line, "line validation"))
        legend = [key("validation", "local mean, with its 95 % interval (bootstrap over combinations)")] * bool(drawn)
        return self._figure(chart, name, drawn, values, applies, legend)

    def by_value(self, path: str, name: str) -> Markup:
        """Returns the chart of an option: a strip of dots for each value."""
        texts = self.texts(path)
        place = {text: number for number, text in enumerate(texts)}
        applies = np.array([repr(row[path]) in place for row in self.rows])
        values = np.array([place.get(repr(row[path]), -1) for row in self.rows])[applies]
        most = _WIDTH_OF_TEXTS // len(texts)
        ticks = {float(i): _shortened(text, most) for i, text in enumerate(texts.values())}
        chart = Chart(Axis(name, -0.5, len(texts) - 0.5, texts=ticks), self.y)
        drawn = [
            chart.line(i + np.array([-_HALF_STRIP, _HALF_STRIP]), np.full(2, np.median(of_value)), "line validation")
            for i in range(len(texts))
            if len(of_value := self.shown[applies][values == i])
        ]
        # Spreads the dots sideways, at random, so that they do not cover each other.
        beside = np.random.default_rng(0).uniform(-1, 1, len(values)) * _HALF_STRIP / 2
        return self._figure(chart, name, drawn, values + beside, applies, [key("validation", "median")])

    def _figure(
        self,
        chart: Chart,
        name: str,
        drawn: Sequence[Markup],
        xs: Array,
        applies: npt.NDArray[np.bool_],
        legend: Sequence[Markup],
    ) -> Markup:
        is_known = np.isfinite(self.errors[applies])
        dots = chart.dots(xs[is_known], self.shown[applies][is_known], "dots")
        content = [dots, *drawn]
        if not is_known.all():
            content.append(chart.crosses(xs[~is_known], "cross"))
            legend = [*legend, key("cross", "diverged")]
        has_best = bool(self.rows) and self.rows[0]["key"] == self.data.table.summary[0]["key"]
        if has_best and applies[0] and is_known[0]:
            content.append(chart.mark(float(xs[0]), float(self.shown[0]), "after"))
            legend = [*legend, key("after", "best")]
        title = f"Validation error of {count(len(xs), 'combination')} against {name}."
        return figure(chart.drawn(title, *content), *self._caption(name, legend, int((~applies).sum())))

    def _caption(self, name: str, legend: Sequence[Markup], n_without: int) -> Iterator[str]:
        yield f"{name}: "
        for place, entry in enumerate(legend):
            yield ", " * bool(place)
            yield entry
        yield "."
        if (self.errors > self.y.high).any():
            yield " Errors above the chart count as lying at its edge."
        if n_without:
            yield f" It does not apply to {count(n_without, 'combination')}."


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(1, most - 1)]}…"
