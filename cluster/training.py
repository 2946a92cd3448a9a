"""The training of a run, from reading what is on disk to the end of its last trial."""

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from cluster.executors.executor import Executor, RunEnd, import_ahead
from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.progress import Progress
from cluster.experiment_files import remove_surplus_states, write_description, write_experiment_file
from cluster.planning.inputs import Inputs
from cluster.planning.plan import Plan
from cluster.racing.decision_file import DecisionFile
from cluster.schedules.brackets import Bracket, Data, Entrant, entrants_of
from cluster.schedules.planned_brackets import stands_for
from cluster.schedules.race_plan import decision_text, dropped_trials, n_epochs_left, standing_text
from cluster.schedules.race_schedule import RaceSchedule
from cluster.schedules.raced_search import RacedSearchSchedule
from cluster.schedules.schedule import GridSchedule, Schedule
from cluster.schedules.search_schedule import Searching, SearchSchedule
from cluster.standing import Standing
from cluster.storage.archive import Archiver
from cluster.storage.trial_file import FINAL
from data_pipeline.words import count, say

LIBRARIES_OF_THE_REPORT = (
    *("matplotlib.figure", "matplotlib.style", "matplotlib.backends.backend_svg", "mpl_toolkits.mplot3d"),
    *("scipy.special", "_strptime", "pandas"),
)
"""What the report imports when it needs it. A run imports it during the training, since that takes most of a second.

Nothing of PoseTune needs pandas, but pyarrow imports it where it is installed.
"""


@dataclass(frozen=True)
class Training:
    """The training of a run, which holds the lock of its experiment.

    Attributes:
        job: The objects of the experiment.
        inputs: Has read all data of the plan.
        searching: The rounds of the search; None for a grid.
        check_lock: Raises an error if this process has lost the lock.
    """

    job: Job
    inputs: Inputs
    searching: Searching | None
    check_lock: Callable[[], None]

    def run(self, plan: Plan, executor: Executor) -> tuple[RunEnd, Plan]:
        """Trains all trials that are not finished.

        Args:
            plan: The plan without statuses.
            executor: Trains them.

        Returns:
            How the run ended, and the plan with statuses and with all that a search has proposed.
        """
        folder, searching = self.job.folder, self.searching
        # Read under the lock: no other run changes them now.
        plan = plan if searching is None else searching.plan(plan)
        standing = Standing.read(plan, self.job.space, self.inputs, folder)
        plan = standing.plan
        archived = folder.archive.clear_leftovers()
        ended = [i for i, status in plan.statuses.items() if status in FINAL]
        to_archive = [trial_id for trial_id in ended if trial_id not in archived]
        any_left = bool(plan.to_train) or (searching is not None and not searching.is_complete)
        with executor.ready(self.job.config) if any_left else nullcontext():
            folder.clear_partial_files()
            if searching is not None:
                searching.write()
            write_experiment_file(plan, self.job, stands_for(standing.brackets))
            with Archiver(folder.archive, to_archive) as archiver:
                say(plan, sys.stderr)
                if any_left:
                    return self._train(standing, executor, archiver)
                self._decide_begun_races(standing)
                return RunEnd("complete"), plan

    def _decide_begun_races(self, standing: Standing) -> None:
        """Ends the races that have begun, whatever trained their trials; of a finished grid, none begins."""
        begun = {bracket.data for bracket in standing.brackets if bracket.decisions}
        if begun:
            raced = [bracket for bracket in standing.brackets if bracket.data in begun]
            trials = {trial.id: trial for trial in standing.plan.trials}
            RaceSchedule(raced, trials, standing.plan.statuses, self.job.folder).decide()

    def _train(self, standing: Standing, executor: Executor, archiver: Archiver) -> tuple[RunEnd, Plan]:
        plan = standing.plan
        progress = Progress.of(plan, self.job.space, standing.val_distances_mm)
        monitor = Monitor(
            progress,
            self.job.config.stop_if_all_fail,
            archiver,
            plan.failed_before,
            check_lock=self.check_lock,
            at_first_report=partial(import_ahead, *LIBRARIES_OF_THE_REPORT),
        )
        with progress:
            schedule = self._schedule(plan, standing.brackets, progress)
            end = executor.train(schedule, self.job, monitor)
        if end.kind == "complete" and isinstance(schedule, RaceSchedule | RacedSearchSchedule):
            n = schedule.n_epochs_in_vain()
            if n:
                text = "beyond their last rung, in vain: ahead of a decision, or before the race"
                say(f"dropped combinations were trained for {count(n, 'epoch')} {text}", sys.stderr)
        plan = schedule.plan if isinstance(schedule, SearchSchedule | RacedSearchSchedule) else plan
        self.check_lock()  # a process that lost the lock must not write
        remove_surplus_states(plan, monitor.outcomes, self.job)
        if end.kind != "complete":
            archiver.stop()
        return end, plan

    def _schedule(self, plan: Plan, brackets: list[Bracket], progress: Progress) -> Schedule:
        """Returns the schedule of the run; decisions and new rounds appear in the display."""
        space, searching = self.job.space, self.searching
        n_not_proposed = plan.n_not_proposed

        def options(entrant: Entrant) -> str:
            return progress.options(f"{entrant.trained[0].key}/0", without_folds=True)

        def n_left() -> int:
            trained = {**plan.epochs_done, **race.trained}
            return n_epochs_left(brackets, trained, n_not_proposed=n_not_proposed)

        def grown(plan: Plan) -> None:
            nonlocal n_not_proposed
            n_not_proposed = plan.n_not_proposed
            write_description(plan, self.job)
            progress.grown(plan, space)
            if brackets:
                progress.race = standing_text(brackets, options)
                progress.n_epochs = progress.n_epochs_of_ended + n_left()

        if self.job.config.race is None:
            return GridSchedule(plan.to_train) if searching is None else SearchSchedule(searching, plan, grown)

        def decided(bracket: Bracket, decision: DecisionFile) -> None:
            entrant = bracket.entrants.get(decision.leader.key) or bracket.guests[decision.leader.key]
            dropped = dropped_trials(brackets).difference(plan.dropped)
            text = decision_text(decision, options(entrant))
            progress.decided(text, standing_text(brackets, options), n_left(), dropped)

        trials = {trial.id: trial for trial in plan.trials}
        race = RaceSchedule(brackets, trials, plan.statuses, self.job.folder, decided)
        progress.race = standing_text(brackets, options)
        if searching is None:
            return race

        def entrants(plan: Plan) -> Mapping[Data, Mapping[str, Entrant]]:
            return entrants_of(plan.combinations, space, self.inputs)

        return RacedSearchSchedule(searching, plan, race, entrants, grown)
