"""Results of a race whose finalists are confirmed: their numbers are those of fresh repetitions, their order is not."""

import itertools
import json
import statistics

import pytest

from cluster.figures.options import heat_map, parallel_coordinates
from cluster.reports.methods import methods_paragraph
from cluster.reports.page.data import PageData
from cluster.reports.page.sentences import findings, progress
from cluster.reports.tables.effects import MeanTable, effects_of
from cluster.reports.tables.export import export_groups
from cluster.reports.tables.summary import summary_text
from cluster.reports.tables.table_options import TableOptions
from cluster.reports.terminal.comparison import compare_combinations
from cluster.reports.terminal.comparison_text import combinations_text
from cluster.reports.terminal.overview import state
from cluster.reports.terminal.removal import useless_files
from cluster.reports.terminal.trial_logs import logs_text, trial_logs
from cluster.reports.trackers.runs import ExperimentRuns
from cluster.result_table import ResultTable
from cluster.results.lookup import find_combination
from cluster.results.names import ChoiceError
from cluster.results.results import NoResultsError
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from tests.cluster_tests.results_files import (
    experiment_json,
    write_fold_results,
    write_race,
    write_results,
    write_trial,
)

DECIDING = {"a": [6.0, 7.0], "b": [6.5, 8.0]}
FRESH = {"a": [8.1, 8.4, 7.9, 8.6, 8.2, 8.3], "b": [7.6, 7.7, 7.8, 7.5, 8.25, 7.4]}
CONFIRMED = "Means and tests come from 6 fresh repetitions of each finalist, which took no part in the race."
RUNG = {"a": ([9.0, 9.0], "best"), "b": ([9.5, 9.5], "best"), "c": ([11.0, 11.0], "behind")}


def confirmed(path, fresh=FRESH, deciding=DECIDING, decided=True):
    """A race of `a`, `b` and `c` with two repetitions, which drops `c`; six more confirm the others."""
    outcomes = {key: [*deciding[key], *fresh[key]] for key in "ab"} | {"c": ["interrupted", None, *[None] * 6]}
    folder = write_results(path, {key: ({"lr": lr}, of) for lr, (key, of) in enumerate(outcomes.items())})
    rungs = {(0, 0): (1, {key: (mm, "best") for key, (mm, _) in RUNG.items()})} | (
        {(0, 1): (3, RUNG)} if decided else {}
    )
    return ResultTable.read(write_race(folder, rungs, confirm=6))


@pytest.fixture
def table(tmp_path):
    return confirmed(tmp_path)


def by_key(table):
    return {row["key"]: row for row in table.summary}


def text_of(table):
    return " ".join(summary_text(table).split())


class TestAFinalist:
    def test_has_the_numbers_of_its_fresh_repetitions_alone(self, table):
        for key, fresh in FRESH.items():
            row = by_key(table)[key]
            assert row["n"] == 6
            assert row["test_distance_mm_mean"] == pytest.approx(statistics.mean(fresh))
            assert row["test_distance_mm_std"] == pytest.approx(statistics.stdev(fresh))
            assert table.values("test_distance_mm")[key] == fresh

    def test_has_the_place_that_the_other_repetitions_gave_it(self, table):
        assert [row["key"] for row in table.summary] == ["a", "b", "c"]
        assert find_combination(table, "best")["key"] == "a"
        assert by_key(table)["b"]["val_distance_mm_mean"] < by_key(table)["a"]["val_distance_mm_mean"]
        assert by_key(table)["a"]["deciding_val_distance_mm"] == statistics.mean(DECIDING["a"]) - 1
        assert by_key(table)["a"]["deciding_n"] == 2

    def test_keeps_its_place_if_a_fresh_repetition_diverges(self, tmp_path):
        table = confirmed(tmp_path, FRESH | {"a": ["diverged", *FRESH["a"][1:]]})
        row = table.summary[0]
        assert [row[name] for name in ("key", "n", "diverged")] == ["a", 5, 1]
        assert "1 repetition diverged and is excluded from all means" in table.to_md()

    def test_loses_its_place_if_a_repetition_of_the_race_diverges(self, tmp_path):
        table = confirmed(tmp_path, deciding=DECIDING | {"a": [6.0, "diverged"]})
        assert [row["key"] for row in table.summary] == ["b", "a", "c"]
        assert "combinations with fewer than 2 finished repetitions come after the others" in text_of(table)

    def test_is_the_best_even_if_none_of_its_fresh_repetitions_finished(self, tmp_path):
        table = confirmed(tmp_path, FRESH | {"a": ["diverged"] * 6})
        assert [row["key"] for row in table.summary][:2] == ["a", "b"]
        for figure in (
            parallel_coordinates(table.summary, ["lr"], split="test"),
            heat_map(table.summary, "lr", "lr", split="test"),
        ):
            assert "best in validation" not in figure.get_suptitle()
        with pytest.raises(ChoiceError, match="no fresh repetition of the best combination has finished"):
            export_groups(table.files, table, "joint", "md", TableOptions())

    def test_is_unfinished_until_its_fresh_repetitions_have_finished(self, tmp_path):
        table = confirmed(tmp_path, FRESH | {"b": [7.6, "interrupted", *[None] * 4]})
        assert by_key(table)["b"]["n"] == 1
        assert list(map(table.is_complete, table.ranked)) == [True, False]
        assert state(table) == "unfinished"
        assert "the others have not all been trained to the end yet" in text_of(table)
        assert "The race has not ended yet." in methods_paragraph(table)

    def test_without_fresh_repetitions_has_no_result_yet(self, tmp_path):
        table = confirmed(tmp_path, dict.fromkeys("ab", [None] * 6))
        assert [row["key"] for row in table.summary] == ["a", "b", "c"]
        assert {row["n"] for row in table.summary} == {0}
        assert sum(row["status"] == "pending" for row in table.trials) == 12
        assert findings(PageData.read(table.files))[0].startswith("No fresh repetition of the best combination has")


class TestOnlyFinalists:
    def test_have_fresh_repetitions(self, table):
        roles = {key: [row["role"] for row in rows] for key, rows in table.repetitions.items()}
        both = ["decides"] * 2 + ["confirms"] * 6
        assert roles == {"a": both, "b": both, "c": ["decides"] * 2}
        assert {row["status"] for row in table.repetitions["c"]} == {"dropped"}
        assert by_key(table)["c"]["n"] == 0
        assert state(table) == "complete"

    def test_are_known_after_the_last_decision(self, tmp_path):
        table = confirmed(tmp_path, dict.fromkeys("ab", [None] * 6), dict.fromkeys("ab", ["interrupted"] * 2), False)
        assert {row["role"] for row in table.trials} == {"decides"}
        assert len(table.trials) == 6
        assert not table.dropped

    def test_have_them_on_all_folds(self, tmp_path):
        outcomes = {0.1: [[10.0, 11.0, 12.0], [6.0, 7.0, 8.0]], 0.2: [["interrupted", None, None], [8.0, None, None]]}
        folder = write_fold_results(tmp_path, outcomes, [(300, 100), (100, 300)])
        kept, lost = ResultTable.read(folder).folds
        rung = {kept: ([9.0], "best"), lost: ([9.5], "behind")}
        table = ResultTable.read(write_race(folder, {(0, 1): (1, rung)}, data="hands", confirm=2))
        row = by_key(table)[kept]
        assert row["n"] == 2
        assert row["test_distance_mm_mean"] == pytest.approx((100 * 11.5 + 300 * 7.5) / 400)
        assert table.fold_means("test_distance_mm")[kept] == [11.5, 7.5]
        roles = {key: [trial["role"] for trial in of] for key, of in table.single_folds.repetitions.items()}
        assert roles["0.1-1"] == roles["0.1-2"] == ["decides", "confirms", "confirms"]
        assert roles["0.2-1"] == ["decides"]


class TestATest:
    def test_is_over_fresh_repetitions_alone(self, table):
        """b is best on the test set there; the p-value is that of all sign flips, written out."""
        differences = [a - b for a, b in zip(FRESH["a"], FRESH["b"], strict=True)]
        flipped = [
            abs(sum(sign * mm for sign, mm in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=6)
        ]
        p_value = sum(mm >= abs(sum(differences)) - 1e-9 for mm in flipped) / 2**6
        records = {row["key"]: row for row in json.loads(table.to_json())}
        assert records["a"]["test_distance_mm_p_adjusted"] == pytest.approx(p_value)
        assert PageData.read(table.files).comparisons["b"].p_value == pytest.approx(p_value)
        assert p_value == pytest.approx(4 / 64)  # of eight pairs, six could not have this value

    def test_of_effects_is_over_fresh_repetitions_alone(self, tmp_path):
        """Without a dropped combination, effects are those at the end."""
        folder = write_results(tmp_path, {key: ({"lr": key}, [*DECIDING[key], *FRESH[key]]) for key in "ab"})
        rung = {key: RUNG[key] for key in "ab"}
        table = ResultTable.read(write_race(folder, {(0, 1): (1, rung)}, confirm=6))
        effects = MeanTable(table, effects_of(table, TableOptions()), TableOptions())
        means = {row["value"]: (row["n"], row["test_distance_mm_mean"]) for row in effects.records()}
        assert means == {key: (6, pytest.approx(statistics.mean(fresh))) for key, fresh in FRESH.items()}
        assert CONFIRMED in effects.grid().notes


class TestTheTable:
    def test_says_which_repetitions_it_is_over(self, table):
        for text in (text_of(table), table.to_md(), " ".join(table.to_latex().split())):
            assert CONFIRMED in text
        assert "Best in validation first, over the 2 repetitions of the race." in text_of(table)
        assert "mean distance in validation over the 2 repetitions of the race, best first" in table.to_md()

    def test_for_programs_has_both(self, table):
        rows = json.loads(table.to_json())
        assert [row["deciding_val_distance_mm"] for row in rows] == [5.5, 6.25, None]
        trials = json.loads(table.to_json(TableOptions(trials=True)))
        assert [row["role"] for row in trials if row["key"] == "c"] == ["decides"] * 2

    def test_and_the_paragraph_for_a_paper_name_the_two_numbers(self, table):
        paragraph = methods_paragraph(table)
        assert "were compared, each with 2 repetitions" in paragraph
        assert "each was trained with 6 fresh repetitions, which took no part in the race" in paragraph
        assert "over the 2 repetitions of the race was chosen: lr 0 (5.50 mm)" in paragraph
        assert "its fresh repetitions reach 7.25 ± 0.24 mm" in paragraph
        data = PageData.read(table.files)
        assert CONFIRMED in findings(data)
        assert "3 combinations × 2 repetitions, and 6 fresh repetitions of each finalist" in progress(data)


def test_two_finalists_are_compared_with_a_sentence_on_their_fresh_repetitions(table):
    assert CONFIRMED in combinations_text(compare_combinations(table, ("a", "b")))


def test_the_log_of_a_trial_says_that_it_is_a_fresh_repetition(table):
    assert "a fresh repetition" in logs_text(trial_logs(table, "a/2"))
    assert "fresh" not in logs_text(trial_logs(table, "a/1"))


def test_trackers_have_fresh_repetitions_in_a_group_of_their_own(table):
    groups = {run.trial_id: run.group for run in ExperimentRuns.of(table).runs() if run.key == "a"}
    assert list(groups.values()) == ["a"] * 2 + ["a confirms"] * 6


def test_cleaning_keeps_fresh_repetitions_of_a_combination_that_a_race_dropped(tmp_path):
    table = confirmed(tmp_path / "raced")
    write_trial(table.files, "c/2", 9.0, ["val", "test"], ["DEFAULT"])
    assert not table.where(lambda row: row["key"] == "c").counted["c"]
    assert useless_files(str(tmp_path), "raced") is None


@pytest.mark.parametrize(("confirm", "reason"), [(9, "plan has 8 seeds, which are too few"), ("x", "confirm")])
def test_a_wrong_number_of_fresh_repetitions_is_an_error(tmp_path, confirm, reason):
    confirmed(tmp_path)
    folder = ExperimentFolder(Storage(tmp_path))
    content = experiment_json(folder)
    content["configs"]["experiment_config"]["race"]["args"]["confirm"] = confirm
    folder.write_experiment(content)
    with pytest.raises(NoResultsError, match=reason):
        ResultTable.read(folder)
