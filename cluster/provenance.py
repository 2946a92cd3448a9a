"""What produced some results: versions, machine, and the state of the code."""

import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cluster.executors.node_facts import code_version

_PACKAGES = ("torch", "ray", "numpy", "pyarrow", "tabulate", "rich", "matplotlib", "posetune")

_SECRET_NAME = re.compile(
    r"(api|access|auth|account|secret|private|storage)[-_]?key|secret|token|passw|passphrase|credential|signature",
    re.IGNORECASE,
)
_LOGIN_IN_URI = re.compile(r"(?<=://)\S*(?=@)")  # a key in it may contain an unescaped slash
_HIDDEN = "***"


def provenance() -> dict[str, Any]:
    """Returns versions, machine, command and git commit, for `experiment.json`."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "machine": {
            "host": socket.gethostname(),
            "system": platform.platform(),
            "processor": platform.machine(),
            "cpu_cores": os.cpu_count(),
        },
        "command": list(_without_secrets(sys.argv)),
        "git": _git_state(),
        "code": code_version(),  # distinguishes states of the code also without git
    }


def _without_secrets(command: Sequence[str]) -> Iterator[str]:
    """Hides values of options and variables that are named like a secret, and logins in URIs.

    The command is recorded because it shows the script's options, but results are shared more freely than commands.
    """
    hide_next = False
    for argument in command:
        name, equals, value = argument.partition("=")
        secret = _SECRET_NAME.search(name) is not None
        if hide_next and not argument.startswith("--"):
            yield _HIDDEN
        elif secret and value:
            yield f"{name}={_HIDDEN}"
        else:
            yield _LOGIN_IN_URI.sub(_HIDDEN, argument)
        hide_next = secret and not equals and argument.startswith("-")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Returns the commit of the working folder and whether files differ from it; None outside a repository.

    `dirty` is None if git fails or takes too long.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    return None if commit is None else {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
