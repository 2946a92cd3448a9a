import re

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.camera import Camera
from data_pipeline.formats import text_lines
from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS, read_leaderboard, read_results
from tests.support import SHARED_DATA

# Mean error, mean of frames' worst joint (both mm) and frames with the worst joint within 20 mm (%), all frames,
# as they were published.
PUBLISHED = [
    ("nyu", "CVWW15_NYU_Prior", "20.750", "44.781", "16.27"),
    ("nyu", "IJCAI16_NYU_DeepModel", "17.036", None, None),
    ("nyu", "ICCVW17_NYU_DeepPrior++", "12.238", None, None),
    ("nyu", "NEUCOM18_NYU_Pose_REN", "11.811", "27.213", "48.69"),
    ("icvl", "CVPR14_LRF_Results", "12.578", None, None),
    ("icvl", "IJCAI16_ICVL_DeepModel", "11.561", None, None),
    ("icvl", "NEUCOM18_ICVL_Pose_REN", "6.791", "16.018", "77.69"),
]

LINE_ENDINGS = ["\n", " \n", "\r\n", " \r\r\n", "\t \r\n"]

coordinates = st.floats(0.001, 1000)


def published_file(dataset, name):
    path = SHARED_DATA / dataset / f"{name}.txt"
    if not path.is_file():
        pytest.skip(f"{path} is missing; the folder can be named with POSETUNE_SHARED_DATA")
    return path


def tokens_of(n_frames, n_joints=14):
    """Numbers of a file, all different: one list of texts for each line."""
    numbers = np.arange(1, n_frames * n_joints * 3 + 1).reshape(n_frames, -1)
    return [[f"{number}.250" for number in row] for row in numbers]


def text_of(lines, ending="\n"):
    return "".join(" ".join(line) + ending for line in lines)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A function that writes or replaces a file and returns its path."""
    path = tmp_path_factory.mktemp("leaderboard") / "results.txt"

    def write(content):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


class TestCamera:
    @pytest.mark.parametrize("dataset", LEADERBOARD_DATASETS)
    @given(uvd=arrays_of.arrays(float, st.sampled_from([(3,), (4, 3), (2, 14, 3), (0, 3)]), elements=coordinates))
    def test_there_and_back_is_where_one_was(self, dataset, uvd):
        camera = LEADERBOARD_DATASETS[dataset].camera
        np.testing.assert_allclose(camera.to_uvd(camera.to_xyz(uvd)), uvd, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("dataset", LEADERBOARD_DATASETS)
    @given(xyz=arrays_of.arrays(float, (2, 3, 3), elements=coordinates))
    def test_back_and_there_is_where_one_was(self, dataset, xyz):
        camera = LEADERBOARD_DATASETS[dataset].camera
        np.testing.assert_allclose(camera.to_xyz(camera.to_uvd(xyz)), xyz, rtol=1e-9, atol=1e-9)

    def test_follows_the_pinhole_formula(self):
        camera = Camera(fx=200.0, fy=-100.0, cx=10.0, cy=20.0)
        np.testing.assert_array_equal(camera.to_xyz(np.array([30.0, 25.0, 400.0])), [40.0, -20.0, 400.0])

    def test_has_its_axis_through_the_principal_point(self):
        camera = LEADERBOARD_DATASETS["icvl"].camera
        np.testing.assert_array_equal(camera.to_xyz(np.array([160.0, 120.0, 300.0])), [0, 0, 300])

    def test_of_nyu_has_y_up_and_of_icvl_y_down(self):
        top_left = np.array([0.0, 0.0, 500.0])
        assert LEADERBOARD_DATASETS["nyu"].camera.to_xyz(top_left)[1] > 0
        assert LEADERBOARD_DATASETS["icvl"].camera.to_xyz(top_left)[1] < 0


class TestPublishedFiles:
    @pytest.mark.parametrize(("dataset", "name", "mean", "mean_worst", "within"), PUBLISHED)
    def test_give_the_published_figures(self, dataset, name, mean, mean_worst, within):
        ground_truth = published_file(dataset, f"{dataset}_test_groundtruth_label")
        labels, poses = read_results(ground_truth, {name: published_file(dataset, name)}, dataset)
        error_mm = np.linalg.norm(poses[name].astype(float) - labels, axis=2)
        worst_mm = error_mm.max(axis=1)
        assert f"{error_mm.mean():.3f}" == mean
        if mean_worst is not None:
            assert f"{worst_mm.mean():.3f}" == mean_worst
            assert f"{100 * (worst_mm <= 20).mean():.2f}" == within

    @pytest.mark.parametrize(("dataset", "n_frames", "n_joints"), [("nyu", 8252, 14), ("icvl", 1596, 16)])
    def test_are_float32_poses_of_every_frame(self, dataset, n_frames, n_joints):
        labels = read_leaderboard(published_file(dataset, f"{dataset}_test_groundtruth_label"), dataset)
        assert labels.shape == (n_frames, n_joints, 3)
        assert labels.dtype == np.float32


class TestAFile:
    @pytest.mark.parametrize("ending", LINE_ENDINGS)
    @pytest.mark.parametrize("dataset", LEADERBOARD_DATASETS)
    def test_holds_pixels_and_depth_of_each_joint_whatever_the_line_endings(self, file, dataset, ending):
        layout = LEADERBOARD_DATASETS[dataset]
        lines = tokens_of(3, layout.skeleton.n_joints)
        poses = read_leaderboard(file(text_of(lines, ending)), dataset)
        written = np.array(lines, dtype=float).reshape(3, layout.skeleton.n_joints, 3)
        if dataset == "msra15":
            written = written[:, [0, 17, 1, 5, 9, 13, 18, 19, 20, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16]]
        np.testing.assert_allclose(layout.camera.to_uvd(poses.astype(float)), written, rtol=1e-5)

    @pytest.mark.parametrize("end", ["", "\n", "\r\r\n \r\r\n", "\n\n\n"])
    def test_may_end_with_blank_lines_or_without_a_line_ending(self, file, end):
        assert len(read_leaderboard(file(text_of(tokens_of(2)).rstrip() + end), "nyu")) == 2

    @pytest.mark.parametrize("ending", LINE_ENDINGS)
    def test_with_a_blank_line_in_the_middle_is_refused(self, file, ending):
        blank = text_of(tokens_of(2), ending) + ending + text_of(tokens_of(1), ending)
        with pytest.raises(FormatError, match="line 3 is blank"):
            read_leaderboard(file(blank), "nyu")

    def test_may_have_any_number_of_decimals(self, file):
        short = text_of([["300"] * 42])
        long = text_of([["300.0000000001", "3e2", "+300."] * 14])
        poses = read_leaderboard(file(short), "nyu")
        np.testing.assert_allclose(read_leaderboard(file(long), "nyu"), poses, rtol=1e-6)

    def test_that_was_truncated_within_a_line_is_refused_with_that_line(self, file):
        text = text_of(tokens_of(3))
        path = file(text[: len(text) - 60])
        with pytest.raises(FormatError, match=rf"^{re.escape(str(path))}, line 3 has 3\d entries; expected 42"):
            read_leaderboard(path, "nyu")

    @pytest.mark.parametrize("n_entries", [41, 43])
    def test_with_a_line_of_another_length_is_refused(self, file, n_entries):
        lines = tokens_of(3)
        lines[1] = ["1.0"] * n_entries
        with pytest.raises(FormatError, match=f"line 2 has {n_entries} entries; expected 42"):
            read_leaderboard(file(text_of(lines)), "nyu")

    def test_of_the_other_dataset_is_recognised(self, file):
        with pytest.raises(FormatError, match=r"line 1 has 48 entries; expected 42 .*48 the dataset icvl"):
            read_leaderboard(file(text_of(tokens_of(2, 16))), "nyu")
        with pytest.raises(FormatError, match=r"line 1 has 63 entries; expected 48 .*63 the dataset msra15"):
            read_leaderboard(file(text_of(tokens_of(2, 21))), "icvl")

    @given(
        line=st.integers(0, 3),
        entry=st.integers(0, 41),
        ending=st.sampled_from(LINE_ENDINGS),
        damage=st.sampled_from(
            [
                *("abc", "1.2.3", "1,5", "0x10", "1_0", "-", "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "2e6"),
                *("-2e6", "٣", "３", "\ufeff1", "1\0", "é" * 100),
            ]
        ),
    )
    def test_with_something_that_is_no_sensible_number_is_refused_with_its_place(
        self, file, line, entry, ending, damage
    ):
        lines = tokens_of(4)
        lines[line][entry] = damage
        with pytest.raises(FormatError, match=f"line {line + 1}: entry {entry + 1} is '.{{1,40}}'; expected"):
            read_leaderboard(file(text_of(lines, ending)), "nyu")

    @given(content=st.binary(max_size=200) | st.text("0123456789.-e \n\r", max_size=400))
    def test_with_any_content_is_read_or_refused_but_never_fails_otherwise(self, file, content):
        path = file(content)
        try:
            poses = read_leaderboard(path, "nyu")
        except FormatError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 - most contents raise, a few do not
        else:
            assert np.isfinite(poses).all()

    def test_in_utf_16_or_binary_is_refused(self, file):
        with pytest.raises(FormatError, match="line 1"):
            read_leaderboard(file(text_of(tokens_of(1)).encode("utf-16")), "nyu")
        with pytest.raises(FormatError, match="line 1: entry 1 is '�'"):
            read_leaderboard(file(b"\xff " * 42), "nyu")

    @pytest.mark.parametrize("content", ["", "\n", " \r\r\n\n"])
    def test_without_a_number_is_refused_as_empty(self, file, content):
        with pytest.raises(FormatError, match="is empty"):
            read_leaderboard(file(content), "nyu")

    def test_that_is_missing_or_a_folder_is_refused(self, tmp_path):
        with pytest.raises(FormatError, match=r"none\.txt cannot be read: No such file"):
            read_leaderboard(tmp_path / "none.txt", "nyu")
        with pytest.raises(FormatError, match="cannot be read: Is a directory"):
            read_leaderboard(tmp_path, "nyu")

    @pytest.mark.parametrize("ending", LINE_ENDINGS)
    @pytest.mark.parametrize("block", [400, 401, 437, 1000])  # at least as long as a line
    def test_is_the_same_wherever_it_is_cut_into_blocks(self, file, monkeypatch, ending, block):
        path = file(text_of(tokens_of(5), ending) + ending)
        whole = read_leaderboard(path, "nyu")
        monkeypatch.setattr(text_lines, "_BLOCK", block)
        np.testing.assert_array_equal(read_leaderboard(path, "nyu"), whole)

    def test_has_the_line_number_of_a_flaw_wherever_it_is_cut_into_blocks(self, file, monkeypatch):
        monkeypatch.setattr(text_lines, "_BLOCK", 400)
        lines = tokens_of(6)
        lines[4][7] = "abc"
        with pytest.raises(FormatError, match=r"line 5: entry 8 is 'abc'"):
            read_leaderboard(file(text_of(lines)), "nyu")
        text = text_of(lines[:3]) + "\n" * 500 + text_of(lines[:1])
        with pytest.raises(FormatError, match="line 4 is blank"):
            read_leaderboard(file(text), "nyu")

    def test_without_lines_is_refused_before_all_of_it_is_in_memory(self, file, monkeypatch):
        monkeypatch.setattr(text_lines, "_BLOCK", 400)
        with pytest.raises(FormatError, match=r"line 3 is longer than 400 bytes; this is not a text file of frames"):
            read_leaderboard(file(text_of(tokens_of(2)) + "1" * 10_000), "nyu")

    @pytest.mark.parametrize("numbers", ["1000000", "-1000000"])
    def test_of_pixels_and_depth_that_are_a_kilometre_together_is_refused(self, file, numbers, monkeypatch):
        monkeypatch.setattr(text_lines, "_BLOCK", 400)
        with pytest.raises(FormatError, match=r"frame 5 \(counted from 0\): x of joint 0 is"):
            read_leaderboard(file(text_of([*tokens_of(5), [numbers] * 42])), "nyu")


class TestWriting:
    """Round trips and broken frames are in `test_catalogue.py`."""

    @pytest.mark.parametrize("dataset", LEADERBOARD_DATASETS)
    def test_gives_u_v_d_with_four_decimals_in_the_datasets_own_order(self, dataset, tmp_path):
        layout = LEADERBOARD_DATASETS[dataset]
        n_joints = layout.skeleton.n_joints
        poses = np.random.default_rng(0).normal([0, 0, 700], 60, (2, n_joints, 3)).astype(np.float32)
        FORMATS[f"leaderboard-{dataset}"].write(tmp_path / "results.txt", [Frames(poses)])
        # Joint by joint, as a scorer would compute it.
        msra15 = [0, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20, 1, 6, 7, 8]
        order = msra15 if dataset == "msra15" else range(n_joints)
        camera = layout.camera
        expected = ""
        for pose in poses.astype(float):
            uvd = [(x / z * camera.fx + camera.cx, y / z * camera.fy + camera.cy, z) for x, y, z in pose[list(order)]]
            expected += " ".join(f"{u:.4f} {v:.4f} {d:.4f}" for u, v, d in uvd) + "\n"
        assert (tmp_path / "results.txt").read_text() == expected

    @pytest.mark.parametrize("z", [0, -500])
    def test_a_joint_that_is_not_in_front_of_the_camera_is_refused(self, tmp_path, z):
        poses = np.full((4, 16, 3), 500, np.float32)
        poses[3, 5, 2] = z
        with pytest.raises(FormatError, match=r"frame 3 \(counted from 0\): a joint is not in front of the camera"):
            FORMATS["leaderboard-icvl"].write(tmp_path / "results.txt", [Frames(poses[:2]), Frames(poses[2:])])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("dataset", "name"), [(dataset, name) for dataset, name, *_ in PUBLISHED])
    @pytest.mark.slow
    def test_a_published_file_loses_less_than_a_thousandth_of_a_millimetre(self, dataset, name, tmp_path):
        pose_format = FORMATS[f"leaderboard-{dataset}"]
        path = published_file(dataset, name)
        pose_format.write(tmp_path / "again.txt", pose_format.read(path))
        again = read_leaderboard(tmp_path / "again.txt", dataset)
        np.testing.assert_allclose(again, read_leaderboard(path, dataset), rtol=0, atol=1e-3)


class TestResults:
    @pytest.mark.parametrize("n_frames", [1, 4, 6])
    def test_with_another_number_of_frames_are_refused_with_both_files_and_counts(self, tmp_path, n_frames):
        (tmp_path / "truth.txt").write_text(text_of(tokens_of(5)))
        (tmp_path / "good.txt").write_text(text_of(tokens_of(5)))
        (tmp_path / "other.txt").write_text(text_of(tokens_of(n_frames)))
        files = {"A": tmp_path / "good.txt", "B": tmp_path / "other.txt"}
        with pytest.raises(FormatError, match=rf"other\.txt has {n_frames} frames, but .*truth\.txt has 5"):
            read_results(tmp_path / "truth.txt", files, "nyu")

    def test_are_returned_by_name_in_order(self, tmp_path):
        (tmp_path / "a.txt").write_text(text_of(tokens_of(2)))
        (tmp_path / "b.txt").write_text(text_of(tokens_of(2)[::-1]))
        files = {"B": tmp_path / "b.txt", "A": tmp_path / "a.txt"}
        labels, poses = read_results(tmp_path / "a.txt", files, "nyu")
        assert list(poses) == ["B", "A"]
        np.testing.assert_array_equal(poses["A"], labels)
        np.testing.assert_array_equal(poses["B"], labels[::-1])
