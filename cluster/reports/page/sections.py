"""The sections of the report page, each readable without scripts."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.reports.formats.html import Markup, joined, json_block, tag
from cluster.reports.page.data import MAX_PARTS, PageData, trial_id
from cluster.reports.page.sentences import (
    count,
    findings,
    gaps,
    measured,
    name_of,
    option_texts,
    p_text,
    progress,
    signed,
)
from cluster.reports.tables.summary import SPLITS, mean_and_std
from cluster.results.results import Row, SummaryColumns
from cluster.results.statistics import MIN_REPETITIONS, bootstrap_interval, estimate
from cluster.storage.folders import ExperimentFolder

_METRICS = {
    "distance": ("mean distance", "mm"),
    "max_distance": ("mean of frames’ worst joint", "mm"),
    "bone_length_error": ("error of bone lengths", "mm"),
    "frames_within_20mm": ("frames with all joints within 20 mm", "%"),
    "auc_0_50": ("AUC 0–50 mm", "%"),
    "auc_20_50": ("AUC 20–50 mm", "%"),
}
_RESULTS = "results"
"""The results folder of who names none."""

_MAX_ERROR_TEXTS = 50
_MAX_ERROR_LENGTH = 4_000
MAX_DRAWN = 4
"""Different data that have pictures."""

_LONG = 50
"""Rows of a table that is no higher than the window, and scrolls beneath its head."""


def section(name: str, title: str, *children: str) -> Markup:
    """Returns a section with its heading; a page that is live replaces it when it has changed."""
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def scrolling(grid: Markup, name: str, *, n_rows: int = 0) -> Markup:
    """Returns a table that scrolls by itself where it is wider than the page, or long."""
    look = "scroll long" if n_rows > _LONG else "scroll"
    return tag("div", grid, class_=look, tabindex=0, role="region", aria_label=name)


def section_of(data: PageData, name: str, title: str, *children: str) -> Markup:
    """Returns a section on what was measured on one data, which says on which if there are several."""
    if data.part is None:
        return section(name, title, *children)
    return section(f"{name}-{data.part.number}", f"{title}: {data.part.name}", *children)


def summary(data: PageData) -> Markup:
    """The result in words and, where all were measured on the same data, in four figures."""
    words = _words(data) if len(data.by_data) == 1 else _words_of_parts(data)
    notes = [tag("p", sentence) for sentence in gaps(data)]
    return section("summary", "Result", *words, *notes, tag("p", progress(data), id="progress"))


def _words(data: PageData) -> list[Markup]:
    lead, *others = findings(data)
    return [*_figures(data), tag("p", lead, class_="lead"), *(tag("p", sentence) for sentence in others)]


def _words_of_parts(data: PageData) -> list[Markup]:
    n = len(data.by_data)
    words = [tag("p", f"Measured on {n} sets of data; results on one are not compared with those on another.")]
    if n > MAX_DRAWN:
        shown = f"; the first {MAX_PARTS} have sections of their own" if n > MAX_PARTS else ""
        words.append(tag("p", f"All are in the table{shown}; the first {MAX_DRAWN} have pictures."))
    for part in data.by_data:
        lead, *others = findings(part)
        name = part.part.name if part.part is not None else ""
        words += [tag("h3", name), tag("p", lead)]
        if n <= MAX_PARTS:
            words += [tag("p", sentence) for sentence in others]
    return words


def _figures(data: PageData) -> list[Markup]:
    table, best = data.table, data.table.summary[0]
    split = table.split
    before, mean, std, change, percent = (best[name] for name in SummaryColumns.of(split))
    if mean is None:
        return []
    figures = [
        (f"best, {SPLITS[split]}", f"{mean_and_std(mean, std)} mm"),
        ("backbone", f"{before:.2f} mm"),
        ("change", f"{signed(change)} mm" + ("" if percent is None else f" ({signed(percent, 1)} %)")),
        ("trials finished", f"{sum(row['n'] for row in table.summary):,} of {len(table.trials):,}"),
    ]
    pairs = [tag("div", tag("dt", term), tag("dd", value)) for term, value in figures]
    return [tag("dl", *pairs, class_="figures")]


def combinations(data: PageData) -> Markup:
    """The table of all combinations, with the data that its scripts open them with."""
    table = data.table
    tested = any(not comparison.too_few for comparison in data.comparisons.values())
    groups = [tag("td", "", colspan=2 + len(table.distinguishing_paths))]
    heads = [tag("th", "#", scope="col", class_="number")]
    heads += [tag("th", *_breakable(path), scope="col") for path in table.distinguishing_paths]
    heads.append(tag("th", "n", scope="col", class_="number"))
    for split in table.splits:
        groups.append(tag("th", f"{SPLITS[split]}, mm", colspan=3, scope="colgroup", class_="group"))
        for name in ("before", "after", "change"):
            label = tag("span", f"{SPLITS[split]}: ", class_="hidden")
            heads.append(tag("th", label, name, scope="col", class_="number"))
    if tested:
        groups.append(tag("td", ""))
        heads.append(tag("th", "against the best: p", scope="col", class_="number"))
    options = [option_texts([row[path] for row in data.rows]) for path in table.distinguishing_paths]
    rows = [
        tag(
            "tr",
            tag("th", str(place), scope="row", class_="number"),
            *(tag("td", texts[place - 1]) for texts in options),
            tag("td", _n(row), class_="number"),
            *(tag("td", text, class_="number") for split in table.splits for text in _results(row, split)),
            *([tag("td", _p(data, row), class_="number")] if tested else []),
            data_key=row["key"],
        )
        for place, row in enumerate(data.rows, 1)
    ]
    caption = (
        "Mean distance per joint in mm: mean ± sample standard deviation over n finished repetitions. The best in "
        "validation first; combinations without all repetitions after the others."
    )
    if len(data.by_data) > 1:
        caption += " Those that were measured on the same data stand together."
    if "test" in table.splits:
        caption += " Epochs were chosen on the validation set."
    if tested:
        caption += (
            f" p: paired sign-flip test on the {SPLITS[table.split]} against the best on the same data, Holm-adjusted "
            "over all pairs; * at most 0.05."
        )
    elif len(table.summary) > 1:
        caption += f" No test: it needs {MIN_REPETITIONS} repetitions."
    grid = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *groups), tag("tr", *heads)),
        tag("tbody", *rows),
        class_="combinations",
    )
    return section(
        "combinations",
        "Combinations",
        tag("div", class_="tools only-scripted"),
        scrolling(grid, "Table of combinations", n_rows=len(rows)),
        json_block("combinations-data", data.for_scripts()),
    )


def best(data: PageData) -> list[Markup]:
    """All metrics of the best combination, and its errors by joint and finger."""
    table, row = data.table, data.table.summary[0]
    trials = [trial for trial in data.repetitions[row["key"]] if trial["status"] == "finished"]
    if not trials:
        return []
    heads = [tag("th", "metric", scope="col")]
    for split in table.splits:
        heads += [tag("th", f"{SPLITS[split]}, {when}", scope="col", class_="number") for when in ("before", "after")]
    lines = []
    for metric, (title, unit) in _METRICS.items():
        cells = []
        for split in table.splits:
            before, after = (measured(trials, split, metric, before=b) for b in (True, False))
            cells += [_mean(before, unit, with_std=False), _mean(after, unit, with_std=True)]
        lines.append(
            tag("tr", tag("th", f"{title}, {unit}", scope="row"), *(tag("td", c, class_="number") for c in cells))
        )
    caption = f"The best combination ({name_of(table, row)}), mean ± sample standard deviation, n = {len(trials)}."
    caption += _intervals(measured(trials, table.split, "distance"), SPLITS[table.split])
    overall = tag("table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *lines))
    return [section_of(data, "best", "The best combination", scrolling(overall, "Metrics"), *_by_part(data, row))]


def _intervals(distances: Sequence[float], split: str) -> str:
    by_t, by_bootstrap = estimate(distances).interval, bootstrap_interval(distances)
    if by_t is None:
        return ""
    words = f" 95 % interval of the mean distance on the {split}: {by_t.low:.2f} to {by_t.high:.2f} mm (Student’s t)"
    if by_bootstrap is not None:
        words += f", {by_bootstrap.low:.2f} to {by_bootstrap.high:.2f} mm (bootstrap-t)"
    return f"{words}."


def _by_part(data: PageData, row: Row) -> list[Markup]:
    errors = data.errors_by_part(row["key"])
    if errors is None:
        return []
    lines = []
    for place, part in enumerate(data.parts):
        before, after = (values[:, place].tolist() for values in errors)
        change = (sum(after) - sum(before)) / len(after)
        cells = [_mean(before, "mm", with_std=False), _mean(after, "mm", with_std=True), signed(change)]
        lines.append(tag("tr", tag("th", part, scope="row"), *(tag("td", cell, class_="number") for cell in cells)))
    heads = [tag("th", name, scope="col", class_="number") for name in ("before", "after", "change")]
    grid = tag(
        "table",
        tag(
            "caption",
            f"Mean distance of fingers and joints on the {SPLITS[data.table.split]}, mm: mean ± sample standard "
            f"deviation, n = {len(errors[1])}.",
        ),
        tag("thead", tag("tr", tag("th", "part", scope="col"), *heads)),
        tag("tbody", *lines),
    )
    return [
        tag(
            "details",
            tag("summary", "Errors of each finger and joint"),
            scrolling(grid, "Errors by joint", n_rows=len(lines)),
        )
    ]


def failures(data: PageData) -> list[Markup]:
    """The trials that failed or diverged, those with the same error together."""
    by_error: dict[tuple[str, str], list[str]] = {}
    for row in data.table.failures:
        by_error.setdefault((row["status"], str(row["error"] or "no error was recorded")), []).append(trial_id(row))
    if not by_error:
        return []
    names = {row["key"]: name_of(data.table, row) for row in data.table.summary if row["failed"] or row["diverged"]}
    items = []
    for (status, error), ids in list(by_error.items())[:_MAX_ERROR_TEXTS]:
        shown = error if len(error) <= _MAX_ERROR_LENGTH else f"{error[:_MAX_ERROR_LENGTH]} … (all of it in trial.json)"
        trials = [tag("li", tag("code", i), f" {names[i.rpartition('/')[0]]}") for i in ids]
        items += [
            tag("h3", f"{status}: {count(len(ids), 'trial')}"),
            tag("pre", shown, tabindex=0),
            tag("details", tag("summary", "Which"), tag("ul", *trials)) if len(ids) > 3 else tag("ul", *trials),
        ]
    n_more = len(by_error) - _MAX_ERROR_TEXTS
    if n_more > 0:
        items.append(tag("p", f"And {count(n_more, 'other error')}, all in tables/trials.csv."))
    return [section("failures", "Trials that went wrong", *items)]


def configuration(data: PageData) -> Markup:
    """The options, the three dicts, the data and the versions."""
    experiment = data.experiment
    options = [
        (", ".join(axis["paths"]), "; ".join(", ".join(map(str, row)) for row in axis["rows"]))
        for axis in experiment.get("options") or []
    ]
    parts = [_settings("Options that were varied", options, is_open=True)] if options else []
    parts += [_settings(name, _flat(values)) for name, values in (experiment.get("configs") or {}).items()]
    sets = [
        (str(entry.get("name")), f"{entry.get('samples')} samples, fingerprint {entry.get('fingerprint')}")
        for entry in experiment.get("data") or []
    ]
    parts.append(_settings("Data", sets))
    parts.append(_settings("Versions", _flat(experiment.get("versions") or {})))
    parts.append(_settings("Machine", _flat(experiment.get("machine") or {})))
    return section("configuration", "Configuration", *parts)


def reproduction(data: PageData, folder: ExperimentFolder) -> Markup:
    """How to train it again: with the folder as it is called now, whatever the experiment was called."""
    experiment, git = data.experiment, data.experiment.get("git") or {}
    lines = [f"git checkout {git['commit']}"] if git.get("commit") else []
    if experiment.get("command"):
        lines.append("python " + shlex.join(map(str, experiment["command"])))
    finished = [trial for row in data.rows for trial in data.repetitions[row["key"]] if trial["status"] == "finished"]
    if finished:
        results, _, name = folder.storage.location.rpartition("/")
        arguments = [name, finished[0]["key"], str(finished[0]["repetition"])]
        if results != _RESULTS:
            arguments += ["--storage-path", results or "/"]
        lines += [
            "# one trial alone, and whether its numbers are the same bits:",
            f"python tune_runs/report.py reproduce {shlex.join(arguments)}",
        ]
    notes = [
        "The same code, data and seeds give the same numbers; what has finished is not trained again unless it is "
        "removed. Every number on this page is reckoned from the trials’ files; tables/ has the means."
    ]
    if git.get("dirty"):
        notes.append("Files differed from that commit when it ran: the commit alone does not hold all of the code.")
    return section(
        "reproduction", "To reproduce it", tag("pre", "\n".join(lines), tabindex=0), *(tag("p", n) for n in notes)
    )


def _breakable(path: str) -> list[Markup | str]:
    pieces = path.split(".")
    return [joined([f"{piece}.", Markup("<wbr>")]) for piece in pieces[:-1]] + [pieces[-1]]


def _settings(title: str, pairs: Sequence[tuple[str, str]], *, is_open: bool = False) -> Markup:
    lines = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in pairs]
    return tag("details", tag("summary", title), tag("table", tag("tbody", *lines), class_="settings"), open=is_open)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs


def _n(row: Row) -> str:
    parts = [str(row["n"])]
    parts += [f"{row[status]} {status}" for status in ("failed", "diverged") if row[status]]
    return ", ".join(parts)


def _results(row: Row, split: str) -> list[str]:
    before, mean, std, _, change = (row[name] for name in SummaryColumns.of(split))
    return [
        "–" if before is None else f"{before:.2f}",
        mean_and_std(mean, std),
        "–" if change is None else f"{signed(change, 1)} %",
    ]


def _p(data: PageData, row: Row) -> str:
    if row["key"] not in data.comparisons:
        return "best"
    compared = data.comparisons[row["key"]]
    if compared.p_adjusted is None:
        return "too few" if row["n"] else "–"
    return p_text(compared.p_adjusted) + ("*" if compared.is_significant else "")


def _mean(values: Sequence[float], unit: str, *, with_std: bool) -> str:
    found = estimate([100 * value if unit == "%" else value for value in values])
    return mean_and_std(found.mean, found.std if with_std else None)
