"""What a worker process does for a trial that Ray Tune gave to it, and how it communicates with the driver.

A worker reports `report`, the state of its trial; `trial_error`, why it could not start the training; `gpu_failure`,
the state of a trial whose GPU failed and that another worker tries once more; or `node_error`, why no trial can be
trained on its node. The files in the trial's folder are the result; reports are for the display.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch

# Before Ray: it sets the environment that Ray reads when it is imported.
from cluster.executors import (
    node_facts,
    ray_session,  # noqa: F401
)

# isort: split
from ray import cloudpickle, tune
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.util import get_current_placement_group

from cluster.executors.job import Job
from cluster.executors.watchdog import Watchdog, read_hang
from cluster.planning.config import ConfigError, Problem
from cluster.planning.own_code import definition, own_objects
from cluster.planning.placement import PRETEND_GPUS, Placement, UnusableNodeError, given_device
from cluster.planning.plan import Combination, Shorter, TrialSpec
from cluster.schedules.schedule import Step
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.storage.folders import TrialFolder
from cluster.storage.trial_file import TrialFile
from cluster.trial.trainable import TrialReport, run_trial, with_run
from data_pipeline.user_error import first_line
from posenet.machine_errors import is_lost

_REPORT_INTERVAL_S = 0.2  # a report delays the trial by some milliseconds
_REPORTS_A_SECOND = 100  # and delays the driver, which receives those of all trials
_STOP_REQUEST_INTERVAL_S = 0.5
_STALE_S = 10.0  # for a while a node may see the old content of a shared folder

_CHECKED_RUNS: set[str] = set()
"""The runs for which this process has checked its node."""


class _GpuLostError(Exception):
    """This process cannot use its GPU any more, so the next trial needs another process."""


def trainable(job: Job, placement: Placement) -> Callable[[dict[str, Any]], None]:
    """Returns the function that Tune calls in a worker for each trial; `job` is sent to each node once.

    Raises:
        ConfigError: If the user's own code cannot be sent.
    """
    versions = node_facts.versions()
    try:
        train = tune.with_parameters(_train, job=job, placement=placement, versions=versions)
    except Exception as error:  # whatever the pickling of the user's objects raises
        problems = _not_sendable(job)
        if not problems:
            raise
        raise ConfigError(problems) from error

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


def _not_sendable(job: Job) -> list[Problem]:
    """Returns a problem for each of the user's own classes and functions that cannot be sent to a worker."""
    problems, solver = [], job.space.base.solver
    # Metrics and callbacks do not belong to the identity of a training, so `sources` does not have them.
    functions = {f"{one.__module__}.{one.__name__}": one for one in (*solver.metrics, *solver.callbacks)}
    for name, value in (own_objects(job.sources) | functions).items():
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            text = (
                f"it cannot be sent to a worker process ({first_line(error)}). A script's code is sent together with "
                "the global variables that it uses, but an open file, a lock or a connection cannot be sent. Create it "
                'where it is used; or use run("inline"), which sends nothing'
            )
            problems.append(Problem(f"{name} ({definition(value)})", text))
    return problems


def _why_not_loaded(error: Exception) -> str:
    return (
        f"a worker on {socket.gethostname()} could not load its trial: {type(error).__name__}: {error}. What the "
        "script imports must be installed there as on the script's machine, or be next to the script"
    )


def _train(config: dict[str, Any], job: Job, placement: Placement, versions: Mapping[str, str | None]) -> None:
    _require_usable_node(job, placement, versions)
    step = _step_of(config, job)
    trial = job.trial(step.trial, given_device(placement))
    folder = job.folder.trial(trial.id)
    # An earlier worker may have been lost after it wrote the last file, or may have hung.
    report = _ended(trial.id, folder.read_trial(), job.run_id)
    if report is not None and report.status == "finished":
        with suppress(StorageError):
            folder.remove(FileNames.CHECKPOINT)
    if report is None and (hang := read_hang(folder, job.run_id)) is not None:
        report = fail(trial.id, folder, job.run_id, hang)
    retry = _Retry(job, trial.id)
    group = _placement_group()
    if report is not None and not retry.begins():
        tune.report({"report": vars(report), "group": group})
        return

    stop_request = StopRequest(job.run_id)
    if stop_request():
        return
    last_report = time.monotonic()
    interval_s = max(_REPORT_INTERVAL_S, placement.n_slots / _REPORTS_A_SECOND)
    watchdog = Watchdog(trial.settings.experiment.trial_timeout_s, folder, job.run_id)
    is_shared = group is not None and (placement.per_gpu or 0) > 1
    with watchdog, _listed(f"posetune-gpu-{group}-", trial.id) if is_shared else nullcontext(tuple) as others:
        data = job.data(trial.settings)
        for report in run_trial(trial, data, folder, stop_request, until=step.until, others_on_gpu=others):
            if report.gpu_failed and retry.requested():
                watchdog.pause()
                tune.report({"gpu_failure": vars(report), "group": group})
                raise _GpuLostError
            now = time.monotonic()
            if report.status != "running" or report.lines or now - last_report >= interval_s:
                last_report = now
                watchdog.pause()  # the driver may be slow
                tune.report({"report": vars(report), "group": group})
            watchdog.reset()
    if report is not None and report.status == "failed" and is_lost(trial.device):
        raise _GpuLostError


def config_of(step: Step) -> dict[str, Any]:
    """Returns a step as JSON primitives, for Tune to send to a worker."""
    spec = step.trial
    return {
        "key": spec.key,
        "row_indices": list(spec.combination.row_indices),
        "encoded": spec.combination.encoded,
        "repetition": spec.repetition,
        "seed": spec.seed,
        "shorter": [list(shorter) for shorter in spec.shorter],
        "is_prolonged": spec.is_prolonged,
        "until": step.until,
    }


def _step_of(config: Mapping[str, Any], job: Job) -> Step:
    row_indices = tuple(config["row_indices"])
    combination = Combination(config["key"], row_indices, job.space.options(row_indices), config["encoded"])
    shorter = tuple(Shorter(*values) for values in config["shorter"])
    spec = TrialSpec(combination, config["repetition"], config["seed"], shorter, config["is_prolonged"])
    return Step(spec, config["until"])


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
        while job.folder.read_run(job.run_id) is None:
            if time.monotonic() > until:
                raise UnusableNodeError(
                    f"{location} on {host} is not the folder of this run. Set storage_path to a folder that all nodes "
                    "share"
                )
            time.sleep(_STALE_S / 20)
    except StorageError as error:
        raise UnusableNodeError(f"{host} cannot use {location}: {error}. Fix this, or remove the node") from error


def _placement_group() -> str | None:
    """Returns the id of the placement group that reserves this process's GPU."""
    group = get_current_placement_group()
    return None if group is None else group.id.hex()


@contextmanager
def _listed(place: str, trial_id: str) -> Iterator[Callable[[], list[str]]]:
    """Lists a trial in the cluster among those at a place on one node; yields a function that returns the others."""

    def others() -> list[str]:
        with suppress(Exception):
            ids = [key.decode().removeprefix(place) for key in internal_kv._internal_kv_list(place)]
            # A worker that was killed is still listed.
            alive = [i for i in ids if i != trial_id and _is_alive(int(internal_kv._internal_kv_get(place + i)))]
            return sorted(alive)
        return []

    with suppress(Exception):  # the head may be lost: no reason for a trial to fail
        internal_kv._internal_kv_put(place + trial_id, str(os.getpid()))
    try:
        yield others
    finally:
        with suppress(Exception):
            internal_kv._internal_kv_del(place + trial_id)


def _is_alive(pid: int) -> bool:
    """Returns whether there is a process with this id on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


class _Retry:
    """The only retry of a trial whose GPU failed; noted in the cluster, since another worker makes it.

    Args:
        job: The job; its config may forbid retries.
        trial_id: The trial.
    """

    def __init__(self, job: Job, trial_id: str) -> None:
        self.is_allowed = job.config.max_retries > 0
        self.key = f"posetune-retry-{job.run_id}-{trial_id}".encode()

    def requested(self) -> bool:
        """Notes that another worker should try the trial; returns False if one already has."""
        with suppress(Exception):  # without the head there is no other worker
            if self.is_allowed and internal_kv._internal_kv_get(self.key) is None:
                internal_kv._internal_kv_put(self.key, b"requested")
                return True
        return False

    def begins(self) -> bool:
        """Returns whether this worker is to make the retry; afterwards no other one is."""
        with suppress(Exception):
            if self.is_allowed and internal_kv._internal_kv_get(self.key) == b"requested":
                internal_kv._internal_kv_put(self.key, b"made")
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
    if trial.runs[-1:] == (run_id,) and (trial.status == "failed" or trial.status == "diverged"):
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
        outcome: dict[str, Any] = {"status": "failed", "error": error, "traceback": None, "ended": time.time()}
        folder.write_trial(trial._replace(runs=with_run(trial.runs, run_id), **outcome))
    return TrialReport(trial_id, "failed", epochs, error=error)
