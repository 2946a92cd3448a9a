import math

import numpy as np
import pytest
import torch

from data_pipeline.skeleton import HANDS17
from posenet.models import CorrectorTransformer
from tests.posenet_tests.models.support import NUMPY_ACTIVATIONS, TRANSFORMER, seeded
from tests.support import generator


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
