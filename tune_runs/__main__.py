# PYTHON_ARGCOMPLETE_OK
"""The command `posetune`, which runs one of the command lines in this folder.

pip installs this folder as the package `posetune`, whose name no folder of yours is likely to have. In a checkout,
`python tune_runs/report.py` and `posetune report` are the same.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import argcomplete

COMMANDS = {
    "report": "show, compare, draw, export, reproduce and remove experiments",
    "predict": "correct poses with a trained corrector, or export the corrector",
    "prepare-data": "make, split and check datasets, and make the tables that distorters read",
    "cluster-check": "check whether this machine or a cluster is ready for sweeps",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`, by default the process's own, and returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    completed = _completed_command()
    if completed is not None:
        os.environ["_ARGCOMPLETE"] = "2"  # the command line to complete begins at the second word
        name = completed
    else:
        parser = _parser()
        argcomplete.autocomplete(parser)
        name = parser.parse_args(given[:1]).command
    # Imported late, because some commands load torch.
    status: int = import_module(_module(name)).main(given[1:])
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posetune",
        description="Hyperparameter search for networks that correct 3D hand poses.",
        epilog='For tab completion in bash, run eval "$(register-python-argcomplete posetune)".',
    )
    commands = parser.add_subparsers(
        title="commands, each with its own --help", dest="command", required=True, metavar="COMMAND"
    )
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _module(command: str) -> str:
    module = command.replace("-", "_")
    return f"{__package__}.{module}" if __package__ else module  # `python tune_runs report` has no package


def _completed_command() -> str | None:
    """Returns the command whose arguments Tab completes; None if it completes the command, or if it does nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return None
    _, *words, _ = f"{os.environ['COMP_LINE']}|".split()  # the last word is not complete
    return words[0] if words and words[0] in COMMANDS else None


if __name__ == "__main__":
    sys.exit(main())
