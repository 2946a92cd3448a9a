import numpy as np
import pytest

from data_pipeline.preparation.synthetic import (
    CONFUSION_LENGTH,
    CONFUSION_RATE,
    SEQUENCE_LENGTH,
    Backbone,
    synthetic_hands,
)
from data_pipeline.skeleton import HANDS17

WRIST, INDEX_KNUCKLE, PINKY_KNUCKLE = 0, 2, 5
FINGERS = np.array([joints for _, joints in HANDS17.fingers])  # (5, 4)
BONES = np.array(HANDS17.bones)  # (20, 2)
SUBSETS = ["convnet", "voxels", "forest"]


@pytest.fixture(scope="module")
def labels():
    return synthetic_hands(60 * SEQUENCE_LENGTH, seed=1)


@pytest.fixture(scope="module")
def other_labels():
    return synthetic_hands(20 * SEQUENCE_LENGTH, seed=2)


@pytest.fixture(scope="module")
def poses(labels):
    return Backbone("convnet").predict(labels, seed=1)


def of_sequences(array):
    return array.reshape(-1, SEQUENCE_LENGTH, *array.shape[1:])


def bone_lengths(joints):
    return np.linalg.norm(joints[..., BONES[:, 1], :] - joints[..., BONES[:, 0], :], axis=-1)


def joint_bends(hands):
    """Angles in degrees between neighbouring bones of each finger, metacarpal first, (N, 5, 3)."""
    wrist = np.broadcast_to(hands[:, None, None, WRIST], (len(hands), 5, 1, 3))
    bones = np.diff(np.concatenate([wrist, hands[:, FINGERS]], axis=2).astype(float), axis=2)  # (N, 5, 4, 3)
    bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
    cosines = (bones[:, :, 1:] * bones[:, :, :-1]).sum(axis=-1)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def errors(poses, labels):
    return np.linalg.norm(poses - labels, axis=-1)


def finger_bends(hands):
    """The sum of the last two bends of index finger to pinky, degrees, (N, 4)."""
    return joint_bends(hands)[:, 1:, 1:].sum(axis=-1)


def is_fist(hands):
    return (finger_bends(hands) > 140).all(axis=1)


def is_flat(hands):
    return (finger_bends(hands) < 30).all(axis=1)


class TestHands:
    def test_have_the_joints_of_hands17_in_single_precision(self, labels):
        assert labels.shape == (60 * SEQUENCE_LENGTH, 21, 3)
        assert labels.dtype == np.float32
        assert np.isfinite(labels).all()

    def test_keep_their_bone_lengths_within_a_sequence(self, labels):
        lengths = of_sequences(bone_lengths(labels))
        np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:, :1], lengths.shape), rtol=1e-4)

    def test_differ_in_size_and_proportions_between_subjects(self, labels):
        lengths = of_sequences(bone_lengths(labels))[:, 0]  # (sequences, 20)
        size = lengths.mean(axis=1, keepdims=True)
        assert 0.05 < size.std() / size.mean() < 0.15
        assert ((lengths / size).std(axis=0) / (lengths / size).mean(axis=0)).min() > 0.01

    @pytest.mark.parametrize(
        ("bone", "mean_mm"),
        [((1, 6), 46.2), ((2, 9), 39.8), ((3, 12), 44.6), ((4, 15), 41.4), ((5, 18), 32.7), ((19, 20), 19.7)],
    )
    def test_have_bones_as_long_as_published(self, labels, bone, mean_mm):
        lengths = bone_lengths(labels)[:, HANDS17.bones.index(bone)]
        assert lengths.mean() == pytest.approx(mean_mm, rel=0.04)
        assert lengths.min() > 0.75 * mean_mm
        assert lengths.max() < 1.25 * mean_mm

    def test_move_without_a_jump_within_a_sequence(self, labels):
        steps = np.linalg.norm(np.diff(of_sequences(labels), axis=1), axis=-1)
        assert steps.max() < 25
        assert 1 < steps.mean() < 6

    def test_change_their_velocity_smoothly(self, labels):
        velocity_changes = np.linalg.norm(np.diff(of_sequences(labels), n=2, axis=1), axis=-1)
        assert velocity_changes.max() < 6

    def test_are_in_front_of_the_camera(self, labels):
        assert labels[..., 2].min() > 300
        assert labels[..., 2].max() < 900

    def test_bend_their_joints_within_the_limits(self, labels):
        bends = joint_bends(labels)
        slack = 0.5
        assert (bends[:, 0, 1:] <= np.array([55, 80]) + slack).all()
        assert (bends[:, 1:, 1] <= 110 + slack).all()
        # From the metacarpal's direction, the first bend has the abduction in it too.
        assert (bends[:, 1:, 0] <= 100).all()

    def test_bend_the_last_joint_of_a_finger_by_two_thirds_of_the_one_before(self, labels):
        bends = joint_bends(labels)[:, 1:]
        np.testing.assert_allclose(bends[..., 2], 2 / 3 * bends[..., 1], atol=0.5)

    def test_are_all_right_hands(self, labels):
        """The palm's normal, from index and pinky knuckle, points towards the thumb; in a mirrored hand it does not."""
        palm = labels - labels[:, :1]
        thumb = labels[:, 6] - labels[:, 1]
        normals = np.cross(palm[:, INDEX_KNUCKLE], palm[:, PINKY_KNUCKLE])
        assert ((normals * thumb).sum(axis=1) > 0).all()

    def test_are_seen_from_many_sides(self, labels):
        palm = labels - labels[:, :1]
        normals = np.cross(palm[:, INDEX_KNUCKLE], palm[:, PINKY_KNUCKLE])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        assert normals.std(axis=0).min() > 0.2

    def test_show_fists_flat_hands_and_a_pointing_finger(self, labels):
        bends = finger_bends(labels)
        pointing = (bends[:, 0] < 30) & (bends[:, 1:] > 140).all(axis=1)
        for shown in (is_fist(labels), is_flat(labels), pointing):
            assert shown.mean() > 0.05

    def test_have_the_finger_tips_near_the_palm_in_a_fist(self, labels):
        fists, flats = labels[is_fist(labels)], labels[is_flat(labels)]
        to_wrist = [np.linalg.norm(hands[:, FINGERS[1:, 3]] - hands[:, :1], axis=-1) for hands in (fists, flats)]
        assert to_wrist[0].max() < to_wrist[1].min()

    def test_are_the_same_bits_for_the_same_seed(self, other_labels):
        np.testing.assert_array_equal(synthetic_hands(len(other_labels), seed=2), other_labels)

    def test_are_others_for_another_seed(self, labels, other_labels):
        n = len(other_labels)
        assert np.abs(labels[:n] - other_labels).mean() > 10
        subjects, others = (of_sequences(bone_lengths(hands))[:, 0] for hands in (labels, other_labels))
        assert np.abs(subjects[:, None] - others).max(axis=-1).min() > 1

    @pytest.mark.parametrize("n", [0, 1, SEQUENCE_LENGTH - 1, 4321])
    def test_of_a_short_set_are_the_first_of_a_long_one(self, labels, n):
        np.testing.assert_array_equal(synthetic_hands(n, seed=1), labels[:n])


class TestBackbones:
    @pytest.mark.parametrize("subset", SUBSETS)
    def test_err_as_much_as_published_ones(self, labels, subset):
        error = errors(Backbone(subset).predict(labels, seed=1), labels)
        assert 10 < error.mean() < 20
        assert 1.8 < error.max(axis=1).mean() / error.mean() < 2.5

    def test_err_more_the_farther_out_on_a_finger(self, labels, poses):
        error = errors(poses, labels).mean(axis=0)
        along_finger = error[FINGERS].mean(axis=0)  # (4,)
        assert error[WRIST] < along_finger[0]
        assert (np.diff(along_finger) > 0).all()

    @pytest.mark.parametrize("subset", SUBSETS)
    def test_err_more_for_a_fist_than_for_a_flat_hand(self, labels, subset):
        error = errors(Backbone(subset).predict(labels, seed=1), labels)
        assert error[is_fist(labels)].mean() > 1.2 * error[is_flat(labels)].mean()

    def test_err_alike_along_a_finger(self, labels):
        """If only the seed of the noise differs, the difference contains only the noise."""
        backbone = Backbone("convnet")
        noise = backbone.predict(labels, seed=1) - backbone.predict(labels, seed=2)
        middle, tip = noise[:, FINGERS[:, 2]].ravel(), noise[:, FINGERS[:, 3]].ravel()
        neighbour = noise[:, np.roll(FINGERS[:, 3], 1)].ravel()
        assert np.corrcoef(middle, tip)[0, 1] > 0.7
        assert abs(np.corrcoef(neighbour, tip)[0, 1]) < 0.4

    def test_err_alike_in_neighbouring_frames(self, labels, poses):
        error = of_sequences((poses - labels)[:, FINGERS[:, 3]])
        assert np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1] > 0.5

    @pytest.mark.parametrize("subset", SUBSETS)
    @pytest.mark.slow
    def test_err_in_part_by_a_rule_that_linear_regression_finds(self, labels, other_labels, subset):
        backbone = Backbone(subset)

        def features_and_errors(truth, seed):
            predicted = backbone.predict(truth, seed)
            centred = (predicted - predicted.mean(axis=1, keepdims=True)).reshape(-1, 63)
            return predicted, np.c_[centred, np.ones(len(centred))], (truth - predicted).reshape(-1, 63)

        _, features, needed = features_and_errors(labels, seed=1)
        weights = np.linalg.lstsq(features, needed, rcond=None)[0]
        predicted, features, _ = features_and_errors(other_labels, seed=2)
        corrected = predicted + (features @ weights).reshape(-1, 21, 3)

        assert errors(corrected, other_labels).mean() < 0.9 * errors(predicted, other_labels).mean()

    def test_confuse_fingers_as_often_as_said(self):
        truth = synthetic_hands(100 * SEQUENCE_LENGTH, seed=3)
        ends = Backbone("convnet").predict(truth, seed=3)[:, FINGERS[:, 2:]]  # (N, 5, 2, 3)
        confused = (ends[:, 1:] == ends[:, :-1]).all(axis=(2, 3)).any(axis=1)  # (N,)
        assert confused.mean() == pytest.approx(CONFUSION_RATE, rel=0.5)

        windows = confused.reshape(-1, CONFUSION_LENGTH)
        assert (windows.all(axis=1) | ~windows.any(axis=1)).all()

    @pytest.mark.slow
    def test_differ_in_character_by_name_and_by_seed(self, labels):
        def systematic_errors(backbone):
            # The mean over several noises, in some of the frames.
            return np.mean([backbone.predict(labels[::20], seed) for seed in range(10)], axis=0) - labels[::20]

        first = systematic_errors(Backbone("convnet"))
        for other in (Backbone("voxels"), Backbone("convnet", seed=1)):
            assert errors(systematic_errors(other), first).mean() > 5

    def test_are_the_same_bits_for_the_same_seed(self, labels, poses):
        np.testing.assert_array_equal(Backbone("convnet").predict(labels, seed=1), poses)

    def test_keep_their_character_but_not_their_noise_with_another_seed(self, labels, poses):
        others = Backbone("convnet").predict(labels, seed=2)
        np.testing.assert_array_less(1e-3, errors(others, poses).mean(axis=1))
        assert np.corrcoef((others - labels).ravel(), (poses - labels).ravel())[0, 1] > 0.3

    @pytest.mark.parametrize("n", [0, 1, 4321])
    def test_predict_the_first_frames_of_a_long_set_as_those_of_a_short_one(self, labels, poses, n):
        np.testing.assert_array_equal(Backbone("convnet").predict(labels[:n], seed=1), poses[:n])

    def test_leave_the_labels_as_they_were(self, other_labels):
        before = other_labels.copy()
        Backbone("convnet").predict(other_labels, seed=1)
        np.testing.assert_array_equal(other_labels, before)
