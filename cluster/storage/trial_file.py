"""The content of a trial's file, `trial.json`."""

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, get_args

import msgspec
from msgspec import Meta

from cluster.storage.json_object import fields_of, json_object, read_fields, usual_object
from cluster.storage.run_file import RunId, is_run_id
from data_pipeline.files.json_numbers import LARGEST, Count, Number, Seconds
from data_pipeline.subsets import MEAN_SUBSET

Status = Literal["finished", "failed", "diverged", "interrupted", "pending"]
"""How far a trial has come. `interrupted`: started, to be continued; `pending`: never started."""

STATUSES: tuple[Status, ...] = get_args(Status)

FINAL: tuple[Status, ...] = ("finished", "diverged")
"""The statuses of trials that are not trained again."""

MAX_TRIAL_BYTES = 2**24
"""The largest file of a trial that is read; it usually has 20 kB."""

_MAX_TEXT = 100_000
"""The longest error and traceback that are kept, in characters."""

_RUNNING = "running"
"""The status of an `interrupted` trial in its file: the file does not know whether a process still trains it."""

_ONLY_OF: Mapping[str, tuple[Status, ...]] = {
    "traceback": ("failed", "diverged"),
    "best_epoch": ("finished",),
    "metrics": ("finished",),
}


class TrialFile(NamedTuple):
    """The content of a trial's file, in the order of its keys; without arguments, that of a trial without a file.

    A file may be incomplete or edited, so anything may be missing. A value that is not valid counts as missing, and a
    trial that is finished but lacks valid metrics is `interrupted`.

    Attributes:
        runs: The ids of the runs that trained it; the last one continued what the others began.
        options: The labels of the combination's values, by path.
        description: What the key is a hash of.
        sources: Hashes of the code of the user's own classes and functions that it names, by name.
        epochs: Completed epochs.
        started: Seconds since 1970, as is `ended`.
        gpu_peak_gib: The most memory that it had reserved on its GPU, GiB; without that of the GPU's driver.
        gpu_total_gib: The memory of its GPU, GiB.
        normalizer: What the normalizer has learned, in a finished trial.
        traceback: Where the error was raised, in a trial that failed or diverged.
        best_epoch: The epoch with the best validation distance, in a finished trial, as are the metrics.
        metrics: By split, subset and name; distances in mm.
        problems: What is in the file but not valid: for each field a text that begins with its name.
    """

    key: str | None = None
    repetition: Count | None = None
    seed: Count | None = None
    runs: tuple[RunId, ...] = ()
    status: Status = "pending"
    options: Mapping[str, Any] = {}
    description: Mapping[str, Any] = {}
    sources: Mapping[str, str] = {}
    epochs: Count = 0
    started: Seconds | None = None
    ended: Seconds | None = None
    train_seconds: Seconds | None = None
    device: str | None = None
    gpu: str | None = None
    gpu_peak_gib: Number | None = None
    gpu_total_gib: Number | None = None
    node: str | None = None
    pid: Count | None = None
    threads: Count | None = None
    normalizer: Mapping[str, Any] | None = None
    error: str | None = None
    traceback: str | None = None
    best_epoch: Count | None = None
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = {}
    problems: Sequence[str] = ()

    @classmethod
    def from_json(cls, text: str | bytes, *, is_described: bool = True) -> "TrialFile":
        """Reads a file's text.

        Args:
            text: The text.
            is_described: Whether to read `options`, `description` and `normalizer`. Building them takes most of the
                time, so what reads ten thousand files leaves them out.

        Raises:
            ValueError: If it is not a JSON object, or if something that is read is nested too deeply.
        """
        if len(text) > MAX_TRIAL_BYTES:
            raise ValueError(f"it has more than {MAX_TRIAL_BYTES:,} characters")
        if not is_described:
            usual = usual_object(text, _usual_files())
            if usual is not None and usual.keys() >= _ALWAYS and _have_distances(usual["metrics"]):
                return cls(**{name: value for name, value in usual.items() if value is not None} | _NOT_DESCRIBED)
            return cls.from_json(text)._replace(**_NOT_DESCRIBED)
        content = json_object(text)
        given, problems = content.get("status"), []
        status: Status = given if given in STATUSES else "interrupted"
        if given not in (*STATUSES, _RUNNING, None):
            problems.append(f"status is not valid: {reprlib.repr(given)}")
        if status == "finished" and not _are_metrics(content.get("metrics")):
            problems.append("metrics are missing or not valid, so the trial counts as interrupted")
            status = "interrupted"
        valid, invalid_fields = read_fields(content, _fields(status))
        if status == "finished":
            valid["metrics"] = content["metrics"]
        if "runs" not in content and is_run_id(content.get("run")):
            valid["runs"] = (content["run"],)  # version 0.4.0 wrote only the last run
        return cls(**valid, status=status, problems=(*problems, *invalid_fields))

    def to_json(self) -> str:
        """Returns the file's text."""
        content = {name: getattr(self, name) for name in _names(self.status)}
        content |= {name: _shortened(text) for name in ("error", "traceback") if (text := content.get(name))}
        if self.status == "interrupted":
            content["status"] = _RUNNING
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @property
    def val_distance_mm(self) -> float | None:
        """The validation distance of a finished trial, mean over subsets, mm; None if it has not finished."""
        return self.metrics["val"][MEAN_SUBSET]["distance"] if self.status == "finished" else None


def _shortened(text: str) -> str:
    """Returns a text without its middle if it is longer than any that a person reads."""
    half = _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]} … {text[-half:]}"


@cache
def _names(status: Status) -> list[str]:
    """Returns the keys of a trial's file."""
    return [name for name in TrialFile._fields if name != "problems" and status in _ONLY_OF.get(name, STATUSES)]


@cache
def _fields(status: Status) -> Any:
    """Returns the types of what is read field by field from a trial's file."""
    return fields_of(TrialFile, without={*TrialFile._fields} - {*_names(status)} | {"status", "metrics"})


_ALWAYS = {"runs", "status", "metrics"}
"""The fields that each finished trial has; version 0.4.0 wrote no `runs`."""

_NOT_DESCRIBED: dict[str, Any] = {"options": {}, "description": {}, "normalizer": None}

_Metric = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Number


@cache
def _usual_files() -> msgspec.json.Decoder[Any]:
    """Returns a decoder of finished trials that have valid values only, and without what describes them."""
    fields = {name: hint | None for name, hint in _fields("finished").__annotations__.items()}
    fields |= dict.fromkeys(_NOT_DESCRIBED, dict[str, msgspec.Raw] | None)
    fields |= {"status": Literal["finished"], "metrics": dict[str, dict[str, dict[str, _Metric]]]}
    return msgspec.json.Decoder(TypedDict("UsualFile", fields, total=False))  # type: ignore[operator]


def _have_distances(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bool:
    """Returns whether metrics have a distance for each subset and their mean."""
    return "val" in metrics and all(
        MEAN_SUBSET in subsets
        and all("distance" in values and "distance_before" in values for values in subsets.values())
        for subsets in metrics.values()
    )


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
            # The fast check fails for NaN and infinity too, which some metrics may be.
            if not max(map(abs, values.values())) <= LARGEST and not all(
                abs(value) <= LARGEST or value != value or abs(value) == math.inf for value in values.values()
            ):
                return False
            if not abs(values["distance"]) <= LARGEST or not abs(values["distance_before"]) <= LARGEST:
                return False
    return True
