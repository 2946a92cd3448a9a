import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading

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


def test_someone_who_only_looks_is_not_in_the_way(tmp_path):
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # like `is_locked`, for a moment
        timer = threading.Timer(0.05, fcntl.flock, [file, fcntl.LOCK_UN])
        timer.start()
        with experiment_lock(Storage(tmp_path)):
            pass
        timer.join()


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
