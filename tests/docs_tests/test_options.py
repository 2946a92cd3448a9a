"""The options over models that `tune_runs/README.md` shows can be planned."""

import ast
import re

import pytest
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR

from posenet import models
from tests.cluster_tests.small_experiment import SmallExperiment, write_datasets
from tests.support import ROOT

NAMES = {**vars(models), "nn": nn, "Adam": Adam, "StepLR": StepLR}


def examples():
    """The calls of the page that vary a model or its activation."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "tune_runs" / "README.md").read_text(), re.DOTALL)
    calls = [ast.unparse(statement) for block in blocks for statement in ast.parse(block).body]
    return [call for call in calls if re.match(r"experiment\.add_\w*options\(\W*model", call)]


@pytest.mark.parametrize("call", examples())
def test_that_vary_a_model_can_be_planned(tmp_path, call):
    write_datasets(tmp_path)
    activation = {"base_hyperparams.model_args": {"hidden_dims": [4], "activation": "relu"}}
    experiment = SmallExperiment(tmp_path, tmp_path / "results").experiment(activation)
    exec(call, {**NAMES, "experiment": experiment})
    assert len(experiment.plan().combinations) >= 2


def test_are_found_on_the_page():
    assert len(examples()) == 3
