import io
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.records import from_parquet, to_parquet
from posenet.record import Record

numbers = st.integers(0, 2**31 - 1)
texts = st.sampled_from(["train", "val", "DeepPrior++", "mean", "distance[IMCP]", "ü"])
records = st.lists(st.builds(Record, numbers, numbers, texts, texts, texts, texts, st.floats()), max_size=20)


def bits(rows):
    return [(*row[:-1], struct.pack("<d", row.value)) for row in rows]


@pytest.fixture
def content():
    rows = [
        Record(epoch, 3, "val", subset, "original", metric, epoch / 3)
        for epoch in range(1, 200)
        for subset in ("mean", "A")
        for metric in ("distance", "auc_0_50")
    ]
    return to_parquet("0123456789abcdef/2", rows)


@given(records)
def test_records_are_read_as_they_were_written_to_the_bit(rows):
    assert bits(from_parquet(to_parquet("key/0", rows))) == bits(rows)


def test_a_file_of_records_is_a_long_table_with_the_trials_id_and_no_option(content):
    table = pq.read_table(io.BytesIO(content))
    assert table.column_names == ["trial_id", "epoch", "batch", "split", "subset", "space", "metric", "value"]
    assert set(table["trial_id"].to_pylist()) == {"0123456789abcdef/2"}
    assert table.schema.field("value").type == pa.float64()
    assert table.num_rows == 199 * 4


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_broken_file_is_an_error_and_never_other_numbers(content, damage):
    rows = bits(from_parquet(content))
    for at in range(0, len(content), max(1, len(content) // 150)):
        broken = content[:at] if damage == "cut" else content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
        try:
            read = from_parquet(broken)
        except ValueError as error:
            assert "not a file of records" in str(error)  # noqa: PT017 - whether there is one depends on the byte
        else:
            assert bits(read) == rows


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}", b"PAR1" * 10])
def test_what_is_no_parquet_is_an_error(content):
    with pytest.raises(ValueError, match="not a file of records"):
        from_parquet(content)


def test_parquet_of_something_else_is_an_error():
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), buffer)
    with pytest.raises(ValueError, match="not a file of records"):
        from_parquet(buffer.getvalue())
