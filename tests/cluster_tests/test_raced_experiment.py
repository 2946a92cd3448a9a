"""A raced experiment, from its script to its tables."""

import json

import pytest

from cluster.racing.successive_halving import SuccessiveHalving
from cluster.trained import read_corrector
from data_pipeline.user_error import UserError
from tests.cluster_tests.small_experiment import LR, SmallExperiment

RACE = {
    "solver_config.num_epochs": 4,
    "experiment_config.keep_state": "all",
    "experiment_config.race": SuccessiveHalving(reduction_factor=2, min_epochs=2, min_finalists=1, max_cost=0.01),
}
OPTIONS = {LR: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]}


@pytest.fixture(scope="module")
def raced(small_data, tmp_path_factory):
    """Six combinations, of which three were dropped after two of four epochs."""
    small_experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("raced"))
    small_experiment.run(RACE, OPTIONS)
    return small_experiment


def test_ends_without_an_error_and_ranks_its_finalists(raced):
    table = raced.experiment(RACE, OPTIONS).results()
    assert len(table.ranked) == len(table.dropped) == 3
    assert [row["n"] for row in table.summary] == [1, 1, 1, 0, 0, 0]
    assert {at.epoch for at in table.dropped.values()} == {2}
    summary = (raced.folder / "tables" / "summary.csv").read_text().splitlines()
    assert summary[0].endswith("dropped_reason")
    assert len(summary) == 7


def test_a_dropped_combination_has_no_corrector(raced):
    folder = raced.experiment(RACE, OPTIONS).folder
    key = next(iter(raced.experiment(RACE, OPTIONS).results().dropped))
    with pytest.raises(UserError, match=f"{key} of small_experiment was dropped by its race"):
        read_corrector(folder, combination=key)


def test_without_the_race_has_the_table_of_a_grid(raced, small_data, tmp_path):
    other = SmallExperiment(small_data, tmp_path)
    changes = RACE | {"experiment_config.race": None}
    grid = other.run(changes, OPTIONS)
    raced.run(changes, OPTIONS)
    numbers = (raced.folder / "tables" / "summary.csv").read_text()
    assert numbers == (other.folder / "tables" / "summary.csv").read_text()
    assert "dropped" not in numbers
    assert len(grid.ranked) == 6
    raced.run(RACE, OPTIONS)  # all combinations are complete now
    assert not raced.experiment(RACE, OPTIONS).results().dropped


def test_a_longer_training_has_the_same_combinations_dropped(small_data, tmp_path):
    small_experiment = SmallExperiment(small_data, tmp_path)
    small_experiment.run(RACE, OPTIONS)
    longer = RACE | {"solver_config.num_epochs": 8}
    table = small_experiment.run(longer, OPTIONS)
    assert len(json.loads((small_experiment.folder / "experiment.json").read_text())["stands_for"]) > 0
    assert len(table.dropped) + len(table.ranked) == 6
    assert all(row["n"] == 1 for row in table.ranked)
    assert {row["status"] for row in table.trials} == {"finished", "dropped"}
