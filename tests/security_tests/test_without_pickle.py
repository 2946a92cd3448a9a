"""A pickle that runs code when it is loaded, placed in every file that is read: the code never runs.

`PLACES` lists every file that the code reads. A test compares it with the files that are really opened, so it fails if
later code reads another file.
"""

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import uuid
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.executors.watchdog import read_hang
from cluster.planning.config import ConfigError
from cluster.result_table import ResultTable
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lease import AlreadyRunningError, is_leased, lease
from cluster.storage.lock import experiment_lock, is_locked
from cluster.storage.run_file import RunFile
from cluster.trial.trainable import run_trial
from data_pipeline.formats.leaderboard import FormatError, read_results
from data_pipeline.pose_dataset import DatasetError, read_dataset
from tests.cluster_tests.conftest import ROOT
from tests.cluster_tests.small_experiment import LR, write_datasets
from tune_runs import report

PLACES = {
    *("_labels.pt", "_poses.pt", "init.pt"),  # files of the user
    *("truth.txt", "predictions.txt"),
    *("experiment.json", "trial.json", "records.parquet", "examples.npz", "checkpoint.pt"),  # files of a run
    "frames.parquet",
    *("RUN_ID.json", ".lock", "hang.txt"),
}


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def _torch_bytes(value, **how):
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def _as_checkpoint(planted):
    content = _torch_bytes({"solver": {"epoch": 1}, "examples": planted})
    return b"posetune-checkpoint " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _as_npz(planted):
    buffer = io.BytesIO()
    objects = np.array([planted], dtype=object)
    np.savez(buffer, **dict.fromkeys(["epochs", "batches", "predictions_mm"], objects))
    return buffer.getvalue()


def _as_npy(planted):
    buffer = io.BytesIO()
    np.save(buffer, np.array([planted], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _as_parquet(planted):
    # Pickles in the metadata of an extension type are what pyarrow before 14.0.1 loaded.
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(planted),
    }
    names = ["trial_id", "epoch", "batch", "split", "subset", "space", "metric", "value"]
    fields = [pa.field(name, pa.binary(), metadata=extension) for name in names]
    table = pa.table([[pickle.dumps(planted)]] * len(names), schema=pa.schema(fields))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _as_zip_of_a_pickle(planted):
    """A file like that of `torch.save`, with only this pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(planted, protocol=2))
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


FORMS = {
    "pickle": pickle.dumps,
    "torch": _torch_bytes,
    "old torch": lambda planted: _torch_bytes(planted, _use_new_zipfile_serialization=False),
    "zip": _as_zip_of_a_pickle,
    "checkpoint": _as_checkpoint,
    "npz": _as_npz,
    "npy": _as_npy,
    "parquet": _as_parquet,
    "json": lambda planted: json.dumps({"py/reduce": [{"py/function": "os.mkdir"}, [planted.mark]]}).encode(),
}


@pytest.fixture(params=FORMS)
def planted(request, tmp_path):
    """A file's content; it has not run at the end of the test."""
    mark = tmp_path / "ran"
    yield FORMS[request.param](Planted(str(mark)))
    assert not mark.exists(), "planted code ran"


def results(table):
    return [{name: value for name, value in row.items() if name != "train_seconds"} for row in table.trials]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_planted_would_run(form, tmp_path):
    """Checked for each form with a reader that trusts its input, or for the pickle in it."""
    mark = tmp_path / "ran"
    content = FORMS[form](Planted(str(mark)))
    if form in ("torch", "old torch", "checkpoint"):
        start = content.index(b"\n") + 1 if form == "checkpoint" else 0
        torch.load(io.BytesIO(content[start:]), weights_only=False)
    elif form == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickle.loads(archive.read("archive/data.pkl"))
    elif form == "npz":
        np.load(io.BytesIO(content), allow_pickle=True)["epochs"]
    elif form == "npy":
        np.load(io.BytesIO(content), allow_pickle=True)
    elif form == "parquet":
        pickle.loads(pq.read_table(io.BytesIO(content))["value"][0].as_py())
    elif form == "json":
        mark.mkdir()  # only `jsonpickle` would run it
    else:
        pickle.loads(content)
    assert mark.exists()


class TestAPickleIn:
    @pytest.mark.parametrize("part", ["labels", "poses"])
    @pytest.mark.slow
    def test_a_dataset_is_an_error_that_names_the_file(self, planted, part, small_experiment, tmp_path):
        write_datasets(tmp_path)
        (tmp_path / f"small_train_{part}.pt").write_bytes(planted)
        with pytest.raises(DatasetError, match=rf"small_train_{part}\.pt "):
            read_dataset(tmp_path, "small_train")
        with pytest.raises(ConfigError, match=rf"small_train_{part}\.pt "):
            small_experiment.run({"experiment_config.data_dir": tmp_path})
        assert not small_experiment.folder.exists()

    def test_weights_to_start_from_is_an_error_that_names_the_file(self, planted, small_experiment, tmp_path):
        (tmp_path / "init.pt").write_bytes(planted)
        with pytest.raises(ConfigError, match=r"init_weights_path"):
            small_experiment.run({"experiment_config.init_weights_path": tmp_path / "init.pt"})
        assert not small_experiment.folder.exists()

    def test_a_leaderboard_file_is_an_error_that_names_it(self, planted, tmp_path):
        (tmp_path / "truth.txt").write_bytes(planted)
        (tmp_path / "predictions.txt").write_text(" ".join(["1"] * 42))
        with pytest.raises(FormatError, match=r"truth\.txt"):
            read_results(tmp_path / "truth.txt", {"A": tmp_path / "predictions.txt"}, "nyu")
        with pytest.raises(FormatError, match=r"truth\.txt"):
            read_results(tmp_path / "predictions.txt", {"A": tmp_path / "truth.txt"}, "nyu")

    def test_a_trials_file_makes_a_row_that_is_trained_again_and_leaves_the_other(
        self, planted, finished_experiment, finished_results
    ):
        before = ResultTable.read(ExperimentFolder(Storage(finished_results) / "small_experiment"))
        key = before.trials[0]["key"]
        (finished_experiment.folder / "trials" / key / "0" / "trial.json").write_bytes(planted)
        table = ResultTable.read(ExperimentFolder(Storage(finished_experiment.folder)))
        assert [row["status"] for row in table.trials] == [
            "interrupted" if planted[:1] == b"{" else "pending",
            "finished",
        ]
        assert results(table)[1] == results(before)[1]
        assert results(finished_experiment.run({}, {LR: [1e-3, 1e-2]})) == results(before)

    def test_a_runs_file_is_no_record(self, planted, finished_experiment):
        (file,) = (finished_experiment.folder / "runs").iterdir()
        file.write_bytes(planted)
        table = ResultTable.read(ExperimentFolder(Storage(finished_experiment.folder)))
        runs = list(table.trained_by(table.summary).values())
        assert runs == [[RunFile()] if planted[:1] == b"{" else None] * 2

    def test_an_experiments_file_is_an_error_for_readers_and_is_rewritten_by_a_run(
        self, planted, finished_experiment, finished_results, capsys
    ):
        (finished_experiment.folder / "experiment.json").write_bytes(planted)
        assert report.main(["show", "small_experiment", "--storage-path", str(finished_experiment.storage_path)]) == 2
        assert "experiment.json is missing or broken" in capsys.readouterr().err
        assert report.main(["list", "--storage-path", str(finished_experiment.storage_path)]) == 0
        assert "broken" in capsys.readouterr().out
        before = ResultTable.read(ExperimentFolder(Storage(finished_results) / "small_experiment"))
        assert results(finished_experiment.run({}, {LR: [1e-3, 1e-2]})) == results(before)
        assert "2 finished" in capsys.readouterr().err  # nothing was trained again

    @pytest.mark.parametrize("name", ["checkpoint.pt", "records.parquet", "examples.npz"])
    def test_an_unfinished_trials_files_lets_it_start_again_from_its_beginning(
        self, planted, name, small_experiment, finished_results
    ):
        trial, data, folder = small_experiment.trial()
        reports = list(run_trial(trial, data, folder, should_stop=lambda: True))
        assert reports[-1].status == "interrupted"
        (folder.local / name).write_bytes(planted)
        reports = list(run_trial(trial, data, folder))
        assert "starts again, since its checkpoint" in reports[0].lines[0]
        assert reports[-1].status == "finished"
        before = ResultTable.read(ExperimentFolder(Storage(finished_results) / "small_experiment"))
        assert reports[-1].val_distance_mm == before.trials[0]["val_distance_mm"]

    def test_files_that_are_only_written_is_overwritten(self, planted, finished_experiment, finished_results):
        before = ResultTable.read(ExperimentFolder(Storage(finished_results) / "small_experiment"))
        folder = finished_experiment.folder / "trials" / before.trials[0]["key"] / "0"
        (folder / "trial.json").unlink()
        (folder / "weights.pt").write_bytes(planted)
        tables = list((finished_experiment.folder / "tables").iterdir())
        for path in tables:
            path.write_bytes(planted)
        assert results(finished_experiment.run({}, {LR: [1e-3, 1e-2]})) == results(before)
        assert all(path.read_bytes() != planted for path in [folder / "weights.pt", *tables])

    def test_what_is_only_shown_leaves_a_report_without_it(self, planted, finished_experiment):
        for name in ("frames.parquet", "examples.npz", "records.parquet"):
            for path in finished_experiment.folder.rglob(name):
                path.write_bytes(planted)
        assert report.main(["html", "small_experiment", "--storage-path", str(finished_experiment.storage_path)]) == 0
        page = (finished_experiment.folder / "report.html").read_text(encoding="utf-8")
        assert "2 finished" in page
        assert 'id="examples"' not in page

    @pytest.mark.slow
    def test_a_lock_is_not_a_lock_and_a_held_one_is_reported_without_its_owner(self, planted, tmp_path):
        storage = Storage(tmp_path / "experiment")
        (tmp_path / "experiment").mkdir()
        (tmp_path / "experiment" / ".lock").write_bytes(planted)
        assert not is_locked(storage)
        with experiment_lock(storage):
            (tmp_path / "experiment" / ".lock").write_bytes(planted)
            with pytest.raises(AlreadyRunningError, match="another process is running"), experiment_lock(storage):
                pass

    @pytest.mark.slow
    def test_a_lease_counts_as_one_until_it_expires(self, planted):
        storage = Storage(f"fsspec+memory:///{uuid.uuid4().hex}")
        storage.write("lease/0.json", planted)
        assert is_leased(storage)
        with lease(storage, beat_s=0.1, expiry_s=1.0):
            assert not storage.read("lease/0.json")

    def test_what_is_left_of_a_hang_is_taken_for_another_runs(self, planted, small_experiment):
        _, _, folder = small_experiment.trial()
        folder.write("hang.txt", planted)
        assert read_hang(folder, "run") is None
        assert folder.read("hang.txt") is None


# Trains from initial weights, interrupts and continues a trial, and reads every file.
READ_EVERYTHING = """
import os, sys
from pathlib import Path

base, opened = sys.argv[1], set()

def note(event, arguments):
    if event != "open":
        return
    path, _, flags = arguments
    if not isinstance(path, (str, bytes)) or flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_DIRECTORY:
        return
    path = os.fsdecode(path)
    if path.endswith("__path_hook__"):
        return  # Python looks for this project's packages
    if path.startswith(base) or "/" not in path:  # files in an open folder have only their name
        opened.add(os.path.basename(path))

sys.addaudithook(note)

from cluster.executors.watchdog import read_hang
from cluster.trial.trainable import run_trial
from tests.cluster_tests.small_experiment import SmallExperiment, write_datasets
from tune_runs import prepare_data, report

folder = Path(base)
write_datasets(folder / "data")
SmallExperiment(folder / "data", folder / "first").run()
(weights,) = (folder / "first").rglob("weights.pt")
weights.rename(folder / "init.pt")

small_experiment = SmallExperiment(folder / "data", folder / "results")
changes = {"experiment_config.init_weights_path": folder / "init.pt"}
trial, data, trial_folder = small_experiment.trial(changes)
list(run_trial(trial, data, trial_folder, should_stop=lambda: True))
trial_folder.write("hang.txt", b"")
read_hang(trial_folder, "run")
small_experiment.run(changes)
small_experiment.run(changes)
small_experiment.experiment(changes).results()
for arguments in (["list"], ["show", "small_experiment"]):
    report.main([*arguments, "--storage-path", str(folder / "results")])
for name in ("truth.txt", "predictions.txt"):
    (folder / name).write_text("\\n".join([" ".join(["100"] * 42)] * 20))
prepare_data.main(["leaderboard", "--dataset", "nyu", "--name", "nyu_new", "--split", "none", "--data-dir",
    str(folder / "data"), "--ground-truth", str(folder / "truth.txt"),
    "--predictions", "A=" + str(folder / "predictions.txt")])
# os.fwalk opens folders as if they were files.
folders = {".", *(path.name for path in folder.rglob("*") if path.is_dir())}
print("READ", *sorted(opened - folders))
"""


@pytest.mark.slow
@pytest.mark.ray
def test_no_other_file_is_read_than_those_in_which_a_pickle_was_planted(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", READ_EVERYTHING, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = done.stdout.splitlines()[-1].split()[1:]
    read = [re.sub(r"[0-9a-f]{16}\.json", "RUN_ID.json", name) for name in read]
    endings = {name if name in PLACES else f"_{name.rpartition('_')[2]}" for name in read}
    assert endings == PLACES, f"plant a pickle in what is new here, see TestAPickleIn: {read}"
