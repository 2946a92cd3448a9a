"""Normalizers that rotate a hand by its palm: their invariances, and poses without a usable palm."""

import dataclasses

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
import scipy.spatial.transform
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from data_pipeline.batch import Batch
from data_pipeline.formats.leaderboard import read_leaderboard
from data_pipeline.normalizers import IndividualNormalizer, PoseTransform, ViewpointNormalizer
from data_pipeline.preparation.synthetic import synthetic_hands
from data_pipeline.skeleton import HANDS17, ICVL, NYU, Skeleton
from tests.support import SHARED_DATA, SKELETONS, generator, hands, no_waiting_for_the_gpu

NORMALIZERS = [ViewpointNormalizer, IndividualNormalizer]

rotations = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
places = st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(100, 2000))
seeds = st.integers(0, 10_000)


@pytest.fixture(params=NORMALIZERS, ids=lambda member: member.__name__)
def normalizer(request, skeleton):
    return request.param(skeleton)


def normalized(normalizer, poses):
    return normalizer.transform(poses).normalize(poses)


def matrix(quaternion):
    return torch.from_numpy(scipy.spatial.transform.Rotation.from_quat(quaternion).as_matrix())


def moved(poses, quaternion, place):
    centre = poses.mean(dim=(0, 1))
    return (poses - centre) @ matrix(quaternion).T.to(poses) + torch.tensor(place).to(poses)


def newell(corners):
    """The vector area of polygons (N, P, 3) as Newell wrote it, coordinate by coordinate, (N, 3)."""
    x, y, z = np.moveaxis(np.asarray(corners, dtype=np.float64), 2, 0)
    next_x, next_y, next_z = (np.roll(coordinate, -1, axis=1) for coordinate in (x, y, z))
    return 0.5 * np.stack(
        [
            ((y - next_y) * (z + next_z)).sum(axis=1),
            ((z - next_z) * (x + next_x)).sum(axis=1),
            ((x - next_x) * (y + next_y)).sum(axis=1),
        ],
        axis=1,
    )


def fingers_direction(poses, skeleton):
    poses = np.asarray(poses, dtype=np.float64)
    return poses[:, list(skeleton.palm.knuckles)].mean(axis=1) - poses[:, list(skeleton.palm.base)].mean(axis=1)


def assert_proper(rotation):
    eye = torch.eye(3, dtype=rotation.dtype).expand_as(rotation)
    torch.testing.assert_close(rotation.mT @ rotation, eye, rtol=0, atol=1e-5)
    determinants = torch.linalg.det(rotation.double())
    torch.testing.assert_close(determinants, torch.ones_like(determinants), rtol=0, atol=1e-5)


class TestWhatIsNotSeen:
    @pytest.mark.parametrize("member", NORMALIZERS)
    @pytest.mark.parametrize("joints", SKELETONS, ids=lambda joints: joints.name)
    @given(seed=seeds, quaternion=rotations, place=places)
    def test_is_from_where_the_hand_is_seen(self, member, joints, seed, quaternion, place):
        normalizer = member(joints)
        poses, _ = hands(joints, 5, seed, dtype=torch.float64)
        turned = moved(poses, quaternion, place)
        expected = normalized(normalizer, poses)
        torch.testing.assert_close(normalized(normalizer, turned), expected, rtol=0, atol=1e-6)

    def test_also_holds_in_the_precision_of_training(self, normalizer, skeleton):
        poses, _ = hands(skeleton, 100, dtype=torch.float64)
        turned = moved(poses, (0.3, -0.5, 0.7, 0.1), (200, -300, 1000)).float()
        difference = normalized(normalizer, turned).double() - normalized(normalizer, poses)
        assert difference.abs().median() < 1e-3

    @pytest.mark.parametrize("factor", [0.01, 0.7, 30])
    def test_is_the_size_only_with_the_individual_normalizer(self, skeleton, factor):
        poses, _ = hands(skeleton, 20, dtype=torch.float64)
        individual, viewpoint = IndividualNormalizer(skeleton), ViewpointNormalizer(skeleton)
        expected = normalized(individual, poses)
        torch.testing.assert_close(normalized(individual, poses * factor), expected, rtol=0, atol=1e-9)
        expected = normalized(viewpoint, poses) * factor
        torch.testing.assert_close(normalized(viewpoint, poses * factor), expected, rtol=0, atol=1e-9)

    def test_is_not_whether_the_hand_is_mirrored(self, normalizer, skeleton):
        poses, _ = hands(skeleton, 20)
        mirrored = poses * torch.tensor([-1.0, 1, 1])
        apart = (normalized(normalizer, poses) - normalized(normalizer, mirrored)).norm(dim=2).amax(dim=1)
        assert (apart > 0.1).all()


class TestTheFrame:
    def test_has_the_normal_against_z_and_the_fingers_along_x(self, normalizer, skeleton):
        poses, _ = hands(skeleton, 100, dtype=torch.float64)
        frame = normalizer.transform(poses)
        inside = frame.normalize(poses)
        normals = newell(inside[:, list(skeleton.palm.outline)])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        np.testing.assert_allclose(normals, np.tile([0, 0, -1], (100, 1)), atol=1e-9)
        direction = fingers_direction(inside, skeleton)
        np.testing.assert_allclose(direction[:, 1], 0, atol=1e-9)
        assert (direction[:, 0] > 0).all()

    def test_is_about_the_centre_and_in_millimetres_by_viewpoint(self, skeleton):
        poses, _ = hands(skeleton, 20, dtype=torch.float64)
        frame = ViewpointNormalizer(skeleton).transform(poses)
        torch.testing.assert_close(frame.origin, poses.mean(dim=1, keepdim=True))
        assert frame.scale is None

    def test_is_about_the_palm_and_in_mean_bone_lengths_individually(self, skeleton):
        poses, _ = hands(skeleton, 20, dtype=torch.float64)
        inside = normalized(IndividualNormalizer(skeleton), poses).numpy()
        np.testing.assert_allclose(inside[:, list(skeleton.palm.outline)].mean(axis=1), 0, atol=1e-9)
        start, end = np.array(skeleton.bones).T
        lengths = np.linalg.norm(inside[:, end] - inside[:, start], axis=2)
        np.testing.assert_allclose(lengths.mean(axis=1), 1, atol=1e-9)

    def test_transforms_the_label_too(self, normalizer, skeleton):
        poses, labels = hands(skeleton, 20, dtype=torch.float64)
        batch = Batch.of(poses, labels, normalizer)
        rotation, origin = batch.transform.rotation, batch.transform.origin
        scale = 1 if batch.transform.scale is None else batch.transform.scale
        torch.testing.assert_close(batch.labels, (labels - origin) @ rotation / scale)
        torch.testing.assert_close(batch.in_mm(batch.labels), labels)

    @given(
        poses=arrays_of.arrays(
            np.float32, (3, 14, 3), elements=st.sampled_from([0, 1, -1, 1e-3, 500]) | st.floats(-1e4, 1e4, width=32)
        )
    )
    @pytest.mark.parametrize("member", NORMALIZERS)
    def test_is_proper_and_can_be_undone_for_any_pose(self, member, poses):
        poses = torch.from_numpy(poses)
        frame = member(NYU).transform(poses)
        assert_proper(frame.rotation)
        inside = frame.normalize(poses)
        assert inside.isfinite().all()
        size = poses.abs().amax(dim=(1, 2), keepdim=True)
        assert ((frame.denormalize(inside) - poses).abs() <= 1e-6 * size).all()

    def test_has_orthogonal_axes_even_if_the_fingers_point_nearly_along_the_normal(self, skeleton):
        poses, _ = hands(skeleton, 50_000)
        rotation = ViewpointNormalizer(skeleton).transform(poses).rotation
        apart = rotation.mT.double() @ rotation.double() - torch.eye(3)
        assert apart.abs().max() < 1e-6

    @pytest.mark.parametrize("size", [1e-6, 1e-3, 1, 1e3, 1e6])
    def test_is_proper_for_a_palm_in_a_plane_of_the_camera_from_every_side_and_of_every_size(
        self, normalizer, skeleton, size
    ):
        """The first palm faces the camera, the others are rotated by quarter turns about x, y or z."""
        poses, _ = hands(skeleton, 20)
        facing = normalized(ViewpointNormalizer(skeleton), poses)
        facing[:, list(skeleton.palm.outline), 2] = 0
        for quarters in [(0, 0, 0), (2, 0, 0), (0, 2, 0), (1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)]:
            turn = scipy.spatial.transform.Rotation.from_euler("xyz", quarters * np.array(90), degrees=True).as_matrix()
            rotation = normalizer.transform(facing @ torch.from_numpy(turn.round()).float().T * size).rotation
            assert_proper(rotation)
            np.testing.assert_allclose(rotation[:, :, 2], np.tile(turn[:, 2], (20, 1)), atol=1e-6)


def on_a_line(skeleton):
    poses, _ = hands(skeleton, 5)
    line = torch.tensor([1.0, 2, -2])
    return poses[..., :1] * line + torch.tensor([0, 0, 1000.0])


def on_a_point(skeleton):
    return torch.tensor([10.0, 20, 1000]).expand(5, skeleton.n_joints, 3).clone()


def with_the_palm_on_a_line(skeleton):
    poses, _ = hands(skeleton, 5)
    outline = list(skeleton.palm.outline)
    poses[:, outline] = on_a_line(skeleton)[:, outline]
    return poses


def with_knuckles_around_the_base(skeleton):
    """The palm has an area, but base and knuckles have the same mean."""
    poses, _ = hands(skeleton, 5)
    base, knuckles = list(skeleton.palm.base), list(skeleton.palm.knuckles)
    around = poses[:, knuckles].mean(dim=1) - poses[:, base].mean(dim=1)
    poses[:, base] += around[:, None]
    return poses


DEGENERATE = [on_a_line, on_a_point, with_the_palm_on_a_line, with_knuckles_around_the_base]


class TestAPoseWhosePalmShowsNothing:
    @pytest.fixture(params=DEGENERATE, ids=lambda make: make.__name__)
    def poses(self, request, skeleton):
        return request.param(skeleton)

    def test_keeps_the_axes_of_the_camera(self, normalizer, poses):
        rotation = normalizer.transform(poses).rotation
        assert torch.equal(rotation, torch.eye(3).expand(5, 3, 3))

    def test_can_be_undone(self, normalizer, poses):
        frame = normalizer.transform(poses)
        torch.testing.assert_close(frame.denormalize(frame.normalize(poses)), poses, rtol=0, atol=1e-3)

    def test_has_finite_gradients(self, normalizer, poses):
        poses = poses.requires_grad_()
        frame = normalizer.transform(poses)
        (frame.normalize(poses).sum() + frame.denormalize(poses).square().sum()).backward()
        assert poses.grad.isfinite().all()

    def test_does_not_change_the_frames_of_others(self, normalizer, skeleton, poses):
        others, _ = hands(skeleton, 3)
        together = normalizer.transform(torch.cat([others, poses]))
        alone = normalizer.transform(others)
        torch.testing.assert_close(together.rotation[:3], alone.rotation, rtol=0, atol=1e-6)


def test_whether_a_palm_shows_anything_does_not_depend_on_how_the_hand_is_turned(normalizer, skeleton):
    """Palms on a line except for noise, in double precision, so that rounding has no influence."""
    poses = with_the_palm_on_a_line(skeleton).repeat(400, 1, 1).double()
    sizes = torch.logspace(-2, 0, len(poses), dtype=torch.float64).view(-1, 1, 1)  # mm
    poses += sizes * torch.randn(poses.shape, generator=generator(), dtype=torch.float64)
    turn = torch.from_numpy(scipy.spatial.transform.Rotation.random(rng=0).as_matrix())
    has_axes, has_axes_turned = (
        (normalizer.transform(some).rotation != torch.eye(3)).any(dim=(1, 2)) for some in (poses, poses @ turn)
    )
    assert 0.02 < has_axes.double().mean() < 0.98
    assert torch.equal(has_axes, has_axes_turned)


def test_a_pose_whose_bones_have_no_length_keeps_its_lengths_in_mm(skeleton):
    frame = IndividualNormalizer(skeleton).transform(on_a_point(skeleton))
    assert torch.equal(frame.scale, torch.ones(5, 1, 1))


@pytest.mark.slow
def test_gradients_of_a_pose_are_those_of_finite_differences(normalizer, skeleton):
    def turned(poses):
        return normalizer.transform(poses).normalize(poses)[:, 3]

    poses, _ = hands(skeleton, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(turned, poses.requires_grad_(), eps=1e-4, atol=1e-6)


@pytest.mark.parametrize("member", NORMALIZERS)
def test_a_skeleton_without_a_palm_is_refused_with_how_to_add_one(member):
    bare = dataclasses.replace(NYU, name="bare", palm=None)
    with pytest.raises(
        ValueError,
        match=rf"{member.__name__} needs a skeleton with a palm, but bare has none; .*palm=Palm\(base",
    ):
        member(bare)


class Corrected(nn.Module):
    """A prediction, for export."""

    def __init__(self, normalizer):
        super().__init__()
        self.normalizer = normalizer
        self.layer = nn.Linear(3 * HANDS17.n_joints, 3 * HANDS17.n_joints)

    def forward(self, poses):
        frame = self.normalizer.transform(poses)
        inside = frame.normalize(poses)
        return frame.denormalize(inside + self.layer(inside.flatten(1)).view_as(inside))


@pytest.mark.slow
@pytest.mark.parametrize("member", NORMALIZERS)
def test_a_model_with_its_normalizer_can_be_exported_for_any_number_of_poses(member):
    model = Corrected(member(HANDS17)).eval()
    poses, _ = hands(HANDS17, 6)
    exported = torch.export.export(model, (poses,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    for n in (1, 6, 40):
        poses = torch.cat([hands(HANDS17, n)[0], on_a_point(HANDS17), on_a_line(HANDS17)])
        torch.testing.assert_close(exported.module()(poses), model(poses), rtol=0, atol=1e-3)


class TestThePalmsOfRealHands:
    """The side of the palm on which the fingertips are, since fingers bend towards it."""

    @staticmethod
    def share_with_fingertips_on_the_side_of_the_normal(poses, skeleton: Skeleton):
        tips = [joints[-1] for name, joints in skeleton.fingers if name != "thumb"]
        outline = list(skeleton.palm.outline)
        towards_tips = poses[:, tips].mean(axis=1) - poses[:, outline].mean(axis=1)
        return ((towards_tips * newell(poses[:, outline])).sum(axis=1) > 0).mean()

    def test_is_that_of_the_normal_for_a_right_hand_in_a_right_handed_frame(self):
        poses = synthetic_hands(2000, 0).astype(np.float64)
        assert self.share_with_fingertips_on_the_side_of_the_normal(poses, HANDS17) > 0.9
        mirrored = poses * [1, -1, 1]
        assert self.share_with_fingertips_on_the_side_of_the_normal(mirrored, HANDS17) < 0.1

    @pytest.mark.parametrize(("dataset", "skeleton"), [("nyu", NYU), ("icvl", ICVL)])
    def test_is_the_other_one_in_published_data(self, dataset, skeleton):
        """NYU has right hands and y up; ICVL has left hands."""
        poses = read_leaderboard(published(dataset), dataset).astype(np.float64)
        assert self.share_with_fingertips_on_the_side_of_the_normal(poses, skeleton) < 0.1

    @pytest.mark.parametrize(("dataset", "skeleton"), [("nyu", NYU), ("icvl", ICVL)])
    def test_has_axes_in_every_published_frame(self, dataset, skeleton):
        poses = torch.from_numpy(read_leaderboard(published(dataset), dataset))
        rotation = ViewpointNormalizer(skeleton).transform(poses).rotation
        assert_proper(rotation)
        assert not (rotation == torch.eye(3)).all(dim=(1, 2)).any()


def published(dataset):
    path = SHARED_DATA / dataset / f"{dataset}_test_groundtruth_label.txt"
    if not path.is_file():
        pytest.skip(f"{path} is missing; the folder can be named with POSETUNE_SHARED_DATA")
    return path


def test_a_frame_turns_as_a_matrix_product_does():
    generator = torch.Generator().manual_seed(0)
    poses, origin, rotation, scale = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((7, 5, 3), (7, 1, 3), (7, 3, 3), (7, 1, 1))
    )
    rotation = torch.linalg.qr(rotation).Q
    for frame in (PoseTransform(origin, scale, rotation), PoseTransform(origin, None, rotation)):
        by = 1 if frame.scale is None else scale
        torch.testing.assert_close(frame.normalize(poses), (poses - origin) @ rotation / by)
        torch.testing.assert_close(frame.denormalize(poses), (poses * by) @ rotation.mT + origin)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_frames_without_being_waited_for_and_without_tf32(normalizer, skeleton):
    poses, _ = hands(skeleton, 100)
    there = poses.cuda()
    normalizer.transform(there)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with no_waiting_for_the_gpu():
            frame = normalizer.transform(there)
            inside = frame.normalize(there)
            back = frame.denormalize(inside)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(inside.cpu(), normalized(normalizer, poses), rtol=0, atol=1e-2)
    torch.testing.assert_close(back, there, rtol=0, atol=1e-3)


def test_all_skeletons_have_a_palm():
    assert all(skeleton.palm is not None for skeleton in SKELETONS)
