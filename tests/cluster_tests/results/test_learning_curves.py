import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.results.learning_curves import read_logged, record_tables
from cluster.storage import archive
from cluster.storage.examples import FollowedExamples
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from cluster.storage.frame_errors import FrameErrors
from cluster.storage.records import from_parquet, to_parquet
from data_pipeline.frame_table import FrameTable
from posenet.record import Record
from tests.cluster_tests.results_files import write_json

IDS = [f"{key}/{repetition}" for key in "abc" for repetition in range(2)]
METRICS = ["distance_before", "distance", "distance[TTIP]_before", "distance[TTIP]"]


def records_of(trial_id):
    """Two epochs of two log points each, of 3 and 5 batches, with a loss for every batch, and a final evaluation."""
    seed = float(IDS.index(trial_id))
    for epoch in (1, 2):
        for batch in (3, 5):
            at = epoch + batch / 10 + 100 * seed
            yield Record(epoch, batch, "train", "mean", "default", "loss", at)
            yield Record(epoch, batch, "train", "mean", "original", "distance", at + 0.01)
            for subset in ("mean", "A"):
                for metric in ("distance", "max_distance"):
                    yield Record(epoch, batch, "val", subset, "original", metric, at + (subset == "mean") * 0.02)
                yield Record(epoch, batch, "val", subset, "default", "distance", -1.0)
            yield Record(epoch, batch, "train", "mean", "default", "batch_loss", -1.0)
    for split in ("val", "test"):
        for subset in ("mean", "A"):
            for space in ("original", "default"):
                for number, metric in enumerate(METRICS):
                    told = (split, subset, space) == ("test", "mean", "original")
                    yield Record(2, 0, split, subset, space, metric, number + 10 * seed if told else -1.0)


@pytest.fixture(params=["in their folders", "in the archive", "in both"])
def folder(request, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "BUNDLE_TRIALS", 2)
    folder = ExperimentFolder(Storage(tmp_path / "x"))
    for trial_id in IDS:
        folder.trial(trial_id).write("records.parquet", to_parquet(trial_id, list(records_of(trial_id))))
        write_json(folder.trial(trial_id), {"status": "diverged"})
    waiting = {"in their folders": [], "in the archive": IDS, "in both": IDS[1:4]}[request.param]
    while waiting:
        waiting = folder.archive.add(waiting)
    return folder


def read(folder, wanted=lambda trial_id: True, is_metric=lambda name: True):
    return read_logged(folder, split="test", wanted=wanted, is_metric=is_metric)


class TestACurve:
    def test_has_what_was_logged_at_every_log_point(self, folder):
        curves = read(folder).curves
        assert sorted(curves) == IDS
        for seed, trial_id in enumerate(IDS):
            curve = curves[trial_id]
            at = np.array([1.3, 1.5, 2.3, 2.5]) + 100 * seed
            np.testing.assert_allclose(curve.epochs, [0.6, 1, 1.6, 2])
            np.testing.assert_allclose(curve.loss, at)
            np.testing.assert_allclose(curve.train_mm, at + 0.01)
            np.testing.assert_allclose(curve.val_mm, at + 0.02)

    def test_of_records_that_a_file_has_twice_is_the_same(self, tmp_path):
        folder = ExperimentFolder(Storage(tmp_path / "x"))
        for trial_id, n in (("a/0", 1), ("b/0", 2)):
            folder.trial(trial_id).write("records.parquet", to_parquet(trial_id, list(records_of("a/0")) * n))
        once, twice = (read(folder).curves[trial_id] for trial_id in ("a/0", "b/0"))
        np.testing.assert_array_equal(once, twice)

    def test_says_where_the_training_was_not_measured_in_millimetres(self, folder):
        records = [record for record in records_of("a/0") if (record.split, record.metric) != ("train", "distance")]
        folder.trial("z/0").write("records.parquet", to_parquet("z/0", records))
        curve = read(folder).curves["z/0"]
        assert np.isnan(curve.train_mm).all()
        assert np.isfinite(curve.val_mm).all()

    def test_is_there_for_a_trial_that_has_no_final_evaluation(self, folder):
        records = [record for record in records_of("a/0") if record.batch]
        folder.trial("z/0").write("records.parquet", to_parquet("z/0", records))
        logged = read(folder)
        assert len(logged.curves["z/0"].epochs) == 4
        assert "z/0" not in logged.final


class TestTheFinalNumbers:
    def test_are_those_of_the_split_over_all_subsets_in_millimetres(self, folder):
        logged = read(folder)
        assert logged.metrics == METRICS
        for seed, trial_id in enumerate(IDS):
            np.testing.assert_allclose(logged.final[trial_id], np.arange(4) + 10 * seed)

    def test_are_of_the_metrics_that_are_asked_for(self, folder):
        assert read(folder, is_metric=lambda name: "[" in name).metrics == METRICS[2:]

    def test_are_missing_where_a_trial_has_none(self, folder):
        records = [record for record in records_of("a/0") if record.metric != "distance[TTIP]"]
        folder.trial("z/0").write("records.parquet", to_parquet("z/0", records))
        np.testing.assert_array_equal(read(folder).final["z/0"], [0, 1, 2, np.nan])


class TestReading:
    def test_is_of_the_trials_that_are_wanted(self, folder):
        logged = read(folder, wanted=lambda trial_id: trial_id.startswith("b/"))
        assert sorted(logged.curves) == sorted(logged.final) == ["b/0", "b/1"]

    def test_leaves_out_what_cannot_be_read(self, folder):
        content = to_parquet("z/0", list(records_of("a/0")))
        folder.trial("y/0").write("records.parquet", content[: len(content) // 2])
        folder.trial("z/0").write("records.parquet", b"")
        assert sorted(read(folder).curves) == IDS

    def test_takes_what_the_archive_says_of_a_trial_that_is_in_both(self, folder):
        if folder.archive.bundles():
            stale = [record._replace(value=-5.0) for record in records_of("b/0")]
            folder.trial("b/0").write("records.parquet", to_parquet("b/0", stale))
            assert read(folder).curves["b/0"].loss[0] == pytest.approx(201.3)

    def test_of_whole_tables_gives_every_row_once_and_in_order(self, folder):
        tables = list(record_tables(folder, lambda trial_id: trial_id != "b/1"))
        rows = {trial_id: [] for trial_id in IDS if trial_id != "b/1"}
        for row in pa.concat_tables(tables, promote_options="permissive").to_pylist():
            rows[row.pop("trial_id")].append(Record(**row))
        assert rows == {trial_id: list(records_of(trial_id)) for trial_id in rows}

    def test_of_an_experiment_without_records_gives_nothing(self, tmp_path):
        logged = read(ExperimentFolder(Storage(tmp_path / "none")))
        assert (logged.curves, logged.metrics, logged.final) == ({}, [], {})


def test_records_of_a_trial_are_those_that_were_written(folder):
    content = to_parquet("a/0", list(records_of("a/0")))
    assert from_parquet(content) == list(records_of("a/0"))


class TestFrameErrors:
    frames = FrameErrors(
        {
            "B": (np.float32([1.5, 2, 3]), np.float32([1, 2.5, 3])),
            "A": (np.float32([4, 5, 6]), np.float32([4.25, 0.1, 7])),
        }
    )

    def test_are_read_as_they_were_written(self, folder):
        trial = folder.trial("a/0")
        assert FrameErrors.read(trial) is None
        trial.write("frames.parquet", self.frames.to_parquet())
        found = FrameErrors.read(trial)
        assert list(found.by_subset) == ["B", "A"]
        for subset, errors_mm in self.frames.by_subset.items():
            for one, other in zip(found.by_subset[subset], errors_mm, strict=True):
                np.testing.assert_array_equal(one, other)

    def test_keep_what_is_known_of_the_frames(self, folder):
        trial = folder.trial("a/0")
        table = FrameTable.of(sequence=["s", "s", "t"], index=[4, 9, 0], subject=["ü", "ü", "x"])
        frames = replace(self.frames, frames=table, training_distance=np.array([3, 8, np.nan]))
        trial.write("frames.parquet", frames.to_parquet())
        found = FrameErrors.read(trial)
        assert {name: column.tolist() for name, column in found.frames.columns.items()} == {
            "sequence": ["s", "s", "t"],
            "index": [4, 9, 0],
            "subject": ["ü", "ü", "x"],
        }
        np.testing.assert_array_equal(found.training_distance, [3, 8, np.nan])
        written = pq.read_table(io.BytesIO(trial.read("frames.parquet")))
        assert [written.schema.field(name).type.value_type for name in ("subset", "sequence", "subject")] == [
            "string"
        ] * 3
        assert written["training_distance"].to_pylist() == [3, 8, None] * 2

    def test_of_unknown_frames_have_nulls(self, folder):
        trial = folder.trial("a/0")
        trial.write("frames.parquet", self.frames.to_parquet())
        written = pq.read_table(io.BytesIO(trial.read("frames.parquet")))
        unknown = ["sequence", "index", "subject", "training_distance"]
        assert [written[name].null_count for name in unknown] == [6] * 4
        found = FrameErrors.read(trial)
        assert (found.frames.columns, found.training_distance) == ({}, None)

    def test_of_older_versions_have_no_columns_for_frames(self, folder):
        trial = folder.trial("a/0")
        trial.write("frames.parquet", self.frames.to_parquet())
        new = pq.read_table(io.BytesIO(trial.read("frames.parquet")))
        buffer = io.BytesIO()
        pq.write_table(new.select(["subset", "before_mm", "after_mm"]), buffer)
        trial.write("frames.parquet", buffer.getvalue())
        found = FrameErrors.read(trial)
        assert list(found.by_subset) == ["B", "A"]
        assert (found.frames.columns, found.training_distance) == ({}, None)

    def test_run_on_across_short_gaps_in_the_order_of_the_recording(self):
        table = FrameTable.of(sequence=["s", "t", "s"], index=[105, 0, 5])
        rows, lengths = replace(self.frames, frames=table).runs
        assert (rows.tolist(), lengths) == ([2, 0, 1], [2, 1])
        assert replace(self.frames, frames=table.of(sequence=["s"] * 3, index=[0, 101, 202])).runs.lengths == [1, 1, 1]

    @pytest.mark.parametrize(
        ("column", "value"), [("sequence", None), ("subject", "a\nb"), ("sequence", ""), ("index", None)]
    )
    def test_with_an_impossible_frame_are_told(self, folder, column, value):
        trial = folder.trial("a/0")
        table = FrameTable.of(sequence=["s", "s", "t"], index=[4, 9, 0], subject=["a", "b", "b"])
        trial.write("frames.parquet", replace(self.frames, frames=table).to_parquet())
        rows = pq.read_table(io.BytesIO(trial.read("frames.parquet"))).to_pylist()
        rows[1][column] = value
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        trial.write("frames.parquet", buffer.getvalue())
        with pytest.raises(ValueError, match=rf"frames\.parquet is broken: some frames have no {column}"):
            FrameErrors.read(trial)

    def test_of_each_frame_are_the_mean_over_its_subsets(self):
        before, after = self.frames.means
        np.testing.assert_allclose(before, [2.75, 3.5, 4.5])
        np.testing.assert_allclose(after, [2.625, 1.3, 5.0])
        assert len(self.frames.joined[0]) == 6

    def test_of_subsets_with_unlike_numbers_of_frames_are_told(self, folder):
        trial = folder.trial("a/0")
        trial.write(
            "frames.parquet",
            FrameErrors({"B": self.frames.by_subset["B"], "A": (np.float32([4]), np.float32([5]))}).to_parquet(),
        )
        with pytest.raises(ValueError, match=r"frames\.parquet is broken: its subsets are not of the same frames"):
            FrameErrors.read(trial)

    @pytest.mark.parametrize("damaged", [b"", b"nothing", slice(0, -20)])
    def test_that_are_damaged_are_told(self, folder, damaged):
        trial = folder.trial("a/0")
        trial.write("frames.parquet", self.frames.to_parquet())
        trial.write("frames.parquet", damaged if isinstance(damaged, bytes) else trial.read("frames.parquet")[damaged])
        with pytest.raises(ValueError, match=r"frames\.parquet is broken"):
            FrameErrors.read(trial)


class TestExamples:
    def examples(self, **changes):
        arrays = {
            "epochs": np.array([1, 2]),
            "batches": np.array([5, 5]),
            "predictions_mm": np.ones((2, 3, 21, 3), np.float32),
            "inputs_mm": np.zeros((3, 21, 3), np.float32),
            "labels_mm": np.zeros((3, 21, 3), np.float32),
            "indices": np.array([4, 0, 7]),
        }
        return FollowedExamples(**{**arrays, **changes})

    def test_are_read_as_they_were_written(self, folder):
        trial = folder.trial("a/0")
        assert FollowedExamples.read(trial) is None
        trial.write("examples.npz", self.examples().to_npz())
        for name, array in vars(FollowedExamples.read(trial)).items():
            np.testing.assert_array_equal(array, getattr(self.examples(), name))

    @pytest.mark.parametrize("name", ["epochs", "inputs_mm", "labels_mm", "indices"])
    def test_of_unlike_shapes_are_told(self, folder, name):
        trial = folder.trial("a/0")
        trial.write("examples.npz", self.examples(**{name: np.zeros((1, 2))}).to_npz())
        with pytest.raises(ValueError, match=rf"examples\.npz is broken: {name} has the shape \(1, 2\)"):
            FollowedExamples.read(trial)
