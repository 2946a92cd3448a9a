import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from data_pipeline.skeleton import HANDS17
from posenet.alignment import aligned
from tests.support import SKELETONS, hands

MIRROR = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)

any_skeleton = st.sampled_from(SKELETONS)
seeds = st.integers(0, 2**32 - 1)
similarities = st.tuples(
    seeds.map(lambda seed: Rotation.from_quat(np.random.default_rng(seed).normal(size=4))),
    st.floats(0.1, 10),
    st.tuples(*[st.floats(-1000, 1000)] * 3),
)


def moved(poses, rotation, factor, shift):
    return factor * (poses @ torch.from_numpy(rotation.as_matrix()).mT) + torch.tensor(shift, dtype=torch.float64)


def distances(poses, labels):
    """The distance of each joint to its label, (N, J)."""
    return torch.linalg.vector_norm(poses - labels, dim=2)


def squared(poses, labels):
    """The sum of the squared distances of each pose, (N,)."""
    return distances(poses, labels).square().sum(dim=1)


def by_scipy(pose, label):
    source, target = pose - pose.mean(axis=0), label - label.mean(axis=0)
    rotation, _ = Rotation.align_vectors(target, source)
    turned = rotation.apply(source)
    return (target * turned).sum() / (source**2).sum() * turned + label.mean(axis=0)


class TestAlignedPoses:
    @given(skeleton=any_skeleton, seed=seeds, is_mirrored=st.booleans())
    def test_are_those_of_scipy(self, skeleton, seed, is_mirrored):
        poses, labels = hands(skeleton, 3, seed, torch.float64)
        poses = poses * MIRROR if is_mirrored else poses
        expected = [by_scipy(*sample) for sample in zip(poses.numpy(), labels.numpy(), strict=True)]
        np.testing.assert_allclose(aligned(poses, labels), expected, rtol=0, atol=1e-8)

    @given(seed=seeds, similarity=similarities)
    def test_do_not_depend_on_position_rotation_and_size_of_the_poses(self, seed, similarity):
        poses, labels = hands(HANDS17, 3, seed, torch.float64)
        expected = aligned(poses, labels)
        torch.testing.assert_close(aligned(moved(poses, *similarity), labels), expected, rtol=0, atol=1e-7)

    @given(seed=seeds, similarity=similarities)
    def test_have_no_larger_sum_of_squares_than_the_poses_moved_in_any_other_way(self, seed, similarity):
        """The mean distance has no such bound: the alignment minimises squares."""
        poses, labels = hands(HANDS17, 3, seed, torch.float64)
        least = squared(aligned(poses, labels), labels)
        for other in (poses, moved(poses, *similarity)):
            assert (least <= squared(other, labels) * (1 + 1e-9)).all()

    def test_of_float32_poses_are_in_float64_and_nearly_the_same(self):
        poses, labels = hands(HANDS17, 20, dtype=torch.float64)
        found = aligned(poses.float(), labels.float())
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, aligned(poses, labels), rtol=0, atol=1e-3)


class TestAMirroredHand:
    def test_does_not_match_its_label(self):
        _, labels = hands(HANDS17, 20, dtype=torch.float64)
        for mirrored in (labels * MIRROR, -labels):
            assert distances(aligned(mirrored, labels), labels).mean(dim=1).min() > 2

    def test_matches_where_it_is_flat_because_it_can_be_turned_over(self):
        _, labels = hands(HANDS17, 20, dtype=torch.float64)
        labels[:, :, 2] = 500
        assert distances(aligned(labels * MIRROR, labels), labels).max() < 1e-9


class TestDegeneratePoses:
    def test_in_one_point_move_to_the_centre_of_the_label(self):
        _, labels = hands(HANDS17, 3, dtype=torch.float64)
        found = aligned(labels[:, :1].expand_as(labels), labels)
        torch.testing.assert_close(found, labels.mean(dim=1, keepdim=True).expand_as(labels), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (1, 2, 3)])
    def test_on_a_line_lie_on_the_line_of_their_label(self, direction):
        place = torch.arange(21.0, dtype=torch.float64)[:, None]
        pose = (7 * place * torch.tensor(direction))[None]
        label = (place * torch.tensor([0.0, 0.0, 1.0]) + 500)[None]
        assert distances(aligned(pose, label), label).max() < 1e-9

    def test_on_a_line_are_at_the_least_sum_of_squares_to_a_hand(self):
        """The products have one singular value, which is their norm, so the least sum follows without a rotation."""
        _, labels = hands(HANDS17, 3, dtype=torch.float64)
        poses = torch.zeros_like(labels)
        poses[:, :, 0] = torch.arange(21)
        source, target = (points - points.mean(dim=1, keepdim=True) for points in (poses, labels))
        explained = (source.mT @ target).square().sum(dim=(1, 2)) / source.square().sum(dim=(1, 2))
        expected = target.square().sum(dim=(1, 2)) - explained
        torch.testing.assert_close(squared(aligned(poses, labels), labels), expected)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_poses():
    poses, labels = hands(HANDS17, 20, dtype=torch.float64)
    found = aligned(poses.cuda(), labels.cuda()).cpu()
    torch.testing.assert_close(found, aligned(poses, labels), rtol=0, atol=1e-8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_pose_with_a_number_that_is_not_finite_becomes_nan_and_the_others_stay(bad):
    poses, labels = hands(HANDS17, 3, dtype=torch.float64)
    expected = aligned(poses, labels)
    poses[1, 4, 2] = bad
    found = aligned(poses, labels)
    assert distances(found, labels)[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])
