"""Writes experiments as a run leaves them on disk, without a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.racing.decision_file import Competitor, DecisionFile, Reason, write_decision
from cluster.result_table import ResultTable
from cluster.results.rows import METRICS
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder, TrialFolder
from cluster.storage.records import to_parquet
from posenet.record import Record

BEFORE = 20.0

Outcome = float | str | None
"""The distance of a finished repetition, or the status of any other one; None if it was never started."""

SKELETON = {
    "name": "Claw",
    "joint_names": ["W", "T1", "T2", "I1"],
    "bones": [[0, 1], [1, 2], [0, 3]],
    "extra_edges": [],
    "fingers": [["thumb", [1, 2]], ["index", [3]]],
}


def write_results(
    path: Path,
    combinations: Mapping[str, tuple[Mapping[str, Any], Sequence[Outcome]]],
    *,
    name: str = "my sweep",
    test_set: str | None = "hands_test",
    subsets: Sequence[str] = ("DEFAULT",),
) -> ExperimentFolder:
    """Writes an experiment.

    Args:
        path: The folder.
        combinations: By key, the options and the outcome of each repetition. Distances are those on the test set, or on
            the validation set if there is no test set; distances in validation are 1 mm smaller.
        name: The experiment's name.
        test_set: The name of the test set, if it is not an option.
        subsets: The subsets, all with the same numbers.
    """
    folder = ExperimentFolder(Storage(path))
    first_options, first_outcomes = next(iter(combinations.values()))
    columns = {p: list(dict.fromkeys(options[p] for options, _ in combinations.values())) for p in first_options}
    configured = {"val_set": "hands_val", "test_set": test_set}
    sets = {
        options.get(f"experiment_config.{s}", configured[s]) for options, _ in combinations.values() for s in configured
    }
    folder.write_experiment(
        {
            "name": name,
            "configs": {"experiment_config": configured},
            "options": [{"paths": [p], "rows": [[value] for value in values]} for p, values in columns.items()],
            "data": [{"name": s, "size": None, "samples": 1234} for s in sets if s is not None],
            "plan": {
                "seeds": list(range(len(first_outcomes))),
                "combinations": [{"key": key, "options": dict(options)} for key, (options, _) in combinations.items()],
            },
        }
    )
    for key, (options, outcomes) in combinations.items():
        splits = ["val"] if options.get("experiment_config.test_set", test_set) is None else ["val", "test"]
        for repetition, outcome in enumerate(outcomes):
            if outcome is not None:
                write_trial(folder, f"{key}/{repetition}", outcome, splits, subsets)
    return folder


def write_fold_results(
    path: Path,
    combinations: Mapping[Any, Sequence[Sequence[Outcome]]],
    n_frames: Sequence[tuple[int, int]],
    *,
    dataset: str = "hands",
) -> ExperimentFolder:
    """Writes an experiment that trained each combination on all folds of a dataset.

    Args:
        path: The folder.
        combinations: The outcomes of each fold in each repetition, by the value of the option `lr`. The keys are
            `LR-FOLD`, such as `0.1-2`.
        n_frames: The frames of the validation set and the test set of each fold.
        dataset: The name of the dataset.
    """
    paths = [f"experiment_config.{split}_set" for split in ("train", "val", "test")]
    folds = range(1, len(n_frames) + 1)
    rows = [[f"{dataset}_fold{fold}_{split}" for split in ("train", "val", "test")] for fold in folds]
    written = {
        f"{lr}-{fold}": ({**dict(zip(paths, rows[fold - 1], strict=True)), "lr": lr}, outcomes)
        for fold in folds
        for lr, of_folds in combinations.items()
        for outcomes in [of_folds[fold - 1]]
    }
    folder = write_results(path, written)
    axis = {"paths": paths, "rows": rows, "folds": [[dataset, fold] for fold in folds]}
    samples = [
        {"name": f"{dataset}_fold{fold}_{split}", "size": None, "samples": n}
        for fold, of_fold in zip(folds, n_frames, strict=True)
        for split, n in zip(("val", "test"), of_fold, strict=True)
    ]
    lr_axis = {"paths": ["lr"], "rows": [[lr] for lr in combinations]}
    folder.write_experiment({**experiment_json(folder), "options": [axis, lr_axis], "data": samples})
    return folder


RULE = {"reduction_factor": 3, "min_epochs": 1, "first_repetitions": None, "min_finalists": 2, "max_cost": 0.25}

Reached = tuple[Sequence[float], Reason]
"""The best validation errors of a combination's repetitions at a rung, mm, and why it stays or not."""


def write_race(
    folder: ExperimentFolder,
    decisions: Mapping[tuple[int, int], tuple[int, Mapping[str, Reached]]],
    *,
    data: str = "hands_val",
    n_rungs: int = 3,
    confirm: int = 0,
) -> ExperimentFolder:
    """Writes the decisions of a race, and that the experiment is raced.

    Args:
        folder: The experiment's folder.
        decisions: By the numbers of the bracket and the rung, the epoch and what each combination reached, by its key.
        data: The validation set.
        n_rungs: The rungs of each bracket.
        confirm: How many of the repetitions, the last ones, confirm the finalists.
    """
    content = experiment_json(folder)
    rule = RULE | ({"confirm": confirm} if confirm else {})
    race = {"name": "cluster.racing.successive_halving.SuccessiveHalving", "args": rule}
    content["configs"]["experiment_config"]["race"] = race
    folder.write_experiment(content)
    for (bracket, rung), (epoch, reached) in decisions.items():
        ranked = sorted(reached.items(), key=lambda item: sum(item[1][0]))
        competitors = [
            Competitor(key, "c", 9, epoch, [mm.hex() if mm < float("inf") else "inf" for mm in values], reason)
            for key, (values, reason) in ranked
        ]
        write_decision(
            folder.storage,
            DecisionFile(
                data=data,
                size=None,
                bracket=bracket,
                rung=rung,
                n_rungs=n_rungs,
                n_repetitions=len(content["plan"]["seeds"]) - confirm,
                n_epochs_allowed=100,
                combinations=competitors,
                rule=rule,
            ),
        )
    return folder


def write_raced_results(path: Path) -> ExperimentFolder:
    """Writes an experiment of six combinations with two repetitions of 9 epochs; its race kept `a` and `b`.

    `c` and `d` were dropped at epoch 3, after one repetition of `c` had finished without the race. At epoch 1, `e` was
    dropped with one repetition, and `f`, which diverged.
    """
    outcomes: dict[str, Sequence[Outcome]] = {
        **{"a": [6.0, 7.0], "b": [5.5, 8.0], "c": [2.0, "interrupted"]},
        **{"d": ["interrupted", "interrupted"], "e": ["interrupted", None], "f": ["diverged", None]},
    }
    options = {key: {"lr": lr, "dim": dim} for key, (lr, dim) in zip(outcomes, _GRID, strict=True)}
    folder = write_results(path, {key: (options[key], of) for key, of in outcomes.items()}, name="raced")
    content = experiment_json(folder)
    content["configs"]["solver_config"] = {"num_epochs": 9}
    folder.write_experiment(content)
    first: dict[str, Reached] = {
        **{"a": ([9.0], "best"), "c": ([9.5], "best"), "b": ([9.25], "best"), "d": ([9.75], "close to the best")},
        **{"e": ([11.0], "behind"), "f": ([float("inf")], "diverged")},
    }
    second: dict[str, Reached] = {
        **{"a": ([7.0, 8.0], "best"), "b": ([8.0, 8.0], "best")},
        **{"c": ([9.0, 10.0], "behind"), "d": ([8.5, 9.0], "behind")},
    }
    return write_race(folder, {(0, 0): (1, first), (0, 1): (3, second)})


_GRID = [(lr, dim) for lr in (0.1, 0.2, 0.3) for dim in (8, 16)]


def write_trial(
    folder: ExperimentFolder, trial_id: str, outcome: Outcome, splits: Sequence[str], subsets: Sequence[str]
) -> None:
    """Writes a trial."""
    write_json(folder.trial(trial_id), _trial(outcome, splits, subsets))
    if not isinstance(outcome, str):
        records = list(_records(outcome, splits))
        folder.trial(trial_id).write("records.parquet", to_parquet(trial_id, records))


def write_json(trial: TrialFolder, content: Mapping[str, Any]) -> None:
    """Writes a trial's file with any content."""
    trial.write("trial.json", json.dumps(content).encode())


def read_json(trial: TrialFolder) -> dict[str, Any]:
    """Returns the content of a trial's file."""
    return json.loads(trial.read("trial.json"))


def experiment_json(folder: ExperimentFolder) -> dict[str, Any]:
    """Returns the content of `experiment.json`."""
    return json.loads(folder.storage.read("experiment.json"))


def results(path: Path, combinations: Mapping[str, Any], **how: Any) -> ResultTable:
    """Writes an experiment and reads its table."""
    return ResultTable.read(write_results(path, combinations, **how))


def _trial(outcome: Outcome, splits: Sequence[str], subsets: Sequence[str]) -> dict[str, Any]:
    trial: dict[str, Any] = {"description": {"data": {"skeleton": {"args": SKELETON}}}}
    if isinstance(outcome, str):
        return {**trial, "status": outcome, "error": "=it(broke)"}
    metrics = {}
    for split in splits:
        distance = outcome - (split == "val" and len(splits) == 2)
        values = {metric + suffix: 0.25 for metric in METRICS for suffix in ("", "_before")}
        values |= {"distance": distance, "distance_before": BEFORE, "improved": 0.75, "worsened": 0.25}
        values |= {"frames_within_20mm": 1 / distance}
        metrics[split] = dict.fromkeys(("mean", *subsets), values)
    return {**trial, "status": "finished", "best_epoch": 3, "train_seconds": 1.5, "metrics": metrics}


def _records(distance: float, splits: Sequence[str]) -> Sequence[Record]:
    """Returns the final evaluation: each part has twice the error of the previous one, and three times that before."""
    parts = ["distance", *(f"distance[{part}]" for part in (*SKELETON["joint_names"], "thumb", "index"))]
    rows = []
    for split in splits:
        for number, part in enumerate(parts):
            for suffix, factor in (("", 1), ("_before", 3)):
                value = factor * distance * 2**number
                rows.append(Record(2, 0, split, "mean", "original", f"{part}{suffix}", value))
    return rows
