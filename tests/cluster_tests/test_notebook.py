"""Runs in a notebook, with a real kernel."""

import os

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

SETUP = """
from pathlib import Path
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR, SmallExperiment, write_datasets

class Mine(CorrectorMLP):
    pass

write_datasets(Path())
small = SmallExperiment(Path(), Path("results"))
experiment = small.experiment({"base_hyperparams.model": Mine}, {LR: [1e-3, 1e-2]})
"""


@pytest.fixture
def run_cells(tmp_path):
    """Runs cells after SETUP; returns the outputs of the last one, and everything that an output was updated to."""
    nbclient = pytest.importorskip("nbclient", reason="the requirements of the site are not installed")
    nbformat = pytest.importorskip("nbformat", reason="the requirements of the site are not installed")
    pytest.importorskip("ipykernel", reason="the requirements of the site are not installed")
    updates = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message, *args):
            if message["msg_type"] == "update_display_data":
                updates.append(message["content"]["data"]["text/html"])
            return super().process_message(message, *args)

    def run(*cells):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)])
        client = Client(notebook, timeout=200, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
        client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")})
        return notebook.cells[-1].outputs, updates

    return run


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_run_shows_its_progress_and_keeps_what_it_printed_before(run_cells, executor):
    outputs, updates = run_cells(f"experiment.run({executor!r})")
    text = "".join(output.get("text", "") for output in outputs)
    assert "2 combinations × 1 repetition = 2 trials: 2 to train" in text
    assert "small_experiment: 2 trials, 2 finished" in text
    assert any("/2 trials" in html for html in updates)
    assert updates[-1] == ""
    assert "<table>" in outputs[-1].data["text/html"]


def test_an_error_of_the_user_is_its_text_without_a_traceback(run_cells):
    ((error,), _) = run_cells("experiment.add_options('bse', [1])")
    assert error.ename == "ConfigError"
    assert error.traceback[0].startswith("error: 1 problem in the configuration:\n  bse: ")
    assert len(error.traceback) == 1
