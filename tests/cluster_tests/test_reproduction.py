import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.experiment import TrialsFailedError
from cluster.planning.config import ConfigError
from cluster.reproduction import Difference, Reproduction, reproduce
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from data_pipeline.augmenters import RandomRotator, RandomScaler
from data_pipeline.distorters import NoDistorter
from data_pipeline.normalizers import GlobalNormalizer, ViewpointNormalizer
from data_pipeline.pose_dataset import write_dataset
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.user_error import UserError
from posenet import errors
from posenet.losses import MetricLoss
from tests.cluster_tests import small_experiment as own_module
from tests.cluster_tests.results_files import experiment_json, read_json, write_json
from tests.cluster_tests.small_experiment import (
    CLOSED_FORM,
    LR,
    NEIGHBOR_ERRORS,
    FailingMLP,
    NearMLP,
    SmallExperiment,
    write_datasets,
)


@pytest.fixture
def small_experiment(tmp_path):
    write_datasets(tmp_path / "data")
    return SmallExperiment(tmp_path / "data", tmp_path / "results")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A trained experiment with one trial, and the trial's id."""
    folder = tmp_path_factory.mktemp("original")
    write_datasets(folder / "data")
    small_experiment = SmallExperiment(folder / "data", folder / "results")
    return small_experiment.folder, trained(small_experiment)[1]


@pytest.fixture
def copy(original, tmp_path):
    """A copy of it that a test may change: its folder, and the trial's id."""
    shutil.copytree(original[0], tmp_path / "copy")
    return ExperimentFolder(Storage(tmp_path / "copy")), original[1]


def trained(small_experiment, changes=None, options=None):
    """Trains, and returns the folder and the id of the last trial of the best combination."""
    table = small_experiment.run(changes, options)
    return ExperimentFolder(Storage(small_experiment.folder)), f"{table.summary[0]['key']}/{table.n_repetitions - 1}"


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def change_record(folder, trial_id, place, change):
    """Changes a value of a trial's records; returns it before and after."""
    rows = pq.read_table(io.BytesIO(folder.trial(trial_id).read("records.parquet")))
    values = rows.column("value").to_pylist()
    before, values[place] = values[place], change(values[place])
    buffer = io.BytesIO()
    pq.write_table(rows.set_column(rows.schema.get_field_index("value"), "value", pa.array(values)), buffer)
    folder.trial(trial_id).write("records.parquet", buffer.getvalue())
    return before, values[place]


def change_trial(folder, trial_id, path, value):
    content = read_json(folder.trial(trial_id))
    *parents, last = path.split(".")
    target = content
    for parent in parents:
        target = target[parent]
    target[last] = value
    write_json(folder.trial(trial_id), content)


class TestATrialThatIsTheSame:
    @pytest.mark.parametrize(
        ("changes", "options"),
        [
            ({}, {}),
            ({"experiment_config.n_repetitions": 3, "experiment_config.seed": 5}, {LR: [1e-3, 1e-2]}),
            (
                {
                    "experiment_config.test_set": "small_test",
                    "experiment_config.train_set_size": 30,
                    "base_hyperparams.model_args.dropout": 0.3,
                    "base_hyperparams.model_args.batchnorm": True,
                    "base_hyperparams.augmenters": [RandomRotator(), RandomScaler(low=0.9, high=1.3)],
                },
                {"experiment_config.normalizer": [GlobalNormalizer, ViewpointNormalizer]},
            ),
            ({"experiment_config.normalizer": None, "base_hyperparams.eval_space": "default"}, {}),
            (
                {
                    "experiment_config.train_set": "two_train",
                    "solver_config.log_loss": True,
                    "solver_config.log_grad": True,
                },
                {
                    "distorter": [NoDistorter],
                    "loss_function": [MetricLoss(errors.distance_error, "squared")],
                    "solver_config.num_epochs": [3],
                },
            ),
            (NEIGHBOR_ERRORS, {"optimizer": [torch.optim.AdamW], "experiment_config.train_set_size": [20, 30]}),
            ({"base_hyperparams.model_args.activation": torch.nn.PReLU(init=0.1)}, {}),
            (CLOSED_FORM, {"model_args.ridge": [0.1, 1.0], "choose_strength": [True]}),
            (
                {
                    "base_hyperparams.scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau,
                    "base_hyperparams.scheduler_args": {"patience": 0},
                    "base_hyperparams.scheduler_requires_metric": True,
                },
                {},
            ),
        ],
        ids=[
            "plain",
            "repetitions",
            "random inputs",
            "no normalizer",
            "two subsets",
            "tables",
            "a module as activation",
            "closed form",
            "metric of the scheduler",
        ],
    )
    def test_has_the_same_bits(self, small_experiment, changes, options):
        folder, trial_id = trained(small_experiment, changes, options)
        before = snapshot(small_experiment.folder)
        found = reproduce(folder, trial_id)
        assert found.is_same
        assert (found.trial_id, found.different, found.n_missing) == (trial_id, [], 0)
        assert found.weights_are_same is True
        assert found.changed == {}
        n_logged = pq.read_table(io.BytesIO(folder.trial(trial_id).read("records.parquet"))).num_rows
        assert found.n_compared > n_logged  # and the metrics of trial.json, and its best epoch
        assert found.text == (
            f"{trial_id}: the same bits. All {found.n_compared:,} numbers are equal, and so are the best weights."
        )
        assert snapshot(small_experiment.folder) == before

    def test_may_have_begun_with_weights_of_another_one(self, small_experiment, copy):
        folder, trial_id = copy
        weights = folder.trial(trial_id).local / "weights.pt"
        small_experiment.run({}, {"experiment_config.init_weights_path": [str(weights), None]})
        begun = ExperimentFolder(Storage(small_experiment.folder))
        options = begun.read_trials(lambda trial: trial.options.get("experiment_config.init_weights_path"))
        assert set(options.values()) == {str(weights), None}
        assert all(reproduce(begun, each).is_same for each in options)

    def test_reports_each_epoch(self, copy):
        folder, trial_id = copy
        epochs = []
        reproduce(folder, trial_id, on_report=lambda report: epochs.append(report.epoch))
        assert epochs[:2] == [1, 2]

    def test_may_be_in_the_archive(self, copy):
        folder, trial_id = copy
        folder.archive.add([trial_id])
        assert folder.trial(trial_id).read_trial().status == "pending"
        found = reproduce(folder, trial_id)
        assert found.is_same
        assert found.weights_are_same is True

    def test_may_be_without_weights(self, small_experiment):
        folder, trial_id = trained(small_experiment, {"experiment_config.keep_weights": "none"})
        found = reproduce(folder, trial_id)
        assert (found.is_same, found.weights_are_same) == (True, None)
        assert found.text.endswith("numbers are equal, and its weights were not kept.")

    def test_may_have_its_data_in_another_folder_now(self, small_experiment, tmp_path):
        folder, trial_id = trained(small_experiment)
        (tmp_path / "data").rename(tmp_path / "moved")
        with pytest.raises(ConfigError, match="has no dataset"):
            reproduce(folder, trial_id)
        assert reproduce(folder, trial_id, data_dir=str(tmp_path / "moved")).is_same

    def test_may_have_been_trained_with_other_versions_which_are_told(self, copy):
        folder, trial_id = copy
        ((run_id, run),) = folder.read_runs().items()
        folder.write_run(run_id, replace(run, versions={**run.versions, "torch": "1.0"}))
        found = reproduce(folder, trial_id)
        assert found.is_same
        assert found.changed == {"torch": ("1.0", run.versions["torch"])}
        assert f"torch was 1.0, and is {run.versions['torch']}." in found.text

    def test_logs_as_often_as_it_was_logged_and_not_as_a_later_run_did(self, small_experiment):
        folder, trial_id = trained(small_experiment, {"solver_config.log_frequency": 2})
        content = experiment_json(folder)
        content["configs"]["solver_config"]["log_frequency"] = 1
        folder.write_experiment(content)
        found = reproduce(folder, trial_id)
        assert (found.is_same, found.n_missing) == (True, 0)

    def test_what_is_logged_by_now_alone_is_not_compared(self, small_experiment):
        folder, trial_id = trained(small_experiment, {"solver_config.log_loss": True})
        n_batches = 6  # of two epochs, with 40 samples in batches of 16
        content = experiment_json(folder)
        content["configs"]["solver_config"]["log_loss"] = False
        folder.write_experiment(content)
        found = reproduce(folder, trial_id)
        assert (found.is_same, found.n_missing) == (True, n_batches)
        assert f"{n_batches} numbers of then cannot be compared: not logged any more." in found.text


class TestATrialThatDiffers:
    @pytest.mark.parametrize("place", [0, 100, -1])
    def test_in_one_bit_of_a_record_is_told_with_both_numbers(self, copy, place):
        folder, trial_id = copy
        was, then = change_record(folder, trial_id, place, lambda value: float(np.nextafter(value, np.inf)))
        found = reproduce(folder, trial_id)
        assert not found.is_same
        assert [(d.then, d.now) for d in found.different] == [(then, was)]
        assert "not the same bits. 1 of " in found.text
        assert f" was {then!r} and is {was!r}" in found.text
        assert "epoch " in found.different[0].what

    def test_in_a_record_that_is_no_number_is_told(self, copy):
        folder, trial_id = copy
        change_record(folder, trial_id, 3, lambda value: float("nan"))
        assert len(reproduce(folder, trial_id).different) == 1

    def test_in_a_metric_of_the_tables_is_told(self, copy):
        folder, trial_id = copy
        was = folder.trial(trial_id).read_trial().metrics["val"]["mean"]["distance"]
        change_trial(folder, trial_id, "metrics.val.mean.distance", 1.5)
        assert reproduce(folder, trial_id).different == [Difference("distance (trial.json, val, mean)", 1.5, was)]

    def test_in_its_weights_is_told(self, copy):
        folder, trial_id = copy
        weights = torch.load(io.BytesIO(folder.trial(trial_id).read("weights.pt")), weights_only=True)
        next(iter(weights.values())).view(-1)[0] += 1
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        folder.trial(trial_id).write("weights.pt", buffer.getvalue())
        found = reproduce(folder, trial_id)
        assert (found.is_same, found.different, found.weights_are_same) == (False, [], False)
        assert "None of " in found.text
        assert found.text.endswith("The best weights differ.")

    def test_in_many_numbers_shows_some(self):
        different = [Difference(f"number {i}", 0.0, 1.0) for i in range(25)]
        text = Reproduction("k/0", 100, 0, different, True, {}).text
        assert "not the same bits. 25 of 100 numbers differ:" in text
        assert text.count(" was 0.0 and is 1.0") == 10
        assert "  and 15 more\nThe best weights are the same." in text


class TestATrialThatCannotBeTrainedAgain:
    def test_since_its_data_changed_says_so(self, small_experiment):
        folder, trial_id = trained(small_experiment)
        labels = synthetic_hands(40, 7)
        write_dataset(small_experiment.data_dir, "small_train", labels, Backbone("A").predict(labels, 7))
        with pytest.raises(UserError) as caught:
            reproduce(folder, trial_id)
        text = str(caught.value)
        assert text.startswith(f"{trial_id.partition('/')[0]} cannot be trained again as it was. Its training, ")
        (line,) = text.splitlines()[1:]
        assert line.startswith("  data.train.fingerprint was ")

    def test_since_it_is_of_another_version_says_so(self, copy):
        folder, trial_id = copy
        change_trial(folder, trial_id, "description.schedule.numerics", 0)
        change_trial(folder, trial_id, "key", "0" * 16)
        with pytest.raises(UserError, match=r"another version of PoseTune[^\0]*numerics was 0"):
            reproduce(folder, trial_id)

    def test_since_it_failed_says_why(self, small_experiment):
        with pytest.raises(TrialsFailedError) as caught:
            small_experiment.run({"base_hyperparams.model": FailingMLP})
        key = caught.value.table.summary[0]["key"]
        with pytest.raises(UserError, match=r"is not finished, .*: failed \(RuntimeError: this model is broken\)$"):
            reproduce(ExperimentFolder(Storage(small_experiment.folder)), f"{key}/0")

    def test_since_it_was_not_started_says_so(self, copy):
        folder, trial_id = copy
        key = trial_id.partition("/")[0]
        with pytest.raises(UserError, match=f"{key}/7 of .* is not finished.*: pending"):
            reproduce(folder, f"{key}/7")

    def test_since_it_was_interrupted_says_so(self, copy):
        folder, trial_id = copy
        change_trial(folder, trial_id, "status", "running")
        with pytest.raises(UserError, match=r"is not finished.*: interrupted"):
            reproduce(folder, trial_id)

    def test_since_its_records_are_broken_says_so(self, copy):
        folder, trial_id = copy
        folder.trial(trial_id).write("records.parquet", b"PAR1")
        with pytest.raises(UserError, match=r"the records of .* cannot be read"):
            reproduce(folder, trial_id)

    def test_since_its_set_is_none_of_the_last_run_says_so(self, copy):
        folder, trial_id = copy
        folder.write_experiment({**experiment_json(folder), "data": []})
        with pytest.raises(UserError, match="the experiment's last run did not read the train set of the trial"):
            reproduce(folder, trial_id)

    @pytest.mark.parametrize("part", ["model", "optimisation", "inputs", "spaces", "data", "schedule", "loss"])
    def test_since_its_description_is_broken_says_so(self, copy, part):
        folder, trial_id = copy
        content = read_json(folder.trial(trial_id))
        del content["description"][part]
        write_json(folder.trial(trial_id), content)
        with pytest.raises(UserError, match="do not say how it was trained"):
            reproduce(folder, trial_id)

    @pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu"])
    def test_since_a_device_is_not_here_says_so(self, copy, device):
        folder, trial_id = copy
        with pytest.raises(UserError, match=f"torch cannot use '{device}' here; {trial_id} was trained on cpu: omit"):
            reproduce(folder, trial_id, device=device)

    def test_since_the_kind_of_device_that_it_was_trained_on_is_not_here_says_so(self, copy):
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        folder, trial_id = copy
        change_trial(folder, trial_id, "device", "cuda:3")
        with pytest.raises(UserError, match=r"torch cannot use 'cuda' here: .* was trained on cuda:3"):
            reproduce(folder, trial_id)
        assert reproduce(folder, trial_id, device="cpu").is_same  # descriptions do not contain devices


class TestAClassOfTheUser:
    def test_is_found_in_the_module_that_is_named(self, small_experiment):
        folder, trial_id = trained(small_experiment, {"base_hyperparams.model": NearMLP})
        with pytest.raises(UserError, match=r"NearMLP is not a class of PoseTune's; .*--import MODULE"):
            reproduce(folder, trial_id)
        assert reproduce(folder, trial_id, modules=[own_module]).is_same

    def test_that_is_in_none_of_them_is_an_error(self, small_experiment):
        folder, trial_id = trained(small_experiment, {"base_hyperparams.model": NearMLP})
        with pytest.raises(UserError, match="NearMLP is not a class of PoseTune's"):
            reproduce(folder, trial_id, modules=[json])

    def test_of_another_family_is_an_error(self, copy):
        folder, trial_id = copy
        change_trial(folder, trial_id, "description.model.name", "torch.optim.adam.Adam")
        with pytest.raises(UserError, match=r"torch\.optim\.adam\.Adam is not a class"):
            reproduce(folder, trial_id)

    def test_of_a_script_that_ran_is_found_in_the_script(self, small_experiment, monkeypatch):
        """Its module was `__main__`, and is the script's name when it is imported."""
        with monkeypatch.context() as ran:
            ran.setattr(NearMLP, "__module__", "__main__")
            folder, trial_id = trained(small_experiment, {"base_hyperparams.model": NearMLP})
        assert folder.trial(trial_id).read_trial().description["model"]["name"] == "__main__.NearMLP"
        assert reproduce(folder, trial_id, modules=[own_module]).is_same
