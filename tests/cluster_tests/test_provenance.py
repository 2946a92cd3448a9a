import subprocess

import pytest

from cluster.provenance import provenance


@pytest.fixture
def git(monkeypatch):
    """Answers calls of git by their first argument: with a text, an exit status, or an error."""

    real = subprocess.run

    def answers(**answer_to):
        def run(command, **options):
            if command[0] != "git":
                return real(command, **options)
            answer = answer_to[command[1].replace("-", "_")]
            if isinstance(answer, Exception):
                raise answer
            failed = isinstance(answer, int)
            return subprocess.CompletedProcess(command, answer if failed else 0, "" if failed else answer, "")

        monkeypatch.setattr(subprocess, "run", run)
        return provenance()["git"]

    return answers


@pytest.mark.parametrize(
    ("status", "dirty"),
    [
        ("", False),
        (" M cluster/plan.py\n", True),
        (128, None),
        (subprocess.TimeoutExpired("git", 10), None),
    ],
)
def test_the_code_is_clean_changed_or_that_is_not_known(git, status, dirty):
    assert git(rev_parse="abc\n", status=status) == {"commit": "abc", "dirty": dirty}


@pytest.mark.parametrize("answer", [128, FileNotFoundError("git")])
def test_outside_a_repository_there_is_no_commit(git, answer):
    assert git(rev_parse=answer, status=answer) is None
