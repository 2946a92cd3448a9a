"""The user's own modules, which `--import` names."""

import argparse
import importlib
import sys
from types import ModuleType

from data_pipeline.files.regular import absolute_path
from data_pipeline.user_error import UserError


def add_import_option(parser: argparse._ActionsContainer) -> None:
    """Adds `--import`, which collects the names of modules as `modules`."""
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module with your own classes that the experiment used, such as models; may be repeated",
    )


def own_module(name: str) -> ModuleType:
    """Imports the module that `--import NAME` names, as a script in the current folder would.

    Raises:
        UserError: If it cannot be imported for any reason.
    """
    here = str(absolute_path("."))
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module may raise anything
        hint = "; name it without .py" if name.endswith(".py") else ""
        raise UserError(
            f"--import {name}: the module cannot be imported: {type(error).__name__}: {error}{hint}"
        ) from error
    finally:
        sys.path.remove(here)
