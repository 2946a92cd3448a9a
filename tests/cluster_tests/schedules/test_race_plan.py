"""What the plan of a raced experiment says, and which races it warns of or refuses."""

from dataclasses import replace

import pytest
import torch
from torch.optim import lr_scheduler

from cluster.planning.config import ConfigError
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.schedules.race_plan import n_epochs_left, planned_rungs, race_texts, standing_text
from cluster.searching.search import Search
from tests.cluster_tests.schedules.simulated_race import DATA, THIRDS, SimulatedRace, entrants
from tests.cluster_tests.small_experiment import LR

RACE = {"experiment_config.race": SuccessiveHalving(reduction_factor=3), "solver_config.num_epochs": 30}
OPTIONS = {LR: [10**exponent for exponent in range(-9, 0)], "optimizer_args.weight_decay": [0.0, 0.1, 0.2, 0.3]}
LRS = {LR: [1e-5, 1e-4, 1e-3, 2e-3, 5e-3, 1e-2]}


def scheduler(kind, **arguments):
    return {"base_hyperparams.scheduler": kind, "base_hyperparams.scheduler_args": arguments}


class FromBehind(lr_scheduler.LambdaLR):
    """A scheduler of a user's own, whose rate peaks after some epochs."""

    def __init__(self, optimizer, peak):
        self.peak = peak
        super().__init__(optimizer, lambda epoch: 1 / (1 + abs(epoch - peak)))


class OfMatrices(torch.optim.SGD):
    """An optimizer of a user's own, which trains only matrices, and only if there are enough."""

    def __init__(self, parameters, lr, fewest):
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        assert len(matrices) >= fewest
        super().__init__(matrices, lr=lr)


@pytest.fixture
def warnings_of(small_experiment):
    """Returns the warnings of a plan."""
    return lambda changes, options=LRS: small_experiment.experiment({**RACE, **changes}, options).plan().warnings


def test_a_race_of_two_lengths_promises_no_continuation_of_the_shorter_ones(small_experiment):
    options = {**LRS, "solver_config.num_epochs": [9, 18]}
    text = str(small_experiment.experiment(RACE, options).plan())
    assert "12 trials: 12 to train" in text
    assert "6 to continue from epoch 9" in str(small_experiment.experiment({}, options).plan())


class TestAWarning:
    @pytest.mark.parametrize(
        ("settings", "peak"),
        [
            (scheduler(lr_scheduler.LinearLR, start_factor=0.1, total_iters=5), 5),
            (scheduler(lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=31), 9),
            (scheduler(lr_scheduler.CyclicLR, base_lr=1e-4, max_lr=1e-2, step_size_up=10, cycle_momentum=False), 10),
            (scheduler(FromBehind, peak=4), 4),
        ],
        ids=["LinearLR", "OneCycleLR", "CyclicLR", "FromBehind"],
    )
    def test_names_a_warm_up_that_is_longer_than_the_first_rung(self, warnings_of, settings, peak):
        name = settings["base_hyperparams.scheduler"].__name__
        (warning,) = warnings_of(settings)
        assert warning == (
            f"{name} raises the learning rate until epoch {peak}, but the race makes its first decision after epoch 3, "
            "before combinations train at the full rate; raise min_epochs"
        )
        assert (
            warnings_of({**settings, "experiment_config.race": SuccessiveHalving(reduction_factor=3, min_epochs=peak)})
            == []
        )

    @pytest.mark.parametrize(("fewest", "n_warnings"), [(1, 1), (3, 0)])
    def test_needs_no_parameter_that_an_optimizer_of_the_user_refuses(self, warnings_of, fewest, n_warnings):
        settings = scheduler(lr_scheduler.LinearLR, start_factor=0.1, total_iters=5) | {
            "base_hyperparams.optimizer": OfMatrices,
            "base_hyperparams.optimizer_args": {"lr": 0.1, "fewest": fewest},
        }
        hidden = {"base_hyperparams.model_args": {"hidden_dims": [8, 8]}}
        assert len(warnings_of({**settings, **hidden})) == n_warnings

    @pytest.mark.parametrize(
        "settings",
        [
            scheduler(None),
            scheduler(lr_scheduler.StepLR, step_size=1),
            scheduler(lr_scheduler.LinearLR, start_factor=0.1, total_iters=2),
            scheduler(lr_scheduler.CosineAnnealingWarmRestarts, T_0=5),
            scheduler(lr_scheduler.ReduceLROnPlateau) | {"base_hyperparams.scheduler_requires_metric": True},
            {"base_hyperparams.optimizer": torch.optim.LBFGS, "base_hyperparams.optimizer_args": {"lr": 0.1}},
        ],
        ids=["none", "StepLR", "short warm-up", "restarts", "plateau", "LBFGS"],
    )
    def test_is_not_given_where_the_rate_peaks_early(self, warnings_of, settings):
        assert warnings_of(settings) == []

    def test_names_a_warm_up_that_only_one_option_has(self, warnings_of):
        options = {**LRS, "scheduler_args.total_iters": [1, 7]}
        (warning,) = warnings_of(scheduler(lr_scheduler.LinearLR, start_factor=0.1, total_iters=1), options)
        assert "until epoch 7" in warning

    def test_says_that_few_combinations_save_little(self, warnings_of):
        (warning,) = warnings_of({}, {LR: [1e-4, 1e-3, 3e-3, 1e-2]})
        assert warning.startswith("a race of 4 combinations saves little, because at least 3 are trained to the end")

    def test_says_that_training_sets_of_different_sizes_compete(self, warnings_of):
        sets = {"experiment_config.train_set": ["small_train", "small_val"], **LRS}
        (warning,) = (text for text in warnings_of({}, sets) if "compares training sets" in text)
        assert warning.startswith("the race on small_val compares training sets of 20 to 40 frames, but after a few")
        same = {"experiment_config.train_set": ["small_train", "two_train"], **LRS}
        assert not any("compares training sets" in text for text in warnings_of({}, same))

    def test_also_looks_at_the_training_sets_of_combinations_that_are_added_to_a_decided_race(self, small_experiment):
        changes = {**RACE, "solver_config.num_epochs": 8}
        small_experiment.run(changes, LRS)
        sets = {"experiment_config.train_set": ["small_val", "small_train"], **LRS}
        warnings = small_experiment.experiment({**changes, "experiment_config.train_set": "small_val"}, sets).plan()
        assert any("compares training sets of 20 to 40 frames" in text for text in warnings.warnings)

    def test_says_that_all_combinations_are_finalists(self, warnings_of):
        (warning,) = warnings_of({}, {LR: [1e-3, 1e-2]})
        assert warning == "the race drops only combinations that diverge: it has 2 combinations, and min_finalists is 3"

    def test_says_that_short_trainings_drop_nothing(self, warnings_of):
        (warning,) = warnings_of({"solver_config.num_epochs": 2})
        assert warning.startswith("the race drops nothing: trainings of 2 epochs are too short for a first rung at")

    def test_of_a_changed_rule_ignores_how_finalists_are_confirmed(self, small_experiment):
        """Decisions do not depend on it."""

        def stop(trial_id, report, model):
            if list(small_experiment.folder.glob("race/*/0-0.json")):
                raise KeyboardInterrupt

        rule = SuccessiveHalving(min_epochs=1, min_finalists=1, confirm=2)
        race = {"experiment_config.race": rule, "solver_config.num_epochs": 4, "experiment_config.n_repetitions": 1}
        with pytest.raises(SystemExit):
            small_experiment.run({**race, "solver_config.callbacks": [stop]}, LRS)
        assert small_experiment.experiment(race, LRS).plan().warnings == []
        changed = {**race, "experiment_config.race": replace(rule, reduction_factor=3)}
        (warning,) = small_experiment.experiment(changed, LRS).plan().warnings
        assert "continues with the rule of its first decision" in warning

    def test_is_given_once_for_all_rounds_of_a_search(self, small_experiment):
        short = {"experiment_config.race": SuccessiveHalving(min_epochs=9), "solver_config.num_epochs": 1}
        search = {"experiment_config.search": Search("random", 16, round_size=4)}
        small_experiment.run({**short, "experiment_config.search": Search("random", 12, round_size=4)}, OPTIONS)
        plan = small_experiment.experiment({**short, **search}, OPTIONS).plan()
        assert len(plan.races) == 3
        assert sum("saves little" in warning for warning in plan.warnings) == 1
        assert sum("drops nothing" in warning for warning in plan.warnings) == 1


class TestAProblem:
    def test_is_the_training_set_size_as_an_option_reported_with_all_other_problems(self, small_experiment):
        experiment = small_experiment.experiment(
            {**RACE, "experiment_config.val_set": "nowhere"}, {**LRS, "experiment_config.train_set_size": [20, 40]}
        )
        with pytest.raises(ConfigError, match="2 problems") as error:
            experiment.plan()
        assert "experiment_config.val_set: " in str(error.value)
        assert "experiment_config.race: experiment_config.train_set_size is an option, but after a few" in str(
            error.value
        )

    def test_is_an_option_without_influence_on_validation(self, small_experiment):
        path = "experiment_config.test_set"
        experiment = small_experiment.experiment(RACE, {**LRS, path: ["small_test", "small_val"]})
        with pytest.raises(ConfigError, match=f"{path}: a race compares validation errors, on which the test set has"):
            experiment.plan()

    def test_is_a_race_as_an_option(self, small_experiment):
        with pytest.raises(ConfigError, match=r"experiment_config\.race: it cannot be an option"):
            small_experiment.experiment(RACE, {"experiment_config.race": [None, SuccessiveHalving()]})


def test_the_plan_shows_rungs_and_their_cost_relative_to_the_grid(small_experiment):
    text = str(small_experiment.experiment({**RACE, "experiment_config.n_repetitions": 2}, LRS).plan())
    lines = [line.split() for line in text.splitlines() if line.startswith("     ")]
    assert lines == [
        ["1", "3", "6", "2", "12", "36"],
        ["2", "10", "3", "2", "6", "42"],
        ["3", "30", "3", "2", "6", "120"],
    ]
    assert "race of 6 combinations on small_val: about 198 of 360 epochs (55.0 %)" in text


@pytest.mark.parametrize("n_folds", [1, 2])
@pytest.mark.parametrize("lengths", [27, [40, 4, 12]])
def test_a_race_costs_the_epochs_that_it_trains_also_if_combinations_differ_in_them(tmp_path, lengths, n_folds):
    rule = SuccessiveHalving(reduction_factor=3, first_repetitions=1)
    race = SimulatedRace(tmp_path / "race", {DATA: entrants(12, lengths, n_folds)}, rule=rule)
    n_in_vain = race.run(3).n_epochs_in_vain()
    n_trained = sum(end - begin for _, begin, end in race.trained)
    assert sum(rung.n_epochs for rung in planned_rungs(race.brackets()[0])) == n_trained - n_in_vain
    assert n_epochs_left(race.brackets(), race.epochs) == 0


@pytest.mark.parametrize("n_fresh", [0, 2])
def test_longer_trainings_of_a_race_do_not_change_what_its_rungs_cost(tmp_path, n_fresh):
    race = SimulatedRace(tmp_path / "race", {DATA: entrants(12)})
    race.run()
    race.rule = replace(THIRDS, confirm=n_fresh)
    rungs = planned_rungs(race.brackets()[0])
    race.planned = {DATA: entrants(12) | entrants(12, 81)}
    (bracket,) = race.brackets()
    *decided, last = planned_rungs(bracket)
    assert decided == rungs[:-1]
    n_finalists = rungs[-1].n_combinations
    assert last.n_epochs - rungs[-1].n_epochs == 2 * n_finalists * (81 - 27)
    n_in_race, n_in_grid = sum(rung.n_epochs for rung in (*decided, last)), 2 * 12 * 81
    assert race_texts([bracket], set())[0].startswith(
        f"race of 24 combinations on val: {n_in_race:,} of {n_in_grid:,} epochs"
    )
    lengths = {one.key: entrant.num_epochs for entrant in bracket.own_competing.values() for one in entrant.trained}
    trained = {f"{key}/{repetition}": n for key, n in lengths.items() for repetition in range(2 + n_fresh)}
    assert n_epochs_left([bracket], trained) == 0
    # Without a kept state, the longer trainings start from the beginning.
    assert n_epochs_left([bracket], race.epochs) == 2 * n_finalists * 81 + n_fresh * n_finalists * (81 + 27)


def test_the_plan_leaves_out_brackets_of_which_nothing_is_planned_any_more(tmp_path):
    race = SimulatedRace(tmp_path / "race", {DATA: entrants(6)})
    race.run()
    race.planned = {DATA: entrants(7, start=6)}
    (text,) = race_texts(race.brackets(), set())
    assert text.startswith("race of 7 combinations on val, bracket 2: about ")


def test_where_a_race_stands_is_the_rung_that_it_trains_and_the_leader_of_its_last_decision(tmp_path):
    race = SimulatedRace(tmp_path / "race", {DATA: entrants(12)})

    def said():
        return standing_text(race.brackets(), lambda entrant: f"lr {entrant.num_epochs}")

    assert said() == "race on val, rung 1 of 3: 12 combinations train to epoch 3"
    race.run(stop_after=26)
    assert said().startswith("race on val, rung 2 of 3: 4 combinations train to epoch 9; the leader had a validation ")
    assert said().endswith(" mm after epoch 3 (lr 27)")
    race.run()
    assert said().startswith("race on val, rung 3 of 3: 3 finalists train to epoch 27; the leader had ")
    race.planned = {DATA: entrants(20)}
    assert said() == "race on val, bracket 2, rung 1 of 3: 8 combinations train to epoch 3"
    race.planned = {DATA: dict(list(entrants(20).items())[12:])}
    race.run()
    assert said().endswith(")")
    race.planned = {DATA: entrants(20, 81)}
    assert said().endswith("(lr 81)")


def test_the_epochs_of_a_raced_search_include_those_of_rounds_that_are_still_to_be_proposed(small_experiment):
    of_one, of_five = (
        small_experiment.experiment({**RACE, "experiment_config.search": Search("random", n, round_size=6)}, OPTIONS)
        .plan()
        .n_epochs_of_races
        for n in (6, 30)
    )
    assert of_five == 5 * of_one
