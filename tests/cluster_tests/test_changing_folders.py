"""Runs during which the working folder changes, or during which results are removed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from torch import Tensor

from cluster.planning.config import ConfigError
from cluster.storage.filesystem import StorageError
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR, SmallExperiment
from tests.cluster_tests.sweep import Sweep, a_trial_is_half_way, wait_for, write_sweep_data


class WanderingMLP(CorrectorMLP):
    """Changes the working folder, as a careless model does."""

    def correction(self, poses: Tensor) -> Tensor:
        if self.training:
            os.chdir("/")
        return super().correction(poses)


class RemovingMLP(CorrectorMLP):
    """Removes files in its training; stands for somebody who does."""

    what: Path

    def correction(self, poses: Tensor) -> Tensor:
        if self.training:
            shutil.rmtree(self.what) if self.what.is_dir() else self.what.unlink(missing_ok=True)
        return super().correction(poses)


@pytest.fixture
def relative(small_data, tmp_path, monkeypatch):
    """A small experiment with a relative results folder."""
    monkeypatch.chdir(tmp_path)
    return SmallExperiment(small_data, "results")


def test_a_relative_results_folder_stays_the_same_if_a_trial_changes_the_working_folder(relative, tmp_path):
    table = relative.run({}, {"model": [WanderingMLP, CorrectorMLP]})
    assert [row["status"] for row in table.trials] == ["finished"] * 2
    assert (tmp_path / "results" / "small_experiment" / "tables" / "trials.csv").exists()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("results", "small_experiment was removed or replaced while this run was training in it"),
        ("results/small_experiment", "small_experiment was removed or replaced while this run was training in it"),
        ("results/small_experiment/experiment.json", r"experiment\.json was removed or damaged while this run was"),
    ],
)
def test_results_that_are_removed_during_a_run_are_an_error_that_says_so(relative, tmp_path, monkeypatch, what, says):
    monkeypatch.setattr(RemovingMLP, "what", tmp_path / what, raising=False)
    with pytest.raises(StorageError, match=says) as caught:
        relative.run({"base_hyperparams.model": RemovingMLP}, {LR: [1e-3, 1e-2]})
    assert "Run the script again" in str(caught.value)
    assert [row["status"] for row in relative.run({}, {LR: [1e-3, 1e-2]}).trials] == ["finished"] * 2


def test_a_relative_results_folder_in_a_deleted_working_folder_is_an_error_of_the_config(
    small_data, tmp_path, monkeypatch
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(
        ConfigError, match=r"storage_path: results is relative to the working folder, which was deleted"
    ):
        SmallExperiment(small_data, "results").experiment()
    monkeypatch.chdir(tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_results_that_are_removed_during_a_sweep_end_it_with_an_error_that_says_so(tmp_path):
    write_sweep_data(tmp_path / "data")
    sweep = Sweep(tmp_path / "data", tmp_path / "results", tmp_path, experiment_config={"n_repetitions": 20})
    process = sweep.start(slow=0.05)
    wait_for(lambda: a_trial_is_half_way(sweep), process)
    subprocess.run(["rm", "-r", str(sweep.folder)], check=False)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "sweep was removed or replaced while this run was training in it" in errors
    assert "Traceback" not in errors
