"""Brackets: which combinations compete when the plan, the rule or the files of a race change."""

import json
import shutil
from dataclasses import replace

import pytest

from cluster.racing.decision_file import read_decisions
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.schedules.brackets import Data
from cluster.schedules.decision_checks import RaceError
from cluster.schedules.planned_brackets import open_brackets, stands_for
from cluster.schedules.race_plan import planned_rungs
from cluster.storage.file_names import FileNames
from tests.cluster_tests.schedules.simulated_race import DATA, SimulatedRace, entrant, entrants


@pytest.fixture
def race(tmp_path):
    """A race of twelve combinations for 27 epochs, with two repetitions: rungs at epochs 3, 9 and 27."""
    return SimulatedRace(tmp_path / "race", {DATA: entrants(12)})


@pytest.fixture(scope="module")
def two_brackets(tmp_path_factory):
    """A completed race with two brackets. Tests must not change it."""
    race = SimulatedRace(tmp_path_factory.mktemp("two"), {DATA: entrants(12)})
    race.run()
    race.planned = {DATA: entrants(20)}
    race.run()
    return race


def finalists(race, number=0):
    """The keys of the planned finalists of a bracket."""
    return set(race.brackets()[number].own_competing)


def names(n, num_epochs, start=0):
    return set(entrants(n, num_epochs, start=start))


class TestMoreCombinations:
    def test_compete_with_the_finalists_in_a_new_bracket_and_old_decisions_stand(self, race):
        race.run()
        before, first = race.decisions(), finalists(race)
        race.planned = {DATA: entrants(20)}
        schedule = race.run(3)
        after = race.decisions()
        assert before.items() <= after.items()
        assert sorted(after) == ["val/0-0.json", "val/0-1.json", "val/1-0.json", "val/1-1.json"]
        listed = {one["key"] for one in json.loads(after["val/1-0.json"])["combinations"]}
        assert listed == first | names(8, 27, start=12)
        assert first == set(schedule.brackets[0].own_competing)
        assert not schedule.brackets[1].own_competing.keys() & first

    def test_before_the_first_decision_join_the_same_bracket(self, race):
        race.planned = {DATA: entrants(5)}
        race.run(stop_after=8)
        race.planned = {DATA: entrants(12)}
        race.run()
        assert sorted(race.decisions()) == ["val/0-0.json", "val/0-1.json"]

    def test_wait_for_the_finalists_of_an_undecided_bracket(self, race):
        race.run(stop_after=26)
        assert sorted(race.decisions()) == ["val/0-0.json"]
        race.planned = {DATA: entrants(20)}
        files = []
        for n_workers in (1, 16):
            copy = SimulatedRace(race.root.with_name(f"copy{n_workers}"), race.planned)
            shutil.copytree(race.root, copy.root)
            copy.statuses, copy.epochs = dict(race.statuses), dict(race.epochs)
            copy.run(n_workers)
            assert copy.with_status("finished") == {
                f"{key}/{r}" for bracket in copy.brackets() for key in bracket.own_competing for r in range(2)
            }
            files.append(copy.decisions())
        assert files[0] == files[1]
        assert len(files[0]) == 4

    def test_may_train_much_longer_than_the_finalists_that_they_compete_with(self, tmp_path):
        """A rung at 1/243 of 12 epochs is at epoch 1, since a rung is never earlier."""
        files = []
        for n_workers in (1, 16):
            race = SimulatedRace(tmp_path / str(n_workers), {DATA: entrants(6, 12)})
            race.run(stop_after=15)
            race.planned = {DATA: entrants(6, 12) | entrants(6, 729, start=6)}
            race.run(n_workers)
            files.append(race.decisions())
        assert files[0] == files[1]
        guests = names(6, 12)
        of_bracket = [json.loads(files[0][f"val/1-{rung}.json"])["combinations"] for rung in range(5)]
        assert {one["epoch"] for competitors in of_bracket[:3] for one in competitors if one["key"] in guests} == {1}


class TestRepetitions:
    def test_added_later_are_trained_for_the_finalists_and_change_no_decision(self, race):
        race.run()
        before = race.decisions()
        race.n_repetitions = 5
        race.run()
        assert race.decisions() == before
        assert race.with_status("finished") == {f"{key}/{r}" for key in finalists(race) for r in range(5)}

    @pytest.mark.parametrize("n_before", [2, 26])
    def test_may_become_fewer(self, race, n_before):
        race.run(stop_after=n_before)
        race.n_repetitions = 1
        race.run()
        assert len(race.decisions()) == 2
        assert {f"{key}/0" for key in finalists(race)} == race.with_status("finished")


class TestMoreEpochs:
    @pytest.mark.parametrize("n_before", [26, 1000])
    def test_of_the_same_course_take_the_place_of_the_shorter_training(self, race, n_before):
        race.run(stop_after=n_before)
        before = race.decisions()
        stood = {
            one["key"] for one in json.loads(list(before.values())[-1])["combinations"] if one["reason"] != "behind"
        }
        race.planned = {DATA: entrants(12, 81)}
        race.run(3)
        assert before.items() <= race.decisions().items()
        assert sorted(race.decisions()) == ["val/0-0.json", "val/0-1.json"]
        # The names of both are the same: only the epochs differ.
        long = dict(zip(entrants(12, 27), entrants(12, 81), strict=True))
        assert finalists(race)
        assert finalists(race) <= {long[key] for key in stood}
        assert {f"{key}/{r}" for key in finalists(race) for r in range(2)} <= race.with_status("finished")
        race.run()  # again: nothing changes
        assert before.items() <= race.decisions().items()

    def test_planned_next_to_the_shorter_trainings_compete_alongside_them(self, race):
        race.run(stop_after=26)
        race.planned = {DATA: entrants(12) | entrants(12, 81)}
        race.run(4)
        assert sorted(race.decisions()) == ["val/0-0.json", "val/0-1.json"]
        (bracket,) = race.brackets()
        listed = {competitor.key: competitor.stays for competitor in bracket.decisions[1].combinations}
        assert set(bracket.own_competing) == {key for key, stays in listed.items() if stays}
        assert len(listed) == 2 * len(bracket.decisions[0].stay)

    def test_in_the_middle_leave_the_earlier_rungs_as_they_were(self, race):
        race.run(stop_after=26)
        race.planned = {DATA: entrants(12, 81)}
        race.run(3)
        (bracket,) = race.brackets()
        first, second, last = planned_rungs(bracket)
        assert (first.n_combinations, first.epochs, first.n_epochs) == (12, (3, 3), 2 * 12 * 3)
        assert (second.n_combinations, second.epochs) == (4, (27, 27))
        assert (last.n_combinations, last.epochs) == (len(bracket.own_competing), (81, 81))

    def test_twice_leave_the_earlier_rungs_as_they_were(self, race):
        race.run(stop_after=26)
        race.planned = {DATA: entrants(12, 81)}
        race.run(n_decisions=2)
        race.planned = {DATA: entrants(12, 243)}
        (bracket,) = race.brackets()
        first, second, last = planned_rungs(bracket)
        assert (first.n_combinations, first.epochs) == (12, (3, 3))
        assert (second.n_combinations, second.epochs) == (4, (27, 27))
        assert (last.n_combinations, last.epochs) == (len(bracket.decisions[-1].stay), (243, 243))
        chain = stands_for([bracket])
        for short, medium, long in zip(entrants(12, 27), entrants(12, 81), entrants(12, 243), strict=True):
            raced = medium in {competitor.key for competitor in bracket.decisions[1].combinations}
            assert (chain[long], chain.get(medium)) == ((medium, short) if raced else (short, None))

    def test_of_finalists_leave_them_guests_of_later_brackets(self, race):
        race.run()
        race.planned = {DATA: entrants(12, 81) | entrants(8, 81, start=12)}
        race.run(n_decisions=3)
        first, second = race.brackets()
        assert second.entrants.keys() == names(8, 81, start=12)
        assert second.guests == first.own_competing
        assert second.guests

    def test_of_ten_thousand_combinations_in_the_middle_of_a_race_are_found_at_once(self, tmp_path):
        """In seconds: comparing each with all others took a minute."""
        race = SimulatedRace(tmp_path / "race", {DATA: entrants(10_000)}, n_repetitions=1)
        (bracket,) = race.brackets()
        decision = bracket.decide({key: [float(i)] for i, key in enumerate(bracket.entrants)})
        (longer,) = open_brackets({DATA: entrants(10_000, 81)}, [decision], race.rule, 1)
        assert len(longer.own_competing) == len(decision.stay)
        assert len(stands_for([longer])) == 10_000

    def test_that_change_the_course_open_a_new_bracket(self, race):
        race.run()
        before = race.decisions()
        race.planned = {DATA: entrants(12, start=50)}
        race.run()
        assert before.items() <= race.decisions().items()
        listed = {one["key"] for one in json.loads(race.decisions()["val/1-0.json"])["combinations"]}
        assert listed == set(race.planned[DATA])


def test_a_thousand_rounds_of_a_search_are_a_thousand_brackets():
    rule = SuccessiveHalving(min_epochs=27)  # so these decide nothing
    brackets = open_brackets({DATA: entrants(1000)}, [], rule, 1, round_size=1)
    assert len(brackets) == 1000
    assert all(bracket.is_decided for bracket in brackets)


class TestFewerCombinations:
    def test_let_the_others_continue(self, race):
        race.run(stop_after=26)
        keep = dict(list(entrants(12).items())[:9])
        race.planned = {DATA: keep}
        race.run()
        (bracket,) = race.brackets()
        assert len(bracket.decisions) == 2
        assert finalists(race) <= keep.keys()

    def test_that_come_back_compete_again_if_the_race_continued_without_them(self, race):
        race.run(stop_after=26)
        (bracket,) = race.brackets()
        gone = next(iter(bracket.own_competing))
        race.planned = {DATA: {key: one for key, one in entrants(12).items() if key != gone}}
        race.run()
        before = race.decisions()
        race.planned = {DATA: entrants(12)}
        race.run()
        assert before.items() <= race.decisions().items()
        assert list(race.brackets()[1].entrants) == [gone]
        assert gone in {one["key"] for one in json.loads(race.decisions()["val/1-0.json"])["combinations"]}

    @pytest.mark.parametrize("n_workers", [1, 16])
    def test_that_come_back_after_a_later_bracket_has_ended_change_nothing_there(self, race, n_workers):
        race.run(stop_after=26)
        race.planned = {DATA: entrants(8, start=12)}
        race.run()
        before = race.decisions()
        race.planned = {DATA: entrants(20)}
        race.run(n_workers)
        assert race.decisions().keys() - before.keys() == {"val/0-1.json"}
        assert before.items() <= race.decisions().items()

    def test_that_come_back_remain_dropped_if_they_were(self, race):
        race.run()
        before, first = race.decisions(), finalists(race)
        race.planned = {DATA: {key: one for key, one in entrants(12).items() if key in first}}
        race.run()
        race.planned = {DATA: entrants(12)}
        race.run()
        assert race.decisions() == before
        assert finalists(race) == first


def test_a_new_rule_applies_only_to_brackets_that_have_decided_nothing_yet(race):
    race.run(stop_after=26)
    race.rule = SuccessiveHalving(reduction_factor=2, min_finalists=1)
    race.run()
    race.planned = {DATA: entrants(20)}
    race.run()
    rules = [bracket.rule for bracket in race.brackets()]
    assert rules == [SuccessiveHalving(reduction_factor=3), race.rule]
    assert [len(bracket.decisions) for bracket in race.brackets()] == [2, 3]


def test_each_validation_data_has_its_own_race(race):
    other = Data("val", 50)
    race.planned = {DATA: entrants(8), other: entrants(8, start=8)}
    race.run(4)
    assert sorted(race.decisions()) == ["val/0-0.json", "val/0-1.json", "val@50/0-0.json", "val@50/0-1.json"]
    assert [bracket.data for bracket in race.brackets()] == [DATA, other]


EDITS = {
    "a reason to be dropped": (
        "0-0.json",
        lambda file, every: every[0].update(reason="behind"),
        "'behind', but should be 'best'",
    ),
    "a reason to stay": (
        "0-1.json",
        lambda file, every: every[-1].update(reason="best"),
        "the reason for .* is 'best'",
    ),
    "a guest": (
        "0-1.json",
        lambda file, every: every[-1].update(reason="earlier finalist"),
        "no earlier decision let it stay",
    ),
    "a value": ("0-0.json", lambda file, every: every[-1].update(values=["0x1.0p+0"] * 2), "the reason for"),
    "the order": ("0-0.json", lambda file, every: every.reverse(), "the order of the combinations is"),
    "an epoch": ("0-0.json", lambda file, every: every[5].update(epoch=4), "the epoch of .* is 4, but should be 3"),
    "a key": ("0-1.json", lambda file, every: every[0].update(key="a" * 16), "a{16} competes, but no earlier decision"),
    "the rungs of all": ("0-0.json", lambda file, every: file.update(n_rungs=5), "the epoch of .* is 3"),
    "the rungs of one": ("0-1.json", lambda file, every: file.update(n_rungs=4), "n_rungs does not match"),
    "the rule": ("0-1.json", lambda file, every: file["rule"].update(min_finalists=9), "rule does not match"),
    "the allowed cost": ("0-0.json", lambda file, every: file.update(n_epochs_allowed=10**6), "n_epochs_allowed is"),
    "repetitions": ("0-0.json", lambda file, every: file.update(n_repetitions=9), "n_epochs_allowed is"),
    "a meaningless rule": (
        "1-0.json",
        lambda file, every: file["rule"].update(max_cost=7),
        "its rule is not valid",
    ),
    "a rule of another kind": ("1-0.json", lambda file, every: file.update(rule={"eta": 3}), "its rule is not valid"),
}


class TestFilesOfDecisions:
    @pytest.fixture
    def decided(self, two_brackets, tmp_path):
        """A copy of the race in a folder that a test may change."""
        shutil.copytree(two_brackets.root, tmp_path / "decided")
        return replace(two_brackets, root=tmp_path / "decided")

    def edit(self, race, name, change):
        path = race.root / FileNames.RACE_FOLDER / DATA.name / name
        content = json.loads(path.read_text())
        change(content, content["combinations"])
        path.write_text(json.dumps(content))

    @pytest.mark.parametrize("what", EDITS)
    def test_that_were_edited_are_an_error_that_names_the_file_and_what_to_do(self, decided, what):
        name, change, problem = EDITS[what]
        self.edit(decided, name, change)
        with pytest.raises(RaceError, match=problem) as error:
            decided.brackets()
        assert str(error.value).startswith(f"race/val/{name[0]}-")
        assert "remove the folder race/; the next run then makes all decisions again" in str(error.value)

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("0-0.json", "race/val/0-1.json: the decision of rung 0 of its bracket is missing"),
            ("1-0.json", "race/val/1-1.json: the decision of rung 0 of its bracket is missing"),
        ],
    )
    def test_that_are_missing_in_the_middle_are_an_error(self, decided, name, problem):
        (decided.root / "race/val" / name).unlink()
        with pytest.raises(RaceError, match=problem):
            decided.brackets()

    def test_that_are_missing_for_a_whole_bracket_are_an_error(self, decided):
        for name in ("0-0.json", "0-1.json"):
            (decided.root / "race/val" / name).unlink()
        with pytest.raises(RaceError, match=r"race/val/1-0.json: the decisions of bracket 0 are missing"):
            decided.brackets()

    def test_that_are_missing_at_the_end_are_made_again(self, decided):
        before = decided.decisions()
        (decided.root / "race/val/1-1.json").unlink()
        decided.run()
        assert decided.decisions() == before

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[]", b"\xff", b"null", b"[" * 10**5, b'{"n_rungs": 1e999}'],
    )
    def test_that_contain_no_decision_are_problems_that_name_the_file(self, decided, content):
        (decided.root / "race/val/0-1.json").write_bytes(content)
        _, problems = read_decisions(decided.folder.storage)
        assert [problem.partition(": ")[0] for problem in problems] == ["race/val/0-1.json"]

    @pytest.mark.parametrize(
        "field", ["data", "bracket", "rung", "n_rungs", "n_epochs_allowed", "rule", "combinations"]
    )
    def test_with_a_meaningless_field_are_problems_or_errors_and_never_take_long(self, decided, field):
        content = decided.decisions()["val/0-0.json"]
        for value in (None, -1, 10**9, 10**400, "x", [], {}, 0.5):
            (decided.root / "race/val/0-0.json").write_text(json.dumps({**json.loads(content), field: value}))
            _, problems = read_decisions(decided.folder.storage)
            if not problems:
                with pytest.raises(RaceError, match="race/val/0-"):
                    decided.brackets()

    def test_that_are_all_removed_are_made_again_from_the_trials(self, race):
        race.run(3)
        before = race.decisions()
        shutil.rmtree(race.root / FileNames.RACE_FOLDER)
        race.run(3)
        assert race.decisions() == before


class TestFilesOfTrials:
    def test_whose_records_were_edited_are_an_error_that_names_the_trial(self, race):
        race.run()
        (bracket,) = race.brackets()
        dropped = bracket.decisions[0].combinations[-1].key
        usual = race.curve
        race.curve = lambda trial_id, n: [value + 0.001 for value in usual(trial_id, n)]
        race._train_until(f"{dropped}/1", 0)
        with pytest.raises(RaceError, match=f"validation error of .* mm for trial {dropped}/1 at epoch 3, but"):
            race.schedule()

    @pytest.mark.parametrize("is_finalist", [True, False])
    def test_that_were_removed_are_trained_again_only_for_finalists(self, race, is_finalist):
        race.run()
        before = race.decisions()
        key = next(key for key in race.planned[DATA] if (key in finalists(race)) == is_finalist)
        shutil.rmtree(race.root / FileNames.TRIALS_FOLDER / key)
        race.statuses = {trial_id: of for trial_id, of in race.statuses.items() if not trial_id.startswith(key)}
        race.epochs = {trial_id: n for trial_id, n in race.epochs.items() if not trial_id.startswith(key)}
        race.trained.clear()
        race.run(2)
        assert race.decisions() == before
        assert {trial_id for trial_id, _, _ in race.trained} == ({f"{key}/0", f"{key}/1"} if is_finalist else set())


def test_an_entrant_with_folds_has_the_mean_over_all_frames():
    one = entrant("c", 27, n_folds=2)
    assert one.over_folds([1.0, 4.0]) == (100 * 1 + 200 * 4) / 300
