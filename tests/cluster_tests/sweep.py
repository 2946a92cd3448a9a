"""A sweep as a user starts it, in a separate process, and its outcome."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import torch

from data_pipeline.pose_dataset import write_dataset
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from tests.cluster_tests.small_experiment import write_tables
from tests.support import ROOT

SCRIPT = Path(__file__).with_name("sweep_script.py")
HOW_IT_WAS_TRAINED = ("train_seconds", "node", "device", "gpu", "gpu_peak_gib", "gpu_total_gib")


def write_sweep_data(folder: Path) -> None:
    """Writes the small sets that `sweep_script.py` trains on, and the tables that its distorter reads."""
    # The last batch of 16 has more samples than a rehearsal, from which models of `sweep_script.py` distinguish it.
    for part, (n, seed) in {"train": (104, 1), "val": (40, 2)}.items():
        labels = synthetic_hands(n, seed)
        poses = {subset: Backbone(subset).predict(labels, seed) for subset in ("A", "B")}
        write_dataset(folder, f"small_{part}", labels, poses)
    write_tables(folder, synthetic_hands(104, 1))


class Sweep:
    """The sweep of `sweep_script.py` in a results folder, as a user starts it."""

    def __init__(self, data_dir: Path, storage_path: Path, control: Path | None = None, **spec: object) -> None:
        self.folder = storage_path / "sweep"
        self.spec = {"data_dir": str(data_dir), "storage_path": str(storage_path), **spec}
        storage_path.mkdir(exist_ok=True)
        self.spec_path = storage_path / "spec.json"
        self.script = SCRIPT
        self.on_cluster = control is not None
        self.control = control or storage_path / "control"
        self.control.mkdir(exist_ok=True)

    def start(
        self,
        *,
        slow: float = 0.0,
        cpus: set[int] | None = None,
        environment: Mapping[str, str] | None = None,
        **changes: object,
    ) -> subprocess.Popen:
        """Starts it with some changes to its spec; `slow` is the additional time of each batch, s."""
        self.spec_path.write_text(json.dumps({**self.spec, **changes}))
        if self.on_cluster:
            self.set_slow(slow)  # nodes keep the environment that they started with
        return subprocess.Popen(
            [sys.executable, str(self.script), str(self.spec_path)],
            cwd=ROOT,
            env={**os.environ, "SWEEP_CONTROL": str(self.control), "SLOW": str(slow), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
        )

    def set_slow(self, slow: float) -> None:
        """Changes the additional time of each batch on a cluster, s, also of a batch that is waiting."""
        replacement = self.control / "slow.new"
        replacement.write_text(str(slow))
        replacement.replace(self.control / "slow")  # no batch reads an empty file

    def run(self, **how: object) -> SimpleNamespace:
        """Runs it to the end."""
        process = self.start(**how)
        output, errors = process.communicate(timeout=280)
        return SimpleNamespace(code=process.returncode, output=output, errors=errors)

    def batches(self) -> list[tuple[int, float]]:
        """The process that trained each batch, in all attempts, and its factor of slowness."""
        return [(int(pid), float(factor)) for pid, factor, *_ in map(str.split, self._lines())]

    def gpus_seen(self) -> dict[int, str]:
        """CUDA_VISIBLE_DEVICES of each process that trained a batch."""
        return {int(pid): seen for pid, _, seen in (line.split(" ") for line in self._lines())}

    def modules_of_workers(self) -> list[set[str]]:
        """The modules that each process had imported when it trained its last batch."""
        return [set(path.read_text().split()) for path in self.control.glob("modules_*")]

    def trials(self) -> dict[str, dict]:
        """The content of every trial's file, by trial."""
        paths = self.folder.glob("trials/*/*/trial.json")
        return {"/".join(path.parts[-3:-1]): json.loads(path.read_text()) for path in paths}

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "tables" / "trials.csv").open() as file:
            return [
                {name: value for name, value in row.items() if name not in HOW_IT_WAS_TRAINED}
                for row in csv.DictReader(file)
            ]

    def numbers(self) -> dict[str, object]:
        """Everything that must not depend on interruptions of the sweep."""
        numbers: dict[str, object] = {"rows": self.rows(), "summary": (self.folder / "tables/summary.csv").read_bytes()}
        for path in self.folder.glob("trials/*/*/records.parquet"):
            trial = "/".join(path.parts[-3:-1])
            numbers[f"{trial} records"] = pq.read_table(path).to_pylist()
            weights = torch.load(path.with_name("weights.pt"), weights_only=True)
            numbers[f"{trial} weights"] = {name: tensor.tolist() for name, tensor in weights.items()}
            numbers[f"{trial} frames"] = pq.read_table(path.with_name("frames.parquet")).to_pylist()
            numbers[f"{trial} examples"] = path.with_name("examples.npz").read_bytes()
        return numbers

    def decisions(self) -> dict[str, bytes]:
        """The files of a race."""
        paths = (self.folder / "race").rglob("*.json")
        return {str(path.relative_to(self.folder / "race")): path.read_bytes() for path in paths}

    def finalists(self) -> dict[str, object]:
        """The records and weights of finished trials, by trial."""
        paths = {trial: self.folder / "trials" / trial for trial in finished(self)}
        return {
            trial: (pq.read_table(path / "records.parquet").to_pylist(), (path / "weights.pt").read_bytes())
            for trial, path in paths.items()
        }

    def _lines(self) -> list[str]:
        path = self.control / "batches"
        return path.read_text().splitlines() if path.exists() else []


def wait_for(condition: Callable[[], object], process: subprocess.Popen, timeout_s: float = 200.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.02)


def a_trial_is_half_way(sweep: Sweep) -> bool:
    """Whether a trial has a checkpoint and at least half of its training left, so that it runs a while longer."""
    running = [
        trial
        for trial, content in sweep.trials().items()
        if content["status"] == "running" and 1 <= content["epochs"] <= 3
    ]
    return any((sweep.folder / "trials" / trial / "checkpoint.pt").exists() for trial in running)


def finished(sweep: Sweep) -> set[str]:
    return {trial for trial, content in sweep.trials().items() if content["status"] == "finished"}
