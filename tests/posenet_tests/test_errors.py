import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from data_pipeline.skeleton import HANDS17, Skeleton
from posenet import errors
from tests.support import SKELETONS, hands

ERRORS = [
    function
    for function in vars(errors).values()
    if inspect.isfunction(function) and list(inspect.signature(function).parameters) == ["poses", "labels", "skeleton"]
]

N_BONES = {"HANDS17": 20, "ICVL": 15, "NYU": 13}

any_skeleton = st.sampled_from(SKELETONS)
seeds = st.integers(0, 2**32 - 1)
rotations = seeds.map(lambda seed: Rotation.from_quat(np.random.default_rng(seed).normal(size=4)))
shifts = st.tuples(*[st.floats(-1000, 1000)] * 3).map(np.array)
factors = st.floats(0.1, 10)


def chain(n_joints):
    joints = range(n_joints)
    return Skeleton("chain", tuple(map(str, joints)), bones=tuple(itertools.pairwise(joints)))


def ordinary_hands(skeleton, seed):
    """Poses and labels without a bone of almost zero length, (3, J, 3) each, float64."""
    poses, labels = hands(skeleton, 3, seed, torch.float64)
    assume(min(errors.bone_lengths(hand, skeleton).min() for hand in (poses, labels)) > 5)
    return poses, labels


def moved(poses, rotation, shift=0, factor=1):
    return torch.from_numpy(factor * rotation.apply(poses.numpy().reshape(-1, 3)).reshape(poses.shape) + shift)


class Reference:
    """The errors by plain loops over samples, joints, bones and pairs of bones."""

    @staticmethod
    def coordinate_difference(pose, label, skeleton):
        return [pose[joint][axis] - label[joint][axis] for joint in range(len(pose)) for axis in range(3)]

    @staticmethod
    def distance_error(pose, label, skeleton):
        return [math.dist(pose[joint], label[joint]) for joint in range(len(pose))]

    @staticmethod
    def bone_length_error(pose, label, skeleton):
        return [math.dist(pose[a], pose[b]) - math.dist(label[a], label[b]) for a, b in skeleton.bones]

    @staticmethod
    def proportion_error(pose, label, skeleton):
        result = []
        for (i, j), (k, l) in itertools.combinations(skeleton.bones, 2):
            predicted = math.dist(pose[i], pose[j]) / math.dist(pose[k], pose[l])
            true = math.dist(label[i], label[j]) / math.dist(label[k], label[l])
            result.append(min(max(predicted / true, true / predicted) - 1, 10))
        return result


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
class TestEveryError:
    @given(skeleton=any_skeleton, seed=seeds)
    def test_is_what_a_plain_loop_gives(self, error, skeleton, seed):
        poses, labels = ordinary_hands(skeleton, seed)
        reference = getattr(Reference, error.__name__)
        expected = [reference(*sample, skeleton) for sample in zip(poses.numpy(), labels.numpy(), strict=True)]
        for gradients in (True, False):  # lengths and ratios are computed differently without gradients
            with torch.set_grad_enabled(gradients):
                np.testing.assert_allclose(error(poses, labels, skeleton), expected, rtol=1e-9, atol=1e-9)

    def test_gives_a_number_for_each_coordinate_joint_bone_or_pair(self, error, skeleton):
        bones = N_BONES[skeleton.name]
        numbers = {
            "coordinate_difference": 3 * skeleton.n_joints,
            "distance_error": skeleton.n_joints,
            "bone_length_error": bones,
            "proportion_error": bones * (bones - 1) // 2,
        }
        values = error(*hands(skeleton, 4), skeleton)
        assert (values.shape, values.dtype) == ((4, numbers[error.__name__]), torch.float32)

    def test_is_zero_where_pose_and_label_are_the_same(self, error, skeleton):
        _, labels = hands(skeleton, 4)
        assert torch.equal(error(labels, labels.clone(), skeleton), torch.zeros_like(error(labels, labels, skeleton)))

    @given(skeleton=any_skeleton, seed=seeds, shift=shifts)
    def test_does_not_change_when_pose_and_label_move_together(self, error, skeleton, seed, shift):
        poses, labels = ordinary_hands(skeleton, seed)
        shift = torch.from_numpy(shift)
        torch.testing.assert_close(
            error(poses + shift, labels + shift, skeleton), error(poses, labels, skeleton), rtol=1e-9, atol=1e-9
        )

    def test_does_not_write_to_its_inputs(self, error, skeleton):
        poses, labels = hands(skeleton, 4)
        before = poses.clone(), labels.clone()
        error(poses, labels, skeleton).add_(1)
        assert torch.equal(poses, before[0])
        assert torch.equal(labels, before[1])

    @pytest.mark.parametrize("collapsed", ["a bone of the pose", "a bone of both", "the pose", "the label", "both"])
    def test_and_its_gradient_are_finite_for_bones_of_no_length(self, error, skeleton, collapsed):
        poses, labels = hands(skeleton, 4)
        start, end = skeleton.bones[3]
        for changed, name in ((poses, "pose"), (labels, "label")):
            if collapsed in (f"the {name}", "both"):
                changed[:] = changed[:, :1].clone()
            elif collapsed in (f"a bone of the {name}", "a bone of both"):
                changed[:, end] = changed[:, start]
        poses.requires_grad_()
        values = error(poses, labels, skeleton)
        values.sum().backward()
        assert values.isfinite().all()
        assert poses.grad.isfinite().all()
        with torch.no_grad():
            torch.testing.assert_close(error(poses, labels, skeleton), values, rtol=1e-5, atol=1e-4)

    def test_has_a_finite_gradient_where_pose_and_label_are_the_same(self, error, skeleton):
        _, labels = hands(skeleton, 4)
        poses = labels.clone().requires_grad_()
        error(poses, labels, skeleton).abs().sum().backward()
        assert poses.grad.isfinite().all()

    def test_has_the_gradient_that_finite_differences_give(self, error, skeleton):
        poses, labels = hands(skeleton, 2, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda poses: error(poses, labels, skeleton), poses.requires_grad_())

    def test_can_be_trained_with_after_an_evaluation_was_the_first_to_use_it(self, error):
        """The next training in the same process uses the cache of an evaluation."""
        skeleton = chain(30 + ERRORS.index(error))  # not used elsewhere
        poses, labels = hands(skeleton, 4)
        with torch.inference_mode():
            expected = error(poses, labels, skeleton).clone()
        poses.requires_grad_()
        values = error(poses, labels, skeleton)
        values.sum().backward()
        torch.testing.assert_close(values.detach(), expected)  # training computes lengths in another way
        assert poses.grad.isfinite().all()


@given(skeleton=any_skeleton, seed=seeds, rotation=rotations, shift=shifts)
def test_the_distance_does_not_change_when_pose_and_label_turn_together(skeleton, seed, rotation, shift):
    poses, labels = ordinary_hands(skeleton, seed)
    turned = errors.distance_error(moved(poses, rotation, shift), moved(labels, rotation, shift), skeleton)
    torch.testing.assert_close(turned, errors.distance_error(poses, labels, skeleton), rtol=1e-9, atol=1e-9)


@given(skeleton=any_skeleton, seed=seeds, rotation=rotations, shift=shifts)
def test_the_bone_length_error_does_not_change_when_the_pose_alone_is_turned_and_moved(skeleton, seed, rotation, shift):
    poses, labels = ordinary_hands(skeleton, seed)
    turned = errors.bone_length_error(moved(poses, rotation, shift), labels, skeleton)
    torch.testing.assert_close(turned, errors.bone_length_error(poses, labels, skeleton), rtol=1e-9, atol=1e-9)


class TestProportionError:
    @given(skeleton=any_skeleton, seed=seeds, rotation=rotations, shift=shifts, factor=factors)
    def test_does_not_change_when_the_pose_alone_is_scaled_turned_and_moved(
        self, skeleton, seed, rotation, shift, factor
    ):
        poses, labels = ordinary_hands(skeleton, seed)
        expected = errors.proportion_error(poses, labels, skeleton)
        changed = errors.proportion_error(moved(poses, rotation, shift, factor), labels, skeleton)
        torch.testing.assert_close(changed, expected, rtol=1e-9, atol=1e-9)
        other = errors.proportion_error(poses, moved(labels, rotation, shift, factor), skeleton)
        torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-9)

    @given(skeleton=any_skeleton, seed=seeds)
    def test_is_the_same_with_pose_and_label_exchanged(self, skeleton, seed):
        poses, labels = ordinary_hands(skeleton, seed)
        torch.testing.assert_close(
            errors.proportion_error(poses, labels, skeleton), errors.proportion_error(labels, poses, skeleton)
        )

    def test_of_a_bone_twice_as_long_is_one_in_each_of_its_pairs_and_zero_in_all_others(self):
        """Not a mean over the batch: +100 % in one sample and −50 % in another do not cancel."""
        label = torch.zeros(1, 8, 3, dtype=torch.float64)
        label[0, :, 0] = torch.arange(8) * 30
        longer, shorter = label.clone(), label.clone()
        longer[:, 4:, 0] += 30
        shorter[:, 4:, 0] -= 15
        pairs = itertools.combinations(range(7), 2)
        expected = torch.tensor([[float(3 in pair) for pair in pairs]], dtype=torch.float64)
        for pose in (longer, shorter):
            torch.testing.assert_close(errors.proportion_error(pose, label, chain(8)), expected)

    @pytest.mark.parametrize("gradients", [True, False])
    def test_is_clamped_at_ten(self, gradients):
        _, labels = hands(HANDS17, 2)
        poses = labels.clone()
        poses[:, 8] = poses[:, 7] + 100 * (poses[:, 8] - poses[:, 7])
        with torch.set_grad_enabled(gradients):
            values = errors.proportion_error(poses, labels, HANDS17)
            assert values.max() == errors.MAX_PROPORTION_ERROR == 10
            poses[:, 8] = poses[:, 7]
            assert errors.proportion_error(poses, labels, HANDS17).max() == 10


def test_bone_lengths_are_those_of_the_bones_in_their_order(skeleton):
    poses, _ = hands(skeleton, 3, dtype=torch.float64)
    expected = [[math.dist(pose[a], pose[b]) for a, b in skeleton.bones] for pose in poses.tolist()]
    np.testing.assert_allclose(errors.bone_lengths(poses, skeleton), expected, rtol=1e-12)
