"""Ray that does not start, cannot be reached, or loses its head: one sentence, soon, and the same script continues."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cluster.executors.head_watch import HeadLostError, head_watched
from tests.cluster_tests.sweep import Sweep, a_trial_is_half_way, wait_for, write_sweep_data


@pytest.fixture
def head():
    """A server in place of a head."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


def why(silent_s):
    return "the head is away"


class TestAWatchedHead:
    def test_that_answers_disturbs_nothing(self, head):
        with head_watched(address_of(head), why, 0.0):
            time.sleep(1.5)

    def test_that_is_lost_ends_the_block_with_an_error_that_says_how_to_continue(self, head):
        def lose_head():
            with head_watched(address_of(head), why, 0.0):
                head.close()
                time.sleep(60)

        with pytest.raises(HeadLostError, match=r"the head is away\. Run the script again to continue"):
            lose_head()

    def test_that_comes_back_in_time_disturbs_nothing(self, head, capsys):
        port = head.getsockname()[1]
        with head_watched(address_of(head), why, 30.0):
            head.close()
            time.sleep(2.5)
            with socket.create_server(("127.0.0.1", port)):
                time.sleep(2)
        assert "does not answer (Connection refused): waiting for it for up to 30 s" in capsys.readouterr().err

    def test_leaves_other_errors_and_ctrl_c_alone(self, head):
        for error in (KeyboardInterrupt, ValueError):
            with pytest.raises(error), head_watched(address_of(head), why, 0.0):
                raise error


@pytest.fixture
def sweep(tmp_path):
    write_sweep_data(tmp_path / "data")
    return Sweep(tmp_path / "data", tmp_path / "results", tmp_path)


def processes_below(pid):
    """The names of the processes that a process has started, by id."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()]
    return {int(child): name for child, parent, name in rows if int(parent) == pid}


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_head_ends_a_sweep_with_one_sentence_and_the_next_run_continues(sweep):
    process = sweep.start(slow=0.2)
    wait_for(lambda: a_trial_is_half_way(sweep), process)
    (gcs,) = (pid for pid, name in processes_below(process.pid).items() if name.startswith("gcs_server"))
    os.kill(gcs, signal.SIGKILL)
    _, errors = process.communicate(timeout=50)  # Ray itself would need a minute
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: the head process of Ray on this machine has ended")
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


@pytest.mark.parametrize("variable", ["POSETUNE_ADDRESS", "RAY_ADDRESS"])
def test_a_cluster_that_cannot_be_reached_is_named_as_the_user_named_it(sweep, head, variable):
    address = address_of(head)
    head.close()
    result = sweep.run(environment={variable: address})
    assert result.code == 1
    assert result.errors.startswith(f"error: there is no usable Ray cluster at {address} (for Ray that is ")
    assert "nothing answers there (Connection refused). Start one there" in result.errors
    assert not Path(sweep.folder / "trials").exists()


@pytest.mark.parametrize("address", ["nowhere", "ray://nowhere", "127.0.0.1:x", "ray://127.0.0.1:"])
def test_an_address_without_a_port_is_named(sweep, address):
    result = sweep.run(environment={"POSETUNE_ADDRESS": address})
    assert result.code == 1
    assert result.errors.startswith(f"error: there is no usable Ray cluster at {address}")
    assert "Traceback" not in result.errors
