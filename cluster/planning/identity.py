"""The canonical encoding of a setting, which does not depend on how it was written; its hash; and its label.

An encoded setting is JSON: it names classes and functions, and holds the constructor arguments of objects. Two settings
with the same encoding train to the same numbers. A label is short, for tables, and unique among the values of an
option.

Defaults are a part of an encoding, also those of torch's classes. A new version of torch may give a class one more
argument. So that trained results are still found, an argument that is not in `torch_arguments.py` is left out while it
has its default: then it is expected to change nothing. This does not apply to classes of this project and of users:
whoever adds an argument to one of them decides with its default whether trained results stay valid.
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
from types import MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from torch import nn

from cluster.planning.torch_arguments import TORCH_ARGUMENTS
from data_pipeline.words import value_text

_ADDRESS = re.compile(r"(?<=\S) at 0x[0-9a-fA-F]+(?=>)")
"""The address in the `repr` of an object: it differs between processes."""

# Tuples: isinstance takes twice as long with a union, and plans encode millions of values.
_PLAIN = (str, bool, NoneType)
_LISTS = (list, tuple)

_LARGEST_INT = 2**63 - 1
_LARGEST_FLOAT = torch.finfo(torch.float32).max

_CANONICAL_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

_LEVELS = 100
_TOO_DEEP = f"it contains itself, or is nested more than {_LEVELS} levels deep"

Encoded = Any  # JSON
Primitive = str | int | float | bool | None


class NotEncodableError(ValueError):
    """A value cannot be encoded or sent to a worker; the text says why."""


def encode(value: object) -> Encoded:
    """Returns the canonical encoding of a setting.

    An object is encoded as its class and its constructor's arguments. It must hold each argument as an attribute of the
    same name, as dataclasses do. The parameters of a torch module must be those of a new one with the same arguments.

    Raises:
        NotEncodableError: For a lambda, a local function or class, NaN, a number that torch cannot hold, a tensor, a
            module whose parameters were trained or drawn at random, or any other object that does not show its
            arguments; and for a value that contains itself or is nested too deeply.
    """
    try:
        return _encode(value, _LEVELS)
    except RecursionError:  # objects that contain each other
        raise NotEncodableError(_TOO_DEEP) from None


def _encode(value: object, levels: int) -> Encoded:
    if levels == 0:
        raise NotEncodableError(_TOO_DEEP)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return _encode_float(value)
    if isinstance(value, int):
        _require_at_most(_LARGEST_INT, value)
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise NotEncodableError(f"a dict's keys must be strings, not {value_text(list(value))}")
        return {key: _encode(item, levels - 1) for key, item in value.items()}
    if isinstance(value, _LISTS):
        return [_encode(item, levels - 1) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, torch.device | torch.dtype):
        return str(value)
    if isinstance(value, partial):
        return encode_call(value.func, partial_arguments(value))
    if isinstance(value, type) or inspect.isroutine(value):
        return _encode_by_name(value)
    return _encode_object(value)


def encode_call(target: Callable[..., Any], arguments: Mapping[str, Any]) -> Encoded:
    """Encodes a class with the arguments of a call; defaults are filled in."""
    given = encode(_without_new_defaults(target, arguments))
    return {"name": _importable_name(target), "args": {**_encoded_defaults(target, tuple(arguments)), **given}}


def partial_arguments(value: Any) -> dict[str, Any]:
    """Returns the arguments that a `functools.partial` fixes by name; for any other value an empty dict.

    Raises:
        NotEncodableError: If it fixes arguments by position.
    """
    if getattr(value, "args", ()):
        raise NotEncodableError(f"{_text(value)} fixes arguments by position; give them by name")
    return dict(getattr(value, "keywords", {}))


def canonical_json(encoded: Encoded) -> str:
    """Writes an encoded setting so that equal ones are equal strings."""
    return _CANONICAL_JSON.encode(encoded)


def digest(text: str) -> str:
    """Returns the first 16 hex digits of the SHA-256 hash of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def label(value: object) -> Primitive:
    """Returns a short name of a setting: a JSON primitive as it is, anything else as a string."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(value)


def unique_labels(values: Sequence[object]) -> list[Primitive]:
    """Returns a unique label for each of an option's values; a number is appended to a label that is taken."""
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
    """Returns the named parameters of a class's constructor or of a function, without `self`."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds}


@lru_cache(maxsize=1024)
def takes_any_name(target: Callable[..., Any]) -> bool:
    """Returns whether a class's constructor accepts any keyword argument."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


@lru_cache(maxsize=1024)
def constructor_defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """Returns the default of each parameter that has one."""
    parameters = constructor_parameters(target)
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def check_sendable(value: object) -> None:
    """Checks that a value can be sent to a worker process.

    Raises:
        NotEncodableError: If it cannot.
    """
    try:
        pickle.dumps(value)
    except Exception as error:
        raise NotEncodableError(
            f"it cannot be sent to a worker process ({error}); define it at the top level of a module or of the script"
        ) from error


@lru_cache(maxsize=1024)
def _encoded_defaults(target: Callable[..., Any], given: tuple[str, ...]) -> Mapping[str, Encoded]:
    """Returns the defaults of all but the given arguments, encoded once for thousands of combinations."""
    others = {name: default for name, default in constructor_defaults(target).items() if name not in given}
    encoded: dict[str, Encoded] = encode(_without_new_defaults(target, others))
    return encoded


def _without_new_defaults(target: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments without those that a new version of torch has added and that have their default."""
    new = _new_defaults(target)
    return {name: value for name, value in arguments.items() if name not in new or not _equals(value, new[name])}


@lru_cache(maxsize=1024)
def _new_defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """Returns the default of each argument that a new version of torch has added; none for other constructors."""
    owner = next((kind for kind in getattr(target, "__mro__", ()) if "__init__" in vars(kind)), None)
    known = None if owner is None else TORCH_ARGUMENTS.get(f"{owner.__module__}.{owner.__qualname__}")
    if known is None:
        return {}
    return {name: default for name, default in constructor_defaults(target).items() if name not in known.split()}


def _equals(value: object, default: object) -> bool:
    try:
        return value is default or bool(encode(value) == encode(default))
    except NotEncodableError:
        return False


def _require_at_most(largest: int | float, value: int | float) -> None:
    if abs(value) > largest:
        raise NotEncodableError(f"{value_text(value)} is too large: torch can hold at most {largest:.3g}")


def _encode_float(value: float) -> Encoded:
    if math.isnan(value):
        raise NotEncodableError("NaN is not a setting: it does not equal itself")
    if math.isinf(value):
        return {"float": "inf" if value > 0 else "-inf"}  # JSON has no infinity
    _require_at_most(_LARGEST_FLOAT, value)
    # 1.0 and 1 are the same number.
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _encode_by_name(value: Any) -> Encoded:
    encoded = {"name": _importable_name(value)}
    owner = getattr(value, "__self__", None)
    is_own = isinstance(owner, type) and not (inspect.ismethod(value) and _is_inherited(value, owner))
    if owner is not None and not is_own and not isinstance(owner, ModuleType):
        encoded["self"] = encode(owner)  # the same method of another object or class may do something else
    return encoded


def _is_inherited(method: MethodType, owner: type) -> bool:
    """Returns whether a class method is defined in another class than the one it was taken from."""
    defined_in = method.__qualname__.rpartition(".")[0]
    return (method.__module__, defined_in) != (owner.__module__, owner.__qualname__)


def _encode_object(value: object) -> Encoded:
    kind: Any = type(value)
    if not _names_its_arguments(kind):
        raise NotEncodableError(
            f"{_text(value)} cannot be distinguished from another {kind.__name__}, since {kind.__name__} does not name "
            "its arguments; write numbers, strings, lists and dicts instead"
        )
    arguments = {}
    for name in constructor_parameters(kind):
        if not hasattr(value, name):
            if isinstance(value, nn.Module) and name in ("device", "dtype"):
                continue  # torch's modules take these only for their parameters, which are compared
            raise NotEncodableError(
                f"{_text(value)} does not hold its constructor's argument {name!r} as an attribute of that name, so it "
                f"cannot be distinguished from another {kind.__name__}"
            )
        arguments[name] = getattr(value, name)
    encoded = {"name": _importable_name(kind), "args": encode(_without_new_defaults(kind, arguments))}
    if isinstance(value, nn.Module) and not _has_initial_state(value, arguments):
        raise NotEncodableError(
            f"the parameters of {_text(value)} do not follow from its arguments, so it cannot be distinguished from "
            f"another {kind.__name__}; give one whose parameters are neither trained nor drawn at random"
        )
    return encoded


def _has_initial_state(module: nn.Module, arguments: Mapping[str, Any]) -> bool:
    """Returns whether a module has the parameters and buffers of a new one with these arguments."""
    state = _state(module)
    if not state:
        return True
    with torch.random.fork_rng(devices=[]):
        initial = _state(type(module)(**arguments))
    return state.keys() == initial.keys() and all(
        (tensor.dtype, tensor.device) == (initial[name].dtype, initial[name].device)
        and torch.equal(tensor, initial[name])
        for name, tensor in state.items()
    )


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _names_its_arguments(kind: Any) -> bool:
    if issubclass(kind, np.ndarray | np.ufunc | torch.Tensor):
        return False
    if issubclass(kind, nn.Module) and kind.__init__ is nn.Module.__init__:
        return True  # its constructor takes no arguments, although the signature has *args
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:
        return False  # a class written in C
    return not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) for p in parameters)


def _importable_name(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if name is None or "<lambda>" in name or "<locals>" in name:
        kind = "a lambda" if name and "<lambda>" in name else "a local function or class"
        raise NotEncodableError(
            f"{kind} ({_text(value)}) cannot be imported by name; define it at the top level of a module or the script"
        )
    return f"{module}.{name}"


def _text(value: object) -> str:
    if isinstance(value, type) or inspect.isroutine(value):
        return str(getattr(value, "__name__", value_text(value)))
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
    if isinstance(value, nn.Module):
        return _module_text(value)
    if kind.__repr__ is object.__repr__:
        names = [name for name in constructor_parameters(kind) if hasattr(value, name)]
        arguments = ", ".join(f"{name}={_text(getattr(value, name))}" for name in names)
        return f"{kind.__name__}({arguments})"
    return _ADDRESS.sub("", value_text(value))


def _module_text(module: nn.Module) -> str:
    """Returns a module's class and the arguments that differ from their defaults; its `repr` may lack some."""
    kind: Any = type(module)
    defaults = {name: _text(default) for name, default in constructor_defaults(kind).items()}
    held = {name: _text(getattr(module, name)) for name in constructor_parameters(kind) if hasattr(module, name)}
    arguments = ", ".join(f"{name}={text}" for name, text in held.items() if defaults.get(name) != text)
    return f"{kind.__name__}({arguments})"
