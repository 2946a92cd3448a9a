"""One way from an experiment's results to every format."""

from dataclasses import replace
from typing import Literal, Protocol, get_args

from cluster.reports.by_joint import ByJointTable
from cluster.reports.choices import Choices
from cluster.reports.columns import Style
from cluster.reports.combinations import CombinationTable
from cluster.reports.files import csv_bytes, parquet_bytes
from cluster.reports.grid import Grid
from cluster.reports.html_table import html_table
from cluster.reports.latex import latex
from cluster.reports.markdown import markdown
from cluster.reports.pivot import PivotTable
from cluster.reports.trial_rows import TrialTable
from cluster.reports.xlsx import Sheet, workbook
from cluster.results import Results, Row
from cluster.trial_folder import ExperimentFolder

Format = Literal["csv", "parquet", "md", "latex", "html", "xlsx"]

FORMATS: tuple[Format, ...] = get_args(Format)


class _Table(Protocol):
    """What can be written: for programs, and for reading."""

    def records(self) -> list[Row]: ...

    def styles(self) -> dict[str, Style]: ...

    def grid(self) -> Grid: ...


def export(results: Results, format: Format, choices: Choices) -> bytes:
    """Returns an experiment's results in a format.

    Args:
        results: The experiment's results.
        format: 'csv', 'parquet' and 'xlsx' are for programs; 'md', 'latex' and 'html' are for reading.
        choices: What is shown. A workbook has the trials of these combinations on a second sheet, but for the columns
            of single subsets; with `trials` it has them alone, and all of their columns.

    Raises:
        ChoiceError: If the experiment does not have what was chosen.
    """
    table: _Table
    if choices.rows is not None and choices.columns_of is not None:
        table = PivotTable(results, choices, choices.rows, choices.columns_of)
    elif choices.trials:
        table = TrialTable(results, choices)
    else:
        table = CombinationTable(results, choices)
    if format != "xlsx":
        return _written(table, format, choices)
    if choices.trials:
        return workbook([Sheet("trials", table.records(), table.styles())], choices.precision)
    # A million cells, as all columns of ten thousand trials would be, take long to write and to open.
    of_subsets = tuple(f"[{subset}]" for split in results.splits for subset in results.subsets(split))
    columns = tuple(name for name in results.trials[0] if not name.endswith(of_subsets))
    trials = TrialTable(results, replace(choices, columns=columns, sort=None, rows=None, columns_of=None))
    sheets: list[tuple[str, _Table]] = [("summary", table), ("trials", trials)]
    return workbook([Sheet(name, shown.records(), shown.styles()) for name, shown in sheets], choices.precision)


def export_by_joint(folder: ExperimentFolder, results: Results, format: Format, choices: Choices) -> bytes:
    """Returns the best combination's error of each finger and each joint, before and after, in a format.

    Args:
        folder: The experiment's folder, whose records have these numbers.
        results: The experiment's results.
        format: As for `export`.
        choices: The split, the precision, and whether LaTeX is a whole document.

    Raises:
        ChoiceError: If no trial of that combination has finished, or its records are gone.
    """
    table = ByJointTable(folder, results, choices)
    if format == "xlsx":
        return workbook([Sheet("by joint", table.records(), table.styles())], choices.precision)
    return _written(table, format, choices)


def _written(table: _Table, format: Literal["csv", "parquet", "md", "latex", "html"], choices: Choices) -> bytes:
    if format == "csv":
        return csv_bytes(table.records())
    if format == "parquet":
        return parquet_bytes(table.records())
    if format == "md":
        return markdown(table.grid()).encode()
    if format == "html":
        return html_table(table.grid()).encode()
    return latex(table.grid(), standalone=choices.standalone).encode()
