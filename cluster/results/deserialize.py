"""What a trial's description says, as objects again: without torch, so that a report can read it.

What a description names is imported and called, so nothing is but what belongs to this project or to torch, or to
modules that the user names; and only classes of the family that belongs there.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

from cluster.storage.trial_file import TrialFile
from data_pipeline.skeleton import BUILT_IN, Palm, Skeleton
from data_pipeline.user_error import UserError

_IMPORTED = ("posenet.", "data_pipeline.", "torch.optim.", "torch.nn.")


class DescriptionError(UserError):
    """A description does not tell how to build what it describes, or names what may not be imported."""


def described_skeleton(trial: TrialFile) -> Skeleton:
    """Returns the skeleton of a trial's poses.

    Args:
        trial: The content of its `trial.json`.

    Raises:
        LookupError: If it does not tell.
        TypeError: If what it tells is no skeleton.
        ValueError: As TypeError.
    """
    arguments = _tuples(trial["description"]["data"]["skeleton"]["args"])
    palm = arguments.pop("palm", None)
    skeleton = Skeleton(**arguments, palm=None if palm is None else Palm(**palm["args"]))
    # A description leaves out the palm of those that are known.
    return next((known for known in BUILT_IN if replace(known, palm=None) == skeleton), skeleton)


def described_class(name: str, family: type[Any], modules: Sequence[ModuleType]) -> Any:
    """Returns the class of that name, after a look at whether it is of the family.

    Args:
        name: The name in the description, with its module in front.
        family: The base of what it may be.
        modules: Where to look for classes that are neither of this project nor of torch, also for those that a script
            defined itself.

    Raises:
        DescriptionError: If there is no such class, or more than one.
    """
    return _named(name, lambda value: isinstance(value, type) and issubclass(value, family), "class", modules)


def described_value(description: Any, modules: Sequence[ModuleType] | None = None) -> Any:
    """Returns the value that a description stands for: numbers, texts, lists and dicts of these.

    Args:
        description: The description.
        modules: With it, also classes, functions and objects of this project, of torch and of these modules.

    Raises:
        DescriptionError: If it stands for anything else.
    """
    if isinstance(description, dict):
        if description in ({"float": "inf"}, {"float": "-inf"}):
            return float(description["float"])
        # Of an object or a class, and not a dict of the user's own: names of classes have a module in front.
        if "." in str(description.get("name")) and description.keys() <= {"name", "args", "self"}:
            return _described_object(description, modules)
        return {key: described_value(value, modules) for key, value in description.items()}
    if isinstance(description, list):
        return [described_value(value, modules) for value in description]
    return description


def _described_object(description: Mapping[str, Any], modules: Sequence[ModuleType] | None) -> Any:
    name = str(description["name"])
    if modules is None or "self" in description:
        raise DescriptionError(
            f"an argument is {name}, which is not built again from a file; only numbers, texts, lists and dicts are"
        )
    found = _named(name, callable, "class or function", modules)
    if "args" not in description:
        return found
    arguments = described_value(description["args"], modules)
    return found(**arguments) if isinstance(found, type) else partial(found, **arguments)


def _named(name: str, fits: Callable[[Any], bool], kind: str, modules: Sequence[ModuleType]) -> Any:
    module_name, _, own_name = str(name).rpartition(".")
    if name.startswith(_IMPORTED):
        # Never one of the same name in another module.
        with suppress(ImportError):
            modules = [importlib.import_module(module_name)]
    named = [module for module in modules if module.__name__ == module_name]
    # A script that ran is called __main__, and the module may have moved.
    homes = [module for module in named or modules if fits(getattr(module, own_name, None))]
    if len(homes) > 1:
        found = ", ".join(module.__name__ for module in homes)
        raise DescriptionError(f"{name} may be the {own_name} of each of {found}; name one of these modules alone")
    if not homes:
        raise DescriptionError(f"{name} is not a {kind} of PoseTune's; name the module that it is in (--import MODULE)")
    return getattr(homes[0], own_name)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
