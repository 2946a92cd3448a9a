import json
import random
import re
import shutil

import pytest

from cluster import experiment as experiment_module
from cluster import training
from cluster.executors import executor
from cluster.experiment import Experiment, Interrupted, TrialsFailedError
from cluster.planning.config import ConfigError
from cluster.schedules import search_schedule
from cluster.searching.rounds import SearchError
from cluster.searching.search import Search
from cluster.storage.trial_file import TrialFile
from cluster.trial.trainable import TrialReport
from posenet.models import CorrectorMLP, CorrectorTransformer
from tests.cluster_tests.small_experiment import LR, SmallExperiment
from tests.cluster_tests.test_longer_training import numbers_of

DECAY = "optimizer_args.weight_decay"


def value_of(options, repetition):
    """The made-up error of a trial: smaller for learning rates near 0.01; infinite if it diverges."""
    lr, decay = options[LR], options[DECAY]
    return float("inf") if lr > 0.05 else 10 + abs(lr - 0.01) * 50 + decay + 0.01 * repetition


class Workers:
    """Workers that end trials in any order, without training them.

    Args:
        n: How many workers there are.
        seed: Draws the order.
        fails: Returns whether a trial fails.
    """

    def __init__(self, n=1, seed=0, fails=lambda spec: False):
        self.n, self.random, self.fails = n, random.Random(seed), fails
        self.trained = []

    def __call__(self, schedule, job, placement, monitor, signals):
        running = []
        while True:
            while len(running) < self.n and (step := schedule.next()) is not None:
                monitor.started(step.trial.id)
                running.append(step.trial)
            if not running:
                return
            spec = running.pop(self.random.randrange(len(running)))
            report = self.end(spec, job)
            monitor.reported(report)
            schedule.ended(report)

    def end(self, spec, job):
        self.trained.append(spec.id)
        value = value_of(spec.combination.options, spec.repetition)
        status = "failed" if self.fails(spec) else "diverged" if value == float("inf") else "finished"
        metrics = {"val": {"mean": {"distance": value, "distance_before": 17.0}}}
        content = TrialFile(spec.key, spec.repetition, status=status, metrics=metrics, error=None)
        job.folder.trial(spec.id).write_trial(content)
        return TrialReport(spec.id, status, epoch=2, val_distance_mm=value, error=None)


@pytest.fixture
def search(small_data, tmp_path, monkeypatch):
    """Runs a search with workers that train nothing; returns its folder."""
    monkeypatch.setattr(Experiment, "_write_report", lambda *args: None)
    monkeypatch.setattr(experiment_module, "write_tables", lambda *args: None)

    def run(
        name,
        n_combinations,
        workers=None,
        *,
        sampler="tpe",
        n_repetitions=2,
        points=(),
        high=0.1,
        num_epochs=2,
        model=None,
    ):
        monkeypatch.setattr(executor, "run_inline", workers or Workers())
        small = SmallExperiment(small_data, tmp_path / name)
        config = {"search": Search(sampler, n_combinations, round_size=6), "n_repetitions": n_repetitions}
        changes = {f"experiment_config.{key}": value for key, value in config.items()}
        found = small.experiment({**changes, "solver_config.num_epochs": num_epochs, **(model or {})})
        if model is not None:
            found.add_range("model_args.dim", 4, 64, integer=True)
        found.add_range(LR, 1e-4, high, log=True)
        found.add_range(DECAY, 0.0, 1.0)
        for point in points:
            found.add_point(point)
        try:
            found.run("inline")
        except TrialsFailedError as error:
            if " failed" in str(error):
                raise
        return small.folder

    return run


def files_of(folder):
    """What a search has proposed: its rounds, and the plan."""
    rounds = {path.name: path.read_text() for path in sorted((folder / "search").iterdir())}
    return rounds, json.loads((folder / "experiment.json").read_text())["plan"]


def rounds_of(folder):
    return [json.loads(text) for text in files_of(folder)[0].values()]


def proposals_of(folder):
    return [tuple(proposal) for of in rounds_of(folder) for proposal in of["proposals"]]


TRANSFORMER = {
    "base_hyperparams.model": CorrectorTransformer,
    "base_hyperparams.model_args": {"dim": 4, "n_layers": 1, "n_heads": 2, "feedforward_dim": 8},
}
"""Its width must be a multiple of the number of its heads."""


class OfEvenWidth(CorrectorMLP):
    """A model of the user's, which does not take odd widths until it is corrected."""

    is_corrected = False

    def __init__(self, skeleton, *, dim):
        if dim % 2 and not self.is_corrected:
            raise ValueError("the width is odd")
        super().__init__(skeleton, hidden_dims=[dim])


class TestASearch:
    def test_proposes_the_same_with_any_number_of_workers_in_any_order(self, search):
        one = search("one", 30)
        assert len(set(proposals_of(one))) == 30
        assert files_of(search("four", 30, Workers(4, seed=1))) == files_of(one)
        assert files_of(search("many", 30, Workers(16, seed=2))) == files_of(one)

    @pytest.mark.parametrize("sampler", ["tpe", "sobol"])
    def test_that_is_extended_equals_a_longer_one(self, search, sampler):
        search("extended", 15, sampler=sampler)  # its last round is smaller
        workers = Workers()
        extended = search("extended", 30, workers, sampler=sampler)
        assert len(workers.trained) == 30
        assert files_of(extended) == files_of(search("at_once", 30, sampler=sampler))

    @pytest.mark.parametrize("sampler", ["tpe", "sobol", "random"])
    def test_passes_over_what_cannot_be_trained(self, search, sampler, capsys):
        def widths(folder):
            return [width for width, *_ in proposals_of(folder)]

        at_once = search("once", 20, sampler=sampler, model=TRANSFORMER)
        said = capsys.readouterr().err
        assert len(widths(at_once)) == 20
        assert all(width % 2 == 0 for width in widths(at_once))
        for number in range(4):
            text = f"warning: round {number} of the search passes over "
            assert said.count(text) == 1
        assert "that cannot be trained; for example, base_hyperparams.model_args: CorrectorTransformer refuses" in said
        search("extended", 9, sampler=sampler, model=TRANSFORMER)
        search("extended", 15, Workers(n=3, seed=1), sampler=sampler, model=TRANSFORMER)
        assert files_of(search("extended", 20, sampler=sampler, model=TRANSFORMER)) == files_of(at_once)

    @pytest.mark.parametrize("n_before", [9, 12])
    def test_continues_when_what_it_passed_over_could_be_trained(self, search, monkeypatch, n_before):
        model = {"base_hyperparams.model": OfEvenWidth, "base_hyperparams.model_args": {"dim": 4}}
        before = proposals_of(search("x", n_before, sampler="sobol", model=model))
        assert all(width % 2 == 0 for width, *_ in before)
        monkeypatch.setattr(OfEvenWidth, "is_corrected", True)
        after = proposals_of(search("x", 20, sampler="sobol", model=model))
        assert after[:n_before] == before
        assert any(width % 2 for width, *_ in after[n_before:])

    def test_of_which_most_cannot_be_trained_does_not_end_early_and_names_each_only_once(self, search, capsys):
        arguments = {**TRANSFORMER["base_hyperparams.model_args"], "n_heads": 4}
        folder = search("x", 61, sampler="sobol", model={**TRANSFORMER, "base_hyperparams.model_args": arguments})
        assert len(proposals_of(folder)) == 61
        passed_over = re.findall(r"warning: round \d+ of the search passes over (\d+) ", capsys.readouterr().err)
        assert 61 < sum(map(int, passed_over)) < 6 * 61  # three in four of the widths

    def test_that_finds_no_further_combination_writes_the_tables_of_those_before(self, small_experiment):
        arguments = {**TRANSFORMER["base_hyperparams.model_args"], "n_heads": 4}
        changes = {**TRANSFORMER, "base_hyperparams.model_args": arguments}
        experiment = small_experiment.experiment({**changes, "experiment_config.search": Search("sobol", 12, 6)})
        experiment.add_range("model_args.dim", 4, 44, integer=True)
        for _ in range(2):
            with pytest.raises(SearchError, match=r"has proposed 11 combinations and found no new one .* to 11, or"):
                experiment.run("inline")
            assert len(experiment.results().summary) == 6
            assert len((small_experiment.folder / "tables" / "summary.csv").read_text().splitlines()) == 1 + 6

    def test_that_is_killed_between_the_file_of_a_round_and_its_training_proposes_the_same(
        self, search, monkeypatch, tmp_path
    ):
        write = training.write_description
        written = []

        def kill(plan, job):
            written.append(len(plan.combinations))
            if len(written) in (1, 3):
                raise KeyboardInterrupt
            write(plan, job)

        monkeypatch.setattr(training, "write_description", kill)
        for n_rounds in (2, 4):
            with pytest.raises(Interrupted):
                search("killed", 30)
            assert len(list((tmp_path / "killed" / "small_experiment" / "search").iterdir())) == n_rounds
        killed = search("killed", 30)
        assert written == [12, 18, 24, 30]
        monkeypatch.setattr(training, "write_description", write)
        assert files_of(killed) == files_of(search("whole", 30))

    def test_waits_for_a_failed_trial_and_continues_when_the_next_run_has_trained_it(self, search):
        failing = Workers(4, fails=lambda spec: spec.repetition == 1 and spec.combination.options[LR] < 1e-3)
        with pytest.raises(TrialsFailedError, match=r"failed .*of 12 trials; the search waits for them"):
            search("waiting", 12, failing)
        again = Workers(4)
        found = search("waiting", 12, again)
        assert len(again.trained) < 24
        assert files_of(found) == files_of(search("whole", 12))

    def test_learns_from_means_over_repetitions_and_a_diverged_combination_has_none(self, search):
        *_, last = rounds_of(search("one", 30, n_repetitions=3))
        earlier = proposals_of(search("one", 30, n_repetitions=3))[: len(last["results_mm"])]
        values = [[value_of({LR: lr, DECAY: decay}, r) for r in range(3)] for lr, decay in earlier]
        assert last["results_mm"] == [
            None if float("inf") in of else pytest.approx(sum(of) / 3, abs=1e-12) for of in values
        ]
        assert None in last["results_mm"]

    def test_begins_with_the_base_and_then_the_points(self, search):
        found = search("points", 6, points=[{LR: 0.002, DECAY: 0.123456}, {DECAY: 1}])
        assert proposals_of(found)[:3] == [(1e-3, 0.0), (0.002, 0.123456), (1e-3, 1.0)]
        without = search("without", 6, points=[{LR: 0.002}], high=5e-3)
        assert proposals_of(without)[:2] == [(1e-3, 0.0), (0.002, 0.0)]

    def test_of_fewer_combinations_than_are_on_disk_shows_only_the_first(self, search):
        search("fewer", 12)
        workers = Workers()
        fewer = search("fewer", 8, workers)
        assert workers.trained == []
        assert len(files_of(fewer)[1]["combinations"]) == 8
        assert len(proposals_of(fewer)) == 12

    def test_keeps_its_proposals_if_there_are_more_repetitions(self, search):
        before = files_of(search("more", 12, n_repetitions=1))[0]
        workers = Workers()
        after = files_of(search("more", 12, workers, n_repetitions=3))[0]
        assert len(workers.trained) == 24
        assert after == before

    def test_does_not_train_again_what_another_search_has_trained(self, search):
        folder = search("first", 12)
        shutil.rmtree(folder / "search")
        workers = Workers()
        search("first", 12, workers)
        assert workers.trained == []

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"sampler": "sobol"}, "was started with the sampler 'tpe', which is now 'sobol'. Undo the change"),
            ({"high": 0.2}, "was started with other options or ranges; new or changed: optimizer_args.lr. Undo the"),
            ({"num_epochs": 3}, "was started with other data or another base, such as another num_epochs. Undo the"),
        ],
    )
    def test_cannot_be_continued_as_another_one(self, search, changes, problem):
        search("started", 6)
        with pytest.raises(SearchError, match=problem):
            search("started", 12, **changes)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"seed": "none"}, "it.seed is not valid"),
            ({"results_mm": [1.0]}, "do not match the search"),
            ({"proposals": [[7.0, 0.0]]}, "do not match the search"),
            ({"proposals": [[0.001, 0.5]]}, "do not follow from its results"),
        ],
    )
    def test_whose_last_round_was_edited_says_which_file_and_what_to_do(self, search, changes, problem):
        path = search("edited", 18) / "search" / "0002.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        with pytest.raises(SearchError, match=rf"0002.json is broken: .*{problem}.* Remove this file"):
            search("edited", 24)

    def test_keeps_a_round_that_other_versions_have_proposed(self, search, monkeypatch):
        search("older", 15)
        monkeypatch.setattr(search_schedule, "version", lambda name: "1.0")
        monkeypatch.setattr(search_schedule.Proposing, "next", lambda *args: 1 / 0)
        workers = Workers()
        search("older", 15, workers)
        assert workers.trained == []


@pytest.mark.slow
def test_a_search_on_an_object_store_has_the_same_files_and_continues_from_them(s3, small_data, tmp_path):
    for n_combinations in (4, 8):
        real_search(small_data, s3.direct, n_combinations).run("inline")
    real_search(small_data, tmp_path / "here", 8).run("inline")
    here = tmp_path / "here" / "small_experiment"
    rounds = {f"small_experiment/search/{name}": text.encode() for name, text in files_of(here)[0].items()}
    objects = s3.objects()
    assert {name: content for name, content in objects.items() if "/search/" in name} == rounds
    summary = "tables/summary.csv"
    assert objects[f"small_experiment/{summary}"] == (here / summary).read_bytes()


def real_search(small_data, storage_path, n_combinations):
    small = SmallExperiment(small_data, storage_path)
    found = small.experiment({"experiment_config.search": Search("tpe", n_combinations, round_size=4)})
    found.add_range(LR, 1e-4, 1e-1, log=True)
    return found


class TestACombinationOfASearch:
    def test_has_the_key_and_the_bits_of_the_same_one_in_a_grid(self, small_data, tmp_path):
        searched = SmallExperiment(small_data, tmp_path / "searched")
        found = searched.experiment({"experiment_config.search": Search("random", 2)})
        found.add_range(LR, 1e-4, 1e-1, log=True)
        found.run("inline")
        (_, (lr,)) = proposals_of(searched.folder)
        grid = SmallExperiment(small_data, tmp_path / "grid")
        grid.run(options={LR: [1e-3, lr]})
        keys = {path.name for path in searched.folder.glob("trials/*")}
        assert keys == {path.name for path in grid.folder.glob("trials/*")}
        assert len(keys) == 2
        for key in keys:
            assert numbers_of(searched, key) == numbers_of(grid, key)


def problems_of(experiment):
    with pytest.raises(ConfigError) as error:
        experiment.plan()
    return str(error.value)


class TestAPlan:
    def test_says_how_many_combinations_were_proposed(self, small_experiment):
        experiment = small_experiment.experiment(
            {"experiment_config.search": Search("tpe", 60), "experiment_config.n_repetitions": 3}
        )
        experiment.add_range(LR, 1e-4, 1e-1, log=True)
        lines = str(experiment.plan()).splitlines()
        assert lines[:2] == [
            "search: tpe, 60 combinations in 8 rounds of 8; 8 proposed",
            "8 combinations × 3 repetitions = 24 trials: 24 to train",
        ]
        assert not small_experiment.folder.exists()

    def test_of_ranges_without_a_search_says_what_to_add(self, small_experiment):
        experiment = small_experiment.experiment()
        experiment.add_range(LR, 1e-4, 1e-1, log=True)
        experiment.add_point({LR: 1e-2})
        text = problems_of(experiment)
        assert f'{LR}: is a range, which only a search can train; add "search": Search("tpe", n_combinations=…)' in text
        assert "add_point: only a search tries points" in text

    def test_of_a_search_without_anything_to_search_says_what_to_add(self, small_experiment):
        experiment = small_experiment.experiment({"experiment_config.search": Search("tpe", 60)}, {LR: [1e-3]})
        assert "there is nothing to search; add ranges or options, with add_range" in problems_of(experiment)

    def test_of_more_combinations_than_the_space_has_says_how_many_it_has(self, small_experiment):
        options = {"model_args.activation": ["relu", "elu"]}
        experiment = small_experiment.experiment({"experiment_config.search": Search("tpe", 9)}, options)
        experiment.add_range("model_args.dropout", 0.0, 0.3, step=0.1)
        assert "there are only 8 combinations to search" in problems_of(experiment)
        small_experiment.experiment({"experiment_config.search": Search("tpe", 2)}, options).plan()

    def test_of_options_on_several_validation_sets_is_refused(self, small_experiment):
        options = {"experiment_config.val_set_size": [5, 10]}
        experiment = small_experiment.experiment({"experiment_config.search": Search("tpe", 2)}, options)
        assert "all combinations need the same validation set" in problems_of(experiment)

    def test_of_options_on_several_test_sets_is_refused(self, small_experiment):
        options = {LR: [1e-3, 1e-2], "experiment_config.test_set": ["small_test", "small_val"]}
        experiment = small_experiment.experiment({"experiment_config.search": Search("tpe", 2)}, options)
        assert "test_set: a search compares validation errors, on which the test set has no" in problems_of(experiment)

    def test_of_more_points_than_combinations_is_refused(self, small_experiment):
        experiment = small_experiment.experiment({"experiment_config.search": Search("tpe", 2)})
        experiment.add_range(LR, 1e-4, 1e-1)
        for lr in (5e-3, 5e-2, 5e-2):
            experiment.add_point({LR: lr})
        assert "the base and the points are 3 combinations, but n_combinations is 2, so some" in problems_of(experiment)

    def test_of_points_that_have_no_place_any_more_says_how_many_combinations_they_need(self, search, capsys):
        search("points", 9)  # a round has 6; the second is completed without them
        points = [{LR: 0.002}, {LR: 0.003}]
        for n, n_left_out in ((9, "2 points"), (12, "2 points"), (13, "1 point")):
            search("points", n, points=points)
            said = capsys.readouterr().err
            assert f"warning: the search will not try {n_left_out} of add_point, since it had proposed " in said
            assert "raise n_combinations to 14" in said
        assert proposals_of(search("points", 14, points=points))[12:] == [(0.002, 0.0), (0.003, 0.0)]
        assert "add_point" not in capsys.readouterr().err

    def test_of_which_a_point_cannot_be_trained_is_refused(self, small_experiment):
        experiment = small_experiment.experiment({**TRANSFORMER, "experiment_config.search": Search("sobol", 8)})
        experiment.add_range("model_args.dim", 4, 64, integer=True)
        experiment.add_point({"model_args.dim": 5})
        text = problems_of(experiment)
        assert "model_args: round 0 of the search proposes combinations that cannot be trained: " in text

    def test_of_which_hardly_anything_can_be_trained_is_refused(self, small_experiment):
        arguments = {**TRANSFORMER["base_hyperparams.model_args"], "dim": 101, "n_heads": 101}
        changes = {**TRANSFORMER, "base_hyperparams.model_args": arguments}
        experiment = small_experiment.experiment({**changes, "experiment_config.search": Search("random", 3)})
        experiment.add_range("model_args.dim", 101, 1010, integer=True)
        text = problems_of(experiment)
        assert "model_args: round 0 of the search proposes combinations that cannot be trained: " in text

    def test_reports_the_problems_of_all_corners_together(self, small_experiment):
        experiment = small_experiment.experiment(
            {"experiment_config.search": Search("tpe", 60), "experiment_config.val_set": "none"},
            {"model_args.activation": ["relu", "no"]},
        )
        experiment.add_range("model_args.dropout", 0.0, 1.5)
        experiment.add_range(LR, -1.0, 1.0)
        text = problems_of(experiment)
        assert all(part in text for part in ("no", "1.5", "-1.0", "experiment_config.val_set"))
