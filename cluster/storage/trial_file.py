"""The content of a trial's file, `trial.json`."""

import json
import math
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from data_pipeline.subsets import MEAN_SUBSET

Status = Literal["finished", "failed", "diverged", "interrupted", "pending"]
"""How far a trial has come. `interrupted`: started, to be continued; `pending`: never started."""

STATUSES: tuple[Status, ...] = get_args(Status)

_RUNNING = "running"
"""The status of an `interrupted` trial in its file: the file does not know whether a process still trains it."""

_ONLY_OF: Mapping[str, tuple[Status, ...]] = {
    "traceback": ("failed", "diverged"),
    "best_epoch": ("finished",),
    "metrics": ("finished",),
}


class TrialFile(NamedTuple):
    """The content of a trial's file, in the order of its keys; without arguments, that of a trial without a file.

    A file may be incomplete or edited, so anything may be missing. A value of another type counts as missing, and a
    trial that is finished but lacks valid metrics is `interrupted`.

    Attributes:
        run: The run of the experiment that trained it.
        options: The labels of the combination's values, by path.
        description: What the key is a hash of.
        sources: Hashes of the code of the user's own classes and functions that it names, by name.
        epochs: Completed epochs.
        started: Seconds since 1970, as is `ended`.
        normalizer: What the normalizer has learned, in a finished trial.
        traceback: Where the error was raised, in a trial that failed or diverged.
        best_epoch: The epoch with the best validation distance, in a finished trial, as are the metrics.
        metrics: By split, subset and name; distances in mm.
    """

    key: str | None = None
    repetition: int | None = None
    seed: int | None = None
    run: str | None = None
    status: Status = "pending"
    options: Mapping[str, Any] = {}
    description: Mapping[str, Any] = {}
    sources: Mapping[str, str] = {}
    epochs: int = 0
    started: float | None = None
    ended: float | None = None
    train_seconds: float | None = None
    device: str | None = None
    gpu: str | None = None
    node: str | None = None
    pid: int | None = None
    threads: int | None = None
    normalizer: Mapping[str, Any] | None = None
    error: str | None = None
    traceback: str | None = None
    best_epoch: int | None = None
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = {}

    @classmethod
    def from_json(cls, text: str | bytes) -> "TrialFile":
        """Reads a file's text; ValueError if it is not a JSON object."""
        try:
            content = json.loads(text)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        status = content.get("status")
        if status not in STATUSES or (status == "finished" and not _are_metrics(content.get("metrics"))):
            status = "interrupted"
        valid = {name: content[name] for name in _names(status) if type(content.get(name)) in _TYPES[name]}
        valid["status"] = status
        return cls(**valid)

    def to_json(self) -> str:
        """Returns the file's text."""
        content = {name: getattr(self, name) for name in _names(self.status)}
        if self.status == "interrupted":
            content["status"] = _RUNNING
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @property
    def val_distance_mm(self) -> float | None:
        """The validation distance of a finished trial, mean over subsets, mm; None if it has not finished."""
        return self.metrics["val"][MEAN_SUBSET]["distance"] if self.status == "finished" else None


def _json_types(hint: Any) -> tuple[type, ...]:
    """Returns the types that `json` uses for the values of a field, except for a missing value."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if isinstance(hint, UnionType) else [hint]
    of_json: dict[Any, tuple[type, ...]] = {Literal: (str,), Mapping: (dict,), float: (float, int)}
    return sum((of_json.get(get_origin(kind) or kind, (kind,)) for kind in kinds), ())


_TYPES = {name: _json_types(hint) for name, hint in get_type_hints(TrialFile).items()}


@cache
def _names(status: Status) -> list[str]:
    """Returns the keys of a trial's file."""
    return [name for name in _TYPES if status in _ONLY_OF.get(name, STATUSES)]


def _are_metrics(metrics: Any) -> bool:
    """Returns whether these are metrics of a finished trial: numbers, and a distance for each subset and their mean."""
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
