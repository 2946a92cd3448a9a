import re
import time
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from data_pipeline.frame_table import FrameTable
from data_pipeline.pose_dataset import Samples, read_samples, write_datasets
from data_pipeline.preparation import chunks, selection
from data_pipeline.preparation.parts import DatasetPart, error_rows, split_samples
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.user_error import UserError


def samples_of(n, subsets=("A", "B")):
    """Distinguishable samples with names."""
    labels = np.arange(n * 42, dtype=np.float32).reshape(n, 14, 3)
    poses = {subset: labels + i + 1 for i, subset in enumerate(subsets)}
    return Samples(labels, poses, FrameTable.of(name=[f"frame {i}" for i in range(n)]))


class TestParts:
    @pytest.mark.parametrize("text", ["blocks:2:3", "last:20:10", "none"])
    def test_hold_all_that_the_samples_have(self, tmp_path, text):
        samples = samples_of(30)
        parts = split_samples("hands", samples, parse_split(text))
        write_datasets(tmp_path, {part.name: part.samples for part in parts})
        for part, indices in parse_split(text).parts(30).items():
            written = read_samples(tmp_path, "hands" if part == "all" else f"hands_{part}")
            np.testing.assert_array_equal(written.labels, samples.labels[indices])
            assert list(written.poses) == ["A", "B"]
            np.testing.assert_array_equal(written.poses["B"], samples.poses["B"][indices])
            assert written.frames.name.tolist() == [f"frame {i}" for i in indices]

    @pytest.mark.parametrize("jumps", [(), (4, 20)])
    def test_of_unknown_sequences_are_in_the_pieces_between_cuts(self, jumps):
        place = np.cumsum([1000 * (i in jumps) for i in range(30)])
        labels = np.ones((30, 14, 3), np.float32) * place[:, None, None]
        parts = {
            part.part: part.samples.frames
            for part in split_samples("new", Samples(labels, {}), parse_split("blocks:2:3"), source="hands")
        }
        pieces = ["hands"] * 30 if not jumps else ["hands-1"] * 4 + ["hands-2"] * 16 + ["hands-3"] * 10
        starts = [0] * 30 if not jumps else [0] * 4 + [4] * 16 + [20] * 10
        for part, rows in parse_split("blocks:2:3").parts(30).items():
            assert parts[part].sequence.tolist() == [pieces[row] for row in rows]
            assert parts[part].index.tolist() == [row - starts[row] for row in rows]

    def test_of_shuffled_frames_are_in_no_sequence(self):
        labels = np.random.default_rng(0).normal(scale=200, size=(30, 1, 3)).repeat(14, axis=1).astype(np.float32)
        for part in split_samples("new", Samples(labels, {}), parse_split("blocks:2:3")):
            assert part.samples.frames.columns == {}

    def test_of_all_folds_have_numbers_and_test_each_sample_once(self):
        parts = split_samples("hands", samples_of(30), parse_split("blocks:2:3"), folds=True)
        assert [part.name for part in parts] == [
            f"hands_fold{fold}_{part}" for fold in (1, 2, 3) for part in ("train", "val", "test")
        ]
        tested = [name for part in parts if part.part == "test" for name in part.samples.frames.name]
        assert sorted(tested) == sorted(samples_of(30).frames.name)

    @pytest.mark.parametrize("n", [5, chunks.CHUNK + 3])
    def test_are_as_far_off_as_by_hand_whatever_the_chunks(self, n):
        rng = np.random.default_rng(0)
        labels, errors = rng.normal(size=(2, n, 14, 3)).astype(np.float32)
        (row,) = error_rows([DatasetPart("x", "train", Samples(labels, {"A": labels + 8 * errors}))])
        error_mm = np.linalg.norm((labels + 8 * errors).astype(float) - labels, axis=2)
        assert row == {
            "dataset": "x_train",
            "part": "train",
            "subset": "A",
            "frames": n,
            "mean_error_mm": pytest.approx(error_mm.mean(), rel=1e-12),
            "mean_worst_joint_mm": pytest.approx(error_mm.max(axis=1).mean(), rel=1e-12),
            "share_worst_joint_within_20mm": (error_mm.max(axis=1) <= 20).mean(),
        }

    def test_of_labels_alone_have_a_row_without_errors(self):
        (row,) = error_rows([DatasetPart("x", "val", samples_of(3, subsets=()))])
        assert (row["frames"], row["subset"], row["mean_error_mm"]) == (3, None, None)


class TestSelections:
    @given(n_samples=st.integers(1, 100), data=st.data())
    def test_are_as_large_as_asked_for_and_in_order(self, n_samples, data):
        n = data.draw(st.integers(1, n_samples))
        assert selection.first(n_samples, n).tolist() == list(range(n))
        assert selection.every(n_samples, n).tolist() == [i for i in range(n_samples) if i % n == 0]
        drawn = selection.random(n_samples, n, seed=n)
        assert len(drawn) == n
        assert (np.diff(drawn) > 0).all()
        assert set(drawn.tolist()) <= set(range(n_samples))

    def test_at_random_follow_the_seed_alone(self):
        first, same, other = (selection.random(1000, 100, seed).tolist() for seed in (1, 1, 2))
        assert first == same != other

    @pytest.mark.parametrize("n", [-1, 0, 11])
    @pytest.mark.parametrize(
        "select", [selection.first, selection.every, lambda n_samples, n: selection.random(n_samples, n, 0)]
    )
    def test_of_more_than_there_are_are_refused(self, select, n):
        with pytest.raises(UserError, match=f"got {n}; expected a number from 1 to 10"):
            select(10, n)


@given(n=st.integers(0, 50), size=st.integers(1, 60))
def test_chunks_are_all_samples_in_order(n, size):
    slices = list(chunks.chunks(n, size))
    assert [i for rows in slices for i in range(rows.start, rows.stop)] == list(range(n))
    assert all(rows.stop - rows.start <= size for rows in slices)


def wait_for(screen, text):
    while text not in screen.getvalue():
        time.sleep(0.001)


class TestProgress:
    @pytest.fixture
    def terminal(self, monkeypatch):
        screen = StringIO()
        monkeypatch.setattr(chunks, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
        return screen

    def test_is_shown_on_a_terminal_when_it_takes_more_than_a_moment(self, terminal, monkeypatch):
        monkeypatch.setattr(chunks, "_DELAY_S", 0.0)
        with chunks.progress("measuring [0] of /a", 50) as advance:
            advance(20)
            wait_for(terminal, "measuring [0] of /a")
        assert "20/50" in terminal.getvalue()

    def test_of_a_file_whose_name_controls_a_terminal_shows_what_it_does(self, terminal, monkeypatch):
        monkeypatch.setattr(chunks, "_DELAY_S", 0.0)
        with chunks.progress("reading \x1b]0;title\x07", None):
            wait_for(terminal, "reading \\u001b]0;title\\u0007")
        assert "\x1b]" not in terminal.getvalue()

    @pytest.mark.parametrize(("n_steps", "count"), [((), ""), ((7,), "7/?")])
    def test_is_shown_without_a_count_of_what_nobody_counts(self, terminal, monkeypatch, n_steps, count):
        """Work in a single step reports nothing until it is done."""
        monkeypatch.setattr(chunks, "_DELAY_S", 0.0)
        with chunks.progress("reading", None) as advance:
            for n in n_steps:
                advance(n)
            wait_for(terminal, "reading")
        assert "".join(re.findall(r"\d*/\S", terminal.getvalue())[:1]) == count

    def test_is_not_shown_before(self, terminal):
        with chunks.progress("measuring", 50) as advance:
            advance(50)
        assert terminal.getvalue() == ""

    def test_leaves_no_trace_where_there_is_no_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr(chunks, "_DELAY_S", 0.0)
        with chunks.progress("measuring", 50) as advance:
            advance(50)
        assert capsys.readouterr() == ("", "")

    def test_is_gone_when_an_error_is_told(self, terminal, monkeypatch):
        monkeypatch.setattr(chunks, "_DELAY_S", 0.0)

        def fail():
            with chunks.progress("measuring", 50) as advance:
                advance(20)
                wait_for(terminal, "measuring")
                raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            fail()
        shown = len(terminal.getvalue())
        terminal.write("error: no")
        assert terminal.getvalue()[shown:] == "error: no"
        assert terminal.getvalue()[:shown].endswith("\x1b[2K")
