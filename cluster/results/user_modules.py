"""The user's modules, which `--import` names."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from data_pipeline.user_error import UserError


def own_module(name: str) -> ModuleType:
    """Returns the module that `--import NAME` names; scripts in the current folder could import it.

    Raises:
        UserError: If it cannot be imported, whatever it raises.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module may raise anything
        hint = "; name it without .py" if name.endswith(".py") else ""
        raise UserError(f"--import {name}: it cannot be imported: {type(error).__name__}: {error}{hint}") from error
    finally:
        sys.path.remove(here)
