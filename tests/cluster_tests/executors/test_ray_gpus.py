"""Where Ray really places trials that share GPUs; the GPUs do not exist."""

import json
import os
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import ray
import torch
from ray import tune
from ray.air.execution import ResourceRequest
from ray.cluster_utils import Cluster

from cluster.executors import ray_gpus, ray_nodes, ray_runner
from cluster.executors.ray_gpus import RayGpus, placed_by
from cluster.executors.ray_runner import _Reports, _Steps
from cluster.planning.placement import PRETEND_GPUS, Node, Placement, place_on
from cluster.planning.plan import Combination, TrialSpec
from cluster.schedules.schedule import GridSchedule, Step
from cluster.trial.trainable import TrialReport
from tests.cluster_tests.sweep import Sweep, write_sweep_data


class Group:
    """Replaces a placement group."""

    def __init__(self, bundles, bundle_label_selector):
        self.node_id = bundle_label_selector[0]["ray.io/node-id"]
        self.id = SimpleNamespace(hex=lambda: str(id(self)))

    def ready(self):
        return self


REQUEST = ResourceRequest([{"CPU": 1.0, "GPU": 1.0}])


@pytest.fixture
def nodes(monkeypatch):
    """The nodes of a cluster, by their ids; Ray reserves GPUs at once."""
    nodes = {"node": Node("here", 2, 2)}
    monkeypatch.setattr(ray_gpus, "placement_group", Group)
    monkeypatch.setattr(ray_gpus, "remove_placement_group", lambda group: None)
    monkeypatch.setattr(ray_gpus, "_NODES_INTERVAL_S", 0)
    monkeypatch.setattr(ray_gpus.ray, "wait", lambda futures, num_returns, timeout: (futures, []))
    monkeypatch.setattr(ray_gpus.ray_nodes, "nodes", nodes.copy)
    return nodes


@pytest.fixture
def gpus(nodes):
    """The GPUs of the nodes, with a place each; a trial waits."""
    gpus = RayGpus(Placement(torch.device("cuda", 0), 2, 1, 1.0))
    gpus.request_resources(REQUEST)
    gpus.update_state()
    return gpus


def test_a_trial_that_waits_gets_a_gpu_of_a_node_that_joins(nodes, gpus):
    for _ in range(2):
        gpus.acquire_resources(REQUEST)
        gpus.request_resources(REQUEST)
    assert not gpus.has_resources_ready(REQUEST)
    del nodes["node"]
    nodes["another"] = Node("there", 2, 1)
    gpus.has_resources_ready(REQUEST)
    gpus.update_state()
    assert gpus.has_resources_ready(REQUEST)
    assert gpus.acquire_resources(REQUEST).placement_group.node_id == "another"


def test_gpus_that_no_trial_needs_are_given_back(gpus):
    gpus.request_resources(REQUEST)
    place, other_place = (gpus.acquire_resources(REQUEST) for _ in range(2))
    gpus.free_resources(place)
    assert [gpu.group for gpu in gpus._gpus] == [None, other_place.placement_group]


class TestAGpuThatMayBeBad:
    def start(self, gpus):
        """Starts a trial, and returns its place and the id of its GPU."""
        place = gpus.acquire_resources(REQUEST)
        gpus.request_resources(REQUEST)
        gpus.update_state()
        return place, place.placement_group.id.hex()

    def fail(self, gpus, trial_id="a/0"):
        """Lets a trial fail on the first GPU, and returns the ids of both GPUs, each with a free place."""
        (place, bad), (other_place, good) = self.start(gpus), self.start(gpus)
        gpus.failed(bad, trial_id, "cuda:0 on here")
        gpus.free_resources(place)
        gpus.free_resources(other_place)
        return bad, good

    def test_gets_no_trial_while_another_gpu_tries_what_failed_on_it(self, gpus):
        _, good = self.fail(gpus)
        assert self.start(gpus)[1] == good
        assert not gpus.has_resources_ready(REQUEST)

    def test_gets_trials_again_if_the_other_gpu_fails_too(self, gpus):
        for _ in range(5):
            _, good = self.fail(gpus)
            assert gpus.ended(good, "a/0", gpu_failed=True) is None
        assert len({self.start(gpus)[1] for _ in range(2)}) == 2

    def test_gets_no_trial_any_more_after_two_of_them_ran_on_the_other_gpu(self, gpus):
        bad, good = self.fail(gpus, "a/0")
        assert gpus.ended(good, "a/0", gpu_failed=False) is None
        assert self.fail(gpus, "b/0") == (bad, good)
        assert gpus.ended(good, "b/0", gpu_failed=False) == "cuda:0 on here"
        assert self.start(gpus)[1] == good
        assert not gpus.has_resources_ready(REQUEST)
        assert not gpus.all_bad

    def test_gets_trials_again_if_the_worker_on_the_other_gpu_is_lost(self, gpus, monkeypatch):
        report = TrialReport("a/0", "failed", error="its worker was lost")
        monkeypatch.setattr(ray_runner.ray_worker, "fail", lambda *arguments: report)
        monkeypatch.setattr(ray_runner, "read_hang", lambda *arguments: None)
        spec = SimpleNamespace(id="a/0")
        steps = SimpleNamespace(running={"tune": Step(spec)}, node_error=None, ended=lambda trial_id, report: None)
        job = SimpleNamespace(
            folder=SimpleNamespace(trial=str), run_id="run", config=SimpleNamespace(trial_timeout_s=None)
        )
        reports = _Reports(SimpleNamespace(reported=lambda report: None, outcomes={}), steps, job, gpus)
        for _ in range(3):
            self.fail(gpus)
            reports.on_trial_error(0, [], SimpleNamespace(trial_id="tune", num_failures=3))
        assert len({self.start(gpus)[1] for _ in range(2)}) == 2

    def test_gets_trials_again_if_it_is_the_only_one_and_the_retry_succeeds(self, gpus):
        del gpus._gpus[1]
        place, only = self.start(gpus)
        gpus.failed(only, "a/0", "cuda:0 on here")
        gpus.free_resources(place)
        assert self.start(gpus)[1] == only
        assert gpus.ended(only, "a/0", gpu_failed=False) is None
        assert not gpus.all_bad


def a_trainable(folder, n_together):
    """Replaces a trial: records where and when it ran. The first trials wait for each other."""

    def train(config):  # without the modules of this file, which take long to import
        where = f"{ray.get_runtime_context().get_node_id()} {os.environ['CUDA_VISIBLE_DEVICES']}"
        record = folder / config["key"]
        began = time.monotonic()
        record.write_text(json.dumps([where, began, None]))
        while len(list(folder.iterdir())) < n_together:
            time.sleep(0.02)
        time.sleep(0.2)
        record.write_text(json.dumps([where, began, time.monotonic()]))
        return {"done": 1}

    return train


def at_a_time(records):
    """Returns how many trials each GPU had at most at a time, most first."""
    most = Counter()
    for where, moment, _ in records:
        now = sum(1 for other, began, ended in records if other == where and began <= moment < ended)
        most[where] = max(most[where], now)
    return sorted(most.values(), reverse=True)


@pytest.fixture(scope="module")
def started():
    """A head without GPUs, to which the tests add nodes."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def cluster(started):
    """The cluster; nodes that the test adds are removed."""
    before = set(started.list_all_nodes())
    yield started
    for node in set(started.list_all_nodes()) - before:
        started.remove_node(node)


def tune_trials(n_trials, placement, folder, n_together):
    specs = [TrialSpec(Combination(str(n), (n,), {}, "{}"), 0, seed=7) for n in range(n_trials)]
    folder.mkdir()
    steps = _Steps(GridSchedule(specs), placement)
    silent = SimpleNamespace(started=lambda trial_id: None, reported=lambda report: None)
    resources = tune.PlacementGroupFactory([placement.trial_resources])
    tuner = tune.Tuner(
        tune.with_resources(a_trainable(folder, n_together), resources),
        tune_config=tune.TuneConfig(num_samples=100, search_alg=steps, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder.parent), name="tune", verbose=0, callbacks=[_Reports(silent, steps, None, None)]
        ),
    )
    with placed_by(RayGpus(placement)):
        tuner.fit()
    return [json.loads(record.read_text()) for record in folder.iterdir()]


@pytest.mark.ray
@pytest.mark.serial
@pytest.mark.parametrize(
    ("nodes", "n_trials", "per_gpu", "loads"),
    [
        ([(9, 4)], 9, 4, [3, 2, 2, 2]),
        ([(4, 2), (4, 2)], 6, 2, [2, 2, 1, 1]),
        ([(3, 2), (8, 2)], 14, 2, [2, 2, 2, 1]),
    ],
    ids=["9 trials", "two nodes", "a node with few cores, and more trials than places"],
)
def test_trials_are_spread_evenly_over_gpus(cluster, small_experiment, tmp_path, nodes, n_trials, per_gpu, loads):
    for cpus, gpus in nodes:
        cluster.add_node(num_cpus=cpus, num_gpus=gpus)
    changes = {"target_device": torch.device("cuda"), "trials_per_device": per_gpu}
    config = small_experiment.experiment({f"experiment_config.{key}": value for key, value in changes.items()}).config
    placement = place_on(config, n_trials, list(ray_nodes.nodes().values()))
    records = tune_trials(n_trials, placement, tmp_path / "records", n_together=sum(loads))
    assert len(records) == n_trials
    assert at_a_time(records) == loads


@pytest.mark.ray
@pytest.mark.serial
def test_a_bad_gpu_costs_no_trial(started, tmp_path):
    write_sweep_data(tmp_path / "data")
    control = tmp_path / "control"
    control.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CONTROL", str(control))
        node = started.add_node(num_cpus=2, num_gpus=2)
    sweep = Sweep(tmp_path / "data", tmp_path / "results", control, device="cuda", models=["MLPOfABadGpu"])
    environment = {"POSETUNE_ADDRESS": started.address, PRETEND_GPUS: "1"}
    result = sweep.run(slow=0.2, environment=environment)
    started.remove_node(node)
    assert result.code == 0, result.errors
    assert {content["status"] for content in sweep.trials().values()} == {"finished"}
    assert "is tried once more: RuntimeError: CUDA error: uncorrectable ECC error encountered" in result.errors
    # How often the bad GPU is tried depends on how quickly a worker starts.
    n_failed = [gpu for *_, gpu in map(str.split, (control / "batches").read_text().splitlines())].count("0")
    assert 1 <= n_failed <= 2
    assert ("is not used any more: trials failed on it repeatedly, but not on another" in result.errors) == (
        n_failed == 2
    )
