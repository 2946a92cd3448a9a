import json
import sys
from functools import partial
from types import ModuleType

import pytest
import torch

from cluster.results.deserialize import decode_value
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.trained import read_corrector
from data_pipeline.normalizers import GlobalNormalizer, IndividualNormalizer, Shifter, ViewpointNormalizer
from data_pipeline.pose_dataset import read_dataset
from data_pipeline.skeleton import NYU
from data_pipeline.user_error import UserError
from posenet.evaluator import CorrectionMeans
from posenet.models import CorrectorGNN, CorrectorLCN, CorrectorMLP, CorrectorTransformer, GlobalShiftMLP
from tests.cluster_tests.tiny import LR, Tiny

MODELS = {
    CorrectorMLP: {"hidden_dims": [8], "batchnorm": True, "dropout": 0.1},
    GlobalShiftMLP: {"hidden_dims": [8], "dropout": 0.1},
    CorrectorLCN: {"dim": 4, "n_blocks": 1, "reach": 2, "dropout": 0.1},
    CorrectorTransformer: {"dim": 8, "n_layers": 1, "n_heads": 2, "feedforward_dim": 8, "dropout": 0.1},
    CorrectorGNN: {
        **{"n_iter": 2, "latent_dim": 4, "encoder": "shared", "encoder_dims": [4], "message_dims": [4]},
        **{"decoder": "whole_pose", "decoder_dims": [4], "dropout": 0.1},
    },
}

NORMALIZERS = [
    None,
    Shifter,
    ViewpointNormalizer,
    IndividualNormalizer,
    GlobalNormalizer,
    partial(GlobalNormalizer, individual_scaling=True),
]


class OwnMLP(CorrectorMLP):
    """A model that is not of the project."""


def folder_of(tiny):
    return ExperimentFolder(Storage(tiny.storage_path) / "tiny")


def metrics_of(trained, dataset):
    """What the corrector makes of a dataset's only subset, a few samples at a time."""
    (poses,) = (torch.tensor(array) for array in dataset.poses.values())
    labels = torch.tensor(dataset.labels)
    means = CorrectionMeans(trained.skeleton)
    with torch.no_grad():
        for rows in torch.arange(len(poses)).split(7):
            means.add(poses[rows], trained.corrector(poses[rows]), labels[rows])
    return means.metrics()


class TestACorrectorThatWasReadBack:
    @pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
    def test_corrects_as_in_the_trial_with_every_normalizer(self, tiny, normalizer):
        space = "default" if normalizer is None else "original"
        changes = {"experiment_config.normalizer": normalizer, "base_hyperparams.eval_space": space}
        self.assert_corrects_as_recorded(tiny, changes)

    @pytest.mark.parametrize("model", MODELS)
    def test_corrects_as_in_the_trial_with_every_model(self, tiny, model):
        self.assert_corrects_as_recorded(
            tiny, {"base_hyperparams.model": model, "base_hyperparams.model_args": MODELS[model]}
        )

    def test_corrects_as_in_the_trial_with_another_skeleton(self, tiny):
        sets = {f"experiment_config.{part}_set": f"nyu_{part}" for part in ("train", "val", "test")}
        trained = self.assert_corrects_as_recorded(tiny, sets, test_set="nyu_test")
        assert trained.skeleton == NYU

    def assert_corrects_as_recorded(self, tiny, changes, test_set="tiny_test"):
        table = tiny.run({"experiment_config.test_set": test_set, **changes})
        trained = read_corrector(folder_of(tiny))
        metrics = metrics_of(trained, read_dataset(tiny.data_dir, test_set))
        (row,) = table.trials
        for metric in ("distance", "max_distance", "auc_20_50", "proportion_error"):
            column = f"test_{metric}" + ("_mm" if metric.endswith("distance") else "")
            assert metrics[metric] == pytest.approx(row[column], rel=1e-6)
            before = f"test_{metric}_before" + ("_mm" if metric.endswith("distance") else "")
            assert metrics[f"{metric}_before"] == pytest.approx(row[before], rel=1e-6)
        assert metrics["improved"] == pytest.approx(row["test_improved"])
        return trained


@pytest.fixture(scope="module")
def sweep(tiny_data, tmp_path_factory):
    tiny = Tiny(tiny_data, tmp_path_factory.mktemp("sweep"))
    return tiny, tiny.run({"experiment_config.n_repetitions": 3}, {LR: [1e-5, 1e-2]})


class TestTheChoice:
    def test_of_the_best_is_the_best_combination_and_its_best_repetition(self, sweep):
        tiny, table = sweep
        best = table.summary[0]
        trained = read_corrector(folder_of(tiny))
        distances = {r["repetition"]: r["val_distance_mm"] for r in table.trials if r["key"] == best["key"]}
        assert trained.key == best["key"]
        assert trained.options == {LR: best[LR]}
        assert trained.repetitions == (min(distances, key=distances.get),)

    def test_by_key_may_be_its_beginning_and_takes_the_repetition_that_is_named(self, sweep):
        tiny, table = sweep
        key = table.summary[1]["key"]
        trained = read_corrector(folder_of(tiny), combination=key[:6], repetition=2)
        assert (trained.key, trained.repetitions) == (key, (2,))

    def test_of_all_repetitions_is_the_mean_of_what_each_returns(self, sweep):
        tiny, _ = sweep
        poses = torch.tensor(read_dataset(tiny.data_dir, "tiny_val").poses["DEFAULT"])
        single = [read_corrector(folder_of(tiny), repetition=r).corrector(poses) for r in range(3)]
        ensemble = read_corrector(folder_of(tiny), repetition="all")
        assert ensemble.repetitions == (0, 1, 2)
        torch.testing.assert_close(ensemble.corrector(poses), torch.stack(single).mean(dim=0))

    @pytest.mark.parametrize(
        ("choice", "says"),
        [
            ({"combination": "nothing"}, r"tiny has no combination 'nothing'; known are [0-9a-f]{16}, [0-9a-f]{16}"),
            ({"combination": ""}, "tiny has several combinations whose keys begin with ''"),
            ({"repetition": 3}, "give 'best', 'all' or one of 0, 1, 2"),
            ({"repetition": "first"}, "has no finished repetition 'first'"),
        ],
    )
    def test_of_what_is_not_there_is_refused_with_what_is(self, sweep, choice, says):
        with pytest.raises(UserError, match=says):
            read_corrector(folder_of(sweep[0]), **choice)

    def test_leaves_out_repetitions_that_are_not_finished_or_not_planned_any_more(self, tiny):
        tiny.run({"experiment_config.n_repetitions": 3})
        tiny.run({"experiment_config.n_repetitions": 2})
        (tiny.folder / "trials" / tiny.key() / "0" / "trial.json").unlink()
        assert read_corrector(folder_of(tiny), repetition="all").repetitions == (1,)

    def test_of_the_best_is_refused_where_errors_on_different_sets_would_be_compared(self, tiny):
        tiny.run(options={"experiment_config.val_set": ["tiny_val", "tiny_test"]})
        with pytest.raises(UserError, match=r"validated on different sets.*\n  [0-9a-f]{16}  tiny_\w+: \d+\.\d\d"):
            read_corrector(folder_of(tiny))


class TestWhatCannotBeBuilt:
    def edited(self, tiny, change, results=None):
        path = tiny.folder / "trials" / tiny.key(results) / "0" / "trial.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return folder_of(tiny)

    def test_has_no_trial_that_is_finished(self, tiny):
        tiny.run()
        folder = self.edited(tiny, lambda trial: trial.update(status="failed"))
        with pytest.raises(UserError, match="no trial of tiny is finished"):
            read_corrector(folder)

    def test_has_weights_that_were_not_kept(self, tiny):
        tiny.run({"experiment_config.keep_weights": "none"})
        with pytest.raises(UserError, match=r"has no weights\.pt: .*keep_weights"):
            read_corrector(folder_of(tiny))

    def test_has_weights_of_another_model_or_no_weights_in_their_file(self, tiny):
        tiny.run()
        weights = tiny.folder / "trials" / tiny.key() / "0" / "weights.pt"
        torch.save({"a": torch.ones(2)}, weights)
        with pytest.raises(UserError, match=r"weights\.pt of .* does not fit .*CorrectorMLP: .*"):
            read_corrector(folder_of(tiny))
        weights.write_bytes(b"nothing")
        with pytest.raises(UserError, match=r"weights\.pt of .* does not fit .*CorrectorMLP: .*"):
            read_corrector(folder_of(tiny))

    def test_names_a_class_of_the_users_until_its_module_is_named_too(self, tiny):
        changes = {"base_hyperparams.model": OwnMLP}
        tiny.run(changes)
        with pytest.raises(UserError, match=r"OwnMLP is not a class of PoseTune's; name the module"):
            read_corrector(folder_of(tiny))
        trained = read_corrector(folder_of(tiny), modules=[sys.modules[__name__]])
        assert type(trained.corrector.model) is OwnMLP

    def test_is_never_of_another_module_than_its_name_says(self, tiny):
        tiny.run()
        other = ModuleType("other")
        other.CorrectorMLP = OwnMLP
        assert type(read_corrector(folder_of(tiny), modules=[other]).corrector.model) is CorrectorMLP
        tiny.run({"base_hyperparams.model": OwnMLP, "experiment_config.name": "own"})
        folder = ExperimentFolder(Storage(tiny.storage_path) / "own")
        other.OwnMLP = CorrectorMLP
        here = sys.modules[__name__]
        assert type(read_corrector(folder, modules=[other, here]).corrector.model) is OwnMLP
        another = ModuleType("another")
        another.OwnMLP = OwnMLP
        with pytest.raises(UserError, match="may be the OwnMLP of each of other, another"):
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
            "tests.cluster_tests.tiny.FailingMLP",
        ],
    )
    def test_names_what_is_no_model_and_it_is_not_called(self, tiny, name):
        tiny.run()
        folder = self.edited(tiny, lambda trial: trial["description"]["model"].update(name=name, args={}))
        with pytest.raises(UserError, match="is not a class of PoseTune's"):
            read_corrector(folder)

    def test_names_a_module_that_is_not_imported(self, tiny, tmp_path, monkeypatch):
        (tmp_path / "surprise.py").write_text("raise SystemExit('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        tiny.run()
        folder = self.edited(tiny, lambda trial: trial["description"]["model"].update(name="surprise.Model"))
        with pytest.raises(UserError, match=r"surprise\.Model is not a class of PoseTune's"):
            read_corrector(folder)

    def test_has_an_object_as_an_argument(self, tiny):
        tiny.run()
        argument = {"name": "torch.nn.modules.activation.ReLU", "args": {}}
        folder = self.edited(tiny, lambda trial: trial["description"]["model"]["args"].update(activation=argument))
        with pytest.raises(UserError, match=r"an argument is torch\.nn\.modules\.activation\.ReLU"):
            read_corrector(folder)

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
    def test_has_a_description_that_is_damaged(self, tiny, damage):
        tiny.run()
        folder = self.edited(tiny, damage)
        with pytest.raises(UserError, match="does not say how to build the corrector"):
            read_corrector(folder)
