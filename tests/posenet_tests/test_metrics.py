import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from posenet import metrics

signed_errors = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-100, 100)).map(
    torch.from_numpy
)
distances = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 90)).map(torch.from_numpy)
ranges = st.sampled_from([(0, 50), (20, 50), (0, 80), (2.5, 3)])


class TestOverASample:
    @pytest.mark.parametrize(("mode", "value"), [("absolute", abs), ("squared", lambda error: error**2)])
    @given(errors=signed_errors)
    def test_mean_and_largest_are_what_a_plain_loop_gives(self, errors, mode, value):
        values = [[value(error) for error in sample] for sample in errors.tolist()]
        expected = [sum(sample) / len(sample) for sample in values]
        np.testing.assert_allclose(metrics.mean_error(errors, mode), expected, rtol=1e-12)
        np.testing.assert_allclose(metrics.max_error(errors, mode), [max(sample) for sample in values], rtol=1e-12)

    @pytest.mark.parametrize("metric", [metrics.mean_error, metrics.max_error])
    def test_errors_count_absolute_by_default_so_that_they_do_not_cancel(self, metric):
        assert metric(torch.tensor([[3.0, -3.0]])).tolist() == [3.0]

    @pytest.mark.parametrize("metric", [metrics.mean_error, metrics.max_error])
    @pytest.mark.parametrize("mode", ["square", "", None, "Absolute"])
    def test_another_mode_is_refused_with_those_that_there_are(self, metric, mode):
        with pytest.raises(ValueError, match=rf"the mode must be one of 'absolute', 'squared', not {mode!r}"):
            metric(torch.zeros(2, 3), mode)


class TestSuccess:
    @pytest.mark.parametrize("threshold", [20, 20.0, 0, 0.1, 80])
    def test_is_at_most_the_threshold_and_the_threshold_itself(self, threshold):
        exact = torch.tensor(threshold, dtype=torch.float32)
        below, above = (exact.nextafter(torch.tensor(limit)) for limit in (-torch.inf, torch.inf))
        assert metrics.success(torch.stack([below, exact, above]), threshold).tolist() == [1, 1, 0]

    @given(errors=distances, threshold=st.integers(0, 80))
    def test_has_as_mean_the_share_that_a_count_gives(self, errors, threshold):
        share = sum(error <= threshold for error in errors.tolist()) / len(errors)
        assert metrics.success(errors, threshold).mean().item() == pytest.approx(share, rel=1e-12)

    @given(errors=distances)
    def test_never_falls_with_the_threshold(self, errors):
        rates = [metrics.success(errors, threshold).mean() for threshold in range(81)]
        assert all(low <= high for low, high in itertools.pairwise(rates))

    def test_keeps_the_precision_of_the_errors(self):
        for dtype in (torch.float32, torch.float64):
            assert metrics.success(torch.ones(2, 3, dtype=dtype), 1).dtype == dtype


class TestSuccessCounts:
    @given(errors=st.lists(st.floats(0, 12, width=32) | st.integers(0, 12) | st.just(torch.inf) | st.just(torch.nan)))
    def test_are_what_comparing_with_each_threshold_gives(self, errors):
        expected = [sum(error <= threshold for error in errors) for threshold in range(11)]
        assert metrics.success_counts(torch.tensor(errors, dtype=torch.float32), 11).tolist() == expected

    def test_count_all_elements_of_a_tensor_and_leave_it_as_it_is(self):
        errors = torch.tensor([[0.5, 1.0, 99.0], [1.5, 0.0, 2.0]])
        before = errors.clone()
        assert metrics.success_counts(errors, 3).tolist() == [1, 3, 5]
        assert torch.equal(errors, before)

    def test_are_exact_just_below_and_above_a_threshold(self):
        exact = torch.tensor(20.0)
        below, above = (exact.nextafter(torch.tensor(limit)) for limit in (-torch.inf, torch.inf))
        counts = [metrics.success_counts(error, 81)[20].item() for error in (below, exact, above)]
        assert counts == [1, 1, 0]


class TestAreaUnderCurve:
    @given(errors=distances, limits=ranges)
    def test_has_as_mean_the_integral_of_the_empirical_success_curve(self, errors, limits):
        """The curve is a staircase: between two neighbouring errors it is the share of smaller errors."""
        low, high = limits
        steps = np.unique(np.clip([low, high, *errors.tolist()], low, high))
        middles = (steps[:-1] + steps[1:]) / 2
        rates = [(errors.numpy() <= middle).mean() for middle in middles]
        area = np.dot(rates, np.diff(steps)) / (high - low)
        assert metrics.area_under_curve(errors, low, high).mean().item() == pytest.approx(area, rel=1e-9, abs=1e-12)

    @given(errors=distances, limits=ranges)
    def test_lies_near_the_integral_over_a_fine_grid(self, errors, limits):
        low, high = limits
        grid = np.linspace(low, high, 2001)
        rates = (errors.numpy()[:, None] <= grid).mean(axis=0)
        area = np.trapezoid(rates, grid) / (high - low)
        assert metrics.area_under_curve(errors, low, high).mean().item() == pytest.approx(area, abs=1e-3)

    def test_runs_from_nothing_to_the_whole(self):
        errors = torch.tensor([0.0, 20, 35, 50, 51, 1000])
        assert metrics.area_under_curve(errors, 20, 50).tolist() == [1, 1, 0.5, 0, 0, 0]
