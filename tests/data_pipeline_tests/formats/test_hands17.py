import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats import hands17
from data_pipeline.formats.catalogue import format_for
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.hands17 import read_official_names, write_hands17_submission
from data_pipeline.skeleton import HANDS17
from tests.support import hands

NAMES = [f"image_D{i:08d}.png" for i in (5, 1, 9, 7)]
POSES = hands(HANDS17, 4)[0].numpy()


def line_of(name="image_D00000001.png", numbers=range(1, 64), extra=()):
    return "\t".join([name, *map(str, numbers), *extra])


def read(path):
    (frames,) = hands17.read(path)
    return frames


@pytest.fixture
def file(tmp_path):
    """A function that writes lines and returns the file's path."""

    def write(*lines, ending="\n"):
        path = tmp_path / "results.txt"
        path.write_bytes("".join(f"{line}{ending}" for line in lines).encode())
        return path

    return write


class TestALine:
    @pytest.mark.parametrize("ending", ["\n", "\r\n", " \r\n", "\t\n", "\t\t\r\n"])
    def test_is_a_name_and_x_y_z_of_each_joint(self, file, ending):
        frames = read(file(line_of(), line_of("another name é.png"), ending=ending))
        assert frames.names == ("image_D00000001.png", "another name é.png")
        expected = np.arange(1, 64, dtype=np.float32).reshape(21, 3)
        np.testing.assert_array_equal(frames.poses, [expected, expected])

    @pytest.mark.parametrize("extra", [["64"], ["1", "2", "left_hand"], [""], ["", "", "x"], ["nan"], ["1_0"]])
    def test_may_have_more_than_the_63_numbers(self, file, extra):
        frames = read(file(line_of(), line_of(extra=extra)))
        np.testing.assert_array_equal(frames.poses[1], frames.poses[0])

    @pytest.mark.parametrize("n", [0, 1, 62])
    def test_with_fewer_is_refused_with_its_number(self, file, n):
        path = file(line_of(), line_of(numbers=range(n)))
        with pytest.raises(FormatError, match=rf"results\.txt, line 2 has {n} entries after its name; expected 63"):
            read(path)

    def test_with_an_empty_field_is_refused_even_if_more_follow(self, file):
        """If the gap were skipped, the extra field would count as the last number."""
        numbers = [*range(1, 30), "", *range(31, 64)]
        with pytest.raises(FormatError, match="line 1: entry 30 after its name is ''"):
            read(file(line_of(numbers=numbers, extra=["64"])))

    def test_split_by_spaces_is_refused(self, file):
        path = file(line_of().replace("\t", " "))
        with pytest.raises(
            FormatError, match=r"results\.txt, line 1 has spaces where tabs are needed, after the name and"
        ):
            read(path)
        assert format_for(path, None).name == "hands17"

    @given(
        line=st.integers(0, 3),
        entry=st.integers(0, 62),
        damage=st.sampled_from(
            ["abc", "1.2.3", "1,5", "1_0", "nan", "inf", "1e999", "2e6", "٣", "1\0", "1 2", "é" * 99]
        ),
    )
    def test_with_something_that_is_no_sensible_number_is_refused_with_its_place(
        self, line, entry, damage, tmp_path_factory
    ):
        numbers = [[*map(str, range(1, 64))] for _ in range(4)]
        numbers[line][entry] = damage
        path = tmp_path_factory.mktemp("hands17") / "results.txt"
        path.write_text("\n".join(line_of(numbers=row) for row in numbers))
        with pytest.raises(
            FormatError, match=f"line {line + 1}: entry {entry + 1} after its name is '.{{1,40}}'; expected"
        ):
            read(path)

    @pytest.mark.parametrize("name", [b"", b"\xff.png", b"a\0b", b"\xef\xbb\xbfimage.png", b"a\x1b[2Jb"])
    def test_whose_name_is_none_is_refused(self, file, name):
        path = file(line_of())
        path.write_bytes(path.read_bytes() + line_of("@").encode().replace(b"@", name))
        with pytest.raises(FormatError, match=r"line 2: the name is '.*'; expected printable characters"):
            read(path)

    def test_that_is_blank_is_refused_unless_it_ends_the_file(self, file):
        assert len(read(file(line_of(), "", "\t"))) == 1
        with pytest.raises(FormatError, match="line 2 is blank"):
            read(file(line_of(), "", line_of()))


class TestAResultFile:
    def test_has_tabs_and_four_decimals_and_the_name_first(self, tmp_path):
        path = tmp_path / "results.txt"
        hands17.write(path, [Frames(POSES, tuple(NAMES))])
        lines = path.read_text().split("\n")
        assert lines.pop() == ""
        for line, name, pose in zip(lines, NAMES, POSES, strict=True):
            assert line == "\t".join([name, *(f"{coordinate:.4f}" for coordinate in pose.astype(float).ravel())])

    @pytest.mark.parametrize("name", ["", "a\tb", "a\nb", "a\rb", "\ud800", "\ufeffa"])
    def test_with_a_name_that_would_break_a_line_is_not_written(self, tmp_path, name):
        with pytest.raises(FormatError, match="is not a valid frame name"):
            hands17.write(tmp_path / "results.txt", [Frames(POSES[:1], (name,))])
        assert list(tmp_path.iterdir()) == []


class TestASubmission:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "submission.zip"

    @given(order=st.permutations(range(4)), n_first=st.integers(0, 4))
    def test_has_each_official_frame_once_in_the_official_order_however_they_come(
        self, order, n_first, tmp_path_factory
    ):
        path = tmp_path_factory.mktemp("submission") / "submission.zip"
        names = tuple(NAMES[i] for i in order)
        first, second = slice(n_first), slice(n_first, None)
        chunks = [Frames(POSES[order][rows], names[rows]) for rows in (first, second)]
        write_hands17_submission(path, chunks, NAMES)
        np.testing.assert_allclose(assert_is_a_submission(path, NAMES), POSES, rtol=0, atol=1e-4)

    def test_has_the_same_bytes_whenever_and_wherever_it_is_written(self, tmp_path, monkeypatch):
        first, second = tmp_path / "first.zip", tmp_path / "second.zip"
        write_hands17_submission(first, [Frames(POSES, tuple(NAMES))], NAMES)
        monkeypatch.setattr("time.time", lambda: 2e9)
        monkeypatch.setattr("sys.platform", "win32")
        write_hands17_submission(second, [Frames(POSES[::-1], tuple(NAMES[::-1]))], NAMES)
        assert first.read_bytes() == second.read_bytes()

    def test_names_what_is_missing_what_is_double_and_what_is_not_official_and_counts_them(self, path):
        path.write_bytes(b"old")
        official = [f"{i}.png" for i in range(9)]
        given_names = ("0.png", "1.png", "1.png", "x.png", "2.png", "2.png", "2.png", "y.png", "x.png", "z.png")
        says = (
            "6 official names have no frame: '3.png', '4.png', '5.png' and 3 more; "
            "2 official names have more than one frame: '1.png', '2.png'; "
            "4 frames have a name that is not official: 'x.png', 'y.png', 'x.png' and 1 more"
        )
        frames = [Frames(hands(HANDS17, 10)[0].numpy(), given_names)]
        with pytest.raises(FormatError, match=f"submission.zip is not written: {re.escape(says)}$"):
            write_hands17_submission(path, frames, official)
        assert path.read_bytes() == b"old"
        assert list(path.parent.iterdir()) == [path]

    def test_of_official_names_that_are_doubles_is_refused(self, path):
        with pytest.raises(FormatError, match=r"1 official names are duplicates: 'image_D00000005\.png'"):
            write_hands17_submission(path, [Frames(POSES, tuple(NAMES))], [*NAMES, NAMES[0]])

    @pytest.mark.parametrize("size", [1, 3, 4])
    def test_of_frames_without_names_has_the_official_names_in_their_order_and_tells_so(self, path, size):
        chunks = [Frames(POSES[start : start + size]) for start in range(0, 4, size)]
        assert write_hands17_submission(path, chunks, NAMES) is False
        np.testing.assert_allclose(assert_is_a_submission(path, NAMES), POSES, rtol=0, atol=1e-4)
        assert write_hands17_submission(path, [Frames(POSES, tuple(NAMES))], NAMES) is True

    @pytest.mark.parametrize("sizes", [[3], [1, 2], [5], [4, 1], [3, 4]])
    def test_of_fewer_or_more_frames_without_names_than_official_ones_is_refused_with_both_numbers(self, path, sizes):
        chunks = [Frames(hands(HANDS17, size)[0].numpy()) for size in sizes]
        says = f"{sum(sizes)} poses without names, but 4 official names; without names there must be one pose for"
        with pytest.raises(FormatError, match=f"submission.zip is not written: there are {says}"):
            write_hands17_submission(path, chunks, NAMES)
        assert list(path.parent.iterdir()) == []

    def test_of_frames_of_which_only_some_have_names_is_refused(self, path):
        named = Frames(POSES[:2], tuple(NAMES[:2]))
        with pytest.raises(FormatError, match=r"needs a name for each frame, but frame 2 \(counted from 0\) has none"):
            write_hands17_submission(path, [named, Frames(POSES[2:])], NAMES)
        with pytest.raises(FormatError, match="official names have more than one frame"):
            write_hands17_submission(path, [Frames(POSES[:2]), named], NAMES)
        assert list(path.parent.iterdir()) == []

    def test_without_frames_is_refused(self, path):
        with pytest.raises(FormatError, match="there are no frames"):
            write_hands17_submission(path, [], NAMES)
        assert list(path.parent.iterdir()) == []

    def test_of_more_than_one_piece_is_whole(self, path, monkeypatch):
        monkeypatch.setattr(hands17, "_CHUNK", 3)
        write_hands17_submission(path, [Frames(POSES, tuple(NAMES))], NAMES)
        assert_is_a_submission(path, NAMES)

    def test_that_is_too_large_for_an_old_zip_is_written_as_a_new_one(self, path, monkeypatch):
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # instead of 2 GB
        write_hands17_submission(path, [Frames(POSES, tuple(NAMES))], NAMES)
        assert_is_a_submission(path, NAMES)

    def test_is_readable_for_all_once_it_is_unpacked(self, path):
        write_hands17_submission(path, [Frames(POSES, tuple(NAMES))], NAMES)
        with zipfile.ZipFile(path) as archive:
            assert archive.getinfo("result.txt").external_attr >> 16 == 0o644


class TestTheListOfOfficialNames:
    @pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
    @pytest.mark.parametrize("beside", ["", "\t", "\t119.45\t28.24\t263.62\t182.5", "\tx y\t"])
    def test_has_a_name_before_the_first_tab_of_each_line(self, tmp_path, ending, beside):
        """Like BoundingBox.txt of the challenge, which has the hand's box after the name."""
        path = tmp_path / "BoundingBox.txt"
        path.write_bytes("".join(f"{name}{beside}{ending}" for name in [*NAMES, "a name é.png"]).encode())
        assert read_official_names(path) == [*NAMES, "a name é.png"]

    def test_may_be_an_annotation_file(self, file):
        assert read_official_names(file(*map(line_of, NAMES))) == NAMES

    def test_with_a_line_that_has_no_name_is_refused_with_its_number(self, file):
        with pytest.raises(
            FormatError, match=r"results\.txt, the list of official names, has no name before the first tab in line 3"
        ):
            read_official_names(file(NAMES[0], "", "\t1\t2", NAMES[1]))


def assert_is_a_submission(path, official_names):
    """Asserts that every byte of a file follows the challenge's description, and returns its poses.

    Written from the description alone: one text file in a zip; for each official frame, in their order, a line
    with its name and 63 numbers with 4 decimals, x y z of each joint in mm, split by single tabs.
    """
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [info.filename for info in archive.infolist()] == ["result.txt"]
        text = archive.read("result.txt").decode("ascii")
    assert "\r" not in text
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    assert len(lines) == len(official_names)
    poses = []
    for line, name in zip(lines, official_names, strict=True):
        fields = line.split("\t")
        assert fields[0] == name
        assert len(fields) == 64
        for field in fields[1:]:
            assert re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]{4}", field)
        poses.append([float(field) for field in fields[1:]])
    return np.array(poses).reshape(len(lines), 21, 3)
