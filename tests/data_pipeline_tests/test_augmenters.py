import math

import numpy as np
import pytest
import scipy.stats
import torch

from data_pipeline import augmenters
from data_pipeline.augmenters import Augmenter, NormalScaler, RandomBoneScaler, RandomRotator, RandomScaler
from data_pipeline.layout import stored_samples_last
from data_pipeline.skeleton import NYU, Skeleton
from tests.support import (
    assert_is_encoded_by_its_arguments,
    case_id,
    cases,
    generator,
    global_random_states,
    hands,
    no_waiting_for_the_gpu,
    on_skeletons,
    pair_id,
)

RANGES = [{}, {"low": 0.5, "high": 2.0}, {"low": 1.5, "high": 1.5}]

ARGUMENTS = {
    RandomScaler: RANGES,
    RandomBoneScaler: RANGES,
    NormalScaler: [{}, {"std": 0.3}, {"std": 0}],
}

CASES = cases(augmenters, Augmenter, ARGUMENTS)

N_HANDS = 20_000


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_an_augmenter_is_encoded_by_its_arguments(case):
    assert_is_encoded_by_its_arguments(*case)


class TestEveryAugmenter:
    @pytest.fixture(params=on_skeletons(CASES), ids=pair_id)
    def pair(self, request):
        return request.param

    @pytest.fixture
    def skeleton(self, pair):
        return pair[1]

    @pytest.fixture
    def augmenter(self, pair, skeleton):
        """Calls the augmenter with poses, labels and a generator."""
        member, arguments = pair[0]
        return lambda poses, labels, draws: member(**arguments)(poses, labels, skeleton, draws)

    @pytest.fixture
    def poses(self, skeleton):
        return hands(skeleton, 20)[0]

    @pytest.fixture
    def labels(self, skeleton):
        return hands(skeleton, 20)[1]

    def test_does_not_write_to_its_inputs(self, augmenter, poses, labels):
        before = poses.clone(), labels.clone()
        augmenter(poses, labels, generator())
        assert torch.equal(poses, before[0])
        assert torch.equal(labels, before[1])

    def test_does_not_depend_on_the_memory_order_of_its_inputs_nor_write_to_them(self, augmenter, poses, labels):
        expected = augmenter(poses, labels, generator())
        stored = stored_samples_last(poses), stored_samples_last(labels)
        for one, other in zip(augmenter(*stored, generator()), expected, strict=True):
            assert torch.equal(one, other)
        assert torch.equal(stored[0], poses)
        assert torch.equal(stored[1], labels)

    def test_keeps_shape_precision_and_device(self, augmenter, poses, labels):
        for dtype in (torch.float32, torch.float64):
            for augmented in augmenter(poses.to(dtype), labels.to(dtype), generator()):
                assert (augmented.shape, augmented.dtype, augmented.device) == (poses.shape, dtype, poses.device)

    def test_gives_the_same_bits_for_the_same_state_of_the_generator(self, augmenter, poses, labels):
        first, second = generator(), generator(1)
        augmenter(poses, labels, first)
        second.set_state(first.get_state())
        for one, other in zip(augmenter(poses, labels, first), augmenter(poses, labels, second), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(first.get_state(), second.get_state())

    def test_draws_only_from_its_generator(self, augmenter, poses, labels):
        states = global_random_states()
        first, _ = augmenter(poses, labels, generator())
        assert global_random_states() == states
        torch.manual_seed(99)
        assert torch.equal(augmenter(poses, labels, generator())[0], first)

    def test_multiplies_all_distances_within_and_between_pose_and_label_by_one_factor_for_each_sample(
        self, augmenter, pair, skeleton
    ):
        """So input and label had the same transform, and it is a similarity."""
        if pair[0][0] is RandomBoneScaler:
            pytest.skip("it changes the proportions of the hand")
        poses, labels = hands(skeleton, 20, dtype=torch.float64)
        before = pairwise_distances(poses, labels)
        factors = pairwise_distances(*augmenter(poses, labels, generator())) / before  # (N, pairs)
        torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-9, atol=0)

    def test_treats_a_label_as_it_treats_an_input(self, augmenter, poses):
        augmented, label = augmenter(poses, poses.clone(), generator())
        assert torch.equal(augmented, label)

    def test_leaves_the_centre_of_the_input_where_it_is(self, augmenter, poses, labels):
        augmented, _ = augmenter(poses, labels, generator())
        torch.testing.assert_close(augmented.mean(dim=1), poses.mean(dim=1), rtol=0, atol=1e-3)

    def test_takes_the_transform_from_the_input_and_not_from_the_label(self, augmenter, poses, labels):
        augmented, _ = augmenter(poses, labels, generator())
        assert torch.equal(augmenter(poses, labels + 100, generator())[0], augmented)


@pytest.fixture(scope="module")
def rotations():
    """Many rotations, measured with points at both ends of the axes, whose centre is zero, (N, 3, 3)."""
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()  # (6, 3)
    points = axes.expand(N_HANDS, 6, 3)
    rotated, _ = RandomRotator()(points, points, NYU, generator())
    return rotated[:, :3].mT.numpy()


class TestRandomRotator:
    def test_keeps_bone_lengths_and_the_distance_from_pose_to_label(self, skeleton):
        poses, labels = hands(skeleton, 20)
        turned = RandomRotator()(poses, labels, skeleton, generator())
        torch.testing.assert_close(pairwise_distances(*turned), pairwise_distances(poses, labels), rtol=0, atol=1e-3)

    def test_turns_and_never_mirrors(self, rotations):
        np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-12)
        identity = np.broadcast_to(np.eye(3), rotations.shape)
        np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), identity, atol=1e-12)

    def test_prefers_no_direction(self, rotations):
        # Each entry has the variance 1/3; five standard errors.
        assert np.abs(rotations.mean(axis=0)).max() < 5 * math.sqrt(1 / 3 / N_HANDS)

    def test_turns_by_angles_that_are_distributed_as_those_of_uniform_rotations(self, rotations):
        """Their density is (1 − cos θ) / π over [0, π] (Haar measure), so small rotations are rare."""
        angles = np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1))
        assert scipy.stats.kstest(angles, lambda angle: (angle - np.sin(angle)) / np.pi).pvalue > 1e-3

    @pytest.mark.parametrize("point", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, -2, 3)])
    def test_moves_a_point_uniformly_over_its_sphere(self, rotations, point):
        """Archimedes: each coordinate of a uniform point on the sphere is uniform."""
        image = rotations @ (np.array(point) / np.linalg.norm(point))  # (N, 3)
        for coordinate in image.T:
            assert scipy.stats.kstest(coordinate, "uniform", args=(-1, 2)).pvalue > 1e-3

    def test_turns_each_sample_by_itself(self, rotations):
        turns = rotations[:100].reshape(100, 9)
        assert len(np.unique(turns, axis=0)) == 100


@pytest.mark.gpu
def test_a_gpu_turns_hands_without_being_waited_for_and_without_tf32(skeleton):
    poses, labels = (points.cuda() for points in hands(skeleton, 100))
    draws = torch.Generator("cuda").manual_seed(0)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with no_waiting_for_the_gpu():
            augmented = RandomRotator()(poses, labels, skeleton, draws)
    finally:
        torch.set_float32_matmul_precision(before)
    distances = pairwise_distances(*(points.cpu() for points in augmented))
    torch.testing.assert_close(distances, pairwise_distances(poses.cpu(), labels.cpu()), rtol=0, atol=1e-3)


class TestRandomScaler:
    @pytest.mark.parametrize(("low", "high"), [(0.8, 1.2), (0.5, 2.0), (1.0, 1.001)])
    def test_scales_by_factors_spread_evenly_between_low_and_high(self, low, high):
        factors = factors_of(RandomScaler(low=low, high=high))
        assert low <= factors.min()
        assert factors.max() <= high
        assert scipy.stats.kstest(factors, "uniform", args=(low, high - low)).pvalue > 1e-3

    def test_multiplies_bone_lengths_and_the_distance_from_pose_to_label(self, skeleton):
        poses, labels = hands(skeleton, 20)
        scaled = RandomScaler(low=1.5, high=1.5)(poses, labels, skeleton, generator())
        torch.testing.assert_close(
            pairwise_distances(*scaled), 1.5 * pairwise_distances(poses, labels), rtol=0, atol=1e-3
        )


def bones_of(poses, skeleton):
    """Returns the vectors from the start to the end of each bone, (N, B, 3)."""
    starts, ends = torch.tensor(skeleton.bones).T
    return poses[:, ends] - poses[:, starts]


class TestRandomBoneScaler:
    def test_multiplies_each_bone_of_the_input_by_its_own_factor_and_keeps_its_direction(self, skeleton):
        poses, labels = hands(skeleton, 3000, dtype=torch.float64)
        scaled, _ = RandomBoneScaler(low=0.7, high=1.2)(poses, labels, skeleton, generator())
        before, after = bones_of(poses, skeleton), bones_of(scaled, skeleton)
        factors = (before * after).sum(dim=2) / before.square().sum(dim=2)  # (N, B)
        torch.testing.assert_close(after, factors.unsqueeze(2) * before)
        assert scipy.stats.kstest(factors.flatten().numpy(), "uniform", args=(0.7, 0.5)).pvalue > 1e-3
        # Five standard errors of the correlation of independent factors.
        correlations = np.corrcoef(factors.T.numpy()) - np.eye(len(skeleton.bones))
        assert np.abs(correlations).max() < 5 / math.sqrt(len(poses))

    def test_leaves_the_difference_of_input_and_label_as_it_is(self, skeleton):
        poses, labels = hands(skeleton, 20, dtype=torch.float64)
        scaled = RandomBoneScaler(low=0.5, high=2.0)(poses, labels, skeleton, generator())
        torch.testing.assert_close(scaled[0] - scaled[1], poses - labels)

    def test_scales_the_input_about_its_centre_if_all_factors_are_the_same(self, skeleton):
        poses, labels = hands(skeleton, 20, dtype=torch.float64)
        scaled, _ = RandomBoneScaler(low=1.5, high=1.5)(poses, labels, skeleton, generator())
        centres = poses.mean(dim=1, keepdim=True)
        torch.testing.assert_close(scaled, centres + 1.5 * (poses - centres))

    def test_follows_bones_in_any_direction_and_accepts_circles_and_joints_without_bones(self):
        skeleton = Skeleton(name="odd", joint_names=tuple("abcdef"), bones=((1, 0), (2, 1), (0, 2), (5, 4)))
        poses = torch.randn(5, 6, 3, dtype=torch.float64, generator=generator())
        scaled, _ = RandomBoneScaler(low=2.0, high=2.0)(poses, poses, skeleton, generator())
        before, after = (points[:, [0, 0, 4]] - points[:, [1, 2, 5]] for points in (poses, scaled))
        torch.testing.assert_close(after, 2 * before)

    @pytest.mark.gpu
    def test_is_not_waited_for_on_a_gpu(self, skeleton):
        poses, labels = (points.cuda() for points in hands(skeleton, 100))
        draws = torch.Generator("cuda").manual_seed(0)
        RandomBoneScaler()(poses, labels, skeleton, draws)  # the first call copies the skeleton
        with no_waiting_for_the_gpu():
            scaled, others = RandomBoneScaler()(poses, labels, skeleton, draws)
        torch.testing.assert_close(scaled - others, poses - labels, rtol=0, atol=1e-3)


@pytest.mark.parametrize("member", [RandomScaler, RandomBoneScaler])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-1, 1), (1.2, 0.8), (math.nan, 1), (1, math.nan), (1, math.inf), (math.inf,) * 2]
)
def test_what_is_not_a_range_of_factors_is_refused(member, low, high):
    with pytest.raises(ValueError, match=rf"0 < low <= high.*low = {low}, high = {high}"):
        member(low=low, high=high)


class TestNormalScaler:
    @pytest.mark.parametrize("std", [0.02, 0.1, 0.3])
    def test_scales_by_normally_distributed_factors_within_three_standard_deviations(self, std):
        factors = factors_of(NormalScaler(std=std))
        inner = factors[np.abs(factors - 1) < 2.99 * std]
        expected = scipy.stats.truncnorm(-2.99, 2.99, loc=1, scale=std)
        assert scipy.stats.kstest(inner, expected.cdf).pvalue > 1e-3
        # The others are at the ends: 0.0028 of the distribution, five standard errors.
        share = 2 * scipy.stats.norm.sf(2.99)
        assert abs(1 - len(inner) / len(factors) - share) < 5 * math.sqrt(share / len(factors))
        np.testing.assert_allclose([factors.min(), factors.max()], [1 - 3 * std, 1 + 3 * std], rtol=1e-12)

    @pytest.mark.parametrize("std", [-0.1, 0.31, math.nan, math.inf])
    def test_refuses_a_standard_deviation_with_which_a_factor_could_be_zero(self, std):
        with pytest.raises(ValueError, match=rf"0 <= std <= 0\.3 must hold, .*, not std = {std}"):
            NormalScaler(std=std)


def factors_of(scaler):
    """Returns the factors by which an augmenter scales many hands, (N,)."""
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0]]).double().expand(N_HANDS, 2, 3)
    scaled, _ = scaler(points, points, NYU, generator())
    return scaled[:, 0, 0].numpy()


def pairwise_distances(poses, labels):
    """Distances between all points of a sample's pose and label, (N, pairs)."""
    points = torch.cat([poses, labels], dim=1)  # (N, 2J, 3)
    first, second = torch.triu_indices(points.shape[1], points.shape[1], offset=1)
    return (points[:, first] - points[:, second]).norm(dim=2)
