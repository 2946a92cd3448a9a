"""Trains trials with Ray Tune: one Tuner, many worker processes. The only file that imports Ray.

Options are `tune.grid_search` in the parameter space and repetitions are `num_samples`. A variant generator of our own
gives each variant its identity and device and leaves out what needs no training. Workers write their results
themselves; what they report to the driver is for the display.
"""

import faulthandler
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from cluster.devices import Placement, Slots
from cluster.job import Job
from cluster.plan import Combination, TrialSpec
from cluster.result_table import finished_val_distance_mm
from cluster.trainable import TrialReport, run_trial
from cluster.trial_folder import RUNNING, TrialFolder
from cluster.watch import Watch
from data_pipeline.user_error import UserError

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a script keep their meaning
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the display is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # we choose devices ourselves, see `cluster/devices.py`
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are ours: five files less for each trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # so is Ctrl-C
    "TUNE_GLOBAL_CHECKPOINT_S": "31536000",  # its snapshots are never used: a run begins from the trials' folders
}
os.environ.update(_ENVIRONMENT)

import ray  # noqa: E402 - it reads the environment when it is imported
from ray import tune  # noqa: E402
from ray._private.ray_logging import global_worker_stdstream_dispatcher  # noqa: E402
from ray.tune.search.basic_variant import BasicVariantGenerator  # noqa: E402

_REPORT_INTERVAL_S = 0.2  # a report holds the trial up for some milliseconds


class RayInUseError(UserError):
    """Ray was started in this process by someone else."""


def run_ray(trials: Sequence[TrialSpec], job: Job, placement: Placement, watch: Watch) -> None:
    """Trains `trials`; reports go to `watch`, results to the trials' folders.

    Raises:
        KeyboardInterrupt: If Ctrl-C ended the run.
        RayInUseError: If the script has started Ray itself.
    """
    if ray.is_initialized():
        raise RayInUseError(
            "Ray runs in this process already, with settings of its own; call ray.shutdown() before run(), or "
            'run("inline")'
        )
    run_id = f"{os.getpid()}-{time.time():.6f}"
    # Tune wants a place for files that nobody needs: not in the experiment's folder, which may be full or remote.
    with (
        tempfile.TemporaryDirectory(prefix="posetune-", ignore_cleanup_errors=True) as scratch,
        _ray(placement),
        _sigint() as interrupted,
    ):
        generator = _Variants(trials, job, placement)
        tuner = tune.Tuner(
            tune.with_parameters(_train, job=job, run_id=run_id),
            param_space={axis.name: tune.grid_search(axis.row_labels) for axis in job.space.axes},
            tune_config=tune.TuneConfig(
                num_samples=1 + max(trial.repetition for trial in trials),
                search_alg=generator,
                reuse_actors=True,  # a new process imports torch, which takes longer than many a trial
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="tune",
                callbacks=[_Reports(watch, generator, job, run_id)],
                stop=_Stop(watch, interrupted),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=job.config.max_retries),
            ),
        )
        tuner.fit()


@contextmanager
def _ray(placement: Placement) -> Iterator[None]:
    visible_before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if all(device.type == "cpu" for device in placement.devices):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # inherited by workers: a trial on the CPU sees no GPU
    ray.init(
        address="local",  # never whatever cluster happens to run on this machine
        num_cpus=placement.n_slots * placement.cpus_per_trial,
        num_gpus=0,  # devices are resources of our own
        resources=placement.ray_resources,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    # A worker that is lost is told by our display; Ray and Tune would print a page each.
    global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()
        if visible_before is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible_before


@contextmanager
def _sigint() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into an event and lets the second one through; outside the main thread does nothing."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


class _StaysInDriver:
    """Tune pickles all that it is given for snapshots, which are never used here; this is left out of them."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Variants(_StaysInDriver, BasicVariantGenerator):  # type: ignore[misc] # ray declares no types
    """Gives Tune's variants their identity and a device, and leaves out those that need no training.

    Tune makes all variants of the first sample, then all of the second, and says nothing of which sample it is, so the
    times that a combination has been seen are counted. It asks for a variant only while fewer than `max_concurrent`
    trials run, so that a device is chosen when there is a place for the trial.
    """

    def __init__(self, trials: Sequence[TrialSpec], job: Job, placement: Placement) -> None:
        super().__init__(max_concurrent=placement.n_slots)
        self.specs = {(trial.combination.choice, trial.repetition): trial for trial in trials}
        self.space = job.space
        self.slots = Slots(placement)
        self.seen: dict[tuple[int, ...], int] = {}
        self.running: dict[str, TrialSpec] = {}

    @property
    def total_samples(self) -> int:
        """How many trials will be trained."""
        return len(self.specs)

    def next_trial(self) -> Any:
        """Returns the next variant that needs training, as a Tune trial; None if there is none now."""
        while (trial := super().next_trial()) is not None:
            choice = self.space.choice_of(trial.config)
            repetition = self.seen.get(choice, 0)
            self.seen[choice] = repetition + 1
            spec = self.specs.get((choice, repetition))
            if spec is None:
                super().on_trial_complete(trial.trial_id)
                continue
            device = self.slots.take(trial.trial_id)
            self.running[trial.trial_id] = spec
            trial.config.update(
                key=spec.key,
                repetition=spec.repetition,
                seed=spec.seed,
                description=spec.combination.description,
                device=str(device),
            )
            trial.custom_dirname = f"{spec.key}-{spec.repetition}"
            resources = self.slots.placement.trial_resources(device)
            trial.update_resources(tune.PlacementGroupFactory([resources]))
            return trial
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Frees the trial's device."""
        super().on_trial_complete(trial_id, result, error)
        self.slots.give_back(trial_id)

    def save_to_dir(self, dirpath: str, **kwargs: Any) -> None:
        """Saves nothing: what is finished is known from the trials' folders."""


class _Reports(_StaysInDriver, tune.Callback):  # type: ignore[misc] # ray declares no types
    """Hands what trials report to the watch."""

    def __init__(self, watch: Watch, generator: _Variants, job: Job, run_id: str) -> None:
        self.watch = watch
        self.generator = generator
        self.job = job
        self.run_id = run_id

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker begins a trial, for the first time or again."""
        self.watch.started(self.generator.running[trial.trial_id].id, trial.config["device"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reports."""
        if "report" in result:
            self.watch.reported(TrialReport(**result["report"]))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker was lost; the trial is started again."""
        spec = self.generator.running[trial.trial_id]
        line = f"warning: the worker of {spec.id} was lost; the trial goes on from its last checkpoint in another one"
        self.watch.reported(TrialReport(spec.id, "running", lines=(line,)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended without its last report: its worker was lost once too often."""
        spec = self.generator.running[trial.trial_id]
        folder = self.job.folder.trial(spec.id)
        report = _finished(spec.id, folder)
        if report is None:
            error = _hang(folder, self.run_id) or (
                f"the trial's worker process was lost {trial.num_failures} times (killed, out of memory, or its node "
                "went away); the next run goes on from the last checkpoint"
            )
            report = _fail(spec.id, folder, error)
        self.watch.reported(report)


class _Stop(_StaysInDriver, tune.Stopper):  # type: ignore[misc] # ray declares no types
    """Ends the run when the watch says so, or after Ctrl-C."""

    def __init__(self, watch: Watch, interrupted: threading.Event) -> None:
        self.watch = watch
        self.interrupted = interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never ends a single trial."""
        return False

    def stop_all(self) -> bool:
        """Tells whether to end the run."""
        if self.interrupted.is_set():
            # Tune itself would wait for the workers to end what they are at; `ray.shutdown` does not.
            raise KeyboardInterrupt
        return self.watch.should_stop


def _train(config: dict[str, Any], job: Job, run_id: str) -> None:
    """What a worker does for one Tune trial."""
    choice = job.space.choice_of(config)
    combination = Combination(config["key"], choice, job.space.options(choice), config["description"])
    spec = TrialSpec(combination, config["repetition"], config["seed"])
    trial = job.trial(spec, torch.device(config["device"]))
    folder = job.folder.trial(trial.id)
    # A worker before this one may have ended after its last file, or have hung.
    report = _finished(trial.id, folder)
    if report is None and (hang := _hang(folder, run_id)) is not None:
        report = _fail(trial.id, folder, hang)
    if report is not None:
        tune.report({"report": vars(report)})
        return

    last_report = time.monotonic()
    watchdog = _Watchdog(trial.settings.experiment.trial_timeout_s, folder, run_id)
    with watchdog:
        for report in run_trial(trial, job.data(trial.settings), folder):
            now = time.monotonic()
            if report.status != RUNNING or report.lines or now - last_report >= _REPORT_INTERVAL_S:
                last_report = now
                watchdog.rest()  # the driver may take its time
                tune.report({"report": vars(report)})
            watchdog.watch()


def _finished(trial_id: str, folder: TrialFolder) -> TrialReport | None:
    content = folder.read_trial() or {}
    distance_mm = finished_val_distance_mm(content)
    if distance_mm is None:
        return None
    return TrialReport(trial_id, "finished", content.get("epochs", 0), distance_mm)


def _fail(trial_id: str, folder: TrialFolder, error: str) -> TrialReport:
    content = folder.read_trial() or {}
    folder.write_trial({**content, "status": "failed", "error": error, "ended": time.time()})
    return TrialReport(trial_id, "failed", content.get("epochs", 0), error=error)


class _Watchdog:
    """Ends this process when its trial does not report for too long; a context around the trial.

    It is Python's `faulthandler`, which needs no lock of the interpreter: it also ends a process that hangs in native
    code. It leaves a traceback in a file, which tells others what became of the trial (see `_hang`).
    """

    def __init__(self, timeout_s: float | None, folder: TrialFolder, run_id: str) -> None:
        self.timeout_s = timeout_s
        self.path = _hang_path(folder, run_id)
        self.first_line = f"{run_id} the trial did not report for {timeout_s} s (trial_timeout_s), and was here:\n"

    def __enter__(self) -> None:
        if self.timeout_s is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.file = self.path.open("w")
            self.file.write(self.first_line)
            self.file.flush()
            self.watch()

    def watch(self) -> None:
        """Begins to count the time anew."""
        if self.timeout_s is not None:
            faulthandler.dump_traceback_later(self.timeout_s, exit=True, file=self.file)

    def rest(self) -> None:
        """Stops counting."""
        if self.timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()

    def __exit__(self, *exception: object) -> None:
        if self.timeout_s is not None:
            self.rest()
            self.file.close()
            self.path.unlink(missing_ok=True)


def _hang(folder: TrialFolder, run_id: str) -> str | None:
    """Returns how a trial hung in this run of the experiment, None if it did not."""
    path = _hang_path(folder, run_id)
    try:
        text = path.read_text()
    except OSError:
        return None
    path.unlink(missing_ok=True)
    first_line, _, trace = text.partition("\n")
    # Without a traceback the worker was lost for another reason; another run's file says nothing of this one.
    if not trace or not first_line.startswith(run_id):
        return None
    return text.removeprefix(f"{run_id} ")


def _hang_path(folder: TrialFolder, run_id: str) -> Path:
    if folder.local is not None:
        return folder.local / "hang.txt"
    return Path(tempfile.gettempdir()) / f"posetune-{os.getuid()}-{run_id}" / folder.trial_id / "hang.txt"
