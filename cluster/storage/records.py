"""Long records: one number a row, `trial_id, epoch, batch, split, subset, space, metric, value`.

They never hold option columns: options live in each trial's JSON, since one option may be a number in one trial and a
string in another.
"""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from posenet.record import Record

_ROWS_OF_A_GROUP = 2**16

_TEXT = pa.dictionary(pa.int32(), pa.string())  # few different texts, each many times

_SCHEMA = pa.schema(
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


def to_parquet(trial_id: str, rows: Sequence[Record]) -> bytes:
    """Returns a trial's records as the content of a Parquet file."""
    columns = list(zip(*rows, strict=True)) or [()] * len(Record._fields)
    table = pa.table([[trial_id] * len(rows), *columns], schema=_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    content: bytes = buffer.getvalue()
    return content


def joined(contents: Sequence[bytes]) -> bytes:
    """Returns several files of records as one, with their rows in the same order.

    Raises:
        ValueError: If one of them is not such a file.
    """
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        waiting: list[pa.Table] = []
        for n, content in enumerate(contents, 1):
            waiting.append(_read(content))
            # A few at a time: all of them would fill the memory, and each alone would make the file large.
            if n == len(contents) or sum(map(len, waiting)) >= _ROWS_OF_A_GROUP:
                writer.write_table(pa.concat_tables(waiting).unify_dictionaries().combine_chunks())
                waiting = []
    joined: bytes = buffer.getvalue()
    return joined


def are_joinable(data: bytes) -> bool:
    """Tells whether the bytes are a file of records that `joined` would take as a whole."""
    try:
        return bool(_read(data).schema.names == pq.read_schema(io.BytesIO(data)).names)
    except ValueError:
        return False


def from_parquet(data: bytes) -> list[Record]:
    """Returns the records of one trial.

    Raises:
        ValueError: If the bytes are not such a file.
    """
    table = _read(data)
    columns: list[list[Any]] = [table.column(name).to_pylist() for name in Record._fields]
    return [Record(*values) for values in zip(*columns, strict=True)]


def _read(data: bytes) -> pa.Table:
    try:
        table = (
            pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
            .read(use_threads=False)
            .select(_SCHEMA.names)
            .cast(_SCHEMA)
        )
        table.validate(full=True)
    except Exception as error:
        # What pyarrow raises depends on the damage.
        raise ValueError(f"not a file of records: {error}") from error
    return table
