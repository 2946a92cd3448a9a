import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.experiment import TrialsFailedError
from cluster.lock import experiment_lock
from cluster.storage import Storage
from posenet.models import CorrectorMLP
from tests.cluster_tests.tiny import LR, FailingMLP, Tiny, write_datasets

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tune_runs" / "report.py"
SHAPE = '{"name": "x", "options": [], "configs": {"experiment_config": {}}, "plan": {"seeds": [1], "combinations": []}}'


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Experiments: `complete`, `failures`, `unfinished`, and two that are broken; a folder and a file beside them."""
    folder = tmp_path_factory.mktemp("report")
    write_datasets(folder / "data")
    tiny = Tiny(folder / "data", folder / "results")
    complete = tiny.run(
        {"experiment_config.name": "complete", "experiment_config.n_repetitions": 2}, {LR: [1e-3, 1e-2]}
    )
    with pytest.raises(TrialsFailedError):
        tiny.run({"experiment_config.name": "failures"}, {"model": [CorrectorMLP, FailingMLP]})
    tiny.run({"experiment_config.name": "unfinished"}, {LR: [1e-3, 1e-2]})
    (folder / "results" / "unfinished" / "trials" / complete.trials[0]["key"] / "0" / "trial.json").unlink()
    for name, content in {"broken": "{", "other": SHAPE}.items():
        (folder / "results" / name).mkdir()
        (folder / "results" / name / "experiment.json").write_text(content)
    (folder / "results" / "empty").mkdir()
    (folder / "results" / "file").touch()
    return folder / "results"


@pytest.fixture
def run(script, results, capsys):
    """Runs the script in this process and returns exit status, stdout and stderr."""

    def run(*arguments):
        status = script.main([*arguments, "--storage-path", str(results)])
        return status, *capsys.readouterr()

    return run


class TestList:
    def test_has_a_row_for_each_experiment_with_its_state(self, run):
        status, output, errors = run("list")
        assert (status, errors) == (0, "")
        heading, _, *rows = output.splitlines()
        assert heading.split() == ["experiment", "state", "trials", "done", "best", "(mm)", "started"]
        states = {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
        assert list(states) == ["broken", "complete", "failures", "other", "unfinished"]
        assert states["complete"].startswith("complete 4/4 ")
        assert "±" in states["complete"]
        assert states["failures"].startswith("complete, with failures 2/2 ")
        assert states["unfinished"].startswith("unfinished 1/2 ")
        assert states["broken"] == states["other"] == "broken"

    def test_tells_what_runs_now(self, run, results):
        with experiment_lock(Storage(results / "unfinished")):
            output = run("list")[1]
        (row,) = (row for row in output.splitlines() if row.startswith("unfinished"))
        assert row.split()[1:3] == ["running", "1/2"]
        (row,) = (row for row in run("list")[1].splitlines() if row.startswith("unfinished"))
        assert row.split()[1] == "unfinished"

    def test_of_an_experiment_that_cannot_be_read_says_that_it_is_broken(self, script, tmp_path, capsys):
        (tmp_path / "x" / "experiment.json").mkdir(parents=True)
        assert script.main(["list", "--storage-path", str(tmp_path)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].split() == ["x", "broken"]

    @pytest.mark.parametrize("folder", ["none", "empty"])
    def test_of_a_folder_without_experiments_says_so(self, script, results, capsys, folder):
        assert script.main(["list", "--storage-path", str(results / folder)]) == 0
        assert capsys.readouterr().out == f"{results / folder} has no experiments\n"


class TestShow:
    def test_prints_the_summary_state_and_place(self, run, results):
        status, output, errors = run("show", "complete")
        assert (status, errors) == (0, "")
        assert output.startswith((results / "complete" / "tables" / "summary.txt").read_text())
        assert output.endswith(f"State: complete\nAll files: {results / 'complete'}/\n")

    @pytest.mark.parametrize(("name", "state"), [("failures", "complete, with failures"), ("unfinished", "unfinished")])
    def test_tells_the_state(self, run, results, name, state):
        assert f"State: {state}\n" in run("show", name)[1]
        with experiment_lock(Storage(results / name)):
            assert f"State: {state} (running now)\n" in run("show", name)[1]

    def test_names_what_failed(self, run):
        assert "RuntimeError: this model is broken" in run("show", "failures")[1]

    @pytest.mark.parametrize("name", ["unknown", "broken", "other", "empty", "file"])
    def test_of_what_is_no_experiment_lists_those_that_are(self, run, results, name):
        status, output, errors = run("show", name)
        assert (status, output) == (2, "")
        assert errors == (
            f"error: {results / name} holds no experiment (experiment.json is missing or broken); "
            f"{results} has broken, complete, failures, other, unfinished\n"
        )

    def test_reads_and_changes_nothing(self, run, results):
        before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
        run("show", "complete")
        run("list")
        assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


class TestAsAProcess:
    def start(self, *arguments):
        command = [sys.executable, SCRIPT, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    def test_list_and_show_write_to_stdout(self, results, run):
        process = self.start("list", "--storage-path", results)
        assert (process.returncode, process.stdout, process.stderr) == run("list")
        process = self.start("show", "complete", "--storage-path", results)
        assert (process.returncode, process.stdout, process.stderr) == run("show", "complete")

    def test_an_error_is_one_line_and_exit_status_2(self, results):
        process = self.start("show", "unknown", "--storage-path", results)
        assert (process.returncode, process.stdout) == (2, "")
        assert process.stderr.startswith("error: ")
        assert process.stderr.count("\n") == 1

    def test_a_reader_that_has_enough_ends_it_quietly(self, results):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, SCRIPT, "show", "complete", "--storage-path", results]
        process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False)
        os.close(writer)
        assert (process.returncode, process.stderr) == (0, b"")

    def test_a_command_is_needed(self):
        process = self.start()
        assert process.returncode == 2
        assert "usage: report.py" in process.stderr

    def test_neither_torch_nor_ray_is_imported(self, results):
        code = f"""
import runpy, sys
sys.argv = ["report.py", "show", "complete", "--storage-path", {str(results)!r}]
try:
    runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
except SystemExit as end:
    assert end.code == 0
assert not {{"torch", "ray", "matplotlib"}} & set(sys.modules), "a heavy import"
"""
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert (process.returncode, process.stderr) == (0, "")


def test_an_experiment_of_a_remote_filesystem_is_listed(script, tmp_path, capsys):
    write_datasets(tmp_path)
    location = "fsspec+memory:///test_report/results"
    Tiny(tmp_path, location).run()
    capsys.readouterr()
    assert script.main(["list", "--storage-path", location]) == 0
    name, state, done, _, started = capsys.readouterr().out.splitlines()[2].split()
    assert (name, state, done, started) == ("tiny", "complete", "1/1", "–")
    assert script.main(["show", "tiny", "--storage-path", location]) == 0
