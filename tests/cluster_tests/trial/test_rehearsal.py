"""The user's own classes are tried on a few samples before anything starts."""

import inspect
import random
import re
import sys
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cluster.planning.config import ConfigError
from cluster.trial import rehearsal
from cluster.trial.rehearsal import N_SAMPLES
from data_pipeline.augmenters import Augmenter, RandomRotator, RandomScaler
from data_pipeline.distorters import Distorter
from data_pipeline.normalizers import PoseTransform, Shifter
from data_pipeline.pose_dataset import read_dataset
from posenet import errors
from posenet.losses import Loss, MetricLoss
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import FUSION, LR, SmallExperiment, write_datasets
from tests.support import ROOT


class Plain(nn.Module):
    """A model without a skeleton, whose argument may be given by position."""

    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(63, width), nn.Linear(width, 63))

    def forward(self, poses):
        return poses + self.layers(poses.flatten(1)).view_as(poses)


class Bare(nn.Module):
    """A model without a constructor."""

    def forward(self, poses):
        return poses


class Flat(Plain):
    """Forgets to restore the shape."""

    def forward(self, poses):
        return self.layers(poses.flatten(1))


class Raising(Plain):
    def forward(self, poses):
        return poses + self.missing


class TwoInputs(Plain):
    def forward(self, poses, labels):
        return poses


class Counting(Plain):
    """Counts the samples that it sees in training."""

    seen: ClassVar[list[int]] = []

    def forward(self, poses):
        if self.training:
            self.seen.append(len(poses))
        return super().forward(poses)


class Random(Counting):
    """Draws from all global generators."""

    def forward(self, poses):
        torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
        return super().forward(poses)


@dataclass(frozen=True)
class Vector(Loss):
    def __call__(self, poses, labels, skeleton) -> Tensor:
        return (poses - labels).square()


@dataclass(frozen=True)
class Detached(Loss):
    def __call__(self, poses, labels, skeleton) -> Tensor:
        return (poses - labels).detach().square().mean()


@dataclass(frozen=True)
class Short(Loss):
    def __call__(self, poses, labels) -> Tensor:
        return (poses - labels).square().mean()


def short_error(poses, labels):
    return (poses - labels).flatten(1)


def number_error(poses, labels, skeleton):
    return (poses - labels).mean()


@dataclass(frozen=True)
class WithoutGenerator(Augmenter):
    def __call__(self, poses, labels, skeleton):
        return poses, labels


@dataclass(frozen=True)
class OnlyPoses(Augmenter):
    def __call__(self, poses, labels, skeleton, generator):
        return poses


@dataclass(frozen=True)
class Halving(Distorter):
    def __call__(self, samples, generator):
        return samples.poses[::2]


class Misspelt(Shifter):
    def transform(self, poses):
        return PoseTransform(origin=poses.mena(dim=1, keepdim=True))


class Nothing(Shifter):
    def transform(self, poses):
        return None


class Unwritable(Shifter):
    def learned(self):
        return {"mean": torch.zeros(3)}


class Components(Shifter):
    """Learns more components than there are samples in a first rehearsal."""

    def fit(self, poses):
        torch.pca_lowrank(torch.cat(list(poses)).flatten(1), q=2 * N_SAMPLES)


@dataclass(frozen=True)
class Listing(Augmenter):
    def __call__(self, poses, labels, skeleton, generator):
        return [poses, labels]


@dataclass(frozen=True)
class OnTheGpu(Loss):
    """Puts its weights on the GPU by itself."""

    def __call__(self, poses, labels, skeleton) -> Tensor:
        return ((poses - labels) * torch.ones(21, 3).cuda()).square().mean()


class Remembering(Loss):
    """Keeps the device of its first batch."""

    def __init__(self):
        self.weights = None

    def __call__(self, poses, labels, skeleton) -> Tensor:
        if self.weights is None:
            self.weights = torch.ones_like(poses[0])
        return ((poses - labels) * self.weights).square().mean()


class Activated(Plain):
    """Uses the module that it is given, and not a copy."""

    def __init__(self, activation):
        super().__init__()
        self.layers.append(activation)


class Lazy(torch.optim.SGD):
    def step(self, closure=None):
        return closure(1)


def line_of(value, text):
    """The place of the line with this text in a class or function, as an error names it."""
    lines, first = inspect.getsourcelines(value)
    (offset,) = (i for i, line in enumerate(lines) if text in line)
    return f"test_rehearsal.py:{first + offset}"


MODEL = {"base_hyperparams.model_args": {}}

BROKEN = [
    (
        {"base_hyperparams.model": Flat, **MODEL},
        "base_hyperparams.model",
        (Flat, "class"),
        "ValueError: the model returned a tensor of shape (4, 63) for poses of shape (4, 21, 3)",
    ),
    (
        {"base_hyperparams.model": Raising, **MODEL},
        "base_hyperparams.model",
        (Raising, "self.missing"),
        "AttributeError: 'Raising' object has no attribute 'missing'",
    ),
    ({"base_hyperparams.model": TwoInputs, **MODEL}, "base_hyperparams.model", (TwoInputs, "class"), "'labels'"),
    (
        {"base_hyperparams.loss_function": Vector()},
        "base_hyperparams.loss_function",
        (Vector, "@dataclass"),
        "it returns a tensor of shape (4, 21, 3) and torch.float32 instead of a tensor with one number",
    ),
    ({"base_hyperparams.loss_function": Detached()}, "base_hyperparams.loss_function", (Detached, "@d"), "a gradient"),
    ({"base_hyperparams.loss_function": Short()}, "base_hyperparams.loss_function", (Short, "@d"), "3 positional"),
    (
        {"base_hyperparams.loss_function": MetricLoss(short_error)},
        "base_hyperparams.loss_function",
        (short_error, "def"),
        "the error short_error fails",
    ),
    (
        {"base_hyperparams.loss_function": MetricLoss(number_error)},
        "base_hyperparams.loss_function",
        (number_error, "def"),
        "the error number_error fails",
    ),
    (
        {"solver_config.metrics": [number_error]},
        "solver_config.metrics",
        (number_error, "def"),
        "it returns a tensor of shape () and torch.float32 instead of a tensor (4,) or (4, K)",
    ),
    (
        {"base_hyperparams.augmenters": [RandomRotator(), WithoutGenerator()]},
        "base_hyperparams.augmenters",
        (WithoutGenerator, "@d"),
        "takes 4 positional arguments but 5 were given. Expected: __call__(self, poses, labels, skeleton, generator)",
    ),
    (
        {"base_hyperparams.augmenters": [OnlyPoses()]},
        "base_hyperparams.augmenters",
        (OnlyPoses, "@d"),
        "of two tensors",
    ),
    (
        {"base_hyperparams.distorter": Halving},
        "base_hyperparams.distorter",
        (Halving, "@d"),
        "it returns a tensor of shape (2, 21, 3) and torch.float32 instead of a tensor of shape (4, 21, 3)",
    ),
    ({"experiment_config.normalizer": Misspelt}, "experiment_config.normalizer", (Misspelt, "mena"), "'mena'"),
    (
        {"experiment_config.normalizer": Unwritable},
        "experiment_config.normalizer",
        (Unwritable, "class"),
        "learned() returns something that is not JSON",
    ),
    ({"experiment_config.normalizer": Nothing}, "experiment_config.normalizer", (Nothing, "class"), "'NoneType'"),
]


class TestAClassThatDoesNotWork:
    @pytest.mark.parametrize(("changes", "path", "at", "says"), BROKEN, ids=[str(says) for *_, says in BROKEN])
    def test_is_an_error_with_its_file_and_line_before_anything_starts(self, small_experiment, changes, path, at, says):
        with pytest.raises(ConfigError) as caught:
            small_experiment.run(changes)
        (problem,) = caught.value.problems
        assert problem.path == path
        assert says in problem.text
        assert f"{line_of(*at)}: " in problem.text
        assert "Expected: " in problem.text
        assert not small_experiment.folder.exists()

    def test_is_an_error_with_its_line_where_an_optimizer_is_tried(self, small_experiment):
        changes = {"base_hyperparams.optimizer": Lazy, "base_hyperparams.optimizer_args": {"lr": 0.1}}
        (problem,) = problems_of(small_experiment, changes)
        assert problem.path == "base_hyperparams.optimizer_args"
        assert problem.text.endswith(f"{line_of(Lazy, 'closure(1)')})")

    def test_is_told_once_for_all_combinations_and_together_with_others(self, small_experiment):
        options = {LR: [1e-3, 1e-2], "augmenters": [[], [WithoutGenerator()]], "loss_function": [Vector(), Short()]}
        with pytest.raises(ConfigError) as caught:
            small_experiment.experiment(options=options).plan()
        paths = [problem.path for problem in caught.value.problems]
        assert sorted(paths) == ["base_hyperparams.augmenters", *["base_hyperparams.loss_function"] * 2]


class TestAClassThatWorks:
    @pytest.mark.parametrize(
        "changes",
        [
            {"experiment_config.normalizer": Components},
            {"base_hyperparams.augmenters": [Listing()]},
            {"base_hyperparams.loss_function": OnTheGpu(), "experiment_config.target_device": "cuda"},
        ],
        ids=["with more samples", "with a list instead of a tuple", "on a GPU"],
    )
    def test_is_accepted(self, small_experiment, changes):
        small_experiment.experiment(changes).plan()

    def test_is_not_changed_by_the_rehearsal_or_by_a_trial(self, small_experiment):
        loss, activation = Remembering(), nn.PReLU()
        changes = {
            "base_hyperparams.loss_function": loss,
            "base_hyperparams.model": Activated,
            "base_hyperparams.model_args": {"activation": activation},
        }
        small_experiment.run(changes)
        assert loss.weights is None
        assert torch.equal(activation.weight, nn.PReLU().weight)


class TestAModel:
    @pytest.mark.parametrize(
        ("model", "arguments"), [(Plain, {}), (Plain, {"width": 5}), (Bare, {})], ids=lambda value: str(value)
    )
    def test_need_not_take_the_skeleton(self, small_experiment, model, arguments):
        changes = {"base_hyperparams.model": model, "base_hyperparams.model_args": arguments}
        if model is Bare:
            (problem,) = problems_of(small_experiment, changes)
            assert "optimizer got an empty parameter list" in problem.text
        else:
            assert small_experiment.run(changes).trials[0]["status"] == "finished"

    def test_is_another_one_with_another_argument(self, small_experiment):
        keys = {
            small_experiment.key({"base_hyperparams.model": Plain, "base_hyperparams.model_args": arguments})
            for arguments in ({}, {"width": 8}, {"width": 5})
        }
        assert len(keys) == 2

    def test_that_fuses_subsets_may_have_own_augmenters(self, tmp_path):
        write_datasets(tmp_path / "data")

        experiment = SmallExperiment(tmp_path / "data", tmp_path / "results")
        changes = {**FUSION, "base_hyperparams.augmenters": [OnlyPoses()]}
        (problem,) = problems_of(experiment, changes)
        assert problem.path == "base_hyperparams.augmenters"


def problems_of(small_experiment, changes):
    with pytest.raises(ConfigError) as caught:
        small_experiment.experiment(changes).plan()
    return caught.value.problems


class TestARehearsal:
    def test_is_of_each_distinct_set_of_classes_once(self, small_experiment, monkeypatch):
        monkeypatch.setattr(Counting, "seen", [])
        options = {LR: [1e-3 * i for i in range(1, 40)], "augmenters": [[], [RandomRotator()], [RandomScaler()]]}
        changes = {"base_hyperparams.model": Counting, **MODEL}
        small_experiment.experiment(changes, options).plan()
        assert Counting.seen == [N_SAMPLES] * 3

    def test_is_left_out_where_all_classes_are_posetunes(self, small_experiment, monkeypatch):
        monkeypatch.setattr(rehearsal, "_rehearsed", None)
        small_experiment.experiment(options={"model": [CorrectorMLP], LR: [1e-3, 1e-2]}).plan()

    def test_of_many_sets_of_classes_has_each_class_at_least_once(self, small_experiment, monkeypatch):
        monkeypatch.setattr(rehearsal, "_MOST", 2)
        tried = []
        monkeypatch.setattr(rehearsal, "_rehearsed", lambda settings, inputs: tried.append(settings.hyperparams))
        losses = [MetricLoss(error) for error in (errors.distance_error, errors.bone_length_error, number_error)]
        models = [Plain, Counting, Random]
        options = {"model": models, "loss_function": losses}
        small_experiment.experiment(MODEL, options).plan()
        assert len(tried) < len(list(product(models, losses)))
        assert {each.model for each in tried} == set(models)
        assert {each.loss_function for each in tried} >= {losses[2]}

    def test_changes_no_global_state_and_no_number(self, small_experiment):
        changes = {"base_hyperparams.model": Random, **MODEL}
        torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        small_experiment.experiment(changes).plan()
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]

    def test_is_no_problem_for_a_loss_that_is_not_finite_or_a_machine_that_is_too_small(self, small_experiment):
        small_experiment.experiment({"base_hyperparams.loss_function": Infinite()}).plan()
        small_experiment.experiment({"base_hyperparams.model": Hungry, **MODEL}).plan()


@dataclass(frozen=True)
class Infinite(Loss):
    def __call__(self, poses, labels, skeleton) -> Tensor:
        return (poses - labels).square().mean() / 0.0


class Hungry(Plain):
    def forward(self, poses):
        return torch.empty(2**50).sum() * poses


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """The examples of docs/your_own_classes.md, as a module."""
    text = (ROOT / "docs" / "your_own_classes.md").read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("documented")
    (folder / "documented_classes.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import documented_classes

        yield documented_classes
        del sys.modules["documented_classes"]


class TestTheDocumentedClasses:
    @pytest.mark.parametrize(
        ("key", "name"),
        [
            *[("base_hyperparams.model", name) for name in ("Residual", "Offsets")],
            *[("base_hyperparams.loss_function", name) for name in ("HuberLoss", "depth_loss")],
            ("base_hyperparams.augmenters", "Jitter"),
            ("base_hyperparams.distorter", "DepthNoise"),
            ("experiment_config.normalizer", "Rooted"),
        ],
    )
    def test_train(self, small_experiment, documented, key, name):
        value = getattr(documented, name)
        changes = {key: [value()] if key.endswith("augmenters") else value}
        changes |= MODEL if key.endswith("model") else {}
        assert small_experiment.run(changes).trials[0]["status"] == "finished"

    def test_measure_and_watch(self, small_experiment, documented, capsys):
        settings = {"solver_config.metrics": documented.metrics, "solver_config.callbacks": documented.callbacks}
        (row,) = small_experiment.run(settings).trials
        val_set = read_dataset(small_experiment.data_dir, "small_val")
        depth_errors = np.abs(val_set.poses["DEFAULT"] - val_set.labels)[:, :, 2]
        assert row["val_worst_depth_error_before"] == pytest.approx(depth_errors.max(axis=1).mean(), rel=1e-5)
        assert row["val_worst_depth_error"] != row["val_worst_depth_error_before"]
        printed = [line for line in capsys.readouterr().out.splitlines() if "largest weight" in line]
        assert [line.partition(": ")[0] for line in printed] == [f"{row['key']}/0, epoch {epoch}" for epoch in (1, 2)]


def draw(trial_id, report, model):
    torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    model.eval()


def test_a_callback_that_draws_random_numbers_changes_no_number(small_experiment, tmp_path):
    changes = {"base_hyperparams.model_args": {"hidden_dims": [8], "dropout": 0.5}}
    (alone,) = small_experiment.run(changes).trials
    other = SmallExperiment(small_experiment.data_dir, tmp_path / "watched")
    (watched,) = other.run({**changes, "solver_config.callbacks": [draw]}).trials
    assert {alone[name] - watched[name] for name in alone if name.startswith("val_") and alone[name] is not None} == {0}
