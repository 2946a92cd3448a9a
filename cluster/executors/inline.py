"""Trains one trial after another in this process without Ray, for a debugger and for comparison."""

from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.signals import Preempted, Signals
from cluster.planning.placement import Placement
from cluster.schedules.schedule import Schedule
from cluster.trial.trainable import run_trial


def run_inline(schedule: Schedule, job: Job, placement: Placement, monitor: Monitor, signals: Signals) -> None:
    """Trains what `schedule` gives out on the first device. Reports go to `monitor`, results to the trials' folders.

    Raises:
        Preempted: After SIGTERM.
        Exception: The error of a trial, after the trial was recorded as failed; a debugger then stops where it was
            raised.
    """
    while not monitor.should_stop and (step := schedule.next()) is not None:
        trial = job.trial(step.trial, placement.first_device)
        monitor.started(trial.id)
        folder = job.folder.trial(trial.id)
        data = job.data(trial.settings)
        reports = run_trial(trial, data, folder, lambda: signals.preempted, until=step.until, raise_errors=True)
        for report in reports:
            monitor.reported(report)
        if signals.preempted:
            raise Preempted
        schedule.ended(report)
