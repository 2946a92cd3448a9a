"""A message-passing network on the skeleton's graph, with separate weights for every joint."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import StackedMLP, check_count, check_dropout, check_widths, dropout_factors, mlp, zero

Coder = Literal["shared", "per_joint", "whole_pose"]

CODERS: tuple[Coder, ...] = get_args(Coder)

SLOPE = 0.01
"""Of leaky ReLU for negative inputs, as in `torch.nn.LeakyReLU`."""

Senders = Sequence[Sequence[int]]
"""For each joint, the places of itself and its neighbours among the sorted states."""


class CorrectorGNN(Corrector):
    """Encodes each joint, passes messages along the skeleton, and decodes each joint's correction.

    In each round a message is added to each joint's state: the output of the joint's own MLP for the concatenated
    states of the joint and its neighbours in `Skeleton.message_edges`. All rounds share their weights. Hidden layers
    use leaky ReLU, the last layer of every MLP is linear. In most graph neural networks, by contrast, all nodes share
    their weights, and a node sums up separate messages of its neighbours.

    Encoders and decoders are `shared` (one MLP for all joints), `per_joint` (an MLP for each) or `whole_pose` (one MLP
    over all joints together).

    Args:
        skeleton: The skeleton of the poses; any.
        n_iter: Rounds of message passing.
        latent_dim: Size of a joint's state.
        encoder: One of `CODERS`.
        encoder_dims: Width of each hidden layer of the encoder.
        message_dims: Width of each hidden layer of the message MLPs.
        decoder: One of `CODERS`.
        decoder_dims: Width of each hidden layer of the decoder.
        dropout: Dropout probability of hidden units.
        zero_init: Initialise the decoder's last layer with zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        n_iter: int,
        latent_dim: int,
        encoder: Coder,
        encoder_dims: Sequence[int],
        message_dims: Sequence[int],
        decoder: Coder,
        decoder_dims: Sequence[int],
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__(skeleton)
        check_count("n_iter", n_iter)
        check_count("latent_dim", latent_dim)
        check_widths("encoder_dims", encoder_dims)
        check_widths("message_dims", message_dims)
        check_widths("decoder_dims", decoder_dims)
        check_dropout(dropout)
        self.n_iter = n_iter
        self.encoder = JointCoder(skeleton, encoder, "encoder", [3, *encoder_dims, latent_dim], dropout)
        self.messages = Messages(skeleton, latent_dim, message_dims, dropout)
        self.decoder = JointCoder(skeleton, decoder, "decoder", [latent_dim, *decoder_dims, 3], dropout)
        if zero_init:
            zero(self.decoder.last_layer)

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""
        # Inside, joints come first: what belongs to a joint is one matrix without gaps, (N, ·).
        states = self.encoder(poses.transpose(0, 1))  # (J, N, 3) -> (J, N, latent)
        states = self.messages(states, self.n_iter)
        correction: Tensor = self.decoder(states)  # (J, N, latent) -> (J, N, 3)
        return correction.transpose(0, 1)


class JointCoder(nn.Module):
    """Encodes or decodes the features of each joint.

    Args:
        skeleton: The skeleton.
        kind: One of `CODERS`.
        argument: The name of the model's constructor argument, for error messages.
        dims: Features per joint of the inputs, the hidden layers, and the outputs; all joints share the hidden layers
            of `whole_pose`.
        dropout: Dropout probability of hidden units.
    """

    def __init__(self, skeleton: Skeleton, kind: Coder, argument: str, dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        if kind not in CODERS:
            raise ValueError(f"{argument} must be one of {', '.join(map(repr, CODERS))}, not {kind!r}")
        self.kind = kind
        self.n_outputs = dims[-1]
        n_joints = skeleton.n_joints
        self.mlp: StackedMLP | nn.Sequential
        if kind == "per_joint":
            self.mlp = StackedMLP(n_joints, dims, dropout=dropout)
        else:
            n_coded = n_joints if kind == "whole_pose" else 1
            self.mlp = mlp([n_coded * dims[0], *dims[1:-1], n_coded * dims[-1]], dropout=dropout)

    @property
    def last_layer(self) -> nn.Module:
        """The output layer."""
        return (self.mlp.layers if isinstance(self.mlp, StackedMLP) else self.mlp)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs, (J, N, outputs), for inputs (J, N, inputs)."""
        if self.kind == "whole_pose":
            x = x.transpose(0, 1).flatten(1)  # (N, J·inputs)
            coded: Tensor = self.mlp(x).unflatten(1, (-1, self.n_outputs)).transpose(0, 1)
        else:
            coded = self.mlp(x)
        return coded


class Messages(nn.Module):
    """The messages of all joints, with a separate MLP for each.

    On a GPU, in exported files and with autocast, joints with the same number of neighbours are computed together.
    States are kept sorted by the number of neighbours, so that the outputs need not be reordered in every round.

    Args:
        skeleton: Its `message_edges` are the graph.
        latent_dim: Size of a joint's state.
        hidden_dims: Width of each hidden layer of a message MLP.
        dropout: Dropout probability of hidden units.

    Attributes:
        stacks: One stack for each number of neighbours.
    """

    def __init__(self, skeleton: Skeleton, latent_dim: int, hidden_dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        neighbours = skeleton.neighbours
        joints = sorted(range(skeleton.n_joints), key=lambda joint: (len(neighbours[joint]), joint))
        places = [joints.index(joint) for joint in range(skeleton.n_joints)]
        self.stacks = nn.ModuleList()
        for _, group in groupby(joints, key=lambda joint: len(neighbours[joint])):
            senders = [[places[sender] for sender in (joint, *neighbours[joint])] for joint in group]
            self.stacks.append(MessageStack(senders, latent_dim, hidden_dims, dropout))
        self.register_buffer("joints", torch.tensor(joints), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, states: Tensor, n_rounds: int) -> Tensor:
        """Returns the states after `n_rounds` of messages, for those before, both (J, N, latent)."""
        states = states.index_select(0, self.get_buffer("joints"))
        stacks = cast("Sequence[MessageStack]", self.stacks)
        # An exported file should have few operations, and autocast does not cast what products in place take.
        is_stacked = torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu")
        if states.device.type == "cpu" and not is_stacked:
            senders = [joint for stack in stacks for joint in stack.get_buffer("senders").tolist()]
            layers = [parameter for stack in stacks for joint in stack.layers_of_joints() for parameter in joint]
            dropout = stacks[0].mlp.dropout if self.training else 0.0
            for _ in range(n_rounds):
                states = JointByJoint.apply(states, senders, dropout, *layers)  # type: ignore[no-untyped-call]
        else:
            for _ in range(n_rounds):
                states = states + torch.cat([stack(states) for stack in stacks])
        return states.index_select(0, self.get_buffer("places"))


class MessageStack(nn.Module):
    """The messages of S joints with the same number of neighbours, computed by a stack of MLPs.

    Args:
        senders: For each of the joints its own index in the states and those of its neighbours.
        latent_dim: Size of a joint's state.
        hidden_dims: Width of each hidden layer.
        dropout: Dropout probability of hidden units.

    Attributes:
        n_joints: S.
        mlp: The MLPs, for the concatenated states of each joint's senders.
    """

    def __init__(self, senders: Senders, latent_dim: int, hidden_dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.n_joints = len(senders)
        n_inputs = len(senders[0]) * latent_dim
        self.mlp = StackedMLP(self.n_joints, [n_inputs, *hidden_dims, latent_dim], dropout=dropout)
        self.register_buffer("senders", torch.tensor(senders), persistent=False)

    def layers_of_joints(self) -> list[tuple[Tensor, ...]]:
        """Returns weight and bias of each layer for each of the joints."""
        return list(zip(*(parameter.unbind() for parameter in self.mlp.parameters()), strict=True))

    def forward(self, states: Tensor) -> Tensor:
        """Returns the messages, (S, N, latent), for states, (J, N, latent)."""
        senders = self.get_buffer("senders")  # (S, senders)
        sent = states.index_select(0, senders.flatten())
        # (S·senders, N, latent) -> (S, N, senders, latent) -> (S, N, senders·latent)
        inputs = sent.view(*senders.shape, *states.shape[1:]).transpose(1, 2).flatten(2)
        messages: Tensor = self.mlp(inputs)
        return messages


class JointByJoint(torch.autograd.Function):
    """A round of messages on a CPU: computes the MLP of one joint after another, and adds everything up in place.

    A CPU takes longer to gather the states of all senders and to add up their gradients than to start these products
    one by one, and the units of one joint fit into its cache. Memory is saved too, since gathered states need not be
    kept for the gradients. A GPU, by contrast, gathers quickly and needs few large products.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, senders: Senders, dropout: float, *parameters: Tensor) -> Tensor:
        """Returns the sum of states and messages, (J, N, latent).

        Args:
            ctx: Keeps what `backward` needs.
            states: The sorted states, (J, N, latent).
            senders: The senders of each joint.
            dropout: Dropout probability of hidden units; 0 outside training.
            *parameters: Weight, (inputs, outputs), and bias, (1, outputs), of each layer of each joint's MLP.
        """
        received, state_of = states.clone(), states.unbind()
        hidden: list[Tensor] = []
        factors: list[Tensor] = []
        for joint, layers, its_sum in zip(senders, split(parameters, len(senders)), received, strict=True):
            x = layers[1].repeat(states.shape[1], 1)
            for sender, weight in zip(joint, layers[0].chunk(len(joint)), strict=True):
                x.addmm_(state_of[sender], weight)
            for weight, bias in zip(layers[2::2], layers[3::2], strict=True):
                functional.leaky_relu(x, SLOPE, inplace=True)
                if dropout > 0:
                    factors.append(dropout_factors(x, dropout))
                    x *= factors[-1]
                hidden.append(x)
                x = torch.addmm(bias, x, weight)
            its_sum += x
        ctx.save_for_backward(states, *parameters, *hidden, *factors)
        ctx.senders, ctx.ends = senders, (len(parameters), len(parameters) + len(hidden))
        return received

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of `states` and `parameters` for that of the sum."""
        states, *saved = ctx.saved_tensors
        parameters, hidden, factors = (saved[begin:end] for begin, end in pairwise((0, *ctx.ends, len(saved))))
        of_states = gradient.clone(memory_format=torch.contiguous_format)
        of_parameters = [torch.empty_like(parameter) for parameter in parameters]
        state_of, of_state = states.unbind(), of_states.unbind()
        joints = zip(
            ctx.senders,
            gradient,
            split(parameters, len(ctx.senders)),
            split(of_parameters, len(ctx.senders)),
            strict=True,
        )
        for joint, of_x, layers, of_layers in reversed(list(joints)):
            for i in range(len(layers) - 2, 0, -2):  # from the last weight to the second
                x = hidden.pop()
                torch.mm(x.T, of_x, out=of_layers[i])
                torch.sum(of_x, 0, keepdim=True, out=of_layers[i + 1])
                of_x = of_x @ layers[i].T
                if factors:
                    of_x *= factors.pop()
                # Units that dropout set to zero have no gradient here already; the others kept their sign.
                of_x = torch.ops.aten.leaky_relu_backward(of_x, x, SLOPE, self_is_result=True)
            torch.sum(of_x, 0, keepdim=True, out=of_layers[1])
            weights, of_weights = layers[0].chunk(len(joint)), of_layers[0].chunk(len(joint))
            for sender, weight, of_weight in zip(joint, weights, of_weights, strict=True):
                torch.mm(state_of[sender].T, of_x, out=of_weight)
                of_state[sender].addmm_(of_x, weight.T)
        return of_states, None, None, *of_parameters


def split(parameters: Sequence[Tensor], n_joints: int) -> list[Sequence[Tensor]]:
    """Returns the parameters of each joint's MLP."""
    size = len(parameters) // n_joints
    return [parameters[i : i + size] for i in range(0, len(parameters), size)]
