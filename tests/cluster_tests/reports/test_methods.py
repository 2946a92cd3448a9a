"""The paragraph for the methods section of a paper."""

import pytest

from cluster.reports.methods import methods_paragraph
from cluster.results.results import Results
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.results_files import experiment_json, write_fold_results, write_raced_results, write_results


def paragraph(folder):
    return methods_paragraph(Results.read(folder))


class TestTheParagraph:
    @pytest.fixture
    def raced(self, tmp_path):
        return paragraph(write_raced_results(tmp_path))

    def test_names_the_options_and_their_values(self, raced):
        options = "All 6 combinations of lr (0.1, 0.2, 0.3) and dim (8, 16)"
        assert raced.startswith(f"{options} were compared, each with 2 repetitions.")

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
        assert text.startswith(
            "3 combinations of model (mlp, gnn) and dim (4, 8) were compared, each with 1 repetition."
        )

    def test_of_several_data_sets_has_the_choice_on_each(self, tmp_path):
        sets = {
            key: ({"experiment_config.val_set": f"{key}_val", "lr": 1}, [of]) for key, of in (("p", 5.0), ("q", 6.0))
        }
        text = paragraph(write_results(tmp_path, sets, test_set=None))
        for name in ("p_val", "q_val"):
            assert f"On {name}: On the validation set {name} (1,234 frames), it reaches" in text

    def test_of_folds_says_on_what_each_was_trained(self, tmp_path):
        text = paragraph(write_fold_results(tmp_path, {0.1: [[9.0], [7.0]]}, [(10, 20), (30, 40)]))
        assert "1 combination was trained with 1 repetition on each of 2 folds." in text
        assert "test sets of 2 folds of hands (60 frames, each tested exactly once)" in text

    def test_before_the_end_says_that_there_is_no_result(self, tmp_path):
        text = paragraph(write_results(tmp_path, {"a": ({"lr": 1}, [None])}))
        assert "No combination has been trained to the end yet." in text

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
