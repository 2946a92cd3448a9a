"""The section on the effect of each option."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cluster.reports.formats.grid import Cell, Grid, number_cell
from cluster.reports.formats.html import Markup, joined, tag
from cluster.reports.formats.html_table import html_table
from cluster.reports.page.data import PageData
from cluster.reports.page.ranges import ranges
from cluster.reports.page.sections import scrolling, section_of
from cluster.reports.page.sentences import short_names
from cluster.reports.tables.captions import SPLITS
from cluster.reports.tables.effect_phrases import (
    against_chance,
    averaged_over,
    importance_rests_on,
    no_importance,
)
from cluster.reports.tables.effects import (
    CHANCE,
    CONDITIONAL,
    IMPORTANCE,
    IMPORTANCE_WITH_CONDITIONS,
    LEFT_OUT_PAIRS,
    NO_DECISION,
    Effects,
    InteractionTable,
    interval_cell,
    rests_on,
)
from cluster.reports.tables.table_options import TableOptions
from cluster.results.names import option_texts, setting_of
from cluster.results.option_effects import GroupMean, GroupMeans, Importances, Interaction
from cluster.results.rows import column
from data_pipeline.words import listed

_TITLE = "What each option does"
_MAX_VALUES = 40
_MAX_OPTIONS_OF_PAIRS = 12
_WIDTH, _HEIGHT = 160, 16


def effects(data: PageData) -> list[Markup]:
    """Returns the section with the mean of each option's values, importances, and interactions; empty without means.

    A search over ranges has no such means; its section shows the errors along each range.
    """
    table = data.table
    if table.ranges:
        charts = ranges(data)
        return [section_of(data, "options", "Errors along ranges and options", *charts)] if charts else []
    if not table.distinguishing_paths:
        return []
    found = Effects.of("", table, column(table.split, "distance"))
    if found is None:
        return [section_of(data, "options", _TITLE, tag("p", f"The effects of options are unknown: {NO_DECISION}."))]
    names = dict(zip(table.distinguishing_paths, short_names(table.distinguishing_paths), strict=True))
    means = found.means
    shown = {path: m for path, m in means.items() if len(_known(m.groups)) > 1 and len(m.groups) <= _MAX_VALUES}
    left_out = _left_out(means, shown, names)
    if not shown:
        # Without conditions, this is an experiment that has hardly begun; of that, the page says enough elsewhere.
        is_finished = any(cell.n_finished for of_option in means.values() for cell in of_option.groups)
        words = left_out if found.have_conditions and is_finished else []
        return [section_of(data, "options", _TITLE, *(tag("p", text) for text in words))] if words else []
    where = f", {found.at}," if found.at else ""
    what = f"Mean distance on the {SPLITS[found.results.split]}{where} for each value of an option"
    words = [_averaged(what, means, names)]
    words += [CONDITIONAL] * found.have_conditions
    pairs: list[Markup] = []
    if len(names) >= 2:
        words += _of_importance(found.importances, names)
        words += [IMPORTANCE_WITH_CONDITIONS] * bool(found.have_conditions and found.importances.shares)
    if 2 <= len(names) <= _MAX_OPTIONS_OF_PAIRS:
        words.append(_of_interaction(found.interactions[0], names) if found.interactions else LEFT_OUT_PAIRS)
        pairs = [_all_interactions(data, found)] if len(names) > 2 and found.interactions else []
    words += left_out
    span = _span([cell for of_option in shown.values() for cell in of_option.groups])
    tables = [_table(path, names, of_option, span) for path, of_option in shown.items()]
    return [
        section_of(
            data,
            "options",
            _TITLE,
            *(tag("p", text) for text in words),
            tag("div", *tables, class_="effects"),
            *pairs,
        )
    ]


def _left_out(means: Mapping[str, GroupMeans], shown: Collection[str], names: Mapping[str, str]) -> list[str]:
    """Returns a sentence that says which options are without a table, and why; none if all have one."""
    left_out = [names[path] for path in means if path not in shown]
    why = f"too few trials in common or more than {_MAX_VALUES} values"
    return [f"No means, because of {why}: {listed(left_out)}."] if left_out else []


def _averaged(what: str, means: Mapping[str, GroupMeans], names: Mapping[str, str]) -> str:
    interval = "95 % intervals are for the mean over repetitions."
    if all(of_option.is_complete for of_option in means.values()):
        n = len(next(iter(means.values())).basis.repetitions)
        repetitions = f"all {n} repetitions" if n > 1 else "the only repetition"
        over = f"all values of the other options and {repetitions}" if len(names) > 1 else repetitions
        return f"{what}, averaged over {over}; {interval}"
    return (
        f"{what}, averaged over the trials that all values of the option have in common, because some are missing; "
        f"the caption of each table says which; {interval}"
    )


def _of_importance(found: Importances, names: Mapping[str, str]) -> list[str]:
    """Returns a paragraph with the importances and one that explains them."""
    if not found.shares:
        return [f"Importance of options: {no_importance(found)}."]
    shares = []
    for path, share in sorted(found.shares.items(), key=lambda item: -item[1]):
        chance = found.chances.get(path)
        by_chance = "" if chance is None else f" (by chance {100 * chance.mean:.0f} %, up to {100 * chance.high:.0f} %)"
        shares.append(f"{names[path]} {100 * share:.0f} %{by_chance}")
    known = f"Importance, over {importance_rests_on(found, names)}: {', '.join(shares)}."
    explained = f"{IMPORTANCE} {CHANCE}" if found.chances else IMPORTANCE
    return [f"{known} It is {against_chance(found, names)}.", explained]


def _of_interaction(found: Interaction, names: Mapping[str, str]) -> str:
    if found.share is None or found.size is None:
        return "Interactions: unknown, because too few pairs of values have a mean or all means are equal."
    first, second = (names[path] for path in found.means.paths)
    which = "The strongest interaction is between" if len(names) > 2 else "Interaction between"
    words = (
        f"{which} {first} and {second}: the sum of their effects does not explain {100 * found.share:.0f} % of the "
        f"variance of their means, {found.size:.2f} mm (root mean square); part of it is chance."
    )
    if found.means.is_complete:
        return words
    n_pairs, over = rests_on(found.means, names)
    return f"{words} The means cover {n_pairs} pairs of values, averaged over {over}."


def _all_interactions(data: PageData, found: Effects) -> Markup:
    grid = InteractionTable(data.table, [found], TableOptions()).grid()
    caption = grid.caption.partition(": ")[2]
    table = html_table(replace(grid, caption=f"{caption[0].upper()}{caption[1:]}", notes=()))
    return tag(
        "details",
        tag("summary", "Interactions of all pairs of options"),
        scrolling(table, "Interactions", n_rows=len(grid.rows)),
    )


def _table(path: str, names: Mapping[str, str], found: GroupMeans, span: tuple[float, float]) -> Markup:
    name = names[path]
    texts = option_texts([cell.values[0] for cell in found.groups])
    rows = [
        [
            Cell(text),
            number_cell(of_value.estimate.mean, precision=2),
            interval_cell(of_value.estimate.interval, precision=2),
            Cell(_dot(of_value, span)),
            Cell(f"{of_value.n_averaged:,} of {of_value.n_planned:,}", is_number=True),
        ]
        for text, of_value in zip(texts, found.groups, strict=True)
    ]
    setting = setting_of(path)
    where = f" ({setting})" if name != setting else ""
    over = "" if found.is_complete else f": averaged over {averaged_over(found, names)}"
    scale = tag("span", *(tag("span", f"{end:.2f}") for end in span), class_="scale", aria_hidden="true")
    grid = Grid(
        name=name,
        caption=joined([tag("strong", name), where, over]),
        headers=["value", "mean, mm", "95 % interval", scale, "trials averaged"],
        rows=rows,
        n_labels=1,
    )
    return scrolling(html_table(grid), f"Effect of {name}", n_rows=len(rows))


def _dot(cell: GroupMean, span: tuple[float, float]) -> Markup:
    """Draws mean and interval on the scale that all options share; its ends are in the header."""
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


def _span(cells: Sequence[GroupMean]) -> tuple[float, float]:
    known = _known(cells)
    values = [value for cell in known for value in _values(cell)]
    return min(values), max(values)


def _values(cell: GroupMean) -> list[float]:
    found = cell.estimate
    if found.mean is None:
        return []
    return [found.mean] if found.interval is None else [found.interval.low, found.interval.high]


def _known(cells: Sequence[GroupMean]) -> list[GroupMean]:
    return [cell for cell in cells if cell.estimate.mean is not None]
