import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.formats.joint_orders import MSRA15, OPENPOSE
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS, read_leaderboard
from data_pipeline.pose_range import PoseRange, PoseRangeCheck
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.skeleton import HANDS17, NYU
from tests.support import SHARED_DATA, hands


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
        {"curl_mm": [1]},
    ],
)
def test_is_not_read_from_what_is_none(pose_range, damage):
    with pytest.raises((LookupError, TypeError, ValueError)):
        PoseRange.from_json({**pose_range.to_json(), **damage})
    with pytest.raises(LookupError):
        PoseRange.from_json({})


def test_is_read_from_results_that_did_not_tell_yet_how_fingers_bend(pose_range):
    written = {key: value for key, value in pose_range.to_json().items() if key != "curl_mm"}
    assert PoseRange.from_json(written) == replace(pose_range, curl_mm=None)


def test_of_curls_is_that_of_the_fingertips_along_the_normal_of_the_palm(poses, pose_range):
    """For a right hand, y down, it comes out of the palm."""
    corners = poses[:, [0, 2, 3, 4, 5]].astype(float)
    normal = sum(np.cross(corners[:, i], corners[:, (i + 1) % 5]) for i in range(5))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tips = poses[:, [8, 11, 14, 17, 20]].mean(axis=1) - corners.mean(axis=1)
    curls = (tips * normal).sum(axis=1)
    np.testing.assert_allclose(pose_range.curl_mm, np.percentile(curls, [1, 99]), rtol=1e-3)
    assert pose_range.curl_mm[0] > 0


def compared(pose_range, *chunks, skeleton=HANDS17):
    comparison = PoseRangeCheck(pose_range, skeleton)
    for chunk in chunks:
        comparison.add(chunk)
    return comparison.texts()


class TestPoses:
    def test_such_as_those_of_the_range_are_told_nothing_against(self, pose_range):
        assert compared(pose_range, synthetic_hands(500, 1)) == []

    @pytest.mark.parametrize(("factor", "unit"), [(1e-3, "metres"), (0.1, "centimetres")])
    def test_in_another_unit_are_told_to_be_in_it(self, poses, pose_range, factor, unit):
        (text,) = compared(pose_range, poses * np.float32(factor))
        assert text.startswith("3,000 of 3,000 frames: the mean bone length of a hand is ")
        assert text.endswith(f"The unit seems to be {unit}; expected millimetres")

    def test_of_another_size_are_told_of_without_a_guess(self, poses, pose_range):
        (text,) = compared(pose_range, poses * np.float32(3))
        assert "the mean bone length of a hand is" in text
        assert "seem" not in text

    @pytest.mark.parametrize("axis", range(3))
    def test_that_are_elsewhere_are_told_where(self, poses, pose_range, axis):
        moved = poses[:500].copy()
        moved[:, :, axis] += 3000
        (text,) = compared(pose_range, moved)
        assert f"500 of 500 frames: the hands are at {'xyz'[axis]} = " in text
        assert f"= {np.median(moved[:, :, axis].mean(axis=1)):.0f} mm" in text

    @pytest.mark.parametrize("order", [MSRA15, OPENPOSE], ids=["MSRA15", "OpenPose"])
    @pytest.mark.parametrize("way", ["to_hands17", "from_hands17"])
    def test_with_joints_in_another_order_are_told_by_their_bones(self, poses, pose_range, order, way):
        (text,) = compared(pose_range, getattr(order, way)(poses))
        assert "many bone lengths are outside the range of the training set: " in text
        assert "Does the joint order differ from that of the format?" in text

    @pytest.mark.parametrize("backbone", ["A", "B", "C", "D"])
    def test_that_a_backbone_predicted_are_told_nothing_against_and_in_a_mirror_that_they_are(
        self, pose_range, backbone
    ):
        predicted = Backbone(backbone).predict(synthetic_hands(500, 1), 1)
        assert compared(pose_range, predicted) == []
        turned = predicted * np.float32([-1, -1, 1])
        assert compared(pose_range, turned) == []
        (text,) = compared(pose_range, predicted * np.float32([-1, 1, 1]))
        assert "the fingers bend to the opposite side of the palm" in text

    def test_of_a_single_frame_beside_the_range_are_told_nothing_against(self, poses, pose_range):
        assert compared(pose_range, poses[:1] + np.float32(50)) == []

    def test_of_a_skeleton_whose_range_tells_no_curl_are_compared_without(self, poses, pose_range):
        assert compared(replace(pose_range, curl_mm=None), poses * np.float32([-1, 1, 1])) == []

    def test_whose_palms_are_points_are_compared_without_a_warning_of_numpy(self):
        poses, labels = (tensor.numpy() for tensor in hands(NYU, 50))
        poses[:, 11] = poses[:, 12] = poses[:, 13]
        assert all("other side" not in text for text in compared(PoseRange.of(labels, NYU), poses, skeleton=NYU))


class TestSomePosesOfAFile:
    def test_in_metres_are_counted_wherever_they_are(self, poses, pose_range):
        mixed = np.concatenate([poses, poses[:1500]])
        rows = [3, 4200, *range(4300, 4321)]
        mixed[rows] /= 1000
        (text,) = compared(pose_range, mixed)
        assert text.startswith(
            "23 of 4,500 frames, the first is frame 3 (counted from 0): the mean bone length of a hand is 0.0"
        )

    def test_are_told_of_by_each_kind_once(self, poses, pose_range):
        far = poses + np.float32([0, 5000, 0])
        place, size = compared(pose_range, poses, far, poses / 1000, far)
        assert size.startswith("3,000 of 12,000 frames, the first is frame 6000 ")
        assert place.startswith("6,000 of 12,000 frames, the first is frame 3000 ")

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda poses: MSRA15.to_hands17(poses), "joint order differ"),
            (lambda poses: poses * np.float32([-1, 1, 1]), "mirrored"),
        ],
        ids=["order", "mirror"],
    )
    def test_in_another_order_or_a_mirror_are_told_of_where_they_are_many_in_a_row(
        self, poses, pose_range, change, says
    ):
        (text,) = compared(pose_range, poses, poses, change(poses), poses)
        assert says in text
        assert int(text.split()[0].replace(",", "")) == pytest.approx(3000, rel=0.1)
        assert compared(pose_range, poses, change(poses[:300]), poses) == []

    @settings(max_examples=10)
    @given(cuts=st.lists(st.integers(0, 4000), max_size=8))
    def test_are_told_of_alike_however_the_file_is_read(self, poses, pose_range, cuts):
        mixed = np.concatenate([poses, poses[:700] * np.float32([-1, 1, 1]), poses[:300] / 1000])
        whole = compared(pose_range, mixed)
        assert len(whole) == 2
        assert compared(pose_range, *np.split(mixed, sorted(cuts))) == whole


@pytest.mark.parametrize("dataset", ["nyu", "icvl"])
@pytest.mark.slow
def test_what_real_backbones_predicted_is_told_nothing_against_and_in_a_mirror_that_it_is(dataset):
    """Compared with the labels of either half of the set; in NYU these are two subjects."""
    folder = SHARED_DATA / dataset
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing; the folder can be named with POSETUNE_SHARED_DATA")
    skeleton = LEADERBOARD_DATASETS[dataset].skeleton
    labels = read_leaderboard(folder / f"{dataset}_test_groundtruth_label.txt", dataset)
    for path in sorted(folder.glob("*.txt")):
        poses = read_leaderboard(path, dataset)
        for half in np.array_split(labels, 2):
            expected = PoseRange.of(half, skeleton)
            assert compared(expected, poses, skeleton=skeleton) == [], path
            (text,) = compared(expected, poses * np.float32([1, -1, 1]), skeleton=skeleton)
            assert "the fingers bend to the opposite side" in text
            assert int(text.split()[0].replace(",", "")) > 0.8 * len(poses)
