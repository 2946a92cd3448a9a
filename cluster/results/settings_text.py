"""Settings from the files of an experiment and its trials as texts for people."""

from collections.abc import Mapping
from typing import Any

MISSING = "–"
"""The text of a setting that is missing."""

_LARGE = 1e15

_GROUPS = ("optimisation", "inputs", "spaces", "schedule")
"""The parts of a description that group settings which belong to no common setting in a run script."""

_FAMILIES = ("model", "optimizer", "scheduler", "distorter")
"""The settings that are classes, whose arguments a run script names `..._args`."""

_NAMES = {
    "loss": "loss_function",
    "init_weights": "experiment_config.init_weights_path",
    **{name: f"experiment_config.{name}" for name in ("normalizer", "seed", "deterministic_mode", "cpus_per_trial")},
    **{name: f"solver_config.{name}" for name in ("num_epochs", "batch_size", "matmul_precision")},
}
"""The names in a run script, by the names in a description, where they differ."""


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Returns settings as texts by dotted path; an object gives its class and its arguments."""
    if not isinstance(value, Mapping) or not value:
        return {path: text(value)}
    settings: dict[str, str] = {}
    if _is_object(value):
        settings[path] = _own_name(value)
        value = value.get("args", {})
    for key, item in value.items():
        settings |= flat(item, f"{path}.{key}" if path else key)
    return settings


def settings_of(description: Mapping[str, Any]) -> dict[str, str]:
    """Returns the settings of a trial's description as texts, by the names that they have in a run script.

    Anything that is not a setting, such as the fingerprints of the data, keeps its name from the description.
    """
    parts = dict(description)
    for group in _GROUPS:
        members = parts.pop(group, None)
        parts |= members if isinstance(members, Mapping) else {}
    for family in _FAMILIES:
        described = parts.get(family)
        if isinstance(described, Mapping):
            parts[family] = {"name": described.get("name")}
            parts[f"{family}_args"] = described.get("args", {})
            parts |= {name: value for name, value in described.items() if name not in ("name", "args")}
    return flat({_NAMES.get(name, name): value for name, value in parts.items()})


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Returns the settings that differ between two results of `flat`, with both texts."""
    texts = {path: (one.get(path, MISSING), other.get(path, MISSING)) for path in dict.fromkeys([*one, *other])}
    return {path: both for path, both in texts.items() if both[0] != both[1]}


def text(value: Any) -> str:
    """Returns a setting's text: a class by its name without the module, an object with its arguments."""
    if isinstance(value, Mapping):
        if _is_object(value):
            if "args" not in value:
                return _own_name(value)
            return f"{_own_name(value)}({', '.join(f'{key}={text(item)}' for key, item in value['args'].items())})"
        return "{" + ", ".join(f"{key}: {text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGE:
        return str(int(value))  # descriptions do not distinguish 1 from 1.0
    return str(value)


def _is_object(value: Mapping[str, Any]) -> bool:
    is_named = "." in str(value.get("name")) and value.keys() <= {"name", "args", "self"}
    return is_named and isinstance(value.get("args", {}), Mapping)


def _own_name(value: Mapping[str, Any]) -> str:
    return str(value["name"]).rpartition(".")[2]
