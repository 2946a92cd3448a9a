import os
import shutil

import pytest

from cluster.reports.terminal.overview import experiment_names
from cluster.reports.terminal.removal import remove, useless_files, whole_experiment
from cluster.result_table import ResultTable
from cluster.results.results import NoResultsError
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lease import AlreadyRunningError
from cluster.storage.lock import experiment_lock
from tests.cluster_tests.experiment_files import RUN_ID, write_experiment, write_records
from tests.cluster_tests.results_files import experiment_json, write_json

KEYS = [f"{place:016x}" for place in range(2)]
OUTSIDE = ["..", ".", "", "../results", "../outside", "sweep/..", "sweep/trials", "./sweep", "sweep/", "nothing"]


@pytest.fixture
def results(tmp_path):
    """A results folder with `sweep` and `other`, next to a folder that must not change."""
    (tmp_path / "outside" / "trials").mkdir(parents=True)
    (tmp_path / "outside" / "experiment.json").write_text("{}")
    (tmp_path / "outside" / "trials" / "a file").write_text("precious")
    for name in ("sweep", "other"):
        folder = write_experiment(tmp_path / "results" / name, [({"lr": 1}, [9.0, 9.5]), ({"lr": 2}, [8.0, None])])
        write_records(folder, f"{KEYS[0]}/0", [10.0, 9.0])
    return tmp_path / "results"


def snapshot(folder):
    """Everything below a folder, without following links: kinds, contents and times."""
    return {
        path: (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def add_useless(results, name="sweep"):
    """Adds trials outside the plan and partial files of killed writers; returns their paths."""
    folder = ExperimentFolder(Storage(results / name))
    files = ["trials/gone/0/trial.json", "trials/gone/0/plots/epoch_00001.png", f"trials/{KEYS[0]}/7/trial.json"]
    files += [".experiment.json.x.partial", f"trials/{KEYS[0]}/0/.weights.pt.x.partial", "tables/.a.csv.x.partial"]
    for path in files:
        folder.storage.write(path, b"{}")
    return sorted(files)


class TestTheWholeExperiment:
    def test_is_all_of_its_files(self, results):
        found = whole_experiment(str(results), "sweep")
        there = {str(path.relative_to(results / "sweep")) for path in (results / "sweep").rglob("*") if path.is_file()}
        assert set(found.files) == there
        assert found.size_bytes == sum((results / "sweep" / path).stat().st_size for path in there)
        assert found.text.startswith(f"sweep: the whole experiment, {len(there)} files, ")
        assert found.text.endswith((" B", " kB"))

    def test_is_looked_at_without_a_change(self, results):
        before = snapshot(results.parent)
        whole_experiment(str(results), "sweep")
        useless_files(str(results), "sweep")
        assert snapshot(results.parent) == before

    def test_goes_and_nothing_else_does(self, results):
        before = snapshot(results.parent)
        remove(whole_experiment(str(results), "sweep"))
        kept = {path: what for path, what in before.items() if results / "sweep" not in (path, *path.parents)}
        after = snapshot(results.parent)
        assert after.keys() == kept.keys()
        assert {p: w for p, w in after.items() if p != results} == {p: w for p, w in kept.items() if p != results}

    def test_goes_with_its_empty_folders_and_its_lock(self, results):
        (results / "sweep" / "trials" / "empty" / "0" / "plots").mkdir(parents=True)
        with experiment_lock(Storage(results / "sweep")):
            pass
        assert (results / "sweep" / ".lock").exists()
        remove(whole_experiment(str(results), "sweep"))
        assert [path.name for path in results.iterdir()] == ["other"]

    def test_that_is_broken_goes_too(self, results):
        (results / "sweep" / "experiment.json").write_text("{")
        remove(whole_experiment(str(results), "sweep"))
        assert not (results / "sweep").exists()


class TestUselessFiles:
    def test_are_trials_of_other_settings_and_half_written_files(self, results):
        useless = add_useless(results)
        found = useless_files(str(results), "sweep")
        assert sorted(found.files) == useless
        assert found.what == "2 trials with other settings"

    def test_go_and_nothing_else_does(self, results):
        before = snapshot(results.parent)
        table = ResultTable.read(ExperimentFolder(Storage(results / "sweep")))
        add_useless(results)
        remove(useless_files(str(results), "sweep"))
        after = snapshot(results.parent)
        assert (
            after.keys() - before.keys() == {results / "sweep" / ".lock", results / "sweep" / "tables"} & after.keys()
        )
        contents = {path: (mode, content) for path, (mode, _, content) in before.items()}
        assert {path: (mode, content) for path, (mode, _, content) in after.items() if path in before} == contents
        assert ResultTable.read(ExperimentFolder(Storage(results / "sweep"))) == table
        assert useless_files(str(results), "sweep") is None

    def test_of_half_written_ones_alone_are_called_so(self, results):
        Storage(results / "sweep").write("tables/.a.csv.x.partial", b"half")
        found = useless_files(str(results), "sweep")
        assert found.text == "sweep: half-written files, 1 file, 4 B"

    def test_are_none_in_a_tidy_experiment(self, results):
        assert useless_files(str(results), "sweep") is None

    def test_are_not_trials_of_the_archive(self, results):
        folder = ExperimentFolder(Storage(results / "sweep"))
        for repetition in range(2):
            write_records(folder, f"{KEYS[0]}/{repetition}", [10.0, 9.0])
        folder.archive.add([f"{KEYS[0]}/0", f"{KEYS[0]}/1"])
        content = experiment_json(folder)
        content["plan"]["combinations"] = content["plan"]["combinations"][
            1:
        ]  # so that the archived trials have other settings
        folder.write_experiment(content)
        archived = snapshot(results / "sweep" / "archive")
        assert len(archived) == 2
        add_useless(results)
        remove(useless_files(str(results), "sweep"))
        assert snapshot(results / "sweep" / "archive") == archived
        assert dict(folder.archive.trials()).keys() == {f"{KEYS[0]}/0", f"{KEYS[0]}/1"}

    def test_are_looked_for_again_when_they_go(self, results):
        """A run that ends between the search and the removal may have planned trials that were useless before."""
        folder = ExperimentFolder(Storage(results / "sweep"))
        content = experiment_json(folder)
        plan = content["plan"]
        folder.write_experiment({**content, "plan": {**plan, "combinations": plan["combinations"][:1]}})
        found = useless_files(str(results), "sweep")
        assert found.files == [f"trials/{KEYS[1]}/0/trial.json"]
        folder.write_experiment(content)
        remove(found)
        assert folder.trial(f"{KEYS[1]}/0").read_trial().status == "finished"

    def test_of_an_experiment_that_cannot_be_read_are_an_error(self, results):
        (results / "sweep" / "experiment.json").write_text("{")
        with pytest.raises(NoResultsError, match="broken"):
            useless_files(str(results), "sweep")
        Storage(results / "other").write("archive/000001-00000000.trials.parquet", b"PAR1")
        with pytest.raises(StorageError, match="is broken, and holds up to"):
            useless_files(str(results), "other")


class TestOutsideTheResultsFolder:
    @pytest.mark.parametrize("name", OUTSIDE)
    @pytest.mark.parametrize("look", [whole_experiment, useless_files])
    def test_no_name_leads(self, results, name, look):
        before = snapshot(results.parent)
        with pytest.raises(NoResultsError, match="no experiment"):
            look(str(results), name)
        assert snapshot(results.parent) == before

    @pytest.mark.parametrize("look", [whole_experiment, useless_files])
    def test_an_absolute_path_is_no_name(self, results, look):
        with pytest.raises(NoResultsError, match="no experiment"):
            look(str(results), str(results.parent / "outside"))

    @pytest.mark.parametrize("look", [whole_experiment, useless_files])
    @pytest.mark.parametrize("to", ["outside", "results/other"])
    def test_an_experiment_that_is_a_link_is_an_error(self, results, look, to):
        (results / "link").symlink_to(results.parent / to)
        before = snapshot(results.parent)
        with pytest.raises((StorageError, NoResultsError)):
            look(str(results), "link")
        assert snapshot(results.parent) == before

    def test_an_experiment_that_becomes_a_link_is_an_error(self, results):
        found = whole_experiment(str(results), "sweep")
        shutil.move(results / "sweep", results.parent / "moved")
        (results / "sweep").symlink_to(results.parent / "moved")
        before = snapshot(results.parent)
        with pytest.raises(StorageError, match="symbolic link"):
            remove(found)
        assert snapshot(results.parent) == before

    @pytest.mark.parametrize("place", ["trials/link", f"trials/{KEYS[0]}/9", "link", f"trials/{KEYS[0]}/0/plots"])
    def test_a_link_within_an_experiment_goes_and_what_it_leads_to_stays(self, results, place):
        (results / "sweep" / place).symlink_to(results.parent / "outside")
        before = snapshot(results.parent / "outside")
        remove(whole_experiment(str(results), "sweep"))
        assert not (results / "sweep").exists()
        assert snapshot(results.parent / "outside") == before

    def test_a_link_to_a_file_goes_and_the_file_stays(self, results):
        (results / "sweep" / "trials" / "gone").mkdir()
        (results / "sweep" / "trials" / "gone" / "0").mkdir()
        (results / "sweep" / "trials" / "gone" / "0" / "weights.pt").symlink_to(
            results.parent / "outside" / "trials" / "a file"
        )
        before = snapshot(results.parent / "outside")
        remove(useless_files(str(results), "sweep"))
        assert not os.path.lexists(results / "sweep" / "trials" / "gone")
        assert snapshot(results.parent / "outside") == before

    def test_cleaning_where_a_link_stands_for_a_trial_is_an_error(self, results):
        (results / "sweep" / "trials" / "link").symlink_to(results.parent / "outside")
        before = snapshot(results.parent)
        with pytest.raises(StorageError, match="symbolic link"):
            useless_files(str(results), "sweep")
        assert snapshot(results.parent) == before

    def test_the_results_folder_itself_may_be_a_link(self, results):
        (results.parent / "link").symlink_to(results)
        remove(whole_experiment(str(results.parent / "link"), "sweep"))
        assert experiment_names(str(results)) == ["other"]


class TestARunningExperiment:
    @pytest.mark.parametrize("look", [whole_experiment, useless_files])
    def test_stays(self, results, look):
        add_useless(results)
        with experiment_lock(Storage(results / "sweep")):
            found = look(str(results), "sweep")
            before = snapshot(results)
            assert found.is_running
            assert found.text.endswith("; it is running and cannot be removed now")
            with pytest.raises(AlreadyRunningError, match="is in use: process"):
                remove(found)
            assert snapshot(results) == before
        remove(found)
        assert look is useless_files or not (results / "sweep").exists()

    def test_that_began_after_the_look_stays(self, results):
        found = whole_experiment(str(results), "sweep")
        assert not found.is_running
        with experiment_lock(Storage(results / "sweep")), pytest.raises(AlreadyRunningError):
            remove(found)
        assert (results / "sweep" / "experiment.json").exists()


class TestAnInterruptedRemoval:
    @pytest.mark.parametrize("n_removed", range(6))
    def test_of_an_experiment_can_be_done_again(self, results, monkeypatch, n_removed):
        removed = []
        before = Storage.remove

        def interrupted(storage, path):
            if len(removed) == n_removed:
                raise KeyboardInterrupt
            removed.append(path)
            before(storage, path)

        monkeypatch.setattr(Storage, "remove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remove(whole_experiment(str(results), "sweep"))
        monkeypatch.undo()
        if "experiment.json" not in removed:
            remove(whole_experiment(str(results), "sweep"))
        assert experiment_names(str(results)) == ["other"]

    def test_keeps_the_description_until_all_else_is_gone(self, results, monkeypatch):
        removed = []
        before = Storage.remove
        monkeypatch.setattr(Storage, "remove", lambda storage, path: (removed.append(path), before(storage, path)))
        found = whole_experiment(str(results), "sweep")
        remove(found)
        assert removed[-2:] == ["experiment.json", ".lock"]
        assert sorted(removed[:-1]) == sorted(found.files)

    def test_that_fails_says_where_and_can_be_done_again(self, results, monkeypatch):
        found = whole_experiment(str(results), "sweep")
        before = Storage.remove

        def fails(storage, path):
            if path.endswith("records.parquet"):
                raise StorageError(f"{path} cannot be removed: Permission denied")
            before(storage, path)

        monkeypatch.setattr(Storage, "remove", fails)
        with pytest.raises(StorageError, match=r"records\.parquet cannot be removed"):
            remove(found)
        monkeypatch.undo()
        remove(whole_experiment(str(results), "sweep"))
        assert experiment_names(str(results)) == ["other"]


class TestOnAnObjectStore:
    @pytest.fixture
    def store(self, request):
        """A results folder in memory, with `sweep` and `other`."""
        location = f"fsspec+memory:///{request.node.name}/results"
        for name in ("sweep", "other"):
            folder = write_experiment(f"{location}/{name}", [({"lr": 1}, [9.0])], name=name)
            write_json(folder.trial("gone/0"), {"status": "diverged"})
        return location

    def test_an_experiment_goes_and_the_other_stays(self, store):
        before = (Storage(store) / "other").files()
        found = whole_experiment(store, "sweep")
        assert found.text == "sweep: the whole experiment, 4 files, –"
        remove(found)
        assert (Storage(store) / "sweep").files() == []
        assert (Storage(store) / "other").files() == before
        assert experiment_names(store) == ["other"]

    def test_trials_of_other_settings_go_and_the_rest_stays(self, store):
        found = useless_files(store, "sweep")
        assert found.files == ["trials/gone/0/trial.json"]
        remove(found)
        left = ["experiment.json", f"runs/{RUN_ID}.json", f"trials/{KEYS[0]}/0/trial.json"]
        assert (Storage(store) / "sweep").files() == left

    def test_a_running_one_stays(self, store):
        before = (Storage(store) / "sweep").files()
        with experiment_lock(Storage(store) / "sweep"):
            found = whole_experiment(store, "sweep")
            assert found.is_running
            assert list(found.files) == before  # the lease is not among them
        assert (Storage(store) / "sweep").files() == before
