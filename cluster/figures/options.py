"""Figures of options: one as an axis of numbers, two as a heat map, all of them as parallel coordinates."""

import math
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar

import numpy as np

from cluster.figures.style import (
    BLACK,
    COLOUR_MAP,
    COLOURS,
    COLUMN_IN,
    MARKERS,
    SMALL_PT,
    TEXT_PT,
    TINY_PT,
    FigureError,
    Numbers,
    add_legend,
    add_note,
    fitting,
    fitting_all,
    new_figure,
    paper_style,
    text_width,
)
from cluster.results.names import option_texts, short_names
from cluster.results.rows import DECIDING, Row, SummaryColumns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = TypeVar("Place", bound=Hashable)

Split = Literal["val", "test"]

_SPLITS = {"val": "Validation", "test": "Test"}
_COMPLETE_FIRST = "Combinations with fewer repetitions come after complete ones."
_LOG_DECADES = 1.5
_MAX_AXIS_TEXTS = 16
_MAX_EXACT_NUMBERS = 6
_SMALLEST_PT = 5.0
_UPRIGHT_PT = 70.0
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_SAME_MM = 0.01
"""Distances that differ by less are drawn as one line."""


def has_axis(rows: Sequence[Row], option: str) -> bool:
    """Returns whether an option has at least two different numbers."""
    return len({float(row[option]) for row in rows if is_number(row[option])}) > 1


@paper_style()
def error_by_option(
    summary: Sequence[Row],
    option: str,
    *,
    lines: str | None = None,
    split: Split,
    n_planned: int | None = None,
    width_in: float = COLUMN_IN,
) -> "Figure":
    """Draws the mean distance over the numbers of an option, such as the size of the training set.

    A bar shows the sample standard deviation over repetitions, and a dashed line the uncorrected distance.
    The axis is logarithmic if the numbers span more than 1.5 decades. If other options vary too, a point shows the
    combination that comes first in the summary: the best in validation, so the test set does not influence the choice.
    Values that are not numbers are left out, and the figure names them.

    Args:
        summary: The rows of `ResultTable.summary`.
        option: The option of the horizontal axis, with its name in the summary.
        lines: The option that has a line for each value; None for one line.
        split: The split whose distance is shown.
        n_planned: The planned number of repetitions of each; None for the number that most have.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If the option has fewer than two numbers with a result, or if there are too many lines.
    """
    columns = SummaryColumns.of(split)
    numeric = [row for row in summary if is_number(row[option])]
    values = _different([row[lines] for row in numeric]) if lines is not None else {"": None}
    colours = [look for look in zip(COLOURS, MARKERS, strict=True) if look[0] != BLACK]
    if len(values) > len(colours):
        raise FigureError(
            f"{len(values)} lines, one for each {lines}, cannot be distinguished; at most {len(colours)} can"
        )
    places = [(repr(row[lines]) if lines is not None else "", float(row[option])) for row in numeric]
    chosen = _first_with_result(zip(places, numeric, strict=True), columns.mean)
    drawn = {place: row for place, row in sorted(chosen.items()) if row[columns.mean] is not None}
    x = np.array(sorted({number for _, number in drawn}))  # (X,)
    if len(x) < 2:
        raise FigureError(f"there is no axis of {option}: fewer than two of its numbers have a result in {split}")

    n_full = n_planned or max(row["n"] for row in summary)
    is_passed_over = any(
        _is_passed_over(row, chosen[place], n_full) for place, row in zip(places, numeric, strict=True)
    )

    figure = new_figure(width_in, 2.2)
    axes = figure.add_subplot()
    names = short_names(list(summary[0]))
    before = np.array([row[columns.before] for row in drawn.values()], dtype=float)  # (points,)
    is_one = np.isnan(before).all() or np.nanmax(before) - np.nanmin(before) < _SAME_MM
    entries: list[tuple[str, Any]] = []
    for value, text, (colour, marker) in zip(values, option_texts(list(values.values())), colours, strict=False):
        points = {number: row for (of_line, number), row in drawn.items() if of_line == value}
        if not points:
            continue
        numbers = list(points)
        means, deviations, uncorrected = (
            np.array([row[name] for row in points.values()], dtype=float)  # None becomes NaN
            for name in (columns.mean, columns.std, columns.before)
        )
        line = axes.errorbar(numbers, means, deviations, color=colour, marker=marker, capsize=2, elinewidth=0.8)
        entries.append(("corrected" if lines is None else f"{names[lines]} {text}", line))
        if not is_one:
            axes.plot(numbers, uncorrected, color=colour, linestyle="--", linewidth=0.9)
    if is_one and not np.isnan(before).all():
        entries.append(("uncorrected", axes.axhline(np.nanmean(before), color=BLACK, linestyle="--", linewidth=0.9)))
    scale = _scale_axis(axes, x, width_in * 72 - 45)
    axes.set_xlabel(fitting(f"{names[option]}{scale}", width_in * 72 - 45, TEXT_PT))
    axes.set_ylabel(f"{_SPLITS[split]} distance (mm)")
    add_legend(figure, entries)
    add_note(
        figure,
        [
            _repeated(list(drawn.values()), columns),
            *([] if is_one else ["Dashed: uncorrected."]),
            *(["Each point shows the best of the other options in validation."] if len(chosen) < len(numeric) else []),
            *_left_out(summary, option, names[option], len(chosen) - len(drawn)),
            *([_COMPLETE_FIRST] if is_passed_over else []),
            *_raced(summary),
        ],
    )
    return figure


@paper_style()
def heat_map(
    summary: Sequence[Row],
    down: str,
    across: str,
    *,
    split: Split,
    n_planned: int | None = None,
    width_in: float = COLUMN_IN,
) -> "Figure":
    """Draws the mean distance for each pair of values of two options.

    If other options vary too, a cell shows the combination that comes first in the summary: the best in validation, so
    the test set does not influence the choice. The best in validation of all cells has a frame. A combination with
    fewer repetitions than planned has a star and comes after those with all repetitions; if it is better than the
    chosen one, the figure says so. A pair that was not run is hatched; a pair that was run but has no result is hatched
    and has a dash.

    Args:
        summary: The rows of `ResultTable.summary`.
        down: The option of the rows, with its name in the summary.
        across: The option of the columns.
        split: The split whose distance is shown.
        n_planned: The planned number of repetitions of each; None for the number that most have.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If no combination has a result, or if there are more values than fit.
    """
    from matplotlib.patches import Rectangle

    result = SummaryColumns.of(split).mean
    if all(row[result] is None for row in summary):
        raise FigureError(f"there is no heat map of {down} and {across}: no combination has a result in {split}")
    lines, columns = (_different([row[path] for row in summary]) for path in (down, across))
    cells = [(list(lines).index(repr(row[down])), list(columns).index(repr(row[across]))) for row in summary]
    chosen = _first_with_result(zip(cells, summary, strict=True), result)
    values = np.full((len(lines), len(columns)), np.nan)  # (D, A)
    for cell, row in chosen.items():
        values[cell] = np.nan if row[result] is None else row[result]

    figure = new_figure(width_in, 0.5 + max(0.24 * len(lines), 0.9))
    axes = figure.add_subplot()
    axes.grid(visible=False)
    axes.imshow(values, cmap=COLOUR_MAP, aspect="auto")
    space = width_in * 72
    axes.set_yticks(range(len(lines)), fitting_all(option_texts(list(lines.values())), 0.3 * space, SMALL_PT))
    axes.tick_params(length=0)
    side = max(text_width(text.get_text(), SMALL_PT) for text in axes.get_yticklabels())
    cell_width = (space - side - 36) / len(columns)
    size = _size_that_fits(f"{np.nanmax(values):.2f}", cell_width - 3)
    if size < _SMALLEST_PT:
        raise FigureError(
            f"{len(columns)} values of {across} do not fit into {width_in:g} inches; swap the options or make the "
            "figure wider"
        )
    _name_columns(figure, axes, option_texts(list(columns.values())), cell_width)
    n_full = n_planned or max(row["n"] for row in summary)
    # If finalists are confirmed, the best one may have no finished fresh repetition, and no other one is the best.
    first = next(iter(chosen)) if summary[0][result] is not None else None
    for y, x in np.ndindex(values.shape):
        if np.isnan(values[y, x]):
            corner = (x - 0.5, y - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#999999", linewidth=0))
        if (y, x) in chosen:
            row = chosen[y, x]
            text = "–" if row[result] is None else f"{row[result]:.2f}" + ("*" if row["n"] < n_full else "")
            is_dark = values[y, x] <= (np.nanmin(values) + np.nanmax(values)) / 2
            axes.text(x, y, text, size=size, ha="center", va="center", color="white" if is_dark else BLACK)
    if first is not None:
        corner = (first[1] - 0.5, first[0] - 0.5)
        frame = Rectangle(corner, 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.8, zorder=3)
        frame.set_clip_on(False)
        axes.add_patch(frame)
    names = short_names(list(summary[0]))
    axes.set_xlabel(fitting(names[across], space - side - 36, SMALL_PT), size=SMALL_PT)
    axes.set_ylabel(fitting(names[down], max(60.0, 16.0 * len(lines)), SMALL_PT), size=SMALL_PT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    sentences = [f"{_SPLITS[split]} distance (mm), mean over n = {n_full} repetitions."]
    if len(chosen) < len(summary):
        sentences.append("Each cell shows the best of the other options in validation.")
    if first is not None:
        sentences.append("Framed: best in validation.")
    in_contest = (
        (row, chosen[place])
        for cell, row in zip(cells, summary, strict=True)
        for place in (cell, first)
        if place is not None
    )
    if any(_is_passed_over(row, best, n_full) for row, best in in_contest):
        sentences.append(_COMPLETE_FIRST)
    if any(row["n"] < n_full and row[result] is not None for row in chosen.values()):
        sentences.append("*: fewer repetitions finished.")
    if np.isnan(values).any():
        sentences.append("Hatched: not run; –: no result.")
    sentences += _raced(summary)
    add_note(figure, sentences)
    return figure


@paper_style()
def parallel_coordinates(
    rows: Sequence[Row],
    options: Sequence[str],
    *,
    split: Split,
    n_planned: int | None = None,
    width_in: float = COLUMN_IN,
) -> "Figure":
    """Draws a line for each combination through its values of all options to its mean distance, which sets the colour.

    An axis of numbers is logarithmic if they span more than 1.5 decades; other values are one above the other. Better
    lines are darker and further in front; the best in validation is thick. The line of a combination with fewer
    repetitions than planned is dashed.

    Args:
        rows: The rows of `ResultTable.summary`, the best in validation first.
        options: The options with an axis, with their names in the rows.
        split: The split whose distance is shown.
        n_planned: The planned number of repetitions of each; None for the number that most have.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If there is no option, or if no combination has a result.
    """
    import matplotlib
    from matplotlib.collections import LineCollection

    result = SummaryColumns.of(split).mean
    drawn = [row for row in rows if row[result] is not None]
    if not drawn or not options:
        raise FigureError("there are no parallel coordinates: no option varies, or no combination has a result")
    results = np.array([row[result] for row in drawn])  # (N,)
    scales = [
        *(_Scale.of([row[path] for row in drawn]) for path in options),
        _Scale.of_numbers(results, _round_numbers(results, is_logarithmic=False)),
    ]
    places = np.stack([scale.places for scale in scales], axis=1)  # (N, K)
    x = np.arange(len(scales))
    lines = np.stack([np.broadcast_to(x, places.shape), places], axis=2)  # (N, K, 2)

    figure = new_figure(width_in, 2.6)
    axes = figure.add_subplot()
    axes.set_axis_off()
    # The end of the colour map is too light for a line.
    colours = matplotlib.colormaps[COLOUR_MAP](0.92 * places[:, -1])
    back_to_front = np.argsort(-places[:, -1], kind="stable")
    # Thousands of vector lines would make the file megabytes large.
    look = {"linewidths": float(np.clip(60 / len(drawn), 0.4, 1.2)), "rasterized": len(drawn) > 200}
    n_full = n_planned or max(row["n"] for row in rows)
    is_incomplete = np.array([row["n"] < n_full for row in drawn])  # (N,)
    styles = np.where(is_incomplete, "--", "-")
    axes.add_collection(
        LineCollection(
            list(lines[back_to_front]), colors=colours[back_to_front], linestyles=list(styles[back_to_front]), **look
        )
    )
    is_best_drawn = drawn[0] is rows[0]  # if finalists are confirmed, it may have no result yet
    if is_best_drawn:
        axes.plot(x, places[0], color=colours[0], linewidth=2.2, linestyle=styles[0], solid_capstyle="butt")
    spacing = (width_in * 72 - 30) / (len(scales) - 0.5)
    left_out = len(rows) - len(drawn)
    sentences = [f"Each line is a combination{'; thick: best in validation' * is_best_drawn}."]
    if is_incomplete.any():
        sentences.append(f"Dashed: fewer than n = {n_full} repetitions finished.")
    if any(_is_passed_over(row, drawn[0], n_full) for row in drawn):
        sentences.append(_COMPLETE_FIRST)
    short = short_names(list(rows[0]))
    names = [*(_name_rows(short[option]) for option in options), [_SPLITS[split], "(mm)"]]
    for at, (name, scale) in enumerate(zip(names, scales, strict=True)):
        _draw_axis(axes, at, name, scale, spacing)
    if any(len(scale.texts) > _MAX_AXIS_TEXTS for scale in scales):
        sentences.append("Not every value is labelled, for lack of space.")
    if left_out:
        sentences.append(f"{left_out} of {len(rows)} combinations without a result are left out.")
    sentences += _raced(rows)
    axes.set_xlim(-0.1, len(scales) - 1 + 0.4)
    axes.set_ylim(-0.04, 1.2)
    add_note(figure, sentences)
    return figure


def _first_with_result(placed: Iterable[tuple[Place, Row]], result: str) -> dict[Place, Row]:
    """Returns for each place its first row with a result, or its first row if none has one."""
    chosen: dict[Place, Row] = {}
    for place, row in placed:
        if place not in chosen or chosen[place][result] is None:
            chosen[place] = row
    return chosen


def _repeated(rows: Sequence[Row], columns: SummaryColumns) -> str:
    """Returns what points and bars show: 'Mean ± sample standard deviation over n = 3 repetitions' as a sentence."""
    fewest, most = (extreme(row["n"] for row in rows) for extreme in (min, max))
    n = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    spread = " ± sample standard deviation" if any(row[columns.std] is not None for row in rows) else ""
    return "One repetition." if most == 1 else f"Mean{spread} over n = {n} repetitions."


def _left_out(summary: Sequence[Row], option: str, name: str, n_without: int) -> list[str]:
    """Returns sentences on what an axis of numbers does not show."""
    others = _different([row[option] for row in summary if not is_number(row[option])])
    sentences = (
        [f"Not a number and left out: {name} {', '.join(option_texts(list(others.values())))}."] if others else []
    )
    if n_without:
        sentences.append(f"{n_without} without a result {'is' if n_without == 1 else 'are'} left out.")
    return sentences


def _raced(rows: Sequence[Row]) -> list[str]:
    """Returns sentences on the combinations that a race dropped, and on means that confirm the others."""
    n = sum(row.get("dropped_epoch") is not None for row in rows)
    sentences = [f"The race dropped {n:,} of {len(rows):,} combinations."] * bool(n)
    if DECIDING.n in rows[0]:
        sentences.append("Means come from fresh repetitions, which took no part in the race.")
    return sentences


def _scale_axis(axes: "Axes", numbers: Numbers, width_pt: float) -> str:
    """Labels the horizontal axis at numbers, (X,), in ascending order; returns ' (log)' if it is logarithmic."""
    positive = numbers[numbers > 0]
    is_logarithmic = bool(numbers[0] >= 0) and len(positive) > 1 and spans_decades(positive)
    if is_logarithmic and numbers[0] > 0:
        axes.set_xscale("log")
    elif is_logarithmic:  # zero has no logarithm: the axis is linear up to the first number
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    named = numbers
    if len(numbers) > _MAX_EXACT_NUMBERS:
        named = _round_numbers(positive if is_logarithmic else numbers, is_logarithmic=is_logarithmic)
        if is_logarithmic and numbers[0] == 0:
            named = np.append(0.0, named)
    texts = option_texts([int(number) if number.is_integer() else number for number in named.tolist()])
    low, high = axes.get_xlim()
    to_axes = axes.transData + axes.transAxes.inverted()
    shown: list[int] = []
    places = [width_pt * to_axes.transform((number, 0))[0] for number in named]
    widths = [text_width(text, SMALL_PT) for text in texts]
    for i, (place, width) in enumerate(zip(places, widths, strict=True)):
        if not shown or place - places[shown[-1]] > (width + widths[shown[-1]]) / 2 + 4:
            shown.append(i)
    axes.set_xticks([named[i] for i in shown], [texts[i] for i in shown])
    axes.minorticks_off()
    axes.set_xlim(low, high)
    return " (log)" if is_logarithmic else ""


def _is_passed_over(row: Row, best: Row, n_planned: int) -> bool:
    """Returns whether a combination with fewer repetitions is better in validation than the chosen one."""
    if DECIDING.n in row:
        return False  # other repetitions than the shown ones chose the best
    mean, of_best = (combination[SummaryColumns.of("val").mean] for combination in (row, best))
    return row["n"] < n_planned and mean is not None and of_best is not None and bool(mean < of_best)


class _Scale:
    """The positions of an option's values on its axis, from 0 to 1.

    Attributes:
        places: The position of each value, (N,).
        ticks: The labelled positions.
        texts: Their labels.
        is_logarithmic: Whether the axis is logarithmic.
    """

    def __init__(self, places: Numbers, ticks: Sequence[float], texts: Sequence[str], is_logarithmic: bool) -> None:
        self.places = places
        self.ticks = ticks
        self.texts = texts
        self.is_logarithmic = is_logarithmic

    @classmethod
    def of(cls, values: Sequence[object]) -> "_Scale":
        """Places numbers by size, and other values one above the other."""
        numbers = [float(value) for value in values if is_number(value)]
        if len(numbers) < len(values):
            different = _different(values)
            ticks = np.linspace(0, 1, len(different)) if len(different) > 1 else np.array([0.5])
            place = dict(zip(different, ticks.tolist(), strict=True))
            places = np.array([place[repr(value)] for value in values])  # (N,)
            return cls(places, ticks.tolist(), option_texts(list(different.values())), False)
        array = np.array(numbers)
        named: Numbers = np.unique(array)
        if len(named) > _MAX_EXACT_NUMBERS:
            named = _round_numbers(array, is_logarithmic=spans_decades(array))
        return cls.of_numbers(array, named, is_logarithmic=spans_decades(array))

    @classmethod
    def of_numbers(cls, numbers: Numbers, named: Numbers, *, is_logarithmic: bool = False) -> "_Scale":
        """Places numbers, (N,), on the axis, with labels at some of them."""
        heights, ticks = (np.log10(values) if is_logarithmic else values for values in (numbers, named))
        low, span = heights.min(), np.ptp(heights)
        if not span:
            return cls(np.full(len(numbers), 0.5), [0.5], option_texts(numbers[:1].tolist()), is_logarithmic)
        return cls(
            (heights - low) / span, ((ticks - low) / span).tolist(), option_texts(named.tolist()), is_logarithmic
        )


def _draw_axis(axes: "Axes", x: int, name: Sequence[str], scale: _Scale, spacing: float) -> None:
    """Draws the axis at x, `spacing` points wide, with its name above it and the labels of its values on the right."""
    axes.plot([x, x], [0, 1], color=BLACK, linewidth=0.7)
    every = -(-len(scale.texts) // _MAX_AXIS_TEXTS)
    texts = fitting_all(scale.texts, spacing - 8, TINY_PT)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
    for tick, text in list(zip(scale.ticks, texts, strict=True))[::every]:
        axes.plot([x], [tick], color=BLACK, marker="_", markersize=4, markeredgewidth=0.7)
        axes.annotate(
            *(text, (x, tick), (4, 0)), textcoords="offset points", size=TINY_PT, va="center", bbox=box, zorder=4
        )
    rows = [*name, *(["(log)"] if scale.is_logarithmic else [])]
    title = "\n".join(fitting(row, spacing - 6, TINY_PT) for row in rows)
    axes.text(x - 0.02, 1.06, title, size=TINY_PT, va="bottom", linespacing=1.1)


def _name_rows(option: str) -> list[str]:
    """Returns the name of an option with a line break before its last part."""
    within, dot, last = option.rpartition(".")
    return [within + dot, last] if within else [last]


def spans_decades(numbers: Numbers) -> bool:
    """Returns whether an axis of these numbers, (N,), is logarithmic."""
    return bool(numbers.min() > 0 and np.log10(numbers.max() / numbers.min()) > _LOG_DECADES)


def _round_numbers(numbers: Numbers, *, is_logarithmic: bool) -> Numbers:
    """Returns round numbers between the smallest and the largest."""
    from matplotlib.ticker import MaxNLocator

    low, high = numbers.min(), numbers.max()
    if is_logarithmic:
        decades = [
            f"{lead}e{power}"
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for lead in (1, 3)
        ]
        ticks = np.array([float(text) for text in decades])
    else:
        ticks = np.asarray(MaxNLocator(_MAX_EXACT_NUMBERS).tick_values(low, high))
    within: Numbers = ticks[(ticks >= low) & (ticks <= high)]
    return within


def _different(values: Sequence[object]) -> dict[str, object]:
    """Returns the values that differ in their `repr`, since 1, 1.0 and True are equal: numbers first, by size.

    Other values are in alphabetical order, with the numbers in them by size: [64, 64] before [128, 128].
    """
    found = {repr(value): value for value in values}
    return dict(sorted(found.items(), key=_place_in_order))


def _place_in_order(item: tuple[str, object]) -> tuple[bool, float, list[str | float], str]:
    text, value = item
    parts: list[str | float] = list(_NUMBER.split(text))
    parts[1::2] = map(float, parts[1::2])
    return (not is_number(value), float(value) if is_number(value) else 0.0, parts, text)


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether a value has a place on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _size_that_fits(text: str, width_pt: float) -> float:
    return min(SMALL_PT, SMALL_PT * width_pt / text_width(text, SMALL_PT))


def _name_columns(figure: "Figure", axes: "Axes", texts: Sequence[str], cell_width: float) -> None:
    """Labels the columns; the labels of narrow columns are vertical, which makes the figure higher."""
    texts = fitting_all(texts, _UPRIGHT_PT, SMALL_PT)
    axes.set_xticks(range(len(texts)), texts)
    widest = max(text_width(text, SMALL_PT) for text in texts)
    if widest > cell_width - 4:
        figure.set_figheight(figure.get_figheight() + widest / 72)
        axes.tick_params(axis="x", rotation=90)
