import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_pipeline.formats import msra15, text_lines
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS, read_leaderboard
from data_pipeline.skeleton import HANDS17
from tests.support import hands

# The indices of MSRA15's joints in HANDS17's order.
HANDS17_OF_MSRA15 = [0, 17, 1, 5, 9, 13, 18, 19, 20, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16]


def as_in_the_dataset(n, seed=0):
    """Joints as in the dataset's files, (n, 21, 3): y up, z negative, MSRA15's order."""
    return np.random.default_rng(seed).normal([0, 30, -400], [60, 60, 40], (n, 21, 3)).round(3)


def text_of(joints, count=None):
    rows = [" ".join(f"{number:.3f}" for number in frame.ravel()) for frame in joints]
    return "\n".join([str(len(joints) if count is None else count), *rows]) + "\n"


@pytest.fixture
def tree(tmp_path):
    """A function that writes the text of gestures, by 'P0/1', and returns the folder."""

    def write(texts):
        for gesture, text in texts.items():
            (tmp_path / gesture).mkdir(parents=True)
            (tmp_path / gesture / "joint.txt").write_text(text)
        return tmp_path

    return write


def read(path):
    chunks = list(msra15.read(path))
    return np.concatenate([chunk.poses for chunk in chunks]), sum((chunk.names for chunk in chunks), ())


class TestTheFrame:
    def test_is_the_files_turned_by_180_degrees_about_x(self, tree):
        joints = as_in_the_dataset(3)
        poses, _ = read(tree({"P0/1": text_of(joints)}))
        turned = Rotation.from_euler("x", 180, degrees=True).apply(joints.reshape(-1, 3)).reshape(3, 21, 3)
        np.testing.assert_allclose(poses, turned[:, HANDS17_OF_MSRA15], atol=1e-4)
        assert (poses[:, :, 2] > 0).all()

    def test_is_that_of_the_datasets_camera(self, tree, tmp_path):
        """The joint in the image, v downwards: 120 − y · 241.42 / −z where y points up."""
        joints = as_in_the_dataset(3)
        x, y, z = joints[:, HANDS17_OF_MSRA15].transpose(2, 0, 1)
        uvd = np.stack([160 + x * 241.42 / -z, 120 - y * 241.42 / -z, -z], axis=2)
        poses, _ = read(tree({"P0/1": text_of(joints)}))
        np.testing.assert_allclose(LEADERBOARD_DATASETS["msra15"].camera.to_uvd(poses.astype(float)), uvd, rtol=1e-5)

        in_file = uvd[:, np.argsort(HANDS17_OF_MSRA15)].reshape(3, 63)
        np.savetxt(tmp_path / "leaderboard.txt", in_file, fmt="%.6f")
        np.testing.assert_allclose(read_leaderboard(tmp_path / "leaderboard.txt", "msra15"), poses, atol=1e-3)


class TestATree:
    def test_is_read_in_the_natural_order_of_subjects_and_gestures(self, tree):
        gestures = ["P0/1", "P0/2", "P0/9", "P0/10", "P0/I", "P0/IP", "P0/TIP", "P2/1", "P10/1"]
        texts = {gesture: text_of(as_in_the_dataset(2, i)) for i, gesture in enumerate(gestures)}
        path = tree(dict(reversed(texts.items())))
        _, names = read(path)
        assert list(names) == [f"{gesture}/{number:06d}" for gesture in gestures for number in (0, 1)]

    def test_may_have_other_things_beside_the_subjects(self, tree):
        path = tree({"P0/1": text_of(as_in_the_dataset(1)), "depth/1": "x"})
        (path / "P0" / "readme.txt").touch()
        (path / "Paper").mkdir()
        assert read(path)[1] == ("P0/1/000000",)

    def test_without_any_subject_is_refused(self, tree):
        with pytest.raises(FormatError, match=r"it has no file such as P0/1/joint\.txt"):
            read(tree({"1/2": text_of(as_in_the_dataset(1))}))

    def test_with_a_gesture_without_its_file_is_refused(self, tree):
        path = tree({"P0/1": text_of(as_in_the_dataset(1))})
        (path / "P0" / "2").mkdir()
        with pytest.raises(FormatError, match=r"P0/2/joint\.txt cannot be read: No such file"):
            read(path)


class TestAFile:
    @pytest.mark.parametrize("count", [0, 2, 4, 500])
    def test_with_another_number_of_frames_than_it_says_is_refused(self, tree, count):
        path = tree({"P0/1": text_of(as_in_the_dataset(3), count)})
        with pytest.raises(FormatError, match=rf"P0/1/joint\.txt has 3 frames, but its first line says {count}"):
            read(path)

    @pytest.mark.parametrize("first", ["", "x", "-3", "3.0", "3 3", "1_0", "9" * 20])
    def test_whose_first_line_is_no_number_is_refused(self, tree, first):
        path = tree({"P0/1": text_of(as_in_the_dataset(3), first)})
        with pytest.raises(FormatError, match=rf"joint\.txt, line 1 is '{first}'; expected the number of frames"):
            read(path)

    @pytest.mark.parametrize("text", ["2", "2\n", "0\n"])
    def test_without_frames_is_refused(self, tree, text):
        with pytest.raises(FormatError, match=r"joint\.txt is empty: it has no frames"):
            read(tree({"P0/1": text}))

    def test_without_lines_is_refused_before_all_of_it_is_in_memory(self, tree, monkeypatch):
        monkeypatch.setattr(text_lines, "_BLOCK", 700)
        with pytest.raises(FormatError, match=r"joint\.txt, line 4 is longer than 700 bytes"):
            read(tree({"P0/1": text_of(as_in_the_dataset(2)) + "1" * 5000}))

    def test_with_a_broken_line_is_refused_with_its_number(self, tree):
        lines = text_of(as_in_the_dataset(3)).splitlines()
        lines[2] = lines[2].rpartition(" ")[0]
        with pytest.raises(FormatError, match=r"joint\.txt, line 3 has 62 entries; expected 63 numbers, x y z of 21"):
            read(tree({"P0/1": "\n".join(lines)}))


class TestWriting:
    def frames(self, *names):
        return [Frames(hands(HANDS17, len(names))[0].numpy(), names)]

    def test_gives_the_datasets_own_text(self, tmp_path):
        joints = as_in_the_dataset(2)
        poses = (joints * [1, -1, -1])[:, HANDS17_OF_MSRA15].astype(np.float32)
        msra15.write(tmp_path / "tree", [Frames(poses, ("P3/TIP/000000", "P3/TIP/000001"))])
        (file,) = (tmp_path / "tree").rglob("*.txt")
        assert file.relative_to(tmp_path).as_posix() == "tree/P3/TIP/joint.txt"
        first, *lines = file.read_text().splitlines()
        assert first == "2"
        np.testing.assert_allclose(
            [list(map(float, line.split(" "))) for line in lines], joints.reshape(2, 63), atol=1e-4
        )

    @pytest.mark.parametrize(
        "name",
        [
            "image_D00000001.png",
            "P0/1/0",
            "P0/000000",
            "../P0/1/000000",
            "P0/../000000",
            "P0/1/2/000000",
            "/P0/1/000000",
        ],
    )
    def test_of_a_frame_with_another_name_is_refused(self, tmp_path, name):
        with pytest.raises(FormatError, match=r"the name of a frame is .*; expected names like 'P0/1/000000'"):
            msra15.write(tmp_path / "tree", self.frames("P0/1/000000", name))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            (["P0/1/000001"], "frame P0/1/000001, expected P0/1/000000"),
            (["P0/1/000000", "P0/1/000002"], "frame P0/1/000002, expected P0/1/000001"),
            (["P0/1/000000", "P0/1/000000"], "frame P0/1/000000, expected P0/1/000001"),
            (["P0/1/000000", "P0/2/000000", "P0/1/000001"], "the frames of P0/1 are not consecutive"),
        ],
    )
    def test_of_frames_out_of_order_is_refused(self, tmp_path, names, says):
        with pytest.raises(FormatError, match=says):
            msra15.write(tmp_path / "tree", self.frames(*names))
        assert list(tmp_path.iterdir()) == []
