import json
import threading
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster.planning.config import ConfigError
from cluster.planning.search_space import Axis, SearchSpace
from data_pipeline.augmenters import RandomRotator, RandomScaler
from data_pipeline.distorters import GaussianDistorter, NoDistorter
from data_pipeline.normalizers import GlobalNormalizer, Shifter
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR, case_id

LOCAL_CLASS = type("Local", (CorrectorMLP,), {"__qualname__": "f.<locals>.Local"})


class Unsendable(RandomScaler):
    """Has a name, and contains something that cannot be sent to a worker."""

    def __init__(self, *, low=1.0):
        super().__init__(low=low)
        object.__setattr__(self, "lock", threading.Lock())


def problems_of(add, *arguments):
    with pytest.raises(ConfigError) as caught:
        add(*arguments)
    return caught.value.problems


class TestAnOption:
    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("optimizer_args.lr", LR),
            (("optimizer_args", "lr"), LR),
            ("base_hyperparams.optimizer_args.lr", LR),
            (("base_hyperparams", "optimizer_args", "lr"), LR),
            ((None, "optimizer_args", "lr"), LR),
        ],
    )
    def test_is_named_by_a_dotted_path_or_its_parts(self, small_experiment, key, path):
        experiment = small_experiment.experiment()
        experiment.add_options(key, [0.5, 0.25])
        assert experiment.space.paths == [path]
        settings = [experiment.space.settings(row_indices) for row_indices in experiment.space.combinations()]
        assert [each.hyperparams.optimizer_args for each in settings] == [
            {"lr": 0.5, "weight_decay": 0.0},
            {"lr": 0.25, "weight_decay": 0.0},
        ]

    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ((None, "loss_function"), [MetricLoss(errors.distance_error), MetricLoss]),
            ("model", [CorrectorMLP]),
            ("model_args", [{"hidden_dims": [8]}, {"hidden_dims": []}]),
            ("model_args.hidden_dims", [[8], (16, 8), []]),
            ("loss_space", ["default", "original"]),
            ("optimizer", [torch.optim.SGD, torch.optim.Adam]),
            ("augmenters", [[], [RandomRotator()], [RandomRotator(), RandomScaler()]]),
            ("distorter_args", [None, {}]),
            ("experiment_config.train_set", ["small_train", "two_train"]),
            (("experiment_config", "train_set_size"), [10, None]),
            ("experiment_config.val_set", ["small_val"]),
            ("experiment_config.val_set_size", [10]),
            ("experiment_config.test_set", [None, "small_test"]),
            ("experiment_config.test_set_size", [None, 3]),
            ("experiment_config.use_preset", [True, False]),
            ("experiment_config.normalizer", [None, Shifter, partial(GlobalNormalizer, individual_scaling=True)]),
            ("experiment_config.init_weights_path", [None, "weights.pt"]),
            ("solver_config.num_epochs", [1, 2]),
            ("solver_config.batch_size", [8, 16]),
            ("solver_config.matmul_precision", ["highest", "high"]),
        ],
        ids=case_id,
    )
    def test_may_be_any_setting_that_changes_a_number(self, small_experiment, key, values):
        experiment = small_experiment.experiment()
        experiment.add_options(key, values)
        (axis,) = experiment.space.axes
        assert axis.rows == tuple((value,) for value in values)
        assert len({str(label) for (label,) in axis.labels}) == len(values)
        json.dumps(axis.labels)

    def test_may_come_with_others_in_a_dict(self, small_experiment):
        experiment = small_experiment.experiment()
        experiment.add_options({LR: [0.1], ("model_args", "dropout"): [None, 0.5], "solver_config.batch_size": (8,)})
        assert experiment.space.paths == [LR, "model_args.dropout", "solver_config.batch_size"]
        assert len(experiment.space.combinations()) == 2

    def test_holds_python_numbers_in_lists_of_its_own(self, small_experiment):
        dims = [np.int64(8)]
        experiment = small_experiment.experiment(
            options={LR: list(np.logspace(-3, -1, 3)), "model_args.hidden_dims": [dims]}
        )
        dims.append("x")
        for row_indices in experiment.space.combinations():
            hyperparams = experiment.space.settings(row_indices).hyperparams
            assert type(hyperparams.optimizer_args["lr"]) is float
            assert hyperparams.model_args["hidden_dims"] == [8]
            assert type(hyperparams.model_args["hidden_dims"][0]) is int

    def test_leaves_the_base_and_the_other_combinations_alone(self, small_experiment):
        experiment = small_experiment.experiment(options={"model_args.dropout": [0.1, 0.2], LR: [1, 2]})
        settings = [
            experiment.space.settings(row_indices).hyperparams for row_indices in experiment.space.combinations()
        ]
        assert [(each.model_args["dropout"], each.optimizer_args["lr"]) for each in settings] == [
            (0.1, 1),
            (0.1, 2),
            (0.2, 1),
            (0.2, 2),
        ]
        assert vars(experiment.space.base.hyperparams) == small_experiment.dicts()["base_hyperparams"]


WRONG_OPTIONS = [
    (
        "optimizer_args.lrr",
        [1],
        "optimizer_args.lrr",
        "base_hyperparams.optimizer_args has no 'lrr'; did you mean 'lr'?",
    ),
    ("optimizer_args.betas", [(0.9, 0.9)], "optimizer_args.betas", "an option's base value must be set"),
    (
        "optimzer_args.lr",
        [1],
        "optimzer_args.lr",
        "base_hyperparams has no 'optimzer_args'; did you mean 'optimizer_args'?",
    ),
    ("solver_config.epochs", [1], "solver_config.epochs", "solver_config has no 'epochs'; did you mean 'num_epochs'?"),
    ("optimizer_args.lr.value", [1], "optimizer_args.lr.value", "base_hyperparams.optimizer_args.lr has no 'value'"),
    ("model_args.hidden_dims.0", [1], "model_args.hidden_dims.0", "hidden_dims has no '0'"),
    ("batch_size", [8], "batch_size", "has no 'batch_size'; did you mean 'solver_config.batch_size'?"),
    ("num_epochs", [8], "num_epochs", "has no 'num_epochs'; did you mean 'solver_config.num_epochs'?"),
    ("normalizer", [None], "normalizer", "did you mean 'experiment_config.normalizer'?"),
    ("verbose", [True], "verbose", "solver_config has it, but it cannot be an option"),
    (
        "experiment_config.num_epochs",
        [8],
        "experiment_config.num_epochs",
        "did you mean 'solver_config.num_epochs'?",
    ),
    ("a..b", [1], "a..b", "base_hyperparams has no 'a'"),
    ("", [1], "''", "an option's key is a dotted path such as 'optimizer_args.lr', or a tuple of its parts"),
    (3, [1], "3", "an option's key is a dotted path"),
    (
        ["optimizer_args", "lr"],
        [1],
        "['optimizer_args', 'lr']",
        "a dotted path such as 'optimizer_args.lr', or a tuple",
    ),
    ({LR}, [1], "{'optimizer_args.lr'}", "an option's key is a dotted path"),
    (None, [1], "None", "an option's key is a dotted path"),
    ({3: [1]}, None, "3", "an option's key is a dotted path"),
    ((), [1], "()", "an option's key is a dotted path"),
    ((None,), [1], "(None,)", "an option's key is a dotted path"),
    (("optimizer_args", 3), [1], "('optimizer_args', 3)", "an option's key is a dotted path"),
    (
        "experiment_config",
        [{}],
        "experiment_config",
        "it cannot be an option; in experiment_config these can: train_set,",
    ),
    ("solver_config", [{}], "solver_config", "in solver_config these can: num_epochs, batch_size, matmul_precision"),
    ("base_hyperparams", [{}], "base_hyperparams", "base_hyperparams has no 'base_hyperparams'"),
    *(
        (
            f"experiment_config.{key}",
            [value],
            f"experiment_config.{key}",
            "it cannot be an option; in experiment_config",
        )
        for key, value in {"name": "x", "seed": 1, "n_repetitions": 2, "target_device": torch.device("cpu")}.items()
    ),
    ("solver_config.verbose", [True, False], "solver_config.verbose", "it cannot be an option; in solver_config"),
    (LR, [], LR, "got []; allowed: a list with at least one value"),
    (LR, None, LR, "got None; allowed: a list with at least one value"),
    (LR, 0.1, LR, "got 0.1; allowed: a list with at least one value"),
    (LR, "0.1", LR, "got '0.1'; allowed: a list"),
    (LR, np.array([0.1, 0.2]), LR, "got array([0.1, 0.2]); allowed: a list"),
    (LR, range(3), LR, "got range(0, 3); allowed: a list"),
    (LR, {0.1, 0.2}, LR, "allowed: a list"),
    (LR, [0.1, 0.2, 0.1], LR, "0.1 is listed twice"),
    (LR, [1, 1.0], LR, "1.0 is listed twice"),
    (LR, [np.float64(0.5), 0.5], LR, "0.5 is listed twice"),
    ("model_args.hidden_dims", [[8], (8,)], "model_args.hidden_dims", "(8,) is listed twice"),
    ("augmenters", [[RandomScaler()], [RandomScaler(low=0.8)]], "augmenters", "is listed twice"),
    (LR, [float("nan")], LR, "NaN is not a setting"),
    (LR, [np.array([0.1])], LR, "cannot be distinguished from another ndarray"),
    (LR, [lambda: 1], LR, "a lambda (<lambda>) cannot be imported by name; define it at the top level"),
    ("model", [LOCAL_CLASS], "model", "a local function or class (Local) cannot be imported by name"),
    (
        "augmenters",
        [[Unsendable()]],
        "augmenters",
        "it cannot be sent to a worker process (cannot pickle '_thread.lock'",
    ),
    ("model", [CorrectorMLP, "CorrectorMLP"], "model", "got 'CorrectorMLP'; allowed: a class of posenet.models"),
    ("loss_space", ["mm"], "loss_space", "got 'mm'; allowed: one of 'default', 'original'"),
    ("experiment_config.train_set_size", [0], "experiment_config.train_set_size", "an int of at least 1, or None"),
    ("solver_config.batch_size", [True], "solver_config.batch_size", "got True; allowed: an int of at least 1"),
]


class TestAWrongOption:
    @pytest.mark.parametrize(
        ("key", "values", "path", "says"),
        WRONG_OPTIONS,
        ids=[f"{key}={case_id(values)}" for key, values, *_ in WRONG_OPTIONS],
    )
    def test_is_an_error_that_says_what_to_do_and_adds_nothing(self, small_experiment, key, values, path, says):
        experiment = small_experiment.experiment()
        (problem,) = problems_of(experiment.add_options, key, values)
        assert problem.path == path
        assert says in problem.text
        assert experiment.space.axes == []

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (LR, LR),
            (LR, ("optimizer_args", "lr")),
            (LR, "base_hyperparams.optimizer_args.lr"),
            ("optimizer_args", LR),
            (LR, "optimizer_args"),
        ],
    )
    def test_is_one_that_varies_already_itself_its_parent_or_its_part(self, small_experiment, first, second):
        experiment = small_experiment.experiment()
        values = {"optimizer_args": [{"lr": 1}]}
        experiment.add_options(first, values.get(first, [1]))
        (problem,) = problems_of(experiment.add_options, second, values.get(second, [2]))
        assert problem.text == f"{first} already varies"
        experiment = small_experiment.experiment()
        (problem,) = problems_of(experiment.add_joint_options, [first, second], [[values.get(first, [1])[0]] * 2])
        assert problem.text == f"{first} already varies"

    def test_is_not_one_whose_name_only_begins_alike(self, small_experiment):
        experiment = small_experiment.experiment(options={"model": [CorrectorMLP], "model_args.dropout": [0.1]})
        experiment.add_options("model_args.hidden_dims", [[8]])

    def test_stands_in_one_error_with_the_others_of_the_dict(self, small_experiment):
        experiment = small_experiment.experiment()
        experiment.add_options("model_args.dropout", [0.5])
        problems = problems_of(experiment.add_options, {LR: [1], "model_args.dropuot": [1], "augmenters": None})
        assert [problem.path for problem in problems] == ["model_args.dropuot", "augmenters"]
        assert experiment.space.paths == ["model_args.dropout"]

    def test_tells_every_wrong_value(self, small_experiment):
        problems = problems_of(small_experiment.experiment().add_options, "loss_space", ["mm", "default", "cm"])
        assert [problem.text[:8] for problem in problems] == ["got 'mm'", "got 'cm'"]


class TestJointOptions:
    def test_vary_row_by_row(self, small_experiment):
        experiment = small_experiment.experiment(options={LR: [1, 2]})
        experiment.add_joint_options(
            ["distorter", ("distorter_args",)], [[NoDistorter, {}], (GaussianDistorter, {"std_mm": 1})]
        )
        options = [experiment.space.options(row_indices) for row_indices in experiment.space.combinations()]
        assert options == [
            {LR: lr, "distorter": distorter, "distorter_args": arguments}
            for lr in (1, 2)
            for distorter, arguments in (("NoDistorter", "{}"), ("GaussianDistorter", "{std_mm: 1}"))
        ]
        assert experiment.space.settings((1, 1)).hyperparams.distorter_args == {"std_mm": 1}

    def test_may_have_a_value_several_times_in_a_column_with_one_label(self, small_experiment):
        experiment = small_experiment.experiment()
        experiment.add_joint_options([LR, "optimizer_args.weight_decay"], [[1, 0], [1.0, 1], [2, 0]])
        (axis,) = experiment.space.axes
        assert axis.labels == ((1, 0), (1, 1), (2, 0))

    def test_of_one_key_are_an_option(self, small_experiment):
        experiment = small_experiment.experiment()
        experiment.add_joint_options(LR, [[1], [2]])
        assert experiment.space.axes[0].labels == ((1,), (2,))

    @pytest.mark.parametrize(
        ("labels", "says"),
        [
            (["one"], "allowed: a list of 2 texts, one for each row"),
            ("ab", "got 'ab'; allowed: a list of 2 texts"),
            (["one", 2], "got 2; a label is a text that can be read on one line"),
            (["one", " "], "got ' '; a label is a text"),
            (["one", "a\nb"], "a label is a text that can be read on one line"),
            (["one", "one "], "'one '; a label is a text that can be read on one line, without spaces around it"),
            (["one", "\x1b[31m"], "a label is a text that can be read on one line"),
            (["one", "one"], "'one' is the label of two rows; each row needs its own"),
            (["one", "–"], "'–' is reserved for options that do not apply; choose another label"),
        ],
    )
    def test_have_a_label_for_each_row_or_none(self, small_experiment, labels, says):
        for add in (
            lambda experiment: experiment.add_joint_options(
                [LR, "loss_space"], [[1, "default"], [2, "default"]], labels=labels
            ),
            lambda experiment: experiment.add_options(LR, [1, 2], labels=labels),
        ):
            experiment = small_experiment.experiment()
            (problem,) = problems_of(add, experiment)
            assert says in problem.text
            assert problem.path.startswith(f"labels of {LR}")
            assert experiment.space.axes == []

    def test_have_no_labels_in_a_dict_of_options(self, small_experiment):
        experiment = small_experiment.experiment()
        (problem,) = problems_of(lambda: experiment.add_options({LR: [1, 2]}, labels=["one", "two"]))
        assert problem.text == "a dict of options takes no labels; call add_options for each option that has them"

    def test_have_labels_that_are_not_part_of_any_identity(self, small_experiment):
        def keys(labels):
            experiment = small_experiment.experiment()
            experiment.add_joint_options([LR, "optimizer_args.weight_decay"], [[1, 0], [2, 0.1]], labels=labels)
            return [combination.key for combination in experiment.plan().combinations]

        assert keys(["slow", "fast"]) == keys(None)

    @pytest.mark.parametrize(
        ("keys", "rows", "path", "says"),
        [
            (
                [LR, "model_args.dropout"],
                [[1, 0.1], [2]],
                f"{LR} & model_args.dropout",
                "each row must be a list of 2 values",
            ),
            ([LR, "model_args.dropout"], [[1, 0.1, 3]], f"{LR} & model_args.dropout", "one for each key"),
            ([LR, "model_args.dropout"], [1, 2], f"{LR} & model_args.dropout", "each row must be a list of 2 values"),
            ([LR], [1, 2], LR, "each row must be a list of 1 values"),
            ([LR, "model_args.dropout"], [], f"{LR} & model_args.dropout", "got []; allowed: a list"),
            ([LR, "model_args.dropout"], np.ones((2, 2)), f"{LR} & model_args.dropout", "allowed: a list"),
            (
                [LR, "model_args.dropout"],
                [[1, 0.1], [1.0, 0.1]],
                f"{LR} & model_args.dropout",
                "[1.0, 0.1] is listed twice",
            ),
            ([LR, LR], [[1, 2]], LR, f"{LR} already varies"),
            ([LR, "loss_space"], [[1, "mm"]], "loss_space", "got 'mm'"),
            ([], [], "add_joint_options", "got [] as keys; allowed: a list of at least one"),
            ([], [[]], "add_joint_options", "got [] as keys"),
            (None, [[1]], "add_joint_options", "got None as keys"),
            ({LR: [1]}, [[1]], "add_joint_options", "as keys; allowed: a list"),
            ([["optimizer_args", "lr"]], [[1]], "['optimizer_args', 'lr']", "an option's key is a dotted path"),
            ([None], [[1]], "None", "an option's key is a dotted path"),
            ([LR], None, LR, "got None; allowed: a list"),
        ],
    )
    def test_that_are_wrong_are_an_error(self, small_experiment, keys, rows, path, says):
        experiment = small_experiment.experiment()
        (problem,) = problems_of(experiment.add_joint_options, keys, rows)
        assert problem.path == path
        assert says in problem.text
        assert experiment.space.axes == []


class TestCombinations:
    def test_without_options_are_the_base_alone(self, small_experiment):
        space = small_experiment.experiment().space
        assert list(space.combinations()) == [()]
        assert space.options(()) == {}
        assert space.settings(()) == space.base

    @given(st.lists(st.integers(1, 4), max_size=4))
    def test_are_all_and_each_is_there_once(self, sizes):
        space = SearchSpace({})
        space.axes = [
            Axis((f"a{i}",), tuple((n,) for n in range(size)), tuple((n,) for n in range(size)))
            for i, size in enumerate(sizes)
        ]
        combinations = space.combinations()
        assert len(set(combinations)) == len(combinations) == np.prod(sizes, dtype=int)
        assert combinations == list(product(*map(range, sizes)))  # the last axis varies fastest
        assert space.n_combinations(1000) == len(combinations)
