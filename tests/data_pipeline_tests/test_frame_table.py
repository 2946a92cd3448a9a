"""The table of a dataset's frames: columns, files and videos."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.frame_table import CUT_MM, FrameTable, group_codes, motion_mm, video_frames
from data_pipeline.pose_dataset import DatasetError


def columns(frames):
    return {name: column.tolist() for name, column in frames.columns.items()}


class TestColumns:
    @given(sequence=st.lists(st.sampled_from(["a", "b", "ü"]), min_size=1, max_size=30))
    def test_that_are_completed_count_the_frames_of_each_sequence(self, sequence):
        completed = FrameTable.of(sequence=sequence).completed(len(sequence), "hands")
        assert completed.index.tolist() == [sequence[:i].count(name) for i, name in enumerate(sequence)]
        assert completed.sequence.tolist() == sequence

    def test_of_an_unknown_sequence_take_the_name_of_the_dataset(self):
        assert columns(FrameTable.of(name=["x", "y"]).completed(2, "hands")) == {
            "sequence": ["hands", "hands"],
            "index": [0, 1],
            "name": ["x", "y"],
        }

    def test_that_are_known_stay_when_a_table_is_completed(self):
        frames = FrameTable.of(sequence=["b", "a"], index=[7, 3], subject=["s", "s"])
        assert columns(frames.completed(2, "hands")) == columns(frames)

    @given(
        frames=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), min_size=1, max_size=20),
        max_step=st.integers(1, 4),
    )
    def test_form_runs_whose_index_grows_by_at_most_a_step(self, frames, max_step):
        sequence, index = zip(*frames, strict=True)
        rows, lengths = FrameTable.of(sequence=sequence, index=index).runs(len(frames), max_step=max_step)
        assert sorted(rows) == list(range(len(frames)))
        runs = [[frames[row] for row in run] for run in np.split(rows, np.cumsum(lengths)[:-1])]
        for run in runs:
            assert all(a == b and 1 <= j - i <= max_step for (a, i), (b, j) in itertools.pairwise(run))
        for (a, i), (b, j) in ((run[-1], following[0]) for run, following in itertools.pairwise(runs)):
            assert a != b or not 1 <= j - i <= max_step

    @given(frames=st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), min_size=1).map(sorted))
    def test_in_the_order_of_the_recording_begin_runs_where_the_table_says(self, frames):
        sequence, index = zip(*frames, strict=True)
        table = FrameTable.of(sequence=sequence, index=index)
        rows, lengths = table.runs(len(frames))
        assert rows.tolist() == list(range(len(frames)))
        assert np.flatnonzero(table.run_starts(len(frames))).tolist() == [0, *np.cumsum(lengths)[:-1]]

    def test_that_are_unknown_are_one_run_in_their_order(self):
        rows, lengths = FrameTable().runs(4)
        assert (rows.tolist(), lengths) == ([0, 1, 2, 3], [4])
        assert FrameTable().run_starts(4).tolist() == [True, False, False, False]

    def test_have_a_triple_of_successive_frames_for_each_frame_but_the_last_two(self):
        sequence, index = [*"aaaabbbccd"], [0, 1, 2, 3, 0, 1, 3, 0, 1, 0]
        assert FrameTable.of(sequence=sequence, index=index).n_triples(len(index)) == 2
        assert FrameTable().n_triples(4) == 2

    @given(names=st.lists(st.text(max_size=2), max_size=20))
    def test_have_a_number_for_each_name_in_order_of_appearance(self, names):
        codes = group_codes(FrameTable.of(name=names).name)
        order = list(dict.fromkeys(names))
        assert codes.tolist() == [order.index(name) for name in names]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hands_frames.parquet"


def read(path, n=2):
    return FrameTable.read(path.read_bytes(), path, n, DatasetError)


class TestFiles:
    def test_of_another_program_may_have_plain_columns_of_any_width(self, path):
        """As pandas and others write them."""
        table = {"subject": pa.array(["a", "b"], pa.large_string()), "index": pa.array([3, 4], pa.uint8())}
        pq.write_table(pa.table(table), path)
        assert columns(read(path)) == {"subject": ["a", "b"], "index": [3, 4]}

    @pytest.mark.parametrize(
        ("table", "says"),
        [
            ({"subjcet": ["a", "b"]}, "has a column 'subjcet'; did you mean 'subject'?"),
            ({"subject": ["a"]}, "has 1 rows, but there are 2 labels; write one row for each sample"),
            ({"subject": [1, 2]}, "the column 'subject' has the type int64; expected text"),
            ({"index": ["a", "b"]}, "the column 'index' has the type string; expected integers"),
            ({"index": [0.0, 1.0]}, "the column 'index' has the type double; expected integers"),
            ({"index": [0, -1]}, "the index in row 1 is -1; expected a number from 0"),
            ({"index": [0, 2**60]}, "the index in row 1 is 1152921504606846976; expected"),
            ({"subject": ["a", None]}, "the column 'subject' has no value in row 1; leave out columns"),
            ({"subject": ["a", ""]}, "'' is not the name of a subject"),
            ({"sequence": ["a\x1b[2J", "b"]}, "is not the name of a sequence; expected 1 to 200 printable characters"),
            ({"sequence": ["a" * 201, "b"]}, "is not the name of a sequence"),
        ],
    )
    def test_that_are_no_table_of_frames_are_refused(self, path, table, says):
        pq.write_table(pa.table(table), path)
        with pytest.raises(DatasetError, match=r"hands_frames\.parquet") as caught:
            read(path)
        assert says in str(caught.value)

    @given(data=st.data())
    def test_that_are_damaged_are_read_as_written_or_refused(self, tmp_path_factory, data):
        path = tmp_path_factory.getbasetemp() / "damaged_frames.parquet"
        frames = FrameTable.of(sequence=list("aab"), index=[0, 1, 0], name=["x", "ü", ""])
        frames.write(path)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            found = read(path, 3)
        except DatasetError:
            return
        assert all(len(column) == 3 for column in found.columns.values())


class TestVideo:
    def test_begins_a_sequence_at_each_cut_and_at_each_border(self):
        place = np.array([0, 10, 20, 20 + 1.1 * CUT_MM, 90, 95, 96, 97], np.float32)
        labels = np.zeros((8, 14, 3), np.float32)
        labels[:, :, 0] = place[:, None]
        frames = video_frames(labels, borders=[6], subjects={"x": slice(3), "y": slice(3, None)})
        assert columns(frames) == {
            "sequence": ["1", "1", "1", "2", "2", "2", "3", "3"],
            "index": [0, 1, 2, 0, 1, 2, 0, 1],
            "subject": ["x"] * 3 + ["y"] * 5,
        }

    def test_moves_by_the_mean_distance_of_the_joints(self):
        labels = np.random.default_rng(0).normal(size=(5, 14, 3)).astype(np.float32)
        expected = [
            np.mean([np.linalg.norm(labels[i + 1, joint] - labels[i, joint]) for joint in range(14)]) for i in range(4)
        ]
        np.testing.assert_allclose(motion_mm(labels), expected, rtol=1e-5)
