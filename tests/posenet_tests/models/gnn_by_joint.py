"""`CorrectorGNN` written like its description, one joint after another: the reference for its tests and benchmark."""

import torch
from torch import nn

from posenet.models import CorrectorGNN


class GNNByJoint(nn.Module):
    """The same network as a `CorrectorGNN` with shared coders, with a module for each joint's messages.

    Attributes:
        senders: For each joint, itself and its neighbours.
    """

    def __init__(self, model: CorrectorGNN) -> None:
        super().__init__()
        self.n_iter = model.n_iter
        self.encoder, self.decoder = model.encoder.mlp, model.decoder.mlp
        edges, joints = model.skeleton.message_edges, range(model.skeleton.n_joints)
        neighbours = [sorted({j for edge in edges if joint in edge for j in edge} - {joint}) for joint in joints]
        self.senders = [[joint, *neighbours[joint]] for joint in joints]
        # The model sorts its joints by their number of neighbours, with a stack for each number.
        mlps = [_mlp(stack.mlp.layers, i) for stack in model.messages.stacks for i in range(stack.n_joints)]
        places = sorted(joints, key=lambda joint: (len(neighbours[joint]), joint))
        self.messages = nn.ModuleList(mlps[places.index(joint)] for joint in joints)

    def forward(self, poses):
        """Returns the corrected poses, (N, J, 3)."""
        states = self.encoder(poses)
        for _ in range(self.n_iter):
            messages = [mlp(self.inputs(states, joint)) for joint, mlp in enumerate(self.messages)]
            states = states + torch.stack(messages, dim=1)
        return poses + self.decoder(states)

    def inputs(self, states, joint):
        return torch.cat([states[:, sender] for sender in self.senders[joint]], dim=1)

    def stacked_gradients(self, model: CorrectorGNN) -> list[torch.Tensor]:
        """Returns the gradients of the joints' messages in the layout of the model's stacked parameters."""
        joints = sorted(range(len(self.senders)), key=lambda joint: (len(self.senders[joint]), joint))
        gradients = []
        for stack in model.messages.stacks:
            linears = [[layer for layer in self.messages[joint] if isinstance(layer, nn.Linear)] for joint in joints]
            for layers in list(zip(*linears[: stack.n_joints], strict=True)):
                gradients.append(torch.stack([layer.weight.grad.T for layer in layers]))
                gradients.append(torch.stack([layer.bias.grad[None] for layer in layers]))
            del joints[: stack.n_joints]
        return gradients


def _mlp(stacked, i):
    layers = []
    for layer in stacked:
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[2], dtype=layer.weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(layer.weight[i].T)
            linear.bias.copy_(layer.bias[i, 0])
        layers += [linear, nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])
