"""Schedules decide what a run trains next. Executors ask them for one step at a time.

The next step may depend on how earlier ones ended, so the order is not known in advance.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cluster.planning.plan import TrialSpec
from cluster.trial.trainable import TrialReport


class Step(NamedTuple):
    """A part of a training: from a trial's last checkpoint up to an epoch."""

    trial: TrialSpec
    until: int | None = None
    """The epoch after which the trial is paused; None trains it to its end."""


class Schedule(Protocol):
    """Decides what is trained next. It does not change the numbers of any trial."""

    @property
    def n_parallel(self) -> int:
        """The largest number of steps that can be trained at the same time."""

    @property
    def all_given(self) -> bool:
        """Whether `next` will only return None from now on. Idle workers may then leave."""

    def next(self) -> Step | None:
        """Returns a step that can start now; None if there is none left, or none before another step ends.

        The run ends when this returns None while no step is running, even if not everything was given out. An error
        raised here ends the run and reaches its caller.
        """

    def ended(self, report: TrialReport) -> None:
        """A step ended, and its worker has released the trial. It must not raise an error, since Tune would hide it.

        Args:
            report: The step's last report. If its status is `interrupted`, the run is about to end.
        """


class GridSchedule:
    """Trains the trials of a plan to their end, in order. A trial that continues another one waits for it.

    Args:
        trials: The trials to train.
    """

    def __init__(self, trials: Sequence[TrialSpec]) -> None:
        self.n_parallel = len(trials)
        self._waiting = list(trials)
        self._not_ended = {trial.id for trial in trials}

    @property
    def all_given(self) -> bool:
        """Whether all trials were given out."""
        return not self._waiting

    def next(self) -> Step | None:
        """Returns the first trial that can start; None if all remaining ones wait for others."""
        for place, trial in enumerate(self._waiting):
            if not trial.shorter or trial.shorter[0].trial_id not in self._not_ended:
                del self._waiting[place]
                return Step(trial)
        return None

    def ended(self, report: TrialReport) -> None:
        """A trial ended."""
        self._not_ended.discard(report.trial_id)
