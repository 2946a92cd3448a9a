"""Trained correctors, built again from the files of an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from cluster.planning import builders as parts
from cluster.results.deserialize import DescriptionError, described_class, described_skeleton, described_value
from cluster.results.results import Results, Row, SummaryColumns
from cluster.results.trial_outcome import finished_val_distance_mm, trial_status
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import TrialFile
from data_pipeline.normalizers import Normalizer
from data_pipeline.skeleton import Skeleton
from data_pipeline.user_error import UserError, did_you_mean, first_line
from posenet.pose_corrector import Ensemble, PoseCorrector


class NotTrainedError(DescriptionError):
    """An experiment has no such corrector, or its files do not tell how to build it."""


@dataclass(frozen=True)
class TrainedCorrector:
    """A corrector as an experiment trained it.

    Attributes:
        corrector: The network, in evaluation mode: (N, J, 3) mm to (N, J, 3) mm.
        skeleton: The skeleton of the poses that it corrects.
        key: The combination.
        options: The combination's options by path.
        repetitions: The trainings whose outputs are averaged.
        train_set_fingerprint: Tells the training set from others.
    """

    corrector: torch.nn.Module
    skeleton: Skeleton
    key: str
    options: Mapping[str, Any]
    repetitions: tuple[int, ...]
    train_set_fingerprint: str


def read_corrector(
    folder: ExperimentFolder,
    *,
    combination: str = "best",
    repetition: str | int = "best",
    modules: Sequence[ModuleType] = (),
) -> TrainedCorrector:
    """Builds a trained corrector from an experiment's files.

    Args:
        folder: The experiment's folder.
        combination: A combination's key or the beginning of it; `best` is the first of the experiment's
            table: of those with all repetitions the one with the lowest mean validation distance.
        repetition: A repetition's number; `best` is the one with the lowest validation distance, `all` averages what
            all finished ones return.
        modules: Where to look for classes that are not of this project, also for those that a script defined itself.

    Raises:
        NoResultsError: If there is no experiment.
        NotTrainedError: If there is no such combination or repetition, if it is not finished, or if its weights or a
            class are not there.
        StorageError: If a file cannot be read.
    """
    table = Results.read(folder)
    row = _combination(table, combination)
    key: str = row["key"]
    trials = folder.read_trials(lambda content: content, lambda trial_id: trial_id.partition("/")[0] == key)
    finished: dict[int, TrialFile] = {}
    for repetition_number in range(table.n_repetitions):
        content = trials.get(f"{key}/{repetition_number}")
        if content is not None and trial_status(content) == "finished":
            finished[repetition_number] = content
    chosen = _repetitions(table, row, finished, repetition)
    try:
        skeleton = described_skeleton(finished[chosen[0]])
        fingerprint = str(finished[chosen[0]]["description"]["data"]["train"]["fingerprint"])
        correctors = [_corrector(folder, f"{key}/{r}", finished[r], skeleton, modules) for r in chosen]
    except UserError:
        raise
    except Exception as error:  # a class refuses in its own way what a damaged file, or one of another version, says
        raise NotTrainedError(
            f"{folder.storage.location}/{FileNames.in_trial(key)} does not tell how to build the corrector: {error!r}"
        ) from error
    corrector = correctors[0] if len(correctors) == 1 else Ensemble(correctors)
    options = {path: row[path] for path in table.option_paths}
    # Nobody trains it on: without this an exported one would ask for gradients.
    corrector.eval().requires_grad_(False)
    return TrainedCorrector(corrector, skeleton, key, options, chosen, fingerprint)


def _combination(table: Results, wanted: str) -> Row:
    trained = [row for row in table.summary if row["n"]]
    if not trained:
        raise NotTrainedError(f"no trial of {table.name} is finished; run its script until some are")
    if wanted == "best":
        return _best(table, trained)
    found = [row for row in table.summary if row["key"].startswith(wanted)]
    if len(found) != 1:
        what = f"several combinations whose keys begin with {wanted!r}" if found else f"no combination {wanted!r}"
        hint = did_you_mean(wanted, [row["key"] for row in table.summary][:20])
        raise NotTrainedError(f"{table.name} has {what}{hint}. tables/summary.csv of the experiment lists all")
    if not found[0]["n"]:
        raise NotTrainedError(f"no repetition of {found[0]['key']} of {table.name} is finished")
    return found[0]


_VALIDATED_ON = ("experiment_config.val_set", "experiment_config.val_set_size")


def _best(table: Results, trained: Sequence[Row]) -> Row:
    """Returns the best combination, unless they were validated on different sets."""
    paths = [path for path in _VALIDATED_ON if path in table.option_paths]
    best: dict[tuple[Any, ...], Row] = {}
    for row in trained:
        best.setdefault(tuple(row[path] for path in paths), row)
    if len(best) == 1:
        return trained[0]
    mean = SummaryColumns.of("val").mean
    lines = "".join(
        f"\n  {row['key']}  {', '.join(map(str, val_set))}: {row[mean]:.2f} mm" for val_set, row in best.items()
    )
    raise NotTrainedError(
        f"the combinations of {table.name} were validated on different sets, so none is best. Name one by its key; the "
        f"best of each set are:{lines}"
    )


def _repetitions(table: Results, row: Row, finished: Mapping[int, TrialFile], wanted: str | int) -> tuple[int, ...]:
    if wanted == "all":
        return tuple(finished)
    if wanted == "best":
        return (min(finished, key=lambda r: finished_val_distance_mm(finished[r]) or 0.0),)
    if wanted not in finished:
        raise NotTrainedError(
            f"repetition {wanted!r} of {row['key']} of {table.name} is not there; give 'best', 'all' or one of the "
            f"finished ones: {', '.join(map(str, finished))}"
        )
    return (int(wanted),)


def _corrector(
    folder: ExperimentFolder,
    trial_id: str,
    trial: TrialFile,
    skeleton: Skeleton,
    modules: Sequence[ModuleType],
) -> PoseCorrector:
    content = folder.trial(trial_id).read(FileNames.WEIGHTS)
    if content is None:
        raise NotTrainedError(
            f"{trial_id} has no {FileNames.WEIGHTS}: the experiment's keep_weights did not keep it. With 'all' it stays"
        )
    described = trial["description"]["model"]
    model_class = described_class(described["name"], torch.nn.Module, modules)
    model: torch.nn.Module = model_class(skeleton, **described_value(described["args"]))
    try:
        model.load_state_dict(parts.read_weights(content))
    except Exception as error:  # torch.load has no error of its own for what it cannot read
        reason = first_line(error)
        raise NotTrainedError(
            f"the {FileNames.WEIGHTS} of {trial_id} is not one of {described['name']}: {reason}"
        ) from error
    described = trial["description"]["spaces"]["normalizer"]
    if described is None:
        return PoseCorrector(model, None)
    normalizer_class = described_class(described["name"], Normalizer, modules)
    normalizer: Normalizer = normalizer_class(skeleton, **described_value(described["args"]))
    normalizer.restore(trial["normalizer"] or {})
    return PoseCorrector(model, normalizer)
