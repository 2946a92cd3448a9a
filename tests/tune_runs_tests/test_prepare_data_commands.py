"""The commands that work on existing datasets; test_prepare_data.py tests those that make new ones."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import torch
from rich.console import Console

from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import Frames
from data_pipeline.frame_table import FrameTable
from data_pipeline.pose_dataset import Samples, dataset_names, read_dataset, read_samples, write_datasets
from data_pipeline.preparation import chunks
from data_pipeline.preparation.splits.split import PARTS
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.preparation.synthetic import SEQUENCE_LENGTH, Backbone, synthetic_hands
from data_pipeline.preparation.targets import Target
from data_pipeline.tables import read_table
from tests.support import ROOT
from tests.tune_runs_tests.test_prepare_data import MISSING, SHARED_DATA

COMMANDS = ["synthetic", "leaderboard", "import", "split", "subset", "check", "clusters", "neighbors", "errors"]

N = 3 * SEQUENCE_LENGTH
LABELS = synthetic_hands(N, seed=0)
POSES = {name: Backbone(name).predict(LABELS, seed=0) for name in ("A", "B")}
NAMES = [f"frame {i}" for i in range(N)]

# A command line of each command that writes, and what it writes.
WRITING = {
    "split": (["--dataset", "hands", "--split", "last:20"], ["new_train", "new_val"]),
    "subset": (["--dataset", "hands", "--first", "5"], ["new"]),
    "clusters": (["--dataset", "hands", "--k", "3"], ["new_clusters.txt"]),
    "neighbors": (["--dataset", "hands", "--bank", "hands", "--max-k", "2"], ["new_neighbors.pt"]),
    "errors": (["--dataset", "hands", "--subset", "A"], ["new_errors.pt", "new_error_stats.json"]),
}


@pytest.fixture
def hands(data_dir):
    """A dataset `hands` with two subsets and names."""
    samples = Samples(LABELS, POSES, FrameTable.of(name=NAMES))
    write_datasets(data_dir, {"hands": samples})
    return samples


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def example_of(script, capsys, command):
    """The arguments of the example in the help of `command`."""
    with pytest.raises(SystemExit, match="0"):
        script.main([command, "--help"])
    text = capsys.readouterr().out.replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("    posetune prepare-data"))
    return shlex.split(line)[2:]


class TestHelp:
    def test_names_the_commands(self, script, capsys):
        with pytest.raises(SystemExit, match="0"):
            script.main(["--help"])
        text = capsys.readouterr().out
        assert all(f"\n    {command}" in text for command in COMMANDS)

    @pytest.mark.slow
    def test_has_examples_that_work_one_after_another(self, run, script, capsys, data_dir):
        for command in ("synthetic", "split", "subset", "clusters", "neighbors", "errors", "check"):
            status, output, errors = run(*example_of(script, capsys, command))
            assert (status, errors) == (0, ""), command
            assert output
        made = {"demo_train", "demo_val", "demo_test", *(f"demo_part_{part}" for part in PARTS), "demo_small"}
        assert set(dataset_names(data_dir)) == made
        assert {
            path.name
            for path in data_dir.iterdir()
            if not any(kind in path.name for kind in ("_labels", "_poses", "_frames"))
        } == {
            "demo_train_clusters.txt",
            "demo_train_neighbors.pt",
            "demo_A_errors.pt",
            "demo_A_error_stats.json",
        }

    def test_of_import_has_an_example_that_works_beside_the_files(self, run, script, capsys, data_dir, monkeypatch):
        example = example_of(script, capsys, "import")
        monkeypatch.chdir(data_dir.parent)
        for name, poses in {"Training_Annotation": LABELS, "result_A": POSES["A"], "result_B": POSES["B"]}.items():
            FORMATS["hands17"].write(Path(f"{name}.txt"), [Frames(poses, tuple(NAMES))])
        assert run(*example)[0] == 0
        assert dataset_names(data_dir) == ["hands"]

    def test_of_leaderboard_has_an_example_that_works_beside_the_files(
        self, run, script, capsys, data_dir, monkeypatch
    ):
        example = example_of(script, capsys, "leaderboard")
        if not (SHARED_DATA / "nyu").is_dir():
            pytest.skip(MISSING)
        monkeypatch.chdir(SHARED_DATA / "nyu")
        assert run(*example)[0] == 0
        assert dataset_names(data_dir) == ["nyu_test", "nyu_train", "nyu_val"]

    @pytest.mark.parametrize("command", ["split", "import", "leaderboard"])
    def test_of_a_split_says_why_none_is_random(self, script, capsys, command):
        with pytest.raises(SystemExit, match="0"):
            script.main([command, "--help"])
        assert "Frames are never split at random" in capsys.readouterr().out


class TestImport:
    def test_matches_frames_by_name_splits_them_and_keeps_the_names(self, run, data_dir, tmp_path):
        order = np.random.default_rng(0).permutation(N)
        FORMATS["hands17"].write(tmp_path / "truth.txt", [Frames(LABELS, tuple(NAMES))])
        FORMATS["hands17"].write(tmp_path / "A.txt", [Frames(POSES["A"][order], tuple(NAMES[i] for i in order))])
        status, output, errors = run(
            *("import", "--labels", tmp_path / "truth.txt", "--name", "new", "--split", "last:20:10", "--json"),
            *("--predictions", f"A={tmp_path / 'A.txt'}"),
        )
        assert status == 0
        assert errors.startswith("warning: new_val: Validation frames are 1 or more frames (median 60) away from")
        assert [row["frames"] for row in json.loads(output)] == [420, 120, 60]
        for part, indices in parse_split("last:20:10").parts(N).items():
            samples = read_samples(data_dir, f"new_{part}")
            np.testing.assert_allclose(samples.labels, LABELS[indices], atol=1e-3)
            np.testing.assert_allclose(samples.poses["DEFAULT"], POSES["A"][indices], atol=1e-3)
            assert samples.frames.name.tolist() == [NAMES[i] for i in indices]

    def test_of_labels_alone_makes_a_set_to_train_distorters_on(self, run, data_dir, tmp_path):
        FORMATS["pt"].write(tmp_path / "truth.pt", [Frames(LABELS)])
        status, output, _ = run("import", "--labels", tmp_path / "truth.pt", "--name", "new")
        assert status == 0
        assert output.startswith(f"Read as pt ({FORMATS['pt'].description}): {tmp_path / 'truth.pt'}\n\n")
        assert output.splitlines()[5].split() == ["new", "all", str(N)]
        assert [path.name for path in data_dir.iterdir()] == ["new_labels.pt"]
        np.testing.assert_array_equal(read_dataset(data_dir, "new", use_preset=False).labels, LABELS)

    def test_refuses_metres_read_as_millimetres_and_names_the_format(self, run, data_dir, tmp_path):
        metres = tmp_path / "metres.npy"
        FORMATS["openpose21"].write(metres, [Frames(LABELS / 1000)])
        FORMATS["hands17"].write(tmp_path / "A.txt", [Frames(POSES["A"], tuple(NAMES))])
        files = ("--labels", metres, "--predictions", f"A={tmp_path / 'A.txt'}", "--name", "new")
        status, output, errors = run("import", *files, "--format", "openpose21")
        assert (status, output) == (2, "")
        assert errors.startswith(
            f"error: {metres} seems to be in metres: read as openpose21, the median size of a hand"
        )
        assert errors.endswith("; give the format openpose21-m, or insist with --force\n")
        assert not data_dir.exists()
        assert run("import", *files, "--labels-format", "openpose21-m")[::2] == (0, "")
        status, _, errors = run("import", *files, "--format", "openpose21", "--force")
        assert status == 0
        assert "note: labels: the median size of a hand is 0.1" in errors

    def test_refuses_predictions_in_another_unit_than_the_labels(self, run, data_dir, tmp_path):
        FORMATS["pt"].write(tmp_path / "truth.pt", [Frames(LABELS)])
        FORMATS["pt"].write(tmp_path / "A.pt", [Frames(POSES["A"])])
        FORMATS["pt"].write(tmp_path / "B.pt", [Frames(POSES["A"] / 10)])
        files = ("--labels", tmp_path / "truth.pt", "--predictions", f"A={tmp_path / 'A.pt'}", f"B={tmp_path / 'B.pt'}")
        status, _, errors = run("import", *files, "--name", "new")
        assert status == 2
        assert errors.startswith(f"error: {tmp_path / 'B.pt'} seems to be in centimetres: read as pt, ")
        assert errors.endswith("; multiply its coordinates by 10, or insist with --force\n")
        assert not data_dir.exists()

    def test_refuses_millimetres_read_as_metres(self, run, tmp_path):
        FORMATS["openpose21"].write(tmp_path / "mm.npy", [Frames(LABELS)])
        errors = run("import", "--labels", tmp_path / "mm.npy", "--format", "openpose21-m", "--name", "new")[2]
        assert "mm.npy seems to be in millimetres: read as openpose21-m, " in errors
        assert "; give the format openpose21, or insist with --force\n" in errors

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--labels", "none.pt"], "none.pt cannot be read"),
            (["--labels", "labels.xyz"], "cannot be detected"),
            (["--labels", "truth.pt", "--predictions", "A"], "write NAME=FILE"),
            (["--labels", "truth.pt", "--predictions", "mean=truth.pt"], "'mean' is reserved"),
            (["--labels", "truth.pt", "--split", "thirds"], "'thirds' is not a split"),
        ],
    )
    def test_of_what_is_no_dataset_leaves_no_file(self, run, data_dir, tmp_path, monkeypatch, arguments, says):
        monkeypatch.chdir(tmp_path)
        FORMATS["pt"].write(Path("truth.pt"), [Frames(LABELS[:20])])
        status, output, errors = run("import", "--name", "new", *arguments)
        assert (status, output) == (2, "")
        assert errors.startswith("error: ")
        assert says in errors
        assert not data_dir.exists()


class TestSplit:
    def test_by_clusters_keeps_each_subject_in_one_part(self, run, data_dir, hands):
        assert run("clusters", "--dataset", "hands", "--name", "hands")[0] == 0
        path = data_dir / "hands_clusters.txt"
        status, _, errors = run("split", "--dataset", "hands", "--split", f"clusters:{path}:1:2", "--name", "new")
        assert (status, errors) == (0, "")
        for i, part in enumerate(("train", "val", "test")):
            samples = read_samples(data_dir, f"new_{part}")
            rows = slice(i * SEQUENCE_LENGTH, (i + 1) * SEQUENCE_LENGTH)
            np.testing.assert_array_equal(samples.labels, LABELS[rows])
            np.testing.assert_array_equal(samples.poses["B"], POSES["B"][rows])
            assert samples.frames.name.tolist() == NAMES[rows]

    def test_by_indices_of_a_file_leaves_out_what_is_not_listed(self, run, data_dir, hands, tmp_path):
        (tmp_path / "parts.json").write_text('{"val": [7, 3], "train": [0, 1]}')
        run("split", "--dataset", "hands", "--split", f"indices:{tmp_path / 'parts.json'}", "--name", "new")
        assert read_samples(data_dir, "new_val").frames.name.tolist() == ["frame 3", "frame 7"]
        assert read_samples(data_dir, "new_train").frames.name.tolist() == ["frame 0", "frame 1"]

    @pytest.mark.parametrize(
        "command", [["split", "--split", "sequences:hands-1:hands-2"], ["subset", "--first", "5", "--force"]]
    )
    def test_does_not_warn_of_the_dataset_that_it_divides(self, run, hands, command):
        assert run(*command, "--dataset", "hands", "--name", "hands")[::2] == (0, "")

    def test_warns_of_others_of_an_earlier_run(self, run, data_dir, hands):
        write_datasets(data_dir, {"hands_test": hands})
        errors = run("split", "--split", "last:20", "--dataset", "hands", "--name", "hands")[2]
        assert errors.startswith(f"note: {data_dir} also has hands_test from an earlier run")

    def test_of_labels_alone_is_labels_alone(self, run, data_dir):
        write_datasets(data_dir, {"bare": Samples(LABELS, {})})
        assert run("split", "--dataset", "bare", "--split", "last:20", "--name", "new")[0] == 0
        assert not list(data_dir.glob("new_*_poses.pt"))
        assert len(read_dataset(data_dir, "new_val", use_preset=False)) == N // 5


class TestSubset:
    @pytest.mark.parametrize(
        ("arguments", "kept"),
        [
            (["--every", "200"], [0, 200, 400]),
            (["--first", "3"], [0, 1, 2]),
            (["--random", "600"], range(N)),
        ],
    )
    def test_keeps_subsets_and_names_in_order(self, run, data_dir, hands, arguments, kept):
        assert run("subset", "--dataset", "hands", "--name", "new", *arguments)[0] == 0
        samples = read_samples(data_dir, "new")
        np.testing.assert_array_equal(samples.labels, LABELS[list(kept)])
        np.testing.assert_array_equal(samples.poses["B"], POSES["B"][list(kept)])
        assert samples.frames.name.tolist() == [NAMES[i] for i in kept]

    def test_at_random_follows_its_seed(self, run, data_dir, hands):
        made = []
        for seed in (1, 1, 2):
            run("subset", "--dataset", "hands", "--name", "new", "--random", "50", "--seed", seed, "--force")
            made.append(read_samples(data_dir, "new").frames.name.tolist())
        assert made[0] == made[1] != made[2]

    @pytest.mark.parametrize("arguments", [[], ["--first", "3", "--every", "2"]])
    def test_takes_one_way_to_choose(self, run, capsys, arguments):
        with pytest.raises(SystemExit, match="2"):
            run("subset", "--dataset", "hands", "--name", "new", *arguments)
        assert "--every" in capsys.readouterr().err


class TestClusters:
    def test_tell_sizes_and_bones(self, run, hands):
        _, output, _ = run("clusters", "--dataset", "hands", "--name", "new", "--json")
        facts = json.loads(output)
        assert [cluster["samples"] for cluster in facts["clusters"]] == [SEQUENCE_LENGTH] * 3
        length = np.linalg.norm(LABELS[0, 6].astype(float) - LABELS[0, 1])
        assert facts["clusters"][0]["mean_bone_lengths_mm"]["TMCP-TPIP"] == pytest.approx(length, rel=1e-4)
        assert facts["written"] == ["new_clusters.txt"]

    def test_of_one_subject_are_one_with_a_note(self, run, data_dir):
        noise = np.random.default_rng(0).normal(scale=2, size=(SEQUENCE_LENGTH, 21, 3)).astype(np.float32)
        write_datasets(data_dir, {"one": Samples(LABELS[:SEQUENCE_LENGTH] + noise, {})})
        status, output, errors = run("clusters", "--dataset", "one", "--name", "new")
        assert status == 0
        assert errors.startswith("note: bone lengths do not form clear clusters (the best silhouette is 0.")
        assert f"{SEQUENCE_LENGTH} samples" in output


class TestTables:
    def test_of_neighbors_leave_out_the_label_itself_however_the_set_is_called(self, run, data_dir, hands):
        write_datasets(data_dir, {"copy": Samples(LABELS, {})})
        for bank in ("hands", "copy"):
            run("neighbors", "--dataset", "hands", "--bank", bank, "--max-k", "4", "--name", bank)
        first, second = (read_table(data_dir, f"{bank}_neighbors.pt").array for bank in ("hands", "copy"))
        np.testing.assert_array_equal(first, second)
        assert not (first == np.arange(N)[:, None]).any()

    def test_of_neighbors_in_a_set_of_other_frames_have_no_note(self, run, data_dir, hands):
        write_datasets(data_dir, {"bank": Samples(LABELS + np.float32(1), {})})
        assert run("neighbors", "--dataset", "hands", "--bank", "bank", "--max-k", "1", "--name", "new")[2] == ""

    def test_of_neighbors_may_come_from_another_set(self, run, data_dir, hands):
        write_datasets(data_dir, {"bank": Samples(LABELS[::-1][:100], {})})
        _, output, errors = run(
            "neighbors", "--dataset", "hands", "--bank", "bank", "--max-k", "2", "--name", "new", "--json"
        )
        assert errors.startswith("note: bank contains 100 frames of hands, and each is its own nearest neighbour")
        table = read_table(data_dir, "new_neighbors.pt")
        assert table.array[-100:, 0].tolist() == list(range(99, -1, -1))
        assert table.n_bank == 100
        assert json.loads(output)["neighbors"] == 2

    def test_of_errors_are_those_of_one_subset(self, run, data_dir, hands):
        _, output, _ = run("errors", "--dataset", "hands", "--subset", "B", "--name", "new", "--json")
        error = POSES["B"] - LABELS
        np.testing.assert_array_equal(read_table(data_dir, "new_errors.pt").array, error)
        assert json.loads(output)["mean_mm"]["TTIP"] == pytest.approx(error[:, 8].mean(axis=0, dtype=float), rel=1e-4)

    def test_of_errors_want_to_know_whose(self, run, data_dir, hands):
        before = files(data_dir)
        status, _, errors = run("errors", "--dataset", "hands", "--name", "new")
        assert status == 2
        assert errors == "error: hands has the subsets A, B; choose one with --subset\n"
        assert files(data_dir) == before


class TestCheck:
    def test_of_a_good_dataset_ends_with_0(self, run, hands):
        status, output, errors = run("check", "--dataset", "hands")
        assert (status, errors) == (0, "")
        assert "Nothing looks wrong." in output
        assert f"hands: {N} samples with names" in output

    def test_of_a_suspicious_one_with_1(self, run, data_dir):
        write_datasets(data_dir, {"metres": Samples(LABELS / 1000, {})})
        status, output, _ = run("check", "--dataset", "metres", "--json")
        facts = json.loads(output)
        assert (status, facts["state"]) == (1, "suspicious")
        assert "metres" in facts["warnings"][0]["text"]

    @pytest.mark.parametrize("json_option", [[], ["--json"]])
    def test_of_a_broken_one_with_2(self, run, data_dir, hands, json_option):
        labels = LABELS.copy()
        labels[3, 0, 0] = np.nan
        torch.save(torch.from_numpy(labels), data_dir / "hands_labels.pt")
        status, output, errors = run("check", "--dataset", "hands", *json_option)
        assert status == 2
        assert errors.startswith("error: ")
        assert "the first bad sample is 3" in errors
        if json_option:
            assert json.loads(output)["state"] == "broken"
        else:
            assert output == ""

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("hands_frames.parquet", b"PAR1", "hands_frames.parquet is not a Parquet file that can be read"),
            (
                "hands_labels.pt",
                np.full((N, 21, 3), 1e30, np.float32),
                "values beyond 1000000 mm; the first bad sample is 0",
            ),
        ],
    )
    def test_of_one_that_neither_screen_nor_json_can_show_with_2(self, run, data_dir, hands, name, content, says):
        if isinstance(content, bytes):
            (data_dir / name).write_bytes(content)
        else:
            torch.save(torch.from_numpy(content), data_dir / name)
        status, output, errors = run("check", "--dataset", "hands", "--json")
        assert status == 2
        assert says in errors
        assert json.loads(output)["state"] == "broken"

    def test_of_one_that_is_missing_with_2(self, run, hands):
        status, _, errors = run("check", "--dataset", "none")
        assert status == 2
        assert "has the datasets hands" in errors

    def test_writes_nothing(self, run, data_dir, hands):
        before = files(data_dir)
        run("check", "--dataset", "hands")
        assert files(data_dir) == before


@pytest.mark.parametrize("command", WRITING)
class TestWhatIsThere:
    def test_is_kept_and_named_in_an_error(self, run, data_dir, hands, command):
        arguments, written = WRITING[command]
        assert run(command, *arguments, "--name", "new")[0] == 0
        before = files(data_dir)
        status, output, errors = run(command, *arguments, "--name", "new")
        assert (status, output) == (2, "")
        assert errors == (
            f"error: {data_dir} already has {', '.join(written)}; choose another --name, or overwrite with --force\n"
        )
        assert files(data_dir) == before
        assert run(command, *arguments, "--name", "new", "--force")[0] == 0
        assert files(data_dir) == before

    def test_is_looked_at_before_any_work(self, run, data_dir, command):
        """The dataset to work on does not exist either."""
        arguments, written = WRITING[command]
        data_dir.mkdir()
        (data_dir / (written[0] if "." in written[0] else f"{written[0]}_frames.parquet")).touch()
        assert f"already has {written[0]};" in run(command, *arguments, "--name", "new")[2]

    def test_is_kept_where_another_process_wrote_it_during_the_work(self, run, data_dir, hands, monkeypatch, command):
        """In this case it did not exist before the work."""
        arguments, written = WRITING[command]
        as_dataset = "." not in written[0]
        place = data_dir / (f"{written[0]}_labels.pt" if as_dataset else written[0])
        replaced = Target.writing

        def write_first(*given, **options):
            place.write_bytes(b"another one's")
            return replaced(*given, **options)

        monkeypatch.setattr(Target, "writing", write_first)
        before = files(data_dir)
        status, output, errors = run(command, *arguments, "--name", "new")
        assert (status, output) == (2, "")
        assert f"already has {written[0]}; choose another --name" in errors
        assert files(data_dir) == {**before, place.name: b"another one's"}

    def test_may_still_be_on_its_way_to_its_place(self, run, data_dir, command):
        """From a killed writer; it is checked before any work."""
        arguments, written = WRITING[command]
        as_dataset = "." not in written[0]
        name = f"{written[0]}_labels.pt" if as_dataset else written[0]
        (data_dir / ".written").mkdir(parents=True)
        (data_dir / ".written" / name).write_bytes(b"another one's")
        assert f"already has {written[0]};" in run(command, *arguments, "--name", "new")[2]
        assert (data_dir / name).read_bytes() == b"another one's"

    @pytest.mark.parametrize(
        "error",
        [
            OSError(28, "No space left on device"),
            RuntimeError("No space left on device\nframe #0"),
        ],
    )
    def test_is_all_there_is_when_nothing_can_be_written(self, run, data_dir, hands, monkeypatch, command, error):
        """Torch reports a full disk with a RuntimeError."""

        def full(*_, **__):
            raise error

        before = files(data_dir)
        monkeypatch.setattr(torch, "save", full)
        monkeypatch.setattr(Path, "write_text", full)
        status, output, errors = run(command, *WRITING[command][0], "--name", "new")
        assert (status, output) == (2, "")
        assert errors == f"error: {data_dir} cannot be written to: No space left on device\n"
        assert files(data_dir) == before

    def test_is_made_below_a_folder_where_the_name_has_one(self, run, data_dir, hands, command):
        arguments, written = WRITING[command]
        nested = [argument.replace("hands", "folder/hands") for argument in arguments]
        write_datasets(data_dir, {"folder/hands": hands})
        status, _, errors = run(command, *nested, "--name", "folder/new")
        assert status == 0
        assert errors.startswith("warning: folder/new_val: ") if command == "split" else errors == ""
        assert all([*(data_dir / "folder").glob(f"{name}*")] for name in written)

    def test_is_never_outside_of_the_data_folder(self, run, data_dir, hands, command):
        """The source dataset is never outside either."""
        write_datasets(data_dir.parent, {"hands": hands})
        arguments, _ = WRITING[command]
        outside = [argument.replace("hands", "../hands") for argument in arguments]
        for name, given in {"../new": arguments, "new": outside}.items():
            status, _, errors = run(command, *given, "--name", name)
            assert status == 2
            assert "a name has letters, digits" in errors
        assert not [*data_dir.parent.glob("new*")]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            ["neighbors", "--bank", "hands", "--max-k"],
            f"but the bank has {N - 1} other poses; expected a number from 1 to",
        ),
        (["clusters", "--k"], "0 clusters requested; expected a number from 1 to "),
    ],
)
def test_no_neighbours_and_no_clusters_are_refused_with_what_is_possible(run, hands, command, says):
    status, _, errors = run(*command, "0", "--dataset", "hands", "--name", "new")
    assert status == 2
    assert says in errors


def test_neighbours_and_errors_of_one_set_know_one_another_and_those_of_another_set_do_not(run, data_dir, hands):
    write_datasets(data_dir, {"other": Samples(LABELS[::-1], POSES)})
    run("neighbors", "--dataset", "hands", "--bank", "hands", "--max-k", "2", "--name", "hands")
    for name in ("hands", "other"):
        run("errors", "--dataset", name, "--subset", "A", "--name", name)
    near = read_table(data_dir, "hands_neighbors.pt")
    np.testing.assert_array_equal(near.bank_keys, read_table(data_dir, "hands_errors.pt").label_keys)
    assert (near.bank_keys != read_table(data_dir, "other_errors.pt").label_keys).any()


# Runs the script, says when the second file is half written, and waits there.
HALF_WRITTEN = """
import runpy, sys, time
import torch

save, calls = torch.save, []

def half(tensors, path):
    save(tensors, path)
    calls.append(path)
    if len(calls) == 2:
        path.write_bytes(path.read_bytes()[:100])
        print("half", flush=True)
        time.sleep(60)

torch.save = half
sys.argv = ["prepare_data.py", *sys.argv[1:]]
runpy.run_path("tune_runs/prepare_data.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_process_that_is_ended_while_it_writes_leaves_what_was_there(run, data_dir, hands, number, status):
    arguments = ["split", "--dataset", "hands", "--split", "last:20", "--name", "new"]
    assert run(*arguments)[0] == 0
    before = files(data_dir)
    command = [sys.executable, "-c", HALF_WRITTEN, *arguments, "--force", "--data-dir", str(data_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"half\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert output == b""
    assert errors == (b"interrupted\n" if number == signal.SIGINT else b"")

    visible = {name: content for name, content in before.items() if not name.startswith(".")}
    left = {path.name for path in data_dir.iterdir()} - visible.keys()
    assert left == ({".writing"} if number == signal.SIGKILL else set())
    assert {name: (data_dir / name).read_bytes() for name in visible} == visible
    assert run(*arguments, "--force")[0] == 0
    assert files(data_dir) == before


# The progress texts of each command that may take long, in order.
SHOWN = {
    "synthetic": ["making hands", "measuring errors", "writing to data"],
    "leaderboard": ["reading 2 files", "splitting frames", "measuring errors", "writing to data"],
    "split": ["reading hands", "splitting frames", "measuring errors", "writing to data"],
    "subset": ["reading hands", "selecting samples", "measuring errors", "writing to data"],
    "clusters": ["reading hands", "measuring bones", "grouping frames", "writing to data"],
    "neighbors": ["reading hands", "finding neighbours", "writing to data"],
    "errors": ["reading hands", "measuring errors", "writing to data"],
}


class TestProgress:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        """Each progress bar is shown as soon as its work begins."""

        class AtOnce(Timer):
            def start(self):
                self.function()

        monkeypatch.setattr(chunks, "Timer", AtOnce)

    @pytest.fixture
    def terminal(self, monkeypatch):
        """The texts of all progress bars."""
        screen = StringIO()
        monkeypatch.setattr(chunks, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
        return screen

    def test_is_not_shown_in_a_notebook_which_has_colours_but_no_terminal(self, run, hands, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        status, _, errors = run("split", "--dataset", "hands", "--split", "last:20", "--name", "new")
        assert status == 0
        assert "splitting" not in errors

    @pytest.mark.parametrize("command", SHOWN)
    def test_is_shown_of_all_that_takes_time(self, script, data_dir, hands, terminal, monkeypatch, command):
        monkeypatch.chdir(data_dir.parent)
        np.savetxt("a.txt", np.tile([320.0, 240.0, 700.0], (12, 14)))
        files = ["--ground-truth", "a.txt", "--predictions", "A=a.txt"]
        others = {
            "synthetic": ["--train", "30", "--val", "20"],
            "leaderboard": ["--dataset", "nyu", *files, "--split", "last:20"],
        }
        arguments = others[command] if command in others else WRITING[command][0]
        assert script.main([command, *arguments, "--name", "new"]) == 0
        shown = re.findall("|".join(itertools.chain(*SHOWN.values())), terminal.getvalue())
        assert list(dict.fromkeys(shown)) == SHOWN[command]
