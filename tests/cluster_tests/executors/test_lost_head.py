"""Ray that does not start, cannot be reached, or loses its head: one sentence, soon, and the same script continues."""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from cluster.executors import head_watch
from cluster.executors.head_watch import HeadLostError, head_watched
from tests.cluster_tests.sweep import Sweep, a_trial_is_half_way, wait_for, write_sweep_data


def nothing():
    pass


class TestAWatchedHead:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch):
        """It is looked at 20 times a second."""
        monkeypatch.setattr(head_watch, "_INTERVAL_S", 0.05)

    def test_that_answers_disturbs_nothing(self):
        with head_watched(lambda: None, 0.0, nothing):
            time.sleep(0.2)

    def test_that_is_lost_ends_the_block_with_an_error_that_says_how_to_continue(self):
        def lose_head():
            with head_watched(lambda: "the head is away", 0.0, nothing):
                time.sleep(60)

        with pytest.raises(HeadLostError, match=r"the head is away\. Run the script again to continue"):
            lose_head()

    def test_that_comes_back_in_time_disturbs_nothing(self, capsys):
        looks = iter([None, "it is away", "it is away", None, "it is away"])
        with head_watched(lambda: next(looks, None), 3.0, nothing):
            time.sleep(1.0)
        assert capsys.readouterr().err == "warning: it is away: waiting for up to 3 s\n" * 2

    def test_that_ends_with_the_block_is_not_lost(self):
        looks, has_ended = threading.Event(), threading.Event()

        def look():
            looks.set()
            has_ended.wait()
            return "it is away"

        with head_watched(look, 0.0, has_ended.set):
            looks.wait()
        time.sleep(0.1)  # a loss would interrupt this

    def test_leaves_other_errors_and_ctrl_c_alone(self):
        for error in (KeyboardInterrupt, ValueError):
            with pytest.raises(error), head_watched(lambda: None, 0.0, nothing):
                raise error


HANGS = """
import time
from cluster.executors.head_watch import head_watched
with head_watched(lambda: "the head is away", 0.0, lambda: time.sleep(100)):
    time.sleep(100)
"""


@pytest.mark.slow
def test_a_process_that_waits_in_ray_after_its_head_was_lost_is_ended(python):
    done = python(HANGS)
    assert done.returncode == 1
    assert done.stderr.startswith("\nerror: the head is away. Run the script again to continue")


@pytest.fixture
def sweep(tmp_path):
    write_sweep_data(tmp_path / "data")
    config = {"n_repetitions": 1}
    return Sweep(tmp_path / "data", tmp_path / "results", tmp_path, lrs=[1e-3, 1e-2], experiment_config=config)


def processes_below(pid):
    """The names of the processes that a process has started, by id."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()]
    return {int(child): name for child, parent, name in rows if int(parent) == pid}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_killed_process_of_ray_ends_a_sweep_with_one_sentence_and_the_next_run_continues(sweep, name):
    process = sweep.start(slow=0.2)
    wait_for(lambda: a_trial_is_half_way(sweep), process)
    (killed,) = (pid for pid, found in processes_below(process.pid).items() if found.startswith(name))
    os.kill(killed, signal.SIGKILL)
    _, errors = process.communicate(timeout=50)  # Ray itself would need a minute
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"error: the process {name} of Ray has ended: it was killed, or the machine ran out of")
    assert "Run the script again to continue" in last
    assert "Traceback" not in errors
    assert "gcs_rpc_client" not in errors
    result = sweep.run()
    assert result.code == 0, result.errors
    assert "to continue" in result.errors


@pytest.mark.ray
@pytest.mark.slow
def test_ray_that_does_not_start_in_time_is_one_sentence(sweep):
    result = sweep.run(environment={"RAY_gcs_server_port_wait_time_s": "0"})
    assert result.code == 1
    last = result.errors.strip().splitlines()[-1]
    assert last.startswith("error: Ray did not start on this machine: ")
    assert "/session_latest/logs. Run the script again to continue" in last
    assert "Traceback" not in result.errors


class TestAClusterThatCannotBeReached:
    """It is named as the user named it."""

    @pytest.fixture
    def address(self):
        """An address of this machine at which nothing listens."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            return f"127.0.0.1:{server.getsockname()[1]}"

    def error_of(self, address):
        from cluster.executors.ray_session import ClusterError, connected

        with pytest.raises(ClusterError) as caught, connected(address):
            pass
        return str(caught.value)

    def test_at_an_address_of_this_machine(self, address):
        error = self.error_of(address)
        assert error.startswith(f"there is no usable Ray cluster at {address} (for Ray that is ")
        assert "nothing answers there (Connection refused). Start one there (ray start --head), or omit" in error

    def test_by_the_environment(self, address, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", address)
        error = self.error_of("auto")
        assert error.startswith("there is no usable Ray cluster at auto (for Ray that is ")
        assert address.partition(":")[2] in error

    def test_at_a_client_address(self, address):
        assert f"there is no usable Ray cluster at ray://{address}: nothing answers" in self.error_of(
            f"ray://{address}"
        )

    def test_with_the_reason_that_a_client_server_gives_at_the_end_of_its_traceback(self, monkeypatch):
        from cluster.executors import ray_session

        def refuse(*_, **__):
            raise ConnectionAbortedError(
                "Initialization failure from server:\nTraceback (most recent call last):\n  File ...\n"
                "RuntimeError: Starting Ray client server failed.\n"
            )

        monkeypatch.setattr(ray_session, "_reach", lambda address: None)
        monkeypatch.setattr(ray_session.ray, "init", refuse)
        assert self.error_of("ray://127.0.0.1:1").startswith(
            "there is no usable Ray cluster at ray://127.0.0.1:1: Initialization failure from server: RuntimeError: "
            "Starting Ray client server failed. Start one there"
        )

    @pytest.mark.parametrize("address", ["nowhere", "ray://nowhere", "127.0.0.1:x", "ray://127.0.0.1:"])
    def test_at_an_address_without_a_port(self, address):
        assert self.error_of(address).startswith(f"there is no usable Ray cluster at {address}")
