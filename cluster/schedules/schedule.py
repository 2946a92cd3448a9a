"""What a run trains next: executors ask a schedule for one step after another.

What comes next may depend on how earlier steps ended, so it is not known in advance.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cluster.planning.plan import TrialSpec
from cluster.trial.trainable import TrialReport


class Step(NamedTuple):
    """A part of a training: from the last checkpoint of a trial until an epoch."""

    trial: TrialSpec
    until: int | None = None
    """The epoch after which the trial is paused; None trains it to its end."""


class Schedule(Protocol):
    """Decides what is trained next. It changes no number of a trial."""

    @property
    def n_parallel(self) -> int:
        """How many steps can be trained at the same time, at most."""

    @property
    def all_given(self) -> bool:
        """Whether `next` returns None from now on, whatever else ends. Workers that are idle may then leave."""

    def next(self) -> Step | None:
        """Returns a step that can start now; None if there is none, or none until another step ends.

        The run ends when there is none and no step is being trained, even if not everything was given out. An error
        ends it too, and is raised.
        """

    def ended(self, report: TrialReport) -> None:
        """A step ended, and no worker has its trial any more. It must not raise an error, which Tune would hide.

        Args:
            report: Its last one. If its status is `interrupted`, the run is about to end.
        """


class GridSchedule:
    """Trains each trial of a plan to its end, in their order; a trial that continues another one waits for that.

    Args:
        trials: What to train.
    """

    def __init__(self, trials: Sequence[TrialSpec]) -> None:
        self.n_parallel = len(trials)
        self._waiting = list(trials)
        self._not_ended = {trial.id for trial in trials}

    @property
    def all_given(self) -> bool:
        """Whether each trial was given out."""
        return not self._waiting

    def next(self) -> Step | None:
        """Returns the first trial that can start; None if all that are left wait for others."""
        for place, trial in enumerate(self._waiting):
            if not trial.shorter or trial.shorter[0].trial_id not in self._not_ended:
                del self._waiting[place]
                return Step(trial)
        return None

    def ended(self, report: TrialReport) -> None:
        """A trial ended."""
        self._not_ended.discard(report.trial_id)
