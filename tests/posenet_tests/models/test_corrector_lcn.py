import numpy as np
import pytest
import torch

from data_pipeline.skeleton import HANDS17
from posenet.models import CorrectorLCN
from tests.posenet_tests.models.support import LCN, NUMPY_ACTIVATIONS, graph_distances, seeded
from tests.support import generator, hands


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
