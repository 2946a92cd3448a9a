import json

import numpy as np
import pytest

from data_pipeline.formats.joint_orders import MSRA15, OPENPOSE
from data_pipeline.pose_range import PoseRange
from data_pipeline.skeleton import HANDS17
from data_pipeline.synthetic import Backbone, synthetic_hands


@pytest.fixture(scope="module")
def poses():
    return synthetic_hands(3000, 0)


@pytest.fixture(scope="module")
def pose_range(poses):
    return PoseRange.of(poses, HANDS17)


def test_is_where_98_percent_of_the_poses_lie(poses, pose_range):
    lengths = [np.linalg.norm(poses[:, b] - poses[:, a], axis=1) for a, b in HANDS17.bones]
    np.testing.assert_allclose(pose_range.hand_mm, np.percentile(np.mean(lengths, axis=0), [1, 99]), rtol=1e-5)
    for length, between in zip(lengths, pose_range.bones_mm, strict=True):
        np.testing.assert_allclose(between, np.percentile(length, [1, 99]), rtol=1e-5)
    for axis, between in enumerate(pose_range.centre_mm):
        np.testing.assert_allclose(
            between, np.percentile(poses[:, :, axis].mean(axis=1), [1, 99]), rtol=1e-4, atol=1e-3
        )


def test_of_a_large_set_is_that_of_some_of_its_poses_from_all_over_it(poses):
    many = np.repeat(poses, 10, axis=0)
    np.testing.assert_allclose(PoseRange.of(many, HANDS17).hand_mm, PoseRange.of(poses, HANDS17).hand_mm, rtol=0.01)


def test_is_the_same_after_it_was_written_as_json(pose_range):
    assert PoseRange.from_json(json.loads(json.dumps(pose_range.to_json()))) == pose_range


@pytest.mark.parametrize(
    "damage",
    [
        {"hand_mm": None},
        {"hand_mm": [1]},
        {"bones_mm": [[1, "a"]]},
        {"bones_mm": 5},
        {"centre_mm": [[0, 1]] * 2},
        {"centre_mm": None},
    ],
)
def test_is_not_read_from_what_is_none(pose_range, damage):
    with pytest.raises((LookupError, TypeError, ValueError)):
        PoseRange.from_json({**pose_range.to_json(), **damage})
    with pytest.raises(LookupError):
        PoseRange.from_json({})


class TestPoses:
    def test_such_as_those_of_the_range_are_told_nothing_against(self, pose_range):
        assert pose_range.unlike(synthetic_hands(500, 1), HANDS17) == []

    @pytest.mark.parametrize(("factor", "unit"), [(1e-3, "metres"), (0.1, "centimetres")])
    def test_in_another_unit_are_told_to_be_in_it(self, poses, pose_range, factor, unit):
        (text,) = pose_range.unlike(poses * np.float32(factor), HANDS17)
        assert text.endswith(f"They seem to be in {unit}; needed are millimetres")

    def test_of_another_size_are_told_of_without_a_guess(self, poses, pose_range):
        (text,) = pose_range.unlike(poses * np.float32(3), HANDS17)
        assert "the bones are" in text
        assert "seem" not in text

    @pytest.mark.parametrize("axis", range(3))
    def test_that_are_elsewhere_are_told_where(self, poses, pose_range, axis):
        moved = poses.copy()
        moved[:, :, axis] += 3000
        (text,) = pose_range.unlike(moved, HANDS17)
        assert text.startswith(f"the hands are at {'xyz'[axis]} = ")
        assert f"= {np.median(moved[:, :, axis].mean(axis=1)):.0f} mm" in text

    @pytest.mark.parametrize("order", [MSRA15, OPENPOSE], ids=["MSRA15", "OpenPose"])
    @pytest.mark.parametrize("way", ["to_hands17", "from_hands17"])
    def test_with_joints_in_another_order_are_told_by_their_bones(self, poses, pose_range, order, way):
        (text,) = pose_range.unlike(getattr(order, way)(poses), HANDS17)
        assert " of 20 bones have a length that they had not in the training set: " in text
        assert "Are the joints in another order than the format's?" in text

    @pytest.mark.parametrize("backbone", ["A", "B", "C", "D"])
    def test_that_a_backbone_predicted_are_told_nothing_against(self, pose_range, backbone):
        assert pose_range.unlike(Backbone(backbone).predict(synthetic_hands(500, 1), 1), HANDS17) == []

    def test_of_a_single_frame_beside_the_range_are_told_nothing_against(self, poses, pose_range):
        assert pose_range.unlike(poses[:1] + np.float32(50), HANDS17) == []
