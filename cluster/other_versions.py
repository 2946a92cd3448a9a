"""Says before a training which kept trials it would mix with those of this version, and which it would train again."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.planning.plan import Plan
from cluster.provenance import current_versions
from cluster.storage.folders import ExperimentFolder
from cluster.storage.kept_trials import KeptTrial
from cluster.storage.run_file import RunFile, different_origins
from data_pipeline.words import count


def version_warnings(
    folder: ExperimentFolder, plan: Plan, run_ids: Mapping[str, Sequence[str]], kept: Sequence[KeptTrial]
) -> list[str]:
    """Returns warnings about trials of other versions; none if nothing is to be trained.

    Args:
        folder: The experiment's folder.
        plan: The plan with its statuses.
        run_ids: The ids of the runs that trained each planned trial, by its id.
        kept: The finished trials in the folder that are not planned.
    """
    if not plan.to_train or not (run_ids or kept):
        return []
    runs = folder.read_runs()
    return [*_mixed(runs, plan, run_ids), *_trained_again(runs, plan, kept)]


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


def _trained_again(runs: Mapping[str, RunFile], plan: Plan, kept: Sequence[KeptTrial]) -> list[str]:
    """Warns of finished trials that differ from planned ones only in what a version decides."""
    pending = {trial.id for trial in plan.to_train if trial.id not in plan.statuses}
    planned = {_text(trial.combination.options): trial.combination for trial in plan.trials if trial.id in pending}
    is_same: dict[tuple[str, str], bool] = {}  # repetitions have the same description

    def is_trained_again(trial: KeptTrial) -> bool:
        combination, (key, _, repetition) = planned.get(_text(trial.options)), trial.trial_id.partition("/")
        if combination is None or f"{combination.key}/{repetition}" not in pending:
            return False
        pair = key, combination.key
        if pair not in is_same:
            is_same[pair] = _same_but_for_version(trial.description, json.loads(combination.encoded))
        return is_same[pair]

    found = [trial.runs for trial in kept if is_trained_again(trial)]
    of_run = {run_id: f"PoseTune {version}" for run_id, run in runs.items() if (version := run.origin.get("PoseTune"))}
    versions = Counter(of_run.get(ids[-1] if ids else "", "an unrecorded version") for ids in found)
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
