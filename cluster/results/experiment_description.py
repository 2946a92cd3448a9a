"""The description of an experiment, read from its `experiment.json`: no torch, no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cluster.racing.dropped import DROPPED_COLUMNS
from cluster.results.folds import DATASET, SET_PATHS
from cluster.results.names import NOT_APPLICABLE, distinguishing_column, option_texts
from cluster.results.rows import RUN_COLUMNS
from cluster.storage.experiment_file import Axis, Combination, DataEntry, ExperimentFile
from cluster.storage.json_object import read_as
from data_pipeline.files.json_numbers import Count
from data_pipeline.separation.separation import Separation
from data_pipeline.words import listed

_COLUMNS = {
    *("key", "n", "failed", "diverged", "folds", "repetition", "seed", "status", "best_epoch", DATASET),
    *(*RUN_COLUMNS, *DROPPED_COLUMNS, "role", "deciding_n", "deciding_val_distance_mm", "trial", "trial_id"),
}
"""The columns of tables that are neither options nor metrics."""


_SET = tuple[str, Count | None]
"""Name and size of a set."""


class DataSet(NamedTuple):
    """A dataset that trials were measured on."""

    name: str
    size: int | None
    """The size in the config; None for the whole dataset."""

    n_frames: int | None
    """None if the experiment's description does not say."""

    n_triples: int = 0
    """How many times three of the frames are successive."""


class FoldName(NamedTuple):
    """The name of a split dataset, and the number of one of its folds, from 1."""

    dataset: str
    number: int


class Option(NamedTuple):
    """An option of the script: a setting, or several that vary together."""

    values: Sequence[Any]
    """In the order of the script; none if it has a range."""

    depends_on: frozenset[str]
    """The options that decide whether it applies, and those that these depend on, by their columns."""


@dataclass(frozen=True)
class ExperimentDescription:
    """The part of `experiment.json` that a table needs.

    Attributes:
        combinations: The key and the options of each planned combination, with columns of labels among them.
        folds: The fold of each combination, by its key; empty without folds.
        is_raced: Whether the last run raced the combinations.
        n_confirming: How many of the repetitions, the last ones, confirm the finalists of the race.

    The others are those of `cluster.results.results.Results`; `seeds` has one for each repetition.
    """

    name: str
    combinations: Sequence[Combination]
    seeds: Sequence[int]
    option_paths: list[str]
    distinguishing_paths: list[str]
    options: dict[str, Option]
    ranges: list[str]
    n_not_proposed: int
    splits: list[str]
    data_sets: dict[str, dict[str, DataSet]]
    separations: dict[str, dict[str, Separation]]
    folds: dict[str, FoldName]
    is_raced: bool
    n_confirming: int
    problems: Sequence[str]

    @classmethod
    def of(cls, file: ExperimentFile) -> "ExperimentDescription":
        """Selects it from the file's content; ValueError if its parts contradict each other."""
        combinations = file.plan.combinations
        for path in combinations[0].options:
            if path in _COLUMNS or path.startswith(("val_", "test_")):
                raise ValueError(f"plan has an option {path!r}, which is the name of another column of its tables")
        config = file.configs.get("experiment_config", {})
        splits = ["val"] if set(_names_of("test", combinations, config)) == {None} else ["val", "test"]
        data_sets = _data_sets(["train", *splits], combinations, config, file.data)
        separations, problems = _separations(data_sets, file.separations)
        del data_sets["train"]
        folds = _folds(file.options, combinations)
        n_frames = [found.n_frames or 0 for of_split in data_sets.values() for found in of_split.values()]
        if folds and (min(n_frames, default=0) < 1 or len(n_frames) < len(splits) * len(folds)):
            raise ValueError("data lacks the numbers of frames of some folds")
        combinations, options = _labelled(combinations, file.options)
        option_paths = _varied(combinations)
        return cls(
            name=file.name,
            combinations=combinations,
            seeds=file.plan.seeds,
            option_paths=option_paths,
            distinguishing_paths=[path for path in option_paths if path in options],
            options=options,
            ranges=[axis.paths[0] for axis in file.options if axis.range is not None],
            n_not_proposed=file.n_not_proposed,
            splits=splits,
            data_sets=data_sets,
            separations=separations,
            folds=folds,
            is_raced=config.get("race") is not None,
            n_confirming=_n_confirming(config.get("race"), len(file.plan.seeds)),
            problems=[*file.problems, *problems],
        )


def _n_confirming(race: object, n_seeds: int) -> int:
    """Returns how many repetitions confirm the finalists of a race; older versions do not write it."""
    arguments = race.get("args") if isinstance(race, Mapping) else None
    given = arguments.get("confirm", 0) if isinstance(arguments, Mapping) else 0
    n_confirming: int = read_as(Count, given, "race.args.confirm")
    if n_confirming and n_confirming >= n_seeds:
        raise ValueError(f"plan has {n_seeds} seeds, which are too few for {n_confirming} repetitions that confirm")
    return n_confirming


def _varied(combinations: Sequence[Combination]) -> list[str]:
    paths = list(combinations[0].options)
    return [path for path in paths if len({repr(c.options[path]) for c in combinations}) > 1]


def setting_of(file: ExperimentFile, combination: Combination, path: str) -> Any:
    """Returns a setting of `experiment_config` or `solver_config` as a combination has it; None without one."""
    section, _, name = path.partition(".")
    own = combination.options.get(path, NOT_APPLICABLE)
    return file.configs.get(section, {}).get(name) if own == NOT_APPLICABLE else own


def where_options_apply(axes: Sequence[Axis], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the column of each option and where it applies: 'model CorrectorLCN'; empty for everywhere.

    Args:
        axes: The options.
        names: The names of columns to show; a column that is missing has its own.
    """
    columns = [
        distinguishing_column(axis.paths, axis.rows, axis.labels) if axis.range is None else (axis.paths[0], [])
        for axis in axes
    ]
    found = []
    for axis, (column, _) in zip(axes, columns, strict=True):
        texts = []
        for place, rows in axis.when:
            other, values = columns[place]
            shown = option_texts(values)
            texts.append(f"{names.get(other, other)} {' or '.join(shown[row] for row in rows)}")
        found.append((column, listed(texts) if texts else ""))
    return found


def _labelled(combinations: Sequence[Combination], axes: Sequence[Axis]) -> tuple[list[Combination], dict[str, Option]]:
    """Adds the columns of labels to the options of combinations, and describes the columns that distinguish them."""
    options: list[dict[str, Any]] = [{} for _ in combinations]
    names: list[str] = []
    described: dict[str, Option] = {}
    for axis in axes:
        if axis.range is None:
            name, values = distinguishing_column(axis.paths, axis.rows, axis.labels)
        else:
            name, values = axis.paths[0], []
        conditions = [names[place] for place, _ in axis.when]
        depends_on = frozenset(conditions).union(*(described[other].depends_on for other in conditions))
        names.append(name)
        described[name] = Option(values, depends_on)
        of_row = {repr(list(row)): value for row, value in zip(axis.rows, values, strict=True)}
        for combination, own in zip(combinations, options, strict=True):
            settings = [combination.options.get(path) for path in axis.paths]
            own |= dict(zip(axis.paths, settings, strict=True))
            if name not in axis.paths and set(settings) == {NOT_APPLICABLE}:
                own[name] = NOT_APPLICABLE
            elif name not in axis.paths:
                if repr(settings) not in of_row:
                    raise ValueError(f"plan has a combination whose {axis.paths} are in no row of options")
                own[name] = of_row[repr(settings)]
    if any(own.keys() < c.options.keys() for c, own in zip(combinations, options, strict=True)):
        raise ValueError("plan has settings that vary and are not in options")
    return [replace(c, options=own) for c, own in zip(combinations, options, strict=True)], described


def _folds(axes: Sequence[Axis], combinations: Sequence[Combination]) -> dict[str, FoldName]:
    """Returns the fold of each combination, by its key; empty without folds."""
    axis = next((axis for axis in axes if axis.folds), None)
    if axis is None:
        return {}
    if set(axis.paths) != set(SET_PATHS):
        raise ValueError(f"options has folds that vary {axis.paths}")
    names = {tuple(row): FoldName(*fold) for row, fold in zip(axis.rows, axis.folds or (), strict=True)}
    try:
        return {c.key: names[tuple(c.options[path] for path in axis.paths)] for c in combinations}
    except KeyError as error:
        raise ValueError("plan has a combination on sets that are not a fold") from error


def _names_of(split: str, combinations: Sequence[Combination], config: Mapping[str, Any]) -> list[str | None]:
    """Returns the name of each combination's set; None for those that have none."""
    path = f"{split}_set"
    names = [c.options.get(f"experiment_config.{path}", config.get(path)) for c in combinations]
    return [read_as(str | None, name, path) for name in names]


def _data_sets(
    splits: Sequence[str],
    combinations: Sequence[Combination],
    config: Mapping[str, Any],
    data: Sequence[DataEntry],
) -> dict[str, dict[str, DataSet]]:
    known = {(entry.name, entry.size): (entry.samples, entry.triples) for entry in data}
    data_sets: dict[str, dict[str, DataSet]] = {}
    for split in splits:
        of_split = data_sets[split] = {}
        path = f"{split}_set_size"
        for combination, name in zip(combinations, _names_of(split, combinations, config), strict=True):
            size = combination.options.get(f"experiment_config.{path}", config.get(path))
            size = read_as(Count | None, size, path)
            if name is not None:
                of_split[combination.key] = DataSet(name, size, *known.get((name, size), (None, 0)))
    return data_sets


def _separations(
    data_sets: Mapping[str, Mapping[str, DataSet]], entries: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Separation]], list[str]]:
    """Returns for each split how far the frames of each combination are from its training frames, by its key.

    The second value says which entries are not valid.
    """
    known, problems = {}, []
    for place, entry in enumerate(entries):
        where, split = f"separations[{place}]", "test" if "test" in entry else "val"
        try:
            train, tested = (read_as(_SET, entry.get(name), f"{where}.{name}") for name in ("train", split))
            known[(*train, split, *tested)] = read_as(Separation, entry, where)
        except ValueError as error:
            problems.append(str(error))
    found: dict[str, dict[str, Separation]] = {split: {} for split in data_sets if split != "train"}
    for split, of_split in found.items():
        for key, data in data_sets[split].items():
            of_train = data_sets["train"].get(key)
            separation = known.get((*of_train[:2], split, data.name, data.size)) if of_train is not None else None
            if separation is not None:
                of_split[key] = separation
    return found, problems
