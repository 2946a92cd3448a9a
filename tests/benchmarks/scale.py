"""Measures what a large run costs and writes the table in `cluster/SCALE.md`: `make scale`.

It takes 20 minutes on two cores. All figures depend on the machine and its load at the time; the table states the load.
Nothing is asserted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import ray
import torch
from ray import tune
from ray.cluster_utils import Cluster
from torch import Tensor

from cluster.executors import ray_runner, ray_session
from cluster.executors.monitor import Monitor
from cluster.planning.placement import PRETEND_GPUS
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.storage.archive import Archive
from cluster.storage.filesystem import Storage
from cluster.storage.records import to_parquet
from cluster.storage.trial_file import TrialFile
from cluster.trial.trainable import TrialReport
from data_pipeline.distorters import Distorter, TrainingSamples
from data_pipeline.skeleton import HANDS17
from data_pipeline.subsets import MEAN_SUBSET
from posenet.checkpoint import pack
from posenet.models import CorrectorMLP
from posenet.record import Record
from tests.benchmarks.sweeps import experiment, run_quietly, write_random_dataset
from tests.support import ROOT

PAGE = ROOT / "cluster" / "SCALE.md"
BEGIN, END = "<!-- figures: begin, made by `make scale` -->", "<!-- figures: end -->"


@dataclass(frozen=True, kw_only=True)
class Sleep(Distorter):
    """Changes nothing and sleeps, to simulate the time that a GPU would take."""

    seconds: float

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        time.sleep(self.seconds)
        return samples.poses


def memory_kb() -> int:
    """Returns the private memory of this process, kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Clock:
    """Records the time of the last report of each step, and the driver's processor time and memory until then."""

    def __init__(self) -> None:
        self.first_start: float | None = None
        self.ends: list[float] = []
        self.cpu_s: list[float] = []
        self.memory_kb: list[int] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        started, reported = Monitor.started, Monitor.reported

        def note_start(monitor: Monitor, trial_id: str) -> None:
            self.first_start = self.first_start or time.monotonic()
            started(monitor, trial_id)

        def note_end(monitor: Monitor, report: TrialReport) -> None:
            reported(monitor, report)
            if report.status in ("finished", "paused"):
                self.ends.append(time.monotonic())
                self.cpu_s.append(time.process_time())
                self.memory_kb.append(memory_kb() if len(self.ends) % 100 == 0 else 0)

        with mock.patch.object(Monitor, "started", note_start), mock.patch.object(Monitor, "reported", note_end):
            yield


def many_trials(folder: Path, n: int) -> dict[str, str]:
    """Trains `n` trials of a few milliseconds each."""
    sweep = experiment(
        folder,
        solver_config={"batch_size": 64},
        hyperparams={"model_args": {"hidden_dims": [8]}},
        name="many",
        n_repetitions=10,
        keep_weights="none",
    )
    sweep.add_options("optimizer_args.lr", [1e-6 * (i + 1) for i in range(n // 10)])
    clock = Clock()
    began = time.monotonic()
    with clock.watching():
        run_quietly(sweep, "ray")
    # Each tenth includes the start of one Tuner's workers; the first includes that of the second Tuner.
    tenth, ends = len(clock.ends) // 10, clock.ends
    rates = [tenth / (ends[i + tenth] - ends[i]) for i in range(0, len(ends) - tenth, tenth)]
    rates.append(tenth / (ends[-1] - ends[-1 - tenth]))
    from_kb, to_kb = (next(kb for kb in kbs if kb) for kbs in (clock.memory_kb, clock.memory_kb[::-1]))
    share = (clock.cpu_s[-1] - clock.cpu_s[0]) / (len(ends) - 1)
    begin = time.monotonic()
    command = [sys.executable, str(ROOT / "tune_runs/report.py"), "show", "many", "--storage-path"]
    subprocess.run([*command, str(folder / "results")], check=True, capture_output=True)
    report_s = time.monotonic() - begin
    begin = time.monotonic()
    plan = sweep.plan()
    plan_s = time.monotonic() - begin
    assert not plan.to_train
    files = sum(len(names) for _, _, names in os.walk(folder / "results" / "many"))
    return {
        f"{n:,} trials, one process on each of {len(os.sched_getaffinity(0))} cores": f"{ends[-1] - began:.0f} s",
        "… from the start of the run to the start of the first trial": f"{clock.first_start - began:.1f} s",
        "… trials per second over the whole run": f"{len(ends) / (ends[-1] - ends[0]):.1f}",
        "… trials per second in its first tenth": f"{rates[0]:.1f}",
        "… trials per second in its last tenth": f"{rates[-1]:.1f}",
        "… trials per second in its slowest and its fastest tenth": f"{min(rates):.1f}, {max(rates):.1f}",
        "… processor time of the driver per trial": f"{share * 1e3:.1f} ms",
        "… growth of the driver's memory per trial over the whole run": f"{(to_kb - from_kb) / len(ends):.1f} KB",
        "… growth over the second half": f"{_growth_kb(clock.memory_kb[len(ends) // 2 :]):.1f} KB",
        "… files that remain": f"{files:,}",
        "… `report.py show` of the result": f"{report_s:.1f} s",
        "… reading the state of all trials at the start of a run": f"{plan_s:.1f} s",
    }


def race(folder: Path, n: int) -> dict[str, str]:
    """Races `n` combinations with one repetition and nine short epochs."""
    rule, n_epochs = SuccessiveHalving(reduction_factor=3), 9
    sweep = experiment(
        folder,
        solver_config={"batch_size": 64, "num_epochs": n_epochs},
        hyperparams={"model_args": {"hidden_dims": [8]}},
        name="raced",
        n_repetitions=1,
        keep_weights="none",
        race=rule,
    )
    sweep.add_options("optimizer_args.lr", [1e-6 * (i + 1) for i in range(n)])
    begin = time.monotonic()
    plan = sweep.plan()
    plan_s = time.monotonic() - begin
    assert len(plan.to_train) == n
    clock = Clock()
    began = time.monotonic()
    with clock.watching():
        run_quietly(sweep, "ray")
    seconds = time.monotonic() - began
    begin = time.monotonic()
    sweep.plan()
    again_s = time.monotonic() - begin
    *memory_mb, last_mb = (kb / 1024 for kb in clock.memory_kb if kb)
    before_decision = memory_mb[: n // 100 - 1]
    one_tuner = before_decision[: ray_runner._STEPS_OF_A_TUNER // 100 + 1]
    rungs = " and ".join(str(rung.epoch(n_epochs)) for rung in rule.rungs(rule.n_rungs(n_epochs), 1))
    return {
        f"a race of {n:,} combinations with rungs after {rungs} epochs": f"{seconds:.0f} s",
        "… planning it": f"{plan_s:.1f} s",
        "… steps: trials, or parts of trials between two rungs": f"{len(clock.ends):,}",
        "… the driver's memory after one Tuner": f"{one_tuner[-1]:.0f} MB",
        "… just before the first decision, which compares all combinations": f"{before_decision[-1]:.0f} MB",
        "… at the end": f"{last_mb:.0f} MB",
        "… planning it again after it has ended": f"{again_s:.1f} s",
    }


def _growth_kb(memory_kb: list[int]) -> float:
    seen = [kb for kb in memory_kb if kb]
    # The maximum of each half: memory falls when a Tuner ends and rises with the trials of the next one.
    half = len(seen) // 2
    return (max(seen[half:]) - max(seen[:half])) / (len(memory_kb) / 2)


def single_costs(folder: Path) -> dict[str, str]:
    """Measures steps that every trial repeats."""
    rows = [Record(1, 1, "val", "mean", "original", f"metric{i % 40}", i / 7) for i in range(1000)]
    storage = Storage(folder / "costs")
    model = CorrectorMLP(HANDS17, hidden_dims=[256, 256])
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, 21, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": model.state_dict()}
    packed = pack(state)
    text = "x" * 5000
    times = {
        "building and writing records of 1,000 rows": _median_s(lambda: storage.write("r", to_parquet("a/0", rows))),
        f"building and writing a checkpoint of {len(packed) / 2**20:.1f} MiB": _median_s(
            lambda: storage.write("c", pack(state))
        ),
        "writing a trial.json": _median_s(lambda: storage.write("t", text.encode())),
    }
    return {name: f"{s * 1e3:.1f} ms" for name, s in times.items()}


def _median_s(step: Any, n: int = 30) -> float:
    times = []
    for _ in range(n):
        begin = time.monotonic()
        step()
        times.append(time.monotonic() - begin)
    return median(times)


def report_cost(folder: Path) -> dict[str, str]:
    """Measures a report from a worker to the driver; the trial waits for it."""

    def train(config: dict[str, Any]) -> None:
        begin = time.monotonic()
        for _ in range(300):
            tune.report({"took": 0.0})
        tune.report({"took": (time.monotonic() - begin) / 300})

    ray_session._start(address="local", num_cpus=1, include_dashboard=False)
    run_config = tune.RunConfig(storage_path=str(folder / "tune"), verbose=0)
    (result,) = tune.Tuner(train, run_config=run_config).fit()
    ray.shutdown()
    return {"a report from a trial to the driver": f"{result.metrics['took'] * 1e3:.1f} ms"}


def archive_cost(folder: Path) -> dict[str, str]:
    """Measures how long moving 1,000 trials into an archive takes."""
    root = Storage(folder / "moved")
    rows = [Record(1, 1, "val", "mean", "original", f"metric{i % 40}", i / 7) for i in range(1000)]
    ids = [f"{i:016x}/0" for i in range(1000)]
    distances = {"distance": 8.0, "distance_before": 10.0}
    trial = TrialFile(status="finished", metrics={"val": {MEAN_SUBSET: distances}}, description={"x": "y" * 5000})
    text = trial.to_json().encode()
    for trial_id in ids:
        root.write(f"trials/{trial_id}/records.parquet", to_parquet(trial_id, rows))
        root.write(f"trials/{trial_id}/trial.json", text)
    begin = time.monotonic()
    left = Archive(root).add(ids)
    seconds = time.monotonic() - begin
    if left or root.files("trials"):
        raise RuntimeError("the trials were not moved")
    return {"moving 1,000 trials into the archive": f"{seconds:.1f} s"}


def on_devices(folder: Path, n_nodes: int, gpus: int, *, seconds: float, n: int) -> tuple[float, float, float]:
    """Trains `n` trials that sleep on logical devices.

    Returns:
        The utilisation of the devices between first start and last end; the median gap between two trials of a
        device, s; the time between the first trial of the first device and that of the last device, s.
    """
    name = f"on{n_nodes}x{gpus}"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        with mock.patch.dict(os.environ, {PRETEND_GPUS: "1", "POSETUNE_ADDRESS": cluster.address}):
            for _ in range(n_nodes):
                cluster.add_node(num_cpus=gpus, num_gpus=gpus, object_store_memory=80 * 2**20)
            sweep = experiment(
                folder,
                solver_config={"batch_size": 64},
                hyperparams={"distorter": Sleep, "distorter_args": {"seconds": seconds}},
                name=name,
                n_repetitions=n,
                keep_weights="none",
                target_device=torch.device("cuda"),
            )
            run_quietly(sweep, "ray")
    finally:
        cluster.shutdown()
    times: dict[int, list[tuple[float, float]]] = {}
    for path in (folder / "results" / name / "trials").glob("*/*/trial.json"):
        trial = json.loads(path.read_text())
        times.setdefault(trial["pid"], []).append((trial["started"], trial["ended"]))
    slots = [sorted(slot) for slot in times.values()]
    first = min(slot[0][0] for slot in slots)
    last = max(slot[-1][1] for slot in slots)
    busy = sum(end - start for slot in slots for start, end in slot)
    gaps = [b[0] - a[1] for slot in slots for a, b in pairwise(slot)]
    return busy / ((last - first) * n_nodes * gpus), median(gaps), max(slot[0][0] for slot in slots) - first


def utilisation(folder: Path, n_nodes: int) -> dict[str, str]:
    """Measures 40 trials of 2 s on 4 logical devices, and two trials of 20 s per node on `n_nodes` logical nodes."""
    share, gap, spread = on_devices(folder, 1, 4, seconds=2, n=40)
    figures = {
        "40 trials of 2 s on 4 logical devices: utilisation from first start to last end": f"{share:.1%}",
        "… from the end of a trial to the start of the next one on the same device": f"{gap * 1e3:.0f} ms",
        "… between the first trial of the first device and that of the last device": f"{spread:.1f} s",
    }
    share, gap, spread = on_devices(folder, n_nodes, 1, seconds=20, n=2 * n_nodes)
    return figures | {
        f"{2 * n_nodes} trials of 20 s on {n_nodes} logical nodes with one device each: utilisation": f"{share:.1%}",
        "… from the end of a trial to the start of the next one on the same node": f"{gap * 1e3:.0f} ms",
        "… between the first trial of the first node and that of the last node": f"{spread:.1f} s",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument(
        "--nodes", type=int, default=16, help="number of logical nodes; each consists of a few processes of 0.4 GB"
    )
    parser.add_argument("--only", choices=["costs", "many", "race", "devices"])
    given = parser.parse_args()
    load, figures = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("train", "val"):
            write_random_dataset(folder / "data", part, 64)
        if given.only in (None, "costs"):
            figures |= single_costs(folder) | report_cost(folder) | archive_cost(folder)
        if given.only in (None, "devices"):
            figures |= utilisation(folder, given.nodes)
        if given.only in (None, "many"):
            figures |= many_trials(folder, given.trials)
        if given.only in (None, "race"):
            figures |= race(folder, given.trials)
    cores = len(os.sched_getaffinity(0))
    table = [
        f"Measured on {cores} cores (load {load:.1f} before the start) with Ray {ray.__version__} "
        f"on {time.strftime('%Y-%m-%d')}:",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in figures.items()),
    ]
    print("\n".join(table))
    if given.only is None:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text("\n".join([f"{before}{BEGIN}", *table, f"{END}{rest.partition(END)[2]}"]))


if __name__ == "__main__":
    main()
