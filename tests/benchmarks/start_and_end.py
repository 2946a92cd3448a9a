"""Measures how long a run makes its user wait: before the first epoch, and after the last trial.

It runs the demo (`tune_runs/minimal_example.py`) in new processes. Goals on a warm disk: the first epoch of the first
trial ends within 5 s inline and within 7 s with Ray; the process ends within 1 s after the last trial.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import ROOT

DATASET = "synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B"
N_RUNS = 3
FIRST_EPOCH_GOAL_S = {"inline": 5, "ray": 7}
END_GOAL_S = 1

SCRIPT = """
import runpy
import sys
import time
from pathlib import Path

example = runpy.run_path({example!r})

from cluster.experiment import Experiment
from data_pipeline.augmenters import RandomRotator


def note(trial_id, report, model):
    if report.epoch == 1:
        (Path("first_epochs") / trial_id.replace("/", "-")).write_text(str(time.time()))


solver_config = {{**example["solver_config"], "callbacks": [note]}}
experiment = Experiment(example["experiment_config"], solver_config, example["base_hyperparams"])
experiment.add_options("optimizer_args.lr", [3e-4, 1e-3, 3e-3])
experiment.add_options("augmenters", [[], [RandomRotator()]])
experiment.run(sys.argv[1])
"""
"""The demo with a callback that notes when each trial has trained an epoch."""


def python(folder: Path, *arguments: str) -> None:
    """Runs Python in a folder, quietly."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True)


def run(folder: Path, executor: str, number: int) -> tuple[float, float]:
    """Runs the demo; returns the seconds until the first epoch has ended, and those after the last trial."""
    place = folder / f"{executor}{number}"
    (place / "first_epochs").mkdir(parents=True)
    (place / "data").symlink_to(folder / "data")
    start = time.time()
    python(place, str(folder / "demo.py"), executor)
    end = time.time()
    trials = [json.loads(path.read_text()) for path in place.glob("results/minimal_example/trials/*/*/trial.json")]
    assert {trial["status"] for trial in trials} == {"finished"}
    first = min(float(path.read_text()) for path in (place / "first_epochs").iterdir())
    return first - start, end - max(trial["ended"] for trial in trials)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python(folder, str(ROOT / "tune_runs" / "prepare_data.py"), *DATASET.split())
        (folder / "demo.py").write_text(SCRIPT.format(example=str(ROOT / "tune_runs" / "minimal_example.py")))
        for executor, goal_s in FIRST_EPOCH_GOAL_S.items():
            firsts, ends = zip(*(run(folder, executor, number) for number in range(N_RUNS)), strict=True)
            for what, seconds, goal in (("first epoch", firsts, goal_s), ("after the last trial", ends, END_GOAL_S)):
                print(f"{executor:6} {what:20} {'  '.join(f'{s:5.2f}' for s in seconds)} s (goal {goal} s)", flush=True)
