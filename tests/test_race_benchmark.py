"""The benchmark of races: its file of grids, and what it counts for the methods that it compares."""

import numpy as np
import pytest

from cluster.racing.replay import TrainedGrid, replay_race
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.terminal.race_replay import replay_races
from cluster.results.results import Results
from tests.benchmarks.races import (
    FILE,
    MAX_COST,
    MAX_REGRET_MM,
    asha,
    one_epoch_best_at_equal_cost,
    optuna_halving,
    optuna_median,
    random_choice_at_equal_cost,
    rungs,
)
from tests.benchmarks.trained_grids import read_grids, write_grids
from tests.cluster_tests.experiment_files import write_experiment, write_records
from tests.cluster_tests.small_experiment import LR

N_EPOCHS = 6
"""A race with default settings then has rungs at epochs 3 and 6."""


def flat(*means_mm):
    """A grid whose combinations have the same error after each epoch."""
    val = {f"c{i}": np.full((2, N_EPOCHS), mm) for i, mm in enumerate(means_mm)}
    return TrainedGrid(val, {key: values[:, 0] for key, values in val.items()})


def written(path, n_repetitions):
    """An experiment of 3 combinations with some finished repetitions; one diverged after 5 epochs."""
    rng = np.random.default_rng(0)
    outcomes = [[10.0 + place if r < n else None for r in range(3)] for place, n in enumerate(n_repetitions)]
    folder = write_experiment(path, [({LR: 0.1 * (1 + place)}, of) for place, of in enumerate(outcomes)])
    for place, n in enumerate(n_repetitions):
        for repetition in range(n):
            write_records(folder, f"{place:016x}/{repetition}", rng.uniform(10, 20, N_EPOCHS))
    trial = folder.trial(f"{1:016x}/0")
    trial.write_trial(trial.read_trial()._replace(status="diverged", metrics={}, error="the loss is nan"))
    write_records(folder, f"{1:016x}/0", rng.uniform(10, 20, 5))
    return folder


def test_a_file_of_grids_contains_what_a_replay_reads_from_the_results(tmp_path):
    folder = written(tmp_path / "sweep", [3, 3, 3])
    write_grids(tmp_path / "grids.parquet", {"A": str(tmp_path / "sweep"), "B": str(tmp_path / "sweep")})
    grids = read_grids(tmp_path / "grids.parquet")
    (replayed,) = replay_races(Results.read(folder), [SuccessiveHalving()])
    assert list(grids) == ["A", "B"]
    for grid in grids.values():
        for found, expected in ((grid.val_mm, replayed.grid.val_mm), (grid.test_mm, replayed.grid.test_mm)):
            assert found.keys() == expected.keys()
            for key in expected:
                assert np.array_equal(found[key], np.float32(expected[key]))


@pytest.mark.parametrize("backbone", ["Pose-REN", "DeepModel", "DeepPrior", "DeepPrior++"])
def test_a_race_with_default_settings_finds_the_winner_of_a_grid_of_nyu_for_a_quarter_of_its_epochs(backbone):
    found = replay_race(read_grids(FILE)[backbone], SuccessiveHalving())
    assert found.cost <= MAX_COST
    assert found.val_regret_mm <= MAX_REGRET_MM


def test_an_unfinished_grid_has_the_repetitions_that_all_its_combinations_finished(tmp_path):
    written(tmp_path / "sweep", [3, 1, 2])
    write_grids(tmp_path / "grids.parquet", {"A": str(tmp_path / "sweep")})
    assert read_grids(tmp_path / "grids.parquet")["A"].n_repetitions == 1


def test_optunas_halving_trains_to_the_end_what_is_the_best_when_it_arrives():
    found = optuna_halving(shuffled=False)(flat(2.0, 3.0, 1.0, 2.5), np.random.default_rng(0))
    assert found.cost == pytest.approx((6 + 3 + 6 + 3) / (4 * 6))
    assert found.winner == "c2"


def test_optunas_median_pruner_trains_five_to_the_end_before_it_stops_any():
    found = optuna_median(shuffled=False)(flat(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 2.5), np.random.default_rng(0))
    assert found.cost == pytest.approx((5 * 6 + 3 + 6) / (7 * 6))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_asha_stops_the_worse_of_two_only_if_it_arrives_later(n_workers):
    costs = {asha(n_workers)(flat(1.0, 2.0), np.random.default_rng(seed)).cost for seed in range(20)}
    assert costs == {(6 + 3) / (2 * 6), 1.0}


@pytest.mark.parametrize("method", [one_epoch_best_at_equal_cost, random_choice_at_equal_cost])
def test_methods_of_equal_cost_cost_no_more_than_the_race(method):
    grid = flat(*range(20))
    cost = replay_race(grid, SuccessiveHalving()).cost
    assert cost - 1 / 20 < method(grid, np.random.default_rng(0)).cost <= cost


def test_rivals_decide_at_the_race_s_first_rung_and_then_at_powers_of_its_factor():
    grid = TrainedGrid({"a": np.ones((1, 100))}, {})
    assert rungs(grid, 4, 3) == [4, 12, 36, 100]
    assert rungs(flat(1.0), 3, 2) == [3, 6]
