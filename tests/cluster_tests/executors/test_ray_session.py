import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from cluster.executors.ray_session import ClusterError, _auth_mode_kept, _private_folder, _start
from cluster.executors.signals import Signals
from tests.support import ROOT

LONG = "a-folder-of-one-job" * 4


class TestThePlaceOfRaysFiles:
    """It contains Ray's sockets, whose paths must be short."""

    @pytest.fixture(autouse=True)
    def _temporary_folder(self, tmp_path, monkeypatch):
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr("tempfile.tempdir", None)  # it is read again

    def test_is_where_other_temporary_files_are(self, monkeypatch):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            monkeypatch.setenv("TMPDIR", folder)
            assert Path(_private_folder()).is_relative_to(folder)

    def test_is_in_tmp_where_that_has_a_long_name(self, tmp_path, monkeypatch):
        (tmp_path / LONG).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / LONG))
        assert Path(_private_folder()).parts[:2] == ("/", "tmp")

    def test_that_was_asked_for_by_a_long_name_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / LONG))
        with pytest.raises(
            ClusterError, match=r", from RAY_TMPDIR, is too long .* may have at most \d\d bytes\. Set another"
        ):
            _private_folder()
        assert not (tmp_path / LONG).exists()


def test_sigterm_while_ray_starts_is_noted(monkeypatch):
    def start(*_, **__):  # replaces the start of Ray's processes, which takes seconds
        os.kill(os.getpid(), signal.SIGTERM)
        raise ConnectionError("it is over")

    monkeypatch.setattr(ray._private.node, "Node", start)
    signals = Signals()
    with signals.sigterm_noted(), _auth_mode_kept(), pytest.raises(ConnectionError):
        _start(address="local", num_cpus=1, include_dashboard=False)
    assert signals.preempted


def in_a_new_process(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


# Leaves objects of Ray in cycles, as Tune does, and collects garbage in another thread while Ray ends.
LEAVING_GARBAGE = """
import gc, threading, time
from types import SimpleNamespace
from cluster.executors import ray_session
from cluster.planning.placement import Placement
import ray

gc.disable()
ends, disconnect = threading.Event(), ray_session.worker.disconnect

def collect():
    ends.wait()
    time.sleep(0.1)  # now Ray's core ends
    gc.collect()

def disconnect_and_tell(*arguments, **named):
    disconnect(*arguments, **named)
    ends.set()

ray_session.worker.disconnect = disconnect_and_tell
threading.Thread(target=collect, daemon=True).start()
with ray_session.embedded(Placement("cpu", n_slots=1, cpus_per_trial=1, gpus=())):
    for _ in range(100):
        cycle = SimpleNamespace(reference=ray.put(1))
        cycle.itself = cycle
    del cycle
print("left, and still here")
"""


@pytest.mark.ray
def test_a_thread_that_collects_garbage_while_ray_ends_does_not_end_the_process():
    done = in_a_new_process(LEAVING_GARBAGE)
    assert (done.returncode, done.stdout) == (0, "left, and still here\n"), done.stderr


OF_A_WORKER = """
import sys
from cluster.executors import ray_session
from cluster.planning.placement import Placement
import ray

with ray_session.embedded(Placement("cpu", n_slots=1, cpus_per_trial=int(sys.argv[1]), gpus=())):
    print("torch" in ray.get(ray.remote(lambda: set(sys.modules)).remote()))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(("cpus_per_trial", "has_torch"), [(1, True), (2, False)])
def test_workers_import_torch_before_they_get_a_trial_if_each_of_them_will_get_one(cpus_per_trial, has_torch):
    done = in_a_new_process(OF_A_WORKER, str(cpus_per_trial))
    assert (done.returncode, done.stdout) == (0, f"{has_torch}\n"), done.stderr
