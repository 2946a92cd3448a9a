"""A folder for another tool's files is there whole or not at all."""

import pytest

from cluster.reports.trackers.new_folder import NewFolderError, new_folder


class TestANewFolder:
    @pytest.mark.parametrize("there", [False, True])
    def test_is_there_when_all_is_written(self, tmp_path, there):
        to = tmp_path / "to"
        if there:
            to.mkdir()
        with new_folder(to) as partial:
            (partial / "file").write_text("x")
            assert not to.exists() or not list(to.iterdir())
        assert (to / "file").read_text() == "x"
        assert list(tmp_path.iterdir()) == [to]

    def test_makes_the_folders_above_it(self, tmp_path):
        with new_folder(tmp_path / "a" / "b"):
            pass
        assert (tmp_path / "a" / "b").is_dir()

    @pytest.mark.parametrize("what", ["file", "full"])
    def test_is_not_written_over_what_is_there(self, tmp_path, what):
        to = tmp_path / "to"
        if what == "full":
            to.mkdir()
        there = to / "x" if what == "full" else to
        there.write_text("mine")
        with pytest.raises(NewFolderError, match="choose another folder or empty it"), new_folder(to):
            pass
        assert there.read_text() == "mine"
        assert list(tmp_path.iterdir()) == [to]

    def test_that_another_process_fills_meanwhile_is_left_to_it(self, tmp_path):
        to = tmp_path / "to"
        with pytest.raises(NewFolderError, match="cannot be written"):
            write_to_new_folder(to, then=lambda: write(to / "file", "theirs"))
        assert (to / "file").read_text() == "theirs"
        assert list(tmp_path.iterdir()) == [to]

    def test_is_not_there_after_an_error(self, tmp_path):
        with pytest.raises(ZeroDivisionError):
            write_to_new_folder(tmp_path / "to", then=lambda: 1 / 0)
        assert list(tmp_path.iterdir()) == []

    def test_is_not_there_when_its_writer_was_killed(self, tmp_path, python):
        done = python(KILLED, tmp_path / "to")
        assert done.returncode == -9
        assert not (tmp_path / "to").exists()

    def test_that_cannot_be_made_says_why(self, tmp_path):
        (tmp_path / "file").touch()
        with (
            pytest.raises(NewFolderError, match="cannot be written: Not a directory"),
            new_folder(tmp_path / "file" / "to"),
        ):
            pass


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def write_to_new_folder(to, *, then):
    with new_folder(to) as partial:
        write(partial / "file", "mine")
        then()


KILLED = """
import os, signal, sys
from pathlib import Path
from cluster.reports.trackers.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as partial:
    (partial / "file").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
