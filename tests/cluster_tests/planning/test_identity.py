import dataclasses
import inspect
import json
import math
import shutil
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cluster.planning import combination_checks
from cluster.planning.config import SECTIONS, ExperimentConfig, Hyperparams, SolverConfig
from cluster.planning.identity import (
    NotEncodableError,
    canonical_json,
    check_sendable,
    constructor_defaults,
    constructor_parameters,
    digest,
    encode,
    encode_call,
    label,
    unique_labels,
)
from cluster.planning.torch_arguments import TORCH_ARGUMENTS
from cluster.racing.successive_halving import SuccessiveHalving
from data_pipeline import skeleton
from data_pipeline.augmenters import RandomRotator, RandomScaler
from data_pipeline.distorters import GaussianDistorter
from data_pipeline.normalizers import GlobalNormalizer, Shifter
from data_pipeline.pose_dataset import read_dataset, write_dataset
from data_pipeline.skeleton import HANDS17, Palm
from data_pipeline.tables import read_table, write_errors
from posenet import errors
from posenet.losses import CombinedLoss, MetricLoss
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR, MISSING, NEIGHBOR_ERRORS, SmallExperiment, case_id, write_datasets
from tests.support import global_random_states

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**63, 2**63 - 1) | st.floats(allow_nan=False, width=32) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def canonical(value):
    return canonical_json(encode(value))


@dataclass(frozen=True)
class Scale:
    factor: float

    def error(self, poses, labels, skeleton):
        return self.factor * errors.distance_error(poses, labels, skeleton)


class Hides:
    def __init__(self, *, size):
        self._size = size


class Bare:
    """Shows its arguments, but has no `repr`."""

    def __init__(self, *, size):
        self.size = size


class RandomSlope(nn.PReLU):
    """Starts from a slope that is drawn at random."""

    def reset_parameters(self):
        nn.init.normal_(self.weight)


class TakesAnything:
    def __init__(self, *things):
        self.things = things


class Halved:
    factor = 0.5

    @classmethod
    def error(cls, poses, labels, skeleton):
        return cls.factor * errors.distance_error(poses, labels, skeleton)


class Doubled(Halved):
    factor = 2.0


def scaled_error(poses, labels, skeleton, *, factor=1.0):
    return factor * errors.distance_error(poses, labels, skeleton)


def total_error(poses, labels, skeleton):
    return (poses - labels).abs().sum(dim=2)


class OtherMLP(CorrectorMLP):
    """Another model."""


COPIED = "a folder with copies of the data"
NOISE = {"base_hyperparams.distorter": GaussianDistorter, "base_hyperparams.distorter_args": {"std_mm": 2.0}}


class TestAnEncodedSetting:
    def test_distinguishes_an_inherited_method_of_two_classes(self):
        assert encode(Halved.error) == {"name": f"{__name__}.Halved.error"}
        assert encode(Doubled.error) == {"name": f"{__name__}.Halved.error", "self": {"name": f"{__name__}.Doubled"}}
        assert len(unique_labels([MetricLoss(kind.error, "absolute") for kind in (Halved, Doubled)])) == 2

    @pytest.mark.parametrize("ufunc", [np.add, np.multiply])
    def test_is_no_function_of_which_only_the_kind_has_a_name(self, ufunc):
        with pytest.raises(NotEncodableError, match="cannot be distinguished from another ufunc"):
            encode(ufunc)

    @given(json_values)
    def test_is_valid_json_for_everyone(self, value):
        def refuse(constant):
            raise AssertionError(f"{constant} is no JSON")

        json.loads(canonical(value), parse_constant=refuse)

    @given(st.dictionaries(st.text(), json_values, min_size=2))
    def test_does_not_depend_on_the_order_of_a_dict(self, value):
        assert canonical(dict(reversed(value.items()))) == canonical(value)

    @given(st.lists(json_values))
    def test_is_the_same_for_a_list_and_a_tuple(self, values):
        assert canonical(tuple(values)) == canonical(values)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (1, 1.0),
            (0.1, np.float64(0.1)),
            (3, np.int64(3)),
            (True, np.True_),
            ("data/x", Path("data/x")),
            (RandomScaler(), RandomScaler(low=0.8, high=1.2)),
            (MetricLoss(), MetricLoss(errors.distance_error, "absolute")),
            (nn.LeakyReLU(), nn.LeakyReLU(0.01).eval()),
            (partial(GlobalNormalizer), partial(GlobalNormalizer, individual_scaling=False)),
            (partial(partial(scaled_error, factor=2), factor=3), partial(scaled_error, factor=3)),
        ],
        ids=case_id,
    )
    def test_is_the_same_for_the_same_setting_written_otherwise(self, one, other):
        assert canonical(one) == canonical(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (1, True),
            (0, False),
            (None, "None"),
            (1, "1"),
            (0.1, math.nextafter(0.1, 1)),
            (math.inf, -math.inf),
            ([1, 2], [2, 1]),
            ([1, [2]], [[1], 2]),
            (errors.distance_error, errors.coordinate_difference),
            (CorrectorMLP, torch.nn.Linear),
            (torch.float32, torch.float64),
            (RandomScaler(low=0.5), RandomScaler(low=0.6)),
            (RandomRotator(), RandomScaler()),
            (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
            (nn.PReLU(), nn.PReLU(init=0.1)),
            (nn.Tanh(), nn.Sigmoid()),
            (MetricLoss(errors.distance_error), MetricLoss(errors.distance_error, "squared")),
            (
                CombinedLoss([(errors.distance_error, 1, "absolute")]),
                CombinedLoss([(errors.distance_error, 2, "absolute")]),
            ),
            (partial(scaled_error, factor=2), partial(scaled_error, factor=3)),
            (Scale(2).error, Scale(3).error),
        ],
        ids=case_id,
    )
    def test_differs_for_different_settings(self, one, other):
        assert canonical(one) != canonical(other)

    def test_of_a_call_holds_the_defaults(self):
        assert encode_call(RandomScaler, {"low": 0.5}) == {
            "name": "data_pipeline.augmenters.RandomScaler",
            "args": {"low": 0.5, "high": 1.2},
        }

    def test_of_a_module_holds_its_arguments_but_not_where_its_parameters_are(self):
        assert encode(nn.PReLU(init=0.1)) == {
            "name": "torch.nn.modules.activation.PReLU",
            "args": {"num_parameters": 1, "init": 0.1},
        }

    def test_of_a_module_draws_no_random_numbers(self):
        module = RandomSlope()
        states = global_random_states()
        with pytest.raises(NotEncodableError, match="the parameters of RandomSlope"):
            encode(module)
        assert global_random_states() == states

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (lambda x: x, "a lambda .* cannot be imported by name; define it at the top level of a module"),
            (type("Local", (), {"__qualname__": "f.<locals>.Local"}), "a local function or class"),
            (math.nan, "NaN is not a setting"),
            ([1, [math.nan]], "NaN is not a setting"),
            ({1: 2}, r"a dict's keys must be strings, not \[1\]"),
            (Hides(size=1), "does not hold its constructor's argument 'size'"),
            (nn.Linear(2, 2, bias=False), "the parameters of Linear.* do not follow from its arguments"),
            (nn.PReLU(dtype=torch.float64), "the parameters of PReLU.* do not follow from its arguments"),
            (nn.Sequential(nn.ReLU()), "cannot be distinguished from another Sequential"),
            (partial(scaled_error, 1), "by position; give them by name"),
            *(
                (value, "cannot be distinguished from another .* write numbers, strings, lists and dicts instead")
                for value in (
                    *(np.zeros(2), torch.zeros(2), {1, 2}, frozenset(), b"x", range(3), slice(2)),
                    *(torch.Generator(), TakesAnything(1)),
                )
            ),
        ],
        ids=case_id,
    )
    def test_is_refused_to_what_nobody_could_tell_from_another(self, value, says):
        with pytest.raises(NotEncodableError, match=says):
            encode(value)

    def test_is_not_what_a_constructor_without_a_signature_shows(self):
        assert constructor_defaults(dict) == {}


def test_a_digest_is_the_beginning_of_sha256():
    # From `printf abc | sha256sum`.
    assert digest("abc") == "ba7816bf8f01cfea"


class TestLabels:
    @given(
        st.lists(st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "1", "a", "a #3"]))
    )
    def test_are_unique_also_where_they_become_text(self, values):
        labels = unique_labels(values)
        assert len(labels) == len({str(new) for new in labels}) == len(values)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.1, 0.1),
            (None, None),
            (np.float64(0.5), 0.5),
            (math.inf, "inf"),  # JSON does not have it
            (CorrectorMLP, "CorrectorMLP"),
            (errors.distance_error, "distance_error"),
            ([], "[]"),
            ([RandomRotator(), RandomScaler()], "[RandomRotator(), RandomScaler(low=0.8, high=1.2)]"),
            ({"lr": 0.1}, "{lr: 0.1}"),
            (partial(GlobalNormalizer, individual_scaling=True), "GlobalNormalizer(individual_scaling=True)"),
            (Path("a/b"), "a/b"),
            (nn.LeakyReLU(0.1), "LeakyReLU(negative_slope=0.1)"),
            (nn.PReLU(init=0.1), "PReLU(init=0.1)"),
            (nn.Tanh(), "Tanh()"),
            (MetricLoss(errors.distance_error, "squared"), "MetricLoss(errors.distance_error, 'squared')"),
            (Bare(size=2), "Bare(size=2)"),
            ([Bare(size=[Bare(size=None)])], "[Bare(size=[Bare(size=None)])]"),
            (Hides(size=1), "Hides()"),
            (Scale(Bare(size=1)), "Scale(factor=<tests.cluster_tests.planning.test_identity.Bare object>)"),
        ],
    )
    def test_are_short_and_primitive(self, value, text):
        assert label(value) == text

    @pytest.mark.slow
    def test_are_the_same_in_every_process(self, python):
        code = """
from cluster.planning.identity import label; from tests.cluster_tests.planning.test_identity import Bare, Hides, Scale
print(label([Bare(size=2), Hides(size=1), Scale(Bare(size=3)), object()]))"""
        assert python(code).stdout.strip() == label([Bare(size=2), Hides(size=1), Scale(Bare(size=3)), object()])

    def test_that_would_look_alike_get_a_number(self):
        assert unique_labels([1, True, None, "None"]) == [1, "True #2", None, "None #4"]


def with_new_argument(kind, qualname, **new):
    """Returns a class of torch as a later version might define it: with more arguments, all with a default."""
    parameters = [*inspect.signature(kind).parameters.values()]
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in new.items()]

    class Later(kind):
        def __init__(self, *args, **arguments):
            for name, value in new.items():
                setattr(self, name, arguments.pop(name, value))
            super().__init__(*args, **arguments)

    Later.__init__.__signature__ = inspect.Signature(
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *parameters, *added]
    )
    Later.__module__, Later.__qualname__ = kind.__module__, qualname
    return Later


class TestAnArgumentThatALaterTorchAdds:
    def test_is_left_out_while_it_has_its_default(self):
        later = with_new_argument(torch.optim.Adam, "Adam", cautious=False, scale=1.0, sentinel=object())
        today = canonical_json(encode_call(torch.optim.Adam, {"lr": 0.1}))
        assert canonical_json(encode_call(later, {"lr": 0.1})) == today
        assert canonical_json(encode_call(later, {"lr": 0.1, "cautious": False, "scale": 1})) == today
        assert canonical_json(encode_call(later, {"lr": 0.1, "cautious": True})) != today

    def test_is_left_out_of_a_module_and_of_a_class_of_the_user_that_inherits_the_constructor(self):
        later = with_new_argument(nn.LeakyReLU, "LeakyReLU", steep=False)
        assert canonical(later(0.2)) == canonical(nn.LeakyReLU(0.2))
        assert canonical(later(0.2, steep=True)) != canonical(nn.LeakyReLU(0.2))
        own = type("Own", (later,), {"__module__": __name__})
        assert canonical(own(0.2)) == canonical(type("Own", (nn.LeakyReLU,), {"__module__": __name__})(0.2))

    def test_leaves_the_identity_of_a_training(self, small_experiment):
        later = with_new_argument(torch.optim.Adam, "Adam", cautious=False)
        assert small_experiment.key({"base_hyperparams.optimizer": later}) == small_experiment.key()

    def test_may_be_of_any_of_its_optimizers_schedulers_and_activations(self):
        families = {
            torch.optim: torch.optim.Optimizer,
            torch.optim.lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
            nn.modules.activation: nn.Module,
        }
        found = {
            f"{kind.__module__}.{kind.__qualname__}": kind
            for module, family in families.items()
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, family) and kind.__module__.startswith(module.__name__)
        }
        assert found.keys() - TORCH_ARGUMENTS.keys() == set(), "add each with all its arguments"
        for name, kind in found.items():
            assert set(TORCH_ARGUMENTS[name].split()) <= constructor_parameters(kind).keys()

    def test_is_described_for_classes_of_this_project(self):
        later = with_new_argument(GaussianDistorter, "GaussianDistorter", added=0)
        assert "added" in encode_call(later, {})["args"]


class TestSending:
    def test_takes_what_has_a_name(self):
        check_sendable([CorrectorMLP, errors.distance_error, {"a": 1.0}, RandomScaler(), nn.PReLU()])

    @pytest.mark.parametrize("value", [lambda x: x, threading.Lock()], ids=["a lambda", "a lock"])
    def test_refuses_what_has_none(self, value):
        with pytest.raises(NotEncodableError, match=r"cannot be sent to a worker process .* top level of a module"):
            check_sendable(value)


# Each of these changes the training of the small experiment.
CHANGES_A_NUMBER = [
    {"experiment_config.train_set": "two_train"},
    {"experiment_config.train_set": "small_test"},
    {"experiment_config.train_set_size": 39},
    {"experiment_config.val_set": "small_test"},
    {"experiment_config.val_set_size": 19},
    {"experiment_config.test_set": "small_test"},
    {"experiment_config.test_set": "small_test", "experiment_config.test_set_size": 19},
    {"experiment_config.use_preset": False, **NOISE},
    {"experiment_config.normalizer": None, "base_hyperparams.eval_space": "default"},
    {"experiment_config.normalizer": GlobalNormalizer},
    {"experiment_config.normalizer": partial(GlobalNormalizer, individual_scaling=True)},
    {"experiment_config.seed": 1},
    {"experiment_config.deterministic_mode": False},
    {"experiment_config.cpus_per_trial": 2},
    {"solver_config.num_epochs": 3},
    {"solver_config.batch_size": 15},
    {"solver_config.matmul_precision": "high"},
    {"base_hyperparams.model": OtherMLP},
    {"base_hyperparams.model_args.hidden_dims": [9]},
    {"base_hyperparams.model_args.activation": "relu"},
    {"base_hyperparams.model_args.activation": nn.LeakyReLU(0.1)},
    {"base_hyperparams.model_args.activation": nn.LeakyReLU(0.2)},
    {"base_hyperparams.model_args.dropout": 0.1},
    {"base_hyperparams.model_args.batchnorm": True},
    {"base_hyperparams.loss_function": MetricLoss(errors.coordinate_difference, "squared")},
    {"base_hyperparams.loss_function": MetricLoss},
    {"base_hyperparams.choose_strength": True},
    {"base_hyperparams.loss_space": "original"},
    {"base_hyperparams.eval_space": "default"},
    {"base_hyperparams.optimizer": torch.optim.AdamW},
    {"base_hyperparams.optimizer_args.lr": 1e-3 + 1e-12},
    {"base_hyperparams.optimizer_args.weight_decay": 1e-4},
    {"base_hyperparams.optimizer_args.betas": (0.9, 0.99)},
    {
        "base_hyperparams.scheduler": torch.optim.lr_scheduler.ExponentialLR,
        "base_hyperparams.scheduler_args": {"gamma": 0.5},
    },
    {
        "base_hyperparams.scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau,
        "base_hyperparams.scheduler_args": {},
        "base_hyperparams.scheduler_requires_metric": True,
    },
    {"base_hyperparams.scheduler_args.gamma": 0.4},
    NOISE,
    {**NOISE, "base_hyperparams.distorter_args": {"std_mm": 3.0}},
    {"base_hyperparams.augmenters": [RandomScaler()]},
    {"base_hyperparams.augmenters": [RandomScaler(), RandomRotator()]},
    {"base_hyperparams.augmenters": [RandomRotator(), RandomScaler()]},
]

# Each of these leaves the training the same.
CHANGES_NO_NUMBER = [
    {"experiment_config.name": "other"},
    {"experiment_config.storage_path": "elsewhere"},
    {"experiment_config.data_dir": COPIED},
    {"experiment_config.data_dir": COPIED, "experiment_config.train_set": "copy/of_train"},
    {"experiment_config.target_device": torch.device("cuda")},
    {"experiment_config.target_device": [torch.device("cuda:0"), torch.device("cuda:3")]},
    {"experiment_config.n_repetitions": 5},
    {"experiment_config.trials_per_device": 2},
    {"experiment_config.max_retries": 0},
    {"experiment_config.checkpoint_interval_s": 0},
    {"experiment_config.trial_timeout_s": 10},
    {"experiment_config.stop_if_all_fail": None},
    {"experiment_config.keep_weights": "none"},
    {"experiment_config.keep_state": "all"},
    {"experiment_config.race": SuccessiveHalving()},
    {"experiment_config.test_set": MISSING, "experiment_config.test_set_size": MISSING},
    {"experiment_config.seed": 0, "experiment_config.deterministic_mode": True},
    {"experiment_config.train_set_size": 40},
    {"solver_config.log_frequency": 2},
    {"solver_config.log_loss": True},
    {"solver_config.log_grad": True},
    {"solver_config.verbose": True},
    {"solver_config.show_plots": True},
    {"solver_config.val_example_indices": [1]},
    {"solver_config.val_example_indices": [], "solver_config.val_example_subset": "any"},
    {"solver_config.interest_keys": []},
    {"solver_config.metrics": [total_error], "solver_config.callbacks": [total_error]},
    {"solver_config.matmul_precision": "highest"},
    {"base_hyperparams.model_args": {"hidden_dims": (8,)}},
    {"base_hyperparams.model_args": {"batchnorm": False, "dropout": None, "hidden_dims": [8]}},
    {"base_hyperparams.choose_strength": MISSING},
    {"base_hyperparams.optimizer_args": {"weight_decay": 0}},
    {"base_hyperparams.optimizer_args": {"betas": [0.9, 0.999], "weight_decay": 0.0, "lr": 0.001}},
    {"base_hyperparams.distorter_args": None},
    {"base_hyperparams.augmenters": ()},
]


class TestTheIdentityOfATraining:
    @pytest.mark.parametrize("changes", CHANGES_A_NUMBER, ids=case_id)
    def test_changes_with_what_can_change_a_number(self, small_experiment, changes):
        assert small_experiment.key(changes) != small_experiment.key()

    def test_is_another_one_for_each_of_them(self, small_experiment):
        assert len({small_experiment.key(changes) for changes in CHANGES_A_NUMBER}) == len(CHANGES_A_NUMBER)

    @pytest.mark.parametrize("changes", CHANGES_NO_NUMBER, ids=case_id)
    def test_stays_with_what_cannot(self, small_experiment, tmp_path, changes):
        if changes.get("experiment_config.data_dir") is COPIED:
            shutil.copytree(small_experiment.data_dir, tmp_path / "data")
            for part in ("labels", "poses"):
                (tmp_path / "data" / "copy").mkdir(exist_ok=True)
                (tmp_path / f"data/small_train_{part}.pt").rename(tmp_path / f"data/copy/of_train_{part}.pt")
                shutil.copy(tmp_path / f"data/copy/of_train_{part}.pt", tmp_path / f"data/small_train_{part}.pt")
            changes = {**changes, "experiment_config.data_dir": tmp_path / "data"}
        assert small_experiment.key(changes) == small_experiment.key()

    def test_is_decided_for_every_key_of_the_three_dicts(self):
        decided = {"experiment_config.init_weights_path", "experiment_config.search"}  # in separate tests
        decided |= {
            ".".join(path.split(".")[:2]) for changes in CHANGES_A_NUMBER + CHANGES_NO_NUMBER for path in changes
        }
        configs = zip(SECTIONS, (ExperimentConfig, SolverConfig, Hyperparams), strict=True)
        assert decided == {
            f"{section}.{field.name}" for section, config in configs for field in dataclasses.fields(config)
        }

    def test_changes_with_one_coordinate_of_one_sample(self, small_experiment, tmp_path):
        before = small_experiment.key()
        dataset = read_dataset(small_experiment.data_dir, "small_val")
        labels = dataset.labels.copy()
        labels[-1, -1, -1] = np.nextafter(labels[-1, -1, -1], np.float32(0))
        write_datasets(tmp_path / "data")
        write_dataset(tmp_path / "data", "small_val", labels, dataset.poses["DEFAULT"])
        assert SmallExperiment(tmp_path / "data", small_experiment.storage_path).key() != before

    @pytest.mark.parametrize(
        "change",
        [
            {"joint_names": HANDS17.joint_names[::-1]},
            {"bones": HANDS17.bones[1:]},
            {"extra_edges": ()},
            {"fingers": HANDS17.fingers[1:]},
            {"palm": Palm(base=(0,), knuckles=(5, 4, 3, 2))},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_changes_with_a_skeleton_of_the_same_name(self, small_experiment, monkeypatch, change):
        before = small_experiment.key()
        monkeypatch.setitem(skeleton._SKELETONS, 21, dataclasses.replace(HANDS17, **change))
        assert small_experiment.key() != before

    def test_is_that_of_results_from_before_there_were_tables_palms_and_normalizers_that_know_the_skeleton(
        self, small_experiment
    ):
        for normalizer, arguments in ((Shifter, {}), (GlobalNormalizer, {"individual_scaling": False})):
            (combination,) = (
                small_experiment.experiment({"experiment_config.normalizer": normalizer}).plan().combinations
            )
            description = json.loads(combination.encoded)
            assert list(description["data"]["skeleton"]["args"]) == [
                *("bones", "extra_edges", "fingers", "joint_names", "name")
            ]
            name = f"data_pipeline.normalizers.{normalizer.__name__}"
            assert description["spaces"]["normalizer"] == {"name": name, "args": arguments}
            nothing = {"name": "data_pipeline.distorters.NoDistorter", "args": {}}
            assert description["inputs"] == {"distorter": nothing, "augmenters": []}

    def test_follows_the_content_of_the_tables_that_a_distorter_reads(self, small_experiment, tmp_path):
        def key():
            return SmallExperiment(tmp_path / "data", small_experiment.storage_path).key(NEIGHBOR_ERRORS)

        write_datasets(tmp_path / "data")
        assert key() == small_experiment.key(NEIGHBOR_ERRORS)
        (combination,) = small_experiment.experiment(NEIGHBOR_ERRORS).plan().combinations
        tables = json.loads(combination.encoded)["inputs"]["tables"]
        assert list(tables) == ["bank_errors.pt", "near_neighbors.pt"]
        errors = read_table(tmp_path / "data", "bank_errors.pt").array.copy()
        errors[-1, -1, -1] = np.nextafter(errors[-1, -1, -1], np.float32(0))
        write_errors(tmp_path / "data", "bank", errors)
        assert key() != small_experiment.key(NEIGHBOR_ERRORS)

    def test_changes_with_code_that_computes_other_numbers(self, small_experiment, monkeypatch):
        before = small_experiment.key()
        monkeypatch.setattr(combination_checks, "NUMERICS", combination_checks.NUMERICS + 1)
        assert small_experiment.key() != before

    def test_changes_with_the_order_of_subsets_in_which_they_are_drawn(self, small_experiment, tmp_path):
        changes = {"experiment_config.train_set": "two_train"}
        write_datasets(tmp_path / "data")
        dataset = read_dataset(small_experiment.data_dir, "two_train")
        write_dataset(tmp_path / "data", "two_train", dataset.labels, dict(reversed(dataset.poses.items())))
        assert SmallExperiment(tmp_path / "data", small_experiment.storage_path).key(changes) != small_experiment.key(
            changes
        )

    def test_follows_the_content_of_the_initial_weights_and_not_their_file(self, small_experiment, tmp_path):
        def key(name, seed):
            torch.manual_seed(seed)
            torch.save(CorrectorMLP(HANDS17, hidden_dims=[8]).state_dict(), tmp_path / name)
            return small_experiment.key({"experiment_config.init_weights_path": tmp_path / name})

        first = key("weights.pt", seed=1)
        (tmp_path / "folder").mkdir()
        assert key("folder/weights.pt", seed=1) == first
        assert len({first, key("weights.pt", seed=2), small_experiment.key()}) == 3

    def test_does_not_depend_on_whether_a_value_is_the_bases_or_an_options(self, small_experiment):
        combinations = small_experiment.experiment(options={LR: [1e-2, 1e-3]}).plan().combinations
        keys = [combination.key for combination in combinations]
        assert keys == [small_experiment.key({"base_hyperparams.optimizer_args.lr": 1e-2}), small_experiment.key()]

    @pytest.mark.slow
    def test_is_the_same_in_every_process(self, small_experiment, python):
        code = """
import sys; from pathlib import Path; from tests.cluster_tests.small_experiment import SmallExperiment
print(SmallExperiment(Path(sys.argv[1]), "results").key())"""
        process = python(code, small_experiment.data_dir, PYTHONHASHSEED="1")  # this one has another value
        assert process.stdout.split() == [small_experiment.key()], process.stderr

    def test_is_a_hash_of_all_that_it_is_made_of(self, small_experiment):
        (combination,) = small_experiment.experiment().plan().combinations
        assert combination.key == digest(combination.encoded)
        description = json.loads(combination.encoded)
        assert description["optimisation"]["optimizer"]["args"]["betas"] == [0.9, 0.999]
        assert description["data"]["train"]["samples"] == 40
        assert list(description) == ["data", "model", "optimisation", "loss", "spaces", "inputs", "schedule"]
