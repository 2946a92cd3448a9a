"""The user's own classes and functions that settings name: where they are defined, and a hash of their code."""

import ast
import hashlib
import inspect
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

_NAME = re.compile(r'"name":"([^"]+)"')

_NOT_OWN = {"torch", "data_pipeline", "posenet", "cluster"}

_INSTALLED = Path(torch.__file__).parents[1]
"""The folder of installed packages: an error that is raised there is shown where the user's code calls it."""


def names_in(encoded: str) -> frozenset[str]:
    """Returns what is called a name in a combination's encoded settings: its classes, functions and skeleton."""
    return frozenset(_NAME.findall(encoded))


def own_objects(names: Iterable[str]) -> dict[str, Any]:
    """Returns the classes and functions with these names that are neither PoseTune's nor torch's, by name."""
    found = {name: _imported(name) for name in sorted(names)}
    return {name: value for name, value in found.items() if value is not None and is_own(value.__module__)}


def is_own(module: str | None) -> bool:
    """Returns whether a module is neither PoseTune's, torch's nor Python's."""
    package = str(module).partition(".")[0]
    return package not in _NOT_OWN and package not in sys.stdlib_module_names


def source_hash(value: Any) -> str | None:
    """Returns a hash of the code of a class, with its own base classes, or of a function; None if it has no source.

    Comments, docstrings and formatting do not count.
    """
    parts = [kind for kind in value.__mro__ if is_own(kind.__module__)] if isinstance(value, type) else [value]
    try:
        code = "\n".join(_code(inspect.getsource(part)) for part in parts)
    except (OSError, TypeError, SyntaxError):  # typed into a prompt, or written in C
        return None
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _code(source: str) -> str:
    """Returns the code of a class or function without comments, docstrings and formatting."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]  # may be empty: it is never run
    return ast.unparse(tree)


def own_sources(encoded: Iterable[str]) -> dict[str, str]:
    """Returns the hash of the code of every own class and function that encoded combinations name, by name."""
    names = frozenset[str]().union(*map(names_in, encoded))
    hashes = {name: source_hash(value) for name, value in own_objects(names).items()}
    return {name: code for name, code in hashes.items() if code is not None}


def definition(value: Any) -> str:
    """Returns the file and the line where a class, an object's class or a function is defined; else its name."""
    named = value if hasattr(value, "__qualname__") else type(value)
    try:
        return _place(str(inspect.getsourcefile(named)), inspect.getsourcelines(named)[1])
    except (OSError, TypeError):
        return f"{named.__module__}.{named.__qualname__}"


def raised_at(error: BaseException) -> str | None:
    """Returns the file and the line of the user's code that an error passed last; None if it passed none."""
    places = [
        _place(frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_own(frame.f_globals.get("__name__")) and not Path(frame.f_code.co_filename).is_relative_to(_INSTALLED)
    ]
    return places[-1] if places else None


def _place(file: str, line: int) -> str:
    """Writes a line of a file; the file relative to the current folder if it is in it."""
    path, here = Path(file), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"


def _imported(name: str) -> Any:
    """Returns the class or function with this name, in a module that is imported; None if there is none."""
    module, _, rest = name.rpartition(".")
    while module and module not in sys.modules:
        module, _, first = module.rpartition(".")
        rest = f"{first}.{rest}"
    if not module:
        return None
    value: Any = sys.modules[module]
    for part in rest.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, type) or inspect.isfunction(value) else None
