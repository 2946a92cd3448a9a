import itertools
from statistics import mean, pvariance

import numpy as np
import pytest

from cluster.results.chance import Chance, chances_of_grid, shares_of_grid

SHAPES = [(2, 2, 2), (3, 2, 3), (2, 3, 2, 4)]


def noise(shape, seed):
    """Results without any effect, in which the trials of a repetition have something in common."""
    rng = np.random.default_rng(seed)
    return 9 + rng.normal(size=shape) + 3 * rng.normal(size=shape[-1])


def by_hand(results):
    """The importances by chance of the first option of a 2 x 2 grid, for all exchanges in two repetitions."""
    cells = list(itertools.product(range(2), range(2)))
    of_repetition = [mean(results[a][b][r] for a, b in cells) for r in range(2)]
    overall = mean(of_repetition)
    residuals = [
        [results[a][b][r] - mean(results[a][b]) - of_repetition[r] + overall for a, b in cells] for r in range(2)
    ]
    means = [mean(results[a][b]) for a, b in cells]
    others = pvariance(means) - pvariance([mean(means[:2]), mean(means[2:])])

    def scatter(first, second):
        return sum((x - y) ** 2 / 2 for x, y in zip(first, second, strict=True))

    shares = []
    for first, second in itertools.product(*map(itertools.permutations, residuals)):
        exchanged = [(x + y) / 2 for x, y in zip(first, second, strict=True)]
        variance = pvariance([mean(exchanged[:2]), mean(exchanged[2:])])
        left = scatter(first, second)
        if left > 1e-9:
            variance *= scatter(*residuals) / left
            shares.append(variance / (variance + others))
        else:
            shares.append(1.0 if variance > 1e-9 else 0.0)
    return shares


def test_the_importance_of_an_option_is_its_share_of_the_variance():
    # The marginal means are 0.5 and 3.5, and 1 and 3; the variance of the four means is 3.5.
    shares = shares_of_grid(np.array([[0.0, 1.0], [2.0, 5.0]]))
    np.testing.assert_allclose(shares, [2.25 / 3.5, 1 / 3.5])


class TestTheImportanceByChance:
    def test_of_four_combinations_is_that_of_all_exchanges(self):
        results = np.array([[[9.0, 9.4], [9.3, 9.1]], [[9.9, 9.6], [9.5, 10.4]]])
        every = np.array(by_hand(results.tolist()))
        assert len(every) == 24**2
        chance = chances_of_grid(results)[0]
        assert chance.mean == pytest.approx(every.mean(), abs=0.02)
        assert np.mean(every < chance.high - 1e-6) <= 0.95 + 0.02
        assert np.mean(every <= chance.high + 1e-6) >= 0.95 - 0.02

    @pytest.mark.parametrize("shape", SHAPES)
    def test_is_what_options_without_an_effect_have(self, shape):
        grids = [noise(shape, seed) for seed in range(200)]
        shares = np.array([shares_of_grid(results.mean(axis=-1)) for results in grids])  # (200, O)
        chances = [chances_of_grid(results) for results in grids]
        means, highs = (np.array([[getattr(c, of) for c in found] for found in chances]) for of in ("mean", "high"))
        np.testing.assert_allclose(shares.mean(axis=0), means.mean(axis=0), atol=0.04)
        assert 0.02 < (shares > highs).mean() < 0.08

    @pytest.mark.parametrize("shape", SHAPES)
    def test_is_far_below_that_of_a_real_effect(self, shape):
        results = noise(shape, 0)
        results += 10 * np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        results += 5 * np.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
        share, chance = shares_of_grid(results.mean(axis=-1))[0], chances_of_grid(results)[0]
        assert share > 0.5
        assert chance.high < share / 2
        assert chance.mean < share / 8

    def test_does_not_count_the_options_own_effect_or_what_a_repetition_has_in_common(self):
        results = noise((3, 2, 4), 1)
        changed = results + 100 * np.arange(3)[:, None, None] + 10 * np.arange(4)
        before, after = chances_of_grid(results)[0], chances_of_grid(changed)[0]
        assert after.mean == pytest.approx(before.mean)
        assert after.high == pytest.approx(before.high)

    def test_is_smaller_where_another_option_has_an_effect(self):
        results = noise((3, 2, 4), 1)
        alone = chances_of_grid(results)[0]
        beside = chances_of_grid(results + 100 * np.arange(2)[:, None])[0]
        assert beside.high < alone.high / 100

    def test_does_not_count_an_interaction(self):
        results = noise((2, 2, 4), 1) / 100
        results[0] += 1
        results[0, 0] += 3
        results[1, 1] += 3
        share, chance = shares_of_grid(results.mean(axis=-1))[0], chances_of_grid(results)[0]
        assert chance.high < 0.01 < share < 0.2

    def test_is_zero_where_repetitions_differ_by_rounding_only(self):
        results = 9.1 + 0.3 * np.arange(3)[:, None, None] + 0.7 * np.arange(2)[:, None] + 0.1 * np.arange(4)
        assert chances_of_grid(results) == [Chance(0.0, 0.0)] * 2

    def test_is_everything_where_only_one_option_varies(self):
        (chance,) = chances_of_grid(noise((4, 3), 0))
        assert (chance.mean, chance.high) == pytest.approx((1, 1))

    def test_does_not_depend_on_how_many_exchanges_fit_into_memory(self, monkeypatch):
        results = noise((3, 2, 4), 1)
        expected = chances_of_grid(results)
        monkeypatch.setattr("cluster.results.chance._MAX_NUMBERS", 7 * results.size)
        assert chances_of_grid(results) == expected
