"""Measures reading results: `report.py` on 1,000 and on 10,000 trials of 20 epochs and three subsets each.

The trials are copies of a real one with different numbers, so their files are as large as real ones. Those of the
larger experiment are in the archive, as after a run. A report takes longer if combinations of the grid are missing,
because a forest predicts them. Bounds: `list`, `show` and `export` 3 s (goal: 1.5 s) and the report 30 s (goal: 8 s)
and 10 MB on 10,000 trials, with less than 1 GB of memory; the report 6 s and 5 MB on 1,000 trials; any command starts
in 1 s.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.archive import BUNDLE_TRIALS
from cluster.storage.records import joined
from data_pipeline.pose_dataset import write_dataset
from tests.benchmarks.sweeps import experiment, run_quietly

ROOT = str(Path(__file__).parents[2])
REPORT = Path(ROOT) / "tune_runs" / "report.py"
SUBSETS = ("A", "B", "C")
PATHS = ("optimizer_args.lr", "optimizer_args.weight_decay", "model_args.dropout")
VALUES = {1_000: (5, 4, 10), 10_000: (10, 10, 20)}
"""How many values each option has, by the number of trials."""

N_REPETITIONS = 5
MISSING = 20
"""In the incomplete grid, one combination in this many is missing."""


def write_sets(data_dir: Path) -> None:
    rng = np.random.default_rng(0)
    for seed, name in enumerate(("train", "val", "test")):
        labels = rng.normal(0, 50, (96, 21, 3)).astype(np.float32) + np.float32([0, 0, 500])
        poses = {subset: labels + rng.normal(0, 6 + seed, labels.shape).astype(np.float32) for subset in SUBSETS}
        write_dataset(data_dir, name, labels, poses)


def train_one(folder: Path) -> Path:
    """Trains the trial that the others are copies of; returns the experiment's folder."""
    settings = {"num_epochs": 20, "val_example_indices": [0, 1, 2], "val_example_subset": "A"}
    one = experiment(folder, solver_config=settings, test_set="test", test_set_size=None, n_repetitions=1)
    run_quietly(one, "inline")
    return folder / "results" / "bench"


def grid(n: int) -> list[tuple[float, float, float]]:
    lrs, decays, dropouts = map(range, VALUES[n])
    return [(1e-4 * (i + 1), 1e-5 * j, k / 56) for i in lrs for j in decays for k in dropouts]


def trials(source: Path, n: int) -> Iterator[tuple[str, str, pa.Table]]:
    """Yields the id, the `trial.json` and the records of n trials."""
    (path,) = source.glob("trials/*/0/trial.json")
    content = json.loads(path.read_text())
    records = pq.read_table(path.with_name("records.parquet"))
    values = records.column("value").to_numpy()
    rng = np.random.default_rng(0)
    combinations = grid(n)
    for number in range(n):
        place, repetition = divmod(number, N_REPETITIONS)
        factor = 1 + 0.05 * rng.standard_normal()
        trial_id = f"{place:016x}/{repetition}"
        metrics = {
            split: {
                subset: {name: value * factor if "distance" in name else value for name, value in numbers.items()}
                for subset, numbers in subsets.items()
            }
            for split, subsets in content["metrics"].items()
        }
        own = {
            "key": f"{place:016x}",
            "repetition": repetition,
            "options": dict(zip(PATHS, combinations[place], strict=True)),
            "metrics": metrics,
        }
        table = records.set_column(0, "trial_id", pa.array([trial_id] * len(records)).dictionary_encode())
        table = table.set_column(table.num_columns - 1, "value", pa.array(values * factor))
        yield trial_id, json.dumps(content | own, indent=1), table


def write_experiment(source: Path, folder: Path, n: int) -> None:
    """Writes an experiment of n trials: up to the size of one archive file in folders, otherwise in the archive."""
    described = json.loads((source / "experiment.json").read_text())
    combinations = grid(n)
    described["name"] = folder.name
    described["plan"] = {
        "seeds": list(range(1, N_REPETITIONS + 1)),
        "combinations": [
            {"key": f"{place:016x}", "options": dict(zip(PATHS, values, strict=True))}
            for place, values in enumerate(combinations)
        ],
    }
    described["options"] = [
        {"paths": [path], "rows": [[value] for value in sorted({row[i] for row in combinations})]}
        for i, path in enumerate(PATHS)
    ]
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps(described))
    (example,) = source.glob("trials/*/0/examples.npz")
    part: list[tuple[str, str, bytes]] = []
    for trial_id, text, records in trials(source, n):
        own = folder / "trials" / trial_id
        own.mkdir(parents=True)
        for name in ("examples.npz", "frames.parquet"):
            (own / name).write_bytes(example.with_name(name).read_bytes())
        buffer = io.BytesIO()
        pq.write_table(records, buffer, compression="zstd", write_page_checksum=True)
        if n <= BUNDLE_TRIALS:
            (own / "trial.json").write_text(text)
            (own / "records.parquet").write_bytes(buffer.getvalue())
            continue
        part.append((trial_id, text, buffer.getvalue()))
        if len(part) == BUNDLE_TRIALS:
            write_part(folder, part)
            part = []
    if part:
        write_part(folder, part)


def write_part(folder: Path, part: list[tuple[str, str, bytes]]) -> None:
    archive = folder / "archive"
    archive.mkdir(exist_ok=True)
    name = f"{len(list(archive.iterdir())) // 2 + 1:06d}-00000000"
    texts = pa.table({"trial_id": [trial[0] for trial in part], "trial_json": [trial[1] for trial in part]})
    buffer = io.BytesIO()
    pq.write_table(texts, buffer, compression="zstd", write_page_checksum=True)
    (archive / f"{name}.trials.parquet").write_bytes(buffer.getvalue())
    (archive / f"{name}.records.parquet").write_bytes(joined([records for _, _, records in part]))


def run(arguments: Sequence[str], results: Path) -> tuple[float, float]:
    """Runs a command; returns its seconds and its peak memory, MB."""
    code = "import runpy, sys; sys.argv = sys.argv[1:]; "
    code += "status = 0\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "except SystemExit as end: status = end.code\n"
    # Not ru_maxrss, which a process inherits from its parent.
    code += "(peak,) = (line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
    code += "print(peak, file=sys.stderr); sys.exit(status)"
    where = [] if "--help" in arguments else ["--storage-path", str(results)]
    command = [sys.executable, "-c", code, str(REPORT), *arguments, *where]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ROOT})
    elapsed = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return elapsed, int(done.stderr.split()[-1]) / 1024


COMMANDS = {
    "a command's --help": (["show", "--help"], (1, 1)),
    "list": (["list"], (None, "3, goal 1.5")),
    "show": (["show", "NAME"], (None, "3, goal 1.5")),
    "export, CSV": (["export", "NAME", "table", "--format", "csv"], (None, "3, goal 1.5")),
    "export, LaTeX": (["export", "NAME", "table", "--format", "latex"], (None, "3, goal 1.5")),
    "export, XLSX": (["export", "NAME", "table", "--out", "OUT.xlsx", "--force"], (None, "3, goal 1.5")),
    "effects": (["effects", "NAME"], (None, None)),
    "curves": (["curves", "NAME"], (None, None)),
    "figure, parallel": (["figure", "NAME", "parallel", "--out", "OUT.pdf", "--force"], (None, None)),
    "html": (["html", "NAME", "--out", "OUT.html", "--force"], (6, "30, goal 8")),
}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sets(folder / "data")
        source = train_one(folder)
        results = folder / "many"
        for place, n in enumerate(VALUES):
            write_experiment(source, results / str(n) / "bench", n)
            print(f"\n{n:,} trials: seconds (limit, goal), MB of memory")
            for title, (arguments, bounds) in COMMANDS.items():
                given = [word.replace("NAME", "bench").replace("OUT", str(folder / "out")) for word in arguments]
                seconds, megabytes = run(given, results / str(n))
                bound = "" if bounds[place] is None else f" ({bounds[place]})"
                print(f"  {title:20} {seconds:5.2f}{bound:15} {megabytes:5.0f}", flush=True)
            print(f"  the report is {(folder / 'out.html').stat().st_size / 1e6:.1f} MB")
        for number in range(0, len(grid(1_000)), MISSING):
            shutil.rmtree(results / "1000" / "bench" / "trials" / f"{number:016x}")
        seconds, megabytes = run(["html", "bench"], results / "1000")
        print(f"\n1,000 trials, one combination in {MISSING} missing")
        print(f"  {'html':20} {seconds:5.2f}{'':15} {megabytes:5.0f}")
