import numpy as np
import pytest
from scipy.io import loadmat, savemat

from data_pipeline.formats import nyu
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS
from data_pipeline.skeleton import NYU
from tests.support import hands

EVALUATED = [0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32]

OTHERS = [joint for joint in range(36) if joint not in EVALUATED]

POSES = hands(NYU, 5)[0].numpy()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "joint_data.mat"


def joints_of_three_cameras(n=4):
    return np.random.default_rng(0).normal([0, 0, 700], 100, (3, n, 36, 3))


def read(path):
    (frames,) = nyu.read(path)
    return frames.poses


class TestReading:
    @pytest.mark.parametrize("compressed", [True, False])
    def test_takes_the_14_evaluated_joints_of_the_first_camera(self, path, compressed):
        joints = joints_of_three_cameras()
        other_variables = {"joint_uvd": joints + 1, "joint_names": np.array(["F1_KNU3_A"] * 36, object)}
        savemat(path, {**other_variables, "joint_xyz": joints}, do_compression=compressed)
        expected = np.stack([joints[0, :, joint] for joint in EVALUATED], axis=1)
        np.testing.assert_array_equal(read(path), expected.astype(np.float32))

    def test_has_one_name_for_each_joint_in_the_order_of_the_skeleton(self):
        assert list(nyu.EVALUATED) == EVALUATED
        assert len(NYU.joint_names) == 14

    def test_gives_the_frame_in_which_the_leaderboards_files_are_read(self, path):
        """The dataset's own conversion of u v d, by hand, is that of the leaderboard's camera to 0.01 mm."""
        u, v, d = np.random.default_rng(1).uniform([100, 60, 500], [540, 420, 1000], (4, 36, 3)).transpose(2, 0, 1)
        joints = np.stack(
            [(u / 640 - 0.5) * d * 640 / 588.036865, (0.5 - v / 480) * d * 480 / 587.075073, d], axis=2
        )  # (4, 36, 3)
        savemat(path, {"joint_xyz": joints[None]})
        leaderboard = LEADERBOARD_DATASETS["nyu"].camera.to_xyz(np.stack([u, v, d], axis=2))
        np.testing.assert_allclose(read(path), leaderboard[:, EVALUATED], rtol=0, atol=0.01)

    def test_of_a_file_without_the_variable_is_refused(self, path):
        savemat(path, {"joint_uvd": joints_of_three_cameras()})
        with pytest.raises(FormatError, match=r"joint_data\.mat has no variable joint_xyz"):
            read(path)

    @pytest.mark.parametrize("shape", [(4, 36, 3), (3, 4, 14, 3), (3, 4, 36, 2), (0, 4, 36, 3)])
    def test_of_another_shape_is_refused(self, path, shape):
        savemat(path, {"joint_xyz": np.ones(shape)})
        with pytest.raises(FormatError, match=r"joint_xyz has the shape .*; expected numbers of the shape"):
            read(path)

    @pytest.mark.parametrize(
        "content", [np.array([[{}]]), "text", np.array(["a"], object), np.ones((1, 2, 36, 3)) * 1j]
    )
    def test_of_something_else_than_numbers_is_refused(self, path, content):
        savemat(path, {"joint_xyz": content})
        with pytest.raises(FormatError, match=r"joint_data\.mat"):
            read(path)

    def test_without_frames_is_refused(self, path):
        savemat(path, {"joint_xyz": np.ones((3, 0, 36, 3))})
        with pytest.raises(FormatError, match=r"is empty|has the shape"):
            read(path)

    def test_of_the_newest_format_of_matlab_says_how_to_save_it_again(self, path):
        header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
        path.write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(1000))
        with pytest.raises(FormatError, match=r"is a file of MATLAB 7\.3; save it again with the option -v7"):
            read(path)


class TestWriting:
    def test_gives_one_camera_with_zeros_for_the_joints_that_are_not_known(self, path):
        nyu.write(path, [Frames(POSES[:2]), Frames(POSES[2:])])
        joints = loadmat(path)["joint_xyz"]
        assert joints.shape == (1, 5, 36, 3)
        assert joints.dtype == np.float64
        np.testing.assert_array_equal(joints[0, :, EVALUATED].transpose(1, 0, 2), POSES)
        assert not joints[0, :, OTHERS].any()
