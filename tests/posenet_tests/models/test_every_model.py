import copy
import io

import pytest
import torch
from torch import nn

from data_pipeline.batch import fuses, window_of
from posenet import models
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
from posenet.reproducible import reproducible_process
from tests.posenet_tests.models.support import (
    AGREEMENT,
    CODERS,
    FILTER,
    GNN,
    KERNEL,
    LCN,
    TEMPORAL_LCN,
    TRANSFORMER,
    fit,
    normalized_hands,
    seeded,
)
from tests.support import cases, global_random_states, on_skeletons, pair_id

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
    def test_has_the_same_outputs_and_gradients_on_a_gpu_as_on_the_cpu(self, make, poses):
        here, there = (outcome_of_a_step(make().eval(), poses, device) for device in ("cpu", "cuda"))
        torch.testing.assert_close([tensor.cpu() for tensor in there], here, rtol=1e-4, atol=1e-4)

    @pytest.mark.gpu
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
