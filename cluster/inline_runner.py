"""Trains the trials one after another in this process, for a debugger and for comparison; no Ray."""

from collections.abc import Sequence

from cluster.devices import Placement
from cluster.job import Job
from cluster.plan import TrialSpec
from cluster.trainable import run_trial
from cluster.watch import Watch


def run_inline(trials: Sequence[TrialSpec], job: Job, placement: Placement, watch: Watch) -> None:
    """Trains `trials` in order on the first device; reports go to `watch`, results to the trials' folders."""
    device = placement.devices[0]
    for spec in trials:
        if watch.should_stop:
            return
        trial = job.trial(spec, device)
        watch.started(trial.id, str(device))
        for report in run_trial(trial, job.data(trial.settings), job.folder.trial(trial.id)):
            watch.reported(report)
