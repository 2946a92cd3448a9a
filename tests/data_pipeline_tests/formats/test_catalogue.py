"""The common behaviour of all formats."""

import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats import frames as frames_module
from data_pipeline.formats import openpose21, text_lines
from data_pipeline.formats.catalogue import FORMATS, format_for
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.skeleton import NYU
from data_pipeline.user_error import UserError
from tests.support import ROOT, hands

# A format and one of its extensions.
CASES = [(pose_format, suffix) for pose_format in FORMATS.values() for suffix in pose_format.suffixes or ("",)]

# The reader and the writer of MAT files hold the content in memory, as their docstrings say, and so does the reader of
# archives. NumPy writes an archive in pieces of 16 MB.
READ_AT_ONCE = WRITTEN_AT_ONCE = ["nyu.mat", "openpose21.npz", "openpose21-m.npz"]

TOLERANCE_MM = 1e-3


def case_id(case):
    return f"{case[0].name}{case[1]}"


def poses_for(pose_format, n, seed=0):
    return hands(pose_format.skeleton or NYU, n, seed)[0].numpy()


def names_for(pose_format, n, gesture_size=50):
    """Names that any format with names can write."""
    if not pose_format.needs_names:
        return None
    return tuple(f"P{i // gesture_size}/1/{i % gesture_size:06d}" for i in range(n))


def chunks_of(poses, names, sizes):
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        yield Frames(poses[rows], names and names[rows])
        start += size


def write(pose_format, path, n=20, seed=0):
    pose_format.write(path, chunks_of(poses_for(pose_format, n, seed), names_for(pose_format, n), [n]))
    return path


def read(pose_format, path):
    """All poses and names of a file."""
    chunks = list(pose_format.read(path))
    names = None if chunks[0].names is None else sum((chunk.names for chunk in chunks), ())
    return np.concatenate([chunk.poses for chunk in chunks]), names


def file_in(path):
    """The file that contains the numbers."""
    return path / "P0" / "1" / "joint.txt" if path.is_dir() else path


def what_is_there(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=CASES, ids=case_id)
def case(request):
    return request.param


@pytest.fixture
def pose_format(case):
    return case[0]


@pytest.fixture
def path(case, tmp_path):
    return tmp_path / f"poses{case[1]}"


@pytest.fixture
def old(pose_format, path):
    """The content of the folder before a write: a whole file, or nothing if a format never replaces files."""
    if pose_format.suffixes:
        write(pose_format, path, seed=1)
    return what_is_there(path.parent)


class TestWhatIsWritten:
    @pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 0, 4], [4100]], ids=str)
    @pytest.mark.slow
    def test_is_read_again_whatever_the_sizes_of_the_chunks(self, pose_format, path, sizes):
        n = sum(sizes)
        poses, names = poses_for(pose_format, n), names_for(pose_format, n, gesture_size=3000)
        pose_format.write(path, chunks_of(poses, names, sizes))
        read_poses, read_names = read(pose_format, path)
        np.testing.assert_allclose(read_poses, poses, rtol=0, atol=TOLERANCE_MM)
        assert read_poses.dtype == np.float32
        assert read_names == names

    def test_is_left_as_it_was_in_memory(self, pose_format, path):
        poses = poses_for(pose_format, 5)
        before = poses.copy()
        poses.flags.writeable = False
        pose_format.write(path, [Frames(poses, names_for(pose_format, 5))])
        np.testing.assert_array_equal(poses, before)

    def test_has_nothing_beside_it(self, pose_format, path):
        write(pose_format, path)
        assert list(path.parent.iterdir()) == [path]

    def test_replaces_what_was_there_or_refuses_to(self, pose_format, path):
        write(pose_format, path, n=30, seed=1)
        if pose_format.suffixes:
            write(pose_format, path)
            np.testing.assert_allclose(read(pose_format, path)[0], poses_for(pose_format, 20), atol=TOLERANCE_MM)
        else:
            with pytest.raises(UserError, match="already exists"):
                write(pose_format, path)
            assert len(read(pose_format, path)[0]) == 30

    def test_may_be_read_by_whom_the_umask_lets(self, pose_format, path):
        before = os.umask(0o027)
        try:
            write(pose_format, path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == (0o640 if path.is_file() else 0o750)


class TestReading:
    def test_yields_frames_before_it_has_read_all(self, pose_format, path):
        """Damage after the first chunk is not noticed earlier."""
        write(pose_format, path, n=20)
        frames = pose_format.read(path)
        assert len(next(frames)) > 0
        frames.close()

    @pytest.mark.parametrize("case", [case for case in CASES if case_id(case) not in READ_AT_ONCE], ids=case_id)
    @pytest.mark.slow
    def test_takes_no_more_memory_for_a_longer_file(self, case, pose_format, path, monkeypatch):
        # Small pieces, so that small files have many.
        monkeypatch.setattr(text_lines, "_BLOCK", 1 << 13)
        monkeypatch.setattr(openpose21, "_BLOCK", 1 << 13)
        monkeypatch.setattr(frames_module, "_CHUNK", 16)
        short, long = path.with_name(f"short{case[1]}"), path.with_name(f"long{case[1]}")
        write(pose_format, short, n=200)
        write(pose_format, long, n=2000)
        for path in (short, long):
            count(pose_format, path)  # imports and caches are of the first time
        assert peak_memory(lambda: count(pose_format, long)) < 1.5 * peak_memory(lambda: count(pose_format, short))

    @pytest.mark.parametrize("flaw", [np.nan, np.inf, -np.inf, 1e7])
    def test_of_a_value_that_is_no_coordinate_is_refused_with_its_place(self, pose_format, path, flaw, monkeypatch):
        poses = poses_for(pose_format, 6)
        poses[3, 2, 0] = flaw
        with monkeypatch.context() as patched:
            patched.setattr(frames_module, "check_coordinates", lambda *_: None)  # a writer would reject it
            pose_format.write(path, [Frames(poses, names_for(pose_format, 6))])
        # Small pieces, so that the flaw is not in the first.
        monkeypatch.setattr(text_lines, "_BLOCK", 800)
        monkeypatch.setattr(openpose21, "_BLOCK", 2000)
        monkeypatch.setattr(frames_module, "_CHUNK", 2)
        first_line = 2 if path.is_dir() else 1
        with pytest.raises(FormatError, match=rf"(frame 3 \(counted from 0\)|line {first_line + 3}):") as caught:
            read(pose_format, path)
        assert str(caught.value).startswith(str(file_in(path)))

    def test_of_a_missing_file_is_refused_with_its_name(self, pose_format, path):
        with pytest.raises(FormatError) as caught:
            next(pose_format.read(path))
        assert str(caught.value).startswith(f"{path} cannot be read")

    def test_of_an_empty_file_is_refused_with_its_name(self, pose_format, path):
        path.mkdir() if not pose_format.suffixes else path.touch()
        with pytest.raises(FormatError) as caught:
            next(pose_format.read(path))
        assert str(caught.value).startswith(str(path))

    def test_of_a_folder_instead_of_a_file_or_a_file_instead_of_a_folder_is_refused(self, pose_format, path):
        path.touch() if not pose_format.suffixes else path.mkdir()
        with pytest.raises(FormatError) as caught:
            next(pose_format.read(path))
        assert str(caught.value).startswith(f"{path} cannot be read")

    @pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.97])
    def test_of_a_file_that_was_cut_off_is_refused_with_its_name(self, pose_format, path, share):
        write(pose_format, path)
        file = file_in(path)
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(FormatError) as caught:
            read(pose_format, path)
        assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("case", CASES, ids=case_id)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_but_never_fails_otherwise(case, data, tmp_path_factory):
    pose_format, suffix = case
    path = tmp_path_factory.mktemp("damaged") / f"poses{suffix}"
    file = file_in(write(pose_format, path, n=2))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 20, len(content))))
        content[start:end] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"\n", b"\t", b" ", b"]", b"1_0", b"nan"])
        )
    file.write_bytes(content)
    try:
        poses, _ = read(pose_format, path)
    except FormatError as error:
        # Not every damage is noticed.
        assert re.fullmatch(f"{re.escape(str(path))}.+", str(error))  # noqa: PT017
    else:
        assert np.isfinite(poses).all()
        assert poses.shape[2] == 3


class TestAWriterThatFails:
    """It leaves the previous file unchanged, and no other file."""

    @pytest.mark.parametrize("flaw", [np.nan, np.inf, 1e7])
    def test_over_a_value_that_is_no_coordinate_says_where(self, pose_format, path, old, flaw):
        poses, names = poses_for(pose_format, 9), names_for(pose_format, 9)
        poses[7, 2, 1] = flaw
        with pytest.raises(FormatError, match=r"frame 7 \(counted from 0\): y of joint 2 is") as caught:
            pose_format.write(path, chunks_of(poses, names, [4, 5]))
        assert str(caught.value).startswith(str(path))
        assert what_is_there(path.parent) == old

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
    def test_since_its_frames_do(self, pose_format, path, old, error):
        def frames():
            yield Frames(poses_for(pose_format, 5), names_for(pose_format, 5))
            raise error("out of frames")

        with pytest.raises((error, UserError), match="out of frames"):
            pose_format.write(path, frames())
        assert what_is_there(path.parent) == old
        assert list(path.parent.iterdir()) == ([path] if old else [])

    @pytest.mark.parametrize("frames", [[], [0]], ids=["no chunk", "an empty chunk"])
    def test_since_there_are_no_frames(self, pose_format, path, old, frames):
        chunks = [Frames(poses_for(pose_format, 1)[:0], () if pose_format.needs_names else None) for _ in frames]
        with pytest.raises(FormatError, match="there are no frames"):
            pose_format.write(path, chunks)
        assert what_is_there(path.parent) == old

    @pytest.mark.parametrize("shape", [(4, 13, 3), (4, 21, 2), (4, 63), (21, 3, 4, 1)])
    def test_over_another_shape_says_which_is_needed(self, pose_format, path, old, shape):
        with pytest.raises(FormatError, match=r"needs poses of shape|no skeleton with 13"):
            pose_format.write(path, [Frames(np.ones(shape, np.float32), names_for(pose_format, shape[0]))])
        assert what_is_there(path.parent) == old

    def test_in_a_folder_that_is_not_there_says_so(self, pose_format, path):
        path = path.parent / "absent" / path.name
        with pytest.raises(UserError, match="cannot be written: No such file or directory") as caught:
            write(pose_format, path)
        assert str(caught.value).startswith(str(path))
        assert not path.parent.exists()

    def test_over_a_folder_in_the_place_of_a_file_says_so_before_it_asks_for_frames(self, pose_format, path):
        path.mkdir()
        with pytest.raises(UserError, match=r"is a folder|already exists"):
            pose_format.write(path, iter(lambda: pytest.fail("asked for frames"), None))
        assert list(path.iterdir()) == []


class TestNames:
    @pytest.fixture(params=[case for case in CASES if case[0].needs_names], ids=case_id)
    def case(self, request):
        return request.param

    def test_are_asked_for(self, pose_format, path):
        with pytest.raises(FormatError, match=r"needs a name for each frame, but frame 0"):
            pose_format.write(path, [Frames(poses_for(pose_format, 3))])

    @pytest.mark.parametrize("n_names", [2, 4])
    def test_that_are_fewer_or_more_than_frames_are_refused(self, pose_format, path, n_names):
        with pytest.raises(FormatError, match=f"from frame 0 .* there are {n_names} names for 3 frames"):
            pose_format.write(path, [Frames(poses_for(pose_format, 3), names_for(pose_format, n_names))])


def test_names_are_left_out_where_a_format_has_none(tmp_path):
    pose_format = FORMATS["leaderboard-nyu"]
    pose_format.write(tmp_path / "poses.txt", [Frames(poses_for(pose_format, 2), ("a", "b"))])
    assert next(pose_format.read(tmp_path / "poses.txt")).names is None


@pytest.mark.parametrize("case", [case for case in CASES if case_id(case) not in WRITTEN_AT_ONCE], ids=case_id)
@pytest.mark.slow
def test_writing_takes_no_more_memory_for_more_frames(case, path):
    pose_format, suffix = case
    chunk, names = poses_for(pose_format, 50), names_for(pose_format, 50)

    def write_gestures(n):
        frames = (Frames(chunk, names and tuple(name.replace("P0", f"P{i}") for name in names)) for i in range(n))
        pose_format.write(path.with_name(f"{n}{suffix}"), frames)

    write_gestures(1)  # imports and caches are of the first time
    assert peak_memory(lambda: write_gestures(20)) < 1.5 * peak_memory(lambda: write_gestures(4))


@pytest.mark.slow
def test_a_killed_writer_leaves_what_was_there_and_the_next_one_clears_what_it_left(tmp_path):
    """One process writes all formats at the same time and is killed half-way."""
    paths = {case_id(case): tmp_path / case_id(case) / f"poses{case[1]}" for case in CASES}
    before = {}
    for case in CASES:
        path = paths[case_id(case)]
        path.parent.mkdir()
        if case[0].suffixes:
            write(case[0], path, seed=1)
        before[path] = what_is_there(path.parent)
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    for case in CASES:
        path = paths[case_id(case)]
        if case[0].suffixes:
            assert path.read_bytes() == before[path][Path(path.name)]
        else:
            assert not path.exists()
        left = [other for other in path.parent.iterdir() if other != path]
        assert len(left) == 1
        assert left[0].name.startswith(f".{path.name}.")
        write(case[0], path)
        assert list(path.parent.iterdir()) == [path]


WRITE_AND_WAIT = """
import sys, threading, time
from pathlib import Path
from data_pipeline.formats.frames import Frames
from tests.data_pipeline_tests.formats.test_catalogue import CASES, case_id, names_for, poses_for

begun = threading.Barrier(len(CASES) + 1)

def frames(pose_format):
    yield Frames(poses_for(pose_format, 20), names_for(pose_format, 20))
    begun.wait()
    time.sleep(60)

for case in CASES:
    path = Path(sys.argv[1]) / case_id(case) / f"poses{case[1]}"
    threading.Thread(target=case[0].write, args=(path, frames(case[0])), daemon=True).start()
begun.wait()
print("writing", flush=True)
time.sleep(60)
"""


class TestTheCatalogue:
    def test_has_each_format_under_its_name_with_one_line_about_it(self, pose_format):
        assert FORMATS[pose_format.name] is pose_format
        assert pose_format.description
        assert "\n" not in pose_format.description

    def test_gives_the_format_that_is_named(self, pose_format):
        assert format_for(Path("anything.xyz"), pose_format.name) is pose_format

    def test_refuses_a_name_that_is_none_with_those_that_are(self):
        with pytest.raises(FormatError, match="no format 'hands18'; the formats are hands17, msra15, nyu, openpose21,"):
            format_for(Path("anything.txt"), "hands18")

    def test_guesses_the_format_of_a_file_unless_its_unit_cannot_be_told(self, pose_format, path):
        write(pose_format, path)
        if pose_format.name.startswith("openpose21"):
            with pytest.raises(FormatError, match=r"cannot be detected; give one of openpose21, openpose21-m$"):
                format_for(path, None)
        else:
            assert format_for(path, None) is pose_format

    def test_guesses_for_a_new_file_from_its_ending_alone(self, tmp_path):
        assert format_for(tmp_path / "new.pt", None) is FORMATS["pt"]
        assert format_for(tmp_path / "new.mat", None) is FORMATS["nyu"]
        says = r"new\.txt, which does not exist, cannot be detected; give one of hands17, leaderboard-nyu,"
        with pytest.raises(FormatError, match=says):
            format_for(tmp_path / "new.txt", None)

    def test_guesses_through_the_name_of_a_subset(self, tmp_path):
        assert format_for(tmp_path / "nyu_poses.pt#Pose-REN.v2", None) is FORMATS["pt"]

    @pytest.mark.parametrize("name", ["poses", "poses.csv", "poses.txt.gz"])
    def test_names_all_formats_where_an_ending_is_none(self, tmp_path, name):
        with pytest.raises(FormatError, match=f"one of {', '.join(FORMATS)}$"):
            format_for(tmp_path / name, None)

    def test_names_those_of_the_ending_where_the_first_line_is_none_of_theirs(self, tmp_path):
        (tmp_path / "poses.txt").write_text("1 2 3\n")
        with pytest.raises(FormatError, match=r"poses\.txt cannot be detected; give one of hands17, leader"):
            format_for(tmp_path / "poses.txt", None)

    def test_doubts_text_alone_that_ends_within_a_line(self, pose_format, path):
        write(pose_format, path)
        assert pose_format.warning(path) is None
        if path.suffix == ".txt":
            content = path.read_bytes().rstrip()
            for end in (b"\n", b" \r\r\n", b"\r\n\n  "):
                path.write_bytes(content + end)
                assert pose_format.warning(path) is None
            for end in (b"", b" ", b"\r"):
                path.write_bytes(content + end)
                assert "the last line has no line end" in pose_format.warning(path)

    def test_raises_errors_for_people(self):
        assert issubclass(FormatError, UserError)


def count(pose_format, path):
    return sum(len(frames) for frames in pose_format.read(path))


def peak_memory(work):
    """The peak memory that `work` allocated, bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
