import csv
import io

import openpyxl
import polars as pl
import pytest

from cluster.reports.tables.export import export_by_joint
from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.names import ChoiceError
from cluster.storage.records import to_parquet
from posenet.record import Record
from tests.cluster_tests.reports.tables.read_tables import HtmlTable, markdown_rows
from tests.cluster_tests.results_files import write_results

PARTS = [
    ("all", "all"),
    ("–", "W"),
    ("thumb", "all"),
    ("thumb", "T1"),
    ("thumb", "T2"),
    ("index", "all"),
    ("index", "I1"),
]
PLACES = {("all", "all"): 0, "W": 1, "T1": 2, "T2": 3, "I1": 4, ("thumb", "all"): 5, ("index", "all"): 6}
"""The index of a part in what `results_files` writes: each part has twice the error of the previous one."""

SWEEP = {"a": ({"x": 0.1 + 0.2}, [9.0, 9.5, "failed"]), "b": ({"x": 2}, [8.0, 8.5, 9.0])}


def written(folder, format="md", **table_options):
    return export_by_joint(folder, ResultTable.read(folder), format, TableOptions(**table_options))


def text(folder, format="md", **table_options):
    return written(folder, format, **table_options).decode()


@pytest.fixture
def folder(tmp_path):
    return write_results(tmp_path, SWEEP)


class TestTheTableByJoint:
    def test_is_of_the_best_combination_before_and_after(self, folder):
        head, *rows = markdown_rows(text(folder))
        assert head == ["finger", "joint", "before (mm)", "after (mm)", "change (mm)", "change (%)"]
        assert [tuple(row[:2]) for row in rows] == PARTS
        for row in rows:
            scale = 2 ** PLACES.get(tuple(row[:2]), PLACES.get(row[1]))
            # Without a distorter the error before is the same in each repetition, here three times the error after.
            before, after = 3 * 8.5 * scale, 8.5 * scale
            assert row[2:] == [f"{before:.2f}", f"{after:.2f} ± {0.5 * scale:.2f}", f"{after - before:.2f}", "-66.7"]

    def test_says_of_which_combination_it_is(self, folder):
        caption = HtmlTable(text(folder, "html")).caption
        assert caption == (
            "Mean distance per joint (mm, lower is better) on the test set hands_test (1,234 frames); mean ± sample "
            "standard deviation over n = 3 finished repetitions of the combination that is best in validation (x = 2)."
        )

    def test_of_an_experiment_of_one_combination_does_not_call_it_the_best(self, tmp_path):
        caption = HtmlTable(text(write_results(tmp_path, {"a": ({}, [9.0])}), "html")).caption
        assert caption.endswith("on the test set hands_test (1,234 frames); one repetition.")

    def test_has_the_distances_of_the_split_that_is_chosen(self, tmp_path):
        folder = write_results(tmp_path, SWEEP)
        assert "on the validation set hands_val" in text(folder, split="val").replace("\\", "")
        rows = list(csv.DictReader(io.StringIO(text(folder, "csv", split="val"))))
        assert rows[0]["after_mm_mean"] == "8.5"

    def test_for_programs_has_all_digits_and_the_key(self, folder):
        rows = pl.read_parquet(written(folder, "parquet")).to_dicts()
        assert rows[0] == {
            **{"key": "b", "finger": "all", "joint": "all", "n": 3, "before_mm": 25.5, "after_mm_mean": 8.5},
            **{"after_mm_std": 0.5, "change_mm": -17.0, "change_percent": pytest.approx(-200 / 3)},
        }
        assert [{k: str(v) for k, v in row.items()} for row in rows] == list(
            csv.DictReader(io.StringIO(text(folder, "csv")))
        )
        sheet = openpyxl.load_workbook(io.BytesIO(written(folder, "xlsx", precision=1)))["by joint"]
        assert (sheet["E2"].value, sheet["E2"].number_format) == (25.5, "0.0")

    def test_counts_what_failed(self, tmp_path):
        folder = write_results(tmp_path, {"a": SWEEP["a"]})
        assert HtmlTable(text(folder, "html")).foot.endswith("1 repetition failed and is excluded from all means.")

    def test_says_that_a_better_mean_is_passed_over_since_repetitions_are_missing(self, tmp_path):
        sweep = {"a": ({"lr": 1}, [8.0, "failed"]), "b": ({"lr": 2}, [9.0, 9.0]), "c": ({"lr": 3}, [10.0, "failed"])}
        foot = HtmlTable(text(write_results(tmp_path, sweep), "html")).foot
        assert foot.endswith(
            "1 combination has a lower mean in validation but was not chosen because not all 2 repetitions finished."
        )

    def test_writes_a_worsening_with_its_sign_and_a_dash_for_a_joint_without_numbers(self, folder):
        for repetition in range(3):
            named = [("distance_before", 10.0), ("distance", 12.5), ("distance[W]_before", 0.0), ("distance[W]", 0.0)]
            rows = [Record(2, 0, "test", "mean", "original", name, value) for name, value in named]
            folder.trial(f"b/{repetition}").write("records.parquet", to_parquet(f"b/{repetition}", rows))
        _, *rows = markdown_rows(text(folder))
        assert rows[:3] == [
            ["all", "all", "10.00", "12.50 ± 0.00", "+2.50", "+25.0"],
            ["–", "W", "0.00", "0.00 ± 0.00", "+0.00", "–"],
            ["thumb", "all", "–", "–", "–", "–"],
        ]

    def test_has_the_best_on_each_validation_set(self, tmp_path):
        path = "experiment_config.val_set"
        sweep = {
            f"{name}{x}": ({path: name, "x": x}, [mm + x]) for name, mm in (("hard", 50), ("easy", 5)) for x in (1, 2)
        }
        table = HtmlTable(text(write_results(tmp_path, sweep, test_set=None), "html"))
        assert [row[0] for row in table.rows] == ["hard"] * 7 + ["easy"] * 7
        assert [row[4] for row in table.rows if row[1:3] == ["all", "all"]] == ["51.00", "6.00"]
        assert "on the validation sets hard and easy (1,234 frames each)" in table.caption
        assert table.caption.endswith("one repetition of the combination that is best on each validation set.")
        assert table.foot == "hard: val_set = hard, x = 1. easy: val_set = easy, x = 1."

    @pytest.mark.parametrize(("split", "word"), [("val", "validation"), ("test", "test")])
    def test_names_the_set_whose_errors_it_has(self, tmp_path, split, word):
        val_set, test_set = (f"experiment_config.{name}_set" for name in ("val", "test"))
        sweep = {name: ({val_set: f"{name}_val", test_set: f"{name}_test"}, [9.0]) for name in ("hard", "easy")}
        table = HtmlTable(text(write_results(tmp_path, sweep), "html", split=split))
        assert table.head[0] == f"{word} set"
        assert [row[0] for row in table.rows] == [f"hard_{split}"] * 7 + [f"easy_{split}"] * 7

    def test_of_one_test_set_tells_apart_what_was_chosen_on_different_sets(self, tmp_path):
        sweep = {name: ({"experiment_config.val_set": name}, [9.0]) for name in ("hard", "easy")}
        table = HtmlTable(text(write_results(tmp_path, sweep), "html"))
        assert [table.rows[0][0], table.rows[7][0]] == [f"hands_test, chosen on {name}" for name in ("hard", "easy")]

    def test_is_of_the_best_that_has_a_test_set(self, tmp_path):
        path = "experiment_config.test_set"
        folder = write_results(tmp_path, {"a": ({path: None}, [5.0]), "b": ({path: "t"}, [9.0])})
        assert "(test_set = t)" in HtmlTable(text(folder, "html")).caption
        assert "(test_set = None)" in HtmlTable(text(folder, "html", split="val")).caption


class TestAnError:
    @pytest.mark.parametrize("outcomes", [["failed"], [None]])
    def test_is_an_experiment_of_which_nothing_has_finished(self, tmp_path, outcomes):
        folder = write_results(tmp_path, {"a": ({"x": 1}, outcomes), "b": ({"x": 2}, outcomes)})
        with pytest.raises(ChoiceError, match=r"^my sweep has no errors by joint: no trial has finished$"):
            text(folder)

    @pytest.mark.parametrize("content", [None, b"", b"PAR1"])
    def test_is_records_that_are_gone_or_broken(self, folder, content):
        for repetition in range(3):
            trial = folder.trial(f"b/{repetition}")
            if content is None:
                trial.remove("records.parquet")
            else:
                trial.write("records.parquet", content)
        with pytest.raises(ChoiceError, match=r"the records of the trials of b, .* are missing or broken"):
            text(folder)

    @pytest.mark.parametrize("description", [{}, {"data": {"skeleton": {"args": {"name": "x"}}}}, {"data": None}])
    def test_is_a_file_that_does_not_tell_the_skeleton(self, folder, description):
        trial = folder.trial("b/0")
        trial.write_trial(trial.read_trial()._replace(description=description))
        with pytest.raises(ChoiceError, match=r"the files of the trials of b, .* do not say which skeleton they use"):
            text(folder)
