"""Long records: one number per row, `trial_id, epoch, batch, split, subset, space, metric, value`.

They have no columns for options, which are in each trial's JSON file: an option may be a number in one trial and a
string in another.
"""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.bounded import open_parquet
from posenet.record import Record

_ROWS_PER_GROUP = 2**16

_TEXT = pa.dictionary(pa.int32(), pa.string())  # few distinct texts, each many times

SCHEMA = pa.schema(
    {
        "trial_id": _TEXT,
        "epoch": pa.int32(),
        "batch": pa.int32(),
        "split": _TEXT,
        "subset": _TEXT,
        "space": _TEXT,
        "metric": _TEXT,
        "value": pa.float64(),
    }
)
"""The columns of a file of records."""


def to_parquet(trial_id: str, rows: Sequence[Record]) -> bytes:
    """Returns a trial's records as the content of a Parquet file."""
    columns = list(zip(*rows, strict=True)) or [()] * len(Record._fields)
    table = pa.table([[trial_id] * len(rows), *columns], schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    content: bytes = buffer.getvalue()
    return content


def joined(contents: Sequence[bytes]) -> bytes:
    """Returns several files of records as one, with their rows in the same order.

    Raises:
        ValueError: If one of them is not a file of records.
    """
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        tables: list[pa.Table] = []
        for n, content in enumerate(contents, 1):
            tables.append(_read(content))
            # A few at a time: all together would fill the memory, and one at a time would make the file large.
            if n == len(contents) or sum(map(len, tables)) >= _ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(tables).unify_dictionaries().combine_chunks())
                tables = []
    joined: bytes = buffer.getvalue()
    return joined


def are_joinable(data: bytes) -> bool:
    """Returns whether the bytes are a file of records that `joined` would keep completely."""
    try:
        return bool(_read(data).schema.names == pq.read_schema(io.BytesIO(data)).names)
    except ValueError:
        return False


def from_parquet(data: bytes) -> list[Record]:
    """Returns the records of one trial.

    Raises:
        ValueError: If the bytes are not a file of records.
    """
    table = _read(data)
    columns: list[list[Any]] = [table.column(name).to_pylist() for name in Record._fields]
    return [Record(*values) for values in zip(*columns, strict=True)]


def open_records(data: bytes) -> pq.ParquetFile:
    """Opens a file of records, also of several trials.

    Raises:
        ValueError: If it has other columns; for others see `open_parquet`.
    """
    file = open_parquet(data, texts=[field.name for field in SCHEMA if field.type == _TEXT])
    for field in SCHEMA:
        if field.name not in file.schema_arrow.names or file.schema_arrow.field(field.name).type != field.type:
            raise ValueError(f"it has no column {field.name} of the type {field.type}")
    return file


def _read(data: bytes) -> pa.Table:
    try:
        table = open_records(data).read(columns=SCHEMA.names, use_threads=False).select(SCHEMA.names).cast(SCHEMA)
        table.validate(full=True)
    except Exception as error:
        # What pyarrow raises depends on the damage.
        raise ValueError(f"not a file of records: {error}") from error
    return table
