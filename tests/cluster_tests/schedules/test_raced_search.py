import json
import math
import random
import shutil

import pytest

from cluster import experiment as experiment_module
from cluster.executors import executor
from cluster.experiment import Experiment
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.searching.search import Search
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.storage.records import to_parquet
from cluster.storage.trial_file import TrialFile
from cluster.trial.trainable import TrialReport
from data_pipeline.subsets import MEAN_SUBSET
from posenet.record import Record
from tests.cluster_tests.small_experiment import LR, SmallExperiment

N_EPOCHS = 27
EPOCHS = "solver_config.num_epochs"


def error_mm(lr, trial_id, epoch):
    """A made-up validation error, mm: the best learning rate is 0.01, and all learn at the same speed."""
    return 10 + abs(math.log10(lr) + 2) + 5 / epoch + 0.05 * random.Random(trial_id).random()


OPTIONS = {
    "tpe": {EPOCHS: [N_EPOCHS]},
    "random": {EPOCHS: [9, N_EPOCHS], LR: [10**exponent for exponent in range(-9, 0)]},
}
"""What is searched: a range, or options among which are those of the epochs."""


class KilledError(Exception):
    pass


class Workers:
    """Workers that train nothing, but write made-up records, in any order.

    Args:
        n: How many workers there are.
        seed: Draws the order.
        n_steps: After how many steps the script is killed.
    """

    def __init__(self, n=1, seed=0, n_steps=math.inf):
        self.n, self.random, self.n_steps = n, random.Random(seed), n_steps
        self.trained = []

    def __call__(self, schedule, job, placement, monitor, signals):
        running = []
        while True:
            while len(running) < self.n and (step := schedule.next()) is not None:
                running.append(step)
            if not running:
                assert schedule.all_given
                return
            step = running.pop(self.random.randrange(len(running)))
            self.n_steps -= 1
            if self.n_steps < 0:
                raise KilledError
            schedule.ended(self.end(step, job))

    def end(self, step, job):
        spec, n_epochs = step.trial, step.trial.combination.options.get(EPOCHS, N_EPOCHS)
        until = step.until or n_epochs
        self.trained.append((spec.id, until))
        folder, lr = job.folder.trial(spec.id), spec.combination.options[LR]
        curve = [error_mm(lr, spec.id, epoch) for epoch in range(1, until + 1)]
        rows = [
            Record(epoch, 7, "val", MEAN_SUBSET, "original", "distance", value) for epoch, value in enumerate(curve, 1)
        ]
        folder.write(FileNames.RECORDS, to_parquet(spec.id, rows))
        metrics = {"val": {"mean": {"distance": min(curve), "distance_before": 17.0}}}
        is_finished = until == n_epochs
        content = TrialFile(spec.key, spec.repetition, status="finished" if is_finished else "interrupted")
        folder.write_trial(content._replace(epochs=until, metrics=metrics if is_finished else {}))
        return TrialReport(spec.id, "finished" if is_finished else "paused", until, min(curve))


@pytest.fixture
def search(small_data, tmp_path, monkeypatch):
    """Runs a raced search with workers that train nothing; returns its folder."""
    monkeypatch.setattr(Experiment, "_write_report", lambda *args: None)
    monkeypatch.setattr(experiment_module, "write_tables", lambda *args: None)

    def run(name, n_combinations, workers=None, sampler="tpe", **changes):
        monkeypatch.setattr(executor, "run_inline", workers or Workers())
        small = SmallExperiment(small_data, tmp_path / name)
        search = Search(sampler, n_combinations, round_size=6)
        config = {"search": search, "race": SuccessiveHalving(reduction_factor=3), "n_repetitions": 2, **changes}
        found = small.experiment({f"experiment_config.{key}": value for key, value in config.items()}, OPTIONS[sampler])
        if sampler != "random":
            found.add_range(LR, 1e-5, 1e-1, log=True)
        found.run("inline")
        return small.folder

    return run


def decided(folder):
    """What a search proposed, and what its race decided."""
    paths = [path for part in ("search", "race") for path in sorted((folder / part).rglob("*.json"))]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_each_round_is_a_bracket_that_competes_with_the_finalists_so_far(search):
    workers = Workers()
    files = decided(search("one", 18, workers))
    rounds = [json.loads(files[f"search/000{number}.json"]) for number in range(3)]
    firsts = [json.loads(files[f"race/small_val/{number}-0.json"]) for number in range(3)]
    finalists: set[str] = set()
    for of_round, first in zip(rounds, firsts, strict=True):
        assert {competitor["key"] for competitor in first["combinations"]} == {*of_round["keys"], *finalists}
        finished = {trial_id.partition("/")[0] for trial_id, until in workers.trained if until == N_EPOCHS}
        finalists |= finished & set(of_round["keys"])
    assert len(finalists) < 18 / 2


def test_a_round_sees_the_final_errors_of_finalists_and_those_of_others_where_they_were_dropped(search):
    folder = search("one", 12)
    first, second = (json.loads((folder / "search" / f"000{number}.json").read_text()) for number in range(2))
    plan = json.loads((folder / "experiment.json").read_text())["plan"]["combinations"]
    lr = {combination["key"]: combination["options"][LR] for combination in plan}
    for key, result in zip(first["keys"], second["results_mm"], strict=True):
        epochs = [json.loads((folder / "trials" / key / str(r) / "trial.json").read_text())["epochs"] for r in (0, 1)]
        at_end = sum(error_mm(lr[key], f"{key}/{r}", epochs[r]) for r in (0, 1)) / 2
        assert result == pytest.approx(at_end)
    reached = {
        json.loads(path.read_text())["epochs"]
        for key in first["keys"]
        for path in (folder / "trials" / key).rglob("trial.json")
    }
    assert reached == {3, N_EPOCHS}


def test_proposals_and_decisions_do_not_depend_on_workers_kills_or_extensions(search):
    one = decided(search("one", 18))
    assert decided(search("many", 18, Workers(8, seed=3))) == one
    for n_steps in (5, 11, 4, 9, 14):
        with pytest.raises(KilledError):
            search("killed", 18, Workers(3, seed=n_steps, n_steps=n_steps))
    assert decided(search("killed", 18, Workers(2))) == one
    search("extended", 12)
    assert decided(search("extended", 18)) == one


def test_does_not_continue_without_the_records_of_a_finalist(search):
    folder = search("one", 6)
    trials = {path.parent: json.loads(path.read_text()) for path in (folder / "trials").rglob("trial.json")}
    finished = next(path for path, trial in trials.items() if trial["status"] == "finished")
    (finished / FileNames.RECORDS).unlink()
    for _ in range(2):
        with pytest.raises(StorageError, match=f"records of the finished trial {finished.parent.name}/.*remove the t"):
            search("one", 12)
    shutil.rmtree(finished)
    assert len(list((search("one", 12) / "search").iterdir())) == 2


@pytest.mark.parametrize("parts", [["search"], ["race"], ["search", "race"]])
def test_continues_with_trained_trials_after_its_files_were_removed(search, parts):
    folder = search("one", 18)
    before = decided(folder)
    for part in parts:
        shutil.rmtree(folder / part)
    workers = Workers()
    search("one", 18, workers)
    assert decided(folder) == before
    assert workers.trained == []


def test_of_a_grid_that_was_trained_before_decides_from_its_trials(search):
    search("grid", 18, Workers(), "random", race=None, search=None)
    workers = Workers()
    assert decided(search("grid", 18, workers, "random")) == decided(search("raced", 18, sampler="random"))
    assert workers.trained == []


def test_decides_the_same_after_kills_if_combinations_differ_in_their_epochs(search):
    seed = 3  # the second round has longer trainings of combinations that the first one dropped
    workers = Workers()
    search("first round", 6, workers, "random", seed=seed)
    one = decided(search("one", 18, sampler="random", seed=seed))
    with pytest.raises(KilledError):  # after the second round was proposed, and before it has decided anything
        search("killed", 18, Workers(n_steps=len(workers.trained) + 2), "random", seed=seed)
    assert decided(search("killed", 18, Workers(2), "random", seed=seed)) == one


def test_continues_if_a_round_was_too_short_to_be_raced(search):
    """Such a round makes no decision, so no file records its number."""
    changes = {
        "sampler": "random",
        "search": Search("random", 12, round_size=2),
        "race": SuccessiveHalving(reduction_factor=3, min_epochs=9, min_finalists=1),
    }
    before = decided(search("short", 12, **changes))
    assert 0 < len([name for name in before if name.startswith("race")]) < 6
    workers = Workers()
    assert decided(search("short", 12, workers, **changes)) == before
    assert workers.trained == []


def test_may_have_many_rounds(search):
    """Whether a bracket is decided depends on all brackets before it."""
    files = decided(search("many", 24 * 6))
    assert len([name for name in files if name.startswith("search")]) == 24
