"""The paragraph for the methods section of a paper."""

import pytest

from cluster.reports.methods import methods_paragraph
from cluster.results.results import Results
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.results_files import (
    experiment_json,
    write_fold_results,
    write_race,
    write_raced_results,
    write_results,
)


def paragraph(folder):
    return methods_paragraph(Results.read(folder))


class TestTheParagraph:
    @pytest.fixture
    def raced(self, tmp_path):
        return paragraph(write_raced_results(tmp_path))

    def test_names_the_options_and_their_values_and_the_repetitions_that_were_trained(self, raced):
        """Combinations that were dropped at the first rung have one repetition, the others two."""
        options = "All 6 combinations of lr (0.1, 0.2, 0.3) and dim (8, 16)"
        assert raced.startswith(f"{options} were compared, each with 1 to 2 repetitions.")

    def test_says_what_was_decided_at_each_rung(self, raced):
        assert "over epochs with a reduction factor of 3: after epoch 1, 4 of 6 combinations stayed (1 rep" in raced
        assert "; after epoch 3, 2 of 4 combinations stayed (2 repetitions)." in raced

    def test_has_the_epochs_of_the_race_relative_to_those_of_the_grid(self, raced):
        """Two combinations to epoch 9 and two to epoch 3, twice each; two to epoch 1 once: 50 of 6 x 9 x 2 = 108."""
        assert "2 combinations were trained to the end; the race takes 46 % of the epochs" in raced

    def test_says_what_was_chosen_on_which_data(self, raced):
        chosen = "lowest mean distance on the validation set hands_val (1,234 frames) was chosen: lr 0.1, dim 8 (5.50"
        assert chosen in raced
        assert (
            "On the test set hands_test (1,234 frames), which played no part in this choice, it reaches 6.50" in raced
        )

    def test_of_a_grid_says_nothing_of_a_race(self, tmp_path):
        text = paragraph(write_experiment(tmp_path / "sweep", [({"lr": 1}, [9.0, 8.0]), ({"lr": 2}, [7.0, 8.0])]))
        assert "race" not in text
        assert "was chosen: lr 2 (7.50 ± 0.71 mm" in text
        assert "Trained with Python 3.11." in text
        assert "Commit of the repository of the script: 0123abc." in text

    def test_has_values_in_the_order_of_the_script_without_those_that_do_not_apply(self, tmp_path):
        axes = [
            {"paths": ["model"], "rows": [["mlp"], ["gnn"]]},
            {"paths": ["dim"], "rows": [[4], [8]], "when": [[0, [1]]]},
        ]
        proposed = [({"model": model, "dim": dim}, [9.0]) for model, dim in (("gnn", 8), ("gnn", 4), ("mlp", "–"))]
        text = paragraph(write_experiment(tmp_path / "sweep", proposed, axes=axes))
        options = "model (mlp, gnn) and dim (4, 8; only for model gnn)"
        assert text.startswith(f"3 combinations of {options} were compared, each with 1 repetition.")

    def test_of_several_data_sets_has_the_choice_on_each_and_the_common_part_once(self, tmp_path):
        paths = [f"experiment_config.{split}_set" for split in ("val", "test")]
        sets = {
            f"{name}{lr}": ({paths[0]: f"{name}_val", paths[1]: f"{name}_test", "lr": lr}, [mm + lr, mm + lr + 1])
            for name, mm in (("p", 5.0), ("q", 6.0))
            for lr in (1, 2)
        }
        text = paragraph(write_results(tmp_path, sets))
        assert text.endswith(
            "On each validation set, the combination with the lowest mean distance was chosen; test sets played "
            "no part in this. Distances are means per joint ± sample standard deviations over 2 repetitions. On the "
            "validation set p_val (1,234 frames), this is lr 1 (5.50 ± 0.71 mm); on the test set p_test (1,234 "
            "frames), it reaches 6.50 ± 0.71 mm, compared with 20.00 mm before the correction. On the validation set "
            "q_val (1,234 frames), this is lr 1 (6.50 ± 0.71 mm); on the test set q_test (1,234 frames), it reaches "
            "7.50 ± 0.71 mm, compared with 20.00 mm before the correction."
        )

    def test_of_single_combinations_on_several_data_sets_has_the_distance_on_each(self, tmp_path):
        sets = {key: ({"experiment_config.val_set": f"{key}_val"}, [of]) for key, of in (("p", 5.0), ("q", 6.0))}
        text = paragraph(write_results(tmp_path, sets, test_set=None))
        assert "Distances are means per joint over 1 repetition." in text
        assert (
            "On the validation set p_val (1,234 frames), the distance is 5.00 mm. On the validation set q_val" in text
        )

    def test_names_the_validation_set_of_each_race(self, tmp_path):
        sets = {
            f"{name}{lr}{test}": (
                {f"experiment_config.{s}_set": n for s, n in (("val", f"{name}_val"), ("test", test))} | {"lr": lr},
                [6.0 + lr if lr < 3 else "interrupted"],
            )
            for name in "pq"
            for lr in (1, 2, 3)
            for test in ("t", "u")
        }
        folder = write_results(tmp_path, sets)
        for name in "pq":
            reached = {
                key: ([float(key[1])], "behind" if key[1] == "3" else "best") for key in sets if key.startswith(name)
            }
            write_race(folder, {(0, 0): (1, reached)}, data=f"{name}_val", n_rungs=2)
        text = paragraph(folder)
        assert (
            "The combinations on each validation set were raced with synchronous successive halving over epochs with "
            "a reduction factor of 3. On p_val, after epoch 1, 4 of 6 combinations stayed (1 repetition). On q_val, "
            "after epoch 1, 4 of 6 combinations stayed (1 repetition). Each time,"
        ) in text
        assert text.count("successive halving") == 1
        assert "8 combinations were trained to the end; the races take " in text

    def test_of_a_race_that_dropped_nothing_says_so(self, tmp_path):
        folder = write_results(tmp_path, {key: ({"lr": lr}, [6.0, 7.0, 8.0]) for key, lr in (("a", 1), ("b", 2))})
        write_race(folder, {(0, 0): (1, {key: ([9.0, 9.0], "best") for key in "ab"})}, confirm=1)
        text = paragraph(folder)
        assert "after epoch 1, both combinations stayed (2 repetitions). Each time" in text
        assert "The race has dropped none of them. To confirm the finalists" in text

    def test_names_training_set_and_epochs_of_options_with_one_value(self, tmp_path):
        of_all = {"experiment_config.train_set": "B", "solver_config.num_epochs": 50}
        folder = write_results(tmp_path, {key: ({**of_all, "lr": key}, [6.0]) for key in "ab"})
        content = experiment_json(folder)
        content["configs"]["experiment_config"]["train_set"] = "A"
        content["configs"]["solver_config"] = {"num_epochs": 10}
        content["data"] += [{"name": name, "size": None, "samples": n} for name, n in (("A", 7), ("B", 1234))]
        folder.write_experiment(content)
        text = paragraph(folder)
        assert "The training set is B (1,234 frames). A complete training takes 50 epochs." in text

    def test_names_no_number_of_training_frames_if_it_varies(self, tmp_path):
        size = "experiment_config.train_set_size"
        folder = write_results(tmp_path, {key: ({size: n}, [6.0]) for key, n in (("a", 1000), ("b", None))})
        content = experiment_json(folder)
        content["configs"]["experiment_config"] |= {"train_set": "A", "train_set_size": 1000}
        content["data"] += [{"name": "A", "size": n, "samples": n or 5000} for n in (1000, None)]
        folder.write_experiment(content)
        assert "The training set is A. " in paragraph(folder)

    def test_of_a_race_without_a_decision_mentions_it_before_its_finalists(self, tmp_path):
        folder = write_race(write_results(tmp_path, {"a": ({"lr": 1}, [6.0, 7.0])}), {}, confirm=1)
        assert "over epochs. The race has dropped none of them. To confirm the finalists" in paragraph(folder)

    @pytest.mark.parametrize(
        ("planned", "later"), [("abcd", "; 2 more raced later, together with the fin"), ("acd", "")]
    )
    def test_counts_combinations_that_raced_later_without_a_word_of_brackets(self, tmp_path, planned, later):
        folder = write_results(tmp_path, {key: ({"lr": key}, [6.0]) for key in planned})
        first = {"a": ([9.0], "best")} if later else {"x": ([9.0], "best")}
        second = {key: ([9.0], "best") for key in "acd"}
        write_race(folder, {(0, 0): (1, first | {"b": ([9.5], "best")}), (1, 0): (3, second)}, n_rungs=2)
        text = paragraph(folder)
        assert "bracket" not in text
        rung = "after epoch 1, both combinations" if later else "after epoch 3, all 3 combinations"
        assert f"{rung} stayed (1 repetition){later}" in text

    def test_of_a_race_that_dropped_all_says_that_none_was_trained_to_the_end(self, tmp_path):
        folder = write_results(tmp_path, {key: ({"lr": key}, ["diverged"]) for key in "ab"})
        write_race(folder, {(0, 0): (1, {key: ([float("inf")], "diverged") for key in "ab"})})
        text = paragraph(folder)
        assert "none of 2 combinations stayed (1 repetition)" in text
        assert "No combination was trained to the end; the race takes 11 % of the epochs" in text

    def test_of_folds_says_on_what_each_was_trained(self, tmp_path):
        text = paragraph(write_fold_results(tmp_path, {0.1: [[9.0], [7.0]]}, [(10, 20), (30, 40)]))
        assert "1 combination was trained with 1 repetition on each of 2 folds." in text
        assert "test sets of 2 folds of hands (60 frames, each tested exactly once)" in text

    def test_says_where_an_option_applies_and_lists_no_dash_as_a_value(self, tmp_path):
        rows = [("MLP", "–", "–"), ("LCN", 4, 0.1), ("LCN", 8, 0.1)]
        options = [dict(zip(("model", "model_args.dim", "model_args.reach"), row, strict=True)) for row in rows]
        folder = write_results(tmp_path, {key: (of, [6.0]) for key, of in zip("abc", options, strict=True)})
        axes = [
            {"paths": ["model"], "rows": [["MLP"], ["LCN"]]},
            {"paths": ["model_args.dim"], "rows": [[4], [8]], "when": [[0, [1]]]},
            {"paths": ["model_args.reach"], "range": {"low": 0.1, "high": 0.2}, "when": [[0, [1]], [1, [0, 1]]]},
        ]
        folder.write_experiment({**experiment_json(folder), "options": axes})
        text = paragraph(folder)
        assert (
            "model (MLP, LCN), dim (4, 8; only for model LCN) and reach (0.1 to 0.2; only for model LCN and dim "
            in text
        )
        assert "and dim 4 or 8)" in text
        assert "–" not in text

    def test_of_an_unfinished_grid_says_how_much_is_there(self, tmp_path):
        sweep = {f"k{lr}": ({"lr": lr}, [9.0 + lr] * 2 if lr < 2 else [None] * 2) for lr in range(5)}
        text = paragraph(write_results(tmp_path, sweep))
        assert text.startswith("All 5 combinations of lr (0, 1, 2, 3, 4) were planned, each with 2 repetitions.")
        assert "Finished so far: 4 of 10 trainings." in text

    def test_says_what_is_missing_from_means_and_that_a_lower_one_was_not_chosen(self, tmp_path):
        sweep = {"a": ({"lr": 0.1}, [10.0, 10.2, 10.1]), "b": ({"lr": 0.2}, [4.0, "failed", 4.2])}
        text = paragraph(write_results(tmp_path, sweep))
        assert text.startswith("Both combinations of lr (0.1, 0.2) were compared, each with 3 repetitions.")
        assert "1 repetition failed and is excluded from all means." in text
        lowest = "lowest mean distance on the validation set hands_val (1,234 frames) among those with all repetitions"
        assert f"{lowest} was chosen: lr 0.1" in text

    def test_before_the_end_says_that_there_is_no_result(self, tmp_path):
        text = paragraph(write_results(tmp_path, {"a": ({"lr": 1}, [None])}))
        assert "No combination has been trained to the end." in text

    def test_of_a_search_has_its_ranges_and_its_sampler(self, tmp_path):
        folder = write_results(tmp_path, {"a": ({"lr": 0.002}, [6.0]), "b": ({"lr": 0.01}, [7.0])})
        content = experiment_json(folder)
        content["options"] = [{"paths": ["lr"], "range": {"low": 0.001, "high": 0.1, "log": True}}]
        search = {"name": "cluster.searching.search.Search", "args": {"sampler": "tpe", "round_size": 8}}
        content["configs"]["experiment_config"]["search"] = search
        folder.write_experiment(content)
        text = paragraph(folder)
        assert text.startswith("2 combinations of lr (0.001 to 0.1, logarithmic) were compared")
        assert "They were proposed by a search (sampler tpe, in rounds of 8)." in text
