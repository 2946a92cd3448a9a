"""Writes experiments as if they had been run, for tests of code that only reads them."""

import numpy as np

from cluster.storage.examples import FollowedExamples
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.frame_errors import FrameErrors
from cluster.storage.records import to_parquet
from cluster.storage.run_file import POSETUNE, SCRIPT, Commit, RunFile
from data_pipeline.frame_table import FrameTable
from data_pipeline.skeleton import HANDS17
from posenet.record import Record
from tests.cluster_tests.results_files import write_json

BEFORE_MM = 15.0
STARTED = 1_790_000_000.5
RUN_ID = "5f0c2a91"
PARTS = [*HANDS17.joint_names, *(name for name, _ in HANDS17.fingers)]

SKELETON = {
    "name": "data_pipeline.skeleton.Skeleton",
    "args": {
        "name": HANDS17.name,
        "joint_names": list(HANDS17.joint_names),
        "bones": [list(bone) for bone in HANDS17.bones],
        "extra_edges": [list(edge) for edge in HANDS17.extra_edges],
        "fingers": [[name, list(joints)] for name, joints in HANDS17.fingers],
    },
}


def write_experiment(path, combinations, *, n_repetitions=None, with_test=True, name=None, axes=None):
    """Writes an experiment and returns its folder.

    Args:
        path: The folder.
        combinations: Options, and the outcome of each repetition: a distance in mm, an error text, or None for a
            repetition that was not started. On the test set the distance is 1 mm larger.
        n_repetitions: The default is the number of outcomes of the first combination.
        with_test: Whether there is a test set.
        name: The experiment's name; the default is that of the folder.
        axes: The `options` of its description; the default are options that vary each by itself.
    """
    folder = ExperimentFolder(Storage(path))
    n_repetitions = n_repetitions or len(combinations[0][1])
    paths = list(combinations[0][0])
    keys = [f"{place:016x}" for place in range(len(combinations))]
    folder.write_experiment(
        {
            "name": name or path.name,
            "configs": {"experiment_config": {"test_set": "a_test" if with_test else None, "val_set": "a_val"}},
            "options": axes
            or [
                {"paths": [p], "rows": [[v] for v in dict.fromkeys(options[p] for options, _ in combinations)]}
                for p in paths
            ],
            "data": [{"name": "a_val", "size": None, "samples": 100, "fingerprint": "f"}],
            "plan": {
                "seeds": list(range(100, 100 + n_repetitions)),
                "combinations": [
                    {"key": key, "options": options} for key, (options, _) in zip(keys, combinations, strict=True)
                ],
            },
        }
    )
    commit = Commit("0123abc", dirty=False)
    run = RunFile(
        started=STARTED,
        versions={"python": "3.11"},
        machine={"host": "here"},
        command=["tune_runs/a_sweep.py"],
        git={SCRIPT: commit, POSETUNE: commit},
    )
    folder.write_run(RUN_ID, run)
    for key, (_, outcomes) in zip(keys, combinations, strict=True):
        for repetition, outcome in enumerate(outcomes):
            if outcome is not None:
                write_trial(folder, f"{key}/{repetition}", outcome, with_test=with_test)
    return folder


def write_trial(folder, trial_id, outcome, *, with_test=True):
    """Writes a trial that finished with a distance in mm on the validation set, or failed with an error."""
    description = {"data": {"skeleton": SKELETON}}
    trial = {"key": trial_id.partition("/")[0], "description": description, "train_seconds": 1.5, "error": None}
    trial["runs"] = [RUN_ID]
    if isinstance(outcome, str):
        write_json(folder.trial(trial_id), {**trial, "status": "failed", "error": outcome})
        return
    splits = {"val": outcome, "test": outcome + 1} if with_test else {"val": outcome}
    metrics = {split: {"mean": {"distance": mm, "distance_before": BEFORE_MM}} for split, mm in splits.items()}
    write_json(folder.trial(trial_id), {**trial, "status": "finished", "best_epoch": 2, "metrics": metrics})


def write_records(folder, trial_id, curve_mm, *, split="test", success=None):
    """Writes the records of a trial: its distance after each epoch, and errors of joints and fingers at the end.

    Args:
        folder: The experiment's folder.
        trial_id: The trial.
        curve_mm: The distances.
        split: The split of the final evaluation.
        success: Measure, and the success rates before and after, (81,) each; None for none.
    """
    n = len(curve_mm)
    rows = []
    for epoch, mm in enumerate(curve_mm, 1):
        rows += [
            Record(epoch, 5, "train", "mean", "default", "loss", mm / 10),
            Record(epoch, 5, "train", "mean", "original", "distance", mm + 1),
            Record(epoch, 5, "val", "mean", "original", "distance", mm),
        ]
    for place, part in enumerate(PARTS):
        rows.append(Record(n, 0, split, "mean", "original", f"distance[{part}]_before", 10.0 + place))
        rows.append(Record(n, 0, split, "mean", "original", f"distance[{part}]", 9.0 + place))
    if success is not None:
        measure, *rates = success
        for suffix, of in zip(("_before", ""), rates, strict=True):
            for mm, rate in enumerate(of):
                rows.append(Record(n, 0, split, "mean", "original", f"success_{measure}@{mm}{suffix}", float(rate)))
    folder.trial(trial_id).write("records.parquet", to_parquet(trial_id, rows))


def write_frames(folder, trial_id, before_mm, after_mm):
    """Writes the errors of a trial's frames, for two subsets one after the other, (2 N,) each, mm.

    The first quarter of the N frames, of subject Ann, is in sequence s; the others, of subject Bo, are in sequence t.
    Frame i is i + 5 frames from the nearest training frame.
    """
    subsets = zip("AB", np.split(before_mm, 2), np.split(after_mm, 2), strict=True)
    n = len(before_mm) // 2
    is_first = np.arange(n) < n // 4
    frames = FrameTable.of(
        sequence=np.where(is_first, "s", "t").tolist(), index=range(n), subject=np.where(is_first, "Ann", "Bo").tolist()
    )
    by_subset = {name: (before, after) for name, before, after in subsets}
    folder.trial(trial_id).write("frames.parquet", FrameErrors(by_subset, frames, np.arange(n) + 5.0).to_parquet())


def write_examples(folder, trial_id, *, n_points=4):
    """Writes two examples whose correction improves from one log point to the next."""
    rng = np.random.default_rng(0)
    labels = rng.normal(scale=40, size=(2, 21, 3)).astype(np.float32) + np.float32(600)
    error = rng.normal(scale=10, size=labels.shape).astype(np.float32)
    steps = [labels + error * np.float32(1 - (i + 1) / (n_points + 1)) for i in range(n_points)]
    epochs = np.arange(1, n_points + 1)
    examples = FollowedExamples(
        epochs, np.full(n_points, 5), np.stack(steps), labels + error, labels, np.array([0, 70])
    )
    folder.trial(trial_id).write("examples.npz", examples.to_npz())
    return examples
