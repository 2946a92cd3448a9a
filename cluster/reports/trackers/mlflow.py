"""An experiment as a database of MLflow: an MLflow experiment with a run for each trial.

FOLDER/
    mlflow.db      runs with parameters, metrics over batches, and tags

Names have no brackets and no plus: `val/distance_mm[A]` is `val/distance_mm A`. MLflow's largest number stands for
infinity, and a trial that was not started has the time of the export. MLflow has no status for a trial that a race
dropped: it is KILLED, with the tag `status` = `dropped`. To view it, run
`mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db`.

MLflow's own library writes the database, without a server, at about four trials per second. This module needs it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cluster.reports.trackers.runs import TrialRun, as_text, missing_library, new_export
from cluster.results.results import Results
from data_pipeline.user_error import UserError, first_line

# MLflow reads these when it is imported. Without them it sends usage data over the network and prints a greeting.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

try:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking import sqlalchemy_store as sqlalchemy_store  # missing in mlflow-skinny alone
except ImportError as error:
    raise missing_library("mlflow") from error

_STATUS = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
    "dropped": "KILLED",
    "pending": "SCHEDULED",
}

# MLflow's limits per request and per value.
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_MAX_PARAM_CHARACTERS = 6000
_MAX_TAG_CHARACTERS = 8000

T = TypeVar("T")


def export_mlflow(results: Results, to: Path) -> None:
    """Writes an experiment's trials as a database of MLflow. See `new_export`."""
    with new_export(results, to) as (experiment, partial):
        try:
            client = MlflowClient(f"sqlite:///{partial / 'mlflow.db'}")
            artifacts = (to.absolute() / "artifacts").as_uri()
            experiment_id = client.create_experiment(experiment.name, artifact_location=artifacts)
            for run in experiment.runs():
                _write(client, experiment_id, run)
        except MlflowException as error:
            raise UserError(f"{to} cannot be written: {first_line(error)}") from error


def _write(client: Any, experiment_id: str, run: TrialRun) -> None:
    tags = {name: _cut(value, _MAX_TAG_CHARACTERS) for name, value in run.facts.items()}
    started = None if run.started is None else _milliseconds(run.started)
    created = client.create_run(experiment_id, started, tags, run_name=run.trial_id)
    run_id = created.info.run_id
    params = [
        Param(_allowed_param(name), _cut(as_text(value), _MAX_PARAM_CHARACTERS)) for name, value in run.settings.items()
    ]
    for some in _portions(params, _MAX_PARAMS):
        client.log_batch(run_id, params=some)
    for some in _portions(list(_metrics(run)), _MAX_METRICS):
        client.log_batch(run_id, metrics=some)
    if run.ended is None:
        client.update_run(run_id, _STATUS[run.status])
    else:
        client.set_terminated(run_id, _STATUS[run.status], _milliseconds(run.ended))


def _metrics(run: TrialRun) -> Iterator[Any]:
    time = _milliseconds(run.time)
    for step, values in run.points:
        for name, value in values.items():
            yield Metric(_allowed(name), value, time, step)
    for name, value in run.final.values.items():
        yield Metric(_allowed(f"final/{name}"), value, time, run.final.step)


def _allowed(name: str) -> str:
    # The names of subsets do not contain spaces, so two different names stay different.
    return name.replace("[", " ").replace("]", "").replace("+", " plus ")


def _allowed_param(path: str) -> str:
    # Keys of dicts in the settings may contain any character; those that MLflow rejects are replaced by their codes.
    return re.sub(r"[^\w.: -]", lambda sign: f"_{ord(sign[0]):x}_", path)


def _cut(text: str, n_characters: int) -> str:
    return text if len(text) <= n_characters else f"{text[: n_characters - 1]}…"


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
