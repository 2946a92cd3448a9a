import os
import socket

import pytest

from data_pipeline.files.regular import absolute_path, open_file, read_file
from data_pipeline.user_error import UserError


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # its path must be short


def make_link_to_a_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "kind"), [(make_pipe, "a named pipe"), (make_socket, "a socket"), (make_link_to_a_device, "a device")]
)
def test_what_is_no_regular_file_is_named_and_never_waited_for(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x")
    with pytest.raises(OSError, match=f"it is {kind}; only regular files are accepted, not pipes such as /dev/stdin"):
        open_file(tmp_path / "x")


def test_a_folder_and_a_missing_file_are_the_errors_that_they_always_are(tmp_path):
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "x")


def test_a_regular_file_is_read_also_by_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link") == b"content"


def test_a_path_keeps_its_meaning_when_the_working_folder_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = absolute_path("a/b")
    monkeypatch.chdir("/")
    assert path == tmp_path / "a" / "b"


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_a_text_that_no_file_can_be_called_is_no_path(text):
    with pytest.raises(UserError, match="is not a path: it contains"):
        absolute_path(text)


def test_a_relative_path_in_a_deleted_working_folder_says_what_to_do(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match="is relative to the working folder, which was deleted; change to another"):
        absolute_path("x")
    monkeypatch.chdir(tmp_path)  # pytest looks where it is
