"""The sections of the report page, each readable without scripts."""

import dataclasses
import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cluster.reports.formats.grid import Cell, Grid, number_cell, p_text, signed
from cluster.reports.formats.html import Markup, escaped, joined, json_block, tag
from cluster.reports.formats.html_table import html_table
from cluster.reports.methods import methods_paragraph
from cluster.reports.page.data import MAX_DATA_GROUPS, PageData, trial_id
from cluster.reports.page.parallel import parallel_coordinates
from cluster.reports.page.sentences import (
    findings,
    gaps,
    measured,
    name_of,
    progress,
)
from cluster.reports.tables.by_group import GroupErrors, frames_cell, group_headers
from cluster.reports.tables.captions import SPLITS
from cluster.reports.tables.metric_labels import MEASURES, OVERALL_METRICS
from cluster.reports.tables.summary import mean_and_std, summary_grid
from cluster.results.deserialize import own_modules
from cluster.results.experiment_description import where_options_apply
from cluster.results.names import short_names
from cluster.results.rows import Row, SummaryColumns
from cluster.results.statistics import bootstrap_interval, estimate
from cluster.searching.dimensions import Range
from cluster.storage.folders import ExperimentFolder
from cluster.storage.run_file import POSETUNE, REPOSITORIES, SCRIPT, RunFile
from data_pipeline.words import count

_RESULTS = "results"
"""The default results folder."""

_MAX_ERROR_TEXTS = 50
_MAX_ERROR_LENGTH = 4_000
MAX_DRAWN = 4
"""The largest number of data sets with pictures."""

_OPEN = ("subset", "subject")
"""The groups whose errors are visible at once: a mean hides most if one of few groups gets worse."""

_MAX_RUNS = 20

_LONG = 50
"""A table with more rows than this scrolls under its header."""


def section(name: str, title: str, *children: str) -> Markup:
    """Returns a section with its heading; a live page replaces it when it has changed."""
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def scrolling(grid: Markup, name: str, *, n_rows: int = 0) -> Markup:
    """Returns a table that scrolls separately if it is long or wider than the page."""
    look = "scroll long" if n_rows > _LONG else "scroll"
    return tag("div", grid, class_=look, tabindex=0, role="region", aria_label=name)


def section_of(data: PageData, name: str, title: str, *children: str) -> Markup:
    """Returns a section on the results on one data set; it names the data set if there are several."""
    if data.group is None:
        return section(name, title, *children)
    return section(f"{name}-{data.group.number}", f"{title}: {data.group.name}", *children)


def summary(data: PageData) -> Markup:
    """The result in words and, if all combinations were measured on the same data, in four figures."""
    words = _words(data) if len(data.by_data) == 1 else _words_by_data(data)
    notes = [tag("p", sentence) for sentence in gaps(data)]
    return section("summary", "Result", *words, *notes, tag("p", progress(data), id="progress"))


def _words(data: PageData) -> list[Markup]:
    lead, *others = findings(data)
    return [*_figures(data), tag("p", lead, class_="lead"), *(tag("p", sentence) for sentence in others)]


def _words_by_data(data: PageData) -> list[Markup]:
    n = len(data.by_data)
    words = [tag("p", f"Measured on {n} sets of data. Results on different data are not compared.")]
    if n > MAX_DRAWN:
        shown = f"; the first {MAX_DATA_GROUPS} have their own sections" if n > MAX_DATA_GROUPS else ""
        words.append(tag("p", f"The table has all of them{shown}; the first {MAX_DRAWN} have pictures."))
    for measured_alike in data.by_data:
        lead, *others = findings(measured_alike)
        name = "" if measured_alike.group is None else measured_alike.group.name
        words += [tag("h3", name), tag("p", lead)]
        if n <= MAX_DATA_GROUPS:
            words += [tag("p", sentence) for sentence in others]
    return words


def _figures(data: PageData) -> list[Markup]:
    table, best = data.table, data.table.summary[0]
    split, trials = table.split, table.single_folds.trials
    before, mean, std, change, percent = (best[name] for name in SummaryColumns.of(split))
    if mean is None:
        return []
    figures = [
        (f"best, {SPLITS[split]}", f"{mean_and_std(mean, std)} mm"),
        ("backbone", f"{before:.2f} mm"),
        ("change", f"{signed(change)} mm" + ("" if percent is None else f" ({signed(percent, 1)} %)")),
        ("trials finished", f"{sum(row['status'] == 'finished' for row in trials):,} of {len(trials):,}"),
    ]
    pairs = [tag("div", tag("dt", term), tag("dd", value)) for term, value in figures]
    return [tag("dl", *pairs, class_="figures")]


def combinations(data: PageData) -> Markup:
    """The table of all combinations, with the data that scripts need to open them."""
    table, grid = data.table, summary_grid(data.table)
    tested = any(not comparison.too_few for comparison in data.comparisons.values())
    hidden = [
        tag("span", f"{SPLITS[split]}: ", class_="hidden")
        for split, (_, n_columns) in zip(table.splits, grid.spans[1:], strict=True)
        for _ in range(n_columns)
    ]
    results = zip(hidden, grid.headers[grid.n_labels + 1 :], strict=True)
    headers = ["#", *map(_breakable, short_names(table.distinguishing_paths).values()), "n", *map(joined, results)]
    rows = [[Cell(str(place)), *cells] for place, cells in enumerate(grid.rows, 1)]
    caption, spans = grid.caption, [("", 1), *grid.spans]
    if tested:
        headers.append("p against the best")
        spans.append(("", 1))
        rows = [[*cells, Cell(_p(data, row), is_number=True)] for row, cells in zip(data.rows, rows, strict=True)]
        caption += (
            f" p: paired sign-flip test on the {SPLITS[table.split]} against the best on the same data, Holm-adjusted "
            "over all pairs; *: p ≤ 0.05."
        )
    elif data.comparisons:
        needs = "needs more repetitions" if data.n_needed is None else f"needs {data.n_needed} repetitions"
        caption += f" No significance test: it {needs}."
    shown = replace(grid, caption=caption, headers=headers, rows=rows, n_labels=1, spans=spans, notes=(), below=None)
    dropped = []
    if grid.below is not None:
        table_of_dropped = scrolling(html_table(grid.below), "Dropped combinations", n_rows=len(grid.below.rows))
        dropped = [tag("h3", "Dropped by the race"), table_of_dropped]
    return section(
        "combinations",
        "Combinations",
        *parallel_coordinates(data),
        tag("div", class_="tools only-scripted"),
        scrolling(html_table(shown, class_="combinations"), "Table of combinations", n_rows=len(rows)),
        *dropped,
        tag(
            "details",
            tag("summary", "A paragraph for the methods section of a paper"),
            tag("p", methods_paragraph(table)),
        ),
        json_block("combinations-data", data.for_scripts()),
    )


def best(data: PageData) -> list[Markup]:
    """All metrics of the best combination, and its errors by group."""
    table, row = data.table, data.table.summary[0]
    trials = [trial for trial in data.table.counted[row["key"]] if trial["status"] == "finished"]
    if not trials:
        return []
    rows = []
    for metric in OVERALL_METRICS:
        measure = MEASURES[metric]
        if not any(measured(trials, split, metric) for split in table.splits):
            continue  # older results, and sets without successive frames, have no acceleration error
        row_cells = [Cell(f"{measure.title}, {measure.unit}")]
        for split in table.splits:
            before, after = (estimate(measured(trials, split, metric, before=b)) for b in (True, False))
            row_cells.append(number_cell(before.mean, precision=2, in_percent=measure.in_percent))
            row_cells.append(number_cell(after.mean, after.std, precision=2, in_percent=measure.in_percent))
        rows.append(row_cells)
    caption = f"The best combination ({name_of(table, row)}), {_repeated(len(trials))}."
    caption += _intervals(measured(trials, table.split, "distance"), SPLITS[table.split])
    overall = html_table(
        Grid(
            name="metrics",
            caption=caption,
            headers=["metric", *["before", "after"] * len(table.splits)],
            rows=rows,
            n_labels=1,
            spans=[("", 1), *((SPLITS[split], 2) for split in table.splits)],
        )
    )
    return [section_of(data, "best", "The best combination", scrolling(overall, "Metrics"), *_by_group(data, row))]


def _repeated(n: int) -> str:
    return "one repetition" if n == 1 else f"mean ± sample standard deviation, n = {n}"


def _intervals(distances: Sequence[float], split: str) -> str:
    by_t, by_bootstrap = estimate(distances).interval, bootstrap_interval(distances)
    if by_t is None:
        return ""
    words = f" 95 % interval of the mean distance on the {split}: {by_t.low:.2f} to {by_t.high:.2f} mm (Student’s t)"
    if by_bootstrap is not None:
        words += f", {by_bootstrap.low:.2f} to {by_bootstrap.high:.2f} mm (bootstrap-t)"
    return f"{words}."


def _by_group(data: PageData, row: Row) -> Iterator[Markup]:
    for by, groups in data.groups.get(row["key"], {}).items():
        errors = [GroupErrors.of(group.before, group.after) for group in groups]
        rows = [
            [Cell(group.name), frames_cell(group), *found.cells(2)] for group, found in zip(groups, errors, strict=True)
        ]
        grid = Grid(
            name=f"errors by {by}",
            caption=f"Mean distance by {by} on the {SPLITS[data.table.split]}: {_repeated(errors[0].after.n)}.",
            headers=[by, "frames", *group_headers()],
            rows=rows,
            n_labels=1,
        )
        yield tag(
            "details",
            tag("summary", f"Errors of each {by}"),
            scrolling(html_table(grid), f"Errors by {by}", n_rows=len(rows)),
            open=by in _OPEN,
        )


def failures(data: PageData) -> list[Markup]:
    """The trials that failed or diverged, grouped by error."""
    by_error: dict[tuple[str, str], list[str]] = {}
    for row in data.table.failures:
        by_error.setdefault((row["status"], str(row["error"] or "no error was recorded")), []).append(trial_id(row))
    if not by_error:
        return []
    trained = data.table.single_folds
    names = {row["key"]: name_of(trained, row) for row in trained.summary if row["failed"] or row["diverged"]}
    items = []
    for (status, error), ids in list(by_error.items())[:_MAX_ERROR_TEXTS]:
        shown = error if len(error) <= _MAX_ERROR_LENGTH else f"{error[:_MAX_ERROR_LENGTH]} … (full text in trial.json)"
        trials = [tag("li", tag("code", i), f" {names[i.rpartition('/')[0]]}") for i in ids]
        items += [
            tag("h3", f"{status}: {count(len(ids), 'trial')}"),
            tag("pre", shown, tabindex=0),
            tag("details", tag("summary", "Which"), tag("ul", *trials)) if len(ids) > 3 else tag("ul", *trials),
        ]
    n_more = len(by_error) - _MAX_ERROR_TEXTS
    if n_more > 0:
        items.append(tag("p", f"And {count(n_more, 'other error')}, all in tables/trials.csv."))
    return [section("failures", "Failed and diverged trials", *items)]


def configuration(data: PageData) -> Markup:
    """The options, the three dicts and the data of the last plan."""
    experiment = data.experiment
    options = []
    for axis, (_, where) in zip(experiment.options, where_options_apply(experiment.options, {}), strict=True):
        rows = "; ".join(", ".join(map(str, row)) for row in axis.rows)
        values = rows if axis.range is None else Range(**dataclasses.asdict(axis.range))
        options.append((", ".join(axis.paths), f"{values}{f' (only for {where})' * bool(where)}"))
    parts = [_settings("Options that were varied", options, is_open=True)] if options else []
    parts += [_settings(name, _flat(values)) for name, values in experiment.configs.items()]
    sets = [(entry.name, f"{entry.samples} samples, fingerprint {entry.fingerprint}") for entry in experiment.data]
    parts.append(_settings("Data", sets))
    return section("configuration", "Configuration", *parts)


def reproduction(data: PageData, folder: ExperimentFolder) -> Markup:
    """What produced the trials, and how to train the first of them again.

    The command has the current name of the folder, which may differ from the experiment's name.
    """
    trained_by = data.table.trained_by(data.rows)
    lines: list[str] = []
    modules: list[str] = []
    notes: list[str] = []
    if trained_by:
        shown, runs = next(first for row in data.rows for first in data.table.trained_by([row]).items())
        command: Sequence[str] = ()
        if runs is not None:
            command = runs[-1].command
            lines += _checkouts(runs[-1])
            if command and command[0] and not command[0].startswith("-"):  # `python -c` records no code
                lines.append(f"python {shlex.join(command)}")
            if any(commit.dirty for commit in runs[-1].git.values()):
                notes.append("Files differed from the commit when it ran, so the commit lacks a part of the code.")
            if len(runs) > 1:
                notes.append(f"{len(runs)} runs trained this trial, each from where the one before it stopped.")
            if any(runs_of_other != runs for runs_of_other in trained_by.values()):
                notes.append("Not all trials were trained by the same run. The first commands are those of this trial.")
        results, _, name = folder.storage.location.rpartition("/")
        key, _, repetition = shown.partition("/")
        arguments = [name, key, repetition]
        modules = _modules_to_import(folder, shown, command)
        arguments += [word for module in modules for word in ("--import", module)]
        if results != _RESULTS:
            arguments += ["--storage-path", results or "/"]
        lines += [
            "# train one trial again and check that its numbers are bit-identical:",
            f"posetune report reproduce {shlex.join(arguments)}",
        ]
    n_unknown = sum(runs is None for runs in trained_by.values())
    if n_unknown:
        notes.append(
            f"What trained {n_unknown:,} of {count(len(trained_by), 'finished trial')} was not recorded: version 0.4.0 "
            "and older kept only what belongs to their last run."
        )
    notes.append(
        "The same code, data and seeds give the same numbers. Finished trials are not trained again unless they are "
        "removed. Every number on this page is computed from the trials’ files; tables/ has the means."
    )
    if modules:
        notes.append(
            "--import names the modules of your own classes. Importing a script must not start its run "
            '(if __name__ == "__main__").'
        )
    return section(
        "reproduction",
        "How to reproduce it",
        *([tag("pre", "\n".join(lines), tabindex=0)] if lines else []),
        *(tag("p", note) for note in notes),
        *_runs(trained_by.values()),
    )


def _checkouts(run: RunFile) -> list[str]:
    """Returns the commands that restore the code of a run, with the repository in a comment unless there is one."""
    commits = {whose: commit.commit for whose, commit in run.git.items()}
    is_one = {SCRIPT, POSETUNE} <= commits.keys() and len(set(commits.values())) == 1
    if is_one:
        return [f"git checkout {commits[SCRIPT]}"]
    return [f"git checkout {commit}  # in the repository of {REPOSITORIES[whose]}" for whose, commit in commits.items()]


def _runs(trained_by: Collection[Sequence[RunFile] | None]) -> Iterator[Markup]:
    """Yields what produced the trials: a table for each run, the last one first."""
    counts = Counter(id(run) for runs in trained_by for run in runs or ())
    by_id = {id(run): run for runs in trained_by for run in runs or ()}
    runs = sorted(by_id.values(), key=lambda run: run.started or 0.0, reverse=True)
    for run in runs[:_MAX_RUNS]:
        began = "" if run.started is None else f" of {time.strftime('%Y-%m-%d %H:%M', time.localtime(run.started))}"
        facts = {name: value for name, value in dataclasses.asdict(run).items() if name not in ("started", "command")}
        title = f"Run{began}: {count(counts[id(run)], 'trial')}"
        yield _settings(title, [("command", shlex.join(run.command)), *_flat(facts)])
    if len(runs) > _MAX_RUNS:
        yield tag("p", f"And {count(len(runs) - _MAX_RUNS, 'earlier run')}, all in runs/.")


def _modules_to_import(folder: ExperimentFolder, trial_id: str, command: Sequence[str]) -> list[str]:
    """Returns the modules with the user's classes of a trial; the run script by its path, as `--import` takes it."""
    script = (command[0] if command else "").removesuffix(".py").removeprefix("./")
    main = script.rpartition("/")[2] if script.startswith("/") else script.replace("/", ".")
    modules = [main if name == "__main__" else name for name in own_modules(folder.read_trial(trial_id).description)]
    return [name for name in modules if all(part.isidentifier() for part in name.split("."))]


def _breakable(path: str) -> Markup:
    return Markup(escaped(path).replace(".", ".<wbr>"))


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


def _p(data: PageData, row: Row) -> str:
    if row["key"] not in data.comparisons:
        return "best"
    compared = data.comparisons[row["key"]]
    if compared.p_adjusted is None:
        return "too few" if row["n"] else "–"
    return p_text(compared.p_adjusted).removeprefix("= ") + ("*" if compared.is_significant else "")
