"""Constructor arguments of a config: checked against the constructor, whose signature is the schema, and encoded."""

from collections.abc import Mapping
from functools import lru_cache
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, get_args

import torch

from cluster.planning.config import Problem
from cluster.planning.identity import (
    Encoded,
    NotEncodableError,
    constructor_parameters,
    encode,
    encode_call,
    label,
    takes_any_name,
)
from cluster.planning.own_code import raised_at
from data_pipeline.user_error import did_you_mean
from data_pipeline.words import value_text


def check_arguments(key: str, target: type, arguments: Mapping[str, Any], *, n_passed: int) -> list[Problem]:
    """Checks arguments against a constructor's signature. PoseTune itself passes the first `n_passed` parameters."""
    parameters = dict(list(constructor_parameters(target).items())[n_passed:])
    name = target.__name__
    unknown = [] if takes_any_name(target) else [argument for argument in arguments if argument not in parameters]
    problems = [
        Problem(
            f"base_hyperparams.{key}.{argument}",
            f"{name} has no such argument{did_you_mean(argument, list(parameters))}",
        )
        for argument in unknown
    ]
    types = _simple_types(target)
    problems += [
        Problem(f"base_hyperparams.{key}.{argument}", f"got {value_text(value)}; allowed: {_spelled(types[argument])}")
        for argument, value in arguments.items()
        if argument in types and not _is_one_of(value, types[argument])
    ]
    problems += [
        Problem(f"base_hyperparams.{key}.{argument}", f"is missing; {name} needs it")
        for argument, parameter in parameters.items()
        if parameter.default is Parameter.empty and argument not in arguments
    ]
    return problems


@lru_cache(maxsize=1024)
def _simple_types(target: type) -> dict[str, tuple[type, ...]]:
    """Returns the types of a known class's constructor arguments: those annotated only with simple types."""
    if target.__module__.partition(".")[0] not in ("torch", "posenet", "data_pipeline"):
        return {}
    try:
        parameters = signature(target, eval_str=True).parameters
    except (TypeError, ValueError, NameError, AttributeError, SyntaxError):  # names that exist only for a type checker
        return {}
    types = {}
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        members = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        if all(member in _SIMPLE for member in members):
            types[name] = members
    return types


_SIMPLE = (bool, int, float, str, NoneType, torch.Tensor, torch.nn.Module)


def _is_one_of(value: object, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, (int, float)) and (int in types or float in types):
        return True  # the constructor checks whether it needs a whole number
    return isinstance(value, types)


def _spelled(types: tuple[type, ...]) -> str:
    names = {bool: "True or False", int: "an int", float: "a number", str: "a str", NoneType: "None"}
    names[torch.nn.Module] = "a torch module"
    return ", or ".join(names[kind] for kind in types if kind in names)


def encode_arguments(key: str, target: type, arguments: Mapping[str, Any]) -> tuple[dict[str, Encoded], list[Problem]]:
    """Returns a class with its arguments, encoded, and the problems of arguments that cannot be encoded."""
    try:
        encoded: dict[str, Encoded] = encode_call(target, arguments)
    except NotEncodableError as error:
        problems = [
            problem for argument, value in arguments.items() for problem in _not_encodable(key, argument, value)
        ]
        return {}, problems or [Problem(f"base_hyperparams.{key.removesuffix('_args')}", str(error))]
    return encoded, []


def _not_encodable(key: str, argument: str, value: object) -> list[Problem]:
    try:
        encode(value)
    except NotEncodableError as error:
        return [Problem(f"base_hyperparams.{key}.{argument}", str(error))]
    return []


def refused(key: str, target: type, arguments: Mapping[str, Any], error: Exception) -> Problem:
    """Returns the problem that a constructor rejects its arguments, with the constructor's own message."""
    place = raised_at(error)
    at = "" if place is None else f" (at {place})"
    return Problem(f"base_hyperparams.{key}", f"{target.__name__} refuses {label(arguments)}: {error}{at}")
