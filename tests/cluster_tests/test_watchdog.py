import os
import tempfile
import uuid
from pathlib import Path

import pytest

from cluster.storage import Storage
from cluster.trial_folder import TrialFolder
from cluster.watchdog import Watchdog, how_it_hung


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    place = tmp_path if request.param == "local" else f"fsspec+memory:///{uuid.uuid4().hex}"
    return TrialFolder(Storage(place), "0123456789abcdef/0")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_trial_that_ends_in_time_leaves_nothing_behind(folder, temporary):
    with Watchdog(60, folder, "run") as _:
        assert how_it_hung(folder, "another run") is None
    assert how_it_hung(folder, "run") is None
    assert not [path for path in temporary.rglob("*") if path.is_file()]
    assert not (temporary / f"posetune-{os.getuid()}-run").exists()


def test_one_that_ends_while_another_is_watched_leaves_that_alone(temporary):
    storage = Storage(f"fsspec+memory:///{uuid.uuid4().hex}")
    with Watchdog(60, TrialFolder(storage, "a/1"), "run"):
        with Watchdog(60, TrialFolder(storage, "a/0"), "run"):
            pass
        (file,) = (path for path in temporary.rglob("*") if path.is_file())
        assert file.name == "a-1.txt"
        assert Path(file).parent.stat().st_mode & 0o77 == 0


def test_where_a_trial_hung_is_told_once_and_for_its_run_alone(folder, temporary):
    watchdog = Watchdog(60, folder, "run")
    with watchdog:
        watchdog.rest()
        watchdog.file.write(b"Thread 0x1 (most recent call first):\n  File x.py, line 3 in f\n")
        text = how_it_hung(folder, "run")
        assert text.startswith("the trial did not report for 60 s (trial_timeout_s), and was here:\nThread")
        assert how_it_hung(folder, "run") is None
