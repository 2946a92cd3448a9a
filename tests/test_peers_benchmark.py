"""The benchmark that compares PoseTune with its rivals: what it counts, and that all of them train the same."""

import ast
import subprocess
import sys

import pytest

from tests.benchmarks.peers.__main__ import PROGRAMS
from tests.support import ROOT

BURN = "import time\nwhile time.process_time() < 1: pass\n"


def run_measured(tmp_path, program):
    """Measures a Python program, in a process that has no other children; returns the cost or the error as a text."""
    measuring = (
        "import sys; from pathlib import Path; from tests.benchmarks.peers.process_tree import run_measured\n"
        "try: print(vars(run_measured([sys.executable, '-c', sys.argv[1]], log=Path(sys.argv[2]), environment={})))\n"
        "except RuntimeError as error: print(repr(str(error)))"
    )
    command = [sys.executable, "-c", measuring, program, str(tmp_path / "log")]
    return ast.literal_eval(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_the_processor_time_of_processes_that_outlive_the_program_counts(tmp_path):
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN!r}])"
    assert run_measured(tmp_path, program)["cpu_s"] >= 1


def test_the_processor_time_of_processes_that_nobody_waits_for_counts(tmp_path):
    """Ray's raylet ignores the end of its workers, so the kernel does not add their time to its own."""
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {BURN + 'time.sleep(1)'!r}]).wait()"
    )
    assert run_measured(tmp_path, program)["cpu_s"] >= 0.95  # the kernel counts hundredths of seconds


def test_memory_that_processes_share_counts_once(tmp_path):
    program = (
        "import os, time\nfilled = b'1' * 100_000_000\n"
        "if os.fork() and os.fork() and os.fork(): [os.wait() for _ in range(3)]\n"
        "else: time.sleep(2)"
    )
    assert 100e6 < run_measured(tmp_path, program)["memory_bytes"] < 200e6


def test_the_error_of_a_program_shows_what_it_printed(tmp_path):
    error = run_measured(tmp_path, "raise SystemExit('no data')")
    assert "failed with 1" in error
    assert error.endswith("no data\n")


@pytest.mark.serial
@pytest.mark.timeout(300)
def test_programs_train_the_same_and_have_a_row(tmp_path):
    """Those that start Ray take more than a minute; `python -m tests.benchmarks.peers short` runs them too."""
    code = (
        "import sys; from pathlib import Path; from tests.benchmarks.peers import __main__ as peers\n"
        "peers.PROGRAMS = [program for program in peers.PROGRAMS if program.name in sys.argv[2:]]\n"
        "size = peers.SIZES['short']\n"
        "print(peers.table({size.title: peers.measure_all(size, Path(sys.argv[1]))}))"
    )
    names = [program.name for program in PROGRAMS if not program.name.startswith("Ray") and program.name != "PoseTune"]
    assert len(names) == 4
    command = [sys.executable, "-c", code, str(tmp_path), *names]
    table = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == names
    assert all(len(row) == 1 + 4 for row in rows)
