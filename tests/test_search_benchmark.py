"""The benchmark of searches: what it says about the best combination so far."""

import numpy as np
import pytest

from cluster.reports.formats.terminal import terminal
from cluster.results.results import Results
from tests.benchmarks import searches
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.small_experiment import LR


def test_the_best_so_far_is_in_the_order_of_proposals_and_failures_do_not_count(tmp_path):
    outcomes = [9.0, "diverged", 8.0, 8.5, 7.0]
    folder = write_experiment(tmp_path / "search", [({LR: 0.1 * (1 + i)}, [of]) for i, of in enumerate(outcomes)])
    assert searches.best_so_far_mm(Results.read(folder)).tolist() == [9.0, 9.0, 8.0, 8.0, 7.0]


def test_the_comparison_counts_the_seeds_in_which_a_sampler_is_better_than_random():
    best = {"tpe": [np.full(60, 8.0), np.full(60, 10.0)], "random": [np.full(60, 9.0)] * 2}
    (line,) = [line for line in terminal(searches.comparison(best)).splitlines() if line.startswith("tpe")]
    assert line.split("  ")[-1].strip() == "1 of 2"
    assert "9.00 ± 1.41" in line


@pytest.mark.parametrize("sampler", searches.SAMPLERS)
def test_each_search_has_four_ranges_that_contain_the_base(tmp_path, sampler):
    space = searches.experiment(tmp_path, sampler, 0).space
    assert len(space.axes) == 4
    assert space.point({})[1] == []
