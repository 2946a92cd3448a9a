"""A trial on a GPU that does not exist: what it requests of torch."""

import pytest
import torch

from cluster.trial.trainable import run_trial
from posenet.checkpoint import unpack
from posenet.solver import Solver
from tests.cluster_tests.small_experiment import HungryMLP

GPU = torch.device("cuda", 1)


def test_a_trial_uses_its_gpu_and_frees_the_memory_of_the_previous_one_first(gpus, small_experiment):
    *_, report = run_trial(*small_experiment.trial(device=GPU))
    assert report.status == "finished"
    assert gpus.calls == [("set_device", 1), ("empty_cache", 1), ("reset_peak_memory_stats", 1), ("set_device", 0)]


def test_a_trial_is_recorded_with_its_gpu(gpus, small_experiment):
    trial, data, folder = small_experiment.trial(device=GPU)
    first, *_ = run_trial(trial, data, folder)
    assert first.place.startswith("cuda:1 on ")
    assert (folder.read_trial().device, folder.read_trial().gpu) == ("cuda:1", "A GPU number-1")


def test_a_trial_is_recorded_with_its_peak_memory(gpus, small_experiment):
    trial, data, folder = small_experiment.trial(device=GPU)
    list(run_trial(trial, data, folder))
    assert (folder.read_trial().gpu_peak_gib, folder.read_trial().gpu_total_gib) == (3.0, 16.0)


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ((), ", the only trial on its GPU (it uses 2.0 of 16.0 GiB, others 10.0); reduce the batch size or the model"),
        (
            ("b/0", "c/1"),
            ", which shares its GPU with b/0 and c/1 (it uses 2.0 of 16.0 GiB, others 10.0); reduce the batch size or "
            "the model, or trials_per_device",
        ),
    ],
)
def test_a_trial_that_runs_out_of_memory_says_who_shares_its_gpu(gpus, small_experiment, others, says):
    trial, data, folder = small_experiment.trial({"base_hyperparams.model": HungryMLP}, device=GPU)
    *_, report = run_trial(trial, data, folder, others_on_gpu=lambda: others)
    assert report.error.endswith(f"out of memory on cuda:1 with batch_size 16, in trial {trial.id}{says}")


def test_a_trial_that_continues_draws_on_from_the_generator_of_its_gpu(gpus, small_experiment, monkeypatch):
    monkeypatch.setattr(Solver, "device", GPU)
    trial, data, folder = small_experiment.trial(device=GPU)
    reports = run_trial(trial, data, folder, should_stop=lambda: True)
    assert next(reports).status == "interrupted"
    assert unpack(folder.read("checkpoint.pt"))["solver"]["random"]["device"] == 11
    reports.close()

    gpus.states = [torch.tensor([1]), torch.tensor([2])]
    reports = run_trial(trial, data, folder)
    next(reports)
    assert gpus.states == [1, 11]
    assert [report.status for report in reports] == ["finished"]


@pytest.mark.gpu
def test_a_trial_on_a_gpu_leaves_generators_and_the_current_gpu_as_they_were(small_experiment):
    torch.cuda.manual_seed_all(7)
    before = torch.cuda.get_rng_state_all(), torch.cuda.current_device()
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    *_, report = run_trial(*small_experiment.trial(device=last))
    assert report.status == "finished"
    assert all(map(torch.equal, torch.cuda.get_rng_state_all(), before[0]))
    assert torch.cuda.current_device() == before[1]
