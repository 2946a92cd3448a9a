"""A message-passing network on the skeleton's graph, with separate weights for every joint."""

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
        states = self.messages.sorted(self.encoder(poses))  # (N, J, 3) -> (N, J, latent)
        for _ in range(self.n_iter):
            states = states + self.messages(states)
        correction: Tensor = self.decoder(self.messages.unsorted(states))  # (N, J, latent) -> (N, J, 3)
        return correction


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
        """Returns the outputs, (N, J, outputs), for inputs (N, J, inputs)."""
        if self.kind == "per_joint":
            coded: Tensor = self.mlp(x.transpose(0, 1)).transpose(0, 1)  # (J, N, ·) inside
        elif self.kind == "whole_pose":
            coded = self.mlp(x.flatten(1)).unflatten(1, (-1, self.n_outputs))  # (N, J·inputs) -> (N, J, outputs)
        else:
            coded = self.mlp(x)  # (N, J, outputs)
        return coded


class Messages(nn.Module):
    """The messages of all joints, with a separate MLP for each.

    Joints with the same number of neighbours are computed together. States are kept sorted by the number of neighbours,
    so that the outputs need not be reordered in every round.

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

    def sorted(self, states: Tensor) -> Tensor:
        """Returns states, (N, J, latent), sorted by the number of neighbours."""
        return states.index_select(1, self.get_buffer("joints"))

    def unsorted(self, states: Tensor) -> Tensor:
        """Returns sorted states, (N, J, latent), in the skeleton's order."""
        return states.index_select(1, self.get_buffer("places"))

    def forward(self, states: Tensor) -> Tensor:
        """Returns the messages, (N, J, latent), for sorted states, (N, J, latent)."""
        return torch.cat([stack(states) for stack in self.stacks]).transpose(0, 1)  # (J, N, latent) -> (N, J, latent)


class MessageStack(nn.Module):
    """The messages of S joints with the same number of neighbours, computed by a stack of MLPs.

    Args:
        senders: For each of the joints its own index in the states and those of its neighbours.
        latent_dim: Size of a joint's state.
        hidden_dims: Width of each hidden layer.
        dropout: Dropout probability of hidden units.
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
        """Returns the messages, (S, N, latent), for states, (N, J, latent)."""
        sent = states.index_select(1, self.get_buffer("senders"))  # (N, S·senders, latent)
        # The states of a joint's senders are contiguous, so its inputs are a view.
        inputs = sent.view(-1, self.n_joints, self.n_inputs)  # (N, S, senders·latent)
        messages: Tensor = self.mlp(inputs.transpose(0, 1))  # (S, N, senders·latent) -> (S, N, latent)
        return messages
