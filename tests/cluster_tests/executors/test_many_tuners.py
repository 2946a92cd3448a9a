"""Runs that are too large for a single Tuner, with small limits."""

import pytest

from cluster.executors import ray_runner
from cluster.experiment import TrialsFailedError
from cluster.storage import archive
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from tests.cluster_tests.small_experiment import LR, FailingMLP, SmallExperiment

LRS = [1e-3, 3e-3, 1e-2]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(ray_runner, "_STEPS_OF_A_TUNER", 4)
    monkeypatch.setattr(ray_runner, "_STEPS_OF_A_SLOT", 1)
    monkeypatch.setattr(archive, "BUNDLE_TRIALS", 2)


@pytest.fixture
def tuners(monkeypatch):
    """The number of steps of each Tuner."""
    given = []
    real = ray_runner._tune

    def note(trainable, steps, *args):
        before = len(steps.schedule._waiting)
        real(trainable, steps, *args)
        given.append(before - len(steps.schedule._waiting))

    monkeypatch.setattr(ray_runner, "_tune", note)
    return given


def numbers(table):
    return [{**row, "train_seconds": None} for row in table.trials], table.summary


@pytest.mark.ray
@pytest.mark.slow
def test_every_trial_is_trained_once_with_the_same_numbers_as_inline(
    small_experiment, small_data, tmp_path, tuners, capfd
):
    changes = {"experiment_config.n_repetitions": 3}
    options = {LR: LRS, "scheduler_args.gamma": [0.5, 0.9]}
    # Some are already finished, so that a Tuner must skip them.
    small_experiment.run({"experiment_config.n_repetitions": 2}, {LR: LRS[1:], "scheduler_args.gamma": [0.9]})
    inline = SmallExperiment(small_data, tmp_path / "inline").run(changes, options)
    capfd.readouterr()
    table = small_experiment.experiment(changes, options).run("ray")
    assert tuners == [4, 4, 4, 2]
    assert numbers(table) == numbers(inline)
    assert "18 trials: 4 finished, 14 to train" in capfd.readouterr().err
    archived = [trial_id for trial_id, _ in ExperimentFolder(Storage(small_experiment.folder)).archive.trials()]
    assert len(archived) == len(set(archived)) == 16


@pytest.mark.ray
@pytest.mark.slow
def test_no_other_tuner_starts_when_the_first_trials_have_all_failed(small_experiment, tuners):
    changes = {"base_hyperparams.model": FailingMLP, "experiment_config.n_repetitions": 4}
    experiment = small_experiment.experiment({**changes, "experiment_config.stop_if_all_fail": 2}, {LR: LRS})
    with pytest.raises(TrialsFailedError, match="the first 2 trials all failed"):
        experiment.run("ray")
    assert len(tuners) == 1
    assert len(experiment.results().failures) < 12
