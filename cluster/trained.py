"""Restores trained correctors from the files of an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch

from cluster.planning import builders
from cluster.results.deserialize import decode_class, decode_skeleton, decode_value
from cluster.results.lookup import find_one_trained
from cluster.results.results import Results
from cluster.results.rows import Row
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import TrialFile
from data_pipeline.normalizers import Normalizer
from data_pipeline.skeleton import Skeleton
from data_pipeline.user_error import UserError, first_line
from posenet.models import Corrector
from posenet.pose_corrector import Ensemble, PoseCorrector


@dataclass(frozen=True)
class TrainedCorrector:
    """A corrector as an experiment trained it.

    Attributes:
        corrector: The network, in evaluation mode: (N, J, 3) mm to (N, J, 3) mm; (N, S, J, 3) mm to (N, J, 3) mm if it
            fuses the S subsets of the training set.
        skeleton: The skeleton of the poses.
        key: The combination.
        options: What distinguishes the combination from the others: options by path.
        repetitions: The trainings whose outputs are averaged.
        train_set_fingerprint: Identifies the training set.
        train_subsets: The names of the training set's subsets, in its order.
    """

    corrector: torch.nn.Module
    skeleton: Skeleton
    key: str
    options: Mapping[str, Any]
    repetitions: tuple[int, ...]
    train_set_fingerprint: str
    train_subsets: tuple[str, ...]


def read_corrector(
    folder: ExperimentFolder,
    *,
    combination: str = "best",
    repetition: str | int = "best",
    modules: Sequence[ModuleType] = (),
) -> TrainedCorrector:
    """Restores a trained corrector from an experiment's files.

    Args:
        folder: The experiment's folder.
        combination: A combination's key or the beginning of it; `best` is the first row of the experiment's table: the
            combination with the lowest mean validation distance of those with all repetitions. Each fold of a
            combination has its own corrector, so the key must be that of a fold.
        repetition: A repetition's number; `best` is the one with the lowest validation distance, without the fresh ones
            that confirm a race's finalist; `all` averages the outputs of all finished ones.
        modules: Where to look for classes that are not of this project, such as classes of a script.

    Raises:
        NoResultsError: If there is no experiment.
        ChoiceError: If there is no such combination, or if it has folds, see `find_one_trained`.
        UserError: If there is no such repetition, if it is not finished, or if its weights or a class are missing.
        StorageError: If a file cannot be read.
    """
    table = Results.read(folder)
    # The best in validation does not depend on the test sets.
    row, table = find_one_trained(replace(table, splits=["val"]), combination), table.single_folds
    key: str = row["key"]
    if key in table.dropped:
        raise UserError(f"{key} of {table.name} was dropped by its race, so it was not trained to the end")
    if not row[table.chosen_by.n]:
        raise UserError(f"no repetition of {key} of {table.name} is finished; run its script first")
    trials = folder.read_trials(lambda trial: trial, lambda trial_id: trial_id.partition("/")[0] == key)
    numbers = range(table.n_repetitions + table.n_confirming)
    read = {number: trials.get(f"{key}/{number}", TrialFile()) for number in numbers}
    finished = {number: trial for number, trial in read.items() if trial.status == "finished"}
    chosen = _repetitions(table, row, finished, repetition)
    try:
        skeleton = decode_skeleton(finished[chosen[0]])
        train_set = finished[chosen[0]].description["data"]["train"]
        fingerprint, subsets = str(train_set["fingerprint"]), tuple(map(str, train_set["subsets"]))
        correctors = [_corrector(folder, f"{key}/{r}", finished[r], skeleton, modules) for r in chosen]
    except UserError:
        raise
    except Exception as error:  # a class may raise any error for a file that is broken or of another version
        raise UserError(
            f"{folder.storage.location}/{FileNames.in_trial(key)} does not say how to build the corrector: {error!r}"
        ) from error
    corrector = correctors[0] if len(correctors) == 1 else Ensemble(correctors)
    options = {path: row[path] for path in table.distinguishing_paths}
    # It is not trained further; without this an exported corrector would require gradients.
    corrector.eval().requires_grad_(False)
    return TrainedCorrector(corrector, skeleton, key, options, chosen, fingerprint, subsets)


def _repetitions(table: Results, row: Row, finished: Mapping[int, TrialFile], wanted: str | int) -> tuple[int, ...]:
    if wanted == "all":
        return tuple(finished)
    if wanted == "best":
        deciding = (number for number in finished if number < table.n_repetitions)
        return (min(deciding, key=lambda r: finished[r].val_distance_mm or 0.0),)
    if wanted not in finished:
        raise UserError(
            f"{row['key']} of {table.name} has no finished repetition {wanted!r}; give 'best', 'all' or one of "
            f"{', '.join(map(str, finished))}"
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
        raise UserError(
            f"{trial_id} has no {FileNames.WEIGHTS}: keep_weights did not keep it. Set it to 'all' in the experiment"
        )
    encoded = trial.description["model"]
    model_class = decode_class(encoded["name"], torch.nn.Module, modules)
    arguments = decode_value(encoded["args"], modules, family=torch.nn.Module)  # an activation is a module
    model = builders.new_model(model_class, skeleton, arguments)
    if isinstance(model, Corrector) and encoded.get("choose_strength"):
        model.add_strength()
    try:
        model.load_state_dict(builders.read_weights(content))
    except Exception as error:  # torch.load raises various errors for a file that it cannot read
        reason = first_line(error)
        raise UserError(f"the {FileNames.WEIGHTS} of {trial_id} does not fit {encoded['name']}: {reason}") from error
    encoded = trial.description["spaces"]["normalizer"]
    if encoded is None:
        return PoseCorrector(model, None)
    normalizer_class = decode_class(encoded["name"], Normalizer, modules)
    normalizer: Normalizer = normalizer_class(skeleton, **decode_value(encoded["args"]))
    normalizer.restore(trial.normalizer or {})
    return PoseCorrector(model, normalizer)
