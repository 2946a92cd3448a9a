"""What a run looks at while trials report: the display, the failures, and whether to stop."""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice

from cluster.executors.progress import Progress
from cluster.storage.archive import Archiver
from cluster.trial.trainable import TrialReport


@dataclass
class Watch:
    """Takes the reports of all trials, from whichever executor.

    Attributes:
        progress: The display.
        stop_if_all_fail: Stop when the first so many trials have all failed; None goes on.
        archiver: Who moves trials that have ended for good; None leaves them where they are.
        failed_before: Trials that tell nothing of the others by failing again.
        outcomes: The last report of each trial that ended.
    """

    progress: Progress
    stop_if_all_fail: int | None
    archiver: Archiver | None = None
    failed_before: Collection[str] = ()
    outcomes: dict[str, TrialReport] = field(default_factory=dict)

    def started(self, trial_id: str) -> None:
        """A trial begins."""
        if trial_id in self.outcomes:
            return  # its worker was lost after its last report; the next one finds that it has ended
        self.progress.started(trial_id)

    def reported(self, report: TrialReport) -> None:
        """A trial tells how it stands; how it ended, once."""
        if report.trial_id in self.outcomes:
            return
        self.progress.reported(report)
        if report.status not in ("running", "interrupted"):
            self.outcomes[report.trial_id] = report
        if self.archiver is not None and report.status in ("finished", "diverged"):
            self.archiver.add(report.trial_id)

    @property
    def should_stop(self) -> bool:
        """Whether the first trials of the run have all failed, so that the next ones will most likely too."""
        return self.why_stop is not None

    @property
    def why_stop(self) -> str | None:
        """The error of the first of them; None where they have not all failed."""
        n = self.stop_if_all_fail
        if n is None or len(self.outcomes) < n:
            return None
        telling = (
            report
            for trial_id, report in self.outcomes.items()
            if report.status != "failed" or trial_id not in self.failed_before
        )
        first = list(islice(telling, n))
        if len(first) < n or any(report.status != "failed" for report in first):
            return None
        return first[0].error
