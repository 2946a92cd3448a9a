"""A race whose finalists are confirmed by fresh repetitions, from the script to the tables."""

import shutil

import pytest

from cluster.experiment import TrialsFailedError
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.page.page import page
from cluster.reproduction import reproduce
from cluster.schedules.decision_checks import RaceError
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.trained import read_corrector
from data_pipeline.user_error import UserError
from tests.cluster_tests.small_experiment import LR, SmallExperiment

N, RACE_OF = "experiment_config.n_repetitions", "experiment_config.race"
RULE = {"reduction_factor": 2, "min_epochs": 2, "min_finalists": 1, "max_cost": 0.01}
RACE = {"solver_config.num_epochs": 4, RACE_OF: SuccessiveHalving(**RULE, confirm=2)}
OPTIONS = {LR: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]}


@pytest.fixture(scope="module")
def finished(small_data, tmp_path_factory):
    """Six combinations with one repetition. The race dropped three; two fresh repetitions confirm the others."""
    small_experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("confirmed"))
    small_experiment.run(RACE, OPTIONS)
    return small_experiment


@pytest.fixture
def confirmed(finished, tmp_path):
    """A copy of `finished` that a test may change."""
    copied = SmallExperiment(finished.data_dir, tmp_path)
    shutil.copytree(finished.folder, copied.folder)
    return copied


def trained(small_experiment, changes):
    """Runs the experiment again; returns the ids of the trials that it trained."""
    ids = set()

    def note(trial_id, report, model):
        ids.add(trial_id)

    small_experiment.run({**changes, "solver_config.callbacks": [note]}, OPTIONS)
    return ids


def numbers(table, column):
    return {(row["key"], row["repetition"]): row[column] for row in table.trials if row["status"] == "finished"}


def test_only_finalists_have_fresh_repetitions(finished):
    table = finished.experiment(RACE, OPTIONS).results()
    on_disk = {path.parent.relative_to(finished.folder / "trials") for path in finished.folder.rglob("trial.json")}
    for row in table.summary:
        n_trials = sum(path.parts[0] == row["key"] for path in on_disk)
        assert (row["n"], n_trials) == ((0, 1) if row["key"] in table.dropped else (2, 3))
    assert len(table.ranked) == 3
    assert {row["status"] for row in table.trials if row["role"] == "confirms"} == {"finished"}


def test_finalists_on_each_validation_set_have_their_own_fresh_repetitions(finished, small_experiment):
    both = small_experiment.run(RACE, {"experiment_config.val_set": ["small_val", "small_test"], **OPTIONS})
    on_small = [row for row in both.summary if row["experiment_config.val_set"] == "small_val"]
    on_test = [row for row in both.summary if row["experiment_config.val_set"] == "small_test"]
    for rows in (on_small, on_test):
        assert [row["n"] for row in rows if row["key"] not in both.dropped] == [2, 2, 2]
        assert [row["n"] for row in rows if row["key"] in both.dropped] == [0, 0, 0]
    alone = numbers(finished.experiment(RACE, OPTIONS).results(), "val_distance_mm")
    assert len(alone) == 9
    assert alone.items() <= numbers(both, "val_distance_mm").items()


def test_a_second_run_trains_nothing_and_has_the_same_tables(confirmed):
    tables = sorted((confirmed.folder / "tables").glob("*.csv"))
    before = [path.read_bytes() for path in tables]
    assert trained(confirmed, RACE) == set()
    assert [path.read_bytes() for path in tables] == before


def test_the_plan_shows_fresh_repetitions_apart_from_the_rungs(finished, small_experiment):
    new = str(small_experiment.experiment(RACE, OPTIONS).plan()).splitlines()
    assert new[0] == "6 combinations × 1 repetition = 6 trials: 6 to train"
    assert (
        new[1]
        == "race of 6 combinations on small_val: about 18 of 24 epochs (75.0 %), plus about 24 in fresh repetitions"
    )
    assert [line.split() for line in new[3:6]] == [
        ["1", "2", "6", "1", "6", "12"],
        ["2", "4", "3", "1", "3", "6"],
        ["fresh", "4", "3", "2", "6", "24"],
    ]
    done = str(finished.experiment(RACE, OPTIONS).plan()).splitlines()
    assert done[0] == "6 combinations × 1 repetition = 6 trials: 3 finished, 3 dropped by the race"
    assert done[5].endswith("6 of 6 have ended")
    assert finished.experiment(RACE, OPTIONS).plan().n_epochs_of_races == 0


def test_a_corrector_is_chosen_by_the_repetitions_of_the_race(finished):
    experiment = finished.experiment(RACE, OPTIONS)
    best = experiment.results().summary[0]["key"]
    deciding = {row["key"]: row["val_distance_mm"] for row in experiment.results().trials if row["role"] == "decides"}
    assert deciding[best] == min(mm for mm in deciding.values() if mm is not None)
    assert read_corrector(experiment.folder).key == best
    assert read_corrector(experiment.folder).repetitions == (0,)
    assert read_corrector(experiment.folder, repetition="all").repetitions == (0, 1, 2)


def test_another_repetition_takes_over_the_first_fresh_one_and_a_new_one_replaces_it(confirmed):
    before = confirmed.experiment(RACE, OPTIONS).results()
    more = {**RACE, N: 2}
    finalists = {row["key"] for row in before.ranked}
    assert trained(confirmed, more) == {f"{key}/3" for key in finalists}
    table = confirmed.experiment(more, OPTIONS).results()
    assert {row["key"] for row in table.ranked} == finalists
    assert {row["role"] for row in table.trials if row["repetition"] == 1} == {"decides"}
    kept = numbers(before, "val_distance_mm")
    assert kept.items() <= numbers(table, "val_distance_mm").items()
    for row in table.ranked:
        assert row["deciding_val_distance_mm"] == pytest.approx((kept[row["key"], 0] + kept[row["key"], 1]) / 2)
        assert (row["deciding_n"], row["n"]) == (2, 2)


def test_a_repetition_that_decided_never_confirms(finished, small_experiment):
    two = {**RACE, N: 2}
    small_experiment.run(two, OPTIONS)
    with pytest.raises(RaceError, match=r"has decided with 2 repetitions\. With n_repetitions 1, the fresh ones that"):
        small_experiment.experiment(RACE, OPTIONS).plan()
    assert small_experiment.experiment({**RACE, RACE_OF: SuccessiveHalving(**RULE)}, OPTIONS).plan()


def test_a_dropped_trial_is_not_reproduced_and_says_that_the_race_dropped_it(finished):
    dropped = next(iter(finished.experiment(RACE, OPTIONS).results().dropped))
    with pytest.raises(UserError, match=r"nothing to compare with: a race dropped it\. Without the race, the script"):
        reproduce(ExperimentFolder(Storage(finished.folder)), f"{dropped}/0")


def test_without_confirm_a_race_has_the_tables_of_one_that_was_never_confirmed(confirmed, small_data, tmp_path):
    other = SmallExperiment(small_data, tmp_path / "other")
    plain = {**RACE, RACE_OF: SuccessiveHalving(**RULE)}
    confirmed.run(plain, OPTIONS)
    other.run(plain, OPTIONS)
    ours, theirs = ((of.folder / "tables" / "summary.csv").read_text() for of in (confirmed, other))
    assert ours == theirs


def test_a_failed_fresh_repetition_ends_the_script_with_an_error_and_is_trained_again(small_experiment):
    """By then everything else is complete, and no decision waits for the trial."""

    def fail(trial_id, report, model):
        if trial_id.endswith("/2"):
            raise ValueError("as wanted")

    with pytest.raises(TrialsFailedError, match="3 failed of 12 trials"):
        small_experiment.run({**RACE, "solver_config.callbacks": [fail]}, OPTIONS)
    table = small_experiment.experiment(RACE, OPTIONS).results()
    assert [(row["n"], row["failed"]) for row in table.ranked] == [(1, 1)] * 3
    assert trained(small_experiment, RACE) == {f"{row['key']}/2" for row in table.ranked}


def test_the_report_says_what_fresh_repetitions_cost(finished):
    experiment = finished.experiment(RACE, OPTIONS)
    report = page(experiment.folder, experiment.results())
    assert "the race takes 18 of the 24 epochs that training all would take (75 %)" in report
    assert "The fresh repetitions that confirm its finalists take 24 more." in report
