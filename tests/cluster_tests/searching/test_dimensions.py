import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.searching.dimensions import Dimension, Range, fits

FINITE = st.floats(1e-6, 1e6)
SHARES = st.floats(0, 1, exclude_max=True)


@st.composite
def ranges(draw):
    integer = draw(st.booleans())
    numbers = st.integers(1, 10**6) if integer else FINITE
    low, high = sorted(draw(st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1])))
    log = draw(st.booleans())
    step = None if log or draw(st.booleans()) else (high - low) // 3 or 1 if integer else (high - low) / 7
    return Range(low, high, log=log, integer=integer, step=step)


class TestARange:
    @given(ranges(), SHARES)
    def test_proposes_its_own_values_with_four_digits(self, of, share):
        assert of.problem is None
        value = of.at(share)
        assert type(value) is (int if of.integer else float)
        assert of.low <= value <= of.high
        assert of.has(value)
        if not of.integer and of.step is None:
            assert value in (of.low, of.high, float(f"{value:.4g}"))

    @given(ranges(), SHARES, SHARES)
    def test_keeps_the_order_of_shares(self, of, one, other):
        low, high = sorted([one, other])
        assert of.at(low) <= of.at(high)

    @given(ranges().filter(lambda of: of.n_values is not None), SHARES)
    def test_with_a_step_or_ints_numbers_its_values(self, of, share):
        value = of.at(share)
        assert of.value(of.place(value)) == value
        assert 0 <= of.place(value) < of.n_values

    def test_has_the_steps_as_written_and_not_as_binary_fractions(self):
        of = Range(0.0, 0.5, step=0.05)
        values = [of.value(place) for place in range(of.n_values)]
        assert values == [float(Decimal(place) * Decimal("0.05")) for place in range(11)]
        assert all(of.has(value) for value in (0, 0.15, 0.35, 0.5))
        assert not of.has(0.12)

    def test_ends_at_the_last_step_that_does_not_exceed_high(self):
        assert [Range(1, 10, integer=True, step=4).at(share) for share in (0.0, 0.5, 0.999)] == [1, 5, 9]

    def test_with_log_is_even_on_a_log_scale(self):
        of = Range(1e-4, 1e-2, log=True)
        assert [of.at(share) for share in (0.0, 0.25, 0.5, 0.75)] == [1e-4, 3.162e-4, 1e-3, 3.162e-3]

    def test_of_ints_with_log_proposes_both_ends_as_often_as_the_log_scale_says(self):
        of = Range(1, 4, log=True, integer=True)
        values = [of.at((i + 0.5) / 9000) for i in range(9000)]
        expected = [math.log((n + 0.5) / (n - 0.5)) / math.log(9) for n in (1, 2, 3, 4)]
        assert [values.count(n) / 9000 for n in (1, 2, 3, 4)] == pytest.approx(expected, abs=1e-3)

    @pytest.mark.parametrize(
        ("of", "problem"),
        [
            (Range(1, 1), "low must be less than high"),
            (Range(0.0, 1.0, log=True), "low must be greater than 0"),
            (Range(1.0, 2.0, log=True, step=0.1), "not both"),
            (Range(1.0, 2.0, step=0.0), "step must be greater than 0"),
            (Range(1.0, 2.0, step=3.0), "at most high - low"),
            (Range(1.0, 2.0, log="yes"), "log must be True or False; got 'yes'"),
            (Range(1, 2, integer=1), "integer must be True or False; got 1"),
            (Range(1.5, 4, integer=True), "finite ints; got 1.5"),
            (Range(1, 4, integer=True, step=0.5), "finite ints"),
            (Range(float("nan"), 1.0), "finite numbers"),
            (Range("a", 1.0), "finite numbers"),
            (Range(False, True), "finite numbers"),
        ],
    )
    def test_says_what_is_wrong_with_its_numbers(self, of, problem):
        assert problem in of.problem


def test_a_combination_fits_if_it_has_a_choice_exactly_where_a_dimension_applies():
    dimensions = [Dimension(2), Dimension(Range(1, 8, integer=True), when=((0, frozenset({1})),))]
    assert fits((1, 8), dimensions)
    assert fits((0, None), dimensions)
    assert not any(fits(wrong, dimensions) for wrong in [(0, 8), (1, None), (1, 9), (2, None), (1,)])
