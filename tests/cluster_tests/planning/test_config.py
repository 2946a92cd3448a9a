import copy
import math
import re
import threading
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.experiment import Experiment
from cluster.planning.config import ConfigError
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.searching.search import Search
from data_pipeline.augmenters import RandomRotator
from data_pipeline.distorters import Distorter, NoDistorter
from data_pipeline.normalizers import GlobalNormalizer, Normalizer, Shifter
from data_pipeline.pose_dataset import dataset_names
from data_pipeline.skeleton import HANDS17
from data_pipeline.user_error import did_you_mean
from posenet import errors
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import MISSING, case_id

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def error_before(poses, labels, skeleton):
    """Has the name of the metric `error` before the correction."""
    return errors.distance_error(poses, labels, skeleton)


def distance_mm(poses, labels, skeleton):
    """A metric that would be in the column of PoseTune's `distance`."""
    return errors.distance_error(poses, labels, skeleton)


class HasALock:
    def __init__(self):
        self.lock = threading.Lock()

    def note(self, trial_id, report, model):
        """A callback."""


EXPERIMENT = [
    ("name", 7, "got 7; allowed: a name of letters, digits"),
    ("name", "", "begins with a letter or digit"),
    ("name", "a/b", "got 'a/b'; allowed: a name of letters, digits, '.', '_' and '-'"),
    ("name", "..", "begins with a letter or digit"),
    ("name", "a b", "got 'a b'"),
    ("name", "small_experiment\n", "got 'small_experiment\\n'"),
    ("train_set", None, "got None; allowed: the name of a dataset below data_dir, without '_labels.pt'"),
    ("train_set", "../small_train", "the name of a dataset below data_dir"),
    ("train_set", ["small_train"], "got ['small_train']"),
    ("val_set", Path("small_val"), "the name of a dataset below data_dir"),
    ("val_set", "/small_val", "the name of a dataset below data_dir"),
    ("test_set", 3, "without '_labels.pt' or '_poses.pt', or None"),
    ("train_set_size", 0, "got 0; allowed: an int of at least 1, or None"),
    ("train_set_size", 10.0, "got 10.0; allowed: an int of at least 1, or None"),
    ("train_set_size", True, "got True; allowed: an int of at least 1, or None"),
    ("val_set_size", "20", "got '20'; allowed: an int"),
    ("val_set_size", -1, "got -1"),
    ("test_set_size", math.nan, "got nan; allowed: an int"),
    ("use_preset", 1, "got 1; allowed: True or False"),
    ("use_preset", "False", "got 'False'; allowed: True or False"),
    ("use_preset", None, "got None; allowed: True or False"),
    (
        "normalizer",
        Shifter(HANDS17),
        "allowed: a class of data_pipeline.normalizers, such as Shifter, not an instance of one",
    ),
    ("normalizer", "Shifter", "got 'Shifter'; allowed: a class"),
    ("normalizer", Normalizer, "a class of data_pipeline.normalizers"),
    ("normalizer", CorrectorMLP, "a class of data_pipeline.normalizers"),
    ("normalizer", partial(CorrectorMLP), "a class of data_pipeline.normalizers"),
    ("target_device", "gpu", "'cpu', 'cuda', 'cuda:0', the same as a torch.device, or a list of these"),
    ("target_device", "cuda:x", "'cpu', 'cuda', 'cuda:0', the same as a torch.device, or a list of these"),
    ("target_device", 2, "write 'cuda:2'"),
    ("target_device", True, "'cpu', 'cuda', 'cuda:0', the same as a torch.device, or a list of these"),
    ("target_device", None, "or a list of these as a pool"),
    ("target_device", [], "or a list of these as a pool"),
    ("target_device", ["cuda:0", 1], "or a list of these as a pool"),
    ("target_device", ["cuda:0", torch.device("cuda:0")], "a pool without duplicate devices"),
    ("target_device", torch.device("mps"), "'cpu', 'cuda', 'cuda:0'"),
    ("target_device", [torch.device("cuda:0")] * 2, "a pool without duplicate devices"),
    ("target_device", [CPU, torch.device("cuda:0")], "a pool of one kind of device"),
    ("target_device", [CUDA, torch.device("cuda:0")], "a pool of GPUs with their index"),
    ("target_device", [CPU, torch.device("cpu:0")], "a pool of GPUs with their index"),
    ("n_repetitions", 0, "got 0; allowed: an int of at least 1"),
    ("n_repetitions", True, "got True; allowed: an int of at least 1"),
    ("n_repetitions", None, "got None; allowed: an int of at least 1"),
    ("n_repetitions", np.float64(3), "allowed: an int of at least 1"),
    ("init_weights_path", 3, "got 3; allowed: a path, or None"),
    ("init_weights_path", "", "got ''; allowed: a path, or None"),
    ("seed", -1, "got -1; allowed: an int of at least 0"),
    ("seed", 1.5, "got 1.5; allowed: an int"),
    ("seed", None, "got None; allowed: an int"),
    ("deterministic_mode", 0, "got 0; allowed: True or False"),
    ("data_dir", None, "got None; allowed: a path"),
    ("data_dir", "", "got ''; allowed: a path"),
    ("storage_path", 1, "got 1; allowed: a path"),
    ("cpus_per_trial", 0, "got 0; allowed: an int of at least 1"),
    ("cpus_per_trial", 0.5, "got 0.5; allowed: an int of at least 1"),
    ("trials_per_device", "2", "got '2'; allowed: an int of at least 1"),
    ("trials_per_device", -2, "got -2"),
    ("max_retries", -1, "got -1; allowed: an int of at least 0"),
    ("max_retries", False, "got False; allowed: an int of at least 0"),
    ("checkpoint_interval_s", -0.1, "got -0.1; allowed: a number of at least 0"),
    ("checkpoint_interval_s", math.nan, "got nan; allowed: a number of at least 0"),
    ("checkpoint_interval_s", "30", "got '30'; allowed: a number"),
    ("checkpoint_interval_s", True, "got True; allowed: a number"),
    ("trial_timeout_s", 0, "got 0; allowed: a finite number above 0"),
    ("trial_timeout_s", math.nan, "got nan; allowed: a finite number above 0"),
    ("trial_timeout_s", math.inf, "got inf; allowed: a finite number above 0"),
    ("trial_timeout_s", "1", "or None"),
    ("stop_if_all_fail", 0, "got 0; allowed: an int of at least 1, or None"),
    ("stop_if_all_fail", False, "got False; allowed: an int of at least 1, or None"),
    ("keep_weights", "some", "got 'some'; allowed: one of 'all', 'best', 'none'"),
    ("keep_weights", None, "got None; allowed: one of 'all', 'best', 'none'"),
    ("keep_state", "best", "got 'best'; allowed: one of 'all', 'none'"),
    ("search", "tpe", "got 'tpe'; allowed: a Search of cluster.searching.search, or None"),
    ("race", "halving", "got 'halving'; allowed: a race of cluster.racing.successive_halving, such as"),
    ("race", SuccessiveHalving, "such as SuccessiveHalving(), or None"),
    ("race", {"min_epochs": 3}, "such as SuccessiveHalving(), or None"),
    ("n_repetition", 3, "there is no such key; did you mean 'n_repetitions'?"),
    ("Name", "x", "did you mean 'name'?"),
    ("testset", None, "did you mean 'test_set'?"),
    ("zzz", 1, "there is no such key; known: name, train_set"),
    (3, 1, "there is no such key"),
]

SOLVER = [
    ("num_epochs", 0, "got 0; allowed: an int of at least 1"),
    ("num_epochs", 2.0, "got 2.0; allowed: an int"),
    ("num_epochs", True, "got True; allowed: an int"),
    ("batch_size", "16", "got '16'; allowed: an int"),
    ("batch_size", -16, "got -16"),
    ("log_frequency", 0, "got 0; allowed: an int of at least 1"),
    ("log_frequency", None, "got None; allowed: an int of at least 1"),
    ("log_loss", 1, "got 1; allowed: True or False"),
    ("log_grad", "yes", "got 'yes'; allowed: True or False"),
    ("verbose", 2, "got 2; allowed: True or False"),
    ("show_plots", None, "got None; allowed: True or False"),
    ("matmul_precision", "low", "allowed: one of 'highest', 'high', 'medium'"),
    ("matmul_precision", True, "allowed: one of 'highest', 'high', 'medium'"),
    ("interest_keys", [3], "allowed: an empty list; the run fills it"),
    ("interest_keys", None, "allowed: an empty list; the run fills it"),
    ("interest_keys", (), "allowed: an empty list; the run fills it"),
    ("interest_keys", np.array([]), "allowed: an empty list; the run fills it"),
    ("val_example_indices", 3, "got 3; allowed: a list of ints, the indices of samples"),
    ("val_example_indices", [0, -1], "got [0, -1]; allowed: a list of ints"),
    ("val_example_indices", [True], "got [True]; allowed: a list of ints"),
    ("val_example_indices", [0.0], "got [0.0]; allowed: a list of ints"),
    ("val_example_indices", np.array([0]), "allowed: a list of ints"),
    ("val_example_subset", 0, "got 0; allowed: a str"),
    ("val_example_subset", "", "got ''; allowed: a str"),
    ("metrics", errors.distance_error, "a list of functions with different names"),
    ("metrics", [lambda *args: args[0]], "a list of functions with different names"),
    ("metrics", [errors.bone_length_error, errors.bone_length_error], "a list of functions with different names"),
    ("metrics", [errors.bone_length_error], "functions whose names do not end in _before and are not PoseTune's own: "),
    ("metrics", [error_before], "functions whose names do not end in _before and are not PoseTune's own: distance,"),
    ("metrics", [distance_mm], "functions whose names do not end in _before and are not PoseTune's own: distance,"),
    ("callbacks", [3], "a list of functions with different names"),
    ("callbacks", [HasALock().note], "functions that can be copied, so no methods of an object with a lock or an open"),
    ("num_epoch", 5, "did you mean 'num_epochs'?"),
    ("learning_rate", 0.1, "there is no such key"),
]

HYPERPARAMS = [
    (
        "model",
        "CorrectorMLP",
        "allowed: a class of posenet.models, such as CorrectorMLP, not an instance of one or its name",
    ),
    ("model", torch.nn.Linear(1, 1), "allowed: a class of posenet.models"),
    ("model", torch.nn.Module, "allowed: a class of posenet.models"),
    ("model", partial(CorrectorMLP, hidden_dims=[8]), "allowed: a class of posenet.models"),
    ("model_args", [8], "got [8]; allowed: a dict of the constructor's arguments"),
    ("model_args", None, "got None; allowed: a dict of the constructor's arguments"),
    ("model_args", {1: 2}, "got {1: 2}; allowed: a dict of the constructor's arguments"),
    (
        "loss_function",
        errors.distance_error,
        "a loss of posenet.losses, such as MetricLoss(errors.distance_error, 'squared')",
    ),
    ("loss_function", torch.nn.MSELoss(), "a loss of posenet.losses"),
    ("loss_function", "l1", "got 'l1'; allowed: a loss of posenet.losses"),
    ("choose_strength", 0.5, "got 0.5; allowed: True or False"),
    ("loss_space", "mm", "got 'mm'; allowed: one of 'default', 'original'"),
    ("loss_space", None, "allowed: one of 'default', 'original'"),
    ("eval_space", True, "got True; allowed: one of 'default', 'original'"),
    ("optimizer", "Adam", "a class of torch.optim, such as torch.optim.Adam, not an instance of one or its name"),
    ("optimizer", torch.optim.Optimizer, "a class of torch.optim"),
    ("optimizer", torch.optim.lr_scheduler.StepLR, "a class of torch.optim, such as"),
    ("optimizer_args", [("lr", 0.1)], "a dict of the constructor's arguments"),
    ("scheduler", "StepLR", "a class of torch.optim.lr_scheduler, such as StepLR"),
    ("scheduler", torch.optim.Adam, "a class of torch.optim.lr_scheduler"),
    ("scheduler_args", 3, "got 3; allowed: a dict of the constructor's arguments"),
    ("scheduler_requires_metric", None, "got None; allowed: True or False"),
    ("scheduler_requires_metric", 0, "got 0; allowed: True or False"),
    ("distorter", NoDistorter(), "a class of data_pipeline.distorters, such as NoDistorter, not an instance"),
    ("distorter", None, "a class of data_pipeline.distorters"),
    ("distorter", Distorter, "a class of data_pipeline.distorters"),
    ("distorter_args", 2.0, "got 2.0; allowed: a dict of the constructor's arguments, or None"),
    ("augmenters", None, "got None; allowed: a list of instances of data_pipeline.augmenters"),
    ("augmenters", RandomRotator(), "allowed: a list of instances"),
    ("augmenters", [RandomRotator], "allowed: a list of instances"),
    ("scheduler_arg", {}, "did you mean 'scheduler_args'?"),
    ("lr", 0.1, "there is no such key"),
]

WRONG = [
    (f"{section}.{key}", value, says)
    for section, cases in (
        ("experiment_config", EXPERIMENT),
        ("solver_config", SOLVER),
        ("base_hyperparams", HYPERPARAMS),
    )
    for key, value, says in cases
]

REQUIRED = [
    *(f"experiment_config.{key}" for key in ("name", "train_set", "val_set", "normalizer", "n_repetitions")),
    *(f"solver_config.{key}" for key in ("num_epochs", "batch_size")),
    *(f"base_hyperparams.{key}" for key in ("model", "loss_function", "optimizer")),
]


class TestAWrongKeyOrValue:
    @pytest.mark.parametrize(
        ("path", "value", "says"), WRONG, ids=[f"{path}={case_id(value)}" for path, value, _ in WRONG]
    )
    def test_is_an_error_that_says_what_is_allowed(self, small_experiment, path, value, says):
        section, _, key = path.partition(".")
        dicts = small_experiment.dicts()
        dicts[section][3 if key == "3" else key] = value
        with pytest.raises(ConfigError) as caught:
            Experiment(*dicts.values())
        (problem,) = caught.value.problems
        assert problem.path == path
        assert says in problem.text

    @pytest.mark.parametrize("path", REQUIRED)
    def test_is_a_missing_key(self, small_experiment, path):
        with pytest.raises(ConfigError, match=re.escape(f"\n  {path}: is missing; see tune_runs/README.md")):
            small_experiment.experiment({path: MISSING})

    def test_stands_in_the_table_above_for_every_key(self, small_experiment):
        every_key = {f"{section}.{key}" for section, keys in small_experiment.dicts().items() for key in keys}
        assert every_key | set(REQUIRED) <= {path for path, _, _ in WRONG}

    @pytest.mark.parametrize("given", [None, [], "experiment", 3])
    @pytest.mark.parametrize("section", ["experiment_config", "solver_config", "base_hyperparams"])
    def test_is_a_dict_that_is_none(self, small_experiment, section, given):
        with pytest.raises(ConfigError) as caught:
            Experiment(*{**small_experiment.dicts(), section: given}.values())
        assert [str(problem) for problem in caught.value.problems] == [f"{section}: got {given!r}; allowed: a dict"]

    def test_stands_in_one_error_with_all_others_of_all_three_dicts(self, small_experiment):
        wrong = {
            "experiment_config.n_repetitions": 0,
            "experiment_config.seed": MISSING,  # it has a default
            "experiment_config.val_set": MISSING,
            "experiment_config.tset_set": "x",
            "solver_config.batch_size": None,
            "solver_config.epochs": 3,
            "base_hyperparams.model": "MLP",
            "base_hyperparams.optimizer": MISSING,
        }
        with pytest.raises(ConfigError) as caught:
            small_experiment.experiment(wrong)
        assert {problem.path for problem in caught.value.problems} == set(wrong) - {"experiment_config.seed"}
        first, *lines = str(caught.value).splitlines()
        assert first == "7 problems in the configuration:"
        assert lines == [f"  {problem}" for problem in caught.value.problems]
        assert "  experiment_config.tset_set: there is no such key; did you mean 'test_set'?" in lines

    def test_hides_no_problem_of_another_key(self, small_experiment):
        """Each problem is found although a key that a related check reads is wrong too."""
        wrong = {
            "experiment_config.train_set_size": -1,
            "experiment_config.val_set_size": 21,
            "experiment_config.test_set": "small_tset",
            "experiment_config.use_preset": "yes",
            "experiment_config.storage_path": "s3://name:password@bucket/results",
            "experiment_config.zzz": 1,
            "solver_config.num_epochs": "many",
            "base_hyperparams.model_args.dropout": True,
            "base_hyperparams.model_args.hiden_dims": [8],
            "base_hyperparams.optimizer_args.lr": "1e-3",
            "base_hyperparams.scheduler_args.gama": 0.5,
            "base_hyperparams.distorter_args.std": 1,
        }
        with pytest.raises(ConfigError) as caught:
            small_experiment.experiment(wrong)
        assert {problem.path for problem in caught.value.problems} == set(wrong)

    def test_of_a_race_or_a_search_stands_with_the_others(self, small_experiment):
        wrong = {
            "experiment_config.race": SuccessiveHalving(reduction_factor=1, confirm=1.5),
            "experiment_config.search": Search("tp", 0),
            "base_hyperparams.optimizer_args.lr": "1e-3",
        }
        with pytest.raises(ConfigError) as caught:
            small_experiment.experiment(wrong)
        *of_config, of_optimizer = map(str, caught.value.problems)
        assert of_config == [
            "experiment_config.race.reduction_factor: got 1; allowed: an int of at least 2",
            "experiment_config.race.confirm: got 1.5; allowed: an int of at least 0",
            "experiment_config.search.n_combinations: got 0; allowed: an int of at least 1",
            "experiment_config.search.sampler: got 'tp'; allowed: one of 'tpe', 'random', 'sobol'",
        ]
        assert of_optimizer.startswith("base_hyperparams.optimizer_args.lr: ")

    @pytest.mark.parametrize("path", ["experiment_config.data_dir", "solver_config"])
    def test_hides_no_problem_of_the_other_dicts(self, small_experiment, path):
        dicts = small_experiment.dicts({"base_hyperparams.optimizer_args.lr": "1e-3"})
        section, _, key = path.partition(".")
        if key:
            dicts[section][key] = None
        else:
            dicts[section] = None
        with pytest.raises(ConfigError) as caught:
            Experiment(*dicts.values())
        assert [problem.path for problem in caught.value.problems] == [path, "base_hyperparams.optimizer_args.lr"]


class TestARightConfig:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("experiment_config.name", "3rd.try-B_2"),
            ("experiment_config.train_set", "nyu/DeepPrior++_train"),
            ("experiment_config.target_device", [torch.device("cuda:0"), torch.device("cuda:1")]),
            ("experiment_config.target_device", (torch.device("cpu"),)),
            ("experiment_config.target_device", [torch.device("cuda")]),
            ("experiment_config.target_device", "cpu"),
            ("experiment_config.target_device", "cuda:1"),
            ("experiment_config.target_device", ["cuda:0", torch.device("cuda:1")]),
            ("base_hyperparams.scheduler", None),
            ("experiment_config.normalizer", None),
            ("experiment_config.normalizer", partial(GlobalNormalizer, individual_scaling=True)),
            ("experiment_config.checkpoint_interval_s", 0),
            ("experiment_config.checkpoint_interval_s", math.inf),
            ("experiment_config.trial_timeout_s", 0.5),
            ("experiment_config.stop_if_all_fail", None),
            ("experiment_config.seed", 2**70),
            ("solver_config.val_example_indices", ()),
            ("base_hyperparams.model_args", OrderedDict(hidden_dims=[])),
            ("base_hyperparams.distorter_args", None),
            ("base_hyperparams.augmenters", (RandomRotator(),)),
        ],
        ids=case_id,
    )
    def test_may_hold(self, small_experiment, path, value):
        small_experiment.experiment({path: value})

    @pytest.mark.parametrize(
        ("section", "defaults"),
        [
            (
                "experiment_config",
                {
                    **{"train_set_size": None, "val_set_size": None, "test_set": None, "test_set_size": None},
                    **{"use_preset": True, "target_device": "cpu", "init_weights_path": None, "seed": 0},
                    **{"deterministic_mode": True, "data_dir": "data", "storage_path": "results"},
                    **{"cpus_per_trial": 1, "trials_per_device": 1, "max_retries": 2, "checkpoint_interval_s": 30},
                    **{"trial_timeout_s": None, "stop_if_all_fail": 5, "keep_weights": "all", "keep_state": "none"},
                    **{"search": None, "race": None},
                },
            ),
            (
                "solver_config",
                {
                    **{"log_frequency": 1, "log_loss": False, "log_grad": False, "verbose": False},
                    **{"show_plots": False, "matmul_precision": "highest", "interest_keys": []},
                    **{"val_example_indices": (), "val_example_subset": "DEFAULT", "metrics": (), "callbacks": ()},
                },
            ),
            (
                "base_hyperparams",
                {
                    **{"model_args": {}, "choose_strength": False, "loss_space": "default", "eval_space": "original"},
                    **{"optimizer_args": {}, "scheduler": None, "scheduler_args": {}},
                    **{"scheduler_requires_metric": False, "distorter": NoDistorter, "distorter_args": {}},
                    "augmenters": (),
                },
            ),
        ],
    )
    def test_gets_these_defaults(self, small_experiment, section, defaults):
        experiment = small_experiment.experiment({f"{section}.{key}": MISSING for key in defaults})
        config = experiment.space.settings(()).sections[section]
        assert {key: getattr(config, key) for key in defaults} == defaults
        assert vars(config).keys() - defaults.keys() == {
            path.partition(".")[2] for path in REQUIRED if path.startswith(section)
        }

    @pytest.mark.parametrize("normalizer", [Shifter, None])
    def test_without_an_eval_space_is_evaluated_in_mm(self, small_experiment, normalizer):
        changes = {"experiment_config.normalizer": normalizer, "base_hyperparams.eval_space": MISSING}
        space = "original" if normalizer else "default"
        assert small_experiment.key(changes) == small_experiment.key({**changes, "base_hyperparams.eval_space": space})

    def test_derives_defaults_for_each_combination(self, small_experiment):
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        keys = ("scheduler_requires_metric", "eval_space", "scheduler_args")
        experiment = small_experiment.experiment(
            {f"base_hyperparams.{key}": MISSING for key in keys},
            {"scheduler": [plateau, None], "experiment_config.normalizer": [Shifter, None]},
        )
        settings = [experiment.space.settings(rows).hyperparams for rows in experiment.space.combinations()]
        assert [(each.scheduler_requires_metric, each.eval_space) for each in settings] == [
            *((True, "original"), (True, "default")),
            *((False, "original"), (False, "default")),
        ]
        assert len(experiment.plan().combinations) == 4

    def test_holds_no_numbers_of_numpy(self, small_experiment):
        changes = {
            "experiment_config.n_repetitions": np.int64(3),
            "experiment_config.race": SuccessiveHalving(reduction_factor=np.int64(3), max_cost=np.float32(0.5)),
            "experiment_config.search": Search("random", np.int64(4)),
            "base_hyperparams.model_args.hidden_dims": [np.int64(8)],
            "base_hyperparams.optimizer_args": {"lr": np.float64(0.5), "betas": (np.float32(0.5), 0.9)},
        }
        experiment = small_experiment.experiment(changes)
        hyperparams = experiment.space.settings(()).hyperparams
        taken = [experiment.config.n_repetitions, hyperparams.model_args["hidden_dims"][0]]
        taken += [experiment.config.race.reduction_factor, experiment.config.search.n_combinations]
        assert [type(value) for value in taken] == [int] * 4
        assert type(experiment.config.race.max_cost) is float
        assert hyperparams.optimizer_args == {"lr": 0.5, "betas": (0.5, 0.9)}
        assert {type(value) for value in (hyperparams.optimizer_args["lr"], *hyperparams.optimizer_args["betas"])} == {
            float
        }

    def test_stays_as_it_was_checked_when_the_dicts_change(self, small_experiment):
        dicts = small_experiment.dicts()
        experiment = Experiment(*dicts.values())
        dicts["base_hyperparams"]["optimizer_args"]["lr"] = -1
        dicts["base_hyperparams"]["model_args"]["hidden_dims"].append("x")
        dicts["solver_config"]["val_example_indices"].append(-1)
        settings = experiment.space.settings(())
        assert settings.hyperparams.optimizer_args["lr"] == 1e-3
        assert settings.hyperparams.model_args["hidden_dims"] == [8]
        assert settings.solver.val_example_indices == [0, 3]
        assert settings.solver.interest_keys is dicts["solver_config"]["interest_keys"]

    def test_may_be_used_for_a_second_experiment(self, small_experiment):
        dicts = small_experiment.dicts()
        dicts["solver_config"]["interest_keys"].append("optimizer_args.lr")  # as a run leaves it
        Experiment(*dicts.values())
        assert dicts["solver_config"]["interest_keys"] == []

    def test_is_not_changed_by_planning(self, small_experiment):
        dicts = small_experiment.dicts()
        before = copy.deepcopy(dicts)
        Experiment(*dicts.values()).plan()
        assert dicts == before


def test_a_name_that_is_like_no_other_gets_the_known_ones():
    assert did_you_mean("xyz", ["alpha", "beta"]) == "; known: alpha, beta"
    assert did_you_mean("alhpa", ["alpha", "beta"]) == "; did you mean 'alpha'?"
    assert did_you_mean("x", []) == ""


SCRIPT = """
import sys
from pathlib import Path
from tests.cluster_tests.small_experiment import SmallExperiment
experiment = SmallExperiment(Path(sys.argv[1]), Path(sys.argv[2])).experiment({changes})
experiment.run("inline")
"""


class TestAScriptWithAWrongConfig:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            pytest.param(
                {"solver_config.batch_size": 0, "experiment_config.n_repetition": 3},
                "error: 2 problems in the configuration:\n"
                "  experiment_config.n_repetition: there is no such key; did you mean 'n_repetitions'?\n"
                "  solver_config.batch_size: got 0; allowed: an int of at least 1\n",
                id="each value on its own",
                marks=pytest.mark.slow,
            ),
            pytest.param(
                {"base_hyperparams.model_args": {"hidden_dim": [8]}, "experiment_config.val_set_size": 21},
                "error: 3 problems in the configuration:\n"
                "  experiment_config.val_set_size: {data}/small_val_labels.pt has 20 samples, fewer than the requested "
                "21\n"
                "  base_hyperparams.model_args.hidden_dim: CorrectorMLP has no such argument; did you mean "
                "'hidden_dims'?\n"
                "  base_hyperparams.model_args.hidden_dims: is missing; CorrectorMLP needs it\n",
                id="values together",
                marks=pytest.mark.slow,
            ),
            pytest.param(
                {
                    "solver_config.num_epochs": 0,
                    "experiment_config.train_set": "nothing",
                    "base_hyperparams.optimizer_args": {"lr": -1},
                    "base_hyperparams.scheduler_requires_metric": True,
                },
                "error: 4 problems in the configuration:\n"
                "  solver_config.num_epochs: got 0; allowed: an int of at least 1\n"
                "  experiment_config.train_set: {data}/nothing_labels.pt does not exist; {data} has the datasets "
                "{datasets}. Make datasets with posetune prepare-data (see its --help).\n"
                "  base_hyperparams.optimizer_args: Adam refuses {{lr: -1}}: Invalid learning rate: -1\n"
                "  base_hyperparams.scheduler_requires_metric: must be False for StepLR, whose step takes no metric\n",
                id="both kinds",
            ),
        ],
    )
    def test_ends_with_the_text_alone_and_writes_nothing(self, small_experiment, python, changes, says):
        process = python(SCRIPT.format(changes=changes), small_experiment.data_dir, small_experiment.storage_path)
        datasets = ", ".join(dataset_names(small_experiment.data_dir))
        assert process.stderr == says.format(data=small_experiment.data_dir, datasets=datasets)
        assert (process.returncode, process.stdout) == (1, "")
        assert not small_experiment.storage_path.exists()
