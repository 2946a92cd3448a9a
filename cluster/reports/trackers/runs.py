"""The trials of an experiment as runs of other tools: numbers over steps, settings, results, and the final status.

`tensorboard.py`, `mlflow.py` and `wandb.py` write the formats of these tools; each needs the library of its tool.
"""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc

from cluster.results.learning_curves import record_tables
from cluster.results.results import Results
from cluster.results.rows import CONFIRMS, METRICS, column
from cluster.storage.folders import ExperimentFolder
from cluster.storage.run_file import RunFile
from cluster.storage.trial_file import TrialFile
from data_pipeline.files.atomic import atomic_folder
from data_pipeline.subsets import DEFAULT_SUBSET, MEAN_SUBSET
from data_pipeline.user_error import UserError
from posenet.record import Record

Option = str | int | float | bool | None


def missing_library(package: str) -> UserError:
    """Returns the error for a tool whose library is not installed."""
    return UserError(
        f"the library that writes files of {package} is not installed, or only in part; install it: "
        f"pip install {package}"
    )


class Point(NamedTuple):
    """The numbers that were logged at one step, by name; see `TrialRun`."""

    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class TrialRun:
    """A trial as a run.

    Names are those of the tables' columns with a slash after the split: `val/distance_mm` for the mean over subsets and
    `val/distance_mm[A]` for the subset A. Names of numbers in normalised space end in `_normalised`. `epoch` is the
    number of completed epochs: 3.5 is half-way through the fourth.

    Attributes:
        trial_id: The combination's key and the repetition: `KEY/REPETITION`.
        key: The combination's key.
        status: The trial's status; `dropped` if a race dropped its combination.
        options: The options that vary in the experiment, by path.
        settings: All settings of the experiment's dicts, by path, with the trial's options instead of the base values.
            They are JSON values; `as_text` converts each to a text.
        facts: Status, error, seed and other things that are not settings, by name; also where a race dropped its
            combination, the ids of its runs, and machine, versions, command and commits of the last one.
        started: When it was started, in seconds since 1970; None if it was not started.
        ended: When it ended; None if it has not ended.
        points: The numbers that were logged during training, in the order of the steps. A step is a batch, counted over
            all epochs from 1.
        final: The metrics of the final evaluation with the weights of the best epoch; empty if it did not finish.
    """

    trial_id: str
    key: str
    status: str
    options: Mapping[str, Option]
    settings: Mapping[str, Any]
    facts: Mapping[str, str]
    started: float | None
    ended: float | None
    points: Sequence[Point]
    final: Point

    @property
    def group(self) -> str:
        """The name of a group of repetitions, whose mean a tracker may show: fresh ones are a group of their own."""
        return f"{self.key} {CONFIRMS}" if self.facts.get("role") == CONFIRMS else self.key

    @property
    def time(self) -> float:
        """The approximate time of its numbers, in seconds since 1970; records do not contain times."""
        return self.ended or self.started or 0.0


@dataclass(frozen=True)
class ExperimentRuns:
    """The trials of an experiment's plan as runs.

    Attributes:
        name: The experiment's name.
        options: The distinct values of each option that varies, by path.
        final_names: The names of all final numbers.
    """

    name: str
    options: Mapping[str, Sequence[Option]]
    final_names: Collection[str]
    _folder: ExperimentFolder
    _planned: Mapping[str, TrialRun]

    @classmethod
    def of(cls, results: Results) -> "ExperimentRuns":
        """Reads everything on disk that the results lack, except the records.

        Raises:
            StorageError: If a file cannot be read.
        """
        results, folder = results.single_folds, results.files
        experiment = folder.read_experiment()
        settings = {c.key: _settings(experiment.configs, c.options) for c in experiment.plan.combinations}
        rows = {f"{row['key']}/{row['repetition']}": row for row in results.trials}
        endings = folder.read_trials(_Ending.of, rows.__contains__, is_described=False)
        origins = {run_id: _origin(run) for run_id, run in results.runs.items()}
        dropped = {row["key"]: {name: str(row[name]) for name in _DROPPED} for row in results.not_ranked}
        planned = {}
        for trial_id, row in rows.items():
            run_ids = results.run_ids[trial_id]
            ending = endings.get(trial_id, _Ending.of(TrialFile()))
            planned[trial_id] = TrialRun(
                trial_id=trial_id,
                key=row["key"],
                status=row["status"],
                options={path: row[path] for path in results.option_paths},
                settings=settings[row["key"]],
                facts={name: str(row[name]) for name in _FACTS if row.get(name) is not None}
                | dropped.get(row["key"], {})
                | ({"runs": " ".join(run_ids)} | origins.get(run_ids[-1], {}) if run_ids else {}),
                started=ending.started,
                ended=ending.ended,
                points=[],
                # The records determine the number of steps in an epoch.
                final=Point(row["best_epoch"] or 0, ending.final),
            )
        options = {
            path: list({repr(row[path]): row[path] for row in results.trials}.values()) for path in results.option_paths
        }
        final_names = dict.fromkeys(name for run in planned.values() for name in run.final.values)
        return cls(results.name, options, tuple(final_names), folder, planned)

    def runs(self) -> Iterator[TrialRun]:
        """Yields a run for each planned trial, also for those that failed or were not started.

        Each trial's records are read only now, since those of ten thousand trials do not fit into memory.

        Raises:
            StorageError: If a file cannot be read.
        """
        left = dict(self._planned)
        for trial_id, points, n_batches in _logged(self._folder, left):
            run = left.pop(trial_id, None)
            if run is not None:  # a damaged file may have a trial twice
                yield replace(run, points=points, final=Point(run.final.step * n_batches, run.final.values))
        yield from left.values()


@contextmanager
def new_export(results: Results, to: Path) -> Iterator[tuple[ExperimentRuns, Path]]:
    """Reads an experiment's trials and lets the block write files for another tool; after an error no file remains.

    Args:
        results: The experiment's results.
        to: The folder to write to; it must be new or empty.

    Yields:
        The trials, and the folder that becomes `to` when the block ends.

    Raises:
        UserError: If `to` is not new or empty, or if it cannot be written.
        StorageError: If a file cannot be read.
    """
    experiment = ExperimentRuns.of(results)
    with atomic_folder(to, may_be_empty=True) as partial:
        yield experiment, partial


_FACTS = (
    *("status", "error", "key", "repetition", "role", "seed", "best_epoch", "train_seconds", "node", "device", "gpu"),
    "gpu_peak_gib",
)


_DROPPED = ("dropped_epoch", "dropped_repetitions", "dropped_reason")


class _Ending(NamedTuple):
    """The part of `trial.json` that a run needs in addition to the row of the result table."""

    started: float | None
    ended: float | None
    final: dict[str, float]

    @classmethod
    def of(cls, trial: TrialFile) -> "_Ending":
        final = {
            _name(split, subset, metric): value
            for split, subsets in trial.metrics.items()
            for subset in _shown(subsets)
            for metric, value in subsets[subset].items()
        }
        return cls(trial.started, trial.ended, final)


def _logged(folder: ExperimentFolder, wanted: Mapping[str, TrialRun]) -> Iterator[tuple[str, list[Point], int]]:
    """Yields the id of each trial that has records, its points, and the batches of an epoch."""
    for table in record_tables(folder, wanted.__contains__):
        # Batch 0 is the final evaluation: thousands of numbers. trial.json has those that tables show.
        logged = table.filter(pc.greater(table["batch"], 0))
        # A trial's rows are consecutive, and each trial is in one table.
        ends = [0, *pc.run_end_encode(logged["trial_id"].combine_chunks().indices).run_ends.to_pylist()]
        for start, end in pairwise(ends):
            columns = logged.slice(start, end - start).select(("trial_id", *Record._fields)).to_pydict()
            trial_ids, *values = columns.values()
            yield trial_ids[0], *_points([Record(*row) for row in zip(*values, strict=True)])


def _points(records: Sequence[Record]) -> tuple[list[Point], int]:
    n_batches = max(record.batch for record in records)  # an epoch's last batch is a log point
    shown = _shown({record.subset for record in records})
    points: dict[int, dict[str, float]] = {}
    for record in records:
        if record.subset in shown:
            step = (record.epoch - 1) * n_batches + record.batch
            values = points.setdefault(step, {"epoch": step / n_batches})
            values[_name(record.split, record.subset, record.metric, record.space)] = record.value
    return [Point(step, points[step]) for step in sorted(points)], n_batches


def _shown(subsets: Collection[str]) -> Collection[str]:
    """Returns the subsets; none if there is only one, which equals the mean."""
    return {MEAN_SUBSET} if set(subsets) == {MEAN_SUBSET, DEFAULT_SUBSET} else subsets


@cache
def _name(split: str, subset: str, metric: str, space: str = "original") -> str:
    stem = metric.removesuffix("_before")
    if space == "default" and stem in METRICS:
        group = "" if subset == MEAN_SUBSET else f"[{subset}]"
        return f"{split}/{metric}_normalised{group}"
    name = column(split, stem, before=stem != metric, subset=subset)
    return f"{split}/{name.removeprefix(split)[1:]}"


def as_text(value: Any) -> str:
    """Returns a setting as JSON, without quotation marks around a text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _settings(configs: Mapping[str, Mapping[str, Any]], options: Mapping[str, Option]) -> dict[str, Any]:
    base: dict[str, Any] = {}
    for section, config in configs.items():
        base |= _flat(config, "" if section == "base_hyperparams" else f"{section}.")
    replaced = tuple(f"{path}." for path in options)
    return {path: value for path, value in base.items() if not f"{path}.".startswith(replaced)} | _flat(options)


def _origin(run: RunFile) -> dict[str, str]:
    """Returns what produced a run's trials, such as `versions.torch` and `git.script.commit`."""
    origin = {name: value for name, value in dataclasses.asdict(run).items() if name != "started"}
    return {path: as_text(value) for path, value in _flat(origin).items()}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dicts, each by its dotted path."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
