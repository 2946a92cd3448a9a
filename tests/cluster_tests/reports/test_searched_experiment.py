"""The reports of an experiment whose combinations a search has proposed, of a range and of options with a condition."""

import json

import pytest

from cluster.reports.draw import FigureError, FigureOptions, draw
from cluster.reports.page.data import PageData
from cluster.reports.page.page import page
from cluster.reports.page.sections import configuration
from cluster.reports.page.sentences import name_of
from cluster.reports.tables.effects import effects_of
from cluster.reports.tables.pivot import PivotTable
from cluster.reports.tables.summary import summary_text
from cluster.reports.tables.table_options import TableOptions
from cluster.reports.terminal.overview import experiment_status, statuses_text
from cluster.result_table import ResultTable
from cluster.results.names import ChoiceError
from cluster.results.results import NoResultsError
from tests.cluster_tests.experiment_files import write_experiment, write_records
from tests.cluster_tests.small_experiment import LR

DIM = "model_args.dim"
AXES = [
    {"paths": ["model"], "rows": [["CorrectorMLP"], ["CorrectorLCN"]]},
    {"paths": [DIM], "rows": [[4], [8]], "labels": ["small", "large"], "when": [[0, [1]]]},
    {"paths": [LR], "range": {"low": 1e-4, "high": 0.1, "log": True, "integer": False, "step": None}},
]
COMBINATIONS = [
    ({"model": "CorrectorMLP", DIM: "–", LR: 0.01234}, [9.0, 9.2]),
    ({"model": "CorrectorLCN", DIM: 8, LR: 0.0005}, [8.0, 8.1]),
    ({"model": "CorrectorLCN", DIM: 4, LR: 0.003}, [8.5, 8.4]),
]


@pytest.fixture
def folder(tmp_path):
    folder = write_experiment(tmp_path / "searched", COMBINATIONS, axes=AXES)
    for place in range(len(COMBINATIONS)):
        for repetition in range(2):
            write_records(folder, f"{place:016x}/{repetition}", [14.0, 11.0, 9.0 + place])
    return folder


@pytest.fixture
def table(folder):
    return ResultTable.read(folder)


def test_the_table_shows_the_values_of_ranges_and_where_an_option_does_not_apply(table):
    assert table.ranges == [LR]
    lines = [line.split() for line in summary_text(table).splitlines() if line.startswith("Corrector")]
    assert [line[:3] for line in lines] == [
        ["CorrectorLCN", "large", "0.0005"],
        ["CorrectorLCN", "small", "0.003"],
        ["CorrectorMLP", "–", "0.01234"],
    ]


def test_a_sentence_names_only_the_options_that_apply(table):
    assert [name_of(table, row) for row in table.summary] == [
        "model CorrectorLCN with dim large and lr 0.0005",
        "model CorrectorLCN with dim small and lr 0.003",
        "model CorrectorMLP with lr 0.01234",
    ]


def test_a_search_with_combinations_left_to_propose_is_unfinished(table, folder):
    assert experiment_status(folder, "searched").state == "complete"
    path = folder.storage.local / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_not_proposed": 57}))
    assert experiment_status(folder, "searched").state == "unfinished"
    assert "The search has not proposed 57 combinations yet." in summary_text(ResultTable.read(folder))
    status = experiment_status(folder, "searched")
    assert status.not_proposed == 57
    assert "6/6, 57 to propose" in statuses_text([status])


def test_there_are_no_effects_and_a_sentence_says_why(table, folder):
    sentence = "A search drew lr from a range, so the values of an option were not trained with the same other settings"
    with pytest.raises(ChoiceError, match=f"searched has no effects of options. {sentence}"):
        effects_of(table, TableOptions())


def test_the_page_has_errors_along_ranges_instead_of_effects(table, folder):
    shown = page(folder, table)
    assert "Errors along ranges and options" in shown
    assert "What each option does" not in shown


def test_the_configuration_shows_ranges_and_where_an_option_applies(folder):
    shown = configuration(PageData.read(folder))
    assert "<td>0.0001 to 0.1 (log)</td>" in shown
    assert "<td>4; 8 (only for model CorrectorLCN)</td>" in shown


def test_a_range_spans_neither_a_pivot_table_nor_a_heat_map(table):
    with pytest.raises(ChoiceError, match="a search drew"):
        PivotTable(table, TableOptions(), "lr", "model")
    with pytest.raises(FigureError, match="a heat map needs two options, --rows and --columns"):
        draw("heatmap", table.where(lambda row: row[DIM] != "–"), FigureOptions())


@pytest.mark.parametrize(
    ("axis", "problem"),
    [
        ({"paths": [LR]}, "options has neither rows nor a range"),
        ({"paths": [LR, DIM], "range": {"low": 0, "high": 1}}, "options has neither rows nor a range"),
        ({"paths": [LR], "range": {"low": "a", "high": 1}}, "options.* is not valid"),
        (
            {"paths": [LR], "range": {"low": 1e-4, "high": 0.1}, "when": [[2, [0]]]},
            "options has a condition of .* on an option that does not come before",
        ),
    ],
)
def test_a_description_with_a_broken_range_is_broken(folder, axis, problem):
    path = folder.storage.local / "experiment.json"
    content = json.loads(path.read_text())
    content["options"][2] = axis
    path.write_text(json.dumps(content))
    with pytest.raises(NoResultsError, match=problem):
        ResultTable.read(folder)
