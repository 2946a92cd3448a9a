"""Planning 10,000 combinations, and `report.py show` on 1,000 finished trials. Bound: 2 s each."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.sweeps import experiment, run_quietly, write_random_dataset

REPORT = Path(__file__).parents[2] / "tune_runs" / "report.py"


def plan_seconds(folder: Path) -> float:
    sweep = experiment(folder, solver_config={})
    sweep.space.base["base_hyperparams"]["optimizer_args"] = {"lr": 1e-3, "weight_decay": 0.0}
    sweep.add_options("optimizer_args.lr", [1e-5 * (i + 1) for i in range(100)])
    sweep.add_options("optimizer_args.weight_decay", [1e-6 * i for i in range(100)])
    start = time.perf_counter()
    plan = sweep.plan()
    elapsed = time.perf_counter() - start
    assert len(plan.combinations) == 10_000
    return elapsed


def show_seconds(folder: Path) -> float:
    """Makes 1,000 finished trials out of a single one, so that their files are as large as real ones."""
    sweep = experiment(folder, solver_config={})
    run_quietly(sweep, "inline")
    path = folder / "results" / "bench" / "experiment.json"
    described = json.loads(path.read_text())
    (source,) = (folder / "results" / "bench" / "trials").glob("*/0/trial.json")
    content = json.loads(source.read_text())
    described["plan"] = {"seeds": [1, 2, 3, 4, 5], "combinations": []}
    described["options"] = [{"paths": ["optimizer_args.lr"], "rows": [[0.001 * i] for i in range(200)]}]
    for i in range(200):
        key = f"{i:016x}"
        options = {"optimizer_args.lr": 0.001 * i}
        described["plan"]["combinations"].append({"key": key, "options": options})
        for repetition in range(5):
            trial = source.parents[2] / key / str(repetition) / "trial.json"
            trial.parent.mkdir(parents=True)
            trial.write_text(json.dumps({**content, "key": key, "repetition": repetition, "options": options}))
    path.write_text(json.dumps(described))
    start = time.perf_counter()
    command = [sys.executable, REPORT, "show", "bench", "--storage-path", folder / "results"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    elapsed = time.perf_counter() - start
    assert "1000 finished" in output, output
    return elapsed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("train", "val"):
            write_random_dataset(folder / "data", part, 64)
        print(f"planning 10,000 combinations: {plan_seconds(folder):.2f} s; bound 2 s")
        print(f"report.py show on 1,000 finished trials: {show_seconds(folder):.2f} s; bound 2 s")
