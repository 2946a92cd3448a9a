"""Small files that claim any size, and large files of nothing."""

import io
import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import bounded
from cluster.storage.bounded import open_parquet, read_array, read_arrays
from cluster.storage.filesystem import Storage, StorageError


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def header(shape, descr="'<f8'"):
    """An npy file with a header that says anything, and 8 bytes."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8)


class TestAnArray:
    @pytest.mark.parametrize(
        "array",
        [
            np.arange(6.0).reshape(2, 3),
            np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
            np.zeros((0, 3), np.float32),
            np.array(5),
        ],
    )
    def test_is_read_as_numpy_reads_it(self, array):
        found = read_array(npy(array))
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x93NUMPY\x09\x00",
            npy(np.arange(9))[:-1],
            npy(np.arange(9)) + b"x",
            header("(1000000000000000,)"),
            header("(-1,)"),
            header("(1, 10**30, 0)"),
            header("(1.0,)"),
            header("(1,)", "'|O'"),
            header("(1,)", "'|V0'"),
            header("(" * 5_000),
        ],
    )
    def test_that_is_not_as_large_as_its_header_claims_is_broken(self, content):
        with pytest.raises(ValueError, match="not an npy file"):
            read_array(content)


class TestArrays:
    def test_are_read_as_numpy_reads_them(self):
        arrays = {"a": np.arange(5), "b": np.ones((2, 3), np.float32)}
        found = read_arrays(npz(**arrays, c=np.zeros(1)), ["a", "b"])
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)

    def test_that_would_fill_the_memory_are_not_unpacked(self, monkeypatch):
        monkeypatch.setattr(bounded, "_MAX_BYTES", 10_000)
        content = npz(a=np.zeros(1_000), b=np.zeros(1_000))
        assert len(content) < 1_000
        assert read_arrays(content, ["a"])["a"].size == 1_000
        with pytest.raises(ValueError, match="it claims 16,256 bytes; 10,000 are allowed"):
            read_arrays(content, ["a", "b"])

    def test_that_claim_to_be_smaller_than_they_are_are_broken(self):
        content = npz(a=np.zeros(1_000))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (entry,) = archive.infolist()
        size = entry.file_size.to_bytes(4, "little")
        assert size in content
        with pytest.raises(ValueError, match="not an npz file"):
            read_arrays(content.replace(size, (200).to_bytes(4, "little")), ["a"])

    @pytest.mark.parametrize("content", [b"", b"PK", npz(b=np.zeros(1)), npy(np.zeros(1))])
    def test_that_are_missing_are_an_error(self, content):
        with pytest.raises(ValueError, match="not an npz file"):
            read_arrays(content, ["a"])


def parquet(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


class TestATable:
    def test_with_more_rows_than_it_may_have_is_not_read(self):
        content = parquet(pa.table({"a": np.zeros(100_000)}))
        assert len(content) < 2_000
        assert open_parquet(content, texts=[], max_rows=100_000).read().num_rows == 100_000
        with pytest.raises(ValueError, match="it claims 100,000 rows; 99,999 are allowed"):
            open_parquet(content, texts=[], max_rows=99_999)

    def test_that_would_fill_the_memory_is_not_read(self, monkeypatch):
        monkeypatch.setattr(bounded, "_MAX_BYTES", 10_000)
        with pytest.raises(ValueError, match="bytes; 10,000 are allowed"):
            open_parquet(parquet(pa.table({"a": np.random.default_rng(0).normal(size=2_000)})), texts=[])

    def test_that_repeats_a_long_text_holds_it_once(self):
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000), ["x" * 100_000])
        content = parquet(pa.table({"a": column}))
        assert len(content) < 10_000
        assert open_parquet(content, texts=["a"]).read().nbytes < 1_000_000  # 2 GB as single texts


@pytest.mark.parametrize("name", ["experiment.json", "trial.json", "records.parquet"])
def test_a_file_with_nothing_but_holes_is_not_read_and_the_error_says_what_to_do(name, tmp_path):
    with (tmp_path / name).open("wb") as file:
        os.truncate(file.fileno(), 2**40)
    with pytest.raises(StorageError, match=rf"{name} has more than 17,179,869,184 bytes, .*; remove it"):
        Storage(tmp_path).read(name)


def test_folders_that_are_nested_deeper_than_any_run_nests_them_are_an_error_that_names_the_outermost(tmp_path):
    storage = Storage(tmp_path)
    storage.write("trials/key/0/plots/picture.png", b"")
    assert storage.files("trials") == ["key/0/plots/picture.png"]
    with storage.opened("trials/deep/" + "/".join("d" * 40), make=True):
        pass
    for path, inner in (("trials", "trials/deep/d"), ("", "trials/deep")):
        with pytest.raises(StorageError, match=rf"{tmp_path}/{inner} has folders in folders.*remove it"):
            storage.files(path)
