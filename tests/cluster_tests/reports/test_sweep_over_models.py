"""A sweep over models: `model` and `model_args` vary together, each with several arguments."""

import pytest

from cluster.reports.draw import FigureOptions, draw
from cluster.reports.formats.terminal import terminal
from cluster.reports.page.data import PageData
from cluster.reports.page.page import page
from cluster.reports.page.sentences import findings
from cluster.reports.tables.combinations import CombinationTable
from cluster.reports.tables.effects import MeanTable, effects_of
from cluster.reports.tables.summary import summary_markdown, summary_text
from cluster.reports.tables.table_options import TableOptions
from cluster.reports.terminal.comparison import compare_experiments
from cluster.reports.terminal.comparison_text import experiments_text
from cluster.reports.terminal.trial_logs import curves_text
from cluster.result_table import ResultTable
from cluster.results.results import Results
from tests.cluster_tests.experiment_files import write_experiment, write_records
from tests.cluster_tests.small_experiment import LR

SHARED = "activation: 'leaky_relu', dropout: 0.1, batchnorm: False"
ROWS = [
    ["CorrectorMLP", f"{{hidden_dims: [64, 64], {SHARED}}}"],
    ["CorrectorMLP", f"{{hidden_dims: [256, 256, 256], {SHARED}}}"],
    ["CorrectorLCN", "{dim: 8, n_blocks: 1, reach: 1, dropout: 0.1}"],
    ["CorrectorTransformer", "{dim: 16, n_layers: 1, n_heads: 2, feedforward_dim: 32, dropout: 0.1}"],
]
DERIVED = [
    *("CorrectorMLP (hidden_dims=[64, 64])", "CorrectorMLP (hidden_dims=[256, 256, 256])"),
    *("CorrectorLCN", "CorrectorTransformer"),
]
GIVEN = ["small MLP", "large MLP", "LCN", "transformer"]
RATES = [0.001, 0.003]


def folder_of(path, labels=None):
    axes = [{"paths": ["model", "model_args"], "rows": ROWS}, {"paths": [LR], "rows": [[lr] for lr in RATES]}]
    if labels is not None:
        axes[0]["labels"] = labels
    combinations = [
        ({"model": model, "model_args": arguments, LR: lr}, [9.0 + place + 100 * lr, 9.1 + place + 100 * lr])
        for place, (model, arguments) in enumerate(ROWS)
        for lr in RATES
    ]
    folder = write_experiment(path / "models", combinations, axes=axes)
    for place in range(len(combinations)):
        for repetition in range(2):
            write_records(folder, f"{place:016x}/{repetition}", [14.0, 11.0, 9.0 + place])
    return folder


@pytest.fixture(params=[None, GIVEN], ids=["derived", "given"])
def labels(request):
    return request.param


@pytest.fixture
def folder(tmp_path, labels):
    return folder_of(tmp_path, labels)


@pytest.fixture
def table(folder):
    return ResultTable.read(folder)


@pytest.fixture
def shown(labels):
    """The labels that outputs show."""
    return labels or DERIVED


@pytest.mark.parametrize("width", [80, 100, 120])
class TestATableInATerminal:
    def test_is_not_wider_than_the_terminal_and_has_a_row_for_each_combination(self, table, width):
        lines = summary_text(table, with_keys=True, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert sum(line.startswith("0000") for line in lines) == 8

    def test_of_effects_too(self, table, width, monkeypatch):
        monkeypatch.setenv("COLUMNS", str(width))
        effects = effects_of(table, TableOptions())
        lines = terminal(MeanTable(table, effects, TableOptions()).grid()).splitlines()
        assert max(map(len, lines)) <= width


def test_a_terminal_too_narrow_for_both_sets_shows_the_test_set_and_says_so(table):
    text = summary_text(table, width=80)
    assert "A terminal of 80 columns is too narrow for validation." in text
    assert "too narrow" not in summary_text(table)


def test_every_table_for_readers_has_the_label_instead_of_the_settings(table, shown):
    best = CombinationTable(table, TableOptions()).grid()
    for text in (
        summary_markdown(table),
        table.to_md(),
        table.to_html(),
        " ".join(c.text for r in best.rows for c in r),
    ):
        for label in shown:
            assert label in text.replace("\\", "")  # of Markdown
        assert "n_blocks" not in text
        assert "leaky_relu" not in text
    assert best.headers[:2] == ["model", "lr"]


def test_tables_for_programs_have_the_label_and_all_settings(table, shown):
    first = table.summary[0]
    assert first["model label"] == shown[0]
    assert [first["model"], first["model_args"]] == ROWS[0]
    assert table.to_csv().splitlines()[0].startswith(f"key,model,model_args,model label,{LR},")


def test_columns_of_arguments_have_only_those_that_differ(table):
    rows = CombinationTable(table, TableOptions(columns=("model_args",))).grid().rows
    assert rows[0][0].text.startswith("hidden_dims=[64, 64], activation=")
    assert "dropout" not in rows[0][0].text


def test_effects_do_not_cross_settings_that_vary_together(table, shown):
    (effects,) = effects_of(table, TableOptions())
    assert list(effects.means) == ["model label", LR]
    assert [cell.values[0] for cell in effects.means["model label"].groups] == shown
    assert {cell.n_averaged for cell in effects.means["model label"].groups} == {4}
    assert effects.importances.is_complete


@pytest.mark.usefixtures("without_pictures")
def test_the_report_names_the_best_by_its_label(folder, shown):
    assert findings(PageData.read(folder))[0].startswith(f"model {shown[0]} with lr 0.001 is best")
    assert "leaky_relu" not in page(folder).partition('id="configuration"')[0].partition("combinations-data")[0]


def test_no_two_learning_curves_have_the_same_label(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    drawn = draw("curves", Results.read(folder), FigureOptions(combinations=[f"{place:016x}" for place in range(8)]))
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert len(set(legend)) == len(legend) == 8
    in_terminal = [
        line for line in curves_text(Results.read(folder), (), in_colour=False).splitlines() if "(n = 2)" in line
    ]
    assert len({line.partition("  ")[2] for line in in_terminal}) == len(in_terminal) == 6


def test_two_sweeps_are_compared_by_the_labels_of_the_first(tmp_path, folder, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (found,) = compare_experiments(
        *(Results.read(folder), [Results.read(folder_of(tmp_path / "other", ["a", "b", "c", "d"]))])
    )
    assert [pair.options["model label"] for pair in found.pairs[::2]] == shown
    table = experiments_text(found).partition("Mean distance")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "leaky_relu" not in table
