import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from cluster.results.statistics import (
    MIN_REPETITIONS,
    Comparison,
    Estimate,
    Interval,
    adjusted,
    block_bootstrap_interval,
    block_length,
    bootstrap_interval,
    compare,
    estimate,
    holm,
    repetitions_needed,
    sign_flip_p_value,
)

N_SWEEPS = 2_000


def compare_with(reference, groups):
    """Every other group's comparison with the reference, adjusted for all of them."""
    others = [key for key in groups if key != reference]
    return dict(zip(others, adjusted([compare(groups[key], groups[reference]) for key in others]), strict=True))


distances = st.floats(1, 50).map(lambda value: round(value, 3))


def share_that_covers(intervals, truth=0.0):
    return statistics.fmean(interval.low <= truth <= interval.high for interval in intervals)


def autoregressive(rng, n_series, n, phi):
    """Series whose neighbours correlate with phi, mean zero, (n_series, n)."""
    return signal.lfilter([1.0], [1.0, -phi], rng.standard_normal((n_series, n + 500)))[:, 500:]


class TestAnEstimate:
    @given(st.lists(distances, min_size=2, max_size=20))
    def test_has_scipys_mean_deviation_and_interval(self, values):
        found = estimate(values)
        assert found.n == len(values)
        assert found.mean == pytest.approx(np.mean(values))
        assert found.std == pytest.approx(np.std(values, ddof=1))
        if found.std > 0:
            low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
            assert (found.interval.low, found.interval.high) == pytest.approx((low, high))

    def test_does_not_count_repetitions_without_a_number(self):
        assert estimate([1.0, None, 3.0, math.nan, 5.0, math.inf]) == estimate([1.0, 3.0, 5.0])

    def test_has_no_spread_with_one_repetition_and_nothing_with_none(self):
        assert estimate([2.0, None]) == Estimate(1, 2.0, None, None)
        assert estimate([None, None]) == estimate([]) == Estimate(0, None, None, None)

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [3, 5, 10])
    def test_covers_the_true_mean_in_95_percent_of_sweeps(self, n):
        sweeps = np.random.default_rng(n).normal(0.0, 0.07, (N_SWEEPS, n))
        assert 0.93 <= share_that_covers([estimate(values).interval for values in sweeps.tolist()]) <= 0.97


class TestTheBootstrapInterval:
    def test_of_numbers_whose_squares_are_zero_is_none(self):
        assert bootstrap_interval([1e-170, 0.0, 0.0, 1e-170, 0.0, 0.0]) is None

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("shape", "n"), [("normal", 5), ("normal", 6), ("normal", 10), ("skewed", 6), ("skewed", 10)]
    )
    def test_covers_the_true_mean_in_95_percent_of_sweeps(self, shape, n):
        rng, size = np.random.default_rng(100 + n), (2 * N_SWEEPS, n)
        sweeps = rng.normal(size=size) if shape == "normal" else rng.gamma(4.0, size=size) - 4.0
        assert 0.93 <= share_that_covers([bootstrap_interval(values) for values in sweeps.tolist()]) <= 0.97

    @pytest.mark.slow
    def test_covers_more_of_very_skewed_values_than_students(self):
        sweeps = (np.random.default_rng(0).exponential(size=(N_SWEEPS, 8)) - 1.0).tolist()
        by_bootstrap = share_that_covers([bootstrap_interval(values) for values in sweeps])
        by_student = share_that_covers([estimate(values).interval for values in sweeps])
        assert by_student < 0.91 < 0.925 < by_bootstrap

    def test_is_that_of_scipys_resamples(self):
        values = np.random.default_rng(0).gamma(2.0, size=12)

        def in_errors(sample, axis):
            return (sample.mean(axis=axis) - values.mean()) / sample.std(axis=axis, ddof=1)

        resamples = stats.bootstrap((values,), in_errors, n_resamples=100_000, method="percentile", rng=1)
        low, high = values.mean() - values.std(ddof=1) * np.array(resamples.confidence_interval)[::-1]
        found = bootstrap_interval(values.tolist())
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))

    @given(st.lists(distances, min_size=5, max_size=12, unique=True), st.floats(-100, 100))
    def test_moves_with_the_values(self, values, shift):
        at_home, moved = bootstrap_interval(values), bootstrap_interval([value + shift for value in values])
        assert at_home.low < statistics.fmean(values) < at_home.high
        assert (moved.low - shift, moved.high - shift) == pytest.approx((at_home.low, at_home.high), rel=1e-6, abs=1e-6)

    def test_is_none_where_resamples_have_no_spread(self):
        assert bootstrap_interval([1.0, 2.0, 3.0, 4.0]) is None
        assert bootstrap_interval([1.0, 2.0, 3.0, 4.0, None]) is None
        assert bootstrap_interval([1.0, 1.0, 1.0, 1.0, 2.0]) is None
        assert bootstrap_interval([0.1] * 10) is None


class TestTheSignFlipTest:
    @given(st.lists(st.integers(-6, 6).map(lambda x: x / 10), min_size=2, max_size=9))
    def test_tries_all_patterns_and_counts_ties_as_one_does_on_paper(self, differences):
        tenths = [round(10 * difference) for difference in differences]
        patterns = list(itertools.product((1, -1), repeat=len(tenths)))
        sums = [abs(sum(sign * x for sign, x in zip(signs, tenths, strict=True))) for signs in patterns]
        expected = sum(value >= abs(sum(tenths)) for value in sums) / len(patterns)
        assert sign_flip_p_value(differences) == expected

    @pytest.mark.parametrize("n", [6, 9, 12, 17])
    def test_has_scipys_exact_p_value(self, n):
        differences = np.random.default_rng(n).normal(0.3, 1.0, n)
        expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2**n)
        assert sign_flip_p_value(differences) == pytest.approx(expected.pvalue)

    def test_of_more_than_30_pairs_flips_the_sums_of_30_groups(self):
        differences = np.random.default_rng(3).integers(-6, 9, 70)
        n_patterns = np.ones(1)  # by the sum of the groups with a positive sign
        groups = [differences[place::30].sum() for place in range(30)]
        for size in np.abs(groups):
            n_patterns = np.convolve(n_patterns, np.eye(1, size + 1)[0] + np.eye(1, size + 1, size)[0])
        sums = 2 * np.arange(len(n_patterns)) - np.abs(groups).sum()
        expected = n_patterns[np.abs(sums) >= abs(differences.sum())].sum() / 2.0**30
        assert 0 < expected < 1
        assert sign_flip_p_value(differences) == pytest.approx(expected)

    @pytest.mark.slow
    def test_of_more_than_30_pairs_finds_nothing_in_95_percent_of_sweeps_without_a_difference(self):
        sweeps = np.random.default_rng(0).exponential(size=(400, 2, 45))
        n_found = sum(sign_flip_p_value(a - b) <= 0.05 for a, b in sweeps)
        assert abs(n_found - 20) <= 9  # two standard deviations

    def test_never_says_zero(self):
        assert sign_flip_p_value(np.linspace(1.0, 2.0, 30)) == 2.0**-29
        assert sign_flip_p_value(np.linspace(1.0, 2.0, 500)) == 2.0**-29

    def test_finds_nothing_where_all_differences_are_zero(self):
        assert sign_flip_p_value([0.0] * 8) == 1.0


class TestAComparison:
    def test_is_paired_by_repetition(self):
        of_seeds = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
        found = compare([x + d for x, d in zip(of_seeds, [1, 2, 1, 2, 1, 2], strict=True)], of_seeds)
        assert found.n == 6
        assert found.difference == pytest.approx(1.5)
        low, high = stats.t.interval(0.95, 5, 1.5, stats.sem([1, 2, 1, 2, 1, 2]))
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
        assert found.p_value == found.p_adjusted == 2 / 2**6
        assert found.is_significant

    def test_turns_its_sign_with_its_sides(self):
        a, b = [1.0, 2.5, 3.0, 4.0, 7.0, 6.0, 9.0], [2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0]
        forth, back = compare(a, b), compare(b, a)
        assert (forth.difference, forth.p_value) == (-back.difference, back.p_value)
        assert (forth.interval.low, forth.interval.high) == (-back.interval.high, -back.interval.low)

    def test_leaves_out_pairs_of_which_one_has_no_number_and_says_how_many_remain(self):
        a, b = [1.0, None, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [2.0, 2.0, 4.0, math.nan, 6.0, 7.0, 8.0, 9.0]
        found = compare(a, b)
        assert found.n == 6
        assert found.difference == -1.0

    def test_of_fewer_than_six_pairs_is_not_a_test(self):
        found = compare([1.0] * 5 + [None], [2.0] * 6)
        assert found.too_few
        assert not found.is_significant
        assert (found.n, found.difference, found.p_value, found.p_adjusted) == (5, -1.0, None, None)
        assert compare([None], [1.0]) == Comparison(0, None, None, None, None)
        assert compare([3.0], [1.0]) == Comparison(1, 2.0, None, None, None)

    def test_of_different_numbers_of_repetitions_is_refused(self):
        with pytest.raises(ValueError, match="zip"):
            compare([1.0, 2.0], [1.0])


class TestHolm:
    @pytest.mark.slow
    @settings(max_examples=25)  # statsmodels takes a twentieth of a second for each
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
    def test_adjusts_as_statsmodels_does(self, p_values):
        multitest = pytest.importorskip("statsmodels.stats.multitest")
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1].tolist())

    def test_of_nothing_is_nothing(self):
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), max_size=10), st.integers(0, 10))
    def test_counts_comparisons_that_are_not_shown_as_p_values_of_1(self, p_values, n_others):
        assert holm(p_values, n_others=n_others) == holm([*p_values, *[1.0] * n_others])[: len(p_values)]

    def test_counts_only_comparisons_that_were_tested(self):
        clear, too_few = compare([1.0] * 8, [2.0] * 8), compare([1.0] * 3, [2.0] * 3)
        assert adjusted([clear, too_few, clear]) == [
            Comparison(8, -1.0, Interval(-1.0, -1.0), 2 / 2**8, 4 / 2**8),
            too_few,
            Comparison(8, -1.0, Interval(-1.0, -1.0), 2 / 2**8, 4 / 2**8),
        ]


class TestComparisonsWithAReference:
    def test_are_of_every_other_group_and_adjusted_together(self):
        ramp = np.linspace(0.5, 1.5, 8)
        groups = {"a": ramp.tolist(), "b": (ramp - 0.1 * ramp).tolist(), "c": (ramp + ramp).tolist()}
        found = compare_with("a", groups)
        assert list(found) == ["b", "c"]
        assert found["b"].difference == pytest.approx(-0.1)
        assert found["c"].difference == pytest.approx(1.0)
        assert {comparison.p_value for comparison in found.values()} == {2 / 2**8}
        assert {comparison.p_adjusted for comparison in found.values()} == {4 / 2**8}

    def test_of_a_lone_group_are_none(self):
        assert compare_with("a", {"a": [1.0] * 6}) == {}

    @pytest.mark.slow
    @pytest.mark.parametrize(("n", "n_combinations"), [(6, 2), (7, 3), (8, 4), (9, 9), (10, 6)])
    @pytest.mark.parametrize("shape", ["normal", "skewed"])
    def test_star_something_in_at_most_5_percent_of_sweeps_in_which_all_are_equal(self, n, n_combinations, shape):
        rng = np.random.default_rng(n)
        size = (N_SWEEPS, n_combinations, n)
        noise = rng.normal(size=size) if shape == "normal" else rng.exponential(size=size)
        sweeps = (
            10 + rng.normal(size=(N_SWEEPS, 1, n)) + 0.1 * noise
        )  # the seed of a repetition makes all of them better or worse
        n_starred = 0
        for sweep in sweeps.tolist():
            groups = {str(i): values for i, values in enumerate(sweep)}
            n_starred += any(comparison.is_significant for comparison in compare_with("0", groups).values())
        assert n_starred / N_SWEEPS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / N_SWEEPS)

    @pytest.mark.slow
    @pytest.mark.parametrize(("n", "n_combinations"), [(7, 2), (8, 3), (10, 5)])
    def test_with_the_best_of_equals_star_something_in_at_most_5_percent_of_sweeps_adjusted_for_all_pairs(
        self, n, n_combinations
    ):
        sweeps = np.random.default_rng(n).normal(size=(N_SWEEPS, n_combinations, n))
        n_pairs = math.comb(n_combinations, 2)
        n_starred = 0
        for sweep in sweeps:
            groups = {str(i): values for i, values in enumerate(sweep.tolist())}
            compared = compare_with(str(sweep.mean(axis=1).argmin()), groups)  # selected by the tested numbers
            found = adjusted(list(compared.values()), n_possible=n_pairs)
            n_starred += any(comparison.is_significant for comparison in found)
        assert n_starred / N_SWEEPS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / N_SWEEPS)

    @pytest.mark.slow
    def test_star_a_clear_difference_in_nearly_all_sweeps(self):
        sweeps = np.random.default_rng(0).normal(size=(200, 4, 10))
        sweeps[:, 3] += 3.0
        found = [compare_with("0", {str(i): v for i, v in enumerate(sweep)})["3"] for sweep in sweeps.tolist()]
        assert statistics.fmean(comparison.is_significant for comparison in found) > 0.95


class TestTheRepetitionsNeeded:
    @pytest.mark.parametrize("n_comparisons", [1, 2, 3, 5, 10, 35, 1770])
    def test_are_the_fewest_with_which_a_table_can_have_a_star(self, n_comparisons):
        def starred(n):
            groups = {str(i): [float(i > 0)] * n for i in range(n_comparisons + 1)}
            return compare_with("0", groups)["1"].is_significant

        n = repetitions_needed(n_comparisons)
        assert starred(n)
        assert n == MIN_REPETITIONS or not starred(n - 1)


class TestTheBlockLength:
    def test_of_few_frames_that_resemble_one_another_for_long_is_long(self):
        lengths = [block_length(series) for series in autoregressive(np.random.default_rng(0), 200, 1_000, 0.97)]
        assert statistics.median(lengths) >= 70  # 117 by the formula; a search up to lag 37 finds 59

    def test_of_frames_that_do_not_resemble_one_another_is_short(self):
        lengths = [block_length(series) for series in autoregressive(np.random.default_rng(0), 50, 2_000, 0.0)]
        assert statistics.median(lengths) <= 2

    @pytest.mark.parametrize("phi", [0.5, 0.9])
    def test_is_about_the_best_one_where_that_is_known(self, phi):
        n = 20_000
        # Politis and White's formula with the known sums of an autoregressive series.
        best = (1.5 * (2 * phi / (1 - phi**2)) ** 2 * n) ** (1 / 3)
        lengths = [block_length(series) for series in autoregressive(np.random.default_rng(0), 50, n, phi)]
        assert statistics.median(lengths) == pytest.approx(best, rel=0.15)

    def test_does_not_see_what_the_end_of_a_sequence_and_the_next_beginning_have_in_common(self):
        rng = np.random.default_rng(0)
        sequences = autoregressive(rng, 40, 100, 0.8)
        levels = np.repeat([-50.0, 50.0], 20)[:, None]
        assert block_length((sequences + levels).ravel()) > 100
        assert block_length((sequences + levels).ravel(), [100] * 40) <= 100

    @pytest.mark.parametrize("series", [[], [1.0], [1.0, 2.0], [3.0] * 100])
    def test_is_one_where_there_is_nothing_to_see(self, series):
        assert block_length(series) == 1

    @pytest.mark.parametrize("scale", [1.0, 1e-146, 1e100])
    def test_does_not_depend_on_the_unit(self, scale):
        (series,) = autoregressive(np.random.default_rng(0), 1, 1_000, 0.9)
        assert block_length(scale * series) == block_length(series) > 10

    @given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=60), st.data())
    def test_is_never_longer_than_the_longest_sequence(self, series, data):
        first = data.draw(st.integers(1, len(series) - 1))
        lengths = [first, len(series) - first]
        assert 1 <= block_length(series, lengths) <= max(lengths)


class TestTheBlockBootstrap:
    @staticmethod
    def share_of_series_covered(n_sequences, n, phi):
        sequences = autoregressive(np.random.default_rng(1), N_SWEEPS * n_sequences, n, phi)
        lengths = [n] * n_sequences
        return share_that_covers(
            [block_bootstrap_interval(s, sequence_lengths=lengths) for s in sequences.reshape(N_SWEEPS, -1)]
        )

    @pytest.mark.slow
    @pytest.mark.parametrize(("n_sequences", "n", "phi"), [(1, 1_000, 0.9), (1, 1_000, 0.95), (10, 200, 0.95)])
    def test_covers_the_mean_of_frames_that_resemble_one_another_in_95_percent_of_series(self, n_sequences, n, phi):
        assert 0.93 <= self.share_of_series_covered(n_sequences, n, phi) <= 0.97

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("n_sequences", "n", "phi"),
        [
            *[(1, 1_000, phi) for phi in (0.0, 0.3, 0.5, 0.7)],
            *[(1, n, phi) for n in (1_652, 5_000) for phi in (0.9, 0.97)],
            *[(n_sequences, n, phi) for n_sequences, n in ((5, 300), (20, 100)) for phi in (0.5, 0.9, 0.95)],
        ],
    )
    def test_covers_it_however_many_and_however_alike_they_are(self, n_sequences, n, phi):
        assert 0.93 <= self.share_of_series_covered(n_sequences, n, phi) <= 0.97

    @pytest.mark.slow
    def test_of_single_frames_misses_the_mean_of_frames_that_resemble_one_another(self):
        series = autoregressive(np.random.default_rng(1), 200, 1_000, 0.9)
        assert share_that_covers([block_bootstrap_interval(s, length=1) for s in series]) < 0.5

    @pytest.mark.slow
    def test_covers_the_mean_over_sequences_that_differ_in_95_percent_of_series(self):
        rng = np.random.default_rng(2)
        lengths = [300] * 10
        levels = rng.standard_normal((N_SWEEPS, 10, 1))
        series = (levels + 0.1 * rng.standard_normal((N_SWEEPS, 10, 300))).reshape(N_SWEEPS, -1)
        assert (
            0.93 <= share_that_covers([block_bootstrap_interval(s, sequence_lengths=lengths) for s in series]) <= 0.97
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("length", [30, 100])
    def test_is_as_wide_as_statsmodels_covariance_with_a_flat_top_makes_it(self, length):
        sandwich = pytest.importorskip("statsmodels.stats.sandwich_covariance")
        (series,) = autoregressive(np.random.default_rng(7), 1, 50_000, 0.8)

        def flat_top(
            n_lags,
        ):  # blocks of a length, and of half, weigh lags as triangles: so do twice the one less the other
            lags = np.arange(n_lags + 1) / length
            return 2 * np.maximum(0.0, 1 - lags) - np.maximum(0.0, 1 - 2 * lags)

        centred = (series - series.mean())[:, None]
        (variance,) = sandwich.S_hac_simple(centred, length, flat_top).ravel() / len(series) ** 2
        found = block_bootstrap_interval(series, length=length)
        assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.05)

    def test_of_blocks_of_one_frame_is_scipys_percentile_interval(self):
        values = np.random.default_rng(3).gamma(2.0, size=1_000)
        found = block_bootstrap_interval(values, length=1)
        expected = stats.bootstrap(
            (values,), np.mean, n_resamples=2_000, method="percentile", rng=1
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.1 * (expected.high - expected.low))

    def test_of_many_frames_is_as_wide_as_students_interval(self):
        values = np.random.default_rng(4).standard_normal(300_000)
        found, expected = block_bootstrap_interval(values, length=2), estimate(values.tolist()).interval
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-4)

    def test_takes_no_block_across_two_sequences(self):
        # Half the frames of each sequence are up and half are down: a block of a whole sequence has the mean zero.
        sequence = [1.0] * 10 + [-1.0] * 10
        within = block_bootstrap_interval(sequence * 20, sequence_lengths=[20] * 20, length=20)
        assert (within.low, within.high) == pytest.approx((0.0, 0.0))
        across = block_bootstrap_interval([*sequence * 20, *[1.0] * 20], length=20)
        assert across.low < 0 < across.high

    def test_takes_a_sequence_shorter_than_two_blocks_as_one_block(self):
        values = np.random.default_rng(5).standard_normal(300)
        lengths = [10] * 30
        whole = block_bootstrap_interval(values, sequence_lengths=lengths, length=10)
        for length in (6, 25):
            assert block_bootstrap_interval(values, sequence_lengths=lengths, length=length) == whole

    def test_of_whole_sequences_is_about_as_wide_as_students_of_their_means(self):
        sequences = autoregressive(np.random.default_rng(9), 400, 50, 0.9)
        found = block_bootstrap_interval(sequences.ravel(), sequence_lengths=[50] * 400, length=50)
        expected = estimate(sequences.mean(axis=1).tolist()).interval
        assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.05)

    def test_gives_the_same_interval_again(self):
        values = np.random.default_rng(6).standard_normal(500)
        assert block_bootstrap_interval(values) == block_bootstrap_interval(values)

    def test_is_none_without_two_blocks_or_with_a_frame_that_has_no_number(self):
        assert block_bootstrap_interval([]) is None
        assert block_bootstrap_interval([1.0]) is None
        assert block_bootstrap_interval([1.0, 2.0, 3.0], length=3) is None
        assert block_bootstrap_interval([1.0, math.nan, 3.0, 4.0]) is None

    def test_refuses_lengths_that_are_not_those_of_the_frames(self):
        with pytest.raises(ValueError, match="2 sequences sum to 5, but there are 4 frames"):
            block_bootstrap_interval([1.0, 2.0, 3.0, 4.0], sequence_lengths=[2, 3])
        with pytest.raises(ValueError, match="sum to 4"):
            block_length([1.0, 2.0, 3.0, 4.0], [0, 4])
