import contextlib
import io
import uuid

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from cluster.experiment import Interrupted
from cluster.result_table import ResultTable
from cluster.storage import archive
from cluster.storage.archive import Archiver
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.records import from_parquet, to_parquet
from posenet.models import CorrectorMLP
from posenet.record import Record
from tests.cluster_tests.results_files import write_json
from tests.cluster_tests.small_experiment import LR, FailingMLP, InterruptedMLP, NanLoss, SmallExperiment

LRS = [1e-4 * (i + 1) for i in range(5)]
BUNDLE = 2


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr(archive, "BUNDLE_TRIALS", BUNDLE)


@pytest.fixture(params=["local", "remote"])
def experiment(request, tmp_path):
    """A folder with three trials that have ended, one that has not, and one that failed."""
    location = tmp_path / "x" if request.param == "local" else f"fsspec+memory:///{uuid.uuid4().hex}/x"
    folder = ExperimentFolder(Storage(location))
    write_trials(folder)
    return folder


ENDED = ["a/0", "a/1", "b/0"]
DISTANCES = {"distance": 1.0, "distance_before": 2.0}
FINISHED = {"status": "finished", "metrics": {"val": {"mean": DISTANCES}}}


def write_trials(folder):
    statuses = {"a/0": "finished", "a/1": "diverged", "b/0": "finished", "b/1": "running", "c/0": "failed"}
    for n, (trial_id, status) in enumerate(statuses.items()):
        trial = folder.trial(trial_id)
        trial.write("records.parquet", to_parquet(trial_id, records(n)))
        trial.write("weights.pt", b"weights")
        write_json(trial, {**FINISHED, "status": status, "train_seconds": 0.1 + 0.2, "error": "é ✓", "seed": n})


def records(n):
    return [Record(epoch, 1, "val", f"S{n}", "original", "distance", epoch / 3 + n) for epoch in range(1, 4 + n)]


def content_of(folder):
    return folder.read_trials(lambda trial: trial)


def rows_of(folder):
    """All records, wherever they are, read as in the README."""
    paths = [path for path in folder.storage.files() if path.endswith("records.parquet")]
    rows = [row for path in paths for row in pq.read_table(io.BytesIO(folder.storage.read(path))).to_pylist()]
    return sorted(map(repr, rows))


class TestABundle:
    def test_holds_the_trials_and_records_as_they_were(self, experiment):
        before, rows = content_of(experiment), rows_of(experiment)
        assert experiment.archive.add(ENDED) == ["b/0"]
        assert (content_of(experiment), rows_of(experiment)) == (before, rows)
        assert experiment.archive.add(["b/0"]) == []
        assert (content_of(experiment), rows_of(experiment)) == (before, rows)
        assert [bundle[:6] for bundle in experiment.archive.bundles()] == ["000001", "000002"]
        assert experiment.storage.files("trials") == [
            *("a/0/weights.pt", "a/1/weights.pt", "b/0/weights.pt"),
            *("b/1/records.parquet", "b/1/trial.json", "b/1/weights.pt"),
            *("c/0/records.parquet", "c/0/trial.json", "c/0/weights.pt"),
        ]

    def test_keeps_the_text_of_a_trial(self, experiment):
        text = experiment.storage.read("trials/a/0/trial.json").decode()
        experiment.archive.add(ENDED)
        (bundle,) = experiment.archive.bundles()
        rows = pq.read_table(io.BytesIO(experiment.storage.read(f"archive/{bundle}.trials.parquet"))).to_pylist()
        assert rows[0] == {"trial_id": "a/0", "trial_json": text}

    def test_is_never_changed_and_no_other_has_its_name(self, experiment):
        experiment.archive.add(ENDED)
        first = {path: experiment.storage.read(path) for path in experiment.storage.files() if "archive" in path}
        experiment.archive.add(["b/0"])
        assert {path: experiment.storage.read(path) for path in first} == first
        for path in first:
            experiment.storage.remove(path)
        assert [bundle[:6] for bundle in experiment.archive.bundles()] == ["000002"]

    @pytest.mark.parametrize("trial_id", ["b/1", "c/0"])
    def test_has_no_trial_that_will_be_trained_again(self, experiment, trial_id):
        files = experiment.storage.files()
        assert experiment.archive.add([trial_id]) == []
        assert experiment.storage.files() == files

    @pytest.mark.parametrize("name", ["trial.json", "records.parquet"])
    @pytest.mark.parametrize("content", [None, b"", b"{", b"PAR1"])
    def test_has_no_trial_with_a_file_that_is_missing_or_broken(self, experiment, name, content):
        experiment.trial("a/0").remove(name)
        if content is not None:
            experiment.trial("a/0").write(name, content)
        experiment.archive.add(["a/0", "b/0"])
        assert {trial_id for trial_id, _ in experiment.archive.trials()} == {"b/0"}
        assert experiment.trial("a/0").read(name) == content

    def test_is_closed_when_its_records_are_many(self, experiment, monkeypatch):
        monkeypatch.setattr(archive, "N_CONCURRENT", 1)
        monkeypatch.setattr(archive, "BUNDLE_BYTES", 1)
        assert experiment.archive.add(ENDED) == ENDED[1:]

    def test_is_closed_when_the_files_of_its_trials_are_large(self, experiment, monkeypatch):
        monkeypatch.setattr(archive, "N_CONCURRENT", 1)
        monkeypatch.setattr(archive, "TEXT_BYTES", 1)
        assert experiment.archive.add(ENDED) == ENDED[1:]

    def test_that_could_not_be_read_has_nothing_removed_for_it(self, experiment, monkeypatch):
        files = experiment.storage.files("trials")
        monkeypatch.setattr(archive, "_MAX_ROWS", 1)
        with pytest.raises(StorageError, match="is broken"):
            experiment.archive.add(ENDED)
        assert experiment.storage.files("trials") == files

    def test_without_a_number_is_not_written(self, experiment):
        experiment.storage.write("archive/999999-0123abcd.records.parquet", b"")
        files = experiment.storage.files("trials")
        with pytest.raises(StorageError, match="has no number for another bundle"):
            experiment.archive.add(ENDED)
        assert experiment.storage.files("trials") == files

    def test_counts_where_a_trial_has_files_of_its_own_too(self, experiment):
        before = content_of(experiment)
        experiment.archive.add(ENDED)
        write_json(experiment.trial("a/0"), {"status": "running"})  # from a worker that was considered lost
        assert content_of(experiment) == before
        experiment.archive.clear_leftovers()
        assert experiment.trial("a/0").read_trial().status == "pending"
        assert content_of(experiment) == before

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
    def test_that_is_cut_is_an_error_that_says_what_to_do_and_removes_nothing(self, experiment, share):
        experiment.archive.add(ENDED)
        (bundle,) = experiment.archive.bundles()
        path = f"archive/{bundle}.trials.parquet"
        content = experiment.storage.read(path)
        experiment.storage.write(path, content[: int(share * len(content))])
        files = experiment.storage.files()
        for read in (lambda: content_of(experiment), experiment.archive.clear_leftovers):
            with pytest.raises(StorageError, match=rf"{path} is broken.*trains these trials again"):
                read()
        assert experiment.storage.files() == files

    @pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
    def test_that_was_changed_is_never_read_as_another(self, experiment, share):
        before = content_of(experiment)
        experiment.archive.add(ENDED)
        path = f"archive/{experiment.archive.bundles()[0]}.trials.parquet"
        content = bytearray(experiment.storage.read(path))
        content[int(share * len(content))] ^= 1
        experiment.storage.write(path, bytes(content))
        with contextlib.suppress(StorageError):
            assert content_of(experiment) == before

    def test_with_other_columns_is_an_error(self, experiment):
        experiment.storage.write("archive/000001-0123abcd.trials.parquet", to_parquet("a/0", records(1)))
        with pytest.raises(StorageError, match="it has the columns trial_id, epoch"):
            content_of(experiment)

    def test_that_is_not_as_it_was_written_has_nothing_removed_for_it(self, experiment, monkeypatch):
        files = experiment.storage.files("trials")
        write = Storage.write
        monkeypatch.setattr(Storage, "write", lambda storage, path, data: write(storage, path, data[:-1]))
        with pytest.raises(StorageError, match="is not what was written"):
            experiment.archive.add(ENDED)
        assert experiment.storage.files("trials") == files


class TestOtherFilesInTheArchivesFolder:
    def test_are_left_alone(self, experiment):
        for name in ("README", "000001.trials.parquet", "notes.records.parquet"):
            experiment.storage.write(f"archive/{name}", b"x")
        experiment.archive.add(ENDED)
        experiment.archive.clear_leftovers()
        assert {"README", "000001.trials.parquet", "notes.records.parquet"} < set(experiment.storage.names("archive"))


def stop_after(patch, n, steps):
    """Makes the n-th write or removal of a file the last one, as in a killed process."""
    for name in ("write", "remove", "remove_empty_folder"):
        real = getattr(Storage, name)

        def step(storage, path, *data, real=real):
            if n is not None and len(steps) >= n:
                raise KeyboardInterrupt
            real(storage, path, *data)
            steps.append(path)

        patch.setattr(Storage, name, step)


@pytest.mark.slow
def test_a_move_that_is_killed_between_any_two_steps_loses_nothing_and_the_next_completes_it(experiment, monkeypatch):
    monkeypatch.setattr(archive, "N_CONCURRENT", 1)
    before, rows = content_of(experiment), rows_of(experiment)
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, None, steps)
        experiment.archive.add(ENDED)
    # A bundle's two files, then the trials' own, then each one's folder and the one above.
    assert len(steps) == 2 + 2 * BUNDLE + 2 * BUNDLE
    for n in range(len(steps)):
        for path in experiment.storage.files():
            experiment.storage.remove(path)
        write_trials(experiment)
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, n, [])
            with pytest.raises(KeyboardInterrupt):
                experiment.archive.add(ENDED)
        assert content_of(experiment) == before, f"killed after step {n}"
        archived = experiment.archive.clear_leftovers()
        assert (content_of(experiment), rows_of(experiment)) == (before, rows), f"killed after step {n}"
        experiment.archive.add([trial_id for trial_id in ENDED if trial_id not in archived])
        assert (content_of(experiment), rows_of(experiment)) == (before, rows), f"killed after step {n}"
        assert experiment.archive.bundles()


def test_a_folder_that_is_empty_after_a_move_is_gone(tmp_path):
    folder = ExperimentFolder(Storage(tmp_path))
    write_json(folder.trial("a/0"), FINISHED)
    folder.trial("a/0").write("records.parquet", to_parquet("a/0", records(1)))
    folder.archive.add(["a/0"])
    assert list((tmp_path / "trials").iterdir()) == []


def test_the_records_of_a_bundle_are_those_of_its_trials(tmp_path):
    folder = ExperimentFolder(Storage(tmp_path))
    write_trials(folder)
    folder.archive.add(ENDED)
    table = pyarrow.dataset.dataset(sorted(map(str, tmp_path.rglob("*records.parquet")))).to_table()
    assert sorted(set(table["trial_id"].to_pylist())) == [*ENDED, "b/1", "c/0"]
    (path,) = (tmp_path / "archive").glob("*.records.parquet")
    assert from_parquet(path.read_bytes()) == [*records(0), *records(1)]


def comparable(table):
    trials = [{**row, "train_seconds": None} for row in table.trials]
    return (trials, table.summary, table.n_others, table.splits)


class TestAnExperiment:
    """Each is run with and without an archive."""

    @pytest.fixture
    def two(self, small_data, tmp_path):
        return SmallExperiment(small_data, tmp_path / "with"), SmallExperiment(small_data, tmp_path / "without")

    def run(self, two, monkeypatch, *args):
        tables = []
        for small_experiment, n_trials in zip(two, (BUNDLE, 1000), strict=True):
            monkeypatch.setattr(archive, "BUNDLE_TRIALS", n_trials)
            tables.append(small_experiment.run(*args))
        return tables

    def archived(self, small_experiment):
        return [trial_id for trial_id, _ in ExperimentFolder(Storage(small_experiment.folder)).archive.trials()]

    @pytest.mark.slow
    def test_has_the_same_results(self, two, monkeypatch, capsys):
        first, second = self.run(two, monkeypatch, {}, {LR: LRS})
        assert comparable(first) == comparable(second)
        assert (len(self.archived(two[0])), self.archived(two[1])) == (4, [])
        capsys.readouterr()
        # More repetitions and another option: only what is new is trained.
        changes = {"experiment_config.n_repetitions": 2}
        first, second = self.run(two, monkeypatch, changes, {LR: [*LRS, 1e-2]})
        assert comparable(first) == comparable(second)
        assert capsys.readouterr().err.count("12 trials: 5 finished, 7 to train") == 2
        assert len(self.archived(two[0])) == len(set(self.archived(two[0]))) == 10
        assert comparable(two[0].experiment(changes, {LR: [*LRS, 1e-2]}).results()) == comparable(first)
        assert two[0].experiment(changes, {LR: [*LRS, 1e-2]}).plan().to_train == []
        # Trials that are no longer in the plan are counted.
        first, second = self.run(two, monkeypatch, {}, {LR: LRS[:1]})
        assert comparable(first) == comparable(second)
        assert first.n_others == 11
        rows = [rows_of(ExperimentFolder(Storage(small_experiment.folder))) for small_experiment in two]
        assert rows[0] == rows[1]
        weights = [
            sorted(path.read_bytes() for path in small_experiment.folder.rglob("weights.pt"))
            for small_experiment in two
        ]
        assert weights[0] == weights[1]

    def test_that_small_keeps_its_readable_folders(self, small_experiment):
        small_experiment.run({}, {LR: LRS[:BUNDLE]})
        assert not (small_experiment.folder / "archive").exists()

    def test_moves_what_an_earlier_run_left(self, two, monkeypatch):
        small_experiment = two[0]
        monkeypatch.setattr(archive, "BUNDLE_TRIALS", 1000)
        table = small_experiment.run({}, {LR: LRS})
        monkeypatch.setattr(archive, "BUNDLE_TRIALS", BUNDLE)
        assert small_experiment.run({}, {LR: LRS}) == table
        assert len(self.archived(small_experiment)) == 4

    def test_moves_what_diverged_and_not_what_failed(self, small_experiment):
        options = {"model": [CorrectorMLP, FailingMLP], LR: LRS[:3]}
        with pytest.raises(Exception, match="3 failed of 6 trials"):
            small_experiment.run({"experiment_config.stop_if_all_fail": None}, options)
        assert len(self.archived(small_experiment)) == 2
        assert set(statuses(small_experiment)) == {"finished", "failed"}
        loss = small_experiment.dicts()["base_hyperparams"]["loss_function"]
        with pytest.raises(Exception, match="3 diverged of 6 trials"):
            small_experiment.run({}, {"loss_function": [loss, NanLoss()], LR: LRS[:3]})
        assert statuses(small_experiment).count("diverged") == 3
        assert len(self.archived(small_experiment)) == 4

    def test_that_is_interrupted_goes_on(self, small_experiment, monkeypatch, capsys):
        options = {"model": [CorrectorMLP, InterruptedMLP], LR: LRS}
        with pytest.raises(Interrupted):
            small_experiment.run({}, options)
        assert small_experiment.folder.exists()
        monkeypatch.setattr(InterruptedMLP, "correction", CorrectorMLP.correction)
        table = small_experiment.run({}, options)
        assert [row["status"] for row in table.trials] == ["finished"] * 10
        assert "5 finished, 1 to continue, 4 to train" in capsys.readouterr().err

    def test_with_a_broken_bundle_is_not_trained_again(self, small_experiment):
        small_experiment.run({}, {LR: LRS})
        path = sorted(small_experiment.folder.glob("archive/*.trials.parquet"))[0]
        path.write_bytes(path.read_bytes()[:100])
        before = {p: p.read_bytes() for p in small_experiment.folder.rglob("*") if p.is_file() and p.name != ".lock"}
        with pytest.raises(StorageError, match=r"is broken.*remove it together"):
            small_experiment.run({}, {LR: LRS})
        assert {
            p: p.read_bytes() for p in small_experiment.folder.rglob("*") if p.is_file() and p.name != ".lock"
        } == before

    def test_whose_files_cannot_be_moved_is_complete(self, small_experiment, monkeypatch, capsys):
        write = Storage.write

        def refuse(storage, path, data):
            if path.startswith("archive/"):
                raise StorageError("the disk is full")
            write(storage, path, data)

        monkeypatch.setattr(Storage, "write", refuse)
        assert len(small_experiment.run({}, {LR: LRS}).trials) == 5
        warning = "some trials were not moved into the archive; the next run tries again: the disk is full"
        assert warning in capsys.readouterr().err

    @pytest.mark.slow
    def test_on_an_object_store_is_read_with_few_requests(self, small_data, s3, monkeypatch):
        small_experiment = SmallExperiment(small_data, s3.location)
        table = small_experiment.run({}, {LR: LRS})
        folder = ExperimentFolder(s3.storage / "small_experiment")
        assert len(list(folder.archive.trials())) == 4
        reads = []
        read = Storage.read
        monkeypatch.setattr(
            Storage, "read", lambda storage, path, **how: reads.append(path) or read(storage, path, **how)
        )
        assert comparable(ResultTable.read(folder)) == comparable(table)
        assert len(reads) == 1 + 2 + 1 + 1, "the experiment, two bundles, a trial that is in none, and the run"


def statuses(small_experiment):
    return list(ExperimentFolder(Storage(small_experiment.folder)).read_trials(lambda trial: trial.status).values())


class TestAnArchiver:
    def test_ends_at_once_when_it_is_stopped(self, experiment):
        files = experiment.storage.files()
        with Archiver(experiment.archive, ENDED) as archiver:
            archiver.stop()
        assert len(experiment.archive.bundles()) <= 1
        assert archiver.thread.is_alive() is False
        assert len(experiment.storage.files("trials")) <= len(files)

    def test_moves_trials_while_others_are_trained(self, experiment):
        with Archiver(experiment.archive, []) as archiver:
            for trial_id in ENDED:
                archiver.add(trial_id)
        assert [trial_id for trial_id, _ in experiment.archive.trials()] == ENDED[:BUNDLE]
