"""A multilayer perceptron whose weights the fingers share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import Activation, check_activation, check_dropout, check_widths, mlp, zero


class CorrectorFingerMLP(Corrector):
    """Corrects the fingers with one network, which is applied to each of them.

    The network computes the correction of a finger's joints from these joints, in the order from the palm outwards, and
    from the joints that are on no finger, such as the wrist. It sees no other finger and does not know which finger it
    corrects. Another network corrects the joints that are on no finger, from the whole pose.

    Fingers with the same number of joints share a network: in HANDS17 and ICVL all five; in NYU, whose thumb has three
    joints and whose other fingers have two, the four fingers, and the thumb has its own.

    Args:
        skeleton: The skeleton of the poses, with fingers; each joint is on at most one of them.
        hidden_dims: Width of each hidden layer of every network.
        activation: A name of `posenet.models.layers.ACTIVATIONS`, or a module such as `nn.LeakyReLU(0.1)`. Each hidden
            layer gets a copy of it, so those with parameters of their own, such as `nn.PReLU()`, learn them separately.
        dropout: Dropout probability of hidden units.
        zero_init: Initialise the last layers with zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        hidden_dims: Sequence[int],
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__(skeleton)
        check_activation(activation)
        check_widths("hidden_dims", hidden_dims)
        check_dropout(dropout)

        fingers = _fingers(skeleton)
        on_fingers = [joint for finger in fingers for joint in finger]
        others = [joint for joint in range(skeleton.n_joints) if joint not in on_fingers]
        groups = [
            SharedMLP(
                [(*finger, *others) for finger in fingers if len(finger) == n], n, hidden_dims, activation, dropout
            )
            for n in sorted({len(finger) for finger in fingers})
        ]
        if others:
            groups.append(SharedMLP([(*others, *on_fingers)], len(others), hidden_dims, activation, dropout))
        self.groups = nn.ModuleList(groups)
        corrected = [joint for group in groups for joint in group.corrected]
        self.register_buffer("places", torch.tensor(corrected).argsort(), persistent=False)
        if zero_init:
            for group in groups:
                zero(group.layers[-1])

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""
        corrections = torch.cat([group(poses) for group in self.groups], dim=1)  # (N, J, 3)
        return corrections.index_select(1, self.get_buffer("places"))


class SharedMLP(nn.Module):
    """One multilayer perceptron that is applied to each of F lists of joints.

    Args:
        joints: The joints of each list, in the order of the inputs; all lists have the same length.
        n_corrected: L, how many of the joints are corrected, the first ones of each list.
        hidden_dims: Width of each hidden layer.
        activation: As for `CorrectorFingerMLP`.
        dropout: Dropout probability of hidden units.

    Attributes:
        corrected: The corrected joints of all lists.
    """

    def __init__(
        self,
        joints: Sequence[Sequence[int]],
        n_corrected: int,
        hidden_dims: Sequence[int],
        activation: Activation,
        dropout: float,
    ) -> None:
        super().__init__()
        self.corrected = [joint for each in joints for joint in each[:n_corrected]]
        self.n_lists = len(joints)
        self.n_inputs = 3 * len(joints[0])
        dims = [self.n_inputs, *hidden_dims, 3 * n_corrected]
        self.layers = mlp(dims, activation=activation, dropout=dropout)
        self.register_buffer("joints", torch.tensor(joints).flatten(), persistent=False)

    def forward(self, poses: Tensor) -> Tensor:
        """Returns the corrections of the corrected joints, (N, F·L, 3), for `poses`, (N, J, 3)."""
        n_poses = poses.shape[0]  # `len` would fix it when the model is exported
        listed = poses.index_select(1, self.get_buffer("joints"))  # (N, F·K, 3)
        # A list in each row, as activations expect it: their second dimension is that of the units.
        corrections: Tensor = self.layers(listed.view(n_poses * self.n_lists, self.n_inputs))  # (N·F, 3·L)
        return corrections.view(n_poses, len(self.corrected), 3)  # (N, F·L, 3)


def _fingers(skeleton: Skeleton) -> list[tuple[int, ...]]:
    """Returns the joints of each finger.

    Raises:
        ValueError: If there are none, or if a joint is on two of them.
    """
    fingers = [joints for _, joints in skeleton.fingers]
    joints = [joint for finger in fingers for joint in finger]
    if not fingers:
        raise ValueError(
            f"CorrectorFingerMLP needs a skeleton with fingers, but {skeleton.name} has none; name the joints of each, "
            'from the palm outwards: Skeleton(..., fingers=(("thumb", (1, 2, 3)), ("index", (4, 5, 6)), ...))'
        )
    if len(set(joints)) < len(joints):
        raise ValueError(
            f"CorrectorFingerMLP needs fingers without common joints, but those of {skeleton.name} are "
            f"{dict(skeleton.fingers)}"
        )
    return fingers
