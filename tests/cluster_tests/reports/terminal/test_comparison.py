from itertools import product

import numpy as np
import pytest
from scipy import stats

from cluster.reports.terminal.comparison import compare_combinations, compare_experiments
from cluster.reports.terminal.comparison_text import (
    combinations_json,
    combinations_text,
    comparison_cells,
    experiments_json,
    experiments_text,
)
from cluster.result_table import ResultTable
from cluster.results.lookup import find_combination, find_repetition
from cluster.results.names import ChoiceError
from cluster.results.results import Results
from cluster.results.statistics import compare
from tests.cluster_tests import results_files
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.results_files import experiment_json, write_raced_results

LR, DIMS, SET = "optimizer_args.lr", "model_args.hidden_dims", "experiment_config.val_set"
ONE = [9.0, 9.1, 9.3, 9.2, 9.4, 9.6, 9.5]
BETTER = [mm - 0.1 * place for place, mm in enumerate(ONE, 1)]
UNLIKE = [mm + (-1) ** place * 0.3 for place, mm in enumerate(ONE)]


@pytest.fixture
def write(tmp_path):
    """Writes an experiment: its combinations, settings of its base by dotted path, fingerprints of data, and seeds."""

    def write(name, combinations, *, base=None, fingerprint="f", seeds=None, with_test=False):
        folder = write_experiment(tmp_path / name, combinations, with_test=with_test)
        content = experiment_json(folder)
        configs = content["configs"]
        configs["experiment_config"] |= {"name": name, "train_set": "a_train", "n_repetitions": 3}
        configs["solver_config"] = {"num_epochs": 10, "verbose": False}
        configs["base_hyperparams"] = {
            "model": {"name": "posenet.models.corrector_mlp.CorrectorMLP"},
            "model_args": {"hidden_dims": [8]},
            "optimizer_args": {"lr": 0.001, "weight_decay": 0},
            "loss_function": {
                "name": "posenet.losses.MetricLoss",
                "args": {"error": {"name": "posenet.errors.coordinate_difference"}, "mode": "absolute"},
            },
        }
        for path, value in (base or {}).items():
            *parents, last = path.split(".")
            target = configs
            for parent in parents:
                target = target[parent]
            target[last] = value
        content["data"] = [
            {"name": each, "size": None, "samples": 100, "fingerprint": fingerprint + each}
            for each in ("a_train", "a_val", "a_test", "b_val")
        ]
        if seeds is not None:
            content["plan"]["seeds"] = seeds
        folder.write_experiment(content)
        return folder

    return write


def compared(first, *others):
    return compare_experiments(Results.read(first), list(map(Results.read, others)))


class TestFindingACombination:
    @pytest.fixture
    def table(self, write):
        return ResultTable.read(write("sweep", [({LR: place}, [20.0 - place]) for place in range(17)]))

    def test_best_is_the_first_of_the_summary(self, table):
        assert find_combination(table, "best") == table.summary[0]
        assert table.summary[0][LR] == 16

    def test_the_beginning_of_a_key_is_enough_where_one_alone_has_it(self, table):
        assert find_combination(table, "000000000000001")["key"] == f"{16:016x}"
        assert find_combination(table, f"{3:016x}")["key"] == f"{3:016x}"

    @pytest.mark.parametrize("wanted", ["", "0", "000000000000000"])
    def test_what_may_be_several_is_an_error_with_some_of_them(self, table, wanted):
        n = 16 if wanted == "000000000000000" else 17
        with pytest.raises(ChoiceError, match=f"sweep has {n} combinations whose keys begin with '{wanted}': 0"):
            find_combination(table, wanted)

    def test_what_is_unknown_is_an_error_with_what_is_near(self, table):
        with pytest.raises(ChoiceError, match="no combination '000000000000000g'; did you mean '0000000000000"):
            find_combination(table, "000000000000000g")
        with pytest.raises(ChoiceError, match="no combination 'xyz'; known: 0000000000000"):
            find_combination(table, "xyz")

    def test_of_many_what_is_unknown_is_an_error_with_ten_short_ones(self, tmp_path):
        table = results_files.results(tmp_path, {f"{n:04x}{n:012x}": ({LR: n}, [9.0]) for n in range(30)})
        with pytest.raises(ChoiceError) as raised:
            find_combination(table, "zzzz")
        known = ", ".join(f"{n:04x}" for n in range(10))
        assert str(raised.value) == f"my sweep has no combination 'zzzz'; known: {known} (`show` has all)"

    @pytest.mark.parametrize("wanted", ["1", "-1", "", "x", "00"])
    def test_a_repetition_that_is_not_there_is_an_error(self, table, wanted):
        assert find_repetition(table, table.summary[0], "0")["key"] == table.summary[0]["key"]
        with pytest.raises(ChoiceError, match=f"has no repetition '{wanted}'; it has only repetition 0"):
            find_repetition(table, table.summary[0], wanted)


class TestTwoExperiments:
    def test_that_are_the_same_but_for_a_setting_have_that_difference(self, write):
        first = write("first", [({LR: lr}, ONE) for lr in (1, 2)])
        second = write("second", [({LR: lr}, ONE) for lr in (1, 2)], base={"solver_config.num_epochs": 20})
        (found,) = compared(first, second)
        assert found.names == ("first", "second")
        assert found.differences == {"solver_config.num_epochs": ("10", "20")}
        assert [pair.options for pair in found.pairs] == [{LR: 1}, {LR: 2}]
        assert found.unpaired == (0, 0)

    def test_that_differ_in_nothing_but_where_and_how_they_ran_have_none(self, write):
        base = {
            "experiment_config.storage_path": "/elsewhere",
            "experiment_config.keep_weights": "best",
            "experiment_config.keep_state": "all",
            "solver_config.verbose": True,
            "solver_config.log_frequency": 7,
        }
        (found,) = compared(write("first", [({LR: 1}, ONE)]), write("second", [({LR: 1}, ONE)], base=base))
        assert found.differences == {}
        assert "The two have the same settings." in experiments_text(found)

    def test_of_one_name_are_told_apart_by_their_folders(self, write):
        first, copy = write("first", [({LR: 1}, ONE)]), write("copy", [({LR: 1}, ONE)])
        copy.write_experiment(experiment_json(first))
        (found,) = compared(first, copy)
        assert found.names == ("first", "copy")

    def test_differ_in_what_an_object_is_and_in_its_arguments(self, write):
        base = {
            "base_hyperparams.loss_function": {
                "name": "posenet.losses.MetricLoss",
                "args": {"error": {"name": "posenet.errors.distance_error"}, "mode": "absolute"},
            },
            "base_hyperparams.model": {"name": "posenet.models.corrector_gnn.CorrectorGNN"},
        }
        (found,) = compared(write("first", [({LR: 1}, ONE)]), write("second", [({LR: 1}, ONE)], base=base))
        assert found.differences == {
            "model": ("CorrectorMLP", "CorrectorGNN"),
            "loss_function.error": ("coordinate_difference", "distance_error"),
        }

    def test_are_paired_by_seed(self, write):
        seeds = [7, 8, 9]
        first = write("first", [({LR: 1}, [9.0, 8.0, 7.0])], seeds=seeds)
        second = write("second", [({LR: 1}, [7.5, 9.75, 5.0])], seeds=[9, 7, 1])
        (found,) = compared(first, second)
        comparison = found.pairs[0].comparison
        assert comparison.n == 2
        assert comparison.difference == pytest.approx(((7.5 - 7.0) + (9.75 - 9.0)) / 2)

    def test_differences_agree_with_scipy(self, write):
        (found,) = compared(write("first", [({LR: 1}, ONE)]), write("second", [({LR: 1}, UNLIKE)]))
        comparison = found.pairs[0].comparison
        reference = stats.ttest_rel(UNLIKE, ONE)
        assert comparison.difference == pytest.approx(np.mean(UNLIKE) - np.mean(ONE))
        low, high = reference.confidence_interval(0.95)
        assert (comparison.interval.low, comparison.interval.high) == pytest.approx((low, high))
        of_signs = stats.permutation_test(
            (UNLIKE, ONE), lambda a, b: np.mean(np.subtract(a, b)), permutation_type="samples", n_resamples=np.inf
        )
        assert comparison.p_value == pytest.approx(of_signs.pvalue)

    def test_repetitions_that_failed_are_in_no_pair(self, write):
        first = write("first", [({LR: 1}, [9.0, "RuntimeError: broken", 7.0])])
        second = write("second", [({LR: 1}, [8.0, 8.0, None])])
        comparison = compared(first, second)[0].pairs[0].comparison
        assert (comparison.n, comparison.difference) == (1, -1.0)

    def test_other_seeds_are_not_compared(self, write):
        first = write("first", [({LR: 1}, [9.0, 8.0])], seeds=[1, 2])
        second = write("second", [({LR: 1}, [9.0, 8.0])], seeds=[3, 4])
        (found,) = compared(first, second)
        assert found.pairs[0].comparison is None
        assert "– instead of a difference" in experiments_text(found)

    def test_other_data_under_the_same_name_are_told_and_not_compared(self, write):
        first = write("first", [({LR: 1}, ONE)], fingerprint="abcdefgh")
        second = write("second", [({LR: 1}, ONE)], fingerprint="stuvwxyz")
        (found,) = compared(first, second)
        assert found.differences["data of a_val"] == ("abcdefgh", "stuvwxyz")
        assert found.pairs[0].comparison is None
        text = experiments_text(found)
        assert "possibly measured on different data" in text
        assert "9.30 ± " in text  # each result is still shown

    def test_data_of_another_name_with_the_same_content_are_compared(self, write):
        first = write("first", [({LR: 1}, ONE)])
        second = write("second", [({LR: 1}, ONE)], base={SET: "b_val"})
        for folder, name in ((first, "a_val"), (second, "b_val")):
            data = [{"name": name, "size": None, "samples": 100, "fingerprint": "same"}]
            folder.write_experiment({**experiment_json(folder), "data": data})
        (found,) = compared(first, second)
        assert found.differences == {SET: ("a_val", "b_val")}
        assert found.pairs[0].comparison.n == len(ONE)

    def test_one_with_a_test_set_and_one_without_are_compared_in_validation(self, write):
        (found,) = compared(write("first", [({LR: 1}, ONE)], with_test=True), write("second", [({LR: 1}, ONE)]))
        assert found.split == "val"
        assert found.pairs[0].comparison.difference == 0


class TestOptions:
    def test_what_both_vary_is_paired_where_it_is_the_same(self, write):
        first = write("first", [({LR: lr}, [float(lr)]) for lr in (1, 2, 3)])
        second = write("second", [({LR: lr}, [float(lr)]) for lr in (5, 3, 2)])
        (found,) = compared(first, second)
        assert found.differences == {LR: ("1, 2, 3", "5, 3, 2")}
        assert [pair.options[LR] for pair in found.pairs] == [2, 3]
        assert all(pair.first[LR] == pair.second[LR] == pair.options[LR] for pair in found.pairs)
        assert found.unpaired == (1, 1)
        assert "Without a counterpart: 1 of first and 1 of second." in experiments_text(found)

    def test_what_both_vary_over_other_values_has_no_counterpart(self, write):
        first = write("first", [({LR: lr}, [9.0]) for lr in (1, 2)])
        second = write("second", [({LR: lr}, [9.0]) for lr in (3, 4)])
        (found,) = compared(first, second)
        assert (found.pairs, found.unpaired) == ([], (2, 2))
        assert "No combination of one has a counterpart in the other." in experiments_text(found)

    def test_what_one_alone_varies_is_paired_with_the_value_that_the_other_has(self, write):
        first = write("first", [({DIMS: dims}, [9.0]) for dims in ("[8]", "[16]")])
        second = write("second", [({LR: lr}, [9.0]) for lr in (0.001, 0.01)])
        (found,) = compared(first, second)
        assert found.differences == {DIMS: ("[8], [16]", "[8]"), LR: ("0.001", "0.001, 0.01")}
        assert [pair.options for pair in found.pairs] == [{DIMS: "[8]", LR: 0.001}]
        assert found.unpaired == (1, 1)

    def test_what_one_alone_varies_over_values_that_the_other_lacks_is_a_difference(self, write):
        first = write("first", [({LR: lr, DIMS: dims}, [9.0]) for lr, dims in product((1, 2), ("[4]", "[16]"))])
        second = write("second", [({LR: lr}, [9.0]) for lr in (1, 2)])
        (found,) = compared(first, second)
        assert found.differences == {DIMS: ("[4], [16]", "[8]")}
        assert [(pair.first[LR], pair.first[DIMS], pair.second[LR]) for pair in found.pairs] == [
            (lr, dims, lr) for lr, dims in product((1, 2), ("[4]", "[16]"))
        ]
        assert found.unpaired == (0, 0)
        lines = [line.split() for line in experiments_text(found).splitlines() if " → " in line]
        assert {tuple(line[:4]) for line in lines} == {
            (lr, dims, "→", "[8]") for lr, dims in product("12", ("[4]", "[16]"))
        }
        assert [pair["unlike"] for pair in experiments_json(found)["pairs"]] == [
            {DIMS: [dims, "[8]"]} for _, dims in product((1, 2), ("[4]", "[16]"))
        ]

    def test_an_option_with_one_value_is_that_value_and_not_the_base(self, write):
        first = write("first", [({LR: 0.5}, [9.0])])
        second = write("second", [({DIMS: "[8]"}, [9.0])])
        (found,) = compared(first, second)
        assert found.differences == {LR: ("0.5", "0.001")}
        (found,) = compared(first, write("third", [({LR: 0.5}, [9.0])], base={"base_hyperparams.optimizer_args.lr": 7}))
        assert found.differences == {}

    def test_a_number_is_the_same_however_it_is_written(self, write):
        decay = "optimizer_args.weight_decay"
        first = write("first", [({decay: value}, [9.0]) for value in (0.0, 1.0)])
        second = write("second", [({LR: value}, [9.0]) for value in (0.001, 0.01)])  # its weight_decay is 0
        (found,) = compared(first, second)
        assert found.differences == {decay: ("0, 1", "0"), LR: ("0.001", "0.001, 0.01")}
        assert [pair.options for pair in found.pairs] == [{decay: 0.0, LR: 0.001}]

    def test_a_set_of_data_may_be_one(self, write):
        first = write("first", [({SET: name}, ONE) for name in ("a_val", "b_val")])
        second = write("second", [({LR: lr}, ONE) for lr in (0.001, 0.01)])
        (found,) = compared(first, second)
        assert [pair.options for pair in found.pairs] == [{SET: "a_val", LR: 0.001}]
        assert found.pairs[0].comparison.n == len(ONE)

    def test_all_pairs_are_told_apart_by_several(self, write):
        combinations = [({LR: lr, DIMS: dims}, [lr + len(dims)]) for lr, dims in product((1.5, 2.5), ("[8]", "[16]"))]
        (found,) = compared(write("first", combinations), write("second", list(reversed(combinations))))
        assert len({tuple(pair.options.values()) for pair in found.pairs}) == len(found.pairs) == 4
        assert all(pair.comparison.difference == 0 for pair in found.pairs)


class TestSignificance:
    def test_is_adjusted_by_holm_for_all_pairs_of_all_experiments(self, write):
        # Eight repetitions, which four comparisons need.
        one, better, unlike = [*ONE, 9.7], [*BETTER, 8.9], [*UNLIKE, 9.4]
        first = write("first", [({LR: lr}, one) for lr in (1, 2)])
        second = write("second", [({LR: 1}, better), ({LR: 2}, unlike)])
        third = write("third", [({LR: 1}, better), ({LR: 2}, better)])
        comparisons = [pair.comparison for found in compared(first, second, third) for pair in found.pairs]
        assert len(comparisons) == 4
        p_values = np.array([c.p_value for c in comparisons])
        ranked = np.argsort(p_values, kind="stable")
        by_hand = np.empty(4)
        by_hand[ranked] = np.minimum(1, np.maximum.accumulate(p_values[ranked] * (4 - np.arange(4))))
        assert [c.p_adjusted for c in comparisons] == pytest.approx(by_hand.tolist())
        assert max(by_hand) > max(p_values) or min(by_hand) > min(p_values)

    def test_has_a_star_where_it_is_clear_and_too_few_where_there_is_no_test(self, write):
        first = write("first", [({LR: 1}, ONE)])
        text = experiments_text(compared(first, write("second", [({LR: 1}, BETTER)]))[0])
        assert "0.016 *" in text
        assert "Holm-adjusted over all pairs;" in text
        text = experiments_text(compared(first, write("third", [({LR: 1}, BETTER[:5])]))[0])
        assert "too few" in text
        assert "Fewer than 6 repetitions in both are too few for a test." in text

    def test_is_unknown_where_no_difference_could_be_significant(self, write):
        first, second, third = (write(name, [({LR: 1}, ONE[:6]), ({LR: 2}, BETTER[:6])]) for name in ("a", "b", "c"))
        found, _ = compared(first, second, third)
        assert [pair.comparison.p_adjusted for pair in found.pairs] == [None] * 2
        text = experiments_text(found)
        assert "Fewer than 8 repetitions in both are too few for 4 tests." in text
        assert "permutation test" not in text

    def test_for_a_script_has_all_of_it(self, write):
        first, second = write("first", [({LR: 1}, ONE)]), write("second", [({LR: 1}, BETTER)])
        (pair,) = experiments_json(compared(first, second)[0])["pairs"]
        assert pair["comparison"] == {
            "n": 7,
            "difference_mm": pytest.approx(-0.4),
            "low_mm": pytest.approx(-0.4 - 2.4469 * np.std(np.arange(7) / 10, ddof=1) / 7**0.5, abs=1e-4),
            "high_mm": pytest.approx(-0.4 + 2.4469 * np.std(np.arange(7) / 10, ddof=1) / 7**0.5, abs=1e-4),
            "p_value": 2 / 2**7,
            "p_adjusted": 2 / 2**7,
            "is_significant": True,
        }

    def test_is_never_shown_as_a_probability_of_zero(self):
        assert comparison_cells(compare([1.0] * 14, [0.0] * 14))[1] == "< 0.001 *"  # 2 / 2^14


class TestTwoCombinations:
    @pytest.fixture
    def folder(self, write):
        """Two trained combinations, and one that was not started."""
        folder = write(
            "sweep",
            [({LR: 1, SET: "a_val"}, ONE), ({LR: 2, SET: "a_val"}, BETTER), ({LR: 3, SET: "b_val"}, [None] * 7)],
        )
        for key, rate in (("0" * 16, 1), (f"{1:016x}", 2)):
            for repetition in range(7):
                trial = folder.trial(f"{key}/{repetition}")
                optimizer = {"name": "torch.optim.adam.Adam", "args": {"lr": rate, "eps": 1e-8, "betas": [0.9, 0.999]}}
                trial.write_trial(trial.read_trial()._replace(description={"optimisation": {"optimizer": optimizer}}))
        return folder

    def test_differ_in_the_settings_of_their_descriptions(self, folder):
        found = compare_combinations(Results.read(folder), ("0" * 16, f"{1:016x}"))
        assert [row["key"] for row in found.rows] == ["0" * 16, f"{1:016x}"]
        assert found.differences == {"optimizer_args.lr": ("1", "2")}
        assert found.comparison.difference == pytest.approx(np.mean(BETTER) - np.mean(ONE))

    def test_the_other_way_round_are_the_opposite(self, folder):
        there, back = (
            compare_combinations(Results.read(folder), keys)
            for keys in (("0" * 16, f"{1:016x}"), (f"{1:016x}", "0" * 16))
        )
        assert there.comparison.difference == -back.comparison.difference
        assert there.comparison.p_value == back.comparison.p_value
        assert {path: texts[::-1] for path, texts in there.differences.items()} == back.differences

    def test_of_which_one_was_not_started_differ_in_their_options_alone(self, folder):
        found = compare_combinations(Results.read(folder), (f"{1:016x}", f"{2:016x}"))
        assert found.differences == {SET: ("a_val", "b_val"), LR: ("2", "3")}
        assert found.comparison is None
        text = combinations_text(found)
        assert text.endswith("Their results are not compared: they may have been measured on different data.")
        assert "interval" not in text

    def test_without_a_repetition_that_finished_in_both_have_no_difference(self, write):
        folder = write("sweep", [({LR: 1}, [9.0]), ({LR: 2}, [None])])
        text = combinations_text(compare_combinations(Results.read(folder), ("0" * 16, f"{1:016x}")))
        assert text.endswith("Their results are not compared: no repetition has finished in both.")

    def test_are_shown_with_their_difference(self, folder):
        text = combinations_text(compare_combinations(Results.read(folder), ("0" * 16, f"{1:016x}")))
        assert f"{1:016x} minus {0:016x}: -0.40 [-0.60, -0.20] mm, p: 0.016 *" in text
        assert "Holm" not in text

    def test_for_a_script_have_all_of_it(self, folder):
        found = combinations_json(compare_combinations(Results.read(folder), ("0" * 16, f"{1:016x}")))
        assert [row["key"] for row in found["combinations"]] == ["0" * 16, f"{1:016x}"]
        assert found["differences"] == {"optimizer_args.lr": ["1", "2"]}
        assert found["comparison"]["n"] == 7

    def test_that_are_one_have_no_difference(self, folder):
        found = compare_combinations(Results.read(folder), (f"{1:016x}", f"{1:016x}"))
        assert (found.differences, found.comparison.difference) == ({}, 0)
        assert "The two have the same settings." in combinations_text(found)


class TestAfterARace:
    @pytest.fixture
    def raced(self, tmp_path):
        return ResultTable.read(write_raced_results(tmp_path / "raced"))

    def test_what_was_dropped_is_in_no_pair_of_results(self, raced):
        [found] = compare_experiments(raced, [raced])
        compared_keys = {pair.first["key"] for pair in found.pairs if pair.comparison is not None}
        assert len(found.pairs) == 6
        assert "c" not in compared_keys  # although one of its repetitions finished
        assert found.raced[0] == "raced: 2 of 6 combinations were trained to the end; the race dropped the others."
        assert found.raced[0] in experiments_text(found)

    def test_two_combinations_are_not_compared_if_one_was_dropped(self, raced):
        found = compare_combinations(raced, ("best", "c"))
        assert found.comparison is None
        assert "the race dropped c." in combinations_text(found)
