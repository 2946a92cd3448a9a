"""Tables and arrays in files that may come from anywhere, read within bounds: a small file can claim any size."""

import io
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

MAX_ROWS = 2**26
"""The longest table that is read: the records of ten thousand trials have fewer rows."""

_MAX_BYTES = 2**31
"""The largest content of a compressed file."""


def open_parquet(content: bytes, *, texts: Sequence[str], max_rows: int = MAX_ROWS) -> pq.ParquetFile:
    """Opens the content of a Parquet file.

    Args:
        content: The content.
        texts: Columns of texts. They are read as dictionaries, since a file of a few bytes can repeat a long text.
        max_rows: The largest number of rows.

    Raises:
        ValueError: If it has more rows, or would be larger than 2 GiB in memory.
        pyarrow.ArrowException: If it is not a Parquet file.
    """
    metadata = pq.read_metadata(pa.BufferReader(content))
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    n_values = [metadata.num_rows, sum(group.num_rows for group in groups), *(column.num_values for column in columns)]
    n_bytes = sum(column.total_uncompressed_size for column in columns)
    if min(n_values) < 0 or max(n_values) > max_rows:
        raise ValueError(f"it claims {max(n_values):,} rows; {max_rows:,} are allowed")
    if not 0 <= n_bytes <= _MAX_BYTES:
        raise ValueError(f"it claims {n_bytes:,} bytes; {_MAX_BYTES:,} are allowed")
    return pq.ParquetFile(
        pa.BufferReader(content),
        metadata=metadata,
        read_dictionary=[name for name in texts if name in metadata.schema.names],
        page_checksum_verification=True,
    )


def read_array(content: bytes) -> npt.NDArray[Any]:
    """Returns the array of an npy file; it shares the memory of `content`.

    Raises:
        ValueError: If the file is broken, if its header claims another size than it has, or if it holds objects.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = read_header[version](file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
            raise ValueError(f"its header claims the shape {shape} of {dtype}")
        array = np.frombuffer(content, dtype, offset=file.tell())
        return array.reshape(shape, order="F" if is_fortran else "C")
    except Exception as error:
        # What numpy raises depends on the damage.
        raise ValueError(f"not an npy file: {error}") from error


def read_arrays(content: bytes, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Returns arrays of an npz file by their names.

    Raises:
        ValueError: If the file is broken, if an array is missing, or if they would be larger than 2 GiB together.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {name: archive.getinfo(f"{name}.npy") for name in names}
            n_bytes = sum(entry.file_size for entry in entries.values())
            if n_bytes > _MAX_BYTES:
                raise ValueError(f"it claims {n_bytes:,} bytes; {_MAX_BYTES:,} are allowed")
            return {name: read_array(archive.read(entry)) for name, entry in entries.items()}
    except Exception as error:
        # What zipfile raises depends on the damage.
        raise ValueError(f"not an npz file: {error}") from error
