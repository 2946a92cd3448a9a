"""Figures of curves: learning curves, and success rates over thresholds."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cluster.figures.style import (
    BLACK,
    COLOURS,
    COLUMN_IN,
    MARKERS,
    TINY_PT,
    FigureError,
    Numbers,
    add_legend,
    add_note,
    fitting_all,
    n_text,
    new_figure,
    paper_style,
)
from cluster.results.learning_curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Measure = Literal["worst", "mean", "joint"]
"""The errors that a success rate counts: frames by worst joint, frames by mean over joints, or all joints."""

THRESHOLDS_MM = np.arange(81.0)
"""The thresholds of a success curve, (81,): those of the metrics `success_worst@0` to `success_worst@80`."""

_MAX_OTHERS = 10
_NAME_PT = 120.0  # the width of a line's name in the remarks
_SUCCESS = {
    "worst": "Frames, worst joint ≤ t (%)",
    "mean": "Frames, mean distance ≤ t (%)",
    "joint": "Joints, distance ≤ t (%)",
}


@paper_style()
def learning_curves(
    groups: Mapping[str, Sequence[Curve]], *, n_planned: int | None = None, width_in: float = COLUMN_IN
) -> "Figure":
    """Draws the mean distance over epochs: validation solid with a min–max band, training dashed.

    A mean includes the same repetitions everywhere, so it has only the log points that all of them have and ends with
    the shortest. If one of them has no number at a point, line and band have a gap. The figure names curves that end
    early or have gaps, missing repetitions, and combinations without a curve.

    Args:
        groups: The curves of the repetitions of up to eight combinations, by the combination's label.
        n_planned: The planned number of repetitions of each; None if all are given.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If no curve has a point, or if there are too many groups.
    """
    from matplotlib.ticker import MaxNLocator

    if len(groups) > len(COLOURS):
        raise FigureError(f"{len(groups)} learning curves cannot be distinguished; choose at most {len(COLOURS)}")
    figure = new_figure(width_in, 2.2)
    axes = figure.add_subplot()
    entries: list[tuple[str, Any]] = []
    remarks: list[str] = []
    training_is_drawn = is_incomplete = False
    short = fitting_all(list(groups), _NAME_PT, TINY_PT)
    for (label, curves), name, colour, marker in zip(groups.items(), short, COLOURS, MARKERS, strict=False):
        logged = [curve for curve in curves if len(curve.epochs)]
        n = n_text(len(logged), n_planned or len(curves))
        is_incomplete |= len(logged) < (n_planned or len(curves))
        epochs = reduce(np.intersect1d, [curve.epochs for curve in logged]) if logged else np.empty(0)
        if not len(epochs):
            remarks.append(f"{name} ({n}): no curve.")
            continue
        if epochs[-1] < max(curve.epochs[-1] for curve in logged):
            remarks.append(f"{name}: up to epoch {epochs[-1]:g}, where its shortest repetition ends.")
        val_mm = np.stack([curve.val_mm[np.isin(curve.epochs, epochs)] for curve in logged])  # (R, L)
        train_mm = np.stack([curve.train_mm[np.isin(curve.epochs, epochs)] for curve in logged])  # (R, L)
        if np.isnan(val_mm).any():
            remarks.append(f"{name}: gaps where a repetition has no value.")
        line = _mean_and_band(axes, epochs, val_mm, colour, marker)
        axes.plot(epochs, train_mm.mean(axis=0), color=colour, linestyle="--", linewidth=0.9)
        training_is_drawn |= bool(np.isfinite(train_mm.mean(axis=0)).any())
        entries.append((f"{label} ({n})", line))
    if not entries:
        raise FigureError("there are no learning curves: nothing was logged at the same epochs by all repetitions")
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Mean distance (mm)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    add_legend(figure, entries)
    lines = "Validation solid, training dashed." if training_is_drawn else "Validation."
    add_note(figure, [lines, _BAND, *([_INCOMPLETE] if is_incomplete else []), *remarks])
    return figure


@paper_style()
def success_curves(
    uncorrected: Mapping[str, Numbers],
    results: Mapping[str, Sequence[Numbers]],
    *,
    others: Sequence[tuple[str, Numbers]] = (),
    of: Measure,
    n_planned: int | None = None,
    remarks: Sequence[str] = (),
    width_in: float = COLUMN_IN,
) -> "Figure":
    """Draws the share of errors that are at most t, for t from 0 to 80 mm, with the area under each curve.

    Args:
        uncorrected: The rates of the uncorrected poses at `THRESHOLDS_MM`, (81,), by the label of the result that
            corrects them. They are drawn dashed: in black if all results correct the same poses, otherwise in the
            colour of the result.
        results: The rates of the repetitions, (81,) each, of up to seven results by label. Their mean is drawn solid
            with a min–max band.
        others: Labels and rates, (81,), of up to ten other methods, see `success_rates`. They are drawn dotted, and
            after the seventh dash-dotted.
        of: The errors that the rates count.
        n_planned: The planned number of repetitions of each result; None if all are given.
        remarks: Additional sentences for the figure.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If there are too many curves, if two curves have the same label, or if rates are not shares at the
            81 thresholds.
    """
    colours = [(colour, marker) for colour, marker in zip(COLOURS, MARKERS, strict=True) if colour != BLACK]
    for curves, most, what in ((results, len(colours), "results"), (others, _MAX_OTHERS, "other methods")):
        if len(curves) > most:
            raise FigureError(
                f"the success curves of {len(curves)} {what} cannot be distinguished; choose at most {most} of them"
            )
    figure = new_figure(width_in, 2.4)
    axes = figure.add_subplot()
    entries: dict[str, tuple[str, Any]] = {}

    def add_entry(label: str, rates: Sequence[Numbers], line: "Line2D", n: str = "") -> None:
        if label in entries:
            raise FigureError(
                f"two success curves have the label {label!r}; each needs its own, so give the other method "
                "another one (--other LABEL=FILE)"
            )
        entries[label] = f"{label}{n}, AUC {np.mean([area_under_rates(one) for one in rates]):.3f}", line

    def draw_uncorrected(label: str, rates: Numbers, colour: str) -> None:
        percent = 100 * _checked_rates(label, rates)
        (line,) = axes.plot(THRESHOLDS_MM, percent, color=colour, linestyle="--", label=label)
        add_entry(label, [rates], line)

    differ = len({rates.tobytes() for rates in uncorrected.values()}) > 1
    if uncorrected and not differ:
        draw_uncorrected("uncorrected", next(iter(uncorrected.values())), BLACK)
    for (label, repetitions), (colour, marker) in zip(results.items(), colours, strict=False):
        if not repetitions:
            raise FigureError(f"the success curve {label!r} has no repetition to draw")
        rates = np.stack([_checked_rates(label, repetition) for repetition in repetitions])  # (R, 81)
        if differ and label in uncorrected:
            draw_uncorrected(f"{label}, uncorrected", uncorrected[label], colour)
        line = _mean_and_band(axes, THRESHOLDS_MM, 100 * rates, colour, marker)
        n = f" ({n_text(len(rates), n_planned)})" if max(len(rates), n_planned or 1) > 1 else ""
        add_entry(label, list(rates), line, n)
    for i, (label, rates) in enumerate(others, len(results)):
        colour, marker = colours[i % len(colours)]
        line = _mean_and_band(axes, THRESHOLDS_MM, 100 * _checked_rates(label, rates)[None], colour, marker)
        line.set_linestyle(":" if i - len(results) < len(colours) else "-.")
        add_entry(label, [rates], line)
    axes.set_xlabel("Threshold t (mm)")
    axes.set_ylabel(_SUCCESS[of])
    axes.set_xlim(0, 80)
    axes.set_ylim(0, 102)  # so that a line at 100 % is not cut
    add_legend(figure, list(entries.values()))
    sentences = ["AUC: mean rate over 0–80 mm."]
    if any(len(repetitions) > 1 for repetitions in results.values()):
        sentences.append(_BAND)
    if any(len(repetitions) < (n_planned or 0) for repetitions in results.values()):
        sentences.append(_INCOMPLETE)
    add_note(figure, [*sentences, *remarks])
    return figure


def success_rates(errors_mm: Numbers) -> Numbers:
    """Returns the share of errors, (N,), that are at most each of `THRESHOLDS_MM`, (81,).

    Raises:
        FigureError: If there are no errors, or if some of them are not numbers.
    """
    if not np.size(errors_mm) or np.isnan(errors_mm).any():
        raise FigureError(
            f"{np.isnan(errors_mm).sum()} of {np.size(errors_mm)} errors are not numbers, so there is no success rate"
        )
    counts = np.searchsorted(np.sort(errors_mm), THRESHOLDS_MM, side="right")  # (81,)
    rates: Numbers = counts / len(errors_mm)
    return rates


def area_under_rates(rates: Numbers) -> float:
    """Returns the area under a success curve, (81,), from 0 to 80 mm, divided by 80 mm.

    This is the trapezoidal rule on whole millimetres. It is exact if errors are evenly distributed within each
    millimetre, and off by at most 1/160; `posenet.metrics.area_under_curve` computes the area from the errors.
    """
    return float(np.trapezoid(rates, THRESHOLDS_MM) / (THRESHOLDS_MM[-1] - THRESHOLDS_MM[0]))


_BAND = "Mean and min–max band over n repetitions."
_INCOMPLETE = "The other repetitions did not finish or logged nothing."


def _mean_and_band(axes: "Axes", x: Numbers, values: Numbers, colour: str, marker: str) -> "Line2D":
    """Draws the mean of repetitions, (R, L), at x, (L,), and the min–max band."""
    # Markers of different lines are at different places, since most curves are close together.
    every = max(1, len(x) // 8)
    markers = (MARKERS.index(marker) * every // len(MARKERS), every)
    (line,) = axes.plot(x, values.mean(axis=0), color=colour, marker=marker, markevery=markers, markersize=3)
    if len(values) > 1:
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    return line


def _checked_rates(label: str, rates: Numbers) -> Numbers:
    if np.shape(rates) != THRESHOLDS_MM.shape or not np.all((rates >= 0) & (rates <= 1)):
        raise FigureError(
            f"the success curve {label!r} is not {len(THRESHOLDS_MM)} shares from 0 to 1, one for each mm"
        )
    return rates
