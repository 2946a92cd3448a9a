"""A sweep over folds from the datasets to the tables, in this process."""

import csv
import io
import json

import numpy as np
import pytest

from cluster.experiment import Interrupted, TrialsFailedError
from cluster.racing.decision_file import read_decisions
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.draw import FIGURES, FigureOptions, draw
from cluster.reports.page.page import page
from cluster.reports.tables.table_options import TableOptions
from cluster.reports.terminal.comparison import compare_combinations, compare_experiments
from cluster.reports.terminal.race_replay import replay_races, replays_text
from cluster.reports.terminal.removal import useless_files
from cluster.reports.terminal.trial_logs import trial_logs
from cluster.result_table import ResultTable
from cluster.results.folds import key_of_folds
from cluster.results.names import ChoiceError
from cluster.results.results import Results
from cluster.searching.search import Search
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.frame_errors import FrameErrors
from cluster.storage.records import from_parquet
from cluster.trained import read_corrector
from data_pipeline.pose_dataset import Samples, read_dataset, write_datasets
from data_pipeline.preparation.parts import split_samples
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR, FailingMLP, InterruptedMLP, SmallExperiment

N_FRAMES = 50
TWO_REPETITIONS = {"experiment_config.n_repetitions": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three folds of 50 frames: 20, 20 and 10 test frames."""
    folder = tmp_path_factory.mktemp("folds")
    labels = synthetic_hands(N_FRAMES, 0)
    samples = Samples(labels, {"DEFAULT": Backbone("A").predict(labels, 0)})
    parts = split_samples("hands", samples, parse_split("blocks:10:3"), folds=True)
    write_datasets(folder, {part.name: part.samples for part in parts} | {"hands": samples})
    return folder


def swept(experiment, changes, options):
    made = experiment.experiment(changes)
    made.add_folds("hands")
    made.add_options(options)
    return made


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Two combinations, three folds and two repetitions; nobody changes them."""
    experiment = SmallExperiment(data, tmp_path_factory.mktemp("finished"))
    swept(experiment, TWO_REPETITIONS, {LR: [1e-3, 1e-2]}).run("inline")
    return experiment


@pytest.fixture
def folder(finished):
    return ExperimentFolder(Storage(finished.folder))


@pytest.fixture
def table(folder):
    return ResultTable.read(folder)


def without_times(table):
    changing = ("train_seconds", "node", "device", "gpu")
    return [{name: value for name, value in row.items() if name not in changing} for row in table.trials]


class TestASweepOverFolds:
    def test_has_the_mean_error_of_all_frames(self, table, folder):
        """Computed from the errors of every frame of every fold."""
        assert [row["n"] for row in table.summary] == [2, 2]
        for trial in table.trials:
            ids = [f"{key}/{trial['repetition']}" for key in table.trained_keys(trial["key"])]
            of_folds = [FrameErrors.read(folder.trial(trial_id)).joined for trial_id in ids]
            before, after = (np.concatenate(errors) for errors in zip(*of_folds, strict=True))
            assert len(after) == N_FRAMES
            assert trial["test_distance_mm"] == pytest.approx(after.mean(), rel=1e-5)
            assert trial["test_distance_before_mm"] == pytest.approx(before.mean(), rel=1e-5)

    def test_has_the_acceleration_error_of_all_triples_of_frames(self, table, folder):
        """The folds have two, one and two blocks of 10 test frames, each with two triples fewer than frames."""
        n_triples = {data.name: data.triples for data in folder.read_experiment().data}
        assert [n_triples[f"hands_fold{fold}_test"] for fold in (1, 2, 3)] == [16, 8, 16]
        for trial in table.trials:
            ids = [f"{key}/{trial['repetition']}" for key in table.trained_keys(trial["key"])]
            of_folds = [folder.read_trial(i).metrics["test"]["mean"]["acceleration_error"] for i in ids]
            found = trial["test_acceleration_error_mm_per_frame2"]
            assert found == pytest.approx(np.average(of_folds, weights=[16, 8, 16]), rel=1e-12)

    def test_tests_the_whole_dataset_before_the_correction(self, table, data):
        dataset = read_dataset(data, "hands")
        errors = np.linalg.norm(dataset.poses["DEFAULT"] - dataset.labels, axis=2)  # (N, J, 3) -> (N, J)
        for row in table.summary:
            assert row["test_distance_before_mm"] == pytest.approx(errors.mean(), rel=1e-5)

    def test_that_was_interrupted_continues_to_the_same_numbers(self, data, tmp_path, monkeypatch):
        options = {"model": [CorrectorMLP, InterruptedMLP]}
        interrupted = SmallExperiment(data, tmp_path / "interrupted")
        with pytest.raises(Interrupted):
            swept(interrupted, {}, options).run("inline")
        begun = swept(interrupted, {}, options).results()
        assert {row["status"] for row in begun.trials} == {"interrupted"}  # no combination has all its folds
        assert begun.summary[0]["test_distance_mm_mean"] is None

        monkeypatch.setattr(InterruptedMLP, "correction", CorrectorMLP.correction)
        continued = swept(interrupted, {}, options).run("inline")
        whole = swept(SmallExperiment(data, tmp_path / "whole"), {}, options).run("inline")
        assert without_times(continued) == without_times(whole)
        assert without_times(continued.single_folds) == without_times(whole.single_folds)

    def test_that_failed_says_how_many_folds_are_missing(self, data, tmp_path):
        experiment = SmallExperiment(data, tmp_path)
        run = swept(experiment, {"experiment_config.stop_if_all_fail": None}, {"model": [CorrectorMLP, FailingMLP]})
        with pytest.raises(TrialsFailedError, match="3 failed of 6 trials") as caught:
            run.run("inline")
        notes = "3 folds failed, so 1 repetition is incomplete and excluded from all means."
        assert notes in caught.value.table.to_md()

    def test_keeps_the_weights_of_all_folds_of_the_best(self, data, tmp_path):
        experiment = SmallExperiment(data, tmp_path)
        table = swept(experiment, {"experiment_config.keep_weights": "best"}, {LR: [1e-3, 1e-2]}).run("inline")
        kept = {path.parts[-3] for path in experiment.folder.rglob("weights.pt")}
        assert kept == set(table.trained_keys(table.summary[0]["key"]))


class TestTheTablesOfASweepOverFolds:
    def test_say_what_was_measured_and_how_folds_are_combined(self, table):
        for text in (table.to_md(), table.to_html(), table.to_latex()):
            assert "on the test sets of 3 folds of hands (50 frames, each tested exactly once); mean ±" in text.replace(
                "$\\pm$", "±"
            )
            assert "The result of a repetition is the mean over the frames of all 3 folds." in text
            assert "sample standard deviation of the folds' means." in text.replace("&#x27;", "'").replace("&#39;", "'")
            assert "Of the 3 pairs of training and test sets, these are the closest." in text

    def test_have_the_spread_over_folds_of_the_chosen_metric(self, table):
        [row, _] = csv.DictReader(io.StringIO(table.to_csv(TableOptions(metric="max_distance"))))
        means = table.fold_means("test_max_distance_mm")[row["key"]]
        assert row["folds"] == "3"
        assert float(row["test_max_distance_mm_fold_std"]) == pytest.approx(np.std(means, ddof=1))

    def test_list_the_trials_of_each_fold(self, table, finished):
        assert len((finished.folder / "tables" / "trials.csv").read_text().splitlines()) == 1 + 2 * 3 * 2
        assert len(table.to_csv(TableOptions(trials=True, best=1)).splitlines()) == 1 + 3 * 2


class TestWhatReadsASweepOverFolds:
    def test_draws_every_figure_of_all_folds(self, folder):
        for name in FIGURES.keys() - {"heatmap", "parallel"}:  # they need more options
            assert draw(name, Results.read(folder), FigureOptions()).axes

    def test_writes_a_page_about_all_frames(self, folder):
        text = page(folder)
        assert "12 trials (2 combinations × 3 folds × 2 repetitions): 12 finished." in text
        assert "Its folds’ means range from" in text
        assert "Mean change over the 50 frames, as means over 2 repetitions: " in text

    def test_restores_the_corrector_of_one_fold(self, folder, table):
        with pytest.raises(ChoiceError, match="has 3 trainings, one for each fold"):
            read_corrector(folder)
        key = table.trained_keys(table.summary[0]["key"])[1]
        assert read_corrector(folder, combination=key).options["experiment_config.train_set"] == "hands_fold2_train"

    def test_logs_every_fold(self, folder):
        found = trial_logs(Results.read(folder), "best/1")
        assert [log["options"]["experiment_config.val_set"] for log in found] == [
            f"hands_fold{fold}_val" for fold in (1, 2, 3)
        ]

    def test_compares_it_with_itself_without_a_difference(self, folder):
        [compared] = compare_experiments(Results.read(folder), [Results.read(folder)])
        assert compared.differences == {}
        assert [pair.comparison.difference for pair in compared.pairs] == [0.0, 0.0]

    def test_compares_two_combinations_by_their_settings(self, folder, table):
        keys = tuple(row["key"] for row in table.summary)
        compared = compare_combinations(Results.read(folder), keys)
        assert list(compared.differences) == ["optimizer_args.lr"]
        assert compared.comparison.n == 2

    def test_finds_no_useless_trials(self, finished):
        assert useless_files(str(finished.storage_path), "small_experiment") is None


def test_a_search_trains_each_proposal_on_all_folds_and_learns_from_the_mean_that_tables_show(data, tmp_path):
    experiment = SmallExperiment(data, tmp_path)
    search = swept(experiment, TWO_REPETITIONS | {"experiment_config.search": Search("random", 3, round_size=2)}, {})
    search.add_range(LR, 1e-3, 1e-1)
    assert str(search.plan()).splitlines()[1] == "2 combinations × 3 folds × 2 repetitions = 12 trials: 12 to train"
    table = search.run("inline")
    assert [row["n"] for row in table.summary] == [2, 2, 2]
    last = json.loads((experiment.folder / "search" / "0001.json").read_text())
    assert len(last["keys"]) == 3
    mean_mm = {row[LR]: row["val_distance_mm_mean"] for row in table.summary}  # over all frames of the folds
    rates = [
        row[1]
        for of in sorted((experiment.folder / "search").iterdir())
        for row in json.loads(of.read_text())["proposals"]
    ]
    assert last["results_mm"] == [mean_mm[lr] for lr in rates[:2]]


def test_a_race_decides_by_the_mean_over_all_frames_of_the_folds(data, tmp_path, without_pictures):
    experiment = SmallExperiment(data, tmp_path)
    rule = SuccessiveHalving(reduction_factor=3, min_epochs=1, min_finalists=1)
    race = swept(experiment, {"experiment_config.race": rule, "solver_config.num_epochs": 3}, {LR: [1e-4, 1e-3, 1e-2]})
    plan = race.plan()
    assert "about 15 of 27 epochs (55.6 %)" in str(plan)
    combinations = plan.combinations
    race.run("inline")
    (path,) = (experiment.folder / "race/hands").iterdir()
    listed = {one["key"]: float.fromhex(one["values"][0]) for one in json.loads(path.read_text())["combinations"]}
    n_frames = [len(read_dataset(data, f"hands_fold{fold}_val")) for fold in (1, 2, 3)]
    for place in range(3):
        keys = [combination.key for combination in combinations[place::3]]
        values = [
            next(
                record.value
                for record in from_parquet((experiment.folder / "trials" / key / "0/records.parquet").read_bytes())
                if (record.epoch, record.split, record.space, record.metric) == (1, "val", "original", "distance")
                and record.subset == "mean"
            )
            for key in keys
        ]
        assert listed[key_of_folds(keys)] == pytest.approx(np.average(values, weights=n_frames), rel=1e-12)
    assert len(listed) == 3


def test_a_replayed_race_decides_and_costs_the_same_as_the_race_itself(data, tmp_path, without_pictures):
    experiment = SmallExperiment(data, tmp_path)
    rule = SuccessiveHalving(min_epochs=1, first_repetitions=1, min_finalists=1)
    changes, options = {**TWO_REPETITIONS, "solver_config.num_epochs": 4}, {LR: [1e-4, 1e-3, 3e-3, 1e-2, 3e-2]}
    raced = swept(experiment, {**changes, "experiment_config.race": rule}, options).run("inline")
    folder = ExperimentFolder(Storage(experiment.folder))
    n_epochs = sum(
        max(record.epoch for record in from_parquet(path.read_bytes()))
        for path in experiment.folder.glob("trials/*/*/records.parquet")
    )
    swept(experiment, changes, options).run("inline")

    results = Results.read(folder)
    (found,) = replay_races(results, [rule])
    ((_, replay),) = found.races
    assert replay.winner == raced.summary[0]["key"]
    assert replay.cost == n_epochs / (5 * 3 * 2 * 4)
    decisions, _ = read_decisions(folder.storage)
    for decision, replayed in zip(decisions, replay.decisions[:-1], strict=True):
        assert replayed.means_mm == {one.key: one.mean_mm for one in decision.combinations}
        assert replayed.reasons == {one.key: one.reason for one in decision.combinations}
    text = replays_text("sweep", [found])
    assert "5 combinations × 2 repetitions × 3 folds. Best of the grid in validation" in text
