import errno
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest

from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.lease import AlreadyRunningError
from cluster.storage.lock import experiment_lock, is_locked
from tests.cluster_tests.conftest import ROOT

HOLD = """
import sys, time
from cluster.storage.lock import experiment_lock
from cluster.storage.filesystem import Storage
with experiment_lock(Storage(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n", process.communicate()
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_process_and_host_of_the_first_until_that_ends_however(tmp_path, owner):
    assert is_locked(Storage(tmp_path))
    with pytest.raises(AlreadyRunningError) as caught, experiment_lock(Storage(tmp_path)):
        pass
    assert re.fullmatch(
        rf"{tmp_path} is in use: process {owner.pid} on {re.escape(socket.gethostname())} has been running this "
        r"experiment since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\. Wait for it or end it, or give this run another name\.",
        str(caught.value),
    )
    assert is_locked(Storage(tmp_path))

    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert not is_locked(Storage(tmp_path))
    with experiment_lock(Storage(tmp_path)):
        assert is_locked(Storage(tmp_path))


def test_a_folder_that_was_never_locked_is_free(tmp_path):
    assert not is_locked(Storage(tmp_path))
    assert not is_locked(Storage(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_given_back_at_the_end_also_after_an_error(tmp_path):
    folder = tmp_path / "results" / "x"
    with experiment_lock(Storage(folder)):
        assert is_locked(Storage(folder))
        with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} on"), experiment_lock(Storage(folder)):
            pass
    assert not is_locked(Storage(folder))
    with pytest.raises(KeyError), experiment_lock(Storage(folder)):
        raise KeyError
    with experiment_lock(Storage(folder)):
        pass


REMOVE = """
import sys
from tune_runs import report
sys.exit(report.main(["rm", "x", "--yes", f"--storage-path={sys.argv[1]}"]))
"""

CONTEND = """
import os, shutil, sys, time
from pathlib import Path
from cluster.storage.filesystem import Storage
from cluster.storage.lease import AlreadyRunningError
from cluster.storage.lock import experiment_lock
folder, inside, end, n = Path(sys.argv[1]), Path(sys.argv[2]), time.monotonic() + 2, 0
while time.monotonic() < end:
    try:
        with experiment_lock(Storage(folder)):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another process is here
            (folder / "file").touch()
            inside.unlink()
            shutil.rmtree(folder, ignore_errors=True)  # another process may lock a new file meanwhile
            n += 1
    except AlreadyRunningError:
        pass
print(n)
"""


class TestARemovedFolder:
    @pytest.mark.parametrize("how", ["rm", "by hand"])
    def test_that_is_removed_before_its_file_is_locked_is_locked_where_others_look(self, tmp_path, monkeypatch, how):
        folder = tmp_path / "x"
        folder.mkdir()
        (folder / "experiment.json").touch()
        flock, came = fcntl.flock, []

        def remove_first(file, operation):
            if not came:
                came.append(file)
                command = [sys.executable, "-c", REMOVE, tmp_path] if how == "rm" else ["rm", "-r", folder]
                subprocess.run([*map(str, command)], cwd=ROOT, check=True, capture_output=True)
            flock(file, operation)

        monkeypatch.setattr(fcntl, "flock", remove_first)
        with experiment_lock(Storage(folder)) as check:
            assert came
            assert is_locked(Storage(folder))
            with (
                pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} on"),
                experiment_lock(Storage(folder)),
            ):
                pass
            check()

    def test_is_never_held_by_two_processes_of_many_that_lock_and_remove_it(self, tmp_path):
        arguments = [sys.executable, "-c", CONTEND, str(tmp_path / "x" / "y"), str(tmp_path / "inside")]
        processes = [
            subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        ended = [process.communicate(timeout=60) for process in processes]
        assert [errors for _, errors in ended] == [""] * 3
        assert sum(int(output) for output, _ in ended) > 10

    def test_is_an_error_for_the_run_that_was_training_there(self, tmp_path):
        folder = tmp_path / "x"
        with experiment_lock(Storage(folder)) as check:
            check()
            shutil.rmtree(folder)
            for _ in range(2):
                with pytest.raises(StorageError, match="x was removed or replaced while this run was training in it"):
                    check()
                folder.mkdir(exist_ok=True)
                (folder / ".lock").touch()  # as another run would


@pytest.mark.parametrize(("number", "is_gone"), [(errno.ESTALE, True), (errno.EIO, False)])
def test_a_lock_file_that_was_removed_elsewhere_is_stale_on_nfs(tmp_path, monkeypatch, number, is_gone):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    with experiment_lock(Storage(tmp_path)) as check, monkeypatch.context() as patched:
        patched.setattr(os, "fstat", fail)
        with pytest.raises(StorageError, match="was removed or replaced") if is_gone else nullcontext():
            check()


def test_a_lock_file_with_other_content_still_counts(tmp_path):
    for content in ("no json", "[1]"):
        (tmp_path / ".lock").write_text(content)
        with (tmp_path / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with (
                pytest.raises(AlreadyRunningError, match="another process is running this experiment"),
                experiment_lock(Storage(tmp_path)),
            ):
                pass


def test_someone_who_only_looks_is_not_in_the_way(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # like `is_locked`, for a moment
        monkeypatch.setattr("time.sleep", lambda seconds: fcntl.flock(file, fcntl.LOCK_UN))
        with experiment_lock(Storage(tmp_path)):
            pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_filesystem_without_locks_is_named_and_nobody_holds_one_there(tmp_path, monkeypatch, code):
    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(fcntl, "flock", flock)
    assert not is_locked(Storage(tmp_path))
    says = f"{tmp_path} is on a filesystem without file locks ({os.strerror(code)}), so two runs of an experiment"
    with pytest.raises(StorageError, match=re.escape(says)), experiment_lock(Storage(tmp_path)):
        pass


def test_a_folder_that_cannot_be_written_is_another_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Is there space"), experiment_lock(Storage(tmp_path / "file" / "x")):
        pass
