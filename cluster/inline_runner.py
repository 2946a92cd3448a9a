"""Trains the trials one after another in this process, for a debugger and for comparison; no Ray."""

from collections.abc import Sequence

from cluster.devices import Placement
from cluster.job import Job
from cluster.plan import TrialSpec
from cluster.signals import Preempted, Signals
from cluster.trainable import run_trial
from cluster.watch import Watch


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
