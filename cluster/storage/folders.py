"""The files of an experiment and of its trials, every name in one place.

results/NAME/
    experiment.json        configs as described, the plan, versions, machine, git commit, data fingerprints
    trials/KEY/REPETITION/
        trial.json         options, status, seed, times, device, error, final metrics
        records.parquet    every number that was logged, see `cluster/storage/records.py`
        weights.pt         the weights of the best epoch: a state dict
        frames.parquet     the error of every frame before and after, where the weights are kept
        examples.npz       the examples' predictions at every log point
        plots/             pictures of the examples, with `show_plots`
        checkpoint.pt      only while the trial is unfinished
    archive/               where more than 1,000 trials have ended: trial.json and records.parquet of a thousand of
                           them together, see `cluster/storage/archive.py`
    tables/                trials.csv, trials.parquet, summary.csv, summary.md, summary.txt
    report.html            all that came out, to be read in a browser
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from cluster.storage.archive import Archive, several
from cluster.storage.filesystem import Storage, StorageError

Status = Literal["finished", "failed", "diverged", "interrupted", "pending"]
"""How a trial stands. `interrupted` was started and will be continued; `pending` was never started."""

STATUSES: tuple[Status, ...] = get_args(Status)

_TRIAL_FILE = re.compile(r"(?P<trial_id>[^/]+/\d+)/(?P<name>.+)")

T = TypeVar("T")

REPORT_FILE = "report.html"

RUNNING = "running"
"""What a trial's file says while it is trained; without a process that trains it, it is `interrupted`."""


class TrialFolder:
    """The files of one trial.

    Args:
        experiment: The folder of the experiment.
        trial_id: The combination's key and the repetition: `KEY/REPETITION`.
    """

    def __init__(self, experiment: Storage, trial_id: str) -> None:
        self.experiment = experiment
        self.trial_id = trial_id

    def read_trial(self) -> dict[str, Any] | None:
        """Returns the content of `trial.json`; None if there is none, or if it is broken."""
        return _read_json(self.experiment, self._path("trial.json"))

    def write_trial(self, content: Mapping[str, Any]) -> None:
        """Writes `trial.json`."""
        self.experiment.write(self._path("trial.json"), _json_bytes(content))

    def read(self, name: str) -> bytes | None:
        """Returns the content of one of the other files, None if it is not there."""
        return self.experiment.read(self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Writes one of the other files."""
        self.experiment.write(self._path(name), data)

    def remove(self, name: str) -> None:
        """Removes one of the other files if it is there."""
        self.experiment.remove(self._path(name))

    @property
    def local(self) -> Path | None:
        """The folder's path, None where it is not on a local filesystem."""
        return None if self.experiment.local is None else self.experiment.local / self._path("")

    def clear_partial_files(self) -> None:
        """Removes what a killed writer left."""
        for name in ("", "plots"):
            with suppress(StorageError):  # whoever writes next says why that is impossible
                self.experiment.clear_partial_files(self._path(name))

    def _path(self, name: str) -> str:
        return f"trials/{self.trial_id}/{name}"


class ExperimentFolder:
    """The files of an experiment.

    Args:
        storage: The folder, `results/NAME`.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def trial(self, trial_id: str) -> TrialFolder:
        """Returns the folder of a trial."""
        return TrialFolder(self.storage, trial_id)

    @property
    def archive(self) -> Archive:
        """The trials that were moved together."""
        return Archive(self.storage)

    def read_trials(
        self,
        of: Callable[[dict[str, Any] | None], T],
        wanted: Callable[[str], bool] = lambda trial_id: True,
    ) -> dict[str, T]:
        """Returns what is known of the trials, wherever their files are.

        Args:
            of: Takes of a `trial.json` what is needed, None where there is none or a broken one; the whole of a hundred
                thousand of them would fill the memory.
            wanted: Tells by the id which trials' content is read; the others are taken as those without.

        Returns:
            What `of` returned, by the id of each trial that has a file.

        Raises:
            ArchiveError: If a part of the archive is broken.
            StorageError: If a file cannot be read.
        """
        paths = self.storage.files("trials")
        for path in paths:
            if path.count("/") < 2:
                self.storage.names(f"trials/{path}")  # a link in place of a trial is an error, and not a missing trial
        files = [found for path in paths if (found := _TRIAL_FILE.match(path))]
        known = {file["trial_id"]: of(None) for file in files}
        with_file = [file["trial_id"] for file in files if file["name"] == "trial.json" and wanted(file["trial_id"])]

        def read(trial_id: str) -> T:
            return of(self.trial(trial_id).read_trial())

        known.update(zip(with_file, several(self.storage, read, with_file), strict=True))
        # The archive counts, and it is read last: what a run moves in the meantime is found there.
        known.update((trial_id, of(content)) for trial_id, content in self.archive.trials(wanted))
        return known

    def read_experiment(self) -> dict[str, Any] | None:
        """Returns the content of `experiment.json`, None if there is none or if it is broken."""
        return _read_json(self.storage, "experiment.json")

    def write_experiment(self, content: Mapping[str, Any]) -> None:
        """Writes `experiment.json`."""
        self.storage.write("experiment.json", _json_bytes(content))

    def clear_partial_files(self) -> None:
        """Removes what a killed writer left, but for the trials' own files."""
        for name in ("", "tables"):
            self.storage.clear_partial_files(name)

    def write_table(self, name: str, data: bytes) -> None:
        """Writes a file of `tables/`."""
        self.storage.write(f"tables/{name}", data)

    def write_report(self, page: str) -> str:
        """Writes `report.html`, and returns where it is."""
        self.storage.write(REPORT_FILE, page.encode())
        return f"{self.storage.location}/{REPORT_FILE}"


def status_of(trial: Mapping[str, Any] | None) -> Status:
    """Returns how a trial stands by the content of its `trial.json`."""
    if trial is None:
        return "pending"
    status = trial.get("status")
    return status if status in STATUSES else "interrupted"


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _read_json(storage: Storage, path: str) -> dict[str, Any] | None:
    data = storage.read(path)
    if data is None:
        return None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # the second where it is too deep
        return None
    return content if isinstance(content, dict) else None
