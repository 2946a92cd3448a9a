import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.reports.tables.marks import Ranking, ResultGroup, rate
from cluster.results.statistics import compare, holm

values = st.lists(st.none() | st.floats(0, 100), min_size=3, max_size=3)


def marks_of(values, *, lower=True):
    (ratings,), _ = rate([ResultGroup(values, lower)])
    return {key: rating.mark for key, rating in ratings.items()}


def explained(*groups):
    return rate([ResultGroup(values, True) for values in groups])[1]


def noisy(mean, *, n=10, seed=0, spread=0.1):
    return list(mean + spread * np.random.default_rng(seed).standard_normal(n))


class TestWithTooFewRepetitionsForATest:
    def test_the_best_mean_is_marked_and_the_next(self):
        assert marks_of({"a": [3.0, 3.0], "b": [1.0, 1.0], "c": [2.0, 2.1]}) == {"a": "", "b": "best", "c": "second"}

    def test_the_best_is_the_highest_where_higher_is_better(self):
        assert marks_of({"a": [3.0], "b": [1.0], "c": [2.0]}, lower=False) == {"a": "best", "b": "", "c": "second"}

    def test_that_is_said(self):
        text = explained({"a": [1.0] * 3, "b": [2.0] * 3})
        assert text == "Bold: best mean. Underlined: second best. n = 3 is too few for a test."

    def test_of_several_sets_is_said_to_be_the_best_on_each(self):
        group = ResultGroup({"a": [1.0] * 3, "b": [2.0] * 3}, True)
        text = rate([group, group], on="each test set")[1]
        assert text.startswith("Bold: best mean on each test set. Underlined: second best. n = 3 is too few")

    def test_equal_results_share_the_mark(self):
        assert marks_of({"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [5.0, 5.0]}) == {
            "a": "best",
            "b": "best",
            "c": "second",
        }

    def test_results_that_equal_the_second_share_its_mark(self):
        group = {"a": [1.0, 2.0], "b": [5.0, 4.0], "c": [4.0, 5.0], "d": [4.0, 5.1]}
        assert marks_of(group) == {"a": "best", "b": "second", "c": "second", "d": ""}

    def test_a_mean_that_rests_on_fewer_repetitions_is_not_marked(self):
        found = marks_of({"a": [9.0, 9.0], "lucky": [1.0, None], "b": [8.0, 8.0], "none": [None, None]})
        assert found == {"a": "second", "lucky": "", "b": "best", "none": ""}

    def test_one_result_alone_is_the_best_of_nothing(self):
        assert marks_of({"a": [1.0, 2.0]}) == {"a": ""}
        assert explained({"a": [1.0, 2.0]}) == ""

    @given(st.dictionaries(st.sampled_from("abcd"), values, min_size=1))
    def test_the_best_is_never_worse_than_the_second_and_the_second_than_the_others(self, group):
        marks = marks_of(group)
        most = max(sum(v is not None for v in vs) for vs in group.values())
        means = {key: np.mean(vs) for key, vs in group.items() if None not in vs and most == 3}
        best = [means[key] for key in means if marks[key] == "best"]
        rest = [means[key] for key in means if marks[key] == ""]
        for second in [means[key] for key in means if marks[key] == "second"]:
            assert max(best) <= second + 1e-9
            assert not rest or second <= min(rest) + 1e-9


class TestWithEnoughRepetitions:
    def test_what_does_not_differ_from_the_best_shares_its_mark(self):
        group = {"a": noisy(10.0), "same": noisy(10.001, seed=1), "worse": noisy(12.0, seed=2), "worst": noisy(15.0)}
        assert marks_of(group) == {"a": "best", "same": "best", "worse": "second", "worst": ""}

    def test_what_does_not_differ_from_the_second_shares_its_mark(self):
        group = {"a": noisy(10.0), "b": noisy(12.001, seed=2), "c": noisy(12.0, seed=3), "worst": noisy(15.0, seed=4)}
        assert marks_of(group) == {"a": "best", "b": "second", "c": "second", "worst": ""}

    def test_what_differs_from_the_second_in_every_repetition_does_not_share_its_mark(self):
        b = noisy(12.0, seed=2)
        group = {"a": noisy(10.0), "b": b, "c": [x + 0.001 * (1 + i) for i, x in enumerate(b)]}
        assert marks_of(group) == {"a": "best", "b": "second", "c": ""}

    def test_the_seconds_are_those_that_holm_over_all_pairs_does_not_part(self):
        rng = np.random.default_rng(3)
        means = {"a": 5.0, "b": 9.0, "c": 9.1, "d": 9.2, "e": 20.0}
        for _ in range(20):
            group = {key: noisy(mean, n=12, seed=rng.integers(1000)) for key, mean in means.items()}
            marks = marks_of(group)
            ranked = sorted(group, key=lambda key, group=group: np.mean(group[key]))
            pairs = list(itertools.combinations(ranked, 2))
            of_all = dict(zip(pairs, holm([compare(group[i], group[j]).p_value for i, j in pairs]), strict=True))
            seconds = {key for key, mark in marks.items() if mark == "second"}
            # Pairs that were not compared count as large, so fewer results are distinguished than with all pairs.
            assert {ranked[1], *(key for key in ranked[2:] if of_all[ranked[1], key] > 0.05)} <= seconds
            assert ranked[-1] not in seconds

    @pytest.mark.slow
    @pytest.mark.parametrize(("n_combinations", "n"), [(4, 9), (8, 11)])
    def test_of_equals_behind_a_clear_best_at_most_one_table_in_twenty_leaves_one_without_a_mark(
        self, n_combinations, n
    ):
        rng = np.random.default_rng(1)
        found = 0
        for _ in range(200):
            table = rng.standard_normal((n_combinations, n)) + rng.standard_normal(n)
            table[0] -= 20.0
            found += "" in marks_of({str(i): values.tolist() for i, values in enumerate(table)}).values()
        assert found <= 16  # of a chance of 5 %, more than 16 in 200 are found once in 30 times

    def test_a_small_difference_in_every_repetition_is_one(self):
        a = noisy(10.0)
        assert marks_of({"a": a, "b": [x + 0.001 * (1 + i) for i, x in enumerate(a)]}) == {"a": "best", "b": "second"}

    def test_the_p_values_are_adjusted_for_all_pairs_of_all_contests(self):
        groups = [
            {"a": noisy(10.0), "b": noisy(10.1, seed=1), "c": noisy(10.05, seed=2)},
            {"a": noisy(5.0, seed=3), "b": noisy(5.1, seed=4)},
        ]
        ratings, _ = rate([ResultGroup(group, True) for group in groups])
        pairs = []
        for group, rating in zip(groups, ratings, strict=True):
            best = min(group, key=lambda key, group=group: np.mean(group[key]))
            assert rating[best].p_adjusted is None
            pairs += [(compare(group[k], group[best]).p_value, rating[k].p_adjusted) for k in group if k != best]
        assert sorted(p for _, p in pairs) == pytest.approx(sorted(holm([*(p for p, _ in pairs), 1.0])[:-1]))

    def test_that_is_said(self):
        text = explained({"a": noisy(1.0), "b": noisy(2.0)})
        assert text == (
            "Bold: the best and results not significantly different from it (paired sign-flip test, Holm-adjusted over "
            "all pairs, p > 0.05). Underlined: the second best and results not significantly different from that."
        )

    def test_the_best_of_many_counts_as_all_that_it_was_chosen_from(self):
        values = {"a": noisy(10.0), "b": noisy(10.4, seed=1), "c": noisy(11.0, seed=2)}
        chosen_from = {key: Ranking(key, n) for n, key in enumerate("abc", 1)}  # 1·2 + 1·3 + 2·3 pairs
        (ratings,), text = rate([ResultGroup(values, True, chosen_from)])
        p_values = [compare(values[key], values["a"]).p_value for key in "bc"]
        assert [ratings[key].p_adjusted for key in "bc"] == holm(p_values, n_others=11 - 2)
        assert "Holm-adjusted over all pairs that could have been chosen, p > 0.05" in text

    def test_the_first_of_two_rankings_count_with_all_of_the_other_one(self):
        """Three of ten and two of four: 10 · 4 pairs of the two rankings, and the 3 and 1 shown pairs within them."""
        chosen_from = {key: Ranking("first", 10) for key in "abc"} | {key: Ranking("second", 4) for key in "de"}
        _, text = rate([ResultGroup({key: noisy(10.0, n=6) for key in "abcde"}, True, chosen_from)])
        assert "tests of 44 pairs that could have been chosen" in text
        _, text = rate([ResultGroup({key: noisy(10.0, n=6) for key in "abc"}, True, chosen_from)])
        assert "tests of 3 pairs, which need" in text

    @pytest.mark.slow
    @pytest.mark.parametrize("n_settings", [10, 50])
    def test_of_noise_alone_the_best_of_many_settings_is_better_than_one_in_at_most_one_table_in_twenty(
        self, n_settings
    ):
        rng, counts = np.random.default_rng(1), {True: 0, False: 0}
        for _ in range(200):
            one, *many = rng.standard_normal((1 + n_settings, 12)).tolist()
            values = {"one": one, "best": min(many, key=np.mean)}
            for is_counted in counts:
                (ratings,), _ = rate(
                    [ResultGroup(values, True, {"best": Ranking("many", n_settings)} if is_counted else {})]
                )
                counts[is_counted] += "second" in [rating.mark for rating in ratings.values()]
        assert counts[True] <= 16 < counts[False]

    def test_of_six_for_many_comparisons_are_too_few_and_the_needed_are_told(self):
        group = {key: noisy(i, n=6) for i, key in enumerate("abcd")}
        text = explained(group)
        assert text.endswith("n = 6 is too few for tests of 6 pairs, which need n = 8.")
        assert marks_of(group) == {"a": "best", "b": "second", "c": "", "d": ""}

    @pytest.mark.slow
    @pytest.mark.parametrize(("n_combinations", "n"), [(3, 8), (8, 11), (20, 14)])
    def test_of_noise_alone_at_most_one_table_in_twenty_has_a_second(self, n_combinations, n):
        rng = np.random.default_rng(0)
        found = 0
        for _ in range(200):
            table = rng.standard_normal((n_combinations, n)) + rng.standard_normal(n)  # repetitions share a seed
            found += "second" in marks_of({str(i): values.tolist() for i, values in enumerate(table)}).values()
        assert found <= 16  # of a chance of 5 %, more than 16 in 200 are found once in 30 times
