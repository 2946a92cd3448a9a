"""Races without training: the workers of `simulated_race.py` take any time and end in any order."""

import math
import random
from itertools import pairwise

import pytest

from cluster.racing.successive_halving import SuccessiveHalving
from cluster.schedules.brackets import Data
from cluster.schedules.race_plan import decision_text
from cluster.schedules.schedule import Step
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.trial.trainable import TrialReport
from tests.cluster_tests.schedules.simulated_race import DATA, SimulatedRace, entrants, made_up_curve

WORKERS = [1, 3, 16]

RACES = {
    "two repetitions": {"planned": {DATA: entrants(12)}},
    "one repetition": {"planned": {DATA: entrants(14)}, "n_repetitions": 1},
    "first repetitions": {
        "planned": {DATA: entrants(10)},
        "n_repetitions": 3,
        "rule": SuccessiveHalving(reduction_factor=3, first_repetitions=1, min_epochs=1),
    },
    "numbers of epochs": {"planned": {DATA: entrants(12, [27, 54])}},
    "close ones stay": {"planned": {DATA: entrants(12)}, "rule": SuccessiveHalving(max_cost=1.0, reduction_factor=2)},
    "two data sets": {"planned": {DATA: entrants(8), Data("val", 50): entrants(6, 81, start=20)}},
    "folds": {"planned": {DATA: entrants(6, n_folds=2)}},
}


def ids(planned, n_repetitions):
    """The ids of the trials of some combinations."""
    return {f"{one.key}/{r}" for entrant in planned for one in entrant.trained for r in range(n_repetitions)}


PLANNED = entrants(12)
RACES["some diverge before a rung, at it, and later"] = {
    "planned": {DATA: PLANNED},
    "diverges_at": dict(zip(sorted(ids(PLANNED.values(), 2))[::4], [1, 3, 4, 10, 27, 2], strict=True)),
}


@pytest.fixture
def simulated(tmp_path):
    """Makes races, each in its own folder."""
    made = []

    def make(**race):
        made.append(SimulatedRace(tmp_path / str(len(made)), **race))
        return made[-1]

    return make


@pytest.mark.parametrize("race", RACES.values(), ids=RACES)
class TestAnyNumberOfWorkersAndAnyOrder:
    def test_give_the_same_files_and_train_exactly_the_finalists_to_the_end(self, simulated, race):
        files = []
        for seed, n_workers in enumerate(WORKERS):
            played = simulated(**race)
            schedule = played.run(n_workers, seed)
            assert schedule.next() is None
            assert schedule.all_given
            finalists = {key: entrant for b in schedule.brackets for key, entrant in b.own_competing.items()}
            trials = ids(finalists.values(), played.n_repetitions)
            assert played.with_status("finished") == trials - played.with_status("diverged")
            files.append(played.decisions())
        assert len(files[0]) >= 2
        assert all(others == files[0] for others in files)

    def test_give_the_same_files_when_the_run_is_killed_repeatedly_and_train_nothing_twice(self, simulated, race):
        at_once = simulated(**race)
        at_once.run()
        killed = simulated(**race)
        for seed in range(200):
            n_workers = WORKERS[seed % len(WORKERS)]
            schedule = killed.run(n_workers, seed, stop_after=3 + seed % 9)
            if not killed.n_running and schedule.next() is None:
                break
        assert killed.decisions() == at_once.decisions()
        assert killed.with_status("finished") == at_once.with_status("finished")
        for trial_id in killed.statuses:
            parts = [part[1:] for part in killed.trained if part[0] == trial_id]
            assert all(end == begin for (_, end), (begin, _) in pairwise(parts)), trial_id


def test_one_worker_trains_no_epoch_in_vain(simulated):
    race = simulated(planned={DATA: entrants(12)})
    schedule = race.run()
    (bracket,) = schedule.brackets
    for decision in bracket.decisions:
        for competitor in decision.combinations:
            if not competitor.stays:
                assert [race.epochs[f"{competitor.key}/{r}"] for r in range(2)] == [competitor.epoch] * 2
    assert schedule.n_epochs_in_vain() == 0


def test_epochs_in_vain_are_those_that_dropped_combinations_trained_beyond_their_last_rung(simulated):
    race = simulated(planned={DATA: entrants(12)})
    schedule = race.run(n_workers=16)
    at_least = simulated(planned={DATA: entrants(12)})
    at_least.run()
    n_epochs = [sum(end - begin for _, begin, end in one.trained) for one in (race, at_least)]
    assert schedule.n_epochs_in_vain() == n_epochs[0] - n_epochs[1] > 0


def test_four_workers_are_busy_90_percent_of_the_time_although_some_trials_take_four_times_as_long(simulated):
    race = simulated(planned={DATA: entrants(60, 100)}, n_repetitions=3)
    factors = {
        trial_id: random.Random(trial_id[:16]).choice([1, 1.6, 2.5, 4])
        for trial_id in ids(race.planned[DATA].values(), 3)
    }
    schedule = race.run(4, seconds=factors.__getitem__)
    busy = sum((end - begin) * factors[trial_id] for trial_id, begin, end in race.trained)
    assert busy / (4 * race.seconds) > 0.9
    assert schedule.n_epochs_in_vain() / sum(end - begin for _, begin, end in race.trained) < 0.01


class TestATrialThatFails:
    @pytest.fixture
    def undisturbed(self, simulated):
        race = simulated(planned={DATA: PLANNED})
        race.run()
        return race

    @pytest.mark.parametrize("n_workers", WORKERS)
    def test_makes_its_rung_wait_while_everything_else_continues(self, simulated, undisturbed, n_workers):
        last = list(PLANNED)[-1]
        race = simulated(planned={DATA: PLANNED}, fails_at={f"{last}/1": 2})
        schedule = race.run(n_workers)
        assert race.decisions() == {}
        assert not schedule.all_given
        others = {trial_id: n for trial_id, n in race.epochs.items() if trial_id != f"{last}/1"}
        assert len(others) == 23
        assert min(others.values()) == 3
        # Three are certain to stay, even if the failed one should take one of the four places.
        assert sum(all(race.epochs[f"{key}/{r}"] >= 9 for r in range(2)) for key in PLANNED) >= 3

    @pytest.mark.parametrize("n_workers", WORKERS)
    def test_is_trained_again_by_the_next_run(self, simulated, undisturbed, n_workers):
        race = simulated(planned={DATA: PLANNED}, fails_at=dict.fromkeys(sorted(ids(PLANNED.values(), 2))[::4], 2))
        race.run(n_workers)
        race.run(n_workers)
        assert race.decisions() == undisturbed.decisions()
        assert race.with_status("finished") == undisturbed.with_status("finished")

    def test_as_a_finalist_affects_neither_the_decisions_nor_the_other_finalists(self, simulated, undisturbed):
        victim = sorted(undisturbed.with_status("finished"))[0]
        race = simulated(planned={DATA: PLANNED}, fails_at={victim: 20})
        race.run(2)
        assert race.decisions() == undisturbed.decisions()
        assert race.with_status("finished") == undisturbed.with_status("finished") - {victim}
        race.run(2)
        assert race.with_status("finished") == undisturbed.with_status("finished")


class TestATrialThatDiverges:
    def test_ranks_last(self, simulated):
        planned = entrants(12)
        best = min(planned, key=lambda key: sum(min(made_up_curve(f"{key}/{r}", 3)) for r in range(2)))
        race = simulated(planned={DATA: planned}, diverges_at={f"{best}/0": 2})
        (bracket,) = race.run(3).brackets
        last = bracket.decisions[0].combinations[-1]
        assert (last.key, last.reason, last.mean_mm) == (best, "diverged", math.inf)

    @pytest.mark.parametrize("n_workers", WORKERS)
    def test_is_dropped_like_all_others_if_all_diverge(self, simulated, n_workers):
        planned = entrants(7)
        race = simulated(planned={DATA: planned}, diverges_at=dict.fromkeys(ids(planned.values(), 2), 2))
        race.run(n_workers)
        assert list(race.decisions()) == ["val/0-0.json"]
        assert race.with_status("diverged") == ids(planned.values(), 2)
        (bracket,) = race.brackets()
        assert bracket.is_decided
        assert not bracket.own_competing
        said = decision_text(bracket.decisions[0], "lr 0.1")
        assert said == "race on val, rung 1 of 3: 0 of 7 combinations stay after epoch 3 (7 diverged)"

    def test_after_a_rung_keeps_its_error_there(self, simulated):
        planned = entrants(12)
        undisturbed, race = (
            simulated(planned={DATA: planned}, diverges_at=at)
            for at in ({}, dict.fromkeys(ids(planned.values(), 2), 20))
        )
        undisturbed.run(), race.run(4)
        assert race.decisions() == undisturbed.decisions()
        assert race.with_status("finished") == set()


def test_a_trial_whose_worker_left_is_not_given_out_again_in_this_run_and_decides_nothing(simulated):
    race = simulated(planned={DATA: entrants(6)}, n_repetitions=1)
    schedule = race.schedule()
    first = schedule.next()
    schedule.ended(TrialReport(first.trial.id, "interrupted", 2))
    given = []
    while (step := schedule.next()) is not None:
        given.append(step.trial.id)
        schedule.ended(race._train(step))
    assert first.trial.id not in given
    assert race.decisions() == {}
    race.run()
    assert len(race.decisions()) == 2


def test_no_trial_is_trained_to_the_end_before_it_is_certain_to_be_a_finalist(simulated):
    """A trial that is trained to the end is evaluated on the test set."""
    for n_workers in (2, 5, 30):
        race = simulated(planned={DATA: entrants(12)})
        schedule = race.schedule()
        ends = set()
        running: list[Step] = []
        while True:
            while len(running) < n_workers and (step := schedule.next()) is not None:
                running.append(step)
                ends |= {step.trial.id} if step.until is None else set()
                assert step.until is None or step.until < 27
            if not running:
                break
            schedule.ended(race._train(running.pop(-1)))  # the last one first
        (bracket,) = schedule.brackets
        assert ends == ids(bracket.own_competing.values(), 2)


class TestFilesThatAreDamaged:
    def test_missing_records_of_a_finished_trial_are_an_error_that_says_what_to_do(self, simulated):
        race = simulated(planned={DATA: entrants(6)}, n_repetitions=1)
        race.run()
        trial_id = sorted(race.with_status("finished"))[0]
        (race.root / "race/val/0-1.json").unlink()
        (race.root / FileNames.in_trial(trial_id, FileNames.RECORDS)).unlink()
        with pytest.raises(StorageError, match=f"records of the finished trial {trial_id} .*remove the trial's"):
            race.schedule()

    def test_records_that_vanish_while_a_race_runs_are_an_error(self, simulated):
        race = simulated(planned={DATA: entrants(6)}, n_repetitions=1)
        schedule = race.schedule()
        step = schedule.next()
        schedule.ended(TrialReport(step.trial.id, "paused", step.until))
        with pytest.raises(StorageError, match="were removed or damaged during the race"):
            schedule.next()
