"""A results folder opens on a machine that has only what `requirements-report.txt` names: no torch, no Ray."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import venv
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.experiment import TrialsFailedError
from posenet.models import CorrectorMLP
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.small_experiment import LR, FailingMLP, SmallExperiment, write_datasets
from tests.support import ROOT

SCRIPT = ROOT / "tune_runs" / "report.py"
REQUIREMENTS = ROOT / "requirements-report.txt"

COMMANDS = [
    ["list"],
    ["list", "--json"],
    ["show", "complete"],
    ["show", "failures", "--json"],
    ["compare", "complete", "failures"],
    ["diff", "complete", "best", "{key}"],
    ["log", "complete", "best"],
    ["curves", "complete"],
    *(["export", "complete", "table", "--format", format] for format in ("csv", "md", "latex", "html")),
    *(["export", "complete", "table", "--out", f"{{to}}/table.{ending}"] for ending in ("parquet", "xlsx")),
    ["export", "complete", "table", "--by", "joint", "--format", "md"],
    ["show", "complete", "--by", "finger"],
    ["effects", "complete"],
    ["effects", "complete", "--json"],
    ["methods", "complete"],
    ["race", "complete", "--min-epochs", "1"],
    ["export", "complete", "effects", "--out", "{to}/effects.xlsx"],
    ["export", "complete", "pivot", "--rows", LR, "--columns", "model_args.batchnorm", "--format", "latex"],
    *(
        ["figure", "complete", figure, "--out", "{to}/figure.pdf"]
        for figure in ("curves", "success", "joints", "parallel", "histogram", "improvement", "hands")
    ),
    ["figure", "complete", "heatmap", "--rows", LR, "--columns", "model_args.batchnorm", "--out", "{to}/figure.svg"],
    ["html", "complete"],
    ["html", "failures", "--out", "{to}/report.html"],
    ["rm", "failures"],
    ["clean", "complete", "--yes"],
    ["rm", "failures", "--yes"],
]
"""The commands to run there: each command of `report.py`, except those below, with everything that it may write.

`{to}` is an empty folder, and `{key}` a combination of `complete`.
"""

NOT_COMMANDS_THAT_END = {"reproduce", "watch"}
"""The first trains, and the second serves until it is stopped."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder as a run leaves it: `complete` has 8 trials of two subsets and a test set, `failures` 2."""
    folder = tmp_path_factory.mktemp("trained")
    write_datasets(folder / "data")
    small_experiment = SmallExperiment(folder / "data", folder / "results")
    names = {"train_set": "two_train", "val_set": "two_val", "test_set": "two_test", "n_repetitions": 2}
    changes = {f"experiment_config.{name}": value for name, value in names.items()}
    changes |= {"experiment_config.name": "complete", "solver_config.val_example_subset": "A"}
    small_experiment.run(changes, {LR: [1e-3, 1e-2], "model_args.batchnorm": [False, True]})
    with pytest.raises(TrialsFailedError):
        small_experiment.run({"experiment_config.name": "failures"}, {"model": [CorrectorMLP, FailingMLP]})
    return folder / "results"


def asked_on_copies(trained, tmp_path_factory):
    """The arguments of each command, each with its own copy of the results, since some change them."""
    key = min(path.name for path in (trained / "complete" / "trials").iterdir())
    arguments = []
    for command in COMMANDS:
        folder = tmp_path_factory.mktemp("copied")
        shutil.copytree(trained, folder / "results")
        (folder / "to").mkdir()
        given = [argument.format(to=folder / "to", key=key) for argument in command]
        arguments.append([*given, "--storage-path", str(folder / "results")])
    return arguments


def environment(*paths):
    """An environment in which Python finds this repository, and these folders before it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}


def run_script(python, arguments, *paths):
    return subprocess.run(
        [python, SCRIPT, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment(*paths)
    )


def required():
    """The requirements of the file that apply to this Python, such as `numpy==2.4.6`."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return [requirement for requirement in requirements if requirement.marker is None or requirement.marker.evaluate()]


def with_what_they_require(requirements):
    """The names of distributions and of everything that they require, if it is installed here."""
    names, to_visit = set(), list(requirements)
    while to_visit:
        requirement = to_visit.pop()
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        with suppress(PackageNotFoundError):  # needed only on another system
            to_visit += map(Requirement, requires(name) or [])
    return names


@pytest.fixture(scope="module")
def nothing_else(tmp_path_factory):
    """A folder for Python's path that makes only the packages in the file importable."""
    allowed = with_what_they_require(required()) | {"posetune"}
    installed = packages_distributions().items()
    refused = {module for module, names in installed if not allowed & set(map(canonicalize_name, names))}
    assert {"torch", "ray", "pandas"} <= refused
    folder = tmp_path_factory.mktemp("nothing_else")
    (folder / "sitecustomize.py").write_text(f"""
import sys

class Nothing:
    refused = {refused!r}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.refused:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nothing())
""")
    return folder


def test_all_commands_are_tried():
    offered = subprocess.run([sys.executable, SCRIPT, "?"], capture_output=True, text=True, check=False, cwd=ROOT)
    choices = re.search(r"choose from (.*)\)", offered.stderr)[1]
    assert {command for command, *_ in COMMANDS} | NOT_COMMANDS_THAT_END == set(re.findall(r"[\w-]+", choices))


def test_what_runs_has_what_reads():
    """`requirements.txt` begins with the file, so no version is listed twice."""
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "-r requirements-report.txt"
    names = {Requirement(line).name for line in lines[1:]}
    assert not names & {requirement.name for requirement in required()}


ALL_IN_ONE_PROCESS = """
import contextlib, io, json, runpy, sys
main = runpy.run_path(sys.argv[1])["main"]
done = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    done.append([status, err.getvalue(), out.getvalue()])
json.dump(done, sys.stdout)
"""


@pytest.fixture(scope="module")
def done_with_nothing_else(trained, nothing_else, tmp_path_factory):
    """Exit status, stderr and stdout of each command: in one process, since each start takes a second."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE_PROCESS, SCRIPT],
        input=json.dumps(asked_on_copies(trained, tmp_path_factory)),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(nothing_else),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(COMMANDS)), ids=[" ".join(command) for command in COMMANDS])
def test_a_command_runs_where_nothing_else_can_be_imported(done_with_nothing_else, place):
    status, err, out = done_with_nothing_else[place]
    assert (status, err) == (0, "")
    assert out


def test_a_command_starts_where_nothing_else_can_be_imported(tmp_path, nothing_else):
    write_experiment(tmp_path / "sweep", [({"lr": 1}, [9.0])])
    done = run_script(sys.executable, ["list", "--storage-path", tmp_path], nothing_else)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["export", "complete", "tensorboard", "--out", "new"], "pip install tensorboard"),
        (["export", "complete", "mlflow", "--out", "new"], "pip install mlflow"),
        (["reproduce", "complete", "best", "0"], "reproduce trains; install requirements.txt first"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_command_that_needs_more_says_what(trained, nothing_else, command, says):
    done = run_script(sys.executable, [*command, "--storage-path", trained], nothing_else)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr


@pytest.mark.slow
def test_the_report_is_served_where_nothing_else_can_be_imported(trained, nothing_else):
    serving = subprocess.Popen(
        [sys.executable, SCRIPT, "watch", "complete", "--storage-path", trained],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(nothing_else),
    )
    with serving:
        try:
            address = re.search(r"http://[^ ,]+", serving.stdout.readline())[0]
            with urllib.request.urlopen(address, timeout=30) as page:
                assert b"complete" in page.read()
        finally:
            serving.terminate()


@pytest.mark.parametrize("module", ["torch", "ray", "pandas"])
def test_where_nothing_else_can_be_imported_that_is_so(nothing_else, module):
    code = f"import numpy, pyarrow, {module}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(nothing_else)
    )
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: No module named {module!r}"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """The Python of a fresh environment with only the packages in the file."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        why = (installed.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"pip cannot install {REQUIREMENTS.name} into a fresh environment: {why}")
    return python


@pytest.fixture(scope="module")
def asked_for(trained, tmp_path_factory):
    return asked_on_copies(trained, tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(COMMANDS)), ids=[" ".join(command) for command in COMMANDS])
def test_a_command_runs_in_an_environment_with_nothing_else(asked_for, bare_python, place):
    done = run_script(bare_python, asked_for[place])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch", "ray", "pandas", "tensorboard", "mlflow", "wandb"])
def test_in_an_environment_with_nothing_else_that_is_so(bare_python, module):
    done = subprocess.run([bare_python, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: No module named {module!r}"
