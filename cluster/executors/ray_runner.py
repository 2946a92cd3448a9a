"""Trains trials with Ray Tune, in worker processes of the Ray that `ray_session.py` started or connected to.

Options are `tune.grid_search` in the parameter space and repetitions are `num_samples`. `_Variants` gives each variant
its identity and skips those that need no training. Workers (`ray_worker.py`) write their results themselves; their
reports to this process, the driver, are for the display.
"""

import gc
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from ray.train._internal import storage
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.search.basic_variant import BasicVariantGenerator

from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.notebook import kernel_shell
from cluster.executors.signals import Preempted, Signals
from cluster.executors.watchdog import read_hang
from cluster.planning.placement import Placement, UnusableNodeError, nodes_text
from cluster.planning.plan import TrialSpec
from cluster.storage.filesystem import StorageError
from cluster.trial.trainable import TrialReport

# Tune would send this process's credentials to workers as settings, which Ray writes into its logs on every node.
# Workers of a Ray on this machine inherit them; the nodes of a cluster have their own.
ENV_VARS_TO_PROPAGATE -= {name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}

_NODES_INTERVAL_S = 5.0

# Tune keeps each trial, 34 KB, until its Tuner ends, and iterates over all of them whenever one starts. So several
# Tuners run in turn. Each starts new workers after the last trial of the previous one, so each slot needs many trials.
_TRIALS_OF_A_TUNER = 1000
_TRIALS_OF_A_SLOT = 25


def run_ray(
    trials: Sequence[TrialSpec],
    job: Job,
    placement: Placement,
    monitor: Monitor,
    signals: Signals,
    *,
    unbounded: bool = False,
) -> None:
    """Trains `trials`. Reports go to `monitor`, results to the trials' folders. Ray must be running.

    Args:
        trials: What to train.
        job: What workers need for it.
        placement: What each trial takes.
        monitor: Receives the reports.
        signals: The signals that end the run.
        unbounded: Request resources for more trials than fit, so that an autoscaler adds nodes.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        Preempted: After SIGTERM.
        UnusableNodeError: If a node joined on which trials cannot be trained; the other trials have saved.
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
        for batch in _batches(trials, max(_TRIALS_OF_A_TUNER, _TRIALS_OF_A_SLOT * placement.n_slots)):
            if signals.interrupted.is_set():
                raise KeyboardInterrupt
            if signals.preempted.is_set():
                raise Preempted
            first = min(trial.repetition for trial in batch)
            has_ended = monitor.outcomes.__contains__
            generator = _Variants(
                batch, job, placement, first_repetition=first, unbounded=unbounded, has_ended=has_ended
            )
            try:
                with ray_gpus.placed_by(gpus) if gpus is not None else nullcontext():
                    _tune(trainable, batch, generator, monitor, signals, scratch, gpus)
            except Preempted:
                if signals.preempted.is_set():
                    raise
            if generator.node_error is not None:
                raise UnusableNodeError(
                    f"trials cannot be trained on a node: {generator.node_error}. Then run the script again to "
                    "continue; all training progress is kept"
                )
            gc.collect()  # the trials of a Tuner form cycles, and would stay in memory with those of the next
            if monitor.should_stop:
                return


def _batches(trials: Sequence[TrialSpec], max_size: int) -> Iterator[Sequence[TrialSpec]]:
    """Splits trials, in their order, into as few batches of equal size as possible."""
    size = math.ceil(len(trials) / math.ceil(len(trials) / max_size))
    for start in range(0, len(trials), size):
        yield trials[start : start + size]


def _tune(
    trainable: Any,
    trials: Sequence[TrialSpec],
    generator: "_Variants",
    monitor: Monitor,
    signals: Signals,
    scratch: str,
    gpus: ray_gpus.RayGpus | None,
) -> None:
    """Trains some trials with one Tuner."""
    job, placement = generator.job, generator.placement
    # Each variant that the generator skips costs a millisecond or two, so only rows that occur are in the grid.
    rows = [sorted(set(column)) for column in zip(*(trial.combination.row_indices for trial in trials), strict=True)]
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([placement.trial_resources])),
        param_space={
            axis.name: tune.grid_search([axis.row_labels[row] for row in axis_rows])
            for axis, axis_rows in zip(job.space.axes, rows, strict=True)
        },
        tune_config=tune.TuneConfig(
            num_samples=1 + max(trial.repetition for trial in trials) - generator.first_repetition,
            search_alg=generator,
            reuse_actors=True,  # a new process imports torch, which takes longer than many trials
        ),
        run_config=tune.RunConfig(
            storage_path=scratch,
            name=secrets.token_hex(4),
            callbacks=[_Reports(monitor, generator, job, gpus)],
            stop=_Stop(monitor, signals, generator, job.run_id),
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


class _Variants(_StaysInDriver, BasicVariantGenerator):  # type: ignore[misc] # ray declares no types
    """Gives Tune's variants their identity, and skips those that need no training.

    Tune makes all variants of the first sample, then all of the second, but does not say which sample it is, so this
    class counts how often each combination has occurred. A trial that continues another one waits until that has ended.
    """

    def __init__(
        self,
        trials: Sequence[TrialSpec],
        job: Job,
        placement: Placement,
        *,
        first_repetition: int = 0,
        unbounded: bool = False,
        has_ended: Callable[[str], bool] = lambda trial_id: False,
    ) -> None:
        self.max_concurrent: int  # of the base class: 0 means no limit
        super().__init__(max_concurrent=0 if unbounded else placement.n_slots)
        self.specs = {(trial.combination.row_indices, trial.repetition): trial for trial in trials}
        self.first_repetition = first_repetition
        self.job = job
        self.placement = placement
        self.seen: dict[tuple[int, ...], int] = {}
        self.specs_by_tune_id: dict[str, TrialSpec] = {}
        self.ids = {trial.id for trial in trials}
        self.has_ended = has_ended
        self.waiting: list[Any] = []
        self.closed = False
        self.node_error: str | None = None

    @property
    def total_samples(self) -> int:
        """How many trials will be trained."""
        return len(self.specs)

    @property
    def n_running(self) -> int:
        """How many trials Tune has started that have not ended."""
        return len(self._live_trials)

    def next_trial(self) -> Any:
        """Returns the next variant that needs training, as a Tune trial; None if no trial can start now."""
        if self.closed:
            return None
        if (waiting := self._next_waiting()) is not None:
            return waiting
        if len(self.specs_by_tune_id) == len(self.specs):
            if not self.waiting:
                self.set_finished()  # the other variants need no training
            return None
        while (trial := super().next_trial()) is not None:
            row_indices = self.job.space.row_indices_of(trial.config)
            repetition = self.seen.get(row_indices, self.first_repetition)
            self.seen[row_indices] = repetition + 1
            spec = self.specs.get((row_indices, repetition))
            if spec is None:
                super().on_trial_complete(trial.trial_id)
                continue
            self.specs_by_tune_id[trial.trial_id] = spec
            trial.config.update(
                key=spec.key,
                repetition=spec.repetition,
                seed=spec.seed,
                encoded=spec.combination.encoded,
                shorter=[list(shorter) for shorter in spec.shorter],
                is_prolonged=spec.is_prolonged,
            )
            trial.custom_dirname = f"{spec.key}-{spec.repetition}"
            if self._can_start(spec):
                return trial
            super().on_trial_complete(trial.trial_id)  # it is not running yet
            self.waiting.append(trial)
            if len(self.specs_by_tune_id) == len(self.specs):
                return None
        return None

    def _can_start(self, spec: TrialSpec) -> bool:
        """Returns whether the trial that this one continues has ended, if this Tuner trains it."""
        return not spec.shorter or spec.shorter[0].trial_id not in self.ids or self.has_ended(spec.shorter[0].trial_id)

    def _next_waiting(self) -> Any:
        """Returns a trial that waited for another one and can start now."""
        is_full = self.max_concurrent and self.n_running >= self.max_concurrent
        for trial in [] if is_full else self.waiting:
            if self._can_start(self.specs_by_tune_id[trial.trial_id]):
                self.waiting.remove(trial)
                self._live_trials.add(trial.trial_id)
                return trial
        return None

    def save_to_dir(self, dirpath: str, **kwargs: Any) -> None:
        """Saves nothing: the trials' folders show what is finished."""


class _Reports(_StaysInDriver, tune.Callback):  # type: ignore[misc] # ray declares no types
    """Passes the reports of trials to the monitor."""

    def __init__(self, monitor: Monitor, generator: _Variants, job: Job, gpus: ray_gpus.RayGpus | None) -> None:
        self.monitor = monitor
        self.generator = generator
        self.job = job
        self.gpus = gpus
        self.retried: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker started a trial, for the first time or again."""
        self.monitor.started(self.generator.specs_by_tune_id[trial.trial_id].id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reported."""
        if "report" in result:
            self._reported(TrialReport(**result["report"]), result["group"])
        if "gpu_failure" in result:
            self._retry(TrialReport(**result["gpu_failure"]), result["group"])
        spec = self.generator.specs_by_tune_id[trial.trial_id]
        if "trial_error" in result:
            folder = self.job.folder.trial(spec.id)
            self._reported(ray_worker.fail(spec.id, folder, self.job.run_id, result["trial_error"]), None)
        if "node_error" in result:
            if self.generator.node_error is None:
                self.monitor.progress.say(f"warning: {result['node_error']}. All trials now save, then the run ends")
            self.generator.node_error = result["node_error"]
            self.monitor.reported(TrialReport(spec.id, "interrupted"))

    def _reported(self, report: TrialReport, group: str | None) -> None:
        self.monitor.reported(report)
        if self.gpus is None or report.status in ("running", "interrupted"):
            return
        bad = self.gpus.ended(group, report.trial_id, gpu_failed=report.gpu_failed)
        if bad is not None:
            self.monitor.progress.say(
                f"warning: {bad} is not used any more: trials failed on it repeatedly, but not on another GPU"
            )
        if self.gpus.all_bad:
            self.generator.node_error = "trials failed repeatedly on each GPU, but not on another one. Repair them"

    def _retry(self, report: TrialReport, group: str | None) -> None:
        self.retried.add(report.trial_id)
        if self.gpus is not None:
            self.gpus.failed(group, report.trial_id, str(report.place))
        why = str(report.error).splitlines()[0]
        line = f"warning: {report.trial_id} failed on {report.place} and is tried once more: {why}"
        self.monitor.reported(TrialReport(report.trial_id, "running", report.epoch, lines=(line,)))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker was lost; Tune starts the trial again."""
        spec = self.generator.specs_by_tune_id[trial.trial_id]
        if spec.id in self.monitor.outcomes:
            return  # it had reported how it ended
        if spec.id in self.retried:
            self.retried.remove(spec.id)
            return  # it had reported why
        line = f"warning: the worker of {spec.id} was lost; another worker continues the trial from its last checkpoint"
        self.monitor.reported(TrialReport(spec.id, "running", lines=(line,)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended without its last report: its worker was lost more than `max_retries` times."""
        spec = self.generator.specs_by_tune_id[trial.trial_id]
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
        self._reported(ray_worker.fail(spec.id, folder, run_id, hang or lost), None)


class _Stop(_StaysInDriver, tune.Stopper):  # type: ignore[misc] # ray declares no types
    """Ends the run if the monitor says so, after Ctrl-C, after SIGTERM, and if trials cannot run on some node.

    Tune calls it several times a second, so it also checks the nodes at intervals and refreshes the display.
    """

    def __init__(self, monitor: Monitor, signals: Signals, generator: _Variants, run_id: str) -> None:
        self.monitor = monitor
        self.signals = signals
        self.generator = generator
        self.run_id = run_id
        self.deadline: float | None = None
        self.checked_nodes = time.monotonic()
        self.printed = float("-inf")

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never ends a single trial."""
        return False

    def stop_all(self) -> bool:
        """Returns whether to end the run."""
        if self.signals.interrupted.is_set():
            # Tune itself would wait for the workers to end their trials; `ray.shutdown` does not.
            raise KeyboardInterrupt
        if self.signals.preempted.is_set() or self.generator.node_error is not None:
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
        n_slots = self.generator.placement.slots_on(nodes)
        if n_slots and self.generator.max_concurrent:  # 0 means no limit
            self.generator.max_concurrent = n_slots
        if not n_slots and now - self.printed >= ray_nodes.PRINT_INTERVAL_S:
            self.printed = now
            self.monitor.progress.say(f"waiting for a node that a trial fits on; {nodes_text(nodes)}")

    def _save_and_end(self) -> None:
        """Makes all trials write a checkpoint, and ends the run once they have, or when the time is up."""
        if not self.generator.closed:
            self.generator.closed = True
            ray_worker.request_stop(self.run_id)
        if self.deadline is None and self.signals.preempted.is_set():
            self.deadline = time.monotonic() + self.signals.grace_s
        if not self.generator.n_running or (self.deadline is not None and time.monotonic() > self.deadline):
            raise Preempted
