import pytest
from torch.optim import Adam

from cluster.planning.config import ConfigError
from cluster.searching.search import Search
from posenet.models import CorrectorLCN, CorrectorMLP, KernelCorrector
from tests.cluster_tests.small_experiment import LR

MODEL_ARGS = {"hidden_dims": [8], "dropout": 0.1, "dim": 4, "n_blocks": 1, "reach": 1}
OF_MLP, OF_LCN = {"model": CorrectorMLP}, {"model": CorrectorLCN}


def two_models(small_experiment, **config):
    """A grid of two MLPs and two LCNs, each with arguments of its own."""
    changes = {"base_hyperparams.model_args": MODEL_ARGS}
    experiment = small_experiment.experiment(changes | {f"experiment_config.{key}": of for key, of in config.items()})
    experiment.add_options("model", [CorrectorMLP, CorrectorLCN])
    experiment.add_options("model_args.hidden_dims", [[8], [16]], when=OF_MLP)
    experiment.add_options("model_args.dim", [2, 4], when=OF_LCN)
    experiment.add_options({"model_args.n_blocks": [1], "model_args.reach": [1]}, when=OF_LCN)
    return experiment


def settings_of(experiment):
    return [experiment.space.settings(combination).hyperparams for combination in experiment.space.combinations()]


def problems_of(add, *arguments, **named):
    with pytest.raises(ConfigError) as caught:
        add(*arguments, **named)
    return [str(problem) for problem in caught.value.problems]


class TestAnOptionWithACondition:
    def test_varies_only_where_the_condition_holds(self, small_experiment):
        experiment = two_models(small_experiment)
        assert [(of.model, dict(of.model_args)) for of in settings_of(experiment)] == [
            (CorrectorMLP, {"hidden_dims": [8], "dropout": 0.1}),
            (CorrectorMLP, {"hidden_dims": [16], "dropout": 0.1}),
            (CorrectorLCN, {"dropout": 0.1, "dim": 2, "n_blocks": 1, "reach": 1}),
            (CorrectorLCN, {"dropout": 0.1, "dim": 4, "n_blocks": 1, "reach": 1}),
        ]
        assert len({combination.key for combination in experiment.plan().combinations}) == 4

    def test_gives_a_combination_the_key_that_it_has_without_other_models(self, small_experiment):
        planned = two_models(small_experiment).plan().combinations
        arguments = {"dropout": 0.1, "dim": 4, "n_blocks": 1, "reach": 1}
        alone = {"base_hyperparams.model": CorrectorLCN, "base_hyperparams.model_args": arguments}
        assert planned[-1].key == small_experiment.key(alone)

    def test_has_no_value_in_tables_where_it_does_not_apply(self, small_experiment):
        options = [combination.options for combination in two_models(small_experiment).plan().combinations]
        assert [of["model_args.dim"] for of in options] == ["–", "–", 2, 4]
        assert [of["model_args.hidden_dims"] for of in options] == ["[8]", "[16]", "–", "–"]

    def test_has_its_base_value_elsewhere_if_the_class_has_the_argument(self, small_experiment):
        experiment = small_experiment.experiment(options={"model_args.activation": ["relu", "elu"]})
        experiment.add_options("model_args.dropout", [0.2, 0.3], when={"model_args.activation": "elu"})
        assert [of.model_args["dropout"] for of in settings_of(experiment)] == [None, 0.2, 0.3]

    def test_does_not_apply_where_the_option_of_its_condition_does_not(self, small_experiment):
        experiment = two_models(small_experiment)
        experiment.add_options("model_args.dropout", [0.2, 0.3], when={"model_args.dim": 4})
        assert [(of.model_args.get("dim"), of.model_args["dropout"]) for of in settings_of(experiment)] == [
            *[(None, 0.1)] * 2,
            *[(2, 0.1), (4, 0.2), (4, 0.3)],
        ]

    def test_leaves_the_arguments_of_an_optimizer_out_where_there_is_none(self, small_experiment):
        changes = {"base_hyperparams.model_args": {"hidden_dims": [8], "ridge": 0.3, "bandwidth": 1.0}}
        changes |= {"base_hyperparams.scheduler": None, "base_hyperparams.scheduler_args": {}}
        changes |= {"base_hyperparams.optimizer_args": {"lr": 1e-3}}
        experiment = small_experiment.experiment(changes)
        experiment.add_joint_options(["model", "optimizer"], [[CorrectorMLP, Adam], [KernelCorrector, None]])
        experiment.add_options("model_args.hidden_dims", [[8]], when=OF_MLP)
        of_kernel = {"model_args.ridge": [0.1, 0.3], "model_args.bandwidth": [1.0]}
        experiment.add_options(of_kernel, when={"model": KernelCorrector})
        experiment.add_options(LR, [1e-3, 1e-2], when=OF_MLP)
        assert len(experiment.plan().combinations) == 4
        assert [dict(of.optimizer_args) for of in settings_of(experiment)][2:] == [{}, {}]

    @pytest.mark.parametrize(
        ("key", "when", "problem"),
        [
            (LR, {"loss_space": "default"}, "loss_space is not an option yet; add its options first"),
            (
                LR,
                {"model": KernelCorrector},
                "KernelCorrector is not among its options: CorrectorMLP, ",
            ),
            (LR, {"model": "CorrectorMLP"}, "got 'CorrectorMLP'; allowed: a class"),
            (LR, {"model": [CorrectorMLP, CorrectorLCN]}, "; a condition names one value"),
            (LR, {"model_args.dropout": 0.1}, "model_args.dropout has a range; a condition needs options"),
            (LR, {}, "got {}; allowed: a dict of options and the value of each"),
            (LR, ["model"], "allowed: a dict of options"),
            ("experiment_config.train_set_size", OF_MLP, "train_set_size applies to all combinations"),
        ],
    )
    def test_that_is_wrong_says_what_is_allowed_and_adds_nothing(self, small_experiment, key, when, problem):
        experiment = small_experiment.experiment(options={"model": [CorrectorMLP, CorrectorLCN]})
        experiment.add_range("model_args.dropout", 0.0, 0.5)
        (found,) = problems_of(experiment.add_options, key, [4], when=when)
        assert f"when of {key}" in found
        assert problem in found
        assert len(experiment.space.axes) == 2


class TestARange:
    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("optimizer_args.lrr", 0.1, 0.2), "has no 'lrr'; did you mean 'lr'?"),
            ((LR, 0.2, 0.1), "low must be less than high; got 0.2 and 0.1"),
            (("solver_config.batch_size", 8, 16.5), "got 16.5; allowed: an int"),
            (("solver_config.batch_size", 8, 32), "got 32.0; allowed: an int of at least 1; add integer=True"),
            (("experiment_config.train_set_size", 8, 16), "it cannot have a range; use add_options"),
            ((LR, 0.0, 1e39), "too large"),
        ],
    )
    def test_that_is_wrong_says_what_is_allowed_and_adds_nothing(self, small_experiment, arguments, problem):
        experiment = small_experiment.experiment()
        assert problem in " ".join(problems_of(experiment.add_range, *arguments))
        assert experiment.space.axes == []

    def test_varies_only_what_does_not_vary_yet(self, small_experiment):
        experiment = small_experiment.experiment(options={LR: [1e-3]})
        assert problems_of(experiment.add_range, LR, 0.1, 0.2) == [f"{LR}: {LR} already varies"]

    def test_has_a_condition_as_an_option_has(self, small_experiment):
        experiment = two_models(small_experiment, search=Search("random", 20))
        experiment.add_range("model_args.dropout", 0.0, 0.5, when=OF_LCN)
        plan = experiment.plan()
        assert {(c.options["model"], c.options["model_args.dropout"] == "–") for c in plan.combinations} == {
            ("CorrectorMLP", True),
            ("CorrectorLCN", False),
        }


class TestAPoint:
    def test_takes_what_it_does_not_name_from_the_base(self, small_experiment):
        experiment = two_models(small_experiment, search=Search("random", 4))
        experiment.add_range(LR, 1e-3, 1e-1)
        experiment.add_point({"model": CorrectorLCN, ("model_args", "dim"): 2})
        first, second, *_ = [combination.options for combination in experiment.plan().combinations]
        assert (first["model"], first["model_args.hidden_dims"], first[LR]) == ("CorrectorMLP", "[8]", 1e-3)
        assert (second["model"], second["model_args.dim"], second[LR]) == ("CorrectorLCN", 2, 1e-3)

    @pytest.mark.parametrize(
        ("point", "problem"),
        [
            ({LR: 0.5}, f"{LR}: 0.5 is not in 0.001 to 0.1"),
            ({"model_args.hidden_dims": [7]}, "[7] is not among its options: [8], [16]"),
            ({"model_args.dim": 2}, "model_args.dim: it does not apply to this point"),
            ({"loss_space": "default"}, "loss_space: is neither a range nor an option; add it first"),
            ([LR], "add_point: got ['optimizer_args.lr']; allowed: a dict of settings and their values"),
        ],
    )
    def test_outside_the_space_is_an_error(self, small_experiment, point, problem):
        experiment = two_models(small_experiment)
        experiment.add_range(LR, 1e-3, 1e-1)
        (found,) = problems_of(experiment.add_point, point)
        assert problem in found
        assert experiment.points == []

    def test_takes_joint_settings_that_it_does_not_name_from_the_base(self, small_experiment):
        base = {"base_hyperparams.model_args": {"hidden_dims": [16]}, "experiment_config.search": Search("random", 3)}
        experiment = small_experiment.experiment(base)
        experiment.add_joint_options(["loss_space", "model_args.hidden_dims"], [["default", [8]], ["default", [16]]])
        experiment.add_range(LR, 1e-3, 1e-1)
        experiment.add_point({"loss_space": "default", LR: 0.05})
        _, second, *_ = [combination.options for combination in experiment.plan().combinations]
        assert (second["model_args.hidden_dims"], second[LR]) == ("[16]", 0.05)

    def test_needs_a_value_where_that_of_the_base_is_outside(self, small_experiment):
        experiment = small_experiment.experiment({"experiment_config.search": Search("random", 4)})
        experiment.add_range("model_args.dropout", 0.0, 0.5)
        experiment.add_range(LR, 1e-2, 1e-1)
        experiment.add_point({"model_args.dropout": 0.2})
        assert (
            f"{LR}: in a point: the base value 0.001 is not in 0.01 to 0.1; give the point another one"
            in problems_of(experiment.plan)
        )


def test_many_combinations_of_two_ranges_are_counted_without_making_all_pairs(small_experiment):
    experiment = small_experiment.experiment()
    experiment.add_range(LR, 1e-3, 1e-1)
    experiment.add_range("model_args.dropout", 0.0, 0.5)
    assert experiment.space.n_combinations(100_000) == 100_000


def test_the_corners_have_each_row_each_end_and_all_combinations_of_data(small_experiment):
    experiment = two_models(small_experiment)
    experiment.add_range("model_args.dropout", 0.0, 0.5, when={"model_args.dim": 4})
    experiment.add_options("experiment_config.train_set_size", [10, 20])
    experiment.add_options("experiment_config.use_preset", [True, False])
    corners = experiment.space.corners()
    assert len(set(corners)) == len(corners)
    for place, values in enumerate([{0, 1}, {0, 1, None}, {0, 1, None}, {0, None}, {0, None}, {0.0, 0.5, None}]):
        assert {corner[place] for corner in corners} == values
    assert {corner[-2:] for corner in corners} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_a_space_counts_the_combinations_that_a_search_can_propose(small_experiment):
    experiment = two_models(small_experiment)
    assert experiment.space.n_combinations(100) == 4
    experiment.add_range("model_args.dropout", 0.0, 0.5, step=0.1, when={"model_args.dim": 4})
    assert experiment.space.n_combinations(100) == 9
    experiment.add_range(LR, 0.1, 0.2)
    assert experiment.space.n_combinations(100) == 100
