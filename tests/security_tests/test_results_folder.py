"""Nothing leads out of the results folder: no name, no content of a planted file, no planted symbolic link."""

import json
import os
import shutil
import uuid

import pytest
import torch

from cluster.experiment import TrialsFailedError
from cluster.planning.config import ConfigError
from cluster.result_table import ResultTable
from cluster.results.results import NoResultsError
from cluster.storage import filesystem as storage
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lease import AlreadyRunningError
from cluster.storage.lock import experiment_lock, is_locked
from posenet.checkpoint import pack
from tests.cluster_tests.small_experiment import LR, SmallExperiment
from tune_runs import prepare_data, report

LEAVING = ["..", ".", "../x", "a/../../x", "a/..", "/etc", "/", "a\0b", "./a"]

NO_NAMES = [
    *LEAVING,
    *("", " ", "a/b", "a\\b", "~", "-x", ".hidden", "a\n", "a" * 201, "a:b", "a*", "%2e%2e"),
    *("․․", "．．", "／etc", "a∕b", "ａ", "nаme", "a‮b", "é"),  # look like dots, slashes and letters
]


def content(folder):
    """Everything below a folder: names, bytes, times."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, None if path.is_dir() else path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


class TestAName:
    @pytest.mark.parametrize("name", NO_NAMES)
    def test_that_could_lead_elsewhere_is_refused_for_an_experiment(self, small_experiment, name):
        with pytest.raises(ConfigError, match=r"experiment_config\.name: .* a name of letters, digits, .* 200 at most"):
            small_experiment.experiment({"experiment_config.name": name})

    @pytest.mark.parametrize("name", [name for name in NO_NAMES if name not in ("a/b", "a" * 201)])
    def test_that_could_lead_elsewhere_is_refused_for_a_dataset(self, small_experiment, name, tmp_path, capsys):
        with pytest.raises(ConfigError, match=r"experiment_config\.train_set: .* the name of a dataset below data_dir"):
            small_experiment.experiment({"experiment_config.train_set": name})
        made = prepare_data.main(
            ["synthetic", f"--name={name}", "--train=2", "--val=2", f"--data-dir={tmp_path / 'data' / 'made'}"]
        )
        assert made == 2
        assert "--name" in capsys.readouterr().err
        assert not list(tmp_path.rglob("*"))

    @pytest.mark.parametrize("name", ["../../etc", "..", ".", "", "/etc", "results/../x", "a\0b"])
    def test_that_leads_elsewhere_is_refused_by_the_report(self, finished_results, name, capsys):
        assert report.main(["show", name, "--storage-path", str(finished_results)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert "Traceback" not in error

    def test_of_an_option_or_a_value_stays_in_the_tables(self, small_experiment, tmp_path):
        values = ["../../x", "/tmp/x"]
        before = content(small_experiment.data_dir)
        with pytest.raises(ConfigError, match="activation"):
            small_experiment.run({}, {"model_args.activation": values})
        table = small_experiment.run({}, {"experiment_config.train_set": ["small_train", "two_train"]})
        assert len(table.trials) == 2
        assert content(small_experiment.data_dir) == before
        assert {path.name for path in tmp_path.iterdir()} == {"results"}
        assert {path.name for path in (tmp_path / "results").iterdir()} == {"small_experiment"}


@pytest.mark.parametrize("path", LEAVING)
@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_a_path_that_leaves_a_storage_is_refused_by_all_that_it_does(path, remote, tmp_path):
    storage = Storage(f"fsspec+memory:///{uuid.uuid4().hex}" if remote else tmp_path / "a") / "b"
    for use in (
        lambda: storage.write(path, b""),
        lambda: storage.write_files(path, {"file": b""}),
        lambda: storage.write_files("", {path: b""}),
        lambda: storage.read(path),
        lambda: storage.remove(path),
        lambda: storage.names(path),
        lambda: storage / path,
    ):
        with pytest.raises(StorageError, match="it would lead out of it"):
            use()
    assert not list(tmp_path.iterdir())


KEYS = ["../../outside/trials/KEY", "../small_experiment/trials/KEY", "/ABSOLUTE/trials/KEY", "KEY/../KEY", "", "."]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_a_planted_experiment_leads_to_no_file_outside_and_its_weights_are_not_removed(
    finished_experiment, key, tmp_path
):
    small_experiment = finished_experiment
    before = small_experiment.run({}, {LR: [1e-3, 1e-2]})
    outside = tmp_path / "outside"
    shutil.copytree(small_experiment.folder, outside)
    path = small_experiment.folder / "experiment.json"
    planted = json.loads(path.read_text())
    combination = planted["plan"]["combinations"][1]
    combination["key"] = key.replace("KEY", combination["key"]).replace("/ABSOLUTE", str(outside))
    path.write_text(json.dumps(planted))
    there = content(outside)
    with pytest.raises(NoResultsError, match=r"plan\.combinations\[1\]\.key is not valid"):
        ResultTable.read(ExperimentFolder(Storage(small_experiment.storage_path) / "small_experiment"))
    again = small_experiment.run({"experiment_config.keep_weights": "none"}, {LR: [1e-3, 1e-2]})
    assert [row["key"] for row in again.trials] == [row["key"] for row in before.trials]
    assert not list(small_experiment.folder.rglob("weights.pt"))
    assert content(outside) == there


REFUSED = ["", "trials", "trials/KEY", "trials/KEY/0", "trials/KEY/0/trial.json", "tables", ".lock"]
REPLACED = ["experiment.json", "tables/trials.csv", "trials/KEY/0/weights.pt", "trials/KEY/0/records.parquet"]


class TestASymbolicLink:
    """To a folder of another experiment that would fit in its place."""

    @pytest.fixture
    def outside(self, finished_experiment, tmp_path):
        shutil.copytree(finished_experiment.folder, tmp_path / "outside" / "small_experiment")
        return tmp_path / "outside"

    def plant(self, small_experiment, outside, place):
        """Replaces a file or folder with a link; returns its path."""
        key = next((small_experiment.folder / "trials").iterdir()).name
        place = place.replace("KEY", key)
        path = small_experiment.folder / place
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        path.symlink_to(outside / "small_experiment" / place)
        return path

    @pytest.mark.parametrize("place", REFUSED)
    def test_is_refused_with_its_name_and_what_it_leads_to_is_as_it_was(self, small_experiment, outside, place):
        before = content(outside)
        path = self.plant(small_experiment, outside, place)
        # More to train, and weights to remove.
        with pytest.raises(StorageError) as caught:
            small_experiment.run({"experiment_config.keep_weights": "none"}, {LR: [1e-3, 1e-2, 1e-1]})
        assert f"{path} is a symbolic link, which is not followed" in str(caught.value)
        assert content(outside) == before
        assert path.is_symlink()
        path.unlink()  # nothing else is needed to continue
        table = small_experiment.run({"experiment_config.keep_weights": "none"}, {LR: [1e-3, 1e-2, 1e-1]})
        assert [row["status"] for row in table.trials] == ["finished"] * 3
        assert content(outside) == before

    @pytest.mark.parametrize("place", REPLACED)
    def test_is_replaced_where_a_file_is_written_and_what_it_leads_to_is_as_it_was(
        self, small_experiment, outside, place
    ):
        before = content(outside)
        path = self.plant(small_experiment, outside, place)
        for trial in small_experiment.folder.glob("trials/*/*/trial.json"):
            trial.unlink()  # all are trained again
        small_experiment.run({}, {LR: [1e-3, 1e-2]})
        assert path.is_file()
        assert not path.is_symlink()
        assert content(outside) == before

    def test_in_the_place_of_weights_that_are_removed_goes_alone(self, small_experiment, outside):
        before = content(outside)
        path = self.plant(small_experiment, outside, "trials/KEY/0/weights.pt")
        small_experiment.run({"experiment_config.keep_weights": "none"}, {LR: [1e-3, 1e-2]})
        assert not os.path.lexists(path)
        assert content(outside) == before

    @pytest.mark.parametrize("place", [*REFUSED[:5], "experiment.json", ".lock"])
    def test_is_not_read_by_the_report_which_says_so(self, small_experiment, outside, place, capsys):
        path = self.plant(small_experiment, outside, place)
        assert report.main(["show", "small_experiment", "--storage-path", str(small_experiment.storage_path)]) == 2
        assert f"error: {path} is a symbolic link" in capsys.readouterr().err
        assert report.main(["list", "--storage-path", str(small_experiment.storage_path)]) == 0
        assert "broken" in capsys.readouterr().out

    def test_in_one_experiment_takes_nothing_from_the_others(self, small_experiment, outside, capsys):
        small_experiment.run({"experiment_config.name": "other"})
        self.plant(small_experiment, outside, "")
        capsys.readouterr()
        assert report.main(["list", "--storage-path", str(small_experiment.storage_path)]) == 0
        text = capsys.readouterr().out
        assert "complete" in next(line for line in text.splitlines() if line.startswith("other"))
        assert report.main(["show", "other", "--storage-path", str(small_experiment.storage_path)]) == 0

    @pytest.mark.parametrize("name", ["checkpoint.pt", "records.parquet", "plots"])
    def test_in_an_unfinished_trial_makes_it_fail_and_leaves_the_others(self, small_experiment, outside, name):
        trial = next(small_experiment.folder.glob("trials/*/0"))
        (trial / "trial.json").write_text("{}")
        (trial / "checkpoint.pt").write_bytes(b"")
        if name == "records.parquet":
            (trial / "checkpoint.pt").write_bytes(pack({"solver": {"epoch": 1}, "examples": torch.zeros(1)}))
        target = outside / "there"
        target.mkdir()
        (target / "file").write_bytes(b"there")
        path = trial / name
        path.unlink(missing_ok=True)
        path.symlink_to(target if name == "plots" else target / "file")
        before = content(outside)
        with pytest.raises(TrialsFailedError) as caught:
            small_experiment.run({"solver_config.show_plots": True}, {LR: [1e-3, 1e-2]})
        statuses = [row["status"] for row in caught.value.table.trials]
        assert sorted(statuses) == ["failed", "finished"]
        (error,) = [row["error"] for row in caught.value.table.failures]
        assert f"{path} is a symbolic link" in error
        assert content(outside) == before

    def test_with_the_name_of_a_file_that_is_being_written_is_not_written_through(self, small_experiment, outside):
        small_experiment.folder.mkdir(exist_ok=True)
        target = outside / "target"
        target.write_bytes(b"target")
        (small_experiment.folder / f".file.{storage._THIS_PROCESS}.partial").symlink_to(target)
        Storage(small_experiment.folder).write("file", b"new")
        assert (target.read_bytes(), (small_experiment.folder / "file").read_bytes()) == (b"target", b"new")

    def test_to_nowhere_makes_nothing_there(self, small_experiment, tmp_path):
        small_experiment.folder.mkdir(parents=True)
        for name in ("trials", ".lock", "tables"):
            (small_experiment.folder / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(StorageError, match="is a symbolic link"):
            small_experiment.run()
        with pytest.raises(StorageError, match="is a symbolic link"):
            is_locked(Storage(small_experiment.folder))
        assert not (tmp_path / "nowhere").exists()

    def test_is_followed_where_the_results_folder_or_one_above_it_is_one(self, small_data, tmp_path):
        scratch = tmp_path / "scratch"
        (scratch / "results").mkdir(parents=True)
        (tmp_path / "results").symlink_to(scratch / "results")
        (tmp_path / "above").symlink_to(scratch)
        for number, place in enumerate([tmp_path / "results", tmp_path / "above" / "results"], 1):
            SmallExperiment(small_data, place).run({"experiment_config.n_repetitions": number})
            assert report.main(["show", "small_experiment", "--storage-path", str(place)]) == 0
        assert len(list((scratch / "results").glob("small_experiment/trials/*/*/trial.json"))) == 2

    def test_that_takes_a_folders_place_while_it_is_used_leads_nowhere(self, tmp_path):
        storage = Storage(tmp_path / "results")
        (tmp_path / "outside").mkdir()
        storage.write("a/file", b"ours")
        with storage.opened("a") as folder:
            (tmp_path / "results" / "a").rename(tmp_path / "results" / "before")
            (tmp_path / "results" / "a").symlink_to(tmp_path / "outside")
            os.close(os.open("other", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        assert not list((tmp_path / "outside").iterdir())
        with pytest.raises(StorageError, match="a is a symbolic link"):
            storage.write("a/file", b"new")
        with pytest.raises(StorageError, match="a is a symbolic link"), experiment_lock(storage / "a"):
            pass


@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_json_that_is_too_deep_is_as_broken_as_any_other(small_experiment, depth, capsys):
    small_experiment.run()
    (trial,) = small_experiment.folder.rglob("trial.json")
    trial.write_text('{"status":' + "[" * depth + "]" * depth + "}")
    table = ResultTable.read(ExperimentFolder(Storage(small_experiment.folder)))
    assert [row["status"] for row in table.trials] == ["interrupted" if table.trials[0]["seed"] is None else "pending"]
    (small_experiment.folder / "experiment.json").write_text("[" * depth + "]" * depth)
    with pytest.raises(NoResultsError, match=r"experiment\.json is missing or broken"):
        ResultTable.read(ExperimentFolder(Storage(small_experiment.folder)))


@pytest.mark.parametrize("since", ["1e400", "1e300", "-1e300", "NaN", '"x"', "[]", "null", "true"])
@pytest.mark.slow
def test_a_lock_file_with_an_invalid_time_is_reported(since, tmp_path):
    storage = Storage(tmp_path)
    with experiment_lock(storage):
        (tmp_path / ".lock").write_text(f'{{"pid": 1, "host": "h", "since": {since}}}')
        with pytest.raises(AlreadyRunningError, match="is in use"), experiment_lock(storage):
            pass
