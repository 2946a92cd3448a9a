import csv
import io

import numpy as np
import openpyxl
import polars as pl
import pytest

from cluster.reports.tables.export import export_groups
from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.names import ChoiceError
from cluster.storage.frame_errors import FrameErrors
from cluster.storage.records import to_parquet
from data_pipeline.frame_table import FrameTable
from posenet.record import Record
from tests.cluster_tests.reports.tables.read_tables import HtmlTable, markdown_rows
from tests.cluster_tests.results_files import read_json, write_json, write_results

JOINTS = ["W", "T1", "T2", "I1"]
"""In the order of the table; `results_files` writes twice the error of the previous one, after 1, for each."""

SWEEP = {"a": ({"x": 0.1 + 0.2}, [9.0, 9.5, "failed"]), "b": ({"x": 2}, [8.0, 8.5, 9.0])}

FRAMES = FrameTable.of(sequence=["s1", "s2", "s2", "s3"], index=range(4), subject=["Ann", "Ann", "Ann", "Bo"])


def written(folder, by="joint", format="md", **table_options):
    return export_groups(folder, ResultTable.read(folder), by, format, TableOptions(**table_options))


def text(folder, by="joint", format="md", **table_options):
    return written(folder, by, format, **table_options).decode()


def html(folder, by="joint", **table_options):
    return HtmlTable(text(folder, by, "html", **table_options))


def records(folder, by="joint", **table_options):
    return pl.read_parquet(written(folder, by, "parquet", **table_options)).to_dicts()


def write_frames(folder, trial_id, after_mm, *, frames=FRAMES):
    """Writes errors of four frames, the same for two subsets but for 2 mm; each was 10 mm before."""
    after = np.float32(after_mm)
    by_subset = {"A": (np.full(4, np.float32(9)), after - 1), "B": (np.full(4, np.float32(11)), after + 1)}
    folder.trial(trial_id).write("frames.parquet", FrameErrors(by_subset, frames).to_parquet())


@pytest.fixture
def folder(tmp_path):
    return write_results(tmp_path, SWEEP)


@pytest.fixture
def with_frames(folder):
    for repetition in range(3):
        write_frames(folder, f"b/{repetition}", np.array([4, 6, 8, 13]) + repetition)
    return folder


class TestTheTable:
    def test_of_joints_is_of_the_best_combination_before_and_after(self, folder):
        head, whole, *rows = markdown_rows(text(folder))
        assert head == ["joint", "frames", "before (mm)", "after (mm)", "change (mm)", "change (%)"]
        assert whole == ["all", "1,234", "20.00", "8.50 ± 0.50", "-11.50", "-57.5"]
        assert [row[0] for row in rows] == JOINTS
        for place, row in enumerate(rows, 1):
            before, after = 3 * 8.5 * 2**place, 8.5 * 2**place
            assert row[2:] == [f"{before:.2f}", f"{after:.2f} ± {0.5 * 2**place:.2f}", f"{after - before:.2f}", "-66.7"]

    def test_of_fingers_has_the_errors_of_each(self, folder):
        assert [row["finger"] for row in records(folder, "finger")] == ["all", "thumb", "index"]
        assert [row["test_distance_mm_mean"] for row in records(folder, "finger")] == [8.5, 8.5 * 2**5, 8.5 * 2**6]

    def test_of_subsets_has_the_mean_and_each_in_any_metric(self, tmp_path):
        folder = write_results(tmp_path, SWEEP, subsets=("A", "B"))
        for repetition in range(3):
            content = read_json(folder.trial(f"b/{repetition}"))
            better = {"distance": 7.0 + repetition, "auc_0_50": 0.5}
            content["metrics"]["test"]["B"] = content["metrics"]["test"]["B"] | better
            write_json(folder.trial(f"b/{repetition}"), content)
        _, *rows = markdown_rows(text(folder, "subset"))
        assert [row[0] for row in rows] == ["mean", "A", "B"]
        assert [row[3] for row in rows] == ["8.50 ± 0.50", "8.50 ± 0.50", "8.00 ± 1.00"]
        head, *rows = markdown_rows(text(folder, "subset", metric="auc_0_50"))
        assert head[2:] == ["before (%)", "after (%)", "change (points)"]
        assert rows[2] == ["B", "1,234", "25.00", "50.00 ± 0.00", "+25.00"]
        assert "mean over A and B unless a subset is named, by subset;" in html(folder, "subset").caption

    def test_of_subjects_shows_who_gets_worse_behind_a_better_mean(self, with_frames):
        _, _, *rows = markdown_rows(text(with_frames, "subject"))
        assert rows == [
            ["Ann", "3", "10.00", "7.00 ± 1.00", "-3.00", "-30.0"],
            ["Bo", "1", "10.00", "14.00 ± 1.00", "+4.00", "+40.0"],
        ]
        assert [(row["sequence"], row["frames"]) for row in records(with_frames, "sequence")] == [
            ("all", 4),
            ("s1", 1),
            ("s2", 2),
            ("s3", 1),
        ]

    def test_weighs_groups_by_their_frames_to_the_mean_of_all(self, tmp_path):
        folder = write_results(tmp_path, {"a": ({}, [7.0])})
        write_frames(folder, "a/0", [4, 6, 8, 10])
        for by in ("subject", "sequence"):
            whole, *groups = records(folder, by)
            mean = np.average(
                [row["test_distance_mm_mean"] for row in groups], weights=[row["frames"] for row in groups]
            )
            assert mean == pytest.approx(whole["test_distance_mm_mean"])

    def test_leaves_out_repetitions_without_errors_of_frames_and_counts_them(self, with_frames):
        with_frames.trial("b/0").remove("frames.parquet")
        write_frames(with_frames, "b/1", [100, 100, 100, 100], frames=FRAMES.take(np.array([0, 1, 3, 2])))
        table = html(with_frames, "subject")
        # Repetition 1 names other subjects than repetition 2, which comes later.
        assert [row[3] for row in table.rows] == ["8.50", "100.00", "100.00"]
        assert "2 finished repetitions lack errors by subject and are excluded from all means." in table.foot

    def test_says_of_which_combination_it_is(self, folder):
        assert html(folder).caption == (
            "Mean distance per joint (mm, lower is better) on the test set hands_test (1,234 frames), by joint; mean ± "
            "sample standard deviation over n = 3 finished repetitions of the combination that is best in validation "
            "(x = 2)."
        )

    def test_of_an_experiment_of_one_combination_does_not_call_it_the_best(self, tmp_path):
        caption = html(write_results(tmp_path, {"a": ({}, [9.0])})).caption
        assert caption.endswith("on the test set hands_test (1,234 frames), by joint; one repetition.")

    def test_has_the_distances_of_the_split_that_is_chosen(self, folder):
        assert "on the validation set hands_val" in html(folder, split="val").caption
        assert records(folder, split="val")[0]["val_distance_mm_mean"] == 7.5

    def test_for_programs_has_all_digits_the_key_and_the_options(self, folder):
        rows = records(folder)
        assert rows[1] == {
            **{"key": "b", "x": 2.0, "joint": "W", "frames": 1234, "n": 3, "test_distance_before_mm": 51.0},
            **{"test_distance_mm_mean": 17.0, "test_distance_mm_std": 1.0, "test_distance_change_mm": -34.0},
            "test_distance_change_percent": pytest.approx(-200 / 3),
        }
        in_csv = list(csv.DictReader(io.StringIO(text(folder, format="csv"))))
        assert [row["test_distance_mm_mean"] for row in in_csv] == [str(row["test_distance_mm_mean"]) for row in rows]
        sheet = openpyxl.load_workbook(io.BytesIO(written(folder, format="xlsx", precision=1)))["by joint"]
        assert (sheet["F3"].value, sheet["F3"].number_format) == (51.0, "0.0")

    def test_counts_what_failed(self, tmp_path):
        folder = write_results(tmp_path, {"a": SWEEP["a"]})
        assert html(folder).foot.endswith("1 repetition failed and is excluded from all means.")

    def test_says_that_a_better_mean_is_passed_over_since_repetitions_are_missing(self, tmp_path):
        sweep = {"a": ({"lr": 1}, [8.0, "failed"]), "b": ({"lr": 2}, [9.0, 9.0]), "c": ({"lr": 3}, [10.0, "failed"])}
        assert html(write_results(tmp_path, sweep)).foot.endswith(
            "1 combination has a lower mean in validation but was not chosen because not all 2 repetitions finished."
        )

    def test_writes_a_worsening_with_its_sign_and_a_dash_for_a_joint_without_numbers(self, folder):
        for repetition in range(3):
            named = [("distance[W]_before", 10.0), ("distance[W]", 12.5), ("distance[T1]_before", 0.0)]
            rows = [Record(2, 0, "test", "mean", "original", name, value) for name, value in named]
            folder.trial(f"b/{repetition}").write("records.parquet", to_parquet(f"b/{repetition}", rows))
        _, _, *rows = markdown_rows(text(folder))
        assert [[row[1], *row[3:]] for row in rows[:3]] == [
            ["3", "10.00", "12.50 ± 0.00", "+2.50", "+25.0"],
            ["0", "0.00", "–", "–", "–"],
            ["0", "–", "–", "–", "–"],
        ]

    def test_leaves_out_numbers_of_a_damaged_file_whose_squares_overflow(self, folder):
        for repetition, damaged in enumerate([1e308, -1e308, 10.0]):
            named = [("distance[W]_before", 10.0), ("distance[W]", damaged)]
            rows = [Record(2, 0, "test", "mean", "original", name, value) for name, value in named]
            folder.trial(f"b/{repetition}").write("records.parquet", to_parquet(f"b/{repetition}", rows))
        assert records(folder)[1]["test_distance_mm_mean"] == 10.0


class TestSeveralCombinations:
    def test_are_compared_within_each_group(self, tmp_path):
        folder = write_results(tmp_path, {"a": ({"x": 1}, [9.0]), "b": ({"x": 2}, [8.0])})
        write_frames(folder, "a/0", [4, 4, 4, 9])
        write_frames(folder, "b/0", [5, 5, 5, 8])
        document = text(folder, "subject", best=2)
        head, *rows = markdown_rows(document)
        assert head[:2] == ["subject", "x"]
        assert [row[:2] for row in rows[2:]] == [["Ann", "2"], ["Ann", "1"], ["Bo", "2"], ["Bo", "1"]]
        assert [row[4].startswith("**") for row in rows[2:]] == [False, True, True, False]
        assert "Bold: best mean on each subject." in document

    def test_are_chosen_as_in_the_table_of_combinations(self, tmp_path):
        sweep = {f"{x}{y}": ({"x": x, "y": y}, [5.0 + x + y]) for x in range(2) for y in range(3)}
        folder = write_results(tmp_path, sweep)
        best = {row["key"] for row in ResultTable.read(folder).summary[:4]}
        assert {row["key"] for row in records(folder, best=4)} == best
        assert {row["key"] for row in records(folder, best_for_each="y")} == {"00", "01", "02"}

    def test_with_different_numbers_of_repetitions_show_them(self, tmp_path):
        sweep = {"a": ({"lr": 1}, [8.0, 8.1, 8.2]), "b": ({"lr": 2}, [9.0, "failed", "failed"])}
        document = text(write_results(tmp_path, sweep), best=2)
        assert "over n = 1 to 3 finished repetitions" in document
        head, *rows = markdown_rows(document)
        assert [row[head.index("n")] for row in rows[:2]] == ["3", "1"]

    def test_of_each_value_are_not_passed_over_for_the_best_of_another(self, tmp_path):
        sweep = {
            "a": ({"x": 1, "y": 1}, [8.0, 8.0]),
            "b": ({"x": 1, "y": 2}, [9.0, "failed"]),
            "c": ({"x": 2, "y": 1}, [12.0, 12.0]),
        }
        assert "not chosen" not in text(write_results(tmp_path, sweep), best_for_each="x")

    def test_are_compared_with_all_that_each_was_chosen_from(self, tmp_path):
        sweep = {f"{x}{y}": ({"x": x, "y": y}, [5.0 + x + y] * 6) for x in (1, 2) for y in range(2 * x)}
        document = text(write_results(tmp_path, sweep), best_for_each="x")
        n_groups = len(markdown_rows(document)[1:]) // 2
        assert f"tests of {8 * n_groups} pairs that could have been chosen" in document

    def test_on_several_validation_sets_are_the_best_on_each(self, tmp_path):
        path = "experiment_config.val_set"
        sweep = {
            f"{name}{x}": ({path: name, "x": x}, [mm + x]) for name, mm in (("hard", 50), ("easy", 5)) for x in (1, 2)
        }
        table = html(write_results(tmp_path, sweep, test_set=None))
        assert [row[0] for row in table.rows] == ["hard"] * 5 + ["easy"] * 5
        assert [row[4] for row in table.rows if row[1] == "all"] == ["51.00", "6.00"]
        assert "on the validation sets hard and easy (1,234 frames each)" in table.caption
        assert table.caption.endswith("one repetition of the combination that is best on each validation set.")
        assert table.foot == "hard: val_set = hard, x = 1. easy: val_set = easy, x = 1."

    @pytest.mark.parametrize(("split", "word"), [("val", "validation"), ("test", "test")])
    def test_name_the_set_of_their_errors(self, tmp_path, split, word):
        val_set, test_set = (f"experiment_config.{name}_set" for name in ("val", "test"))
        sweep = {name: ({val_set: f"{name}_val", test_set: f"{name}_test"}, [9.0]) for name in ("hard", "easy")}
        table = html(write_results(tmp_path, sweep), split=split)
        assert table.head[0] == f"{word} set"
        assert [row[0] for row in table.rows] == [f"hard_{split}"] * 5 + [f"easy_{split}"] * 5

    def test_of_one_test_set_are_told_apart_by_what_they_were_chosen_on(self, tmp_path):
        sweep = {name: ({"experiment_config.val_set": name}, [9.0]) for name in ("hard", "easy")}
        table = html(write_results(tmp_path, sweep))
        assert [table.rows[0][0], table.rows[5][0]] == [f"hands_test, chosen on {name}" for name in ("hard", "easy")]

    def test_without_a_test_set_are_passed_over(self, tmp_path):
        path = "experiment_config.test_set"
        folder = write_results(tmp_path, {"a": ({path: None}, [5.0]), "b": ({path: "t"}, [9.0])})
        assert "(test_set = t)" in html(folder).caption
        assert "(test_set = None)" in html(folder, split="val").caption


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
        with pytest.raises(ChoiceError, match=r"the records of the trials of b are missing or broken"):
            text(folder)

    @pytest.mark.parametrize("description", [{}, {"data": {"skeleton": {"args": {"name": "x"}}}}, {"data": None}])
    def test_is_a_file_that_does_not_tell_the_skeleton(self, folder, description):
        trial = folder.trial("b/0")
        trial.write_trial(trial.read_trial()._replace(description=description))
        with pytest.raises(ChoiceError, match=r"the files of the trials of b do not say which skeleton they use"):
            text(folder)

    def test_is_errors_of_frames_that_were_not_kept(self, folder):
        folder.trial("b/0").write("frames.parquet", b"broken")
        with pytest.raises(ChoiceError, match=r"no trial of b has kept the errors of its frames .* see keep_weights"):
            text(folder, "subject")

    def test_is_frames_whose_subjects_are_not_known(self, folder):
        write_frames(folder, "b/0", [1, 2, 3, 4], frames=FrameTable.of(sequence=["s"] * 4, index=range(4)))
        assert records(folder, "sequence")
        with pytest.raises(ChoiceError, match=r"b name no subject, because the frame table of the dataset"):
            text(folder, "subject")

    def test_is_another_split_than_that_of_the_frames(self, with_frames):
        with pytest.raises(ChoiceError, match=r"on the val set: errors of frames are only kept for the test set"):
            text(with_frames, "subject", split="val")

    @pytest.mark.parametrize(
        ("by", "choice", "says"),
        [
            ("subset", {}, "its test set has only one subset"),
            ("joint", {"metric": "auc_0_50"}, "of the metric auc_0_50: they are distances; leave out --metric"),
            ("joint", {"columns": ("n",)}, "the columns and the order of a table by joint are fixed"),
            ("joint", {"sort": "n"}, "leave out columns and sort"),
        ],
    )
    def test_is_what_cannot_be_shown(self, folder, by, choice, says):
        with pytest.raises(ChoiceError, match=says):
            text(folder, by, **choice)
