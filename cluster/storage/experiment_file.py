"""The content of an experiment's file, `experiment.json`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from cluster.storage.file_names import FileNames, Key
from cluster.storage.json_object import fields_of, json_object, read_fields
from cluster.storage.run_file import RunFile, is_run_id
from data_pipeline.files.json_numbers import Count, Number
from data_pipeline.user_error import UserError

MAX_EXPERIMENT_BYTES = 2**28
"""The largest file that is read; that of ten thousand trials has 3 MB."""

MAX_TRIALS = 1_000_000
"""The largest plan that is read; its table takes some gigabytes."""

MAX_OPTIONS = 1_000
"""The most options that are read. Each may depend on all others."""


class NoResultsError(UserError):
    """A folder does not hold an experiment, or the experiment's description is broken."""

    @classmethod
    def of(cls, location: str, problem: str | None) -> "NoResultsError":
        """Names the folder, and what is wrong with the description; None if there is none."""
        why = "" if problem is None else f": {problem}"
        return cls(f"{location} holds no experiment ({FileNames.EXPERIMENT} is missing or broken){why}")


Label = str | int | float | bool | None
"""The value of an option as tables show it."""

_Some = Meta(min_length=1)


@dataclass(frozen=True)
class Combination:
    """A planned combination: its key, which is the name of a folder, and the labels of its options by path."""

    key: Key
    options: Mapping[str, Label]


@dataclass(frozen=True)
class Plan:
    """The planned trials: each combination with each seed, at least one of each."""

    seeds: Annotated[Sequence[Count], _Some]
    combinations: Annotated[Sequence[Combination], _Some]

    def trial_ids(self) -> Iterator[str]:
        """Yields the id of each trial, 'KEY/REPETITION'."""
        for repetition in range(len(self.seeds)):
            yield from (f"{combination.key}/{repetition}" for combination in self.combinations)


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, see `cluster.searching.dimensions.Range`."""

    low: Number
    high: Number
    log: bool = False
    integer: bool = False
    step: Number | None = None


@dataclass(frozen=True)
class Axis:
    """Settings that vary together.

    Attributes:
        paths: The settings.
        rows: Their labels in each row; none if it has a range.
        range: The range that a search chose from; None if it has rows.
        folds: The split dataset and the number of the fold of each row; None if the rows are not folds.
        labels: The user's label of each row; None for none.
        when: The conditions under which it applies: the indices of earlier axes, each with its rows that fulfil it.
    """

    paths: Annotated[Sequence[str], _Some]
    rows: Sequence[Sequence[Label]] = ()
    range: Range | None = None
    folds: Sequence[tuple[str, Count]] | None = None
    labels: Sequence[str] | None = None
    when: Sequence[tuple[Count, Annotated[Sequence[Count], _Some]]] = ()


@dataclass(frozen=True)
class DataEntry:
    """A dataset that the run read.

    Attributes:
        name: Its name.
        samples: The number of its frames.
        size: The size in the config; None for the whole dataset.
        use_preset: Whether the input are the stored predictions.
        fingerprint: Identifies its content.
        poses: The range of its poses, see `data_pipeline.pose_range.PoseRange`.
        triples: How many times three of its frames are successive.
    """

    name: str
    samples: Count
    size: Count | None = None
    use_preset: bool | None = None
    fingerprint: str | None = None
    poses: Mapping[str, Any] | None = None
    triples: Count = 0


@dataclass(frozen=True)
class ExperimentFile:
    """The valid content of an experiment's file.

    The first four are always there. Another one that is missing or not valid has its default.

    Attributes:
        name: The experiment's name; the folder may have been renamed.
        configs: The three dicts, encoded.
        options: The options, as they were registered.
        plan: The planned trials.
        data: The datasets that the run read.
        separations: How far sets are from training sets, each as the run wrote it.
        stands_for: In a race, the key of the next shorter training that decisions name in place of a longer one, by
            the longer one's key.
        n_not_proposed: How many combinations a search still has to propose.
        run_of_0_4_0: The last run, by its id, if version 0.4.0 wrote the file: later versions write it to `runs/`.
        problems: What is in the file but not valid: for each field a text that begins with its name.
    """

    name: str
    configs: Mapping[str, Mapping[str, Any]]
    options: Sequence[Axis]
    plan: Plan
    data: Sequence[DataEntry] = ()
    separations: Sequence[Mapping[str, Any]] = ()
    stands_for: Mapping[Key, Key] = field(default_factory=dict)
    n_not_proposed: Count = 0
    run_of_0_4_0: Mapping[str, RunFile] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @classmethod
    def from_json(cls, text: str | bytes) -> "ExperimentFile":
        """Reads a file's text.

        Raises:
            ValueError: If name, configs, options or plan are missing or not valid; the message says what is wrong.
        """
        content = json_object(text)
        valid, problems = read_fields(content, _FIELDS)
        for name in ("name", "configs", "options", "plan"):
            if name not in valid:
                raise ValueError(next((text for text in problems if text.startswith(name)), f"{name} is missing"))
        _require_consistent(valid["options"], valid["plan"])
        run_id = content.get("run", "")
        run_of_0_4_0 = {run_id: RunFile.of(content)} if "versions" in content and is_run_id(run_id) else {}
        return cls(**valid, run_of_0_4_0=run_of_0_4_0, problems=problems)


_FIELDS = fields_of(ExperimentFile, without=("run_of_0_4_0", "problems"))


def _require_consistent(options: Sequence[Axis], plan: Plan) -> None:
    """Raises a ValueError unless each row has a label for each path, and combinations differ and have one shape."""
    if len(options) > MAX_OPTIONS:
        raise ValueError(f"options are more than {MAX_OPTIONS:,}")
    for place, axis in enumerate(options):
        if (axis.range is None) == (not axis.rows) or (axis.range is not None and len(axis.paths) > 1):
            raise ValueError(f"options has neither rows nor a range of {axis.paths}")
        if any(len(row) != len(axis.paths) for row in axis.rows):
            raise ValueError(f"options has rows with more or fewer values than {axis.paths}")
        if axis.labels is not None and not len(set(axis.labels)) == len(axis.labels) == len(axis.rows):
            raise ValueError(f"options has labels of {axis.paths} that are not one for each row")
        if any(other >= place for other, _ in axis.when):
            raise ValueError(f"options has a condition of {axis.paths} on an option that does not come before")
        if any(max(rows) >= len(options[other].rows) for other, rows in axis.when):
            raise ValueError(f"options has conditions of {axis.paths} that name no row")
    if len(plan.seeds) * len(plan.combinations) > MAX_TRIALS:
        raise ValueError(f"plan has more than {MAX_TRIALS:,} trials")
    if len({combination.key for combination in plan.combinations}) < len(plan.combinations):
        raise ValueError("plan has a key twice")
    paths = plan.combinations[0].options.keys()
    if any(combination.options.keys() != paths for combination in plan.combinations):
        raise ValueError("plan has combinations with different options")
