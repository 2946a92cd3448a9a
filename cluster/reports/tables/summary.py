"""The table of all combinations, and the summary of an experiment in the terminal and as Markdown."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from cluster.reports.formats.grid import MISSING, Cell, Grid, number_cell, option_texts, signed
from cluster.reports.formats.markdown import escaped, markdown
from cluster.reports.formats.terminal import terminal_table
from cluster.reports.tables.captions import (
    OVER_FOLDS,
    SPLIT_NAMES,
    distances,
    folds_of,
    in_brackets,
    over_folds,
    without_interval,
)
from cluster.reports.tables.columns import intervals_record
from cluster.results.change_intervals import ChangeIntervals
from cluster.results.lookup import short_keys
from cluster.results.results import Results, Row, SummaryColumns, fold_std_column
from data_pipeline.subsets import FUSED_SUBSET

Intervals = Mapping[str, ChangeIntervals | None] | None
"""The intervals of changes on the reported split, by the combination's key; None for a table without intervals."""

_MAX_ROWS = 40
_MAX_FAILURES = 20


def summary_text(table: Results, *, with_keys: bool = False, intervals: Intervals = None) -> str:
    """Returns the summary for a terminal: the first combinations, and what did not finish.

    Args:
        table: The results.
        with_keys: Whether the first column shows the beginnings of the combinations' keys.
        intervals: The intervals of changes.
    """
    grid = summary_grid(table, intervals)
    if with_keys:
        keys = short_keys(table)
        rows = [[Cell(keys[key]), *row] for key, row in zip(grid.keys, grid.rows, strict=True)]
        grid = replace(
            grid, headers=["key", *grid.headers], rows=rows, n_labels=grid.n_labels + 1, spans=[("", 1), *grid.spans]
        )
    lines = [_title(table), "", terminal_table(replace(grid, rows=grid.rows[:_MAX_ROWS]))]
    if len(grid.rows) > _MAX_ROWS:
        lines += ["", f"and {len(grid.rows) - _MAX_ROWS} more combinations, all in tables/summary.csv"]
    notes = distances(table, table.summary, table.split)
    notes += without_interval(table.summary, intervals)
    notes = [textwrap.fill(note, 120) for note in notes]
    return "\n".join([*lines, "", textwrap.fill(grid.caption, 120), *notes, *_notes(table)]).rstrip() + "\n"


def summary_markdown(table: Results) -> str:
    """Returns the summary of all combinations as Markdown."""
    return f"# {escaped(table.name)}\n\n{markdown(summary_grid(table))}"


def summary_grid(table: Results, intervals: Intervals = None) -> Grid:
    """Returns all combinations with their mean distance before and after on each split.

    Combinations that were measured on the same data are listed together.

    Args:
        table: The results.
        intervals: The intervals of changes.
    """
    parts, paths = table.by_data(), table.distinguishing_paths
    rows = [row for part in parts.values() for row in part.summary]
    columns = [list(map(Cell, option_texts([row[path] for row in rows]))) for path in paths]
    columns.append([Cell(_n(row), is_number=True) for row in rows])
    headers, spans = [*paths, "n"], [("", len(paths) + 1)]
    for split in table.splits:
        known = intervals if intervals and split == table.split else {}
        columns += map(list, zip(*(_results(row, split, known.get(row["key"])) for row in rows), strict=True))
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
            *without_interval(rows, intervals),
            *_notes(table),
        ],
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
    trials = "1 trial" if len(rows) == 1 else f"{len(rows)} trials"
    return f"{table.name}: {trials}, {', '.join(parts)}"


def _results(row: Row, split: str, intervals: ChangeIntervals | None) -> list[Cell]:
    columns = SummaryColumns.of(split)
    change = row[columns.change_percent]
    return [
        number_cell(row[columns.before], precision=2),
        number_cell(row[columns.mean], row[columns.std], precision=2),
        MISSING if change is None else Cell(percent_and_interval(change, intervals), is_number=True),
    ]


def _n(row: Row) -> str:
    parts = [str(row["n"])]
    parts += [f"{row[status]} {status}" for status in ("failed", "diverged") if row[status]]
    return ", ".join(parts)


def _caption(table: Results, *, n_data: int) -> str:
    text = "Mean distance per joint in mm: mean ± sample standard deviation over n finished repetitions. "
    text += "Best in validation first"
    if n_data > 1:
        text += "; those measured on the same data are listed together"
    if any(0 < row["n"] < table.n_repetitions for row in table.summary):
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
    if table.n_others:
        notes.append(f"{table.n_others} trials with other settings are kept in trials/ but not shown.")
    by_error: dict[tuple[str, str], list[Row]] = {}
    for row in table.failures:
        by_error.setdefault((row["status"], str(row["error"] or "").split("\n")[0]), []).append(row)
    for (status, error), (row, *others) in list(by_error.items())[:_MAX_FAILURES]:
        paths = table.single_folds.distinguishing_paths
        options = ", ".join(f"{path} = {option_texts([row[path]])[0]}" for path in paths)
        more = f" (and {len(others)} more with the same error)" if others else ""
        notes.append(f"{status}: {row['key']}/{row['repetition']} ({options or 'no options'}): {error}{more}")
    n_more = sum(len(rows) for rows in list(by_error.values())[_MAX_FAILURES:])
    if n_more:
        notes.append(f"and {n_more} more that failed or diverged, see `error` in tables/trials.csv")
    return notes
