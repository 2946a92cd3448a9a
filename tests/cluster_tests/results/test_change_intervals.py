"""Intervals of the change by the correction over frames whose neighbours are similar."""

import numpy as np
import pytest
from scipy import stats

from cluster.results.change_intervals import change_intervals, group_intervals, intervals_of
from cluster.results.groups import read_groups
from cluster.results.results import Results
from cluster.storage.frame_errors import FrameErrors
from data_pipeline.frame_table import FrameTable
from tests.cluster_tests.results_files import write_fold_results, write_results


def autoregressive(rng, n_series, n, phi):
    """Stationary series with the mean 0 and the deviation 1, (n_series, n)."""
    series = rng.standard_normal((n_series, n))
    series[:, 1:] *= np.sqrt(1 - phi**2)
    for i in range(1, n):
        series[:, i] += phi * series[:, i - 1]
    return series


def errors(rng, n_series=1, n=600, phi=0.8):
    """Errors before and after, (n_series, n) each, mm: 15 mm before, and 12 mm after on average."""
    before = 15 + 3 * autoregressive(rng, n_series, n, phi)
    return before, 0.8 * before + autoregressive(rng, n_series, n, phi)


def frames_of(before, after, lengths=None):
    """Frame errors; with lengths, those of recordings with a frame table."""
    if lengths is None:
        return FrameErrors({"A": (before, after)})
    names = [f"r{place}" for place in range(len(lengths))]
    index = np.concatenate([np.arange(n) for n in lengths])
    return FrameErrors({"A": (before, after)}, FrameTable.of(sequence=np.repeat(names, lengths).tolist(), index=index))


def row_of(folder, key):
    return next(row for row in Results.read(folder).summary if row["key"] == key)


class TestTheIntervals:
    def test_are_those_of_a_slow_bootstrap_of_whole_recordings(self):
        """Recordings of frames that all have the same error are the blocks, whatever the block length."""
        rng = np.random.default_rng(0)
        lengths = [8] * 60
        before, after = (np.repeat(of[0], 8) for of in errors(rng, n=60, phi=0.0))
        found = intervals_of(frames_of(before, after, lengths))
        sums = [
            (float(b.sum()), float(a.sum())) for b, a in zip(np.split(before, 60), np.split(after, 60), strict=True)
        ]
        changes, percents = [], []
        for _ in range(4_000):
            drawn = [sums[place] for place in rng.integers(60, size=60).tolist()]
            sum_before, sum_after = sum(b for b, _ in drawn), sum(a for _, a in drawn)
            changes.append((sum_after - sum_before) / sum(lengths))
            percents.append(100 * (sum_after / sum_before - 1))
        wider = stats.t.ppf(0.975, 59) / stats.norm.ppf(0.975) * np.sqrt(60 / 59)
        for interval, drawn in ((found.mm, changes), (found.percent, percents)):
            half = wider * np.ptp(np.quantile(drawn, [0.025, 0.975])) / 2
            expected = np.mean(drawn) - half, np.mean(drawn) + half
            assert (interval.low, interval.high) == pytest.approx(expected, abs=0.1 * half)

    @pytest.mark.parametrize("lengths", [None, [200] * 3])
    def test_cover_the_true_change_of_similar_frames_in_95_percent_of_series(self, lengths):
        found = [
            intervals_of(frames_of(*pair, lengths)) for pair in zip(*errors(np.random.default_rng(1), 200), strict=True)
        ]
        for true, intervals in ((-3.0, [of.mm for of in found]), (-20.0, [of.percent for of in found])):
            assert 0.92 <= np.mean([interval.low <= true <= interval.high for interval in intervals]) <= 0.98

    def test_take_no_block_across_recordings(self):
        """Whether a recording follows one that is like it or unlike it makes no difference."""
        levels = np.linspace(-1, 1, 12)
        alike, mixed = (np.repeat(order, 50) for order in (levels, np.stack([levels[:6], levels[:5:-1]], 1).ravel()))

        def width(change, lengths):
            low, high = vars(intervals_of(frames_of(np.full(600, 10.0), 10 + change, lengths)).mm).values()
            return high - low

        assert width(alike, [50] * 12) == pytest.approx(width(mixed, [50] * 12), rel=0.05)
        assert width(alike, None) > 2 * width(mixed, None)

    def test_do_not_depend_on_the_order_of_the_file(self):
        rng = np.random.default_rng(2)
        (before,), (after,) = errors(rng)
        frames = frames_of(before, after, [600])
        assert intervals_of(frames.take(rng.permutation(600))) == intervals_of(frames) == intervals_of(frames)

    def test_take_frames_on_both_sides_of_a_gap_of_more_than_100_frames_as_two_recordings(self):
        (before,), (after,) = errors(np.random.default_rng(3), n=400)
        index = np.arange(400) + 101 * (np.arange(400) >= 250)
        gap = FrameErrors({"A": (before, after)}, FrameTable.of(sequence=["s"] * 400, index=index))
        assert intervals_of(gap) == intervals_of(frames_of(before, after, [250, 150]))

    def test_do_not_take_several_predictions_of_a_frame_for_several_frames(self):
        (before,), (after,) = errors(np.random.default_rng(4))
        assert intervals_of(FrameErrors(dict.fromkeys("AB", (before, after)))) == intervals_of(frames_of(before, after))

    def test_are_none_with_too_few_frames_and_have_no_percent_of_nothing(self):
        assert intervals_of(frames_of(np.ones(1), np.ones(1))) is None
        found = intervals_of(frames_of(np.zeros(9), np.arange(9.0)))
        assert found.percent is None
        assert found.mm.low < 4 < found.mm.high


class TestTheIntervalsOfCombinations:
    def test_are_those_of_the_frames_of_all_folds_averaged_over_repetitions(self, tmp_path):
        """The folds test alternate blocks of 50 frames of two recordings."""
        rng = np.random.default_rng(5)
        (before,), _ = errors(rng)
        afters = [0.8 * before + rng.standard_normal(600) for _ in range(2)]
        whole = frames_of(before, np.mean(afters, axis=0), [350, 250])
        folder = write_fold_results(tmp_path, {0.1: [[12.0, 12.0]] * 2}, [(300, 300)] * 2)
        for fold in range(2):
            rows = np.flatnonzero(np.arange(600) // 50 % 2 == fold)
            for repetition, after in enumerate(afters):
                frames = frames_of(before, after, [350, 250]).take(rows)
                folder.trial(f"0.1-{fold + 1}/{repetition}").write("frames.parquet", frames.to_parquet())
        results = Results.read(folder)
        found = change_intervals(results, results.summary[0], "test")
        expected = intervals_of(whole)
        assert found.block_length == expected.block_length
        assert found.percent.low == pytest.approx(expected.percent.low, rel=1e-5)  # errors on disk are float32
        assert found.mm.high == pytest.approx(expected.mm.high, rel=1e-5)
        for row in results.single_folds.summary:
            fold = change_intervals(results.single_folds, row, "test")
            assert fold.mm.high - fold.mm.low > found.mm.high - found.mm.low

    @pytest.fixture
    def folder(self, tmp_path):
        """Two combinations; all repetitions of the first one have kept the errors of their frames."""
        folder = write_results(tmp_path, {"a": ({"x": 1}, [12.0, 12.0, "failed"]), "b": ({"x": 2}, [12.0, 12.0, 12.0])})
        (before,), (after,) = errors(np.random.default_rng(6))
        for trial_id in ("a/0", "a/1", "b/0", "b/2"):
            folder.trial(trial_id).write("frames.parquet", frames_of(before, after, [500, 100]).to_parquet())
        return folder

    def test_are_known_if_all_finished_repetitions_have_kept_the_errors_of_their_frames(self, folder):
        results, b = Results.read(folder), row_of(folder, "b")
        assert change_intervals(results, row_of(folder, "a"), "test") is not None
        assert change_intervals(results, b, "test") is None
        folder.trial("b/1").write(
            "frames.parquet", frames_of(np.ones(600), np.ones(600), [100, 500]).to_parquet()
        )  # other frames
        assert change_intervals(results, b, "test") is None

    def test_are_not_known_on_the_validation_set_if_there_is_a_test_set(self, folder):
        assert change_intervals(Results.read(folder), row_of(folder, "a"), "val") is None

    def test_of_a_group_are_those_of_its_frames(self, folder):
        results = Results.read(folder)
        row = row_of(folder, "a")
        groups = read_groups(folder, results, row, "sequence", split="test")
        whole, *parts = group_intervals(results, row, "sequence", groups, "test")
        assert whole == change_intervals(results, row, "test")
        frames = FrameErrors.read(folder.trial("a/0"))
        assert parts == [intervals_of(frames.take(slice(0, 500))), intervals_of(frames.take(slice(500, 600)))]
