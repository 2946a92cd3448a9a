import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.planning import inputs
from cluster.planning.config import ConfigError
from cluster.planning.disk import report_bytes
from cluster.planning.identity import digest
from cluster.reports.page.page import page
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import STATUSES
from data_pipeline.pose_dataset import Samples, read_samples, write_datasets
from data_pipeline.preparation.parts import split_samples
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.preparation.synthetic import SEQUENCE_LENGTH, Backbone, synthetic_hands
from posenet.models import CorrectorMLP, GaussianSmoother
from tests.cluster_tests.small_experiment import CLOSED_FORM, LR, SmallExperiment

SMOOTHER = {
    **CLOSED_FORM,
    "base_hyperparams.model": GaussianSmoother,
    "base_hyperparams.model_args": {"sigma": 1.0},
}


def plan_with(small_experiment, statuses, changes=None, options=None):
    """A plan with these statuses."""
    plan = small_experiment.experiment(changes, options).plan()
    keys = [combination.key for combination in plan.combinations]
    return replace(plan, statuses={f"{keys[at]}/{repetition}": status for at, repetition, status in statuses})


@pytest.fixture
def close_sets(tmp_path):
    """A small experiment whose sets are parts of a made video, in which errors persist for some frames."""
    labels = synthetic_hands(SEQUENCE_LENGTH, 0)
    samples = Samples(labels, {"DEFAULT": Backbone("A").predict(labels, 0)})
    parts = split_samples("small", samples, parse_split("blocks:20:5"))
    write_datasets(tmp_path / "data", {part.name: part.samples for part in parts})
    return SmallExperiment(tmp_path / "data", tmp_path / "results")


class TestThePlanOfSetsThatAreTooClose:
    def test_warns_once_of_each_kind_of_set_and_says_what_results_measure(self, close_sets):
        plan = close_sets.experiment({"experiment_config.test_set": "small_test"}, {LR: [1, 2]}).plan()
        counts, disk, *warnings = str(plan).splitlines()
        assert disk.startswith("disk: about ")
        assert counts == "2 combinations × 1 repetition = 2 trials: 2 to train"
        assert [warning.partition(" frames are 1 or more frames")[0] for warning in warnings] == [
            "warning: small_val: Validation",
            "warning: small_test: Test",
        ]
        assert all("interpolation within a recording. A split that keeps" in warning for warning in warnings)

    @pytest.mark.parametrize(
        ("changes", "options", "parts"),
        [
            ({}, {}, ["Test"]),
            ({}, {"experiment_config.test_set": ["small_test", "small_train"]}, ["Test"]),
            ({}, {LR: [1, 2]}, ["Validation", "Test"]),
            ({}, {"solver_config.num_epochs": [2]}, ["Validation", "Test"]),
            ({"base_hyperparams.choose_strength": True}, {}, ["Validation", "Test"]),
            ({"experiment_config.test_set": None}, {}, ["Validation"]),
            (SMOOTHER, {"model_args.sigma": [1.0, 2.0]}, []),
        ],
        ids=[
            "nothing is chosen",
            "another test set",
            "setting",
            "epoch",
            "strength",
            "only result",
            "nothing is trained",
        ],
    )
    def test_warns_only_of_validation_frames_that_choose_and_of_none_if_nothing_is_trained(
        self, close_sets, changes, options, parts
    ):
        base = {"experiment_config.test_set": "small_test", "solver_config.num_epochs": 1}
        plan = close_sets.experiment(base | changes, options).plan()
        assert [text.split()[1] for text in plan.warnings] == parts

    def test_warns_of_validation_frames_that_choose_a_setting_of_all_folds(self, close_sets):
        samples = read_samples(close_sets.data_dir, "small_train")
        parts = split_samples("hands", samples, parse_split("blocks:10:3"), folds=True)
        write_datasets(close_sets.data_dir, {part.name: part.samples for part in parts})
        for lrs, expected in (([1], ["Test"]), ([1, 2], ["Validation", "Test"])):
            swept = close_sets.experiment({"solver_config.num_epochs": 1}, {LR: lrs})
            swept.add_folds("hands")
            assert [text.split()[1] for text in swept.plan().warnings] == expected

    def test_is_the_same_plan_otherwise(self, close_sets):
        """How far frames are from training frames changes no number, so it is in no identity."""
        near = close_sets.experiment().plan()
        path = close_sets.data_dir / "small_val_frames.parquet"
        table = pq.read_table(path)
        place = table.schema.get_field_index("sequence")
        pq.write_table(table.set_column(place, "sequence", pa.array(["another"] * len(table))), path)
        far = close_sets.experiment().plan()
        assert far.warnings != near.warnings != []
        assert [trial.key for trial in far.trials] == [trial.key for trial in near.trials]

    def test_is_another_plan_if_other_frames_are_successive(self, close_sets):
        """The acceleration error is a number of every trial."""
        keys = [trial.key for trial in close_sets.experiment().plan().trials]
        (close_sets.data_dir / "small_val_frames.parquet").unlink()
        plan = close_sets.experiment().plan()
        assert plan.warnings != []  # from the poses themselves
        assert [trial.key for trial in plan.trials] != keys

    def test_trains_to_results_that_say_so_in_every_table(self, close_sets, capsys):
        table = close_sets.run({"experiment_config.test_set": "small_test"}, {LR: [1e-3, 1e-2]})
        said = "Test frames are 1 or more frames (median"
        assert said in capsys.readouterr().out
        for text in (table.to_latex(), table.to_md(), *(path.read_text() for path in close_sets.folder.glob("*.html"))):
            assert said in text
            assert "measure interpolation within a recording" in text


class TestAPlan:
    def test_has_all_combinations_of_all_options_for_each_repetition(self, small_experiment):
        options = {LR: [1e-3, 1e-2], "model_args.dropout": [None, 0.5], "solver_config.batch_size": [8, 16, 32]}
        plan = small_experiment.experiment({"experiment_config.n_repetitions": 2}, options).plan()
        assert [combination.options for combination in plan.combinations] == [
            dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
        ]
        assert [(trial.repetition, trial.combination) for trial in plan.trials] == [
            (repetition, combination) for repetition in range(2) for combination in plan.combinations
        ]
        assert len({trial.id for trial in plan.trials}) == 24
        assert all(trial.id == f"{trial.key}/{trial.repetition}" for trial in plan.trials)
        assert plan.to_train == plan.trials

    def test_without_options_has_the_base(self, small_experiment):
        plan = small_experiment.experiment().plan()
        assert [trial.combination.options for trial in plan.trials] == [{}]
        assert str(plan).splitlines()[0] == "1 combination × 1 repetition = 1 trial: 1 to train"

    def test_trains_what_is_neither_finished_nor_diverged(self, small_experiment):
        statuses = [(at, 0, status) for at, status in enumerate(STATUSES)]
        plan = plan_with(small_experiment, statuses, options={LR: [1, 2, 3, 4, 5, 6]})
        assert STATUSES == ("finished", "failed", "diverged", "interrupted", "pending")
        assert [trial.combination.options[LR] for trial in plan.to_train] == [2, 4, 5, 6]
        assert str(plan).splitlines()[0] == (
            "6 combinations × 1 repetition = 6 trials: 1 finished, 1 to continue, 1 failed, to train again, "
            "1 diverged, 2 to train"
        )

    def test_trains_new_repetitions_only(self, small_experiment):
        plan = plan_with(
            small_experiment,
            [(0, 0, "finished"), (1, 0, "finished")],
            {"experiment_config.n_repetitions": 3},
            {LR: [1, 2]},
        )
        assert [trial.repetition for trial in plan.to_train] == [1, 1, 2, 2]
        assert str(plan).splitlines()[0] == "2 combinations × 3 repetitions = 6 trials: 2 finished, 4 to train"

    def test_is_not_changed_by_the_order_of_options_or_values(self, small_experiment):
        one = small_experiment.experiment(options={LR: [1, 2], "model_args.dropout": [0.1, 0.2]}).plan()
        other = small_experiment.experiment(options={"model_args.dropout": [0.2, 0.1], LR: [2, 1]}).plan()
        assert {trial.id: trial.seed for trial in one.trials} == {trial.id: trial.seed for trial in other.trials}

    def test_holds_what_each_key_is_a_hash_of(self, small_experiment):
        for combination in small_experiment.experiment(options={LR: [1, 2]}).plan().combinations:
            assert digest(combination.encoded) == combination.key

    def test_writes_nothing(self, small_experiment):
        small_experiment.experiment(options={LR: [1, 2]}).plan()
        assert not small_experiment.storage_path.exists()

    def test_reads_each_dataset_once(self, small_experiment, monkeypatch):
        read = []
        real = inputs.read_dataset
        monkeypatch.setattr(
            inputs, "read_dataset", lambda *args, **kwargs: read.append(args[1]) or real(*args, **kwargs)
        )
        small_experiment.experiment(
            options={LR: [1, 2], "experiment_config.val_set": ["small_val", "small_test"]}
        ).plan()
        assert sorted(read) == ["small_test", "small_train", "small_val"]

    def test_may_have_ten_thousand_combinations(self, small_experiment):
        options = {LR: [1e-3 + i * 1e-5 for i in range(100)], "solver_config.batch_size": list(range(1, 101))}
        plan = small_experiment.experiment(options=options).plan()
        assert len({combination.key for combination in plan.combinations}) == 10_000


class TestTwoCombinationsThatAreTheSameTraining:
    @pytest.mark.parametrize(
        ("options", "path", "says"),
        [
            (
                {"experiment_config.train_set_size": [None, 40]},
                "experiment_config.train_set_size",
                "experiment_config.train_set_size = None and experiment_config.train_set_size = 40 are the same",
            ),
            (
                {LR: [1, 2], "distorter_args": [None, {}]},
                "distorter_args",
                "distorter_args = None and distorter_args = {} are the same training; leave one of them out",
            ),
            (
                {"model_args": [{"hidden_dims": [8]}, {"hidden_dims": [8], "dropout": None}]},
                "model_args",
                "model_args = {hidden_dims: [8]} and model_args = {hidden_dims: [8], dropout: None} are the same",
            ),
        ],
    )
    def test_are_an_error_that_names_both(self, small_experiment, options, path, says):
        with pytest.raises(ConfigError) as caught:
            small_experiment.experiment(options=options).plan()
        (problem, *_) = caught.value.problems
        assert problem.path == path
        assert says in problem.text

    def test_are_not_the_same_training_with_other_data(self, small_experiment):
        options = {"experiment_config.train_set_size": [None, 39], "experiment_config.val_set_size": [4, 19]}
        assert len(small_experiment.experiment(options=options).plan().combinations) == 4


@pytest.mark.slow
def test_problems_of_ten_thousand_combinations_are_told_once(small_experiment):
    options = {LR: [-1.0 - i for i in range(2)], "solver_config.batch_size": np.arange(1, 5001).tolist()}
    with pytest.raises(ConfigError) as caught:
        small_experiment.experiment(options=options).plan()
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(("other_args", "named"), [({"hidden_dims": [8]}, " (with model empty)"), ({"dropout": 0}, "")])
def test_a_problem_names_the_joint_options_that_have_it_unless_all_have_it(small_experiment, other_args, named):
    experiment = small_experiment.experiment()
    rows = [[CorrectorMLP, {}], [CorrectorMLP, other_args]]
    experiment.add_joint_options(["model", "model_args"], rows, labels=["empty", "other"])
    with pytest.raises(ConfigError) as caught:
        experiment.plan()
    (problem,) = caught.value.problems
    assert str(problem) == f"base_hyperparams.model_args.hidden_dims: is missing; CorrectorMLP needs it{named}"


class TestTheDiskThatAPlanTells:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"solver_config.num_epochs": 20, "solver_config.log_frequency": 2, "solver_config.log_loss": True},
            {"base_hyperparams.model_args": {"hidden_dims": [64, 64]}, "solver_config.val_example_indices": []},
            {"base_hyperparams.model_args": {"hidden_dims": [64, 64]}, "experiment_config.keep_state": "all"},
            {**SMOOTHER, "experiment_config.test_set": "small_val"},
        ],
        ids=["as it is", "many log points", "large", "with states", "tested"],
    )
    def test_is_what_a_trial_uses_within_a_factor_of_two(self, small_experiment, changes):
        plan = small_experiment.experiment(changes).plan()
        small_experiment.run(changes)
        (trial,) = small_experiment.storage_path.glob("*/trials/*/0")
        sizes = {path.name: path.stat().st_size for path in trial.iterdir()}
        weights = sizes.pop("weights.pt") + sizes.pop("frames.parquet")
        told, state = plan.disk[plan.trials[0].key], sizes.pop("state.pt", 0)
        assert state / 2 <= told.state <= 2 * state
        assert weights / 2 < told.weights < 2 * weights
        assert sum(sizes.values()) / 2 < told.logs < 2 * sum(sizes.values())

    def test_is_what_a_report_and_tables_use_within_a_factor_of_two(self, small_experiment):
        small_experiment.run()
        n_bytes = sum(path.stat().st_size for path in small_experiment.folder.glob("tables/*"))
        n_bytes += len(page(ExperimentFolder(Storage(small_experiment.folder))))
        assert n_bytes / 2 < report_bytes(1) < 2 * n_bytes

    @pytest.mark.parametrize(
        ("keep", "ends"),
        [
            ("all", "MB of weights and frame errors"),
            ("best", "MB of weights and frame errors until all trials have ended; then only those of the best"),
            ("none", "of records, examples, tables and the report, no weights"),
        ],
    )
    def test_is_of_the_trials_to_train_by_keep_weights(self, small_experiment, keep, ends):
        changes = {
            "experiment_config.keep_weights": keep,
            "base_hyperparams.model_args": {"hidden_dims": [512, 512]},
        }
        statuses = [(0, 0, "finished"), (1, 0, "finished")]
        plan = plan_with(small_experiment, statuses[:1], changes, {LR: [1, 2], "solver_config.num_epochs": [1, 2]})
        assert len(plan.disk) == 4
        assert len(set(plan.disk.values())) == 2
        _, disk = str(plan).splitlines()
        assert disk.startswith("disk: about ")
        assert disk.endswith(ends)
        assert str(plan_with(small_experiment, statuses, changes, {LR: [1, 2]})).count("\n") == 0


@pytest.mark.slow
def test_neither_a_plan_nor_a_training_imports_the_compiler_of_torch(python, tmp_path):
    code = f"""
import sys; from pathlib import Path; from tests.benchmarks.sweeps import experiment, write_random_dataset
folder = Path({str(tmp_path)!r})
for part in ("train", "val"):
    write_random_dataset(folder / "data", part, 8)
print(experiment(folder, solver_config={{}}).run("inline").trials[0]["status"])
print({{"torch._dynamo", "sympy"}} & sys.modules.keys())"""
    lines = python(code).stdout.splitlines()
    assert "finished" in lines
    assert lines[-1] == "set()"


MEASURED = """
import sys
from pathlib import Path
from cluster.planning.inputs import Inputs, SetKey
inputs = Inputs(Path(sys.argv[1]))
keys = {split: SetKey(f"small_{split}", None, True) for split in ("train", "val", "test")}
for key in keys.values():
    inputs.read_set(key)
inputs.measure_separations(keys)
print([split for _, split, _ in inputs.separations])
"""


def test_the_distances_of_data_have_the_same_order_in_each_process(small_data, python):
    done = [python(MEASURED, small_data, PYTHONHASHSEED=seed) for seed in ("0", "3")]  # Python's sets differ in order
    assert [one.stdout for one in done] == ["['val', 'test']\n"] * 2, done
