"""Whole experiments in this process: what they write, what they train again, and how errors are reported."""

import contextlib
import csv
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cluster.executors import progress
from cluster.executors.executor import RunEnd
from cluster.experiment import Experiment, Interrupted, TrialsFailedError
from cluster.planning.config import ConfigError
from cluster.planning.identity import digest
from cluster.planning.seeds import repetition_seed
from cluster.result_table import ResultTable
from cluster.results.results import NoResultsError
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder, TrialFolder
from cluster.storage.lease import AlreadyRunningError
from cluster.storage.lock import experiment_lock
from cluster.trial.trainable import run_trial
from data_pipeline.augmenters import RandomRotator
from data_pipeline.batch import DeviceCache, DeviceDataset, dataset_identity
from data_pipeline.normalizers import GlobalNormalizer
from data_pipeline.pose_dataset import read_dataset, write_dataset
from data_pipeline.pose_range import PoseRange
from data_pipeline.preparation.synthetic import synthetic_hands
from data_pipeline.skeleton import HANDS17
from data_pipeline.tables import write_errors
from data_pipeline.user_error import UserError
from posenet.errors import distance_error
from posenet.models import CorrectorMLP
from tests.cluster_tests.experiment_files import write_experiment
from tests.cluster_tests.small_experiment import (
    LR,
    NEIGHBOR_ERRORS,
    FailingMLP,
    HungryMLP,
    InterruptedMLP,
    NanLoss,
    NearMLP,
    SmallExperiment,
    write_datasets,
)

TWO_SUBSETS = {
    **{f"experiment_config.{part}_set": f"two_{part}" for part in ("train", "val", "test")},
    "solver_config.val_example_subset": "B",
}
SWEEP = {
    **TWO_SUBSETS,
    "experiment_config.n_repetitions": 2,
    "solver_config.log_frequency": 2,
    "solver_config.log_loss": True,
    "solver_config.log_grad": True,
}
LRS = [1e-3, 3e-2]


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def trial_files(small_experiment):
    """Content and time of every file of every trial."""
    files = [path for path in (small_experiment.folder / "trials").rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sweep(small_data, tmp_path_factory):
    """A finished experiment: two learning rates, an option with one value, two repetitions, two subsets, a test set."""
    small_experiment = SmallExperiment(small_data, tmp_path_factory.mktemp("sweep"))
    small_experiment.run(SWEEP, {LR: LRS, "model_args.dropout": [None]})
    return small_experiment


@pytest.fixture
def trials(sweep):
    """The content of each trial.json of the sweep, by its folder."""
    return {path.parent: json.loads(path.read_text()) for path in sorted(sweep.folder.glob("trials/*/*/trial.json"))}


def records_of(folder):
    return pq.read_table(folder / "records.parquet").to_pylist()


class Rows(list):
    def select(self, **wanted):
        return [row for row in self if all(row[name] == value for name, value in wanted.items())]


class TestTheFilesOfAnExperiment:
    def test_are_these(self, sweep, trials):
        ids = {f"{content['key']}/{content['repetition']}" for content in trials.values()}
        assert len(ids) == 4
        expected = [".lock", "experiment.json"]
        expected += [f"tables/{name}" for name in ("trials.csv", "trials.parquet")]
        expected += [f"tables/summary.{kind}" for kind in ("csv", "md", "txt")]
        for name in ("trial.json", "records.parquet", "weights.pt", "frames.parquet", "examples.npz"):
            expected += [f"trials/{trial_id}/{name}" for trial_id in ids]
        (fingerprint,) = {content["description"]["data"]["train"]["fingerprint"] for content in trials.values()}
        expected.append(f"training_frames/{fingerprint}.npy")
        ((run_id,),) = {tuple(content["runs"]) for content in trials.values()}
        expected.append(f"runs/{run_id}.json")
        assert files_of(sweep.folder) == sorted(expected)

    def test_say_what_made_them(self, sweep, small_data):
        experiment = json.loads((sweep.folder / "experiment.json").read_text())
        assert experiment["name"] == "small_experiment"
        (run,) = (json.loads(path.read_text()) for path in (sweep.folder / "runs").iterdir())
        # The build tag, as in 2.13.0+cpu, is not part of every installed version.
        assert torch.__version__.startswith(run["versions"]["torch"])
        assert set(run["versions"]) >= {"python", "torch", "ray", "numpy", "pyarrow"}
        assert run["machine"]["cpu_cores"] >= 1
        assert isinstance(run["command"], list)
        assert run["git"].keys() <= {"script", "posetune"}
        configs = experiment["configs"]
        assert configs["experiment_config"]["target_device"] == "cpu"
        assert configs["experiment_config"]["keep_weights"] == "all"  # a default
        assert configs["experiment_config"]["normalizer"] == {"name": "data_pipeline.normalizers.Shifter"}
        assert configs["base_hyperparams"]["loss_function"]["args"]["mode"] == "absolute"
        assert experiment["options"] == [
            {"paths": [LR], "rows": [[1e-3], [3e-2]]},
            {"paths": ["model_args.dropout"], "rows": [[None]]},
        ]
        assert experiment["data"] == [
            {
                "name": f"two_{part}",
                "size": None,
                "use_preset": True,
                "fingerprint": read_dataset(small_data, f"two_{part}").fingerprint,
                "samples": samples,
                "triples": samples - 2,
                "poses": json.loads(json.dumps(PoseRange.of(synthetic_hands(samples, seed), HANDS17).to_json())),
            }
            for seed, (part, samples) in enumerate({"train": 40, "val": 20, "test": 20}.items())
        ]
        assert experiment["plan"]["seeds"] == [repetition_seed(0, 0), repetition_seed(0, 1)]
        assert [combination["options"] for combination in experiment["plan"]["combinations"]] == [
            {LR: lr, "model_args.dropout": None} for lr in LRS
        ]

    def test_of_a_trial_say_all_of_it(self, trials):
        for folder, trial in trials.items():
            assert folder.parts[-2:] == (trial["key"], str(trial["repetition"]))
            assert trial["status"] == "finished"
            assert trial["seed"] == repetition_seed(0, trial["repetition"])
            assert trial["options"][LR] in LRS
            canonical = json.dumps(trial["description"], separators=(",", ":"))
            assert digest(canonical) == trial["key"]
            assert trial["epochs"] == 2
            assert 1 <= trial["best_epoch"] <= 2
            assert trial["started"] <= trial["ended"]
            assert 0 < trial["train_seconds"] <= trial["ended"] - trial["started"] + 1
            assert (trial["device"], trial["threads"], trial["error"]) == ("cpu", 1, None)
            assert set(trial["metrics"]) == {"val", "test"}
            assert set(trial["metrics"]["test"]) == {"mean", "A", "B"}
            assert {"distance", "distance_before", "auc_0_50", "improved", "worsened"} <= set(
                trial["metrics"]["val"]["A"]
            )

    def test_hold_a_record_for_every_number(self, trials):
        for folder, trial in trials.items():
            select = Rows(records_of(folder)).select
            assert {row["trial_id"] for row in select()} == {f"{trial['key']}/{trial['repetition']}"}

            # 40 samples make 3 batches; of two log points the first is after ceil(3/2) = 2 of them.
            assert [(row["epoch"], row["batch"]) for row in select(split="train", metric="loss")] == [
                (1, 2),
                (1, 3),
                (2, 2),
                (2, 3),
            ]
            each_batch = [(epoch, batch) for epoch in (1, 2) for batch in (1, 2, 3)]
            for metric in ("batch_loss", "batch_grad_norm"):
                found = select(split="train", metric=metric)
                assert [(row["epoch"], row["batch"]) for row in found] == each_batch
                assert all(0 < row["value"] < math.inf for row in found)
            for subset in ("mean", "A", "B"):
                assert len(select(split="val", subset=subset, metric="distance", space="original")) == 4 + 1
            final = select(batch=0)
            assert {row["epoch"] for row in final} == {trial["best_epoch"]}
            assert {row["split"] for row in final} == {"val", "test"}
            assert {f"success_worst@{t}" for t in (0, 80)} | {"distance[thumb]"} <= {row["metric"] for row in final}
            for row in final:
                if row["space"] == "original" and not set("@[") & set(row["metric"]):
                    assert trial["metrics"][row["split"]][row["subset"]][row["metric"]] == row["value"]

    def test_hold_the_best_epoch_by_validation(self, trials):
        for folder, trial in trials.items():
            ends = {
                row["epoch"]: row["value"]
                for row in records_of(folder)
                if (row["split"], row["subset"], row["space"], row["metric"], row["batch"])
                == ("val", "mean", "original", "distance", 3)
            }
            assert trial["best_epoch"] == min(ends, key=ends.get)
            assert trial["metrics"]["val"]["mean"]["distance"] == ends[trial["best_epoch"]]

    def test_hold_weights_that_give_the_reported_numbers(self, sweep, trials, small_data):
        datasets = {split: read_dataset(small_data, f"two_{split}") for split in ("val", "test")}
        for folder, trial in trials.items():
            model = CorrectorMLP(HANDS17, hidden_dims=[8])
            model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
            for split, dataset in datasets.items():
                labels = torch.tensor(dataset.labels)
                for subset in ("A", "B"):
                    poses = torch.tensor(dataset.poses[subset])
                    centre = poses.mean(dim=1, keepdim=True)
                    with torch.inference_mode():
                        corrected = model(poses - centre) + centre
                        errors = distance_error(corrected, labels, HANDS17)
                    mean = errors.sum(dtype=torch.float64).item() / errors.numel()
                    assert trial["metrics"][split][subset]["distance"] == mean
                    assert mean == pytest.approx(torch.linalg.vector_norm(corrected - labels, dim=2).mean().item())
                    by_hand = np.linalg.norm(corrected.numpy().astype(float) - dataset.labels, axis=2).mean()
                    assert mean == pytest.approx(by_hand, rel=1e-5)
                subsets = trial["metrics"][split]
                assert subsets["mean"]["distance"] == (subsets["A"]["distance"] + subsets["B"]["distance"]) / 2

    def test_hold_the_examples_at_every_log_point(self, trials, small_data):
        dataset = read_dataset(small_data, "two_val")
        for folder in trials:
            examples = np.load(folder / "examples.npz", allow_pickle=False)
            assert examples["epochs"].tolist() == [1, 1, 2, 2]
            assert examples["batches"].tolist() == [2, 3, 2, 3]
            assert examples["predictions_mm"].shape == (4, 2, 21, 3)
            np.testing.assert_array_equal(examples["inputs_mm"], dataset.poses["B"][[0, 3]])
            np.testing.assert_array_equal(examples["labels_mm"], dataset.labels[[0, 3]])

    def test_hold_the_error_of_every_frame_of_the_test_set(self, trials, small_data):
        labels = read_dataset(small_data, "two_test").labels
        for folder, trial in trials.items():
            rows = pq.read_table(folder / "frames.parquet").to_pylist()
            assert [row["subset"] for row in rows] == ["A"] * len(labels) + ["B"] * len(labels)
            for subset, metrics in trial["metrics"]["test"].items():
                if subset != "mean":
                    of_subset = [row for row in rows if row["subset"] == subset]
                    for name, metric in (("before_mm", "distance_before"), ("after_mm", "distance")):
                        mean = np.mean([row[name] for row in of_subset])
                        assert mean == pytest.approx(metrics[metric], rel=1e-6)

    def test_differ_between_repetitions_and_share_a_repetitions_seed(self, trials):
        by = {(trial["options"][LR], trial["repetition"]): trial for trial in trials.values()}
        for repetition in (0, 1):
            assert by[LRS[0], repetition]["seed"] == by[LRS[1], repetition]["seed"]
        distances = [trial["metrics"]["val"]["mean"]["distance"] for trial in by.values()]
        assert len(set(distances)) == 4


class TestTheTables:
    def test_have_a_row_for_each_trial_with_all_digits(self, sweep, trials):
        rows = read_csv(sweep.folder / "tables" / "trials.csv")
        assert [(float(row[LR]), row["repetition"]) for row in rows] == [(lr, r) for r in "01" for lr in LRS]
        for row in rows:
            trial = trials[sweep.folder / "trials" / row["key"] / row["repetition"]]
            assert int(row["seed"]) == trial["seed"]
            assert (row["status"], row["error"], row["device"]) == ("finished", "", "cpu")
            assert int(row["best_epoch"]) == trial["best_epoch"]
            assert float(row["train_seconds"]) == trial["train_seconds"]
            for split in ("val", "test"):
                metrics = trial["metrics"][split]
                assert float(row[f"{split}_distance_mm"]) == metrics["mean"]["distance"]
                assert float(row[f"{split}_distance_before_mm"]) == metrics["mean"]["distance_before"]
                assert float(row[f"{split}_auc_20_50[B]"]) == metrics["B"]["auc_20_50"]
                assert float(row[f"{split}_bone_length_error_mm[A]"]) == metrics["A"]["bone_length_error"]
                assert float(row[f"{split}_improved"]) == metrics["mean"]["improved"]
        assert "model_args.dropout" not in rows[0]

    def test_are_the_same_in_every_format(self, sweep):
        table = ResultTable.read(ExperimentFolder(Storage(sweep.folder)))
        from_parquet = pq.read_table(sweep.folder / "tables" / "trials.parquet")
        assert from_parquet.to_pylist() == table.trials
        rows = read_csv(sweep.folder / "tables" / "trials.csv")
        assert list(rows[0]) == from_parquet.column_names
        texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.trials]
        assert rows == texts

    def test_summarise_what_numpy_summarises(self, sweep):
        trials = read_csv(sweep.folder / "tables" / "trials.csv")
        summary = read_csv(sweep.folder / "tables" / "summary.csv")
        assert len(summary) == 2
        for row in summary:
            same = [trial for trial in trials if trial["key"] == row["key"]]
            assert (row[LR], row["n"], row["failed"], row["diverged"]) == (same[0][LR], "2", "0", "0")
            for split in ("val", "test"):
                after = np.array([float(trial[f"{split}_distance_mm"]) for trial in same])
                before = np.array([float(trial[f"{split}_distance_before_mm"]) for trial in same])
                assert float(row[f"{split}_distance_mm_mean"]) == pytest.approx(after.mean(), rel=1e-14)
                assert float(row[f"{split}_distance_mm_std"]) == pytest.approx(after.std(ddof=1), rel=1e-9)
                assert float(row[f"{split}_distance_before_mm"]) == pytest.approx(before.mean(), rel=1e-14)
                change = after.mean() - before.mean()
                assert float(row[f"{split}_change_mm"]) == pytest.approx(change, rel=1e-9)
                assert float(row[f"{split}_change_percent"]) == pytest.approx(100 * change / before.mean(), rel=1e-9)
        best = [float(row["val_distance_mm_mean"]) for row in summary]
        assert best == sorted(best)

    def test_are_text_for_a_person_too(self, sweep):
        row = ResultTable.read(ExperimentFolder(Storage(sweep.folder))).summary[0]
        for name in ("summary.txt", "summary.md"):
            text = (sweep.folder / "tables" / name).read_text()
            assert f"{row['test_distance_mm_mean']:.2f} ± {row['test_distance_mm_std']:.2f}" in text
            assert f"{row['test_change_percent']:+.1f} %" in text
            assert "Epochs were chosen on the validation set." in text
            assert "dropout" not in text
        assert "small_experiment: 4 trials, 4 finished" in (sweep.folder / "tables" / "summary.txt").read_text()

    def test_are_returned_and_printed_and_read_again(self, small_experiment, capsys):
        experiment = small_experiment.experiment(options={LR: LRS})
        table = experiment.run("inline")
        printed = capsys.readouterr().out
        assert (small_experiment.folder / "tables" / "summary.txt").read_text() in printed
        assert printed.endswith(f"All files: {small_experiment.folder}/\n")
        assert small_experiment.experiment().results() == table
        assert [row["status"] for row in table.trials] == ["finished", "finished"]
        assert (table.splits, table.split, table.n_others) == (["val"], "val", 0)

    def test_of_an_experiment_that_never_ran_are_an_error(self, small_experiment):
        with pytest.raises(NoResultsError, match=rf"{small_experiment.folder} holds no experiment"):
            small_experiment.experiment().results()


class TestAfterARun:
    def test_the_users_list_holds_what_was_varied(self, small_experiment):
        dicts = small_experiment.dicts()
        experiment = Experiment(*dicts.values())
        experiment.add_options({LR: LRS, "model_args.dropout": [None]})
        experiment.run("inline")
        assert dicts["solver_config"]["interest_keys"] == [LR]
        experiment.run("inline")
        assert dicts["solver_config"]["interest_keys"] == [LR]

    def test_the_data_is_what_it_was(self, small_experiment):
        changes = {
            **TWO_SUBSETS,
            "experiment_config.normalizer": GlobalNormalizer,
            "base_hyperparams.augmenters": [RandomRotator()],
            **NEIGHBOR_ERRORS,
        }
        files = {path: path.read_bytes() for path in small_experiment.data_dir.iterdir()}
        trial, data, folder = small_experiment.trial(changes)

        def checksums():
            return [
                hashlib.sha256(array.tobytes()).hexdigest()
                for dataset in data.sets.values()
                for array in (dataset.labels, *dataset.poses.values())
            ] + [hashlib.sha256(table.array.tobytes()).hexdigest() for table in data.tables.values()]

        before = checksums()
        assert [report.status for report in run_trial(trial, data, folder)] == ["running", "running", "finished"]
        assert checksums() == before
        assert {path: path.read_bytes() for path in small_experiment.data_dir.iterdir()} == files

    def test_a_trial_trained_with_the_tables_that_its_options_name(self, small_data, tmp_path):
        shutil.copytree(small_data, tmp_path / "data")
        write_errors(tmp_path / "data", "calm", np.zeros((30, 21, 3)))
        small_experiment = SmallExperiment(tmp_path / "data", tmp_path / "results")
        calm, noisy = small_experiment.run(NEIGHBOR_ERRORS, {"distorter_args.bank_name": ["calm", "bank"]}).trials
        (undistorted,) = SmallExperiment(small_data, tmp_path / "undistorted").run().trials
        assert (calm["status"], noisy["status"]) == ("finished", "finished")
        assert calm["val_distance_mm"] == undistorted["val_distance_mm"] != noisy["val_distance_mm"]

    def test_what_a_normalizer_learned_stands_in_the_trials_file(self, small_experiment):
        (row,) = small_experiment.run({"experiment_config.normalizer": GlobalNormalizer}).trials
        trial = json.loads((small_experiment.folder / "trials" / row["key"] / "0" / "trial.json").read_text())
        poses = read_dataset(small_experiment.data_dir, "small_train").poses["DEFAULT"].reshape(-1, 3).astype(float)
        np.testing.assert_allclose(trial["normalizer"]["mean_mm"], poses.mean(axis=0), rtol=1e-6)

    def test_a_device_that_is_not_there_is_an_error_before_anything_is_written(self, small_experiment):
        with pytest.raises(
            ConfigError, match=r"experiment_config.target_device: cuda:99 was requested, but this machine"
        ):
            small_experiment.run({"experiment_config.target_device": torch.device("cuda:99")})
        assert not small_experiment.folder.exists()

    def test_an_unknown_executor_is_an_error_before_anything_is_written(self, small_experiment):
        with pytest.raises(ConfigError, match=r"there is no executor 'inlin'; did you mean 'inline'\?"):
            small_experiment.experiment().run("inlin")
        assert not small_experiment.folder.exists()


class TestASecondRun:
    def test_trains_nothing_and_touches_no_file_of_a_trial(self, small_experiment, capsys):
        first = small_experiment.run(options={LR: LRS})
        files = trial_files(small_experiment)
        tables = {path: path.read_bytes() for path in (small_experiment.folder / "tables").iterdir()}
        capsys.readouterr()
        assert small_experiment.run(options={LR: LRS}) == first
        assert capsys.readouterr().err == "2 combinations × 1 repetition = 2 trials: 2 finished\n"
        assert trial_files(small_experiment) == files
        assert {path: path.read_bytes() for path in (small_experiment.folder / "tables").iterdir()} == tables

    def test_reads_each_trial_once_for_what_to_train_and_once_for_the_tables(self, small_experiment, monkeypatch):
        changes = {"experiment_config.keep_weights": "best"}
        small_experiment.run(changes, {LR: LRS})
        read = []
        real = TrialFolder.read_trial

        def read_trial(folder, **options):
            read.append(folder.trial_id)
            return real(folder, **options)

        monkeypatch.setattr(TrialFolder, "read_trial", read_trial)
        table = small_experiment.run(changes, {LR: LRS})
        assert sorted(read) == sorted([f"{row['key']}/0" for row in table.trials] * 2)

    def test_knows_the_best_of_the_runs_before(self, small_experiment, capsys, monkeypatch):
        best = small_experiment.run({}, {LR: LRS}).summary[0]
        capsys.readouterr()
        monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0)
        small_experiment.run({}, {LR: [*LRS, 1.0]})
        says = f"best so far {best['val_distance_mm_mean']:.2f} mm (lr {best[LR]})"
        assert [says in line for line in capsys.readouterr().err.splitlines()[2:]] == [True] * 3

    def test_with_settings_that_change_no_number_trains_nothing(self, small_experiment):
        small_experiment.run(options={LR: LRS})
        files = trial_files(small_experiment)
        small_experiment.run({"solver_config.log_loss": True, "experiment_config.max_retries": 0}, {LR: LRS[::-1]})
        assert trial_files(small_experiment) == files

    def test_of_a_larger_grid_trains_what_is_new(self, small_experiment, capsys):
        small_experiment.run(options={LR: LRS})
        files = trial_files(small_experiment)
        table = small_experiment.run(options={LR: [*LRS, 1e-4], "model_args.dropout": [None, 0.5]})
        assert "6 trials: 2 finished, 4 to train" in capsys.readouterr().err
        assert len(table.trials) == 6
        assert {path: trial_files(small_experiment)[path] for path in files} == files

    def test_with_more_repetitions_trains_those_and_with_fewer_shows_less(self, small_experiment):
        one = small_experiment.run(options={LR: LRS})
        files = trial_files(small_experiment)
        three = small_experiment.run({"experiment_config.n_repetitions": 3}, {LR: LRS})
        assert three.trials[:2] == one.trials
        assert [row["n"] for row in three.summary] == [3, 3]
        assert {path: trial_files(small_experiment)[path] for path in files} == files
        again = small_experiment.run(options={LR: LRS})
        assert again.trials == one.trials
        assert again.n_others == 4

    def test_of_a_smaller_grid_keeps_the_others_counts_them_and_shows_them_not(self, small_experiment, capsys):
        small_experiment.run({"experiment_config.n_repetitions": 2}, {LR: LRS})
        files = trial_files(small_experiment)
        table = small_experiment.run({"experiment_config.n_repetitions": 2}, {LR: LRS[:1]})
        assert (len(table.trials), table.n_others, table.option_paths) == (2, 2, [])
        assert "2 trials with other settings are kept in trials/ but not shown." in capsys.readouterr().out
        assert trial_files(small_experiment) == files
        # They are still there when the grid grows again.
        assert small_experiment.run({"experiment_config.n_repetitions": 2}, {LR: LRS}).n_others == 0
        assert trial_files(small_experiment) == files

    def test_with_other_data_of_the_same_name_trains_anew_and_mixes_nothing(self, small_experiment, tmp_path):
        write_datasets(tmp_path / "data")
        small_experiment = SmallExperiment(tmp_path / "data", small_experiment.storage_path)
        old = small_experiment.run()
        dataset = read_dataset(small_experiment.data_dir, "small_val")
        write_dataset(small_experiment.data_dir, "small_val", dataset.labels, dataset.poses["DEFAULT"] + 1)
        new = small_experiment.run()
        assert new.n_others == 1
        assert new.trials[0]["key"] != old.trials[0]["key"]
        assert new.trials[0]["val_distance_before_mm"] != old.trials[0]["val_distance_before_mm"]

    def test_trains_a_trial_again_whose_file_is_broken_or_gone(self, small_experiment):
        (row,) = small_experiment.run().trials
        path = small_experiment.folder / "trials" / row["key"] / "0" / "trial.json"
        for content in ('{"status": "fin', '{"status": "finished"}', None):
            path.unlink() if content is None else path.write_text(content)
            (again,) = small_experiment.run().trials
            assert (again["status"], again["val_distance_mm"]) == ("finished", row["val_distance_mm"])

    def test_removes_what_a_killed_writer_left(self, small_experiment):
        (row,) = small_experiment.run().trials
        left = [
            small_experiment.folder / ".experiment.json.1.partial",
            small_experiment.folder / "tables" / ".trials.csv.1.partial",
        ]
        for path in left:
            path.write_text("{")
        small_experiment.run()
        assert not any(path.exists() for path in left)
        in_trial = small_experiment.folder / "trials" / row["key"] / "0" / ".checkpoint.pt.1.partial"
        in_trial.write_text("x")
        (in_trial.parent / "trial.json").unlink()
        small_experiment.run()
        assert not in_trial.exists()

    def test_while_another_runs_is_refused_and_writes_nothing(self, small_experiment):
        small_experiment.run()
        before = files_of(small_experiment.folder)
        with (
            experiment_lock(Storage(small_experiment.folder)),
            pytest.raises(AlreadyRunningError, match="is in use: process"),
        ):
            small_experiment.run(options={LR: LRS})
        assert files_of(small_experiment.folder) == before


class TestATrialThatGoesWrong:
    @pytest.mark.parametrize(
        ("option", "status", "says"),
        [
            ({"model": [FailingMLP, CorrectorMLP]}, "failed", r"^RuntimeError: this model is broken"),
            (
                {"model": [HungryMLP, CorrectorMLP]},
                "failed",
                r"^OutOfMemoryError: CUDA out of memory.* — out of memory on cpu with batch_size 16, in trial "
                r"[0-9a-f]{16}/0; reduce the batch size or the model$",
            ),
            (
                {"loss_function": [NanLoss, SmallExperiment(None, "").dicts()["base_hyperparams"]["loss_function"]]},
                "diverged",
                r"^the loss is nan in epoch 1, batch 1$",
            ),
            ({LR: [1e30, 1e-3]}, "diverged", r"^the (loss|validation error) is (nan|inf) in epoch 1, batch \d$"),
        ],
        ids=["it raises", "out of memory", "its loss is no number", "it explodes"],
    )
    def test_is_a_row_and_the_others_are_complete(self, small_experiment, capsys, option, status, says):
        with pytest.raises(TrialsFailedError, match=f"^1 {status} of 2 trials; the others are complete. ") as caught:
            small_experiment.run(options=option)
        bad, good = caught.value.table.trials
        assert (bad["status"], good["status"]) == (status, "finished")
        assert re.search(says, bad["error"], re.DOTALL)
        assert bad["val_distance_mm"] is None
        assert good["val_distance_mm"] > 0
        rows = read_csv(small_experiment.folder / "tables" / "trials.csv")
        assert [row["status"] for row in rows] == [status, "finished"]
        assert rows[0]["error"] == bad["error"]
        folder = small_experiment.folder / "trials" / bad["key"] / "0"
        trial = json.loads((folder / "trial.json").read_text())
        assert ("Traceback" in (trial["traceback"] or "")) == (status == "failed")
        assert not (folder / "weights.pt").exists()
        assert not (folder / "checkpoint.pt").exists()
        output, errors = capsys.readouterr()
        first_line = bad["error"].splitlines()[0]
        assert f"{status}: {bad['key']}/0" in errors
        assert first_line in errors
        assert f"{status}: {bad['key']}/0" in output
        assert first_line in output

    @pytest.mark.usefixtures("with_errors")
    def test_raises_its_own_error_for_a_debugger_after_its_row_was_written(self, small_experiment):
        with pytest.raises(RuntimeError, match="this model is broken") as caught:
            small_experiment.run(options={"model": [CorrectorMLP, FailingMLP, NearMLP]})
        assert caught.traceback[-1].name == "correction"
        assert [row["status"] for row in small_experiment.experiment().results().trials] == [
            *("finished", "failed", "pending")
        ]
        with experiment_lock(Storage(small_experiment.folder)):
            pass  # the run gave its lock back

    def test_is_trained_again_where_it_failed_and_not_where_it_diverged(self, small_experiment, monkeypatch, capsys):
        with pytest.raises(TrialsFailedError, match=r"^1 failed and 1 diverged of 3 trials"):
            self.run_three(small_experiment)
        before = trial_files(small_experiment)
        capsys.readouterr()
        monkeypatch.setattr(FailingMLP, "correction", CorrectorMLP.correction)
        with pytest.raises(TrialsFailedError, match=r"^1 diverged of 3 trials") as caught:
            self.run_three(small_experiment)
        assert "1 finished, 1 failed, to train again, 1 diverged" in capsys.readouterr().err
        assert [row["status"] for row in caught.value.table.trials] == ["finished", "finished", "diverged"]
        repaired = caught.value.table.trials[0]["key"]
        after = trial_files(small_experiment)
        assert {path: file for path, file in after.items() if repaired not in path.parts} == {
            path: file for path, file in before.items() if repaired not in path.parts
        }

    def run_three(self, small_experiment):
        experiment = small_experiment.experiment()
        experiment.add_joint_options(["model", LR], [[FailingMLP, 1e-3], [CorrectorMLP, 1e-3], [CorrectorMLP, 1e30]])
        experiment.run("inline")

    def test_keeps_what_it_had_logged(self, small_experiment, monkeypatch):
        real = CorrectorMLP.correction

        def correction(model, poses):
            model.calls = getattr(model, "calls", 0) + 1
            assert model.calls <= 10, "enough"  # an epoch has 3 batches, an evaluation, and the examples
            return real(model, poses)

        monkeypatch.setattr(CorrectorMLP, "correction", correction)
        with pytest.raises(TrialsFailedError) as caught:
            small_experiment.run({"solver_config.num_epochs": 4})
        (row,) = caught.value.table.trials
        folder = small_experiment.folder / "trials" / row["key"] / "0"
        assert json.loads((folder / "trial.json").read_text())["epochs"] == 2
        assert {record["epoch"] for record in records_of(folder)} == {1, 2}
        assert np.load(folder / "examples.npz")["epochs"].tolist() == [1, 2]

    def test_of_all_trials_stops_the_run_and_shows_the_error(self, small_experiment, capsys):
        lrs = [1e-3, 2e-3, 3e-3, 4e-3]
        changes = {"base_hyperparams.model": FailingMLP, "experiment_config.stop_if_all_fail": 2}
        with pytest.raises(
            TrialsFailedError,
            match=r"^stopped, since the first 2 trials all failed \(stop_if_all_fail\): RuntimeError: this",
        ) as caught:
            small_experiment.run(changes, {LR: lrs})
        assert [row["status"] for row in caught.value.table.trials] == ["failed", "failed", "pending", "pending"]
        changes["experiment_config.stop_if_all_fail"] = None
        with pytest.raises(TrialsFailedError, match=r"^4 failed of 4 trials"):
            small_experiment.run(changes, {LR: lrs})

    def test_again_does_not_stop_what_is_new(self, small_experiment):
        options = {"model": [CorrectorMLP, FailingMLP], LR: [1e-3, 1e-2]}
        changes = {"experiment_config.stop_if_all_fail": 2}
        with pytest.raises(TrialsFailedError, match=r"^2 failed of 4 trials"):
            small_experiment.run(changes, options)
        with pytest.raises(TrialsFailedError, match=r"^4 failed of 8 trials"):
            small_experiment.run({**changes, "experiment_config.n_repetitions": 2}, options)

    def test_does_not_stop_the_run_where_another_did_not_fail(self, small_experiment):
        options = {LR: [1e-3, 1e-2], "model": [CorrectorMLP, FailingMLP]}
        with pytest.raises(TrialsFailedError, match=r"^2 failed of 4 trials"):
            small_experiment.run({"experiment_config.stop_if_all_fail": 1}, options)

    def test_because_its_files_cannot_be_written_fails_the_run(self, small_experiment, monkeypatch):
        real = Storage.write_files

        def write_files(self, folder, files, **options):
            if b'"running"' not in files.get("trial.json", b'"running"'):
                raise StorageError(f"{folder} cannot be written: No space left on device")
            real(self, folder, files, **options)

        monkeypatch.setattr(Storage, "write_files", write_files)
        with pytest.raises(TrialsFailedError, match=r"^1 interrupted of 1 trials"):
            small_experiment.run()
        monkeypatch.setattr(Storage, "write_files", real)
        assert small_experiment.run().trials[0]["status"] == "finished"

    def test_of_a_test_set_that_no_number_comes_out_of_is_diverged(self, small_experiment, tmp_path):
        write_datasets(tmp_path / "data")
        dataset = read_dataset(tmp_path / "data", "small_test")
        far = dataset.poses["DEFAULT"].copy()
        far[5] *= 1000
        write_dataset(tmp_path / "data", "small_test", dataset.labels, far)
        changes = {"experiment_config.test_set": "small_test", "base_hyperparams.model": NearMLP}
        with pytest.raises(TrialsFailedError) as caught:
            SmallExperiment(tmp_path / "data", small_experiment.storage_path).run(changes)
        (row,) = caught.value.table.trials
        assert row["status"] == "diverged"
        assert row["error"].startswith("the test error of the best weights is ")


class TestADisk:
    def test_that_is_full_is_an_error_and_loses_nothing_that_is_finished(self, small_experiment, small_disk, capsys):
        small_experiment = replace(small_experiment, storage_path=small_disk)
        small_experiment.run(options={LR: LRS[:1]})
        finished = trial_files(small_experiment)
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        with pytest.raises(UserError, match="No space left on device"):
            small_experiment.run(options={LR: LRS})
        assert {path: file for path, file in trial_files(small_experiment).items() if path in finished} == finished
        assert not [path for path in small_experiment.folder.rglob("*") if path.name.endswith(".partial")]

        (small_disk / "filler").unlink()
        capsys.readouterr()
        assert [row["status"] for row in small_experiment.run(options={LR: LRS}).trials] == ["finished"] * 2
        assert "1 finished, 1 to " in capsys.readouterr().err
        assert {path: file for path, file in trial_files(small_experiment).items() if path in finished} == finished

    def test_that_is_read_only_is_an_error_before_anything_is_trained(self, small_experiment, small_disk):
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(
            StorageError, match=rf"^{small_disk}/small_experiment/\.lock cannot be written: Read-only file system"
        ):
            replace(small_experiment, storage_path=small_disk).run()


class TestCtrlC:
    def test_ends_the_run_with_130_keeps_what_is_finished_and_says_how_to_go_on(
        self, small_experiment, capsys, monkeypatch
    ):
        options = {"model": [CorrectorMLP, InterruptedMLP]}
        with pytest.raises(Interrupted) as caught:
            small_experiment.run(options=options)
        assert caught.value.code == 130
        assert "run the script again to continue" in capsys.readouterr().err
        assert [row["status"] for row in small_experiment.experiment().results().trials] == ["finished", "interrupted"]
        monkeypatch.setattr(InterruptedMLP, "correction", CorrectorMLP.correction)
        small_experiment.run(options=options)
        assert "1 finished, 1 to continue" in capsys.readouterr().err

    def test_shows_no_rows_without_a_result(self, small_experiment, capsys):
        with pytest.raises(Interrupted):
            small_experiment.run(options={"model": [InterruptedMLP], LR: [*LRS, 5.0]})
        output = capsys.readouterr().out
        assert "No trial has ended, so there is no table yet.\n" in output
        assert "–" not in output


class TestKeepWeights:
    def weights(self, small_experiment):
        keys = [
            sorted(
                path.relative_to(small_experiment.folder / "trials").parts[0]
                for path in small_experiment.folder.rglob(name)
            )
            for name in ("weights.pt", "frames.parquet")
        ]
        assert keys[0] == keys[1]  # the errors of frames are kept together with the weights
        return keys[0]

    def test_all_is_everyones(self, small_experiment):
        table = small_experiment.run({"experiment_config.n_repetitions": 2}, {LR: LRS})
        assert self.weights(small_experiment) == sorted(row["key"] for row in table.trials)

    def test_best_is_those_of_the_best_combination(self, small_experiment):
        table = small_experiment.run(
            {"experiment_config.n_repetitions": 2, "experiment_config.keep_weights": "best"}, {LR: LRS}
        )
        assert self.weights(small_experiment) == [table.summary[0]["key"]] * 2

    def test_best_is_those_of_the_best_on_each_validation_data(self, small_experiment):
        path = "experiment_config.val_set"
        table = small_experiment.run(
            {"experiment_config.keep_weights": "best"}, {path: ["small_val", "small_test"], LR: LRS}
        )
        assert self.weights(small_experiment) == sorted(row["key"] for row in table.best_for_each(path))

    def test_best_is_everyones_until_all_is_trained(self, small_experiment, monkeypatch):
        changes = {"experiment_config.keep_weights": "best"}
        options = {"model": [CorrectorMLP, InterruptedMLP], LR: LRS}
        with pytest.raises(Interrupted):
            small_experiment.run(changes, options)
        assert len(self.weights(small_experiment)) == 2
        monkeypatch.setattr(InterruptedMLP, "correction", CorrectorMLP.correction)
        table = small_experiment.run(changes, options)
        assert self.weights(small_experiment) == [table.summary[0]["key"]]

    def test_best_is_everyones_after_failures_that_stop_the_run(self, small_experiment):
        changes = {"experiment_config.keep_weights": "best", "experiment_config.stop_if_all_fail": 1}
        small_experiment.run({}, {LR: LRS})
        with pytest.raises(TrialsFailedError, match="stopped"):
            small_experiment.run(changes, {"model": [FailingMLP, CorrectorMLP], LR: [*LRS, 1e-4]})
        assert len(self.weights(small_experiment)) == 2

    def test_best_is_also_that_of_a_combination_whose_failed_trial_is_trained_again(
        self, small_experiment, monkeypatch
    ):
        changes = {"experiment_config.n_repetitions": 2}
        best, other = (row["key"] for row in small_experiment.run(changes, {LR: LRS}).summary)
        path = small_experiment.folder / "trials" / other / "1" / "trial.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
        changes["experiment_config.keep_weights"] = "best"
        with monkeypatch.context() as failing:
            failing.setattr(CorrectorMLP, "correction", None)
            with pytest.raises(TrialsFailedError):
                small_experiment.run(changes, {LR: LRS})
        assert set(self.weights(small_experiment)) == {best, other}
        small_experiment.run(changes, {LR: LRS})
        assert self.weights(small_experiment) == [best] * 2

    def test_none_is_nobodys(self, small_experiment):
        small_experiment.run({"experiment_config.keep_weights": "none"}, {LR: LRS})
        assert self.weights(small_experiment) == []
        small_experiment.run({"experiment_config.keep_weights": "all"}, {LR: [*LRS, 1e-4]})
        assert len(self.weights(small_experiment)) == 1
        small_experiment.run({"experiment_config.keep_weights": "none"}, {LR: [*LRS, 1e-4]})
        assert self.weights(small_experiment) == []


class TestWhatIsLogged:
    def test_with_verbose_is_a_line_for_each_log_point(self, small_experiment, capsys):
        small_experiment.run({"solver_config.verbose": True, "solver_config.log_frequency": 2})
        lines = [line for line in capsys.readouterr().err.splitlines() if "validation distance" in line]
        assert len(lines) == 4
        assert re.fullmatch(
            r"[0-9a-f]{16}/0: epoch 1/2, batch 2/3: training loss [\d.]+, distance [\d.]+; "
            r"validation distance [\d.]+ mm",
            lines[0],
        )

    def test_without_verbose_is_no_line(self, small_experiment, capsys):
        small_experiment.run()
        plan, disk = capsys.readouterr().err.splitlines()
        assert plan == "1 combination × 1 repetition = 1 trial: 1 to train"
        assert disk.startswith("disk: ")

    def test_without_log_loss_and_log_grad_has_no_row_for_a_batch(self, small_experiment):
        (row,) = small_experiment.run().trials
        metrics = {record["metric"] for record in records_of(small_experiment.folder / "trials" / row["key"] / "0")}
        assert not {"batch_loss", "batch_grad_norm"} & metrics

    def test_without_examples_has_no_file_of_them(self, small_experiment):
        (row,) = small_experiment.run({"solver_config.val_example_indices": []}).trials
        names = ["frames.parquet", "records.parquet", "trial.json", "weights.pt"]
        assert files_of(small_experiment.folder / "trials" / row["key"] / "0") == names

    def test_with_show_plots_are_pictures_of_the_examples(self, small_experiment):
        (row,) = small_experiment.run({"solver_config.show_plots": True}).trials
        folder = small_experiment.folder / "trials" / row["key"] / "0" / "plots"
        assert files_of(folder) == ["epoch_00001.png", "epoch_00002.png"]
        for path in folder.iterdir():
            with Image.open(io.BytesIO(path.read_bytes())) as picture:
                picture.load()
                assert picture.width > 400


class TestOptionsOutsideTheHyperparameters:
    def test_compare_backbones(self, small_experiment):
        experiment = small_experiment.experiment({"solver_config.val_example_indices": []})
        parts = [f"experiment_config.{part}_set" for part in ("train", "val", "test")]
        experiment.add_joint_options(
            parts, [[f"{name}_{part}" for part in ("train", "val", "test")] for name in ("small", "two")]
        )
        table = experiment.run("inline")
        assert (table.splits, table.distinguishing_paths) == (["val", "test"], parts[:1])
        assert [row["val_distance_mm[A]"] is None for row in table.trials] == [True, False]
        assert table.best_for_each("experiment_config.test_set")[0] is table.summary[0]

    def test_draw_a_learning_curve(self, small_experiment):
        table = small_experiment.run(options={"experiment_config.train_set_size": [8, 16, None]})
        assert [row["experiment_config.train_set_size"] for row in table.trials] == [8, 16, None]
        assert all(row["status"] == "finished" for row in table.trials)

    def test_may_leave_the_test_set_out_of_some(self, small_experiment):
        table = small_experiment.run(options={"experiment_config.test_set": [None, "small_test"]})
        assert [row["test_distance_mm"] is None for row in table.trials] == [True, False]
        assert {row["experiment_config.test_set"]: row["test_distance_mm_mean"] is None for row in table.summary} == {
            None: True,
            "small_test": False,
        }

    def test_may_give_all_a_test_set_that_the_base_has_not(self, small_experiment):
        table = small_experiment.run(options={"experiment_config.test_set": ["small_test"]})
        assert table.splits == ["val", "test"]
        assert table.trials[0]["test_distance_mm"] > 0

    def test_are_epochs_and_batch_sizes(self, small_experiment):
        table = small_experiment.run(options={"solver_config.num_epochs": [1, 3], "solver_config.batch_size": [40, 7]})
        epochs = {}
        for row in table.trials:
            records = records_of(small_experiment.folder / "trials" / row["key"] / "0")
            epochs[row["solver_config.num_epochs"], row["solver_config.batch_size"]] = (
                max(record["epoch"] for record in records),
                max(record["batch"] for record in records),
            )
        assert epochs == {(1, 40): (1, 1), (1, 7): (1, 6), (3, 40): (3, 1), (3, 7): (3, 6)}


class TestInitialWeights:
    def test_are_where_the_training_starts(self, small_experiment, tmp_path):
        (row,) = small_experiment.run({"experiment_config.name": "first"}).trials
        path = Storage(small_experiment.storage_path) / "first" / "trials" / row["key"] / "0" / "weights.pt"
        changes = {"experiment_config.init_weights_path": path.local, "base_hyperparams.optimizer_args.lr": 0.0}
        (second,) = small_experiment.run(changes).trials
        # With a learning rate of 0 nothing is learned.
        assert second["val_distance_mm"] == row["val_distance_mm"]
        assert second["key"] != row["key"]


class TestReproducibility:
    def test_the_same_experiment_elsewhere_has_the_same_numbers(self, sweep, tmp_path):
        again = SmallExperiment(sweep.data_dir, tmp_path / "elsewhere")
        torch.manual_seed(123)
        np.random.seed(5)  # noqa: NPY002 - that it changes nothing is what is tested
        # Another order of trials, with other trials in between.
        again.run(SWEEP, {LR: [LRS[1], 1e-4, LRS[0]]})
        for path in sweep.folder.glob("trials/*/*/records.parquet"):
            other = again.folder / path.relative_to(sweep.folder)
            assert other.read_bytes() == path.read_bytes()
            for name in ("examples.npz", "weights.pt"):
                assert other.with_name(name).read_bytes() == path.with_name(name).read_bytes()

    def test_another_seed_has_others(self, small_experiment):
        (one,) = small_experiment.run().trials
        (other,) = small_experiment.run({"experiment_config.seed": 1}).trials
        assert one["val_distance_mm"] != other["val_distance_mm"]

    def test_results_on_a_remote_filesystem_are_the_same(self, small_experiment, tmp_path):
        remote = SmallExperiment(small_experiment.data_dir, "fsspec+memory:///test_inline_experiment/results")
        local, there = small_experiment.run(options={LR: LRS}), remote.run(options={LR: LRS})
        without_time = [{**row, "train_seconds": None} for row in local.trials]
        assert [{**row, "train_seconds": None} for row in there.trials] == without_time
        assert remote.run(options={LR: LRS}) == there  # and trains nothing again


def test_without_a_scheduler_the_learning_rate_is_constant(small_experiment):
    changes = {
        "experiment_config.target_device": "cpu",
        "base_hyperparams.scheduler": None,
        "base_hyperparams.scheduler_args": {},
    }
    constant = small_experiment.run({"base_hyperparams.scheduler_args.gamma": 1.0}).trials[0]["val_distance_mm"]
    assert small_experiment.run(changes).trials[0]["val_distance_mm"] == constant
    assert small_experiment.run().trials[0]["val_distance_mm"] != constant


def test_a_single_repetition_has_no_deviation(small_experiment):
    table = small_experiment.run()
    (row,), (trial,) = table.summary, table.trials
    assert (row["n"], row["val_distance_mm_std"]) == (1, None)
    assert row["val_distance_mm_mean"] == trial["val_distance_mm"]


def test_a_process_that_trained_on_the_same_arrays_gives_the_numbers_that_a_fresh_one_does(
    small_experiment, tmp_path, monkeypatch
):
    """With another order of the subsets, batches draw different subsets."""
    first = read_dataset(small_experiment.data_dir, "two_train")
    places = {"experiment_config.data_dir": tmp_path}
    for name, subsets in (("ab", ["A", "B"]), ("ba", ["B", "A"])):
        write_dataset(tmp_path, name, first.labels, {subset: first.poses[subset] for subset in subsets})
    sets = {**places, "experiment_config.train_set": "ba", "experiment_config.val_set": "ab"}
    sets |= {"solver_config.val_example_subset": "A"}
    after_another = small_experiment.run(sets, {"experiment_config.train_set": ["ab", "ba"]}).trials[1]
    # As in a new process.
    monkeypatch.setattr("cluster.trial.trainable._DATASETS", DeviceCache(DeviceDataset.of, dataset_identity))
    alone = small_experiment.run({**sets, "experiment_config.name": "alone"}).trials[0]
    assert after_another["key"] == alone["key"]
    assert after_another["val_distance_mm"] == alone["val_distance_mm"]


def test_the_error_at_the_end_names_a_trial_that_failed_and_not_one_that_was_never_started(small_experiment, tmp_path):
    folder = write_experiment(tmp_path / "sweep", [({LR: 1.0}, [None]), ({LR: 2.0}, ["ValueError: broken"])])
    with pytest.raises(TrialsFailedError, match=f"report log small_experiment {1:016x}/0"):
        small_experiment.experiment()._require_complete(RunEnd("complete"), ResultTable.read(folder))


def test_libraries_are_not_searched_for_garbage_during_and_after_a_run(python):
    done = python("import gc, cluster.experiment\nprint(len(gc.get_objects()) / gc.get_freeze_count())")
    assert float(done.stdout) < 0.1
