import numpy as np
import pytest
import torch

from data_pipeline.skeleton import HANDS17
from posenet.models import GlobalShiftMLP
from tests.posenet_tests.models.support import seeded
from tests.support import generator, hands


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
