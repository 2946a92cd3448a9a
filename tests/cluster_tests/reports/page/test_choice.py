import itertools
import json
import re

import numpy as np
import pytest
from scipy import stats

from cluster.racing.successive_halving import SuccessiveHalving
from cluster.reports.page.choice import choice
from cluster.reports.page.data import PageData
from cluster.results.choice.seeds import variances
from tests.cluster_tests.experiment_files import write_experiment, write_records
from tests.cluster_tests.replayed_race import drawn_curves, write_replayed_race
from tests.cluster_tests.reports.page.test_page import HOSTILE, Document
from tests.cluster_tests.results_files import read_json, write_fold_results, write_json

LR, DECAY = "optimizer_args.lr", "optimizer_args.weight_decay"
N_EPOCHS = 4


def drawn(n=24, n_repetitions=3, spread=1.0, noise=0.05):
    """Draws validation errors, (C, R), in the order of the plan."""
    rng = np.random.default_rng(0)
    of_combinations, of_repetitions = rng.normal(10, spread, (n, 1)), rng.normal(0, 0.1, (1, n_repetitions))
    return of_combinations + of_repetitions + rng.normal(0, noise, (n, n_repetitions))


def write(path, val_mm, test_mm=None):
    """Writes an experiment with these errors; those on the test set are means over repetitions, (C,)."""
    settings = [{LR: i, DECAY: j} for i, j in itertools.product(range(-(-len(val_mm) // 2)), range(2))]
    folder = write_experiment(path / "sweep", list(zip(settings, val_mm.tolist(), strict=False)))
    for place, repetition in np.ndindex(val_mm.shape):
        trial_id = f"{place:016x}/{repetition}"
        write_records(folder, trial_id, [20.0] * (N_EPOCHS - 1) + [val_mm[place, repetition]])
        if test_mm is not None:
            content = read_json(folder.trial(trial_id))
            content["metrics"]["test"]["mean"]["distance"] = float(test_mm[place])
            write_json(folder.trial(trial_id), content)
    return folder


def sections(folder):
    return {re.search(r'id="(\w+)', text)[1]: text for text in choice(PageData.read(folder))}


def words(text):
    return " ".join(Document(text).texts["p"])


class TestOptionsOrChance:
    def test_gives_the_shares_of_all_and_of_the_better_half(self, tmp_path):
        val = drawn()
        text = words(sections(write(tmp_path, val))["seeds"])
        for name, results in (("all 24", val), ("the better half of them (12", val[np.argsort(val.mean(axis=1))[:12]])):
            c, r = results.shape
            residuals = results - results.mean(axis=1, keepdims=True) - results.mean(axis=0) + results.mean()
            error = (residuals**2).sum() / (c - 1) / (r - 1)
            options = results.mean(axis=1).var(ddof=1) - error / r
            seeds = error + max(0, results.mean(axis=0).var(ddof=1) - error / c)
            share = 100 * options / (options + seeds)
            said = re.search(
                rf"Over {re.escape(name)}[^,]*, (\S+) % of the variance .*? and (\S+) % from the seeds", text
            )
            assert [float(number) for number in said.groups()] == pytest.approx([share, 100 - share], abs=0.5)

    def test_says_how_many_repetitions_would_separate_the_best_two(self, tmp_path):
        val = np.array([[10.0, 10.1, 10.2], [10.05, 10.25, 10.15], [11, 11, 11]])
        text = words(sections(write(tmp_path, val))["seeds"])
        # d = 0.05 and s = 0.1, an effect of 0.5: 34 pairs in Cohen's tables and G*Power.
        assert (
            "differ by 0.050 mm on average over 3 repetitions; the difference has a standard deviation of 0.100 mm"
            in text
        )
        assert "about 34 repetitions to separate them with a power of 80 %" in text

    def test_says_that_the_repetitions_suffice(self, tmp_path):
        val = np.array([[10.0, 10.1, 10.2], [12.05, 12.1, 12.25]])
        assert "about 2 repetitions (there are 3) to separate them" in words(sections(write(tmp_path, val))["seeds"])

    def test_says_that_two_are_equally_good_if_no_sensible_number_would_do(self, tmp_path):
        val = np.array([[10.0, 10.1, 10.2], [10.1, 10.0, 10.201]])
        text = words(sections(write(tmp_path, val))["seeds"])
        assert "more than 100 repetitions to separate them: treat them as equally good." in text

    def test_says_that_one_repetition_shows_neither(self, tmp_path):
        text = words(sections(write(tmp_path, drawn(n_repetitions=1)))["seeds"])
        assert text.startswith("Each combination was trained only once, so it is not known")
        assert "%" not in text

    def test_leaves_out_combinations_that_lack_a_repetition(self, tmp_path):
        val = drawn()
        folder = write(tmp_path, val)
        folder.trial(f"{5:016x}/1").remove("trial.json")
        assert "Over all 23 combinations that finished all repetitions, " in words(sections(folder)["seeds"])

    def test_shows_no_shares_of_few_combinations_and_nothing_for_one(self, tmp_path):
        assert "%" not in words(sections(write(tmp_path / "few", drawn(n=5)))["seeds"]).split("The best two")[0]
        assert sections(write(tmp_path / "one", drawn(n=1))) == {}


class TestValidationAndTest:
    def test_gives_rank_and_gap_of_the_best(self, tmp_path):
        val = drawn(spread=0.3)
        test = val.mean(axis=1) + np.random.default_rng(1).normal(2, 0.5, len(val))
        first = val.mean(axis=1).argmin()
        test[first] += 1
        text = sections(write(tmp_path, val, test))["ranks"]
        rank = stats.rankdata(test)[first]
        assert rank > 1
        assert f"On the test set it has rank {rank:g};" in words(text)
        assert f"{test[first] - test.min():.2f} mm lower" in words(text)
        rho = stats.spearmanr(val.mean(axis=1), test).statistic
        assert f"{rho:.2f} over all (24)" in text

    def test_says_that_the_test_set_chooses_nothing(self, tmp_path):
        assert "Do not choose by the test set" in words(sections(write(tmp_path, drawn()))["ranks"])

    def test_says_that_there_is_no_gap(self, tmp_path):
        assert "It also has the lowest error on the test set." in words(sections(write(tmp_path, drawn()))["ranks"])

    def test_is_left_out_without_a_test_set_and_with_few_combinations(self, tmp_path):
        combinations = [({LR: i}, [9.0 + i, 9.1 + i]) for i in range(8)]
        assert "ranks" not in sections(write_experiment(tmp_path / "no_test", combinations, with_test=False))
        assert "ranks" not in sections(write_experiment(tmp_path / "few", combinations[:5]))


class TestWhatASearchCouldSave:
    def test_says_when_the_plan_found_the_best_and_what_a_random_quarter_finds(self, tmp_path):
        val = drawn()
        text = words(sections(write(tmp_path, val))["cost"])
        means = val.mean(axis=1)
        number = means.argmin() + 1
        assert f"All 24 combinations took {24 * 3 * N_EPOCHS} epochs." in text
        assert f"the best one was number {number}, after {100 * number / 24:.0f} % of the epochs." in text
        # By drawing random quarters.
        orders = np.random.default_rng(0).permuted(np.tile(means, (20_000, 1)), axis=1)
        regrets = orders[:, :6].min(axis=1) - means.min()
        half, most = map(
            float, re.search(r"within (\S+) mm of the best of all .* and within (\S+) mm in 95 %", text).groups()
        )
        for said, share in ((half, 0.5), (most, 0.95)):
            assert (regrets <= said + 0.005).mean() >= share - 0.01
            assert (regrets < said - 0.005).mean() <= share + 0.01

    def test_counts_the_epochs_of_each_combination(self, tmp_path):
        folder = write(tmp_path, drawn())
        write_records(folder, f"{0:016x}/0", [20.0] * 100)
        assert f"took {24 * 3 * N_EPOCHS + 100 - N_EPOCHS} epochs" in words(sections(folder)["cost"])

    def test_is_left_out_where_epochs_are_not_known(self, tmp_path):
        folder = write(tmp_path, drawn())
        folder.trial(f"{3:016x}/2").remove("records.parquet")
        assert "cost" not in sections(folder)


def test_each_data_set_has_its_own_sections(tmp_path):
    path = "experiment_config.test_set"
    grid = itertools.product(["one", "two"], range(6))
    combinations = [({path: name, LR: lr}, [9.0 + lr, 9.1 + lr]) for name, lr in grid]
    data = PageData.read(write_experiment(tmp_path / "sweep", combinations))
    found = [re.findall(r'<section id="([^"]+)"', text)[0] for of in data.by_data for text in choice(of)]
    assert found == ["seeds-1", "ranks-1", "seeds-2", "ranks-2"]


def test_a_race_is_no_random_search_and_its_finalists_are_not_all(tmp_path):
    curves, rule = drawn_curves(18, n_diverged=2), SuccessiveHalving(reduction_factor=3, min_finalists=6)
    found = sections(write_replayed_race(tmp_path / "race", curves, rule)[0])
    assert "cost" not in found
    there = np.array([of_one[:, :3].min(axis=1) for of_one in curves.values()])[:-2]  # (C, R)
    share = variances(there).share_of_options
    assert (
        "At epoch 3, the first rung of the race, where all 18 combinations were trained with 3 repetitions, without "
        f"the 2 that diverged, {100 * share:.1f} % of the variance"
    ) in words(found["seeds"])
    assert words(found["seeds"]).count("of the variance") == 1


def test_the_ranks_of_the_few_finalists_of_a_race_are_shown(tmp_path):
    rule = SuccessiveHalving(reduction_factor=3, min_finalists=3, max_cost=0.01)
    folder, *_ = write_replayed_race(tmp_path / "race", drawn_curves(18), rule)
    assert "the best of 3 combinations" in words(sections(folder)["ranks"])


def test_folds_are_one_combination(tmp_path):
    folder = write_fold_results(
        tmp_path / "folds", {lr: [[9.0 + lr, 9.1 + lr], [8.0 + lr, 8.2 + lr]] for lr in range(7)}, [(100, 10), (50, 20)]
    )
    found = sections(folder)
    assert "Over all 7 combinations" in words(found["seeds"])
    assert "the best of 7 combinations" in words(found["ranks"])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_stay_text(tmp_path, hostile):
    combinations = [({hostile: i, "b": hostile if j else "y"}, [9.0 + i + j]) for i in range(4) for j in range(2)]
    found = sections(write_experiment(tmp_path / "sweep", combinations))
    document = Document("".join(found.values()))
    assert {name for name, _ in document.elements} <= {
        *("section", "h2", "p", "figure", "figcaption", "svg", "title", "path", "text", "circle", "span", "div"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    }


def test_numbers_of_the_charts_are_finite(tmp_path):
    for text in sections(write(tmp_path, np.full((8, 2), 9.0))).values():
        assert not re.search(r"nan|inf\b", json.dumps(text))


@pytest.mark.parametrize("odd", [1e300, -1e300, 1e-300, 0.0, -5.0, float("nan"), float("inf")])
@pytest.mark.parametrize("n_odd", [1, 8])
def test_odd_numbers_of_damaged_files_do_no_harm(tmp_path, odd, n_odd):
    val = drawn(n=8)
    val[:n_odd] = odd
    sections(write(tmp_path, val, val.mean(axis=1)))
