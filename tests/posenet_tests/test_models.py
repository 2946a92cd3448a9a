import copy
import io
import math

import numpy as np
import pytest
import torch

from data_pipeline.skeleton import HANDS17
from posenet import models
from posenet.models import Corrector, CorrectorMLP
from posenet.models.corrector_mlp import ACTIVATIONS
from tests.support import case_id, cases, global_random_states, hands

ARGUMENTS = {
    CorrectorMLP: [
        {"hidden_dims": [32]},
        {"hidden_dims": []},
        {"hidden_dims": (24, 16), "activation": "tanh"},
        {"hidden_dims": [32, 32], "dropout": 0.5, "batchnorm": True},
    ]
}

CASES = cases(models, Corrector, ARGUMENTS)

NUMPY_ACTIVATIONS = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def seeded(make, seed=0):
    """Returns what `make` makes with torch's global generator seeded, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


class TestEveryModel:
    @pytest.fixture(params=CASES, ids=case_id)
    def make(self, request, skeleton):
        member, arguments = request.param
        return lambda seed=0: seeded(lambda: member(skeleton, **arguments), seed)

    @pytest.fixture
    def model(self, make):
        return make().eval()

    @pytest.fixture
    def poses(self, skeleton):
        poses, _ = hands(skeleton, 8)
        return (poses - poses.mean(dim=1, keepdim=True)) / 50

    def test_adds_a_correction_to_the_pose(self, model, poses):
        assert torch.equal(model(poses), poses + model.correction(poses))
        assert not torch.equal(model(poses), poses)

    @pytest.mark.parametrize("n", [1, 2, 8])
    def test_keeps_shape_and_precision(self, model, poses, n):
        corrected = model(poses[:n])
        assert (corrected.shape, corrected.dtype) == (poses[:n].shape, poses.dtype)

    @pytest.mark.parametrize("training", [True, False])
    def test_does_not_write_to_its_input(self, model, poses, training):
        before = poses.clone()
        model.train(training)(poses)
        assert torch.equal(poses, before)

    def test_lets_gradients_reach_all_parameters(self, make, poses):
        model = make().train()
        model(poses).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert gradients
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        # A weight whose gradient is always zero learns nothing; a bias before a batch norm is such a one.
        assert all(gradient.any() for name, gradient in gradients.items() if not name.endswith("bias"))

    def test_starts_from_the_same_weights_for_the_same_seed_alone(self, make):
        first, same, other = make(0).state_dict(), make(0).state_dict(), make(1).state_dict()
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_is_the_same_model_after_its_weights_were_saved_and_loaded(self, make, poses):
        model, loaded = make(0), make(1)
        model.train()(poses)  # so that running statistics are others than at the start
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        loaded.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(loaded.eval()(poses), model.eval()(poses))

    def test_is_the_same_model_when_it_is_copied(self, model, poses):
        assert torch.equal(copy.deepcopy(model)(poses), model(poses))

    def test_draws_nothing_once_it_is_trained(self, model, poses):
        states = global_random_states()
        assert torch.equal(model(poses), model(poses))
        assert global_random_states() == states

    def test_corrects_a_pose_as_it_would_alone_once_it_is_trained(self, model, poses):
        torch.testing.assert_close(model(poses)[3:4], model(poses[3:4]))

    def test_refuses_a_setting_that_it_does_not_have(self, make, skeleton, request):
        member, arguments = request.node.callspec.params["make"]
        with pytest.raises(TypeError, match="no_such_setting"):
            member(skeleton, **arguments, no_such_setting=1)


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

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_computes_what_numpy_does_with_its_weights(self, skeleton, activation):
        model = seeded(lambda: CorrectorMLP(skeleton, hidden_dims=[20, 10], activation=activation)).double()
        poses = torch.randn(5, skeleton.n_joints, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        weights = [parameter.detach().numpy() for parameter in model.parameters()]
        x = poses.numpy().reshape(5, -1)
        for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
            x = NUMPY_ACTIVATIONS[activation](x @ weight.T + bias)
        expected = poses.numpy() + (x @ weights[4].T + weights[5]).reshape(5, -1, 3)
        np.testing.assert_allclose(model(poses).detach(), expected, rtol=1e-12, atol=1e-12)

    def test_ends_in_a_linear_layer_so_that_a_correction_may_be_of_any_size_and_sign(self):
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

    def test_drops_units_in_training_alone(self):
        model = CorrectorMLP(HANDS17, hidden_dims=[64], dropout=0.5)
        poses, _ = hands(HANDS17, 4)
        assert not torch.equal(model(poses), model(poses))
        model.eval()
        assert torch.equal(model(poses), model(poses))

    @pytest.mark.parametrize("hidden_dims", [[0], [256, -1], [2.5], [True], ["256"], "256", 256, None, [None]])
    def test_refuses_hidden_dims_that_are_no_widths(self, hidden_dims):
        with pytest.raises(ValueError, match=r"hidden_dims must be a list of widths of at least 1, not "):
            CorrectorMLP(HANDS17, hidden_dims=hidden_dims)

    @pytest.mark.parametrize("activation", ["sigmoid", "ReLU", "", None])
    def test_refuses_an_unknown_activation_with_those_that_there_are(self, activation):
        says = rf"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}"
        with pytest.raises(ValueError, match=says):
            CorrectorMLP(HANDS17, hidden_dims=[8], activation=activation)

    @pytest.mark.parametrize("dropout", [-0.1, 1.5, math.nan, math.inf])
    @pytest.mark.parametrize("hidden_dims", [[8], []])
    def test_refuses_a_dropout_that_is_no_probability(self, dropout, hidden_dims):
        with pytest.raises(ValueError, match=r"dropout must be a probability from 0 to 1"):
            CorrectorMLP(HANDS17, hidden_dims=hidden_dims, dropout=dropout)

    def test_takes_its_settings_by_name_alone(self):
        with pytest.raises(TypeError, match="positional"):
            CorrectorMLP(HANDS17, [8])
