import csv
import io
import json
import math
import zipfile

import duckdb
import openpyxl
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.reports.tables import export as export_module
from cluster.reports.tables.export import FORMATS, export
from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.names import ChoiceError
from cluster.storage.run_file import RunFile
from data_pipeline.separation.separation import Separation
from tests.cluster_tests.reports.tables.read_tables import HtmlTable, markdown_rows
from tests.cluster_tests.results_files import (
    BEFORE,
    experiment_json,
    read_json,
    results,
    write_json,
    write_results,
    write_trial,
)

TEXT_FORMATS = ("md", "latex", "html")

LR, DECAY = "optimizer_args.lr", "optimizer_args.weight_decay"
SWEEP = {
    "a": ({LR: 0.001, DECAY: 0.0}, [11.0, 11.2, 11.1]),
    "b": ({LR: 0.001, DECAY: 0.01}, [10.0, 10.3, "failed"]),
    "c": ({LR: 0.01, DECAY: 0.0}, [12.0, "diverged", "diverged"]),
    "d": ({LR: 0.01, DECAY: 0.01}, [10.5, 10.6, 10.4]),
    "e": ({LR: 0.1, DECAY: 0.0}, ["failed", "failed", "failed"]),
    "f": ({LR: 0.1, DECAY: 0.01}, [None, None, None]),
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return results(tmp_path_factory.mktemp("sweep"), SWEEP)


def csv_rows(table, **table_options):
    return list(csv.DictReader(io.StringIO(table.to_csv(TableOptions(**table_options)), newline="")))


def md_rows(table, **table_options):
    return markdown_rows(table.to_md(TableOptions(**table_options)))


def cells(table, name, **table_options):
    """A column of the table in Markdown."""
    head, *rows = md_rows(table, **table_options)
    return [row[head.index(name)] for row in rows]


def caption(table, **table_options):
    return HtmlTable(table.to_html(TableOptions(**table_options))).caption


class TestTheTable:
    """The displayed text of the Markdown."""

    def test_has_a_row_for_each_combination_with_the_best_in_validation_first(self, sweep):
        head, *rows = md_rows(sweep)
        assert head == ["lr", "weight_decay", "n", "failed", "diverged", "before (mm)", "after (mm)", "change (%)"]
        assert rows == [
            ["0.01", "0.01", "3", "0", "0", "20.00", "**10.50 ± 0.10**", "-47.5"],
            ["0.001", "0", "3", "0", "0", "20.00", "<ins>11.10 ± 0.10</ins>", "-44.5"],
            ["0.001", "0.01", "2", "1", "0", "20.00", "10.15 ± 0.21", "-49.2"],
            ["0.01", "0", "1", "0", "2", "20.00", "12.00", "-40.0"],
            ["0.1", "0", "0", "3", "0", "–", "–", "–"],
            ["0.1", "0.01", "0", "0", "0", "–", "–", "–"],
        ]

    def test_says_what_was_measured_on_what_how_often_and_what_failed(self, sweep):
        table = HtmlTable(sweep.to_html())
        assert table.caption == (
            "Mean distance per joint (mm, lower is better) on the test set hands_test (1,234 frames); mean ± sample "
            "standard deviation over n = 0 to 3 finished repetitions. Combinations are sorted by their mean distance "
            "in validation, best first; those with fewer than 3 finished repetitions come last. Bold: best mean among "
            "those with the most repetitions. Underlined: second best. n = 3 is too few for a test."
        )
        assert table.foot == (
            "Epochs were chosen on the validation set. "
            "4 repetitions failed and 2 repetitions diverged; they are excluded from all means."
        )

    @pytest.mark.parametrize(
        ("chosen", "says"),
        [
            ({"sort": "lr"}, "Rows are sorted by lr. "),
            ({"sort": "-after"}, "Rows are sorted by after (mm), from high to low. "),
            ({"trials": True}, "Combinations are sorted by their mean distance in validation, best first; those"),
            ({"trials": True, "sort": "-before"}, "Rows are sorted by before (mm), from high to low."),
        ],
    )
    def test_says_how_rows_are_sorted(self, sweep, chosen, says):
        assert says in caption(sweep, **chosen)
        assert caption(sweep, **chosen).count("sorted") == 1

    def test_of_one_row_says_nothing_of_an_order(self, sweep):
        assert "sorted" not in caption(sweep, best=1)

    @pytest.mark.parametrize(
        ("chosen", "says"),
        [
            (
                {"best": 1},
                "1 combination has a lower mean in validation but was not chosen because not all 3 repetitions "
                "finished.",
            ),
            ({"best": 2}, "1 combination has a lower mean in validation but was not chosen"),
            ({"best": 3}, ""),
            ({"best_for_each": "lr"}, "1 combination has a lower mean in validation but was not chosen"),
            ({"best_for_each": "weight_decay"}, "1 combination has a lower mean in validation but was not chosen"),
            ({}, ""),
        ],
    )
    def test_says_which_better_means_it_passes_over_since_repetitions_are_missing(self, tmp_path, chosen, says):
        better = {"a": ({LR: 0.001, DECAY: 0.0}, [11.0, 11.2, 11.1]), "b": ({LR: 0.001, DECAY: 0.01}, [9.0, 9.3, None])}
        foot = HtmlTable(results(tmp_path, SWEEP | better).to_html(TableOptions(**chosen))).foot
        assert says in foot
        assert ("not chosen" in foot) == bool(says)

    def test_of_one_combination_without_options_has_one_row_and_no_marks(self, tmp_path):
        table = results(tmp_path, {"a": ({}, [9.0])}, test_set=None)
        assert md_rows(table) == [["before (mm)", "after (mm)", "change (%)"], ["20.00", "9.00", "-55.0"]]
        assert caption(table) == (
            "Mean distance per joint (mm, lower is better) on the validation set hands_val (1,234 frames); "
            "one repetition."
        )

    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("outcomes", [["failed", None], [None, None]])
    @pytest.mark.parametrize("trials", [False, True])
    def test_of_which_nothing_has_finished_is_written_all_the_same(self, tmp_path, format, outcomes, trials):
        table = results(tmp_path, {"a": ({LR: 0.1}, outcomes), "b": ({LR: 0.2}, outcomes)})
        assert export(table, format, TableOptions(trials=trials))
        if not trials:
            assert "no repetition has finished." in caption(table)
            assert cells(table, "after (mm)") == ["–", "–"]

    def test_of_several_subsets_says_over_which_a_mean_is(self, tmp_path):
        table = results(tmp_path, SWEEP, subsets=("A", "B"))
        assert ", mean over A and B;" in caption(table)
        of_trials = {"columns": ("after", "test_distance_mm[A]"), "trials": True}
        assert "mean over A and B unless a subset is named;" in caption(table, **of_trials)
        assert "mean over" not in caption(table, columns=("lr", "test_distance_mm[A]"), trials=True)

    @pytest.mark.parametrize("choice", [{"columns": ("after", "test_distance_mm[A]")}, {"sort": "-val_improved[B]"}])
    def test_has_no_columns_of_subsets_but_says_how_to_see_them(self, tmp_path, choice):
        table = results(tmp_path, SWEEP, subsets=("A", "B"))
        with pytest.raises(ChoiceError, match=r"\[[AB]\] is of one subset; --by subset makes a row for each"):
            table.to_csv(TableOptions(**choice))

    def test_of_test_sets_with_other_subsets_does_not_say_that_all_are_in_each_mean(self, tmp_path):
        sweep = {key: ({"experiment_config.test_set": key}, [9.0]) for key in ("p", "q")}
        folder = write_results(tmp_path, sweep, subsets=("A", "B"))
        write_trial(folder, "q/0", 9.0, ["val", "test"], ["C", "D"])
        assert "mean over the subsets of each;" in caption(ResultTable.read(folder))
        assert "mean over A and B;" in caption(ResultTable.read(folder), best=1)

    def test_of_models_that_fuse_subsets_says_that_their_numbers_are_of_one_pose(self, tmp_path):
        folder = write_results(tmp_path, {"p": ({LR: 1}, [9.0]), "q": ({LR: 2}, [8.0])}, subsets=("A", "B"))
        write_trial(folder, "q/0", 8.0, ["val", "test"], ["fused"])
        one_pose = "of the one fused pose{} (before: of the mean pose over the subsets);"
        table = ResultTable.read(folder)
        assert f", mean over A and B, or {one_pose.format(' for models that fuse subsets')}" in caption(table)
        assert f", {one_pose.format('')}" in caption(table, best=1)

    def test_of_the_validation_set_has_its_subsets_even_where_the_test_set_has_none(self, tmp_path):
        folder = write_results(tmp_path, {"a": ({LR: 1}, [9.0])})
        trial = folder.trial("a/0")
        content = read_json(trial)
        metrics = content["metrics"]["val"]
        content["metrics"]["val"] = {"mean": metrics["mean"], "A": metrics["mean"], "B": metrics["mean"]}
        write_json(trial, content)
        table = ResultTable.read(folder)
        assert "mean over A and B" in caption(table, split="val")
        assert "mean over" not in caption(table)
        assert csv_rows(table, columns=("val_distance_mm[A]",), trials=True)[0]["val_distance_mm[A]"] == "8.0"

    def test_counts_repetitions_of_a_number_that_fewer_have(self, tmp_path):
        folder = write_results(tmp_path, {"a": ({LR: 1}, [9.0, 9.0])})
        content = read_json(folder.trial("a/1"))
        for subset in content["metrics"]["test"].values():
            del subset["auc_0_50"]
        write_json(folder.trial("a/1"), content)
        assert cells(ResultTable.read(folder), "after (%)", metric="auc_0_50") == ["25.00 (n = 1)"]


class TestValuesOfOptions:
    @pytest.mark.parametrize(
        ("values", "written"),
        [
            ([0.1 + 0.2, 0.5], ["0.3", "0.5"]),
            ([0.1 + 0.2, 0.3], ["0.30000000000000004", "0.3"]),
            ([1, 1.0], ["1", "1.0"]),
            ([1, "1", "x"], ["1", "'1'", "'x'"]),
            ([None, "None"], ["None", "'None'"]),
            ([True, 1], ["True", "1"]),
            ([True, False, None], ["True", "False", "None"]),
            (["a  b", "a b"], ["'a b'", "'a b'"]),  # spaces are merged on paper
        ],
    )
    def test_are_told_apart(self, tmp_path, values, written):
        table = results(tmp_path, {f"k{i}": ({"x": value}, [9.0 + i]) for i, value in enumerate(values)})
        assert cells(table, "x") == written

    @pytest.mark.parametrize("values", [(1, True), (0, False), ("1", 1), (1, 1.0)])
    def test_have_a_best_each_even_where_python_calls_them_equal(self, tmp_path, values):
        table = results(tmp_path, {f"k{i}": ({"x": value}, [9.0 + i]) for i, value in enumerate(values)})
        assert [row["key"] for row in csv_rows(table, best_for_each="x")] == ["k0", "k1"]

    def test_are_sorted_numbers_before_texts_and_those_without_one_at_the_end(self, tmp_path):
        values = ["b", None, 2, "–", "a", 10, math.nan]  # "–": the option does not apply
        table = results(tmp_path, {f"k{i}": ({"x": value}, [9.0 + i]) for i, value in enumerate(values)})
        assert cells(table, "x", sort="x") == ["2", "10", "a", "b", "None", "–", "nan"]
        assert cells(table, "x", sort="-x") == ["b", "a", "10", "2", "None", "–", "nan"]


class TestChoices:
    def test_of_columns_are_followed_in_their_order(self, sweep):
        chosen = ("after", "lr", "key", "failed", "test_frames_within_20mm", "train_seconds")
        head, first, *_ = md_rows(sweep, columns=chosen)
        assert head == ["after (mm)", "lr", "key", "failed", "frames ≤ 20 mm (%) ↑", "train seconds"]
        assert first == ["**10.50 ± 0.10**", "0.01", "d", "0", "**9.52 ± 0.09**", "1.50 ± 0.00"]
        assert list(csv_rows(sweep, columns=("lr", "n", "change"))[0]) == [LR, "n", "test_distance_change_mm"]

    def test_of_columns_of_several_metrics_leave_them_to_the_heads(self, sweep):
        assert caption(sweep, columns=("after", "test_auc_0_50")).startswith("Results on the test set hands_test")
        assert caption(sweep, columns=("lr", "test_auc_0_50")).startswith("Area under the success-rate curve")

    def test_of_an_order_sort_by_an_option_or_a_result(self, sweep):
        assert [row["key"] for row in csv_rows(sweep, sort="after")] == ["b", "d", "a", "c", "e", "f"]
        assert [row["key"] for row in csv_rows(sweep, sort="-after")] == ["c", "a", "d", "b", "e", "f"]
        assert [row["key"] for row in csv_rows(sweep, sort="weight_decay")] == ["a", "c", "e", "d", "b", "f"]
        assert [row["key"] for row in csv_rows(sweep, sort="-n")] == ["d", "a", "b", "c", "e", "f"]

    def test_of_the_best_show_the_first_and_say_of_how_many(self, sweep):
        assert [row["key"] for row in csv_rows(sweep, best=2)] == ["d", "a"]
        assert "The best 2 of 6 combinations in validation." in caption(sweep, best=2)
        assert "The best of 6 combinations in validation." in caption(sweep, best=1)
        assert "combinations" not in caption(sweep, best=6)

    def test_of_the_best_for_each_value_show_them_with_that_option_first(self, sweep):
        head, *rows = md_rows(sweep, best_for_each="weight_decay")
        assert head[:2] == ["weight_decay", "lr"]
        assert [row[:2] for row in rows] == [["0.01", "0.01"], ["0", "0.001"]]
        assert "For each weight_decay, the combination that is best in validation." in caption(
            sweep, best_for_each=DECAY
        )

    @pytest.mark.parametrize("shown", [{"best_for_each": "x"}, {"rows": "x", "columns_of": "z"}])
    def test_of_the_best_for_each_value_compare_it_with_all_that_it_was_chosen_from(self, tmp_path, shown):
        sweep = {f"{x}{y}": ({"m.x": x, "m.y": y, "m.z": x}, [9.0 + x + y] * 6) for x in (1, 2) for y in range(2 * x)}
        # x = 1 shows one of two, and x = 2 one of four.
        text = results(tmp_path, sweep).to_md(TableOptions(**shown))
        assert "n = 6 is too few for tests of 8 pairs that could have been chosen, which need n = 9." in text

    def test_of_the_best_on_each_validation_set_compare_it_with_all_that_it_was_chosen_from(self, tmp_path):
        path = "experiment_config.val_set"
        sweep = {
            f"{name}{lr}": ({path: name, LR: lr}, [9.0 + lr] * 6) for name, n in (("p", 4), ("q", 2)) for lr in range(n)
        }
        table = results(tmp_path, sweep)  # on one test set
        assert "tests of 8 pairs that could have been chosen" in caption(table, best=1)
        assert "tests of 15 pairs, which" in caption(table)

    def test_of_the_best_few_of_one_ranking_compare_only_these(self, tmp_path):
        sweep = {f"{lr}": ({LR: lr}, [9.0 + lr] * 6) for lr in range(7)}
        assert "tests of 3 pairs, which need n = 7" in caption(results(tmp_path, sweep), best=3)

    @pytest.mark.parametrize(
        ("precision", "written"), [(0, "**10 ± 0**"), (1, "**10.5 ± 0.1**"), (3, "**10.500 ± 0.100**")]
    )
    def test_of_a_precision_round_what_is_read(self, sweep, precision, written):
        assert cells(sweep, "after (mm)", precision=precision)[0] == written

    def test_of_a_precision_leave_what_programs_read(self, sweep):
        assert sweep.to_csv(TableOptions(precision=0)) == sweep.to_csv()

    def test_of_a_metric_show_it_in_its_unit(self, sweep):
        head, first, *_ = md_rows(sweep, metric="frames_within_20mm", best=1)
        assert head[-3:] == ["before (%)", "after (%)", "change (points)"]
        assert first[-3:] == ["25.00", "9.52 ± 0.09", "-15.48"]
        assert "(%, higher is better)" in caption(sweep, metric="frames_within_20mm")

    def test_of_a_metric_of_which_more_is_better_mark_the_highest(self, sweep):
        marked = HtmlTable(sweep.to_html(TableOptions(metric="frames_within_20mm", best=2))).marked
        assert marked == {"strong": ["9.52 ± 0.09"], "u": ["9.01 ± 0.08"]}

    def test_of_a_split_show_it(self, sweep):
        assert cells(sweep, "after (mm)", split="val", best=1) == ["9.50 ± 0.10"]
        table = HtmlTable(sweep.to_html(TableOptions(split="val")))
        assert "on the validation set hands_val" in table.caption
        assert "Epochs were chosen" not in table.foot

    def test_of_trials_have_a_row_for_each_those_that_failed_too(self, sweep):
        head, *rows = md_rows(sweep, trials=True)
        assert head == ["lr", "weight_decay", "repetition", "status", "best epoch", "before (mm)", "after (mm)"]
        assert len(rows) == 18
        assert rows[:4] == [
            ["0.01", "0.01", "0", "finished", "3", "20.00", "10.50"],
            ["0.01", "0.01", "1", "finished", "3", "20.00", "10.60"],
            ["0.01", "0.01", "2", "finished", "3", "20.00", "10.40"],
            ["0.001", "0", "0", "finished", "3", "20.00", "11.00"],
        ]
        assert rows[8] == ["0.001", "0.01", "2", "failed", "–", "–", "–"]
        assert rows[-1] == ["0.1", "0.01", "2", "pending", "–", "–", "–"]
        assert "; 18 trials. Combinations" in caption(sweep, trials=True)

    def test_of_trials_may_be_sorted_and_have_any_column(self, sweep):
        chosen = {"trials": True, "sort": "-after", "columns": ("key", "repetition", "after", "seed", "error")}
        head, *rows = md_rows(sweep, **chosen)
        assert head == ["key", "repetition", "after (mm)", "seed", "error"]
        assert rows[0] == ["c", "0", "12.00", "0", "–"]
        assert [row[4] for row in rows].count("=it(broke)") == 6
        assert caption(sweep, trials=True, columns=("key", "train_seconds")).startswith("Results on the test set")

    def test_of_one_trial_say_so(self, tmp_path):
        assert caption(results(tmp_path, {"a": ({}, [3.0])}), trials=True).endswith("; 1 trial.")


class TestWhatThereIsNot:
    @pytest.mark.parametrize(
        ("table_options", "text"),
        [
            ({"columns": ("lrr",)}, "there is no column 'lrr'; did you mean 'optimizer_args.lr'?"),
            ({"columns": ("afer",)}, "there is no column 'afer'; did you mean 'after'?"),
            ({"sort": "-weight_decy"}, "there is no column 'weight_decy'; did you mean 'optimizer_args.weight_decay'?"),
            ({"best_for_each": "wd"}, f"there is no option 'wd'; known: {LR}, {DECAY}"),
            ({"split": "tset"}, "there is no split 'tset'; did you mean 'test'?"),
            ({"trials": True, "columns": ("statsu",)}, "there is no column of trials 'statsu'; did you mean 'status'?"),
            ({"rows": "lr", "columns_of": "lrr"}, "there is no option 'lrr'; did you mean 'optimizer_args.lr'?"),
        ],
    )
    @pytest.mark.parametrize("format", FORMATS)
    def test_is_an_error_that_says_what_there_is(self, sweep, table_options, text, format):
        with pytest.raises(ChoiceError) as error:
            export(sweep, format, TableOptions(**table_options))
        assert str(error.value) == text

    @pytest.mark.parametrize(
        ("table_options", "text"),
        [
            ({"metric": "distnace"}, "there is no metric 'distnace'; did you mean 'distance'?"),
            ({"precision": 16}, "a number cannot have 16 decimals; choose 0 to 15"),
            ({"precision": -1}, "a number cannot have -1 decimals; choose 0 to 15"),
            ({"best": 0}, "the number of best combinations cannot be 0; choose 1 or more"),
            (
                {"best": 1, "best_for_each": "x"},
                "a table shows either the best combinations or the best for each value; choose one",
            ),
            ({"rows": "x"}, "a pivot table needs two options: one for its rows and one for its columns"),
            ({"columns_of": "x"}, "a pivot table needs two options: one for its rows and one for its columns"),
            (
                {"rows": "x", "columns_of": "y", "sort": "x"},
                "a pivot table shows all values of its two options; leave out columns, sort, best, trials",
            ),
        ],
    )
    def test_or_makes_no_sense_is_an_error_before_anything_is_read(self, table_options, text):
        with pytest.raises(ChoiceError) as error:
            TableOptions(**table_options)
        assert str(error.value) == text

    def test_as_an_option_where_nothing_varies_is_an_error_too(self, tmp_path):
        with pytest.raises(ChoiceError, match=r"^there is no option 'lr'$"):
            results(tmp_path, {"a": ({}, [3.0])}).to_csv(TableOptions(best_for_each="lr"))

    def test_as_a_test_set_is_an_error(self, tmp_path):
        with pytest.raises(ChoiceError, match=r"^there is no split 'test'; known: val$"):
            results(tmp_path, {"a": ({}, [3.0])}, test_set=None).to_csv(TableOptions(split="test"))

    def test_for_certain_since_a_short_name_has_two_meanings_is_an_error(self, tmp_path):
        table = results(tmp_path, {"a": ({"p.lr": 1, "q.lr": 1}, [3.0]), "b": ({"p.lr": 2, "q.lr": 2}, [3.0])})
        with pytest.raises(ChoiceError, match=r"^column 'lr' may be p.lr or q.lr; write it in full$"):
            table.to_csv(TableOptions(columns=("lr",)))
        assert md_rows(table)[0][:2] == ["p.lr", "q.lr"]


class TestATableOfTrials:
    def test_says_only_of_the_shown_trials_how_far_they_are_from_training_and_what_trained_them(self, tmp_path):
        folder = write_results(tmp_path, {"a": ({LR: 0.1}, [10.0]), "b": ({LR: 0.2}, [14.0])})
        for key, torch in (("a", "2.1"), ("b", "2.5")):
            trial = folder.trial(f"{key}/0")
            device = {"device": "cpu"} if key == "a" else {"device": "cuda:1", "gpu": "GPU X"}
            write_json(trial, {**read_json(trial), "runs": [key], **device})
            folder.write_run(key, RunFile(started=1.0, versions={"torch": torch}))
        content = experiment_json(folder)
        content["configs"]["experiment_config"]["train_set"] = "hands_train"
        near = Separation(1234, None, 0, 0.0, None, 1234, 1, 2.0, 0.9, 0.8)
        content["separations"] = [{"train": ["hands_train", None], "test": ["hands_test", None], **near.to_json()}]
        folder.write_experiment(content)
        table = ResultTable.read(folder)
        for options in ({"best": 1}, {"best": 1, "trials": True}):
            text = table.to_md(TableOptions(**options))
            assert "Test frames are 1 or more frames (median 2) away from training frames" in text
            assert "These results measure interpolation within a recording." in text
            assert "Different" not in text
        text = table.to_md(TableOptions(trials=True))
        assert "Different versions trained these trials: torch 2.1 and 2.5." in text
        assert "Different devices trained these trials: GPU X and cpu; their random numbers may differ." in text


class TestDataThatIsAnOption:
    """Numbers of different data are neither averaged nor ranked."""

    TEST, VAL = "experiment_config.test_set", "experiment_config.val_set"

    def test_has_a_best_for_each_test_set(self, tmp_path):
        sweep = {
            f"{name}{lr}": ({self.TEST: name, LR: lr}, [mm + lr, mm + lr, mm + lr])
            for name, mm in (("easy", 5.0), ("hard", 50.0))
            for lr in (1, 2, 3)
        }
        table = HtmlTable(results(tmp_path, sweep).to_html())
        assert table.marked == {"strong": ["6.00 ± 0.00", "51.00 ± 0.00"], "u": ["7.00 ± 0.00", "52.00 ± 0.00"]}
        assert "on the test sets easy and hard (1,234 frames each);" in table.caption

    def test_on_many_sets_counts_them(self, tmp_path):
        sweep = {name: ({self.TEST: f"set_{name}"}, [9.0]) for name in "abcde"}
        assert "on the 5 test sets (1,234 frames each);" in results(tmp_path, sweep).to_md()

    def test_of_which_some_have_no_test_set_shows_them_without_a_result(self, tmp_path):
        table = results(tmp_path, {"a": ({self.TEST: None}, [9.0]), "b": ({self.TEST: "t"}, [8.0])})
        assert [row[1:] for row in md_rows(table, columns=("test_set", "n", "after"))[1:]] == [
            ["1", "8.00"],
            ["1", "–"],
        ]
        assert "on the test set t (1,234 frames);" in caption(table)

    @pytest.fixture
    def two(self, tmp_path):
        """Two validation sets; one is easier than the other."""
        sweep = {
            f"{name}{lr}": ({self.VAL: name, LR: lr}, [mm + lr])
            for lr in (2, 1)
            for name, mm in (("hard", 50.0), ("easy", 5.0))
        }
        return results(tmp_path, sweep, test_set=None)

    def test_keeps_those_of_a_validation_set_together(self, two):
        assert [row["key"] for row in csv_rows(two)] == ["hard1", "hard2", "easy1", "easy2"]

    def test_has_the_best_few_on_each_validation_set(self, two):
        assert [row["key"] for row in csv_rows(two, best=1)] == ["hard1", "easy1"]
        assert "The best of 4 combinations on each validation set." in caption(two, best=1)

    def test_has_the_best_for_each_value_on_each_validation_set(self, two):
        assert [row["key"] for row in csv_rows(two, best_for_each="lr")] == ["hard1", "hard2", "easy1", "easy2"]
        assert [row["key"] for row in csv_rows(two, best_for_each="val_set")] == ["hard1", "easy1"]
        assert "the combination that is best on each validation set." in caption(two, best_for_each="lr")


class TestForPrograms:
    """CSV and Parquet, with all digits."""

    def test_csv_has_means_deviations_intervals_and_p_values(self, sweep):
        rows = pd.read_csv(io.StringIO(sweep.to_csv())).set_index("key")
        assert list(rows.columns) == [
            *(LR, DECAY, "n", "failed", "diverged", "test_distance_before_mm"),
            *("test_distance_mm_mean", "test_distance_mm_std", "test_distance_mm_ci_low", "test_distance_mm_ci_high"),
            *("test_distance_mm_p_adjusted", "test_distance_change_mm", "test_distance_change_percent"),
        ]
        series = pd.Series([11.0, 11.2, 11.1])
        assert rows.loc["a", "test_distance_mm_mean"] == pytest.approx(series.mean(), rel=1e-14)
        assert rows.loc["a", "test_distance_mm_std"] == pytest.approx(series.std(), rel=1e-12)
        assert rows.loc["a", "test_distance_mm_ci_high"] == pytest.approx(series.mean() + 4.30265273 * series.sem())
        assert rows.loc["a", "test_distance_change_mm"] == pytest.approx(series.mean() - BEFORE)
        assert rows.loc["e"].isna().sum() == 8
        assert rows["n"].tolist() == [3, 3, 2, 1, 0, 0]

    @pytest.mark.parametrize("trials", [False, True])
    def test_json_has_what_csv_has_and_null_for_what_is_none_and_no_apostrophes(self, sweep, trials):
        rows = json.loads(sweep.to_json(TableOptions(trials=trials)), parse_constant=pytest.fail)
        as_texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
        from_csv = csv_rows(sweep, trials=trials)
        assert as_texts == [{name: text.removeprefix("'") for name, text in row.items()} for row in from_csv]

    def test_csv_has_adjusted_p_values_where_there_is_a_test(self, tmp_path):
        table = results(
            tmp_path, {key: ({"x": key}, [mm + i / 100 for i in range(10)]) for key, mm in (("a", 9), ("b", 8))}
        )
        assert [row["test_distance_mm_p_adjusted"] for row in csv_rows(table)] == ["", str(2 / 2**10)]

    @pytest.mark.parametrize("trials", [False, True])
    def test_parquet_is_read_alike_by_pandas_polars_and_duckdb(self, sweep, tmp_path, trials):
        file = tmp_path / "table.parquet"
        file.write_bytes(sweep.to_parquet(TableOptions(trials=trials)))
        rows = sweep.trials if trials else None
        by_polars = pl.read_parquet(file).to_dicts()
        columns = list(by_polars[0])
        found = duckdb.sql(f"SELECT * FROM '{file}'")
        assert found.columns == columns
        assert [dict(zip(columns, row, strict=True)) for row in found.fetchall()] == by_polars
        by_pandas = pd.read_parquet(file)
        assert by_pandas.astype(object).where(by_pandas.notna(), None).to_dict("records") == by_polars
        if trials:
            assert sorted(map(repr, by_polars)) == sorted(map(repr, rows))
        else:
            as_texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in by_polars]
            assert as_texts == csv_rows(sweep)

    def test_parquet_answers_a_question_in_sql(self, sweep, tmp_path):
        file = tmp_path / "table.parquet"
        file.write_bytes(sweep.to_parquet(TableOptions(trials=True)))
        query = (
            f"""SELECT "{LR}", avg(test_distance_mm) FROM '{file}' WHERE status = 'finished' GROUP BY 1 ORDER BY 1"""
        )
        assert duckdb.sql(query).fetchall() == [(0.001, pytest.approx(10.72)), (0.01, pytest.approx(10.875))]

    def test_the_same_forms_come_from_functions_of_the_table(self, sweep):
        given = TableOptions(best=2, precision=1)
        assert sweep.to_csv(given).encode() == export(sweep, "csv", given)
        assert sweep.to_json(given).encode() == export(sweep, "json", given)
        assert sweep.to_parquet(given) == export(sweep, "parquet", given)
        assert sweep.to_md(given).encode() == export(sweep, "md", given)
        assert sweep.to_latex(given).encode() == export(sweep, "latex", given)
        assert sweep.to_html(given).encode() == export(sweep, "html", given)
        assert sweep.to_xlsx(given)[:2] == b"PK"


def opened(content):
    return openpyxl.load_workbook(io.BytesIO(content))


class TestAWorkbook:
    def test_has_a_sheet_of_the_summary_and_one_of_the_trials_as_numbers(self, sweep):
        book = opened(sweep.to_xlsx(TableOptions(precision=3)))
        assert book.sheetnames == ["summary", "trials"]
        for sheet, name in ((book["summary"], "test_distance_mm_mean"), (book["trials"], "test_distance_mm")):
            head, first, *_ = sheet.iter_rows()
            cell = first[[c.value for c in head].index(name)]
            assert cell.data_type == "n"
            assert cell.number_format == "0.000"
            assert cell.value == 10.5
            assert sheet.freeze_panes == "A2"

    def test_holds_the_rows_that_parquet_holds(self, sweep):
        head, *rows = opened(sweep.to_xlsx())["summary"].iter_rows(values_only=True)
        for row, held in zip(rows, pl.read_parquet(sweep.to_parquet()).to_dicts(), strict=True):
            numbers = {name: v for name, v in held.items() if isinstance(v, float)}
            assert [row[head.index(name)] for name in numbers] == pytest.approx(list(numbers.values()), rel=1e-15)
            others = [name for name in held if name not in numbers]
            assert [row[head.index(name)] for name in others] == [held[name] for name in others]

    def test_shows_a_share_in_percent_and_keeps_it_a_share(self, sweep):
        head, first, *_ = opened(sweep.to_xlsx(TableOptions(metric="auc_0_50")))["summary"].iter_rows()
        cell = first[[c.value for c in head].index("test_auc_0_50_mean")]
        assert (cell.value, cell.number_format) == (0.25, "0.00%")

    def test_of_trials_alone_has_their_sheet_with_the_columns_of_subsets(self, tmp_path):
        table = results(tmp_path, SWEEP, subsets=("A", "B"))
        alone = opened(table.to_xlsx(TableOptions(trials=True)))
        assert alone.sheetnames == ["trials"]
        assert "test_distance_mm[A]" in [c.value for c in alone["trials"][1]]
        assert "test_distance_mm[A]" not in [c.value for c in opened(table.to_xlsx())["trials"][1]]

    def test_says_so_where_trials_are_too_many_to_open_and_has_them_alone_when_asked(self, sweep, monkeypatch):
        full = opened(sweep.to_xlsx())["trials"]
        monkeypatch.setattr(export_module, "_MAX_CELLS", (full.max_row - 1) * full.max_column - 1)
        book = opened(sweep.to_xlsx())
        assert book["summary"].max_row > 1
        (told,) = [cell.value for row in book["trials"].iter_rows() for cell in row if cell.value]
        n = full.max_row - 1
        assert told == f"The {n} trials are too many for a sheet. `posetune report export NAME trials` exports them."
        assert opened(sweep.to_xlsx(TableOptions(trials=True)))["trials"].max_row == full.max_row

    @pytest.mark.parametrize(
        "text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")', "\t=1", "'=1", "\x00\x1f", "x" * 40_000]
    )
    def test_takes_no_text_for_a_formula_a_number_or_a_link(self, tmp_path, text):
        table = results(tmp_path, {"a": ({"x": text}, [9.0]), "b": ({"x": "http://example.org"}, [9.5])})
        content = table.to_xlsx()
        sheet = opened(content)["summary"]
        cell = sheet["B2"]
        assert cell.data_type == "s"
        assert cell.value == text.replace("\x00", "\ufffd").replace("\x1f", "\ufffd")[:32_767]
        assert cell.quotePrefix == text.startswith(("=", "+", "-", "@", "\t"))
        assert sheet["B1"].quotePrefix  # foreign files may name an option like a formula
        assert sheet["B3"].hyperlink is None
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert not [name for name in archive.namelist() if b"<f>" in archive.read(name)]

    def test_keeps_an_integer_of_more_digits_than_a_spreadsheet_has_as_a_text(self, tmp_path):
        values = [2**63 - 25, 10**15 - 1]
        table = results(tmp_path, {f"k{i}": ({"x": value}, [9.0 + i]) for i, value in enumerate(values)})
        sheet = opened(table.to_xlsx())["summary"]
        assert [sheet["B2"].value, sheet["B3"].value] == [str(2**63 - 25), 10**15 - 1]

    def test_holds_truth_values_and_what_is_not_finite(self, tmp_path):
        values = [True, math.inf, None]
        table = results(tmp_path, {f"k{i}": ({"x": value}, [9.0 + i]) for i, value in enumerate(values)})
        sheet = opened(table.to_xlsx())["summary"]
        assert [sheet[f"B{row}"].value for row in (2, 3, 4)] == [True, "inf", None]


labels = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=12)


class TestForReading:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(label=labels)
    def test_any_label_is_read_as_it_was_in_markdown_and_html(self, tmp_path, label):
        table = results(tmp_path, {"a": ({"x": label}, [9.0]), "b": ({"x": "another one"}, [9.5])})
        written = " ".join(label.split())
        assert cells(table, "x") == [written, "another one"]
        assert [row[0] for row in HtmlTable(table.to_html()).rows] == [written, "another one"]

    def test_what_is_shared_by_rows_that_stand_together_is_one_cell_of_html(self, sweep):
        text = sweep.to_html(TableOptions(sort="lr"))
        assert text.count('<th scope="rowgroup" rowspan="2">') == 3
        assert text.count("<tbody>") == 3
        assert [row[0] for row in HtmlTable(text).rows] == ["0.001", "0.001", "0.01", "0.01", "0.1", "0.1"]
        assert [row[1] for row in HtmlTable(text).rows] == ["0", "0.01", "0.01", "0", "0", "0.01"]

    def test_what_is_shared_by_rows_that_stand_apart_is_in_each(self, sweep):
        text = sweep.to_html()
        assert "rowspan" not in text
        assert text.count("<tbody>") == 1

    def test_html_has_heads_with_their_scope(self, sweep):
        text = sweep.to_html(TableOptions(best=2))
        assert text.count('<th scope="col"') == 5
        assert text.count('<th scope="row">') == 4
        assert HtmlTable(text).head == ["lr", "weight_decay", "before (mm)", "after (mm)", "change (%)"]

    def test_numbers_stand_at_the_right_and_texts_at_the_left(self, sweep):
        rule = sweep.to_md(TableOptions(trials=True)).splitlines()[3]
        assert rule == "| :-- | :-- | :-- | :-- | --: | --: | --: |"
