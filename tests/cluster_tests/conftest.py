"""Fixtures of a small experiment, see `small_experiment.py`."""

import os
import shutil
import subprocess
import sys

import pytest

from cluster.reports.page import pictures
from tests.cluster_tests.small_experiment import LR, SmallExperiment, write_datasets
from tests.cluster_tests.storage.s3_server import S3, Proxy, start_s3_server
from tests.support import ROOT


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """The small datasets; nobody changes them."""
    folder = tmp_path_factory.mktemp("small_data")
    write_datasets(folder)
    return folder


@pytest.fixture
def small_experiment(small_data, tmp_path):
    """A small experiment with an empty results folder."""
    return SmallExperiment(small_data, tmp_path / "results")


@pytest.fixture(scope="session")
def finished_results(small_data, tmp_path_factory):
    """The results folder of a small experiment with two finished trials; nobody changes it."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    SmallExperiment(small_data, folder).run({}, {LR: [1e-3, 1e-2]})
    return folder


@pytest.fixture
def finished_experiment(finished_results, small_experiment):
    """The same two finished trials in a folder that a test may change."""
    shutil.copytree(finished_results, small_experiment.storage_path)
    return small_experiment


@pytest.fixture
def without_pictures(monkeypatch):
    """Report pages have no pictures, which take nearly all of their time."""
    monkeypatch.setattr(pictures, "draw", lambda data, folder: pictures.Pictures([], None))


@pytest.fixture
def python():
    """Runs Python code in a separate process that can import `tests`."""

    def run(code, *arguments, **environment):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 1 MiB that a test can fill or mount read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"this user may not mount a filesystem: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def s3_server():
    """The port of an S3 server."""
    process, port = start_s3_server()
    yield port
    process.kill()
    process.wait()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """An empty bucket on an S3 server, reached through a proxy; credentials are in the environment."""
    proxy = Proxy(s3_server)
    yield S3(proxy, monkeypatch)
    proxy.off()
