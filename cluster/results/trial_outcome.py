"""The outcome of a trial, read from its `trial.json`."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.storage.trial_file import Status, TrialFile, status_of
from data_pipeline.subsets import DEFAULT_SUBSET, MEAN_SUBSET

_RUN_COLUMNS = ("train_seconds", "node", "device", "gpu", "error")


class TrialOutcome(NamedTuple):
    """The small part of a `trial.json` that a table needs."""

    status: Status
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    """By split, subset and name; only of finished trials."""
    best_epoch: Any
    run: dict[str, Any]
    """The columns after the metrics."""

    @classmethod
    def of(cls, content: TrialFile | None) -> "TrialOutcome":
        """Selects it from the file's content."""
        status, known = trial_status(content), content or {}
        metrics = {}
        if status == "finished":
            for split, subsets in known["metrics"].items():
                is_only_one = subsets.keys() == {MEAN_SUBSET, DEFAULT_SUBSET}
                metrics[split] = {MEAN_SUBSET: subsets[MEAN_SUBSET]} if is_only_one else subsets
        return cls(status, metrics, known.get("best_epoch"), {name: known.get(name) for name in _RUN_COLUMNS})


def trial_status(content: TrialFile | None) -> Status:
    """Returns a trial's status; a file that says finished but has no valid results is `interrupted`."""
    status = status_of(content)
    return "interrupted" if content is not None and status == "finished" and not _has_results(content) else status


def finished_val_distance_mm(content: TrialFile | None) -> float | None:
    """Returns the validation distance of a finished trial, mean over subsets, mm; None if it has not finished."""
    if content is None or trial_status(content) != "finished":
        return None
    distance: float = content["metrics"]["val"][MEAN_SUBSET]["distance"]
    return distance


def _has_results(content: TrialFile) -> bool:
    metrics = content.get("metrics")
    if not isinstance(metrics, dict) or "val" not in metrics:
        return False
    for subsets in metrics.values():
        if not isinstance(subsets, dict) or MEAN_SUBSET not in subsets:
            return False
        for values in subsets.values():
            if not isinstance(values, dict) or not {"distance", "distance_before"} <= values.keys():
                return False
            if not set(map(type, values.values())) <= {int, float}:
                return False
            if not math.isfinite(values["distance"]) or not math.isfinite(values["distance_before"]):
                return False
    return True
