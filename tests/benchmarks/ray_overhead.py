"""Measures what Ray adds to each of 64 trials of one epoch on a tiny set, once the first worker runs.

Both executors run one trial at a time. Bound: 0.08 s per trial; target: 0.05 s.
"""

import json
import os
import tempfile
from pathlib import Path

from tests.benchmarks.sweeps import experiment, run_quietly, write_random_dataset

N_TRIALS = 64


def seconds(folder: Path, executor: str) -> float:
    """Returns the time from the start of the first trial to the end of the last one."""
    sweep = experiment(
        folder,
        solver_config={"batch_size": 32},
        name=executor,
        n_repetitions=N_TRIALS // 4,
        cpus_per_trial=len(os.sched_getaffinity(0)),
    )
    sweep.add_options("optimizer_args.lr", [1e-4, 3e-4, 1e-3, 3e-3])
    run_quietly(sweep, executor)
    paths = (folder / "results" / executor / "trials").glob("*/*/trial.json")
    trials = [json.loads(path.read_text()) for path in paths]
    assert len(trials) == N_TRIALS
    return max(trial["ended"] for trial in trials) - min(trial["started"] for trial in trials)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("train", "val"):
            write_random_dataset(folder / "data", part, 64)
        times = {executor: seconds(folder, executor) for executor in ("inline", "ray")}
    for executor, time in times.items():
        print(f"{executor}: {time:.2f} s for {N_TRIALS} trials, {time / N_TRIALS * 1e3:.0f} ms per trial")
    print(f"Ray adds {(times['ray'] - times['inline']) / N_TRIALS:.3f} s per trial; bound 0.08 s, target 0.05 s")
