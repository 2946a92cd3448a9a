import itertools
import math

import numpy as np
import pytest

from cluster.racing.replay import RandomSearch, TrainedGrid, replay_first_epochs, replay_race
from cluster.racing.successive_halving import SuccessiveHalving


def grid_of(n_combinations=60, n_repetitions=3, n_epochs=100, *, noise=0.0, crossing=False, seed=0):
    """Learning curves that fall to final values 0.1 mm apart; with `crossing`, the best ones fall the slowest."""
    rng = np.random.default_rng(seed)
    epochs = np.arange(1, n_epochs + 1)
    curves, tests = {}, {}
    for i in range(n_combinations):
        rate = 0.08 + 0.3 * i / n_combinations if crossing else 0.1
        curve = 10 + 0.1 * i + 50 * np.exp(-rate * epochs)
        curves[f"c{i:03d}"] = curve + noise * rng.standard_normal((n_repetitions, n_epochs))
        tests[f"c{i:03d}"] = 11 + 0.1 * i + np.zeros(n_repetitions)
    return TrainedGrid(curves, tests)


def test_a_race_whose_curves_never_cross_finds_the_winner_for_an_eighth_of_the_epochs():
    found = replay_race(grid_of(), SuccessiveHalving(reduction_factor=3))
    assert (found.winner, found.val_regret_mm, found.test_regret_mm) == ("c000", 0.0, 0.0)
    # 60 combinations train 4 epochs, 20 of them 11, 7 of these 33 and 3 of these 100.
    assert found.cost == pytest.approx((40 * 4 + 13 * 11 + 4 * 33 + 3 * 100) / 6000)
    assert [len(decision.kept) for decision in found.decisions] == [20, 7, 3, 3]


def test_the_first_rung_costs_a_third_with_a_third_of_the_repetitions():
    found = replay_race(grid_of(), SuccessiveHalving(reduction_factor=3, first_repetitions=1))
    assert found.cost == pytest.approx((40 * 4 / 3 + 13 * 11 + 4 * 33 + 3 * 100) / 6000)


def test_a_race_that_drops_the_grids_winner_has_the_regret_of_its_own():
    grid = grid_of(crossing=True)
    found = replay_race(grid, SuccessiveHalving(reduction_factor=3))
    assert found.winner != grid.winner == "c000"
    assert found.val_regret_mm == pytest.approx(grid.final_mm[found.winner] - grid.final_mm["c000"])
    assert found.val_regret_mm > 0
    assert found.test_regret_mm == pytest.approx(0.1 * int(found.winner[1:]))


def test_a_race_costs_no_more_than_its_rule_allows_however_close_the_combinations_are():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        grid = TrainedGrid({f"c{i}": 10 + rng.normal(size=(3, 1)) + np.zeros((3, 100)) for i in range(60)}, {})
        found = replay_race(grid, SuccessiveHalving(reduction_factor=3, max_cost=0.2))
        assert found.cost <= 0.2
        assert len(found.decisions[0].kept) > 20
        assert found.test_regret_mm is None


def test_a_combination_with_fewer_epochs_is_judged_at_its_own_share_of_them():
    long = grid_of(10)
    short = {f"s{key}": values[:, :50] for key, values in long.val_mm.items()}
    found = replay_race(TrainedGrid({**long.val_mm, **short}, {}), SuccessiveHalving(reduction_factor=3))
    total = 3 * 10 * (100 + 50)
    assert 0 < found.cost * total == pytest.approx(round(found.cost * total))


def test_the_baseline_trains_one_epoch_of_all_and_the_best_to_the_end():
    grid = grid_of()
    found = replay_first_epochs(grid, 10)
    assert found.winner == "c000"
    assert found.cost == pytest.approx((50 * 1 + 10 * 100) / 6000)
    assert replay_first_epochs(grid_of(crossing=True), 10).val_regret_mm > 0


@pytest.mark.parametrize(("cost", "n"), [(0.5, 3), (0.2, 1), (1.0, 6), (0.01, 1)])
def test_a_random_search_has_the_mean_regret_of_all_possible_draws(cost, n):
    grid = grid_of(6)
    found = RandomSearch.of(grid, cost)
    finals = list(grid.final_mm.values())
    regrets = [min(finals[i] for i in drawn) - finals[0] for drawn in itertools.combinations(range(6), n)]
    assert found.n == n
    assert found.val_regret_mm == pytest.approx(math.fsum(regrets) / len(regrets))
    assert found.probability == pytest.approx(np.mean([regret == 0 for regret in regrets]))


def test_a_random_search_has_the_mean_regret_of_the_draws_that_do_not_all_diverge():
    grid = grid_of(6)
    diverged = {key: np.full((3, 100), np.inf) if key > "c002" else of for key, of in grid.val_mm.items()}
    found = RandomSearch.of(TrainedGrid(diverged, {}), 1 / 3)
    assert found.all_diverged == pytest.approx(3 / 15)
    assert found.val_regret_mm == pytest.approx((5 * 0.0 + 4 * 0.1 + 3 * 0.2) / 12)


def test_a_race_whose_finalists_all_diverge_has_no_winner():
    good, bad = np.full((2, 27), 20.0), np.where(np.arange(27) < 20, 10.0, np.inf) * np.ones((2, 1))
    grid = TrainedGrid({"a": good, **{f"b{place}": bad for place in range(5)}}, {})
    for found in (replay_race(grid, SuccessiveHalving()), replay_first_epochs(grid, 3)):
        assert (found.winner, found.val_regret_mm, found.test_regret_mm) == (None, None, None)
        assert 0 < found.cost < 1


def test_a_resampled_grid_has_the_chosen_repetitions():
    grid = grid_of(5, noise=0.1)
    again = grid.resampled([2, 2, 0])
    for key, values in grid.val_mm.items():
        assert np.array_equal(again.val_mm[key], values[[2, 2, 0]])
        assert np.array_equal(again.test_mm[key], grid.test_mm[key][[2, 2, 0]])
