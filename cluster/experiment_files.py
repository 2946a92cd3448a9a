"""The files that a run writes and removes next to its trials: `experiment.json`, its own, weights that are not kept."""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np

from cluster.executors.job import Job
from cluster.planning.identity import NotEncodableError, encode
from cluster.planning.plan import Plan
from cluster.provenance import provenance
from cluster.results.results import Results
from cluster.storage.archive import map_files
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.storage.run_file import RunFile
from cluster.storage.trial_file import FINAL
from cluster.trial.trainable import TrialReport
from data_pipeline.pose_range import PoseRange
from data_pipeline.tables import label_keys
from data_pipeline.words import value_text


def write_experiment_file(plan: Plan, job: Job, stands_for: Mapping[str, str]) -> None:
    """Writes `experiment.json`: configs, options, data and plan of a run.

    Next to it are written what produces the trials of this run, if it trains any, and the hashes of the frames of each
    training set.

    Args:
        plan: The plan.
        job: What the run trains, and where.
        stands_for: See `ExperimentFile`.
    """
    earlier: Mapping[str, RunFile] = {}
    with suppress(StorageError):  # a link instead of the file says nothing, and is replaced
        earlier = job.folder.read_run_of_0_4_0()
    for run_id, run in earlier.items():
        job.folder.write_run(run_id, run)  # the file that recorded it is replaced below
    if plan.to_train or plan.n_trials > len(plan.trials):
        job.folder.write_run(job.run_id, provenance())
    for train in {key: job.sets[key] for key, _, _ in job.separations}.values():
        if not job.folder.has_training_frames(train.fingerprint):
            keys = [label_keys(array) for array in (train.labels, *train.poses.values())]
            job.folder.write_training_frames(train.fingerprint, np.unique(np.concatenate(keys)))
    write_description(plan, job, stands_for)


def write_description(plan: Plan, job: Job, stands_for: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes `experiment.json` alone; `stands_for` as for `write_experiment_file`."""
    job.folder.write_experiment(
        {
            "name": job.config.name,
            "configs": {
                section: _encoded_config(config) for section, config in job.space.base.with_derived().sections.items()
            },
            "options": [
                axis.to_json()
                | ({"folds": axis.folds} if axis.folds else {})
                | ({} if axis.given_labels is None else {"labels": axis.given_labels})
                for axis in job.space.axes
            ],
            "data": [
                {
                    **dataclasses.asdict(key),
                    "fingerprint": dataset.fingerprint,
                    "samples": len(dataset),
                    "triples": dataset.frames.n_triples(len(dataset)),
                    "poses": PoseRange.of(dataset.labels, dataset.skeleton).to_json(),
                }
                for key, dataset in job.sets.items()
            ],
            "separations": [
                {"train": [train.name, train.size], split: [tested.name, tested.size], **separation.to_json()}
                for (train, split, tested), separation in job.separations.items()
            ],
            **({} if plan.search is None else {"n_not_proposed": plan.n_not_proposed}),
            "plan": {
                "seeds": [trial.seed for trial in plan.trials[:: len(plan.combinations)]],
                "combinations": [{"key": c.key, "options": c.options} for c in plan.combinations],
            },
        }
        | ({"stands_for": dict(stands_for)} if stands_for else {})
    )


def _encoded_config(config: object) -> dict[str, Any]:
    encoded = {}
    for key, value in vars(config).items():
        try:
            encoded[key] = encode(value)
        except NotEncodableError:
            encoded[key] = value_text(value)  # a base value that an option replaces
    return encoded


def remove_surplus_states(plan: Plan, outcomes: Mapping[str, TrialReport], job: Job) -> None:
    """Removes the final states that only longer trainings of a run needed, once these have ended."""
    if job.config.keep_state == "all":
        return
    ended = {trial_id for trial_id, report in outcomes.items() if report.status in FINAL}
    needed = {shorter.trial_id for trial in plan.to_train if trial.id not in ended for shorter in trial.shorter}
    surplus = [trial.id for trial in plan.trials if trial.is_prolonged and trial.id not in needed]
    map_files(job.folder.storage, job.folder.storage.remove, [FileNames.in_trial(i, FileNames.STATE) for i in surplus])


def remove_surplus_weights(plan: Plan, table: Results, job: Job) -> None:
    """Removes weights and errors of frames that the experiment's `keep_weights` does not keep."""
    keep = job.config.keep_weights
    if keep == "all":
        return
    if keep == "best" and any(row["status"] in ("interrupted", "pending") for row in table.single_folds.trials):
        return  # a trial that is not trained yet may become the best
    kept: set[str] = set()
    if keep == "best":
        # A failed trial is trained again and may make its combination the best.
        failed = {row["key"] for row in table.trials if row["status"] == "failed"}
        kept = _best_by_validation_data(plan, table) | {one for key in failed for one in table.trained_keys(key)}
    storage = job.folder.storage
    existing = {f"{FileNames.TRIALS_FOLDER}/{path}" for path in storage.files(FileNames.TRIALS_FOLDER)}
    surplus_trials = [trial.id for trial in plan.trials if trial.key not in kept]
    names = (FileNames.WEIGHTS, FileNames.FRAMES)
    paths = [FileNames.in_trial(trial_id, name) for trial_id in surplus_trials for name in names]
    map_files(storage, storage.remove, [path for path in paths if path in existing])


def _best_by_validation_data(plan: Plan, table: Results) -> set[str]:
    """Returns the keys of the best combinations, one for each validation set: errors on others are not comparable.

    With folds, these are the keys of all folds of the best.
    """
    data = {c.key: str(json.loads(c.encoded)["data"]["val"]) for c in plan.combinations}
    best: dict[tuple[str, ...], list[str]] = {}
    for row in table.summary:
        if row[table.chosen_by.n]:
            trained = table.trained_keys(row["key"])
            best.setdefault(tuple(data[key] for key in trained), trained)
    return {key for trained in best.values() for key in trained}
