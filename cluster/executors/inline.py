"""Trains the trials one after another in this process, for a debugger and for comparison; no Ray."""

from collections.abc import Sequence

from cluster.executors.job import Job
from cluster.executors.monitor import Watch
from cluster.executors.signals import Preempted, Signals
from cluster.planning.placement import Placement
from cluster.planning.plan import TrialSpec
from cluster.trial.trainable import run_trial


def run_inline(trials: Sequence[TrialSpec], job: Job, placement: Placement, watch: Watch, signals: Signals) -> None:
    """Trains `trials` in order on the first device; reports go to `watch`, results to the trials' folders.

    Raises:
        Preempted: If SIGTERM ended the run.
    """
    for spec in trials:
        if watch.should_stop:
            return
        trial = job.trial(spec, placement.first_device)
        watch.started(trial.id)
        folder = job.folder.trial(trial.id)
        for report in run_trial(trial, job.data(trial.settings), folder, signals.preempted.is_set):
            watch.reported(report)
        if signals.preempted.is_set():
            raise Preempted
