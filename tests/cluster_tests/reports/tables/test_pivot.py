import csv
import io
import itertools

import openpyxl
import polars as pl
import pytest

from cluster.reports.tables.table_options import TableOptions
from cluster.results.names import ChoiceError
from tests.cluster_tests.reports.tables.read_tables import HtmlTable, markdown_rows
from tests.cluster_tests.results_files import results

LR, DECAY = "optimizer_args.lr", "optimizer_args.weight_decay"
PIVOT = TableOptions(rows="lr", columns_of="weight_decay")


def csv_rows(table, table_options=PIVOT):
    return list(csv.DictReader(io.StringIO(table.to_csv(table_options), newline="")))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A grid of two options with one missing cell; a third option has a best value in each cell."""
    combinations = {}
    for lr in (0.1, 1e-5, 0.01):
        for decay in (None, 0.5, 0.0):
            for dropout in (0.2, 0.0):
                if (lr, decay) != (0.1, 0.5):
                    mm = 10 + lr + (decay or 0) + (dropout if lr < 0.1 else 1 - dropout)
                    options = {LR: lr, DECAY: decay, "model_args.dropout": dropout}
                    combinations[f"k{len(combinations):02}"] = options, [mm - 0.01, mm + 0.01]
    combinations["k00"] = combinations["k00"][0], ["failed", "diverged"]
    return results(tmp_path_factory.mktemp("pivot"), combinations)


class TestAPivotTable:
    def test_has_the_values_of_one_option_down_and_of_another_across(self, sweep):
        head, *rows = markdown_rows(sweep.to_md(PIVOT))
        assert head == ["lr", *(f"weight_decay: {value}" for value in ("None", "0", "0.5"))]
        assert rows == [
            ["1e-05", "**10.00 ± 0.01**", "**10.00 ± 0.01**", "10.50 ± 0.01"],
            ["0.01", "<ins>10.01 ± 0.01</ins>", "<ins>10.01 ± 0.01</ins>", "10.51 ± 0.01"],
            ["0.1", "11.10 ± 0.01", "10.90 ± 0.01", ""],
        ]

    def test_says_of_what_each_place_has_the_best(self, sweep):
        caption = HtmlTable(sweep.to_html(PIVOT)).caption
        assert "n = 2 finished repetitions. Each cell has the dropout that is best in validation. Bold: " in caption

    def test_of_all_options_says_nothing_of_a_best(self, tmp_path):
        table = results(tmp_path, {f"{x}{y}": ({"x": x, "y": y}, [9.0 + x + y]) for x in (1, 2) for y in (1, 2)})
        assert "best in validation" not in table.to_md(TableOptions(rows="x", columns_of="y"))

    def test_is_judged_as_a_whole(self, sweep):
        assert HtmlTable(sweep.to_html(PIVOT)).marked == {"strong": ["10.00 ± 0.01"] * 2, "u": ["10.01 ± 0.01"] * 2}

    def test_has_a_title_over_its_columns_in_html(self, sweep):
        text = sweep.to_html(PIVOT)
        assert '<th scope="colgroup" colspan="3" class="group">weight_decay</th>' in text
        assert HtmlTable(text).head == ["lr", "None", "0", "0.5"]

    def test_for_programs_has_mean_deviation_and_n_of_each_value(self, sweep):
        rows = csv_rows(sweep)
        assert list(rows[0]) == [LR] + [
            f"{name}[{DECAY}={value}]"
            for value in ("None", "0.0", "0.5")
            for name in ("test_distance_mm_mean", "test_distance_mm_std", "n")
        ]
        assert float(rows[0][f"test_distance_mm_mean[{DECAY}=0.5]"]) == pytest.approx(10.50001)
        assert rows[2][f"n[{DECAY}=0.5]"] == ""

    def test_is_the_same_in_parquet_and_a_workbook_with_the_trials_beside_it(self, sweep):
        held = pl.read_parquet(sweep.to_parquet(PIVOT))
        assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in held.to_dicts()] == csv_rows(sweep)
        book = openpyxl.load_workbook(io.BytesIO(sweep.to_xlsx(PIVOT)))
        assert [cell.value for cell in book["summary"][1]] == held.columns
        assert book["summary"]["B2"].number_format == "0.00"
        assert book["trials"].max_row == 1 + len(sweep.trials)

    def test_shows_a_metric_of_a_split_with_a_precision(self, sweep):
        table_options = TableOptions(rows="lr", columns_of="weight_decay", metric="auc_0_50", split="val", precision=0)
        table = HtmlTable(sweep.to_html(table_options))
        assert table.rows[0] == ["1e-05", "25 ± 0", "25 ± 0", "25 ± 0"]
        assert table.caption.startswith(
            "Area under the success-rate curve of joints from 0 to 50 mm (%, higher is better)"
        )
        assert "validation set hands_val" in table.caption

    def test_of_what_has_not_finished_has_a_dash(self, tmp_path):
        table = results(tmp_path, {f"{x}": ({"x": x, "y": 1 - x}, ["failed"]) for x in (0, 1)})
        text = table.to_md(TableOptions(rows="x", columns_of="y"))
        assert markdown_rows(text)[1:] == [["0", "", "–"], ["1", "–", ""]]
        assert "2 repetitions failed and are excluded from all means." in text

    def test_says_which_better_means_its_cells_pass_over_since_repetitions_are_missing(self, tmp_path):
        outcomes = {0: [9.0, "failed"], 1: [9.5, 9.6], 2: [10.0, 10.1]}
        sweep = {f"{x}{z}": ({"x": x, "y": x, "z": z}, outcomes[z]) for x in (0, 1) for z in outcomes}
        foot = HtmlTable(results(tmp_path, sweep).to_html(TableOptions(rows="x", columns_of="y"))).foot
        assert foot.endswith(
            "2 combinations have a lower mean in validation but were not chosen because not all 2 repetitions finished."
        )

    def test_has_a_column_for_each_value_even_where_texts_are_the_same(self, tmp_path):
        values = [(x, y) for x in "ab" for y in (1, "1", True)]
        table = results(tmp_path, {f"k{i}": ({"x": x, "y": y}, [9.0 + i]) for i, (x, y) in enumerate(values)})
        table_options = TableOptions(rows="x", columns_of="y")
        first = csv_rows(table, table_options)[0]
        assert [first[f"test_distance_mm_mean[y={y}]"] for y in ("1", "True", "'1'")] == ["9.0", "11.0", "10.0"]
        assert markdown_rows(table.to_md(table_options))[0] == ["x", "y: 1", "y: True", "y: '1'"]


class TestAnError:
    def test_is_one_option_down_and_across(self, sweep):
        with pytest.raises(
            ChoiceError,
            match=r"^optimizer_args.lr cannot be in both the rows and the columns; name two different options$",
        ):
            sweep.to_csv(TableOptions(rows="lr", columns_of="optimizer_args.lr"))

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_is_a_place_that_would_choose_between_results_on_different_data(self, tmp_path, split):
        path = f"experiment_config.{split}_set"
        combinations = {
            f"{name}{x}{y}": ({path: name, "x": x, "y": y}, [9.0 + x + y])
            for name in ("easy", "hard")
            for x in (1, 2)
            for y in (1, 2)
        }
        table = results(tmp_path, combinations)
        with pytest.raises(ChoiceError) as error:
            table.to_md(TableOptions(rows="x", columns_of="y"))
        assert str(error.value) == (
            "a cell of x and y would choose between results on different data (hard and easy): one of the two "
            f"options must distinguish the data, such as --rows {split}_set --columns x"
        )
        assert table.to_md(TableOptions(rows=f"{split}_set", columns_of="x"))

    @pytest.mark.parametrize("sizes", [(10, 20), (10, 20, None)])
    def test_names_options_that_the_experiment_has_and_that_can_be_shown(self, tmp_path, sizes):
        path = "experiment_config.test_set_size"
        combinations = {f"{n}{x}{y}": ({"x": x, "y": y, path: n}, [9.0]) for n in sizes for x in "ab" for y in "cd"}
        table = results(tmp_path, combinations)
        with pytest.raises(ChoiceError, match=r"such as --rows x --columns test_set_size$"):
            table.to_md(TableOptions(rows="x", columns_of="y"))
        assert table.to_md(TableOptions(rows="x", columns_of="test_set_size"))

    def test_names_none_where_no_two_options_tell_the_data_apart(self, tmp_path):
        sets = [f"experiment_config.{name}" for name in ("val_set", "test_set", "test_set_size")]
        values = itertools.product("ab", "cd", (1, 2), (3, 4), (5, 6))
        combinations = {"".join(map(str, v)): (dict(zip((*sets, "x", "y"), v, strict=True)), [9.0]) for v in values}
        with pytest.raises(ChoiceError, match=r"must distinguish the data$"):
            results(tmp_path, combinations).to_md(TableOptions(rows="x", columns_of="y"))

    def test_is_none_of_a_place_of_its_own_for_each_test_set_which_has_its_own_best(self, tmp_path):
        path = "experiment_config.test_set"
        combinations = {
            f"{name}{x}": ({path: name, "x": x}, [mm + x])
            for name, mm in (("easy", 5.0), ("hard", 50.0))
            for x in (1, 2)
        }
        table = HtmlTable(results(tmp_path, combinations).to_html(TableOptions(rows=path, columns_of="x")))
        assert table.marked == {"strong": ["6.00", "51.00"], "u": ["7.00", "52.00"]}
        assert "Bold: best mean on each test set. Underlined" in table.caption
