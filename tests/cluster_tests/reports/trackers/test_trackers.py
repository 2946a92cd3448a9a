"""Exports are read back with the tools' own libraries, and compared with the files that the trials wrote."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cluster.experiment import TrialsFailedError
from cluster.reports.trackers.runs import ExperimentRuns, as_text
from cluster.result_table import read_results
from cluster.results.results import Results
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.records import to_parquet
from data_pipeline.user_error import UserError
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from posenet.record import Record
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.results_files import write_json, write_raced_results
from tests.cluster_tests.small_experiment import LR, FailingMLP, NanLoss, SmallExperiment

SETTINGS = {
    "experiment_config.train_set": "two_train",
    "experiment_config.val_set": "two_val",
    "experiment_config.test_set": "two_test",
    "experiment_config.n_repetitions": 2,
    "solver_config.log_frequency": 2,
    "solver_config.log_loss": True,
    "solver_config.val_example_subset": "A",
}
OPTIONS = {
    LR: [1e-3, 1e-2],
    "model": [CorrectorMLP, FailingMLP],
    "loss_function": [MetricLoss(errors.coordinate_difference, "absolute"), NanLoss()],
}

ERROR = "first line\nsecond <b>line</b>\n" + 10_000 * "x"


@pytest.fixture(scope="module")
def results(small_data, tmp_path_factory):
    """The folder of an experiment with trials that finished, failed, diverged, were interrupted, and were not begun."""
    small_experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("trackers"))
    with pytest.raises(TrialsFailedError):
        small_experiment.run(SETTINGS, OPTIONS)
    runs = read(small_experiment.folder)
    failed = [run.trial_id for run in runs if run.status == "failed"]
    change_trial(small_experiment.folder, failed[0], error=ERROR)
    change_trial(small_experiment.folder, failed[1], status="running", ended=None, error=None)
    (small_experiment.folder / "trials" / failed[2] / "trial.json").unlink()
    return small_experiment.folder


def change_trial(folder, trial_id, **changes):
    path = folder / "trials" / trial_id / "trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def experiment_folder(path):
    return ExperimentFolder(Storage(path))


def read(path):
    return list(ExperimentRuns.of(read_results(path)).runs())


def trial_json(results, run):
    return json.loads((results / "trials" / run.trial_id / "trial.json").read_text())


def logged(results, run, **of):
    """The values of one metric that a trial logged during training, by (epoch, batch), from its file."""
    table = pq.read_table(results / "trials" / run.trial_id / "records.parquet")
    table = table.filter(pc.greater(table["batch"], 0))
    for name, value in of.items():
        table = table.filter(pc.equal(table[name].cast("string"), value))
    columns = (table[name].to_pylist() for name in ("epoch", "batch", "value"))
    return {(epoch, batch): value for epoch, batch, value in zip(*columns, strict=True)}


N_BATCHES = 3  # of an epoch: 40 poses, 16 at a time


def by_step(numbers):
    return {(epoch - 1) * N_BATCHES + batch: value for (epoch, batch), value in numbers.items()}


class TestTheRuns:
    def test_are_all_trials_of_the_plan_however_they_ended(self, results):
        runs = read(results)
        assert len({run.trial_id for run in runs}) == len(runs) == 16
        statuses = [run.status for run in runs]
        counts = {"finished": 4, "diverged": 4, "failed": 6, "interrupted": 1, "pending": 1}
        assert {status: statuses.count(status) for status in counts} == counts

    def test_have_a_number_for_each_record_of_the_training(self, results):
        for run in read(results):
            if run.status != "finished":
                continue
            points = {point.step: point.values for point in run.points}
            assert list(points) == sorted(points)
            for name, of in {
                "val/distance_mm": {"split": "val", "subset": "mean", "metric": "distance", "space": "original"},
                "val/auc_0_50[B]": {"split": "val", "subset": "B", "metric": "auc_0_50"},
                "train/distance_mm": {"split": "train", "metric": "distance"},
                "train/loss": {"split": "train", "metric": "loss"},
                "train/batch_loss": {"split": "train", "metric": "batch_loss"},
            }.items():
                expected = by_step(logged(results, run, **of))
                assert expected
                assert {step: values[name] for step, values in points.items() if name in values} == expected
            assert sum(len(values) - 1 for values in points.values()) == len(all_logged(results, run))
            assert points[N_BATCHES]["epoch"] == 1.0
            assert points[2 * N_BATCHES]["epoch"] == 2.0

    def test_end_with_the_results_of_the_trial_at_the_best_epoch(self, results):
        for run in read(results):
            if run.status == "finished":
                content = trial_json(results, run)
                assert run.final.step == content["best_epoch"] * N_BATCHES
                assert run.final.values["test/distance_mm"] == content["metrics"]["test"]["mean"]["distance"]
                assert (
                    run.final.values["val/distance_before_mm[A]"] == content["metrics"]["val"]["A"]["distance_before"]
                )
                assert len(run.final.values) == sum(
                    len(values) for subsets in content["metrics"].values() for values in subsets.values()
                )
            else:
                assert run.final.values == {}

    def test_have_the_settings_of_their_combination_in_place_of_the_base_values(self, results):
        for run in read(results):
            assert run.settings[LR] == run.options[LR]
            assert run.settings["model"] == run.options["model"]
            assert "model.name" not in run.settings
            assert run.settings["optimizer_args.weight_decay"] == 0
            assert run.settings["solver_config.batch_size"] == 16
            assert run.settings["model_args.hidden_dims"] == [8]

    def test_tell_seed_error_and_versions(self, results):
        runs = read(results)
        assert {run.facts["repetition"]: run.facts["seed"] for run in runs}.keys() == {"0", "1"}
        assert len({run.facts["seed"] for run in runs}) == 2
        for run in runs:
            assert run.facts["status"] == run.status
            assert ("versions.numpy" in run.facts) == (run.started is not None)
            assert run.facts.get("versions.numpy", np.__version__) == np.__version__
            assert ("error" in run.facts) == (run.status in ("failed", "diverged"))

    def test_are_the_same_when_they_are_in_the_archive(self, results, tmp_path):
        before = {run.trial_id: run for run in read(results)}
        shutil.copytree(results, tmp_path / "small_experiment")
        ended = [trial_id for trial_id, run in before.items() if run.status in ("finished", "diverged")]
        assert experiment_folder(tmp_path / "small_experiment").archive.add(ended) == []
        assert not [
            path
            for path in (tmp_path / "small_experiment").glob("trials/*/*/records.parquet")
            if on_path(path) in ended
        ]
        assert {run.trial_id: run for run in read(tmp_path / "small_experiment")} == before

    def test_of_one_subset_leave_out_what_is_the_same_as_the_mean(self, small_experiment):
        small_experiment.run()
        (run,) = read(small_experiment.folder)
        assert "val/distance_mm" in run.points[0].values
        assert "val/distance_mm" in run.final.values
        assert not [name for name in (*run.points[0].values, *run.final.values) if "[" in name]
        assert run.options == {}

    def test_of_normalised_evaluations_say_so_in_their_names(self, small_experiment):
        small_experiment.run({"base_hyperparams.eval_space": "default"})
        (run,) = read(small_experiment.folder)
        values = run.points[0].values
        assert {"train/distance_normalised", "val/max_distance_normalised", "val/distance_mm", "train/loss"} <= set(
            values
        )
        assert not {"train/distance_mm", "val/max_distance_mm"} & set(values)
        of = {"split": "val", "subset": "mean", "metric": "distance"}
        assert values["val/distance_mm"] == next(
            iter(logged(small_experiment.folder, run, space="original", **of).values())
        )
        assert values["val/distance_normalised"] == next(
            iter(logged(small_experiment.folder, run, space="default", **of).values())
        )


def on_path(path):
    return f"{path.parent.parent.name}/{path.parent.name}"


def all_logged(results, run):
    table = pq.read_table(results / "trials" / run.trial_id / "records.parquet")
    return table.filter(pc.greater(table["batch"], 0))


ODD_KEYS = ("T/0, [é]", "..", "a_b", "a b", "'quoted'")


@pytest.fixture
def odd(tmp_path):
    """An experiment with NaN and infinite numbers and odd names of subsets and settings; a second trial failed."""
    path = tmp_path / "odd.sweep-1"
    folder = write_experiment(path, [({"model_args.dropout": None}, [12.0, "<b>it</b> = broke\n\u2028\x1b"])])
    change_trial(
        path,
        "0000000000000000/0",
        metrics={
            "val": {
                "mean": {"distance": 9.0, "distance_before": 10.0, "improved": 0.5}
                | {"max_distance": float("nan"), "max_distance_before": float("inf")}
            }
        },
    )
    experiment = json.loads((path / "experiment.json").read_text())
    experiment["configs"]["base_hyperparams"] = {"model_args": {"weights": dict.fromkeys(ODD_KEYS, "%s 🖐 \\")}}
    (path / "experiment.json").write_text(json.dumps(experiment))
    numbers = [float("nan"), float("inf"), -float("inf"), 5e-324]
    rows = [Record(epoch, 2, "val", "a+.b", "original", "distance", value) for epoch, value in enumerate(numbers, 1)]
    folder.trial("0000000000000000/0").write("records.parquet", to_parquet("0000000000000000/0", rows))
    return path


@pytest.fixture(scope="module")
def export_tensorboard():
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from cluster.reports.trackers.tensorboard import export_tensorboard

    return export_tensorboard


@pytest.fixture(scope="module")
def files(export_tensorboard, results, tmp_path_factory):
    to = tmp_path_factory.mktemp("tensorboard") / "new"
    export_tensorboard(read_results(results), to)
    return to


@pytest.fixture(scope="module")
def multiplexer(files):
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    return EventMultiplexer().AddRunsFromDirectory(str(files)).Reload()


@pytest.fixture(scope="module")
def session_groups(multiplexer):
    """The content of the HParams tab, from TensorBoard's own backend."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    provider = MultiplexerDataProvider(multiplexer, "folder")
    context = backend_context.Context(TBContext(data_provider=provider))
    columns = get_experiment.Handler(
        RequestContext(), context, "", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    names = [info.name for info in columns.hparam_infos]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[0, 1, 2, 3],
        aggregation_type=api_pb2.AGGREGATION_AVG,
        col_params=[
            *(api_pb2.ColParams(hparam=name) for name in names),
            *(api_pb2.ColParams(metric=info.name) for info in columns.metric_infos),
        ],
    )
    groups = list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups
    return columns, {group.name: group for group in groups}


class TestTensorBoard:
    def test_has_a_run_for_each_trial(self, multiplexer, results):
        assert multiplexer.Runs().keys() == {".", *(run.trial_id for run in read(results))}

    def test_keeps_every_number_in_single_precision(self, files, results):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        n_compared = 0
        for run in read(results):
            accumulator = EventAccumulator(str(files / run.trial_id)).Reload()
            expected = {}
            for step, values in run.points:
                for name, value in values.items():
                    expected.setdefault(name, {})[step] = value
            for name, value in run.final.values.items():
                expected[f"final/{name}"] = {run.final.step: value}
            assert set(accumulator.Tags()["scalars"]) == expected.keys()
            for name, series in expected.items():
                found = {event.step: event.value for event in accumulator.Scalars(name)}
                assert found.keys() == series.keys()
                np.testing.assert_array_equal([np.float32(series[step]) for step in found], list(found.values()))
                n_compared += len(found)
        assert n_compared > 700

    def test_has_the_numbers_of_the_records(self, files, results):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = next(run for run in read(results) if run.status == "finished")
        scalars = EventAccumulator(str(files / run.trial_id)).Reload().Scalars("val/distance_mm[A]")
        expected = by_step(logged(results, run, split="val", subset="A", metric="distance", space="original"))
        assert {event.step: event.value for event in scalars} == {k: np.float32(v) for k, v in expected.items()}
        assert {event.wall_time for event in scalars} == {trial_json(results, run)["ended"]}

    def test_shows_the_options_in_the_hparams_tab(self, session_groups, results):
        columns, groups = session_groups
        infos = {info.name: info for info in columns.hparam_infos}
        assert list(infos[LR].domain_discrete) == [1e-3, 1e-2]
        assert len(infos["model"].domain_discrete) == 2
        for run in read(results):
            hparams = groups[run.key].hparams
            assert hparams[LR].number_value == run.options[LR]
            assert hparams["model"].string_value == run.options["model"]

    def test_groups_repetitions_and_shows_their_mean(self, session_groups, results):
        _, groups = session_groups
        runs = [run for run in read(results) if run.status == "finished"]
        for key in {run.key for run in runs}:
            assert {session.name for session in groups[key].sessions} == {f"{key}/0", f"{key}/1"}
            (mean,) = (v.value for v in groups[key].metric_values if v.name.tag == "final/test/distance_mm")
            values = [run.final.values["test/distance_mm"] for run in runs if run.key == key]
            assert mean == pytest.approx(np.mean(values), rel=1e-6)

    def test_marks_how_each_trial_ended(self, session_groups, results):
        from tensorboard.plugins.hparams import api_pb2

        marks = {
            "finished": api_pb2.STATUS_SUCCESS,
            "failed": api_pb2.STATUS_FAILURE,
            "diverged": api_pb2.STATUS_FAILURE,
            "interrupted": api_pb2.STATUS_UNKNOWN,
            "pending": api_pb2.STATUS_UNKNOWN,
        }
        _, groups = session_groups
        statuses = {session.name: session.status for group in groups.values() for session in group.sessions}
        assert statuses == {run.trial_id: marks[run.status] for run in read(results)}

    def test_has_status_error_and_settings_as_text_that_is_not_markdown(self, files, results):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for run in read(results):
            accumulator = EventAccumulator(str(files / run.trial_id)).Reload()
            trial, settings = (
                accumulator.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ("trial", "settings")
            )
            assert f"    status: {run.status}\n" in trial
            assert f"    {LR}: {json.dumps(run.settings[LR])}" in settings.splitlines()
            assert all(line.startswith("    ") for line in trial.splitlines())
            for line in run.facts.get("error", "").splitlines():
                assert line in trial

    def test_has_a_type_for_options_of_several_types(self, export_tensorboard, small_experiment, tmp_path):
        small_experiment.run(options={"model_args.dropout": [None, 0.5], "model_args.batchnorm": [True, False]})
        export_tensorboard(read_results(small_experiment.folder), tmp_path / "new")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import metadata

        for run in read(small_experiment.folder):
            accumulator = EventAccumulator(str(tmp_path / "new" / run.trial_id)).Reload()
            content = accumulator.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
            hparams = metadata.parse_session_start_info_plugin_data(content).hparams
            assert hparams["model_args.dropout"].string_value == str(run.options["model_args.dropout"])
            assert hparams["model_args.batchnorm"].bool_value == run.options["model_args.batchnorm"]

    def test_keeps_what_is_no_number(self, export_tensorboard, odd, tmp_path):
        export_tensorboard(read_results(odd), tmp_path / "new")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        accumulator = EventAccumulator(str(tmp_path / "new" / "0000000000000000" / "0")).Reload()
        scalars = accumulator.Scalars("val/distance_mm[a+.b]")
        assert [event.step for event in scalars] == [2, 4, 6, 8]
        np.testing.assert_array_equal([event.value for event in scalars], [np.nan, np.inf, -np.inf, 0])
        (final,) = accumulator.Scalars("final/val/max_distance_mm")
        assert np.isnan(final.value)

    def test_needs_no_torch_no_ray_and_no_tensorflow(self, export_tensorboard, results, tmp_path, python):
        done = python(EXPORT, "tensorboard", results, tmp_path / "new")
        assert (done.stderr, done.stdout) == ("", "[]\n")


EXPORT = """
import importlib, sys
from pathlib import Path
from cluster.results.results import Results
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
tool, results, to = sys.argv[1:]
export = getattr(importlib.import_module(f"cluster.reports.trackers.{tool}"), f"export_{tool}")
export(Results.read(ExperimentFolder(Storage(results))), Path(to))
print([name for name in ("torch", "ray", "tensorflow") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def export_mlflow():
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow")
    pytest.importorskip("sqlalchemy", reason="mlflow's database is not installed: pip install mlflow")
    from cluster.reports.trackers.mlflow import export_mlflow

    return export_mlflow


@pytest.fixture(scope="module")
def database(export_mlflow, results, tmp_path_factory):
    to = tmp_path_factory.mktemp("mlflow") / "new"
    export_mlflow(read_results(results), to)
    return to


@pytest.fixture(scope="module")
def client(database):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{database / 'mlflow.db'}")


@pytest.fixture(scope="module")
def found(client):
    """The runs in the database, by the trials' ids."""
    experiment = client.get_experiment_by_name("small_experiment")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
class TestMlflow:
    def test_has_a_run_for_each_trial_with_its_status(self, found, results):
        marks = {
            "finished": "FINISHED",
            "failed": "FAILED",
            "diverged": "FAILED",
            "interrupted": "KILLED",
            "pending": "SCHEDULED",
        }
        runs = read(results)
        assert {name: run.info.status for name, run in found.items()} == {
            run.trial_id: marks[run.status] for run in runs
        }
        for run in runs:
            facts = {name: value for name, value in run.facts.items() if value != ERROR}
            assert found[run.trial_id].data.tags.items() >= facts.items()

    def test_has_the_error_of_what_failed_and_shows_where_it_is_cut(self, found):
        texts = [run.data.tags["error"] for run in found.values() if "error" in run.data.tags]
        assert len(texts) == 10
        assert f"{ERROR[:7999]}…" in texts

    def test_has_the_times_of_the_trials(self, found, results):
        for run in read(results):
            info = found[run.trial_id].info
            if run.status in ("finished", "diverged"):
                content = trial_json(results, run)
                assert info.start_time == round(1000 * content["started"])
                assert info.end_time == round(1000 * content["ended"])
            elif run.status in ("interrupted", "pending"):
                assert info.end_time is None

    def test_has_the_settings_as_parameters(self, found, results):
        for run in read(results):
            assert found[run.trial_id].data.params == {path: as_text(v) for path, v in run.settings.items()}

    def test_has_every_number_with_all_its_bits(self, client, found, results):
        n_compared = 0
        for run in read(results):
            expected = {f"final/{name}": [(run.final.step, value)] for name, value in run.final.values.items()}
            for step, values in run.points:
                for name, value in values.items():
                    expected.setdefault(name, []).append((step, value))
            expected = {name.replace("[", " ").replace("]", ""): series for name, series in expected.items()}
            assert found[run.trial_id].data.metrics.keys() == expected.keys()
            if run.trial_id.endswith("/0"):
                for name, series in expected.items():
                    history = client.get_metric_history(found[run.trial_id].info.run_id, name)
                    assert sorted((metric.step, metric.value) for metric in history) == series
                    n_compared += len(series)
        assert n_compared > 300

    def test_has_the_numbers_of_the_records(self, client, found, results):
        run = next(run for run in read(results) if run.status == "finished")
        history = client.get_metric_history(found[run.trial_id].info.run_id, "val/distance_mm A")
        expected = by_step(logged(results, run, split="val", subset="A", metric="distance", space="original"))
        assert {metric.step: metric.value for metric in history} == expected

    def test_keeps_subsets_apart_whose_names_have_signs(self, export_mlflow):
        from cluster.reports.trackers.mlflow import _allowed

        names = [
            f"val/distance_mm{group}" for group in ("", "[a+b]", "[a_b]", "[a.b]", "[..]", "[a-b]", "[+]", "[plus]")
        ]
        assert len({_allowed(name) for name in names}) == len(names)

    def test_keeps_what_is_no_number_and_has_names_for_all_settings(self, export_mlflow, odd, tmp_path):
        export_mlflow(read_results(odd), tmp_path / "new")
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("odd.sweep-1")
        runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        run = runs["0000000000000000/0"]
        history = client.get_metric_history(run.info.run_id, "val/distance_mm a plus .b")
        largest = np.finfo(float).max
        found = [metric.value for metric in sorted(history, key=lambda metric: metric.step)]
        np.testing.assert_array_equal(found, [np.nan, largest, -largest, 5e-324])
        assert np.isnan(run.data.metrics["final/val/max_distance_mm"])
        assert [value for name, value in run.data.params.items() if "weights" in name] == 5 * ["%s 🖐 \\"]

    def test_puts_artifacts_beside_the_database(self, client, database):
        location = client.get_experiment_by_name("small_experiment").artifact_location
        assert location == (database / "artifacts").as_uri()

    def test_needs_no_torch_no_ray_and_no_network_and_is_quiet(self, export_mlflow, results, tmp_path, python):
        done = python(WITHOUT_NETWORK + EXPORT, "mlflow", results, tmp_path / "new")
        assert (done.stderr, done.stdout) == ("", "[]\n")


@pytest.fixture(scope="module")
def export_wandb():
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    from cluster.reports.trackers.wandb import export_wandb

    return export_wandb


def logged_runs(to):
    """The summary and history of each run in a folder, by the run's name, from W&B's own inspector."""
    import wandb

    inspect = [Path(wandb.__file__).parent / "bin" / "wandb-core", "leet", "inspect", "--no-observability", "--json"]
    found = {}
    for path in (to / "wandb").glob("offline-run-*/run-*.wandb"):
        arguments = ["--run-file", path, to / "wandb"]
        done = subprocess.run([*inspect, "--summary", *arguments], capture_output=True, text=True, check=True)
        run = json.loads(done.stdout)
        done = subprocess.run([*inspect, *arguments], capture_output=True, text=True, check=True)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        run["group"] = next(record["run"]["run_group"] for record in records if record["type"] == "run")
        items = [record["history"]["item"] for record in records if record["type"] == "history"]
        run["history"] = {item["_step"]: {k: v for k, v in item.items() if k[0] != "_"} for item in items}
        run["times"] = {item["_timestamp"] for item in items}
        found[run["name"]] = run
    return found


@pytest.fixture(scope="module")
def offline_runs(export_wandb, results, tmp_path_factory):
    to = tmp_path_factory.mktemp("wandb") / "new"
    export_wandb(read_results(results), to)
    return logged_runs(to)


def named(values, *, prefix=""):
    return {f"{prefix}{name}".replace("[", "/").replace("]", ""): value for name, value in values.items()}


@pytest.mark.slow
class TestWandb:
    def test_has_a_run_for_each_trial_that_was_started(self, offline_runs, results):
        marks = {"finished": (0, "finished"), "failed": (1, "failed"), "diverged": (1, "failed")}
        marks["interrupted"] = (255, "failed")
        runs = read(results)
        assert {name: (run["exit_code"], run["state"]) for name, run in offline_runs.items()} == {
            run.trial_id: marks[run.status] for run in runs if run.status != "pending"
        }
        for run in runs:
            if run.status != "pending":
                found = offline_runs[run.trial_id]
                assert found["tags"] == [run.status]
                assert found["notes"] == run.facts.get("error", "")
                assert found["run_id"] == run.trial_id.replace("/", "-")
                assert (found["project"], found["group"]) == ("small_experiment", run.key)

    def test_has_settings_and_facts_as_config(self, offline_runs, results):
        for run in read(results):
            if run.status == "pending":
                continue
            config = offline_runs[run.trial_id]["config"]
            assert config["optimizer_args/lr"] == run.options[LR]
            assert config["model_args/hidden_dims"] == [8]
            assert config["trial/seed"] == run.facts["seed"]
            assert config["trial/versions/numpy"] == np.__version__
            assert (config["trial/started"], config["trial/ended"]) == (run.started, run.ended)
            # W&B has no empty dicts, and the error is in the notes.
            names = [path for path, value in run.settings.items() if value != {}] + [
                f"trial/{name}" for name in run.facts
            ]
            assert config.keys() - {"trial/started", "trial/ended"} == {
                name.replace(".", "/") for name in names if name != "trial/error"
            }

    def test_has_every_number_with_all_its_bits(self, offline_runs, results):
        n_compared = 0
        for run in read(results):
            if run.status == "pending":
                continue
            found = offline_runs[run.trial_id]
            assert found["history"] == {step: named(values) for step, values in run.points}
            assert found["times"] == ({run.time} if run.points else set())
            final = {name: value for name, value in found["summary"].items() if name.startswith("final/")}
            assert final == named(run.final.values, prefix="final/")
            n_compared += len(final) + sum(len(values) for _, values in run.points)
        assert n_compared > 700

    def test_has_the_numbers_of_the_records(self, offline_runs, results):
        run = next(run for run in read(results) if run.status == "finished")
        expected = by_step(logged(results, run, split="val", subset="A", metric="distance", space="original"))
        history = offline_runs[run.trial_id]["history"]
        found = {step: values["val/distance_mm/A"] for step, values in history.items() if "val/distance_mm/A" in values}
        assert found == expected

    def test_keeps_what_is_no_number_and_has_names_for_all_settings(self, export_wandb, odd, tmp_path):
        export_wandb(read_results(odd), tmp_path / "new")
        runs = logged_runs(tmp_path / "new")
        run = runs["0000000000000000/0"]
        found = {step: values["val/distance_mm/a+.b"] for step, values in run["history"].items()}
        assert found == {2: "NaN", 4: "Infinity", 6: "-Infinity", 8: 5e-324}
        assert run["summary"]["final/val/max_distance_mm"] == "NaN"
        assert run["summary"]["final/val/max_distance_before_mm"] == "Infinity"
        assert [value for name, value in run["config"].items() if "weights" in name] == 5 * ["%s 🖐 \\"]
        assert runs["0000000000000000/1"]["notes"] == "<b>it</b> = broke\n\u2028\x1b"

    def test_cuts_the_name_of_a_project_that_is_longer_than_is_allowed(self, export_wandb, tmp_path):
        name = 64 * "ab" + "cd"
        export_wandb(Results.read(write_experiment(tmp_path / name, [({LR: 1.0}, [12.0])])), tmp_path / "new")
        assert logged_runs(tmp_path / "new")["0000000000000000/0"]["project"] == 64 * "ab"

    def test_leaves_nothing_but_the_runs(self, export_wandb, odd, tmp_path):
        export_wandb(read_results(odd), tmp_path / "new")
        files = [path.relative_to(tmp_path / "new") for path in (tmp_path / "new").rglob("*") if not path.is_dir()]
        assert sorted(path.name for path in files) == ["run-0000000000000000-0.wandb", "run-0000000000000000-1.wandb"]
        assert {path.parts[0] for path in files} == {"wandb"}

    @pytest.mark.parametrize("n_free", [0, 40_000, 150_000])
    def test_on_a_disk_that_is_full_says_so_and_leaves_nothing(self, export_wandb, results, small_disk, capfd, n_free):
        (small_disk / "full").write_bytes(bytes(2**20 - n_free))
        with pytest.raises(UserError, match="cannot be written"):
            export_wandb(read_results(results), small_disk / "new")
        assert [path.name for path in small_disk.iterdir()] == ["full"]
        assert "Traceback" not in capfd.readouterr().err

    def test_needs_no_torch_no_ray_no_network_and_no_account_and_is_quiet(
        self, export_wandb, results, tmp_path, python
    ):
        settings = {"WANDB_MODE": "online", "WANDB_API_KEY": "", "WANDB_PROJECT": "another", "HOME": str(tmp_path)}
        done = python(WITHOUT_NETWORK + EXPORT, "wandb", results, tmp_path / "new", **settings)
        assert (done.stderr, done.stdout) == ("", "[]\n")


WITHOUT_NETWORK = """
import os, sys
def refuse(event, arguments):
    is_own = event == "socket.connect" and isinstance(arguments[1], str)  # the path of another process of its own
    if event in ("socket.connect", "socket.getaddrinfo") and not is_own:
        os.write(2, f"{event} {arguments}\\n".encode())
        os._exit(1)
sys.addaudithook(refuse)
"""


class TestALibraryThatIsMissing:
    @pytest.mark.parametrize("package", ["tensorboard", "mlflow", "wandb"])
    @pytest.mark.slow
    def test_is_named_with_how_to_install_it(self, python, package):
        done = python(f"import sys; sys.modules[{package!r}] = None; import cluster.reports.trackers.{package}")
        last = done.stderr.splitlines()[-1]
        assert last.startswith("data_pipeline.user_error.UserError: ")
        assert last.endswith(f"pip install {package}")


@pytest.fixture(params=["tensorboard", "wandb", pytest.param("mlflow", marks=pytest.mark.slow)])
def export(request):
    return request.getfixturevalue(f"export_{request.param}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestAnExport:
    def test_does_not_write_over_what_is_there(self, export, odd, tmp_path):
        (tmp_path / "to").mkdir()
        (tmp_path / "to" / "file").write_text("mine")
        with pytest.raises(UserError, match="choose another folder"):
            export(read_results(odd), tmp_path / "to")
        assert [path.name for path in (tmp_path / "to").iterdir()] == ["file"]


class TestATrialThatARaceDropped:
    @pytest.fixture
    def raced(self, tmp_path):
        return read_results(write_raced_results(tmp_path / "raced").storage.local)

    def test_has_the_rung_among_its_facts(self, raced):
        runs = {run.trial_id: run for run in ExperimentRuns.of(raced).runs()}
        assert runs["d/0"].status == runs["d/0"].facts["status"] == "dropped"
        facts = {name: runs["d/0"].facts[f"dropped_{name}"] for name in ("epoch", "repetitions", "reason")}
        assert facts == {"epoch": "3", "repetitions": "2", "reason": "behind"}
        assert not [name for name in runs["a/0"].facts if name.startswith("dropped")]

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
    def test_is_killed_with_a_tag_in_mlflow(self, raced, export_mlflow, tmp_path):
        from mlflow import MlflowClient

        export_mlflow(raced, tmp_path / "new")
        client = MlflowClient(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("raced").experiment_id])
        found = {run.info.run_name: (run.info.status, run.data.tags["status"]) for run in runs}
        assert found["d/0"] == ("KILLED", "dropped")
        assert found["a/0"] == ("FINISHED", "finished")

    @pytest.mark.slow
    def test_has_a_tag_in_wandb(self, raced, export_wandb, tmp_path):
        write_json(raced.files.trial("d/0"), {"status": "running", "started": 1.0})
        export_wandb(raced, tmp_path / "new")
        found = logged_runs(tmp_path / "new")
        assert (found["d/0"]["exit_code"], found["d/0"]["tags"]) == (0, ["dropped"])
        assert "d/1" not in found  # it was not started
