"""Results of an earlier version are found: that version ran `made_by_0_4_0/sweep.py`."""

import runpy
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.results import Results
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder

MADE = Path(__file__).parent / "made_by_0_4_0"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A copy of the results with their data and script; it is the current folder."""
    monkeypatch.chdir(shutil.copytree(MADE, tmp_path / "made"))
    return Path("results/every_family")


def trial_files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("trials/*/*/*")}


class TestResultsOfVersion040:
    def test_are_all_finished_for_their_script_which_trains_nothing(self, made, capsys):
        before = trial_files(made)
        runpy.run_path("sweep.py", run_name="__main__")
        assert "12 trials: 12 finished\n" in capsys.readouterr().err
        assert trial_files(made) == before

    def test_give_the_table_that_was_written_with_them_and_nothing_for_newer_metrics(self, made):
        table = Results.read(ExperimentFolder(Storage(made)))
        for row, written in zip(
            table.trials, pq.read_table(made / "tables" / "trials.parquet").to_pylist(), strict=True
        ):
            newer = {name: value for name, value in row.items() if "aligned_distance" in name}
            assert row == {**written, **newer}
            assert newer
            assert set(newer.values()) == {None}

    def test_are_shown_with_a_dash_for_newer_metrics(self, made):
        text = ResultTable.read(ExperimentFolder(Storage(made))).to_md(
            TableOptions(columns=["key", "val_aligned_distance_mm"])
        )
        rows = [line for line in text.splitlines() if line.startswith("|")][2:]
        assert len(rows) == 6
        assert all(line.split("|")[2].strip() == "–" for line in rows)
