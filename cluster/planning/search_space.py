"""The options of an experiment: which settings vary, over which values, and all their combinations."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from cluster.planning.config import ConfigError, Problem, Settings, check_value, without_numpy
from cluster.planning.identity import (
    NotEncodableError,
    Primitive,
    canonical_json,
    check_sendable,
    constructor_parameters,
    encode,
    label,
    takes_any_name,
    unique_labels,
)
from cluster.results.names import NOT_APPLICABLE, distinguishing_column, option_texts
from cluster.searching.dimensions import Choice, Choices, Dimension, Range
from data_pipeline.user_error import did_you_mean
from data_pipeline.words import first_of, listed, value_text

Key = str | tuple[str | None, ...]
RowIndices = Choices
"""A combination: for each axis the index of its row, or its value in the range; None where the axis does not apply."""

_MOST_SHOWN = 5

When = tuple[tuple[int, frozenset[int]], ...]
"""Conditions: the indices of earlier axes, each with the rows for which the condition holds."""

OPTIONS_OUTSIDE_HYPERPARAMS = {
    "experiment_config": (
        *("train_set", "train_set_size", "val_set", "val_set_size", "test_set", "test_set_size"),
        *("use_preset", "normalizer", "init_weights_path"),
    ),
    "solver_config": ("num_epochs", "batch_size", "matmul_precision"),
}


TEST_SET_PATHS = ("experiment_config.test_set", "experiment_config.test_set_size")
"""The settings that have no influence on validation errors."""


class FoldName(NamedTuple):
    """A fold of a split dataset."""

    dataset: str
    number: int
    """The number of the fold, from 1."""


@dataclass(frozen=True)
class Axis:
    """Settings that vary together, row by row, or one setting with a range. An ordinary option has one setting.

    Attributes:
        paths: The dotted path of each setting.
        rows: The values, one for each path in each row; none if it has a range.
        labels: The same values as JSON primitives, for tables and records.
        folds: The fold of each row, if the rows are folds of datasets.
        given_labels: The user's label of each row, shown in place of its values; None for none.
        range: The range of its only setting; None if it has rows.
        when: The conditions under which it applies. Elsewhere its settings keep their base values.
    """

    paths: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    labels: tuple[tuple[Primitive, ...], ...]
    folds: tuple[FoldName, ...] = ()
    given_labels: tuple[str, ...] | None = None
    range: Range | None = None
    when: When = ()

    @property
    def name(self) -> str:
        """One name for the axis: its paths together."""
        return " & ".join(self.paths)

    @property
    def varies(self) -> bool:
        """Whether it has more than one value."""
        return self.range is not None or len(self.rows) > 1

    @property
    def dimension(self) -> Dimension:
        """What a search chooses from. It does not choose folds: each combination is trained on all of them."""
        return Dimension(self.range or (0 if self.folds else len(self.rows)), self.when)

    @cached_property
    def distinguishing_column(self) -> tuple[str, list[Primitive]]:
        """The one column that tables have for it: its name, and its value in each row."""
        if self.range is not None:
            return self.paths[0], []
        return distinguishing_column(self.paths, self.labels, self.given_labels)

    def values_of(self, choice: Choice) -> tuple[Any, ...]:
        """Returns the value of each path; none if the axis does not apply."""
        if choice is None:
            return ()
        return (choice,) if self.range is not None else self.rows[int(choice)]

    def labels_of(self, choice: Choice) -> tuple[Primitive, ...]:
        """Returns the label of each path's value."""
        if choice is None:
            return (NOT_APPLICABLE,) * len(self.paths)
        return (choice,) if self.range is not None else self.labels[int(choice)]

    @cached_property
    def _texts(self) -> list[str]:
        return option_texts(self.distinguishing_column[1])

    def text(self, choice: Choice) -> str:
        """Returns a choice as a short text."""
        if choice is None:
            return NOT_APPLICABLE
        return option_texts([choice])[0] if self.range is not None else self._texts[int(choice)]

    def to_json(self) -> dict[str, Any]:
        """Returns its description in the files of results and of a search's rounds."""
        content: dict[str, Any] = {"paths": list(self.paths)}
        content |= {"rows": [list(row) for row in self.labels]} if self.range is None else {"range": asdict(self.range)}
        if self.when:
            content["when"] = [[place, sorted(rows)] for place, rows in self.when]
        return content


class SearchSpace:
    """The base settings and the axes along which they vary."""

    def __init__(self, base: Settings) -> None:
        self.base = base
        self.axes: list[Axis] = []

    def add(
        self, keys: Sequence[Key], rows: Any, folds: Sequence[FoldName] = (), labels: Any = None, when: Any = None
    ) -> None:
        """Adds an axis.

        Args:
            keys: A dotted path, or its parts as a tuple, for each setting that varies.
            rows: A list; each row has a value for each key.
            folds: The fold of each row, if the rows are folds.
            labels: A label for each row; None for none.
            when: The values that other options must have; None for none.

        Raises:
            ConfigError: With all problems of the axis; then nothing is added.
        """
        if not isinstance(keys, list | tuple) or not keys:
            text = f"got {value_text(keys)} as keys; allowed: a list of at least one"
            raise ConfigError([Problem("add_joint_options", text)])
        paths = [dotted(key) for key in keys]
        problems = [
            problem for i, path in enumerate(paths) for problem in self._check_path(path, [*self.paths, *paths[:i]])
        ]
        if not problems:
            rows = without_numpy(rows)
            problems = _check_rows(paths, rows)
        if not problems and labels is not None:
            problems = _check_labels(paths, labels, len(rows))
        conditions, wrong = self._conditions(paths, when)
        problems += wrong
        if problems:
            raise ConfigError(problems)
        columns = [unique_labels(_distinct(column)) for column in zip(*rows, strict=True)]
        values = zip(*map(_labels_of, columns, zip(*rows, strict=True)), strict=True)
        given_labels = None if labels is None else tuple(labels)
        axis = Axis(tuple(paths), tuple(map(tuple, rows)), tuple(values), tuple(folds), given_labels, when=conditions)
        self.axes.append(axis)

    def add_range(self, key: Key, of: Range, when: Any = None) -> None:
        """Adds an axis with a range.

        Args:
            key: A dotted path, or its parts as a tuple.
            of: The range.
            when: See `add`.

        Raises:
            ConfigError: With all problems of the axis; then nothing is added.
        """
        path = dotted(key)
        problems = self._check_path(path, self.paths)
        if not problems and path.startswith("experiment_config."):
            problems = [Problem(path, "it cannot have a range; use add_options")]
        if not problems:
            wrong = [] if of.problem is None else [Problem(path, of.problem)]
            problems = wrong or _check_option_value(path, of.low) or _check_option_value(path, of.high)
        if not problems and not of.integer:
            of = replace(of, low=float(of.low), high=float(of.high))  # like the numbers between them
            problems = [
                replace(problem, text=f"{problem.text}; add integer=True")
                for problem in _check_option_value(path, of.high)
            ]
        conditions, more = self._conditions([path], when)
        if problems or more:
            raise ConfigError([*problems, *more])
        self.axes.append(Axis((path,), (), (), range=of, when=conditions))

    @property
    def has_ranges(self) -> bool:
        """Whether an axis has a range, so that only a search can train the space."""
        return any(axis.range is not None for axis in self.axes)

    @property
    def folds(self) -> tuple[FoldName, ...]:
        """The folds that the combinations are trained on; none without folds."""
        return next((axis.folds for axis in self.axes if axis.folds), ())

    @property
    def paths(self) -> list[str]:
        """The paths of all settings that vary."""
        return [path for axis in self.axes for path in axis.paths]

    def values(self, path: str) -> list[Any]:
        """Returns the values of a setting: those of its axis, of a range the ends, or otherwise the base value."""
        for axis in self.axes:
            if path in axis.paths:
                found = [row[axis.paths.index(path)] for row in axis.rows]
                found += [] if axis.range is None else [axis.range.low, axis.range.high]
                return [*found, self._base_value(path)] if axis.when else found
        return [self._base_value(path)]

    def _base_value(self, path: str) -> Any:
        section, key, *inner = _parts(path)
        value = getattr(self.base.sections[section], key)
        for part in inner:
            value = value[part]
        return value

    def combinations(self) -> list[RowIndices]:
        """Returns all combinations of a space without ranges. The last axis varies fastest."""
        return self._product([range(len(axis.rows)) for axis in self.axes])

    def _product(self, choices: Sequence[Sequence[Choice]]) -> list[RowIndices]:
        """Returns all combinations of the given choices for each axis."""
        found: list[RowIndices] = [()]
        for axis, of_axis in zip(self.axes, choices, strict=True):
            when = Dimension(1, axis.when)
            found = [
                (*earlier, choice) for earlier in found for choice in (of_axis if when.applies(earlier) else [None])
            ]
        return found

    def options(self, row_indices: RowIndices) -> dict[str, Primitive]:
        """Returns the labels of a combination's values by path."""
        return {
            path: label
            for axis, choice in zip(self.axes, row_indices, strict=True)
            for path, label in zip(axis.paths, axis.labels_of(choice), strict=True)
        }

    def value(self, path: str, row_indices: RowIndices) -> Any:
        """Returns a combination's value of a setting."""
        for axis, choice in zip(self.axes, row_indices, strict=True):
            if path in axis.paths and choice is not None:
                return axis.values_of(choice)[axis.paths.index(path)]
        return self._base_value(path)

    def settings(self, row_indices: RowIndices) -> Settings:
        """Returns a combination's complete settings."""
        configs = self.base.sections
        changes: dict[str, dict[str, Any]] = {section: {} for section in configs}
        not_applicable: list[str] = []
        for axis, choice in zip(self.axes, row_indices, strict=True):
            if choice is None:
                not_applicable += axis.paths
                continue
            for path, value in zip(axis.paths, axis.values_of(choice), strict=True):
                section, key, *inner = _parts(path)
                changed = changes[section]
                changed[key] = _with_value(changed.get(key, getattr(configs[section], key)), inner, value)
        experiment = changes["experiment_config"]
        if experiment.get("test_set", "") is None and any(self.values("experiment_config.test_set")):
            # The size is meant for the combinations with a test set.
            experiment["test_set_size"] = None
        changed_sections = {section: replace(configs[section], **made) for section, made in changes.items() if made}
        settings = Settings(*(configs | changed_sections).values())  # type: ignore[arg-type]
        return _without_unknown_arguments(settings, not_applicable).with_derived()

    def _conditions(self, paths: Sequence[str], when: Any) -> tuple[When, list[Problem]]:
        """Returns the conditions of an axis, given as values of other options by their keys, and their problems."""
        where = f"when of {' & '.join(paths)}"
        if when is None:
            return (), []
        if not isinstance(when, Mapping) or not when:
            return (), [Problem(where, f"got {value_text(when)}; allowed: a dict of options and the value of each")]
        in_data = [path for path in paths if path.startswith("experiment_config.")]
        if in_data:
            return (), [Problem(where, f"{in_data[0]} applies to all combinations, so it takes no condition")]
        found, problems = [], []
        for key, value in without_numpy(when).items():
            path = dotted(key)
            place = next((i for i, axis in enumerate(self.axes) if path in axis.paths and axis.rows), None)
            if place is None:
                has_range = any(path in axis.paths for axis in self.axes)
                text = (
                    "has a range; a condition needs options"
                    if has_range
                    else "is not an option yet; add its options first"
                )
                problems.append(Problem(where, f"{path} {text}"))
                continue
            rows, wrong = self._rows_with(place, {path: value})
            are_lists = any(isinstance(known, list | tuple) for known in self.values(path))
            several = "; a condition names one value" if isinstance(value, list | tuple) and not are_lists else ""
            problems += [replace(problem, path=where, text=problem.text + several) for problem in wrong]
            found.append((place, frozenset(rows)))
        return tuple(found), problems

    def _rows_with(self, place: int, values: Mapping[str, Any]) -> tuple[list[int], list[Problem]]:
        """Returns the rows of an axis with the given values, by path; and a problem if there are none."""
        axis = self.axes[place]
        problems = [problem for path, value in values.items() for problem in _check_option_value(path, value)]
        if problems:
            return [], problems
        wanted = {axis.paths.index(path): _text_of(value) for path, value in values.items()}
        found = [i for i, row in enumerate(axis.rows) if all(_text_of(row[j]) == text for j, text in wanted.items())]
        if found:
            return found, []
        known = first_of([axis.text(i) for i in range(len(axis.rows))], _MOST_SHOWN)
        texts = [str(label(value)) for value in values.values()]
        return [], [Problem(" & ".join(values), f"{listed(texts)} is not among its options: {known}")]

    def n_combinations(self, at_most: int) -> int:
        """Returns how many combinations a search can propose, but at most `at_most`. Folds do not count."""
        found: list[RowIndices] = [()]
        for axis in self.axes:
            dimension = axis.dimension
            of = dimension.choices if isinstance(dimension.choices, int) else dimension.choices.n_values
            places = range(min(at_most, at_most if of is None else of))
            longer = ((*one, place) for one in found for place in (places if dimension.applies(one) else [None]))
            found = list(islice(longer, at_most))  # each has at least one continuation, so there are at least as many
        return len(found)

    def point(self, given: Mapping[str, Any]) -> tuple[RowIndices, list[Problem]]:
        """Returns the combination with the given values by path, and the base values for all other settings.

        The second result has a problem for each value that is not in the space; if there are any, the first result is
        meaningless.
        """
        found: list[Choice] = []
        problems = []
        for place, axis in enumerate(self.axes):
            own = {path: value for path, value in given.items() if path in axis.paths}
            choice = None
            if not axis.dimension.applies(found):
                why = "a point cannot choose a fold" if axis.folds else "it does not apply to this point"
                problems += [Problem(path, why) for path in own]
            elif own:
                choice, wrong = self._choice_of(place, own)
                problems += wrong
            else:
                choice, wrong = self._choice_of(place, {path: self._base_value(path) for path in axis.paths})
                problems += [replace(p, text=f"the base value {p.text}; give the point another one") for p in wrong]
            found.append(choice)
        unknown = [path for path in given if path not in self.paths]
        problems += [Problem(path, "is neither a range nor an option; add it first") for path in unknown]
        return tuple(found), problems

    def _choice_of(self, place: int, values: Mapping[str, Any]) -> tuple[Choice, list[Problem]]:
        """Returns the choice for an axis with the given values, by path; or None and a problem if there is none."""
        axis = self.axes[place]
        if axis.range is None:
            rows, problems = self._rows_with(place, values)
            if len(rows) > 1:  # a point gives some of the joint settings; the others have their base values if they can
                base = {path: self._base_value(path) for path in axis.paths}
                rows = self._rows_with(place, {**base, **values})[0] or rows
            return next(iter(rows), None), problems
        (value,) = values.values()
        if not axis.range.has(value):
            return None, [Problem(axis.name, f"{value_text(value)} is not in {axis.range}")]
        return (value if axis.range.integer else float(value)), []

    def trained(self, proposal: RowIndices) -> list[RowIndices]:
        """Returns the combinations that are trained for a proposal of a search: one for each fold."""
        folds = next(((place, axis) for place, axis in enumerate(self.axes) if axis.folds), None)
        if folds is None:
            return [proposal]
        place, axis = folds
        return [(*proposal[:place], row, *proposal[place + 1 :]) for row in range(len(axis.rows))]

    def corners(self) -> list[RowIndices]:
        """Returns combinations that together have all values that a search can propose, except those inside ranges.

        Each row of an option and each end of a range appears with the first values of all other axes. Axes that vary
        the data appear in all combinations.
        """
        ends: list[list[Choice]] = [
            [axis.range.low, axis.range.high] if axis.range is not None else list(range(len(axis.rows)))
            for axis in self.axes
        ]
        is_data = [any(path.startswith("experiment_config.") for path in axis.paths) for axis in self.axes]
        firsts = [of if data else of[:1] for of, data in zip(ends, is_data, strict=True)]
        found: list[RowIndices] = []
        for place, axis in enumerate(self.axes):
            chosen = list(firsts)
            chosen[place] = ends[place]
            for other, row in self._needed(axis).items():
                chosen[other] = [row]
            found += self._product(chosen)
        return list(dict.fromkeys(found)) or self._product([])

    def _needed(self, axis: Axis) -> dict[int, int]:
        """Returns rows of other axes, by the axes' indices, with which an axis applies."""
        found: dict[int, int] = {}
        for place, rows in axis.when:
            found |= {place: min(rows)} | self._needed(self.axes[place])
        return found

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


def _text_of(value: Any) -> str:
    return canonical_json(encode(value))


def _without_unknown_arguments(settings: Settings, paths: Sequence[str]) -> Settings:
    """Returns settings without those of the given arguments that their class does not accept."""
    hyperparams: Any = settings.hyperparams
    for path in paths:
        _, key, *inner = _parts(path)
        if len(inner) == 1 and key.endswith("_args"):
            target = getattr(hyperparams, key.removesuffix("_args"))
            if target is None or not (inner[0] in constructor_parameters(target) or takes_any_name(target)):
                others = {name: value for name, value in getattr(hyperparams, key).items() if name != inner[0]}
                hyperparams = replace(hyperparams, **{key: others})
    return settings if hyperparams is settings.hyperparams else replace(settings, hyperparams=hyperparams)


def _with_value(setting: Any, keys: Sequence[str], value: Any) -> Any:
    """Returns a copy of a setting with another value at a path of keys of nested dicts; without keys the value."""
    return {**setting, keys[0]: _with_value(setting[keys[0]], keys[1:], value)} if keys else value


def dotted(key: Key) -> str:
    """Returns the dotted path of a key.

    Raises:
        ConfigError: If it cannot be the key of an option.
    """
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
    wrong = [text for text in labels if not isinstance(text, str) or not _is_label(text)]
    if wrong:
        allowed = "a label is a text that can be read on one line, without spaces around it"
        return [Problem(where, f"got {wrong[0]!r}; {allowed}")]
    if NOT_APPLICABLE in labels:
        return [Problem(where, f"{NOT_APPLICABLE!r} is reserved for options that do not apply; choose another label")]
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


def _is_label(text: str) -> bool:
    return text != "" and text.isprintable() and text == text.strip()


def _labels_of(labels: Sequence[Primitive], values: Sequence[Any]) -> list[Primitive]:
    order = [canonical_json(encode(value)) for value in _distinct(values)]
    return [labels[order.index(canonical_json(encode(value)))] for value in values]
