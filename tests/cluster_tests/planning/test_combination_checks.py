import dataclasses
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.planning import builders, inputs
from cluster.planning.config import ConfigError
from data_pipeline import skeleton
from data_pipeline.augmenters import RandomBoneScaler, RandomScaler
from data_pipeline.distorters import (
    Distorter,
    ErrorBankDistorter,
    GaussianDistorter,
    LayeredGaussianDistorter,
    NeighborErrorBankDistorter,
)
from data_pipeline.frame_table import FrameTable
from data_pipeline.normalizers import GlobalNormalizer, IndividualNormalizer, Shifter, ViewpointNormalizer
from data_pipeline.pose_dataset import read_dataset, read_samples, write_dataset
from data_pipeline.pose_dataset import write_datasets as write_parts
from data_pipeline.skeleton import HANDS17, NYU
from data_pipeline.tables import write_errors, write_neighbors
from posenet.losses import CombinedLoss, Loss
from posenet.models import AgreementFusion, CorrectorMLP, WeightedFusion
from posenet.models.corrector import STRENGTH
from tests.cluster_tests.small_experiment import (
    CLOSED_FORM,
    FUSION,
    LR,
    MISSING,
    NEIGHBOR_ERRORS,
    SmallExperiment,
    case_id,
    write_datasets,
)

PLATEAU = torch.optim.lr_scheduler.ReduceLROnPlateau


def step_of(build, hyperparams):
    """What an optimizer makes of a parameter in a step, or how it refuses."""
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    parameter.grad = torch.ones(2, 3)
    try:
        build(hyperparams, [parameter]).step(lambda: 0.0)
    except Exception as error:
        return type(error), str(error)
    return parameter.tolist()


class Plain(torch.nn.Linear):
    """A model that is not derived from the base class of correctors."""

    def __init__(self, skeleton):
        super().__init__(3, 3)


class LayerwiseSGD(torch.optim.SGD):
    """Has a group for each parameter."""

    def __init__(self, params, lr, layerwise=True):
        super().__init__([{"params": [parameter]} for parameter in params] if layerwise else params, lr=lr)


class AllocatingMLP(CorrectorMLP):
    """Uses an operation that works only with real tensors."""

    def __init__(self, skeleton, *, hidden_dims):
        super().__init__(skeleton, hidden_dims=hidden_dims)
        self.scale = float(torch.ones(1).sum())


class ThinMLP(CorrectorMLP):
    def __init__(self, skeleton, **settings):
        super().__init__(skeleton, **settings)


class Shape:
    def __init__(self, *, batchnorm):
        self.batchnorm = batchnorm

    def __repr__(self):
        return "a shape"


class ShapedMLP(CorrectorMLP):
    def __init__(self, skeleton, *, shape):
        super().__init__(skeleton, hidden_dims=[8], batchnorm=shape.batchnorm)


class PickyMLP(CorrectorMLP):
    def __init__(self, skeleton, *, hidden_dims, mood):
        super().__init__(skeleton, hidden_dims=hidden_dims)
        raise RuntimeError(f"not in this mood: {mood}")


class PickyNormalizer(Shifter):
    def __init__(self, skeleton, *, unit):
        super().__init__(skeleton)
        self.unit = unit


class SecretLoss(Loss):
    def __init__(self, *, factor=2.0):
        self._factor = factor

    def __call__(self, poses, labels, skeleton) -> Tensor:
        return self._factor * (poses - labels).square().mean()


class SecretDistorter(Distorter):
    def __init__(self, *, size=1.0):
        self._size = size

    def __call__(self, samples, generator) -> Tensor:
        return samples.poses


class SecretScaler(RandomScaler):
    def __init__(self, *, secret=1.0):
        super().__init__()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The small datasets and broken ones."""
    folder = tmp_path_factory.mktemp("broken_data")
    write_datasets(folder)
    dataset = read_dataset(folder, "small_train")
    labels, poses = torch.tensor(dataset.labels), torch.tensor(dataset.poses["DEFAULT"])
    with_nan = poses.clone()
    with_nan[7, 3, 1] = math.nan
    for name, contents in {
        "nan": (labels, with_nan),
        "short": (labels, poses[:30]),
        "double": (labels.double(), poses),
        "joints": (labels[:, :17].clone(), poses[:, :17].clone()),
        "lonely": (labels, None),
    }.items():
        for part, content in zip(("labels", "poses"), contents, strict=True):
            if content is not None:
                torch.save(content, folder / f"{name}_{part}.pt")
    (folder / "text_labels.pt").write_text("1 2 3")
    write_errors(folder, "nyu", np.ones((5, 14, 3)))
    write_neighbors(folder, "far", np.zeros((40, 4)), dataset.labels + 1, 30)
    (folder / "torn_errors.pt").write_bytes(b"half")
    weights = {
        "good": CorrectorMLP(HANDS17, hidden_dims=[8]).state_dict(),
        "wide": CorrectorMLP(HANDS17, hidden_dims=[9]).state_dict(),
        "nyu": CorrectorMLP(NYU, hidden_dims=[8]).state_dict(),
        "list": [1, 2],
    }
    weights["with_strength"] = weights["good"] | {STRENGTH: torch.tensor(0.5)}
    for name, content in weights.items():
        torch.save(content, folder / f"{name}.pt")
    (folder / "text.pt").write_text("weights")
    return folder


@pytest.fixture
def small_experiment(data_dir, tmp_path):
    return SmallExperiment(data_dir, tmp_path / "results")


DATA = [
    (
        {"train_set": "small"},
        "train_set",
        "small_labels.pt does not exist; {data} has the datasets double, joints, lonely,",
    ),
    ({"val_set": "small_vla"}, "val_set", "Make datasets with posetune prepare-data"),
    ({"test_set": "none"}, "test_set", "none_labels.pt does not exist"),
    ({"train_set": "lonely"}, "train_set", "lonely_poses.pt does not exist"),
    ({"train_set_size": 41}, "train_set_size", "small_train_labels.pt has 40 samples, fewer than the requested 41"),
    ({"val_set_size": 21}, "val_set_size", "small_val_labels.pt has 20 samples, fewer than the requested 21"),
    ({"test_set": "small_test", "test_set_size": 99}, "test_set_size", "fewer than the requested 99"),
    ({"test_set": None, "test_set_size": 5}, "test_set_size", "is given, but there is no test_set"),
    ({"train_set": "nan"}, "train_set", "nan_poses.pt has NaN or infinite values; the first bad sample is 7"),
    ({"val_set": "short"}, "val_set", "has 30 poses, but {data}/short_labels.pt has 40 labels; sample 30 is the first"),
    ({"train_set": "double"}, "train_set", "holds torch.float64 numbers; expected torch.float32"),
    ({"train_set": "text"}, "train_set", "text_labels.pt is not a file that torch.load"),
    ({"train_set": "joints"}, "train_set", "there is no skeleton with 17 joints"),
    ({"val_set": "nyu_val"}, "val_set", "nyu_val has the NYU skeleton of 14 joints, the"),
    ({"test_set": "nyu_test"}, "test_set", "nyu_test has the NYU skeleton of 14 joints, the"),
]

TABLES = [
    (ErrorBankDistorter, {"bank_name": "bnak"}, "{data}/bnak_errors.pt does not exist; {data} has bank_errors.pt, "),
    (ErrorBankDistorter, {"bank_name": "torn"}, "{data}/torn_errors.pt is not a file that torch.load"),
    (
        ErrorBankDistorter,
        {"bank_name": "nyu"},
        "ErrorBankDistorter refuses {{bank_name: 'nyu'}}: nyu_errors.pt is for hands with 14 joints, but the training",
    ),
    (GaussianDistorter, {"stats_name": "none"}, "none_error_stats.json does not exist; {data} has no file *_error_sta"),
    (
        NeighborErrorBankDistorter,
        {"bank_name": "bank", "neighbors_name": "far", "max_k": 2},
        "far_neighbors.pt was made for another training set",
    ),
    (
        NeighborErrorBankDistorter,
        {"bank_name": "bank", "neighbors_name": "near", "max_k": 5},
        "near_neighbors.pt has 4 neighbours for each sample, fewer than max_k = 5",
    ),
]

PAIRS = [
    (
        {"solver_config.val_example_indices": [0, 20]},
        "solver_config.val_example_indices",
        "small_val has 20 samples, numbered from 0; there is no sample 20",
    ),
    (
        {"experiment_config.val_set_size": 3},
        "solver_config.val_example_indices",
        "small_val has 3 samples, numbered from 0; there is no sample 3",
    ),
    (
        {"solver_config.val_example_subset": "A"},
        "solver_config.val_example_subset",
        "small_val has no subset 'A'; known: DEFAULT",
    ),
    (
        {"experiment_config.val_set": "two_val", "solver_config.val_example_subset": "a"},
        "solver_config.val_example_subset",
        "two_val has no subset 'a'",
    ),
    (
        {"base_hyperparams.model_args.hiden_dims": [8]},
        "base_hyperparams.model_args.hiden_dims",
        "CorrectorMLP has no such argument; did you mean 'hidden_dims'?",
    ),
    (
        {"base_hyperparams.model_args.hidden_dims": MISSING},
        "base_hyperparams.model_args.hidden_dims",
        "is missing; CorrectorMLP needs it",
    ),
    (
        {"base_hyperparams.model_args.skeleton": HANDS17},
        "base_hyperparams.model_args.skeleton",
        "CorrectorMLP has no such argument",
    ),
    (
        {"base_hyperparams.model_args.activation": "rleu"},
        "base_hyperparams.model_args",
        "CorrectorMLP refuses {{hidden_dims: [8], activation: 'rleu', dropout: None, batchnorm: False}}: activation",
    ),
    (
        {"base_hyperparams.model_args.dropout": 2},
        "base_hyperparams.model_args",
        "dropout: 2",
    ),
    ({"base_hyperparams.model_args.hidden_dims": [True]}, "base_hyperparams.model_args", "widths of at least 1"),
    ({"base_hyperparams.model_args.hidden_dims": 8}, "base_hyperparams.model_args", "hidden_dims: 8"),
    ({"base_hyperparams.model_args.dropout": math.nan}, "base_hyperparams.model_args.dropout", "NaN is not a setting"),
    (
        {"base_hyperparams.model_args.hidden_dims": np.array([8])},
        "base_hyperparams.model_args.hidden_dims",
        "array([8]) cannot be distinguished from another ndarray",
    ),
    (
        {"base_hyperparams.model": PickyMLP, "base_hyperparams.model_args": {"hidden_dims": [8], "mood": "bad"}},
        "base_hyperparams.model_args",
        "PickyMLP refuses {{hidden_dims: [8], mood: 'bad'}}: not in this mood: bad",
    ),
    (
        {"base_hyperparams.model": type("Local", (CorrectorMLP,), {"__qualname__": "f.<locals>.Local"})},
        "base_hyperparams.model",
        "cannot be imported by name",
    ),
    (
        {"base_hyperparams.optimizer_args.learning_rate": 1},
        "base_hyperparams.optimizer_args.learning_rate",
        "Adam has no such argument",
    ),
    (
        {"base_hyperparams.optimizer_args.weightdecay": 1},
        "base_hyperparams.optimizer_args.weightdecay",
        "did you mean 'weight_decay'?",
    ),
    (
        {"base_hyperparams.optimizer_args.params": []},
        "base_hyperparams.optimizer_args.params",
        "Adam has no such argument",
    ),
    (
        {"base_hyperparams.optimizer_args.lr": -1},
        "base_hyperparams.optimizer_args",
        "Adam refuses {{lr: -1, weight_decay: 0.0}}: Invalid learning rate: -1",
    ),
    (
        {"base_hyperparams.optimizer_args.lr": "0.1"},
        "base_hyperparams.optimizer_args.lr",
        "got '0.1'; allowed: a number",
    ),
    ({"base_hyperparams.optimizer_args.lr": True}, "base_hyperparams.optimizer_args.lr", "got True; allowed: a number"),
    ({"base_hyperparams.optimizer_args.amsgrad": "no"}, "base_hyperparams.optimizer_args.amsgrad", "True or False"),
    (
        {"base_hyperparams.model_args.batchnorm": "no"},
        "base_hyperparams.model_args.batchnorm",
        "got 'no'; allowed: True or False",
    ),
    (
        {"base_hyperparams.model_args.dropout": True},
        "base_hyperparams.model_args.dropout",
        "got True; allowed: a number, or None",
    ),
    (
        {"base_hyperparams.model_args.activation": torch.nn.ReLU},
        "base_hyperparams.model_args.activation",
        "allowed: a str, or a torch module",
    ),
    (
        {"base_hyperparams.model_args.activation": torch.nn.GLU()},
        "base_hyperparams.model_args",
        "activation GLU(dim=-1) makes 4 units of 8; it must keep their number",
    ),
    (
        {"base_hyperparams.model_args.activation": torch.nn.Linear(8, 8, bias=False)},
        "base_hyperparams.model_args.activation",
        "the parameters of Linear",
    ),
    ({"base_hyperparams.scheduler_args.step_size": True}, "base_hyperparams.scheduler_args.step_size", "an int"),
    ({"base_hyperparams.optimizer_args.lr": math.nan}, "base_hyperparams.optimizer_args.lr", "NaN is not a setting"),
    (
        {"base_hyperparams.optimizer_args.lr": torch.tensor(0.1)},
        "base_hyperparams.optimizer_args.lr",
        "cannot be distinguished from another Tensor",
    ),
    (
        {"base_hyperparams.optimizer_args.betas": (0.9, 1.5)},
        "base_hyperparams.optimizer_args",
        "Invalid beta parameter",
    ),
    (
        {"base_hyperparams.scheduler_args.step_size": MISSING},
        "base_hyperparams.scheduler_args.step_size",
        "is missing; StepLR needs it",
    ),
    (
        {"base_hyperparams.scheduler_args.stepsize": 2},
        "base_hyperparams.scheduler_args.stepsize",
        "StepLR has no such argument; did you mean 'step_size'?",
    ),
    (
        {"base_hyperparams.scheduler_args.step_size": 0},
        "base_hyperparams.scheduler_args",
        "StepLR refuses {{step_size: 0, gamma: 0.5}}",
    ),
    ({"base_hyperparams.scheduler_args.gamma": "0.5"}, "base_hyperparams.scheduler_args.gamma", "got '0.5'"),
    (
        {"base_hyperparams.model": ThinMLP, "base_hyperparams.model_args": {"hiden_dims": [8]}},
        "base_hyperparams.model_args",
        "ThinMLP refuses {{hiden_dims: [8]}}: ",
    ),
    (
        {
            "base_hyperparams.scheduler": PLATEAU,
            "base_hyperparams.scheduler_args": {"factor": 2.0},
            "base_hyperparams.scheduler_requires_metric": True,
        },
        "base_hyperparams.scheduler_args",
        "ReduceLROnPlateau refuses {{factor: 2.0}}: Factor should be < 1.0.",
    ),
    (
        {
            "base_hyperparams.scheduler": torch.optim.lr_scheduler.LambdaLR,
            "base_hyperparams.scheduler_args": {"lr_lambda": lambda epoch: 0.9**epoch},
        },
        "base_hyperparams.scheduler_args.lr_lambda",
        "a lambda",
    ),
    *(
        (
            {"base_hyperparams.optimizer": optimizer, "base_hyperparams.optimizer_args": {}},
            "base_hyperparams.optimizer_args",
            f"{optimizer.__name__} refuses {{{{}}}}: {says}",
        )
        for optimizer, says in [
            (torch.optim.Muon, "Muon only supports 2D parameters"),
            (torch.optim.SparseAdam, "SparseAdam does not support dense gradients"),
        ]
    ),
    (
        {
            "base_hyperparams.scheduler": torch.optim.lr_scheduler.OneCycleLR,
            "base_hyperparams.scheduler_args": {"max_lr": 0.1, "total_steps": 4},
            "solver_config.num_epochs": 5,
        },
        "base_hyperparams.scheduler_args",
        "OneCycleLR refuses {{max_lr: 0.1, total_steps: 4}}: Tried to step 5 times.",
    ),
    (
        {"base_hyperparams.model_args.batchnorm": True, "solver_config.batch_size": 13},
        "solver_config.batch_size",
        "with batches of 13, the last batch of the 40 samples of small_train has 1 sample, but CorrectorMLP normalises",
    ),
    (
        {"base_hyperparams.model_args.batchnorm": True, "solver_config.batch_size": 1},
        "solver_config.batch_size",
        "with batches of 1, the last batch",
    ),
    (
        {"base_hyperparams.model_args.batchnorm": True, "experiment_config.train_set_size": 33},
        "solver_config.batch_size",
        "with batches of 16, the last batch of the 33 samples of small_train has 1 sample",
    ),
    (
        {"base_hyperparams.scheduler": PLATEAU, "base_hyperparams.scheduler_args": {}},
        "base_hyperparams.scheduler_requires_metric",
        "must be True for ReduceLROnPlateau, whose step takes a metric",
    ),
    (
        {"base_hyperparams.scheduler_requires_metric": True},
        "base_hyperparams.scheduler_requires_metric",
        "must be False for StepLR, whose step takes no metric",
    ),
    (
        {"base_hyperparams.optimizer": None},
        "base_hyperparams.optimizer",
        "is None, but CorrectorMLP is trained with gradients; give a class of torch.optim",
    ),
    ({"base_hyperparams.scheduler": None}, "base_hyperparams.scheduler_args", "must be {{}} without a scheduler"),
    (
        {
            **{"base_hyperparams.scheduler": None, "base_hyperparams.scheduler_args": {}},
            "base_hyperparams.scheduler_requires_metric": True,
        },
        "base_hyperparams.scheduler_requires_metric",
        "must be False without a scheduler",
    ),
    *(
        (
            {**CLOSED_FORM, f"base_hyperparams.{key}": value},
            f"base_hyperparams.{key}",
            f"must be {unused}: KernelCorrector is fitted in closed form, without gradients",
        )
        for key, value, unused in [
            ("optimizer", torch.optim.Adam, "None"),
            ("optimizer_args", {"lr": 0.1}, "{{}}"),
            ("scheduler", PLATEAU, "None"),
            ("scheduler_args", {"patience": 3}, "{{}}"),
            ("scheduler_requires_metric", True, "False"),
        ]
    ),
    (
        {
            "base_hyperparams.model": Plain,
            "base_hyperparams.model_args": {},
            "base_hyperparams.choose_strength": True,
        },
        "base_hyperparams.choose_strength",
        "must be False for Plain, which is not a Corrector of posenet.models",
    ),
    (
        {**CLOSED_FORM, "experiment_config.init_weights_path": "weights.pt"},
        "experiment_config.init_weights_path",
        "must be None: KernelCorrector is fitted in closed form",
    ),
    (
        {"base_hyperparams.distorter": GaussianDistorter},
        "base_hyperparams.distorter_args",
        "GaussianDistorter refuses {{}}: give exactly one of std_mm and stats_name, not neither",
    ),
    (
        {"base_hyperparams.distorter_args": {"std_mm": 1}},
        "base_hyperparams.distorter_args.std_mm",
        "NoDistorter has no such argument",
    ),
    (
        {"base_hyperparams.distorter": GaussianDistorter, "base_hyperparams.distorter_args": {"std_mm": -1}},
        "base_hyperparams.distorter_args",
        "GaussianDistorter refuses {{std_mm: -1}}: std_mm must be",
    ),
    (
        {"base_hyperparams.distorter": SecretDistorter, "base_hyperparams.distorter_args": {"size": lambda: 1}},
        "base_hyperparams.distorter_args.size",
        "a lambda",
    ),
    (
        {"experiment_config.use_preset": False},
        "base_hyperparams.distorter",
        "NoDistorter does not make an input, and with use_preset False the input is the label; use another",
    ),
    (
        {"base_hyperparams.augmenters": [SecretScaler()]},
        "base_hyperparams.augmenters",
        "constructor's argument 'secret'",
    ),
    (
        {"base_hyperparams.loss_function": SecretLoss()},
        "base_hyperparams.loss_function",
        "constructor's argument 'factor'",
    ),
    ({"base_hyperparams.loss_function": CombinedLoss}, "base_hyperparams.loss_function", "'parts'"),
    ({"experiment_config.normalizer": PickyNormalizer}, "experiment_config.normalizer", "'unit'"),
    (
        {"experiment_config.normalizer": partial(PickyNormalizer, unit=lambda: 1)},
        "experiment_config.normalizer",
        "a lambda",
    ),
    (
        {"experiment_config.normalizer": partial(GlobalNormalizer, individual=True)},
        "experiment_config.normalizer",
        "unexpected keyword argument 'individual'",
    ),
    (
        {"experiment_config.normalizer": None},
        "base_hyperparams.eval_space",
        "must be 'default' without a normalizer: there is only one space, in mm",
    ),
    (
        {
            "experiment_config.normalizer": None,
            "base_hyperparams.eval_space": "default",
            "base_hyperparams.loss_space": "original",
        },
        "base_hyperparams.loss_space",
        "must be 'default' without a normalizer",
    ),
    (
        {"experiment_config.init_weights_path": "missing.pt"},
        "experiment_config.init_weights_path",
        "missing.pt: No such file or directory",
    ),
]

WEIGHTS = [
    ("wide.pt", "do not fit the model CorrectorMLP: .*size mismatch for layers.0.weight"),
    ("nyu.pt", "do not fit the model CorrectorMLP: .*size mismatch for layers.0.weight"),
    ("list.pt", "do not fit the model CorrectorMLP: "),
    ("text.pt", "is not a file that torch.load"),
    (".", "Is a directory"),
]


def problems_of(experiment):
    with pytest.raises(ConfigError) as caught:
        experiment.plan()
    return caught.value.problems


class TestSettingsThatDoNotFitTogether:
    @pytest.mark.parametrize(("changes", "key", "says"), DATA, ids=[case_id(changes) for changes, *_ in DATA])
    def test_of_data_are_told_with_the_file(self, small_experiment, data_dir, changes, key, says):
        (problem,) = problems_of(
            small_experiment.experiment({f"experiment_config.{k}": value for k, value in changes.items()})
        )
        assert problem.path == f"experiment_config.{key}"
        assert says.format(data=data_dir) in problem.text

    @pytest.mark.parametrize(("changes", "path", "says"), PAIRS, ids=[case_id(changes) for changes, *_ in PAIRS])
    def test_are_told_with_what_was_given(self, small_experiment, changes, path, says):
        (problem,) = problems_of(small_experiment.experiment(changes))
        assert problem.path == path
        assert says.format() in problem.text

    @pytest.mark.parametrize(("name", "says"), WEIGHTS)
    def test_are_initial_weights_of_another_model(self, small_experiment, data_dir, name, says):
        (problem,) = problems_of(small_experiment.experiment({"experiment_config.init_weights_path": data_dir / name}))
        assert problem.path == "experiment_config.init_weights_path"
        assert str(data_dir / name) in problem.text
        assert re.search(says, problem.text, re.DOTALL)

    @pytest.mark.parametrize(("distorter", "arguments", "says"), TABLES)
    def test_are_tables_that_are_broken_or_for_another_training_set(
        self, small_experiment, data_dir, distorter, arguments, says
    ):
        changes = {"base_hyperparams.distorter": distorter, "base_hyperparams.distorter_args": arguments}
        (problem,) = problems_of(small_experiment.experiment(changes))
        assert problem.path == "base_hyperparams.distorter_args"
        assert says.format(data=data_dir) in problem.text

    def test_are_tables_of_some_combinations_alone(self, small_experiment):
        experiment = small_experiment.experiment(NEIGHBOR_ERRORS, {"distorter_args.bank_name": ["bank", "bnak", "nyu"]})
        first, second = problems_of(experiment)
        assert "bnak_errors.pt does not exist" in first.text
        assert "nyu_errors.pt is for hands with 14 joints" in second.text

    def test_are_a_table_and_a_training_set_that_one_option_names(self, small_experiment):
        """The labels of the second set differ."""
        experiment = small_experiment.experiment(
            NEIGHBOR_ERRORS, {"experiment_config.train_set": ["two_train", "small_val"]}
        )
        (problem,) = problems_of(experiment)
        assert "near_neighbors.pt was made for another training set" in problem.text

    def test_are_joints_that_are_confused_in_another_skeleton(self, small_experiment):
        sets = {"experiment_config.train_set": "nyu_train", "experiment_config.val_set": "nyu_val"}
        arguments = {"layers": [(1, 0, 2)], "confusion_prob": 0.1}
        changes = {"distorter": LayeredGaussianDistorter, "distorter_args": arguments}
        (problem,) = problems_of(
            small_experiment.experiment(
                {**sets, **{f"base_hyperparams.{key}": value for key, value in changes.items()}}
            )
        )
        assert problem.path == "base_hyperparams.distorter_args"
        assert "set confusion_prob to 0" in problem.text

    def test_are_a_normalizer_and_a_skeleton_without_a_palm(self, small_experiment, monkeypatch):
        monkeypatch.setitem(skeleton._SKELETONS, 14, dataclasses.replace(NYU, palm=None))
        sets = {"experiment_config.train_set": "nyu_train", "experiment_config.val_set": "nyu_val"}
        experiment = small_experiment.experiment({**sets, "experiment_config.normalizer": ViewpointNormalizer})
        (problem,) = problems_of(experiment)
        assert problem.path == "experiment_config.normalizer"
        assert "ViewpointNormalizer needs a skeleton with a palm, but NYU has none" in problem.text

    def test_are_sets_with_skeletons_of_one_name(self, small_experiment, monkeypatch):
        monkeypatch.setitem(skeleton._SKELETONS, 14, dataclasses.replace(NYU, name="HANDS17"))
        (problem,) = problems_of(small_experiment.experiment({"experiment_config.val_set": "nyu_val"}))
        assert problem.text == (
            "nyu_val has the HANDS17 skeleton of 14 joints, the sets before it have the HANDS17 skeleton of 21 joints"
        )

    def test_are_all_told_at_once(self, small_experiment):
        changes = {
            "experiment_config.train_set": "none",
            "experiment_config.test_set_size": 3,
            "experiment_config.init_weights_path": "none.pt",
            "experiment_config.normalizer": None,
            "base_hyperparams.loss_space": "original",
            "base_hyperparams.optimizer_args.lr": -1,
            "base_hyperparams.model_args.hidden_dim": [3],
            "base_hyperparams.distorter_args": {"std_mm": 1},
            "base_hyperparams.augmenters": [SecretScaler()],
        }
        assert [problem.path for problem in problems_of(small_experiment.experiment(changes))] == [
            "experiment_config.train_set",
            "experiment_config.test_set_size",
            "base_hyperparams.model_args.hidden_dim",
            "experiment_config.init_weights_path",
            "base_hyperparams.optimizer_args",
            "base_hyperparams.loss_space",
            "base_hyperparams.eval_space",
            "base_hyperparams.distorter_args.std_mm",
            "base_hyperparams.augmenters",
        ]

    def test_of_many_combinations_are_told_once_each(self, small_experiment):
        experiment = small_experiment.experiment(options={LR: [-1, 1e-3, -2], "model_args.dropout": [None, 0.5, 3]})
        problems = problems_of(experiment)
        assert len(problems) == len(set(problems)) == 3
        assert [word in str(problems) for word in ("lr: -1", "lr: -2", "dropout: 3")] == [True] * 3


class TestSettingsThatFit:
    def test_are_those_of_a_model_that_needs_real_tensors(self, small_experiment):
        small_experiment.experiment(
            {"base_hyperparams.model": AllocatingMLP, "base_hyperparams.model_args": {"hidden_dims": [8]}}
        ).plan()

    def test_are_a_distorter_that_makes_the_input_of_labels_alone(self, small_experiment):
        noise = {"base_hyperparams.distorter": GaussianDistorter, "base_hyperparams.distorter_args": {"std_mm": 2}}
        small_experiment.experiment(
            {"experiment_config.use_preset": False, "experiment_config.train_set": "lonely", **noise}
        ).plan()

    def test_are_the_first_samples_of_the_set_that_a_table_was_made_for(self, small_experiment):
        small_experiment.experiment({**NEIGHBOR_ERRORS, "experiment_config.train_set_size": 7}).plan()

    def test_are_tables_that_are_read_once_for_all_combinations(self, small_experiment, monkeypatch):
        read = []
        real = inputs.read_table
        monkeypatch.setattr(inputs, "read_table", lambda *args: read.append(args[1]) or real(*args))
        options = {LR: [1e-3, 1e-2], "distorter_args.max_k": [1, 2, 3], "experiment_config.train_set_size": [None, 20]}
        assert len(small_experiment.experiment(NEIGHBOR_ERRORS, options).plan().combinations) == 12
        assert sorted(read) == ["bank_errors.pt", "near_neighbors.pt"]

    def test_are_normalizers_of_the_palm(self, small_experiment):
        options = {"experiment_config.normalizer": [ViewpointNormalizer, IndividualNormalizer]}
        assert len(small_experiment.experiment(options=options).plan().combinations) == 2

    def test_are_examples_of_a_subset_in_sets_with_subsets(self, small_experiment):
        sets = {f"experiment_config.{part}_set": f"two_{part}" for part in ("train", "val", "test")}
        small_experiment.experiment({**sets, "solver_config.val_example_subset": "B"}).plan()

    def test_are_arguments_that_a_class_passes_on(self, small_experiment):
        small_experiment.experiment({"base_hyperparams.model": ThinMLP}).plan()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("optimizer_args.weight_decay", 0),
            ("optimizer_args.amsgrad", True),
            ("optimizer_args.foreach", None),
            ("scheduler_args.step_size", 2.0),
            ("model_args.dropout", 0),
        ],
    )
    def test_are_numbers_as_torch_takes_them(self, small_experiment, key, value):
        small_experiment.experiment({f"base_hyperparams.{key}": value}).plan()

    @pytest.mark.parametrize(
        ("optimizer", "arguments"),
        [
            *((name, {}) for name in ("Adam", "SGD", "Adafactor", "ASGD", "LBFGS", "Rprop", "NAdam")),
            *(("Adam", {name: True}) for name in ("fused", "foreach", "capturable")),
        ],
    )
    def test_are_optimizers_that_train_the_model(self, small_experiment, optimizer, arguments):
        changes = {
            "base_hyperparams.optimizer": getattr(torch.optim, optimizer),
            "base_hyperparams.optimizer_args": arguments,
        }
        small_experiment.experiment(changes).plan()

    @pytest.mark.parametrize(
        "arguments", [{}, *({name: True} for name in ("differentiable", "fused", "foreach", "capturable")), {"lr": -1}]
    )
    @pytest.mark.parametrize("optimizer", ["Adam", "SGD", "Adafactor", "ASGD", "LBFGS", "Muon", "SparseAdam"])
    def test_are_checked_and_trained_with_an_optimizer_that_does_the_same_as_that_of_torch(
        self, small_experiment, monkeypatch, optimizer, arguments
    ):
        kind = getattr(torch.optim, optimizer)
        changes = {"optimizer": kind, "optimizer_args": arguments}
        hyperparams = replace(small_experiment.experiment().space.base.hyperparams, **changes)
        ours = step_of(builders.build_optimizer, hyperparams)
        monkeypatch.setattr(builders, "_uncompiled", lambda kind: kind)
        assert ours == step_of(builders.build_optimizer, hyperparams)

    def test_are_checked_without_importing_what_only_a_training_needs(self, small_experiment, python):
        done = python(
            "import sys; from pathlib import Path\n"
            "from tests.cluster_tests.small_experiment import SmallExperiment\n"
            f"SmallExperiment(Path({str(small_experiment.data_dir)!r}), Path('nowhere')).experiment().plan()\n"
            "print('torch' in sys.modules, 'torch._dynamo' in sys.modules)"
        )
        assert (done.stdout, done.stderr) == ("True False\n", "")

    def test_are_learning_rates_of_an_optimizer_that_groups_the_parameters(self, small_experiment):
        changes = {
            "base_hyperparams.optimizer": LayerwiseSGD,
            "base_hyperparams.optimizer_args": {"lr": 1e-3},
            "base_hyperparams.scheduler": torch.optim.lr_scheduler.CyclicLR,
            "base_hyperparams.scheduler_args": {"base_lr": [0.1] * 4, "max_lr": 1.0, "cycle_momentum": False},
        }
        small_experiment.experiment(changes, {LR: [1e-3, 1e-2]}).plan()

    def test_are_batches_of_one_without_batchnorm(self, small_experiment):
        small_experiment.experiment({"solver_config.batch_size": 13}).plan()

    def test_are_batches_of_two_and_more_with_it(self, small_experiment):
        small_experiment.experiment(
            {"solver_config.batch_size": 19, "base_hyperparams.model_args.batchnorm": True}
        ).plan()

    def test_are_models_that_are_built_once_for_all_optimizers(self, small_experiment, monkeypatch):
        built = []
        real = builders.build_model
        monkeypatch.setattr(builders, "build_model", lambda *args: built.append(args) or real(*args))
        options = {LR: [1e-3 * i for i in range(1, 9)], "model_args.dropout": [None, 0.5]}
        small_experiment.experiment(options=options).plan()
        assert len(built) == 2

    def test_are_looked_at_one_by_one_where_models_only_look_alike(self, small_experiment):
        changes = {"base_hyperparams.model": ShapedMLP, "solver_config.batch_size": 13}
        changes["base_hyperparams.model_args"] = {"shape": Shape(batchnorm=False)}
        experiment = small_experiment.experiment(
            changes, {"model_args.shape": [Shape(batchnorm=False), Shape(batchnorm=True)]}
        )
        (problem,) = problems_of(experiment)
        assert problem.path == "solver_config.batch_size"

    def test_are_a_size_of_the_test_set_where_only_some_combinations_have_one(self, small_experiment):
        changes = {"experiment_config.test_set_size": 5}
        plan = small_experiment.experiment(changes, {"experiment_config.test_set": [None, "small_test"]}).plan()
        without, with_one = plan.combinations
        assert without.key == small_experiment.key()
        assert with_one.key == small_experiment.key({**changes, "experiment_config.test_set": "small_test"})
        (problem,) = problems_of(small_experiment.experiment(changes, {"experiment_config.test_set": [None]}))
        assert problem.path == "experiment_config.test_set_size"

    def test_are_fitting_initial_weights(self, small_experiment, data_dir):
        options = {"choose_strength": [False, True], "experiment_config.init_weights_path": []}
        for name in ("good.pt", "with_strength.pt"):
            options["experiment_config.init_weights_path"].append(data_dir / name)
        assert len(small_experiment.experiment(options=options).plan().combinations) == 4

    def test_are_paths_in_the_home_folder(self, small_experiment, data_dir, monkeypatch):
        monkeypatch.setenv("HOME", str(data_dir))
        paths = {"experiment_config.data_dir": "~", "experiment_config.init_weights_path": "~/good.pt"}
        assert small_experiment.key(paths) == small_experiment.key(
            {"experiment_config.init_weights_path": data_dir / "good.pt"}
        )

    def test_are_looked_at_without_a_change_of_random_numbers(self, small_experiment):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        for model in (CorrectorMLP, AllocatingMLP):
            small_experiment.experiment(
                {"base_hyperparams.model": model, "base_hyperparams.model_args": {"hidden_dims": [8]}}
            ).plan()
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("scheduler", ["OneCycleLR", "CosineAnnealingLR", "LinearLR"])
    def test_are_schedulers_with_their_arguments_and_no_warning(self, small_experiment, scheduler):
        arguments = {"OneCycleLR": {"max_lr": 0.1, "total_steps": 2}, "CosineAnnealingLR": {"T_max": 2}}
        small_experiment.experiment(
            {
                "base_hyperparams.scheduler": getattr(torch.optim.lr_scheduler, scheduler),
                "base_hyperparams.scheduler_args": arguments.get(scheduler, {}),
            }
        ).plan()


class TestAModelThatFusesSubsets:
    @pytest.fixture
    def experiment(self, tmp_path):
        write_datasets(tmp_path / "data")
        for part in ("train", "val"):
            dataset = read_dataset(tmp_path / "data", f"two_{part}")
            swapped = {name: dataset.poses[name] for name in ("B", "A")}
            write_dataset(tmp_path / "data", f"swapped_{part}", dataset.labels, swapped)
        return SmallExperiment(tmp_path / "data", tmp_path / "results")

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            (
                {"experiment_config.train_set": "small_train"},
                "experiment_config.train_set: MeanFusion fuses the poses of at least 2 subsets, but small_train "
                "has only DEFAULT",
            ),
            (
                {
                    "experiment_config.use_preset": False,
                    "base_hyperparams.distorter": GaussianDistorter,
                    "base_hyperparams.distorter_args": {"std_mm": 1.0},
                },
                "experiment_config.use_preset: must be True: MeanFusion fuses the predictions of backbones",
            ),
            (
                {"experiment_config.val_set": "swapped_val"},
                "experiment_config.val_set: MeanFusion needs the same subsets in the same order in all sets, but "
                "swapped_val has B, A, and two_train has A, B",
            ),
            (
                {"experiment_config.test_set": "small_test"},
                "experiment_config.test_set: MeanFusion needs the same subsets in the same order in all sets, but "
                "small_test has DEFAULT, and two_train has A, B",
            ),
            (
                {"base_hyperparams.augmenters": [RandomBoneScaler()]},
                "base_hyperparams.augmenters: RandomBoneScaler(low=0.9, high=1.1) changes single poses, but MeanFusion "
                "sees several of a hand together; leave it out",
            ),
        ],
    )
    def test_is_refused_for_sets_and_augmenters_that_do_not_fit_it(self, experiment, changes, says):
        with pytest.raises(ConfigError) as error:
            experiment.experiment({**FUSION, **changes}).plan()
        assert str(error.value).splitlines()[1:] == [f"  {says}"]

    @pytest.mark.parametrize("model", [WeightedFusion, AgreementFusion])
    def test_is_refused_for_another_number_of_subsets(self, experiment, model):
        trained = {path: value for path, value in FUSION.items() if "optimizer" not in path and "scheduler" not in path}
        changes = {**trained, "base_hyperparams.model": model, "base_hyperparams.model_args": {"n_subsets": 3}}
        says = r"base_hyperparams\.model_args\.n_subsets: is 3, but two_train has 2 subsets: A, B$"
        with pytest.raises(ConfigError, match=says):
            experiment.experiment(changes).plan()

    def test_is_another_one_for_subsets_in_another_order(self, experiment):
        swapped = {f"experiment_config.{split}_set": f"swapped_{split}" for split in ("train", "val")}
        changes = {**FUSION, "experiment_config.test_set": None}
        assert experiment.key(changes) != experiment.key({**changes, **swapped})

    def test_has_the_same_identity_whether_its_validation_set_is_an_option_or_not(self, experiment):
        """The runs of every combination's own sets count."""
        samples = read_samples(experiment.data_dir, "two_val")
        frames = FrameTable.of(sequence=["a"] * 10 + ["b"] * (len(samples) - 10))
        write_parts(experiment.data_dir, {"cut_val": replace(samples, frames=frames)})
        sets = ["two_val", "cut_val"]
        plan = experiment.experiment(FUSION, {"experiment_config.val_set": sets}).plan()
        alone = [experiment.key({**FUSION, "experiment_config.val_set": name}) for name in sets]
        assert [combination.key for combination in plan.combinations] == alone


def test_a_scheduler_is_tried_with_all_arguments_of_an_optimizer_that_may_group_the_parameters(small_experiment):
    changes = {
        "base_hyperparams.optimizer": LayerwiseSGD,
        "base_hyperparams.optimizer_args": {"lr": 1e-3, "layerwise": True},
        "base_hyperparams.scheduler": torch.optim.lr_scheduler.CyclicLR,
        "base_hyperparams.scheduler_args": {"base_lr": [0.1] * 4, "max_lr": 1.0, "cycle_momentum": False},
    }
    with pytest.raises(ConfigError, match="CyclicLR refuses"):
        small_experiment.experiment(changes, {"optimizer_args.layerwise": [True, False]}).plan()
