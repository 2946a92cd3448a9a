import pytest

from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.terminal.race_replay import replay_races, replays_json, replays_text
from cluster.results.names import ChoiceError
from cluster.results.results import Results
from tests.cluster_tests.experiment_files import write_experiment, write_records
from tests.cluster_tests.results_files import write_fold_results, write_json
from tests.cluster_tests.small_experiment import LR

RULES = [SuccessiveHalving(reduction_factor=3)]
N_EPOCHS = 30


def curve(final_mm):
    return [final_mm + 20 * 0.7**epoch for epoch in range(1, N_EPOCHS + 1)]


def experiment(path, n_combinations=9, *, left_out=()):
    """An experiment whose first combinations are better at each epoch; some were not trained."""
    outcomes = [[None, None] if place in left_out else [10.0 + place, 10.1 + place] for place in range(n_combinations)]
    folder = write_experiment(path, [({LR: 0.1 * (1 + place)}, of) for place, of in enumerate(outcomes)])
    for place, of in enumerate(outcomes):
        for repetition, mm in enumerate(of):
            if mm is not None:
                write_records(folder, f"{place:016x}/{repetition}", curve(mm))
    return folder


def test_a_combination_that_diverged_in_its_first_epoch_is_raced_too(tmp_path):
    folder = experiment(tmp_path / "sweep", left_out=[8])
    for repetition in range(2):
        write_json(folder.trial(f"{8:016x}/{repetition}"), {"status": "diverged", "error": "the loss is nan"})
    (found,) = replay_races(Results.read(folder), RULES)
    assert found.n_left_out == 0
    assert found.races[0][1].decisions[0].reasons[f"{8:016x}"] == "diverged"


def test_says_what_a_race_costs_and_that_it_finds_the_best(tmp_path):
    (found,) = replay_races(Results.read(experiment(tmp_path / "sweep")), RULES)
    ((_, race),) = found.races
    # Nine combinations train 3 epochs, and three train all 30: the rung after 10 drops none of the finalists.
    assert race.cost == pytest.approx((6 * 3 + 3 * 30) / (9 * 30))
    assert (race.winner, race.val_regret_mm, race.test_regret_mm) == ("0" * 16, 0.0, 0.0)
    text = replays_text("sweep", [found])
    assert "9 combinations × 2 repetitions. Best of the grid in validation: lr 0.1, 10.05 mm." in text
    row = next(line.split() for line in text.splitlines() if line.startswith("factor 3"))
    assert row == ["factor", "3", "3,", "10,", "30", "40.0", "3", "yes", "0.00", "0.00"]
    assert text.count("\n") < 20


def test_leaves_out_what_was_not_trained_completely_and_says_so(tmp_path):
    (found,) = replay_races(Results.read(experiment(tmp_path / "sweep", left_out=[0, 4])), RULES)
    assert found.grid.winner == f"{1:016x}"
    assert "2 combinations left out, because not all repetitions finished." in replays_text("sweep", [found])


def test_a_diverged_trial_is_the_worst_and_its_curve_ends_there(tmp_path):
    folder = experiment(tmp_path / "sweep")
    trial = folder.trial(f"{0:016x}/1")
    trial.write_trial(trial.read_trial()._replace(status="diverged", metrics={}, error="the loss is nan"))
    write_records(folder, f"{0:016x}/1", curve(10.1)[:5])
    (found,) = replay_races(Results.read(folder), RULES)
    assert found.grid.winner == f"{1:016x}"
    assert f"{0:016x}" in found.races[0][1].decisions[0].kept  # it was best then
    assert found.races[0][1].decisions[1].reasons[f"{0:016x}"] == "diverged"


def test_folds_race_as_one_combination_by_their_mean_over_frames(tmp_path):
    """Of 10 and 30 validation frames: 0.1 is the best on the first fold, 0.2 in the mean; a fold of 0.3 diverges."""
    finals = {0.1: (8.0, 14.0), 0.2: (12.0, 12.0), 0.3: (7.0, 7.0)}
    outcomes = {lr: [[first], [second]] for lr, (first, second) in finals.items()}
    outcomes[0.3][1] = ["diverged"]
    folder = write_fold_results(tmp_path, outcomes, [(10, 20), (30, 40)])
    for lr, of in finals.items():
        for fold, mm in enumerate(of, 1):
            write_records(folder, f"{lr}-{fold}/0", curve(mm)[: 20 if outcomes[lr][fold - 1] == ["diverged"] else None])
    results = Results.read(folder)
    (found,) = replay_races(results, [SuccessiveHalving(reduction_factor=3, min_finalists=2)])
    assert results.described[found.grid.winner] == {"lr": "0.2"}
    assert list(found.grid.final_mm.values()) == [
        pytest.approx(12 + 20 * 0.7**30),
        pytest.approx((10 * 8 + 30 * 14) / 40 + 20 * 0.7**30),
        float("inf"),
    ]
    decisions = found.races[0][1].decisions
    means = {results.described[key]["lr"]: mm for key, mm in decisions[1].means_mm.items()}
    assert means == {"0.3": pytest.approx(7 + 20 * 0.7**10), "0.2": pytest.approx(12 + 20 * 0.7**10)}
    assert list(decisions[2].reasons.values()) == ["best", "diverged"]


def test_equivalent_rules_are_shown_once_and_rules_that_decide_nothing_are_not_shown(tmp_path):
    results = Results.read(experiment(tmp_path / "sweep"))
    rules = [SuccessiveHalving(reduction_factor=3, min_epochs=n) for n in (2, 3, 29)]
    (found,) = replay_races(results, rules)
    assert [race["epochs"] for race in replays_json([found])[0]["races"]] == [[3, 10, 30]]
    with pytest.raises(ChoiceError, match="trials of 30 epochs are too short for a race whose first rung is at epoch"):
        replay_races(results, rules[2:])


def test_the_label_has_the_repetitions_that_a_rule_really_uses_at_first(tmp_path):
    results = Results.read(experiment(tmp_path / "sweep"))
    for n, used in ((5, "2 repetitions"), (1, "1 repetition")):
        found = replay_races(results, [SuccessiveHalving(reduction_factor=3, first_repetitions=n)])
        assert f"factor 3, {used} at first" in replays_text("sweep", found)


def test_says_how_often_a_random_choice_has_only_combinations_that_diverged(tmp_path):
    folder = experiment(tmp_path / "sweep", left_out=range(3, 9))
    for place in range(3, 9):
        for repetition in range(2):
            write_json(folder.trial(f"{place:016x}/{repetition}"), {"status": "diverged", "error": "the loss is nan"})
    text = replays_text("sweep", replay_races(Results.read(folder), RULES))
    # Three of nine are chosen: 20 of 84 draws have none of the first three.
    assert "In 23.8 % of draws, the random choice has only combinations that diverged; its regret is the mean" in text
    assert " inf" not in text


def test_an_experiment_whose_combinations_all_diverged_cannot_be_replayed(tmp_path):
    folder = experiment(tmp_path / "sweep", 3)
    for place in range(3):
        trial = folder.trial(f"{place:016x}/1")
        trial.write_trial(trial.read_trial()._replace(status="diverged", metrics={}, error="the loss is nan"))
        write_records(folder, f"{place:016x}/1", curve(10.1)[:5])
    with pytest.raises(ChoiceError, match="and for one of them all finished"):
        replay_races(Results.read(folder), RULES)


def test_an_experiment_without_complete_combinations_cannot_be_replayed(tmp_path):
    folder = experiment(tmp_path / "sweep", 3, left_out=[0, 1])
    with pytest.raises(ChoiceError, match="no race can be replayed on sweep: this needs at least two combinations"):
        replay_races(Results.read(folder), RULES)
