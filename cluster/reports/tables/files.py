"""The files of an experiment's `tables/` folder."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.reports.tables.summary import summary_markdown, summary_text
from cluster.results.results import Results, Row
from cluster.storage.folders import ExperimentFolder


def write_tables(table: Results, folder: ExperimentFolder) -> None:
    """Writes trials.csv, trials.parquet, summary.csv, summary.md and summary.txt."""
    trials = table.single_folds.trials
    folder.write_table("trials.csv", csv_bytes(trials))
    folder.write_table("trials.parquet", parquet_bytes(trials))
    folder.write_table("summary.csv", csv_bytes(table.summary))
    folder.write_table("summary.md", summary_markdown(table).encode())
    folder.write_table("summary.txt", summary_text(table).encode())


def csv_bytes(rows: Sequence[Row]) -> bytes:
    """Returns rows as CSV; floats with all their digits, None as an empty field.

    A NUL in a text, which Python 3.10 cannot write and few programs can read, becomes a backslash and a zero. A text
    that a spreadsheet would interpret as a formula stays as it is, because other programs that read these files would
    not remove a prefix. The workbook is for spreadsheets.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v.replace("\0", "\\0") if isinstance(v, str) else v for k, v in row.items()})
    return buffer.getvalue().encode()


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """Returns rows as Parquet; a column with values of several types, or with too large integers, contains strings."""
    columns = {name: _parquet_column([row[name] for row in rows]) for name in rows[0]}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


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
