"""What `cluster/ray_runner.py` leans on in Ray, so that another version of Ray that behaves otherwise is noticed."""

import time
from collections import Counter

import pytest
import ray
import torch
from ray import tune

from cluster.devices import Placement, resource_name
from cluster.plan import Combination, TrialSpec
from cluster.ray_runner import _Variants
from cluster.search_space import Axis

pytestmark = pytest.mark.ray


class Space:
    """Two options, as a search space has them."""

    axes = (
        Axis(("b",), ((1,), (2,)), ((1,), (2,))),
        Axis(("a",), (("x",), ("y",), ("z",)), (("x",), ("y",), ("z",))),
    )

    def choice_of(self, config):
        return tuple(axis.row_labels.index(config[axis.name]) for axis in self.axes)


class Job:
    space = Space()


def train(config):
    """Stands for a trial: says when it had which device, and sees which GPUs."""
    begin = time.time()
    time.sleep(0.3)
    return {"begin": begin, "end": time.time(), **{name: config[name] for name in ("key", "repetition", "device")}}


def specs(*trials):
    return [TrialSpec(Combination(f"{b}{a}", (b, a), {}, "{}"), repetition, seed=7) for b, a, repetition in trials]


@pytest.fixture(scope="module")
def four_gpus():
    """A machine with four GPUs that only Ray believes in, two trials on each."""
    placement = Placement(
        tuple(torch.device("cuda", index) for index in range(4)), trials_per_device=2, cpus_per_trial=1
    )
    ray.init(
        address="local",
        num_cpus=8,
        num_gpus=0,
        resources=placement.ray_resources,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield placement
    ray.shutdown()


def run(placement, trials, tmp_path):
    generator = _Variants(trials, Job(), placement)
    tuner = tune.Tuner(
        train,
        param_space={axis.name: tune.grid_search(axis.row_labels) for axis in Space.axes},
        tune_config=tune.TuneConfig(num_samples=4, search_alg=generator, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="tune", verbose=0),
    )
    return [result.metrics for result in tuner.fit()], generator


ALL = [(b, a, repetition) for repetition in range(4) for b in range(2) for a in range(3)]


@pytest.fixture(scope="module")
def results(four_gpus, tmp_path_factory):
    return run(four_gpus, specs(*ALL), tmp_path_factory.mktemp("all"))[0]


def test_every_combination_is_trained_once_in_every_repetition(results):
    trained = [(int(result["key"][0]), int(result["key"][1]), result["repetition"]) for result in results]
    assert sorted(trained) == sorted(ALL)


def test_trials_that_share_gpus_are_spread_over_all_of_them(results):
    load = Counter(result["device"] for result in results)
    assert set(load) == {f"cuda:{index}" for index in range(4)}
    assert min(load.values()) >= 3, "of 24 trials each of four GPUs would have six if all took the same time"


def test_a_gpu_never_has_more_trials_than_it_takes(results):
    for result in results:
        at_the_same_time = [
            other
            for other in results
            if other["device"] == result["device"] and other["begin"] <= result["begin"] < other["end"]
        ]
        assert len(at_the_same_time) <= 2


def test_what_is_finished_is_left_out(four_gpus, tmp_path):
    wanted = [(0, 0, 1), (1, 2, 1), (1, 1, 3)]
    results, generator = run(four_gpus, specs(*wanted), tmp_path)
    assert generator.total_samples == 3
    trained = [(int(result["key"][0]), int(result["key"][1]), result["repetition"]) for result in results]
    assert sorted(trained) == sorted(wanted)


def test_a_device_is_a_resource_that_ray_knows(four_gpus):
    assert ray.cluster_resources()[resource_name(torch.device("cuda:3"))] == 2.0
