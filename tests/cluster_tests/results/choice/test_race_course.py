import math

import numpy as np
import pytest
from scipy import stats

from cluster.racing.successive_halving import SuccessiveHalving
from cluster.results.choice.race_course import race_courses
from cluster.results.combination_logs import read_combination_logs
from cluster.results.results import Results
from tests.cluster_tests.experiment_files import write_records
from tests.cluster_tests.replayed_race import drawn_curves, write_replayed_race
from tests.cluster_tests.results_files import experiment_json, write_fold_results, write_race, write_raced_results


def courses(folder):
    results = Results.read(folder)
    logged = read_combination_logs(folder, results, results.summary, split="val", is_metric=lambda name: False)
    return race_courses(results, logged.curves)


@pytest.fixture(scope="module", params=[None, 1])
def raced(request, tmp_path_factory):
    rule = SuccessiveHalving(reduction_factor=3, first_repetitions=request.param)
    folder, grid, replay = write_replayed_race(tmp_path_factory.mktemp("race"), drawn_curves(24, n_diverged=2), rule)
    (course,) = courses(folder)
    return course, grid, replay


def test_each_course_is_the_mean_of_the_best_so_far_up_to_the_rung_where_it_ends(raced):
    course, grid, replay = raced
    _, second, last = replay.decisions
    for key in course.last:
        end = 27 if key in last.reasons else 9 if key in second.reasons else 3
        pieces = course.pieces(key)
        assert [piece.epochs[-1] for piece in pieces] == [epoch for epoch in (3, 9, 27) if epoch <= end]
        for piece in pieces:
            best = grid.best_mm[key][: piece.n_repetitions].mean(axis=0)
            if math.isfinite(best[0]):
                np.testing.assert_allclose(piece.best_mm, best[piece.epochs.astype(int) - 1])
            else:
                assert piece.best_mm.tolist() == [math.inf]


def test_a_course_never_averages_different_repetitions_in_one_piece(raced):
    course, _, replay = raced
    n_first = len(course.decisions[0].leader.values)
    assert [piece.n_repetitions for piece in course.pieces(replay.winner)] == [n_first, 3, 3]


def test_rungs_count_the_combinations_that_stayed_and_compare_their_orders(raced):
    course, grid, replay = raced
    for rung, decision, after in zip(course.rungs, replay.decisions[:-1], replay.decisions[1:], strict=True):
        assert (rung.n, rung.n_stay) == (len(decision.reasons), len(decision.kept))
        assert rung.n_diverged == list(decision.reasons.values()).count("diverged")
        assert rung.n_close == list(decision.reasons.values()).count("close to the best")
        assert rung.best_mm == pytest.approx(min(decision.means_mm.values()))
        rows = [[of.means_mm[key] for key in decision.kept] for of in (decision, after)]
        assert rung.correlation == pytest.approx(stats.spearmanr(*rows).statistic)
        assert rung.n_correlated == len(decision.kept)
    assert [course.at_the_end(key) for key in replay.decisions[-1].kept] == pytest.approx(
        [grid.final_mm[key] for key in replay.decisions[-1].kept]
    )


def test_the_cost_is_that_of_the_race(raced):
    course, _, replay = raced
    assert course.n_epochs_of_grid == 24 * 3 * 27
    assert course.n_epochs / course.n_epochs_of_grid == pytest.approx(replay.cost)
    assert course.n_epochs_in_vain == 0


def test_epochs_of_a_dropped_combination_beyond_its_rung_are_in_vain(tmp_path):
    folder, _, replay = write_replayed_race(tmp_path / "race", drawn_curves(24), SuccessiveHalving(reduction_factor=3))
    dropped = list(replay.decisions[0].reasons)[-1]
    write_records(folder, f"{dropped}/0", [20.0] * 8)
    (course,) = courses(folder)
    assert course.n_epochs_in_vain == 8 - 3
    assert [piece.epochs[-1] for piece in course.pieces(dropped)] == [3]


def test_combinations_that_left_the_plan_are_left_out(tmp_path):
    folder, _, replay = write_replayed_race(tmp_path / "race", drawn_curves(24), SuccessiveHalving(reduction_factor=3))
    content = experiment_json(folder)
    gone = content["plan"]["combinations"].pop()["key"]
    folder.write_experiment(content)
    (course,) = courses(folder)
    assert gone in replay.decisions[0].reasons
    assert gone not in course.last
    assert course.rungs[0].n == 23


def test_without_records_a_course_has_only_what_the_decisions_say(tmp_path):
    (course,) = courses(write_raced_results(tmp_path))
    assert [piece.epochs.tolist() for piece in course.pieces("c")] == [[1], [3]]
    assert [piece.best_mm.tolist() for piece in course.pieces("c")] == [[9.5], [9.5]]
    assert course.at_the_end("a") is None


def test_over_folds_a_course_has_only_its_rungs_and_its_end_and_costs_all_folds(tmp_path):
    folder = write_fold_results(
        tmp_path, {0.1: [[10.0], [6.0]], 0.2: [["interrupted"], [8.0]]}, [(300, 100), (100, 300)]
    )
    kept, lost = Results.read(folder).folds
    reached = {kept: ([9.0], "best"), lost: ([9.5], "behind")}
    (course,) = courses(write_race(folder, {(0, 0): (3, reached)}, data="hands", n_rungs=2))
    end_mm = (300 * 9 + 100 * 5) / 400  # on the validation set, 1 mm less
    assert [piece.epochs.tolist() for piece in course.pieces(kept)] == [[3], [9]]
    assert [piece.best_mm.tolist() for piece in course.pieces(kept)] == [[9], [end_mm]]
    assert (course.n_epochs, course.n_epochs_of_grid) == (2 * (9 + 3), 2 * 2 * 9)
    assert course.n_epochs_in_vain is None


def test_over_folds_the_end_is_that_of_the_repetitions_that_decide_and_not_of_fresh_ones(tmp_path):
    folder = write_fold_results(tmp_path, {0.1: [[10.0, 20.0], [6.0, 16.0]]}, [(300, 100), (100, 300)])
    (kept,) = Results.read(folder).folds
    write_race(folder, {(0, 0): (3, {kept: ([9.0], "best")})}, data="hands", n_rungs=2, confirm=1)
    (course,) = courses(folder)
    assert course.at_the_end(kept) == (300 * 9 + 100 * 5) / 400  # on the validation set, 1 mm less


def test_repetitions_that_left_the_plan_are_left_out(tmp_path):
    rule = SuccessiveHalving(reduction_factor=3)
    folder, grid, replay = write_replayed_race(tmp_path / "race", drawn_curves(24), rule)
    content = experiment_json(folder)
    content["plan"]["seeds"].pop()
    folder.write_experiment(content)
    (course,) = courses(folder)
    assert course.at_the_end(replay.winner) == pytest.approx(grid.best_mm[replay.winner][:2].mean(axis=0)[-1])
    assert course.n_epochs_of_grid == 24 * 2 * 27


def test_a_grid_has_no_course(tmp_path):
    folder, _, _ = write_replayed_race(tmp_path / "race", drawn_curves(6), SuccessiveHalving(reduction_factor=3))
    content = experiment_json(folder)
    content["configs"]["experiment_config"]["race"] = None
    folder.write_experiment(content)
    assert courses(folder) == []
