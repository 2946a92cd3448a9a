import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.reports.page.charts import Axis, Chart


@example(low=99999.5, span=2.0, at_most=4)
@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), at_most=st.integers(3, 10))
def test_ticks_are_few_round_numbers_on_the_axis(low, span, at_most):
    ticks = Axis("", low, low + span).ticks(at_most)
    assert 1 <= len(ticks) <= at_most + 1
    assert all(low - 1e-5 * span <= tick <= low + span + 1e-5 * span for tick in ticks)
    steps = np.diff(ticks)
    assert len(steps) == 0 or np.ptp(steps) < 1e-4 * span
    assert len({f"{tick:.12g}" for tick in ticks}) == len(ticks)


def points(markup):
    return [
        tuple(map(float, pair)) for pair in re.findall(r"([\d.-]+) ([\d.-]+)", re.search(r'd="([^"]*)"', markup)[1])
    ]


@pytest.fixture
def chart():
    return Chart(Axis("x", 0, 10), Axis("y", 0, 10))


def test_a_line_keeps_its_height_up_to_the_next_point(chart):
    expected = chart.places(np.array([1, 4, 4, 9]), np.array([5, 5, 2, 2]))
    found = points(chart.stairs(np.array([1, 3, 4, 9]), np.array([5, 5, 2, 2]), "line"))
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_a_band_goes_along_one_line_and_back_along_the_other(chart):
    x, lows, highs = np.array([1, 4, 9]), np.array([1, 1, 0]), np.array([5, 3, 3])
    forth, back = (points(chart.line(x, heights, "line")) for heights in (highs, lows))
    assert points(chart.band(x, lows, highs, "band")) == [*forth, *back[::-1]]


def test_values_above_the_chart_are_drawn_at_its_edge(chart):
    (_, top), (_, beyond) = chart.places(np.array([1, 1]), np.array([10, 99]))
    assert beyond == top


def test_titles_stay_text(chart):
    assert "&lt;script&gt;" in chart.drawn("<script>")
