import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import nn

from data_pipeline.batch import DeviceDataset
from data_pipeline.frame_table import FrameTable
from data_pipeline.normalizers import GlobalNormalizer, Shifter
from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.skeleton import NYU
from posenet.evaluator import CURVE_THRESHOLDS_MM, STRENGTHS, CorrectionMeans, Evaluator
from posenet.models import Corrector, CorrectorMLP, MeanFusion, WeightedFusion
from tests.support import hands, pose_dataset

N = 80
SUBSETS = ("A", "B")

# Rounding may move a number that is closer to a threshold than this to the other side.
BORDERLINE_MM = 1e-3


class Waves(nn.Module):
    """Adds a smooth function of each coordinate, which NumPy can compute without weights."""

    def __init__(self, length):
        super().__init__()
        self.length = length  # one millimetre in the space of the poses
        self.amplitude = nn.Parameter(torch.tensor(6.0 * length))

    def forward(self, poses):
        return poses + self.amplitude * torch.sin(poses / (30 * self.length))


class WavesInPlace(Waves):
    def forward(self, poses):
        poses += self.amplitude * torch.sin(poses / (30 * self.length))
        return poses


class Nothing(nn.Module):
    def forward(self, poses):
        return poses


class NumpyFrames:
    """A normalizer in float64, for a whole set."""

    def __init__(self, normalizer, poses, fitted_to):
        poses = poses.astype(np.float64)
        points = fitted_to.reshape(-1, 3).astype(np.float64)
        self.origin, self.scale = {
            "none": (0, 1),
            "shifter": (poses.mean(axis=1, keepdims=True), 1),
            "global": (points.mean(axis=0), np.sqrt(((points - points.mean(axis=0)) ** 2).mean())),
        }[normalizer]

    def normalize(self, poses):
        return (poses.astype(np.float64) - self.origin) / self.scale

    def denormalize(self, poses):
        return poses * self.scale + self.origin


def numpy_waves(poses, length):
    return poses + 6.0 * length * np.sin(poses / (30 * length))


def distances_of(poses, labels):
    return np.sqrt(((poses - labels) ** 2).sum(axis=2))  # (N, J)


def in_any_space(poses, labels, skeleton):
    distances = distances_of(poses, labels)
    start, end = np.array(skeleton.bones).T
    a, b = (np.sqrt(((hand[:, end] - hand[:, start]) ** 2).sum(axis=2)) for hand in (poses, labels))
    pairs = list(itertools.combinations(range(len(start)), 2))
    first, second = np.array(pairs).T
    ratios = a[:, first] / a[:, second] / (b[:, first] / b[:, second])
    return {
        "distance": distances.mean(),
        "max_distance": distances.max(axis=1).mean(),
        "bone_length_error": np.abs(a - b).mean(),
        "proportion_error": np.clip(np.maximum(ratios, 1 / ratios) - 1, 0, 10).mean(),
    }


def area_under_curve(distances, low, high):
    """The integral of the staircase of success rates."""
    steps = np.unique(np.clip([low, high, *distances.ravel()], low, high))
    rates = np.searchsorted(np.sort(distances.ravel()), steps[:-1], side="right") / distances.size
    return np.dot(rates, np.diff(steps)) / (high - low)


def in_mm(poses, labels, skeleton):
    distances = distances_of(poses, labels)
    return in_any_space(poses, labels, skeleton) | {
        "frames_within_20mm": (distances.max(axis=1) <= 20).mean(),
        "auc_0_50": area_under_curve(distances, 0, 50),
        "auc_20_50": area_under_curve(distances, 20, 50),
    }


def procrustes(pose, label):
    """Aligns a pose, (J, 3), by the singular values of its products with the label (Umeyama 1991)."""
    source, target = pose - pose.mean(axis=0), label - label.mean(axis=0)
    left, values, right = np.linalg.svd(source.T @ target)
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    return label.mean(axis=0) + (values @ signs) / (source**2).sum() * source @ (left * signs) @ right


def acceleration(poses, t):
    return (poses[t + 1] - poses[t]) - (poses[t] - poses[t - 1])  # (J, 3)


def acceleration_error(poses, labels, middles=None):
    """The error around each of the middle frames, by default all of one sequence."""
    middles = range(1, len(poses) - 1) if middles is None else middles
    return np.mean([np.linalg.norm(acceleration(poses, t) - acceleration(labels, t), axis=1) for t in middles])


def detailed(poses, labels, skeleton):
    distances = distances_of(poses, labels)
    result = in_mm(poses, labels, skeleton)
    result["aligned_distance"] = distances_of(np.array(list(map(procrustes, poses, labels))), labels).mean()
    for joint, name in enumerate(skeleton.joint_names):
        result[f"distance[{name}]"] = distances[:, joint].mean()
    for name, joints in skeleton.fingers:
        result[f"distance[{name}]"] = distances[:, list(joints)].mean()
    for threshold in range(81):
        result[f"success_worst@{threshold}"] = (distances.max(axis=1) <= threshold).mean()
        result[f"success_mean@{threshold}"] = (distances.mean(axis=1) <= threshold).mean()
        result[f"success_joint@{threshold}"] = (distances <= threshold).mean()
    return result


class Case:
    """A set, a normalizer that learned from another, a corrector, and the same in NumPy."""

    def __init__(self, skeleton, normalizer):
        training, _ = hands(skeleton, 40, seed=1)
        self.skeleton, self.name = skeleton, normalizer
        self.normalizer = {"none": lambda _: None, "shifter": Shifter, "global": GlobalNormalizer}[normalizer](skeleton)
        if self.normalizer is not None:
            self.normalizer.fit([training])
        self.training = training.numpy()
        self.length = 1 / float(NumpyFrames(normalizer, self.training, self.training).scale)
        self.model = Waves(self.length)
        drawn = pose_dataset(skeleton, 2 * N, SUBSETS)
        clear = np.all([self.is_clear(drawn.poses[subset], drawn.labels) for subset in SUBSETS], axis=0)
        clear = np.flatnonzero(clear)[:N]
        assert len(clear) == N
        poses = {subset: array[clear] for subset, array in drawn.poses.items()}
        self.dataset = PoseDataset("hands", drawn.labels[clear], poses, skeleton, "")
        for array in (self.dataset.labels, *poses.values()):
            array.flags.writeable = False

    def corrected(self, poses):
        """The corrected poses in both spaces."""
        frames = NumpyFrames(self.name, poses, self.training)
        corrected = numpy_waves(frames.normalize(poses), self.length)
        return corrected, frames.denormalize(corrected)

    def is_clear(self, poses, labels):
        """Whether all distances of a frame are far from whole millimetres, and the frame has changed."""
        after = distances_of(self.corrected(poses)[1], labels)
        before = distances_of(poses.astype(np.float64), labels)
        numbers = [before, after, before.mean(axis=1, keepdims=True), after.mean(axis=1, keepdims=True)]
        numbers = np.concatenate(numbers, axis=1)
        apart = np.abs(numbers - np.round(numbers)).min(axis=1)
        return (apart > BORDERLINE_MM) & (np.abs(after.mean(axis=1) - before.mean(axis=1)) > BORDERLINE_MM)

    def evaluator(self, eval_space="default"):
        data = DeviceDataset.of(self.dataset, torch.device("cpu"))
        return Evaluator(data, normalizer=self.normalizer, eval_space=eval_space)

    def numpy_intermediate(self, subset, eval_space):
        labels = self.dataset.labels.astype(np.float64)
        poses = self.dataset.poses[subset]
        corrected, corrected_mm = self.corrected(poses)
        if self.name == "none" or eval_space == "original":
            return with_space("original", in_mm(corrected_mm, labels, self.skeleton))
        normalized = NumpyFrames(self.name, poses, self.training).normalize(labels)
        return with_space("default", in_any_space(corrected, normalized, self.skeleton)) | {
            ("original", "distance"): distances_of(corrected_mm, labels).mean()
        }

    def numpy_final(self, subset):
        labels, poses = self.dataset.labels.astype(np.float64), self.dataset.poses[subset]
        corrected, corrected_mm = self.corrected(poses)
        frames = NumpyFrames(self.name, poses, self.training)
        result = with_space("original", detailed(corrected_mm, labels, self.skeleton))
        result |= with_space("original", detailed(poses.astype(np.float64), labels, self.skeleton), "_before")
        if self.name != "none":
            spaces = (("", corrected), ("_before", frames.normalize(poses)))
            for suffix, normalized in spaces:
                values = in_any_space(normalized, frames.normalize(labels), self.skeleton)
                result |= with_space("default", values, suffix)
        before, after = (distances_of(hand, labels).mean(axis=1) for hand in (poses, corrected_mm))
        result["original", "improved"] = (after < before).mean()
        result["original", "worsened"] = (after > before).mean()
        result["original", "acceleration_error"] = acceleration_error(corrected_mm, labels)
        result["original", "acceleration_error_before"] = acceleration_error(poses.astype(np.float64), labels)
        return result


def with_space(space, values, suffix=""):
    return {(space, name + suffix): value for name, value in values.items()}


def by_subset(measurements):
    """Measured values as {subset: {(space, metric): value}}; each metric must occur once."""
    result = {}
    for m in measurements:
        assert (m.space, m.metric) not in result.setdefault(m.subset, {})
        result[m.subset][m.space, m.metric] = m.value
    return result


def assert_close(measured, expected, rtol=1e-6):
    assert measured.keys() == expected.keys()
    for key, value in expected.items():
        assert measured[key] == pytest.approx(value, rel=rtol), key


def acceleration_errors(case, frames, rows=slice(None)):
    """The acceleration errors of the samples `rows` of a case's set, with that frame table."""
    poses = {subset: array[rows] for subset, array in case.dataset.poses.items()}
    dataset = replace(case.dataset, labels=case.dataset.labels[rows], poses=poses, frames=frames)
    evaluator = Evaluator(
        DeviceDataset.of(dataset, torch.device("cpu")), normalizer=case.normalizer, eval_space="default"
    )
    measured = by_subset(evaluator.final(case.model))["B"]
    return [measured.get(("original", f"acceleration_error{suffix}")) for suffix in ("_before", "")]


@pytest.fixture(params=["none", "shifter", "global"])
def case(request, skeleton):
    return Case(skeleton, request.param)


@pytest.fixture
def nyu_case():
    return Case(NYU, "shifter")


class TestTheAccelerationError:
    @pytest.mark.parametrize("chunk", [1, 5, 1000])
    def test_is_over_three_successive_frames_of_a_sequence(self, nyu_case, chunk, monkeypatch):
        monkeypatch.setattr("posenet.evaluator._CHUNK_OF_A_CPU", chunk)
        index = np.arange(N)
        index[50:] += 1  # frame 50 is missing
        frames = FrameTable.of(sequence=["a"] * 30 + ["b"] * (N - 30), index=index)
        middles = [*range(1, 29), *range(31, 49), *range(51, N - 1)]
        labels, poses = nyu_case.dataset.labels.astype(np.float64), nyu_case.dataset.poses["B"]
        after = nyu_case.corrected(poses)[1]
        expected = [acceleration_error(hand, labels, middles) for hand in (poses.astype(np.float64), after)]
        assert acceleration_errors(nyu_case, frames) == pytest.approx(expected, rel=1e-6)

    def test_does_not_depend_on_the_order_of_the_file_if_the_frames_are_known(self, nyu_case):
        frames = FrameTable.of(sequence=["a", "b"] * (N // 2), index=np.arange(N) // 2)
        rows = np.random.default_rng(0).permutation(N)
        shuffled = acceleration_errors(nyu_case, frames.take(rows), rows)
        assert shuffled == pytest.approx(acceleration_errors(nyu_case, frames), rel=1e-9)
        assert shuffled != pytest.approx(acceleration_errors(nyu_case, FrameTable(), rows), rel=1e-2)

    def test_of_a_constant_or_steadily_growing_error_is_zero(self, nyu_case):
        labels = nyu_case.dataset.labels
        poses = labels + np.float32([3, 0, 0]) + np.arange(N, dtype=np.float32)[:, None, None] / 4
        data = DeviceDataset.of(replace(nyu_case.dataset, poses={"A": poses}), torch.device("cpu"))
        measured = by_subset(Evaluator(data, normalizer=None, eval_space="default").final(Nothing()))["A"]
        assert measured["original", "acceleration_error"] == pytest.approx(0, abs=1e-3)

    @pytest.mark.parametrize("n", [1, 2, N])
    def test_is_left_out_without_three_successive_frames(self, nyu_case, n):
        frames = FrameTable.of(sequence=["a"] * n, index=3 * np.arange(n) // 2)
        assert acceleration_errors(nyu_case, frames, slice(n)) == [None, None]


class TestValues:
    def test_of_the_final_evaluation_are_those_of_numpy_over_the_whole_set(self, case):
        measured = by_subset(case.evaluator().final(case.model))
        for subset in SUBSETS:
            assert_close(measured[subset], case.numpy_final(subset))

    @pytest.mark.parametrize("eval_space", ["default", "original"])
    def test_of_an_intermediate_evaluation_are_those_of_numpy_over_the_whole_set(self, case, eval_space):
        measured = by_subset(case.evaluator(eval_space).intermediate(case.model))
        for subset in SUBSETS:
            assert_close(measured[subset], case.numpy_intermediate(subset, eval_space))

    def test_do_not_depend_on_the_size_of_the_chunks(self, case, monkeypatch):
        chunk = 33
        assert N % chunk > 0
        evaluator = case.evaluator()
        monkeypatch.setattr("posenet.evaluator._CHUNK_OF_A_CPU", 10 * N)
        expected = by_subset(evaluator.final(case.model))
        monkeypatch.setattr("posenet.evaluator._CHUNK_OF_A_CPU", chunk)
        measured = by_subset(evaluator.final(case.model))
        for subset in ("mean", *SUBSETS):
            assert_close(measured[subset], expected[subset], rtol=1e-9)

    def test_are_told_for_the_mean_over_subsets_and_then_for_each(self, case):
        measured = by_subset(case.evaluator().final(case.model))
        assert list(measured) == ["mean", *SUBSETS]
        means = {key: (measured["A"][key] + measured["B"][key]) / 2 for key in measured["A"]}
        assert_close(measured["mean"], means, rtol=1e-12)

    def test_of_a_set_with_one_subset_are_those_of_the_mean_too(self):
        data = DeviceDataset.of(pose_dataset(NYU, 10), torch.device("cpu"))
        measured = by_subset(Evaluator(data, normalizer=None, eval_space="default").final(Nothing()))
        assert list(measured) == ["mean", "DEFAULT"]
        assert measured["mean"] == measured["DEFAULT"]

    def test_are_plain_numbers(self, nyu_case):
        assert all(type(m.value) is float for m in nyu_case.evaluator().final(nyu_case.model))

    def test_before_the_correction_are_those_of_a_corrector_that_changes_nothing(self, case):
        measured = by_subset(case.evaluator().final(Nothing()))["mean"]
        names = [(space, name) for space, name in measured if (space, f"{name}_before") in measured]
        assert len(names) == (len(measured) - 2) / 2
        for space, name in names:
            assert measured[space, name] == measured[space, f"{name}_before"]
        assert measured["original", "improved"] == measured["original", "worsened"] == 0

    def test_of_a_perfect_prediction_are_perfect(self, skeleton):
        _, labels = hands(skeleton, 10)
        dataset = PoseDataset("", labels.numpy(), {"A": labels.numpy()}, skeleton, "")
        data = DeviceDataset.of(dataset, torch.device("cpu"))
        measured = by_subset(Evaluator(data, normalizer=None, eval_space="default").final(Nothing()))["A"]
        for (_, name), value in measured.items():
            perfect = name.startswith(("success", "auc", "frames_within"))
            rounding = 1e-9 if name.startswith("aligned") else 0
            assert value == pytest.approx(1 if perfect else 0, abs=rounding, rel=0), name

    def test_share_improved_and_worsened_frames_between_them(self):
        """Labels are zero: halving a pose improves it, except the first one, which is already correct."""
        poses = np.ones((5, 14, 3), dtype=np.float32) * np.arange(5, dtype=np.float32)[:, None, None]
        dataset = PoseDataset("", np.zeros_like(poses), {"A": poses}, NYU, "")
        evaluator = Evaluator(DeviceDataset.of(dataset, torch.device("cpu")), normalizer=None, eval_space="default")

        class Scale(nn.Module):
            def __init__(self, factors):
                super().__init__()
                self.factors = torch.tensor(factors).view(-1, 1, 1)

            def forward(self, poses):
                return poses * self.factors

        for factors, improved, worsened in (([0.5] * 5, 0.8, 0), ([2.0] * 5, 0, 0.8), ([0.5, 2, 0.5, 2, 1], 0.2, 0.4)):
            measured = by_subset(evaluator.final(Scale(factors)))["A"]
            assert measured["original", "improved"] == pytest.approx(improved)
            assert measured["original", "worsened"] == pytest.approx(worsened)


class TestRelations:
    @pytest.fixture
    def measured(self, case):
        return by_subset(case.evaluator().final(case.model))["mean"]

    @pytest.mark.parametrize("suffix", ["", "_before"])
    def test_success_rates_never_fall_with_the_threshold_and_order_by_how_strict_they_are(self, measured, suffix):
        curves = {
            kind: [measured["original", f"success_{kind}@{t}{suffix}"] for t in CURVE_THRESHOLDS_MM]
            for kind in ("worst", "mean", "joint")
        }
        for curve in curves.values():
            assert len(curve) == 81
            assert all(low <= high for low, high in itertools.pairwise(curve))
            assert 0 <= curve[0] < curve[-1] <= 1
        assert all(worst <= mean for worst, mean in zip(curves["worst"], curves["mean"], strict=True))
        assert all(worst <= joint for worst, joint in zip(curves["worst"], curves["joint"], strict=True))

    @pytest.mark.parametrize("suffix", ["", "_before"])
    def test_the_distance_is_the_mean_of_those_of_the_joints(self, measured, skeleton, suffix):
        of_joints = [measured["original", f"distance[{name}]{suffix}"] for name in skeleton.joint_names]
        assert np.mean(of_joints) == pytest.approx(measured["original", f"distance{suffix}"], rel=1e-9)
        for finger, joints in skeleton.fingers:
            of_finger = np.mean([of_joints[joint] for joint in joints])
            assert measured["original", f"distance[{finger}]{suffix}"] == pytest.approx(of_finger, rel=1e-9)

    @pytest.mark.parametrize("suffix", ["", "_before"])
    def test_one_figure_has_one_value(self, measured, suffix):
        within = measured["original", f"frames_within_20mm{suffix}"]
        assert within == measured["original", f"success_worst@20{suffix}"]

    def test_a_frame_of_the_hand_without_a_scale_leaves_distances_in_millimetres(self, nyu_case):
        measured = by_subset(nyu_case.evaluator().final(nyu_case.model))["mean"]
        for name in ("distance", "max_distance", "bone_length_error"):
            assert measured["default", name] == pytest.approx(measured["original", name], rel=1e-4)

    def test_the_proportions_of_a_hand_are_the_same_in_both_spaces_where_all_axes_share_a_scale(self, skeleton):
        case = Case(skeleton, "global")
        measured = by_subset(case.evaluator().final(case.model))["mean"]
        proportions = [measured[space, "proportion_error"] for space in ("default", "original")]
        assert proportions[0] == pytest.approx(proportions[1], rel=1e-4)
        assert measured["default", "distance"] == pytest.approx(
            case.length * measured["original", "distance"], rel=1e-4
        )


class TestModel:
    @pytest.fixture(params=["intermediate", "final", "predict", "frame_errors"])
    def evaluate(self, request, nyu_case):
        evaluator = nyu_case.evaluator()
        if request.param == "frame_errors":
            return lambda model: torch.stack([torch.stack(both) for both in evaluator.frame_errors(model).values()])
        if request.param == "predict":
            return lambda model: evaluator.predict(model, "A", torch.arange(5))
        return getattr(evaluator, request.param)

    @pytest.mark.parametrize("training", [True, False])
    def test_is_in_evaluation_mode_meanwhile_and_as_before_afterwards(self, evaluate, training):
        modes = []

        class Model(Nothing):
            def forward(self, poses):
                modes.append((self.training, torch.is_grad_enabled()))
                return poses

        model = Model().train(training)
        evaluate(model)
        assert set(modes) == {(False, False)}
        assert model.training is training
        assert torch.is_grad_enabled()

    def test_is_as_before_after_an_error_too(self, evaluate):
        class Broken(Nothing):
            def forward(self, poses):
                raise ArithmeticError

        model = Broken()
        with pytest.raises(ArithmeticError):
            evaluate(model)
        assert model.training
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()

    def test_gets_no_gradient_and_keeps_the_one_that_it_has(self, evaluate, nyu_case):
        model = nyu_case.model
        model.amplitude.grad = torch.tensor(3.0)
        evaluate(model)
        assert model.amplitude.grad.item() == 3

    def test_has_its_dropout_off_and_its_statistics_left_alone(self, evaluate):
        model = CorrectorMLP(NYU, hidden_dims=[16], dropout=0.5, batchnorm=True)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        random_state = torch.get_rng_state()
        first, second = evaluate(model), evaluate(model)
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
        assert torch.equal(torch.get_rng_state(), random_state)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_can_be_trained_with_afterwards(self, evaluate, nyu_case):
        evaluate(nyu_case.model)
        poses, _ = hands(NYU, 3)
        nyu_case.model(poses).sum().backward()
        assert nyu_case.model.amplitude.grad.isfinite()

    def test_that_works_in_place_changes_neither_the_dataset_nor_a_number(self, case):
        before = {name: array.copy() for name, array in case.dataset.poses.items()}
        labels = case.dataset.labels.copy()
        evaluator, in_place = case.evaluator(), WavesInPlace(case.length)
        assert evaluator.final(in_place) == evaluator.final(case.model)
        assert evaluator.intermediate(in_place) == evaluator.intermediate(case.model)
        for one, other in zip(
            *(evaluator.frame_errors(model).values() for model in (in_place, case.model)), strict=True
        ):
            assert torch.equal(torch.stack(one), torch.stack(other))
        indices = torch.arange(5)
        in_place, ordinary = (evaluator.predict(model, "B", indices) for model in (in_place, case.model))
        assert torch.equal(in_place, ordinary)
        np.testing.assert_array_equal(case.dataset.labels, labels)
        for subset in SUBSETS:
            np.testing.assert_array_equal(case.dataset.poses[subset], before[subset])


class TestFrameErrors:
    @pytest.mark.parametrize("chunk", [7, 1000])
    def test_are_each_frames_mean_distance_before_and_after_in_order(self, case, chunk, monkeypatch):
        monkeypatch.setattr("posenet.evaluator._CHUNK_OF_A_CPU", chunk)
        found = case.evaluator().frame_errors(case.model)
        assert list(found) == list(SUBSETS)
        for subset, errors_mm in found.items():
            poses, labels = case.dataset.poses[subset], case.dataset.labels
            for measured, hand in zip(errors_mm, (poses, case.corrected(poses)[1]), strict=True):
                np.testing.assert_allclose(measured, distances_of(hand, labels).mean(axis=1), rtol=0, atol=1e-3)

    def test_have_the_mean_that_the_final_evaluation_tells(self, case):
        final = by_subset(case.evaluator().final(case.model))
        for subset, errors_mm in case.evaluator().frame_errors(case.model).items():
            for metric, measured in zip(("distance_before", "distance"), errors_mm, strict=True):
                assert measured.mean().item() == pytest.approx(final[subset]["original", metric], rel=1e-6)


class TestPredictions:
    def test_are_the_corrected_poses_in_millimetres_in_the_order_of_the_indices(self, case):
        indices = torch.tensor([9, 2, 2, 0])
        predicted = case.evaluator().predict(case.model, "B", indices)
        _, expected = case.corrected(case.dataset.poses["B"])
        np.testing.assert_allclose(predicted, expected[indices], rtol=0, atol=1e-3)

    def test_do_not_depend_on_the_space_of_evaluation(self, case):
        first, second = (
            case.evaluator(space).predict(case.model, "A", torch.arange(3)) for space in ("default", "original")
        )
        assert torch.equal(first, second)


def test_without_a_normalizer_the_space_is_that_of_millimetres():
    data = DeviceDataset.of(pose_dataset(NYU, 3), torch.device("cpu"))
    evaluator = Evaluator(data, normalizer=None, eval_space="default")
    assert evaluator.eval_space == "original"
    assert {m.space for m in (*evaluator.final(Nothing()), *evaluator.intermediate(Nothing()))} == {"original"}


class Shift(Corrector):
    """Adds one correction to all poses."""

    def __init__(self, skeleton, shift):
        super().__init__(skeleton)
        self.shift = shift

    def correction(self, poses):
        return self.shift.expand_as(poses)


class TestBestStrength:
    @pytest.mark.parametrize("factor", [0.9, 1.3, 2.5, 20])
    def test_is_the_one_that_gives_the_lowest_error_of_all(self, skeleton, factor):
        case = Case(skeleton, "global")
        errors_mm = np.mean([case.dataset.labels - poses for poses in case.dataset.poses.values()], axis=(0, 1))
        model = Shift(skeleton, torch.tensor(factor * case.length * errors_mm, dtype=torch.float32))
        found = case.evaluator().best_strength(model)
        model.add_strength()
        distances = {}
        for strength in STRENGTHS:
            model.chosen_strength.fill_(strength)
            measured = by_subset(case.evaluator().intermediate(model))["mean"]
            distances[strength] = measured["original", "distance"]
        assert found == min(distances, key=distances.get)
        assert found == pytest.approx(min(1, 1 / factor), abs=0.2)

    def test_is_zero_for_a_correction_that_only_harms(self):
        case = Case(NYU, "shifter")
        assert case.evaluator().best_strength(Shift(NYU, torch.tensor(100.0))) == 0


class TestCorrectionMeans:
    def test_are_those_of_the_final_evaluation_whatever_the_chunks(self):
        poses, labels = hands(NYU, N)
        corrected = Waves(1.0)(poses).detach()
        data = DeviceDataset(labels, {"A": poses}, NYU)
        final = Evaluator(data, normalizer=None, eval_space="default").final(Waves(1.0))
        measured = {m.metric: m.value for m in final if m.subset == "A" and m.space == "original"}
        # Samples that are corrected need not be successive frames.
        expected = {name: value for name, value in measured.items() if not name.startswith("acceleration_error")}
        for size in (N, 7):
            means = CorrectionMeans(NYU)
            for rows in torch.arange(N).split(size):
                means.add(poses[rows], corrected[rows], labels[rows])
            assert means.metrics() == pytest.approx(expected, rel=1e-6)

    def test_take_rounding_for_no_change(self):
        poses, labels = hands(NYU, N)
        means = CorrectionMeans(NYU)
        centre = poses.mean(dim=1, keepdim=True)
        means.add(poses, (poses - centre) * 0.3 / 0.3 + centre, labels)
        metrics = means.metrics()
        assert metrics["improved"] == metrics["worsened"] == 0


class TestOfAModelThatFusesSubsets:
    @pytest.fixture(params=[None, Shifter], ids=str)
    def evaluator(self, request):
        data = DeviceDataset.of(pose_dataset(NYU, N, SUBSETS), torch.device("cpu"))
        normalizer = None if request.param is None else request.param(NYU)
        return Evaluator(data, normalizer=normalizer, eval_space="original")

    @pytest.fixture
    def mean(self):
        """The mean pose of each frame in float64, (N, J, 3)."""
        return np.mean([poses.astype(np.float64) for poses in pose_dataset(NYU, N, SUBSETS).poses.values()], axis=0)

    @pytest.fixture
    def labels(self):
        return pose_dataset(NYU, N, SUBSETS).labels

    def test_there_is_one_result_before_which_is_the_error_of_the_mean_pose(self, evaluator, mean, labels):
        found = by_subset(evaluator.final(MeanFusion(NYU, sigma=1.0)))
        assert found.keys() == {"mean", "fused"}
        assert found["mean"] == found["fused"]
        smoothed = gaussian_filter1d(mean, 1.0, axis=0, mode="nearest", radius=3)
        for metric, poses in {"distance_before": mean, "distance": smoothed}.items():
            expected = distances_of(poses, labels).mean()
            assert found["fused"]["original", metric] == pytest.approx(expected, rel=1e-5)

    def test_frames_and_predictions_are_those_of_the_fused_pose(self, evaluator, mean, labels):
        model = MeanFusion(NYU)
        by_name = evaluator.frame_errors(model)
        assert by_name.keys() == {"fused"}
        for found in by_name["fused"]:
            np.testing.assert_allclose(found, distances_of(mean, labels).mean(axis=1), rtol=1e-4)
        predicted = evaluator.predict(model, "A", torch.tensor([3, 0]))
        np.testing.assert_allclose(predicted, mean[[3, 0]], atol=1e-3)

    def test_the_strength_is_the_best_between_the_mean_pose_and_the_fused_one(self, evaluator, mean, labels):
        model = WeightedFusion(NYU, n_subsets=2)
        with torch.no_grad():
            model.scores.copy_(torch.tensor([[9.0], [0.0]]).expand(2, 14))
        first = pose_dataset(NYU, N, SUBSETS).poses["A"]
        weight = 1 / (1 + np.exp(-9.0))
        fused = weight * first + (1 - weight) * (2 * mean - first)
        by_hand = {s: distances_of(mean + s * (fused - mean), labels).mean() for s in STRENGTHS}
        assert evaluator.best_strength(model) == min(by_hand, key=by_hand.get)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_a_metric_of_the_users_own_may_count(dtype):
    dataset = DeviceDataset.of(pose_dataset(NYU, N, SUBSETS), torch.device("cpu"))

    def all_but_one(poses, labels, skeleton):
        differences = (poses - labels).flatten(1)
        return (torch.arange(differences.shape[1]) > 0).expand(differences.shape).to(dtype)

    evaluator = Evaluator(dataset, normalizer=None, eval_space="original", own_metrics=[all_but_one])
    found = {(m.subset, m.metric): m.value for m in evaluator.intermediate(Nothing())}
    assert found["A", "all_but_one"] == 1 - 1 / (3 * NYU.n_joints)
