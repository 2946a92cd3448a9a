import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import nn

from data_pipeline.batch import DeviceDataset, Window
from data_pipeline.formats.frames import Frames
from data_pipeline.formats.leaderboard import read_results
from data_pipeline.formats.recordings import nyu_frames
from data_pipeline.pose_dataset import PoseDataset, Samples
from data_pipeline.skeleton import HANDS17, NYU
from posenet.evaluator import Evaluator
from posenet.models import AgreementFusion, MeanFusion, SteadinessFusion, WeightedFusion
from tests.posenet_tests.models.support import AGREEMENT, NUMPY_ACTIVATIONS, normalized_hands, seeded
from tests.support import SHARED_DATA, generator


def windows_of(model, sequences):
    """Returns what a model that fuses subsets sees, (N, S, W, J, 3), of S sequences, (N, J, 3) each."""
    return torch.stack([model.window.of_run(sequence) for sequence in sequences], dim=1)


class TestModelsThatFuseSubsets:
    @pytest.fixture
    def sequences(self):
        """The poses of three backbones, (3, 30, 21, 3)."""
        return torch.stack([normalized_hands(HANDS17, 30, seed)[0] for seed in range(3)])

    def test_return_the_mean_smoothed_as_scipy_does(self, sequences):
        model = MeanFusion(HANDS17, sigma=2.0)
        mean = sequences.double().mean(dim=0).numpy()
        expected = gaussian_filter1d(mean, 2.0, axis=0, mode="nearest", radius=6)
        np.testing.assert_allclose(model(windows_of(model, sequences)), expected, atol=1e-5)

    def test_see_single_frames_without_smoothing(self, sequences):
        model = MeanFusion(HANDS17)
        assert model.window == Window(0, 0)
        torch.testing.assert_close(model(windows_of(model, sequences)), sequences.mean(dim=0))

    @pytest.mark.parametrize("sigma", [None, 1.0])
    @pytest.mark.parametrize("member", [WeightedFusion, AgreementFusion])
    def test_start_as_the_mean(self, sequences, member, sigma):
        mean, model = MeanFusion(HANDS17, sigma=sigma), member(HANDS17, n_subsets=3, sigma=sigma)
        windows = windows_of(model, sequences)
        torch.testing.assert_close(model(windows), mean(windows), rtol=0, atol=1e-5)

    def test_weight_each_joint_by_the_softmax_of_its_numbers(self, sequences):
        model = WeightedFusion(HANDS17, n_subsets=3)
        numbers = np.random.default_rng(0).normal(size=(3, 21))
        with torch.no_grad():
            model.scores.copy_(torch.tensor(numbers))
        weights = np.exp(numbers) / np.exp(numbers).sum(axis=0)
        expected = np.einsum("sj,snjc->njc", weights, sequences.double().numpy())
        np.testing.assert_allclose(model(windows_of(model, sequences)).detach(), expected, atol=1e-5)

    def test_of_agreement_see_what_numpy_computes_from_the_poses(self, sequences):
        model = seeded(lambda: AgreementFusion(HANDS17, **AGREEMENT, sigma=1.0)).double()
        poses = sequences.double().numpy()
        smooth = gaussian_filter1d(poses, 1.0, axis=1, mode="nearest", radius=3)
        from_mean = np.sqrt(((poses - poses.mean(axis=0)) ** 2).sum(axis=3))  # (S, N, J)
        from_smooth = np.sqrt(((poses - smooth) ** 2).sum(axis=3))
        distances = np.concatenate([from_mean, from_smooth])  # (2·S, N, J)
        of_hand = np.broadcast_to(distances.mean(axis=2, keepdims=True), distances.shape)
        inputs = np.log1p(np.concatenate([distances, of_hand]))  # (4·S, N, J)
        w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.parameters())
        hidden = NUMPY_ACTIVATIONS["leaky_relu"](np.einsum("hi,inj->njh", w1, inputs) + b1)
        scores = np.exp(hidden @ w2.T + b2)  # (N, J, S)
        weights = scores / scores.sum(axis=2, keepdims=True)
        expected = np.einsum("njs,snjc->njc", weights, smooth)
        np.testing.assert_allclose(model(windows_of(model, sequences.double())).detach(), expected, atol=1e-5)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: MeanFusion(HANDS17, sigma=1.0),
            lambda: SteadinessFusion(HANDS17, sigma=1.0),
            lambda: WeightedFusion(HANDS17, n_subsets=3, sigma=1.0),
            lambda: AgreementFusion(HANDS17, **AGREEMENT, sigma=1.0),
        ],
    )
    def test_move_with_the_hand(self, sequences, make):
        model = seeded(make)
        windows, shift = windows_of(model, sequences), torch.tensor([3.0, -2.0, 5.0])
        torch.testing.assert_close(model(windows + shift), model(windows) + shift, atol=1e-4, rtol=0)

    def test_of_steadiness_weigh_subsets_by_the_inverse_of_their_squared_accelerations(self, sequences):
        poses = sequences.double()
        model = SteadinessFusion(HANDS17, sigma=1.0)
        found = model(windows_of(model, poses))
        smooth = gaussian_filter1d(poses.numpy(), 1.0, axis=1, mode="nearest", radius=3)  # (S, N, J, 3)
        for i in (3, 11, 26):  # no frame is repeated in their windows
            near = poses[:, i - 3 : i + 4].numpy()  # (S, 7, J, 3)
            accelerations = near[:, 2:] - 2 * near[:, 1:-1] + near[:, :-2]
            weights = 1 / (accelerations**2).mean(axis=(1, 2, 3))
            expected = np.average(smooth[:, i], axis=0, weights=weights)
            np.testing.assert_allclose(found[i], expected, atol=1e-6)

    def test_of_steadiness_prefer_the_backbone_with_less_noise_and_average_still_ones(self):
        hand = normalized_hands(HANDS17, 1)[0].expand(40, -1, -1)
        still, noisy = hand, hand + torch.randn(hand.shape, generator=generator(0))
        model = SteadinessFusion(HANDS17, sigma=1.0)
        torch.testing.assert_close(model(windows_of(model, [noisy, still])), hand, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(windows_of(model, [hand, hand + 1])), hand + 0.5, atol=1e-5, rtol=0)

    def test_of_steadiness_refuse_a_window_without_a_second_difference(self):
        with pytest.raises(
            ValueError, match=r"sigma must be at least 0\.34 for a causal window of three frames, not 0.3"
        ):
            SteadinessFusion(HANDS17, sigma=0.3, causal=True)

    def test_of_one_backbone_three_times_return_its_pose(self, sequences):
        model = seeded(lambda: AgreementFusion(HANDS17, **AGREEMENT))
        windows = windows_of(model, sequences[:1].expand(3, -1, -1, -1))
        torch.testing.assert_close(model(windows), sequences[0], atol=1e-5, rtol=0)

    def test_refuse_a_number_of_subsets_below_1(self):
        for member in (WeightedFusion, AgreementFusion):
            with pytest.raises(ValueError, match="n_subsets must be a whole number of at least 1, not 0"):
                member(HANDS17, n_subsets=0)


NYU_FILES = {"Pose-REN": "NEUCOM18_NYU_Pose_REN.txt", "DeepPrior++": "ICCVW17_NYU_DeepPrior++.txt"}


@pytest.mark.skipif(not (SHARED_DATA / "nyu").is_dir(), reason=f"{SHARED_DATA / 'nyu'} is missing")
def test_the_mean_of_two_backbones_of_nyu_is_better_when_smoothed_and_best_when_the_steadier_one_counts_more():
    folder = SHARED_DATA / "nyu"
    results = {backbone: folder / file for backbone, file in NYU_FILES.items()}
    labels, poses = read_results(folder / "nyu_test_groundtruth_label.txt", results, "nyu")
    whole = Samples(labels, poses, nyu_frames(Frames(labels)))
    found = []
    for rows in (np.arange(2440), np.arange(2440, len(labels))):
        person = whole.take(rows)
        dataset = PoseDataset("nyu", person.labels, person.poses, NYU, "", person.frames)
        data = DeviceDataset.of(dataset, torch.device("cpu"))
        evaluator = Evaluator(data, normalizer=None, eval_space="default")
        means = [MeanFusion(NYU), MeanFusion(NYU, sigma=1.0), MeanFusion(NYU, sigma=2.0)]
        for model in (None, *means, SteadinessFusion(NYU, sigma=2.0)):
            measured = evaluator.intermediate(nn.Identity() if model is None else model)
            found += [m.value for m in measured if m.metric == "distance" and m.subset != "mean"]
    expected = [*(5.34, 6.93, 5.46, 5.38, 5.43, 5.31), *(14.53, 14.47, 12.94, 12.79, 12.77, 12.67)]
    assert found == pytest.approx(expected, abs=0.006)
