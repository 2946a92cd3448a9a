import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from cluster.results.results import Results
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.trained import read_corrector
from data_pipeline import skeleton as skeletons
from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import Frames
from data_pipeline.frame_table import FrameTable
from data_pipeline.normalizers import GlobalNormalizer
from data_pipeline.pose_dataset import read_dataset, read_samples, write_dataset
from data_pipeline.pose_dataset import write_datasets as write_parts
from data_pipeline.skeleton import Skeleton, register_skeleton
from posenet.models import GaussianSmoother, WeightedFusion
from tests.cluster_tests.small_experiment import FUSION, LR, SmallExperiment, write_datasets
from tests.support import ROOT

SCRIPT = ROOT / "tune_runs" / "predict.py"


class InPlace(torch.nn.Module):
    """Moves all poses; it is not a `Corrector`."""

    def __init__(self, skeleton):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.ones(3))

    def forward(self, poses):
        return poses.add_(self.shift)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("predict", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished experiment `small_experiment`, and `nyu` with another skeleton, in one results folder."""
    folder = tmp_path_factory.mktemp("predict")
    write_datasets(folder / "data")
    small_experiment = SmallExperiment(folder / "data", folder / "results")
    small_experiment.run(
        {"experiment_config.n_repetitions": 2, "experiment_config.normalizer": GlobalNormalizer}, {LR: [1e-4, 1e-2]}
    )
    sets = {"experiment_config.train_set": "nyu_train", "experiment_config.val_set": "nyu_val"}
    small_experiment.run({"experiment_config.name": "nyu", **sets})
    return small_experiment


@pytest.fixture(scope="module")
def test_set(sweep):
    return read_dataset(sweep.data_dir, "small_test")


@pytest.fixture
def run(script, sweep, capsys, tmp_path, monkeypatch):
    """Runs the script in an empty folder; returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, experiment="small_experiment"):
        options = ["--experiment", experiment, "--storage-path", sweep.storage_path]
        status = script.main([*map(str, options), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def expected(sweep, test_set):
    """The corrected poses of the test set, (N, 21, 3)."""

    def expected(repetition="best"):
        trained = read_corrector(
            ExperimentFolder(Storage(sweep.storage_path) / "small_experiment"), repetition=repetition
        )
        with torch.no_grad():
            return trained.corrector(torch.tensor(test_set.poses["DEFAULT"])).numpy()

    return expected


def write(name, path, poses):
    """Writes poses in a format, with names if it needs them."""
    names = tuple(f"P0/1/{i:06d}" if name == "msra15" else f"image_{i}.png" for i in range(len(poses)))
    FORMATS[name].write(path, [Frames(poses, names if FORMATS[name].needs_names else None)])
    return names


def read(name, path):
    chunks = list(FORMATS[name].read(path))
    return np.concatenate([chunk.poses for chunk in chunks]), [n for chunk in chunks for n in chunk.names or ()]


HANDS = [name for name, f in FORMATS.items() if f.skeleton is None or f.skeleton.n_joints == 21]


class TestAFile:
    @pytest.mark.parametrize("name", HANDS)
    def test_of_every_format_is_corrected_in_it_with_its_names(self, run, test_set, expected, tmp_path, name):
        suffix = "".join(FORMATS[name].suffixes[:1])
        poses, out = tmp_path / f"poses{suffix}", tmp_path / f"out{suffix}"
        names = write(name, poses, test_set.poses["DEFAULT"])
        status, output, errors = run("--poses", poses, "--out", out, "--format", name)
        assert (status, output) == (0, ""), errors
        assert errors.endswith(f"20 frames written to {out}\n")
        assert "warning" not in errors
        corrected, kept = read(name, out)
        np.testing.assert_allclose(corrected, expected(), atol=5e-3)
        assert kept == (list(names) if FORMATS[name].needs_names else [])

    def test_is_written_in_another_format_by_its_ending_or_name(self, run, test_set, expected, tmp_path):
        torch.save(torch.tensor(test_set.poses["DEFAULT"]), tmp_path / "poses.pt")
        assert run("--poses", "poses.pt", "--out", "out.txt", "--out-format", "leaderboard-msra15")[0] == 0
        np.testing.assert_allclose(read("leaderboard-msra15", tmp_path / "out.txt")[0], expected(), atol=5e-3)
        assert run("--poses", "poses.pt", "--out", "out.npy", "--out-format", "openpose21-m")[0] == 0
        assert np.load(tmp_path / "out.npy")[:, 0] == pytest.approx(expected()[:, 0] / 1000, abs=1e-5)

    def test_is_corrected_by_all_repetitions_as_their_mean(self, run, test_set, expected, tmp_path):
        torch.save(torch.tensor(test_set.poses["DEFAULT"]), tmp_path / "poses.pt")
        run("--poses", "poses.pt", "--out", "out.pt", "--repetition", "all")
        np.testing.assert_allclose(torch.load("out.pt"), (expected(0) + expected(1)) / 2, atol=1e-3)

    def test_with_labels_tells_the_errors_before_and_after_as_numpy_does(self, run, test_set, expected, tmp_path):
        write("hands17", tmp_path / "poses.txt", test_set.poses["DEFAULT"])
        write("hands17", tmp_path / "labels.txt", test_set.labels)
        arguments = ["--poses", "poses.txt", "--labels", "labels.txt", "--out", "out.txt"]
        status, output, _ = run(*arguments, "--json")
        metrics = json.loads(output)
        before = np.linalg.norm(test_set.poses["DEFAULT"] - test_set.labels, axis=2)
        after = np.linalg.norm(expected() - test_set.labels, axis=2)
        assert status == 0
        assert metrics["distance_before"] == pytest.approx(before.mean(), abs=1e-3)
        assert metrics["distance"] == pytest.approx(after.mean(), abs=1e-3)
        assert metrics["distance[TTIP]"] == pytest.approx(after[:, 8].mean(), abs=1e-3)
        assert metrics["distance[pinky]_before"] == pytest.approx(before[:, [5, 18, 19, 20]].mean(), abs=1e-3)
        assert metrics["improved"] == pytest.approx((after.mean(axis=1) < before.mean(axis=1)).mean())
        _, text, _ = run(*arguments, "--force")
        rows = [" ".join(line.split()) for line in text.splitlines()]
        assert f"mean distance per joint {before.mean():.2f} {after.mean():.2f} mm" in rows
        tip, tip_after = before[:, 8].mean(), after[:, 8].mean()
        change = f"{tip_after - tip:+.2f} {100 * (tip_after - tip) / tip:+.1f}"
        assert f"TTIP {tip:.2f} {tip_after:.2f} {change}" in rows

    def test_for_the_challenge_is_a_zip_in_the_order_of_the_official_names(self, run, test_set, expected, tmp_path):
        names = [f"image {i}.png" for i in range(len(test_set))]  # a name may have a space
        FORMATS["hands17"].write(tmp_path / "poses.txt", [Frames(test_set.poses["DEFAULT"], tuple(names))])
        (tmp_path / "official.txt").write_bytes("\n".join(["\ufeff" + names[-1], *names[-2::-1], ""]).encode())
        status, _, errors = run("--poses", "poses.txt", "--out", "result.zip", "--submission", "official.txt")
        assert status == 0, errors
        with zipfile.ZipFile("result.zip") as archive:
            (member,) = archive.namelist()
            lines = archive.read(member).decode().splitlines()
        assert [line.split("\t")[0] for line in lines] == list(reversed(names))
        np.testing.assert_allclose(
            np.array([line.split("\t")[1:] for line in lines], dtype=float)[::-1].reshape(-1, 21, 3),
            expected(),
            atol=1e-3,
        )

    def test_for_the_challenge_gets_the_names_of_the_list_where_it_has_none(self, run, test_set, expected, tmp_path):
        np.save("poses.npy", test_set.poses["DEFAULT"])
        (tmp_path / "official.txt").write_text("".join(f"{i}.png\t1\t2\n" for i in range(len(test_set))))
        options = "--format openpose21 --out result.zip --submission official.txt"
        status, _, errors = run("--poses", "poses.npy", *options.split())
        assert (status, "note: poses.npy has no names; its frames got the names of the list" in errors) == (0, True)
        with zipfile.ZipFile("result.zip") as archive:
            lines = archive.read(*archive.namelist()).decode().splitlines()
        assert [line.split("\t")[0] for line in lines] == [f"{i}.png" for i in range(len(test_set))]

    def test_in_metres_is_refused_with_the_format_that_reads_it_and_corrected_by_force(self, run, test_set, tmp_path):
        FORMATS["openpose21-m"].write(Path("poses.npy"), [Frames(test_set.poses["DEFAULT"])])
        arguments = ("--poses", "poses.npy", "--out", "out.npy", "--format", "openpose21")
        status, _, errors = run(*arguments)
        assert status == 2
        assert (
            "error: poses.npy seems to be in metres: read as openpose21, the mean bone length of a hand is 0.0"
            in errors
        )
        assert errors.endswith("; give the format openpose21-m, or insist with --force\n")
        assert not Path("out.npy").exists()
        status, _, errors = run(*arguments, "--force")
        assert status == 0
        assert "warning: poses.npy: 20 of 20 frames: the mean bone length of a hand is 0.0" in errors
        assert "The unit seems to be metres; expected millimetres" in errors
        status, _, errors = run(*arguments[:-1], "openpose21-m", "--force")
        assert (status, "warning" in errors) == (0, False)

    def test_with_joints_in_another_order_than_its_format_is_warned_of(self, run, test_set, tmp_path):
        np.save("poses.npy", test_set.poses["DEFAULT"])  # in the order of HANDS17
        _, _, errors = run("--poses", "poses.npy", "--out", "out.npy", "--format", "openpose21")
        assert "Does the joint order differ from that of the format?" in errors

    def test_far_from_where_the_training_set_was_is_warned_of(self, run, test_set, tmp_path):
        torch.save(torch.tensor(test_set.poses["DEFAULT"]) * torch.tensor([1, 1, -1.0]), "poses.pt")
        assert ": 20 of 20 frames: the hands are at z = -" in run("--poses", "poses.pt", "--out", "out.pt")[2]

    def test_with_some_frames_in_metres_is_warned_of_how_many_wherever_they_are(self, run, test_set):
        """After the first chunk of frames."""
        poses = np.tile(test_set.poses["DEFAULT"], (255, 1, 1))  # 5,100 frames
        poses[4500:] /= 1000
        torch.save(torch.tensor(poses), "poses.pt")
        status, _, errors = run("--poses", "poses.pt", "--out", "out.pt")
        assert status == 0
        assert (
            "warning: poses.pt: 600 of 5,100 frames, the first is frame 4500 (counted from 0): the mean bone length "
            in errors
        )

    def test_with_labels_in_metres_is_refused(self, run, test_set):
        torch.save(torch.tensor(test_set.poses["DEFAULT"]), "poses.pt")
        torch.save(torch.tensor(test_set.labels) / 1000, "labels.pt")
        status, output, errors = run("--poses", "poses.pt", "--labels", "labels.pt", "--out", "out.pt")
        assert (status, output) == (2, "")
        assert "error: labels.pt seems to be in metres: read as pt, the mean bone length of a hand is 0.0" in errors
        assert "; multiply its coordinates by 1000, or insist with --force" in errors
        assert not Path("out.pt").exists()

    def test_of_mirrored_hands_is_warned_of(self, run, test_set):
        """Labels and poses alike, so no error between them reveals it."""
        for name, poses in {"poses": test_set.poses["DEFAULT"], "labels": test_set.labels}.items():
            torch.save(torch.tensor(poses) * torch.tensor([-1, 1, 1]), f"{name}.pt")
        _, _, errors = run("--poses", "poses.pt", "--labels", "labels.pt", "--out", "out.pt")
        for name in ("poses", "labels"):
            assert re.search(f"warning: {name}.pt: .* Are the hands mirrored, or left hands", errors)

    @pytest.mark.parametrize("name", ["hands17", "leaderboard-msra15"])
    def test_that_ends_within_a_number_is_warned_of(self, run, test_set, tmp_path, name):
        write(name, tmp_path / "poses.txt", test_set.poses["DEFAULT"])
        (tmp_path / "cut.txt").write_bytes((tmp_path / "poses.txt").read_bytes()[:-3])
        arguments = ("--labels", "poses.txt", "--out", "out.txt", "--force")
        assert "warning" not in run("--poses", "poses.txt", *arguments)[2]
        status, _, errors = run("--poses", "cut.txt", *arguments)
        assert status == 0
        assert (
            "warning: cut.txt: the last line has no line end; if the file was truncated there, its last number"
            in errors
        )

    def test_is_warned_of_before_the_error_that_its_oddity_leads_to(self, run, test_set):
        torch.save(torch.tensor(test_set.poses["DEFAULT"]) - torch.tensor([0, 0, 5000]), "poses.pt")
        status, _, errors = run("--poses", "poses.pt", "--out", "out.txt", "--out-format", "leaderboard-msra15")
        assert status == 2
        assert re.search(r"warning: poses.pt: .*the hands are at z = -.*\nerror: .* not in front of the camera", errors)


SMOOTHING = {
    "base_hyperparams.model": GaussianSmoother,
    "base_hyperparams.model_args": {"sigma": 1.0},
    **{f"base_hyperparams.{key}": None for key in ("optimizer", "scheduler")},
    **{f"base_hyperparams.{key}_args": {} for key in ("optimizer", "scheduler")},
}


@pytest.fixture(scope="module")
def recordings(sweep):
    """A dataset `cut_test` of two sequences, the second of which lacks a frame; and a corrector tested on it."""
    samples = read_samples(sweep.data_dir, "small_test")
    n = len(samples)
    frames = FrameTable.of(
        sequence=["a"] * 7 + ["b"] * (n - 7),
        index=[*range(7), *range(5), *range(6, n - 6)],
        name=[f"{i}.png" for i in range(n)],
    )
    write_parts(sweep.data_dir, {"cut_test": replace(samples, frames=frames)})
    sweep.run({**SMOOTHING, "experiment_config.name": "over_time", "experiment_config.test_set": "cut_test"})
    return samples


class TestACorrectorOverTime:
    def test_corrects_a_dataset_in_its_runs_with_the_numbers_of_the_evaluation(self, run, sweep, recordings):
        poses, labels = (sweep.data_dir / f"cut_test_{kind}.pt" for kind in ("poses", "labels"))
        arguments = ("--poses", poses, "--labels", labels, "--out", "new_poses.pt", "--json")
        status, output, _ = run(*arguments, experiment="over_time")
        assert status == 0
        (trial,) = Results.read(ExperimentFolder(Storage(sweep.storage_path) / "over_time")).trials
        assert json.loads(output)["distance"] == pytest.approx(trial["test_distance_mm"], rel=1e-6)
        by_hand = np.concatenate(
            [
                gaussian_filter1d(run.astype(float), 1.0, axis=0, mode="nearest", radius=3)
                for run in np.split(recordings.poses["DEFAULT"], [7, 12])
            ]
        )
        np.testing.assert_allclose(read("pt", Path("new_poses.pt"))[0], by_hand, atol=1e-3)

    def test_keeps_the_frame_table_of_a_dataset(self, run, sweep, recordings):
        poses = sweep.data_dir / "cut_test_poses.pt"
        assert run("--poses", poses, "--out", "new_poses.pt", experiment="over_time")[0] == 0
        content = Path("new_frames.parquet").read_bytes()
        assert content == (sweep.data_dir / "cut_test_frames.parquet").read_bytes()
        assert run("--poses", poses, "--out", "a.txt", "--out-format", "hands17", experiment="over_time")[0] == 0
        assert read("hands17", Path("a.txt"))[1] == [f"{i}.png" for i in range(len(recordings))]

    def test_overwrites_poses_together_with_the_table_of_their_frames(self, run, sweep, recordings):
        poses = sweep.data_dir / "cut_test_poses.pt"
        assert run("--poses", poses, "--out", "new_poses.pt", experiment="over_time")[0] == 0
        FORMATS["pt"].write(Path("others.pt"), [Frames(recordings.poses["DEFAULT"][:7])])
        assert run("--poses", "others.pt", "--out", "new_poses.pt", "--force", experiment="over_time")[0] == 0
        assert not Path("new_frames.parquet").exists()

    def test_takes_a_file_without_a_table_as_one_sequence(self, run, recordings):
        FORMATS["openpose21"].write(Path("poses.npy"), [Frames(recordings.poses["DEFAULT"])])
        assert run("--poses", "poses.npy", "--format", "openpose21", "--out", "o.npy", experiment="over_time")[0] == 0
        by_hand = gaussian_filter1d(recordings.poses["DEFAULT"].astype(float), 1.0, axis=0, mode="nearest", radius=3)
        np.testing.assert_allclose(read("openpose21", Path("o.npy"))[0], by_hand, atol=1e-3)

    def test_gives_the_same_numbers_whatever_is_read_and_corrected_at_once(self, run, script, recordings, monkeypatch):
        FORMATS["pt"].write(Path("poses.pt"), [Frames(recordings.poses["DEFAULT"])])
        run("--poses", "poses.pt", "--out", "whole.pt", experiment="over_time")
        monkeypatch.setattr(script, "_FRAMES_AT_ONCE", 3)
        monkeypatch.setattr("data_pipeline.formats.frames._CHUNK", 5)
        run("--poses", "poses.pt", "--out", "parts.pt", experiment="over_time")
        np.testing.assert_allclose(read("pt", Path("parts.pt"))[0], read("pt", Path("whole.pt"))[0], atol=1e-4)

    @pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
    def test_exported_takes_a_sequence_of_any_length(self, run, recordings, suffix):
        assert run("--export", f"c{suffix}", experiment="over_time")[0] == 0
        poses = recordings.poses["DEFAULT"][:9]
        if suffix == ".pt2":
            corrected = torch.export.load("c.pt2").module()(torch.tensor(poses)).numpy()
        else:
            onnxruntime = pytest.importorskip("onnxruntime")
            (corrected,) = onnxruntime.InferenceSession("c.onnx").run(None, {"poses_mm": poses})
        by_hand = gaussian_filter1d(poses.astype(float), 1.0, axis=0, mode="nearest", radius=3)
        np.testing.assert_allclose(corrected, by_hand, atol=1e-3)


@pytest.fixture(scope="module")
def fused(sweep):
    """The test set `two_test` of the experiments `fusion`, a smoothed mean, and `weighted`, which is trained."""
    sweep.run({**FUSION, "experiment_config.name": "fusion"})
    trained = {path: value for path, value in FUSION.items() if "optimizer" not in path and "scheduler" not in path}
    model = {"base_hyperparams.model": WeightedFusion, "base_hyperparams.model_args": {"n_subsets": 2}}
    rate = {"base_hyperparams.optimizer_args": {"lr": 0.1}}
    sweep.run({**trained, **model, **rate, "experiment_config.name": "weighted", "experiment_config.n_repetitions": 2})
    return read_dataset(sweep.data_dir, "two_test")


def smoothed_mean(dataset):
    """The mean over subsets, smoothed with sigma 1, (N, J, 3)."""
    mean = np.mean([poses.astype(float) for poses in dataset.poses.values()], axis=0)
    return gaussian_filter1d(mean, 1.0, axis=0, mode="nearest", radius=3)


class TestACorrectorThatFusesSubsets:
    @pytest.mark.parametrize("experiment", ["fusion", "weighted"])
    def test_fuses_the_poses_of_a_dataset_with_the_numbers_of_the_evaluation(self, run, sweep, fused, experiment):
        poses, labels = (sweep.data_dir / f"two_test_{kind}.pt" for kind in ("poses", "labels"))
        arguments = ("--poses", poses, "--labels", labels, "--out", "o.pt", "--json", "--repetition", 0)
        status, output, _ = run(*arguments, experiment=experiment)
        assert status == 0
        found = json.loads(output)
        trial = Results.read(ExperimentFolder(Storage(sweep.storage_path) / experiment)).trials[0]
        assert found["distance"] == pytest.approx(trial["test_distance_mm"], rel=1e-6)
        assert found["distance_before"] == pytest.approx(trial["test_distance_before_mm"], rel=1e-6)
        if experiment == "fusion":
            np.testing.assert_allclose(read("pt", Path("o.pt"))[0], smoothed_mean(fused), atol=1e-3)

    def test_finds_the_subsets_by_their_names(self, run, fused):
        mixed = {"other": np.zeros_like(fused.labels), "B": fused.poses["B"], "A": fused.poses["A"]}
        torch.save({name: torch.tensor(poses) for name, poses in mixed.items()}, "mixed.pt")
        torch.save({name: torch.tensor(poses) for name, poses in fused.poses.items()}, "poses.pt")
        for name in ("mixed", "poses"):
            assert run("--poses", f"{name}.pt", "--out", f"{name}_o.pt", experiment="weighted")[0] == 0
        np.testing.assert_array_equal(read("pt", Path("mixed_o.pt"))[0], read("pt", Path("poses_o.pt"))[0])

    @pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.slow)])
    def test_exported_takes_the_poses_of_all_subsets(self, run, fused, suffix):
        status, _, errors = run("--export", f"c{suffix}", experiment="fusion")
        assert status == 0
        assert "it takes poses (N, 2, J, 3) of A and B, in this order, in mm" in errors
        poses = np.stack([fused.poses[name] for name in ("A", "B")], axis=1)
        if suffix == ".pt2":
            corrected = torch.export.load("c.pt2").module()(torch.tensor(poses)).numpy()
        else:
            onnxruntime = pytest.importorskip("onnxruntime")
            (corrected,) = onnxruntime.InferenceSession("c.onnx").run(None, {"poses_mm": poses})
        np.testing.assert_allclose(corrected, smoothed_mean(fused), atol=1e-3)

    def test_of_all_repetitions_is_exported_with_their_mean(self, run, fused):
        poses = torch.tensor(np.stack([fused.poses[name] for name in ("A", "B")], axis=1))
        for repetition in ("0", "1", "all"):
            run("--export", f"{repetition}.pt2", "--repetition", repetition, experiment="weighted")
        first, second, both = (torch.export.load(f"{name}.pt2").module()(poses) for name in ("0", "1", "all"))
        torch.testing.assert_close(both, (first + second) / 2, rtol=0, atol=1e-3)

    @pytest.mark.parametrize(
        ("poses", "says"),
        [
            ("poses.npy", "poses.npy: this corrector fuses the subsets A and B, and only a .pt file has subsets"),
            ("poses.pt#A", "poses.pt#A: this corrector fuses the subsets A and B; name the file without #SUBSET"),
            ("single.pt", "single.pt is a single tensor; it has no subset 'A'"),
            ("lacks.pt", "lacks.pt has no subset 'B'; it has A"),
            ("short.pt", "short.pt: its subsets have different numbers of frames; they need the same frames"),
            ("nyu.pt", "nyu.pt#A has poses of 14 joints; .* on the 21 joints of HANDS17"),
        ],
    )
    def test_refuses_poses_of_other_backbones(self, run, fused, poses, says):
        a, b = (torch.tensor(fused.poses[name]) for name in ("A", "B"))
        FORMATS["openpose21"].write(Path("poses.npy"), [Frames(fused.labels)])
        torch.save({"A": a, "B": b}, "poses.pt")
        torch.save(a, "single.pt")
        torch.save({"A": a}, "lacks.pt")
        torch.save({"A": a, "B": b[:5]}, "short.pt")
        torch.save({"A": a[:, :14].clone(), "B": b[:, :14].clone()}, "nyu.pt")
        options = ("--format", "openpose21") if poses.endswith(".npy") else ()
        status, output, errors = run("--poses", poses, *options, "--out", "o.pt", experiment="fusion")
        assert (status, output) == (2, "")
        assert re.search(f"^error: {says}", errors, re.MULTILINE)
        assert not Path("o.pt").exists()


class TestFramesOfTheTraining:
    @pytest.mark.parametrize("kind", ["poses", "labels"])
    def test_are_warned_of_with_their_number(self, run, sweep, test_set, kind):
        trained = read_dataset(sweep.data_dir, "small_train")
        arrays = {"poses": trained.poses["DEFAULT"], "labels": trained.labels}
        mixed = np.concatenate([test_set.poses["DEFAULT"][:5], arrays[kind][3:10]])
        FORMATS["pt"].write(Path("mixed.pt"), [Frames(mixed)])
        assert (
            "warning: mixed.pt: the corrector was trained on 7 of these 12 frames; what it does to them"
            in (run("--poses", "mixed.pt", "--out", "o.pt")[2])
        )

    def test_are_not_warned_of_where_there_are_none(self, run, test_set):
        FORMATS["pt"].write(Path("new.pt"), [Frames(test_set.poses["DEFAULT"])])
        assert "trained on" not in run("--poses", "new.pt", "--out", "o.pt")[2].replace("was trained on the", "")


class TestRefused:
    @pytest.fixture(autouse=True)
    def files(self, run, test_set, tmp_path):
        torch.save(torch.tensor(test_set.poses["DEFAULT"]), "poses.pt")
        torch.save(torch.tensor(test_set.poses["DEFAULT"][:, :14]), "nyu.pt")
        torch.save(torch.tensor(test_set.labels[:19]), "fewer.pt")
        torch.save(torch.tensor(np.tile(test_set.labels, (2, 1, 1))), "more.pt")
        (tmp_path / "there.pt").write_text("mine")
        (tmp_path / "my_frames.parquet").write_text("mine")
        (tmp_path / "folder").mkdir()
        (tmp_path / "empty.txt").write_text("\n")
        (tmp_path / "latin.txt").write_bytes("é.png".encode("latin-1"))
        (tmp_path / "quits.py").write_text("raise SystemExit(0)")
        write("hands17", tmp_path / "a.txt", test_set.labels)
        write("hands17", tmp_path / "b.txt", test_set.labels)
        lines = (tmp_path / "b.txt").read_text().splitlines(keepends=True)
        (tmp_path / "b.txt").write_text("".join([*lines[:5], lines[6], lines[5], *lines[7:]]))

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ("--poses nyu.pt --out o.pt", "nyu.pt has poses of 14 joints; .* trained on the 21 joints of HANDS17"),
            ("--poses poses.pt --out there.pt", "there.pt exists; .* overwrite it with --force"),
            ("--poses poses.pt --out my_poses.pt", "my_frames.parquet exists; .* overwrite it with --force"),
            ("--poses none.pt --out o.pt", "none.pt does not exist"),
            ("--poses poses.pt --out o.pt --labels none.pt", "none.pt does not exist"),
            ("--poses poses.pt --out folder", "folder is an existing folder; choose another name"),
            ("--poses poses.pt --out o.pt --device mars", "--device mars: torch cannot use this device"),
            ("--poses a.txt --out o.zip --submission none.txt", "none.txt, the list of .* cannot be read: No such"),
            ("--poses a.txt --out o.zip --submission empty.txt", "empty.txt, the list of official names, is empty"),
            ("--poses a.txt --out o.zip --submission latin.txt", "latin.txt, the list of .* is not UTF-8 text"),
            ("--poses poses.pt --out o.pt --import .x", "--import .x: the module cannot be imported: TypeError"),
            (
                "--poses poses.pt --out o.pt --import quits",
                "--import quits: the module cannot be imported: SystemExit: 0",
            ),
            ("--poses poses.pt --out o.pt --import quits.py", "name it without .py"),
            ("--export c.pt2 --poses nyu.pt --out o.pt", "nyu.pt has poses of 14 joints"),
            ("--poses poses.pt --out none/o.pt", "none/o.pt cannot be written: there is no folder none"),
            (
                "--poses poses.pt --out o.pt --labels fewer.pt",
                "fewer.pt has fewer frames than the poses; both files need the same frames",
            ),
            (
                "--poses poses.pt --out o.pt --labels more.pt",
                "more.pt has more frames than the poses; both files need the same frames",
            ),
            ("--poses poses.pt --out o.pt --labels nyu.pt", "nyu.pt has poses of 14 joints; .* on the 21 joints"),
            (
                "--poses a.txt --out o.txt --labels b.txt",
                "b.txt: frame 5 is image_6.png, but in the poses it is image_5.png",
            ),
            ("--poses poses.pt --out o.txt --out-format hands17", "needs a name for each frame"),
            (
                "--poses poses.pt --out o.npy",
                "cannot be detected; .* openpose21, openpose21-m \\(--out-format\\)",
            ),
            ("--poses poses.pt --out o.pt --combination x", "no combination 'x'"),
            ("--poses poses.pt --out o.pt --repetition 7", "has no finished repetition 7"),
            (
                "--poses poses.pt --out o.pt --import no_such_module",
                "--import no_such_module: the module cannot be imported: .* No module named",
            ),
            ("--export corrector.pth", "corrector.pth must end in one of .pt2, .onnx"),
        ],
    )
    def test_with_what_is_wrong_and_no_file_is_left(self, run, tmp_path, arguments, says):
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        status, output, errors = run(*arguments.split())
        assert (status, output) == (2, "")
        error = errors.splitlines()[-1]
        assert error.startswith("error: ")
        assert re.search(says, error)
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before

    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            ("--poses poses.pt --out poses.pt", "poses.pt"),
            ("--poses poses.pt#A --out ./poses.pt", "poses.pt"),
            ("--poses a.txt --out linked.txt", "linked.txt"),
            ("--poses poses.pt --labels more.pt --out more.pt", "more.pt"),
            ("--poses a.txt --submission names.txt --out names.txt", "names.txt"),
            ("--poses poses.pt --out o.pt --export nyu.pt --labels nyu.pt", "nyu.pt"),
        ],
    )
    def test_is_to_overwrite_what_is_read_even_by_force(self, run, tmp_path, arguments, path):
        (tmp_path / "names.txt").write_text("image_0.png")
        (tmp_path / "linked.txt").symlink_to("a.txt")
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        status, output, errors = run(*arguments.split(), "--force")
        assert (status, output) == (2, "")
        assert errors == f"error: {path} is an input and would be overwritten; choose another name for the output\n"
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before

    def test_are_poses_with_another_skeleton_in_both_directions(self, run):
        status, _, errors = run("--poses", "poses.pt", "--out", "o.pt", experiment="nyu")
        assert status == 2
        assert "poses of 21 joints; this corrector was trained on the 14 joints of NYU" in errors
        assert run("--poses", "nyu.pt", "--out", "o.pt", experiment="nyu")[0] == 0

    def test_is_an_experiment_that_is_not_there(self, run):
        status, _, errors = run("--poses", "poses.pt", "--out", "o.pt", experiment="none")
        assert status == 2
        assert "error: no experiment 'none' in " in errors

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ("", "give --poses and --out to correct a file, or --export to write the corrector"),
            ("--poses a.pt", "--poses needs --out"),
            ("--export c.pt2 --poses a.pt", "--poses needs --out"),
            ("--export c.pt2 --out a.pt", "--out needs --poses"),
            ("--export c.pt2 --labels a.pt", "--labels needs --poses"),
            ("--poses a.pt --out b.pt --json", "--json needs --labels"),
            ("--poses a.pt --out b.pt --labels-format pt", "--labels-format needs --labels"),
            ("--poses a.txt --out b.zip --submission n --out-format pt", "omit --out-format"),
            ("--poses a.pt --out b.pt2 --export b.pt2", "--out and --export name the same file"),
        ],
    )
    def test_is_a_command_line_with_half_of_what_belongs_together(self, script, capsys, arguments, says):
        with pytest.raises(SystemExit, match="2"):
            script.main(["--experiment", "small_experiment", *arguments.split()])
        assert says in capsys.readouterr().err


ELSEWHERE = """
import sys
import numpy, torch
poses = numpy.load("poses.npy")
if sys.argv[1].endswith(".pt2"):
    corrector = torch.export.load(sys.argv[1]).module()
    corrected = [corrector(torch.tensor(poses[:n])).numpy() for n in (1, len(poses))]
else:
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1])
    corrected = [session.run(["corrected_mm"], {"poses_mm": poses[:n]})[0] for n in (1, len(poses))]
assert not {"posenet", "data_pipeline", "cluster"} & set(sys.modules)
assert numpy.allclose(corrected[0], corrected[1][:1], atol=1e-3)
numpy.save("corrected.npy", corrected[1])
"""


@pytest.mark.slow
class TestAnExport:
    @pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
    @pytest.mark.parametrize("repetition", ["best", "all"])
    def test_corrects_millimetres_without_this_project(
        self, run, script, sweep, test_set, tmp_path, suffix, repetition
    ):
        status, _, errors = run("--export", f"corrector{suffix}", "--repetition", repetition)
        assert status == 0, errors
        np.save("poses.npy", test_set.poses["DEFAULT"])
        # Without the folder of this project, and without its editable install.
        outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        code = (
            "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n" + ELSEWHERE
        )
        done = subprocess.run(
            [sys.executable, "-c", code, f"corrector{suffix}"],
            **{"cwd": tmp_path, "env": outside, "capture_output": True, "text": True, "check": False},
        )
        assert done.returncode == 0, done.stderr
        folder = ExperimentFolder(Storage(sweep.storage_path) / "small_experiment")
        corrector = read_corrector(folder, repetition=repetition).corrector
        with torch.no_grad():
            expected = corrector(torch.tensor(test_set.poses["DEFAULT"])).numpy()
        np.testing.assert_allclose(np.load("corrected.npy"), expected, atol=1e-3)

    def test_and_a_correction_may_be_asked_for_at_once(self, run, test_set, tmp_path):
        torch.save(torch.tensor(test_set.poses["DEFAULT"]), "poses.pt")
        status, _, errors = run("--export", "c.pt2", "--poses", "poses.pt", "--out", "o.pt")
        assert status == 0, errors
        assert {path.name for path in tmp_path.iterdir()} == {"poses.pt", "c.pt2", "o.pt"}


def test_help_lists_the_formats_and_has_examples_that_work(script, run, test_set, fused, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in FORMATS)
    poses, labels = test_set.poses["DEFAULT"], test_set.labels
    names = write("hands17", tmp_path / "backbone.txt", poses)
    write("hands17", tmp_path / "result.txt", poses)
    (tmp_path / "names.txt").write_text("\n".join(names))
    np.save("backbone.npy", poses)
    np.save("truth.npy", labels)
    write_dataset(tmp_path / "data", "nyu_test", fused.labels, fused.poses)
    examples = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("      posetune predict ")]
    assert len(examples) == 5
    experiments = {"my_sweep": "small_experiment", "my_fusion": "fusion"}
    for example in examples:
        arguments = shlex.split(example)[2:]
        assert arguments[0] == "--experiment"
        status, _, errors = run(*arguments[2:], experiment=experiments[arguments[1]])
        assert status == 0, errors


class TestAModelOfTheUsers:
    def test_that_works_in_place_leaves_the_poses_that_its_errors_are_measured_with(self, run, sweep, test_set, capsys):
        changes = {"base_hyperparams.model": InPlace, "experiment_config.normalizer": None}
        changes |= {"base_hyperparams.eval_space": "default", "base_hyperparams.model_args": {}}
        sweep.run({**changes, "experiment_config.name": "in_place", "experiment_config.n_repetitions": 2})
        capsys.readouterr()
        torch.save(torch.tensor(test_set.poses["DEFAULT"]), "poses.pt")
        torch.save(torch.tensor(test_set.labels), "labels.pt")
        files = ("--poses", "poses.pt", "--labels", "labels.pt", "--out", "out.pt", "--json", "--force")
        for repetition in ("0", "all"):
            more = ("--repetition", repetition, "--import", __name__)
            status, output, errors = run(*files, *more, experiment="in_place")
            assert status == 0, errors
            before = np.linalg.norm(test_set.poses["DEFAULT"] - test_set.labels, axis=2).mean()
            assert json.loads(output)["distance_before"] == pytest.approx(before, abs=1e-3)

    def test_with_a_skeleton_of_their_own_corrects_files_that_tell_the_number_of_joints_alone(
        self, run, sweep, test_set, monkeypatch, tmp_path
    ):
        monkeypatch.setattr("data_pipeline.skeleton._SKELETONS", {**skeletons._SKELETONS})
        finger = Skeleton("finger", tuple("abcde"), bones=((0, 1), (1, 2), (2, 3), (3, 4)))
        register_skeleton(finger)
        for part in ("train", "val"):
            data = read_dataset(sweep.data_dir, f"small_{part}")
            write_dataset(sweep.data_dir, f"finger_{part}", data.labels[:, :5], data.poses["DEFAULT"][:, :5])
        sets = {"experiment_config.train_set": "finger_train", "experiment_config.val_set": "finger_val"}
        sweep.run({**sets, "experiment_config.name": "finger"})
        del skeletons._SKELETONS[5]  # of the script alone
        torch.save(torch.tensor(test_set.poses["DEFAULT"][:, :5]), "poses.pt")
        status, _, errors = run("--poses", "poses.pt", "--out", "out.pt", experiment="finger")
        assert status == 0, errors
        assert torch.load("out.pt").shape == (20, 5, 3)


# Runs the script, says when some frames are written, and waits there.
HALF_WRITTEN = """
import runpy, sys, time
from pathlib import Path
from data_pipeline.formats import hands17

write = hands17.write_lines

def half(*arguments):
    write(*arguments)
    arguments[0].flush()
    print("half", flush=True)
    time.sleep(60)

hands17.write_lines = half
sys.argv = ["predict.py", *sys.argv[1:]]
runpy.run_path("tune_runs/predict.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_process_that_is_ended_while_it_writes_leaves_what_was_there(sweep, test_set, tmp_path, number, status):
    write("hands17", tmp_path / "poses.txt", test_set.poses["DEFAULT"])
    (tmp_path / "out.txt").write_text("mine")
    arguments = ["--experiment", "small_experiment", "--storage-path", sweep.storage_path, "--force"]
    arguments += ["--poses", tmp_path / "poses.txt", "--out", tmp_path / "out.txt"]
    with subprocess.Popen(
        [sys.executable, "-c", HALF_WRITTEN, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"half\n"
        assert len(list(tmp_path.iterdir())) == 3
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == status
    assert {path.name for path in tmp_path.iterdir()} == {"poses.txt", "out.txt"}
    assert (tmp_path / "out.txt").read_text() == "mine"
