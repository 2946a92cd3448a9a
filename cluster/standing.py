"""How far an experiment has got: what earlier runs trained, and what a race has decided."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from cluster.other_versions import version_warnings
from cluster.planning.inputs import Inputs
from cluster.planning.longer_training import with_shorter
from cluster.planning.plan import Plan, fewer_collections
from cluster.planning.search_space import SearchSpace
from cluster.racing.decision_file import read_decisions
from cluster.schedules.brackets import Bracket, entrants_of
from cluster.schedules.decision_checks import RaceError
from cluster.schedules.planned_brackets import open_brackets
from cluster.schedules.race_plan import dropped_trials, n_epochs_left, race_texts, race_warnings
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder
from cluster.storage.kept_trials import kept_trials
from cluster.storage.trial_file import FINAL, Status, TrialFile
from data_pipeline.words import count


class Standing(NamedTuple):
    """How far an experiment has got.

    Attributes:
        plan: The plan with the statuses of its trials, and with warnings about trials that other versions or other code
            trained.
        val_distances_mm: The validation distances of finished trials, mm, by id.
        brackets: The brackets of the race, with the decisions made so far; none without a race.
    """

    plan: Plan
    val_distances_mm: dict[str, float]
    brackets: list[Bracket]

    @classmethod
    @fewer_collections()
    def read(cls, plan: Plan, space: SearchSpace, inputs: Inputs, folder: ExperimentFolder) -> "Standing":
        """Reads what is on disk.

        Args:
            plan: The plan without statuses.
            space: The base settings and options.
            inputs: Must have read all data of the plan.
            folder: The experiment's folder.

        Raises:
            RaceError: If decisions of a race are broken or contradict each other.
            StorageError: If files cannot be read.
        """
        brackets = _brackets(plan, space, inputs, folder)
        keys = {combination.key for combination in plan.combinations}

        def is_planned(trial_id: str) -> bool:
            return trial_id.partition("/")[0] in keys

        def wanted(trial: TrialFile) -> _Known:
            changed = (name for name, code in trial.sources.items() if plan.sources.get(name, code) != code)
            return _Known(trial.status, trial.epochs, trial.val_distance_mm, trial.runs, tuple(changed))

        found = folder.read_trials(wanted, is_planned, is_described=False)
        planned = {trial_id: known for trial_id, known in found.items() if is_planned(trial_id)}
        plan = replace(plan, statuses={trial_id: known.status for trial_id, known in planned.items()})
        if brackets:
            ended = {trial_id for trial_id, known in planned.items() if known.status in FINAL}
            plan = replace(plan, dropped=dropped_trials(brackets), races=race_texts(brackets, ended))
        others = found.keys() - planned.keys()
        kept = kept_trials(folder, others) if others and plan.to_train else []
        plan = with_shorter(plan, kept, lambda trial_id: folder.trial(trial_id).has(FileNames.STATE))
        epochs_done = {trial.id: trial.shorter[0].epochs for trial in plan.trials if trial.shorter}
        epochs_done |= {i: known.epochs for i, known in planned.items() if known.status == "interrupted"}
        warnings = version_warnings(folder, plan, {i: known.runs for i, known in planned.items()}, kept)
        still_valid = [known for known in planned.values() if known.status in (*FINAL, "interrupted")]
        changed = Counter(chain.from_iterable(known.changed for known in still_valid))
        warnings += [_changed_code(name, n) for name, n in changed.items()]
        warnings += race_warnings(brackets, space, inputs)
        plan = replace(plan, warnings=[*plan.warnings, *warnings], epochs_done=epochs_done)
        if brackets:
            trained = {i: known.epochs for i, known in planned.items() if known.status in FINAL} | epochs_done
            n_left = n_epochs_left(brackets, trained, n_not_proposed=plan.n_not_proposed)
            plan = replace(plan, n_epochs_of_races=n_left)
        distances_mm = {i: known.val_distance_mm for i, known in planned.items() if known.val_distance_mm is not None}
        return cls(plan, distances_mm, brackets)


class _Known(NamedTuple):
    """What is known about a planned trial before a run; `changed` names the user's classes whose code has changed."""

    status: Status
    epochs: int
    val_distance_mm: float | None
    runs: Sequence[str]
    changed: Sequence[str]


def _brackets(plan: Plan, space: SearchSpace, inputs: Inputs, folder: ExperimentFolder) -> list[Bracket]:
    """Returns the brackets of the race, with the decisions made so far; none without a race."""
    config = space.base.experiment
    if config.race is None:
        return []
    decisions, problems = read_decisions(folder.storage)
    if problems:
        path, _, problem = problems[0].partition(": ")
        raise RaceError.of(path.partition("/")[2], problem)
    entrants = entrants_of(plan.combinations, space, inputs)
    round_size = None if config.search is None else config.search.round_size
    return open_brackets(entrants, decisions, config.race, config.n_repetitions, round_size)


def _changed_code(name: str, n_trials: int) -> str:
    trials = f"{count(n_trials, 'trial')} {'was' if n_trials == 1 else 'were'}"
    return (
        f"the code of {name} has changed since {trials} trained with it; what they trained is kept and not trained "
        "again. If the change changes numbers, give the experiment another name, or remove it with posetune report rm"
    )
