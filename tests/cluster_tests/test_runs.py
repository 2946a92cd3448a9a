"""Which runs trained a trial, and what they recorded."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from cluster.executors import ray_worker
from cluster.experiment import TrialsFailedError
from cluster.planning import combination_checks
from cluster.provenance import provenance
from cluster.reports.page.page import page
from cluster.reports.tables.summary import summary_text
from cluster.reports.trackers.runs import ExperimentRuns
from cluster.reproduction import reproduce
from cluster.result_table import ResultTable
from cluster.results.results import Results
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.trial import trainable
from cluster.trial.trainable import run_trial
from posenet.solver import Solver
from tests.cluster_tests.small_experiment import LR, FailingMLP


def folder_of(small_experiment):
    return ExperimentFolder(Storage(small_experiment.folder))


def runs_of_trials(folder):
    return folder.read_trials(lambda trial: trial.runs)


def as_if_trained_by(folder, torch=None, posetune=None):
    """Changes the versions in the file of the only run; returns its id."""
    ((run_id, run),) = folder.read_runs().items()
    changed = {name: value for name, value in {"torch": torch, "posetune": posetune}.items() if value is not None}
    folder.write_run(run_id, replace(run, versions={**run.versions, **changed}))
    return run_id


def json_files(folder):
    """Returns the files of runs and trials."""
    paths = [path for part in ("runs", "trials") for path in (folder.storage.local / part).rglob("*.json")]
    return {path: path.read_bytes() for path in paths}


def without_record(folder):
    """Removes what the runs recorded."""
    shutil.rmtree(folder.storage.local / "runs")


def words(folder):
    return " ".join(page(folder).split())


pytestmark = pytest.mark.usefixtures("without_pictures")

TORCH = provenance().versions["torch"]


class TestARun:
    def test_records_what_produces_its_trials(self, small_experiment, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["my_sweep.py", "--token", "secret"])
        small_experiment.run({}, {LR: [1e-3, 1e-2]})
        folder = folder_of(small_experiment)
        ((run_id, run),) = folder.read_runs().items()
        now = provenance()
        assert replace(run, started=now.started) == now
        assert 0 <= now.started - run.started < 3600
        assert list(run.command) == ["my_sweep.py", "--token", "***"]
        assert set(runs_of_trials(folder).values()) == {(run_id,)}

    def test_that_trains_nothing_changes_no_record(self, finished_experiment, monkeypatch):
        folder = folder_of(finished_experiment)
        before = json_files(folder)
        monkeypatch.setattr(sys, "argv", ["another_script.py"])
        finished_experiment.run({}, {LR: [1e-3, 1e-2]})
        finished_experiment.run({}, {LR: [1e-2]})
        assert json_files(folder) == before
        assert "another_script.py" not in page(folder)

    def test_that_adds_trials_leaves_the_record_of_the_others(self, finished_experiment):
        folder = folder_of(finished_experiment)
        before, ((first, recorded),) = runs_of_trials(folder), folder.read_runs().items()
        finished_experiment.run({"experiment_config.n_repetitions": 2}, {LR: [1e-3, 1e-2]})
        after, runs = runs_of_trials(folder), folder.read_runs()
        assert runs[first] == recorded
        (second,) = runs.keys() - {first}
        assert {trial_id: after[trial_id] for trial_id in before} == before
        assert {after[trial_id] for trial_id in after.keys() - before.keys()} == {(second,)}
        assert ResultTable.read(folder).started == runs[second].started

    def test_is_recorded_before_its_first_trial(self, small_experiment):
        with pytest.raises(TrialsFailedError):
            small_experiment.run({"base_hyperparams.model": FailingMLP})
        folder = folder_of(small_experiment)
        ((run_id,),) = runs_of_trials(folder).values()
        assert run_id in folder.read_runs()


class TestATrial:
    def test_that_a_second_run_continued_names_both(self, small_experiment):
        trial, data, folder = small_experiment.trial({"solver_config.num_epochs": 4})
        *_, last = run_trial(trial, data, folder, lambda: True)
        assert last.status == "interrupted"
        for _ in range(2):  # a worker that was lost starts again in the same run
            list(run_trial(replace(trial, run_id="beef"), data, folder, lambda: True))
        assert folder.read_trial().runs == (trial.run_id, "beef")

    def test_that_starts_from_the_beginning_names_only_the_last_run(self, small_experiment):
        trial, data, folder = small_experiment.trial()
        list(run_trial(trial, data, folder, lambda: True))
        folder.write("checkpoint.pt", b"broken")
        list(run_trial(replace(trial, run_id="beef"), data, folder))
        assert folder.read_trial().runs == ("beef",)

    def test_that_could_not_be_continued_still_names_the_run_whose_checkpoint_it_keeps(
        self, small_experiment, monkeypatch
    ):
        trial, data, folder = small_experiment.trial({"solver_config.num_epochs": 3})
        list(run_trial(trial, data, folder, lambda: True))

        def fail(*arguments, **named):
            raise torch.OutOfMemoryError("CUDA out of memory")

        for place in ((trainable, "current_gpu"), (Solver, "load_state_dict")):
            with monkeypatch.context() as patch:
                patch.setattr(*place, fail)
                *_, last = run_trial(replace(trial, run_id="dead"), data, folder)
                assert last.status == "failed"
        *_, last = run_trial(replace(trial, run_id="beef"), data, folder)
        assert last.status == "finished"
        assert folder.read_trial().runs == (trial.run_id, "dead", "beef")

    def test_that_is_continued_is_recorded_with_its_epochs_before_the_next_one(self, small_experiment):
        trial, data, folder = small_experiment.trial({"solver_config.num_epochs": 3})
        list(run_trial(trial, data, folder, lambda: True))
        before = folder.read_trial()
        next(run_trial(trial, data, folder))
        assert (folder.read_trial().epochs, folder.read_trial().started) == (1, before.started)

    def test_whose_worker_was_lost_before_it_began_names_the_run_and_has_no_older_traceback(self, small_experiment):
        trial, data, folder = small_experiment.trial({"base_hyperparams.model": FailingMLP})
        list(run_trial(trial, data, folder))
        assert folder.read_trial().traceback
        ray_worker.fail(trial.id, folder, "beef", "its worker was lost")
        content = folder.read_trial()
        assert (content.runs, content.error) == ((trial.run_id, "beef"), "its worker was lost")
        assert content.traceback is None


class TestTrialsOfDifferentVersions:
    @pytest.fixture
    def mixed(self, finished_experiment):
        """Two trials of another version of torch, and two of this one."""
        folder = folder_of(finished_experiment)
        as_if_trained_by(folder, torch="1.0")
        finished_experiment.run({"experiment_config.n_repetitions": 2}, {LR: [1e-3, 1e-2]})
        return folder

    def test_are_told_in_every_table_and_on_the_page(self, mixed):
        table, sentence = ResultTable.read(mixed), f"Different versions trained these trials: torch 1.0 and {TORCH}."
        for text in (summary_text(table), table.to_md(), table.to_html(), words(mixed)):
            assert sentence in " ".join(text.split())
        assert sentence not in table.to_csv()

    def test_are_not_told_if_all_are_of_one(self, finished_experiment):
        text = summary_text(ResultTable.read(folder_of(finished_experiment)))
        assert "versions" not in text

    def test_are_told_if_some_were_not_recorded(self, finished_experiment):
        folder = folder_of(finished_experiment)
        without_record(folder)
        assert "versions" not in summary_text(ResultTable.read(folder))
        finished_experiment.run({"experiment_config.n_repetitions": 2}, {LR: [1e-3, 1e-2]})
        text = "Which versions trained 2 of 4 trials was not recorded."
        assert text in summary_text(ResultTable.read(folder))

    def test_are_exported_each_with_its_own(self, mixed):
        runs = list(ExperimentRuns.of(Results.read(mixed)).runs())
        found = {run.trial_id.rpartition("/")[2]: run.facts["versions.torch"] for run in runs}
        assert found == {"0": "1.0", "1": TORCH}

    def test_are_compared_with_this_version_when_one_is_trained_again(self, mixed):
        (first, *_) = ResultTable.read(mixed).trials
        changed = [reproduce(mixed, f"{first['key']}/{repetition}").changed for repetition in (0, 1)]
        assert changed == [{"torch": ("1.0", TORCH)}, {}]

    def test_are_told_before_the_training(self, finished_experiment):
        as_if_trained_by(folder_of(finished_experiment), torch="1.0")
        more = finished_experiment.experiment({"experiment_config.n_repetitions": 2}, {LR: [1e-3, 1e-2]}).plan()
        assert (
            "warning: 2 trials were trained with other versions, and what is trained now would be mixed with them "
            f"(torch 1.0 and {TORCH}); the tables will say so"
        ) in str(more)
        assert finished_experiment.experiment({}, {LR: [1e-3, 1e-2]}).plan().warnings == []


class TestTrialsOfAnEarlierVersionWhoseNumbersDiffer:
    @pytest.mark.parametrize(
        ("recorded", "version"), [(True, "PoseTune 0.3.0 (code "), (False, "an unrecorded version")]
    )
    def test_are_told_before_they_are_trained_again(self, finished_experiment, monkeypatch, recorded, version):
        folder = folder_of(finished_experiment)
        as_if_trained_by(folder, posetune="0.3.0")
        if not recorded:
            without_record(folder)
        monkeypatch.setattr(combination_checks, "NUMERICS", combination_checks.NUMERICS + 1)
        text = str(finished_experiment.experiment({}, {LR: [1e-3, 1e-2, 1e-1]}).plan())
        assert f"warning: 2 trials from {version}" in text
        assert text.endswith(" are kept but not shown; they would be trained again")

    def test_are_not_those_with_other_settings_or_data(self, finished_experiment):
        options = {LR: [1e-3, 1e-2]}
        for other in ({"solver_config.batch_size": 8}, {"experiment_config.val_set": "small_test"}):
            assert finished_experiment.experiment(other, options).plan().warnings == []


class TestTheReportPage:
    def test_says_how_to_reproduce_what_it_shows(self, finished_experiment, monkeypatch):
        folder = folder_of(finished_experiment)
        run_id = as_if_trained_by(folder, torch="1.0")
        run = folder.read_runs()[run_id]
        git = {whose: {"commit": commit, "dirty": True} for whose, commit in (("script", "abcd"), ("posetune", "ef01"))}
        written = {**json.loads(run.to_json()), "command": ["a sweep.py"], "git": git}
        folder.storage.write(f"runs/{run_id}.json", json.dumps(written).encode())
        text = page(folder)
        assert "git checkout abcd  # in the repository of the script\ngit checkout ef01" in text
        assert "python &#x27;a sweep.py&#x27;" in text or "python 'a sweep.py'" in text
        assert "Files differed from the commit when it ran" in text
        assert "2 trials</summary>" in text
        assert "<td>1.0</td>" in text

    def test_says_so_if_nothing_was_recorded(self, finished_experiment):
        folder = folder_of(finished_experiment)
        without_record(folder)
        text = words(folder)
        assert "What trained 2 of 2 finished trials was not recorded" in text
        assert "git checkout" not in text
        first = ResultTable.read(folder).trials[0]
        assert reproduce(folder, f"{first['key']}/0").text.endswith("Which versions trained it then was not recorded.")
