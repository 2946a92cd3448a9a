import fcntl
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from data_pipeline.files.replacement import finish_replacing, replace_together
from data_pipeline.user_error import UserError

OLD = {"a": "old a", "b": "old b", "folder/c": "old c"}
NEW = {"a": "new a", "folder/c": "new c", "folder/d": "new d"}
ABSENT = ("b",)  # not in the new content

STEPS = {Path: ("mkdir", "rename", "replace", "unlink", "rmdir", "write_text", "touch"), shutil: ("rmtree",)}


class Killed(BaseException):
    pass


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    with replace_together(folder) as new:
        write(new, OLD)
    return folder


def write(folder, content, absent=()):
    for name, text in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for name in absent:
        (folder / name).touch()


def content(folder):
    """All files of a folder, including hidden ones."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def killed_at(monkeypatch, n, work):
    """Runs `work` only up to its n-th step on the disk; nothing happens after it, not even
    cleaning up, as in a killed process. Returns whether it came that far."""
    done = 0

    def stepping(step):
        def counted(*arguments, **options):
            nonlocal done
            done += 1
            if done >= n:
                raise Killed
            return step(*arguments, **options)

        return counted

    with monkeypatch.context() as patched:
        for home, names in STEPS.items():
            for name in names:
                patched.setattr(home, name, stepping(getattr(home, name)))
        try:
            work()
        except Killed:
            return True
    return False


def replace_all(folder):
    with replace_together(folder) as new:
        write(new, NEW, ABSENT)


class TestAWriter:
    def test_leaves_the_new_files_and_nothing_else(self, folder):
        replace_all(folder)
        assert content(folder) == NEW

    def test_that_raises_leaves_all_as_it_was(self, folder):
        def fail():
            with replace_together(folder) as new:
                write(new, NEW)
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            fail()
        assert content(folder) == OLD

    def test_leaves_files_of_others_alone(self, folder):
        (folder / "other").write_text("mine")
        replace_all(folder)
        assert content(folder) == {**NEW, "other": "mine"}

    @pytest.mark.parametrize(
        ("file", "says"),
        [("folder", r"data/folder is a folder, but a file must"), ("b/c", r"data/b is a file, but a folder must")],
    )
    def test_whose_files_have_no_place_is_refused_before_anything_changes(self, folder, file, says):
        """Otherwise the files could not be moved, and every reader would fail."""

        def replace():
            with replace_together(folder) as new:
                write(new, {"a": "new a", file: "no file can be here"})

        with pytest.raises(UserError, match=says):
            replace()
        assert content(folder) == OLD

    @pytest.mark.parametrize(
        "error", [PermissionError(13, "Permission denied"), RuntimeError("Permission denied\nframe #0")]
    )
    def test_that_cannot_write_is_told_of_the_folder_and_the_reason(self, folder, monkeypatch, error):
        """Torch reports a full disk with a RuntimeError."""

        def refuse(*_, **__):
            raise error

        monkeypatch.setattr(Path, "write_text", refuse)
        with pytest.raises(UserError, match=r"^\S*data cannot be written to: Permission denied$"):
            replace_all(folder)
        assert content(folder) == OLD

    def test_is_not_barred_by_files_of_another_user(self, folder, monkeypatch):
        """A user who may write to the folder needs no permission for existing files."""
        for name in (".writing.lock", ".lock"):
            (folder / name).write_text("another one's")
        opened = os.open

        def refuse_files(path, flags, *mode, **options):
            is_old = Path(path).is_file() and ".writing" not in Path(path).parts
            if is_old and flags & (os.O_WRONLY | os.O_RDWR):
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, flags, *mode, **options)

        monkeypatch.setattr(os, "open", refuse_files)
        replace_all(folder)
        assert content(folder)["a"] == "new a"

    def test_waits_for_one_that_is_at_it(self, folder):
        began, go_on = threading.Event(), threading.Event()

        def slow():
            with replace_together(folder) as new:
                began.set()
                assert go_on.wait(30)
                write(new, {"a": "slow"})

        first, second = threading.Thread(target=slow), threading.Thread(target=replace_all, args=(folder,))
        first.start()
        assert began.wait(30)
        second.start()
        second.join(0.2)
        assert content(folder)["a"] == "old a"
        go_on.set()
        first.join(30)
        second.join(30)
        assert content(folder) == NEW

    def test_does_without_a_lock_where_the_filesystem_has_none(self, folder, monkeypatch):
        def none(*_):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", none)
        replace_all(folder)
        assert content(folder) == NEW


class TestAWriterThatIsKilled:
    def test_at_any_step_leaves_the_old_files_or_the_new_ones(self, folder, monkeypatch):
        """As the next reader finds them; both states occur."""
        seen, n = [], 0
        while killed_at(monkeypatch, n := n + 1, lambda: replace_all(folder)):
            finish_replacing(folder, UserError)
            visible = {name: text for name, text in content(folder).items() if not name.startswith(".")}
            assert visible in (OLD, NEW)
            seen.append(visible)
            shutil.rmtree(folder)
            with replace_together(folder) as new:
                write(new, OLD)
        assert seen.index(NEW) > 5
        assert seen[-1] == NEW
        assert len(seen) > 12

    def test_at_any_step_leaves_nothing_that_the_next_writer_does_not_clear(self, folder, monkeypatch):
        n = 0
        while killed_at(monkeypatch, n := n + 1, lambda: replace_all(folder)):
            with replace_together(folder) as new:
                write(new, {"e": "next"})
            left = content(folder)
            assert left in ({**OLD, "e": "next"}, {**NEW, "e": "next"})
            assert not [path for path in folder.iterdir() if path.name.startswith(".")]
            shutil.rmtree(folder)
            with replace_together(folder) as new:
                write(new, OLD)
        assert n > 12

    def test_lets_the_next_reader_be_killed_too(self, folder, monkeypatch):
        n = 0
        while killed_at(monkeypatch, n := n + 1, lambda: replace_all(folder)):
            m = 0
            while killed_at(monkeypatch, m := m + 1, lambda: finish_replacing(folder, UserError)):
                pass
            assert {name: text for name, text in content(folder).items() if name[0] != "."} in (OLD, NEW)
            shutil.rmtree(folder)
            with replace_together(folder) as new:
                write(new, OLD)
        assert n > 12


def test_all_files_are_on_the_disk_when_they_are_committed(folder, monkeypatch):
    """After a power cut, files that were not synchronised may be empty; an empty one removes the old one."""
    synced, fsync, rename = set(), os.fsync, Path.rename

    def sync(descriptor):
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def commit(path, to):
        for file in path.rglob("*"):
            if file.is_file() and file.stat().st_ino not in synced:
                file.write_text("")
        rename(path, to)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        patched.setattr(Path, "rename", commit)
        with pytest.raises(Killed):
            replace_all(folder)
    finish_replacing(folder, UserError)
    assert content(folder) == NEW


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_cannot_be_finished_is_an_error(folder):
    (folder / ".written").mkdir()
    (folder / ".written" / "a").write_text("new")
    folder.chmod(0o555)
    with pytest.raises(UserError, match=r"data has new files .* cannot be moved there: Permission denied"):
        finish_replacing(folder, UserError)
    folder.chmod(0o755)


def test_a_folder_that_is_replaced_while_a_writer_waits_for_it_is_locked_where_others_look(tmp_path):
    folder, waits = tmp_path / "data", threading.Event()
    folder.mkdir()
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    free = []

    def work():
        waits.set()
        with replace_together(folder) as new:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append("yes")
            except BlockingIOError:
                free.append("no")
            finally:
                os.close(descriptor)
            write(new, NEW)

    writer = threading.Thread(target=work)
    writer.start()
    waits.wait()
    time.sleep(0.3)  # until it waits for the lock
    folder.rename(tmp_path / "old")
    folder.mkdir()
    os.close(held)
    writer.join(20)
    assert free == ["no"]
    assert content(folder) == NEW
