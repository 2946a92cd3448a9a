"""Tables of a raced experiment: what was dropped stands apart from what was trained to the end."""

import io
import json
import re

import pyarrow.parquet as pq
import pytest

from cluster.racing.dropped import DROPPED_COLUMNS
from cluster.reports.tables.effects import MeanTable, effects_of
from cluster.reports.tables.pivot import PivotTable
from cluster.reports.tables.summary import summary_markdown, summary_text
from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.names import ChoiceError
from tests.cluster_tests.results_files import experiment_json, write_race, write_raced_results, write_results

HOW_MANY = "2 of 6 combinations were trained to the end; the race dropped the others."
OF_DROPPED = "The 4 combinations that the race dropped, the latest rung first"


@pytest.fixture
def folder(tmp_path):
    return write_raced_results(tmp_path)


@pytest.fixture
def raced(folder):
    return ResultTable.read(folder)


def markdown_tables(text):
    """The lines of each table in Markdown, without its rule."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if ":--" not in line]
        for table in tables
    ]


class TestATableForReading:
    @pytest.mark.parametrize("write", [summary_markdown, ResultTable.to_md])
    def test_has_a_second_table_with_the_epoch_and_the_leader_there(self, raced, write):
        ranked, dropped = markdown_tables(write(raced))
        assert [row[:2] for row in ranked[1:]] == [["0.1", "8"], ["0.1", "16"]]
        assert dropped == [
            ["lr", "dim", "n", "epoch", "validation (mm)", "leader (mm)", "reason"],
            ["0.2", "16", "2", "3", "8.75", "7.50", "behind"],
            ["0.2", "8", "2", "3", "9.50", "7.50", "behind"],
            ["0.3", "8", "1", "1", "11.00", "9.00", "behind"],
            ["0.3", "16", "1", "1", "–", "9.00", "diverged"],
        ]

    def test_of_the_best_for_each_value_names_the_values_that_it_lacks(self, raced):
        text = raced.to_md(TableOptions(best_for_each="lr"))
        assert "For each lr, the combination that is best in validation. No combination with lr 0.2 and 0.3 has" in text

    @pytest.mark.parametrize("write", [summary_text, ResultTable.to_md, ResultTable.to_latex, ResultTable.to_html])
    def test_says_how_many_were_trained_to_the_end(self, raced, write):
        text = " ".join(write(raced).split())
        assert HOW_MANY in text
        assert OF_DROPPED in text

    def test_marks_and_tests_only_what_was_trained_to_the_end(self, raced):
        """The dropped `c` has a finished repetition that is better than all others."""
        assert raced.to_md().count("**") == 2
        assert "**6.50 ± 0.71**" in raced.to_md()

    def test_of_the_best_leaves_the_others_out_and_says_so(self, raced):
        for options in (TableOptions(best=1), TableOptions(best_for_each="lr")):
            [table] = markdown_tables(raced.to_md(options))
            assert len(table) == 2
            assert HOW_MANY in raced.to_md(options)

    def test_of_more_than_were_ranked_claims_no_choice(self, raced):
        assert "The best" not in raced.to_md(TableOptions(best=5))
        assert "The best of 2 combinations in validation." in raced.to_md(TableOptions(best=1))

    def test_says_that_the_race_is_open(self, folder):
        folder.storage.remove("trials/b/1/trial.json")
        text = " ".join(summary_text(ResultTable.read(folder)).split())
        assert "The race has dropped 4 of 6 combinations; the others have not all been trained to the end yet." in text

    def test_has_only_the_second_table_if_all_diverged(self, tmp_path):
        folder = write_results(tmp_path, {"a": ({"lr": 1}, ["diverged"]), "b": ({"lr": 2}, ["diverged"])})
        rung = {key: ([float("inf")], "diverged") for key in "ab"}
        table = ResultTable.read(write_race(folder, {(0, 0): (1, rung)}))
        for text in (str(table), table.to_md(), table.to_latex(), table.to_html(), table._repr_html_()):
            assert "The race dropped all 2 combinations." in " ".join(text.split())
        assert len(json.loads(table.to_json())) == 2
        with pytest.raises(ChoiceError, match="no best combination: The race dropped all 2"):
            table.to_md(TableOptions(best=1))


class TestATableForPrograms:
    def test_has_columns_but_no_results_for_dropped_combinations(self, raced):
        rows = {row["key"]: row for row in json.loads(raced.to_json())}
        assert list(rows) == ["a", "b", "d", "c", "e", "f"]
        assert [rows["d"][name] for name in DROPPED_COLUMNS] == [3, 2, 8.75, 7.5, "behind"]
        assert {value for name, value in rows["c"].items() if name.startswith("test_")} == {None}
        assert {rows["a"][name] for name in DROPPED_COLUMNS} == {None}

    def test_is_the_same_in_all_formats(self, raced):
        frame = pq.read_table(io.BytesIO(raced.to_parquet())).to_pylist()
        assert frame == json.loads(raced.to_json())
        header, *lines = raced.to_csv().splitlines()
        assert header.endswith(",".join(DROPPED_COLUMNS))
        assert [line.split(",")[-5:] for line in lines][2] == ["3", "2", "8.75", "7.5", "behind"]
        assert raced.to_xlsx()

    def test_has_no_such_columns_without_a_race(self, tmp_path):
        content = experiment_json(folder := write_raced_results(tmp_path))
        content["configs"]["experiment_config"]["race"] = None
        folder.write_experiment(content)
        assert "dropped" not in ResultTable.read(folder).to_csv()

    def test_of_trials_has_the_status_dropped(self, raced):
        rows = json.loads(raced.to_json(TableOptions(trials=True)))
        assert [row["status"] for row in rows if row["key"] == "d"] == ["dropped", "dropped"]
        assert {row["test_distance_mm"] for row in rows if row["key"] == "d"} == {None}


def test_a_pivot_table_has_a_dash_for_what_was_dropped(raced):
    grid = PivotTable(raced, TableOptions(), "lr", "dim").grid()
    assert [[cell.text for cell in row[1:]] for row in grid.rows][1:] == [["–", "–"], ["–", "–"]]
    assert HOW_MANY in grid.notes


class TestEffects:
    def test_are_those_at_the_first_rung(self, raced):
        options = TableOptions()
        [effects] = effects_of(raced, options)
        assert effects.metric == "val_distance_mm"
        lr = {mean.values[0]: mean.estimate.mean for mean in effects.means["lr"].groups}
        assert lr == {0.1: 9.0, 0.2: 9.5, 0.3: 11.0}  # with dim 8, since dim 16 diverged with lr 0.3
        caption = MeanTable(raced, [effects], options).grid().caption
        assert (
            "at epoch 1, the first rung of the race, where all 6 combinations were trained with 1 repetition:"
            in caption
        )
        assert "on the validation set hands_val" in caption

    def test_do_not_exist_for_other_metrics(self, raced):
        for options in (TableOptions(metric="auc_0_50"), TableOptions(split="test")):
            with pytest.raises(ChoiceError, match="only distances on the validation set are known"):
                effects_of(raced, options)

    def test_do_not_exist_without_the_first_decision(self, folder):
        folder.storage.remove("race/hands_val/0-0.json")
        with pytest.raises(ChoiceError, match="decision at the first rung of the race is missing"):
            effects_of(ResultTable.read(folder), TableOptions())

    def test_say_how_many_combinations_competed_there(self, folder):
        content = experiment_json(folder)
        added = {"key": "g", "options": {"lr": 0.4, "dim": 8}}
        content["plan"]["combinations"].append(added)
        content["options"][0]["rows"].append([0.4])
        folder.write_experiment(content)
        [effects] = effects_of(ResultTable.read(folder), TableOptions())
        assert "6 of 7 combinations were trained with 1 repetition (the others did not compete there)" in effects.at
