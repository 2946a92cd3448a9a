"""Measures what the same trainings cost with PoseTune and with what people would use instead.

All programs train the same network with the same settings on the same random poses, as many trainings at a time as
there are cores, with a thread each; only PoseTune inline has one training at a time. They write the learning curve and
the best weights of each training. What else they do differs, see the first lines of each file: PoseTune does more.

They run one after another. The benchmark fails if one of them does not finish all trainings, or if the mean of the best
validation errors differs by more than 3 % from that of another.

`python -m tests.benchmarks.peers` measures 64 trainings and 256 tiny ones; `short` after it measures 16 tiny ones only.
The output is a Markdown table. Disk is what a program left in its output folder; the line below the table has the size
of what it left in the folder of its Ray session, which is mostly logs.
"""

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from tabulate import tabulate

from cluster.result_table import read_results
from tests.benchmarks.peers import optuna_sqlite, posetune_run, ray_tune
from tests.benchmarks.peers.process_tree import Cost, run_measured
from tests.benchmarks.peers.training import LRS, N_CORES, WEIGHT_DECAYS, Sweep
from tests.benchmarks.sweeps import write_random_dataset

TOLERANCE = 0.03
"""The means of the best validation errors may differ by this share; dropout and the order of poses are random."""


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        title: What the table calls it.
        n_train: Poses for training.
        n_val: Poses for validation.
        n_epochs: Epochs of each training.
        batch_size: Poses in a batch.
        n_seeds: Trainings of each of the 16 combinations.
    """

    title: str
    n_train: int
    n_val: int
    n_epochs: int
    batch_size: int
    n_seeds: int


SIZES = {
    "usual": Size("64 trainings", 20_000, 4_000, n_epochs=20, batch_size=512, n_seeds=4),
    "tiny": Size("256 tiny ones", 256, 256, n_epochs=1, batch_size=64, n_seeds=16),
    "short": Size("16 tiny ones", 256, 256, n_epochs=2, batch_size=64, n_seeds=1),
}


def results_on_disk(out: Path) -> list[float]:
    """Returns the best error of each training from the last line of each `result.json`; Tune has a line per epoch."""
    return [json.loads(path.read_text().splitlines()[-1])["best_mm"] for path in out.rglob("result.json")]


def results_of_posetune(out: Path) -> list[float]:
    return [row["val_distance_mm"] for row in read_results(out / posetune_run.NAME).trials]


def results_of_optuna(out: Path) -> list[float]:
    study = optuna.load_study(study_name=optuna_sqlite.STUDY, storage=optuna_sqlite.storage(out))
    # By combination: if processes had trained one twice, another one would be missing.
    return list({json.dumps(trial.params, sort_keys=True): trial.value for trial in study.trials}.values())


def arguments_of_hydra(sweep: Sweep) -> list[str]:
    return [
        "--multirun",
        f"hydra.sweep.dir={sweep.out}",
        f"hydra.launcher.n_jobs={N_CORES}",
        *(f"{name}={getattr(sweep, name)}" for name in ("data", "n_epochs", "batch_size")),
        f"lr={','.join(map(str, LRS))}",
        f"weight_decay={','.join(map(str, WEIGHT_DECAYS))}",
        f"seed=range({sweep.n_seeds})",
    ]


@dataclass(frozen=True)
class Program:
    """A program that trains a sweep.

    Attributes:
        name: What the table calls it.
        module: Its file in this folder.
        arguments: Returns its command line.
        errors_mm: Reads the best validation error of each training from its output folder, mm.
    """

    name: str
    module: str
    arguments: Callable[[Sweep], list[str]] = Sweep.arguments
    errors_mm: Callable[[Path], list[float]] = results_on_disk


PROGRAMS = (
    Program("PoseTune", "posetune_run", errors_mm=results_of_posetune),
    Program(
        "PoseTune, inline on one core",
        "posetune_run",
        lambda sweep: [posetune_run.INLINE, *sweep.arguments()],
        results_of_posetune,
    ),
    Program("Ray Tune", "ray_tune"),
    Program("Ray Tune with `reuse_actors`", "ray_tune", lambda sweep: [ray_tune.REUSE_ACTORS, *sweep.arguments()]),
    Program("Optuna with SQLite", "optuna_sqlite", errors_mm=results_of_optuna),
    Program("Hydra with joblib", "hydra_joblib", arguments_of_hydra),
    Program("`multiprocessing`", "process_pool"),
)


@dataclass(frozen=True)
class Measured:
    """What a program cost, and what it found.

    Attributes:
        cost: Time, processor time and memory.
        disk_bytes: The sizes of the files that it wrote.
        n_files: Their number.
        session_bytes: The sizes of the files of its Ray session, mostly logs.
        mean_mm: The mean of the best validation errors, mm.
    """

    cost: Cost
    disk_bytes: int
    n_files: int
    session_bytes: int
    mean_mm: float

    def cells(self) -> list[str]:
        cost = self.cost
        disk = f"{self.disk_bytes / 1e6:.1f} ({self.n_files:,})"
        return [f"{cost.wall_s:.0f}", f"{cost.cpu_s:.0f}", f"{cost.memory_bytes / 1e9:.2f}", disk]


def file_sizes(folder: Path) -> list[int]:
    return [path.lstat().st_size for path in folder.rglob("*") if path.is_file()]


def measure(program: Program, size: Size, data: Path, folder: Path) -> Measured:
    """Runs one program in a folder of its own.

    Raises:
        AssertionError: If it does not finish all trainings.
    """
    sweep = Sweep(data, folder / "out", size.n_epochs, size.batch_size, size.n_seeds)
    sweep.out.mkdir(parents=True)
    command = [sys.executable, "-m", f"tests.benchmarks.peers.{program.module}", *program.arguments(sweep)]
    # Ray has sockets in its folder, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as session:
        cost = run_measured(command, log=folder / "log", environment={"RAY_TMPDIR": session})
        session_bytes = sum(file_sizes(Path(session)))
    errors_mm = program.errors_mm(sweep.out)
    assert len(errors_mm) == len(sweep.settings()), f"{program.name}: {len(errors_mm)} trainings"
    sizes = file_sizes(sweep.out)
    return Measured(cost, sum(sizes), len(sizes), session_bytes, statistics.fmean(errors_mm))


def measure_all(size: Size, folder: Path) -> dict[str, Measured]:
    """Runs all programs, one after another.

    Raises:
        AssertionError: If one does not finish all trainings, or if their errors differ too much.
    """
    data = folder / "data"
    for seed, (name, n) in enumerate((("train", size.n_train), ("val", size.n_val))):
        write_random_dataset(data, name, n, seed)
    found = {}
    for program in PROGRAMS:
        own = folder / "program"
        one = found[program.name] = measure(program, size, data, own)
        shutil.rmtree(own)
        done = f"{size.title}, {program.name}: {one.cost.wall_s:.1f} s, {one.mean_mm:.3f} mm"
        print(done, file=sys.stderr, flush=True)
    means_mm = [one.mean_mm for one in found.values()]
    assert max(means_mm) <= (1 + TOLERANCE) * min(means_mm), means_mm
    return found


def table(measured: Mapping[str, Mapping[str, Measured]]) -> str:
    """Returns the Markdown table of what each program cost, by the title of the size and the name of the program."""
    headers = [f"on {N_CORES} cores"]
    for title in measured:
        headers += [f"{title}: wall s", "CPU s", "memory GB", "disk MB (files)"]
    rows = [
        [program.name, *(cell for found in measured.values() for cell in found[program.name].cells())]
        for program in PROGRAMS
    ]
    return tabulate(rows, headers, "pipe", colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True)


if __name__ == "__main__":
    sizes = [SIZES[name] for name in sys.argv[1:] or ("usual", "tiny")]
    with tempfile.TemporaryDirectory(prefix="peers") as name:
        measured = {size.title: measure_all(size, Path(name) / str(i)) for i, size in enumerate(sizes)}
    print(table(measured))
    for title, found in measured.items():
        sessions = [f"{name} {one.session_bytes / 1e6:.0f} MB" for name, one in found.items() if one.session_bytes]
        means_mm = [one.mean_mm for one in found.values()]
        print(f"{title}: files of Ray's session: {', '.join(sessions)};", end=" ")
        print(f"mean of the best validation errors from {min(means_mm):.3f} to {max(means_mm):.3f} mm")
