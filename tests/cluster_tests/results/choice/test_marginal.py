import numpy as np
import pytest

from cluster.results.choice.marginal import _BANDWIDTHS, MIN_COMBINATIONS, MIN_VALUES, marginal


def noisy(n=40):
    rng = np.random.default_rng(3)
    values = np.sort(rng.uniform(-3, 2, n))
    return values, np.square(values) + rng.normal(0, 0.5, n)


def weighted_fit(values, errors, at, width):
    """The local line at a place, by weighted least squares."""
    root = np.exp(-np.square((values - at) / width) / 4)
    design = np.stack([np.ones_like(values), values - at], axis=1)
    return np.linalg.lstsq(design * root[:, None], errors * root, rcond=None)[0][0]


def test_a_straight_line_is_found_with_a_band_of_no_width():
    values = np.linspace(1, 5, 20)
    found = marginal(values, 2 * values + 1)
    np.testing.assert_allclose([found.line, found.low, found.high], np.tile(2 * found.places + 1, (3, 1)), atol=1e-4)


def test_it_is_the_weighted_regression_with_the_lowest_leave_one_out_error():
    values, errors = noisy()
    span = np.ptp(values)

    def left_out(width):
        others = [np.arange(len(values)) != i for i in range(len(values))]
        fits = [weighted_fit(values[o], errors[o], values[~o], width) for o in others]
        return np.square(errors - fits).mean()

    width = min(_BANDWIDTHS * span, key=left_out)
    assert width not in (_BANDWIDTHS[0] * span, _BANDWIDTHS[-1] * span)
    found = marginal(values, errors)
    expected = [weighted_fit(values, errors, at, width) for at in found.places]
    np.testing.assert_allclose(found.line, expected, atol=1e-3)
    assert (found.places[0], found.places[-1]) == (values[0], values[-1])


def test_the_band_is_as_wide_as_the_spread_of_lines_over_repeated_searches():
    def drawn(seed):
        rng = np.random.default_rng(seed)
        values = rng.uniform(0, 1, 80)
        return values, values + rng.normal(0, 0.3, 80)

    found = [marginal(*drawn(seed), n_places=21) for seed in range(40)]
    middle = [np.interp(0.5, of.places, of.line) for of in found]
    widths = [np.interp(0.5, of.places, of.high - of.low) for of in found]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(middle), rel=0.35)


@pytest.mark.parametrize(
    "values", [np.arange(MIN_COMBINATIONS - 1), np.arange(40) % (MIN_VALUES - 1), np.full(40, 2.0)]
)
def test_too_few_combinations_or_values_have_no_line(values):
    assert marginal(values.astype(float), np.ones(len(values))) is None


def test_gaps_between_values_leave_the_numbers_finite():
    values = np.array([0.0] * 30 + [1e-9, 0.3, 0.999_999, 1.0])
    assert np.isfinite(marginal(values, np.arange(len(values), dtype=float))).all()
