import numpy as np
import pytest
from scipy import stats

from cluster.results.choice.ranks import ValidationAndTest


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    val = np.sort(rng.normal(10, 1, 30).round(1))  # rounded, so some are equal
    return ValidationAndTest(val, (val + rng.normal(1, 0.5, 30)).round(1))


def test_ranks_and_their_correlation_are_those_of_scipy(found):
    np.testing.assert_array_equal(found.test_ranks, stats.rankdata(found.test_mm))
    assert found.correlation == pytest.approx(stats.spearmanr(found.val_mm, found.test_mm).statistic)


def test_the_gap_is_between_the_best_in_validation_and_the_lowest_test_error(found):
    assert found.gap_mm == found.test_mm[0] - min(found.test_mm)
    assert found.test_mm[found.best_in_test] == min(found.test_mm)


def test_there_is_no_gap_if_the_same_combination_is_best_on_both():
    assert ValidationAndTest(np.array([1.0, 2.0]), np.array([3.0, 4.0])).gap_mm == 0


def test_equal_errors_have_no_correlation():
    assert ValidationAndTest(np.array([1.0, 2.0, 3.0]), np.full(3, 5.0)).correlation is None


def test_the_first_are_the_best_in_validation(found):
    assert found.first(3).val_mm.tolist() == found.val_mm[:3].tolist()
