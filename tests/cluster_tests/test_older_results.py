"""Results of an earlier version are read and recognised: that version ran `made_by_0_4_0/sweep.py`."""

import runpy
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.planning import combination_checks
from cluster.reports.page.page import page
from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable
from cluster.results.groups import read_groups
from cluster.results.names import ChoiceError
from cluster.results.results import Results
from cluster.results.settings_text import settings_of
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from tests.cluster_tests.results_files import experiment_json

MADE = Path(__file__).parent / "made_by_0_4_0"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A copy of the results with their data and script; it is the current folder."""
    monkeypatch.chdir(shutil.copytree(MADE, tmp_path / "made"))
    return Path("results/every_family")


def trial_files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("trials/*/*/*")}


@pytest.fixture
def numbers_of_0_4_0(monkeypatch):
    """As if trainings still gave the numbers of version 0.4.0."""
    monkeypatch.setattr(combination_checks, "NUMERICS", 4)


class TestResultsOfVersion040:
    def test_are_trained_again_since_their_numbers_differ_and_the_plan_says_so(self, made, capsys):
        before = trial_files(made)
        runpy.run_path("sweep.py", run_name="__main__")
        said = capsys.readouterr().err
        assert "12 trials: 12 to train\n" in said
        assert "warning: 12 trials from PoseTune 0.4.0" in said
        assert trial_files(made).items() > before.items()

    @pytest.mark.usefixtures("numbers_of_0_4_0")
    def test_are_otherwise_all_finished_for_their_script_which_trains_nothing(self, made, capsys):
        before = trial_files(made)
        runpy.run_path("sweep.py", run_name="__main__")
        assert "12 trials: 12 finished\n" in capsys.readouterr().err
        assert trial_files(made) == before

    @pytest.mark.usefixtures("numbers_of_0_4_0")
    def test_keep_what_version_0_4_0_recorded_when_a_script_runs_that_trains_nothing(self, made):
        folder = ExperimentFolder(Storage(made))
        runpy.run_path("sweep.py", run_name="__main__")
        assert "versions" not in experiment_json(folder)
        table = Results.read(folder)
        runs = [run for of_trial in table.trained_by(table.summary).values() for run in of_trial]
        assert len(runs) == 12
        assert {(run.versions["posetune"], run.versions["torch"]) for run in runs} == {("0.4.0", "2.13.0+cpu")}
        assert "python sweep.py" in page(folder)

    def test_give_the_table_that_was_written_with_them_and_nothing_for_newer_metrics(self, made):
        table = Results.read(ExperimentFolder(Storage(made)))
        written = pq.read_table(made / "tables" / "trials.parquet").to_pylist()
        assert [{name: row[name] for name in written[0]} for row in table.trials] == written
        newer = table.trials[0].keys() - written[0].keys() - {"model label"}
        assert {row[name] for row in table.trials for name in newer} == {None}

    def test_have_settings_by_the_names_of_their_script(self, made):
        folder = ExperimentFolder(Storage(made))
        configs = dict(folder.read_experiment().configs)
        hyperparams = configs.pop("base_hyperparams")
        known = [*hyperparams, *(f"{section}.{key}" for section, config in configs.items() for key in config)]
        for settings in folder.read_trials(lambda trial: settings_of(trial.description)).values():
            others = {
                path.partition(".")[0]
                for path in settings
                if not any(f"{path}.".startswith(f"{name}.") for name in known)
            }
            assert others <= {"data", "numerics", "tables"}

    def test_are_shown_with_a_dash_for_newer_metrics(self, made):
        text = ResultTable.read(ExperimentFolder(Storage(made))).to_md(
            TableOptions(columns=["key", "val_aligned_distance_mm"])
        )
        rows = [line for line in text.splitlines() if line.startswith("|")][2:]
        assert len(rows) == 6
        assert all(line.split("|")[2].strip() == "–" for line in rows)

    def test_have_errors_by_subset_finger_and_joint(self, made):
        folder = ExperimentFolder(Storage(made))
        table = Results.read(folder)
        for by, first in (("subset", ["mean", "A", "B"]), ("finger", ["all", "thumb"]), ("joint", ["all", "W"])):
            groups = read_groups(folder, table, table.summary[0], by, split="test")
            assert [group.name for group in groups[: len(first)]] == first
            assert all(None not in (*group.before, *group.after) for group in groups)
        with pytest.raises(ChoiceError, match="an older version of PoseTune trained them"):
            read_groups(folder, table, table.summary[0], "subject", split="test")
