"""Parallel coordinates: a line for each combination through its options to its errors, with selectable ranges."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cluster.figures.options import is_number, spans_decades
from cluster.reports.formats.html import Markup, json_block, tag
from cluster.reports.page.charts import Axis
from cluster.reports.page.data import MAX_DATA_GROUPS, PageData
from cluster.reports.tables.captions import SPLIT_NAMES
from cluster.results.names import NOT_APPLICABLE, option_texts, short_names
from cluster.results.rows import Row, SummaryColumns

_MAX_TICKS = 7


def parallel_coordinates(data: PageData) -> Iterator[Markup]:
    """Yields the picture, which scripts draw, and its data; nothing if no data set has enough options and results.

    Its lines are the rows of the table.
    """
    plots: list[dict[str, Any]] = []
    first = 0
    for of in data.by_data:
        table = of.table
        n_results = sum(row[SummaryColumns.of("val").mean] is not None for row in table.ranked)
        if len(table.distinguishing_paths) >= 2 and n_results >= 2 and len(plots) < MAX_DATA_GROUPS:
            name = None if of.group is None else of.group.name
            plots.append({"name": name, "first": first, "n": len(table.ranked), "axes": list(_axes(of))})
        first += len(table.ranked)
    if not plots:
        return
    yield tag(
        "figure",
        *(tag("div", class_="axes") for _ in plots),
        tag("div", class_="bar"),
        tag(
            "figcaption",
            "Each line is a combination, coloured by its rank in validation: ",
            tag("span", "best to worst", class_="key ramp"),
            ". Drag along an axis, tap a value, or move the ends of an axis with the arrow keys to select a range: the "
            "table shows the combinations within all ranges. Escape or a second tap removes a range. The address of "
            "the page keeps the view, so a link shows the same.",
        ),
        class_="parallel only-scripted",
    )
    yield json_block("axes-data", plots)


def _axes(data: PageData) -> Iterator[dict[str, Any]]:
    table = data.table
    planned = table.trials[: len(table.summary)]
    for path, name in short_names(table.distinguishing_paths).items():
        of = data.ranges.get(path)
        known = table.option_values(path)
        if of is None and any(row[path] == NOT_APPLICABLE for row in planned):  # lines bypass the axis of a range
            known.append(NOT_APPLICABLE)
        values = {repr(value): value for value in known}  # by their text, since 1 and True are equal
        numbers = [value for value in values.values() if is_number(value)]
        are_numbers = len(numbers) == len(values) > 1
        if are_numbers:
            values = dict(sorted(values.items(), key=lambda item: item[1]))
        place = {text: number for number, text in enumerate(values)}
        is_log = are_numbers and (
            spans_decades(np.array(numbers, dtype=np.float64)) if of is None else of.log and min(numbers) > 0
        )
        yield {
            "name": name,
            "texts": option_texts(list(values.values())),
            "values": list(values.values()) if are_numbers else None,
            "log": is_log,
            "ticks": _ticks(numbers, is_log=is_log) if are_numbers and of is not None else None,
            "places": [place.get(repr(row[path]), -1) for row in table.ranked],
        }
    for split in table.splits:
        results = _results(table.ranked, split)
        if any(mm is not None for mm in results):
            yield {"name": f"{SPLIT_NAMES[split]}, mm", "results": results}


def _ticks(numbers: Sequence[float], *, is_log: bool) -> list[tuple[float, str]]:
    """Returns the positions and texts of ticks on the axis of a range: round numbers, which its values are not."""
    axis = Axis("", min(numbers), max(numbers), is_log)
    ticks = axis.ticks(_MAX_TICKS)
    return [(round(share, 4), f"{tick:.12g}") for share, tick in zip(axis.shares(np.array(ticks)), ticks, strict=True)]


def _results(rows: Sequence[Row], split: str) -> list[float | None]:
    means = [row[SummaryColumns.of(split).mean] for row in rows]
    return [round(mean, 3) if is_number(mean) else None for mean in means]
