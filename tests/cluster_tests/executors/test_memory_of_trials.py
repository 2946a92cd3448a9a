"""The memory that a process keeps after training many trials."""

import gc

import pytest
import torch

from cluster.trial.trainable import run_trial

N_TRIALS = 10


def live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def train(small_experiment, seed, device=None):
    changes = {
        "base_hyperparams.optimizer_args.lr": 1e-4 * (1 + seed),
        "experiment_config.name": f"small_experiment{seed}",
    }
    trial, data, folder = small_experiment.trial(changes, device)
    assert [report.status for report in run_trial(trial, data, folder)][-1] == "finished"


@pytest.mark.serial
def test_trials_leave_no_tensor_behind(small_experiment):
    train(small_experiment, 0)
    after_one = live_tensors()
    for seed in range(1, N_TRIALS):
        train(small_experiment, seed)
    assert live_tensors() <= after_one


@pytest.mark.serial
def test_a_trial_that_fails_leaves_no_tensor_behind(small_experiment):
    train(small_experiment, 0)
    after_one = live_tensors()
    for seed in range(1, 6):
        trial, data, folder = small_experiment.trial({"experiment_config.name": f"small_experiment{seed}"})
        reports = run_trial(trial, data, folder)
        next(reports)
        assert reports.throw(RuntimeError("the device is gone")).status == "failed"
        del reports
    assert live_tensors() <= after_one


@pytest.mark.gpu
def test_trials_leave_no_memory_of_a_gpu_taken(small_experiment):
    device = torch.device("cuda", 0)
    train(small_experiment, 0, device)
    torch.cuda.empty_cache()
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    for seed in range(1, N_TRIALS):
        train(small_experiment, seed, device)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated(device) <= allocated
    assert torch.cuda.memory_reserved(device) <= reserved
