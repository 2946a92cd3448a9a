"""The run scripts as a new user starts them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.experiment import Experiment

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tune_runs"
NYU = Path(os.environ.get("POSETUNE_SHARED_DATA", ROOT.parent / "shared" / "data")) / "nyu"


def run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.ray
@pytest.mark.slow
def test_the_demo_ends_with_a_table_and_a_second_time_trains_nothing(tmp_path):
    sizes = ("--train", 400, "--val", 201, "--test", 100)
    assert (
        run("prepare_data.py", "synthetic", "--name", "demo", *sizes, "--subsets", "A,B", cwd=tmp_path).returncode == 0
    )
    first = run("minimal_example.py", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "minimal_example: 18 trials, 18 finished" in first.stdout
    assert "18 to train" in first.stderr
    assert "results/minimal_example/" in first.stdout

    second = run("minimal_example.py", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "18 finished" in second.stderr
    assert "to train" not in second.stderr

    shown = run("report.py", "show", "minimal_example", cwd=tmp_path)
    assert first.stdout.split("\n\nAll files")[0].strip() in shown.stdout


def test_the_demo_without_its_dataset_says_how_to_make_it(tmp_path):
    result = run("minimal_example.py", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "prepare_data.py" in result.stderr
    assert not list(tmp_path.iterdir())


def test_nyu_backbones_without_its_datasets_names_the_command_that_makes_them(tmp_path):
    result = run("nyu_backbones.py", cwd=tmp_path)
    assert result.returncode == 2
    assert "--help" in result.stderr
    assert "prepare_data.py leaderboard --dataset nyu" in run("nyu_backbones.py", "--help", cwd=tmp_path).stdout


@pytest.mark.skipif(not NYU.is_dir(), reason=f"the published NYU predictions are not in {NYU}")
def test_correctors_of_nyu_backbones_lower_the_error_on_frames_they_have_not_seen(tmp_path):
    files = {"Pose-REN": "NEUCOM18_NYU_Pose_REN.txt", "DeepPrior": "CVWW15_NYU_Prior.txt"}
    predictions = [f"{backbone}={NYU / file}" for backbone, file in files.items()]
    truth = ("--ground-truth", NYU / "nyu_test_groundtruth_label.txt", "--predictions", *predictions)
    made = run(
        "prepare_data.py", "leaderboard", "--dataset", "nyu", *truth, "--name", "nyu", "--separate", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr

    script = runpy.run_path(str(SCRIPTS / "nyu_backbones.py"))
    config = {**script["experiment_config"], "n_repetitions": 1}
    config |= {"data_dir": tmp_path / "data", "storage_path": tmp_path / "results"}
    hyperparams = {**script["base_hyperparams"], "model_args": {"hidden_dims": [64], "dropout": 0.1}}
    experiment = Experiment(config, {**script["solver_config"], "num_epochs": 8, "interest_keys": []}, hyperparams)
    splits = ("train", "val", "test")
    experiment.add_joint_options(
        [f"experiment_config.{split}_set" for split in splits],
        [[f"nyu_{backbone}_{split}" for split in splits] for backbone in files],
    )
    table = experiment.run("inline")
    # The columns that the script's table shows, here without options of the model.
    rows = {row["experiment_config.test_set"]: row for row in table.best_for_each("experiment_config.test_set")}
    for backbone, before in {"Pose-REN": 12.64, "DeepPrior": 20.96}.items():
        row = rows[f"nyu_{backbone}_test"]
        assert round(row["test_distance_before_mm"], 2) == before
        assert row["test_distance_mm_mean"] < before - 0.3
