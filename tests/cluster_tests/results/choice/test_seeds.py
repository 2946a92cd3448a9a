import numpy as np
import pytest
from scipy import stats

from cluster.results.choice.seeds import MAX_REPETITIONS, repetitions_to_separate, variances


def drawn(options, shared, own, shape, seed=0):
    """Draws results (C, R) whose effects have these standard deviations."""
    rng = np.random.default_rng(seed)
    n_combinations, n_repetitions = shape
    return (
        10
        + options * rng.normal(size=(n_combinations, 1))
        + shared * rng.normal(size=(1, n_repetitions))
        + own * rng.normal(size=shape)
    )


class TestVariances:
    def test_agree_with_the_sums_of_squares_written_out(self):
        results = drawn(1.0, 0.5, 0.3, (5, 4))
        total = results.mean()
        squares = {"c": 0.0, "r": 0.0, "e": 0.0}
        for c in range(5):
            for r in range(4):
                row, column = results[c].sum() / 4, results[:, r].sum() / 5
                squares["c"] += (row - total) ** 2
                squares["r"] += (column - total) ** 2
                squares["e"] += (results[c, r] - row - column + total) ** 2
        mean = {"c": squares["c"] / 4, "r": squares["r"] / 3, "e": squares["e"] / 12}
        expected = ((mean["c"] - mean["e"]) / 4, (mean["r"] - mean["e"]) / 5, mean["e"])
        assert variances(results) == pytest.approx(expected)

    def test_are_right_on_average(self):
        found = np.mean([variances(drawn(0.6, 0.5, 0.4, (12, 8), seed)) for seed in range(400)], axis=0)
        np.testing.assert_allclose(found, np.square([0.6, 0.5, 0.4]), rtol=0.08)

    def test_of_options_without_effect_are_close_to_none(self):
        assert variances(drawn(0.0, 0.5, 0.4, (200, 10))).share_of_options < 0.02

    def test_of_seeds_without_effect_are_none(self):
        found = variances(np.array([[1.0, 1.0], [2.0, 2.0]]))
        assert (found.seeds, found.share_of_options) == (0, 1)

    def test_of_equal_results_have_no_shares(self):
        assert variances(np.full((3, 2), 7.0)).share_of_options is None

    def test_do_not_mistake_what_all_combinations_share_for_their_own(self):
        results = drawn(1.0, 0.0, 0.3, (6, 5))
        shifted = results + 100 * np.arange(5)
        assert variances(shifted).own == pytest.approx(variances(results).own)
        assert variances(shifted).options == pytest.approx(variances(results).options)


class TestRepetitionsToSeparate:
    @pytest.mark.parametrize(
        ("effect", "n"), [(0.2, None), (0.3, 90), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6), (2.0, 5)]
    )
    def test_are_those_of_a_table_of_paired_t_tests(self, effect, n):
        # Numbers of G*Power 3.1 (Faul et al. 2007) for two-sided paired t tests, alpha 0.05, power 0.8.
        assert repetitions_to_separate((effect + np.array([-1, 0, 1.0])).tolist()) == n

    def test_find_the_difference_in_four_of_five_simulated_experiments(self):
        n = repetitions_to_separate([0.0, 0.7, 1.4])
        rng = np.random.default_rng(1)
        draws = 0.7 + 0.7 * rng.normal(size=(20_000, n))
        found = (stats.ttest_1samp(draws, 0, axis=1).pvalue <= 0.05).mean()
        fewer = (stats.ttest_1samp(draws[:, :-1], 0, axis=1).pvalue <= 0.05).mean()
        assert found > 0.79
        assert fewer < 0.81

    def test_do_not_depend_on_unit_and_sign(self):
        assert {repetitions_to_separate([f * 1.0, f * 2.0, f * 4.0]) for f in (1, -1, 1e-3, 1e6)} == {
            repetitions_to_separate([1.0, 2.0, 4.0])
        }

    @pytest.mark.parametrize("differences", [[0.0, 0.0], [-1.0, 1.0], [0.01, 1.0, -1.0]])
    def test_are_unknown_beyond_a_limit(self, differences):
        assert repetitions_to_separate(differences) is None

    @pytest.mark.parametrize("differences", [[0.1, 0.1, 0.1], [1e3, 1e3 + 1e-7], [1.0, 1.0001], [20.0, 20.9]])
    def test_are_two_where_repetitions_hardly_differ(self, differences):
        assert repetitions_to_separate(differences) == 2

    def test_are_fewer_for_a_clearer_difference(self):
        found = [repetitions_to_separate([mean - 1, mean, mean + 1]) for mean in np.geomspace(1e-3, 1e9, 200)]
        numbers = [MAX_REPETITIONS + 1 if n is None else n for n in found]
        assert numbers == sorted(numbers, reverse=True)
        assert (numbers[0], numbers[-1]) == (MAX_REPETITIONS + 1, 2)
