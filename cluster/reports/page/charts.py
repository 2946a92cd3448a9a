"""Charts as inline SVG, which has the colours of the page and needs no scripts."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cluster.reports.formats.html import Markup, joined, tag
from cluster.results.statistics import Array

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 28, 12, 44
_MARGIN = 0.04  # of an axis, beyond its outermost values


class Axis(NamedTuple):
    """An axis of a chart.

    Attributes:
        title: What it shows.
        low: The number at its low end.
        high: The number at its high end.
        is_log: Whether the axis is logarithmic.
        texts: The labels of its ticks, by their numbers; None for ticks at round numbers.
    """

    title: str
    low: float
    high: float
    is_log: bool = False
    texts: Mapping[float, str] | None = None

    @classmethod
    def around(cls, title: str, values: Array, *, is_log: bool = False) -> "Axis":
        """Returns an axis with a margin around all values."""
        low, high = float(values.min()), float(values.max())
        if is_log:
            ratio = (high / low) ** _MARGIN
            return cls(title, low / ratio, high * ratio, is_log=True)
        margin = _MARGIN * ((high - low) or max(1, abs(high)))
        return cls(title, low - margin, high + margin)

    def shares(self, values: Array) -> Array:
        """Returns the positions of values, from 0 at the low end to 1 at the high one."""
        if self.is_log:
            return np.log(values / self.low) / math.log(self.high / self.low)
        return (values - self.low) / (self.high - self.low)

    def ticks(self, at_most: int) -> list[float]:
        """Returns round numbers on the axis: multiples of 1, 2 or 5 times a power of ten, or only such powers."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for factors, step in ((1, 2, 5), 1), *(((1,), step) for step in range(1, last - first + 1)):
                every = [float(f"{m}e{power}") for power in range(first, last + 1, step) for m in factors]
                found = [number for number in every if self.low <= number <= self.high]
                if 3 <= len(found) <= at_most:
                    return found
        least = (self.high - self.low) / at_most
        power = 10 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


class Chart(NamedTuple):
    """An area with two axes; what lies above or below it is drawn at its edge.

    Attributes:
        x: The horizontal axis.
        y: The vertical axis.
        top: The space above it, in the units of the drawing.
    """

    x: Axis
    y: Axis
    top: float = _TOP

    def places(self, xs: Array, ys: Array) -> list[tuple[float, float]]:
        """Returns the positions of points, in the units of the drawing."""
        right = _LEFT + self.x.shares(xs) * (_WIDTH - _LEFT - _RIGHT)
        down = self.top + (1 - self.y.shares(ys)) * (_HEIGHT - self.top - _BOTTOM)
        return list(zip(right.tolist(), np.clip(down, self.top, _HEIGHT - _BOTTOM).tolist(), strict=True))

    def line(self, xs: Array, ys: Array, kind: str) -> Markup:
        """Returns a line through points."""
        return tag("path", class_=kind, d=_path(self.places(xs, ys)))

    def band(self, xs: Array, lows: Array, highs: Array, kind: str) -> Markup:
        """Returns the area between two such lines."""
        return tag("path", class_=kind, d=f"{_path([*self.places(xs, highs), *self.places(xs, lows)[::-1]])}Z")

    def stairs(self, xs: Array, ys: Array, kind: str) -> Markup:
        """Returns a line that stays level up to the next point, as the best error so far does."""
        return tag("path", class_=kind, d=_path(_stairs(self.places(xs, ys))))

    def band_of_stairs(self, xs: Array, lows: Array, highs: Array, kind: str) -> Markup:
        """Returns the area between two such lines."""
        forth, back = _stairs(self.places(xs, highs)), _stairs(self.places(xs, lows))[::-1]
        return tag("path", class_=kind, d=f"{_path([*forth, *back])}Z")

    def rule(self, x: float, text: str) -> Markup:
        """Returns a vertical line through the chart, with a text above it."""
        ((right, down),) = self.places(np.array([x]), np.array([self.y.high]))
        line = tag("path", class_="grid", d=f"M{right:.1f} {down:.1f}V{_HEIGHT - _BOTTOM}")
        return joined([line, tag("text", text, x=f"{right:.1f}", y=f"{down - 8:.1f}", text_anchor="middle")])

    def dots(self, xs: Array, ys: Array, kind: str) -> Markup:
        """Returns a dot for each point, all in one element, which keeps a page with thousands of them small."""
        return tag("path", class_=kind, d="".join(f"M{x:.0f} {y:.0f}h0" for x, y in self.places(xs, ys)))

    def mark(self, x: float, y: float, kind: str, *, r: int = 5) -> Markup:
        """Returns a large dot of radius `r`."""
        ((right, down),) = self.places(np.array([x]), np.array([y]))
        return tag("circle", class_=kind, cx=f"{right:.1f}", cy=f"{down:.1f}", r=r)

    def crosses(self, xs: Array, kind: str) -> Markup:
        """Returns crosses at the upper edge, for results that are not numbers."""
        places = self.places(xs, np.full(len(xs), self.y.high))
        return tag("path", class_=kind, d="".join(f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" for x, y in places))

    def drawn(self, title: str, *content: Markup) -> Markup:
        """Returns the chart with its axes.

        Args:
            title: What it shows, for readers who cannot see it.
            content: What is drawn in it, from back to front.
        """
        bottom, middle = _HEIGHT - _BOTTOM, (_LEFT + _WIDTH - _RIGHT) / 2
        axes = []
        for number in self.y.ticks(6):
            ((_, y),) = self.places(np.array([self.x.low]), np.array([number]))
            axes.append(tag("path", class_="grid", d=f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"))
            axes.append(tag("text", f"{number:.12g}", x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
        named = self.x.texts
        for number, text in ({n: f"{n:,.12g}" for n in self.x.ticks(7)} if named is None else named).items():
            ((x, _),) = self.places(np.array([number]), np.array([self.y.low]))
            axes.append(tag("path", class_="grid", d=f"M{x:.1f} {bottom}v4"))
            axes.append(tag("text", text, x=f"{x:.1f}", y=bottom + 18, text_anchor="middle"))
        axes.append(tag("text", self.x.title, x=f"{middle:g}", y=_HEIGHT - 6, text_anchor="middle"))
        turned = f"translate(13 {(self.top + bottom) / 2:g}) rotate(-90)"
        axes.append(tag("text", self.y.title, transform=turned, text_anchor="middle"))
        box = f"0 0 {_WIDTH} {_HEIGHT}"
        return tag("svg", tag("title", title), joined(axes), *content, viewBox=box, role="img", class_="chart")


def figure(chart: Markup, *caption: str) -> Markup:
    """Returns a chart with its caption."""
    return tag("figure", chart, tag("figcaption", *caption), class_="drawn")


def key(kind: str, text: str) -> Markup:
    """Returns an entry of a legend, for a caption."""
    return tag("span", text, class_=f"key {kind}")


def within_fence(values: Array) -> Array:
    """Returns values, with those far above the others lowered to a limit, so that they do not flatten a chart.

    The limit is Tukey's fence ("Exploratory Data Analysis", 1977, section 2D): the third quartile plus one and a half
    times the interquartile range. Infinite values, those of diverged combinations, are lowered to it too.
    """
    finite = values[np.isfinite(values)]
    first, third = np.quantile(finite, (0.25, 0.75))
    lowered: Array = np.minimum(values, min(finite.max(), third + 1.5 * (third - first)))
    return lowered


def _stairs(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    corners = [places[0]]
    for x, y in places[1:]:
        height = corners[-1][1]
        if y != height:
            corners += [(x, height), (x, y)]
    return [*corners, (places[-1][0], corners[-1][1])]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
