import pytest
import torch

from data_pipeline.skeleton import HANDS17
from posenet.models import CorrectorGNN
from tests.posenet_tests.models.gnn_by_joint import GNNByJoint
from tests.posenet_tests.models.support import CODERS, GNN, graph_distances, n_parameters, seeded
from tests.support import SKELETONS, generator


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

    @pytest.mark.parametrize("message_dims", [[], [8], [8, 7]])
    def test_sends_the_same_messages_as_the_stacks_that_a_gpu_computes(self, skeleton, message_dims):
        messages = seeded(lambda: CorrectorGNN(skeleton, **{**GNN, "message_dims": message_dims})).messages
        states = torch.randn(skeleton.n_joints, 5, GNN["latent_dim"], generator=generator(1)).requires_grad_()
        sent = torch.cat([stack(states[messages.joints]) for stack in messages.stacks])
        received = [messages(states, 1), states + sent[messages.places]]
        torch.testing.assert_close(*received)
        inputs = [states, *messages.parameters()]
        torch.testing.assert_close(*(torch.autograd.grad(sums.square().sum(), inputs) for sums in received))

    def test_trains_with_autocast(self, skeleton):
        model = seeded(lambda: CorrectorGNN(skeleton, **GNN))
        poses = torch.randn(5, skeleton.n_joints, 3, generator=generator(1))
        with torch.autocast("cpu", torch.bfloat16):
            corrected = model(poses)
        torch.testing.assert_close(corrected, model(poses), rtol=0.05, atol=0.05)
        corrected.square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_has_the_gradients_of_finite_differences_with_dropout(self, skeleton):
        settings = {**GNN, "message_dims": [4, 3], "dropout": 0.3}
        messages = seeded(lambda: CorrectorGNN(skeleton, **settings)).messages.double()
        states = torch.randn(skeleton.n_joints, 3, GNN["latent_dim"], dtype=torch.float64, generator=generator(1))

        def received(states, *parameters):
            torch.manual_seed(7)  # the same units are dropped each time
            names = dict(messages.named_parameters())
            return torch.func.functional_call(messages, dict(zip(names, parameters, strict=True)), (states, 2))

        inputs = [states.requires_grad_(), *messages.parameters()]
        assert torch.autograd.gradcheck(received, inputs, fast_mode=True)
        assert not torch.equal(received(*inputs), messages.eval()(states, 2))

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
                skeleton.n_joints, 1, -1
            )
            coded = coder(one)
            same[kind] = torch.allclose(coded[:1].expand_as(coded), coded, atol=1e-6)
            changed = one.clone()
            changed[0] += 1
            others[kind] = not torch.allclose(coder(changed)[1:], coded[1:])
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


def test_the_skeletons_of_the_tests_have_joints_with_several_numbers_of_neighbours():
    for skeleton in SKELETONS:
        assert len({len(neighbours) for neighbours in skeleton.neighbours}) > 2
