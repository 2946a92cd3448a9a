"""Follows the trials of a run: the display, the failures, and whether to stop."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice

from cluster.executors.progress import Progress
from cluster.storage.archive import Archiver
from cluster.storage.trial_file import FINAL
from cluster.trial.trainable import TrialReport
from data_pipeline.user_error import UserError


@dataclass
class Monitor:
    """Takes the reports of all trials, from any executor.

    Attributes:
        progress: The display.
        stop_if_all_fail: Stop if this many trials ended first and all failed; None never stops.
        archiver: Moves finished and diverged trials to the archive; None leaves them in place.
        failed_before: Trials that failed in an earlier run; a new failure of theirs says nothing about the others.
        check_lock: Raises an error if another run may have begun; then no further trial starts.
        at_first_report: Called when the first trial reports: the training is under way.
        outcomes: The last report of each trial that ended.
        any_paused: Whether any trial has been paused.
        has_reported: Whether any trial has reported.
    """

    progress: Progress
    stop_if_all_fail: int | None
    archiver: Archiver | None = None
    failed_before: Collection[str] = ()
    check_lock: Callable[[], None] = lambda: None
    at_first_report: Callable[[], None] = lambda: None
    outcomes: dict[str, TrialReport] = field(default_factory=dict)
    any_paused: bool = False
    has_reported: bool = False

    def started(self, trial_id: str) -> None:
        """A trial was started."""
        if trial_id in self.outcomes:
            return  # its worker was lost after the last report; the next worker finds that the trial has ended
        self.progress.started(trial_id)

    def reported(self, report: TrialReport) -> None:
        """A trial reported its state. Reports that follow the one of its end are ignored."""
        if report.trial_id in self.outcomes:
            return
        if not self.has_reported:
            self.has_reported = True
            self.at_first_report()
        self.progress.reported(report)
        self.any_paused |= report.status == "paused"
        if report.status not in ("running", "interrupted", "paused"):
            self.outcomes[report.trial_id] = report
        if self.archiver is not None and report.status in FINAL:
            self.archiver.add(report.trial_id)

    @property
    def should_stop(self) -> bool:
        """Whether no further trial should start: the first ones all failed, or the lock of the run is lost."""
        try:
            self.check_lock()
        except UserError:
            return True
        return self.why_stop is not None

    @property
    def why_stop(self) -> str | None:
        """The error of the first trial, if the first trials have all failed; else None."""
        n = self.stop_if_all_fail
        if n is None or self.any_paused or len(self.outcomes) < n:
            return None
        counted = (
            report
            for trial_id, report in self.outcomes.items()
            if report.status != "failed" or trial_id not in self.failed_before
        )
        first = list(islice(counted, n))
        if len(first) < n or any(report.status != "failed" for report in first):
            return None
        return first[0].error
