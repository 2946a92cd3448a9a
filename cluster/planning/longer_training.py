"""Longer training: a trial continues another one that is the same training with fewer epochs.

The number of epochs is part of a combination's key, because 50 and 100 epochs give different results. But a training
for 100 epochs passes through the state after 50. If the shorter one kept its final state, the longer one can continue
from it, and ends with the same bits as a training from the beginning.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from cluster.planning.identity import Encoded, canonical_json
from cluster.planning.plan import Plan, Shorter, TrialSpec
from cluster.storage.kept_trials import KeptTrial
from data_pipeline.words import count

_EPOCHS = "solver_config.num_epochs"


class _Course(NamedTuple):
    """A training: what each epoch does, as canonical JSON, and how many there are."""

    steps: str
    epochs: int

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "_Course":
        schedule = dict(description["schedule"])
        epochs = schedule.pop("num_epochs")
        return cls(canonical_json({**description, "schedule": schedule}), epochs)


def with_shorter(plan: Plan, kept: Sequence[KeptTrial], has_state: Callable[[str], bool]) -> Plan:
    """Returns the plan with the shorter trials that each trial can continue, sorted so that these come first.

    The plan then also warns of finished trials that it cannot continue.

    Args:
        plan: The plan with its statuses.
        kept: Finished trials on disk that are not in the plan.
        has_state: Returns whether the final state of a finished trial was kept, by the trial's id.
    """
    to_train = {trial.id for trial in plan.to_train}
    if _EPOCHS not in plan.combinations[0].options:
        # All have the same number of epochs. Parsing the encoded settings of many combinations takes long.
        longest = json.loads(plan.combinations[0].encoded)["schedule"]["num_epochs"]
        kept = [trial for trial in kept if _n_epochs(trial.description) < longest]
        if not kept:
            return plan
    if not to_train:
        return plan
    courses = {combination.key: _Course.of(json.loads(combination.encoded)) for combination in plan.combinations}
    lengths: dict[str, dict[int, str]] = defaultdict(dict)  # by steps, the key for each number of epochs
    for key, (steps, epochs) in courses.items():
        lengths[steps][epochs] = key
    others = {trial.trial_id.partition("/")[0]: trial.description for trial in kept}
    for key, description in others.items():
        course = _course_of_another(description)
        if course is not None and course.steps in lengths:
            lengths[course.steps].setdefault(course.epochs, key)
    finished = {trial.trial_id for trial in kept} | {i for i, status in plan.statuses.items() if status == "finished"}
    has_state = cache(has_state)
    without_state = Counter[int]()

    def shorter(trial: TrialSpec) -> tuple[Shorter, ...]:
        steps, own = courses[trial.key]
        found = []
        for epochs in sorted((epochs for epochs in lengths[steps] if epochs < own), reverse=True):
            trial_id = f"{lengths[steps][epochs]}/{trial.repetition}"
            is_trained_first = trial_id in to_train and not plan.races  # a race trains all a little
            if is_trained_first or (trial_id in finished and has_state(trial_id)):
                found.append(Shorter(epochs, trial_id))
            elif trial_id in finished and not found and trial.id not in plan.statuses:  # else it has a checkpoint
                without_state[epochs] += 1
        return tuple(found)

    trials = [replace(trial, shorter=shorter(trial)) if trial.id in to_train else trial for trial in plan.trials]
    prolonged = {other.trial_id for trial in trials for other in trial.shorter}
    trials = [replace(trial, is_prolonged=trial.id in prolonged) for trial in trials]
    trials.sort(key=lambda trial: (trial.repetition, courses[trial.key].epochs))
    warnings = [_without_state(epochs, n) for epochs, n in without_state.items()]
    return replace(plan, trials=trials, warnings=[*plan.warnings, *warnings, *_other_schedules(plan, kept, to_train)])


def _n_epochs(description: Mapping[str, Any]) -> float:
    try:
        return int(description["schedule"]["num_epochs"])
    except (LookupError, TypeError, ValueError):
        return math.inf  # from an edited file


def _course_of_another(description: Mapping[str, Any]) -> _Course | None:
    try:
        course = _Course.of(description)
    except (LookupError, TypeError, ValueError):
        return None  # from an edited file
    return course if isinstance(course.epochs, int) else None


def _without_state(epochs: int, n: int) -> str:
    return (
        f"{count(n, 'trial')} cannot continue from epoch {epochs}, because the shorter trainings did not keep their "
        "final states (experiment_config.keep_state)"
    )


def _other_schedules(plan: Plan, kept: Sequence[KeptTrial], to_train: set[str]) -> list[str]:
    """Warns of finished trials that differ from a planned one in its scheduler's arguments and have fewer epochs."""
    planned = {key: found for c in plan.combinations if (found := _scheduled(json.loads(c.encoded))) for key in [c.key]}
    by_rest = {rest: (key, epochs, arguments) for key, (rest, epochs, arguments) in planned.items()}
    texts = Counter[str]()
    for trial in kept:
        found = _scheduled(trial.description)
        if found is None or found[0] not in by_rest:
            continue
        _, epochs, arguments = found
        key, more_epochs, new = by_rest[found[0]]
        changed = [name for name in new if name in arguments and new[name] != arguments[name]]
        if changed and epochs < more_epochs and f"{key}/{trial.trial_id.partition('/')[2]}" in to_train:
            values = ", ".join(f"scheduler_args.{name} was {arguments[name]} and is {new[name]}" for name in changed)
            texts[f"with {epochs} epochs cannot be continued, because {values}; this is a different training"] += 1
    return [f"{count(n, 'finished trial')} {text}" for text, n in texts.items()]


def _scheduled(description: Mapping[str, Any]) -> tuple[str, int, Mapping[str, Encoded]] | None:
    """Returns a training without epochs and scheduler arguments, then these two; None without a scheduler."""
    try:
        optimisation = description["optimisation"]
        scheduler = optimisation["scheduler"]
        without = {**optimisation, "scheduler": scheduler["name"]}
        course = _Course.of({**description, "optimisation": without})
        return course.steps, course.epochs, dict(scheduler["args"])
    except (LookupError, TypeError, ValueError):
        return None  # without a scheduler, or from an edited file
