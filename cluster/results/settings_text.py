"""Described settings as texts for a person: what stands in an experiment's and a trial's files."""

from collections.abc import Mapping
from typing import Any

MISSING = "–"
"""Stands for a setting that is not there."""

_LARGE = 1e15


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Returns the settings of a description as texts by dotted path: of an object its class, and its arguments."""
    if not isinstance(value, Mapping) or not value:
        return {path: text(value)}
    settings: dict[str, str] = {}
    if _is_object(value):
        settings[path] = _own_name(value)
        value = value.get("args", {})
    for key, item in value.items():
        settings |= flat(item, f"{path}.{key}" if path else key)
    return settings


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Returns the settings by `flat` that are not the same in both, with both texts."""
    texts = {path: (one.get(path, MISSING), other.get(path, MISSING)) for path in dict.fromkeys([*one, *other])}
    return {path: both for path, both in texts.items() if both[0] != both[1]}


def text(value: Any) -> str:
    """Writes a described value: a class by its own name, an object with its arguments."""
    if isinstance(value, Mapping):
        if _is_object(value):
            if "args" not in value:
                return _own_name(value)
            return f"{_own_name(value)}({', '.join(f'{key}={text(item)}' for key, item in value['args'].items())})"
        return "{" + ", ".join(f"{key}: {text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGE:
        return str(int(value))  # a description has no other form of it: 1 and 1.0 are one
    return str(value)


def _is_object(value: Mapping[str, Any]) -> bool:
    return "." in str(value.get("name")) and value.keys() <= {"name", "args", "self"}


def _own_name(value: Mapping[str, Any]) -> str:
    return str(value["name"]).rpartition(".")[2]
