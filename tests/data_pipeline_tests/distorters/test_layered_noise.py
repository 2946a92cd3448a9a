"""The layered noise, and which joints are confused."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from data_pipeline import distorters
from data_pipeline.distorters import LayeredGaussianDistorter, TrainingSamples
from data_pipeline.skeleton import HANDS17, ICVL, NYU
from tests.support import generator, hands

N = 2000
J = HANDS17.n_joints

with (Path(distorters.__file__).parent / "hands17_confusions.csv").open(newline="", encoding="utf-8") as file:
    HEADER, *ROWS = csv.reader(file)
TABLE = np.array([[float(number) for number in row[1:]] for row in ROWS])


def distorted(poses, labels, skeleton=HANDS17, **arguments):
    samples = TrainingSamples(poses, labels, torch.arange(len(poses)), skeleton, {})
    return LayeredGaussianDistorter(**arguments)(samples, generator()).numpy()


@pytest.fixture
def moves():
    """A function that returns the moves of many joints for some layers, (N, 21, 3)."""

    def moves(*layers):
        poses, labels = hands(HANDS17, N, dtype=torch.float64)
        return distorted(poses, labels, layers=layers) - poses.numpy()

    return moves


class TestAMove:
    @pytest.mark.parametrize(("radius", "std"), [(10.0, 2.0), (1.0, 5.0), (30.0, 0.5), (0.0, 3.0)])
    def test_has_the_length_of_a_radius_with_normal_noise(self, moves, radius, std):
        """The squared length is noncentral chi-square."""
        squared = (moves((1, radius, std)) ** 2).sum(axis=2).ravel() / std**2
        assert scipy.stats.kstest(squared, scipy.stats.ncx2(3, (radius / std) ** 2).cdf).pvalue > 1e-3

    def test_has_the_radius_exactly_where_there_is_no_noise(self, moves):
        lengths = np.linalg.norm(moves((1, 7.5, 0)), axis=2)
        np.testing.assert_allclose(lengths, 7.5, rtol=1e-9)

    @pytest.mark.parametrize(("radius", "std"), [(10.0, 0.0), (10.0, 4.0), (2.0, 6.0)])
    def test_points_in_all_directions_alike_whatever_its_length(self, moves, radius, std):
        """Archimedes: each coordinate of a uniform direction is uniform."""
        all_moves = moves((1, radius, std)).reshape(-1, 3)
        lengths = np.linalg.norm(all_moves, axis=1)
        long = lengths > np.median(lengths) if std > 0 else np.arange(len(lengths)) % 2 == 0
        for some in (all_moves, all_moves[long], all_moves[~long]):
            directions = some / np.linalg.norm(some, axis=1, keepdims=True)
            for coordinate in directions.T:
                assert scipy.stats.kstest(coordinate, "uniform", args=(-1, 2)).pvalue > 1e-3

    def test_is_that_of_the_sum_of_two_vectors(self, moves):
        """Drawn directly in NumPy: a point on a sphere, plus normal noise."""
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(20_000, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        expected = 6 * directions + rng.normal(scale=4, size=(20_000, 3))
        for one, other in zip(moves((1, 6, 4)).reshape(-1, 3).T, expected.T, strict=True):
            assert scipy.stats.ks_2samp(one, other).pvalue > 1e-3

    def test_is_independent_of_those_of_other_joints(self, moves):
        all_moves = moves((0.5, 5, 1), (0.5, 20, 3)).reshape(N, -1)
        lengths = np.linalg.norm(all_moves.reshape(N, J, 3), axis=2)
        for numbers in (all_moves, lengths):
            correlations = np.corrcoef(numbers, rowvar=False)
            off_diagonal = correlations[np.triu_indices_from(correlations, k=1)]
            assert np.abs(off_diagonal).max() < 5 / math.sqrt(N)

    @pytest.mark.parametrize(
        "probabilities", [(1.0,), (0.5, 0.5), (0.6, 0.3, 0.1), (0.0, 1.0), (0.25, 0.0, 0.75), (1 / 3, 1 / 3, 1 / 3)]
    )
    def test_is_in_each_layer_with_its_probability(self, moves, probabilities):
        layers = [(p, 10 * (i + 1), 0) for i, p in enumerate(probabilities)]
        layer = np.round(np.linalg.norm(moves(*layers), axis=2) / 10).astype(int).ravel() - 1
        counts = np.bincount(layer, minlength=len(probabilities))
        drawn = np.array(probabilities) > 0
        assert counts[~drawn].sum() == 0
        expected = np.array(probabilities)[drawn] * layer.size
        if len(expected) > 1:
            assert scipy.stats.chisquare(counts[drawn], expected).pvalue > 1e-3

    @pytest.mark.parametrize("layers", [((0.7, 10, 1), (0.3, 40, 2)), ((0.05, 10, 2), (0.0, 9, 9), (0.95, 50, 1))])
    def test_has_in_each_layer_the_length_that_it_has_alone(self, moves, layers):
        """One number determines the layer and, by its position in the layer, the angle between radius and noise."""
        lengths = np.linalg.norm(moves(*layers), axis=2).ravel()
        for probability, radius, std in layers:
            near = lengths[np.abs(lengths - radius) < 12]
            if probability > 0:
                assert scipy.stats.kstest((near / std) ** 2, scipy.stats.ncx2(3, (radius / std) ** 2).cdf).pvalue > 1e-3


class TestTheTableOfConfusions:
    def test_names_the_joints_of_hands17(self):
        assert HEADER[1:] == [row[0] for row in ROWS] == list(HANDS17.joint_names)

    def test_has_rows_that_are_probabilities(self):
        assert (TABLE >= 0).all()
        np.testing.assert_allclose(TABLE.sum(axis=1), 1, atol=1e-12)

    def test_confuses_joints_of_one_kind_alone_and_the_wrist_never(self):
        kinds = [name[1:] for name in HANDS17.joint_names]
        for joint, other in np.argwhere(TABLE > 0):
            assert kinds[joint] == kinds[other]
        assert np.flatnonzero(np.diag(TABLE)).tolist() == [0]
        assert TABLE[0].tolist() == [1] + [0] * 20

    def test_confuses_neighboring_fingers_more_often_than_distant_ones(self):
        fingers = "TIMRP"
        for joint, name in enumerate(HANDS17.joint_names[1:], start=1):
            shares = [TABLE[joint, HANDS17.joint_names.index(finger + name[1:])] for finger in fingers]
            own = fingers.index(name[0])
            assert shares[own] == 0
            assert shares[own:][1:] == sorted(shares[own:][1:], reverse=True)
            assert shares[:own] == sorted(shares[:own])


CONFUSION_PROB = 0.4


@pytest.fixture(scope="module")
def confused():
    """Confused poses (N, J, 3), the joint whose place each joint takes (N, J), and which were not confused (N, J).

    The joints are far apart and poses have no noise, so the place of each joint is certain.
    """
    labels = (1000.0 * torch.arange(J, dtype=torch.float64))[:, None].expand(N, J, 3).contiguous()
    poses = labels + 100
    moved = distorted(poses, labels, layers=[(1, 0, 0)], confusion_prob=CONFUSION_PROB, confusion_std_mm=3.0)
    place = np.round(moved[..., 0] / 1000).astype(int)
    stays = (moved == poses.numpy()).all(axis=2)
    return moved, place, stays


class TestAConfusedJoint:
    def test_is_as_frequent_as_asked_for_and_never_the_wrist(self, confused):
        _, _, stays = confused
        assert stays[:, 0].all()
        n_confused = (~stays[:, 1:]).sum()
        assert scipy.stats.binomtest(int(n_confused), stays[:, 1:].size, CONFUSION_PROB).pvalue > 1e-3

    def test_is_put_on_the_joints_that_the_table_tells(self, confused):
        _, place, stays = confused
        for joint in range(1, J):
            counts = np.bincount(place[~stays[:, joint], joint], minlength=J)
            possible = TABLE[joint] > 0
            assert counts[~possible].sum() == 0
            assert scipy.stats.chisquare(counts[possible], counts.sum() * TABLE[joint, possible]).pvalue > 1e-4

    def test_lies_about_the_label_of_the_other_joint_with_normal_noise(self, confused):
        moved, place, stays = confused
        noise = (moved - 1000.0 * place[..., None])[~stays] / 3.0
        assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3

    def test_is_any_joint_but_the_wrist_with_probability_one(self):
        poses, labels = hands(HANDS17, 50)
        moved = distorted(poses, labels, layers=[(1, 0, 0)], confusion_prob=1.0, confusion_std_mm=0.0)
        assert (moved[:, 0] == poses[:, 0].numpy()).all()
        to_labels = np.abs(moved[:, 1:, None] - labels.numpy()[:, None]).max(axis=3)  # (50, 20, 21)
        np.testing.assert_allclose(to_labels.min(axis=2), 0, atol=1e-4)
        assert (to_labels.argmin(axis=2) != np.arange(1, J)).all()

    @pytest.mark.parametrize("confusion_prob", [0.02, 0.7])
    def test_leaves_the_moves_of_the_others_as_they_would_be(self, confusion_prob):
        """One number determines whether a joint is confused and, if not, the angle between radius and noise."""
        labels = (1000.0 * torch.arange(J, dtype=torch.float64))[:, None].expand(N, J, 3).contiguous()
        moved = distorted(labels + 300, labels, layers=[(1, 10, 2)], confusion_prob=confusion_prob)
        moves = moved - labels.numpy() - 300
        squared = (moves**2).sum(axis=2)  # (N, J)
        others = squared < 100**2
        assert scipy.stats.kstest(squared[others] / 2**2, scipy.stats.ncx2(3, 5**2).cdf).pvalue > 1e-3
        directions = moves[others] / np.sqrt(squared[others])[:, None]
        for coordinate in directions.T:
            assert scipy.stats.kstest(coordinate, "uniform", args=(-1, 2)).pvalue > 1e-3

    @pytest.mark.parametrize("confusion_prob", [0.02, 0.7])
    def test_leaves_the_probabilities_of_layers_to_the_others(self, confusion_prob):
        """One number determines whether a joint is confused and, if not, its layer."""
        labels = (1000.0 * torch.arange(J, dtype=torch.float64))[:, None].expand(N, J, 3).contiguous()
        layers = [(0.6, 10, 0), (0.3, 20, 0), (0.1, 30, 0)]
        moved = distorted(labels + 300, labels, layers=layers, confusion_prob=confusion_prob)
        lengths = np.linalg.norm(moved - labels.numpy() - 300, axis=2)  # (N, J)
        counts = np.bincount(np.round(lengths[lengths < 40] / 10).astype(int), minlength=4)[1:]
        n_others = N + N * (J - 1) * (1 - confusion_prob)
        assert abs(counts.sum() - n_others) < 5 * math.sqrt(N * J * confusion_prob * (1 - confusion_prob))
        assert scipy.stats.chisquare(counts, counts.sum() * np.array([0.6, 0.3, 0.1])).pvalue > 1e-3


@pytest.mark.parametrize("skeleton", [NYU, ICVL], ids=lambda skeleton: skeleton.name)
def test_joints_of_another_skeleton_are_not_confused(skeleton):
    labels = hands(skeleton, 5)[1].numpy()
    LayeredGaussianDistorter(layers=[(1, 1, 1)]).check(skeleton, {}, labels)
    with pytest.raises(
        ValueError, match=rf"only for the HANDS17 skeleton.* has the {skeleton.name} .*set confusion_prob to 0"
    ):
        LayeredGaussianDistorter(layers=[(1, 1, 1)], confusion_prob=0.1).check(skeleton, {}, labels)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"layers": []}, "must sum to 1, not to 0"),
        ({"layers": [(0.5, 1, 1)]}, "must sum to 1, not to 0.5"),
        ({"layers": [(0.5, 1, 1), (0.6, 1, 1)]}, "must sum to 1, not to 1.1"),
        ({"layers": [(1, 1)]}, "must be triples"),
        ({"layers": 3}, "must be triples"),
        ({"layers": [("a", 1, 1)]}, "must be triples"),
        ({"layers": [(1, -1, 1)]}, "finite and at least 0"),
        ({"layers": [(1, 1, math.nan)]}, "finite and at least 0"),
        ({"layers": [(1.5, 1, 1), (-0.5, 1, 1)]}, "finite and at least 0"),
        ({"layers": [(1, 1, 1)], "confusion_prob": 1.1}, "confusion_prob must be from 0 to 1, not 1.1"),
        ({"layers": [(1, 1, 1)], "confusion_prob": math.nan}, "confusion_prob must be from 0 to 1"),
        ({"layers": [(1, 1, 1)], "confusion_std_mm": -1}, "confusion_std_mm must be finite and at least 0, not -1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        LayeredGaussianDistorter(**arguments)
