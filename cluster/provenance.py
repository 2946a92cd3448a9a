"""What produced some results: versions, machine, and the state of the code."""

import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.executors.node_facts import code_version
from cluster.storage.run_file import POSETUNE, SCRIPT, Commit, RunFile

_PACKAGES = ("torch", "ray", "numpy", "pyarrow", "tabulate", "rich", "matplotlib", "posetune")

_SECRET_NAME = re.compile(
    r"(api|access|auth|account|secret|private|storage)[-_]?key|secret|token|passw|passphrase|credential|signature",
    re.IGNORECASE,
)
_LOGIN_IN_URI = re.compile(r"(?<=://)\S*(?=@)")  # a key in it may contain an unescaped slash
_HIDDEN = "***"


def provenance() -> RunFile:
    """Returns what produces the trials of a run that begins now."""
    return replace(
        current_versions(),
        started=time.time(),
        command=list(_without_secrets(sys.argv)),
        git=_commits({SCRIPT: sys.argv[0], POSETUNE: __file__}),
    )


def current_versions() -> RunFile:
    """Returns the part of it that is known without git: versions, machine and the hash of the code."""
    return RunFile(
        versions={"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        machine={
            "host": socket.gethostname(),
            "system": platform.platform(),
            "processor": platform.machine(),
            "cpu_cores": os.cpu_count(),
        },
        code=code_version(),  # distinguishes states of the code also without git
    )


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


def _commits(files: Mapping[str, str]) -> dict[str, Commit]:
    """Returns the state of the repository of each file, without files that git does not track.

    A file in a virtual environment, for example, does not belong to the repository that surrounds it. Of other files
    that git does not track, only modules next to the file count as changes; results are none.
    """
    found = {}
    for whose, file in files.items():
        path = Path(file)
        commit = _git(path.parent, "rev-parse", "HEAD")
        if commit is not None and _git(path.parent, "ls-files", "--error-unmatch", "--", path.name) is not None:
            changes = _git(path.parent, "status", "--porcelain", "--untracked-files=no")
            modules = _git(path.parent, "ls-files", "--others", "--exclude-standard", "--", "*.py")
            found[whose] = Commit(commit, None if changes is None or modules is None else bool(changes or modules))
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns what git prints about a folder; None if it fails or takes too long."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):  # ValueError: a name that no file can have
        return None
    return done.stdout.strip() if done.returncode == 0 else None
