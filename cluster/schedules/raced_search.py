"""Races the rounds of a search."""

from collections.abc import Callable, Mapping

from cluster.planning.plan import Plan
from cluster.schedules.brackets import Data, Entrant
from cluster.schedules.race_schedule import RaceSchedule
from cluster.schedules.schedule import Step
from cluster.schedules.search_schedule import Searching
from cluster.trial.trainable import TrialReport


class RacedSearchSchedule:
    """Trains the rounds of a search, each as a bracket that competes with the finalists so far.

    The next round is proposed once the finalists of the current one are trained. The sampler sees a dropped combination
    with its error at the last rung that it reached.

    Args:
        searching: The rounds.
        plan: The plan of the rounds proposed so far, with statuses.
        race: The race of their combinations.
        entrants: Returns the combinations of a plan that can race.
        grown: Called with the new plan after a round was added, before any of it is trained.
    """

    def __init__(
        self,
        searching: Searching,
        plan: Plan,
        race: RaceSchedule,
        entrants: Callable[[Plan], Mapping[Data, Mapping[str, Entrant]]],
        grown: Callable[[Plan], None],
    ) -> None:
        self.plan = plan
        self.n_parallel = race.n_parallel
        self._searching = searching
        self._race = race
        self._entrants = entrants
        assert searching.config.race is not None
        self._rule = searching.config.race
        self._grown = grown

    @property
    def all_given(self) -> bool:
        """Whether all rounds were proposed, and all their finalists given out."""
        return self._searching.is_complete and self._race.all_given

    def next(self) -> Step | None:
        """Returns a step of the current round; proposes the next round once its finalists are trained."""
        while (step := self._race.next()) is None and self._race.is_over and not self._searching.is_complete:
            more = self._searching.next_round(self._values_mm())
            self.plan = self.plan.with_more(more)
            ((_, entrants),) = self._entrants(more).items()  # a search has one validation set
            self._race.add(entrants, self._rule, {trial.id: trial for trial in more.trials}, more.statuses)
            self._grown(self.plan)
            self._race.decide()  # the round may already be trained
        return step

    def ended(self, report: TrialReport) -> None:
        """A step ended."""
        self._race.ended(report)

    def n_epochs_in_vain(self) -> int:
        """Returns how many epochs were trained ahead for combinations that were then dropped."""
        return self._race.n_epochs_in_vain()

    def _values_mm(self) -> dict[str, float | None]:
        """Returns for each trial, by id, the error of its combination, mm; None if the combination diverged."""
        return {
            f"{combination.key}/{repetition}": value_mm
            for entrant, value_mm in self._race.results_mm()
            for combination in entrant.trained
            for repetition in range(self._race.n_repetitions)
        }
