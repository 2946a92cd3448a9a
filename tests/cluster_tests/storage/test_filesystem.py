import errno
import os
import pickle
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from cluster.planning.config import ConfigError
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.lock import experiment_lock


@pytest.fixture(params=["local", "remote", "remote with folders"])
def storage(request, tmp_path, monkeypatch):
    """A folder that does not exist yet, on this machine or in a filesystem that pyarrow opens."""
    if request.param == "local":
        return Storage(tmp_path / "results" / "x")
    if request.param == "remote with folders":
        monkeypatch.setattr(Storage, "_remote", lambda self: (LocalFileSystem(), f"{tmp_path}/results/x"))
        return Storage("hdfs://host/results/x")
    return Storage(f"fsspec+memory:///{uuid.uuid4().hex}/results/x")


class TestAFile:
    def test_is_read_as_it_was_written_in_folders_that_were_not_there(self, storage):
        storage.write("trials/k/0/trial.json", b"content")
        assert storage.read("trials/k/0/trial.json") == b"content"
        storage.write("trials/k/0/trial.json", b"")
        assert storage.read("trials/k/0/trial.json") == b""

    def test_that_is_not_there_is_none_and_can_be_removed(self, storage):
        assert storage.read("a") is None
        storage.remove("a")
        storage.write("file", b"x")
        assert storage.read("file/below") is None
        assert storage.read("other/a") is None

    def test_that_is_removed_is_gone(self, storage):
        storage.write("a/b", b"1")
        storage.write("a/c", b"2")
        storage.remove("a/b")
        assert (storage.read("a/b"), storage.read("a/c")) == (None, b"2")

    def test_is_listed_with_the_others_in_order(self, storage):
        for name in ("b/2", "b/10", "a", "b/1/x"):
            storage.write(name, b"")
        assert storage.names() == ["a", "b"]
        assert storage.names("b") == ["1", "10", "2"]
        assert storage.names("none") == storage.names("a/below") == []

    @given(content=st.binary(max_size=200))
    def test_holds_any_bytes(self, content):
        storage = Storage(f"fsspec+memory:///{uuid.uuid4().hex}")
        storage.write("file", content)
        assert storage.read("file") == content


class TestALocation:
    def test_grows_by_names(self, tmp_path):
        assert (Storage(tmp_path) / "a" / "b").location == f"{tmp_path}/a/b"
        assert (Storage("s3://bucket/results/") / "a").location == "s3://bucket/results/a"

    def test_that_is_a_path_is_local(self, tmp_path):
        assert Storage("results/x").local == Path("results/x").absolute()
        assert (Storage(tmp_path) / "x").local == tmp_path / "x"
        assert Storage("s3://bucket").local is None

    def test_that_is_a_file_uri_is_the_path(self, tmp_path):
        storage = Storage(f"{(tmp_path / 'a b').as_uri()}") / "x"
        assert storage.local == tmp_path / "a b" / "x"
        storage.write("file", b"1")
        assert (tmp_path / "a b" / "x" / "file").read_bytes() == b"1"

    @pytest.mark.parametrize("location", ["file://host/x", "file:/x", "file://", "file:x"])
    def test_that_is_another_file_uri_is_an_error(self, small_experiment, location):
        with pytest.raises(StorageError, match=f"^{location} is not a local folder; write file:///folder"):
            Storage(location)
        with pytest.raises(ConfigError, match=rf"experiment_config\.storage_path: {location} is not a local folder"):
            small_experiment.experiment({"experiment_config.storage_path": location})

    def test_may_begin_with_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        storage = Storage("~/results") / "~"
        assert (storage.location, storage.local) == (f"{tmp_path}/results/~", tmp_path / "results" / "~")
        storage = Storage(Path("~"))
        assert storage.local == tmp_path

    def test_that_is_remote_is_opened_once_for_all_its_folders(self):
        storage = Storage(f"fsspec+memory:///{uuid.uuid4().hex}")
        (filesystem, root), (other, folder) = storage._remote(), (storage / "a" / "b")._remote()
        assert other is filesystem
        assert folder == f"{root}/a/b"

    def test_can_be_sent_to_another_process(self):
        storage = Storage(f"fsspec+memory:///{uuid.uuid4().hex}") / "x"
        storage.write("file", b"1")
        assert pickle.loads(pickle.dumps(storage)).read("file") == b"1"

    def test_keeps_the_options_of_its_uri(self):
        storage = Storage("s3://bucket/results?region=eu-west-1") / "x"
        assert storage.location == "s3://bucket/results/x"
        filesystem, root = storage._remote()
        assert (filesystem.region, root) == ("eu-west-1", "bucket/results/x")

    @pytest.mark.parametrize("location", ["s3:///x", "nothing://bucket/x", "fsspec+nothing://x"])
    def test_that_pyarrow_does_not_know_is_an_error(self, location):
        for use in (lambda s: s.write("a", b""), lambda s: s.read("a"), lambda s: s.remove("a"), lambda s: s.names()):
            with pytest.raises(
                StorageError, match=f"^{location.replace('+', '.')} is not a place that pyarrow can open: "
            ):
                use(Storage(location))


def test_a_file_that_two_remove_at_once_is_an_error_for_neither(monkeypatch):
    storage = Storage(f"fsspec+memory:///{uuid.uuid4().hex}")
    storage.write("file", b"1")
    filesystem, root = storage._remote()

    class RemovedInBetween:
        def get_file_info(self, path):
            info = filesystem.get_file_info(path)
            filesystem.delete_file(path)
            return info

        def delete_file(self, path):
            raise FileNotFoundError(errno.ENOENT, f"Path does not exist '{path}'")

    monkeypatch.setattr(Storage, "_remote", lambda self: (RemovedInBetween(), root))
    storage.remove("file")


class GoneFilesystem:
    def __getattr__(self, name):
        def fail(*arguments, **options):
            raise OSError("the bucket is gone")

        return fail


class TestAWriteThatFails:
    def test_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch):
        storage = Storage(tmp_path)
        storage.write("file", b"old")

        def fail(*_):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(Storage, "patience_s", 0.2)
        with pytest.raises(StorageError, match=r"/file cannot be written, tried for 0 s: Input/output error\. Is"):
            storage.write("file", b"new")
        assert storage.read("file") == b"old"
        assert storage.names() == ["file"]

    def test_also_leaves_it_when_ctrl_c_comes_in_between(self, tmp_path, monkeypatch):
        storage = Storage(tmp_path)
        storage.write("file", b"old")

        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            storage.write("file", b"new")
        assert storage.read("file") == b"old"
        assert storage.names() == ["file"]

    def test_closes_each_folder_once_when_ctrl_c_comes_in_between(self, tmp_path, monkeypatch):
        close = os.close

        def interrupted(descriptor):
            close(descriptor)
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):  # a second time would be an error, or close another thread's file
            Storage(tmp_path).write("below/name", b"")

    def test_below_a_file_says_so(self, tmp_path):
        (tmp_path / "results").touch()
        with pytest.raises(
            StorageError, match=rf"^{tmp_path}/results/a/b cannot be written: Not a directory\. Is there"
        ):
            Storage(tmp_path / "results").write("a/b", b"")

    def test_on_a_remote_filesystem_says_so(self, monkeypatch):
        monkeypatch.setattr(Storage, "_remote", lambda self: (GoneFilesystem(), "bucket"))
        remote = Storage("s3://bucket/x")
        for use, what in [
            (lambda: remote.write("a", b""), "written"),
            (lambda: remote.read("a"), "read"),
            (lambda: remote.remove("a"), "removed"),
            (lambda: remote.names("a"), "read"),
        ]:
            with pytest.raises(StorageError, match=f"^s3://bucket/x/a cannot be {what}: the bucket is gone"):
                use()


class TestADisk:
    def test_that_is_full_keeps_the_old_file_and_says_so(self, small_disk):
        storage = Storage(small_disk)
        storage.write("file", b"old" * 1000)
        with pytest.raises(StorageError, match=rf"^{small_disk}/file cannot be written: No space left on device"):
            storage.write("file", bytes(2**20))
        assert storage.read("file") == b"old" * 1000
        assert storage.names() == ["file"]
        storage.write("other", b"there is still room for little")

    def test_that_is_read_only_is_read_and_says_so_when_written(self, small_disk):
        storage = Storage(small_disk)
        storage.write("file", b"old")
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        assert (storage.read("file"), storage.names()) == (b"old", ["file"])
        with pytest.raises(StorageError, match="/file cannot be written: Read-only file system"):
            storage.write("file", b"new")
        with pytest.raises(StorageError, match="/file cannot be removed: Read-only file system"):
            storage.remove("file")
        with (
            pytest.raises(StorageError, match=r"/x/\.lock cannot be written: Read-only file system"),
            experiment_lock(Storage(small_disk / "x")),
        ):
            pass


def test_partial_files_of_a_killed_writer_are_removed_and_no_others(tmp_path):
    for name in (".weights.pt.123.partial", ".a.1.partial", "weights.pt", "my.partial", ".lock"):
        (tmp_path / name).touch()
    Storage(tmp_path).clear_partial_files()
    Storage(tmp_path).clear_partial_files("none")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "my.partial", "weights.pt"]
