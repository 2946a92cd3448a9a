"""Results in parts that were measured on the same data."""

import pytest

from cluster.results.results import Results
from tests.cluster_tests.results_files import results

LR, TEST_SET = "optimizer_args.lr", "experiment_config.test_set"


def test_that_were_all_measured_on_the_same_are_one_part(tmp_path):
    found = results(tmp_path, {"a": ({LR: 1}, [9.0]), "b": ({LR: 2}, [8.0])})
    assert found.by_data() == {"hands_test": found}


@pytest.fixture
def parts(tmp_path):
    combinations = {
        "a": ({LR: 1, TEST_SET: "here"}, [9.0, 9.5]),
        "b": ({LR: 1, TEST_SET: "there"}, [3.0, "failed"]),
        "c": ({LR: 2, TEST_SET: "here"}, [8.0, 8.5]),
        "d": ({LR: 2, TEST_SET: None}, [7.0, 7.5]),
    }
    whole = results(tmp_path, combinations)
    return whole, whole.by_data()


def test_are_apart_where_the_set_is_an_option(parts):
    _, found = parts
    assert {name: [row["key"] for row in part.summary] for name, part in found.items()} == {
        "hands_val": ["d"],
        "here": ["c", "a"],
        "there": ["b"],
    }


def test_keep_every_trial_once(parts):
    whole, found = parts
    rows = [(row["key"], row["repetition"]) for part in found.values() for row in part.trials]
    assert sorted(rows) == sorted((row["key"], row["repetition"]) for row in whole.trials)
    assert sum(len(part.failures) for part in found.values()) == len(whole.failures) == 1


def test_have_the_options_that_vary_within_them(parts):
    _, found = parts
    assert found["here"].option_paths == found["here"].distinguishing_paths == [LR]
    assert found["there"].option_paths == []


def test_without_a_test_set_are_reported_on_validation(parts):
    _, found = parts
    assert found["here"].split == "test"
    assert found["hands_val"].split == "val"


def test_are_of_the_class_that_was_asked(parts):
    whole, found = parts
    assert {type(part) for part in found.values()} == {type(whole)}
    assert isinstance(whole, Results)
