import math

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from data_pipeline.batch import Batch
from data_pipeline.formats.leaderboard import read_results
from data_pipeline.normalizers import ViewpointNormalizer
from data_pipeline.skeleton import HANDS17, ICVL, NYU
from posenet.models import GaussianSmoother, KernelCorrector
from tests.posenet_tests.models.support import KERNEL, fit, normalized_hands
from tests.support import SHARED_DATA, generator


def gaussian_kernel(first, second, bandwidth):
    """The kernel by its description, (N, M), from poses (N, J, 3) and (M, J, 3)."""
    squared = (first[:, None] - second).square().sum(dim=3).mean(dim=2)  # (N, M, J, 3) -> (N, M)
    return (-squared / (2 * bandwidth**2)).exp()


class TestKernelCorrector:
    @pytest.fixture
    def samples(self, skeleton):
        return normalized_hands(skeleton, 40)

    @pytest.fixture
    def unseen(self, skeleton):
        return normalized_hands(skeleton, 10, seed=1)[0].double()

    @pytest.mark.parametrize(("bandwidth", "ridge"), [(0.5, 0.1), (1.0, 3.0), (2.0, 1e-2)])
    def test_is_the_kernel_ridge_regression_of_scikit_learn_if_every_sample_is_a_centre(
        self, skeleton, samples, unseen, bandwidth, ridge
    ):
        model = KernelCorrector(skeleton, bandwidth=bandwidth, ridge=ridge)
        fit(model, *samples)
        poses, labels = (points.double().flatten(1).numpy() for points in samples)
        # Its gamma is for the sum over joints.
        reference = KernelRidge(alpha=ridge, kernel="rbf", gamma=1 / (2 * skeleton.n_joints * bandwidth**2))
        expected = reference.fit(poses, labels - poses).predict(unseen.flatten(1).numpy())
        np.testing.assert_allclose(model.correction(unseen).flatten(1), expected, atol=1e-4 * abs(expected).max())

    def test_is_the_ridge_regression_of_scikit_learn_on_kernels_whitened_by_those_of_fewer_centres(
        self, skeleton, samples, unseen
    ):
        """For the features Φ = K_xc (K_cc)^(−1/2), whose inner products are the Nyström approximation of the kernel."""
        model = KernelCorrector(skeleton, **KERNEL, n_centres=12)
        fit(model, *samples)
        poses, labels = (points.double() for points in samples)
        values, vectors = torch.linalg.eigh(gaussian_kernel(poses[:12], poses[:12], KERNEL["bandwidth"]))
        whitening = vectors / values.sqrt() @ vectors.T
        features, others = (gaussian_kernel(x, poses[:12], KERNEL["bandwidth"]) @ whitening for x in (poses, unseen))
        reference = Ridge(alpha=0.1, fit_intercept=False).fit(features, (labels - poses).flatten(1))
        expected = reference.predict(others)
        np.testing.assert_allclose(model.correction(unseen).flatten(1), expected, atol=1e-4 * abs(expected).max())

    def test_does_not_depend_on_how_the_samples_are_batched(self, skeleton, samples, unseen):
        for n_centres in (12, 100):
            fits = []
            for batch_size in (1, 16, 40):
                model = KernelCorrector(skeleton, **KERNEL, n_centres=n_centres)
                fit(model, *samples, batch_size)
                fits.append(model(unseen))
            torch.testing.assert_close(fits[1:], fits[:1] * 2, rtol=0, atol=1e-9)

    def test_fits_epochs_of_the_same_samples_as_one(self, skeleton, samples, unseen):
        once, three_times = (KernelCorrector(skeleton, **KERNEL, n_centres=12) for _ in range(2))
        fit(once, *samples)
        for _ in range(3):
            fit(three_times, *samples)
        torch.testing.assert_close(three_times(unseen), once(unseen), rtol=0, atol=1e-9)

    def test_fits_all_epochs_and_not_only_the_last_one(self, skeleton, samples, unseen):
        """Each of two epochs counts half, so the mean of their labels has the same fit."""
        poses, labels = samples
        both, mean = (KernelCorrector(skeleton, **KERNEL, n_centres=12) for _ in range(2))
        fit(both, poses, labels)
        fit(both, poses, labels + 1)
        fit(mean, poses, labels + 0.5)
        torch.testing.assert_close(both(unseen), mean(unseen), rtol=0, atol=1e-5)

    def test_returns_its_input_before_it_is_fitted(self, skeleton, unseen):
        assert torch.equal(KernelCorrector(skeleton, **KERNEL)(unseen), unseen)

    def test_in_the_axes_of_the_palm_turns_with_the_hand(self):
        model = KernelCorrector(HANDS17, **KERNEL, axes=["palm"])
        fit(model, *normalized_hands(HANDS17, 30))
        others = normalized_hands(HANDS17, 5, seed=9)[0]
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(0)))[0]
        turn = turn * torch.linalg.det(turn)  # a proper rotation
        torch.testing.assert_close(model.correction(others @ turn), model.correction(others) @ turn, atol=1e-4, rtol=0)
        assert model.correction(others).abs().max() > 1e-2

    def test_in_two_axes_is_the_mean_of_both(self):
        others = normalized_hands(HANDS17, 5, seed=9)[0]
        corrections = []
        for axes in (["input"], ["palm"], ["input", "palm"]):
            model = KernelCorrector(HANDS17, **KERNEL, axes=axes)
            fit(model, *normalized_hands(HANDS17, 30))
            corrections.append(model.correction(others))
        torch.testing.assert_close(corrections[2], (corrections[0] + corrections[1]) / 2)

    def test_that_smooths_is_a_smoother_followed_by_a_regression_on_smoothed_poses(self):
        poses, labels = normalized_hands(HANDS17, 30)
        model, plain = KernelCorrector(HANDS17, **KERNEL, sigma=1.0), KernelCorrector(HANDS17, **KERNEL)
        windows = model.window.of_run(poses)
        smoothed = GaussianSmoother(HANDS17, sigma=1.0)(windows)
        fit(model, windows, labels)
        fit(plain, smoothed, labels)
        torch.testing.assert_close(model(windows), plain(smoothed))

    @pytest.mark.parametrize("causal", [False, True])
    def test_with_the_size_of_the_hand_has_a_kernel_for_its_mean_bone_lengths_too(self, causal):
        """Compared with scikit-learn, with the product of both kernels; one bone after the other, by hand."""
        poses, labels = normalized_hands(NYU, 500)
        model = KernelCorrector(NYU, **KERNEL, n_centres=500, hand_bandwidth=0.3, causal=causal)
        windows = model.window.of_run(poses)
        fit(model, windows, labels)

        distances = np.arange(-400, 1, 25) if causal else np.arange(-200, 201, 25)
        frames = (np.arange(500)[:, None] + distances).clip(0, 499)  # (N, 17)
        points = poses.double().numpy()
        lengths = [np.linalg.norm(points[:, a] - points[:, b], axis=1)[frames].mean(axis=1) for a, b in NYU.bones]
        hands_apart = sum(np.subtract.outer(each, each) ** 2 for each in lengths) / len(NYU.bones)  # (N, N)
        kernels = gaussian_kernel(poses.double(), poses.double(), KERNEL["bandwidth"]).numpy()
        kernels = kernels * np.exp(-hands_apart / (2 * 0.3**2))
        reference = KernelRidge(alpha=KERNEL["ridge"], kernel="precomputed")
        expected = reference.fit(kernels, (labels - poses).double().flatten(1).numpy()).predict(kernels)
        np.testing.assert_allclose(model.correction(windows).flatten(1), expected, atol=1e-4 * abs(expected).max())

    def test_with_the_size_of_the_hand_leaves_a_hand_of_another_size_as_it_is(self):
        poses, labels = normalized_hands(NYU, 40)
        model = KernelCorrector(NYU, bandwidth=100.0, ridge=0.1, hand_bandwidth=0.01)
        windows = model.window.of_run(poses)
        fit(model, windows, labels)
        assert model.correction(windows).abs().max() > 1e-2
        assert model.correction(1.2 * windows).abs().max() < 1e-6

    @pytest.mark.parametrize("axes", [[], ["camera"], ["palm", "palm"]])
    def test_refuses_other_axes(self, axes):
        with pytest.raises(ValueError, match="axes must have one or both of input, palm, not"):
            KernelCorrector(HANDS17, **KERNEL, axes=axes)

    def test_hardly_corrects_a_pose_that_is_far_from_all_centres(self, skeleton, samples):
        model = KernelCorrector(skeleton, **KERNEL)
        fit(model, *samples)
        assert model.correction(samples[0] + 10).abs().max() < 1e-6

    def test_has_a_stable_fit_with_a_sample_that_occurs_many_times(self, skeleton, samples):
        poses, labels = (points[:1].expand(30, -1, -1) for points in samples)
        model = KernelCorrector(skeleton, **KERNEL)
        fit(model, poses, labels)
        # 30 equal samples are one with 1/30 of the ridge.
        expected = (labels - poses) * 30 / (30 + 0.1)
        torch.testing.assert_close(model.correction(poses), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"bandwidth": 0}, "bandwidth must be a finite number above 0, not 0"),
            ({"ridge": math.inf}, "ridge must be a finite number above 0, not inf"),
            ({"n_centres": 0}, "n_centres must be a whole number of at least 1, not 0"),
            ({"hand_bandwidth": -1.0}, "hand_bandwidth must be a finite number above 0, not -1.0"),
        ],
    )
    def test_refuses_settings_without_a_solution(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            KernelCorrector(HANDS17, **{**KERNEL, **wrong})


ICVL_FILES = {"Pose-REN": "NEUCOM18_ICVL_Pose_REN.txt", "DeepModel": "IJCAI16_ICVL_DeepModel.txt"}

ICVL_SEQUENCES = {1: np.arange(702), 2: np.arange(702, 1596)}


@pytest.mark.skipif(not (SHARED_DATA / "icvl").is_dir(), reason=f"{SHARED_DATA / 'icvl'} is missing")
@pytest.mark.parametrize(
    ("backbone", "trained_on", "bandwidth", "ridge", "before", "after"),
    [
        # The settings were chosen on the last 20 % of the training sequence.
        ("Pose-REN", 1, 8, 3, 6.22, 5.65),
        ("Pose-REN", 2, 8, 1, 7.52, 6.53),
        ("DeepModel", 1, 8, 0.3, 10.37, 9.09),
        ("DeepModel", 2, 12, 0.1, 13.08, 9.69),
    ],
)
def test_a_kernel_corrector_of_one_icvl_sequence_improves_the_other(
    backbone, trained_on, bandwidth, ridge, before, after
):
    folder = SHARED_DATA / "icvl"
    results = {backbone: folder / ICVL_FILES[backbone]}
    labels, poses = read_results(folder / "icvl_test_groundtruth_label.txt", results, "icvl")
    sequence, others = ICVL_SEQUENCES[trained_on], ICVL_SEQUENCES[3 - trained_on]
    normalizer = ViewpointNormalizer(ICVL)
    batches = {
        part: Batch.of(torch.tensor(poses[backbone][rows]), torch.tensor(labels[rows]), normalizer)
        for part, rows in {"train": sequence[: round(0.8 * len(sequence)) - 10], "test": others}.items()
    }
    model = KernelCorrector(ICVL, bandwidth=bandwidth, ridge=ridge, n_centres=1000)
    fit(model, batches["train"].poses, batches["train"].labels)
    test = batches["test"]
    errors = [(points - test.labels).norm(dim=2).mean().item() for points in (test.poses, model(test.poses))]
    assert errors == pytest.approx([before, after], abs=0.006)
