"""What a worker process does for a trial that Ray Tune gave to it, and how it communicates with the driver.

A worker reports `report`, the state of its trial; `trial_error`, why it could not start the training; or `node_error`,
why no trial can be trained on its node. The files in the trial's folder are the result; reports are for the display.
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
from cluster.executors.watchdog import Watchdog, read_hang
from cluster.planning.placement import PRETEND_GPUS, Placement, UnusableNodeError, given_device
from cluster.planning.plan import Combination, TrialSpec
from cluster.storage.experiment_file import NoResultsError
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.storage.folders import TrialFolder
from cluster.storage.trial_file import TrialFile
from cluster.trial.trainable import TrialReport, run_trial

_REPORT_INTERVAL_S = 0.2  # a report delays the trial by some milliseconds
_REPORTS_A_SECOND = 100  # and delays the driver, which receives those of all trials
_STOP_REQUEST_INTERVAL_S = 0.5
_STALE_S = 10.0  # for a while a node may see the old content of a shared folder

_CHECKED_RUNS: set[str] = set()
"""The runs for which this process has checked its node."""


class _GpuLostError(Exception):
    """This process cannot use its GPU any more, so the next trial needs another process."""


def trainable(job: Job, placement: Placement) -> Callable[[dict[str, Any]], None]:
    """Returns the function that Tune calls in a worker for each trial; `job` is sent to each node once."""
    versions = node_facts.versions()
    train = tune.with_parameters(_train, job=job, placement=placement, versions=versions)

    def train_or_report(config: dict[str, Any]) -> None:
        # Tune would treat an exception as a lost worker, and try again.
        try:
            train(config)
        except UnusableNodeError as error:
            tune.report({"node_error": str(error)})
        except (_GpuLostError, RayError) as error:
            # With `client_exc` Ray could not load the job; its other errors mean a lost worker.
            cause = getattr(error, "client_exc", None)
            if not isinstance(cause, Exception):
                raise
            tune.report({"node_error": _why_not_loaded(cause)})
        except StorageError as error:
            tune.report({"trial_error": str(error)})
        except Exception as error:
            tune.report({"trial_error": f"{type(error).__name__}: {error}"})

    return train_or_report


def _why_not_loaded(error: Exception) -> str:
    return (
        f"a worker on {socket.gethostname()} could not load its trial: {type(error).__name__}: {error}. What the "
        "script imports must be installed there as on the script's machine, or be next to the script"
    )


def _train(config: dict[str, Any], job: Job, placement: Placement, versions: Mapping[str, str | None]) -> None:
    _require_usable_node(job, placement, versions)
    row_indices = job.space.row_indices_of(config)
    combination = Combination(config["key"], row_indices, job.space.options(row_indices), config["encoded"])
    spec = TrialSpec(combination, config["repetition"], config["seed"])
    trial = job.trial(spec, given_device(placement))
    folder = job.folder.trial(trial.id)
    # An earlier worker may have been lost after it wrote the last file, or may have hung.
    report = _ended(trial.id, folder.read_trial(), job.run_id)
    if report is not None and report.status == "finished":
        with suppress(StorageError):
            folder.remove(FileNames.CHECKPOINT)
    if report is None and (hang := read_hang(folder, job.run_id)) is not None:
        report = fail(trial.id, folder, job.run_id, hang)
    if report is not None:
        tune.report({"report": vars(report)})
        return

    stop_request = StopRequest(job.run_id)
    if stop_request():
        return
    last_report = time.monotonic()
    interval_s = max(_REPORT_INTERVAL_S, placement.n_slots / _REPORTS_A_SECOND)
    watchdog = Watchdog(trial.settings.experiment.trial_timeout_s, folder, job.run_id)
    with watchdog:
        for report in run_trial(trial, job.data(trial.settings), folder, stop_request, per_gpu=placement.per_gpu):
            now = time.monotonic()
            if report.status != "running" or report.lines or now - last_report >= interval_s:
                last_report = now
                watchdog.pause()  # the driver may be slow
                tune.report({"report": vars(report)})
            watchdog.reset()
    if report is not None and report.status == "failed" and _is_lost(trial.device):
        raise _GpuLostError


def _require_usable_node(job: Job, placement: Placement, versions: Mapping[str, str | None]) -> None:
    """Checks the node of this process, once: it may have joined the cluster after the run checked all nodes.

    Raises:
        UnusableNodeError: If it has other versions than the run's script, has no GPU that a trial needs, or does not
            see the run's folder.
    """
    if job.run_id in _CHECKED_RUNS:
        return
    here, host = node_facts.versions(), socket.gethostname()
    for name, version in versions.items():
        if here.get(name) != version:
            change = "Install the same version there" if name != "PoseTune" else "Its files have changed since then"
            raise UnusableNodeError(
                f"{name} is {here.get(name) or 'not installed'} on {host}, but was {version} where and when the run "
                f"began, so numbers may differ. {change}"
            )
    if placement.gpu_share and PRETEND_GPUS not in os.environ and not torch.accelerator.is_available():
        raise UnusableNodeError(
            f"torch sees no GPU on {host}, but Ray was told about one. Install a torch for this GPU and its driver"
        )
    _require_folder(job, host)
    _CHECKED_RUNS.add(job.run_id)


def _require_folder(job: Job, host: str) -> None:
    location = job.folder.storage.location
    until = time.monotonic() + _STALE_S
    try:
        while not _is_folder_of(job):
            if time.monotonic() > until:
                raise UnusableNodeError(
                    f"{location} on {host} is not the folder of this run. Set storage_path to a folder that all nodes "
                    "share"
                )
            time.sleep(_STALE_S / 20)
    except StorageError as error:
        raise UnusableNodeError(f"{host} cannot use {location}: {error}. Fix this, or remove the node") from error


def _is_folder_of(job: Job) -> bool:
    try:
        return job.folder.read_experiment().run == job.run_id
    except NoResultsError:
        return False


def _is_lost(device: torch.device) -> bool:
    """Returns whether this process cannot use its GPU any more, which some errors cause."""
    if device.type == "cpu":
        return False
    try:
        torch.get_device_module(device).synchronize(device)
    except RuntimeError:
        return True
    return False


def request_stop(run_id: str) -> None:
    """Makes all trials of a run write a checkpoint after their current epoch, and end."""
    internal_kv._internal_kv_put(_stop_key(run_id), b"1")


class StopRequest:
    """Tells a worker whether the run has requested a stop; asks the cluster at intervals."""

    def __init__(self, run_id: str) -> None:
        self.key = _stop_key(run_id)
        self.asked = float("-inf")
        self.answer = False

    def __call__(self) -> bool:
        """Returns the answer."""
        now = time.monotonic()
        if now - self.asked >= _STOP_REQUEST_INTERVAL_S:
            self.asked = now
            with suppress(Exception):  # the head may be lost: no reason for a trial to fail
                self.answer = internal_kv._internal_kv_get(self.key) is not None
        return self.answer


def _stop_key(run_id: str) -> str:
    return f"posetune-stop-{run_id}"


def _ended(trial_id: str, trial: TrialFile, run_id: str) -> TrialReport | None:
    """Returns how a trial ended: finished in any run, or failed or diverged in this one; else None."""
    if trial.status == "finished":
        return TrialReport(trial_id, "finished", trial.epochs, trial.val_distance_mm)
    if trial.run == run_id and (trial.status == "failed" or trial.status == "diverged"):
        return TrialReport(trial_id, trial.status, trial.epochs, error=trial.error)
    return None


def fail(trial_id: str, folder: TrialFolder, run_id: str, error: str) -> TrialReport:
    """Records that a trial failed, unless it has ended; returns how it ended."""
    epochs = 0
    with suppress(StorageError):  # then the tables cannot be written either, which is an error of the run
        trial = folder.read_trial()
        report = _ended(trial_id, trial, run_id)
        if report is not None:
            return report
        epochs = trial.epochs
        folder.write_trial(trial._replace(status="failed", error=error, ended=time.time()))
    return TrialReport(trial_id, "failed", epochs, error=error)
