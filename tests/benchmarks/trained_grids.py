"""Complete grids in one file: the validation error after each epoch and the test error of each finished trial.

`python -m tests.benchmarks.trained_grids FILE NAME=FOLDER…` writes the file from the folders of experiments, each under
its name. The file has a row for each trial, with errors in mm as float32, which is exact to about a millionth of a
millimetre. Grids may be unfinished: a reader gets the repetitions that all combinations have finished.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.racing.replay import TrainedGrid
from cluster.results.learning_curves import read_logged
from cluster.results.results import Results
from cluster.results.rows import column
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from data_pipeline.words import count

SCHEMA = pa.schema(
    {
        "grid": pa.string(),
        "key": pa.string(),
        "options": pa.string(),
        "repetition": pa.int8(),
        "test_mm": pa.float32(),
        "val_mm": pa.list_(pa.float32()),
    }
)


def write_grids(path: Path, folders: Mapping[str, str]) -> None:
    """Writes the finished and diverged trials of experiments, by name, in the order of their plans."""
    rows = [{"grid": name, **row} for name, folder in folders.items() for row in _trials(folder)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(rows, SCHEMA),
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=["grid", "key", "options"],
        column_encoding={"val_mm.list.element": "BYTE_STREAM_SPLIT"},
    )


def _trials(folder: str) -> list[dict[str, object]]:
    results = Results.read(ExperimentFolder(Storage(folder)))
    curves = read_logged(results.files, split="test", wanted=lambda _: True, is_metric=lambda _: False).curves
    rows = []
    for trial in results.trials:
        if trial["status"] not in ("finished", "diverged"):
            continue
        curve = curves[f"{trial['key']}/{trial['repetition']}"]
        test_mm = trial[column("test", "distance")]
        rows.append(
            {
                "key": trial["key"],
                "options": json.dumps({path: trial[path] for path in results.option_paths}),
                "repetition": trial["repetition"],
                "test_mm": math.inf if test_mm is None else test_mm,
                "val_mm": curve.val_mm[curve.epochs == np.floor(curve.epochs)],
            }
        )
    return rows


def read_grids(path: Path) -> dict[str, TrainedGrid]:
    """Returns the grids by name, each with the repetitions that all its combinations have."""
    by_grid: dict[str, dict[str, dict[int, tuple[float, np.ndarray]]]] = {}
    table = pq.read_table(path)
    for row in table.select(["grid", "key", "repetition", "test_mm", "val_mm"]).to_pylist():
        of_key = by_grid.setdefault(row["grid"], {}).setdefault(row["key"], {})
        of_key[row["repetition"]] = (row["test_mm"], np.array(row["val_mm"]))
    return {name: _grid(trials) for name, trials in by_grid.items()}


def _grid(trials: Mapping[str, Mapping[int, tuple[float, np.ndarray]]]) -> TrainedGrid:
    repetitions = sorted(set.intersection(*(set(of_key) for of_key in trials.values())))
    n_epochs = max(len(val_mm) for of_key in trials.values() for _, val_mm in of_key.values())

    def to_the_end(val_mm: np.ndarray) -> np.ndarray:
        return np.pad(val_mm, (0, n_epochs - len(val_mm)), constant_values=np.inf)  # infinite once it diverged

    return TrainedGrid(
        {key: np.array([to_the_end(of_key[r][1]) for r in repetitions]) for key, of_key in trials.items()},
        {key: np.array([of_key[r][0] for r in repetitions]) for key, of_key in trials.items()},
    )


if __name__ == "__main__":
    file, *named = sys.argv[1:]
    write_grids(Path(file), dict(one.split("=", 1) for one in named))
    for name, grid in read_grids(Path(file)).items():
        print(f"{name}: {len(grid.val_mm)} combinations × {count(grid.n_repetitions, 'repetition')}")
    print(f"{file}: {Path(file).stat().st_size / 1e3:.0f} kB")
