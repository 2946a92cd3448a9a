import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import Frames
from data_pipeline.formats.leaderboard import read_leaderboard
from data_pipeline.pose_dataset import dataset_names, read_dataset
from data_pipeline.preparation import making
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.skeleton import NYU
from tests.support import ROOT, SHARED_DATA, hands

SCRIPT = ROOT / "tune_runs" / "prepare_data.py"
MISSING = f"{SHARED_DATA / 'nyu'} is missing; its parent can be named with POSETUNE_SHARED_DATA"

SYNTHETIC = ["synthetic", "--name", "demo", "--train", "30", "--val", "20"]


@pytest.fixture
def results(tmp_path):
    """A ground truth of 12 frames on the camera's axis, `A` 10 mm behind it and `B` 30 mm with one joint."""
    truth = np.tile([320.0, 240.0, 700.0], (12, 14, 1))
    a, b = truth + np.array([0, 0, 10]), truth.copy()
    b[:, 5, 2] += 30
    b[0, 5, 2] -= 10  # exactly 20 mm in the first frame
    for name, poses in {"truth": truth, "A": a, "B": b}.items():
        np.savetxt(tmp_path / f"{name}.txt", poses.reshape(12, 42), fmt="%.3f")
    return tmp_path


def leaderboard(results, *names):
    predictions = [f"{name}={results / name}.txt" for name in names]
    return [
        *("leaderboard", "--dataset", "nyu", "--name", "nyu", "--ground-truth", results / "truth.txt"),
        *("--predictions", *predictions),
    ]


def by_hand(data_dir, name):
    """The statistics of a dataset on disk, computed from the file."""
    dataset = read_dataset(data_dir, name)
    rows = []
    for subset, poses in dataset.poses.items():
        error_mm = np.sqrt(((poses.astype(float) - dataset.labels) ** 2).sum(axis=2))
        rows.append(
            {
                "dataset": name,
                "part": name.rpartition("_")[2],
                "subset": subset,
                "frames": len(dataset),
                "mean_error_mm": pytest.approx(error_mm.mean(), rel=1e-12),
                "mean_worst_joint_mm": pytest.approx(error_mm.max(axis=1).mean(), rel=1e-12),
                "share_worst_joint_within_20mm": (error_mm.max(axis=1) <= 20).mean(),
            }
        )
    return rows


class TestAsAProcess:
    def start(self, *arguments):
        command = [sys.executable, SCRIPT, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    @pytest.mark.slow
    def test_the_statistics_of_what_was_written_are_all_of_stdout_as_json(self, data_dir):
        process = self.start(
            *SYNTHETIC, "--test", "10", "--subsets", "A,B+", "--json", "--data-dir", data_dir, "--seed", "3"
        )
        assert (process.returncode, process.stderr) == (0, "")
        expected = [row for part in ("train", "val", "test") for row in by_hand(data_dir, f"demo_{part}")]
        assert len(expected) == 6
        assert json.loads(process.stdout) == expected

    @pytest.mark.slow
    def test_an_error_is_one_line_without_a_traceback(self, data_dir):
        process = self.start(*SYNTHETIC, "--subsets", "A,mean", "--data-dir", data_dir)
        assert (process.returncode, process.stdout) == (2, "")
        assert process.stderr.startswith("error: --subsets: 'mean' is not a valid subset name: a name has 1 to 100")
        assert process.stderr.count("\n") == 1


class TestSynthetic:
    def test_without_subsets_is_a_plain_tensor(self, run, data_dir):
        status, _, errors = run(*SYNTHETIC)
        assert (status, errors) == (0, "")
        assert dataset_names(data_dir) == ["demo_train", "demo_val"]
        poses = torch.load(data_dir / "demo_train_poses.pt", weights_only=True)
        assert isinstance(poses, torch.Tensor)
        assert poses.shape == (30, 21, 3)

    def test_with_subsets_has_one_for_each_name(self, run, data_dir):
        run(*SYNTHETIC, "--test", 10, "--subsets", "Pose-REN,DeepPrior++")
        dataset = read_dataset(data_dir, "demo_test")
        assert list(dataset.poses) == ["Pose-REN", "DeepPrior++"]
        assert not np.array_equal(dataset.poses["Pose-REN"], dataset.poses["DeepPrior++"])

    def test_follows_the_seed_alone_with_or_without_a_test_set(self, run, data_dir):
        def made(*arguments):
            run(*SYNTHETIC, "--force", *arguments)
            return [read_dataset(data_dir, name).fingerprint for name in ("demo_train", "demo_val")]

        first = made("--seed", 5)
        assert made("--seed", 5, "--test", 10) == first
        assert not set(made("--seed", 6)) & set(first)

    def test_keeps_a_backbones_character_over_the_parts_and_shares_no_hand_and_no_noise(self, run, monkeypatch):
        characters, noise, hands = set(), [], []

        class Recorded(making.Backbone):
            def predict(self, labels, seed):
                characters.add((self.subset, self.seed))
                noise.append(seed)
                hands.append(labels[0].tobytes())
                return super().predict(labels, seed)

        monkeypatch.setattr(making, "Backbone", Recorded)
        run(*SYNTHETIC, "--test", 10, "--subsets", "A", "--seed", 5)
        assert characters == {("A", 5)}
        assert len(set(noise)) == len(set(hands)) == 3


class TestLeaderboard:
    def test_warns_of_a_file_that_ends_within_a_number(self, run, results):
        path = results / "A.txt"
        path.write_bytes(path.read_bytes()[:-3])
        status, _, errors = run(*leaderboard(results, "A", "B"), "--split", "blocks:2:3")
        assert status == 0
        assert f"note: {path}: the last line has no line end; if the file was truncated there" in errors
        assert errors.count("no line end") == 1

    def test_makes_subsets_of_several_predictions(self, run, results, data_dir):
        status, output, errors = run(*leaderboard(results, "A", "B"), "--split", "blocks:2:3", "--json")
        assert status == 0
        assert re.fullmatch(r"(warning: nyu_(val|test): 100 % of the .*\n){2}", errors)  # the frames are all alike
        labels = read_leaderboard(results / "truth.txt", "nyu")
        for part, indices in parse_split("blocks:2:3").parts(12).items():
            dataset = read_dataset(data_dir, f"nyu_{part}")
            assert list(dataset.poses) == ["A", "B"]
            np.testing.assert_array_equal(dataset.labels, labels[indices])
            np.testing.assert_array_equal(dataset.poses["B"], read_leaderboard(results / "B.txt", "nyu")[indices])
        rows = {(row["part"], row["subset"]): row for row in json.loads(output)}
        assert rows["train", "B"] == {
            "dataset": "nyu_train",
            "part": "train",
            "subset": "B",
            "frames": 4,
            "mean_error_mm": pytest.approx((20 + 3 * 30) / 4 / 14, rel=1e-12),
            "mean_worst_joint_mm": (20 + 3 * 30) / 4,
            "share_worst_joint_within_20mm": 0.25,  # the frame with exactly 20 mm
        }

    def test_refuses_depths_in_metres(self, run, results, data_dir):
        poses, _ = hands(NYU, 12)
        for name, written in {"truth": poses.numpy(), "A": poses.numpy() / 1000}.items():
            FORMATS["leaderboard-nyu"].write(results / f"{name}.txt", [Frames(written)])
        status, output, errors = run(*leaderboard(results, "A"), "--split", "last:25")
        assert (status, output) == (2, "")
        assert f"error: {results / 'A.txt'} seems to be in metres: read as leaderboard-nyu, " in errors
        assert not data_dir.exists()
        assert run(*leaderboard(results, "A"), "--split", "last:25", "--force")[0] == 0

    def test_makes_a_plain_tensor_of_a_single_prediction(self, run, results, data_dir):
        run(*leaderboard(results, "A"), "--split", "last:25")
        assert dataset_names(data_dir) == ["nyu_train", "nyu_val"]
        assert torch.load(data_dir / "nyu_val_poses.pt", weights_only=True).shape == (3, 14, 3)

    def test_makes_datasets_of_its_own_for_each_prediction_where_asked(self, run, results, data_dir):
        run(*leaderboard(results, "A", "B"), "--split", "last:25", "--separate")
        assert dataset_names(data_dir) == ["nyu_A_train", "nyu_A_val", "nyu_B_train", "nyu_B_val"]
        assert torch.load(data_dir / "nyu_B_val_poses.pt", weights_only=True).shape == (3, 14, 3)

    def test_takes_predictions_from_one_option_or_from_several(self, run, results, data_dir):
        run(*leaderboard(results, "A"), "--predictions", f"B={results / 'B.txt'}", "--split", "none")
        assert list(read_dataset(data_dir, "nyu").poses) == ["A", "B"]

    def test_without_a_split_prints_one_neat_table_of_one_dataset(self, run, results, data_dir):
        status, output, errors = run(*leaderboard(results, "A", "B"), "--split", "none")
        assert (status, errors) == (0, "")
        assert output.splitlines() == [
            "dataset    part    subset      frames    mean error       mean error of         worst joint",
            "                                               (mm)    worst joint (mm)    within 20 mm (%)",
            "---------  ------  --------  --------  ------------  ------------------  ------------------",
            "nyu        all     A               12         10.00               10.00              100.00",
            "nyu        all     B               12          2.08               29.17                8.33",
            "",
            f"Written to {data_dir}: nyu",
        ]

    def test_of_nyu_in_blocks_has_these_mean_errors(self, run, data_dir):
        files = {
            "Pose-REN": "NEUCOM18_NYU_Pose_REN",
            "DeepModel": "IJCAI16_NYU_DeepModel",
            "DeepPrior": "CVWW15_NYU_Prior",
            "DeepPrior++": "ICCVW17_NYU_DeepPrior++",
        }
        folder = SHARED_DATA / "nyu"
        if not folder.is_dir():
            pytest.skip(MISSING)
        _, output, _ = run(
            *("leaderboard", "--dataset", "nyu", "--name", "nyu", "--json", "--split", "blocks:100:5"),
            *("--ground-truth", folder / "nyu_test_groundtruth_label.txt"),
            *("--predictions", *(f"{name}={folder / file}.txt" for name, file in files.items())),
        )
        mean_mm = {(row["part"], row["subset"]): f"{row['mean_error_mm']:.2f}" for row in json.loads(output)}
        assert [mean_mm["val", name] for name in files] == ["12.12", "15.39", "19.22", "11.91"]
        # The last one is 13.0347.
        assert [mean_mm["test", name] for name in files] == ["12.64", "18.34", "20.96", "13.03"]


class TestExistingDatasets:
    def test_are_kept_and_named_in_an_error(self, run, data_dir):
        run(*SYNTHETIC)
        before = {path: path.read_bytes() for path in data_dir.iterdir()}
        status, output, errors = run(*SYNTHETIC, "--seed", 1, "--test", 5)
        assert (status, output) == (2, "")
        assert "already has demo_train, demo_val;" in errors
        assert {path: path.read_bytes() for path in data_dir.iterdir()} == before

    def test_are_overwritten_with_force(self, run, data_dir):
        run(*SYNTHETIC)
        first = read_dataset(data_dir, "demo_train").fingerprint
        status, _, errors = run(*SYNTHETIC, "--seed", 1, "--force")
        assert (status, errors) == (0, "")
        assert read_dataset(data_dir, "demo_train").fingerprint != first

    def test_that_are_half_there_count_too(self, run, data_dir):
        data_dir.mkdir()
        (data_dir / "demo_val_poses.pt").touch()
        assert "already has demo_val;" in run(*SYNTHETIC)[2]

    def test_of_an_earlier_split_are_pointed_out(self, run, results, data_dir):
        run(*leaderboard(results, "A"), "--split", "blocks:1:3")
        status, _, errors = run(*leaderboard(results, "A"), "--split", "last:25", "--force")
        assert status == 0
        assert errors.startswith(f"note: {data_dir} also has nyu_test from an earlier run")


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            *(
                (["--name", name], f"--name: {name!r} is not a valid name")
                for name in ("", "a//b", "a/", "/a", "a/../../b")
            ),
            (["--name", "a b"], "letters, digits, '.', '_', '+', '-'"),
            *((["--name", name], "begins with a letter or digit") for name in ("_x", "..", ".x", "+")),
            (["--name", "x" * 300], "100 characters at most"),
            (["--train", "0"], "--train 0: the number of frames must be from 1"),
            (["--val", "-3"], "--val -3: the number of frames"),
            (["--test", "0"], "omit it for no test set"),
            (["--train", "9" * 30], "from 1 to 1000000000"),
            (["--seed", "-1"], "--seed -1: a seed must be 0 or larger"),
            (["--subsets", "A,B,A"], "--subsets: the name 'A' is given twice"),
            (["--subsets", "A,"], "--subsets: '' is not a valid subset name: a name has 1 to 100"),
            (["--subsets", "A B"], "--subsets: 'A B' is not a valid subset name"),
            (["--subsets", "mean"], "'mean' is reserved"),
        ],
    )
    def test_of_synthetic_data_say_what_to_change_and_leave_no_file(self, run, data_dir, arguments, says):
        status, output, errors = run(*SYNTHETIC, *arguments)
        assert (status, output) == (2, "")
        assert errors.startswith("error: ")
        assert says in errors
        assert not data_dir.exists()

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--split", "blocks:100:2"], "K must be at least 3"),
            (["--split", "thirds"], "'thirds' is not a split"),
            ([], "'blocks:500:5:50' leaves the validation set empty: it needs at least 2001 frames, there are 12"),
            (["--predictions", "B.txt"], "write NAME=FILE"),
            (["--predictions", "=B.txt"], "write NAME=FILE"),
            (["--predictions", "B="], "write NAME=FILE"),
            (["--predictions", "A=B.txt"], "the name 'A' is given twice"),
            (["--predictions", "mean=B.txt"], "'mean' is reserved"),
            (["--predictions", "a/b=B.txt"], "--predictions: 'a/b' is not a valid subset name"),
            (["--predictions", "C=missing.txt"], "missing.txt cannot be read: No such file"),
            (["--predictions", "C=short.txt"], "short.txt has 11 frames, but the ground truth truth.txt has 12"),
            (["--predictions", "C=broken.txt"], "broken.txt, line 12: entry 42 is 'x'"),
            (["--dataset", "icvl"], "truth.txt, line 1 has 42 entries; expected 48"),
            (["--ground-truth", "."], ". cannot be read: Is a directory"),
        ],
    )
    def test_of_files_and_splits_say_what_is_wrong_and_leave_no_file(
        self, run, results, data_dir, monkeypatch, arguments, says
    ):
        monkeypatch.chdir(results)
        lines = Path("A.txt").read_text().splitlines()
        Path("short.txt").write_text("\n".join(lines[:11]))
        Path("broken.txt").write_text("\n".join([*lines[:11], lines[11].rpartition(" ")[0] + " x"]))
        status, output, errors = run(*leaderboard(Path(), "A"), *arguments)
        assert (status, output) == (2, "")
        assert errors.startswith("error: ")
        assert says in errors
        assert not data_dir.exists()

    def test_tell_of_a_data_folder_that_is_none(self, run, data_dir):
        data_dir.touch()
        assert "data is not a folder" in run(*SYNTHETIC)[2]

    def test_tell_of_a_data_folder_that_cannot_be_made(self, script, tmp_path, capsys):
        (tmp_path / "file").touch()
        assert script.main([*SYNTHETIC, "--data-dir", str(tmp_path / "file" / "data")]) == 2
        assert "file/data cannot be written to: Not a directory" in capsys.readouterr().err

    def test_tell_of_a_disk_that_is_full(self, run, monkeypatch):
        def full(*_):
            raise RuntimeError("[enforce fail at inline_container.cc:1] . file write failed\nframe #0: ...")

        monkeypatch.setattr(torch, "save", full)
        status, _, errors = run(*SYNTHETIC)
        assert status == 2
        assert errors.count("\n") == 1
        assert "file write failed" in errors
