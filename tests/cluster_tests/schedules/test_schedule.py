import pytest

from cluster import training
from cluster.planning.plan import Combination, Shorter, TrialSpec
from cluster.schedules.schedule import GridSchedule
from cluster.trial.trainable import TrialReport
from tests.cluster_tests.small_experiment import LR, SmallExperiment
from tests.cluster_tests.sweep_script import Rungs
from tests.cluster_tests.test_longer_training import numbers_of
from tests.cluster_tests.trial.test_trainable import STATEFUL


def spec(key, *shorter):
    return TrialSpec(Combination(key, (), {}, "{}"), 0, 7, tuple(Shorter(1, f"{other}/0") for other in shorter))


def given(schedule):
    """Takes all steps that can start; returns the keys of their trials."""
    keys = []
    while (step := schedule.next()) is not None:
        assert step.until is None
        keys.append(step.trial.key)
    return keys


class TestAGrid:
    def test_gives_out_its_trials_in_order(self):
        schedule = GridSchedule([spec("b"), spec("a"), spec("c")])
        assert not schedule.all_given
        assert given(schedule) == ["b", "a", "c"]
        assert schedule.all_given

    @pytest.mark.parametrize("status", ["finished", "failed", "diverged"])
    def test_holds_back_a_trial_until_the_longest_one_that_it_continues_has_ended(self, status):
        schedule = GridSchedule([spec("1"), spec("3", "2", "1"), spec("2", "1"), spec("other")])
        assert given(schedule) == ["1", "other"]
        assert not schedule.all_given
        schedule.ended(TrialReport("1/0", status))
        assert given(schedule) == ["2"]
        schedule.ended(TrialReport("2/0", status))
        assert given(schedule) == ["3"]
        assert schedule.all_given

    def test_does_not_wait_for_a_trial_that_needs_no_training(self):
        assert given(GridSchedule([spec("3", "of another run")])) == ["3"]


FIVE = {**STATEFUL, "solver_config.num_epochs": 5, "experiment_config.checkpoint_interval_s": 1000}
LRS = {LR: [1e-3, 3e-3]}


def test_trials_that_are_paused_and_continued_have_the_bits_of_those_trained_in_one_go(
    small_experiment, small_data, tmp_path, monkeypatch
):
    at_once = SmallExperiment(small_data, tmp_path / "at_once")
    at_once.run(FIVE, LRS)
    trained = []
    monkeypatch.setattr(training, "GridSchedule", Rungs)

    def note(trial_id, report, model):
        trained.append(report.epoch)

    small_experiment.run({**FIVE, "solver_config.callbacks": [note]}, LRS)
    assert trained == [1, 2, 1, 2, 3, 4, 3, 4, 5, 5]
    keys = [path.name for path in small_experiment.folder.glob("trials/*")]
    assert len(keys) == 2
    for key in keys:
        assert numbers_of(small_experiment, key) == numbers_of(at_once, key)
