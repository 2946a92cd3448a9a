import subprocess
import sys

import pytest

from cluster.provenance import provenance
from cluster.storage.run_file import POSETUNE, SCRIPT, Commit
from tests.support import ROOT


@pytest.fixture
def git(monkeypatch):
    """Answers calls of git by their command: with a text, an exit status, or an error."""

    real = subprocess.run

    def answers(**answer_to):
        def run(command, **options):
            if command[0] != "git":
                return real(command, **options)
            answer = answer_to[command[3].replace("-", "_")]
            if isinstance(answer, Exception):
                raise answer
            failed = isinstance(answer, int)
            return subprocess.CompletedProcess(command, answer if failed else 0, "" if failed else answer, "")

        monkeypatch.setattr(subprocess, "run", run)
        return provenance().git

    return answers


@pytest.fixture
def repository(tmp_path):
    """Makes a repository with a script, and returns the script and the commit."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "sweep.py").write_text(f"# {name}")
        identity = ["-c", "user.name=me", "-c", "user.email=me@here"]
        for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", name]):
            subprocess.run(["git", "-C", str(folder), *command], check=True)
        return folder / "sweep.py", head(folder)

    return make


def head(folder):
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip() or None


def test_commits_are_those_of_the_script_and_of_posetune_wherever_the_script_is_started(
    repository, monkeypatch, tmp_path
):
    script, commit = repository("mine")
    elsewhere, _ = repository("elsewhere")
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.chdir(elsewhere.parent)
    found = provenance().git
    assert found[SCRIPT] == Commit(commit, dirty=False)
    assert (found[POSETUNE].commit if POSETUNE in found else None) == head(ROOT)
    script.write_text("# changed")
    monkeypatch.chdir(script.parent)
    monkeypatch.setattr(sys, "argv", ["sweep.py"])
    assert provenance().git[SCRIPT] == Commit(commit, dirty=True)


@pytest.mark.parametrize(("name", "dirty"), [("results/sweep/experiment.json", False), ("models/mine.py", True)])
def test_a_new_module_next_to_the_script_is_a_change_and_results_are_none(repository, monkeypatch, name, dirty):
    script, commit = repository("mine")
    (script.parent / name).parent.mkdir(parents=True)
    (script.parent / name).write_text("")
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert provenance().git[SCRIPT] == Commit(commit, dirty)


@pytest.mark.parametrize("name", ["venv/sweep.py", "new.py", "missing/sweep.py", "", "-c", "a\0b"])
def test_what_a_repository_does_not_track_has_no_commit(repository, monkeypatch, name):
    script, _ = repository("mine")
    (script.parent / "venv").mkdir()
    for new in ("venv/sweep.py", "new.py"):
        (script.parent / new).write_text("")
    monkeypatch.chdir(script.parent)
    monkeypatch.setattr(sys, "argv", [name])
    assert SCRIPT not in provenance().git


@pytest.mark.parametrize(
    ("status", "dirty"),
    [
        ("", False),
        (" M cluster/planning/plan.py\n", True),
        (128, None),
        (subprocess.TimeoutExpired("git", 10), None),
    ],
)
def test_the_code_is_clean_changed_or_that_is_not_known(git, status, dirty):
    commit = Commit("abcd", dirty)
    assert git(rev_parse="abcd\n", ls_files="", status=status) == {SCRIPT: commit, POSETUNE: commit}


@pytest.mark.parametrize("answer", [128, FileNotFoundError("git")])
def test_outside_a_repository_there_is_no_commit(git, answer):
    assert git(rev_parse=answer) == {}


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (["--lr", "0.1", "-v", "path/x.py", "a=b"], ["--lr", "0.1", "-v", "path/x.py", "a=b"]),
        (["--n-keypoints", "21", "--dataset=key", "--keys=3"], ["--n-keypoints", "21", "--dataset=key", "--keys=3"]),
        (["--api-key", "S", "x"], ["--api-key", "***", "x"]),
        (["--token=S", "--wandb_api_key=S=S"], ["--token=***", "--wandb_api_key=***"]),
        (["--password", "--lr", "0.1"], ["--password", "--lr", "0.1"]),
        (["AWS_SECRET_ACCESS_KEY=S", "password=S", "x"], ["AWS_SECRET_ACCESS_KEY=***", "password=***", "x"]),
        (["--access-key", "-S"], ["--access-key", "***"]),
        (["--secret", "--S"], ["--secret", "--S"]),  # interpreted as the next option
        (["--proxy", "http://me:S@host:1/x"], ["--proxy", "http://***@host:1/x"]),
        (["https://S@host/x", "--to=s3://AKIA:S/S@bucket/x"], ["https://***@host/x", "--to=s3://***@bucket/x"]),
        (["--to=s3://bucket/x?a=b", "http://host:80/a"], ["--to=s3://bucket/x?a=b", "http://host:80/a"]),
    ],
)
def test_a_command_is_recorded_without_what_is_named_as_a_secret(monkeypatch, given, recorded):
    monkeypatch.setattr(sys, "argv", ["script.py", *given])
    assert provenance().command == ["script.py", *recorded]
    assert sys.argv == ["script.py", *given]
