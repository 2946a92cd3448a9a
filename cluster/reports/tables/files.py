"""The files of an experiment's `tables/` folder."""

import csv
import io
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.reports.formats.xlsx import FORMULA_STARTS
from cluster.reports.tables.summary import summary_markdown, summary_text
from cluster.results.names import NOT_APPLICABLE
from cluster.results.results import Results
from cluster.results.rows import Row
from cluster.storage.folders import ExperimentFolder


def write_tables(table: Results, folder: ExperimentFolder) -> None:
    """Writes trials.csv, trials.parquet, summary.csv, summary.md and summary.txt."""
    trials = table.single_folds.trials
    folder.write_table("trials.csv", csv_bytes(trials))
    folder.write_table("trials.parquet", parquet_bytes(trials, table.single_folds.option_paths))
    folder.write_table("summary.csv", csv_bytes(table.summary))
    folder.write_table("summary.md", summary_markdown(table).encode())
    folder.write_table("summary.txt", summary_text(table).encode())


def csv_bytes(rows: Sequence[Row]) -> bytes:
    r"""Returns rows as CSV; floats with all their digits, None as an empty field.

    In a text, a NUL becomes \0, because Python 3.10 cannot write it and few programs can read it, and a carriage return
    becomes \r, because Python may not quote it and spreadsheets begin a row there. A text that a spreadsheet would run
    as a formula gets an apostrophe in front, as one types it in a spreadsheet; numbers get none.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_csv_cell, rows[0]))
    for row in rows:
        writer.writerow([_csv_cell(row[name]) for name in rows[0]])
    return buffer.getvalue().encode()


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "\\0").replace("\r", "\\r")
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def parquet_bytes(rows: Sequence[Row], option_paths: Collection[str] = ()) -> bytes:
    """Returns rows as Parquet; a column with values of several types, or with too large integers, contains strings.

    None is a value of an option like any other, so an option with None and other values has strings, and 'None' is not
    read as NaN. An option that does not apply is null, so that numbers remain numbers. In other columns None means
    missing and is null.

    Args:
        rows: The rows.
        option_paths: The columns that contain options.
    """
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        columns[name] = _parquet_column(_without_none(values) if name in option_paths else values)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _without_none(values: Sequence[Any]) -> list[Any]:
    if None in values and any(value is not None for value in values):
        values = list(map(str, values))
    return [None if value == NOT_APPLICABLE else value for value in values]


def _parquet_column(values: Sequence[Any]) -> pa.Array:
    types = {type(value) for value in values if value is not None}
    try:
        if types == {int, float}:
            return pa.array([None if value is None else float(value) for value in values])
        if len(types) <= 1:
            return pa.array(values)
    except (OverflowError, pa.ArrowException):
        pass  # an integer of more than 64 bits, or lists of unlike values
    return pa.array([None if value is None else str(value) for value in values])
