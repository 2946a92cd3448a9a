"""The table of all combinations, and the summary of an experiment in the terminal and as Markdown."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from cluster.reports.formats.grid import MISSING, Cell, Grid, number_cell, signed
from cluster.reports.formats.html import Markup, tag
from cluster.reports.formats.html_table import html_table
from cluster.reports.formats.markdown import escaped, markdown
from cluster.reports.formats.terminal import FILE_WIDTH, terminal_table
from cluster.reports.tables.captions import (
    OVER_FOLDS,
    SPLIT_NAMES,
    distances,
    folds_of,
    in_brackets,
    in_race,
    over_folds,
    raced,
    versions,
    without_interval,
)
from cluster.reports.tables.columns import intervals_record
from cluster.reports.tables.dropped import dropped_grid
from cluster.results.change_intervals import ChangeIntervals
from cluster.results.lookup import short_keys
from cluster.results.names import option_texts, setting_of, short_names
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns, fold_std_column
from data_pipeline.subsets import FUSED_SUBSET
from data_pipeline.words import count

Intervals = Mapping[str, ChangeIntervals | None] | None
"""The intervals of changes on the reported split, by the combination's key; None for a table without intervals."""

_MAX_ROWS = 40
_MAX_FAILURES = 20
_PROCESS_GIB = 0.6
"""What a process takes on its GPU besides its tensors: an assumption, since it depends on driver and GPU, GiB."""


def summary_text(
    table: Results, *, with_keys: bool = False, intervals: Intervals = None, width: int = FILE_WIDTH
) -> str:
    """Returns the summary for a terminal: the first combinations, and what did not finish.

    Args:
        table: The results.
        with_keys: Whether the first column shows the beginnings of the combinations' keys. Without them,
            combinations without a trial that has ended are only counted.
        intervals: The intervals of changes.
        width: The number of characters in a line.
    """
    grid, n_without = summary_grid(table, intervals), 0
    dropped = grid.below
    if with_keys:
        keys = short_keys(table)
        grid, dropped = _with_keys(grid, keys), dropped and _with_keys(dropped, keys)
    else:
        begun = (row for row in table.ranked if row["n"] or row[table.chosen_by.n] or row["failed"] or row["diverged"])
        ended = {row["key"] for row in begun}
        n_without = len(grid.rows) - len(ended)
        grid = replace(grid, rows=[row for key, row in zip(grid.keys, grid.rows, strict=True) if key in ended])
        if not ended and dropped is None:
            return "\n".join([_title(table), "No trial has ended, so there is no table yet.", *_notes(table)]) + "\n"
    lines = [_title(table), "", terminal_table(replace(grid, rows=grid.rows[:_MAX_ROWS]), width)]
    if n_without:
        lines += ["", f"{count(n_without, 'other combination')} without a trial that has ended"]
    if len(grid.rows) > _MAX_ROWS:
        lines += ["", f"and {count(len(grid.rows) - _MAX_ROWS, 'more combination')}, all in tables/summary.csv"]
    notes = distances(table, table.ranked, table.split)
    notes += versions(table, table.ranked)
    notes += without_interval(table.ranked, intervals)
    text_width = min(width, FILE_WIDTH)
    notes, gpu_memory = ([textwrap.fill(text, text_width) for text in texts] for texts in (notes, _gpu_memory(table)))
    lines += ["", textwrap.fill(grid.caption, text_width), *notes, *_notes(table), *gpu_memory]
    if dropped is not None:
        lines += ["", textwrap.fill(dropped.caption, text_width), ""]
        lines.append(terminal_table(replace(dropped, rows=dropped.rows[:_MAX_ROWS]), width))
        if len(dropped.rows) > _MAX_ROWS:
            lines += ["", f"and {count(len(dropped.rows) - _MAX_ROWS, 'more combination')}, all in tables/summary.csv"]
    return "\n".join(lines).rstrip() + "\n"


def _with_keys(grid: Grid, keys: Mapping[str, str]) -> Grid:
    """Returns a table with the beginnings of the combinations' keys as its first column."""
    rows = [[Cell(keys[key]), *row] for key, row in zip(grid.keys, grid.rows, strict=True)]
    spans = [("", 1), *grid.spans] if grid.spans else []
    return replace(grid, headers=["key", *grid.headers], rows=rows, n_labels=grid.n_labels + 1, spans=spans)


def summary_html(table: Results) -> Markup:
    """Returns the summary for a notebook: the first combinations, and what did not finish."""
    grid = summary_grid(table)
    n_more = len(grid.rows) - _MAX_ROWS
    more = [f"And {count(n_more, 'more combination')}."] if n_more > 0 else []
    grid = replace(grid, rows=grid.rows[:_MAX_ROWS], keys=grid.keys[:_MAX_ROWS], notes=[*more, *grid.notes])
    if grid.below is not None and len(grid.below.rows) > _MAX_ROWS:
        more = [f"And {count(len(grid.below.rows) - _MAX_ROWS, 'more combination')}."]
        below = replace(grid.below, rows=grid.below.rows[:_MAX_ROWS], keys=grid.below.keys[:_MAX_ROWS], notes=more)
        grid = replace(grid, below=below)
    # Notebooks typeset $…$ in texts outside these classes.
    return tag("div", tag("p", _title(table)), html_table(grid), class_="tex2jax_ignore mathjax_ignore")


def summary_markdown(table: Results) -> str:
    """Returns the summary of all combinations as Markdown."""
    return f"# {escaped(table.name)}\n\n{markdown(summary_grid(table))}"


def summary_grid(table: Results, intervals: Intervals = None) -> Grid:
    """Returns all combinations with their mean distance before and after on each split.

    Combinations that were measured on the same data are listed together. Those that a race dropped are in a second
    table below.

    Args:
        table: The results.
        intervals: The intervals of changes.
    """
    parts, paths = table.by_data(), table.distinguishing_paths
    rows = [row for part in parts.values() for row in part.ranked]
    # Texts that also distinguish them from those that a race dropped.
    all_rows = [*rows, *table.not_ranked]
    columns = [list(map(Cell, option_texts([row[path] for row in all_rows])))[: len(rows)] for path in paths]
    columns.append([Cell(_n(row), is_number=True) for row in rows])
    headers, spans = [*short_names(paths).values(), "n"], [("", len(paths) + 1)]
    for split in table.splits:
        known = intervals if intervals and split == table.split else {}
        cells = [_results(row, split, known.get(row["key"])) for row in rows]
        columns += [[of_row[place] for of_row in cells] for place in range(3)]
        headers += ["before", "after", "change"]
        spans.append((SPLIT_NAMES[split], 3))
    if table.folds:
        name = fold_std_column(table.split, "distance")
        columns.append([number_cell(row[name], precision=2) for row in rows])
        headers.append("± over folds")
        spans[-1] = (spans[-1][0], 4)
    return Grid(
        name=table.name,
        caption=" ".join([_caption(table, n_data=len(parts)), *in_brackets(intervals)]),
        headers=headers,
        rows=list(zip(*columns, strict=True)),
        n_labels=len(paths),
        spans=spans,
        keys=[row["key"] for row in rows],
        notes=[
            *distances(table, rows, table.split),
            *versions(table, rows),
            *without_interval(rows, intervals),
            *_notes(table),
        ],
        below=dropped_grid(table),
    )


def mean_and_std(mean: float | None, std: float | None) -> str:
    """Writes a mean in mm with its standard deviation: '9.51 ± 0.06'."""
    return number_cell(mean, std, precision=2).text


def summary_records(table: Results, intervals: Intervals = None) -> list[Row]:
    """Returns the rows of the summary for programs.

    Args:
        table: The results.
        intervals: The intervals of changes.
    """
    if intervals is None:
        return table.summary
    columns = SummaryColumns.of(table.split)
    changes = columns.change, columns.change_percent
    return [row | intervals_record(*changes, intervals.get(row["key"])) for row in table.summary]


def percent_and_interval(change: float, intervals: ChangeIntervals | None) -> str:
    """Writes a change in % with its interval, if it is known: '−12.3 % [−14.0, −10.6]'."""
    text, interval = f"{signed(change, 1)} %", intervals and intervals.percent
    return text if interval is None else f"{text} [{signed(interval.low, 1)}, {signed(interval.high, 1)}]"


def _title(table: Results) -> str:
    rows = table.single_folds.trials
    counts = Counter(row["status"] for row in rows)
    parts = [f"{counts[status]} {status}" for status in counts]
    return f"{table.name}: {count(len(rows), 'trial')}, {', '.join(parts)}"


def _results(row: Row, split: str, intervals: ChangeIntervals | None) -> list[Cell]:
    columns = SummaryColumns.of(split)
    change = row[columns.change_percent]
    return [
        number_cell(row[columns.before], precision=2),
        number_cell(row[columns.mean], row[columns.std], precision=2),
        MISSING if change is None else Cell(percent_and_interval(change, intervals), is_number=True),
    ]


def _gpu_memory(table: Results) -> list[str]:
    """Returns how much memory trials took on their GPUs, and how many of them fit on one; nothing without GPUs."""
    measured = [row for row in table.single_folds.trials if row.get("gpu_peak_gib") and row.get("gpu_total_gib")]
    if not measured:
        return []
    most = max(row["gpu_peak_gib"] for row in measured)
    total = min(row["gpu_total_gib"] for row in measured)
    n = max(1, int(total / (most + _PROCESS_GIB)))
    return [
        f"A trial took up to {most:.1f} of the {total:.1f} GiB of its GPU. With {_PROCESS_GIB} GiB for each process, "
        f"{count(n, 'trial')} would fit on a GPU at a time (trials_per_device)."
    ]


def _n(row: Row) -> str:
    parts = [str(row["n"])]
    parts += [f"{row[status]} {status}" for status in ("failed", "diverged") if row[status]]
    return ", ".join(parts)


def _caption(table: Results, *, n_data: int) -> str:
    text = "Mean distance per joint in mm: mean ± sample standard deviation over n finished repetitions. "
    text += "".join(f"{sentence} " for sentence in raced(table))
    text += f"Best in validation first{',' * bool(table.n_confirming)}{in_race(table)}"
    if n_data > 1:
        text += "; those measured on the same data are listed together"
    if any(0 < row[table.chosen_by.n] < table.n_repetitions for row in table.summary):
        text += f"; combinations with fewer than {table.n_repetitions} finished repetitions come after the others"
    text += "." + (" Epochs were chosen on the validation set." if "test" in table.splits else "")
    if any(FUSED_SUBSET in table.subsets(split) for split in table.splits):
        text += " For a model that fuses subsets, before is the error of the mean pose over the subsets."
    if table.folds:
        on = f"Measured on the {folds_of(table, table.split, table.summary)}."
        text = " ".join([text, on, *over_folds(table, table.summary), OVER_FOLDS])
    return text


def _notes(table: Results) -> list[str]:
    notes = []
    if table.n_not_proposed:
        notes.append(f"The search has not proposed {count(table.n_not_proposed, 'combination')} yet.")
    if table.n_others:
        are = "is" if table.n_others == 1 else "are"
        notes.append(f"{count(table.n_others, 'trial')} with other settings {are} kept in trials/ but not shown.")
    by_error: dict[tuple[str, str], list[Row]] = {}
    for row in table.failures:
        by_error.setdefault((row["status"], str(row["error"] or "").split("\n")[0]), []).append(row)
    names = short_names(table.single_folds.distinguishing_paths)
    for (status, error), (row, *others) in list(by_error.items())[:_MAX_FAILURES]:
        texts = table.single_folds.described[row["key"]]
        options = ", ".join(f"{setting_of(path)} = {texts[name]}" for path, name in names.items() if name in texts)
        more = f" (and {len(others)} more with the same error)" if others else ""
        notes.append(f"{status}: {row['key']}/{row['repetition']} ({options or 'no options'}): {error}{more}")
    n_more = sum(len(rows) for rows in list(by_error.values())[_MAX_FAILURES:])
    if n_more:
        notes.append(f"and {n_more} more that failed or diverged, see `error` in tables/trials.csv")
    return notes
