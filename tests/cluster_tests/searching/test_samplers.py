import math

import pytest

from cluster.searching.dimensions import Dimension, Range, fits
from cluster.searching.samplers import Proposing
from cluster.searching.search import Search
from data_pipeline.user_error import UserError

SPACE = [
    Dimension(3),
    Dimension(Range(1e-4, 1e-1, log=True)),
    Dimension(Range(2, 64, log=True, integer=True), when=((0, frozenset({0, 2})),)),
    Dimension(Range(0.0, 0.5, step=0.1)),
]
SAMPLERS = ["tpe", "random", "sobol"]


def error(choices):
    """Smaller for learning rates near 0.01; the third row diverges."""
    row, lr, width, dropout = choices
    return None if row == 2 else (math.log10(lr) + 2) ** 2 + dropout + (0 if width is None else abs(width - 16) / 16)


def searched(proposing, n, round_size=8):
    """All proposals of a search."""
    results = {}
    while len(results) < n:
        same_round = []
        for _ in range(min(round_size, n - len(results))):
            same_round.append(proposing.next(results, same_round))
        results |= {choices: error(choices) for choices in same_round}
    return list(results)


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestASampler:
    def test_proposes_distinct_combinations_of_the_space_and_the_same_ones_each_time(self, sampler):
        found = searched(Proposing(sampler, 3, SPACE), 40)
        assert len(set(found)) == 40
        assert all(fits(choices, SPACE) for choices in found)
        assert searched(Proposing(sampler, 3, SPACE), 40) == found
        assert searched(Proposing(sampler, 4, SPACE), 40) != found

    def test_begins_with_the_points(self, sampler):
        points = [(1, 1e-3, None, 0.0), (0, 0.012345, 17, 0.5)]
        assert searched(Proposing(sampler, 0, SPACE, points), 12)[:2] == points

    def test_finds_each_combination_of_a_small_space_once_and_then_says_that_there_is_no_other(self, sampler):
        proposing = Proposing(sampler, 0, [Dimension(4), Dimension(Range(1, 5, integer=True))])
        found = []
        for _ in range(20):
            found.append(proposing.next(dict.fromkeys(found, 1.0), []))
        assert len(set(found)) == 20
        with pytest.raises(UserError, match="has proposed 20 combinations and found no new one"):
            proposing.next(dict.fromkeys(found, 1.0), [])


def test_a_proposal_of_a_round_does_not_depend_on_how_many_follow():
    proposing, results = Proposing("tpe", 0, SPACE), {}
    for choices in searched(proposing, 16):
        results[choices] = error(choices)
    four, eight = [], []
    for _ in range(8):
        eight.append(proposing.next(results, eight))
    for _ in range(4):
        four.append(proposing.next(results, four))
    assert eight[:4] == four


def test_tpe_proposes_better_combinations_than_random_and_avoids_those_that_diverge():
    found = {sampler: searched(Proposing(sampler, 0, SPACE), 60) for sampler in SAMPLERS}
    last = {sampler: [error(choices) for choices in proposals[30:]] for sampler, proposals in found.items()}
    means = {sampler: sum(e for e in errors if e is not None) / 30 for sampler, errors in last.items()}
    assert means["tpe"] < means["random"] / 2
    assert means["tpe"] < means["sobol"] / 2
    assert last["tpe"].count(None) < last["sobol"].count(None) / 2


def test_a_diverged_combination_counts_as_the_worst():
    results = {choices: error(choices) for choices in searched(Proposing("sobol", 0, SPACE), 24)}
    worst = max(value for value in results.values() if value is not None)
    as_numbers = {choices: worst if value is None else value for choices, value in results.items()}
    proposing = Proposing("tpe", 0, SPACE)
    assert proposing.next(results, []) == proposing.next(as_numbers, [])
    assert proposing.next(dict.fromkeys(results), [])  # all diverged


@pytest.mark.parametrize(
    ("search", "wrong"),
    [
        (Search("tp", 4), {"sampler": "one of 'tpe', 'random', 'sobol'"}),
        (Search(["tpe"], 0), {"sampler": "one of 'tpe', 'random', 'sobol'", "n_combinations": "an int of at least 1"}),
        (Search("tpe", 8, round_size=2.0), {"round_size": "an int of at least 1"}),
        (Search("sobol", 1, 1), {}),
    ],
)
def test_a_search_says_for_each_wrong_setting_what_is_allowed(search, wrong):
    assert search.wrong == wrong
