"""Trains a trial again from its files, and compares the numbers.

Its `trial.json` contains everything that can change a number, encoded, and its key is a hash of that. So the settings
are decoded, and planned as a run would plan them: if the plan has the same key, it is the same training.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch

from cluster.executors.job import Job
from cluster.planning import builders
from cluster.planning.inputs import Inputs
from cluster.planning.plan import Combination, TrialSpec, make_plan
from cluster.planning.seeds import repetition_seed
from cluster.provenance import current_versions
from cluster.restored_experiment import restore_experiment
from cluster.results.learning_curves import record_tables
from cluster.results.results import Results
from cluster.results.settings_text import differences, settings_of
from cluster.storage.file_names import FileNames
from cluster.storage.folders import ExperimentFolder, TrialFolder
from cluster.storage.records import from_parquet
from cluster.storage.run_file import RunFile, origins_of
from cluster.storage.trial_file import TrialFile
from cluster.trial.trainable import TrialReport, run_trial
from data_pipeline.user_error import UserError, first_line
from data_pipeline.words import count, listed
from posenet.record import Record

_SHOWN = 10


class Difference(NamedTuple):
    """A number that differs between the two trainings.

    Attributes:
        what: The number in words: its metric, and where and when it was measured.
        then: The number in the trial's files.
        now: The number of this training.
    """

    what: str
    then: float
    now: float


@dataclass(frozen=True)
class Reproduction:
    """The result of training a trial again.

    Attributes:
        trial_id: The trial.
        n_compared: How many numbers both trainings have: all logged numbers, and the final metrics that tables show.
        n_missing: How many numbers only the trial's files have, since other numbers are logged now.
        different: The compared numbers that are not the same to the last bit.
        weights_are_same: Whether the best weights are the same to the last bit; None if they were not kept.
        changed: Versions and processors that differ, then and now; None if those of then were not recorded.
    """

    trial_id: str
    n_compared: int
    n_missing: int
    different: Sequence[Difference]
    weights_are_same: bool | None
    changed: Mapping[str, tuple[str, str]] | None

    @property
    def is_same(self) -> bool:
        """Whether all compared numbers and weights are the same to the last bit."""
        return not self.different and self.weights_are_same is not False

    @property
    def text(self) -> str:
        """The result in words."""
        if self.is_same:
            weights = "its weights were not kept" if self.weights_are_same is None else "so are the best weights"
            lines = [f"{self.trial_id}: the same bits. All {self.n_compared:,} numbers are equal, and {weights}."]
        else:
            n = len(self.different)
            lines = [
                f"{self.trial_id}: not the same bits. {n or 'None'} of {count(self.n_compared, 'number')} "
                f"{'differs' if n == 1 else 'differ'}" + ":" * bool(n)
            ]
            lines += [f"  {what} was {then!r} and is {now!r}" for what, then, now in self.different[:_SHOWN]]
            if n > _SHOWN:
                lines.append(f"  and {n - _SHOWN} more")
            of_weights = {True: "are the same", False: "differ", None: "were not kept"}
            lines.append(f"The best weights {of_weights[self.weights_are_same]}.")
        if self.n_missing:
            lines.append(f"{count(self.n_missing, 'number')} of then cannot be compared: not logged any more.")
        if self.changed is None:
            lines.append("Which versions trained it then was not recorded.")
        lines += [f"{name} was {then}, and is {now}." for name, (then, now) in (self.changed or {}).items()]
        return "\n".join(lines)


def reproduce(
    folder: ExperimentFolder,
    trial_id: str,
    *,
    modules: Sequence[ModuleType] = (),
    data_dir: str | None = None,
    device: str | None = None,
    on_report: Callable[[TrialReport], None] = lambda report: None,
) -> Reproduction:
    """Trains a finished trial again in this process, and compares all numbers.

    Args:
        folder: The experiment's folder; it stays unchanged.
        trial_id: The trial, `KEY/REPETITION`.
        modules: Where to look for classes that are not of this project or of torch.
        data_dir: The folder with the datasets; the default is the experiment's.
        device: Where to train, such as 'cuda:0'; the default is a device of the same kind as then.
        on_report: Called after each epoch.

    Raises:
        UserError: If it is not finished, if data, code or device have changed, if it fails now, or if its files do not
            say how it was trained.
        ConfigError: If data are missing.
        StorageError: If a file cannot be read.
    """
    trial = folder.read_trial(trial_id)
    if trial.status != "finished":
        lines = (trial.error or "").splitlines()
        why = f" ({lines[0]})" if lines else ""
        where, state = f"{trial_id} of {folder.storage.location}", str(trial.status)
        key, _, _ = trial_id.partition("/")
        if trial.status in ("interrupted", "pending") and key in Results.read(folder).single_folds.dropped:
            state = "a race dropped it. Without the race, the script trains it to the end"
        raise UserError(f"{where} is not finished, so there is nothing to compare with: {state}{why}")
    if trial.key is None or trial.repetition is None or trial.device is None or not trial.description:
        raise UserError(f"the trial.json of {trial_id} does not say how it was trained; was it edited?")
    content, logged = folder.read_experiment(), _records(folder, trial_id)
    with tempfile.TemporaryDirectory(prefix="posetune-") as scratch:
        train_on = _device(trial, device)
        experiment = restore_experiment(
            content, trial, modules, data_dir, train_on, scratch, log_frequency=_log_frequency(logged)
        )
        inputs = Inputs(experiment.config.data_folder)
        plan = make_plan(experiment.space, inputs, n_repetitions=1, seed=experiment.config.seed)
        (combination,) = plan.combinations
        _require_same(trial, combination, modules)
        seed = repetition_seed(experiment.config.seed, trial.repetition)
        spec = TrialSpec(combination, trial.repetition, seed)
        job = Job.of(experiment.config, experiment.space, inputs)
        again = job.trial(spec, train_on)
        again_folder = job.folder.trial(again.id)
        report = None
        for report in run_trial(again, job.data(again.settings), again_folder):
            on_report(report)
        if report is None or report.status != "finished":
            why = "it was not trained" if report is None else f"it {report.status}: {report.error}"
            raise UserError(f"{trial_id} finished then, but now {why}")
        return _compared(folder, trial_id, trial, logged, again_folder)


def _log_frequency(logged: Sequence[Record]) -> int:
    """Returns how often a trial logged in its last epoch. A later run may have logged other trials more often."""
    last = max((record.epoch for record in logged if record.batch), default=0)
    return max(
        1, len({record.batch for record in logged if record.batch and record.epoch == last and record.split == "val"})
    )


def _device(trial: TrialFile, wanted: str | None) -> torch.device:
    """Returns the device to train on, if torch can use it here."""
    name = str(trial.device).partition(":")[0] if wanted is None else wanted
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # the device "meta" has no numbers
    except (RuntimeError, AssertionError) as error:  # torch raises either for a missing device
        trained = f"{trial.key}/{trial.repetition} was trained on {trial.device}"
        if wanted is not None:
            raise UserError(
                f"torch cannot use {name!r} here; {trained}: omit --device, or name cpu or cuda:N"
            ) from error
        raise UserError(
            f"torch cannot use {name!r} here: {first_line(error)}. {trained}; it can also be trained on another device "
            "(--device cpu), but the last bits may differ"
        ) from error
    return device


def _require_same(trial: TrialFile, combination: Combination, modules: Sequence[ModuleType]) -> None:
    """Raises an error if the trial's settings are not those of the combination; the user's classes may have moved."""
    now, then = json.loads(combination.encoded), trial.description
    if combination.key == trial.key or _without_modules(now, modules) == _without_modules(then, modules):
        return
    changed = differences(settings_of(then), settings_of(now))
    details = "".join(f"\n  {path} was {was}, and is now {is_now}" for path, (was, is_now) in changed.items())
    reasons = {
        "data.": "Its training, validation or test data have changed.",
        "numerics": "It was trained by another version of PoseTune (see its `runs` in runs/).",
    }
    found = [reason for start, reason in reasons.items() if any(path.startswith(start) for path in changed)]
    raise UserError(" ".join([f"{trial.key} cannot be trained again as it was.", *found, f"Differences:{details}"]))


def _without_modules(encoded: Any, modules: Sequence[ModuleType]) -> Any:
    """Returns encoded settings in which the names of these modules' classes and functions have no module.

    The script that ran was `__main__`, and a module may have moved.
    """
    if isinstance(encoded, Mapping):
        bare = {key: _without_modules(value, modules) for key, value in encoded.items()}
        own_name = str(bare.get("name")).rpartition(".")[2]
        if any(hasattr(module, own_name) for module in modules):
            bare["name"] = own_name
        return bare
    return [_without_modules(value, modules) for value in encoded] if isinstance(encoded, list) else encoded


def _compared(
    folder: ExperimentFolder,
    trial_id: str,
    trial: TrialFile,
    logged: Sequence[Record],
    again: TrialFolder,
) -> Reproduction:
    if not any(record.batch == 0 for record in logged):
        raise UserError(f"the records of {trial_id} cannot be read, so there is nothing to compare with")
    then = _numbers(logged, trial)
    now = _numbers(from_parquet(again.read(FileNames.RECORDS) or b""), again.read_trial())
    common = [what for what in then if what in now]
    different = [Difference(what, then[what], now[what]) for what in common if not _same_bits(then[what], now[what])]
    weights = [each.read(FileNames.WEIGHTS) for each in (folder.trial(trial_id), again)]
    are_same = None
    if weights[0] is not None and weights[1] is not None:
        try:
            one, other = builders.read_weights(weights[0]), builders.read_weights(weights[1])
        except Exception as error:  # torch.load has no specific error for a file that it cannot read
            raise UserError(f"the {FileNames.WEIGHTS} of {trial_id} cannot be read: {first_line(error)}") from error
        are_same = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    n_missing = len(then) - len(common)
    runs = folder.read_runs()
    trained_by = [runs.get(run_id) for run_id in trial.runs]
    return Reproduction(trial_id, len(common), n_missing, different, are_same, _changed(trained_by))


def _numbers(logged: Sequence[Record], trial: TrialFile) -> dict[str, float]:
    """Returns all numbers of a trial by their names: its records, and the metrics of its `trial.json`."""
    numbers = {
        f"{r.metric} (epoch {r.epoch}, batch {r.batch}, {r.split}, {r.subset}, {r.space})": float(r.value)
        for r in logged
    }
    if trial.best_epoch is not None:
        numbers["best_epoch (trial.json)"] = float(trial.best_epoch)
    for split, subsets in trial.metrics.items():
        for subset, values in subsets.items():
            numbers |= {f"{name} (trial.json, {split}, {subset})": float(value) for name, value in values.items()}
    return numbers


def _same_bits(one: float, other: float) -> bool:
    return one.hex() == other.hex()  # distinguishes -0.0 from 0.0; NaN equals itself


def _records(folder: ExperimentFolder, trial_id: str) -> list[Record]:
    rows: list[Record] = []
    for table in record_tables(folder, trial_id.__eq__):
        columns = [table.column(name).to_pylist() for name in Record._fields]
        rows += [Record(*values) for values in zip(*columns, strict=True)]
    return rows


def _changed(trained_by: Sequence[RunFile | None]) -> dict[str, tuple[str, str]] | None:
    """Returns what numbers depend on besides the settings and differs, then and now; None if it was not recorded."""
    known = [run for run in trained_by if run is not None]
    if not known or len(known) < len(trained_by):
        return None
    now = current_versions().origin
    return {
        name: (listed(then), now.get(name, "missing"))
        for name, then in origins_of(known).items()
        if then != [now.get(name)]
    }
