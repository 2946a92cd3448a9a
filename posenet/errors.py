"""Errors of poses against labels, one number for each coordinate, joint, bone or pair of bones.

Every function takes `(poses, labels, skeleton)`, poses and labels (N, J, 3) in the same space, and returns (N, K).
`posenet.metrics` reduces them to one number per sample, `posenet.losses` to one number per batch.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from data_pipeline.layout import samples_first, samples_last, squared_lengths, whole_samples
from data_pipeline.skeleton import Skeleton

ErrorFunction = Callable[[Tensor, Tensor, Skeleton], Tensor]

MAX_PROPORTION_ERROR = 10.0
"""The proportion error is clamped to this value: with a bone of zero length it would be infinite."""

_MIN_LENGTH = 1e-6  # keeps the logarithm finite for a bone of zero length


def coordinate_difference(poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
    """Returns pose minus label for every coordinate, (N, 3J), signed."""
    return (poses - labels).flatten(1)  # (N, J, 3) -> (N, 3J)


def distance_error(poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
    """Returns the Euclidean distance between predicted and true joint, (N, J)."""
    return _lengths(poses - labels)  # (N, J, 3) -> (N, J)


def bone_length_error(poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
    """Returns the predicted minus the true length of every bone, (N, B), signed."""
    return bone_lengths(poses, skeleton) - bone_lengths(labels, skeleton)


def proportion_error(poses: Tensor, labels: Tensor, skeleton: Skeleton) -> Tensor:
    """Returns the relative error of the ratio of two bone lengths, for all pairs of bones, (N, B·(B − 1)/2).

    For bones i < j with predicted lengths a and true lengths b it is the larger of (a_i/a_j)/(b_i/b_j) and its inverse,
    minus 1, clamped to [0, 10]. With d = log(a/b) this is exp|d_i − d_j| − 1. It is invariant to scaling, rotation and
    translation of a pose.
    """
    return proportion_error_of_lengths(bone_lengths(poses, skeleton), bone_lengths(labels, skeleton))


def proportion_error_of_lengths(predicted: Tensor, true: Tensor) -> Tensor:
    """Returns the same from bone lengths, (N, B) each."""
    # Gathering whole rows is several times as fast as gathering columns.
    scales = (predicted.clamp(min=_MIN_LENGTH) / true.clamp(min=_MIN_LENGTH)).t().contiguous()  # (N, B) -> (B, N)
    first, second = _bone_pairs(len(scales), scales.device)
    if torch.is_grad_enabled():
        d = scales.log()
        ratios = d.index_select(0, first).sub_(d.index_select(0, second)).abs_().exp_()  # (B·(B − 1)/2, N)
        # Torch's `expm1` takes five times as long as its `exp`, whose rounding, 10⁻⁷ of a ratio, does not matter here.
    else:
        # This takes half the time, but its gradient twice as long.
        ratios = scales.index_select(0, first).div_(scales.index_select(0, second))  # (B·(B − 1)/2, N)
        ratios = torch.maximum(ratios, ratios.reciprocal())
    return ratios.clamp(max=1 + MAX_PROPORTION_ERROR).sub_(1).t()  # -> (N, B·(B − 1)/2)


def bone_lengths(poses: Tensor, skeleton: Skeleton) -> Tensor:
    """Returns the length of every bone of poses (N, J, 3), (N, B)."""
    start, end = _bone_ends(skeleton, poses.device)
    joints = samples_last(poses)  # (J, 3, N)
    return _lengths(samples_first(joints.index_select(0, end) - joints.index_select(0, start)))  # (B, 3, N) -> (N, B)


def _lengths(vectors: Tensor) -> Tensor:
    """Returns the lengths of vectors, (N, K, 3), (N, K)."""
    if torch.is_grad_enabled():
        lengths: Tensor = torch.linalg.vector_norm(whole_samples(vectors), dim=2)  # (N, K)
        return lengths
    # This takes half the time or less, but its gradient is NaN at zero.
    return squared_lengths(vectors.mT).sqrt_()  # (N, K, 3) -> (N, 3, K) -> (N, K)


# The cached tensors may be created in an evaluation and used in training, which refuses inference-mode tensors.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _bone_ends(skeleton: Skeleton, device: torch.device) -> tuple[Tensor, Tensor]:
    bones = torch.tensor(skeleton.bones, device=device)  # (B, 2)
    return bones[:, 0].contiguous(), bones[:, 1].contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _bone_pairs(n_bones: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(n_bones, n_bones, offset=1, device=device)  # (B·(B − 1)/2,) each
    return first, second
