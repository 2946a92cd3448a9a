import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.files.atomic import _remove_left_over, atomic_file, atomic_folder
from data_pipeline.user_error import UserError
from tests.support import ROOT


def fail_in(block, error, begin):
    with block as place:
        begin(place)
        raise error


def removing_before_the_lock(monkeypatch, path):
    """Lets another writer to `path` run once after a partial file is made and before it is locked."""
    flock, came = fcntl.flock, []

    def remove_first(descriptor, how):
        if not came:
            came.append(descriptor)
            _remove_left_over(path)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)


class TestAFile:
    def test_takes_its_place_when_the_block_ends(self, tmp_path):
        path = tmp_path / "poses.txt"
        path.write_bytes(b"old")
        with atomic_file(path) as file:
            file.write(b"new")
            file.flush()
            assert path.read_bytes() == b"old"
        assert path.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_stays_as_it_was_where_the_block_fails(self, tmp_path, error):
        path = tmp_path / "poses.txt"
        path.write_bytes(b"old")
        with pytest.raises(error):
            fail_in(atomic_file(path), error, lambda file: file.write(b"new"))
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_that_another_writer_is_still_at_is_left_alone(self, tmp_path):
        path = tmp_path / "poses.txt"
        with atomic_file(path) as slow:
            slow.write(b"slow")
            with atomic_file(path) as quick:
                quick.write(b"quick")
            assert path.read_bytes() == b"quick"
        assert path.read_bytes() == b"slow"
        assert list(tmp_path.iterdir()) == [path]

    def test_clears_what_dead_writers_left_and_nothing_else(self, tmp_path):
        path = tmp_path / "poses[1].txt"
        (tmp_path / ".poses[1].txt.0123abcd.partial").write_bytes(b"left")
        others = [".poses1.txt.0123abcd.partial", ".poses[1].txt.partial", "poses[1].txt.0123abcd.partial"]
        for name in others:
            (tmp_path / name).write_bytes(b"another one's")
        with atomic_file(path) as file:
            file.write(b"new")
        assert sorted(place.name for place in tmp_path.iterdir()) == sorted([path.name, *others])

    def test_that_another_writer_removed_before_it_was_held_is_made_again(self, tmp_path, monkeypatch):
        path = tmp_path / "poses.txt"
        removing_before_the_lock(monkeypatch, path)
        with atomic_file(path) as file:
            file.write(b"new")
        assert path.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.timeout(20)
    @pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")  # noqa: PTH112
    def test_where_nothing_can_be_created_is_an_error(self):
        with (
            pytest.raises(
                UserError, match=r"x cannot be written: nothing can be created in /proc/self, or it disappears"
            ),
            atomic_file(Path("/proc/self/x")),
        ):
            pass

    @pytest.mark.timeout(20)
    def test_that_always_disappears_is_an_error(self, tmp_path, monkeypatch):
        flock = fcntl.flock

        def remove_first(descriptor, how):
            for left in tmp_path.iterdir():
                left.unlink()
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", remove_first)
        with pytest.raises(UserError, match="or it disappears at once"), atomic_file(tmp_path / "x"):
            pass

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
    def test_does_not_replace_what_is_no_file(self, tmp_path, make):
        path = tmp_path / "x"
        make(path)
        before = path.stat().st_mode
        with pytest.raises(UserError, match=r"x is a .*; give the name of a file"), atomic_file(path):
            pass
        assert path.stat().st_mode == before

    def test_on_a_full_disk_says_so(self, tmp_path):
        with (
            pytest.raises(UserError, match=r"poses\.txt cannot be written: No space left on device"),
            atomic_file(tmp_path / "poses.txt"),
        ):
            raise OSError(28, "No space left on device")
        assert list(tmp_path.iterdir()) == []


class TestAFolder:
    def test_takes_its_place_when_the_block_ends(self, tmp_path):
        path = tmp_path / "tree"
        with atomic_folder(path) as folder:
            (folder / "P0").mkdir()
            assert not path.exists()
        assert [place.name for place in path.iterdir()] == ["P0"]
        assert list(tmp_path.iterdir()) == [path]

    def test_is_not_there_where_the_block_fails(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            fail_in(atomic_folder(tmp_path / "tree"), KeyboardInterrupt, lambda folder: (folder / "P0").mkdir())
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_that_exists_is_refused_before_and_after_the_block(self, tmp_path, kind):
        path = tmp_path / "tree"
        make = path.touch if kind == "file" else path.mkdir
        with pytest.raises(UserError, match="tree already exists"), atomic_folder(path):
            make()
        with pytest.raises(UserError, match="tree already exists"), atomic_folder(path):
            pytest.fail("the block was entered")
        assert list(tmp_path.iterdir()) == [path]

    def test_that_another_writer_is_still_at_is_left_alone(self, tmp_path):
        path = tmp_path / "tree"

        def write_slowly():
            with atomic_folder(path) as slow:
                (slow / "P0").mkdir()
                with atomic_folder(path) as quick:
                    (quick / "P1").mkdir()
                assert (slow / "P0").is_dir()

        with pytest.raises(UserError, match="tree already exists"):
            write_slowly()
        assert [place.name for place in path.iterdir()] == ["P1"]
        assert list(tmp_path.iterdir()) == [path]

    def test_that_another_writer_removed_before_it_was_held_is_made_again(self, tmp_path, monkeypatch):
        path = tmp_path / "tree"
        removing_before_the_lock(monkeypatch, path)
        with atomic_folder(path) as folder:
            (folder / "P0").mkdir()
        assert [place.name for place in path.iterdir()] == ["P0"]
        assert list(tmp_path.iterdir()) == [path]

    def test_that_another_writer_removed_before_it_was_opened_is_made_again(self, tmp_path, monkeypatch):
        path, removed = tmp_path / "tree", []
        opened = os.open

        def remove_first(folder, flags):
            if not removed:
                removed.append(folder)
                folder.rmdir()
            return opened(folder, flags)

        monkeypatch.setattr(os, "open", remove_first)
        with atomic_folder(path):
            pass
        assert list(tmp_path.iterdir()) == [path]
        assert len(removed) == 1

    def test_in_a_folder_that_is_missing_is_an_error(self, tmp_path):
        with (
            pytest.raises(UserError, match=r"tree cannot be written: No such file"),
            atomic_folder(tmp_path / "a" / "tree"),
        ):
            pytest.fail("the block was entered")

    def test_clears_what_dead_writers_left(self, tmp_path):
        (tmp_path / ".tree.0123abcd.partial" / "P0").mkdir(parents=True)
        with atomic_folder(tmp_path / "tree"):
            pass
        assert list(tmp_path.iterdir()) == [tmp_path / "tree"]


class TestAFolderThatMayBeEmpty:
    @pytest.mark.parametrize("there", [False, True])
    def test_is_there_when_all_is_written(self, tmp_path, there):
        to = tmp_path / "to"
        if there:
            to.mkdir()
        with atomic_folder(to, may_be_empty=True) as partial:
            (partial / "file").write_text("x")
            assert not to.exists() or not list(to.iterdir())
        assert (to / "file").read_text() == "x"
        assert list(tmp_path.iterdir()) == [to]

    def test_makes_the_folders_above_it(self, tmp_path):
        with atomic_folder(tmp_path / "a" / "b", may_be_empty=True):
            pass
        assert (tmp_path / "a" / "b").is_dir()

    @pytest.mark.parametrize("what", ["file", "full"])
    def test_is_not_written_over_what_is_there(self, tmp_path, what):
        to = tmp_path / "to"
        if what == "full":
            to.mkdir()
        there = to / "x" if what == "full" else to
        there.write_text("mine")
        with (
            pytest.raises(UserError, match="already exists; choose another folder"),
            atomic_folder(to, may_be_empty=True),
        ):
            pass
        assert there.read_text() == "mine"
        assert list(tmp_path.iterdir()) == [to]

    def test_that_another_process_fills_meanwhile_is_left_to_it(self, tmp_path):
        to = tmp_path / "to"
        with pytest.raises(UserError, match="to already exists"):
            write_to_folder(to, then=lambda: write(to / "file", "theirs"))
        assert (to / "file").read_text() == "theirs"
        assert list(tmp_path.iterdir()) == [to]

    def test_is_not_there_after_an_error(self, tmp_path):
        with pytest.raises(ZeroDivisionError):
            write_to_folder(tmp_path / "to", then=lambda: 1 / 0)
        assert list(tmp_path.iterdir()) == []

    def test_is_not_there_when_its_writer_was_killed_and_the_next_writer_clears_the_rest(self, tmp_path):
        to = tmp_path / "to"
        done = subprocess.run([sys.executable, "-c", KILLED, str(to)], cwd=ROOT, check=False, timeout=60)
        assert done.returncode == -9
        assert not to.exists()
        write_to_folder(to, then=lambda: None)
        assert list(tmp_path.iterdir()) == [to]

    def test_that_cannot_be_made_says_why(self, tmp_path):
        (tmp_path / "file").touch()
        with (
            pytest.raises(UserError, match="cannot be written: Not a directory"),
            atomic_folder(tmp_path / "file" / "to", may_be_empty=True),
        ):
            pass


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def write_to_folder(to, *, then):
    with atomic_folder(to, may_be_empty=True) as partial:
        write(partial / "file", "mine")
        then()


KILLED = """
import os, signal, sys
from pathlib import Path
from data_pipeline.files.atomic import atomic_folder
with atomic_folder(Path(sys.argv[1])) as partial:
    (partial / "file").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
