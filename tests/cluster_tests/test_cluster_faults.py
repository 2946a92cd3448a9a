"""Sweeps on a cluster of three nodes with two GPUs each, disturbed in every way that clusters know; compared by bits.

The nodes are real raylets on this machine; the GPUs are ones that only Ray believes in, and trials train on the CPU.
"""

import os
import signal

import pytest

from tests.cluster_tests.local_cluster import LocalCluster
from tests.cluster_tests.sweep import Sweep, a_trial_is_half_way, wait_for, write_sweep_data

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BATCHES_PER_EPOCH = 7
EPOCHS = 6
N_TRIALS = 6


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_sweep_data(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """The numbers of the sweep, trained inline and in one go."""
    sweep = Sweep(data_dir, tmp_path_factory.mktemp("undisturbed"))
    assert sweep.run(executor="inline").code == 0
    return sweep.numbers()


@pytest.fixture
def cluster(tmp_path):
    control = tmp_path / "control"
    control.mkdir()
    cluster = LocalCluster(control)
    yield cluster
    cluster.stop()


class ClusterSweep(Sweep):
    """The sweep on a cluster's GPUs."""

    def __init__(self, data_dir, storage_path, cluster):
        super().__init__(data_dir, storage_path, cluster.control, device="cuda")
        self.cluster = cluster

    def start(self, **how):
        return super().start(environment=self.cluster.environment, **how)


@pytest.fixture
def sweep(data_dir, tmp_path, cluster):
    return ClusterSweep(data_dir, tmp_path / "results", cluster)


def ended(process):
    _output, errors = process.communicate(timeout=200)
    return process.returncode, errors


def nodes_of_running_trials(sweep):
    return {content["pid"] for content in sweep.trials().values() if content["status"] == "running"}


def test_a_sweep_on_three_nodes_equals_one_in_a_single_process(sweep, undisturbed):
    result = sweep.run()
    assert result.code == 0, result.errors
    assert sweep.numbers() == undisturbed


class TestASweepGoesOn:
    def test_when_a_worker_is_killed(self, sweep, undisturbed):
        process = sweep.start(slow=0.05)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        os.kill(next(iter(nodes_of_running_trials(sweep))), signal.SIGKILL)
        code, errors = ended(process)
        assert code == 0, errors
        assert "was lost" in errors
        assert sweep.numbers() == undisturbed

    def test_when_a_raylet_is_killed(self, sweep, undisturbed, cluster):
        process = sweep.start(slow=0.1)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        cluster.kill_raylet(0)
        code, errors = ended(process)
        assert code == 0, errors
        assert sweep.numbers() == undisturbed

    def test_when_a_node_is_taken_away_and_another_comes(self, sweep, undisturbed, cluster):
        process = sweep.start(slow=0.1)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        cluster.remove_node(1)
        cluster.add_node()
        code, errors = ended(process)
        assert code == 0, errors
        assert sweep.numbers() == undisturbed

    def test_when_the_driver_was_killed_and_is_started_again(self, sweep, undisturbed):
        process = sweep.start(slow=0.05)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        process.kill()
        process.communicate()
        result = sweep.run()
        assert result.code == 0, result.errors
        assert "to continue" in result.errors
        assert sweep.numbers() == undisturbed

    def test_when_the_head_was_killed_and_the_cluster_is_started_again(self, sweep, undisturbed, cluster):
        process = sweep.start(slow=0.1)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        cluster.kill_head()
        code, _errors = ended(process)
        assert code != 0
        cluster.stop()
        cluster.start()
        result = sweep.run()
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed

    def test_when_the_job_was_preempted(self, sweep, undisturbed):
        sweep.spec["experiment_config"] = {"checkpoint_interval_s": 1000}
        process = sweep.start(slow=0.1)
        wait_for(lambda: sweep.n_batches() > N_TRIALS * 2 * BATCHES_PER_EPOCH, process)
        process.terminate()
        code, errors = ended(process)
        assert code == 75, errors
        assert "Traceback" not in errors
        left = [trial for trial, content in sweep.trials().items() if content["status"] == "running"]
        assert left
        assert all((sweep.folder / "trials" / trial / "checkpoint.pt").exists() for trial in left)
        result = sweep.run()
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed
        assert sweep.n_batches() == N_TRIALS * EPOCHS * BATCHES_PER_EPOCH, "something was trained twice"
