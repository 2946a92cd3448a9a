import subprocess
import sys

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
        (" M cluster/planning/plan.py\n", True),
        (128, None),
        (subprocess.TimeoutExpired("git", 10), None),
    ],
)
def test_the_code_is_clean_changed_or_that_is_not_known(git, status, dirty):
    assert git(rev_parse="abc\n", status=status) == {"commit": "abc", "dirty": dirty}


@pytest.mark.parametrize("answer", [128, FileNotFoundError("git")])
def test_outside_a_repository_there_is_no_commit(git, answer):
    assert git(rev_parse=answer, status=answer) is None


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
    assert provenance()["command"] == ["script.py", *recorded]
    assert sys.argv == ["script.py", *given]
