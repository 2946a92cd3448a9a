"""The behaviour of Ray that `ray_runner.py` relies on: these tests fail with a version that behaves differently."""

import os
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import ray
import torch
from ray import tune
from ray.cluster_utils import Cluster

from cluster.executors.ray_runner import _FirstWithoutWorker, _Reports, _Steps
from cluster.executors.ray_worker import StopRequest, request_stop
from cluster.planning.placement import Placement
from cluster.planning.plan import Combination, TrialSpec
from cluster.schedules.schedule import GridSchedule
from data_pipeline.user_error import UserError

pytestmark = [pytest.mark.ray, pytest.mark.serial]

PER_GPU = 2
N_SLOTS = 8
SILENT = SimpleNamespace(started=lambda trial_id: None, reported=lambda report: None)


def train(config, meeting):
    """Replaces a trial: returns its device. The first trials wait until all slots are in use."""
    if config["repetition"] == 0:
        (meeting / config["key"]).touch()
        while len(list(meeting.iterdir())) < N_SLOTS:
            time.sleep(0.05)
    place = (ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return {"place": place, **{name: config[name] for name in ("key", "repetition")}}


def specs(*trials):
    return [TrialSpec(Combination(f"{b}{a}", (b, a), {}, "{}"), repetition, seed=7) for b, a, repetition in trials]


@pytest.fixture(scope="module")
def two_nodes():
    """Two nodes with two GPUs each that do not exist, and a head without GPUs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=4, num_gpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run(schedule, tmp_path, trainable=None):
    placement = Placement(torch.device("cuda", 0), n_slots=N_SLOTS, cpus_per_trial=1, gpu_share=1 / PER_GPU)
    if trainable is None:
        meeting = tmp_path / "meeting"
        meeting.mkdir()
        trainable = tune.with_parameters(train, meeting=meeting)
    steps = _Steps(schedule, placement)
    resources = tune.PlacementGroupFactory([placement.trial_resources])
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            num_samples=100, search_alg=steps, scheduler=_FirstWithoutWorker(), reuse_actors=True
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), name="tune", verbose=0, callbacks=[_Reports(SILENT, steps, None, None)]
        ),
    )
    return [result.metrics for result in tuner.fit()]


def trained(results):
    return sorted((int(result["key"][0]), int(result["key"][1]), result["repetition"]) for result in results)


ALL = [(b, a, repetition) for repetition in range(3) for b in range(2) for a in range(4)]


@pytest.fixture(scope="module")
def results(two_nodes, tmp_path_factory):
    return run(GridSchedule(specs(*ALL)), tmp_path_factory.mktemp("all"))


def test_every_combination_is_trained_once_in_every_repetition(results):
    assert trained(results) == sorted(ALL)


def test_trials_that_share_gpus_are_spread_over_all_of_them(results):
    load = Counter(result["place"] for result in results if result["repetition"] == 0)
    assert {gpu for _, gpu in load} == {"0", "1"}, "a trial sees one GPU alone, by the node's own number"
    assert list(load.values()) == [PER_GPU] * 4


class OneAfterTheOther(GridSchedule):
    """Gives out a trial when the one before has ended."""

    def __init__(self, trials):
        super().__init__(trials)
        self.is_free = True

    def next(self):
        step = super().next() if self.is_free else None
        self.is_free = self.is_free and step is None
        return step

    def ended(self, report):
        super().ended(report)
        self.is_free = True


def test_a_run_goes_on_while_nothing_can_start_until_something_ends(two_nodes, tmp_path):
    wanted = [(0, 0, 1), (1, 3, 1), (1, 1, 2)]
    assert trained(run(OneAfterTheOther(specs(*wanted)), tmp_path)) == sorted(wanted)


class Blocked(GridSchedule):
    """Gives out one trial; the others wait for ever."""

    def next(self):
        return super().next() if self.n_parallel == len(self._waiting) else None


def test_a_run_ends_at_once_when_nothing_runs_and_nothing_can_start(two_nodes, tmp_path):
    assert trained(run(Blocked(specs((0, 0, 1), (0, 1, 1))), tmp_path)) == [(0, 0, 1)]


class Undecided(GridSchedule):
    """Cannot decide what is next after the first trial."""

    def next(self):
        if self.n_parallel > len(self._waiting):
            raise UserError("the decision on disk is another one")
        return super().next()


def test_an_error_of_the_schedule_ends_the_run_and_is_raised(two_nodes, tmp_path):
    with pytest.raises(UserError, match=r"^the decision on disk is another one$"):
        run(Undecided(specs((0, 0, 1), (0, 1, 1))), tmp_path)


class StartsLate:
    """An object that each process but the first takes 3 s to load."""

    def __init__(self, folder):
        self.folder, self.driver = folder, os.getpid()

    def __setstate__(self, state):
        self.__dict__.update(state)
        if os.getpid() == self.driver:
            return
        try:
            (self.folder / "first").mkdir()
        except FileExistsError:
            time.sleep(3)


def test_trials_that_are_shorter_than_the_start_of_a_worker_use_all_workers(two_nodes, tmp_path):
    late = StartsLate(tmp_path)

    def train_quickly(config):
        assert late
        time.sleep(0.3)
        return {"pid": os.getpid()}

    many = specs(*[(b, a, repetition) for repetition in range(1, 6) for b in range(2) for a in range(6)])
    results = run(GridSchedule(many), tmp_path, train_quickly)
    assert len(results) == 60
    assert len({result["pid"] for result in results}) == N_SLOTS


def test_a_worker_learns_that_the_run_wants_to_end(two_nodes):
    asked = ray.remote(num_cpus=1)(lambda run_id: StopRequest(run_id)())
    assert not ray.get(asked.remote("this run"))
    request_stop("this run")
    assert ray.get(asked.remote("this run"))
    assert not ray.get(asked.remote("another run"))
