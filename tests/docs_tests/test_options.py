"""The options over models that `tune_runs/README.md` shows can be planned."""

import ast
import re

import pytest
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR

from cluster.experiment import Experiment
from posenet import models
from tests.cluster_tests.small_experiment import SmallExperiment, write_datasets
from tests.support import ROOT

NAMES = {**vars(models), "nn": nn, "Adam": Adam, "StepLR": StepLR}


def blocks():
    text = (ROOT / "tune_runs" / "README.md").read_text()
    return [ast.parse(block).body for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


def examples():
    """The calls of the page that vary a model or its activation."""
    calls = [ast.unparse(statement) for block in blocks() if not any(map(is_gap, block)) for statement in block]
    return [call for call in calls if re.match(r"experiment\.add_\w*options\(\W*model", call)]


def is_gap(statement):
    return ast.unparse(statement) == "..."


@pytest.mark.parametrize("call", examples())
def test_that_vary_a_model_can_be_planned(tmp_path, call):
    write_datasets(tmp_path)
    activation = {"base_hyperparams.model_args": {"hidden_dims": [4], "activation": "relu"}}
    experiment = SmallExperiment(tmp_path, tmp_path / "results").experiment(activation)
    exec(call, {**NAMES, "experiment": experiment})
    assert len(experiment.plan().combinations) >= 2


@pytest.mark.parametrize(("place", "n_combinations"), [(0, 6), (1, 8)], ids=["conditions", "search"])
def test_with_what_the_dicts_need_can_be_planned(tmp_path, place, n_combinations):
    write_datasets(tmp_path)
    block = [block for block in blocks() if any(map(is_gap, block))][place]
    gap = next(i for i, statement in enumerate(block) if is_gap(statement))
    dicts = SmallExperiment(tmp_path, tmp_path / "results").dicts()
    names = {**NAMES, **dicts}
    exec("\n".join(map(ast.unparse, block[:gap])), names)
    names["experiment"] = Experiment(*dicts.values())
    exec("\n".join(map(ast.unparse, block[gap + 1 :])), names)
    assert len(names["experiment"].plan().combinations) == n_combinations


def test_are_found_on_the_page():
    assert len(examples()) == 3
