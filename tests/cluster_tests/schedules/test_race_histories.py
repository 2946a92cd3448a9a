"""A script that changes from run to run: its race decides the same with any number of workers and after any kill."""

import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.racing.decision_file import read_decisions
from cluster.racing.dropped import dropped_combinations, for_longer
from cluster.racing.successive_halving import SuccessiveHalving
from cluster.schedules.planned_brackets import stands_for
from tests.cluster_tests.schedules.simulated_race import DATA, SimulatedRace, entrant


def a_rule(rng):
    return SuccessiveHalving(
        reduction_factor=rng.choice([2, 3]),
        min_epochs=rng.choice([1, 2]),
        min_finalists=rng.choice([1, 2, 3]),
        max_cost=rng.choice([0.25, 0.5, 1.0]),
    )


def a_history(seed):
    """Returns the plans of some runs: combinations with epochs, repetitions, rule, and decisions until the run ends."""
    rng = random.Random(seed)
    combinations = [(name, 8) for name in range(rng.randrange(4, 12))]
    n_repetitions, rule, history = rng.choice([1, 2]), a_rule(rng), []
    for _ in range(rng.randrange(2, 6)):
        history.append((tuple(combinations), n_repetitions, rule, rng.choice([None, 1, 2])))
        for _ in range(rng.randrange(1, 3)):
            match rng.randrange(7):
                case 0:
                    first = 100 * len(history)
                    combinations += [(first + i, rng.choice([8, 16])) for i in range(rng.randrange(1, 7))]
                case 1:
                    combinations = [one for one in combinations if rng.random() < 0.7] or combinations
                case 2:
                    combinations = [(name, 2 * epochs) for name, epochs in combinations]
                case 3:
                    earlier = list(rng.choice(history)[0])
                    combinations = [*dict.fromkeys([*combinations, *earlier])] if rng.random() < 0.6 else earlier
                case 4:
                    n_repetitions = rng.choice([1, 2, 3])
                case 5:
                    rule = a_rule(rng)
                case 6:
                    combinations += [(name, 2 * epochs) for name, epochs in combinations]
                    combinations = [*dict.fromkeys(combinations)][:16]
    return [*history, (tuple(combinations), n_repetitions, rule, None)]


def runs(history, root):
    """Yields the race of each run of a history, and the number of decisions at which the run is killed."""
    race = SimulatedRace(root, {})
    for combinations, n_repetitions, rule, n_more in history:
        made = [entrant(f"c{name}", epochs) for name, epochs in combinations]
        race = replace(race, planned={DATA: {one.key: one for one in made}}, n_repetitions=n_repetitions, rule=rule)
        yield race, {} if n_more is None else {"n_decisions": len(race.decisions()) + n_more}


def decisions_after_each_run(history, root, n_workers, kills):
    """Returns the files of decisions after each run; with `kills`, each is killed and started again until it ends."""
    found = []
    for race, limit in runs(history, root):
        is_over = False
        while not is_over:
            stop_after = {"stop_after": kills.randrange(1, 12)} if kills is not None else {}
            schedule = race.run(n_workers, **stop_after, **limit)
            is_over = schedule.is_over or len(race.decisions()) >= limit.get("n_decisions", 10**9)
        found.append(race.decisions())
    return found


@pytest.mark.parametrize(("n_workers", "is_killed"), [(4, False), (3, True)])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)  # each trains many races
def test_does_not_depend_on_workers_and_kills(n_workers, is_killed, seed):
    history = a_history(seed)
    with TemporaryDirectory() as name:
        usual = decisions_after_each_run(history, Path(name) / "usual", 1, None)
        other = decisions_after_each_run(
            history, Path(name) / "other", n_workers, random.Random(seed) if is_killed else None
        )
    assert other == usual


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)  # each trains many races
def test_tables_show_as_dropped_what_the_race_has_dropped(seed):
    with TemporaryDirectory() as name:
        for race, limit in runs(a_history(seed), Path(name)):
            shorter = stands_for(race.brackets())
            race.run(3, **limit)
            decisions = for_longer(read_decisions(race.folder.storage)[0], shorter, {})
            shown = dropped_combinations(decisions, dict.fromkeys(race.planned[DATA], (DATA.name, DATA.size)))
            dropped = [bracket.entrants.keys() - bracket.own_competing.keys() for bracket in race.brackets()]
            assert shown.keys() == set().union(*dropped)
