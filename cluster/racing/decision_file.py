"""The file of a decision, `race/DATA/BRACKET-RUNG.json`: which combinations stay in a race after a rung, and why."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from msgspec import Meta

from cluster.storage.archive import map_files
from cluster.storage.file_names import FileNames, Key
from cluster.storage.filesystem import Storage
from cluster.storage.json_object import fields_of, json_object, read_fields
from data_pipeline.files.json_numbers import Count

Reason = Literal["best", "close to the best", "earlier finalist", "behind", "diverged"]
"""Why a combination stays in a race or is dropped."""

STAYS: tuple[Reason, ...] = ("best", "close to the best", "earlier finalist")
"""The reasons to stay."""

_MAX_RUNGS = 64
"""More than any race has, since each rung has at least twice the epochs of the one before."""

MAX_DECISION_BYTES = 2**26
"""The largest file that is read. With ten thousand combinations and six repetitions a file has 3 MB."""

_HEX_FLOAT = Annotated[str, Meta(pattern=r"^(0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}|inf)\Z")]


@dataclass(frozen=True)
class Competitor:
    """A combination at a rung.

    Attributes:
        key: Its key; with folds, one key for all of them.
        course: A hash of its training that ignores the number of epochs, so that a longer one is recognised.
        num_epochs: How many epochs it trains.
        epoch: The epoch of the rung.
        values: The best validation error of each repetition up to that epoch, mm, as hexadecimal floats, which keep all
            bits; `inf` if it diverged.
        reason: Why it stays or is dropped.
    """

    key: Key
    course: str
    num_epochs: Count
    epoch: Count
    values: Annotated[Sequence[_HEX_FLOAT], Meta(min_length=1)]
    reason: Reason

    @property
    def values_mm(self) -> list[float]:
        """The best validation error of each repetition up to that epoch, mm; infinite if it diverged."""
        return [float.fromhex(value) for value in self.values]

    @property
    def mean_mm(self) -> float:
        """The mean over the repetitions, mm; infinite if one diverged."""
        return math.fsum(self.values_mm) / len(self.values)

    @property
    def stays(self) -> bool:
        """Whether it stays in the race."""
        return self.reason in STAYS


@dataclass(frozen=True)
class DecisionFile:
    """A decision of a race, with the values that it is based on.

    Attributes:
        data: The validation set; with folds, the split dataset.
        size: How many of its samples are used; None for all.
        bracket: The number of the bracket, from 0. Combinations that are added later compete in a new bracket.
        rung: The number of the rung in the bracket, from 0.
        n_rungs: How many rungs the bracket has. The last one is the end of the training and has no decision.
        n_repetitions: How many repetitions the bracket has; the first rung may have fewer.
        n_epochs_allowed: How many epochs the combinations at the rung may cost in total if close ones stay.
        rule: The arguments of the rule, `SuccessiveHalving`.
        combinations: The combinations that reached the rung, the best first.
    """

    data: str
    size: Count | None
    bracket: Count
    rung: Count
    n_rungs: Annotated[int, Meta(ge=1, le=_MAX_RUNGS)]
    n_repetitions: Count
    n_epochs_allowed: Count
    combinations: Annotated[Sequence[Competitor], Meta(min_length=1)]
    rule: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> "DecisionFile":
        """Returns the decision in a file's text; ValueError if it is none."""
        valid, problems = read_fields(json_object(text), _FIELDS)
        missing = [f.name for f in dataclasses.fields(cls) if f.name not in valid and f.name != "size"]
        if problems or missing:
            raise ValueError(problems[0] if problems else f"{missing[0]} is missing")
        decision = cls(**{"size": None, **valid})
        if len(decision.by_key) < len(decision.combinations):
            raise ValueError("combinations has a key twice")
        if len({len(competitor.values) for competitor in decision.combinations}) > 1:
            raise ValueError("combinations have different numbers of values")
        try:
            math.fsum(competitor.mean_mm for competitor in decision.combinations)
        except OverflowError:
            raise ValueError("combinations have values that are too large") from None
        return decision

    def to_json(self) -> str:
        """Returns the file's text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @property
    def path(self) -> str:
        """The path of its file in the folder of decisions."""
        size = "" if self.size is None else f"@{self.size}"
        return f"{self.data}{size}/{self.bracket}-{self.rung}.json"

    @property
    def order(self) -> tuple[str, int, int, int]:
        """The sort key of a decision: by bracket, and then in the order in which they were made."""
        return self.data, self.size or 0, self.bracket, self.rung

    @cached_property
    def by_key(self) -> dict[str, Competitor]:
        """The combinations by key, the best first."""
        return {competitor.key: competitor for competitor in self.combinations}

    @property
    def stay(self) -> list[Competitor]:
        """Those that stay; after the last decision of a bracket, its finalists."""
        return [competitor for competitor in self.combinations if competitor.stays]

    @property
    def leader(self) -> Competitor:
        """The best combination at the rung."""
        return self.combinations[0]


_FIELDS = fields_of(DecisionFile)


def read_decisions(experiment: Storage) -> tuple[list[DecisionFile], list[str]]:
    """Returns the decisions of an experiment's races in order, and for each broken file a text that says why.

    Raises:
        StorageError: If a file cannot be read.
    """
    names = [name for name in experiment.files(FileNames.RACE_FOLDER) if name.endswith(".json")]

    def read(name: str) -> bytes:
        return experiment.read(f"{FileNames.RACE_FOLDER}/{name}", at_most=MAX_DECISION_BYTES) or b""

    decisions, problems = [], []
    for name, content in zip(names, map_files(experiment, read, names), strict=True):
        try:
            decision = DecisionFile.from_json(content)
            if decision.path != name:
                raise ValueError(f"it contains the decision of {decision.path}")
            decisions.append(decision)
        except ValueError as error:
            problems.append(f"{FileNames.RACE_FOLDER}/{name}: {error}")
    return sorted(decisions, key=lambda decision: decision.order), problems


def write_decision(experiment: Storage, decision: DecisionFile) -> None:
    """Writes a decision of a race into an experiment's folder."""
    experiment.write(f"{FileNames.RACE_FOLDER}/{decision.path}", decision.to_json().encode())
