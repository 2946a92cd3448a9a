import json
import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import nn

from cluster.results.deserialize import decode_value
from cluster.results.results import Results
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.trained import read_corrector
from data_pipeline.normalizers import GlobalNormalizer, IndividualNormalizer, Shifter, ViewpointNormalizer
from data_pipeline.pose_dataset import read_dataset
from data_pipeline.skeleton import NYU
from data_pipeline.user_error import UserError
from posenet.evaluator import CorrectionMeans
from posenet.export import export_corrector
from posenet.models import (
    AgreementFusion,
    CorrectorFingerMLP,
    CorrectorGNN,
    CorrectorLCN,
    CorrectorMLP,
    CorrectorTransformer,
    GlobalShiftMLP,
    TemporalFilter,
    TemporalLCN,
)
from tests.cluster_tests.small_experiment import CLOSED_FORM, FUSION, LR, SmallExperiment

MODELS = {
    CorrectorMLP: {"hidden_dims": [8], "batchnorm": True, "dropout": 0.1},
    GlobalShiftMLP: {"hidden_dims": [8], "dropout": 0.1},
    CorrectorFingerMLP: {"hidden_dims": [8], "dropout": 0.1},
    CorrectorLCN: {"dim": 4, "n_blocks": 1, "reach": 2, "dropout": 0.1},
    CorrectorTransformer: {"dim": 8, "n_layers": 1, "n_heads": 2, "feedforward_dim": 8, "dropout": 0.1},
    CorrectorGNN: {
        **{"n_iter": 2, "latent_dim": 4, "encoder": "shared", "encoder_dims": [4], "message_dims": [4]},
        **{"decoder": "whole_pose", "decoder_dims": [4], "dropout": 0.1},
    },
}

OPTIMISATION = ("optimizer", "optimizer_args", "scheduler", "scheduler_args")

NORMALIZERS = [
    None,
    Shifter,
    ViewpointNormalizer,
    IndividualNormalizer,
    GlobalNormalizer,
    partial(GlobalNormalizer, individual_scaling=True),
]

ROUNDING = {"distance": 1e-6, "max_distance": 1e-6, "auc_20_50": 1e-6, "proportion_error": 1e-5}
"""The largest relative difference of each metric if kernels round differently.

Matrix products over 7 and over 20 samples round differently, and so do AVX-512 and AVX2. In float32, a
coordinate half a metre to a metre away is a multiple of 6e-5 mm. Moving each coordinate of these hands by up to that
much, at random, changes their mean distance by up to 1.4e-7 of it. It changes the proportion error by up to 1.9e-6 of
it: that one divides by the lengths of bones, and this barely trained model makes some as short as 3 mm.
"""


class OwnMLP(CorrectorMLP):
    """A model outside the project."""


class OwnActivation(nn.Module):
    """An activation outside the project."""

    def forward(self, x):
        return x.clamp(min=-1)


def folder_of(small_experiment):
    return ExperimentFolder(Storage(small_experiment.storage_path) / "small_experiment")


def metrics_of(trained, dataset):
    """Returns the corrector's metrics on a dataset's only subset, computed a few samples at a time."""
    (poses,) = (torch.tensor(array) for array in dataset.poses.values())
    labels = torch.tensor(dataset.labels)
    means = CorrectionMeans(trained.skeleton)
    with torch.no_grad():
        for rows in torch.arange(len(poses)).split(7):
            means.add(poses[rows], trained.corrector(poses[rows]), labels[rows])
    return means.metrics()


class TestACorrectorThatWasReadBack:
    @pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
    def test_corrects_as_in_the_trial_with_every_normalizer(self, small_experiment, normalizer):
        space = "default" if normalizer is None else "original"
        changes = {"experiment_config.normalizer": normalizer, "base_hyperparams.eval_space": space}
        self.assert_corrects_as_recorded(small_experiment, changes)

    @pytest.mark.parametrize("model", MODELS)
    def test_corrects_as_in_the_trial_with_every_model(self, small_experiment, model):
        self.assert_corrects_as_recorded(
            small_experiment, {"base_hyperparams.model": model, "base_hyperparams.model_args": MODELS[model]}
        )

    def test_corrects_as_in_the_trial_with_a_model_that_is_fitted_in_closed_form(self, small_experiment):
        self.assert_corrects_as_recorded(small_experiment, CLOSED_FORM)

    def test_corrects_a_sequence_as_in_the_trial_with_the_size_of_the_hand(self, small_experiment):
        arguments = {"bandwidth": 1000.0, "ridge": 1.0, "sigma": 0.7, "hand_bandwidth": 30.0}
        changes = {
            **CLOSED_FORM,
            "base_hyperparams.model_args": arguments,
            "experiment_config.normalizer": Shifter,
            "experiment_config.test_set": "small_test",
        }
        self.assert_corrects_a_sequence_as_recorded(small_experiment, changes)

    def test_corrects_as_in_the_trial_with_the_strength_that_it_chose(self, small_experiment):
        changes = {
            **CLOSED_FORM,
            "experiment_config.normalizer": ViewpointNormalizer,
            "base_hyperparams.model_args": {"bandwidth": 1000.0, "ridge": 1.0},
            "base_hyperparams.choose_strength": True,
        }
        trained = self.assert_corrects_as_recorded(small_experiment, changes)
        assert 0 < trained.corrector.model.chosen_strength.item() < 1, "the example shows nothing"

    @pytest.mark.parametrize(
        ("model", "causal"), [(TemporalFilter, False), (TemporalFilter, True), (TemporalLCN, True)]
    )
    def test_corrects_a_sequence_as_in_the_trial_with_a_model_over_time(self, small_experiment, model, causal):
        changes = {
            "base_hyperparams.model": model,
            "base_hyperparams.model_args": {"size": 5, "causal": causal, "zero_init": False},
            "experiment_config.test_set": "small_test",
        }
        self.assert_corrects_a_sequence_as_recorded(small_experiment, changes)

    @pytest.mark.parametrize("normalizer", [None, ViewpointNormalizer], ids=str)
    @pytest.mark.parametrize("trained_model", [False, True])
    def test_fuses_subsets_as_in_the_trial(self, small_experiment, normalizer, trained_model):
        changes = {**FUSION, "experiment_config.normalizer": normalizer, "base_hyperparams.eval_space": "default"}
        if trained_model:
            changes = {path: value for path, value in changes.items() if not path.endswith(OPTIMISATION)}
            changes["base_hyperparams.model"] = AgreementFusion
            changes["base_hyperparams.model_args"] = {"n_subsets": 2, "sigma": 1.0, "zero_init": False}
        small_experiment.run(changes)
        trained = read_corrector(folder_of(small_experiment))
        assert trained.train_subsets == ("A", "B")
        dataset = read_dataset(small_experiment.data_dir, "two_test")
        poses = torch.stack([torch.tensor(dataset.poses[name]) for name in trained.train_subsets], dim=1)
        means = CorrectionMeans(trained.skeleton)
        with torch.no_grad():
            means.add(poses.mean(dim=1), trained.corrector(poses), torch.tensor(dataset.labels))
        (row,) = Results.read(folder_of(small_experiment)).trials
        assert means.metrics()["distance"] == pytest.approx(row["test_distance_mm"], rel=1e-5)
        assert means.metrics()["distance_before"] == pytest.approx(row["test_distance_before_mm"], rel=1e-5)
        assert row["test_distance_mm[fused]"] == row["test_distance_mm"] != row["test_distance_before_mm"]

    def test_over_time_depends_on_the_future_unless_it_is_causal(self, small_experiment):
        for causal in (False, True):
            changes = {
                "experiment_config.name": f"causal_{causal}",
                "base_hyperparams.model": TemporalFilter,
                "base_hyperparams.model_args": {"size": 5, "causal": causal, "zero_init": False},
            }
            small_experiment.run(changes)
            folder = ExperimentFolder(Storage(small_experiment.storage_path) / f"causal_{causal}")
            corrector = read_corrector(folder).corrector
            poses = torch.tensor(read_dataset(small_experiment.data_dir, "small_test").poses["DEFAULT"])
            changed = poses.clone()
            changed[6:] += 50
            with torch.no_grad():
                is_same = (corrector(changed) == corrector(poses)).all(dim=2).all(dim=1)
            assert is_same[:6].tolist() == ([True] * 6 if causal else [True] * 4 + [False] * 2)

    def test_corrects_as_in_the_trial_with_another_skeleton(self, small_experiment):
        sets = {f"experiment_config.{part}_set": f"nyu_{part}" for part in ("train", "val", "test")}
        trained = self.assert_corrects_as_recorded(small_experiment, sets, test_set="nyu_test")
        assert trained.skeleton == NYU

    @pytest.mark.parametrize("activation", [nn.LeakyReLU(0.1), nn.PReLU(init=0.1), nn.Tanh()], ids=str)
    def test_corrects_as_in_the_trial_with_an_activation_that_is_a_module(self, small_experiment, activation):
        changes = {"base_hyperparams.model_args": {"hidden_dims": [8, 8], "activation": activation}}
        self.assert_corrects_as_recorded(small_experiment, changes)

    def assert_corrects_a_sequence_as_recorded(self, small_experiment, changes):
        small_experiment.run(changes)
        trained = read_corrector(folder_of(small_experiment))
        dataset = read_dataset(small_experiment.data_dir, "small_test")
        poses = torch.tensor(dataset.poses["DEFAULT"])
        means = CorrectionMeans(trained.skeleton)
        with torch.no_grad():
            means.add(poses, trained.corrector(poses), torch.tensor(dataset.labels))
        (recorded,) = (trial["test_distance_mm"] for trial in Results.read(folder_of(small_experiment)).trials)
        assert means.metrics()["distance"] == pytest.approx(recorded, rel=1e-6)
        assert means.metrics()["distance"] != pytest.approx(means.metrics()["distance_before"], rel=1e-3)

    def assert_corrects_as_recorded(self, small_experiment, changes, test_set="small_test"):
        table = small_experiment.run({"experiment_config.test_set": test_set, **changes})
        trained = read_corrector(folder_of(small_experiment))
        metrics = metrics_of(trained, read_dataset(small_experiment.data_dir, test_set))
        (row,) = table.trials
        for metric in ROUNDING:
            column = f"test_{metric}" + ("_mm" if metric.endswith("distance") else "")
            assert metrics[metric] == pytest.approx(row[column], rel=ROUNDING[metric])
            before = f"test_{metric}_before" + ("_mm" if metric.endswith("distance") else "")
            assert metrics[f"{metric}_before"] == pytest.approx(row[before], rel=ROUNDING[metric])
        assert metrics["improved"] == pytest.approx(row["test_improved"])
        return trained


class TestAnOptionWhoseValuesAreModules:
    def options(self):
        return {"model_args.activation": ["leaky_relu", nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), nn.PReLU(init=0.1)]}

    def test_is_trained_labelled_and_found_again(self, small_experiment):
        table = small_experiment.run(options=self.options())
        labels = {row["key"]: row["model_args.activation"] for row in table.summary}
        names = ["leaky_relu", "LeakyReLU(negative_slope=0.1)", "LeakyReLU(negative_slope=0.2)", "PReLU(init=0.1)"]
        assert sorted(labels.values()) == sorted(names)
        assert small_experiment.key() == next(key for key, label in labels.items() if label == "leaky_relu")
        assert len({row["val_distance_mm"] for row in table.trials}) == 4
        plan = small_experiment.experiment(options=self.options()).plan()
        assert {combination.key for combination in plan.combinations} == labels.keys()
        assert set(plan.statuses.values()) == {"finished"}

    def test_is_read_back_and_exported(self, small_experiment, tmp_path):
        table = small_experiment.run(options=self.options())
        poses = torch.tensor(read_dataset(small_experiment.data_dir, "small_val").poses["DEFAULT"])
        (key,) = [row["key"] for row in table.summary if row["model_args.activation"] == "PReLU(init=0.1)"]
        trained = read_corrector(folder_of(small_experiment), combination=key)
        export_corrector(trained.corrector, trained.skeleton, tmp_path / "corrector.pt2")
        exported = torch.export.load(tmp_path / "corrector.pt2").module()
        torch.testing.assert_close(exported(poses), trained.corrector(poses), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def sweep(small_data, tmp_path_factory):
    small_experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("sweep"))
    return small_experiment, small_experiment.run({"experiment_config.n_repetitions": 3}, {LR: [1e-5, 1e-2]})


class TestTheChoice:
    def test_of_the_best_is_the_best_combination_and_its_best_repetition(self, sweep):
        small_experiment, table = sweep
        best = table.summary[0]
        trained = read_corrector(folder_of(small_experiment))
        distances = {r["repetition"]: r["val_distance_mm"] for r in table.trials if r["key"] == best["key"]}
        assert trained.key == best["key"]
        assert trained.options == {LR: best[LR]}
        assert trained.repetitions == (min(distances, key=distances.get),)

    def test_by_key_may_be_its_beginning_and_takes_the_repetition_that_is_named(self, sweep):
        small_experiment, table = sweep
        key = table.summary[1]["key"]
        trained = read_corrector(folder_of(small_experiment), combination=key[:6], repetition=2)
        assert (trained.key, trained.repetitions) == (key, (2,))

    def test_of_all_repetitions_is_the_mean_of_what_each_returns(self, sweep):
        small_experiment, _ = sweep
        poses = torch.tensor(read_dataset(small_experiment.data_dir, "small_val").poses["DEFAULT"])
        single = [read_corrector(folder_of(small_experiment), repetition=r).corrector(poses) for r in range(3)]
        ensemble = read_corrector(folder_of(small_experiment), repetition="all")
        assert ensemble.repetitions == (0, 1, 2)
        torch.testing.assert_close(ensemble.corrector(poses), torch.stack(single).mean(dim=0))

    @pytest.mark.parametrize(
        ("choice", "says"),
        [
            (
                {"combination": "nothing"},
                r"small_experiment has no combination 'nothing'; known: [0-9a-f]{4}, [0-9a-f]{4}",
            ),
            ({"combination": ""}, "small_experiment has 2 combinations whose keys begin with ''"),
            ({"repetition": 3}, "give 'best', 'all' or one of 0, 1, 2"),
            ({"repetition": "first"}, "has no finished repetition 'first'"),
        ],
    )
    def test_of_what_is_not_there_is_refused_with_what_is(self, sweep, choice, says):
        with pytest.raises(UserError, match=says):
            read_corrector(folder_of(sweep[0]), **choice)

    def test_leaves_out_repetitions_that_are_not_finished_or_not_planned_any_more(self, small_experiment):
        small_experiment.run({"experiment_config.n_repetitions": 3})
        small_experiment.run({"experiment_config.n_repetitions": 2})
        (small_experiment.folder / "trials" / small_experiment.key() / "0" / "trial.json").unlink()
        assert read_corrector(folder_of(small_experiment), repetition="all").repetitions == (1,)

    def test_of_the_best_is_refused_where_errors_on_different_sets_would_be_compared(self, small_experiment):
        small_experiment.run(options={"experiment_config.val_set": ["small_val", "small_test"]})
        with pytest.raises(
            UserError, match=r"measured on 2 sets.*: [0-9a-f]{4} \(small_\w+\), [0-9a-f]{4} \(small_\w+\)$"
        ):
            read_corrector(folder_of(small_experiment))


class TestWhatCannotBeBuilt:
    def edited(self, small_experiment, change, results=None):
        path = small_experiment.folder / "trials" / small_experiment.key(results) / "0" / "trial.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return folder_of(small_experiment)

    def test_has_no_trial_that_is_finished(self, small_experiment):
        small_experiment.run()
        folder = self.edited(small_experiment, lambda trial: trial.update(status="failed"))
        with pytest.raises(UserError, match=r"no repetition of [0-9a-f]{16} of small_experiment is finished"):
            read_corrector(folder)

    def test_has_weights_that_were_not_kept(self, small_experiment):
        small_experiment.run({"experiment_config.keep_weights": "none"})
        with pytest.raises(UserError, match=r"has no weights\.pt: .*keep_weights"):
            read_corrector(folder_of(small_experiment))

    def test_has_weights_of_another_model_or_no_weights_in_their_file(self, small_experiment):
        small_experiment.run()
        weights = small_experiment.folder / "trials" / small_experiment.key() / "0" / "weights.pt"
        torch.save({"a": torch.ones(2)}, weights)
        with pytest.raises(UserError, match=r"weights\.pt of .* does not fit .*CorrectorMLP: .*"):
            read_corrector(folder_of(small_experiment))
        weights.write_bytes(b"nothing")
        with pytest.raises(UserError, match=r"weights\.pt of .* does not fit .*CorrectorMLP: .*"):
            read_corrector(folder_of(small_experiment))

    def test_names_a_class_of_the_users_until_its_module_is_named_too(self, small_experiment):
        changes = {"base_hyperparams.model": OwnMLP}
        small_experiment.run(changes)
        with pytest.raises(UserError, match=r"OwnMLP is not a class of PoseTune's; name its module"):
            read_corrector(folder_of(small_experiment))
        trained = read_corrector(folder_of(small_experiment), modules=[sys.modules[__name__]])
        assert type(trained.corrector.model) is OwnMLP

    def test_is_never_of_another_module_than_its_name_says(self, small_experiment):
        small_experiment.run()
        other = ModuleType("other")
        other.CorrectorMLP = OwnMLP
        assert type(read_corrector(folder_of(small_experiment), modules=[other]).corrector.model) is CorrectorMLP
        small_experiment.run({"base_hyperparams.model": OwnMLP, "experiment_config.name": "own"})
        folder = ExperimentFolder(Storage(small_experiment.storage_path) / "own")
        other.OwnMLP = CorrectorMLP
        here = sys.modules[__name__]
        assert type(read_corrector(folder, modules=[other, here]).corrector.model) is OwnMLP
        another = ModuleType("another")
        another.OwnMLP = OwnMLP
        with pytest.raises(UserError, match="is ambiguous: OwnMLP is in each of other, another"):
            read_corrector(folder, modules=[other, another])

    @pytest.mark.parametrize(
        "name",
        [
            "os.system",
            "posenet.nothing.Model",
            "subprocess.Popen",
            "builtins.print",
            "posenet.models.corrector_mlp.check_widths",
            "posenet.models.layers.math",
            "data_pipeline.pose_dataset.PoseDataset",
            "cluster.experiment.Experiment",
            "tests.cluster_tests.small_experiment.FailingMLP",
        ],
    )
    def test_names_what_is_no_model_and_it_is_not_called(self, small_experiment, name):
        small_experiment.run()
        folder = self.edited(small_experiment, lambda trial: trial["description"]["model"].update(name=name, args={}))
        with pytest.raises(UserError, match="is not a class of PoseTune's"):
            read_corrector(folder)

    def test_names_a_module_that_is_not_imported(self, small_experiment, tmp_path, monkeypatch):
        (tmp_path / "surprise.py").write_text("raise SystemExit('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        small_experiment.run()
        folder = self.edited(
            small_experiment, lambda trial: trial["description"]["model"].update(name="surprise.Model")
        )
        with pytest.raises(UserError, match=r"surprise\.Model is not a class of PoseTune's"):
            read_corrector(folder)

    @pytest.mark.parametrize("name", ["os.system", "torch.nn.init.zeros_", "posenet.losses.MetricLoss"])
    def test_has_an_argument_that_is_no_module_and_it_is_not_called(self, small_experiment, name):
        small_experiment.run()
        argument = {"name": name, "args": {}}
        folder = self.edited(
            small_experiment, lambda trial: trial["description"]["model"]["args"].update(activation=argument)
        )
        with pytest.raises(UserError, match=f"{name} is not a class of PoseTune's"):
            read_corrector(folder)

    def test_has_an_activation_of_the_users_until_its_module_is_named_too(self, small_experiment):
        small_experiment.run({"base_hyperparams.model_args.activation": OwnActivation()})
        with pytest.raises(UserError, match=r"OwnActivation is not a class of PoseTune's; name its module"):
            read_corrector(folder_of(small_experiment))
        trained = read_corrector(folder_of(small_experiment), modules=[sys.modules[__name__]])
        assert type(trained.corrector.model.layers[1]) is OwnActivation

    @pytest.mark.parametrize("value", [{"name": "relu"}, {"float": 3}, {"float": "inf"}, {"name": 1, "args": [2.5]}])
    def test_takes_no_dict_of_the_users_for_an_object(self, value):
        expected = float("inf") if value == {"float": "inf"} else value
        assert decode_value({"layer": value}) == {"layer": expected}

    @pytest.mark.parametrize(
        "damage",
        [
            lambda trial: trial.pop("description"),
            lambda trial: trial["description"].pop("model"),
            lambda trial: trial["description"].pop("data"),
            lambda trial: trial["description"].pop("spaces"),
            lambda trial: trial["description"]["model"]["args"].update(hidden_dims=[0]),
            lambda trial: trial["description"]["model"]["args"].update(hidden_dims=[10**12]),
            lambda trial: trial["description"]["model"]["args"].update(activation="nothing"),
            lambda trial: trial["description"]["data"]["skeleton"]["args"].update(bones=[[0, 99]]),
            lambda trial: trial.update(description=5),
        ],
    )
    def test_has_a_description_that_is_damaged(self, small_experiment, damage):
        small_experiment.run()
        folder = self.edited(small_experiment, damage)
        with pytest.raises(UserError, match="does not say how to build the corrector"):
            read_corrector(folder)
