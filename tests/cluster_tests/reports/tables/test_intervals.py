"""Tables whose changes have intervals over frames."""

import csv
import io
import re

import numpy as np
import pytest

from cluster.reports.tables.export import export, export_groups
from cluster.reports.tables.summary import summary_records, summary_text
from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.change_intervals import change_intervals
from cluster.results.names import ChoiceError
from cluster.storage.frame_errors import FrameErrors
from data_pipeline.frame_table import FrameTable
from tests.cluster_tests.reports.tables.read_tables import HtmlTable, markdown_rows
from tests.cluster_tests.results_files import write_results

FRAMES = FrameTable.of(sequence=["s"] * 100 + ["t"] * 60, index=[*range(100), *range(60)], subject=["Ann"] * 160)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The better combination has kept the errors of its frames: 20 mm before, about 14 mm after."""
    folder = write_results(
        tmp_path_factory.mktemp("sweep"), {"a": ({"x": 1}, [14.0, 14.0]), "b": ({"x": 2}, [15.0, 15.0])}
    )
    rng = np.random.default_rng(0)
    for repetition in range(2):
        by_subset = {name: (np.full(160, 20.0), rng.normal(14, 2, 160)) for name in ("A", "B")}
        folder.trial(f"a/{repetition}").write("frames.parquet", FrameErrors(by_subset, FRAMES).to_parquet())
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return ResultTable.read(folder)


@pytest.fixture(scope="module")
def known(table):
    return change_intervals(table, table.summary[0], "test")


def text(interval, digits, minus="-"):
    return f"[{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]".replace("-", minus)


def test_show_them_behind_the_change_and_say_in_a_sentence_what_they_are(table, known):
    shown = HtmlTable(table.to_html(TableOptions(intervals=True)))
    assert [row[-1] for row in shown.rows] == [f"−30.0 {text(known.percent, 1, minus='−')}", "−25.0"]
    assert "In brackets: 95 % interval of the change over frames" in shown.caption
    assert "1 combination has no interval" in shown.foot
    columns = ("x", "change", "before")
    assert markdown_rows(table.to_md(TableOptions(intervals=True, columns=columns)))[1][1] == (
        f"-6.00 {text(known.mm, 2)}"
    )


def test_are_not_explained_if_there_are_none_but_missed(tmp_path):
    folder = write_results(tmp_path, {"a": ({"x": 1}, [14.0, 14.0])})
    shown = HtmlTable(ResultTable.read(folder).to_html(TableOptions(intervals=True)))
    assert "In brackets" not in shown.caption
    assert "1 combination has no interval: it needs frames for at least two blocks" in shown.foot


def test_do_not_mention_them_without_a_change_or_if_they_are_not_asked_for(table):
    for table_options in (TableOptions(), TableOptions(intervals=True, columns=("x", "after"))):
        shown = table.to_html(table_options)
        assert "interval" not in shown


def test_have_them_as_numbers_in_latex(table, known):
    assert f"$-30.0\\ {text(known.percent, 1)}$ \\\\" in table.to_latex(TableOptions(intervals=True))


def test_have_their_ends_in_columns_for_programs(table, known):
    first, second = csv.DictReader(io.StringIO(table.to_csv(TableOptions(intervals=True))))
    assert float(first["test_distance_change_percent_ci_low"]) == known.percent.low
    assert float(first["test_distance_change_mm_ci_high"]) == known.mm.high
    assert second["test_distance_change_mm_ci_low"] == ""
    assert "test_distance_change_mm_ci_low" not in table.to_csv()
    assert export(table, "xlsx", TableOptions(intervals=True))


def test_of_a_terminal_have_them_on_the_reported_split(table, known):
    intervals = {"a": known, "b": None}
    low, high = (f"{end:+.1f}".replace("-", "−") for end in (known.percent.low, known.percent.high))
    shown = " ".join(summary_text(table, intervals=intervals).split())
    assert re.findall(r"\S+ % \[.*?\]", shown) == [f"−30.0 % [{low}, {high}]"]
    assert "In brackets: 95 % interval" in shown
    first, second = summary_records(table, intervals)
    assert (first["test_change_mm_ci_low"], second["test_change_mm_ci_low"]) == (known.mm.low, None)
    assert "interval" not in summary_text(table)


@pytest.mark.parametrize(("by", "n_groups"), [("sequence", 2), ("subject", 1)])
def test_of_groups_have_them_for_each_group(folder, table, known, by, n_groups):
    content = export_groups(folder, table, by, "html", TableOptions(intervals=True)).decode()
    shown = HtmlTable(content)
    assert len(shown.rows) == 1 + n_groups
    assert all(re.fullmatch(r"−\S+ \[−\S+, −\S+\]", cell) for row in shown.rows for cell in row[-2:])
    assert shown.rows[0][-2].endswith(text(known.mm, 2, minus="−"))
    assert "In brackets" in shown.caption
    records = export_groups(folder, table, by, "csv", TableOptions(intervals=True)).decode()
    assert float(next(csv.DictReader(io.StringIO(records)))["test_distance_change_mm_ci_low"]) == known.mm.low


def test_of_other_metrics_or_of_parts_of_a_frame_have_none_and_say_so(folder, table):
    with pytest.raises(ChoiceError, match="only changes of the distance have intervals"):
        TableOptions(intervals=True, metric="max_distance")
    with pytest.raises(ChoiceError, match="means over the joints"):
        export_groups(folder, table, "joint", "md", TableOptions(intervals=True))
