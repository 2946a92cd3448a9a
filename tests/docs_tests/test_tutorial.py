"""The tutorial runs from its first to its last cell, on the code of this checkout."""

import os
import sys

import numpy as np
import pytest
import torch

from data_pipeline.formats.joint_orders import OPENPOSE
from tests.support import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"


def read():
    nbformat = pytest.importorskip("nbformat", reason="the requirements of the site are not installed")
    return nbformat.read(TUTORIAL, as_version=4)


def test_is_kept_without_outputs():
    """Outputs change with every machine, and would hide changes of the text; the site shows new ones."""
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert cells
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder in which the tutorial ran, and its outputs: texts and the types of pictures."""
    nbclient = pytest.importorskip("nbclient", reason="the requirements of the site are not installed")
    pytest.importorskip("ipykernel", reason="the requirements of the site are not installed")
    folder = tmp_path_factory.mktemp("tutorial")
    command = folder / "bin" / "posetune"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tune_runs" "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    notebook = read()
    client = nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return folder, "".join(output.get("text", "") for output in outputs), [output.get("data", {}) for output in outputs]


@pytest.mark.slow
def test_corrects_frames_at_a_distance_from_training_frames(done):
    folder, text, _ = done
    poses, labels = (torch.load(folder / "data" / f"hand_test_{kind}.pt").numpy() for kind in ("poses", "labels"))
    corrected = OPENPOSE.to_hands17(np.load(folder / "corrected.npy"))
    before, after = (np.linalg.norm(some - labels, axis=2).mean() for some in (poses, corrected))
    assert after < before
    assert "warning: " not in text
    assert "error: " not in text


@pytest.mark.slow
def test_shows_both_pictures(done):
    _, _, data = done
    assert sum("image/png" in one for one in data) == 2
