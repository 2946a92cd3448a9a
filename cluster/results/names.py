"""Short names of options and metrics, and short texts of the values of options."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.user_error import UserError, did_you_mean

NOT_APPLICABLE = "–"
"""The value of an option where it does not apply."""

_LABEL = " label"
"""Ends the name of a column with labels. A path has no space."""


class ChoiceError(UserError):
    """The experiment does not have what was requested, or several things match; the message says what it has."""


def named(name: str, known: Sequence[str], what: str) -> str:
    """Returns the known name that equals `name`, or the only one that ends in '.NAME'.

    Raises:
        ChoiceError: If no name or more than one matches; the message lists similar names, or the matches.
    """
    if name in known:
        return name
    ending = [other for other in known if other.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ChoiceError(f"{what} {name!r} may be {' or '.join(ending)}; write it in full")
    raise ChoiceError(f"there is no {what} {name!r}{did_you_mean(name, known)}")


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Returns for each dotted path its shortest ending that is unique. A column of labels is named like its setting."""
    names = {}
    settings = list(map(setting_of, paths))
    for path, setting in zip(paths, settings, strict=True):
        parts = setting.split(".")
        endings = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [f".{other}" for other in settings if other != setting]
        names[path] = next((end for end in endings if not any(other.endswith(f".{end}") for other in others)), setting)
    return names


def setting_of(column: str) -> str:
    """Returns the setting that a column of options is named after."""
    return column.removesuffix(_LABEL)


def distinguishing_column(
    paths: Sequence[str], rows: Sequence[Sequence[Any]], labels: Sequence[str] | None
) -> tuple[str, list[Any]]:
    """Returns the one column that distinguishes the rows of settings that vary together.

    It is the first setting that varies, if its values are unique. Otherwise it is a column of labels: those of the
    user, or the value of the first setting, with those of the others that are needed: 'MLP (hidden_dims=[64])'.

    Args:
        paths: The settings.
        rows: Their values as JSON primitives, one for each setting in each row.
        labels: The user's label of each row; None for none.

    Returns:
        The column's name, and its value in each row.
    """
    if labels is not None:
        return f"{paths[0]}{_LABEL}", list(labels)
    columns = {path: list(values) for path, values in zip(paths, zip(*rows, strict=True), strict=True)}
    varied = {path: values for path, values in columns.items() if _n_different(values) > 1} or columns
    (first, heads), *others = varied.items()
    if _n_different(heads) == len(rows):
        return first, heads
    names = short_names(paths)
    texts = option_texts(heads)
    for head in dict.fromkeys(texts):
        places = [place for place, text in enumerate(texts) if text == head]
        details = _details({names[path]: [values[place] for place in places] for path, values in others})
        for place, detail in zip(places, details, strict=True):
            texts[place] = f"{head} ({detail})" if detail else head
    return f"{first}{_LABEL}", texts


def in_order(values: Mapping[str, Any], listed: Sequence[Any]) -> dict[str, Any]:
    """Returns values, by their `repr`, in the order in which a script lists them; values that it lacks come last."""
    return {text: values[text] for text in dict.fromkeys([*map(repr, listed), *values]) if text in values}


def option_texts(values: Sequence[object]) -> list[str]:
    """Writes the values of an option in the shortest distinct form.

    This is, of dicts, the arguments that differ; otherwise short, in full, or as in a script.
    """
    forms = (_differing(values), [_short(value) for value in values], [_on_one_line(value) for value in values])
    written = list(map(repr, values))
    return next((texts for texts in forms if texts and len(set(texts)) == len(set(written))), written)


def _details(columns: dict[str, list[Any]]) -> list[str]:
    """Returns for each row the values of the first settings that distinguish the rows, with their names."""
    n = len(next(iter(columns.values()), ()))
    details: list[list[str]] = [[] for _ in range(n)]
    for name, values in columns.items():
        if len(set(map(tuple, details))) == n:
            break
        if _n_different(values) > 1:
            is_named = all(_arguments(value) is not None for value in values)
            for detail, text in zip(details, option_texts(values), strict=True):
                detail.append(text if is_named else f"{name}={text}")
    return [", ".join(detail) for detail in details]


def _differing(values: Sequence[object]) -> list[str]:
    """Returns the arguments that differ between dicts, given as texts; nothing if there is something else."""
    found = [_arguments(value) for value in values]
    dicts = [arguments for arguments in found if arguments is not None]
    if len(dicts) < len(values) or _n_different(values) < 2:
        return []
    same = set.intersection(*(set(arguments.items()) for arguments in dicts))
    texts = [[f"{name}={value}" for name, value in of.items() if (name, value) not in same] for of in dicts]
    return [", ".join(text) or "{}" for text in texts]


_PART = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)


def _arguments(value: object) -> dict[str, str] | None:
    """Returns the items of a dict that was written as a text, such as '{dim: 8, dims: [8, 8]}'; None if it is none."""
    if not isinstance(value, str) or not (value.startswith("{") and value.endswith("}")):
        return None
    items, depth = [""], 0
    for part in _PART.findall(" ".join(value[1:-1].split())):
        depth += (part in "([{") - (part in ")]}")
        if part == "," and not depth:
            items.append("")
        else:
            items[-1] += part
    pairs = [item.strip().partition(": ") for item in items if item.strip()]
    return {name: text for name, _, text in pairs} if all(colon for _, colon, _ in pairs) else None


def _n_different(values: Sequence[object]) -> int:
    """Returns how many values differ in their `repr`, since 1, 1.0 and True are equal."""
    return len(set(map(repr, values)))


def _short(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return _on_one_line(value)


def _on_one_line(value: object) -> str:
    return " ".join(str(value).split())
