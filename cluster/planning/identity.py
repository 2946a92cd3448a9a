"""What a setting is, independent of how it was written: its canonical description, its label, and hashes of it.

A description is JSON: it names classes and functions, and holds the constructor arguments of objects. Two settings
with the same description train to the same numbers. A label is short, for tables, and unique among the values of an
option.
"""

import hashlib
import inspect
import json
import math
import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch

_ADDRESS = re.compile(r"(?<=\S) at 0x[0-9a-fA-F]+(?=>)")
"""Of an object, as Python shows it: it is another one in each process."""

Description = Any  # JSON
Primitive = str | int | float | bool | None


class UndescribableError(ValueError):
    """A value has no description, or cannot be sent to a worker; the text says why."""


def describe(value: object) -> Description:
    """Returns the canonical description of a setting.

    Objects are described by their class and the constructor's arguments, each of which the object must hold under its
    own name, as dataclasses do.

    Raises:
        UndescribableError: For a lambda, a local function or class, NaN, a tensor, or any other object that does not
            show its arguments.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _describe_float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, torch.device | torch.dtype):
        return str(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise UndescribableError(f"a dict's keys must be strings, not {list(value)!r}")
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, partial):
        return describe_call(value.func, partial_arguments(value))
    if isinstance(value, type) or inspect.isroutine(value):
        return _describe_by_name(value)
    return _describe_object(value)


def describe_call(target: Callable[..., Any], arguments: Mapping[str, Any]) -> Description:
    """Describes a class with the arguments it is called with, defaults filled in."""
    return {
        "name": _importable_name(target),
        "args": describe({**constructor_defaults(target), **arguments}),
    }


def partial_arguments(value: Any) -> dict[str, Any]:
    """Returns the arguments that a `functools.partial` fixes by name; none for what is not one.

    Raises:
        UndescribableError: If it fixes arguments by position.
    """
    if getattr(value, "args", ()):
        raise UndescribableError(f"{_text(value)} fixes arguments by position; give them by name")
    return dict(getattr(value, "keywords", {}))


def canonical_json(description: Description) -> str:
    """Writes a description so that equal ones are equal strings."""
    return json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """Returns 16 hex digits that stand for `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def label(value: object) -> Primitive:
    """Returns a short name of a setting: itself where it is a JSON primitive, else a string."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(value)


def unique_labels(values: Sequence[object]) -> list[Primitive]:
    """Returns a label for each of an option's values; where two would be equal, strings with a number behind."""
    labels: list[Primitive] = []
    taken: set[Primitive] = set()
    for value in values:
        new = label(value)
        while {new, str(new)} & taken:
            new = f"{new} #{len(labels) + 1}"
        labels.append(new)
        taken |= {new, str(new)}
    return labels


@lru_cache(maxsize=1024)
def constructor_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the named parameters of a class's constructor, or of a function, without `self`."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds}


@lru_cache(maxsize=1024)
def takes_any_name(target: Callable[..., Any]) -> bool:
    """Returns whether a class's constructor passes on arguments that it does not name itself."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def constructor_defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """Returns the default of each parameter that has one."""
    parameters = constructor_parameters(target)
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def check_sendable(value: object) -> None:
    """Makes sure that a value can travel to a worker process.

    Raises:
        UndescribableError: If it cannot.
    """
    try:
        pickle.dumps(value)
    except Exception as error:
        raise UndescribableError(
            f"it cannot be sent to a worker process ({error}); define it at the top level of a module or of the script"
        ) from error


def _describe_float(value: float) -> Description:
    if math.isnan(value):
        raise UndescribableError("NaN is not a setting: it does not equal itself")
    if math.isinf(value):
        return {"float": "inf" if value > 0 else "-inf"}  # JSON has no infinity
    # 1.0 and 1 are the same number.
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _describe_by_name(value: Any) -> Description:
    described = {"name": _importable_name(value)}
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, type | ModuleType):
        described["self"] = describe(owner)  # a method of an object is not the same as that of another one
    return described


def _describe_object(value: object) -> Description:
    kind: Any = type(value)
    if not _names_its_arguments(kind):
        raise UndescribableError(
            f"{_text(value)} cannot be told from another {kind.__name__}, since {kind.__name__} does not name what it "
            "is made of; write numbers, strings, lists and dicts instead"
        )
    arguments = {}
    for name in constructor_parameters(kind):
        if not hasattr(value, name):
            raise UndescribableError(
                f"{_text(value)} does not hold its constructor's argument {name!r} as an attribute of that name, so "
                f"that nobody can tell it from another {kind.__name__}"
            )
        arguments[name] = getattr(value, name)
    return {"name": _importable_name(kind), "args": describe(arguments)}


def _names_its_arguments(kind: type) -> bool:
    if issubclass(kind, np.ndarray | torch.Tensor):
        return False
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:
        return False  # a class of C code
    return not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) for p in parameters)


def _importable_name(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if name is None or "<lambda>" in name or "<locals>" in name:
        kind = "a lambda" if name and "<lambda>" in name else "a local function or class"
        raise UndescribableError(
            f"{kind} ({_text(value)}) has no name to find it by; define it at the top level of a module or the script"
        )
    return f"{module}.{name}"


def _text(value: object) -> str:
    if isinstance(value, type) or inspect.isroutine(value):
        return str(getattr(value, "__name__", repr(value)))
    if isinstance(value, partial):
        arguments = ", ".join(f"{name}={_text(item)}" for name, item in value.keywords.items())
        return f"{_text(value.func)}({arguments})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__:
        names = [name for name in constructor_parameters(kind) if hasattr(value, name)]
        arguments = ", ".join(f"{name}={_text(getattr(value, name))}" for name in names)
        return f"{kind.__name__}({arguments})"
    return _ADDRESS.sub("", repr(value))
