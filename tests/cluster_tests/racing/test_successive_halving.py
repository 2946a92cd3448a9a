import math
from fractions import Fraction

import numpy as np
import pytest

from cluster.racing.successive_halving import Race, Rung, SuccessiveHalving


def race_of(n_combinations, *, epochs=100, n_repetitions=3, **rule):
    keys = [f"c{i:03d}" for i in range(n_combinations)]
    return Race(SuccessiveHalving(**{"reduction_factor": 3, **rule}), dict.fromkeys(keys, epochs), n_repetitions)


def values_of(race, means, *, spread=0.0, rung=0, seed=0):
    """The errors of each combination: its mean plus a deviation for each repetition."""
    n = race.rungs[rung].n_repetitions
    noise = spread * np.random.default_rng(seed).standard_normal((len(means), n))
    return {key: (mean + row).tolist() for key, mean, row in zip(race.num_epochs, means, noise, strict=True)}


def decide(race, place, values):
    return race.decide(place, values, race.n_epochs_allowed)


def rungs_of(rule, num_epochs, n_repetitions):
    return Race(rule, dict(enumerate(num_epochs)), n_repetitions).rungs


class TestTheRungs:
    def test_are_shares_of_each_combinations_own_epochs(self):
        rungs = rungs_of(SuccessiveHalving(reduction_factor=3), [100, 200], 3)
        assert [(rung.epoch(100), rung.epoch(200)) for rung in rungs] == [(4, 7), (11, 22), (33, 67), (100, 200)]

    @pytest.mark.parametrize(
        ("rule", "epochs"),
        [
            ({"min_epochs": 10}, [11, 33, 100]),
            ({"min_epochs": 1}, [1, 4, 11, 33, 100]),
            ({"reduction_factor": 4}, [6, 25, 100]),
            ({"min_epochs": 100}, [100]),
        ],
    )
    def test_begin_where_every_combination_has_trained_enough_epochs(self, rule, epochs):
        assert [
            rung.epoch(100) for rung in rungs_of(SuccessiveHalving(**{"reduction_factor": 3, **rule}), [100, 500], 3)
        ] == epochs

    def test_are_at_different_epochs(self):
        assert [rung.epoch(2) for rung in rungs_of(SuccessiveHalving(reduction_factor=2, min_epochs=1), [2], 3)] == [
            1,
            2,
        ]

    def test_have_fewer_repetitions_only_at_the_first_one(self):
        rungs = rungs_of(SuccessiveHalving(reduction_factor=3, first_repetitions=2), [100], 6)
        assert [rung.n_repetitions for rung in rungs] == [2, 6, 6, 6]
        assert [
            rung.n_repetitions
            for rung in rungs_of(SuccessiveHalving(reduction_factor=3, first_repetitions=2, min_epochs=100), [100], 6)
        ] == [6]

    def test_round_half_epochs_up(self):
        assert Rung(Fraction(1, 2), 1).epoch(5) == 3
        assert Rung(Fraction(1, 3), 1).epoch(4) == 1


class TestADecision:
    def test_keeps_one_in_reduction_factor_if_all_errors_are_far_apart(self):
        race = race_of(60)
        kept = decide(race, 0, values_of(race, range(60))).kept
        assert kept == [f"c{i:03d}" for i in range(20)]

    def test_does_not_depend_on_the_order_of_combinations_or_repetitions(self):
        race = race_of(30)
        values = values_of(race, np.random.default_rng(1).normal(10, 1, 30), spread=0.5)
        decision = decide(race, 0, values)
        for seed in range(5):
            rng = np.random.default_rng(seed)
            order, repetitions = rng.permutation(list(values)), rng.permutation(3)
            again = decide(race, 0, {key: [values[key][i] for i in repetitions] for key in order})
            assert list(again.reasons.items()) == list(decision.reasons.items())
            assert again.means_mm == decision.means_mm

    def test_breaks_ties_by_key(self):
        race = race_of(12)
        assert decide(race, 0, dict.fromkeys(reversed(race.num_epochs), [9.0] * 3)).kept[:4] == [
            "c000",
            "c001",
            "c002",
            "c003",
        ]

    def test_keeps_combinations_that_repetitions_cannot_separate_from_the_leader(self):
        race = race_of(9, max_cost=1.0)
        means = [10.0, 10.1, 10.2, 10.3, 10.4, 30.0, 31.0, 32.0, 33.0]
        decision = decide(race, 0, values_of(race, means, spread=0.5))
        assert list(decision.reasons.values()) == ["best"] * 3 + ["close to the best"] * 2 + ["behind"] * 4

    def test_ignores_differences_between_repetitions_that_all_combinations_share(self):
        race = race_of(9, max_cost=1.0)
        shifts = np.array([0.0, 5.0, -5.0])  # one repetition is easier for all
        values = {key: (10 + 0.1 * i + shifts).tolist() for i, key in enumerate(race.num_epochs)}
        assert decide(race, 0, values).kept == ["c000", "c001", "c002"]

    def test_keeps_close_combinations_within_the_bound_of_a_two_way_analysis_of_variance(self):
        race = race_of(6, max_cost=1.0, min_finalists=1, reduction_factor=6)
        values = values_of(race, [10, 10.4, 10.8, 30, 31, 32], spread=0.3, seed=3)
        half = np.array([values[key] for key in list(values)[:3]])
        residuals = half - half.mean(1, keepdims=True) - half.mean(0, keepdims=True) + half.mean()
        bound = 2 * math.sqrt(2 / 3 * (residuals**2).sum() / 4)
        means = half.mean(1)
        expected = [key for key, mean in zip(values, means, strict=False) if mean - means.min() <= bound]
        assert sorted(decide(race, 0, values).kept) == expected
        assert 1 <= len(expected) <= 3

    def test_keeps_close_combinations_only_while_the_race_stays_within_its_cost(self):
        for max_cost in (0.15, 0.2, 0.25, 0.3):
            race = race_of(60, max_cost=max_cost)
            values = values_of(race, [10.0] * 60, spread=1.0)
            n = len(decide(race, 0, values).kept)
            # All 60 train 4 epochs and n of them 11; then a third stays, and a third of that.
            later = math.ceil(n / 3)
            cost = (60 - n) * 4 + (n - later) * 11 + (later - max(3, math.ceil(later / 3))) * 33
            cost += max(3, math.ceil(later / 3)) * 100
            assert cost / 6000 <= max_cost
            assert n > 20

    def test_never_keeps_a_combination_that_diverged(self):
        race = race_of(9)
        values = values_of(race, range(9)) | {"c000": [1.0, math.inf, 1.0]}
        decision = decide(race, 0, values)
        assert decision.kept == ["c001", "c002", "c003"]
        assert decision.reasons["c000"] == "diverged"
        assert decide(race, 0, dict.fromkeys(values, [math.inf] * 3)).kept == []

    def test_keeps_at_least_min_finalists_and_ranks_them_at_the_end(self):
        race = race_of(60, min_finalists=5)
        values = dict(list(values_of(race, range(60)).items())[:6])
        assert len(decide(race, 2, values).kept) == 5
        assert decide(race, 3, values).kept == list(values)


def test_a_rule_says_for_each_wrong_setting_what_is_allowed():
    rule = SuccessiveHalving(
        reduction_factor=1, min_epochs=2.5, first_repetitions=0, min_finalists=True, max_cost=math.nan, confirm=-1
    )
    assert rule.wrong == {
        "reduction_factor": "an int of at least 2",
        "min_epochs": "an int of at least 1",
        "min_finalists": "an int of at least 1",
        "confirm": "an int of at least 0",
        "first_repetitions": "an int of at least 1, or None",
        "max_cost": "a number above 0 and at most 1",
    }
    assert SuccessiveHalving(first_repetitions=1, max_cost=1).wrong == {}
