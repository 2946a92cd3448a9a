"""PoseTune as pip installs it: a wheel in an environment of its own, used from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = {"cluster": "cluster", "data_pipeline": "data_pipeline", "posenet": "posenet", "tune_runs": "posetune"}
"""The packages that are installed, by their folders."""

LEFT_OUT = {"cluster/SCALE.md"}

pytestmark = pytest.mark.slow


def run(*command, cwd, **environment):
    """Runs a command without the repository on Python's path."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=given | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    done = run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("posetune-*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """The folder of commands of a fresh environment with the wheel, and with the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    where = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    options = ["--no-deps", "--no-index", "--quiet"]
    python = f"{where['scripts']}/python"
    done = run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    libraries = "\n".join(path for path in sys.path if path.endswith("-packages"))
    Path(where["purelib"], "libraries.pth").write_text(libraries)
    return where["scripts"]


def test_a_wheel_has_every_file_of_every_package(wheel):
    files = [path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    names = {file.as_posix() for file in files if "__pycache__" not in file.parts} - LEFT_OUT
    expected = {PACKAGES[name.partition("/")[0]] + name[name.index("/") :] for name in names}
    expected -= {name for name in expected if name.startswith("posetune/") and not name.endswith(".py")}
    content = zipfile.ZipFile(wheel).namelist()
    assert {name for name in content if ".dist-info/" not in name} == expected


@pytest.mark.parametrize("command", ["report", "predict", "prepare-data", "cluster-check"])
def test_a_command_explains_itself_by_the_name_that_it_has(scripts, tmp_path, command):
    done = run(f"{scripts}/posetune", command, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: posetune {command} ")
    assert f"    posetune {command} " in done.stdout or f"    posetune {command}\n" in done.stdout
    assert ".py " not in done.stdout


def test_data_can_be_made_and_a_corrector_trained_in_another_folder(scripts, tmp_path):
    # Names that a folder with scripts may have, and those of PoseTune's own scripts.
    for name in ("report.py", "predict.py", "posetune.py"):
        (tmp_path / name).write_text("raise SystemExit('not this one')\n")
    (tmp_path / "tune_runs").mkdir()
    (tmp_path / "tune_runs" / "__init__.py").touch()
    made = run(
        *(f"{scripts}/posetune", "prepare-data", "synthetic", "--name", "demo", "--train", 400, "--val", 300),
        *("--test", 200, "--subsets", "A,B"),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    script = (ROOT / "tune_runs" / "minimal_example.py").read_text()
    (tmp_path / "sweep.py").write_text(script.replace("experiment.run()", 'experiment.run("inline")'))
    trained = run(f"{scripts}/python", "sweep.py", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    shown = run(f"{scripts}/posetune", "report", "show", "minimal_example", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    files = ("--poses", "data/demo_test_poses.pt#A", "--labels", "data/demo_test_labels.pt", "--out", "corrected.pt")
    predicted = run(f"{scripts}/posetune", "predict", "--experiment", "minimal_example", *files, cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
