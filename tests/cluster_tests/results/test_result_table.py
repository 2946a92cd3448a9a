"""Results in Python: shown, filtered, and read from the files of trials."""

import io
import sys

import numpy as np
import pandas as pd
import pytest

from cluster.reports.tables.table_options import TableOptions
from cluster.result_table import ResultTable, read_results
from cluster.results.names import ChoiceError
from cluster.results.results import NoResultsError
from cluster.storage.examples import FollowedExamples
from cluster.storage.filesystem import StorageError
from data_pipeline.user_error import UserError
from tests.cluster_tests.results_files import experiment_json, write_fold_results, write_results


def three(path):
    """Three combinations with two options, the best first."""
    options = [{"lr": 0.1, "dims": "[8]"}, {"lr": 0.1, "dims": "[4]"}, {"lr": 0.2, "dims": "[8]"}]
    return write_results(path, {f"{i}" * 8: (of, [10.0 + i, 11.0 + i]) for i, of in enumerate(options)})


@pytest.fixture
def table(tmp_path):
    three(tmp_path / "sweep")
    return read_results(tmp_path / "sweep")


class TestShown:
    def test_a_table_of_many_combinations_is_short_and_counts_the_others(self, tmp_path):
        outcomes = {f"{i:08}": ({"lr": i}, [10.0 + i]) for i in range(200)}
        table = ResultTable.read(write_results(tmp_path / "sweep", outcomes))
        for text in (str(table), repr(table), table._repr_html_()):
            assert len(text) < 15_000
            assert "nd 160 more combinations" in text
            assert "200 trials, 200 finished" in text

    def test_a_notebook_takes_texts_as_they_are(self, tmp_path):
        folder = write_results(tmp_path / "sweep", {"a" * 8: ({"x": "<b>$1$"}, [10.0]), "b" * 8: ({"x": "y"}, [None])})
        html = ResultTable.read(folder)._repr_html_()
        assert "&lt;b&gt;$1$" in html
        assert "<b>" not in html
        assert html.startswith('<div class="tex2jax_ignore mathjax_ignore">')  # no formula either

    def test_a_plan_of_many_trials_is_short(self, small_experiment):
        plan = small_experiment.experiment({}, {"optimizer_args.lr": [i / 1000 for i in range(1, 21)]}).plan()
        assert repr(plan) == str(plan)
        assert len(str(plan)) < 500


class TestToPandas:
    @pytest.mark.parametrize("trials", [False, True])
    def test_has_the_columns_and_rows_of_parquet(self, table, trials):
        options = TableOptions(trials=trials)
        pd.testing.assert_frame_equal(table.to_pandas(options), pd.read_parquet(io.BytesIO(table.to_parquet(options))))

    def test_without_pandas_says_what_to_install(self, table, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(UserError, match="pip install pandas"):
            table.to_pandas()


class TestWhere:
    def test_has_the_wanted_combinations_and_their_trials_and_the_options_that_still_vary(self, table):
        found = table.where(lambda row: row["lr"] == 0.1)
        assert [row["key"] for row in found.summary] == ["0" * 8, "1" * 8]
        assert found.trials == [row for row in table.trials if row["lr"] == 0.1]
        assert found.option_paths == ["dims"]
        assert found.splits == ["val", "test"]

    def test_keeps_the_test_set_if_the_data_was_not_described(self, tmp_path):
        folder = three(tmp_path / "sweep")
        folder.write_experiment({**experiment_json(folder), "data": []})
        assert ResultTable.read(folder).where(lambda row: row["lr"] == 0.1).splits == ["val", "test"]

    def test_of_no_combination_is_an_error(self, table):
        with pytest.raises(ChoiceError, match="my sweep has no such combination"):
            table.where(lambda row: row["lr"] > 1)

    def test_has_its_own_best(self, table):
        assert table.best == table.summary[0]
        assert table.where(lambda row: row["lr"] == 0.2).best["key"] == "2" * 8


class TestFilesOfTrials:
    def test_are_those_of_the_combinations_in_the_table(self, finished_results):
        table = read_results(finished_results / "small_experiment")
        best = table.where(lambda row: row == table.best)
        ids = [f"{table.best['key']}/0"]
        curves, examples = best.learning_curves(), best.examples()
        assert list(curves) == list(examples) == ids
        assert len(table.learning_curves()) == len(table.examples()) == 2
        assert curves[ids[0]].epochs.tolist() == [1, 2]
        assert np.nanmin(curves[ids[0]].val_mm) == pytest.approx(table.best["val_distance_mm_mean"])
        assert examples[ids[0]].indices.tolist() == [0, 3]

    def test_with_folds_are_examples_of_each_fold(self, tmp_path):
        folder = write_fold_results(tmp_path, {0.1: [[10.0], [6.0]]}, [(10, 10), (20, 20)])
        points, poses = np.ones(1, dtype=int), np.zeros((1, 1, 4, 3))
        examples = FollowedExamples(points, points, poses, poses[0], poses[0], points)
        folder.trial("0.1-2/0").write("examples.npz", examples.to_npz())
        assert list(ResultTable.read(folder).examples()) == ["0.1-2/0"]

    def test_that_are_broken_are_an_error_that_names_the_trial(self, finished_experiment):
        table = read_results(finished_experiment.folder)
        trial_id = f"{table.best['key']}/0"
        (finished_experiment.folder / "trials" / trial_id / "examples.npz").write_bytes(b"no archive")
        with pytest.raises(StorageError, match=f"trial {trial_id}: examples.npz is broken"):
            table.examples()


def test_a_folder_without_an_experiment_is_an_error(tmp_path):
    with pytest.raises(NoResultsError, match="holds no experiment"):
        read_results(tmp_path / "nothing")
