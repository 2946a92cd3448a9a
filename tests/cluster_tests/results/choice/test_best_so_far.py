import itertools

import numpy as np
import pytest

from cluster.results.choice.best_so_far import best_in_order, best_in_random_order


def test_the_best_in_an_order_never_rises():
    assert best_in_order(np.array([5.0, 7.0, 3.0, 4.0])).tolist() == [5, 5, 3, 3]


@pytest.mark.parametrize("errors", [[5.0, 7.0, 3.0, 4.0, 9.0, 6.0], [2.0, 2.0, 1.0], [4.0]])
@pytest.mark.parametrize("quantile", [0.05, 0.25, 0.5, 0.8, 0.95])
def test_quantiles_are_those_of_all_orders_tried(errors, quantile):
    tried = [best_in_order(np.array(order)) for order in itertools.permutations(errors)]
    expected = np.quantile(tried, quantile, axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(best_in_random_order(np.array(errors), [quantile])[0], expected)


def test_many_combinations_agree_with_random_orders():
    rng = np.random.default_rng(0)
    errors = rng.normal(10, 1, 400)
    drawn = np.minimum.accumulate(rng.permuted(np.tile(errors, (4_000, 1)), axis=1), axis=1)
    share_at_most = (drawn <= best_in_random_order(errors, [0.5])[0] + 1e-12).mean(axis=0)
    share_below = (drawn < best_in_random_order(errors, [0.5])[0] - 1e-12).mean(axis=0)
    assert (share_at_most > 0.47).all()
    assert (share_below < 0.53).all()


def test_all_orders_end_with_the_best():
    assert best_in_random_order(np.array([3.0, 1.0, 2.0]), [0.05, 0.95])[:, -1].tolist() == [1, 1]
