import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from data_pipeline import distorters
from data_pipeline.distorters import (
    Distorter,
    ErrorBankDistorter,
    GaussianDistorter,
    InterpolationDistorter,
    LayeredGaussianDistorter,
    NeighborErrorBankDistorter,
    NoDistorter,
    TrainingSamples,
)
from data_pipeline.skeleton import HANDS17, NYU
from data_pipeline.tables import NeighborTable, Table, label_keys
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

LAYERS = ((0.7, 0.0, 4.0), (0.2, 10.0, 2.0), (0.1, 30.0, 5.0))
NEAR = {"bank_name": "bank", "neighbors_name": "near"}
ARGUMENTS = {
    GaussianDistorter: [{"std_mm": 10.0}, {"std_mm": 0}, {"stats_name": "stats"}],
    LayeredGaussianDistorter: [
        {"layers": LAYERS},
        {"layers": [(1, 0, 0)]},
        {"layers": [(0, 5, 5), (1, 0, 0)]},
        {"layers": [(1, 0, 0)], "confusion_prob": 0.5},
        {"layers": LAYERS, "confusion_prob": 0.1, "confusion_std_mm": 2.0},
    ],
    ErrorBankDistorter: [
        {"bank_name": "bank"},
        {"bank_name": "bank", "strength_mean": 0.8, "strength_std": 0.3},
        {"bank_name": "bank", "strength_mean": 0},
    ],
    NeighborErrorBankDistorter: [
        {**NEAR, "max_k": 3},
        {**NEAR, "max_k": 5, "strength_location": 0.5, "strength_scale": 0.2, "strength_shape": -3.0},
        {**NEAR, "max_k": 1, "strength_location": 0, "strength_scale": 0},
    ],
    InterpolationDistorter: [{}, {"strength_location": 0.7, "strength_scale": 0.5, "strength_shape": 2.0}],
}

CASES = cases(distorters, Distorter, ARGUMENTS)

N, N_BANK, K = 20, 40, 5


def tables_for(skeleton, labels):
    """All tables that the cases read, for these labels, by the names of their files."""
    rng = np.random.default_rng(5)
    errors = rng.normal(scale=8, size=(N_BANK, skeleton.n_joints, 3)).astype(np.float32)
    stats = np.abs(rng.normal(scale=8, size=(2, skeleton.n_joints, 3))).astype(np.float32)
    near = rng.integers(0, N_BANK, (len(labels), K)).astype(np.int32)
    return {
        "bank_errors.pt": Table(errors, "bank"),
        "stats_error_stats.json": Table(stats, "stats"),
        "near_neighbors.pt": NeighborTable(near, "near", label_keys=label_keys(np.asarray(labels)), n_bank=N_BANK),
    }


def samples_of(poses, labels, skeleton, tables=(), indices=None):
    indices = torch.arange(len(poses)) if indices is None else indices
    tensors = {file: torch.tensor(table.array) for file, table in dict(tables).items()}
    return TrainingSamples(poses, labels, indices, skeleton, tensors)


def errors_of(distorter, n, skeleton=NYU, tables=(), labels=None, seed=0):
    """The errors that a distorter adds to the inputs of n samples, (n, J, 3), float64."""
    poses, drawn = hands(skeleton, n, dtype=torch.float64)
    samples = samples_of(poses, drawn if labels is None else labels, skeleton, tables)
    return (distorter(samples, generator(seed)) - poses).numpy()


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_distorter_is_encoded_by_its_arguments(case):
    assert_is_encoded_by_its_arguments(*case)


@pytest.mark.parametrize("member", dict.fromkeys(member for member, _ in CASES), ids=lambda member: member.__name__)
def test_a_distorter_takes_its_settings_only_by_name(member):
    kinds = {parameter.kind for parameter in inspect.signature(member).parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}


# Only the joints of HANDS17 are confused.
PAIRS = [(case, HANDS17 if "confusion_prob" in case[1] else skeleton) for case, skeleton in on_skeletons(CASES)]


class TestEveryDistorter:
    @pytest.fixture(params=PAIRS, ids=pair_id)
    def pair(self, request):
        return request.param

    @pytest.fixture
    def skeleton(self, pair):
        return pair[1]

    @pytest.fixture
    def distorter(self, pair, skeleton, labels):
        member, arguments = pair[0]
        distorter = member(**arguments)
        distorter.check(skeleton, tables_for(skeleton, labels), labels.numpy())
        return distorter

    @pytest.fixture
    def poses(self, skeleton):
        return hands(skeleton, N)[0]

    @pytest.fixture
    def labels(self, skeleton):
        return hands(skeleton, N)[1]

    @pytest.fixture
    def samples(self, distorter, poses, labels, skeleton):
        """With only the tables that the distorter names."""
        tables = tables_for(skeleton, labels)
        return samples_of(poses, labels, skeleton, {file: tables[file] for file in distorter.tables})

    @staticmethod
    def with_poses(samples, poses):
        return TrainingSamples(poses, samples.labels.to(poses.dtype), samples.indices, samples.skeleton, samples.tables)

    def test_does_not_write_to_its_inputs(self, distorter, samples):
        given = [samples.poses, samples.labels, samples.indices, *samples.tables.values()]
        before = [tensor.clone() for tensor in given]
        distorted = distorter(samples, generator())
        assert all(map(torch.equal, given, before))
        if distorter != NoDistorter():
            distorted.fill_(-1)
            assert all(map(torch.equal, given, before)), "the result is a view of what was given"

    def test_keeps_shape_precision_and_device(self, distorter, samples):
        for dtype in (torch.float32, torch.float64):
            given = self.with_poses(samples, samples.poses.to(dtype))
            distorted = distorter(given, generator())
            assert (distorted.shape, distorted.dtype) == (given.poses.shape, dtype)
            assert distorted.device == given.poses.device

    def test_gives_finite_numbers_for_one_sample_too(self, distorter, samples):
        one = TrainingSamples(
            samples.poses[:1], samples.labels[:1], samples.indices[:1], samples.skeleton, samples.tables
        )
        assert distorter(one, generator()).isfinite().all()

    def test_gives_the_same_bits_for_the_same_state_of_the_generator(self, distorter, samples):
        first, second = generator(), generator(1)
        distorter(samples, first)
        second.set_state(first.get_state())
        assert torch.equal(distorter(samples, first), distorter(samples, second))
        assert torch.equal(first.get_state(), second.get_state())

    def test_draws_only_from_its_generator(self, distorter, samples):
        states = global_random_states()
        first = distorter(samples, generator())
        assert global_random_states() == states
        torch.manual_seed(99)
        assert torch.equal(distorter(samples, generator()), first)

    def test_says_whether_it_makes_an_input_out_of_a_label(self, distorter, samples):
        distorted = distorter(self.with_poses(samples, samples.labels), generator())
        assert distorter.makes_input is not torch.equal(distorted, samples.labels)

    def test_distorts_differently_each_time_or_not_at_all(self, distorter, samples):
        source = generator()
        first, second = distorter(samples, source), distorter(samples, source)
        assert torch.equal(first, second) is torch.equal(first, samples.poses)

    def test_does_not_look_at_the_order_of_the_samples(self, distorter, samples):
        """Errors depend on a pose, its label and its index in the training set, not on its position in a batch."""
        turned = TrainingSamples(
            samples.poses.flip(0), samples.labels.flip(0), samples.indices.flip(0), samples.skeleton, samples.tables
        )
        many = [distorter(given, generator(seed)) for given in (samples, turned) for seed in range(200)]
        means = torch.stack(many).view(2, 200, *samples.poses.shape).mean(dim=1)
        spread = torch.stack(many).std(dim=0).amax() + 1e-3
        assert (means[0] - means[1].flip(0)).abs().max() < 6 * spread * math.sqrt(2 / 200)


def test_no_distorter_leaves_the_input_as_it_is(skeleton):
    poses, labels = hands(skeleton, 5)
    assert torch.equal(NoDistorter()(samples_of(poses, labels, skeleton), generator()), poses)


class TestGaussianDistorter:
    @pytest.fixture(params=[0.5, 10.0])
    def std_mm(self, request):
        return request.param

    @pytest.fixture
    def noise(self, skeleton, std_mm):
        return errors_of(GaussianDistorter(std_mm=std_mm), 4000, skeleton)

    def test_adds_noise_with_mean_zero_and_the_given_standard_deviation(self, noise, std_mm):
        # Four standard errors of mean and standard deviation.
        assert abs(noise.mean()) < 4 * std_mm / math.sqrt(noise.size)
        assert abs(noise.std() - std_mm) < 4 * std_mm / math.sqrt(2 * noise.size)

    def test_adds_normal_noise(self, noise, std_mm):
        assert scipy.stats.kstest(noise.ravel() / std_mm, "norm").pvalue > 1e-3

    def test_adds_noise_that_is_independent_between_coordinates(self, noise):
        correlations = np.corrcoef(noise.reshape(len(noise), -1), rowvar=False)
        off_diagonal = correlations[np.triu_indices_from(correlations, k=1)]
        # Five standard errors: the largest skeleton has 1,953 pairs.
        assert np.abs(off_diagonal).max() < 5 / math.sqrt(len(noise))

    def test_adds_noise_with_the_mean_and_standard_deviation_of_each_joint_and_axis_of_a_table(self, skeleton):
        tables = tables_for(skeleton, hands(skeleton, N)[1])
        mean, std = tables["stats_error_stats.json"].array
        noise = errors_of(GaussianDistorter(stats_name="stats"), 4000, skeleton, tables)
        # Five standard errors, since there are up to 63 of each.
        assert (np.abs(noise.mean(axis=0) - mean) < 5 * std / math.sqrt(len(noise))).all()
        assert (np.abs(noise.std(axis=0) - std) < 5 * std / math.sqrt(2 * len(noise))).all()
        assert scipy.stats.kstest(((noise - mean) / std).ravel(), "norm").pvalue > 1e-3

    @pytest.mark.parametrize("std_mm", [-1, -0.001, math.nan, math.inf])
    def test_refuses_what_is_not_a_standard_deviation(self, std_mm):
        with pytest.raises(ValueError, match=rf"std_mm must be .*at least 0.*not {std_mm}"):
            GaussianDistorter(std_mm=std_mm)

    @pytest.mark.parametrize(("arguments", "given"), [({}, "neither"), ({"std_mm": 1, "stats_name": "a"}, "both")])
    def test_needs_one_of_its_arguments(self, arguments, given):
        with pytest.raises(ValueError, match=f"give exactly one of std_mm and stats_name, not {given}"):
            GaussianDistorter(**arguments)

    def test_refuses_statistics_of_another_skeleton(self):
        tables = tables_for(NYU, hands(NYU, N)[1])
        with pytest.raises(
            ValueError, match=r"stats_error_stats.json is for hands with 14 joints, .* HANDS17 .* with 21"
        ):
            GaussianDistorter(stats_name="stats").check(HANDS17, tables, hands(HANDS17, N)[1].numpy())


class TestErrorBankDistorter:
    def test_draws_errors_of_whole_hands_with_equal_probability(self):
        tables = tables_for(NYU, hands(NYU, N)[1])
        bank = tables["bank_errors.pt"].array
        errors = errors_of(ErrorBankDistorter(bank_name="bank"), 4000, tables=tables)
        distances = np.abs(errors[:, None] - bank).max(axis=(2, 3))  # (n, M)
        assert distances.min(axis=1).max() < 1e-9
        counts = np.bincount(distances.argmin(axis=1), minlength=N_BANK)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3

    @pytest.mark.parametrize(("mean", "std"), [(1.0, 0.5), (0.3, 0.1), (-2.0, 1.0)])
    def test_multiplies_each_hand_by_a_normal_number(self, mean, std):
        bank = {"bank_errors.pt": Table(tables_for(NYU, hands(NYU, N)[1])["bank_errors.pt"].array[:1], "")}
        distorter = ErrorBankDistorter(bank_name="bank", strength_mean=mean, strength_std=std)
        ratios = errors_of(distorter, 4000, tables=bank) / bank["bank_errors.pt"].array
        np.testing.assert_allclose(ratios, np.broadcast_to(ratios[:, :1, :1], ratios.shape), atol=1e-6)
        assert scipy.stats.kstest(ratios[:, 0, 0], "norm", args=(mean, std)).pvalue > 1e-3

    def test_refuses_errors_of_another_skeleton(self):
        tables = tables_for(NYU, hands(NYU, N)[1])
        with pytest.raises(ValueError, match=r"bank_errors.pt is for hands with 14 joints"):
            ErrorBankDistorter(bank_name="bank").check(HANDS17, tables, hands(HANDS17, N)[1].numpy())

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [({"strength_mean": math.inf}, "strength_mean must be finite"), ({"strength_std": -1}, "at least 0, not -1")],
    )
    def test_refuses_what_is_not_a_normal_distribution(self, arguments, says):
        with pytest.raises(ValueError, match=says):
            ErrorBankDistorter(bank_name="bank", **arguments)


SKEW_NORMALS = [(1.0, 0.25, 0.0), (0.5, 2.0, 3.0), (-1.0, 0.5, -8.0), (0.0, 1.0, 1e6)]


class TestNeighborErrorBankDistorter:
    """With banks in which each error equals the number of its row everywhere."""

    @staticmethod
    def drawn(n, k, max_k, **strength):
        """The drawn neighbour and the strength of each of n samples, (n,) each."""
        poses, labels = hands(NYU, n, dtype=torch.float64)
        rows = 1 + np.arange(n * k, dtype=np.int32).reshape(n, k)
        bank = np.broadcast_to(np.arange(n * k + 1, dtype=np.float32)[:, None, None], (n * k + 1, 14, 3))
        tables = {
            "bank_errors.pt": Table(bank, ""),
            "near_neighbors.pt": NeighborTable(rows, "", label_keys=label_keys(labels.numpy()), n_bank=n * k + 1),
        }
        order = torch.from_numpy(np.random.default_rng(1).permutation(n))
        samples = samples_of(poses, labels, NYU, tables, order)
        distorted = NeighborErrorBankDistorter(**NEAR, max_k=max_k, **strength)(samples, generator())
        added = (distorted - poses).numpy()
        np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-6)
        return added[:, 0, 0], rows[order.numpy()]

    @pytest.mark.parametrize(("k", "max_k"), [(1, 1), (5, 1), (5, 2), (5, 5), (30, 20)])
    def test_draws_one_of_the_nearest_with_weights_from_100_to_10(self, k, max_k):
        added, rows = self.drawn(4000, k, max_k, strength_scale=0)
        ranks = (rows == np.round(added)[:, None]).argmax(axis=1)
        np.testing.assert_allclose(np.take_along_axis(rows, ranks[:, None], axis=1)[:, 0], added, rtol=1e-9)
        counts = np.bincount(ranks, minlength=k)
        assert counts[max_k:].sum() == 0
        weights = np.linspace(100, 10, max_k)
        if max_k > 1:
            assert scipy.stats.chisquare(counts[:max_k], 4000 * weights / weights.sum()).pvalue > 1e-3

    @pytest.mark.parametrize(("location", "scale", "shape"), SKEW_NORMALS)
    def test_multiplies_each_hand_by_a_skew_normal_number(self, location, scale, shape):
        strength = {"strength_location": location, "strength_scale": scale, "strength_shape": shape}
        added, rows = self.drawn(4000, 1, 1, **strength)
        expected = scipy.stats.skewnorm(shape, location, scale)
        strengths = added / rows[:, 0]
        assert scipy.stats.kstest(strengths, expected.cdf).pvalue > 1e-3
        assert abs(strengths.mean() - expected.mean()) < 4 * expected.std() / math.sqrt(4000)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"n_bank": N_BANK + 1}, r"near_neighbors.pt was made for a bank of 41 samples, but bank_errors.pt has 40"),
            (
                {"label_keys": label_keys(hands(HANDS17, N)[1].numpy())},
                "near_neighbors.pt was made for another training set: sample 0 has another label",
            ),
            ({"array": np.zeros((N - 1, K), np.int32)}, "it has neighbours for 19 samples, but the set has 20"),
            (
                {"array": np.zeros((N, 2), np.int32)},
                "near_neighbors.pt has 2 neighbours for each sample, fewer than max_k = 3",
            ),
        ],
    )
    def test_refuses_neighbors_of_other_sets(self, change, says):
        labels = hands(NYU, N)[1].numpy()
        tables = tables_for(NYU, labels)
        near = tables["near_neighbors.pt"]
        tables["near_neighbors.pt"] = NeighborTable(**{**vars(near), **change})
        with pytest.raises(ValueError, match=says):
            NeighborErrorBankDistorter(**NEAR, max_k=3).check(NYU, tables, labels)

    @pytest.mark.parametrize("sample", [0, 16, N - 1])
    def test_refuses_neighbors_of_a_set_that_differs_in_any_label_that_is_taken(self, sample):
        labels = hands(NYU, N)[1].numpy()
        tables = tables_for(NYU, labels)
        labels[sample, 13, 2] = np.nextafter(labels[sample, 13, 2], np.float32(0))
        distorter = NeighborErrorBankDistorter(**NEAR, max_k=3)
        with pytest.raises(ValueError, match=f"made for another training set: sample {sample} has another label"):
            distorter.check(NYU, tables, labels)
        if sample:
            distorter.check(NYU, tables, labels[:sample])

    def test_refuses_errors_of_another_bank_with_as_many_samples(self):
        labels = hands(NYU, N)[1].numpy()
        one, other = (label_keys(hands(NYU, N_BANK, seed)[1].numpy()) for seed in (1, 2))
        distorter = NeighborErrorBankDistorter(**NEAR, max_k=3)
        tables = tables_for(NYU, labels)

        def check(neighbors_of, errors_of):
            known = {
                "near_neighbors.pt": replace(tables["near_neighbors.pt"], bank_keys=neighbors_of),
                "bank_errors.pt": replace(tables["bank_errors.pt"], label_keys=errors_of),
            }
            distorter.check(NYU, known, labels)

        for keys in [(one, one), (one, None), (None, other)]:
            check(*keys)
        with pytest.raises(ValueError, match=r"made for another bank: the labels of bank_errors\.pt differ"):
            check(one, other)

    def test_refuses_errors_of_another_skeleton(self):
        labels = hands(HANDS17, N)[1].numpy()
        tables = {**tables_for(HANDS17, labels), "bank_errors.pt": tables_for(NYU, labels)["bank_errors.pt"]}
        with pytest.raises(ValueError, match=r"bank_errors.pt is for hands with 14 joints"):
            NeighborErrorBankDistorter(**NEAR, max_k=3).check(HANDS17, tables, labels)

    @pytest.mark.parametrize("n", [1, 5, 16, N])
    def test_takes_the_first_samples_of_the_set_that_the_table_was_made_for(self, n):
        labels = hands(NYU, N)[1].numpy()
        NeighborErrorBankDistorter(**NEAR, max_k=K).check(NYU, tables_for(NYU, labels), labels[:n])

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"max_k": 0}, "max_k must be an int of at least 1, not 0"),
            ({"max_k": 2.5}, "max_k must be an int"),
            ({"max_k": 2, "strength_location": math.nan}, "strength_location must be finite, not nan"),
            ({"max_k": 2, "strength_shape": math.inf}, "strength_shape must be finite, not inf"),
            ({"max_k": 2, "strength_scale": -0.1}, "strength_scale must be finite and at least 0, not -0.1"),
        ],
    )
    def test_refuses_impossible_arguments(self, arguments, says):
        with pytest.raises(ValueError, match=says):
            NeighborErrorBankDistorter(**NEAR, **arguments)


class TestInterpolationDistorter:
    @pytest.mark.parametrize(("location", "scale", "shape"), SKEW_NORMALS)
    def test_multiplies_the_inputs_own_error_by_a_skew_normal_number(self, location, scale, shape):
        poses, labels = hands(NYU, 4000, dtype=torch.float64)
        distorter = InterpolationDistorter(strength_location=location, strength_scale=scale, strength_shape=shape)
        distorted = distorter(samples_of(poses, labels, NYU), generator())
        own, errors = (poses - labels).numpy(), (distorted - labels).numpy()
        strengths = (errors * own).sum(axis=(1, 2)) / (own * own).sum(axis=(1, 2))
        np.testing.assert_allclose(errors, strengths[:, None, None] * own, atol=1e-9)
        assert scipy.stats.kstest(strengths, scipy.stats.skewnorm(shape, location, scale).cdf).pvalue > 1e-3

    def test_leaves_the_input_at_strength_one_and_gives_the_label_at_strength_zero(self, skeleton):
        poses, labels = hands(skeleton, 5)
        for location, expected in ((1, poses), (0, labels)):
            distorter = InterpolationDistorter(strength_location=location, strength_scale=0)
            assert torch.equal(distorter(samples_of(poses, labels, skeleton), generator()), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_distorter_does_not_wait_for_the_gpu(case):
    member, arguments = case
    distorter = member(**arguments)
    poses, labels = hands(HANDS17, N)
    tables = tables_for(HANDS17, labels)
    there = {file: torch.tensor(tables[file].array).cuda() for file in distorter.tables}
    samples = TrainingSamples(poses.cuda(), labels.cuda(), torch.arange(N).cuda(), HANDS17, there)
    source = torch.Generator("cuda").manual_seed(0)
    distorter(samples, source)  # cached tables are copied to the device here
    with no_waiting_for_the_gpu():
        distorted = distorter(samples, source)
    assert distorted.isfinite().all()
    assert distorted.is_cuda
