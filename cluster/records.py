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
    return buffer.getvalue()


def from_parquet(data: bytes) -> list[Record]:
    """Returns the records of one trial.

    Raises:
        ValueError: If the bytes are not such a file.
    """
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True).select(_SCHEMA.names).cast(_SCHEMA)
        columns: list[list[Any]] = [table.column(name).to_pylist() for name in Record._fields]
    except Exception as error:
        # What pyarrow raises depends on the damage.
        raise ValueError(f"not a file of records: {error}") from error
    return [Record(*values) for values in zip(*columns, strict=True)]
