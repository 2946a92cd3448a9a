import copy
import io
import itertools
import math
import re

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from torch import nn

from data_pipeline.batch import Batch, DeviceDataset, Window, fuses, window_of
from data_pipeline.formats.frames import Frames
from data_pipeline.formats.leaderboard import read_results
from data_pipeline.formats.recordings import nyu_frames
from data_pipeline.frame_table import FrameTable
from data_pipeline.normalizers import ViewpointNormalizer
from data_pipeline.pose_dataset import PoseDataset, Samples
from data_pipeline.skeleton import HANDS17, ICVL, NYU, Skeleton
from posenet import models
from posenet.evaluator import Evaluator
from posenet.models import (
    AgreementFusion,
    ClosedFormCorrector,
    Corrector,
    CorrectorFingerMLP,
    CorrectorGNN,
    CorrectorLCN,
    CorrectorMLP,
    CorrectorTransformer,
    FusingCorrector,
    GaussianSmoother,
    GlobalShiftMLP,
    KernelCorrector,
    MeanFusion,
    SteadinessFusion,
    TemporalFilter,
    TemporalLCN,
    WeightedFusion,
)
from posenet.models.corrector import STRENGTH
from posenet.models.layers import ACTIVATIONS
from posenet.reproducible import reproducible_process
from tests.posenet_tests.gnn_by_joint import GNNByJoint
from tests.support import SHARED_DATA, SKELETONS, cases, generator, global_random_states, hands, on_skeletons, pair_id

CODERS = ["shared", "per_joint", "whole_pose"]

GNN = {
    **{"n_iter": 2, "latent_dim": 6, "message_dims": [8]},
    **{"encoder": "shared", "encoder_dims": [5], "decoder": "shared", "decoder_dims": [5]},
}

LCN = {"dim": 4, "n_blocks": 2, "reach": 1}

TRANSFORMER = {"dim": 8, "n_layers": 2, "n_heads": 2, "feedforward_dim": 16}

KERNEL = {"bandwidth": 2.0, "ridge": 0.1}

FILTER = {"size": 5, "hidden_dims": [6], "zero_init": False}

TEMPORAL_LCN = {"size": 5, "n_filters": 2, "hidden_dims": [6], "dim": 4, "n_blocks": 1, "reach": 1, "zero_init": False}

AGREEMENT = {"n_subsets": 3, "hidden_dims": [6], "zero_init": False}

ARGUMENTS = {
    KernelCorrector: [
        {**KERNEL, "n_centres": 8},
        {**KERNEL, "n_centres": 100, "axes": ("palm", "input")},
        {**KERNEL, "n_centres": 100, "sigma": 0.7, "causal": True},
        {**KERNEL, "n_centres": 100, "sigma": 0.7, "hand_bandwidth": 0.5},
    ],
    MeanFusion: [{"sigma": 0.7}, {"sigma": 1.5, "causal": True}],
    SteadinessFusion: [{"sigma": 0.7}, {"sigma": 1.5, "causal": True}],
    WeightedFusion: [{"n_subsets": 3, "sigma": 0.7}],
    AgreementFusion: [{**AGREEMENT, "sigma": 0.7}, {**AGREEMENT, "causal": True, "dropout": 0.3}],
    GaussianSmoother: [{"sigma": 0.7}, {"sigma": 1.5, "causal": True}],
    TemporalFilter: [FILTER, {**FILTER, "size": 4, "causal": True, "dropout": 0.3}],
    TemporalLCN: [
        TEMPORAL_LCN,
        {**TEMPORAL_LCN, "size": 4, "causal": True, "n_filters": 1, "hidden_dims": [], "dropout": 0.3},
    ],
    CorrectorGNN: [
        *({**GNN, "encoder": encoder, "decoder": decoder} for encoder in CODERS for decoder in CODERS),
        {**GNN, "n_iter": 1, "encoder_dims": [], "message_dims": [], "decoder_dims": []},
        {**GNN, "message_dims": (8, 7), "dropout": 0.3},
    ],
    CorrectorLCN: [LCN, {**LCN, "n_blocks": 1, "reach": 3, "dropout": 0.3}],
    CorrectorTransformer: [TRANSFORMER, {**TRANSFORMER, "n_layers": 1, "n_heads": 4, "dropout": 0.3}],
    CorrectorFingerMLP: [{"hidden_dims": [16]}, {"hidden_dims": [8, 8], "activation": nn.PReLU(8), "dropout": 0.3}],
    GlobalShiftMLP: [{"hidden_dims": [16]}, {"hidden_dims": [16, 8], "activation": "gelu", "dropout": 0.3}],
    CorrectorMLP: [
        {"hidden_dims": [32]},
        {"hidden_dims": []},
        {"hidden_dims": (24, 16), "activation": "tanh"},
        {"hidden_dims": [32, 32], "dropout": 0.5, "batchnorm": True},
        {"hidden_dims": [32, 32], "activation": nn.PReLU()},
    ],
}

CASES = cases(models, Corrector, ARGUMENTS)

OVER_TIME = [(GaussianSmoother, {"sigma": 1.0}), (TemporalFilter, FILTER), (TemporalLCN, TEMPORAL_LCN)]

NUMPY_ACTIVATIONS = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "LeakyReLU(negative_slope=0.1)": lambda x: np.where(x > 0, x, 0.1 * x),
}


def seeded(make, seed=0):
    """Returns the result of `make` with a seeded global generator of torch, whose state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def normalized_hands(skeleton, n, seed=0):
    """Returns poses and labels of n hands about their centres, (N, J, 3) each, with coordinates of about 1."""
    poses, labels = hands(skeleton, n, seed)
    centres = poses.mean(dim=1, keepdim=True)
    return (poses - centres) / 50, (labels - centres) / 50


def fit(model, poses, labels, batch_size=7):
    """Fits a model in closed form, with one epoch in which the samples have this order."""
    for batch in zip(poses.split(batch_size), labels.split(batch_size), strict=True):
        model.add(*batch)
    model.fit()


class TestEveryModel:
    @pytest.fixture(params=on_skeletons(CASES), ids=pair_id)
    def pair(self, request):
        return request.param

    @pytest.fixture
    def case(self, pair):
        return pair[0]

    @pytest.fixture
    def skeleton(self, pair):
        return pair[1]

    @pytest.fixture
    def make(self, case, skeleton):
        member, arguments = case

        def make(seed=0):
            model = seeded(lambda: member(skeleton, **arguments), seed)
            if isinstance(model, ClosedFormCorrector):
                poses, labels = normalized_hands(skeleton, 20, seed)
                fit(model, poses if model.window is None else model.window.of_run(poses), labels)
            return model

        return make

    @pytest.fixture
    def model(self, make):
        return make().eval()

    @pytest.fixture
    def poses(self, case, skeleton):
        """What the model sees: 8 poses, or the windows around them, or those of 3 subsets."""
        poses = normalized_hands(skeleton, 8)[0]
        model = case[0](skeleton, **case[1])
        window = window_of(model)
        if fuses(model):
            return torch.stack([window.of_run(normalized_hands(skeleton, 8, seed)[0]) for seed in range(3)], dim=1)
        return poses if window is None else window.of_run(poses)

    @pytest.fixture
    def before(self, model, poses):
        """The poses that the model corrects."""
        return poses if window_of(model) is None else model.corrected_frame(poses)

    @pytest.fixture
    def with_gradients(self, case):
        if issubclass(case[0], ClosedFormCorrector):
            pytest.skip("this model is fitted without gradients")

    def test_adds_a_correction_to_the_pose(self, model, poses, before):
        assert torch.equal(model(poses), before + model.correction(poses))
        assert not torch.equal(model(poses), before)

    def test_multiplies_its_correction_by_its_strength_if_it_has_one(self, model, poses, before):
        assert STRENGTH not in model.state_dict()  # older weights have none
        correction = model.correction(poses)
        model.add_strength()
        assert torch.equal(model(poses), before + correction)
        model.load_state_dict(model.state_dict() | {STRENGTH: torch.tensor(0.25)})
        torch.testing.assert_close(model(poses), before + 0.25 * correction)

    def test_keeps_shape_and_precision(self, model, poses, before):
        for n in (1, 2, 8):
            corrected = model(poses[:n])
            assert (corrected.shape, corrected.dtype) == (before[:n].shape, poses.dtype)

    def test_does_not_write_to_its_input(self, model, poses):
        before = poses.clone()
        for training in (True, False):
            model.train(training)(poses)
            assert torch.equal(poses, before)

    @pytest.mark.usefixtures("with_gradients")
    def test_lets_gradients_reach_all_parameters(self, make, poses):
        model = make().train()
        model(poses).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert gradients
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        # A weight whose gradient is always zero learns nothing; a bias before batch normalisation is one.
        assert all(gradient.any() for name, gradient in gradients.items() if not name.endswith("bias"))

    def test_starts_from_the_same_weights_only_for_the_same_seed(self, case, make):
        if case[0] in (GaussianSmoother, MeanFusion, SteadinessFusion, WeightedFusion):
            pytest.skip("this model has no weights that are drawn or fitted")
        first, same, other = make(0).state_dict(), make(0).state_dict(), make(1).state_dict()
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_is_the_same_model_after_its_weights_are_saved_and_loaded(self, make, poses):
        model, loaded = make(0), make(1)
        model.train()(poses)  # so that running statistics differ from those at the start
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        loaded.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(loaded.eval()(poses), model.eval()(poses))

    def test_is_the_same_model_when_it_is_copied(self, model, poses):
        assert torch.equal(copy.deepcopy(model)(poses), model(poses))

    def test_draws_no_random_numbers_in_evaluation_mode(self, model, poses):
        states = global_random_states()
        assert torch.equal(model(poses), model(poses))
        assert global_random_states() == states

    def test_corrects_a_pose_independently_of_its_batch_in_evaluation_mode(self, model, poses):
        torch.testing.assert_close(model(poses)[3:4], model(poses[3:4]))

    def test_returns_no_poses_for_no_poses(self, model, poses):
        assert model(poses[:0]).shape == (0, *poses.shape[-2:])

    @pytest.mark.usefixtures("with_gradients")
    def test_returns_its_input_before_training_if_its_last_layer_starts_at_zero(self, case, poses, before, skeleton):
        member, arguments = case
        if issubclass(member, FusingCorrector):
            pytest.skip("such a model starts as the smoothed mean of all subsets")
        model = seeded(lambda: member(skeleton, **{**arguments, "zero_init": True}))
        assert torch.equal(model(poses), before)
        model(poses).square().sum().backward()
        assert any(parameter.grad.any() for parameter in model.parameters())

    def test_can_be_built_on_the_meta_device(self, case, poses, skeleton):
        member, arguments = case
        with torch.device("meta"):
            model = member(skeleton, **arguments).eval()
            assert model(torch.empty_like(poses, device="meta")).shape == (8, skeleton.n_joints, 3)

    def test_refuses_an_unknown_setting(self, case, skeleton):
        member, arguments = case
        with pytest.raises(TypeError, match="no_such_setting"):
            member(skeleton, **arguments, no_such_setting=1)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")
    def test_has_the_same_outputs_and_gradients_on_a_gpu_as_on_the_cpu(self, make, poses):
        here, there = (outcome_of_a_step(make().eval(), poses, device) for device in ("cpu", "cuda"))
        torch.testing.assert_close([tensor.cpu() for tensor in there], here, rtol=1e-4, atol=1e-4)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")
    def test_repeats_a_step_bit_for_bit_on_a_gpu(self, make, poses):
        first, second = (outcome_of_a_step(make().train(), poses, "cuda") for _ in range(2))
        assert all(map(torch.equal, first, second))


def outcome_of_a_step(model, poses, device):
    """Returns the corrected poses and the gradients of poses and weights, as a trial on that device computes them."""
    with (
        torch.random.fork_rng(),
        reproducible_process(threads=1, deterministic=True, matmul_precision="highest"),
    ):
        torch.manual_seed(0)  # of dropout
        model, given = model.to(device), poses.to(device, copy=True).requires_grad_()
        corrected = model(given)
        corrected.square().mean().backward()
    tensors = [corrected, given.grad, *(parameter.grad for parameter in model.parameters())]
    assert {tensor.device.type for tensor in tensors} == {device}
    return tensors


def layers_of(**arguments):
    return [type(layer).__name__ for layer in CorrectorMLP(HANDS17, **arguments).layers]


class TestCorrectorMLP:
    @pytest.mark.parametrize(
        ("hidden_dims", "batchnorm", "n_parameters"),
        [
            # 63·256 + 256, 256·256 + 256, 256·63 + 63
            ([256, 256], False, 98_367),
            # and a scale and a shift of each of 512 units
            ([256, 256], True, 99_391),
            ([], False, 63 * 63 + 63),
        ],
    )
    def test_has_the_parameters_that_a_count_by_hand_gives(self, hidden_dims, batchnorm, n_parameters):
        model = CorrectorMLP(HANDS17, hidden_dims=hidden_dims, batchnorm=batchnorm)
        assert sum(parameter.numel() for parameter in model.parameters()) == n_parameters

    @pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.LeakyReLU(0.1)], ids=str)
    def test_computes_what_numpy_does_with_its_weights(self, skeleton, activation):
        model = seeded(lambda: CorrectorMLP(skeleton, hidden_dims=[20, 10], activation=activation)).double()
        poses = torch.randn(5, skeleton.n_joints, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        weights = [parameter.detach().numpy() for parameter in model.parameters()]
        x = poses.numpy().reshape(5, -1)
        for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
            x = NUMPY_ACTIVATIONS[str(activation)](x @ weight.T + bias)
        expected = poses.numpy() + (x @ weights[4].T + weights[5]).reshape(5, -1, 3)
        np.testing.assert_allclose(model(poses).detach(), expected, rtol=1e-12, atol=1e-12)

    def test_ends_in_a_linear_layer_so_that_corrections_have_any_size_and_sign(self):
        model = CorrectorMLP(HANDS17, hidden_dims=[16], dropout=0.5, batchnorm=True).double().eval()
        poses, _ = hands(HANDS17, 4, dtype=torch.float64)
        correction = model.correction(poses)
        with torch.no_grad():
            for parameter in model.layers[-1].parameters():
                parameter.mul_(-1000)
        torch.testing.assert_close(model.correction(poses), -1000 * correction)

    def test_without_hidden_layers_is_linear_regression(self):
        model = CorrectorMLP(HANDS17, hidden_dims=[]).double()
        first, second = (hands(HANDS17, 4, seed, torch.float64)[0] for seed in range(2))
        halfway = model((first + second) / 2)
        torch.testing.assert_close(halfway, (model(first) + model(second)) / 2)

    def test_normalises_before_and_drops_after_the_activation(self):
        assert layers_of(hidden_dims=[8], dropout=0.1, batchnorm=True, activation="relu") == [
            *("Linear", "BatchNorm1d", "ReLU", "Dropout"),
            "Linear",
        ]
        assert layers_of(hidden_dims=[8, 8]) == ["Linear", "LeakyReLU", "Linear", "LeakyReLU", "Linear"]

    def test_drops_units_only_in_training(self):
        model = CorrectorMLP(HANDS17, hidden_dims=[64], dropout=0.5)
        poses, _ = hands(HANDS17, 4)
        assert not torch.equal(model(poses), model(poses))
        model.eval()
        assert torch.equal(model(poses), model(poses))

    @pytest.mark.parametrize("hidden_dims", [[0], [256, -1], [2.5], [True], ["256"], "256", 256, None, [None]])
    def test_refuses_hidden_dims_that_are_not_widths(self, hidden_dims):
        with pytest.raises(ValueError, match=r"hidden_dims must be a list of widths of at least 1, not "):
            CorrectorMLP(HANDS17, hidden_dims=hidden_dims)

    @pytest.mark.parametrize("activation", ["sigmoid", "ReLU", "", None, ["relu"], nn.ReLU])
    def test_names_the_known_activations_when_it_refuses_another(self, activation):
        says = rf"one of {', '.join(ACTIVATIONS)}, or a module such as .*, not {re.escape(repr(activation))}"
        with pytest.raises(ValueError, match=says):
            CorrectorMLP(HANDS17, hidden_dims=[8], activation=activation)

    def test_gives_each_layer_its_own_copy_of_an_activation(self):
        activation = nn.PReLU(init=0.5)
        model = CorrectorMLP(HANDS17, hidden_dims=[8, 8], activation=activation)
        slopes = [layer.weight for layer in model.layers if isinstance(layer, nn.PReLU)]
        with torch.no_grad():
            slopes[0].fill_(2)
        assert [slope.item() for slope in [*slopes, activation.weight]] == [2, 0.5, 0.5]

    def test_refuses_an_activation_that_makes_another_number_of_units(self):
        with pytest.raises(ValueError, match=r"activation GLU\(dim=-1\) makes 4 units of 8"):
            CorrectorMLP(HANDS17, hidden_dims=[8], activation=nn.GLU())

    @pytest.mark.parametrize("dropout", [-0.1, 1, 1.5, math.nan, math.inf, True, "0.1"])
    @pytest.mark.parametrize("hidden_dims", [[8], []])
    def test_refuses_a_dropout_that_is_not_a_probability(self, dropout, hidden_dims):
        with pytest.raises(ValueError, match=r"dropout must be a probability of at least 0 and below 1"):
            CorrectorMLP(HANDS17, hidden_dims=hidden_dims, dropout=dropout)

    def test_takes_its_settings_only_by_name(self):
        with pytest.raises(TypeError, match="positional"):
            CorrectorMLP(HANDS17, [8])


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


class TestCorrectorGNN:
    @pytest.mark.parametrize(
        ("latent_dim", "message_dims", "expected"),
        [
            # Encoder 128 + 1,056 + 2,112, decoder 2,080 + 1,056 + 99; the messages of 21 joints have 48 + 21 inputs of
            # 64 together: 69·64·128 + 21·128 + 21·(128·64 + 64).
            (64, [128], 747_843),
            (24, [64, 64], 231_379),
        ],
    )
    def test_has_the_parameters_that_a_count_by_hand_gives(self, latent_dim, message_dims, expected):
        coders = {"encoder": "shared", "encoder_dims": [32, 32], "decoder": "shared", "decoder_dims": [32, 32]}
        model = CorrectorGNN(HANDS17, n_iter=6, latent_dim=latent_dim, message_dims=message_dims, **coders)
        assert n_parameters(model) == expected

    @pytest.mark.parametrize("message_dims", [[], [8], [8, 7]])
    def test_computes_what_a_loop_over_joints_does_with_the_same_gradients(self, skeleton, message_dims):
        model = seeded(lambda: CorrectorGNN(skeleton, **{**GNN, "message_dims": message_dims}))
        poses = torch.randn(5, skeleton.n_joints, 3, generator=generator(1))
        by_joint = GNNByJoint(model)
        gradients = []
        for network in (model, by_joint):
            given = poses.clone().requires_grad_()
            network.zero_grad()
            network(given).square().sum().backward()
            shared = [
                parameter.grad.clone() for coder in (model.encoder, model.decoder) for parameter in coder.parameters()
            ]
            gradients.append([given.grad, *shared])
        torch.testing.assert_close(model(poses), by_joint(poses), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
        model.zero_grad()
        model(poses).square().sum().backward()
        stacked = [parameter.grad for parameter in model.messages.parameters()]
        torch.testing.assert_close(stacked, by_joint.stacked_gradients(model), rtol=1e-4, atol=1e-5)

    def test_a_joint_depends_only_on_joints_within_as_many_bones_as_rounds(self, skeleton):
        distance = graph_distances(skeleton)
        poses = torch.randn(1, skeleton.n_joints, 3, generator=generator())
        for n_iter in (1, 2, 3):
            model = seeded(lambda n_iter=n_iter: CorrectorGNN(skeleton, **{**GNN, "n_iter": n_iter}))
            depends = torch.autograd.functional.jacobian(model.correction, poses).abs().sum(dim=(0, 2, 3, 5)) > 0
            assert torch.equal(depends, torch.tensor(distance <= n_iter))

    def test_uses_the_same_weights_in_every_round(self):
        counts = {n_parameters(CorrectorGNN(HANDS17, **{**GNN, "n_iter": n_iter})) for n_iter in (1, 2, 9)}
        assert len(counts) == 1

    @pytest.mark.parametrize("side", ["encoder", "decoder"])
    def test_codes_a_joint_from_itself_with_the_same_or_own_weights_or_from_the_whole_pose(self, skeleton, side):
        others, same = {}, {}
        for kind in CODERS:
            model = seeded(lambda kind=kind: CorrectorGNN(skeleton, **{**GNN, side: kind}))
            coder = getattr(model, side)
            one = torch.randn(1, 1, 3 if side == "encoder" else 6, generator=generator()).expand(
                1, skeleton.n_joints, -1
            )
            coded = coder(one)
            same[kind] = torch.allclose(coded[:, :1].expand_as(coded), coded, atol=1e-6)
            changed = one.clone()
            changed[:, 0] += 1
            others[kind] = not torch.allclose(coder(changed)[:, 1:], coded[:, 1:])
        assert same == {"shared": True, "per_joint": False, "whole_pose": False}
        assert others == {"shared": False, "per_joint": False, "whole_pose": True}

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"n_iter": 0}, "n_iter must be a whole number of at least 1, not 0"),
            ({"latent_dim": 2.5}, "latent_dim must be a whole number of at least 1, not 2.5"),
            ({"encoder": "joint"}, "encoder must be one of 'shared', 'per_joint', 'whole_pose', not 'joint'"),
            ({"decoder": None}, "decoder must be one of 'shared', 'per_joint', 'whole_pose', not None"),
            ({"encoder_dims": [0]}, r"encoder_dims must be a list of widths of at least 1, not \[0\]"),
            ({"message_dims": 64}, "message_dims must be a list of widths of at least 1, not 64"),
            ({"decoder_dims": "32"}, "decoder_dims must be a list of widths of at least 1, not '32'"),
            ({"dropout": 1}, "dropout must be a probability of at least 0 and below 1, not 1"),
        ],
    )
    def test_refuses_settings_that_do_not_make_a_network_and_says_why(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            CorrectorGNN(HANDS17, **{**GNN, **wrong})


def graph_distances(skeleton):
    """Returns the number of edges between any two joints in the message graph, (J, J), by Floyd and Warshall."""
    distances = np.full((skeleton.n_joints, skeleton.n_joints), np.inf)
    np.fill_diagonal(distances, 0)
    for a, b in skeleton.message_edges:
        distances[a, b] = distances[b, a] = 1
    for k in range(skeleton.n_joints):
        distances = np.minimum(distances, distances[:, k, None] + distances[None, k])
    return distances


class TestCorrectorLCN:
    @pytest.mark.parametrize("reach", [1, 2, 3])
    def test_a_layer_sees_only_joints_within_reach(self, skeleton, reach):
        layer = seeded(lambda: CorrectorLCN(skeleton, **{**LCN, "reach": reach})).last
        features = torch.randn(1, 4 * skeleton.n_joints, generator=generator())
        jacobian = torch.autograd.functional.jacobian(layer, features)[0, :, 0]
        sees = jacobian.view(skeleton.n_joints, 3, skeleton.n_joints, 4).ne(0).any(dim=3).any(dim=1)
        assert torch.equal(sees, torch.tensor(graph_distances(skeleton) <= reach))

    def test_has_nothing_to_train_between_joints_out_of_reach(self, skeleton):
        model = seeded(lambda: CorrectorLCN(skeleton, **LCN))
        poses, _ = hands(skeleton, 6)
        model(poses / 100).square().sum().backward()
        layers = [module for module in model.modules() if hasattr(module, "mask")]
        assert len(layers) == 6
        for layer in layers:
            assert not layer.weight[~layer.mask].any()
            assert not layer.weight.grad[~layer.mask].any()

    def test_computes_what_numpy_does_with_its_weights(self, skeleton):
        model = seeded(lambda: CorrectorLCN(skeleton, **{**LCN, "n_blocks": 1})).double().eval()
        poses = torch.randn(5, skeleton.n_joints, 3, dtype=torch.float64, generator=generator())
        state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

        def layer(x, connected, normalised):
            x = x @ state[f"{connected}.weight"].T + state[f"{connected}.bias"]
            centred = x - state[f"{normalised}.running_mean"]
            x = centred / np.sqrt(state[f"{normalised}.running_var"] + 1e-5) * state[f"{normalised}.weight"]
            return NUMPY_ACTIVATIONS["leaky_relu"](x + state[f"{normalised}.bias"])

        x = layer(poses.numpy().reshape(5, -1), "first.0", "first.1")
        x = x + layer(layer(x, "blocks.0.0", "blocks.0.1"), "blocks.0.4", "blocks.0.5")
        expected = poses.numpy() + (x @ state["last.weight"].T + state["last.bias"]).reshape(5, -1, 3)
        np.testing.assert_allclose(model(poses).detach(), expected, atol=1e-12)

    @pytest.mark.parametrize("name", ["dim", "n_blocks", "reach"])
    def test_refuses_settings_that_do_not_make_a_network_and_says_why(self, name):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, not 0"):
            CorrectorLCN(HANDS17, **{**LCN, name: 0})


class TestCorrectorTransformer:
    def test_computes_what_numpy_does_with_its_weights(self, skeleton):
        model = seeded(lambda: CorrectorTransformer(skeleton, **TRANSFORMER)).double()
        poses = torch.randn(3, skeleton.n_joints, 3, dtype=torch.float64, generator=generator())
        weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
        np.testing.assert_allclose(model(poses).detach(), numpy_transformer(weights, poses.numpy()), atol=1e-12)

    def test_distinguishes_joints_only_by_their_embedding(self, skeleton):
        """Joints in another order, with their embeddings, are corrected as before."""
        model = seeded(lambda: CorrectorTransformer(skeleton, **TRANSFORMER)).double()
        poses = torch.randn(3, skeleton.n_joints, 3, dtype=torch.float64, generator=generator())
        order = torch.randperm(skeleton.n_joints, generator=generator())
        corrected, moved_alone = model(poses), model(poses[:, order])
        with torch.no_grad():
            model.joints.copy_(model.joints[order])
        torch.testing.assert_close(model(poses[:, order]), corrected[:, order])
        assert not torch.allclose(moved_alone, corrected[:, order])

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"dim": 9}, "dim must be a multiple of n_heads, but 9 is not a multiple of 2"),
            ({"n_layers": 0}, "n_layers must be a whole number of at least 1, not 0"),
            ({"n_heads": True}, "n_heads must be a whole number of at least 1, not True"),
            ({"dropout": math.nan}, "dropout must be a probability of at least 0 and below 1, not nan"),
        ],
    )
    def test_refuses_settings_that_do_not_make_a_network_and_says_why(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            CorrectorTransformer(HANDS17, **{**TRANSFORMER, **wrong})


def numpy_transformer(weights, poses):
    """The corrected poses of a transformer of two layers and two heads, by its description."""

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    tokens = linear("coordinates", poses) + weights["joints"]
    for layer in ("layers.0", "layers.1"):
        queries, keys, values = np.split(
            linear(f"{layer}.queries_keys_values", norm(f"{layer}.attention_norm", tokens)), 3, -1
        )
        heads = []
        for q, k, v in zip(*(np.split(x, 2, -1) for x in (queries, keys, values)), strict=True):
            scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
            heads.append(scores / scores.sum(axis=-1, keepdims=True) @ v)
        tokens = tokens + linear(f"{layer}.heads", np.concatenate(heads, axis=-1))
        hidden = NUMPY_ACTIVATIONS["gelu"](linear(f"{layer}.feedforward.0", norm(f"{layer}.feedforward_norm", tokens)))
        tokens = tokens + linear(f"{layer}.feedforward.2", hidden)
    return poses + linear("last", norm("norm", tokens))


class TestCorrectorFingerMLP:
    @pytest.fixture
    def model(self, skeleton):
        return seeded(lambda: CorrectorFingerMLP(skeleton, hidden_dims=[16])).double()

    @pytest.fixture
    def poses(self, skeleton):
        return torch.randn(5, skeleton.n_joints, 3, dtype=torch.float64, generator=generator())

    def test_corrects_fingers_with_the_same_number_of_joints_in_the_same_way(self, model, poses, skeleton):
        """Two fingers that change places have each other's corrections."""
        for (_, one), (_, other) in itertools.combinations(skeleton.fingers, 2):
            if len(one) == len(other):
                swapped = poses.clone()
                swapped[:, one], swapped[:, other] = poses[:, other], poses[:, one]
                corrections = model.correction(poses)[:, one], model.correction(swapped)[:, other]
                torch.testing.assert_close(*corrections)

    def test_has_a_network_for_each_number_of_joints_of_a_finger_and_one_for_the_other_joints(self, skeleton, model):
        # Inputs, 16 hidden units and outputs: 3 coordinates of each joint.
        expected = {
            "HANDS17": [(15, 12), (63, 3)],  # four joints of a finger and the wrist; the wrist from 21 joints
            "ICVL": [(12, 9), (48, 3)],
            "NYU": [(15, 6), (18, 9), (42, 9)],  # four fingers, the thumb, and three joints of wrist and palm
        }
        counts = [16 * (n_in + 1) + n_out * 17 for n_in, n_out in expected[skeleton.name]]
        assert [n_parameters(group) for group in model.groups] == counts

    def test_corrects_a_finger_from_its_own_joints_and_those_on_no_finger(self, model, poses, skeleton):
        depends = torch.autograd.functional.jacobian(model.correction, poses[:1]).abs().sum(dim=(0, 2, 3, 5)) > 0
        on_fingers = {joint for _, joints in skeleton.fingers for joint in joints}
        others = set(range(skeleton.n_joints)) - on_fingers
        seen = {joint: {*joints, *others} for _, joints in skeleton.fingers for joint in joints}
        seen |= {joint: set(range(skeleton.n_joints)) for joint in others}
        assert {joint: set(row.nonzero().flatten().tolist()) for joint, row in enumerate(depends)} == seen

    def test_needs_no_joints_beside_the_fingers(self):
        fingers = (("one", (0, 2)), ("other", (1, 3)))
        skeleton = Skeleton("Pincers", ("a", "b", "c", "d"), bones=((0, 2), (1, 3)), fingers=fingers)
        model = CorrectorFingerMLP(skeleton, hidden_dims=[8])
        assert n_parameters(model) == 8 * 7 + 6 * 9
        assert model(torch.zeros(2, 4, 3)).shape == (2, 4, 3)

    @pytest.mark.parametrize(
        ("fingers", "says"),
        [
            ((), r"needs a skeleton with fingers, but Hand has none; name the joints .*Skeleton\(\.\.\., fingers="),
            ((("one", (1, 2)), ("two", (2, 3))), r"those of Hand are {'one': \(1, 2\), 'two': \(2, 3\)}"),
            ((("one", (3, 4)),), r"of the joints 0 to 3, but those of Hand are {'one': \(3, 4\)}"),
        ],
    )
    def test_refuses_a_skeleton_without_separate_fingers_and_says_why(self, fingers, says):
        skeleton = Skeleton("Hand", ("a", "b", "c", "d"), bones=((0, 1), (0, 2), (0, 3)), fingers=fingers)
        with pytest.raises(ValueError, match=says):
            CorrectorFingerMLP(skeleton, hidden_dims=[8])

    @pytest.mark.parametrize("wrong", [{"hidden_dims": [0]}, {"activation": "none"}, {"dropout": -1}])
    def test_refuses_settings_that_do_not_make_a_network(self, wrong):
        (name,) = wrong
        with pytest.raises(ValueError, match=name):
            CorrectorFingerMLP(HANDS17, **{"hidden_dims": [8], **wrong})


class TestGlobalShiftMLP:
    def test_moves_the_hand_as_a_whole(self, skeleton):
        model = seeded(lambda: GlobalShiftMLP(skeleton, hidden_dims=[16]))
        poses, _ = hands(skeleton, 4)
        correction = model.correction(poses / 100)
        assert torch.equal(correction, correction[:, :1].expand_as(correction))
        assert correction.any()

    def test_computes_what_an_mlp_with_three_outputs_does(self):
        model = seeded(lambda: GlobalShiftMLP(HANDS17, hidden_dims=[20], activation="tanh")).double()
        poses = torch.randn(5, 21, 3, dtype=torch.float64, generator=generator())
        w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.parameters())
        shift = np.tanh(poses.numpy().reshape(5, -1) @ w1.T + b1) @ w2.T + b2
        np.testing.assert_allclose(model(poses).detach(), poses.numpy() + shift[:, None], atol=1e-12)

    def test_refuses_settings_that_do_not_make_a_network(self):
        with pytest.raises(ValueError, match="hidden_dims"):
            GlobalShiftMLP(HANDS17, hidden_dims=[0])
        with pytest.raises(ValueError, match="activation"):
            GlobalShiftMLP(HANDS17, hidden_dims=[8], activation="none")
        with pytest.raises(ValueError, match="dropout"):
            GlobalShiftMLP(HANDS17, hidden_dims=[8], dropout=-1)


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


def test_the_skeletons_of_the_tests_have_joints_with_several_numbers_of_neighbours():
    for skeleton in SKELETONS:
        assert len({len(neighbours) for neighbours in skeleton.neighbours}) > 2


class TestModelsOverTime:
    def test_smooth_as_scipy_does(self):
        poses = normalized_hands(HANDS17, 40)[0]
        model = GaussianSmoother(HANDS17, sigma=2.0)
        smoothed = model(model.window.of_run(poses))
        expected = gaussian_filter1d(poses.double().numpy(), 2.0, axis=0, mode="nearest", radius=6)
        np.testing.assert_allclose(smoothed, expected, atol=1e-5)

    @pytest.mark.parametrize("model", [GaussianSmoother(HANDS17, sigma=2.0), TemporalFilter(HANDS17, **FILTER)])
    def test_move_with_the_hand(self, model):
        """A filter over time knows nothing of where the hand is."""
        windows = torch.randn(3, model.window.size, 21, 3, generator=generator(0))
        shift = torch.tensor([30.0, -20.0, 50.0])
        torch.testing.assert_close(model(windows + shift), model(windows) + shift, atol=1e-4, rtol=0)

    def test_of_a_filter_treat_all_coordinates_of_all_joints_alike(self):
        model = TemporalFilter(HANDS17, **FILTER).eval()
        windows = torch.randn(3, 5, 21, 3, generator=generator(0))
        order = torch.randperm(63, generator=generator(1))
        shuffled = windows.flatten(2)[:, :, order].view(3, 5, 21, 3)
        expected = model(windows).flatten(1)[:, order].view(3, 21, 3)
        torch.testing.assert_close(model(shuffled), expected)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("case", OVER_TIME, ids=lambda case: case[0].__name__)
    def test_see_later_frames_unless_they_are_causal_and_no_frames_of_other_runs(self, case, causal):
        member, arguments = case
        model = seeded(lambda: member(HANDS17, **{**arguments, "causal": causal})).eval()
        poses = normalized_hands(HANDS17, 12)[0]
        changed = poses.clone()
        changed[6:] += 1
        frames = FrameTable.of(sequence=["a"] * 5 + ["b"] * 7, index=[*range(5), *range(7)])
        corrected = []
        for points in (poses, changed):
            dataset = PoseDataset("two", points.numpy(), {"A": points.numpy()}, HANDS17, "", frames)
            data = DeviceDataset.of(dataset, torch.device("cpu"))
            corrected.append(model(points[data.window_rows(torch.arange(12), model.window)]))
        is_same = (corrected[0] == corrected[1]).all(dim=2).all(dim=1)
        # Row 5 is the first one of the second run, and row 6 follows it.
        assert is_same.tolist() == [True] * 5 + [causal] + [False] * 6

    def test_have_the_corrected_frame_in_the_middle_or_at_the_end(self):
        assert TemporalFilter(HANDS17, size=5).window == Window(2, 2)
        assert TemporalFilter(HANDS17, size=4, causal=True).window == Window(3, 0)
        assert TemporalLCN(HANDS17, size=5).window == Window(2, 2)
        assert GaussianSmoother(HANDS17, sigma=1.5).window == Window(5, 5)
        with pytest.raises(ValueError, match="size must be odd, so that the corrected frame is in the middle, not 4"):
            TemporalFilter(HANDS17, size=4)


class TestTemporalLCN:
    def test_with_one_filter_is_a_temporal_filter_and_then_a_locally_connected_network(self, skeleton):
        arguments = {**TEMPORAL_LCN, "n_filters": 1}
        model = seeded(lambda: TemporalLCN(skeleton, **arguments)).eval()
        over_time = TemporalFilter(skeleton, **{name: arguments[name] for name in FILTER}).eval()
        over_joints = CorrectorLCN(skeleton, **{name: arguments[name] for name in LCN}).eval()
        over_time.layers.load_state_dict(model.filter.state_dict())
        weights = model.state_dict()
        over_joints.load_state_dict({name: weights[name] for name in over_joints.state_dict()})
        windows = model.window.of_run(normalized_hands(skeleton, 8)[0])
        torch.testing.assert_close(model(windows), over_joints(over_time(windows)))

    def test_a_joint_depends_on_all_frames_of_the_joints_within_the_reach_of_its_layers_only(self, skeleton):
        model = seeded(lambda: TemporalLCN(skeleton, **TEMPORAL_LCN)).eval()
        windows = torch.randn(1, 5, skeleton.n_joints, 3, generator=generator())
        jacobian = torch.autograd.functional.jacobian(model.correction, windows)  # (1, J, 3, 1, W, J, 3)
        depends = jacobian.ne(0).any(dim=6).any(dim=2)[0, :, 0]  # (J, W, J)
        near = torch.tensor(graph_distances(skeleton) <= 4)  # four layers, each with the reach 1
        assert not near.all(), "the example shows nothing"
        assert torch.equal(depends, near.unsqueeze(1).expand_as(depends))

    def test_sees_how_a_joint_moves_and_not_only_where_it_is_after_smoothing(self):
        model = seeded(lambda: TemporalLCN(HANDS17, **{**TEMPORAL_LCN, "zero_init": True})).eval()
        torch.nn.init.normal_(model.last.weight)  # the first filter stays zero
        poses = normalized_hands(HANDS17, 5)[0]
        still = poses[2].expand(1, 5, -1, -1)
        assert not torch.allclose(model(poses.unsqueeze(0)), model(still))

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"size": 4}, "size must be odd, so that the corrected frame is in the middle, not 4"),
            ({"n_filters": 0}, "n_filters must be a whole number of at least 1, not 0"),
            ({"hidden_dims": 6}, "hidden_dims must be a list of widths of at least 1, not 6"),
            ({"reach": 0}, "reach must be a whole number of at least 1, not 0"),
            ({"dropout": 1}, "dropout must be a probability of at least 0 and below 1, not 1"),
        ],
    )
    def test_refuses_settings_that_do_not_make_a_network_and_says_why(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            TemporalLCN(HANDS17, **{**TEMPORAL_LCN, **wrong})


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
