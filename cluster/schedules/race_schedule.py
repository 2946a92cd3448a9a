"""Trains a race rung by rung, with the same decisions on any number of devices."""

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cluster.planning.plan import TrialSpec
from cluster.racing.decision_file import DecisionFile, write_decision
from cluster.racing.successive_halving import Rung, SuccessiveHalving
from cluster.results.learning_curves import Curve, Numbers, read_curve, read_logged
from cluster.schedules.brackets import Bracket, Entrant
from cluster.schedules.decision_checks import check_values
from cluster.schedules.planned_brackets import add_round
from cluster.schedules.schedule import Step
from cluster.storage.filesystem import StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import FINAL, Status
from cluster.trial.trainable import TrialReport


@dataclass
class _Present:
    """The current rung of a bracket.

    Attributes:
        rung: The rung.
        competing: The combinations that compete at it, by key, as far as they are known.
        own: Those that are not guests.
        missing: The epoch of the rung for each trial that has not reached it, by id.
        ranked: The mean error (mm) and the key of each combination that has reached it, the best first.
    """

    rung: Rung
    competing: Mapping[str, Entrant]
    own: Mapping[str, Entrant]
    missing: dict[str, int] = field(default_factory=dict)
    ranked: list[tuple[float, str]] = field(default_factory=list)


class RaceSchedule:
    """Trains the combinations of brackets as far as decisions allow, and makes and writes these decisions.

    A rung is decided once each of its trials has reached it or diverged. Devices that would otherwise wait for the last
    trials continue those of combinations that are certain to stay, and then train ahead those that are likely to.

    Args:
        brackets: The brackets, at least one; all are of the same plan.
        trials: All trials of the plan, by id.
        statuses: The status of each trial that was started, by id.
        folder: The experiment's folder. It contains the trials' records; the decisions are written to it.
        decided: Called after each decision, before anything that follows from it is trained.

    Raises:
        RaceError: If an earlier decision does not match what is on disk.
        StorageError: If files cannot be read or written.
    """

    def __init__(
        self,
        brackets: list[Bracket],
        trials: Mapping[str, TrialSpec],
        statuses: Mapping[str, Status],
        folder: ExperimentFolder,
        decided: Callable[[Bracket, DecisionFile], None] = lambda bracket, decision: None,
    ) -> None:
        self.brackets = brackets
        self.n_repetitions = brackets[0].n_planned
        self.n_of_finalists = brackets[0].n_of_finalists
        self.n_parallel = len(trials)
        self._trials = dict(trials)
        self._folder = folder
        self._decided = decided
        self._errors = _Errors(folder)
        self._errors.read_all({i: status for i, status in statuses.items() if i in trials})
        self._over = {trial_id for trial_id, status in statuses.items() if status in FINAL}
        self._failed: set[str] = set()  # in this run; the next one trains them again
        self._running: dict[str, Step] = {}  # by trial id
        self._ended: list[TrialReport] = []  # since the last call of `next`
        self._waiting: deque[Step] = deque()
        self._targets: dict[str, int | None] = {}  # the epoch up to which each trial is needed; None for its end
        self._keys: dict[str, str] = {}  # of combinations, by trial id
        for bracket in brackets:
            self._add_keys(bracket)
        self._steps_ahead: Iterator[Step] | None = None  # None if they must be found again
        for bracket in brackets:
            self._check(bracket)
        self._present = [self._enter(bracket) for bracket in brackets]
        self._has_begun = False  # nothing is decided before the first step is asked for

    def add(
        self,
        entrants: Mapping[str, Entrant],
        rule: SuccessiveHalving,
        trials: Mapping[str, TrialSpec],
        statuses: Mapping[str, Status],
    ) -> None:
        """Adds a round of a search, as a bracket; decisions that follow at once are left to `decide`.

        Decisions that an earlier plan made about these combinations remain valid.

        Args:
            entrants: The combinations of the round, by key, for the same validation data as all others.
            rule: The rule of the race.
            trials: Their trials, by id.
            statuses: The status of each of these trials that was started, by id.
        """
        add_round(self.brackets, self.brackets[0].data, entrants, rule, self.n_repetitions)
        self._trials |= trials
        self._errors.read_all(statuses)
        self._over |= {trial_id for trial_id, status in statuses.items() if status in FINAL}
        self._steps_ahead = None
        for place, bracket in enumerate(self.brackets):
            if place == len(self._present) or not entrants.keys().isdisjoint(bracket.entrants):
                self._add_keys(bracket)
                self._check(bracket)
                self._present[place : place + 1] = [self._enter(bracket)]  # replaces it, or appends it

    def _check(self, bracket: Bracket) -> None:
        for decision in bracket.decisions:
            check_values(decision, self._on_disk(decision))

    def _add_keys(self, bracket: Bracket) -> None:
        for key, entrant in bracket.entrants.items():
            for repetition in range(self.n_of_finalists):
                self._keys |= dict.fromkeys(_ids(entrant, repetition), key)

    @property
    def is_over(self) -> bool:
        """Whether all finalists are known and trained."""
        if self._waiting or self._running or self._ended or any(present.missing for present in self._present):
            return False
        return all(bracket.is_decided for bracket in self.brackets)

    @property
    def trained(self) -> dict[str, int]:
        """How many epochs of each trial are on disk, by id."""
        return {trial_id: n for trial_id in self._trials if (n := self._errors.n_epochs(trial_id))}

    def results_mm(self) -> Iterator[tuple[Entrant, float | None]]:
        """Yields the mean error of each combination, mm: of finalists at the end, of others at the last rung reached.

        The error is None if a repetition diverged.

        Raises:
            StorageError: If the records of a finished trial were removed or damaged.
        """
        for bracket in self.brackets:
            last = {c.key: c.mean_mm for decision in bracket.decisions for c in decision.combinations}
            competing = bracket.own_competing
            for key, entrant in bracket.entrants.items():
                if key in competing:
                    values = self._values(entrant, bracket.rungs[-1])
                    if None in values:
                        lost = (i for r in range(len(values)) for i in _ids(entrant, r))
                        raise self._without_records(
                            next(i for i in lost if self._errors.at(i, entrant.num_epochs) is None)
                        )
                    mean = math.fsum(_known(values)) / len(values)
                else:
                    mean = last[key]
                yield entrant, mean if math.isfinite(mean) else None

    @property
    def all_given(self) -> bool:
        """Whether all finalists are known and have been given out."""
        if self._waiting or self._ended or any(self._goes_on(step) for step in self._running.values()):
            return False
        return all(bracket.is_decided for bracket in self.brackets)

    def next(self) -> Step | None:
        """Returns the next step of a rung, or one beyond it if the rung has none left.

        Raises:
            StorageError: If records cannot be read, or a decision cannot be written.
        """
        if self._ended or not self._has_begun:
            self._has_begun = True
            self._steps_ahead = None
            self._read_ended()
            self.decide()
        while self._waiting:
            step = self._waiting.popleft()
            if self._can_start(step):
                return self._given(step)
        if self._steps_ahead is None:
            self._steps_ahead = filter(self._can_start, self._ahead())
        ahead = next(self._steps_ahead, None)
        return None if ahead is None else self._given(ahead)

    def ended(self, report: TrialReport) -> None:
        """A step ended."""
        self._ended.append(report)
        self._running.pop(report.trial_id, None)

    def n_epochs_in_vain(self) -> int:
        """Returns how many epochs were trained ahead for combinations that were then dropped."""
        self._read_ended()
        n = 0
        for bracket in self.brackets:
            for decision in bracket.decisions:
                for dropped in decision.combinations:
                    if dropped.stays or dropped.key not in bracket.entrants:
                        continue
                    for repetition in range(self.n_of_finalists):
                        counted = dropped.epoch if repetition < len(dropped.values) else 0
                        ids = _ids(bracket.entrants[dropped.key], repetition)
                        n += sum(max(0, self._errors.n_epochs(i) - counted) for i in ids if i not in self._over)
        return n

    def _given(self, step: Step) -> Step:
        self._running[step.trial.id] = step
        return step

    def _goes_on(self, step: Step) -> bool:
        """Whether a trial continues after a step: its target may have been raised while it was trained ahead."""
        target = self._targets.get(step.trial.id, 0)
        return step.until is not None and (target is None or target > step.until)

    def _can_start(self, step: Step) -> bool:
        trial_id = step.trial.id
        if trial_id in self._over or trial_id in self._failed or trial_id in self._running:
            return False
        return step.until is None or self._errors.n_epochs(trial_id) < step.until

    def _read_ended(self) -> None:
        """Processes the reports of the steps that have ended since the last call."""
        reports, self._ended = self._ended, []
        for report in reports:
            if report.status in FINAL:
                self._over.add(report.trial_id)
            if report.status == "failed":
                self._failed.add(report.trial_id)
        self._errors.read(reports)
        for trial_id in [report.trial_id for report in reports if report.status in ("paused", *FINAL)]:
            for present in self._present:
                epoch = present.missing.get(trial_id)
                if epoch is not None and self._errors.at(trial_id, epoch) is not None:
                    del present.missing[trial_id]
                    self._rank(present, self._keys[trial_id])
            step = Step(self._trials[trial_id], self._targets.get(trial_id, 0))
            if self._can_start(step):  # see `_goes_on`
                self._waiting.appendleft(step)

    def _enter(self, bracket: Bracket) -> _Present:
        """Queues the steps that the current rung of a bracket needs."""
        present = _Present(bracket.rung, bracket.competing, bracket.own_competing)
        is_last = bracket.place == bracket.n_rungs - 1
        for repetition in range(self.n_of_finalists if is_last else self._n_repetitions(present.rung)):
            for key, entrant in present.competing.items():
                epoch = present.rung.epoch(entrant.num_epochs)
                for trial_id in _ids(entrant, repetition):
                    if self._errors.at(trial_id, epoch) is None:
                        if trial_id not in self._over:
                            present.missing[trial_id] = epoch
                        elif not is_last:  # at the last rung only a search needs them
                            raise self._without_records(trial_id)
                    if key in present.own:
                        self._targets[trial_id] = None if is_last else epoch
                        self._waiting.append(Step(self._trials[trial_id], self._targets[trial_id]))
        for key in present.competing:
            self._rank(present, key)
        return present

    def _without_records(self, trial_id: str) -> StorageError:
        return StorageError(
            f"{self._folder.storage.location}: the records of the finished trial {trial_id} were removed or damaged, "
            "but the race needs them. Restore them from a copy, or remove the trial's folder; the next run then trains "
            "it again"
        )

    def _rank(self, present: _Present, key: str) -> None:
        """Ranks a combination among those at the rung once all its repetitions have reached it."""
        values = self._values(present.competing[key], present.rung)
        if None not in values:
            insort(present.ranked, (math.fsum(_known(values)) / len(values), key))

    def _n_repetitions(self, rung: Rung) -> int:
        return min(rung.n_repetitions, self.n_repetitions)

    def decide(self) -> None:
        """Makes all decisions that are due.

        Raises:
            StorageError: If a decision cannot be written.
        """
        has_decided = True
        while has_decided:
            has_decided = False
            for place, bracket in enumerate(self.brackets):
                present = self._present[place]
                if present.missing or bracket.is_decided or not bracket.is_open:
                    continue
                values = {key: self._values(entrant, present.rung) for key, entrant in present.competing.items()}
                decision = bracket.decide({key: _known(of_key) for key, of_key in values.items()})
                write_decision(self._folder.storage, decision)
                bracket.decisions.append(decision)
                self._decided(bracket, decision)
                self._present[place] = self._enter(bracket)
                for later, other in enumerate(self.brackets):
                    if any(bracket is earlier for earlier in other.earlier):
                        self._present[later] = self._enter(other)  # it may have guests now
                has_decided = True

    def _ahead(self) -> Iterator[Step]:
        """Yields steps beyond the rungs, first of combinations that are certain to stay, then of likely ones."""
        likely: list[Step] = []
        for bracket, present in zip(self.brackets, self._present, strict=True):
            if bracket.is_decided:
                continue
            after = bracket.rungs[bracket.place + 1]
            n_best = bracket.race.n_best(len(present.competing))
            n_certain = n_best - (len(present.competing) - len(present.ranked)) if bracket.is_open else 0
            is_waiting = any(trial_id in self._running for trial_id in present.missing)
            before_end = bracket.place + 2 == bracket.n_rungs
            for rank, (mean_mm, key) in enumerate(present.ranked[:n_best]):
                if key not in present.own or math.isinf(mean_mm):
                    continue
                entrant = present.own[key]
                epoch = after.epoch(entrant.num_epochs)
                if rank < n_certain:
                    yield from self._steps(entrant, after, None if before_end else epoch, is_last=before_end)
                elif is_waiting:
                    # Not to the end: there the trial would be evaluated on the test set.
                    likely += self._steps(entrant, after, epoch - before_end)
        yield from likely

    def _steps(self, entrant: Entrant, rung: Rung, until: int | None, *, is_last: bool = False) -> Iterator[Step]:
        for repetition in range(self.n_of_finalists if is_last else self._n_repetitions(rung)):
            for trial_id in _ids(entrant, repetition):
                yield Step(self._trials[trial_id], until)

    def _values(self, entrant: Entrant, rung: Rung) -> list[float | None]:
        """Returns the best error of each repetition up to a rung, mm; None for a repetition that has not reached it."""
        epoch = rung.epoch(entrant.num_epochs)
        return [self._value(entrant, repetition, epoch) for repetition in range(self._n_repetitions(rung))]

    def _value(self, entrant: Entrant, repetition: int, epoch: int) -> float | None:
        of_folds = [self._errors.at(trial_id, epoch) for trial_id in _ids(entrant, repetition)]
        return None if None in of_folds else entrant.over_folds(_known(of_folds))

    def _on_disk(self, decision: DecisionFile) -> dict[str, list[float | None]]:
        """Returns the values that a decision is based on as they are on disk now, mm."""
        entrants = {key: entrant for bracket in self.brackets for key, entrant in bracket.entrants.items()}
        n = min(len(decision.leader.values), self.n_repetitions)
        return {
            competitor.key: [self._value(entrants[competitor.key], r, competitor.epoch) for r in range(n)]
            for competitor in decision.combinations
            if competitor.key in entrants
        }


def _ids(entrant: Entrant, repetition: int) -> list[str]:
    """Returns the ids of the trials of a combination's repetition: one for each fold."""
    return [f"{combination.key}/{repetition}" for combination in entrant.trained]


def _known(values: Collection[float | None]) -> list[float]:
    return [value for value in values if value is not None]


class _Errors:
    """The validation errors of trials, read from their records."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self.folder = folder
        self.best_mm: dict[str, Numbers] = {}  # up to each epoch, (E,), by trial id
        self.diverged: set[str] = set()

    def at(self, trial_id: str, epoch: int) -> float | None:
        """Returns a trial's best error up to an epoch, mm: infinite if it diverged, None if it is not that far."""
        if epoch <= self.n_epochs(trial_id):
            return float(self.best_mm[trial_id][epoch - 1])
        return math.inf if trial_id in self.diverged else None

    def n_epochs(self, trial_id: str) -> int:
        """Returns how many epochs of a trial are on disk."""
        return len(self.best_mm.get(trial_id, ()))

    def read_all(self, statuses: Mapping[str, Status]) -> None:
        """Reads what earlier runs trained; `statuses` has the status of each trial that was started, by id.

        Failed trials are trained again, so they have not reached any rung yet.
        """
        started = {trial_id for trial_id, status in statuses.items() if status not in ("pending", "failed")}
        self.diverged |= {trial_id for trial_id, status in statuses.items() if status == "diverged"}
        if started:
            self._add(read_logged(self.folder, split="val", wanted=started.__contains__, is_metric=_no_metric).curves)

    def read(self, reports: Sequence[TrialReport]) -> None:
        """Reads the trials of steps that have ended.

        Raises:
            StorageError: If a trial's records lack an epoch that it has reported.
        """
        self.diverged |= {report.trial_id for report in reports if report.status == "diverged"}
        curves = {report.trial_id: read_curve(self.folder.trial(report.trial_id)) for report in reports}
        self._add({trial_id: curve for trial_id, curve in curves.items() if curve is not None})
        ended = {report.trial_id for report in reports if report.epoch and report.status in FINAL}
        archived = {trial_id for trial_id in ended if curves[trial_id] is None}
        if archived:
            self._add(read_logged(self.folder, split="val", wanted=archived.__contains__, is_metric=_no_metric).curves)
        for report in reports:
            if report.status in ("paused", "finished") and self.n_epochs(report.trial_id) < report.epoch:
                raise StorageError(
                    f"{self.folder.storage.location}: the records of trial {report.trial_id} were removed or damaged "
                    "during the race. Run the script again: it trains what is missing"
                )

    def _add(self, curves: Mapping[str, Curve]) -> None:
        for trial_id, curve in curves.items():
            self.best_mm[trial_id] = np.minimum.accumulate(curve.val_after_epochs_mm)


def _no_metric(name: str) -> bool:
    return False
