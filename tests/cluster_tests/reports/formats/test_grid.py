import pytest

from cluster.reports.formats.grid import signed


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.3, 2, "+0.30"), (-3.16, 2, "−3.16"), (-0.04, 1, "0.0"), (0.04, 1, "0.0"), (0.0, 0, "0"), (-10.0, 0, "−10")],
)
def test_a_difference_has_a_sign_unless_it_rounds_to_zero(value, digits, text):
    assert signed(value, digits) == text
