import json

import numpy as np
import pytest
import torch

from data_pipeline import normalizers
from data_pipeline.batch import Batch
from data_pipeline.layout import stored_samples_last, whole_samples
from data_pipeline.normalizers import GlobalNormalizer, Normalizer, PoseTransform, Shifter
from data_pipeline.skeleton import HANDS17
from tests.support import case_id, cases, global_random_states, hands

ARGUMENTS = {GlobalNormalizer: [{}, {"individual_scaling": True}]}

ROUND_TRIP_MM = 1e-3


@pytest.fixture(params=cases(normalizers, Normalizer, ARGUMENTS), ids=case_id)
def normalizer(request, skeleton):
    """A member that learned from hands other than those of the test."""
    member, arguments = request.param
    normalizer = member(skeleton, **arguments)
    normalizer.fit(hands(skeleton, 20, seed=100 + start)[0] for start in range(3))
    return normalizer


@pytest.fixture
def poses(skeleton):
    return hands(skeleton, 50)[0]


@pytest.fixture
def labels(skeleton):
    return hands(skeleton, 50)[1]


def scale_of(frame):
    return 1 if frame.scale is None else frame.scale


def turned(frame, vectors):
    """Vectors of the camera frame along the axes of the frames, (N, J, 3)."""
    return vectors if frame.rotation is None else torch.einsum("njc,ncd->njd", vectors, frame.rotation)


class TestEveryNormalizer:
    def test_brings_a_pose_there_and_back(self, normalizer, poses):
        frame = normalizer.transform(poses)
        torch.testing.assert_close(frame.denormalize(frame.normalize(poses)), poses, rtol=0, atol=ROUND_TRIP_MM)

    def test_keeps_shape_and_precision(self, normalizer, poses):
        frame = normalizer.transform(poses)
        for changed in (frame.normalize(poses), frame.denormalize(poses)):
            assert (changed.shape, changed.dtype, changed.device) == (poses.shape, poses.dtype, poses.device)

    def test_keeps_all_differences_up_to_the_scale_and_the_axes_of_the_frame(self, normalizer, poses, labels):
        frame = normalizer.transform(poses)
        between_joints = frame.normalize(poses)[:, 1:] - frame.normalize(poses)[:, :-1]
        expected = turned(frame, poses[:, 1:] - poses[:, :-1])
        torch.testing.assert_close(between_joints * scale_of(frame), expected, rtol=0, atol=ROUND_TRIP_MM)
        to_label = frame.normalize(labels) - frame.normalize(poses)
        expected = turned(frame, labels - poses)
        torch.testing.assert_close(to_label * scale_of(frame), expected, rtol=0, atol=ROUND_TRIP_MM)

    def test_brings_the_label_into_the_frame_of_its_input(self, normalizer, poses, labels):
        """Moving input and label together moves the transformed label exactly like the input."""
        batch = Batch.of(poses, labels, normalizer)
        expected = batch.poses + turned(batch.transform, labels - poses) / scale_of(batch.transform)
        torch.testing.assert_close(batch.labels, expected, rtol=0, atol=ROUND_TRIP_MM)
        torch.testing.assert_close(batch.in_mm(batch.labels), labels, rtol=0, atol=ROUND_TRIP_MM)

    def test_takes_the_frame_from_the_input_alone(self, normalizer, poses, labels):
        frame = Batch.of(poses, labels, normalizer).transform
        for other in (labels + 100, torch.full_like(labels, float("nan"))):
            assert_same_frames(Batch.of(poses, other, normalizer).transform, frame)

    def test_takes_the_frame_of_a_pose_from_no_other_pose(self, normalizer, poses):
        frame, alone = normalizer.transform(poses), normalizer.transform(poses[7:8])
        mixed = torch.cat([poses[7:8], torch.zeros_like(poses[:3]), poses[9:11] * 1e3])
        among_others = normalizer.transform(mixed).normalize(mixed)[:1]
        torch.testing.assert_close(among_others, alone.normalize(poses[7:8]), rtol=0, atol=ROUND_TRIP_MM)
        torch.testing.assert_close(alone.normalize(poses[7:8]), frame.normalize(poses)[7:8], rtol=0, atol=ROUND_TRIP_MM)

    def test_does_not_write_to_its_inputs(self, normalizer, poses, labels):
        before = poses.clone(), labels.clone()
        frame = normalizer.transform(poses)
        origin = frame.origin.clone()
        for tensor in (poses, labels):
            frame.normalize(tensor).zero_()
            frame.denormalize(tensor).zero_()
        assert torch.equal(poses, before[0])
        assert torch.equal(labels, before[1])
        assert torch.equal(frame.origin, origin)

    def test_gives_the_same_bits_twice_and_draws_nothing(self, normalizer, poses):
        states = global_random_states()
        first, second = normalizer.transform(poses), normalizer.transform(poses)
        assert_same_frames(first, second)
        assert torch.equal(first.normalize(poses), second.normalize(poses))
        assert global_random_states() == states

    def test_lets_gradients_of_millimetres_through(self, normalizer, poses):
        frame = normalizer.transform(poses)
        corrected = frame.normalize(poses).requires_grad_()
        frame.denormalize(corrected).sum().backward()
        torch.testing.assert_close(corrected.grad, turned(frame, torch.ones_like(poses)) * scale_of(frame))

    def test_tells_what_it_learned_in_plain_numbers(self, normalizer):
        assert json.loads(json.dumps(normalizer.learned())) == normalizer.learned()

    def test_is_the_same_to_the_last_bit_where_what_it_learned_was_put_back(self, normalizer, skeleton, request, poses):
        member, arguments = request.node.callspec.params["normalizer"]
        restored = member(skeleton, **arguments)
        restored.restore(json.loads(json.dumps(normalizer.learned())))
        assert_same_frames(restored.transform(poses), normalizer.transform(poses))
        assert restored.learned() == normalizer.learned()


@pytest.mark.parametrize("case", cases(normalizers, Normalizer, ARGUMENTS), ids=case_id)
def test_what_a_normalizer_learns_does_not_depend_on_the_size_of_the_chunks(case, skeleton):
    member, arguments = case
    poses, _ = hands(skeleton, 50)
    frames = []
    for size in (50, 7, 1):
        normalizer = member(skeleton, **arguments)
        normalizer.fit(poses.split(size))
        frames.append(normalizer.transform(poses))
    for frame in frames[1:]:
        torch.testing.assert_close(frame.origin, frames[0].origin)
        torch.testing.assert_close(scale_of(frame), scale_of(frames[0]))


class TestShifter:
    def test_puts_the_centre_of_each_input_at_the_origin(self, skeleton, poses):
        centred = Shifter(skeleton).transform(poses).normalize(poses)
        torch.testing.assert_close(centred.mean(dim=1), torch.zeros(len(poses), 3), rtol=0, atol=ROUND_TRIP_MM)

    def test_does_not_see_where_the_hand_is(self, skeleton, poses):
        moved, shifter = poses + torch.tensor([64.0, -128.0, 256.0]), Shifter(skeleton)
        torch.testing.assert_close(
            shifter.transform(moved).normalize(moved),
            shifter.transform(poses).normalize(poses),
            rtol=0,
            atol=ROUND_TRIP_MM,
        )

    def test_leaves_lengths_and_axes_as_they_are(self, skeleton, poses):
        frame = Shifter(skeleton).transform(poses)
        assert frame.scale is None
        assert frame.rotation is None


class TestGlobalNormalizer:
    @pytest.mark.parametrize("individual_scaling", [False, True])
    def test_standardises_as_numpy_does(self, skeleton, individual_scaling):
        poses, _ = hands(skeleton, 200)
        normalizer = GlobalNormalizer(skeleton, individual_scaling=individual_scaling)
        normalizer.fit(poses.split(64))

        points = poses.numpy().reshape(-1, 3).astype(np.float64)
        std = points.std(axis=0)
        if not individual_scaling:
            # The one over all coordinates, each about its own mean.
            std = np.full(3, np.sqrt(((points - points.mean(axis=0)) ** 2).mean()))
        learned = normalizer.learned()
        np.testing.assert_allclose(learned["mean_mm"], points.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(learned["std_mm"], std, rtol=1e-6)
        expected = (points - points.mean(axis=0)) / std
        normalized = normalizer.transform(poses).normalize(poses)
        np.testing.assert_allclose(normalized.numpy().reshape(-1, 3), expected, atol=1e-5)

    def test_keeps_the_shape_of_the_hand_unless_each_axis_is_scaled_by_itself(self):
        poses, _ = hands(HANDS17, 50)
        poses[..., 2] = 1000 + 3 * (poses[..., 2] - 1000)
        for individual_scaling, n_scales in ((False, 1), (True, 3)):
            normalizer = GlobalNormalizer(HANDS17, individual_scaling=individual_scaling)
            normalizer.fit([poses])
            assert len(set(normalizer.learned()["std_mm"])) == n_scales

    def test_is_exact_far_from_the_camera(self):
        poses = hands(HANDS17, 50)[0] * 0.01 + torch.tensor([0, 0, 5000.0])
        normalizer = GlobalNormalizer(HANDS17)
        normalizer.fit([poses])
        points = poses.numpy().reshape(-1, 3).astype(np.float64)
        std = np.sqrt(((points - points.mean(axis=0)) ** 2).mean())
        np.testing.assert_allclose(normalizer.learned()["std_mm"], std, rtol=1e-6)

    def test_only_shifts_what_never_changes(self):
        poses = torch.full((4, 14, 3), 700.0)
        for individual_scaling in (False, True):
            normalizer = GlobalNormalizer(HANDS17, individual_scaling=individual_scaling)
            normalizer.fit([poses])
            assert torch.equal(normalizer.transform(poses).normalize(poses), torch.zeros(4, 14, 3))

    def test_forgets_what_it_learned_before(self):
        once, twice = GlobalNormalizer(HANDS17), GlobalNormalizer(HANDS17)
        twice.fit([hands(HANDS17, 10, seed=1)[0] * 2])
        for normalizer in (once, twice):
            normalizer.fit([hands(HANDS17, 10)[0]])
        assert once.learned() == twice.learned()

    def test_cannot_learn_from_nothing(self):
        with pytest.raises(ValueError, match="empty training set"):
            GlobalNormalizer(HANDS17).fit([])

    def test_has_no_frame_before_it_has_learned(self, poses):
        with pytest.raises(RuntimeError, match="before fit"):
            GlobalNormalizer(HANDS17).transform(poses)

    def test_is_not_restored_from_half_of_what_it_learned(self):
        with pytest.raises(KeyError, match="std_mm"):
            GlobalNormalizer(HANDS17).restore({"mean_mm": [0, 0, 0]})


def assert_same_frames(first, second):
    for name in ("origin", "scale", "rotation"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("shape", [(), (3,), (21, 3), (1, 1, 3), (8, 1, 3)])
def test_a_part_of_a_transform_changes_poses_like_the_whole(shape):
    poses, origin = torch.rand(8, 21, 3), torch.rand(shape)
    transform = PoseTransform(origin=origin, scale=origin + 1)
    part = transform.select(slice(2, 5))
    assert torch.equal(part.normalize(poses[2:5]), transform.normalize(poses)[2:5])


@pytest.mark.parametrize("shape", [(), (3,), (21, 3), (1, 1, 3), (1, 21, 3), (8, 1, 3), (8, 21, 3), (8, 1, 1)])
@pytest.mark.parametrize("stored", [whole_samples, stored_samples_last])
def test_origin_and_scale_of_any_shape_give_the_bits_of_plain_arithmetic(shape, stored):
    poses, origin = stored(torch.rand(8, 21, 3)), torch.rand(shape)
    for scale in (None, origin + 1):
        transform, divisor = PoseTransform(origin, scale), 1 if scale is None else scale
        assert torch.equal(transform.normalize(poses), (poses - origin) / divisor)
        assert torch.equal(transform.denormalize(poses), poses * divisor + origin)
