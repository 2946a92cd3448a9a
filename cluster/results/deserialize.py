"""Builds objects from the description in a trial's file; without torch, so that a report can read it.

A description names classes and functions, which are imported and called. So only those of this project, of torch and of
modules that the user names are allowed, and a class must belong to the expected family.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

from cluster.storage.json_object import read_as
from cluster.storage.trial_file import TrialFile
from data_pipeline.files.json_numbers import Count
from data_pipeline.skeleton import BUILT_IN, Palm, Skeleton
from data_pipeline.user_error import UserError


@dataclass
class _Palm:
    args: Palm


@dataclass
class _SkeletonArguments:
    name: str
    joint_names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    extra_edges: tuple[tuple[int, int], ...] = ()
    fingers: tuple[tuple[str, tuple[Count, ...]], ...] = ()
    palm: _Palm | None = None


@dataclass
class _Skeleton:
    args: _SkeletonArguments


@dataclass
class _Data:
    skeleton: _Skeleton


_IMPORTED = ("posenet.", "data_pipeline.", "torch.optim.", "torch.nn.")


def decode_skeleton(trial: TrialFile) -> Skeleton:
    """Returns the skeleton of a trial's poses.

    Args:
        trial: The content of its `trial.json`.

    Raises:
        ValueError: If the file does not describe a skeleton.
    """
    arguments = read_as(_Data, trial.description.get("data"), "data").skeleton.args
    palm = None if arguments.palm is None else arguments.palm.args
    skeleton = Skeleton(**{**vars(arguments), "palm": palm})
    # The description of a built-in skeleton does not include its palm.
    return next((known for known in BUILT_IN if replace(known, palm=None) == skeleton), skeleton)


def decode_class(name: str, family: type[Any], modules: Sequence[ModuleType]) -> Any:
    """Returns the class with that name, after checking its family.

    Args:
        name: The name in the description, with the module.
        family: The base class that it must have.
        modules: Where to look for other classes than those of this project and of torch, also for classes that a script
            defined.

    Raises:
        UserError: If there is no such class, or more than one.
    """
    return _named(name, lambda value: isinstance(value, type) and issubclass(value, family), "class", modules)


def decode_value(description: Any, modules: Sequence[ModuleType] | None = None, family: type[Any] | None = None) -> Any:
    """Returns the value that an encoding represents: numbers, texts, lists and dicts of these.

    Args:
        description: The description.
        modules: If given, classes, functions and objects of this project, of torch and of these modules are allowed.
        family: If given, only classes with this base class and their objects are allowed.

    Raises:
        UserError: If it represents anything else.
    """
    if isinstance(description, dict):
        if description in ({"float": "inf"}, {"float": "-inf"}):
            return float(description["float"])
        # An object or a class, not a dict of the user: class names include the module.
        if "." in str(description.get("name")) and description.keys() <= {"name", "args", "self"}:
            return _decode_object(description, modules, family)
        return {key: decode_value(value, modules, family) for key, value in description.items()}
    if isinstance(description, list):
        return [decode_value(value, modules, family) for value in description]
    return description


def own_modules(description: Any) -> list[str]:
    """Returns the modules of an encoding's classes and functions that are not of this project or of torch, each once.

    A class that the run script defined has the module `__main__`.
    """
    modules: dict[str, None] = {}
    left = [description]
    while left:  # no recursion: a file may be nested deeply
        value = left.pop()
        if isinstance(value, Mapping):
            left += value.values()
            name = str(value.get("name"))
            is_object = "args" in value or value.keys() <= {"name", "self"}
            if is_object and "." in name and not name.startswith(_IMPORTED):
                modules[name.rpartition(".")[0]] = None
        elif isinstance(value, list):
            left += value
    return list(modules)


def _decode_object(
    description: Mapping[str, Any], modules: Sequence[ModuleType] | None, family: type[Any] | None
) -> Any:
    name = str(description["name"])
    if modules is None or "self" in description:
        raise UserError(
            f"an argument is {name}, which cannot be rebuilt from a file; only numbers, texts, lists and dicts can"
        )
    if family is None:
        found = _named(name, callable, "class or function", modules)
    else:
        found = decode_class(name, family, modules)
    if "args" not in description:
        return found
    arguments = decode_value(description["args"], modules, family)
    return found(**arguments) if isinstance(found, type) else partial(found, **arguments)


def _named(name: str, fits: Callable[[Any], bool], kind: str, modules: Sequence[ModuleType]) -> Any:
    module_name, _, own_name = str(name).rpartition(".")
    if name.startswith(_IMPORTED):
        # Never a class with the same name in another module.
        with suppress(ImportError):
            modules = [importlib.import_module(module_name)]
    named = [module for module in modules if module.__name__ == module_name]
    # A script was called __main__ when it ran, and a module may have moved.
    homes = [module for module in named or modules if fits(getattr(module, own_name, None))]
    if len(homes) > 1:
        found = ", ".join(module.__name__ for module in homes)
        raise UserError(f"{name} is ambiguous: {own_name} is in each of {found}; name only one of these modules")
    if not homes:
        raise UserError(f"{name} is not a {kind} of PoseTune's; name its module (--import MODULE)")
    return getattr(homes[0], own_name)
