"""The outcome of a trial, read from its `trial.json`."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster.storage.trial_file import Status, TrialFile
from data_pipeline.subsets import DEFAULT_SUBSET, MEAN_SUBSET

RUN_COLUMNS = ("train_seconds", "node", "device", "gpu", "gpu_peak_gib", "gpu_total_gib", "error")
"""The columns of trials after the metrics."""


class TrialOutcome(NamedTuple):
    """The small part of a `trial.json` that a table needs."""

    status: Status
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    """By split, subset and name; only of finished trials."""
    best_epoch: int | None
    run: dict[str, Any]
    """The `RUN_COLUMNS`."""
    runs: Sequence[str]
    """The ids of the runs that trained it."""

    problems: Sequence[str] = ()
    """See `TrialFile`."""

    @classmethod
    def of(cls, trial: TrialFile) -> "TrialOutcome":
        """Selects it from the file's content."""
        metrics = {}
        for split, subsets in trial.metrics.items():
            is_only_one = subsets.keys() == {MEAN_SUBSET, DEFAULT_SUBSET}
            metrics[split] = {MEAN_SUBSET: subsets[MEAN_SUBSET]} if is_only_one else subsets
        columns = {name: getattr(trial, name) for name in RUN_COLUMNS}
        runs = tuple(map(sys.intern, trial.runs))  # a hundred thousand trials share a few ids
        return cls(trial.status, metrics, trial.best_epoch, columns, runs, trial.problems)
