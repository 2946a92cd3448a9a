"""Training in this process on GPUs that do not exist."""

import pytest
import torch
from torch import Tensor

from cluster.executors.inline import run_inline
from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.signals import Signals
from cluster.planning.inputs import Inputs
from cluster.planning.placement import Placement
from cluster.schedules.schedule import GridSchedule
from posenet.models import CorrectorMLP
from tests.cluster_tests.executors.test_progress import progress_on
from tests.cluster_tests.small_experiment import FailingMLP

GPU = Placement(torch.device("cuda", 0), n_slots=1, cpus_per_trial=1, gpu_share=1.0, gpus=(1,))


class AssertingMLP(CorrectorMLP):
    """Reads a row that does not exist; on a GPU that makes the GPU unusable for the process."""

    def correction(self, poses: Tensor) -> Tensor:
        return poses[torch.tensor([10**6], device=poses.device)]


@pytest.fixture
def train(small_experiment, gpus):
    """Trains three repetitions of a model that fails."""
    changes = {"experiment_config.n_repetitions": 3, "base_hyperparams.model": FailingMLP}
    experiment = small_experiment.experiment(changes)
    inputs = Inputs(experiment.config.data_folder)
    plan = experiment._plan(inputs)
    monitor = Monitor(progress_on(False), None)

    def train():
        job = Job.of(experiment.config, experiment.space, inputs)
        run_inline(GridSchedule(plan.trials), job, GPU, monitor, Signals())

    train.monitor = monitor
    return train


def test_the_error_of_a_trial_ends_the_run_and_gives_the_gpu_back(train, gpus, with_errors):
    with pytest.raises(RuntimeError, match="this model is"):
        train()
    assert [outcome.status for outcome in train.monitor.outcomes.values()] == ["failed"]
    assert gpus.current == 0


@pytest.mark.gpu
def test_a_run_ends_when_a_trial_has_made_a_real_gpu_unusable(small_experiment, python):
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from tests.cluster_tests.executors.test_inline import AssertingMLP\n"
        "from tests.cluster_tests.small_experiment import SmallExperiment\n"
        "changes = {'experiment_config.target_device': torch.device('cuda'), 'experiment_config.n_repetitions': 3}\n"
        "SmallExperiment(*map(Path, sys.argv[1:])).run({**changes, 'base_hyperparams.model': AssertingMLP})\n"
    )
    done = python(code, small_experiment.data_dir, small_experiment.storage_path)
    assert done.returncode == 1
    statuses = [row["status"] for row in small_experiment.experiment().results().trials]
    assert sorted(statuses) == ["failed", "pending", "pending"]
