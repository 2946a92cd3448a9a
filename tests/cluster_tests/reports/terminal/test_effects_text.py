import csv
import io
import itertools
import json
import re

import numpy as np
import openpyxl
import polars as pl
import pytest

from cluster.reports.tables.effect_phrases import averaged_over
from cluster.reports.tables.effects import effects_of
from cluster.reports.tables.export import FORMATS, export_effects
from cluster.reports.tables.table_options import TableOptions
from cluster.reports.terminal.effects_text import effects_json, effects_text
from cluster.result_table import ResultTable
from cluster.results.names import ChoiceError
from cluster.results.option_effects import Basis, GroupMeans, importances
from cluster.results.statistics import estimate
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.reports.tables.read_tables import HtmlTable, markdown_rows
from tests.cluster_tests.results_files import results

LR, DECAY, MODEL, TEST_SET = "optimizer_args.lr", "optimizer_args.weight_decay", "model", "experiment_config.test_set"
RATES, DECAYS, MODELS = (0.001, 0.01, 0.1), (0.0, 0.5), ("mlp", "gnn")


def result(lr, decay, model):
    return 9 + 20 * lr + decay + (model == "gnn") + 10 * lr * decay


def sweep(*, with_holes):
    """A grid of three options and three repetitions with missing trials, most of them for one value of the model."""
    combinations = {}
    for place, (lr, decay, model) in enumerate(itertools.product(RATES, DECAYS, MODELS)):
        outcomes = [result(lr, decay, model) + 0.1 * repetition for repetition in range(3)]
        if with_holes and (lr, decay, model) == (0.001, 0.0, "mlp"):
            outcomes[1] = "failed"
        if with_holes and (lr, model) == (0.1, "gnn"):
            outcomes = ["failed"] * 3
        combinations[f"{place:08x}"] = ({LR: lr, DECAY: decay, MODEL: model}, outcomes)
    return combinations


@pytest.fixture
def whole(tmp_path):
    return results(tmp_path / "whole", sweep(with_holes=False), name="sweep")


@pytest.fixture
def holes(tmp_path):
    return results(tmp_path / "holes", sweep(with_holes=True), name="sweep")


@pytest.fixture
def noisy(tmp_path):
    """A grid in which the learning rate has an effect that is much larger than chance, and the other options none."""
    draw = np.random.default_rng(0).normal
    combinations = {
        f"{place:08x}": ({LR: lr, DECAY: decay, MODEL: model}, list(9 + 20 * lr + draw(scale=0.3, size=3)))
        for place, (lr, decay, model) in enumerate(itertools.product(RATES, DECAYS, MODELS))
    }
    return results(tmp_path / "noisy", combinations, name="sweep")


@pytest.fixture
def several(tmp_path):
    """Two test sets with different best learning rates."""
    slopes = {"easy": 1, "hard": -1}
    combinations = {
        f"{name}{lr}{model}": ({TEST_SET: name, LR: lr, MODEL: model}, [10 + slope * lr + (model == "gnn")] * 2)
        for (name, slope), lr, model in itertools.product(slopes.items(), (1, 2, 3), MODELS)
    }
    return results(tmp_path / "several", combinations, name="sweep")


def shown(table, *, interactions=False, **table_options):
    return HtmlTable(export_effects(table, "html", TableOptions(**table_options), interactions=interactions).decode())


def text_of(table, **table_options):
    return " ".join(
        effects_text(table, effects_of(table, TableOptions(**table_options)), TableOptions(**table_options)).split()
    )


def basis(paths, settings, planned, repetitions=(0, 1), n_repetitions=2):
    left_out = [setting for setting in planned if setting not in settings]
    lost = [repetition for repetition in range(n_repetitions) if repetition not in repetitions]
    return GroupMeans(("x",), [], Basis(paths, list(settings), left_out, list(repetitions), lost))


NAMED = {name: name for name in "abcd"}


class TestTheWordsOnWhatMeansAreOver:
    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ([], "all 2 repetitions"),
            ([range(2)], "all values of a, in all 2 repetitions"),
            ([range(2)] * 2, "all values of a and b, in all 2 repetitions"),
            ([range(2)] * 4, "all values of the other options, in all 2 repetitions"),
        ],
    )
    def test_of_a_whole_grid_are_that_it_is_all(self, values, words):
        settings = list(itertools.product(*values))
        assert averaged_over(basis(tuple("abcd"[: len(values)]), settings, settings), NAMED) == words

    @pytest.mark.parametrize(
        ("kept", "words"),
        [
            (lambda a, b: a == 7, "1 of 20 values of a (7) and all values of b"),
            (lambda a, b: a not in (3, 8), "18 of 20 values of a (without 3 and 8) and all values of b"),
            (lambda a, b: a >= 10, "10 of 20 values of a and all values of b"),
            (lambda a, b: a != 3 and b == "y", "19 of 20 values of a (without 3) and 1 of 2 values of b (y)"),
            (lambda a, b: (a, b) != (3, "y"), "all values of a and b but not a 3 with b y"),
            (
                lambda a, b: (a, b) != (3, "y") and a != 5,
                "19 of 20 values of a (without 5) and all values of b but not a 3 with b y",
            ),
            (lambda a, b: a < 10 or b == "y", "all values of a and b, at 30 of their 40 combinations"),
        ],
    )
    def test_name_the_values_that_are_left_out_where_they_are_few(self, kept, words):
        planned = list(itertools.product(range(20), "xy"))
        means = basis(("a", "b"), [setting for setting in planned if kept(*setting)], planned)
        assert averaged_over(means, NAMED) == f"{words}, in all 2 repetitions"

    @pytest.mark.parametrize(
        ("n", "kept", "words"),
        [
            (1, [0], "the only repetition"),
            (3, [0, 2], "2 of 3 repetitions (without 1)"),
            (9, [0, 2], "2 of 9 repetitions (0 and 2)"),
            (9, range(5), "5 of 9 repetitions"),
        ],
    )
    def test_name_the_repetitions(self, n, kept, words):
        assert averaged_over(basis((), [()], [()], kept, n), NAMED) == words

    @pytest.mark.slow
    def test_stay_short_however_many_settings_are_left_out(self):
        rng = np.random.default_rng(0)
        planned = list(itertools.product(range(30), repeat=4))
        kept = [planned[place] for place in sorted(rng.choice(len(planned), 1000, replace=False).tolist())]
        kept = [setting for setting in kept if all(value % 3 for value in setting)]
        assert len(averaged_over(basis(tuple("abcd"), kept, planned), NAMED)) < 200

    def test_tell_values_apart_that_are_equal_to_python(self):
        means = GroupMeans(("x",), [], Basis(("a",), [(1,)], [(True,), (1.0,)], [0], []))
        assert averaged_over(means, NAMED) == "1 of 3 values of a (1), in the only repetition"


class TestTheTableOfMeans:
    def test_has_the_mean_of_each_value_with_interval_n_and_importance(self, whole):
        table = shown(whole)
        assert table.head == [
            *("option", "value", "mean (mm)", "95 % interval (mm)", "n"),
            *("importance (%)", "by chance (%)"),
        ]
        cells = iter(table.rows)
        for name, values, place in (("lr", RATES, 0), ("weight_decay", DECAYS, 1), ("model", MODELS, 2)):
            for value in values:
                of_value = [result(*c) for c in itertools.product(RATES, DECAYS, MODELS) if c[place] == value]
                found = estimate([np.mean(of_value) + 0.1 * repetition for repetition in range(3)])
                interval = f"{found.interval.low:.2f} to {found.interval.high:.2f}"
                option, text, mean, of_mean, n, *_ = next(cells)
                assert (option, text, n) == (name, f"{value:g}" if place < 2 else value, "3")
                assert float(mean) == pytest.approx(found.mean, abs=0.006)
                assert of_mean == interval
        assert not list(cells)
        shares = [float(row[5]) for row in table.rows if row[5]]
        assert len(shares) == 3
        assert 95 < sum(shares) < 100

    def test_has_the_importance_by_chance_and_names_the_options_that_are_not_above_it(self, noisy):
        table = shown(noisy)
        by_chance = {row[0]: row[6] for row in table.rows if row[6]}
        expected = importances(noisy.trials, [LR, DECAY, MODEL], "test_distance_mm").chances
        assert by_chance == {
            name: f"{100 * expected[path].mean:.1f}, up to {100 * expected[path].high:.1f}"
            for name, path in (("lr", LR), ("weight_decay", DECAY), ("model", MODEL))
        }
        assert "Importance is above chance for lr; no more than chance for weight_decay and model." in table.foot
        assert "An importance up to that limit says nothing." in table.foot

    def test_of_noise_calls_no_option_important(self, tmp_path):
        draw = np.random.default_rng(14).normal
        combinations = {
            f"{lr}{decay}": ({LR: lr, DECAY: decay}, list(draw(9, size=3))) for lr in (1, 2) for decay in (3, 4)
        }
        table = shown(results(tmp_path / "sweep", combinations))
        assert max(float(row[5]) for row in table.rows if row[5]) > 97
        assert "Importance is no more than chance for lr and weight_decay." in table.foot
        assert "above chance" not in table.foot

    def test_of_one_repetition_says_that_chance_takes_two(self, tmp_path):
        combinations = {f"{lr}{d}": ({LR: lr, DECAY: d}, [9.0 + lr + d]) for lr in (1, 2) for d in (3, 4)}
        table = shown(results(tmp_path / "sweep", combinations))
        assert table.head[-1] == "importance (%)"
        assert "Importance is not compared with chance, because it takes two repetitions." in table.foot

    def test_says_that_a_whole_grid_is_averaged_over_all_values(self, whole):
        table = shown(whole)
        assert table.caption == (
            "Mean distance per joint (mm, lower is better) on the test set hands_test (1,234 frames): the mean for "
            "each value of an option, averaged over all values of the other options and all repetitions; 95 % "
            "intervals are for the mean over n repetitions (Student's t)."
        )
        assert table.foot.startswith("Importance is the share of the variance")
        assert "over" not in table.foot

    def test_of_a_grid_with_holes_says_what_each_mean_is_over(self, holes):
        table = shown(holes)
        assert "averaged over the trials that all values of the option have in common;" in table.caption
        assert "all values of the other options" not in table.caption
        assert [row[4:] for row in table.rows] == [["2", "4 of 12"]] * 3 + [["3", "12 of 18"]] * 2 + [
            ["3", "9 of 18"]
        ] * 2
        for words in (
            "lr: over 1 of 2 values of model (mlp) and all values of weight_decay, in 2 of 3 repetitions (without 1).",
            "model: over 2 of 3 values of lr (without 0.1) and all values of weight_decay but not lr 0.001 with "
            "weight_decay 0, in all 3 repetitions.",
            "importance: unknown, because an incomplete grid needs 12 combinations that finished in the same "
            "repetitions, but only 10 of 12 did.",
            "7 repetitions failed and are excluded from all means.",
        ):
            assert words in table.foot

    def test_says_over_which_combinations_an_importance_is(self, tmp_path):
        combinations = {
            f"{a}{b}": (
                {"a": a, "b": b},
                [float(9 + a + b)] * 2 if (a, b) not in ((0, 0), (4, 1)) and a != 5 else ["failed"] * 2,
            )
            for a, b in itertools.product(range(6), range(4))
        }
        table = shown(results(tmp_path / "sweep", combinations))
        assert "importance: over 18 of 24 combinations, in all 2 repetitions, none of them with a 5." in table.foot
        assert "Importance is not compared with chance, because combinations are missing." in table.foot
        assert table.head[-1] == "importance (%)"

    def test_of_one_option_has_no_importance(self, tmp_path):
        table = shown(results(tmp_path / "sweep", {"a": ({"x": 1}, [9.0, 9.5]), "b": ({"x": 2}, [8.0, 8.5])}))
        assert table.head[-1] == "n"
        assert "averaged over all repetitions;" in table.caption
        assert "mportance" not in table.foot

    def test_keeps_results_on_different_data_apart(self, several):
        table = shown(several)
        assert table.head[:4] == ["test set", "option", "value", "mean (mm)"]
        assert [row[:4] for row in table.rows if row[1] == "lr"] == [
            *(["hard", "lr", str(lr), f"{10.5 - lr:.2f}"] for lr in (1, 2, 3)),
            *(["easy", "lr", str(lr), f"{10.5 + lr:.2f}"] for lr in (1, 2, 3)),
        ]

    def test_is_of_the_metric_the_split_and_the_precision_that_are_chosen(self, whole):
        assert [row[2] for row in shown(whole, split="val", precision=0).rows][:3] == ["9", "9", "11"]
        table = shown(whole, metric="frames_within_20mm")
        assert table.head[2] == "mean (%)"
        of_value = [100 / result(0.1, decay, model) for decay, model in itertools.product(DECAYS, MODELS)]
        assert float(table.rows[2][2]) == pytest.approx(np.mean(of_value), abs=0.1)

    @pytest.mark.parametrize("interactions", [False, True])
    @pytest.mark.parametrize("format", FORMATS)
    def test_is_written_in_every_format(self, holes, format, interactions):
        assert export_effects(holes, format, TableOptions(), interactions=interactions)

    def test_for_programs_has_all_digits_and_what_was_averaged_over(self, holes):
        rows = list(
            csv.DictReader(io.StringIO(export_effects(holes, "csv", TableOptions(), interactions=False).decode()))
        )
        assert [(row["option"], row["value"]) for row in rows[:3]] == [(LR, str(lr)) for lr in RATES]
        mean = np.mean([result(0.01, decay, "mlp") + 0.1 for decay in DECAYS])
        assert float(rows[1]["test_distance_mm_mean"]) == pytest.approx(mean, abs=1e-12)
        assert rows[1]["averaged_over"] == f"1 of 2 values of model (mlp) and all values of {DECAY}, in 2 of 3 " + (
            "repetitions (without 1)"
        )
        assert rows[0] | {"trials_averaged": "4", "trials_finished": "11", "trials_planned": "12"} == rows[0]
        assert {row["importance_by_chance_mean"] for row in rows} == {""}
        parquet = pl.read_parquet(export_effects(holes, "parquet", TableOptions(), interactions=False))
        assert parquet["n"].to_list() == [2, 2, 2, 3, 3, 3, 3]
        book = openpyxl.load_workbook(io.BytesIO(export_effects(holes, "xlsx", TableOptions(), interactions=False)))
        assert book["effects"].max_row == 8


class TestTheTableOfInteractions:
    def test_has_every_pair_the_strongest_first(self, whole):
        table = shown(whole, interactions=True)
        assert table.head == ["option", "other option", "interaction (%)", "interaction (mm)"]
        assert table.rows[0][:2] == ["lr", "weight_decay"]
        assert [row[2:] for row in table.rows[1:]] == [["0.0", "0.00"]] * 2
        cells = np.array([[np.mean([result(lr, d, m) for m in MODELS]) for d in DECAYS] for lr in RATES])
        left = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + cells.mean()
        assert table.rows[0][2:] == [f"{100 * left.var() / cells.var():.1f}", f"{left.std():.2f}"]

    def test_of_a_grid_with_holes_says_what_it_rests_on(self, holes):
        table = shown(holes, interactions=True)
        assert table.head[2:] == ["averaged over", "interaction (%)", "interaction (mm)", "pairs"]
        found = {tuple(row[:2]): (row[2], row[5]) for row in table.rows}
        assert found["lr", "model"] == ("all values of weight_decay, in 2 of 3 repetitions (without 1)", "5 of 6")

    def test_of_one_option_is_an_error(self, tmp_path):
        table = results(tmp_path / "sweep", {"a": ({"x": 1}, [9.0]), "b": ({"x": 2}, [8.0])}, name="sweep")
        with pytest.raises(ChoiceError, match=r"^sweep has only one option that varies; an interaction needs two$"):
            shown(table, interactions=True)


class TestTheText:
    def test_has_the_means_and_the_interactions_of_all_pairs(self, holes, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        text = effects_text(holes, effects_of(holes, TableOptions()), TableOptions())
        assert text.startswith("sweep: effects of options\n")
        lines = [" ".join(line.split()) for line in text.splitlines()]
        place = lines.index("lr 0.001 9.37 8.10 to 10.64 2 4 of 12")
        assert lines[place + 2] == "0.1 11.60 10.33 to 12.87 2 4 of 12"  # without its option's name
        _, pairs = text.split("other option")
        assert len(re.findall(r" [456] of [46]$", pairs, re.MULTILINE)) == 3
        assert pairs.splitlines()[2].split()[:2] == ["lr", "weight_decay"]
        assert max(map(len, text.splitlines())) <= 80

    def test_of_very_many_values_has_the_first(self, tmp_path):
        table = results(tmp_path / "sweep", {f"{i:04x}": ({"x": i}, [9.0 + i]) for i in range(130)})
        text = effects_text(table, effects_of(table, TableOptions()), TableOptions())
        assert "and 30 more rows; --json has all" in text
        assert len(text.splitlines()) < 120

    def test_for_a_script_has_all_of_it(self, holes):
        (found,) = json.loads(json.dumps(effects_json(effects_of(holes, TableOptions())), allow_nan=False))
        assert (found["data"], found["metric"]) == (None, "test_distance_mm")
        lr = found["options"][0]
        assert (lr["option"], lr["importance"], lr["importance_by_chance"]) == (LR, None, None)
        assert lr["importance_is_above_chance"] is None
        assert lr["averaged_over"] == {
            **{"values": {DECAY: [0.0, 0.5], MODEL: ["mlp"]}, "settings": 2, "settings_planned": 4},
            **{"repetitions": [0, 2], "repetitions_planned": 3},
        }
        assert [mean["values"] for mean in lr["means"]] == [[rate] for rate in RATES]
        assert lr["means"][0]["mean"] == pytest.approx(np.mean([result(0.001, d, "mlp") + 0.1 for d in DECAYS]))
        assert {tuple(one["options"]) for one in found["interactions"]} == {(LR, DECAY), (LR, MODEL), (DECAY, MODEL)}
        assert [len(one["means"]) for one in found["interactions"]] == [
            {(LR, DECAY): 6, (LR, MODEL): 6, (DECAY, MODEL): 4}[tuple(one["options"])] for one in found["interactions"]
        ]

    def test_for_a_script_has_the_importance_by_chance(self, noisy):
        (found,) = json.loads(json.dumps(effects_json(effects_of(noisy, TableOptions())), allow_nan=False))
        expected = importances(noisy.trials, [LR, DECAY, MODEL], "test_distance_mm")
        for option in found["options"]:
            path = option["option"]
            chance = expected.chances[path]
            assert option["importance"] == expected.shares[path]
            assert option["importance_by_chance"] == {"mean": chance.mean, "high": chance.high}
            assert option["importance_is_above_chance"] is (path == LR)


DIM, HIDDEN = "model_args.dim", "model_args.hidden_dims"
AXES = [
    {"paths": [MODEL], "rows": [["mlp"], ["gnn"]]},
    {"paths": [HIDDEN], "rows": [["[8]"], ["[16]"]], "when": [[0, [0]]]},
    {"paths": [DIM], "rows": [[4], [8]], "when": [[0, [1]]]},
    {"paths": [LR], "rows": [[0.1], [0.01]]},
]


class TestOptionsWithConditions:
    def table(self, path, *, lost=()):
        kinds = [("mlp", "[8]", "–"), ("mlp", "[16]", "–"), ("gnn", "–", 4), ("gnn", "–", 8)]
        combinations = [
            ({MODEL: model, HIDDEN: hidden, DIM: dim, LR: lr}, ["ValueError: no"] * 2)
            if (hidden, lr) in lost
            else ({MODEL: model, HIDDEN: hidden, DIM: dim, LR: lr}, [9 + lr + place, 9.1 + lr + place])
            for lr in (0.01, 0.1)  # as a search may propose them
            for place, (model, hidden, dim) in enumerate(kinds)
        ]
        return ResultTable.read(write_experiment(path / "sweep", combinations, axes=AXES))

    def test_are_averaged_over_the_combinations_to_which_they_apply_in_the_order_of_the_script(self, tmp_path):
        found = shown(self.table(tmp_path))
        assert [row[:2] for row in found.rows] == [
            *(["model", "mlp"], ["model", "gnn"], ["hidden_dims", "[8]"], ["hidden_dims", "[16]"]),
            *(["dim", "4"], ["dim", "8"], ["lr", "0.1"], ["lr", "0.01"]),
        ]
        assert [row[2] for row in found.rows] == [
            *("10.61", "12.61", "10.11", "11.11", "12.11", "13.11", "11.65", "11.56"),
        ]
        said = " ".join(text_of(self.table(tmp_path)).split())
        assert "If other options depend on a value, its mean covers all of their values." in said

    def test_have_only_interactions_with_options_that_vary_together_with_them(self, tmp_path):
        found = shown(self.table(tmp_path), interactions=True)
        assert {tuple(row[:2]) for row in found.rows} == {("model", "lr"), ("hidden_dims", "lr"), ("dim", "lr")}
        assert "–" not in itertools.chain(*found.rows)

    def test_of_which_trials_are_missing_say_what_means_are_over(self, tmp_path):
        text = text_of(self.table(tmp_path, lost=[("[16]", 0.1)]))
        over = (
            "1 of 2 values of lr (0.01), each with all values of hidden_dims and dim that apply, in all 2 repetitions"
        )
        assert f"model: over {over}." in text
        assert "hidden_dims: over 1 of 2 values of lr (0.01), in all 2 repetitions." in text

    def test_that_nothing_has_finished_with_say_why_there_is_no_mean(self, tmp_path):
        table = self.table(tmp_path, lost=list(itertools.product(["[8]", "[16]"], [0.1, 0.01])))
        assert "hidden_dims: no mean, because no trial has finished where it applies." in text_of(table)
        rows = json.loads(export_effects(table, "json", TableOptions(), interactions=False))
        assert [row["averaged_over"] for row in rows if row["option"] == HIDDEN] == [None, None]


class TestAnError:
    def test_is_an_experiment_without_options(self, tmp_path):
        table = results(tmp_path / "sweep", {"a": ({"x": 1}, [9.0])}, name="sweep")
        with pytest.raises(ChoiceError, match=r"^sweep has no effects of options: no option has more than one value$"):
            effects_of(table, TableOptions())

    def test_is_one_whose_combinations_are_each_on_data_of_their_own(self, tmp_path):
        combinations = {name: ({TEST_SET: name}, [9.0]) for name in ("easy", "hard")}
        table = results(tmp_path / "sweep", combinations, name="sweep")
        with pytest.raises(ChoiceError, match=r"no option has more than one value on the same data$"):
            effects_of(table, TableOptions())
        assert len(effects_of(table, TableOptions(split="val"))) == 1

    @pytest.mark.parametrize("outcome", ["failed", "diverged", None])
    def test_is_one_of_which_no_trial_has_finished(self, tmp_path, outcome):
        table = results(tmp_path / "sweep", {"a": ({"x": 1}, [outcome]), "b": ({"x": 2}, [outcome])}, name="sweep")
        with pytest.raises(ChoiceError, match=r"^sweep has no effects of options: no trial has finished with this"):
            effects_of(table, TableOptions())

    def test_is_no_data_of_which_nothing_has_finished_beside_another(self, tmp_path):
        combinations = {
            f"{name}{lr}": ({TEST_SET: name, LR: lr}, [outcome])
            for name, outcome in (("easy", 9.0), ("hard", "failed"))
            for lr in (1, 2)
        }
        table = results(tmp_path / "sweep", combinations, name="sweep")
        assert [of_data.data for of_data in effects_of(table, TableOptions())] == ["easy"]
        assert {row[0] for row in shown(table).rows} == {"easy"}
        assert "easy" in text_of(table)

    def test_is_a_split_that_there_is_not(self, tmp_path):
        table = results(tmp_path / "sweep", {"a": ({"x": 1}, [9.0]), "b": ({"x": 2}, [8.0])}, test_set=None)
        with pytest.raises(ChoiceError, match=r"^there is no split 'test'"):
            effects_of(table, TableOptions(split="test"))


def test_a_name_with_signs_of_markdown_stays_text(tmp_path):
    combinations = {"a": ({"x": "a|b"}, [9.0]), "b": ({"x": "*c*"}, [8.0])}
    text = export_effects(results(tmp_path / "sweep", combinations), "md", TableOptions(), interactions=False).decode()
    assert [row[1] for row in markdown_rows(text)[1:]] == ["a|b", "*c*"]
