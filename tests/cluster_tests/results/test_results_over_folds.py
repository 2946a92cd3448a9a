"""Results of a sweep over folds: one row for all folds of a combination."""

import json
import math

import pytest

from cluster.results.folds import SET_PATHS, combined_status
from cluster.results.lookup import find_combination, find_one_trained, find_trained
from cluster.results.names import ChoiceError
from cluster.results.results import NoResultsError, Results
from tests.cluster_tests.results_files import experiment_json, read_json, write_fold_results, write_json

N_FRAMES = [(300, 100), (100, 300)]
"""Of each fold, in validation and testing."""


def over_folds(path, combinations):
    return Results.read(write_fold_results(path, combinations, N_FRAMES))


@pytest.fixture
def two(tmp_path):
    """Two combinations with two folds and two repetitions: distances in testing, 1 mm less in validation."""
    return over_folds(tmp_path, {0.1: [[10.0, 12.0], [6.0, 7.0]], 0.2: [[8.0, 9.0], [8.0, 11.0]]})


def row_of(results, lr):
    return next(row for row in results.summary if row["lr"] == lr)


class TestTheResultOfACombination:
    def test_is_the_mean_over_the_frames_of_all_folds_in_each_repetition(self, two):
        row = row_of(two, 0.1)
        assert two.values("test_distance_mm")[row["key"]] == pytest.approx([7.0, 8.25])  # (100 x 10 + 300 x 6) / 400
        assert two.values("val_distance_mm")[row["key"]] == pytest.approx([8.0, 9.75])  # (300 x 9 + 100 x 5) / 400
        assert row["n"] == 2
        assert row["test_distance_mm_mean"] == pytest.approx(7.625)
        assert row["test_distance_mm_std"] == pytest.approx(1.25 / math.sqrt(2))

    def test_has_the_spread_of_the_means_of_its_folds(self, two):
        row = row_of(two, 0.1)
        assert row["folds"] == 2
        assert two.fold_means("test_distance_mm")[row["key"]] == [11.0, 6.5]
        assert row["test_distance_mm_fold_std"] == pytest.approx(4.5 / math.sqrt(2))

    def test_is_chosen_by_the_mean_over_all_validation_frames(self, two):
        """On the test sets the other one is better."""
        assert [row["lr"] for row in two.summary] == [0.2, 0.1]
        assert row_of(two, 0.2)["val_distance_mm_mean"] == pytest.approx(7.75)  # 7 and 8.5
        assert row_of(two, 0.1)["test_distance_mm_mean"] < row_of(two, 0.2)["test_distance_mm_mean"]

    def test_has_the_acceleration_error_of_all_triples_of_successive_frames(self, tmp_path):
        """A fold without any has no acceleration error."""
        folder = write_fold_results(tmp_path, {0.1: [[10.0], [6.0]]}, N_FRAMES)
        content = experiment_json(folder)
        for (part, n_triples), entry in zip(
            {"val 1": 30, "test 1": 90, "val 2": 10, "test 2": 0}.items(), content["data"], strict=True
        ):
            split, fold = part.split()
            assert entry["name"] == f"hands_fold{fold}_{split}"
            entry["triples"] = n_triples
        folder.write_experiment(content)
        for fold, of_split in {1: {"val": 1.0, "test": 2.0}, 2: {"val": 5.0, "test": None}}.items():
            trial = folder.trial(f"0.1-{fold}/0")
            written = read_json(trial)
            for split, value in of_split.items():
                for values in written["metrics"][split].values():
                    del values["acceleration_error"]
                    if value is not None:
                        values["acceleration_error"] = value
            write_json(trial, written)
        [row] = Results.read(folder).trials
        assert row["val_acceleration_error_mm_per_frame2"] == pytest.approx(2.0)  # (30 x 1 + 10 x 5) / 40
        assert row["test_acceleration_error_mm_per_frame2"] == 2.0

    def test_is_measured_on_one_set_with_all_frames(self, two):
        [measured_on] = set(two.data_sets["test"].values())
        assert (measured_on.name, measured_on.n_frames) == ("hands", 400)
        assert list(two.by_data()) == ["hands"]
        assert two.option_paths == two.distinguishing_paths == ["lr"]


class TestARepetitionThatLacksAFold:
    @pytest.fixture
    def one(self, tmp_path):
        return over_folds(tmp_path, {0.1: [[10.0, "failed", 12.0], [6.0, 5.0, "diverged"]]})

    def test_is_excluded_from_all_means(self, one):
        [row] = one.summary
        assert (row["n"], row["failed"], row["diverged"]) == (1, 1, 1)
        assert row["test_distance_mm_mean"] == pytest.approx(7.0)
        assert one.fold_means("test_distance_mm")[row["key"]] == [10.0, 6.0]

    def test_shows_the_error_of_its_fold(self, one):
        assert [trial["status"] for trial in one.trials] == ["finished", "failed", "diverged"]
        assert [trial["error"] for trial in one.trials] == [None, "=it(broke)", "=it(broke)"]
        assert [(trial["key"], trial["repetition"]) for trial in one.failures] == [("0.1-1", 1), ("0.1-2", 2)]

    @pytest.mark.parametrize(
        ("statuses", "combined"),
        [
            (["finished", "finished"], "finished"),
            (["finished", "pending"], "interrupted"),
            (["pending", "pending"], "pending"),
            (["interrupted", "pending"], "interrupted"),
            (["interrupted", "diverged"], "diverged"),
            (["diverged", "failed"], "failed"),
            (["pending", "finished", "failed"], "failed"),
        ],
    )
    def test_has_the_status_of_the_worst_fold(self, statuses, combined):
        assert combined_status(statuses) == combined


class TestSingleFolds:
    def test_have_a_row_each_with_the_settings_of_their_sets(self, two):
        single = two.single_folds
        assert len(single.trials) == 8
        assert {row["key"] for row in single.summary} == {"0.1-1", "0.1-2", "0.2-1", "0.2-2"}
        assert single.trials[0]["experiment_config.test_set"] == "hands_fold1_test"

    def test_are_found_by_their_combination_or_their_own_key(self, two):
        key = row_of(two, 0.1)["key"]
        assert [row["key"] for row in find_trained(two, key)] == ["0.1-1", "0.1-2"]
        assert [row["key"] for row in find_trained(two, "best")] == ["0.2-1", "0.2-2"]
        assert find_one_trained(two, "0.1-2")["key"] == "0.1-2"

    def test_have_no_common_training(self, two):
        with pytest.raises(ChoiceError, match=r"'best' .* 2 trainings, one for each fold; .*: 0.2-1 \(fold 1\), 0.2-2"):
            find_one_trained(two, "best")

    def test_are_no_combinations_of_a_table(self, two):
        with pytest.raises(ChoiceError, match=f"'0.1-2' is a fold in my sweep; .* {row_of(two, 0.1)['key'][:4]}"):
            find_combination(two, "0.1-2")

    def test_without_folds_are_the_results_themselves(self, two):
        assert two.single_folds.single_folds is two.single_folds


def test_a_combination_has_the_same_key_whenever_it_is_read_and_others_have_others(tmp_path):
    same = [[[8.0], [7.0]], [["failed"], [7.0]]]
    first, second = (over_folds(tmp_path / str(i), {0.1: of_folds, 0.2: same[0]}) for i, of_folds in enumerate(same))
    assert {row["lr"]: row["key"] for row in first.summary} == {row["lr"]: row["key"] for row in second.summary}
    assert row_of(first, 0.1)["key"] != row_of(first, 0.2)["key"]


@pytest.mark.parametrize(
    "changed",
    [
        {"options": [{"paths": ["lr"], "rows": [[0.1]], "folds": [["hands", 1]]}]},  # which differ in no set
        {"options": [{"paths": SET_PATHS, "rows": [["a", "b", "c"]], "folds": [["hands", 1]]}]},  # of other sets
        {"options": [{"paths": SET_PATHS, "rows": [["a", "b", "c"]], "folds": [["hands"]]}]},
        {"data": []},
        {"data": [{"name": "hands_fold1_test", "size": None, "samples": -1}]},
    ],
)
def test_a_description_with_broken_folds_is_no_experiment(tmp_path, changed):
    folder = write_fold_results(tmp_path, {0.1: [[10.0], [6.0]]}, N_FRAMES)
    folder.write_experiment({**experiment_json(folder), **changed})
    with pytest.raises(NoResultsError, match="is missing or broken"):
        Results.read(folder)


def test_folds_without_validation_sets_lack_their_numbers_of_frames(tmp_path):
    folder = write_fold_results(tmp_path, {0.1: [[10.0], [6.0]]}, N_FRAMES)
    content = experiment_json(folder)
    content["options"][0]["rows"] = [[f"a{fold}", None, None] for fold in (1, 2)]
    content["configs"]["experiment_config"]["test_set"] = None
    for fold, combination in enumerate(content["plan"]["combinations"], 1):
        combination["options"] |= dict(zip(SET_PATHS, content["options"][0]["rows"][fold - 1], strict=True))
    folder.write_experiment(content)
    with pytest.raises(NoResultsError, match="data lacks the numbers of frames of some folds"):
        Results.read(folder)


def test_results_without_folds_in_their_description_are_not_combined(tmp_path):
    """Older versions did not record folds."""
    folder = write_fold_results(tmp_path, {0.1: [[10.0], [6.0]]}, N_FRAMES)
    content = json.loads((tmp_path / "experiment.json").read_text())
    del content["options"][0]["folds"]
    folder.write_experiment(content)
    assert [row["key"] for row in Results.read(folder).summary] == ["0.1-2", "0.1-1"]
