"""What a worker process does for a trial that Ray Tune has given to it, and how the driver and it talk to each other.

A worker reports `report`, how its trial stands; `unable`, why it could not train it at all; or `unfit`, why no trial
can be trained on its node. What it leaves in the trial's folder counts; reports are for the display.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

# Before Ray: it sets the environment that Ray reads when it is imported.
from cluster.executors import (
    node_facts,
    ray_session,  # noqa: F401
)

# isort: split
from ray import tune
from ray.exceptions import RayError
from ray.experimental import internal_kv

from cluster.executors.job import Job
from cluster.executors.watchdog import Watchdog, how_it_hung
from cluster.planning.placement import PRETEND_GPUS, Placement, UnfitNodeError, given_device
from cluster.planning.plan import Combination, TrialSpec
from cluster.results.trial_outcome import finished_val_distance_mm
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.storage.folders import TrialFolder
from cluster.storage.trial_file import RUNNING, TrialFile, status_of
from cluster.trial.trainable import TrialReport, run_trial

_REPORT_INTERVAL_S = 0.2  # a report holds the trial up for some milliseconds
_REPORTS_A_SECOND = 100  # and the driver too, which takes those of all trials
_LEAVE_INTERVAL_S = 0.5
_STALE_S = 10.0  # a node may see for a while what a shared folder held before

_FIT_FOR: set[str] = set()
"""The runs for which this process has looked at its node."""


class _GpuLostError(Exception):
    """This process cannot use its GPU any more, so that the next trial needs another one."""


def trainable(job: Job, placement: Placement) -> Callable[[dict[str, Any]], None]:
    """Returns what Tune calls in a worker for each trial; `job` goes to each node once."""
    versions = node_facts.versions()
    train = tune.with_parameters(_train, job=job, placement=placement, versions=versions)

    def train_or_tell(config: dict[str, Any]) -> None:
        # Tune would take an exception for a worker that was lost, and try again.
        try:
            train(config)
        except UnfitNodeError as error:
            tune.report({"unfit": str(error)})
        except (_GpuLostError, RayError) as error:
            # What Ray could not load has failed for a reason of its own; other errors of Ray's are losses.
            cause = getattr(error, "client_exc", None)
            if not isinstance(cause, Exception):
                raise
            tune.report({"unfit": _why_not_loaded(cause)})
        except StorageError as error:
            tune.report({"unable": str(error)})
        except Exception as error:
            tune.report({"unable": f"{type(error).__name__}: {error}"})

    return train_or_tell


def _why_not_loaded(error: Exception) -> str:
    return (
        f"a worker on {socket.gethostname()} could not load what it was to train: {type(error).__name__}: {error}. "
        "What the script imports has to be installed there as it is where the script runs, or to lie beside the script"
    )


def _train(config: dict[str, Any], job: Job, placement: Placement, versions: Mapping[str, str | None]) -> None:
    _require_fit(job, placement, versions)
    choice = job.space.choice_of(config)
    combination = Combination(config["key"], choice, job.space.options(choice), config["description"])
    spec = TrialSpec(combination, config["repetition"], config["seed"])
    trial = job.trial(spec, given_device(placement))
    folder = job.folder.trial(trial.id)
    # A worker before this one may have ended after its last file, or have hung.
    report = ended(trial.id, folder, job.run_id)
    if report is not None and report.status == "finished":
        with suppress(StorageError):
            folder.remove(FileNames.CHECKPOINT)
    if report is None and (hang := how_it_hung(folder, job.run_id)) is not None:
        report = fail(trial.id, folder, job.run_id, hang)
    if report is not None:
        tune.report({"report": vars(report)})
        return

    leave = AskedToLeave(job.run_id)
    if leave():
        return
    last_report = time.monotonic()
    interval_s = max(_REPORT_INTERVAL_S, placement.n_slots / _REPORTS_A_SECOND)
    watchdog = Watchdog(trial.settings.experiment.trial_timeout_s, folder, job.run_id)
    with watchdog:
        for report in run_trial(trial, job.data(trial.settings), folder, leave, per_gpu=placement.per_gpu):
            now = time.monotonic()
            if report.status != RUNNING or report.lines or now - last_report >= interval_s:
                last_report = now
                watchdog.rest()  # the driver may take its time
                tune.report({"report": vars(report)})
            watchdog.watch()
    if report is not None and report.status == "failed" and _is_lost(trial.device):
        raise _GpuLostError


def _require_fit(job: Job, placement: Placement, versions: Mapping[str, str | None]) -> None:
    """Looks once at the node of this process: it may have joined a cluster after the run has looked at all nodes.

    Raises:
        UnfitNodeError: If it has other versions than the run's script, no GPU where a trial takes one, or does not see
            the run's folder.
    """
    if job.run_id in _FIT_FOR:
        return
    here, host = node_facts.versions(), socket.gethostname()
    for name, version in versions.items():
        if here.get(name) != version:
            change = "Install the same there" if name != "PoseTune" else "Its files were changed in the meantime"
            raise UnfitNodeError(
                f"{name} is {here.get(name) or 'not installed'} on {host} and was {version} where and when the run "
                f"began, and numbers may differ between them. {change}"
            )
    if placement.gpu_share and PRETEND_GPUS not in os.environ and not torch.accelerator.is_available():
        raise UnfitNodeError(
            f"torch sees no GPU on {host}, which Ray was told of. Install a torch for it and its driver"
        )
    _require_folder(job, host)
    _FIT_FOR.add(job.run_id)


def _require_folder(job: Job, host: str) -> None:
    location = job.folder.storage.location
    until = time.monotonic() + _STALE_S
    try:
        while (job.folder.read_experiment() or {}).get("run") != job.run_id:
            if time.monotonic() > until:
                raise UnfitNodeError(
                    f"{location} on {host} is not the folder of this run. Give a storage_path that all nodes share"
                )
            time.sleep(_STALE_S / 20)
    except StorageError as error:
        raise UnfitNodeError(f"{host} cannot use {location}: {error}. Mend that, or take the node away") from error


def _is_lost(device: torch.device) -> bool:
    """Tells whether an error on a GPU has left this process unable to use it, as some do."""
    if device.type == "cpu":
        return False
    try:
        torch.get_device_module(device).synchronize(device)
    except RuntimeError:
        return True
    return False


def ask_to_leave(run_id: str) -> None:
    """Has all trials of a run write a checkpoint after their epoch, and end."""
    internal_kv._internal_kv_put(_leave_key(run_id), b"1")


class AskedToLeave:
    """Tells in a worker whether the run wants to end; asks the cluster only now and then."""

    def __init__(self, run_id: str) -> None:
        self.key = _leave_key(run_id)
        self.asked = float("-inf")
        self.answer = False

    def __call__(self) -> bool:
        """Returns the answer."""
        now = time.monotonic()
        if now - self.asked >= _LEAVE_INTERVAL_S:
            self.asked = now
            with suppress(Exception):  # the head may be gone: no reason for a trial to fail
                self.answer = internal_kv._internal_kv_get(self.key) is not None
        return self.answer


def _leave_key(run_id: str) -> str:
    return f"posetune-leave-{run_id}"


def ended(trial_id: str, folder: TrialFolder, run_id: str) -> TrialReport | None:
    """Returns how a trial ended, None if it has not, or not in this run and not for good.

    Raises:
        StorageError: If its files cannot be read.
    """
    return _how_it_ended(trial_id, folder.read_trial() or {}, run_id)


def _how_it_ended(trial_id: str, content: TrialFile, run_id: str) -> TrialReport | None:
    distance_mm = finished_val_distance_mm(content)
    if distance_mm is not None:
        return TrialReport(trial_id, "finished", content.get("epochs", 0), distance_mm)
    status = status_of(content)
    if content.get("run") == run_id and (status == "failed" or status == "diverged"):
        return TrialReport(trial_id, status, content.get("epochs", 0), error=content.get("error"))
    return None


def fail(trial_id: str, folder: TrialFolder, run_id: str, error: str) -> TrialReport:
    """Records that a trial failed, unless it has ended; returns how."""
    epochs = 0
    with suppress(StorageError):  # then the tables cannot be written either, which is told
        content = folder.read_trial() or {}
        report = _how_it_ended(trial_id, content, run_id)
        if report is not None:
            return report
        epochs = content.get("epochs", 0)
        folder.write_trial({**content, "status": "failed", "error": error, "ended": time.time()})
    return TrialReport(trial_id, "failed", epochs, error=error)
