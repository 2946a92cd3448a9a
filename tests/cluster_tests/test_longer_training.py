"""A training with more epochs continues one with fewer, and has the bits of one trained in one go."""

import json
import shutil
from contextlib import suppress
from functools import partial

import pytest
import torch

from cluster.experiment import TrialsFailedError
from cluster.storage.records import from_parquet
from tests.cluster_tests.small_experiment import CLOSED_FORM, SmallExperiment
from tests.cluster_tests.trial.test_trainable import OPTIMISATIONS, STATEFUL

EPOCHS = "solver_config.num_epochs"
KEEP = {"experiment_config.keep_state": "all"}
SHORT, LONG = {**STATEFUL, EPOCHS: 3}, {**STATEFUL, EPOCHS: 5}
COSINE = {
    "base_hyperparams.scheduler": torch.optim.lr_scheduler.CosineAnnealingLR,
    "base_hyperparams.scheduler_args": {"T_max": 3},
}
T_MAX_5 = {"base_hyperparams.scheduler_args": {"T_max": 5}}


def numbers_of(small_experiment, key, repetition=0):
    """Everything about a trial that must not depend on how it was trained, with all bits."""
    folder = small_experiment.folder / "trials" / key / str(repetition)
    trial = json.loads((folder / "trial.json").read_text())
    weights = torch.load(folder / "weights.pt", weights_only=True)
    names = ("status", "key", "seed", "best_epoch", "epochs", "metrics", "normalizer", "options")
    return {
        "trial": {name: trial[name] for name in names},
        "records": from_parquet((folder / "records.parquet").read_bytes()),
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
        "examples": (folder / "examples.npz").read_bytes(),
    }


def epochs_of_run(small_experiment, changes, options=None, *, fails=lambda trial_id, epoch: False):
    """Runs an experiment; returns which epochs it trained, by trial."""
    epochs = {}

    def note(trial_id, report, model):
        if fails(trial_id, report.epoch):
            raise ValueError("as wanted")
        epochs.setdefault(trial_id, []).append(report.epoch)

    with suppress(TrialsFailedError):
        small_experiment.run({**changes, "solver_config.callbacks": [note]}, options)
    return epochs


@pytest.fixture
def trained(small_experiment):
    """Runs an experiment; returns which epochs it trained, by trial."""
    return partial(epochs_of_run, small_experiment)


@pytest.fixture
def at_once(small_data, tmp_path):
    """Returns the numbers of a training in one go."""

    def run(changes):
        other = SmallExperiment(small_data, tmp_path / "at_once")
        shutil.rmtree(other.folder, ignore_errors=True)
        other.run(changes)
        return numbers_of(other, other.key(changes))

    return run


class TestMoreEpochs:
    @pytest.mark.parametrize("optimisation", [name for name in OPTIMISATIONS if "OneCycleLR" not in name])
    def test_continue_from_the_final_state_with_the_bits_of_a_training_in_one_go(
        self, small_experiment, trained, at_once, optimisation
    ):
        short, long = {**SHORT, **OPTIMISATIONS[optimisation]}, {**LONG, **OPTIMISATIONS[optimisation]}
        trained({**short, **KEEP})
        key = small_experiment.key(long)
        assert trained(long) == {f"{key}/0": [4, 5]}
        assert numbers_of(small_experiment, key) == at_once(long)

    def test_are_announced_by_the_plan(self, small_experiment):
        small_experiment.run({**SHORT, **KEEP, "experiment_config.n_repetitions": 2})
        plan = small_experiment.experiment({**LONG, "experiment_config.n_repetitions": 3}).plan()
        assert "3 trials: 2 to continue from epoch 3, 1 to train" in str(plan)
        assert plan.warnings == []

    def test_can_be_added_repeatedly(self, small_experiment, trained, at_once):
        for epochs in (1, 3, 5):
            changes = {**LONG, EPOCHS: epochs, **KEEP}
            trained_epochs = trained(changes)
        assert list(trained_epochs.values()) == [[4, 5]]
        assert numbers_of(small_experiment, small_experiment.key(LONG)) == at_once(LONG)

    def test_are_recorded_together_with_the_runs_that_trained_the_beginning(self, small_experiment, trained):
        trained({**SHORT, **KEEP})
        trained(LONG)
        short, long = (
            json.loads((small_experiment.folder / "trials" / key / "0" / "trial.json").read_text())["runs"]
            for key in map(small_experiment.key, (SHORT, LONG))
        )
        assert long[:1] == short
        assert len(long) == 2

    def test_start_from_the_beginning_where_no_state_was_kept_and_the_plan_says_so(self, small_experiment, trained):
        trained(SHORT)
        (warning,) = small_experiment.experiment(LONG).plan().warnings
        assert warning.startswith("1 trial cannot continue from epoch 3, because the shorter trainings did not keep")
        assert list(trained(LONG).values()) == [[1, 2, 3, 4, 5]]

    def test_start_from_the_beginning_where_the_state_is_damaged(self, small_experiment, trained, at_once, capsys):
        trained({**SHORT, **KEEP})
        (state,) = small_experiment.folder.glob("trials/*/0/state.pt")
        state.write_bytes(state.read_bytes()[:-1])
        assert list(trained(LONG).values()) == [[1, 2, 3, 4, 5]]
        assert f"the final state of {small_experiment.key(SHORT)}/0 cannot be used" in capsys.readouterr().err
        assert numbers_of(small_experiment, small_experiment.key(LONG)) == at_once(LONG)

    def test_do_not_need_the_records_of_the_shorter_training_which_may_be_archived(self, small_experiment, trained):
        trained({**SHORT, **KEEP})
        (records,) = small_experiment.folder.glob("trials/*/0/records.parquet")
        records.unlink()
        assert list(trained(LONG).values()) == [[4, 5]]

    def test_are_a_different_training_if_the_scheduler_depends_on_their_number_and_the_plan_says_so(
        self, small_experiment, trained
    ):
        trained({**SHORT, **COSINE, **KEEP})
        changes = {**LONG, **COSINE, **T_MAX_5}
        (warning,) = small_experiment.experiment(changes).plan().warnings
        assert warning == (
            "1 finished trial with 3 epochs cannot be continued, because scheduler_args.T_max was 3 and is 5; this is "
            "a different training"
        )
        assert list(trained(changes).values()) == [[1, 2, 3, 4, 5]]

    def test_do_not_continue_a_training_that_differs_in_anything_else(self, small_experiment, trained):
        trained({**SHORT, **KEEP, "base_hyperparams.optimizer_args": {"lr": 2e-3}})
        assert list(trained(LONG).values()) == [[1, 2, 3, 4, 5]]

    def test_leave_the_shorter_training_as_it_is(self, small_experiment, trained):
        trained({**SHORT, **KEEP})
        before = numbers_of(small_experiment, small_experiment.key(SHORT))
        trained(LONG)
        assert numbers_of(small_experiment, small_experiment.key(SHORT)) == before
        assert trained(SHORT) == {}


class TestTwoNumbersOfEpochs:
    @pytest.mark.parametrize("numbers", [[3, 5], [5, 3]])
    def test_cost_one_training_with_the_larger_number(self, small_experiment, trained, at_once, numbers):
        of_trials = trained(LONG, {EPOCHS: numbers})
        keys = {3: small_experiment.key(SHORT), 5: small_experiment.key(LONG)}
        assert of_trials == {f"{keys[3]}/0": [1, 2, 3], f"{keys[5]}/0": [4, 5]}
        assert numbers_of(small_experiment, keys[5])["weights"] == at_once(LONG)["weights"]
        assert numbers_of(small_experiment, keys[5])["records"] == at_once(LONG)["records"]

    def test_leave_no_states_behind(self, small_experiment, trained):
        trained(LONG, {EPOCHS: [1, 3, 5]})
        assert list(small_experiment.folder.glob("trials/*/*/state.pt")) == []

    def test_are_announced_by_the_plan(self, small_experiment):
        plan = small_experiment.experiment(LONG, {EPOCHS: [5, 3], "optimizer_args.lr": [1e-3, 2e-3]}).plan()
        assert "4 trials: 2 to continue from epoch 3, 2 to train" in str(plan)

    def test_cost_two_trainings_where_the_shorter_one_fails(self, small_experiment, trained, at_once):
        short, long = (f"{small_experiment.key(changes)}/0" for changes in (SHORT, LONG))
        of_trials = trained(LONG, {EPOCHS: [3, 5]}, fails=lambda trial_id, epoch: (trial_id, epoch) == (short, 2))
        assert of_trials == {short: [1], long: [1, 2, 3, 4, 5]}
        assert numbers_of(small_experiment, small_experiment.key(LONG))["weights"] == at_once(LONG)["weights"]

    def test_keep_the_state_that_a_longer_one_still_needs(self, small_experiment, trained, at_once):
        long = f"{small_experiment.key(LONG)}/0"
        trained(LONG, {EPOCHS: [3, 5]}, fails=lambda trial_id, epoch: (trial_id, epoch) == (long, 4))
        assert trained(LONG, {EPOCHS: [3, 5]}) == {long: [4, 5]}
        assert numbers_of(small_experiment, small_experiment.key(LONG))["weights"] == at_once(LONG)["weights"]
        assert list(small_experiment.folder.glob("trials/*/*/state.pt")) == []


def test_a_model_fitted_in_closed_form_continues_too(small_experiment, trained, at_once):
    trained({**SHORT, **CLOSED_FORM, **KEEP})
    long = {**LONG, **CLOSED_FORM}
    assert list(trained(long).values()) == [[4, 5]]
    assert numbers_of(small_experiment, small_experiment.key(long)) == at_once(long)


@pytest.mark.slow
def test_states_are_kept_used_and_removed_on_an_object_store_too(s3, small_data):
    small_experiment = SmallExperiment(small_data, s3.direct)
    keys = [small_experiment.key({**LONG, EPOCHS: epochs}) for epochs in (1, 3, 5)]
    assert epochs_of_run(small_experiment, {**LONG, EPOCHS: 1, **KEEP}) == {f"{keys[0]}/0": [1]}
    of_trials = epochs_of_run(small_experiment, LONG, {EPOCHS: [3, 5]})
    assert of_trials == {f"{keys[1]}/0": [2, 3], f"{keys[2]}/0": [4, 5]}
    states = [name for name in s3.objects() if name.endswith("state.pt")]
    assert states == [f"small_experiment/trials/{keys[0]}/0/state.pt"]
