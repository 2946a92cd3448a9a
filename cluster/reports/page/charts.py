"""Charts as inline SVG, which has the colours of the page and needs no scripts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cluster.reports.formats.html import Markup, joined, tag
from cluster.results.statistics import Array

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 28, 12, 44
_MARGIN = 0.04  # of an axis, beyond its outermost values


class Axis(NamedTuple):
    """A linear axis: its title and its range."""

    title: str
    low: float
    high: float

    @classmethod
    def around(cls, title: str, values: Array) -> "Axis":
        """Returns an axis with a margin around all values."""
        low, high = float(values.min()), float(values.max())
        margin = _MARGIN * ((high - low) or 1)
        return cls(title, low - margin, high + margin)

    def ticks(self, at_most: int) -> list[float]:
        """Returns round numbers on the axis: multiples of 1, 2 or 5 times a power of ten."""
        least = (self.high - self.low) / at_most
        power = 10 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [float(f"{number * step:.6g}") for number in range(first, last + 1)]


class Chart(NamedTuple):
    """An area with two axes; what is beyond them is cut off."""

    x: Axis
    y: Axis

    def places(self, xs: Array, ys: Array) -> list[tuple[float, float]]:
        """Returns the positions of points, in the units of the drawing."""
        right = _LEFT + (xs - self.x.low) / (self.x.high - self.x.low) * (_WIDTH - _LEFT - _RIGHT)
        down = _TOP + (self.y.high - ys) / (self.y.high - self.y.low) * (_HEIGHT - _TOP - _BOTTOM)
        return list(zip(right.tolist(), np.clip(down, _TOP, _HEIGHT - _BOTTOM).tolist(), strict=True))

    def line(self, xs: Array, ys: Array, kind: str) -> Markup:
        """Returns a line that keeps its height up to the next point, as the best error so far does."""
        return tag("path", class_=kind, d=_path(_stairs(self.places(xs, ys))))

    def band(self, xs: Array, lows: Array, highs: Array, kind: str) -> Markup:
        """Returns the area between two such lines."""
        forth, back = _stairs(self.places(xs, highs)), _stairs(self.places(xs, lows))[::-1]
        return tag("path", class_=kind, d=f"{_path([*forth, *back])}Z")

    def dots(self, xs: Array, ys: Array, kind: str) -> Markup:
        """Returns a dot for each point. They are one element, which keeps thousands of them small."""
        return tag("path", class_=kind, d="".join(f"M{x:.0f} {y:.0f}h0" for x, y in self.places(xs, ys)))

    def mark(self, x: float, y: float, kind: str) -> Markup:
        """Returns a large dot."""
        ((right, down),) = self.places(np.array([x]), np.array([y]))
        return tag("circle", class_=kind, cx=f"{right:.1f}", cy=f"{down:.1f}", r=5)

    def drawn(self, title: str, *content: Markup) -> Markup:
        """Returns the chart with its axes.

        Args:
            title: What it shows, for those who do not see it.
            content: What is drawn in it, from back to front.
        """
        bottom, middle = _HEIGHT - _BOTTOM, (_LEFT + _WIDTH - _RIGHT) / 2
        axes = []
        for number in self.y.ticks(6):
            ((_, y),) = self.places(np.array([self.x.low]), np.array([number]))
            axes.append(tag("path", class_="grid", d=f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"))
            axes.append(tag("text", f"{number:g}", x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
        for number in self.x.ticks(7):
            ((x, _),) = self.places(np.array([number]), np.array([self.y.low]))
            axes.append(tag("path", class_="grid", d=f"M{x:.1f} {bottom}v4"))
            axes.append(tag("text", f"{number:,g}", x=f"{x:.1f}", y=bottom + 18, text_anchor="middle"))
        axes.append(tag("text", self.x.title, x=f"{middle:g}", y=_HEIGHT - 6, text_anchor="middle"))
        turned = f"translate(13 {(_TOP + bottom) / 2}) rotate(-90)"
        axes.append(tag("text", self.y.title, transform=turned, text_anchor="middle"))
        box = f"0 0 {_WIDTH} {_HEIGHT}"
        return tag("svg", tag("title", title), joined(axes), *content, viewBox=box, role="img", class_="chart")


def figure(chart: Markup, *caption: str) -> Markup:
    """Returns a chart with its caption."""
    return tag("figure", chart, tag("figcaption", *caption), class_="drawn")


def key(kind: str, text: str) -> Markup:
    """Returns an entry of a legend, for a caption."""
    return tag("span", text, class_=f"key {kind}")


def _stairs(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    corners = [places[0]]
    for x, y in places[1:]:
        height = corners[-1][1]
        if y != height:
            corners += [(x, height), (x, y)]
    return [*corners, (places[-1][0], corners[-1][1])]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
