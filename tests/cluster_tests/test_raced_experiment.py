"""Races of real trainings: same files and bits however they are interrupted; without the race, those of the grid."""

import json
import os
import shutil
import signal
from contextlib import suppress

import pytest

from cluster.executors.progress import Progress
from cluster.experiment import Interrupted, TrialsFailedError
from cluster.racing.decision_file import write_decision
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.methods import methods_paragraph
from cluster.reports.page import pictures
from cluster.results.choice.race_course import race_courses
from cluster.results.learning_curves import read_logged
from cluster.schedules import race_schedule
from cluster.schedules.decision_checks import RaceError
from cluster.searching.search import Search
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.records import from_parquet, to_parquet
from posenet import errors
from posenet.losses import MetricLoss
from tests.cluster_tests.small_experiment import LR, NanLoss, SmallExperiment
from tests.cluster_tests.test_longer_training import numbers_of
from tests.cluster_tests.trial.test_trainable import STATEFUL

GRID = {**STATEFUL, "solver_config.num_epochs": 9, "experiment_config.n_repetitions": 2}
RACE = {**GRID, "experiment_config.race": SuccessiveHalving(reduction_factor=3, min_epochs=1, min_finalists=1)}
LRS = {LR: [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2]}


def train(small_experiment, changes):
    """Runs the experiment."""
    small_experiment.run(changes, LRS)


def never(trial_id, report, model):
    """A callback for runs that must not train."""
    pytest.fail(f"{trial_id} is trained")


def race_files(small_experiment):
    folder = small_experiment.folder / "race"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_numbers(small_experiment):
    """The numbers of all finished trials, by id."""
    finished = [path.parts[-3:-1] for path in small_experiment.folder.glob("trials/*/*/weights.pt")]
    return {(key, repetition): numbers_of(small_experiment, key, repetition) for key, repetition in finished}


@pytest.fixture(scope="module", autouse=True)
def without_pictures():
    """Leaves the pictures out of report pages, since drawing them takes nearly all of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda data, folder: pictures.Pictures([], None))
        yield


@pytest.fixture(scope="module")
def grid(small_data, tmp_path_factory):
    """The experiment without a race, trained in one go. Tests must not change it."""
    experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("grid"))
    experiment.run(GRID, LRS)
    return experiment


@pytest.fixture(scope="module")
def raced(small_data, tmp_path_factory):
    """The experiment raced in one go. Tests must not change it."""
    experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("raced"))
    train(experiment, RACE)
    return experiment


@pytest.fixture
def copied(raced, small_experiment):
    """A copy of `raced` in a folder that a test may change."""
    shutil.copytree(raced.folder, small_experiment.folder)
    return small_experiment


def assert_equal(experiment, raced):
    assert race_files(experiment) == race_files(raced)
    assert all_numbers(experiment) == all_numbers(raced)


class TestARace:
    def test_trains_finalists_to_the_bits_of_the_grid_and_evaluates_no_other_trial_on_the_test_set(self, raced, grid):
        finalists = all_numbers(raced)
        assert sorted(race_files(raced)) == ["two_val/0-0.json", "two_val/0-1.json"]
        assert len(finalists) == 2
        assert finalists == {trial: of_grid for trial, of_grid in all_numbers(grid).items() if trial in finalists}

    def test_continued_without_the_race_gives_the_folder_of_the_grid(self, copied, grid):
        epochs = []

        def note(trial_id, report, model):
            epochs.append(report.epoch)

        table = copied.run({**GRID, "solver_config.callbacks": [note]}, LRS)
        assert [row["status"] for row in table.trials] == ["finished"] * 12
        assert all_numbers(copied) == all_numbers(grid)
        # Four combinations were dropped after one epoch and one after three, with two repetitions each.
        assert len(epochs) == 2 * (4 * 8 + 1 * 6), "an epoch was trained twice"

    def test_of_a_finished_grid_trains_nothing(self, small_experiment, grid):
        shutil.copytree(grid.folder, small_experiment.folder)
        train(small_experiment, {**RACE, "solver_config.callbacks": [never]})
        assert race_files(small_experiment) == {}

    def test_that_was_stopped_is_decided_from_the_trials_of_the_grid(self, copied, raced):
        """By then its combinations were all trained without it."""
        (copied.folder / "race/two_val/0-1.json").unlink()
        copied.run(GRID, LRS)
        train(copied, {**RACE, "solver_config.callbacks": [never]})
        assert race_files(copied) == race_files(raced)

    def test_that_becomes_longer_is_described_with_the_rungs_that_it_had(self, copied):
        trained = []

        def note(trial_id, report, model):
            trained.append(trial_id)

        changes = {**RACE, "solver_config.num_epochs": 18, "solver_config.callbacks": [note]}
        plan = copied.experiment(changes, LRS).plan()
        rows = [line.split() for line in plan.races[0].splitlines()[2:]]
        assert rows == [
            ["1", "1", "6", "2", "12", "12", "decided"],
            ["2", "3", "2", "2", "4", "8", "decided"],
            ["3", "18", "1", "2", "2", "30"],
        ]
        table = copied.run(changes, LRS)
        # No states were kept, so both trials start from the beginning.
        assert plan.n_epochs_of_races == len(trained) == 2 * 18
        assert "after epoch 1, 2 of 6 combinations stayed" in methods_paragraph(table)
        logged = read_logged(table.files, split="val", wanted=lambda trial_id: True, is_metric=lambda name: False)
        (course,) = race_courses(table, logged.curves)
        assert [course.pieces(key)[-1].epochs[-1] for key in course.staying] == [18]
        assert course.n_epochs_of_grid == 12 * 18

    def test_of_the_rounds_of_a_search_trains_as_many_epochs_as_the_display_says_at_the_end(
        self, small_experiment, monkeypatch
    ):
        seen = []
        reported = Progress.reported

        def note(progress, report):
            reported(progress, report)
            seen.append((progress.n_epochs_of_ended, progress.n_epochs))

        monkeypatch.setattr(Progress, "reported", note)
        search = {"experiment_config.search": Search("random", 12, round_size=6)}
        small_experiment.run(RACE | search, {**LRS, "optimizer_args.weight_decay": [0.0, 0.1]})
        assert seen[-1][0] == seen[-1][1]

    def test_that_is_complete_does_not_wait_for_diverged_trials(self, small_experiment):
        changes = {**RACE, "experiment_config.n_repetitions": 1}
        options = {LR: [1e-4, 1e-3, 1e-2], "loss_function": [MetricLoss(errors.coordinate_difference), NanLoss()]}
        with pytest.raises(TrialsFailedError, match="3 diverged of 6 trials; the others are complete"):
            small_experiment.run(changes, options)
        with pytest.raises(TrialsFailedError, match=r"3 diverged of 3 trials\. This shows"):
            small_experiment.run(changes, {**options, "loss_function": [NanLoss()]})

    def test_continues_after_ctrl_c_at_any_time(self, small_experiment, raced, capsys):
        n_left = 0

        def interrupt(trial_id, report, model):
            nonlocal n_left
            n_left -= 1
            if n_left == 0:
                raise KeyboardInterrupt

        for n_epochs in (5, 11, 1, 1000):
            n_left = n_epochs
            with suppress(Interrupted):
                train(small_experiment, {**RACE, "solver_config.callbacks": [interrupt]})
        assert "run the script again to continue" in capsys.readouterr().err
        assert_equal(small_experiment, raced)

    def test_continues_after_sigterm_and_exits_with_75(self, small_experiment, raced, capsys):
        def terminate(trial_id, report, model):
            os.kill(os.getpid(), signal.SIGTERM)

        codes = []
        for _ in range(2):
            try:
                train(small_experiment, {**RACE, "solver_config.callbacks": [terminate]})
            except Interrupted as end:
                codes.append(end.code)
        assert codes == [75] * 2
        assert "run the script again to continue" in capsys.readouterr().err
        train(small_experiment, RACE)
        assert_equal(small_experiment, raced)

    @pytest.mark.parametrize("is_written", [True, False])
    def test_continues_if_it_was_killed_right_after_a_decision_or_while_writing_it(
        self, small_experiment, raced, monkeypatch, is_written
    ):
        def end(experiment, decision):
            if is_written:
                write_decision(experiment, decision)
            else:
                experiment.write(f"race/{decision.data}/.{decision.bracket}-{decision.rung}.json.1.partial", b"{")
            raise KeyboardInterrupt

        for _ in range(3):
            monkeypatch.setattr(race_schedule, "write_decision", end)
            with suppress(Interrupted):
                train(small_experiment, RACE)
        monkeypatch.setattr(race_schedule, "write_decision", write_decision)
        train(small_experiment, RACE)
        assert_equal(small_experiment, raced)

    def test_ends_with_an_error_and_trains_nothing_if_a_decision_was_damaged(self, copied):
        path = copied.folder / "race/two_val/0-0.json"
        path.write_bytes(path.read_bytes()[:-100])
        changes = {**RACE, "solver_config.callbacks": [never]}
        for use in (lambda: copied.run(changes, LRS), copied.experiment(changes, LRS).plan):
            with pytest.raises(RaceError, match=r"race/two_val/0-0.json: .*. Restore the file from a copy"):
                use()

    @pytest.mark.parametrize("is_complete", [True, False])
    def test_ends_with_an_error_if_the_records_of_a_trial_have_changed(self, copied, is_complete):
        trial_id = json.loads((copied.folder / "race/two_val/0-0.json").read_text())["combinations"][-1]["key"] + "/0"
        path = copied.folder / "trials" / trial_id / "records.parquet"
        rows = [record._replace(value=record.value + 1) for record in from_parquet(path.read_bytes())]
        path.write_bytes(to_parquet(trial_id, rows))
        if not is_complete:
            shutil.rmtree(next(path.parent for path in copied.folder.glob("trials/*/*/weights.pt")))
        with pytest.raises(RaceError, match=f"for trial {trial_id} at epoch 1, but the trial's records now say"):
            train(copied, RACE)

    def test_keeps_the_rule_of_its_first_decision_and_the_plan_says_so(self, copied):
        (copied.folder / "race/two_val/0-1.json").unlink()
        changed = {**RACE, "experiment_config.race": SuccessiveHalving(reduction_factor=2)}
        (warning,) = copied.experiment(changed, LRS).plan().warnings
        assert warning.startswith("the race on two_val continues with the rule of its first decision, Successive")
        assert copied.experiment(RACE, LRS).plan().warnings == []

    def test_waits_for_a_failed_trial_until_the_next_run_has_trained_it_again(self, small_experiment, raced):
        fails = True

        def fail(trial_id, report, model):
            if fails and trial_id.endswith("/1"):
                raise ValueError("as wanted")

        with pytest.raises(TrialsFailedError, match="6 failed and 6 interrupted of 12 trials"):
            train(small_experiment, {**RACE, "solver_config.callbacks": [fail]})
        assert race_files(small_experiment) == {}
        fails = False
        train(small_experiment, {**RACE, "solver_config.callbacks": [fail]})
        assert_equal(small_experiment, raced)


@pytest.mark.slow
def test_a_race_on_an_object_store_has_the_same_files(s3, small_data, raced):
    experiment = SmallExperiment(small_data, s3.direct)
    train(experiment, RACE)
    folder = ExperimentFolder(Storage(s3.direct) / "small_experiment")
    files = {name: folder.storage.read(f"race/{name}") for name in folder.storage.files("race")}
    assert files == race_files(raced)
    train(experiment, {**RACE, "solver_config.callbacks": [never]})
