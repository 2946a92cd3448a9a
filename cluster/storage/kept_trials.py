"""Finished trials in an experiment's folder that its plan does not have: of other options, or of other versions."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import TrialFile


class KeptTrial(NamedTuple):
    """A finished trial that a plan does not have.

    Attributes:
        trial_id: Its id.
        options: The labels of its combination's values, by path.
        description: What its key is a hash of.
        runs: The ids of the runs that trained it.
    """

    trial_id: str
    options: Mapping[str, Any]
    description: Mapping[str, Any]
    runs: Sequence[str]


def kept_trials(folder: ExperimentFolder, trial_ids: Collection[str]) -> list[KeptTrial]:
    """Reads those of some trials that are finished.

    Raises:
        StorageError: If a file cannot be read.
    """
    of_keys: dict[str | None, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}  # repetitions share these objects

    def kept(trial: TrialFile) -> KeptTrial | None:
        if trial.status != "finished":
            return None
        options, description = of_keys.setdefault(trial.key, (trial.options, trial.description))
        return KeptTrial(f"{trial.key}/{trial.repetition}", options, description, trial.runs)

    found = folder.read_trials(kept, set(trial_ids).__contains__)
    return [trial for trial_id, trial in found.items() if trial is not None and trial.trial_id == trial_id]
