import copy
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.reports.tables.files import csv_bytes, parquet_bytes
from cluster.reports.tables.summary import summary_text
from cluster.result_table import ResultTable
from cluster.results.results import NoResultsError
from cluster.results.rows import METRICS, column
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import TrialFile
from tests.cluster_tests.results_files import write_json

METRIC_NAMES = [f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_before")] + ["improved", "worsened"]


def metrics(distance, *, subsets=("mean", "DEFAULT"), before=20.0):
    return {
        subset: {**dict.fromkeys(METRIC_NAMES, 0.5), "distance": distance, "distance_before": before}
        for subset in subsets
    }


@pytest.fixture
def write(tmp_path):
    """Writes an experiment with these combinations, {key: options}, and trials, {id: content}; returns its folder."""

    def write(combinations, trials, *, n_repetitions=1, test_set=None, axes=None):
        folder = ExperimentFolder(Storage(tmp_path / "x"))
        paths = list(next(iter(combinations.values())))
        columns = {path: list(dict.fromkeys(options[path] for options in combinations.values())) for path in paths}
        folder.write_experiment(
            {
                "name": "x",
                "configs": {"experiment_config": {"test_set": test_set}},
                "options": axes
                or [{"paths": [path], "rows": [[v] for v in values]} for path, values in columns.items()],
                "plan": {
                    "seeds": list(range(100, 100 + n_repetitions)),
                    "combinations": [{"key": key, "options": options} for key, options in combinations.items()],
                },
            }
        )
        for trial_id, content in trials.items():
            write_json(folder.trial(trial_id), content)
        return folder

    return write


def finished(distance, **more):
    return {"status": "finished", "best_epoch": 3, "metrics": {"val": metrics(distance, **more)}, "train_seconds": 1.5}


class TestTheRows:
    def test_of_trials_stand_in_the_order_of_repetitions_and_combinations(self, write):
        folder = write(
            {"a": {"lr": 0.1}, "b": {"lr": 0.2}},
            {"a/0": finished(10.0), "b/0": {"status": "failed", "error": "it broke"}, "a/1": {"status": "running"}},
            n_repetitions=2,
        )
        table = ResultTable.read(folder)
        assert [(row["key"], row["repetition"], row["seed"], row["status"]) for row in table.trials] == [
            ("a", 0, 100, "finished"),
            ("b", 0, 100, "failed"),
            ("a", 1, 101, "interrupted"),
            ("b", 1, 101, "pending"),
        ]
        assert [row["lr"] for row in table.trials] == [0.1, 0.2, 0.1, 0.2]
        assert [row["val_distance_mm"] for row in table.trials] == [10.0, None, None, None]
        assert [row["error"] for row in table.trials] == [None, "it broke", None, None]
        assert [row["status"] for row in table.failures] == ["failed"]

    def test_all_have_the_same_columns(self, write):
        folder = write(
            {"a": {"lr": 1}, "b": {"lr": 2}},
            {"a/0": finished(1.0, subsets=("mean", "A", "B")), "b/0": {"status": "diverged"}},
        )
        table = ResultTable.read(folder)
        assert len({tuple(row) for row in table.trials}) == len({tuple(row) for row in table.summary}) == 1
        columns = list(table.trials[0])
        assert columns[:6] == ["key", "lr", "repetition", "seed", "status", "best_epoch"]
        assert columns[-7:] == ["train_seconds", "node", "device", "gpu", "gpu_peak_gib", "gpu_total_gib", "error"]
        assert {"val_distance_mm[A]", "val_distance_before_mm[B]", "val_frames_within_20mm", "val_improved[A]"} <= set(
            columns
        )

    def test_of_one_backbone_have_no_columns_of_a_subset(self, write):
        table = ResultTable.read(write({"a": {}}, {"a/0": finished(1.0)}))
        assert not [name for name in table.trials[0] if "[" in name]

    def test_of_a_backbone_called_default_beside_others_have_its_columns(self, write):
        table = ResultTable.read(write({"a": {}}, {"a/0": finished(1.0, subsets=("mean", "DEFAULT", "A"))}))
        assert {"val_distance_mm[DEFAULT]", "val_distance_mm[A]"} <= set(table.trials[0])

    def test_show_the_settings_that_vary(self, write):
        folder = write(
            {"a": {"lr": 1, "dropout": None, "batch": 8}, "b": {"lr": 2, "dropout": None, "batch": 8}},
            {"a/0": finished(1.0)},
        )
        table = ResultTable.read(folder)
        assert table.option_paths == table.distinguishing_paths == ["lr"]
        assert "dropout" not in table.summary[0]

    def test_tell_true_from_one(self, write):
        table = ResultTable.read(write({"a": {"x": 1}, "b": {"x": True}}, {}))
        assert table.option_paths == ["x"]

    @pytest.mark.parametrize(
        ("rows", "telling"),
        [
            ([["p_train", "p_val"], ["q_train", "q_val"]], ["train"]),
            ([["p_train", "p_val"], ["p_train", "q_val"], ["q_train", "p_val"]], ["train label"]),
        ],
    )
    def test_of_settings_that_vary_together_have_one_column_that_tells(self, write, rows, telling):
        combinations = {str(i): dict(zip(("train", "val"), row, strict=True)) for i, row in enumerate(rows)}
        table = ResultTable.read(write(combinations, {}, axes=[{"paths": ["train", "val"], "rows": rows}]))
        assert table.option_paths == list(dict.fromkeys(["train", "val", *telling]))
        assert table.distinguishing_paths == telling

    def test_of_other_plans_are_counted(self, write):
        folder = write({"a": {}}, {"a/0": finished(1.0), "a/1": finished(2.0), "old/0": finished(3.0)})
        table = ResultTable.read(folder)
        assert (len(table.trials), table.n_others, table.summary[0]["n"]) == (1, 2, 1)

    def test_take_numbers_of_finished_trials_only(self, write):
        stale = {**finished(1.0), "status": "failed"}
        assert ResultTable.read(write({"a": {}}, {"a/0": stale})).trials[0]["val_distance_mm"] is None


class TestTheSummary:
    def test_has_mean_and_sample_deviation_over_finished_repetitions(self, write):
        folder = write(
            {"a": {"lr": 1}},
            {
                "a/0": finished(10.0),
                "a/1": finished(13.0),
                "a/2": {"status": "failed"},
                "a/3": {"status": "diverged"},
                "a/4": finished(11.0),
            },
            n_repetitions=6,
        )
        (row,) = ResultTable.read(folder).summary
        assert (row["n"], row["failed"], row["diverged"]) == (3, 1, 1)
        values = np.array([10.0, 13.0, 11.0])
        assert row["val_distance_mm_mean"] == pytest.approx(values.mean(), rel=1e-15)
        assert row["val_distance_mm_std"] == pytest.approx(values.std(ddof=1), rel=1e-15)
        assert row["val_distance_before_mm"] == 20.0
        assert row["val_change_mm"] == pytest.approx(values.mean() - 20)
        assert row["val_change_percent"] == pytest.approx(100 * (values.mean() - 20) / 20)

    @pytest.mark.parametrize("seed", range(5))
    def test_is_that_of_numpy(self, write, seed):
        values = np.random.default_rng(seed).lognormal(2, 3, size=2 + seed)
        trials = {f"a/{i}": finished(float(value)) for i, value in enumerate(values)}
        (row,) = ResultTable.read(write({"a": {}}, trials, n_repetitions=len(values))).summary
        assert row["val_distance_mm_mean"] == pytest.approx(np.mean(values), rel=1e-14)
        assert row["val_distance_mm_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-14)

    def test_of_one_repetition_has_no_deviation_and_of_none_no_number(self, write):
        folder = write({"a": {"lr": 1}, "b": {"lr": 2}}, {"a/0": finished(10.0), "b/0": {"status": "failed"}})
        one, none = ResultTable.read(folder).summary
        assert (one["n"], one["val_distance_mm_mean"], one["val_distance_mm_std"]) == (1, 10.0, None)
        assert (none["n"], none["failed"]) == (0, 1)
        assert [none[name] for name in none if name.startswith("val_")] == [None] * 5

    def test_begins_with_the_best_in_validation_and_ends_with_those_without_a_number(self, write):
        folder = write(
            {key: {"lr": i} for i, key in enumerate("abcd")},
            {"b/0": finished(12.0), "c/0": finished(0.0), "d/0": finished(3.0)},
        )
        table = ResultTable.read(folder)
        assert [row["key"] for row in table.summary] == ["c", "d", "b", "a"]

    def test_has_combinations_with_all_repetitions_before_those_without(self, write):
        folder = write(
            {key: {"lr": i % 2, "dropout": i} for i, key in enumerate("abcd")},
            {
                "a/0": finished(1.0),
                "b/0": finished(9.0),
                "b/1": finished(9.0),
                "c/0": finished(8.0),
                "c/1": finished(8.0),
                "d/0": finished(0.5),
                "d/1": {"status": "failed"},
            },
            n_repetitions=2,
        )
        table = ResultTable.read(folder)
        assert [row["key"] for row in table.summary] == ["c", "b", "d", "a"]
        assert [row["key"] for row in table.best_for_each("lr")] == ["c", "b"]

    def test_with_a_test_set_reports_that_and_still_sorts_by_validation(self, write):
        def trial(val, test):
            return {**finished(val), "metrics": {"val": metrics(val), "test": metrics(test)}}

        folder = write({"a": {"lr": 1}, "b": {"lr": 2}}, {"a/0": trial(5.0, 1.0), "b/0": trial(4.0, 9.0)}, test_set="t")
        table = ResultTable.read(folder)
        assert (table.splits, table.split) == (["val", "test"], "test")
        assert [(row["key"], row["test_distance_mm_mean"]) for row in table.summary] == [("b", 9.0), ("a", 1.0)]

    def test_keeps_the_distance_where_a_metric_of_the_user_would_be_in_its_column(self, write):
        trial = finished(1.0)
        trial["metrics"]["val"]["mean"] |= {"distance_mm": 777.0, "distance_mm_before": 7.0, "depth_mm": 3.0}
        trial["metrics"]["val"]["mean"]["depth_mm_before"] = 4.0
        table = ResultTable.read(write({"a": {}}, {"a/0": trial}))
        assert table.summary[0]["val_distance_mm_mean"] == table.trials[0]["val_distance_mm"] == 1.0
        assert table.trials[0]["val_depth_mm"] == 3.0

    def test_of_no_error_before_has_no_percentage(self, write):
        (row,) = ResultTable.read(write({"a": {}}, {"a/0": finished(1.0, before=0.0)})).summary
        assert (row["val_change_mm"], row["val_change_percent"]) == (1.0, None)

    def test_gives_the_best_for_each_value_of_an_option(self, write):
        combinations = {f"{name}{lr}": {"set": name, "lr": lr} for name in ("p", "q") for lr in (1, 2)}
        folder = write(
            combinations, {"p1/0": finished(3.0), "p2/0": finished(2.0), "q1/0": finished(1.0), "q2/0": finished(4.0)}
        )
        assert [row["key"] for row in ResultTable.read(folder).best_for_each("set")] == ["q1", "p2"]


class TestATrialThatSaysFinishedAndHasNoResults:
    BROKEN = (None, 1, [], {}, {"val": None}, {"val": {}}, {"val": {"mean": None}}, {"val": {"mean": {}}})

    @pytest.mark.parametrize(
        "content",
        [
            {"status": "finished"},
            *({"status": "finished", "metrics": metrics} for metrics in BROKEN),
            {"status": "finished", "metrics": {"test": metrics(1.0)}},
            {"status": "finished", "metrics": {"val": metrics("near")}},
            {"status": "finished", "metrics": {"val": metrics(1.0), "test": 1}},
        ],
    )
    def test_is_interrupted_so_that_it_is_trained_again(self, write, content):
        assert TrialFile.from_json(json.dumps(content)).status == "interrupted"
        (row,) = ResultTable.read(write({"a": {}}, {"a/0": content})).trials
        assert (row["status"], row["val_distance_mm"]) == ("interrupted", None)

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            ({}, "interrupted"),
            ({"status": "running"}, "interrupted"),
            ({"status": "failed"}, "failed"),
            ({"status": "diverged"}, "diverged"),
            (finished(1.0), "finished"),
        ],
    )
    def test_is_the_only_one_that_its_file_is_not_taken_at_its_word(self, content, status):
        assert TrialFile.from_json(json.dumps(content)).status == status


class TestAColumn:
    @pytest.mark.parametrize(
        ("name", "arguments", "options"),
        [
            ("val_distance_mm", ("val", "distance"), {}),
            ("test_max_distance_before_mm", ("test", "max_distance"), {"before": True}),
            ("val_auc_0_50", ("val", "auc_0_50"), {}),
            ("val_bone_length_error_mm[Pose-REN]", ("val", "bone_length_error"), {"subset": "Pose-REN"}),
            ("val_proportion_error_before[A]", ("val", "proportion_error"), {"before": True, "subset": "A"}),
        ],
    )
    def test_is_named_with_its_unit(self, name, arguments, options):
        assert column(*arguments, **options) == name


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=3)
json_values = (
    scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["paths", "lr"]), scalars, max_size=2)
)


def places(content, path=()):
    """The path of every value inside a JSON value."""
    yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from places(value, (*path, key))


class TestAnExperimentWithAnythingAtAnyPlace:
    CONTENT = {  # noqa: RUF012
        "name": "x",
        "configs": {"experiment_config": {"test_set": None}},
        "options": [{"paths": ["lr"], "rows": [[1], [2]]}],
        "plan": {
            "seeds": [1, 2],
            "combinations": [{"key": "a", "options": {"lr": 1}}, {"key": "b", "options": {"lr": 2}}],
        },
    }

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.sampled_from(list(places(CONTENT))), value=json_values)
    def test_is_read_or_is_an_error_that_names_its_folder(self, tmp_path, place, value):
        content = {"": copy.deepcopy(self.CONTENT)}
        parent, last = content, ""
        for part in place:
            parent, last = parent[last], part
        parent[last] = value
        (tmp_path / "experiment.json").write_text(json.dumps(content[""]))
        try:
            table = ResultTable.read(ExperimentFolder(Storage(tmp_path)))
        except NoResultsError as error:
            assert str(error).startswith(f"{tmp_path} holds no experiment")  # noqa: PT017
            return
        assert table.summary
        assert summary_text(table)
        assert csv_bytes(table.trials)
        assert parquet_bytes(table.trials)


class TestAFolderWithoutAnExperiment:
    @pytest.mark.parametrize(
        "content",
        [
            None,
            b"",
            b"{",
            b"[]",
            b"{}",
            b"null",
            b'{"name": "x"}',
            b'{"name": "x", "plan": {}}',
            b'{"name": "x", "plan": []}',
            b'{"name": "x", "plan": {"seeds": [1], "combinations": []}, "options": [], "configs": {}}',
        ],
    )
    def test_is_an_error_that_names_it(self, tmp_path, content):
        if content is not None:
            (tmp_path / "experiment.json").write_bytes(content)
        with pytest.raises(
            NoResultsError, match=rf"^{tmp_path} holds no experiment \(experiment.json is missing or broken\)"
        ):
            ResultTable.read(ExperimentFolder(Storage(tmp_path)))


def test_no_number_is_lost_on_the_way_to_the_table(write):
    value = math.nextafter(10.1, 11)
    assert ResultTable.read(write({"a": {}}, {"a/0": finished(value)})).trials[0]["val_distance_mm"] == value
