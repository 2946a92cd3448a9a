"""The options of an experiment: which settings vary, over which values, and all their combinations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

from cluster.planning.config import ConfigError, Problem, Settings, check_value, without_numpy
from cluster.planning.identity import (
    NotEncodableError,
    Primitive,
    canonical_json,
    check_sendable,
    encode,
    unique_labels,
)
from cluster.results.names import distinguishing_column
from data_pipeline.user_error import did_you_mean
from data_pipeline.words import value_text

Key = str | tuple[str | None, ...]
RowIndices = tuple[int, ...]
"""A combination: the index of the row that it takes of each axis."""

OPTIONS_OUTSIDE_HYPERPARAMS = {
    "experiment_config": (
        *("train_set", "train_set_size", "val_set", "val_set_size", "test_set", "test_set_size"),
        *("use_preset", "normalizer", "init_weights_path"),
    ),
    "solver_config": ("num_epochs", "batch_size", "matmul_precision"),
}


class FoldName(NamedTuple):
    """A fold of a split dataset."""

    dataset: str
    number: int
    """The number of the fold, from 1."""


@dataclass(frozen=True)
class Axis:
    """Settings that vary together, row by row; an ordinary option is an axis with one setting.

    Attributes:
        paths: The dotted path of each setting.
        rows: The values, one for each path in each row.
        labels: The same values as JSON primitives, for tables and records.
        folds: The fold of each row, if the rows are folds of datasets.
        given_labels: The user's label of each row, shown in place of its values; None for none.
    """

    paths: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    labels: tuple[tuple[Primitive, ...], ...]
    folds: tuple[FoldName, ...] = ()
    given_labels: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """One name for the axis: its paths together."""
        return " & ".join(self.paths)

    @cached_property
    def distinguishing_column(self) -> tuple[str, list[Primitive]]:
        """The one column that tables have for it: its name, and its value in each row."""
        return distinguishing_column(self.paths, self.labels, self.given_labels)


class SearchSpace:
    """The base settings and the axes along which they vary."""

    def __init__(self, base: Settings) -> None:
        self.base = base
        self.axes: list[Axis] = []

    def add(self, keys: Sequence[Key], rows: Any, folds: Sequence[FoldName] = (), labels: Any = None) -> None:
        """Adds an axis.

        Args:
            keys: A dotted path, or its parts as a tuple, for each setting that varies.
            rows: A list; each row has a value for each key.
            folds: The fold of each row, if the rows are folds.
            labels: A label for each row; None for none.

        Raises:
            ConfigError: With all problems of the axis; then nothing is added.
        """
        if not isinstance(keys, list | tuple) or not keys:
            text = f"got {value_text(keys)} as keys; allowed: a list of at least one"
            raise ConfigError([Problem("add_joint_options", text)])
        paths = [_dotted(key) for key in keys]
        problems = [
            problem for i, path in enumerate(paths) for problem in self._check_path(path, [*self.paths, *paths[:i]])
        ]
        if not problems:
            rows = without_numpy(rows)
            problems = _check_rows(paths, rows)
        if not problems and labels is not None:
            problems = _check_labels(paths, labels, len(rows))
        if problems:
            raise ConfigError(problems)
        columns = [unique_labels(_distinct(column)) for column in zip(*rows, strict=True)]
        values = zip(*map(_labels_of, columns, zip(*rows, strict=True)), strict=True)
        given_labels = None if labels is None else tuple(labels)
        self.axes.append(Axis(tuple(paths), tuple(map(tuple, rows)), tuple(values), tuple(folds), given_labels))

    def __len__(self) -> int:
        """The number of combinations."""
        return prod(len(axis.rows) for axis in self.axes)

    @property
    def folds(self) -> tuple[FoldName, ...]:
        """The folds that the combinations are trained on; none without folds."""
        return next((axis.folds for axis in self.axes if axis.folds), ())

    @property
    def paths(self) -> list[str]:
        """The paths of all settings that vary."""
        return [path for axis in self.axes for path in axis.paths]

    def values(self, path: str) -> list[Any]:
        """Returns the values of a setting: those of its axis, or that of the base."""
        for axis in self.axes:
            if path in axis.paths:
                return [row[axis.paths.index(path)] for row in axis.rows]
        section, key = _parts(path)
        return [getattr(self.base.sections[section], key)]

    def combinations(self) -> Iterator[RowIndices]:
        """Yields all combinations. The last axis varies fastest."""
        return product(*(range(len(axis.rows)) for axis in self.axes))

    def options(self, row_indices: RowIndices) -> dict[str, Primitive]:
        """Returns the labels of a combination's values by path."""
        return {
            path: label
            for axis, row in zip(self.axes, row_indices, strict=True)
            for path, label in zip(axis.paths, axis.labels[row], strict=True)
        }

    def value(self, path: str, row_indices: RowIndices) -> Any:
        """Returns a combination's value of a setting."""
        for axis, row in zip(self.axes, row_indices, strict=True):
            if path in axis.paths:
                return axis.rows[row][axis.paths.index(path)]
        return self.values(path)[0]

    def settings(self, row_indices: RowIndices) -> Settings:
        """Returns a combination's complete settings."""
        configs = self.base.sections
        changes: dict[str, dict[str, Any]] = {section: {} for section in configs}
        for axis, row in zip(self.axes, row_indices, strict=True):
            for path, value in zip(axis.paths, axis.rows[row], strict=True):
                section, key, *inner = _parts(path)
                changed = changes[section]
                changed[key] = _with_value(changed.get(key, getattr(configs[section], key)), inner, value)
        experiment = changes["experiment_config"]
        if experiment.get("test_set", "") is None and any(self.values("experiment_config.test_set")):
            # The size is meant for the combinations with a test set.
            experiment["test_set_size"] = None
        changed_sections = {section: replace(configs[section], **made) for section, made in changes.items() if made}
        return Settings(*(configs | changed_sections).values()).with_derived()  # type: ignore[arg-type]

    def _check_path(self, path: str, others: Sequence[str]) -> list[Problem]:
        section, *parts = _parts(path)
        allowed = OPTIONS_OUTSIDE_HYPERPARAMS.get(section)
        base = vars(self.base.sections[section])
        if allowed is not None and (not parts or parts[0] in base.keys() - set(allowed)):
            return [Problem(path, f"it cannot be an option; in {section} these can: {', '.join(allowed)}")]
        for other in others:
            if f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}."):
                return [Problem(path, f"{other} already varies")]
        at: Any = base
        walked = section
        for part in parts:
            if not isinstance(at, Mapping) or part not in at:
                known = list(at) if isinstance(at, Mapping) else []
                hint = f"{did_you_mean(part, known)}; an option's base value must be set"
                if at is base:
                    hint = self._in_other_dicts(part) or hint
                return [Problem(path, f"{walked} has no {part!r}{hint}")]
            at, walked = at[part], f"{walked}.{part}"
        return []

    def _in_other_dicts(self, key: str) -> str:
        """Returns a hint for a key that another dict has; an empty string if none has it."""
        for section, allowed in OPTIONS_OUTSIDE_HYPERPARAMS.items():
            if key in allowed:
                return f"; did you mean '{section}.{key}'?"
            if key in vars(self.base.sections[section]):
                return f"; {section} has it, but it cannot be an option"
        return ""


def _with_value(setting: Any, keys: Sequence[str], value: Any) -> Any:
    """Returns a copy of a setting with another value at a path of keys of nested dicts; without keys the value."""
    return {**setting, keys[0]: _with_value(setting[keys[0]], keys[1:], value)} if keys else value


def _dotted(key: Key) -> str:
    parts = [part for part in key if part is not None] if isinstance(key, tuple) else [key]
    if not parts or not all(isinstance(part, str) and part for part in parts):
        raise ConfigError(
            [
                Problem(
                    value_text(key),
                    "an option's key is a dotted path such as 'optimizer_args.lr', or a tuple of its parts",
                )
            ]
        )
    return ".".join(parts).removeprefix("base_hyperparams.")


def _parts(path: str) -> list[str]:
    parts = path.split(".")
    return parts if parts[0] in OPTIONS_OUTSIDE_HYPERPARAMS else ["base_hyperparams", *parts]


def _check_rows(paths: Sequence[str], rows: Any) -> list[Problem]:
    where = " & ".join(paths)
    if not isinstance(rows, list | tuple) or not rows:
        return [Problem(where, f"got {value_text(rows)}; allowed: a list with at least one value")]
    if not all(isinstance(row, list | tuple) and len(row) == len(paths) for row in rows):
        return [Problem(where, f"each row must be a list of {len(paths)} values, one for each key")]
    problems = []
    seen = set()
    for row in rows:
        for path, value in zip(paths, row, strict=True):
            problems += _check_option_value(path, value)
        if not problems:
            encoded = canonical_json(encode(row))
            if encoded in seen:
                problems.append(Problem(where, f"{value_text(row[0] if len(row) == 1 else row)} is listed twice"))
            seen.add(encoded)
    return problems


def _check_labels(paths: Sequence[str], labels: Any, n_rows: int) -> list[Problem]:
    where = f"labels of {' & '.join(paths)}"
    if not isinstance(labels, list | tuple) or len(labels) != n_rows:
        return [Problem(where, f"got {labels!r}; allowed: a list of {n_rows} texts, one for each row")]
    wrong = [label for label in labels if not isinstance(label, str) or not label.strip() or not label.isprintable()]
    if wrong:
        return [Problem(where, f"got {wrong[0]!r}; a label is a text that can be read on one line")]
    twice = [label for place, label in enumerate(labels) if label in labels[:place]]
    return [Problem(where, f"{twice[0]!r} is the label of two rows; each row needs its own")] if twice else []


def _check_option_value(path: str, value: Any) -> list[Problem]:
    section, key, *inner = _parts(path)
    allowed = None if inner else check_value(section, key, value)
    if allowed is not None:
        return [Problem(path, f"got {value_text(value)}; allowed: {allowed}")]
    try:
        encode(value)
        check_sendable(value)
    except NotEncodableError as error:
        return [Problem(path, str(error))]
    return []


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Returns the values without duplicates, which a column of joint options may have."""
    first: dict[str, Any] = {}
    for value in values:
        first.setdefault(canonical_json(encode(value)), value)
    return list(first.values())


def _labels_of(labels: Sequence[Primitive], values: Sequence[Any]) -> list[Primitive]:
    order = [canonical_json(encode(value)) for value in _distinct(values)]
    return [labels[order.index(canonical_json(encode(value)))] for value in values]
