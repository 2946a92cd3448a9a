import tempfile
import uuid

import pytest

from cluster.executors.watchdog import Watchdog, read_hang
from cluster.storage.filesystem import Storage
from cluster.storage.folders import TrialFolder


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    place = tmp_path if request.param == "local" else f"fsspec+memory:///{uuid.uuid4().hex}"
    return TrialFolder(Storage(place), "0123456789abcdef/0")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_trial_that_ends_in_time_leaves_nothing_behind(folder, temporary):
    def files():
        return [path for path in temporary.rglob("*") if path.is_file()]

    with Watchdog(60, folder, "run"):
        assert len(files()) == 1
    assert not files()
    assert read_hang(folder, "run") is None


def test_where_a_trial_hung_is_told_once_and_for_its_run_alone(folder, temporary):
    watchdog = Watchdog(60, folder, "run")
    with watchdog:
        watchdog.pause()
        watchdog.file.write(b"Thread 0x1 (most recent call first):\n  File x.py, line 3 in f\n")
        text = read_hang(folder, "run")
        assert text.startswith("the trial did not report for 60 s (trial_timeout_s), and was here:\nThread")
        assert read_hang(folder, "run") is None
