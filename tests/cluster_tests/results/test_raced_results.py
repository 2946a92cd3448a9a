"""Results of an experiment that a race trained: only what was trained to the end is ranked and averaged."""

import json

import pytest

from cluster.racing.dropped import DROPPED_COLUMNS
from cluster.results.lookup import find_combination
from cluster.results.results import Results
from tests.cluster_tests.results_files import (
    experiment_json,
    write_fold_results,
    write_race,
    write_raced_results,
    write_results,
)

MEAN = "val_distance_mm_mean"


@pytest.fixture
def folder(tmp_path):
    return write_raced_results(tmp_path)


@pytest.fixture
def raced(folder):
    return Results.read(folder)


def by_key(results):
    return {row["key"]: row for row in results.summary}


def keys(rows):
    return [row["key"] for row in rows]


def two_of(tmp_path, outcomes, decisions, **how):
    """The results of two combinations, `a` and `b`, after a race with these decisions."""
    written = {key: ({"lr": lr}, of) for lr, (key, of) in enumerate(outcomes.items())}
    return Results.read(write_race(write_results(tmp_path, written), decisions, **how))


class TestACombinationThatARaceDropped:
    def test_comes_after_those_that_were_trained_to_the_end(self, raced):
        assert keys(raced.summary) == ["a", "b", "d", "c", "e", "f"]
        assert keys(raced.ranked) == ["a", "b"]

    def test_has_no_result_although_a_repetition_finished(self, raced):
        row = by_key(raced)["c"]
        assert row["n"] == 0
        assert {row[name] for name in row if name.startswith(("val_", "test_"))} == {None}
        assert raced.values("test_distance_mm")["c"] == [None, None]
        assert find_combination(raced, "best")["key"] == "a"

    def test_says_what_it_reached_at_the_rung_and_what_the_leader_had_there(self, raced):
        rows = by_key(raced)
        assert [rows["d"][name] for name in DROPPED_COLUMNS] == [3, 2, 8.75, 7.5, "behind"]
        assert [rows["e"][name] for name in DROPPED_COLUMNS] == [1, 1, 11.0, 9.0, "behind"]
        assert [rows["a"][name] for name in DROPPED_COLUMNS] == [None] * 5

    def test_that_diverged_has_no_value_there(self, raced):
        assert [by_key(raced)["f"][name] for name in DROPPED_COLUMNS] == [1, 1, None, 9.0, "diverged"]

    def test_has_trials_that_are_dropped_unless_they_ended(self, raced):
        statuses = {key: [trial["status"] for trial in trials] for key, trials in raced.repetitions.items()}
        assert statuses["c"] == ["finished", "dropped"]
        assert statuses["d"] == statuses["e"] == ["dropped", "dropped"]
        assert statuses["f"] == ["diverged", "dropped"]

    def test_is_the_best_of_no_value_of_an_option(self, raced):
        assert keys(raced.best_for_each("lr")) == ["a"]
        assert keys(raced.best_for_each("dim")) == ["a", "b"]

    def test_stays_dropped_in_a_part_of_the_results(self, raced):
        assert keys(raced.where(lambda row: row["dim"] == 16).ranked) == ["b"]


class TestACombinationIsNotDropped:
    def test_without_a_race_in_the_last_run(self, folder):
        content = experiment_json(folder)
        content["configs"]["experiment_config"]["race"] = None
        folder.write_experiment(content)
        results = Results.read(folder)
        assert not results.dropped
        assert by_key(results)["c"]["n"] == 1
        assert not set(DROPPED_COLUMNS) & results.summary[0].keys()

    def test_if_all_of_its_repetitions_finished(self, tmp_path):
        rung = {"a": ([9.0, 9.0], "best"), "b": ([9.5, 9.5], "behind")}
        results = two_of(tmp_path, {"a": [6.0, 7.0], "b": [5.0, 5.0]}, {(0, 0): (1, rung)})
        assert keys(results.ranked) == ["b", "a"]

    def test_while_its_competition_goes_on(self, tmp_path):
        rung = {"a": ([9.0], "best"), "b": ([9.5], "best")}
        results = two_of(tmp_path, {"a": [6.0], "b": ["interrupted"]}, {(0, 0): (1, rung)})
        assert keys(results.ranked) == ["a", "b"]
        assert results.trials[1]["status"] == "interrupted"

    def test_if_a_later_bracket_lets_it_stay(self, tmp_path):
        one, other = ({"a": ([9.0], "best"), "b": ([9.5], reason)} for reason in ("behind", "best"))
        results = two_of(tmp_path, {"a": [6.0], "b": [None]}, {(0, 1): (3, one), (1, 0): (1, other)})
        assert not results.dropped

    def test_by_a_decision_on_other_data(self, tmp_path):
        rung = {"a": ([9.0], "best"), "b": ([9.5], "behind")}
        assert not two_of(tmp_path, {"a": [6.0], "b": [None]}, {(0, 0): (1, rung)}, data="others").dropped


def test_a_combination_on_folds_is_dropped_with_all_of_its_folds(tmp_path):
    folder = write_fold_results(
        tmp_path, {0.1: [[10.0], [6.0]], 0.2: [["interrupted"], [8.0]]}, [(300, 100), (100, 300)]
    )
    kept, lost = (key for key, folds in Results.read(folder).folds.items())
    reached = {kept: ([9.0], "best"), lost: ([9.5], "behind")}
    results = Results.read(write_race(folder, {(0, 0): (1, reached)}, data="hands"))
    assert keys(results.ranked) == [kept]
    assert results.summary[1]["dropped_val_distance_mm"] == 9.5
    assert results.summary[1]["test_distance_mm_fold_std"] is None
    of_folds = {row["key"]: row for row in results.single_folds.summary}
    assert set(keys(results.single_folds.ranked)) == {"0.1-1", "0.1-2"}
    assert [of_folds["0.2-1"][name] for name in DROPPED_COLUMNS] == [1, 1, None, None, "behind"]
    assert [trial["status"] for trial in results.trials] == ["finished", "dropped"]


@pytest.mark.parametrize(
    "change",
    [
        lambda decision: decision.update(bracket="x"),
        lambda decision: decision.update(combinations=[]),
        lambda decision: decision["combinations"][0].update(values=["0x1.0p+9999"]),
        lambda decision: decision["combinations"][0].update(reason="because"),
    ],
)
def test_a_broken_decision_is_a_warning_and_counts_as_missing(folder, change):
    decision = json.loads(folder.storage.read("race/hands_val/0-1.json"))
    change(decision)
    folder.storage.write("race/hands_val/0-1.json", json.dumps(decision).encode())
    results = Results.read(folder)
    [warning] = results.warnings
    assert warning.startswith("race/hands_val/0-1.json: ")
    assert set(results.dropped) == {"e", "f"}


def test_a_key_that_the_plan_does_not_have_is_ignored(folder):
    content = experiment_json(folder)
    content["plan"]["combinations"] = content["plan"]["combinations"][:5]
    folder.write_experiment(content)
    assert "f" not in Results.read(folder).dropped


def test_a_longer_training_is_dropped_in_the_place_of_the_shorter_one(folder):
    content = experiment_json(folder)
    content["stands_for"] = {"longer": "d"}
    content["plan"]["combinations"][3]["key"] = "longer"
    folder.write_experiment(content)
    results = Results.read(folder)
    assert by_key(results)["longer"]["dropped_val_distance_mm"] == 8.75
    assert [trial["status"] for trial in results.repetitions["longer"]] == ["dropped", "dropped"]


def test_a_training_made_longer_twice_was_raced_by_those_that_it_replaced(tmp_path):
    decisions = {
        (0, 0): (1, {"short": ([9.0], "best"), "b": ([9.5], "best")}),
        (0, 1): (3, {"medium": ([8.0], "behind"), "b": ([7.5], "best")}),
    }
    folder = write_race(
        write_results(tmp_path, {"long": ({"lr": 1}, ["interrupted"]), "b": ({"lr": 2}, [5.0])}), decisions
    )
    content = experiment_json(folder)
    content["stands_for"] = {"long": "medium", "medium": "short"}
    folder.write_experiment(content)
    results = Results.read(folder)
    of_plan = [[c.key for c in decision.combinations if c.key in ("long", "b")] for decision in results.decisions]
    assert of_plan == [["long", "b"], ["b", "long"]]
    assert by_key(results)["long"]["dropped_epoch"] == 3
    assert keys(results.ranked) == ["b"]


def test_a_dropped_training_is_not_replaced_by_a_shorter_one_that_stayed(tmp_path):
    decisions = {
        (0, 0): (1, {"medium": ([9.0], "behind"), "short": ([9.5], "best")}),
        (0, 1): (3, {"short": ([8.0], "best")}),
    }
    folder = write_race(write_results(tmp_path, {"long": ({"lr": 1}, ["interrupted"])}), decisions)
    content = experiment_json(folder)
    content["stands_for"] = {"long": "medium", "medium": "short"}
    folder.write_experiment(content)
    results = Results.read(folder)
    named = [[competitor.key for competitor in decision.combinations] for decision in results.decisions]
    assert named == [["medium", "long", "short"], ["short"]]
    assert results.dropped.keys() == {"long"}
