"""Trains one trial after another in this process without Ray, for a debugger and for comparison."""

from collections.abc import Sequence

from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.signals import Preempted, Signals
from cluster.planning.placement import Placement, UnusableNodeError
from cluster.planning.plan import TrialSpec
from cluster.trial.trainable import run_trial
from posenet.machine_errors import is_lost


def run_inline(trials: Sequence[TrialSpec], job: Job, placement: Placement, monitor: Monitor, signals: Signals) -> None:
    """Trains `trials` in order on the first device. Reports go to `monitor`, results to the trials' folders.

    Raises:
        Preempted: After SIGTERM.
        UnusableNodeError: If an error of a trial made the GPU unusable for this process.
    """
    for spec in trials:
        if monitor.should_stop:
            return
        trial = job.trial(spec, placement.first_device)
        monitor.started(trial.id)
        folder = job.folder.trial(trial.id)
        for report in run_trial(trial, job.data(trial.settings), folder, signals.preempted.is_set):
            monitor.reported(report)
        if signals.preempted.is_set():
            raise Preempted
        if report.status == "failed" and is_lost(trial.device):
            raise UnusableNodeError(
                f"after the error of {trial.id}, this process cannot use its GPU any more: {report.error}. Run the "
                'script again to continue with the other trials; with run() instead of run("inline"), the next trial '
                "gets a new process"
            )
