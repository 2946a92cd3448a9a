"""A race without training: simulated workers take made-up times and write made-up errors, in a random order."""

import heapq
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.planning.identity import digest
from cluster.planning.plan import Combination, TrialSpec
from cluster.racing.decision_file import DecisionFile, read_decisions
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.schedules.brackets import Bracket, Data, Entrant
from cluster.schedules.planned_brackets import open_brackets
from cluster.schedules.race_schedule import RaceSchedule
from cluster.schedules.schedule import Step
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.records import to_parquet
from cluster.storage.trial_file import Status
from cluster.trial.trainable import TrialReport
from data_pipeline.subsets import MEAN_SUBSET
from posenet.record import Record

DATA = Data("val", None)


def entrant(name: str, num_epochs: int, n_folds: int = 1) -> Entrant:
    """A combination; those with the same name are the same training, except for its length."""
    trained = []
    for fold in range(n_folds):
        encoded = json.dumps({"name": f"{name}-{fold}", "schedule": {"num_epochs": num_epochs}})
        trained.append(Combination(digest(encoded), (), {}, encoded))
    key = trained[0].key if n_folds == 1 else digest("/".join(one.key for one in trained))
    return Entrant(key, num_epochs, trained, [100 * (fold + 1) for fold in range(n_folds)])


def entrants(n: int, num_epochs: int | Sequence[int] = 27, n_folds: int = 1, start: int = 0) -> dict[str, Entrant]:
    """`n` combinations by key, numbered from `start`; they take turns in the numbers of epochs."""
    lengths = [num_epochs] if isinstance(num_epochs, int) else num_epochs
    made = [entrant(f"c{i}", lengths[i % len(lengths)], n_folds) for i in range(start, start + n)]
    return {one.key: one for one in made}


def made_up_curve(trial_id: str, n_epochs: int) -> list[float]:
    """The validation error after each epoch, mm: it depends on the combination, is noisy, and may also rise."""
    key, _, repetition = trial_id.partition("/")
    of_key, noise = random.Random(key), random.Random(f"noise {trial_id}")
    quality, speed = 10 + 3 * of_key.random(), 1 + 9 * of_key.random()
    shift = random.Random(f"repetition {repetition}").gauss(0, 0.2)
    return [quality + shift + 10 / (1 + speed * epoch) + noise.gauss(0, 0.1) for epoch in range(1, n_epochs + 1)]


class _KilledError(Exception):
    """The driver was killed."""


THIRDS = SuccessiveHalving(reduction_factor=3)
"""One in three combinations stays."""


@dataclass
class SimulatedRace:
    """A race, its folder, and how far its trials got.

    Attributes:
        root: The folder of the experiment.
        planned: For each validation data, the combinations by key.
        n_repetitions: The planned repetitions.
        rule: The rule.
        curve: Returns the validation error of a trial after each epoch, mm, given its id and a number of epochs.
        diverges_at: The epoch in which a trial diverges, by id.
        fails_at: The epoch in which a trial fails, by id; it fails only once, and then starts over.
    """

    root: Path
    planned: Mapping[Data, Mapping[str, Entrant]]
    n_repetitions: int = 2
    rule: SuccessiveHalving = THIRDS
    curve: Callable[[str, int], list[float]] = made_up_curve
    diverges_at: Mapping[str, int] = field(default_factory=dict)
    fails_at: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    trained: list[tuple[str, int, int]] = field(default_factory=list)
    """Each part of a training: the trial, and its epochs before and after."""

    def __post_init__(self) -> None:
        self.folder = ExperimentFolder(Storage(self.root))
        self.num_epochs: dict[str, int] = {}  # by the key of a trained combination
        self.n_decisions = math.inf

    def brackets(self) -> list[Bracket]:
        """The brackets as a new run finds them."""
        decisions, problems = read_decisions(self.folder.storage)
        assert problems == []
        return open_brackets(self.planned, decisions, self.rule, self.n_repetitions)

    def schedule(self) -> RaceSchedule:
        """The schedule of a new run."""
        every = (entrant for of_data in self.planned.values() for entrant in of_data.values())
        combinations = [(one, entrant.num_epochs) for entrant in every for one in entrant.trained]
        self.num_epochs = {one.key: num_epochs for one, num_epochs in combinations}
        trials = [TrialSpec(one, repetition, 0) for repetition in range(self.n_repetitions) for one, _ in combinations]
        known = {trial.id for trial in trials}
        statuses = {trial_id: status for trial_id, status in self.statuses.items() if trial_id in known}
        return RaceSchedule(
            self.brackets(), {trial.id: trial for trial in trials}, statuses, self.folder, self._decided
        )

    def _decided(self, bracket: Bracket, decision: DecisionFile) -> None:
        if len(self.decisions()) >= self.n_decisions:
            raise _KilledError

    def run(
        self,
        n_workers: int = 1,
        seed: int = 0,
        *,
        seconds: Callable[[str], float] | None = None,
        stop_after: float = math.inf,
        n_decisions: float = math.inf,
    ) -> RaceSchedule:
        """Runs until nothing is left to train, or until all processes are killed.

        Args:
            n_workers: How many trials run at a time.
            seed: Draws the times that epochs take, and how far killed trials get.
            seconds: Returns how long an epoch of a trial takes; random by default.
            stop_after: After how many steps they are killed.
            n_decisions: With how many decisions on disk they are killed.
        """
        rng = random.Random(seed)
        self.n_decisions = n_decisions
        schedule = self.schedule()
        running: list[tuple[float, int, Step]] = []
        now, n_started, n_ended, is_asked = 0.0, 0, 0, True
        while n_ended < stop_after:
            # Ray's executor does not ask again once everything was given out.
            while (is_asked := is_asked and not schedule.all_given) and len(running) < n_workers:
                try:
                    step = schedule.next()
                except _KilledError:
                    stop_after = 0
                    break
                if step is None:
                    break
                assert step.trial.id not in {other.trial.id for _, _, other in running}, "a trial is given twice"
                assert self.statuses.get(step.trial.id) not in ("finished", "diverged"), "an ended trial is given"
                self.statuses[step.trial.id] = "interrupted"
                n_epochs = self._end_of(step) - self.epochs.get(step.trial.id, 0)
                of_epoch = rng.uniform(0.5, 2) if seconds is None else seconds(step.trial.id)
                heapq.heappush(running, (now + of_epoch * max(n_epochs, 0.01), n_started, step))
                n_started += 1
            if not running or not stop_after:
                break
            now, _, step = heapq.heappop(running)
            schedule.ended(self._train(step))
            n_ended += 1
        self.n_running = len(running)
        for _, _, step in running:
            trial_id, begin = step.trial.id, self.epochs.get(step.trial.id, 0)
            end = min(self._end_of(step), self.diverges_at.get(trial_id, math.inf) - 1)
            self._train_until(trial_id, rng.randint(begin, max(begin, int(end))))
        self.seconds = now
        return schedule

    def _end_of(self, step: Step) -> int:
        ends = [self.num_epochs[step.trial.key]] if step.until is None else [step.until]
        ends += [events[step.trial.id] for events in (self.diverges_at, self.fails_at) if step.trial.id in events]
        return max(min(ends), self.epochs.get(step.trial.id, 0))

    def _train(self, step: Step) -> TrialReport:
        trial_id, end = step.trial.id, self._end_of(step)
        if end == self.fails_at.get(trial_id):
            del self.fails_at[trial_id]
            self._train_until(trial_id, end)
            self.epochs[trial_id] = 0  # without a checkpoint
            return self._ended(trial_id, "failed", end)
        if end == self.diverges_at.get(trial_id):
            self._train_until(trial_id, end - 1)
            return self._ended(trial_id, "diverged", end - 1)
        self._train_until(trial_id, end)
        if step.until is None or end == self.num_epochs[step.trial.key]:
            return self._ended(trial_id, "finished", end)
        return TrialReport(trial_id, "paused", end)

    def _train_until(self, trial_id: str, epoch: int) -> None:
        before = self.epochs.get(trial_id, 0)
        if epoch > before:
            self.trained.append((trial_id, before, epoch))
            self.epochs[trial_id] = epoch
        rows = [
            Record(at, 7, "val", MEAN_SUBSET, "original", "distance", value)
            for at, value in enumerate(self.curve(trial_id, self.epochs.get(trial_id, 0)), 1)
        ]
        self.folder.trial(trial_id).write(FileNames.RECORDS, to_parquet(trial_id, rows))

    def _ended(self, trial_id: str, status: Status, epoch: int) -> TrialReport:
        self.statuses[trial_id] = status
        return TrialReport(trial_id, status, epoch)

    def decisions(self) -> dict[str, bytes]:
        """The content of each file of `race/`."""
        folder = self.root / FileNames.RACE_FOLDER
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def with_status(self, status: Status) -> set[str]:
        """The ids of the trials with a status."""
        return {trial_id for trial_id, of_trial in self.statuses.items() if of_trial == status}
