"""The description of an experiment, read from its `experiment.json`: no torch, no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, NamedTuple

from cluster.results.folds import SET_PATHS
from cluster.results.names import distinguishing_column
from data_pipeline.separation.separation import Separation


class DataSet(NamedTuple):
    """A dataset that trials were measured on."""

    name: str
    size: Any
    """The size in the config; None for the whole dataset."""

    n_frames: int | None
    """None if the experiment's description does not say."""


class FoldName(NamedTuple):
    """The name of a split dataset, and the number of one of its folds, from 1."""

    dataset: str
    number: int


@dataclass(frozen=True)
class ExperimentDescription:
    """The part of `experiment.json` that a table needs.

    Attributes:
        combinations: The key and the options of each planned combination, with columns of labels among them.
        folds: The fold of each combination, by its key; empty without folds.

    The others are those of `cluster.results.results.Results`; `seeds` has one for each repetition.
    """

    name: str
    combinations: Sequence[Mapping[str, Any]]
    seeds: list[int]
    option_paths: list[str]
    distinguishing_paths: list[str]
    splits: list[str]
    data_sets: dict[str, dict[str, DataSet]]
    separations: dict[str, dict[str, Separation]]
    started: float | None
    folds: dict[str, FoldName]

    @classmethod
    def of(cls, content: Any) -> "ExperimentDescription":
        """Parses the file's content; LookupError, TypeError, ValueError or AttributeError if it is broken."""
        plan = content["plan"]
        seeds = [_checked(seed, int) for seed in _checked(plan["seeds"], list)]
        paths = list(plan["combinations"][0]["options"])
        combinations = [
            {
                "key": _checked(c["key"], str),
                "options": {path: _checked(c["options"][path], (str, int, float, NoneType)) for path in paths},
            }
            for c in plan["combinations"]
        ]
        if not seeds:
            raise ValueError("the plan has no repetitions")
        config = content["configs"]["experiment_config"]
        test_sets = {c["options"].get("experiment_config.test_set", config.get("test_set")) for c in combinations}
        splits = ["val"] if test_sets == {None} else ["val", "test"]
        data_sets = _data_sets(["train", *splits], combinations, config, content.get("data", []))
        separations = _separations(data_sets, content.get("separations", []))
        del data_sets["train"]
        folds = _folds(content["options"], combinations)
        n_frames = [found.n_frames or 0 for of_split in data_sets.values() for found in of_split.values()]
        if folds and min(n_frames) < 1:
            raise ValueError("the numbers of frames of some folds are missing")
        combinations, distinguishing = _labelled(combinations, content["options"])
        option_paths = _varied(combinations)
        distinguishing_paths = [path for path in option_paths if path in distinguishing]
        name, started = _checked(content["name"], str), _checked(content.get("started"), (int, float, NoneType))
        return cls(
            *(name, combinations, seeds, option_paths, distinguishing_paths, splits, data_sets, separations, started),
            folds,
        )


def _checked(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not a {kind}")
    return value


def _varied(combinations: Sequence[Mapping[str, Any]]) -> list[str]:
    paths = list(combinations[0]["options"])
    return [path for path in paths if len({repr(c["options"][path]) for c in combinations}) > 1]


def _labelled(
    combinations: Sequence[Mapping[str, Any]], axes: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], set[str]]:
    """Adds the columns of labels to the options of combinations, and names the columns that distinguish them."""
    options: list[dict[str, Any]] = [{} for _ in combinations]
    distinguishing = set()
    for axis in axes:
        paths, rows, labels = axis["paths"], axis["rows"], axis.get("labels")
        if labels is not None and not (len(labels) == len(rows) == len({_checked(label, str) for label in labels})):
            raise ValueError(f"the labels of {paths} are not one for each row")
        name, values = distinguishing_column(paths, rows, labels)
        distinguishing.add(name)
        of_row = {repr(list(row)): value for row, value in zip(rows, values, strict=True)}
        for combination, own in zip(combinations, options, strict=True):
            settings = [combination["options"][path] for path in paths]
            own |= dict(zip(paths, settings, strict=True))
            if name not in paths:
                own[name] = of_row[repr(settings)]
    return [{**c, "options": own} for c, own in zip(combinations, options, strict=True)], distinguishing


def _folds(axes: Sequence[Mapping[str, Any]], combinations: Sequence[Mapping[str, Any]]) -> dict[str, FoldName]:
    """Returns the fold of each combination, by its key; empty without folds."""
    axis = next((axis for axis in axes if axis.get("folds")), None)
    if axis is None:
        return {}
    if set(axis["paths"]) != set(SET_PATHS):
        raise ValueError(f"folds vary {axis['paths']}")
    names = {
        tuple(row): FoldName(_checked(dataset, str), _checked(number, int))
        for row, (dataset, number) in zip(axis["rows"], axis["folds"], strict=True)
    }
    return {c["key"]: names[tuple(c["options"][path] for path in axis["paths"])] for c in combinations}


def _data_sets(
    splits: Sequence[str],
    combinations: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, DataSet]]:
    n_frames = {(entry["name"], entry["size"]): _checked(entry["samples"], int) for entry in data}
    data_sets: dict[str, dict[str, DataSet]] = {}
    for split in splits:
        of_split = data_sets[split] = {}
        for combination in combinations:
            options = combination["options"]
            name = options.get(f"experiment_config.{split}_set", config.get(f"{split}_set"))
            size = options.get(f"experiment_config.{split}_set_size", config.get(f"{split}_set_size"))
            if name is not None:
                of_split[combination["key"]] = DataSet(str(name), size, n_frames.get((name, size)))
    return data_sets


def _separations(
    data_sets: Mapping[str, Mapping[str, DataSet]], entries: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Separation]]:
    """Returns for each split how far the frames of each combination are from its training frames, by its key."""
    known = {}
    for entry in entries:
        train, measured = entry["train"], "test" if "test" in entry else "val"
        numbers = {name: value for name, value in entry.items() if name not in ("train", measured)}
        known[(*train, measured, *entry[measured])] = Separation.from_json(numbers)
    found: dict[str, dict[str, Separation]] = {split: {} for split in data_sets if split != "train"}
    for split, of_split in found.items():
        for key, data in data_sets[split].items():
            of_train = data_sets["train"].get(key)
            separation = known.get((*of_train[:2], split, data.name, data.size)) if of_train is not None else None
            if separation is not None:
                of_split[key] = separation
    return found
