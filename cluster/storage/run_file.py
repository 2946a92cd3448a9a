"""The content of a run's file, `runs/RUN_ID.json`: what produced the trials that the run trained."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from cluster.storage.json_object import fields_of, json_object, read_fields
from data_pipeline.files.json_numbers import Count, Seconds
from data_pipeline.words import listed

SCRIPT, POSETUNE, _WORKING_FOLDER = "script", "posetune", "working_folder"

REPOSITORIES = {SCRIPT: "the script", POSETUNE: "PoseTune", _WORKING_FOLDER: "the working folder"}
"""What the repositories that a run recorded contain, in words. Version 0.4.0 recorded that of the working folder."""

_RUN_ID = r"^[0-9a-f]{1,64}\Z"

MAX_RUN_BYTES = 2**20
"""The largest file of a run that is read; it usually has 1 kB."""


def is_run_id(value: object) -> bool:
    """Returns whether a value is the id of a run, and not a path that leads elsewhere."""
    return isinstance(value, str) and re.match(_RUN_ID, value) is not None


RunId = Annotated[str, Meta(pattern=_RUN_ID)]


@dataclass(frozen=True)
class Commit:
    """The state of a git repository.

    Attributes:
        commit: The commit's hash.
        dirty: Whether files differ from it; None if git did not say.
    """

    commit: Annotated[str, Meta(pattern=r"^[0-9a-f]{4,64}\Z")]
    dirty: bool | None = None


@dataclass(frozen=True)
class RunFile:
    """What produced the trials of a run. What a file does not say, or not validly, is missing.

    Attributes:
        started: When the run began, seconds since 1970.
        versions: The version of Python and of each package; None for what is not installed.
        machine: Host, system, processor and CPU cores of the machine that ran the script.
        command: The script and its options.
        git: The commit of each repository, by its name in `REPOSITORIES`; without those that do not exist.
        code: A hash of PoseTune's code.
    """

    started: Seconds | None = None
    versions: Mapping[str, str | Count | None] = field(default_factory=dict)
    machine: Mapping[str, str | Count | None] = field(default_factory=dict)
    command: Sequence[str] = ()
    git: Mapping[str, Commit] = field(default_factory=dict)
    code: str | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "RunFile":
        """Selects what is valid from the content of a run's file, or of the `experiment.json` of version 0.4.0."""
        git = content.get("git")
        if isinstance(git, dict) and "commit" in git:
            content = {**content, "git": {_WORKING_FOLDER: git}}  # as version 0.4.0 wrote it
        valid, _ = read_fields(content, _FIELDS)
        valid["git"] = {whose: commit for whose, commit in valid.get("git", {}).items() if whose in REPOSITORIES}
        return cls(**valid)

    @classmethod
    def from_json(cls, text: str | bytes) -> "RunFile":
        """Reads a file's text; ValueError if it is not a JSON object."""
        return cls.of(json_object(text))

    def to_json(self) -> str:
        """Returns the file's text."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def origin(self) -> dict[str, str]:
        """What numbers depend on besides the settings, by name: versions, PoseTune's code, and the kind of processor.

        The script's commit is not included: it changes with each option that is added, and settings are identities.
        """
        posetune, python = (self.versions.get(name) for name in ("posetune", "python"))
        if posetune is not None and self.code is not None:
            posetune = f"{posetune} (code {self.code})"
        known = {
            "PoseTune": posetune,
            "Python": python and ".".join(str(python).split(".")[:2]),
            **{name: self.versions.get(name) for name in ("torch", "numpy")},
            "processor": self.machine.get("processor"),
        }
        return {name: str(value) for name, value in known.items() if value is not None}


def origins_of(runs: Iterable[RunFile]) -> dict[str, list[str]]:
    """Returns the distinct values in the origins of runs, by name."""
    values: dict[str, dict[str, None]] = {}
    for run in {id(run): run for run in runs}.values():  # thousands of trials have the same run
        for name, value in run.origin.items():
            values.setdefault(name, {})[value] = None
    return {name: list(found) for name, found in values.items()}


def different_origins(runs: Iterable[RunFile]) -> str:
    """Returns in what the origins of runs differ, such as 'torch 2.12.0 and 2.13.0'; empty if in nothing."""
    return "; ".join(f"{name} {listed(values)}" for name, values in origins_of(runs).items() if len(values) > 1)


_FIELDS = fields_of(RunFile)
