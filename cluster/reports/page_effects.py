"""The section on what each option does to the result."""

from collections.abc import Sequence

from cluster.option_effects import Cell, CellMeans, Importances, importances, interactions, marginal_means
from cluster.reports.markup import Markup, tag
from cluster.reports.page_data import PageData
from cluster.reports.page_sections import scrolling, section_of
from cluster.reports.page_words import count, listed, option_texts, short_names
from cluster.reports.text import SPLITS
from cluster.results import column

_MAX_VALUES = 40
_MAX_OPTIONS_OF_PAIRS = 8
_FEW_COMBINATIONS = 12
"""Of a grid with holes: so few tell nothing of how much an option matters."""
_WIDTH, _HEIGHT = 160, 16


def effects(data: PageData) -> list[Markup]:
    """Marginal means of each option's values, importances, and the strongest interaction; empty where there is none."""
    table = data.table
    metric = column(table.split, "distance")
    means = marginal_means(table.trials, table.telling_paths, metric)
    shown = {path: m for path, m in means.items() if len(_known(m.cells)) > 1 and len(m.cells) <= _MAX_VALUES}
    if not shown:
        return []
    words = [
        f"Mean distance on the {SPLITS[table.split]} for each value of an option, averaged over all values of the "
        "other options; the interval is that of the mean over repetitions (95 %, t)."
    ]
    if len(table.telling_paths) >= 2:
        words += _of_importance(importances(table.trials, table.telling_paths, metric))
    if 2 <= len(table.telling_paths) <= _MAX_OPTIONS_OF_PAIRS:
        words += _of_interaction(data, metric)
    if left_out := [name for path, name in _named(data, means) if path not in shown]:
        words.append(
            f"Without means, for too few trials in common or more than {_MAX_VALUES} values: {listed(left_out)}."
        )
    span = _span([cell for found in shown.values() for cell in found.cells])
    tables = [_table(path, name, shown[path], span) for path, name in _named(data, shown)]
    return [
        section_of(
            data,
            "options",
            "What each option does",
            *(tag("p", text) for text in words),
            tag("div", *tables, class_="effects"),
        )
    ]


def _named(data: PageData, shown: dict[str, CellMeans]) -> list[tuple[str, str]]:
    paths = data.table.telling_paths
    return [(path, name) for path, name in zip(paths, short_names(paths), strict=True) if path in shown]


def _of_importance(found: Importances) -> list[str]:
    if not found.shares or (not found.is_complete and found.n_combinations < _FEW_COMBINATIONS):
        return []
    ordered = sorted(found.shares.items(), key=lambda item: -item[1])
    names = dict(zip(found.shares, short_names(list(found.shares)), strict=True))
    shares = ", ".join(f"{names[path]} {100 * share:.0f} %" for path, share in ordered)
    of = "" if found.is_complete else f" of {found.n_planned:,}"
    return [
        f"Share of the variance between combinations that each option alone explains (functional ANOVA over "
        f"{found.n_combinations:,}{of} combinations, means of {count(found.n_repetitions, 'repetition')}): {shares}. "
        "The rest is interactions and chance."
    ]


def _of_interaction(data: PageData, metric: str) -> list[str]:
    found = interactions(data.table.trials, data.table.telling_paths, metric)[0]
    if found.share is None or found.size is None:
        return []
    names = dict(zip(data.table.telling_paths, short_names(data.table.telling_paths), strict=True))
    first, second = (names[path] for path in found.means.paths)
    which = "The strongest interaction is that of" if len(names) > 2 else "Interaction of"
    return [
        f"{which} {first} and {second}: {100 * found.share:.0f} % of the variance of their means is left over by the "
        f"sum of their effects, {found.size:.2f} mm (root mean square); chance is a part of it."
    ]


def _table(path: str, name: str, found: CellMeans, span: tuple[float, float]) -> Markup:
    texts = option_texts([cell.values[0] for cell in found.cells])
    lines = [
        tag(
            "tr",
            tag("th", text, scope="row"),
            tag("td", "–" if cell.estimate.mean is None else f"{cell.estimate.mean:.2f}", class_="number"),
            tag("td", _interval(cell), class_="number"),
            tag("td", _dot(cell, span)),
            tag("td", f"{cell.n_averaged:,} of {cell.n_planned:,}", class_="number"),
        )
        for text, cell in zip(texts, found.cells, strict=True)
    ]
    caption = tag("caption", tag("strong", name), f" ({path})" if name != path else "")
    if not found.is_complete:
        caption = tag(
            "caption",
            tag("strong", name),
            ": some trials are missing or went wrong, so the means are over those trials that each value has alike.",
        )
    heads = [
        tag("th", "value", scope="col"),
        tag("th", "mean, mm", scope="col", class_="number"),
        tag("th", "95 % interval", scope="col", class_="number"),
        tag("td", tag("span", *(tag("span", f"{end:.2f}") for end in span), class_="scale", aria_hidden="true")),
        tag("th", "trials averaged", scope="col", class_="number"),
    ]
    return scrolling(
        tag("table", caption, tag("thead", tag("tr", *heads)), tag("tbody", *lines)),
        f"Effect of {name}",
        n_rows=len(lines),
    )


def _interval(cell: Cell) -> str:
    interval = cell.estimate.interval
    return "–" if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"


def _dot(cell: Cell, span: tuple[float, float]) -> Markup:
    """Draws mean and interval on the scale that all options share, whose ends are in the head."""
    low, high = span

    def x(value: float) -> str:
        return f"{6 + (value - low) / ((high - low) or 1) * (_WIDTH - 12):.1f}"

    drawn = []
    if cell.estimate.interval is not None:
        ends = {"x1": x(cell.estimate.interval.low), "x2": x(cell.estimate.interval.high)}
        drawn.append(tag("line", **ends, y1=_HEIGHT // 2, y2=_HEIGHT // 2, class_="whisker"))
    if cell.estimate.mean is not None:
        drawn.append(tag("circle", cx=x(cell.estimate.mean), cy=_HEIGHT // 2, r=4, class_="after"))
    return tag(
        "svg", *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", width=_WIDTH, height=_HEIGHT, class_="dot", aria_hidden="true"
    )


def _span(cells: Sequence[Cell]) -> tuple[float, float]:
    known = _known(cells)
    values = [value for cell in known for value in _values(cell)]
    return min(values), max(values)


def _values(cell: Cell) -> list[float]:
    found = cell.estimate
    if found.mean is None:
        return []
    return [found.mean] if found.interval is None else [found.interval.low, found.interval.high]


def _known(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.estimate.mean is not None]
