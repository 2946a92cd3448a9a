"""Trains trials with Ray Tune, in worker processes of the Ray that `ray_session.py` started or connected to.

`_Steps` is a `Searcher` of Tune, so Tune asks it for the next step whenever one can start. A Tune grid
(`tune.grid_search` with `num_samples`) would fix all trials and their order before the first one starts, which rules
out a race, and its trials would not know their repetition. Workers (`ray_worker.py`) write their results themselves;
their reports to this process, the driver, are for the display and the schedule.
"""

import gc
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

# Before Ray: it sets the environment that Ray reads when it is imported.
from cluster.executors import (
    ray_gpus,
    ray_nodes,
    ray_worker,  # isort: split
)

import ray.util.client
from ray import tune
from ray.air._internal import usage
from ray.train._internal import storage
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.notebook import kernel_shell
from cluster.executors.signals import Preempted, Signals
from cluster.executors.watchdog import read_hang
from cluster.planning.placement import Placement, UnusableNodeError, nodes_text
from cluster.schedules.schedule import Schedule, Step
from cluster.storage.filesystem import StorageError
from cluster.trial.trainable import TrialReport

# Tune would send this process's credentials to workers as settings, which Ray writes into its logs on every node.
# Workers of a Ray on this machine inherit them; the nodes of a cluster have their own. And without any settings, trials
# start in the workers that Ray has started in advance.
ENV_VARS_TO_PROPAGATE.clear()
DEFAULT_ENV_VARS.clear()

# To count which loggers of its own are in use, Tune would import MLflow, W&B and others, which takes seconds.
usage.tag_callbacks = lambda callbacks: False

_NODES_INTERVAL_S = 5.0

# Tune keeps every step (34 KB) until its Tuner ends, and iterates over all of them whenever one starts. So several
# Tuners run one after another. Each starts new workers, so a Tuner needs many steps per slot to be worth it.
_STEPS_OF_A_TUNER = 1000
_STEPS_OF_A_SLOT = 25


def run_ray(
    schedule: Schedule,
    job: Job,
    placement: Placement,
    monitor: Monitor,
    signals: Signals,
    *,
    unbounded: bool = False,
) -> None:
    """Trains what `schedule` gives out. Reports go to `monitor`, results to the trials' folders. Ray must be running.

    Args:
        schedule: What to train.
        job: What workers need for it.
        placement: What each trial takes.
        monitor: Receives the reports.
        signals: The signals that end the run.
        unbounded: Request resources for more trials than fit, so that an autoscaler adds nodes.

    Raises:
        ConfigError: If the user's own code cannot be sent to workers.
        KeyboardInterrupt: After Ctrl-C.
        Preempted: After SIGTERM.
        UnusableNodeError: If a node joined on which trials cannot be trained; all other trials have saved.
    """
    # Tune needs a folder for files that are not used: not the experiment's folder, which may be full or remote.
    with (
        tempfile.TemporaryDirectory(prefix="posetune-", ignore_cleanup_errors=True) as scratch,
        _driven_from_here(scratch),
        signals.first_sigint_noted(),
    ):
        # A cluster that grows on demand should not grow for GPUs that are half full: there Ray fills a GPU first.
        gpus = ray_gpus.RayGpus(placement) if placement.per_gpu and not unbounded else None
        trainable = ray_worker.trainable(job, placement)
        while not schedule.all_given:
            if signals.interrupted:
                raise KeyboardInterrupt
            if signals.preempted:
                raise Preempted
            steps = _Steps(schedule, placement, unbounded=unbounded)
            try:
                with ray_gpus.placed_by(gpus) if gpus is not None else nullcontext():
                    _tune(trainable, steps, job, monitor, signals, scratch, gpus)
            except Preempted:
                if signals.preempted:
                    raise
            if steps.node_error is not None:
                raise UnusableNodeError(
                    f"trials cannot be trained on a node: {steps.node_error}. Then run the script again to "
                    "continue; all training progress is kept"
                )
            if steps.is_over or monitor.should_stop:
                return
            gc.collect()  # the trials of a Tuner form cycles, and would stay in memory with those of the next


def _tune(
    trainable: Any,
    steps: "_Steps",
    job: Job,
    monitor: Monitor,
    signals: Signals,
    scratch: str,
    gpus: ray_gpus.RayGpus | None,
) -> None:
    """Trains steps with one Tuner until the schedule has no more, or until the Tuner has reached its limit."""
    placement = steps.placement
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([placement.trial_resources])),
        tune_config=tune.TuneConfig(
            num_samples=max(_STEPS_OF_A_TUNER, _STEPS_OF_A_SLOT * placement.n_slots),
            search_alg=steps,
            scheduler=_FirstWithoutWorker(),
            reuse_actors=True,  # a new process imports torch, which takes longer than many trials
            trial_dirname_creator=lambda trial: trial.trial_id,  # by default a text of the whole config
        ),
        run_config=tune.RunConfig(
            storage_path=scratch,
            name=secrets.token_hex(4),
            callbacks=[_Reports(monitor, steps, job, gpus)],
            stop=_Stop(monitor, signals, steps, job.run_id, gpus),
            verbose=0,
            # Tune's reporter for notebooks prints nothing either, but deletes what the cell has printed before.
            progress_reporter=tune.CLIReporter() if kernel_shell() else None,
            failure_config=tune.FailureConfig(max_failures=job.config.max_retries),
        ),
    )
    tuner.fit()


@contextmanager
def _driven_from_here(scratch: str) -> Iterator[None]:
    """Makes Tune drive the trials from this process even if it is a client of a cluster, by `ray://`.

    Tune would move to the cluster, out of reach of the display and Ctrl-C. To run here it only needs a folder.
    """
    client = ray.util.client.ray
    if not client.is_connected():
        yield
        return
    folder_of = storage._get_ray_train_session_dir
    client.is_connected = lambda: False
    storage._get_ray_train_session_dir = lambda: scratch
    try:
        yield
    finally:
        del client.is_connected
        storage._get_ray_train_session_dir = folder_of


class _StaysInDriver:
    """An object that Tune does not pickle for its snapshots, which PoseTune does not use."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Steps(_StaysInDriver, Searcher):  # type: ignore[misc] # ray declares no types
    """Gives the steps of a schedule to Tune, each when there is a free slot for it.

    What Tune calls a trial is a step here: a trial that is paused and continued is several trials for Tune.
    """

    def __init__(self, schedule: Schedule, placement: Placement, *, unbounded: bool = False) -> None:
        super().__init__()
        self.schedule = schedule
        self.placement = placement
        self.max_concurrent = 0 if unbounded else placement.n_slots  # 0 means no limit
        self.running: dict[str, Step] = {}  # by Tune's id, from the moment Tune gets it
        self.started: set[str] = set()  # those of them that a worker trains
        self.is_over = False
        self.closed = False
        self.node_error: str | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next step; None if none can start now, `FINISHED` if none will."""
        is_full = self.max_concurrent and len(self.running) >= self.max_concurrent
        step = None if self.closed or is_full else self.schedule.next()
        if step is not None:
            self.running[trial_id] = step
            return ray_worker.config_of(step)
        # While nothing runs, Tune would wait for a step for minutes, and not notice Ctrl-C.
        self.is_over = not self.running or self.schedule.all_given
        return Searcher.FINISHED if self.is_over else None

    def ended(self, trial_id: str, report: TrialReport | None) -> None:
        """The step with Tune's id ended; `report` is its last one, None if its worker left without one."""
        step = self.running.pop(trial_id)
        self.started.discard(trial_id)
        self.schedule.ended(report or TrialReport(step.trial.id, "interrupted"))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Does nothing: `_Reports` knows how the step ended."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Saves nothing: the trials' folders show what is finished."""


class _FirstWithoutWorker(FIFOScheduler):  # type: ignore[misc] # ray declares no types
    """Gives each free worker to the first step for which no worker is starting.

    Tune by itself gives it to the first step that waits. If a worker is just starting for that step, Tune then ends
    this worker as soon as it has started, and starts another one for the next step. So with steps that are shorter than
    the start of a worker, a slot would never get a worker unless all start at the same moment.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Returns the next step to start, if a worker is free or can be started."""
        controller = tune_controller._tune_controller  # what Tune passes warns of each private attribute
        is_started = controller._actor_manager.is_actor_started
        starting = {trial for trial, worker in controller._trial_to_actor.items() if is_started(worker)}
        waiting = (trial for trial in controller.get_trials() if trial.status == Trial.PENDING)
        return next((trial for trial in waiting if trial not in starting), None)


class _Reports(_StaysInDriver, TrialProgressCallback):  # type: ignore[misc] # ray declares no types
    """Passes the reports of trials to the monitor.

    Tune adds no `TrialProgressCallback` of its own then, which would print a line for each trial that ends silently.
    """

    def __init__(self, monitor: Monitor, steps: _Steps, job: Job, gpus: ray_gpus.RayGpus | None) -> None:
        self.monitor = monitor
        self.steps = steps
        self.job = job
        self.gpus = gpus
        self.retried: set[str] = set()
        self.last: dict[str, TrialReport] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker started a trial, for the first time or again."""
        self.steps.started.add(trial.trial_id)
        self.monitor.started(self.steps.running[trial.trial_id].trial.id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reported."""
        if "report" in result:
            self._reported(trial, TrialReport(**result["report"]), result["group"])
        if "gpu_failure" in result:
            self._retry(TrialReport(**result["gpu_failure"]), result["group"])
        spec = self.steps.running[trial.trial_id].trial
        if "trial_error" in result:
            folder = self.job.folder.trial(spec.id)
            self._reported(trial, ray_worker.fail(spec.id, folder, self.job.run_id, result["trial_error"]), None)
        if "node_error" in result:
            if self.steps.node_error is None:
                self.monitor.progress.say(f"warning: {result['node_error']}. All trials now save, then the run ends")
            self.steps.node_error = result["node_error"]
            self.monitor.reported(TrialReport(spec.id, "interrupted"))

    def _reported(self, trial: Any, report: TrialReport, group: str | None) -> None:
        self.monitor.reported(report)
        self.last[trial.trial_id] = report
        if self.gpus is None or report.status in ("running", "interrupted"):
            return
        bad = self.gpus.ended(group, report.trial_id, gpu_failed=report.gpu_failed)
        if bad is not None:
            self.monitor.progress.say(
                f"warning: {bad} is not used any more: trials failed on it repeatedly, but not on another GPU"
            )

    def _retry(self, report: TrialReport, group: str | None) -> None:
        self.retried.add(report.trial_id)
        if self.gpus is not None:
            self.gpus.failed(group, report.trial_id, str(report.place))
        why = str(report.error).splitlines()[0]
        line = f"warning: {report.trial_id} failed on {report.place} and is tried once more: {why}"
        self.monitor.reported(TrialReport(report.trial_id, "running", report.epoch, lines=(line,)))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker was lost; Tune starts the trial again."""
        self.steps.started.discard(trial.trial_id)
        spec = self.steps.running[trial.trial_id].trial
        if spec.id in self.monitor.outcomes:
            return  # it had reported how it ended
        if spec.id in self.retried:
            self.retried.remove(spec.id)
            return  # it had reported why
        line = f"warning: the worker of {spec.id} was lost; another worker continues the trial from its last checkpoint"
        self.monitor.reported(TrialReport(spec.id, "running", lines=(line,)))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker is done with a step."""
        report = self.last.pop(trial.trial_id, None)
        self.steps.ended(trial.trial_id, None if report is None or report.status == "running" else report)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended without its last report: its worker was lost more than `max_retries` times."""
        spec = self.steps.running[trial.trial_id].trial
        if spec.id in self.monitor.outcomes:  # it had reported how it ended
            self.on_trial_complete(iteration, trials, trial)
            return
        folder, run_id = self.job.folder.trial(spec.id), self.job.run_id
        hang = None
        with suppress(StorageError):
            hang = read_hang(folder, run_id)
        times = "once" if trial.num_failures == 1 else f"{trial.num_failures} times"
        # The file that says where it hung may be on another node.
        hung = "" if self.job.config.trial_timeout_s is None else "silent for longer than trial_timeout_s, "
        lost = (
            f"the trial's worker process was lost {times} ({hung}killed, out of memory, or its node was lost); the "
            "next run continues from the last checkpoint"
        )
        self._reported(trial, ray_worker.fail(spec.id, folder, run_id, hang or lost), None)
        self.on_trial_complete(iteration, trials, trial)


class _Stop(_StaysInDriver, tune.Stopper):  # type: ignore[misc] # ray declares no types
    """Ends the run if the monitor says so, after Ctrl-C, after SIGTERM, and if trials cannot run on some node.

    Tune calls it several times a second, so it also checks the nodes at intervals and refreshes the display.
    """

    def __init__(
        self, monitor: Monitor, signals: Signals, steps: _Steps, run_id: str, gpus: ray_gpus.RayGpus | None
    ) -> None:
        self.monitor = monitor
        self.signals = signals
        self.steps = steps
        self.run_id = run_id
        self.gpus = gpus
        self.deadline: float | None = None
        self.checked_nodes = time.monotonic()
        self.printed = float("-inf")

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never ends a single trial."""
        return False

    def stop_all(self) -> bool:
        """Returns whether to end the run."""
        if self.signals.interrupted:
            # Tune itself would wait for the workers to end their trials; `ray.shutdown` does not.
            raise KeyboardInterrupt
        if self.gpus is not None and self.gpus.all_bad and self.steps.node_error is None:
            self.steps.node_error = (
                "trials failed repeatedly on all GPUs that are left, but not on others. Repair these"
            )
        if self.signals.preempted or self.steps.node_error is not None:
            self._save_and_end()
        self._check_nodes()
        self.monitor.progress.refresh()
        return self.monitor.should_stop

    def _check_nodes(self) -> None:
        """Adapts the number of concurrent trials to the nodes; prints a line if no node is left."""
        now = time.monotonic()
        if now - self.checked_nodes < _NODES_INTERVAL_S:
            return
        self.checked_nodes = now
        nodes = list(ray_nodes.nodes().values())
        n_slots = self.steps.placement.slots_on(nodes)
        if n_slots and self.steps.max_concurrent:  # 0 means no limit
            self.steps.max_concurrent = n_slots
        if not n_slots and now - self.printed >= ray_nodes.PRINT_INTERVAL_S:
            self.printed = now
            self.monitor.progress.say(f"waiting for a node that a trial fits on; {nodes_text(nodes)}")

    def _save_and_end(self) -> None:
        """Makes all trials write a checkpoint, and ends the run once they have, or when the time is up.

        It does not wait for trials that wait for a worker: there may be no GPU for them any more.
        """
        if not self.steps.closed:
            self.steps.closed = True
            ray_worker.request_stop(self.run_id)
        if self.deadline is None and self.signals.preempted:
            self.deadline = time.monotonic() + self.signals.grace_s
        if not self.steps.started or (self.deadline is not None and time.monotonic() > self.deadline):
            raise Preempted
