import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from data_pipeline.skeleton import HANDS17
from posenet.models import CorrectorMLP
from posenet.models.layers import ACTIVATIONS, dropout
from tests.posenet_tests.models.support import NUMPY_ACTIVATIONS, n_parameters, seeded
from tests.support import hands


def layers_of(**arguments):
    return [type(layer).__name__ for layer in CorrectorMLP(HANDS17, **arguments).layers]


class TestCorrectorMLP:
    @pytest.mark.parametrize(
        ("hidden_dims", "batchnorm", "expected"),
        [
            # 63·256 + 256, 256·256 + 256, 256·63 + 63
            ([256, 256], False, 98_367),
            # and a scale and a shift of each of 512 units
            ([256, 256], True, 99_391),
            ([], False, 63 * 63 + 63),
        ],
    )
    def test_has_the_parameters_that_a_count_by_hand_gives(self, hidden_dims, batchnorm, expected):
        model = CorrectorMLP(HANDS17, hidden_dims=hidden_dims, batchnorm=batchnorm)
        assert n_parameters(model) == expected

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

    def test_normalises_before_the_activation_and_drops_after_it(self):
        assert layers_of(hidden_dims=[8], dropout=0.1, batchnorm=True, activation="elu") == [
            *("Linear", "BatchNorm1d", "ELU", "Dropout"),
            "Linear",
        ]
        assert layers_of(hidden_dims=[8, 8]) == ["Linear", "LeakyReLU", "Linear", "LeakyReLU", "Linear"]

    @pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.LeakyReLU(0.1)], ids=str)
    @pytest.mark.parametrize("batchnorm", [False, True])
    def test_trains_as_if_it_always_dropped_after_the_activation(self, activation, batchnorm):
        settings = {"hidden_dims": [20, 10], "activation": activation, "batchnorm": batchnorm}
        model = seeded(lambda: CorrectorMLP(HANDS17, **settings, dropout=0.3)).double()
        poses, labels = hands(HANDS17, 6, dtype=torch.float64)

        def dropped_last(poses):
            x = poses.flatten(1)
            for index, layer in enumerate(model.layers):
                if index > 0 and isinstance(layer, nn.Linear):
                    x = dropout(x, 0.3, training=True)
                x = x if isinstance(layer, nn.Dropout) else layer(x)
            return poses + x.view_as(poses)

        outputs, gradients = [], []
        for corrected in (model, dropped_last):
            torch.manual_seed(0)
            model.zero_grad()
            outputs.append(corrected(poses))
            (outputs[-1] - labels).square().mean().backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*gradients)

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
