"""Says before a training which kept trials it would mix with those of this version, and which it would train again."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cluster.planning.plan import Plan
from cluster.provenance import current_versions
from cluster.storage.folders import ExperimentFolder
from cluster.storage.run_file import RunFile, different_origins
from cluster.storage.trial_file import TrialFile
from data_pipeline.words import count


def version_warnings(
    folder: ExperimentFolder, plan: Plan, run_ids: Mapping[str, Sequence[str]], others: Collection[str]
) -> list[str]:
    """Returns warnings about trials of other versions; none if nothing is to be trained.

    Args:
        folder: The experiment's folder.
        plan: The plan with its statuses.
        run_ids: The ids of the runs that trained each planned trial, by its id.
        others: The trials in the folder that are not planned.
    """
    if not plan.to_train or not (run_ids or others):
        return []
    runs = folder.read_runs()
    return [*_mixed(runs, plan, run_ids), *_trained_again(folder, runs, plan, others)]


def _mixed(runs: Mapping[str, RunFile], plan: Plan, run_ids: Mapping[str, Sequence[str]]) -> list[str]:
    """Warns of trials that are kept or continued, although other versions trained them."""
    kept = [trial.id for trial in plan.trials if plan.statuses.get(trial.id) in ("finished", "interrupted")]
    counts = Counter(tuple(run_ids[trial_id]) for trial_id in kept)
    if not counts:
        return []
    now = current_versions()
    known = {ids: [runs[run_id] for run_id in ids if run_id in runs] for ids in counts}
    others = [ids for ids in counts if different_origins([*known[ids], now])]
    if not others:
        return []
    n = sum(counts[ids] for ids in others)
    different = different_origins([*(run for ids in others for run in known[ids]), now])
    return [
        f"{count(n, 'trial')} {'was' if n == 1 else 'were'} trained with other versions, and what is trained now would "
        f"be mixed with {'it' if n == 1 else 'them'} ({different}); the tables will say so"
    ]


def _trained_again(
    folder: ExperimentFolder, runs: Mapping[str, RunFile], plan: Plan, others: Collection[str]
) -> list[str]:
    """Warns of finished trials that differ from planned ones only in what a version decides."""
    pending = {trial.id for trial in plan.to_train if trial.id not in plan.statuses}
    planned = {_text(trial.combination.options): trial.combination for trial in plan.trials if trial.id in pending}
    if not others or not planned:
        return []
    is_same: dict[tuple[str | None, str], bool] = {}  # repetitions have the same description

    def runs_if_again(trial: TrialFile) -> tuple[str, ...] | None:
        combination = planned.get(_text(trial.options))
        if combination is None or trial.status != "finished" or f"{combination.key}/{trial.repetition}" not in pending:
            return None
        pair = trial.key, combination.key
        if pair not in is_same:
            is_same[pair] = _same_but_for_version(trial.description, json.loads(combination.encoded))
        return tuple(trial.runs) if is_same[pair] else None

    found = folder.read_trials(runs_if_again, set(others).__contains__).values()
    of_run = {run_id: f"PoseTune {version}" for run_id, run in runs.items() if (version := run.origin.get("PoseTune"))}
    versions = Counter(of_run.get(ids[-1] if ids else "", "an unrecorded version") for ids in found if ids is not None)
    return [
        f"{count(n, 'trial')} from {version} {'is' if n == 1 else 'are'} kept but not shown; "
        f"{'it' if n == 1 else 'they'} would be trained again"
        for version, n in versions.items()
    ]


def _same_but_for_version(then: Any, now: Any, place: str = "") -> bool:
    """Returns whether two descriptions differ only in arguments that one lacks, and in the number of the numerics."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        if place != "args" and then.keys() != now.keys():
            return False
        names = [name for name in then.keys() & now.keys() if (place, name) != ("schedule", "numerics")]
        return all(_same_but_for_version(then[name], now[name], name) for name in names)
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(_same_but_for_version, then, now))
    return bool(then == now)


def _text(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)
