"""Trains trials with Ray Tune: one Tuner, many worker processes, on the Ray that `ray_session.py` has started or found.

Options are `tune.grid_search` in the parameter space and repetitions are `num_samples`. A variant generator of our own
gives each variant its identity and leaves out what needs no training. Workers (`ray_worker.py`) write their results
themselves; what they report to this process, the driver, is for the display.
"""

import gc
import math
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# Before Ray: it sets the environment that Ray reads when it is imported.
from cluster.executors import (
    ray_nodes,
    ray_worker,  # isort: split
)

import ray.util.client
from ray import tune
from ray.train._internal import storage
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.search.basic_variant import BasicVariantGenerator

from cluster.executors.job import Job
from cluster.executors.monitor import Watch
from cluster.executors.signals import Preempted, Signals
from cluster.executors.watchdog import how_it_hung
from cluster.planning.placement import Placement, UnfitNodeError, what_there_is
from cluster.planning.plan import TrialSpec
from cluster.storage.filesystem import StorageError
from cluster.trial.trainable import TrialReport

# Tune would send this process's credentials to workers as settings, which Ray writes into its logs on every node.
# Workers of a Ray of our own inherit them; the nodes of a cluster have theirs.
ENV_VARS_TO_PROPAGATE -= {name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}

_NODES_INTERVAL_S = 5.0

# Tune keeps each trial until its Tuner ends, 34 KB, and looks through all of them for each that begins. Another Tuner
# starts its workers anew, and begins when the last trial of the one before has ended: each slot should have had many.
_TRIALS_OF_A_TUNER = 1000
_TRIALS_OF_A_SLOT = 25


def run_ray(
    trials: Sequence[TrialSpec],
    job: Job,
    placement: Placement,
    watch: Watch,
    signals: Signals,
    *,
    unbounded: bool = False,
) -> None:
    """Trains `trials`; reports go to `watch`, results to the trials' folders. Ray has to run.

    Args:
        trials: What to train.
        job: What workers need for it.
        placement: What each trial takes.
        watch: Whom to tell.
        signals: What to end the run for.
        unbounded: Ask for places for more trials than there is room for, so that an autoscaler adds nodes.

    Raises:
        KeyboardInterrupt: If Ctrl-C ended the run.
        Preempted: If SIGTERM did.
        UnfitNodeError: If a node came on which trials cannot be trained; all others have saved.
    """
    # Tune wants a place for files that nobody needs: not in the experiment's folder, which may be full or remote.
    with (
        tempfile.TemporaryDirectory(prefix="posetune-", ignore_cleanup_errors=True) as scratch,
        _driven_from_here(scratch),
        signals.first_sigint_noted(),
    ):
        trainable = ray_worker.trainable(job, placement)
        for part in _parts(trials, max(_TRIALS_OF_A_TUNER, _TRIALS_OF_A_SLOT * placement.n_slots)):
            if signals.interrupted.is_set():
                raise KeyboardInterrupt
            if signals.preempted.is_set():
                raise Preempted
            first = min(trial.repetition for trial in part)
            generator = _Variants(part, job, placement, first_repetition=first, unbounded=unbounded)
            try:
                _tune(trainable, part, generator, watch, signals, scratch)
            except Preempted:
                if signals.preempted.is_set():
                    raise
            if generator.unfit is not None:
                raise UnfitNodeError(
                    f"a trial cannot be trained where it was to be: {generator.unfit}. Then run the script again to go "
                    "on; what was trained is kept"
                )
            gc.collect()  # the trials of a Tuner hold one another, and would lie beside those of the next
            if watch.should_stop:
                return


def _parts(trials: Sequence[TrialSpec], at_most: int) -> Iterator[Sequence[TrialSpec]]:
    """Splits trials, in their order, into as few equal parts as there have to be."""
    size = math.ceil(len(trials) / math.ceil(len(trials) / at_most))
    for start in range(0, len(trials), size):
        yield trials[start : start + size]


def _tune(
    trainable: Any,
    trials: Sequence[TrialSpec],
    generator: "_Variants",
    watch: Watch,
    signals: Signals,
    scratch: str,
) -> None:
    """Trains some trials with one Tuner."""
    job, placement = generator.job, generator.placement
    # Variants that the generator would leave out cost a millisecond or two each, so few are asked for.
    rows = [sorted(set(column)) for column in zip(*(trial.combination.choice for trial in trials), strict=True)]
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([placement.trial_resources])),
        param_space={
            axis.name: tune.grid_search([axis.row_labels[row] for row in taken])
            for axis, taken in zip(job.space.axes, rows, strict=True)
        },
        tune_config=tune.TuneConfig(
            num_samples=1 + max(trial.repetition for trial in trials) - generator.first_repetition,
            search_alg=generator,
            reuse_actors=True,  # a new process imports torch, which takes longer than many a trial
        ),
        run_config=tune.RunConfig(
            storage_path=scratch,
            name=secrets.token_hex(4),
            callbacks=[_Reports(watch, generator, job)],
            stop=_Stop(watch, signals, generator, job.run_id),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=job.config.max_retries),
        ),
    )
    tuner.fit()


@contextmanager
def _driven_from_here(scratch: str) -> Iterator[None]:
    """Has Tune drive the trials from this process also where it is a client of a cluster, by `ray://`.

    Tune would move to the cluster, where neither our display nor Ctrl-C reach it. All that it misses here is a folder.
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
    """Tune pickles all that it is given for snapshots, which are never used here; this is left out of them."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Variants(_StaysInDriver, BasicVariantGenerator):  # type: ignore[misc] # ray declares no types
    """Gives Tune's variants their identity, and leaves out those that need no training.

    Tune makes all variants of the first sample, then all of the second, and says nothing of which sample it is, so the
    times that a combination has been seen are counted.
    """

    def __init__(
        self,
        trials: Sequence[TrialSpec],
        job: Job,
        placement: Placement,
        *,
        first_repetition: int = 0,
        unbounded: bool = False,
    ) -> None:
        self.max_concurrent: int  # of the base class: 0 is without bound
        super().__init__(max_concurrent=0 if unbounded else placement.n_slots)
        self.specs = {(trial.combination.choice, trial.repetition): trial for trial in trials}
        self.first_repetition = first_repetition
        self.job = job
        self.placement = placement
        self.seen: dict[tuple[int, ...], int] = {}
        self.given: dict[str, TrialSpec] = {}
        self.closed = False
        self.unfit: str | None = None

    @property
    def total_samples(self) -> int:
        """How many trials will be trained."""
        return len(self.specs)

    @property
    def n_running(self) -> int:
        """How many trials were given and have not ended."""
        return len(self._live_trials)

    def next_trial(self) -> Any:
        """Returns the next variant that needs training, as a Tune trial; None if there is none now."""
        if self.closed:
            return None
        if len(self.given) == len(self.specs):
            self.set_finished()  # what Tune has left is none of ours
            return None
        while (trial := super().next_trial()) is not None:
            choice = self.job.space.choice_of(trial.config)
            repetition = self.seen.get(choice, self.first_repetition)
            self.seen[choice] = repetition + 1
            spec = self.specs.get((choice, repetition))
            if spec is None:
                super().on_trial_complete(trial.trial_id)
                continue
            self.given[trial.trial_id] = spec
            trial.config.update(
                key=spec.key,
                repetition=spec.repetition,
                seed=spec.seed,
                description=spec.combination.description,
            )
            trial.custom_dirname = f"{spec.key}-{spec.repetition}"
            return trial
        return None

    def save_to_dir(self, dirpath: str, **kwargs: Any) -> None:
        """Saves nothing: what is finished is known from the trials' folders."""


class _Reports(_StaysInDriver, tune.Callback):  # type: ignore[misc] # ray declares no types
    """Hands what trials report to the watch."""

    def __init__(self, watch: Watch, generator: _Variants, job: Job) -> None:
        self.watch = watch
        self.generator = generator
        self.job = job

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker begins a trial, for the first time or again."""
        self.watch.started(self.generator.given[trial.trial_id].id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reports."""
        if "report" in result:
            self.watch.reported(TrialReport(**result["report"]))
        spec = self.generator.given[trial.trial_id]
        if "unable" in result:
            folder = self.job.folder.trial(spec.id)
            self.watch.reported(ray_worker.fail(spec.id, folder, self.job.run_id, result["unable"]))
        if "unfit" in result:
            if self.generator.unfit is None:
                self.watch.progress.say(f"warning: {result['unfit']}. All trials save now, then the run ends")
            self.generator.unfit = result["unfit"]
            self.watch.reported(TrialReport(spec.id, "interrupted"))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker was lost; the trial is started again."""
        spec = self.generator.given[trial.trial_id]
        if spec.id in self.watch.outcomes:
            return  # it had told how it ended
        line = f"warning: the worker of {spec.id} was lost; the trial goes on from its last checkpoint in another one"
        self.watch.reported(TrialReport(spec.id, "running", lines=(line,)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended without its last report: its worker was lost once too often."""
        spec = self.generator.given[trial.trial_id]
        folder, run_id = self.job.folder.trial(spec.id), self.job.run_id
        hang = None
        with suppress(StorageError):
            hang = how_it_hung(folder, run_id)
        times = "once" if trial.num_failures == 1 else f"{trial.num_failures} times"
        # Where it hung is in a file that another node may not see.
        hung = "" if self.job.config.trial_timeout_s is None else "silent for longer than trial_timeout_s, "
        lost = (
            f"the trial's worker process was lost {times} ({hung}killed, out of memory, or its node went away); the "
            "next run goes on from the last checkpoint"
        )
        self.watch.reported(ray_worker.fail(spec.id, folder, run_id, hang or lost))


class _Stop(_StaysInDriver, tune.Stopper):  # type: ignore[misc] # ray declares no types
    """Ends the run when the watch says so, after Ctrl-C, after SIGTERM, and when trials cannot run on some node.

    Tune asks it several times a second, so it also looks at the nodes now and then.
    """

    def __init__(self, watch: Watch, signals: Signals, generator: _Variants, run_id: str) -> None:
        self.watch = watch
        self.signals = signals
        self.generator = generator
        self.run_id = run_id
        self.deadline: float | None = None
        self.looked_for_nodes = time.monotonic()
        self.said = float("-inf")

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never ends a single trial."""
        return False

    def stop_all(self) -> bool:
        """Tells whether to end the run."""
        if self.signals.interrupted.is_set():
            # Tune itself would wait for the workers to end what they are at; `ray.shutdown` does not.
            raise KeyboardInterrupt
        if self.signals.preempted.is_set() or self.generator.unfit is not None:
            self._leave()
        self._look_for_nodes()
        return self.watch.should_stop

    def _look_for_nodes(self) -> None:
        """Lets more or fewer trials run at a time where nodes have come or gone; says when all are gone."""
        now = time.monotonic()
        if now - self.looked_for_nodes < _NODES_INTERVAL_S:
            return
        self.looked_for_nodes = now
        nodes = list(ray_nodes.nodes().values())
        n_slots = self.generator.placement.slots_on(nodes)
        if n_slots and self.generator.max_concurrent:  # 0 is without bound
            self.generator.max_concurrent = n_slots
        if not n_slots and now - self.said >= ray_nodes.SAY_AGAIN_S:
            self.said = now
            self.watch.progress.say(f"waiting for a node that a trial fits on; {what_there_is(nodes)}")

    def _leave(self) -> None:
        """Has all trials write a checkpoint, and ends the run once they have or when there is no time left."""
        if not self.generator.closed:
            self.generator.closed = True
            ray_worker.ask_to_leave(self.run_id)
        if self.deadline is None and self.signals.preempted.is_set():
            self.deadline = time.monotonic() + self.signals.grace_s
        if not self.generator.n_running or (self.deadline is not None and time.monotonic() > self.deadline):
            raise Preempted
