"""Measures four parallel trials on 1 M poses (about 0.5 GB): private memory of each worker, and time to start.

Both are compared with the same trials on 1,000 poses. Bound: 150 MB per worker; the time to start must not grow.
"""

import json
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.ray_runner import run_ray
from cluster.executors.ray_session import embedded
from cluster.executors.signals import Signals
from cluster.experiment_files import write_experiment_file
from cluster.planning.inputs import Inputs
from cluster.planning.placement import Placement
from cluster.schedules.schedule import GridSchedule
from cluster.trial.rehearsal import N_SAMPLES
from cluster.trial.trainable import TrialReport
from data_pipeline.distorters import Distorter, TrainingSamples
from tests.benchmarks.sweeps import experiment, write_random_dataset

N_WORKERS = 4


@dataclass(frozen=True, kw_only=True)
class Clock(Distorter):
    """Changes nothing, and records when each trial first called it."""

    folder: str

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        path = Path(self.folder) / f"{threading.get_native_id()}-{generator.initial_seed()}"
        if len(samples.poses) > N_SAMPLES and not path.exists():  # not when it is tried before anything starts
            path.write_text(str(time.time()))
        return samples.poses


class Stopwatch:
    """Replaces the display: records when trials were started."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def started(self, trial_id: str) -> None:
        self.starts.append(time.time())

    def reported(self, report: TrialReport) -> None:
        assert report.status in ("running", "finished"), report

    def refresh(self) -> None:
        pass


def anonymous_mb(pid: int) -> float:
    """Returns the private memory of a process, MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def measure(folder: Path, train_set: str) -> tuple[float, float]:
    """Returns the largest private memory of a worker, MB, and the median time from trial start to first batch, s."""
    clock = folder / f"clock_{train_set}"
    clock.mkdir()
    sweep = experiment(
        folder,
        solver_config={"batch_size": 4096},
        hyperparams={"distorter": Clock, "distorter_args": {"folder": str(clock)}},
        name=train_set,
        train_set=train_set,
        n_repetitions=2 * N_WORKERS,
        checkpoint_interval_s=0,
    )
    inputs = Inputs(sweep.config.data_folder)
    plan = sweep._plan(inputs)
    stopwatch = Stopwatch()
    job = Job.of(sweep.config, sweep.space, inputs)
    write_experiment_file(plan, job, {})
    placement = Placement(torch.device("cpu"), n_slots=N_WORKERS, cpus_per_trial=1)
    done, most = threading.Event(), 0.0

    def watch_memory() -> None:
        nonlocal most
        while not done.wait(0.05):
            for path in (folder / "results" / train_set / "trials").glob("*/*/trial.json"):
                most = max(most, anonymous_mb(json.loads(path.read_text())["pid"]))

    watcher = threading.Thread(target=watch_memory)
    watcher.start()
    try:
        with embedded(placement):
            monitor = Monitor(stopwatch, None)  # type: ignore[arg-type]
            run_ray(GridSchedule(plan.to_train), job, placement, monitor, Signals())
    finally:
        done.set()
        watcher.join()
    firsts = sorted(float(path.read_text()) for path in clock.iterdir())
    # The later trials run in existing workers, so their time includes no start of a process.
    later = zip(sorted(stopwatch.starts)[N_WORKERS:], firsts[N_WORKERS:], strict=True)
    return most, statistics.median(first - start for start, first in later)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_dataset(folder / "data", "val", 1000)
        write_random_dataset(folder / "data", "small", 1000)
        write_random_dataset(folder / "data", "large", 1_000_000)
        small_mb, small_s = measure(folder, "small")
        large_mb, large_s = measure(folder, "large")
    print(f"private memory of a worker: {small_mb:.0f} MB on 1,000 poses, {large_mb:.0f} MB on 1,000,000")
    print(f"difference: {large_mb - small_mb:.0f} MB; bound 150 MB")
    print(f"from a trial's start to its first batch: {small_s:.3f} s on 1,000 poses, {large_s:.3f} s on 1,000,000")
