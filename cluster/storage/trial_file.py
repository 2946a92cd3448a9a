"""The content of a trial's file, `trial.json`."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

Status = Literal["finished", "failed", "diverged", "interrupted", "pending"]
"""How far a trial has come. `interrupted`: started, to be continued; `pending`: never started."""

STATUSES: tuple[Status, ...] = get_args(Status)

RUNNING = "running"
"""The status in the file of a trial in training; without a process that trains it, the trial is `interrupted`."""


class TrialFile(TypedDict, total=False):
    """A trial's file, in the order of its keys.

    A file may be incomplete or edited: who reads one must expect any key to be missing and any value to be of another
    type. `trial_outcome.py` has what can be relied on.
    """

    key: str
    repetition: int
    seed: int
    run: str  # the run of the experiment that trained it
    status: str
    options: Mapping[str, Any]  # the labels of the combination's values, by path
    description: Mapping[str, Any]  # what the key is a hash of
    epochs: int  # that are done
    started: float  # seconds since 1970, as is `ended`
    ended: float | None
    train_seconds: float
    device: str
    gpu: str | None
    node: str
    pid: int
    threads: int
    normalizer: Mapping[str, Any] | None  # what it has learned, in a finished trial
    error: str | None

    traceback: str | None  # in a trial that failed or diverged
    best_epoch: int  # in a finished trial, as are the metrics
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]  # in mm, by split, subset and name


def status_of(trial: TrialFile | None) -> Status:
    """Returns a trial's status by its file."""
    if trial is None:
        return "pending"
    status = trial.get("status")
    return next((known for known in STATUSES if known == status), "interrupted")
