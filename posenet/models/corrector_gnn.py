"""A message-passing network on the skeleton's graph, with weights of its own for every joint."""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import StackedMLP, check_count, check_dropout, check_widths, mlp, zero

Coder = Literal["shared", "per_joint", "whole_pose"]

CODERS: tuple[Coder, ...] = get_args(Coder)


class CorrectorGNN(Corrector):
    """Encodes each joint, passes messages along the skeleton, and decodes each joint's correction.

    In a round each joint's state is raised by its message: an MLP of the joint's own over the states of itself and
    its neighbours in `Skeleton.message_edges`, side by side. All rounds have the same weights. Hidden units are leaky
    rectified linear, the last layer of every MLP is linear.

    Encoders and decoders are `shared` (one MLP for all joints), `per_joint` (an MLP for each) or `whole_pose` (one MLP
    over all joints at once).

    Args:
        skeleton: The skeleton of the poses; any.
        n_iter: Rounds of message passing.
        latent_dim: Size of a joint's state.
        encoder: One of `CODERS`.
        encoder_dims: Width of each hidden layer of the encoder.
        message_dims: Width of each hidden layer of the messages' MLPs.
        decoder: One of `CODERS`.
        decoder_dims: Width of each hidden layer of the decoder.
        dropout: Probability that a hidden unit is left out in training.
        zero_init: Begin with a decoder whose last layer is zero, so that the untrained model returns its input.
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
        """Returns what is to be added to `poses`, (N, J, 3)."""
        states = self.messages.sorted(self.encoder(poses))  # (N, J, 3) -> (N, J, latent)
        for _ in range(self.n_iter):
            states = states + self.messages(states)
        correction: Tensor = self.decoder(self.messages.unsorted(states))  # (N, J, latent) -> (N, J, 3)
        return correction


class JointCoder(nn.Module):
    """Turns numbers of each joint into others.

    Args:
        skeleton: The skeleton.
        kind: One of `CODERS`.
        argument: What the constructor of the model calls it.
        dims: Numbers a joint has before, in hidden layers, and after; hidden layers of `whole_pose` are shared by all.
        dropout: Probability that a hidden unit is left out in training.
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
        """The layer that gives the outputs."""
        return (self.mlp.layers if isinstance(self.mlp, StackedMLP) else self.mlp)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Returns the joints' outputs, (N, J, outputs), of their inputs, (N, J, inputs)."""
        if self.kind == "per_joint":
            coded: Tensor = self.mlp(x.transpose(0, 1)).transpose(0, 1)  # (J, N, ·) inside
        elif self.kind == "whole_pose":
            coded = self.mlp(x.flatten(1)).unflatten(1, (-1, self.n_outputs))  # (N, J·inputs) -> (N, J, outputs)
        else:
            coded = self.mlp(x)  # (N, J, outputs)
        return coded


class Messages(nn.Module):
    """The messages of all joints, an MLP of its own for each.

    Joints with as many neighbours are computed together. So that what comes out of them need not be put into another
    order in every round, states are kept sorted by the number of neighbours.

    Args:
        skeleton: Its `message_edges` are the graph.
        latent_dim: Size of a joint's state.
        hidden_dims: Width of each hidden layer of a message's MLP.
        dropout: Probability that a hidden unit is left out in training.

    Attributes:
        stacks: The joints of each number of neighbours.
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

    def sorted(self, states: Tensor) -> Tensor:
        """Returns states, (N, J, latent), sorted by the number of neighbours."""
        return states.index_select(1, self.get_buffer("joints"))

    def unsorted(self, states: Tensor) -> Tensor:
        """Returns sorted states, (N, J, latent), in the skeleton's order again."""
        return states.index_select(1, self.get_buffer("places"))

    def forward(self, states: Tensor) -> Tensor:
        """Returns the messages, (N, J, latent), of sorted states, (N, J, latent)."""
        return torch.cat([stack(states) for stack in self.stacks]).transpose(0, 1)  # (J, N, latent) -> (N, J, latent)


class MessageStack(nn.Module):
    """The messages of S joints that have as many neighbours: a stack of MLPs.

    Args:
        senders: For each of the joints the places in the states of itself and its neighbours.
        latent_dim: Size of a joint's state.
        hidden_dims: Width of each hidden layer.
        dropout: Probability that a hidden unit is left out in training.
    """

    def __init__(
        self, senders: Sequence[Sequence[int]], latent_dim: int, hidden_dims: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.n_joints = len(senders)
        self.n_inputs = len(senders[0]) * latent_dim
        self.mlp = StackedMLP(self.n_joints, [self.n_inputs, *hidden_dims, latent_dim], dropout=dropout)
        self.register_buffer("senders", torch.tensor(senders).flatten(), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """Returns the messages, (S, N, latent), of states, (N, J, latent)."""
        sent = states.index_select(1, self.get_buffer("senders"))  # (N, S·senders, latent)
        # The states of a joint's senders lie side by side, so its inputs are a view.
        inputs = sent.view(-1, self.n_joints, self.n_inputs)  # (N, S, senders·latent)
        messages: Tensor = self.mlp(inputs.transpose(0, 1))  # (S, N, senders·latent) -> (S, N, latent)
        return messages
