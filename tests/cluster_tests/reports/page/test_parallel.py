import itertools

import pytest

from cluster.reports.page.data import PageData
from cluster.reports.page.parallel import parallel_coordinates
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.reports.page.test_page import HOSTILE, Document

LR, DROPOUT, MODEL = "optimizer_args.lr", "model_args.dropout", "model"


def plots(folder):
    found = list(parallel_coordinates(PageData.read(folder)))
    return Document("".join(found)).data("axes-data") if found else []


@pytest.fixture
def axes(tmp_path):
    grid = itertools.product([1e-2, 1e-4, 1e-3], [0.5, 0.0], ["mlp", "gnn"])
    combinations = [({LR: lr, DROPOUT: p, MODEL: m}, [9.0 + 10 * lr + p + (m == "gnn") * 3]) for lr, p, m in grid]
    combinations[0] = (combinations[0][0], ["ValueError"])
    (plot,) = plots(write_experiment(tmp_path / "sweep", combinations))
    return {axis["name"]: axis for axis in plot["axes"]}


def test_there_is_an_axis_for_each_option_and_each_result(axes):
    assert list(axes) == ["lr", "dropout", "model", "validation, mm", "test, mm"]


def test_axes_of_numbers_are_sorted_and_logarithmic_over_decades(axes):
    assert (axes["lr"]["values"], axes["lr"]["log"]) == ([1e-4, 1e-3, 1e-2], True)
    assert (axes["dropout"]["values"], axes["dropout"]["log"]) == ([0.0, 0.5], False)


def test_other_options_have_their_values_in_the_order_of_the_plan(axes):
    assert (axes["model"]["texts"], axes["model"]["values"]) == (["mlp", "gnn"], None)


def test_lines_are_in_the_order_of_the_table_with_their_results(axes):
    val, test = axes["validation, mm"]["results"], axes["test, mm"]["results"]
    assert val[:-1] == sorted(val[:-1])
    assert val[-1] is test[-1] is None
    assert [round(b - a, 3) for a, b in zip(val[:-1], test[:-1], strict=True)] == [1.0] * 11
    first = {name: axes[name]["texts"][axes[name]["places"][0]] for name in ("lr", "dropout", "model")}
    assert first == {"lr": "0.0001", "dropout": "0", "model": "mlp"}


def test_mixed_values_are_no_axis_of_numbers(tmp_path):
    values = [1, True, 1.0, "1"]
    folder = write_experiment(tmp_path / "s", [({LR: v, MODEL: m}, [9.0]) for v in values for m in "ab"])
    axis = plots(folder)[0]["axes"][0]
    assert axis["values"] is None
    assert len(set(axis["texts"])) == 4


def test_each_data_set_has_its_own_plot(tmp_path):
    path = "experiment_config.test_set"
    grid = itertools.product(["one", "two"], [1, 2], ["a", "b"])
    combinations = [({path: s, LR: lr, MODEL: m}, [9.0 + lr]) for s, lr, m in grid]
    found = plots(write_experiment(tmp_path / "s", combinations))
    assert [(plot["first"], plot["n"]) for plot in found] == [(0, 4), (4, 4)]
    assert {plot["name"] for plot in found} == {"one", "two"}
    assert [axis["name"] for axis in found[0]["axes"]] == ["lr", "model", "validation, mm", "test, mm"]


@pytest.mark.parametrize(
    "combinations", [[({LR: 1}, [9.0]), ({LR: 2}, [9.5])], [({LR: i, MODEL: i}, [None]) for i in range(3)]]
)
def test_one_option_or_no_results_have_no_plot(tmp_path, combinations):
    assert plots(write_experiment(tmp_path / "s", combinations)) == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_stay_text(tmp_path, hostile):
    combinations = [({hostile: i, "b": hostile if j else "y"}, [9.0 + i + j]) for i in range(2) for j in range(2)]
    (plot,) = plots(write_experiment(tmp_path / "s", combinations))
    assert plot["axes"][0]["name"] == hostile
