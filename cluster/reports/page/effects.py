"""The section on what each option does to the result."""

from collections.abc import Mapping, Sequence

from cluster.reports.formats.html import Markup, tag
from cluster.reports.page.data import PageData
from cluster.reports.page.sections import scrolling, section_of
from cluster.reports.page.sentences import listed, option_texts, short_names
from cluster.reports.tables.effect_phrases import averaged_over, importance_rests_on, no_importance
from cluster.reports.tables.effects import IMPORTANCE, Effects, rests_on
from cluster.reports.tables.summary import SPLITS
from cluster.results.option_effects import GroupMean, GroupMeans, Importances, Interaction
from cluster.results.results import column

_MAX_VALUES = 40
_MAX_OPTIONS_OF_PAIRS = 12
_WIDTH, _HEIGHT = 160, 16


def effects(data: PageData) -> list[Markup]:
    """Marginal means of each option's values, importances, and interactions; empty where there are no means."""
    table = data.table
    found = Effects("", table, column(table.split, "distance"))
    names = dict(zip(table.distinguishing_paths, short_names(table.distinguishing_paths), strict=True))
    means = found.means
    shown = {path: m for path, m in means.items() if len(_known(m.groups)) > 1 and len(m.groups) <= _MAX_VALUES}
    if not shown:
        return []
    words = [_averaged(f"Mean distance on the {SPLITS[table.split]} for each value of an option", means, names)]
    pairs: list[Markup] = []
    if len(names) >= 2:
        words.append(_of_importance(found.importances, names))
    if 2 <= len(names) <= _MAX_OPTIONS_OF_PAIRS:
        words.append(_of_interaction(found.interactions[0], names))
        pairs = _all_interactions(found.interactions, names) if len(names) > 2 else []
    if left_out := [names[path] for path in means if path not in shown]:
        words.append(
            f"Without means, for too few trials in common or more than {_MAX_VALUES} values: {listed(left_out)}."
        )
    span = _span([cell for of_option in shown.values() for cell in of_option.groups])
    tables = [_table(path, names, of_option, span) for path, of_option in shown.items()]
    return [
        section_of(
            data,
            "options",
            "What each option does",
            *(tag("p", text) for text in words),
            tag("div", *tables, class_="effects"),
            *pairs,
        )
    ]


def _averaged(what: str, means: Mapping[str, GroupMeans], names: Mapping[str, str]) -> str:
    interval = "the interval is that of the mean over repetitions (95 %, t)."
    if all(of_option.is_complete for of_option in means.values()):
        n = len(next(iter(means.values())).basis.repetitions)
        repetitions = f"all {n} repetitions" if n > 1 else "the one repetition"
        over = f"all values of the other options and {repetitions}" if len(names) > 1 else repetitions
        return f"{what}, averaged over {over}; {interval}"
    return (
        f"{what}, averaged over those trials that all values of the option have alike, since some are missing: which "
        f"these are stands above each table; {interval}"
    )


def _of_importance(found: Importances, names: Mapping[str, str]) -> str:
    if not found.shares:
        return f"Importance of options: {no_importance(found)}."
    ordered = sorted(found.shares.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{names[path]} {100 * share:.0f} %" for path, share in ordered)
    return f"Importance, over {importance_rests_on(found, names)}: {shares}. {IMPORTANCE}"


def _of_interaction(found: Interaction, names: Mapping[str, str]) -> str:
    if found.share is None or found.size is None:
        return "Interactions: unknown, since too few pairs of values have a mean, or since all these are equal."
    first, second = (names[path] for path in found.means.paths)
    which = "The strongest interaction is that of" if len(names) > 2 else "Interaction of"
    words = (
        f"{which} {first} and {second}: {100 * found.share:.0f} % of the variance of their means is left over by the "
        f"sum of their effects, {found.size:.2f} mm (root mean square); chance is a part of it."
    )
    if found.means.is_complete:
        return words
    n_pairs, over = rests_on(found.means, names)
    return f"{words} The means are those of {n_pairs} pairs of values, averaged over {over}."


def _all_interactions(interactions: Sequence[Interaction], names: Mapping[str, str]) -> list[Markup]:
    are_complete = all(found.means.is_complete for found in interactions)
    lines = []
    for found in interactions:
        cells = [
            "–" if found.share is None else f"{100 * found.share:.1f} %",
            "–" if found.size is None else f"{found.size:.2f}",
        ]
        n_pairs, over = rests_on(found.means, names)
        basis = [] if are_complete else [tag("td", n_pairs, class_="number"), tag("td", over)]
        lines.append(
            tag(
                "tr",
                tag("th", " and ".join(names[path] for path in found.means.paths), scope="row"),
                *(tag("td", cell, class_="number") for cell in cells),
                *basis,
            )
        )
    heads = [tag("th", "options", scope="col")]
    heads += [tag("th", head, scope="col", class_="number") for head in ("left over", "left over, mm")]
    if not are_complete:
        heads += [tag("th", "pairs of values", scope="col", class_="number"), tag("th", "averaged over", scope="col")]
    caption = (
        "What the sum of two options’ effects leaves over of the means of their pairs of values: as a share of the "
        "variance of these means, and as root mean square. Chance is a part of it."
    )
    grid = tag("table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *lines))
    return [
        tag(
            "details",
            tag("summary", "Interactions of all pairs of options"),
            scrolling(grid, "Interactions", n_rows=len(lines)),
        )
    ]


def _table(path: str, names: Mapping[str, str], found: GroupMeans, span: tuple[float, float]) -> Markup:
    name = names[path]
    texts = option_texts([cell.values[0] for cell in found.groups])
    lines = [
        tag(
            "tr",
            tag("th", text, scope="row"),
            tag("td", "–" if cell.estimate.mean is None else f"{cell.estimate.mean:.2f}", class_="number"),
            tag("td", _interval(cell), class_="number"),
            tag("td", _dot(cell, span)),
            tag("td", f"{cell.n_averaged:,} of {cell.n_planned:,}", class_="number"),
        )
        for text, cell in zip(texts, found.groups, strict=True)
    ]
    where = f" ({path})" if name != path else ""
    over = "" if found.is_complete else f": averaged over {averaged_over(found, names)}"
    caption = tag("caption", tag("strong", name), f"{where}{over}")
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


def _interval(cell: GroupMean) -> str:
    interval = cell.estimate.interval
    return "–" if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"


def _dot(cell: GroupMean, span: tuple[float, float]) -> Markup:
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
