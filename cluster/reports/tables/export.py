"""Exports an experiment's results in every format."""

from dataclasses import replace
from typing import Literal, Protocol, get_args

from cluster.reports.formats.grid import Grid
from cluster.reports.formats.html_table import html_table
from cluster.reports.formats.json_text import json_text
from cluster.reports.formats.latex import latex
from cluster.reports.formats.markdown import markdown
from cluster.reports.formats.xlsx import Sheet, Style, workbook
from cluster.reports.tables.by_group import GroupTable
from cluster.reports.tables.combinations import CombinationTable
from cluster.reports.tables.effects import MeanTable, effects_of, interaction_table
from cluster.reports.tables.files import csv_bytes, parquet_bytes
from cluster.reports.tables.pivot import PivotTable
from cluster.reports.tables.table_options import TableOptions
from cluster.reports.tables.trials import TrialTable
from cluster.results.groups import Grouping
from cluster.results.results import Results
from cluster.results.rows import Row
from cluster.storage.folders import ExperimentFolder

Format = Literal["csv", "json", "parquet", "md", "latex", "html", "xlsx"]

FORMATS: tuple[Format, ...] = get_args(Format)

_MAX_CELLS = 200_000
"""The largest number of trials' cells in a workbook with a summary: more cells are slow to write and to open."""


class _Table(Protocol):
    """The formats: for programs, and for reading."""

    def records(self) -> list[Row]: ...

    def styles(self) -> dict[str, Style]: ...

    def grid(self) -> Grid: ...


def export(results: Results, format: Format, table_options: TableOptions) -> bytes:
    """Returns an experiment's results in a format.

    Args:
        results: The experiment's results.
        format: 'csv', 'json', 'parquet' and 'xlsx' are for programs; 'md', 'latex' and 'html' are for reading.
        table_options: What to show. A workbook has the trials of these combinations on a second sheet, without the
            columns of single subsets, unless there are very many trials; with `trials` it has only the trials, with all
            columns.

    Raises:
        ChoiceError: If the experiment does not have what was chosen, or if a table is too long for LaTeX.
    """
    table: _Table
    if table_options.rows is not None and table_options.columns_of is not None:
        table = PivotTable(results, table_options, table_options.rows, table_options.columns_of)
    elif table_options.trials:
        table = TrialTable(results, table_options)
    else:
        table = CombinationTable(results, table_options)
    if format != "xlsx":
        return _written(results, table, format, table_options)
    if table_options.trials:
        return workbook([Sheet("trials", table.records(), table.styles())], table_options.precision)
    summary = Sheet("summary", table.records(), table.styles())
    of_subsets = tuple(f"[{subset}]" for split in results.splits for subset in results.subsets(split))
    columns = tuple(name for name in results.single_folds.trials[0] if not name.endswith(of_subsets))
    trials = TrialTable(results, replace(table_options, columns=columns, sort=None, rows=None, columns_of=None))
    n = len(trials.rows)
    if n * len(columns) > _MAX_CELLS:
        left_out = f"The {n:,} trials are too many for a sheet. `posetune report export NAME trials` exports them."
        return workbook([summary, Sheet("trials", [{left_out: None}], {})], table_options.precision)
    return workbook([summary, Sheet("trials", trials.records(), trials.styles())], table_options.precision)


def export_groups(
    folder: ExperimentFolder, results: Results, by: Grouping, format: Format, table_options: TableOptions
) -> bytes:
    """Returns the errors of the best combination, or of several, by group in a format.

    Args:
        folder: The experiment's folder, whose files have these numbers.
        results: The experiment's results.
        by: What distinguishes the groups.
        format: As for `export`.
        table_options: The metric, the split, the precision, which combinations to show, and whether LaTeX is a whole
            document.

    Raises:
        ChoiceError: If no trial of a shown combination has finished, or if its errors by group are not known.
    """
    table = GroupTable(folder, results, by, table_options)
    if format == "xlsx":
        return workbook([Sheet(f"by {by}", table.records(), table.styles())], table_options.precision)
    return _written(results, table, format, table_options)


def export_effects(results: Results, format: Format, table_options: TableOptions, *, interactions: bool) -> bytes:
    """Returns the effects of options, or of pairs of options, on a metric in a format.

    Args:
        results: The experiment's results.
        format: As for `export`.
        table_options: The metric, the split and the precision.
        interactions: Whether to return the effects of pairs.

    Raises:
        ChoiceError: If no option varies, for interactions if only one option varies, or if no trial has finished.
    """
    effects = effects_of(results, table_options)
    table = (
        interaction_table(results, effects, table_options)
        if interactions
        else MeanTable(results, effects, table_options)
    )
    if format == "xlsx":
        name = "interactions" if interactions else "effects"
        return workbook([Sheet(name, table.records(), table.styles())], table_options.precision)
    return _written(results, table, format, table_options)


def _written(results: Results, table: _Table, format: Format, table_options: TableOptions) -> bytes:
    if format == "csv":
        return csv_bytes(table.records())
    if format == "json":
        return json_text(table.records()).encode()
    if format == "parquet":
        return parquet_bytes(table.records(), results.single_folds.option_paths)
    if format == "md":
        return markdown(table.grid()).encode()
    if format == "html":
        return html_table(table.grid()).encode()
    return latex(
        table.grid(), standalone=table_options.standalone, fit=table_options.fit, size=table_options.size
    ).encode()
