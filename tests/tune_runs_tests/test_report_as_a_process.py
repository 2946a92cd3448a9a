"""The script `report.py` as a shell runs it: its start, its streams, Ctrl-C, and tab completion."""

import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.cluster_tests.experiment_files import write_experiment
from tests.support import ROOT

SCRIPT = ROOT / "tune_runs" / "report.py"
KEYS = [f"{place:016x}" for place in range(2)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """`complete` and `started`; the second one is far from complete."""
    folder = tmp_path_factory.mktemp("results")
    write_experiment(folder / "complete", [({"lr": 1}, [9.0, 9.5]), ({"lr": 2}, [8.0, 8.5])])
    write_experiment(folder / "started", [({"lr": 1}, [9.0, None])])
    return folder


def start(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


class TestTheScript:
    def test_writes_to_stdout(self, results):
        process = start("list", "--storage-path", results)
        assert (process.returncode, process.stderr) == (0, "")
        assert [line.split()[0] for line in process.stdout.splitlines()[2:]] == ["complete", "started"]

    def test_can_be_run_by_its_name(self, results):
        """Tab completion for the command `report.py`."""
        assert os.access(SCRIPT, os.X_OK)
        assert "PYTHON_ARGCOMPLETE_OK" in SCRIPT.read_text()[:1024]

    def test_shows_an_error_as_one_line_with_exit_status_2(self, results):
        process = start("show", "unknown", "--storage-path", results)
        assert (process.returncode, process.stdout) == (2, "")
        assert process.stderr.startswith("error: no experiment 'unknown' in ")
        assert process.stderr.count("\n") == 1

    def test_ends_quietly_where_its_reader_has_enough(self, results):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, SCRIPT, "show", "complete", "--storage-path", results]
        process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False)
        os.close(writer)
        assert (process.returncode, process.stderr) == (0, b"")

    def test_is_also_a_command_of_posetune(self, results):
        """`python tune_runs` starts the same function as the installed command."""
        command = [sys.executable, SCRIPT.parent, "report", "list", "--storage-path", results]
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert (process.returncode, process.stderr) == (0, "")
        assert process.stdout == start("list", "--storage-path", results).stdout

    def test_needs_a_command(self):
        process = start()
        assert process.returncode == 2
        assert "usage: posetune report" in process.stderr

    def test_imports_nothing_that_is_heavy_to_list_and_show_and_compare(self, results):
        code = f"""
import runpy, sys
main = runpy.run_path({str(SCRIPT)!r})["main"]
for command in [
    ["list"],
    ["show", "complete"],
    ["compare", "complete", "started"],
    ["diff", "complete", "best", "best"],
    ["log", "complete", "best"],
    ["rm", "complete"],
    ["clean"],
]:
    assert main([*command, "--storage-path", {str(results)!r}]) == 0
heavy = {{"torch", "ray", "matplotlib", "pandas", "scipy", "plotext", "mlflow", "tensorboard"}} & set(sys.modules)
assert not heavy, heavy
"""
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert (process.returncode, process.stderr) == (0, "")


class TestWatch:
    def test_serves_the_page_at_the_printed_address_until_ctrl_c(self, results):
        command = [sys.executable, SCRIPT, "watch", "started", "--storage-path", results]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            try:
                address, hint = process.stdout.readline().strip(), process.stdout.readline()
                with urllib.request.urlopen(address, timeout=20) as answer:
                    page = answer.read().decode()
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=20)
            finally:
                process.kill()
        assert "<h1>started</h1>" in page
        assert (process.returncode, output, errors) == (0, "", "")
        assert hint == "Press Ctrl-C to stop.\n"

    def test_of_a_port_that_cannot_be_is_an_error(self, results):
        process = start("watch", "started", "--port=70000", "--storage-path", results)
        assert (process.returncode, process.stdout) == (2, "")
        assert "port 70000 of 127.0.0.1 cannot be used" in process.stderr


@pytest.mark.slow
class TestTab:
    def completed(self, line, script=SCRIPT):
        """The completions at the end of a line, requested as `register-python-argcomplete` does."""
        read, write = os.pipe()
        # The protocol requires the answer at descriptor 8, which a shell opens.
        command = f'exec 8>&{write}; exec "{sys.executable}" "{script}"'
        environment = {
            **os.environ,
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_SHELL": "bash",
            "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "COMP_TYPE": "9",
        }
        process = subprocess.run(
            ["bash", "-c", command], env=environment, pass_fds=[write], capture_output=True, cwd=ROOT, check=False
        )
        os.close(write)
        with os.fdopen(read) as answer:
            offered = answer.read()
        assert process.returncode == 0
        assert process.stdout == b""
        return [word.strip() for word in offered.split("\n") if word]

    def test_completes_a_command(self):
        assert self.completed("report.py com") == ["compare"]
        assert set(self.completed("report.py ")) >= {"list", "show", "reproduce", "rm", "clean", "watch"}

    def test_completes_an_option(self):
        assert self.completed("report.py show --js") == ["--json"]
        assert self.completed("report.py export x ten") == ["tensorboard"]
        assert self.completed("report.py export x table --form") == ["--format"]
        assert self.completed("report.py show x --by s") == ["subset", "subject", "sequence"]

    def test_completes_an_experiment(self, results):
        assert self.completed(f"report.py show --storage-path {results} com") == ["complete"]
        assert self.completed(f"report.py compare --storage-path {results} complete s") == ["started"]

    def test_completes_a_key(self, results):
        before = f"report.py log --storage-path {results} complete "
        assert sorted(self.completed(f"{before}0")) == KEYS
        assert self.completed(f"{before}b") == ["best"]
        assert self.completed(f"report.py figure --storage-path {results} complete curves --combination b") == ["best"]

    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("posetune re", ["report"]),
            ("posetune --he", ["--help"]),
            ("posetune report com", ["compare"]),
            ("posetune report show x --by s", ["subset", "subject", "sequence"]),
            ("posetune prepare-data synthetic --tr", ["--train"]),
            ("posetune predict --exp", ["--experiment", "--export"]),
            ("posetune cluster-check --addr", ["--address"]),
        ],
    )
    def test_completes_the_command_posetune(self, line, offered):
        assert self.completed(line, SCRIPT.parent) == offered

    def test_offers_nothing_where_there_is_no_experiment(self, results, tmp_path):
        assert self.completed(f"report.py log --storage-path {results} nothing 0") == []
        assert self.completed(f"report.py show --storage-path {tmp_path} x") == []
